"""slurm-gov top: what it asks, what it shows at 80 x 24, and that names of users are nothing but text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from click.testing import CliRunner
from clusters import TWO, being_preempted, full_of_research, snapshot, waiting

from slurm_gov.cli import frame as frames
from slurm_gov.cli.common import Failure
from slurm_gov.cli.frame import Frame, NoAnswer, ask
from slurm_gov.cli.screen import Top
from slurm_gov.cli.top import top
from slurm_gov.core import rows
from slurm_gov.core.actions import actions
from slurm_gov.core.plan import plan
from slurm_gov.core.rows import Look
from slurm_gov.daemon.http import HttpServer
from slurm_gov.web.app import make_app
from slurm_gov.web.board import Board, Happening

HOSTILE = "[bold]x[/]\x1b]0;owned\x07\u202e<b>"
TOKEN = "a-token-of-some-length"


def look() -> Look:
    jobs = full_of_research()
    jobs[-1] = being_preempted(jobs[-1], 20)
    wants = [
        replace(waiting(20, "product", nodes=2), name=HOSTILE, user=HOSTILE),
        replace(waiting(21, "research", nodes=4), slurm_reason="AssocGrpGRES"),
    ]
    seen = snapshot(8, *jobs, *wants)
    decided = plan(TWO, seen)
    return Look(TWO, seen, decided, actions(TWO, seen, decided))


def board() -> Board:
    made = Board()
    made.happened(
        lambda id: Happening(id, 1e9, "cap", why=HOSTILE, team="research", pool="h100", before="32", after="64")
    )
    made.put(look())
    return made


@pytest.fixture(scope="module")
def frame() -> Frame:
    server = HttpServer(make_app(board()), "127.0.0.1:0")
    server.start()
    try:
        return ask(server.url, "")
    finally:
        server.stop()


def test_the_daemons_rows_are_those_that_are_computed_here(frame: Frame) -> None:
    seen = look()

    def plainly(found: list[Any]) -> list[Any]:
        return json.loads(json.dumps([asdict(row) for row in found]))

    assert frame.waiting == plainly(rows.waiting(seen))
    assert frame.teams == plainly(rows.teams(seen))
    assert frame.preemptions == plainly(rows.preemptions(seen))
    for row, computed in zip(frame.pools, plainly(rows.pools(seen)), strict=True):
        assert {name: row[name] for name in computed} == computed
    assert frame.decisions and frame.decisions[0]["why"] == HOSTILE


def test_without_an_answer_slurm_itself_is_asked(monkeypatch: pytest.MonkeyPatch, frame: Frame) -> None:
    monkeypatch.setattr(frames, "look", lambda path: replace(frame, source=path))
    assert frames.frame("http://127.0.0.1:1/", "", "policy.yaml").source == "policy.yaml"

    def fail(path: str) -> Frame:
        raise Failure("Slurm does not answer")

    monkeypatch.setattr(frames, "look", fail)
    with pytest.raises(Failure, match=r"Slurm does not answer; slurm-govd at .* does not answer"):
        frames.frame("http://127.0.0.1:1/", "", "policy.yaml")


def test_a_token_is_sent_and_its_lack_is_said() -> None:
    server = HttpServer(make_app(board()), "127.0.0.1:0", TOKEN)
    server.start()
    try:
        assert ask(server.url, TOKEN).pools
        with pytest.raises(NoAnswer, match="wants a token"):
            ask(server.url, "")
    finally:
        server.stop()


def test_a_daemon_that_has_seen_nothing_yet() -> None:
    server = HttpServer(make_app(Board()), "127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(NoAnswer, match="answers 503"):
            ask(server.url, "")
    finally:
        server.stop()


def test_it_needs_a_terminal() -> None:
    done = CliRunner().invoke(top, [])
    assert done.exit_code == 1
    assert "top needs a terminal" in done.output


# -- the screen ----------------------------------------------------------------------------------------------


def seen_in(app: Top) -> str:
    """The screen's text, line by line."""
    width, height = app.size
    lines = []
    for strip in app.screen._compositor.render_strips():
        lines.append(strip.text[:width].rstrip())
    return "\n".join(lines[:height])


Script = Callable[[Top, Any], Awaitable[None]]


def play(frame: Frame, size: tuple[int, int], script: Script, more: Any = None, interval: float = 60) -> None:
    """Run the screen without a terminal, and the script in it."""

    async def run() -> None:
        app = Top(more or (lambda: frame), frame, interval)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await script(app, pilot)

    asyncio.run(run())


async def comes(app: Top, pilot: Any, text: str) -> None:
    """Wait until something stands there."""
    for _ in range(400):
        if text in seen_in(app):
            return
        await pilot.pause(0.02)
    raise AssertionError(f"{text!r} does not come:\n{seen_in(app)}")


def test_at_80_by_24_all_of_it_fits(frame: Frame) -> None:
    async def script(app: Top, pilot: Any) -> None:
        await comes(app, pilot, "h100  64 of 64 GPUs used, 32 borrowed")
        text = seen_in(app)
        assert "product" in text and "research" in text and "q quit" in text
        assert all(len(line) <= 80 for line in text.splitlines())
        await pilot.press("w")
        await comes(app, pilot, "reclaiming")
        await pilot.press("down")
        await comes(app, pilot, "Slurm says AssocGrpGRES")
        await pilot.press("l")
        await comes(app, pilot, "over: requeue")
        await pilot.press("d")
        await comes(app, pilot, "research: 32 > 64 h100")

    play(frame, (80, 24), script)


def test_nothing_but_text_reaches_the_terminal(frame: Frame) -> None:
    async def script(app: Top, pilot: Any) -> None:
        for key in "wd":
            await pilot.press(key)
            await comes(app, pilot, "[bold]x[/]")
            text = seen_in(app)
            assert not any(mark in text for mark in "\x1b\x07\u202e")

    play(frame, (160, 50), script)


def first(app: Top) -> str:
    """The team in the first row."""
    return next(line.split()[0] for line in seen_in(app).splitlines() if line.startswith((" product", " research")))


def test_sorting_and_filtering(frame: Frame) -> None:
    async def script(app: Top, pilot: Any) -> None:
        await pilot.press("s")
        await comes(app, pilot, "team ▲")
        assert first(app) == "product"
        await pilot.press("r")
        await comes(app, pilot, "team ▼")
        assert first(app) == "research"
        await pilot.press("slash", *"prod", "enter")
        await comes(app, pilot, "only: prod")
        assert "\n research" not in seen_in(app)
        await pilot.press("escape")
        await comes(app, pilot, "\n research")

    play(frame, (100, 30), script)


def test_when_nobody_answers_the_last_figures_stay_and_it_is_said(frame: Frame) -> None:
    def fail() -> Frame:
        raise Failure("Slurm does not answer")

    async def script(app: Top, pilot: Any) -> None:
        await comes(app, pilot, "Slurm does not answer")
        text = seen_in(app)
        assert "64 of 64 GPUs used" in text and "ago)" in text

    play(frame, (80, 24), script, fail, interval=0.5)


def test_without_the_daemon_there_are_no_decisions_to_show(frame: Frame) -> None:
    async def script(app: Top, pilot: Any) -> None:
        await pilot.press("d")
        await comes(app, pilot, "only it knows what it decided")

    play(replace(frame, decisions=None), (80, 24), script)
