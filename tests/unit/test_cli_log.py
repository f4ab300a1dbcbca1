"""slurm-gov log and the times it takes; what users wrote is shown as nothing but text. No Slurm."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from slurm_gov.cli.main import cli
from slurm_gov.cli.times import moment
from slurm_gov.cli.usage import _cell
from slurm_gov.cli.usage_page import page
from slurm_gov.ledger import Event, Kind, LedgerError, events, note
from slurm_gov.ledger.report import By, Row
from slurm_gov.ledger.store import Words, open_to_write, write

HOSTILE = "\x1b[31mred[/bold]\u202e<script>\n2026 forged line"


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    now = time.time()
    db = open_to_write(path)
    write(
        db,
        Words(),
        [
            Event(Kind.CAP, "nothing more is lent to it", at=now - 7200, team="research", pool="h100", before="24",
                  after="16"),
            Event(Kind.PREEMPT, "why it", at=now - 60, team="research", pool="h100", job="7", user="ann", gpus=8,
                  for_team="product", for_job="9", after="grace 30 s"),
            Event(Kind.REFUSE, HOSTILE, at=now - 30, who=HOSTILE, user=HOSTILE, team="product", after="tres"),
        ],
        (),
    )  # fmt: skip
    db.close()
    return path


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli, ["log", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def test_one_line_each_the_oldest_first(ledger: Path) -> None:
    lines = run("--ledger", ledger).splitlines()
    assert len(lines) == 3
    assert lines[0].endswith("cap     research     h100 24 > 16: nothing more is lent to it")
    assert lines[1].endswith("preempt research     job 7 (ann, 8 h100) for job 9 (product) grace 30 s: why it")


def test_what_users_wrote_is_text(ledger: Path) -> None:
    said = run("--ledger", ledger, "--kind", "refuse")
    assert len(said.splitlines()) == 1
    assert "\x1b" not in said and "\u202e" not in said
    assert "[/bold]" in said and "\\x1b[31mred" in said
    assert json.loads(run("--ledger", ledger, "--kind", "refuse", "--json"))["who"] == HOSTILE


def test_how_many(ledger: Path) -> None:
    assert len(run("--ledger", ledger, "-n", "1").splitlines()) == 1
    assert len(run("--ledger", ledger, "--since", "1h").splitlines()) == 2
    assert len(run("--ledger", ledger, "--until", "1h").splitlines()) == 1
    assert run("--ledger", ledger, "-n", "0") == ""


def test_others_may_add_to_a_ledger_that_is_there(ledger: Path, tmp_path: Path) -> None:
    note(ledger, [Event(Kind.POLICY, "slurm-gov policy: QOS x: create", who="root")])
    assert events(ledger)[-1].event.who == "root"
    with pytest.raises(LedgerError, match="no ledger"):
        note(tmp_path / "none.db", [])
    assert not (tmp_path / "none.db").exists()


NOW = datetime(2026, 11, 23, 15, 30, 20).timestamp()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("now", datetime(2026, 11, 23, 15, 30, 20)),
        ("today", datetime(2026, 11, 23)),
        ("yesterday", datetime(2026, 11, 22)),
        ("90m", datetime(2026, 11, 23, 14, 0, 20)),
        ("1.5h ago", datetime(2026, 11, 23, 14, 0, 20)),
        ("2d", datetime(2026, 11, 21, 15, 30, 20)),
        ("8:05", datetime(2026, 11, 23, 8, 5)),
        ("2026-11", datetime(2026, 11, 1)),
        ("2026-11-05", datetime(2026, 11, 5)),
        ("2026-11-05 14:00", datetime(2026, 11, 5, 14)),
        ("2026-11-05T14:00:01", datetime(2026, 11, 5, 14, 0, 1)),
    ],
)
def test_moments(text: str, meant: datetime) -> None:
    assert moment(text, NOW) == meant.timestamp()


@pytest.mark.parametrize("text", ["", "soon", "5", "-2h", "25:00", "2026-13-01", "99999999999d"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        if moment(text, NOW) < 0:
            raise ValueError("before the epoch")


def test_what_users_wrote_is_text_in_a_page_and_no_formula_in_a_sheet() -> None:
    from slurm_gov.cli.usage import Report

    row = Row(None, "<script>alert(1)</script>", None, 1.0, 1.0, 0.0, None, 0.0, 0.0, 0.0, None, 1, None)
    text = page(Report(By.USER, NOW - 86_400, NOW, 1.0, [row], [row], ["<b>note</b>"]))
    assert "<script>" not in text and "<b>" not in text
    assert "&lt;script&gt;" in text
    assert _cell("=HYPERLINK(1)") == "'=HYPERLINK(1)"
