"""Reboots and replacements: their tries, their time limit, what they say meanwhile, what a crash leaves of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from slurm_gov.core.health import Effect, Repair
from slurm_gov.core.health import Provider as Rules
from slurm_gov.health.journal import Journal, Operation
from slurm_gov.health.lifecycle import Progress, Record, State
from slurm_gov.health.operations import Operations
from slurm_gov.health.providers.command import CommandProvider

RULES = Rules("power", "command", time_limit=60, attempts=3, backoff=0.2)
NODE = Record("n1", "h100", State.REPLACING, 1000.0, "xid 74", Effect.FAIL, Repair.REPLACE, "NVLink", turn=3,
              kind="gpu_link")  # fmt: skip


class Site:
    """A site's command, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.dir = folder
        self.journal = Journal(folder / "nodes.db")
        self.told: list[Operation] = []
        self.provider = CommandProvider([str(folder / "power")])

    def does(self, body: str) -> None:
        text = f"#!/bin/sh\ncd {self.dir}\ncat >> asked; echo >> asked\n{body}\n"
        (self.dir / "power").write_text(text)
        (self.dir / "power").chmod(0o755)

    def operations(self) -> Operations:
        return Operations(self.journal, time.time, self.told.append)

    def asked(self) -> list[dict[str, object]]:
        file = self.dir / "asked"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    async def until(self, check: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not check():
                await asyncio.sleep(0.02)

    def ends(self, rules: Rules = RULES, record: Record = NODE) -> Operation:
        """Run the operation of a node until it has ended, asking for it again and again as the lifecycle does."""

        async def run() -> Operation:
            operations = self.operations()

            def over() -> bool:
                operations.ensure(record, self.provider, rules)
                outcome = operations.outcome(record)
                return outcome is not None and outcome.progress is not Progress.RUNNING

            await self.until(over)
            found = operations.attempt(record)
            assert found is not None
            return found

        return asyncio.run(run())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_it_is_asked_once_and_told_what_for(site: Site) -> None:
    site.does("echo powered")
    done = site.ends()
    assert (done.progress, done.attempt, done.message) == ("done", 1, "powered")
    (asked,) = site.asked()
    about = {"node": "n1", "operation": "replace", "attempt": 1, "fault": "gpu_link", "pool": "h100"}
    assert about.items() <= asked.items()
    assert site.ends() == done and len(site.asked()) == 1, "done is done, for the next daemon too"


def test_it_is_tried_again_after_a_while_that_grows(site: Site) -> None:
    site.does("echo busy; exit 75")
    done = site.ends()
    assert (done.progress, done.attempt, done.message) == ("failed", 3, "not now: busy")
    times = [float(str(one["time"])) for one in site.asked()]
    assert times[1] - times[0] >= 0.2 and times[2] - times[1] >= 0.4
    assert [one["attempt"] for one in site.asked()] == [1, 2, 3]
    assert len({one["id"] for one in site.asked()}) == 3


def test_what_it_cannot_do_is_not_tried_again(site: Site) -> None:
    site.does("echo no spare parts; exit 64")
    assert (site.ends().message, len(site.asked())) == ("no spare parts", 1)


def test_one_that_hangs_is_ended_with_all_that_it_started(site: Site) -> None:
    site.does("[ $1 = status ] && { echo the fan is off; exit; }; sleep 600 & echo $! > child; wait")
    done = site.ends(replace(RULES, time_limit=1, attempts=1))
    assert (done.progress, done.message) == ("failed", "not done within 1 s; its provider says: the fan is off")
    child = Path(f"/proc/{(site.dir / 'child').read_text().strip()}/stat")
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_how_far_it_is_is_said(site: Site) -> None:
    site.does("echo 10 % copied; until [ -e go ]; do sleep 0.05; done; echo ready")

    async def run() -> None:
        operations = site.operations()
        operations.ensure(NODE, site.provider, RULES)
        await site.until(lambda: any(one.message == "10 % copied" for one in site.told))
        known = site.journal.operation(NODE.operation)
        assert known is not None and (known.progress, known.message) == ("running", "10 % copied")
        (site.dir / "go").touch()
        await site.until(lambda: site.told[-1].progress == "done")

    asyncio.run(run())
    assert site.told[-1].message == "ready" and site.told[-1].attempt == 1


def test_the_next_daemon_goes_on_with_the_same_try_and_the_same_deadline(site: Site) -> None:
    site.does("[ -e again ] && { echo found it done; exit 0; }; touch again; sleep 600")

    async def crash() -> None:
        operations = site.operations()
        operations.ensure(NODE, site.provider, RULES)
        await site.until(lambda: (site.dir / "again").exists())
        await operations.stop()

    asyncio.run(crash())
    done = site.ends()
    assert (done.progress, done.message) == ("done", "found it done")
    first, second = site.asked()
    assert first == second, "the same request, so that nothing is done twice"


def test_a_journal_that_could_not_be_written_does_not_end_it_for_good(site: Site) -> None:
    site.does("echo well")

    async def run() -> Operation | None:
        operations = site.operations()
        keep, failing = site.journal.keep_operation, [True]

        def full(one: Operation) -> None:
            if one.progress == "done" and failing.pop() if failing else False:
                raise OSError("no space left on device")
            keep(one)

        site.journal.keep_operation = full  # type: ignore[method-assign]

        def over() -> bool:
            operations.ensure(NODE, site.provider, RULES)
            outcome = operations.outcome(NODE)
            return outcome is not None and outcome.progress is Progress.DONE

        await site.until(over)
        return operations.attempt(NODE)

    done = asyncio.run(run())
    assert done is not None and (done.progress, done.attempt) == ("done", 1)
    assert len(site.asked()) == 2 and len({one["id"] for one in site.asked()}) == 1


def test_a_node_that_is_let_go_is_not_operated_on_any_more(site: Site) -> None:
    site.does("touch begun; sleep 600")

    async def run() -> None:
        operations = site.operations()
        operations.ensure(NODE, site.provider, RULES)
        await site.until(lambda: (site.dir / "begun").exists())
        operations.release("n1")
        await operations.stop()

    asyncio.run(run())
    known = site.journal.operation(NODE.operation)
    assert known is not None and known.progress == "failed" and "let go" in known.message
