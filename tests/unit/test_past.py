"""What teams and cohorts borrowed lately reaches the cycle, from the ledger, also of an earlier daemon."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import policy, snapshot, team

from slurm_gov.core.policy import Cohort, frozen
from slurm_gov.daemon.past import Past
from slurm_gov.ledger import Ledger, Span


def test_an_earlier_daemons_ledger_is_read_and_not_in_every_cycle(tmp_path: Path) -> None:
    path, now = tmp_path / "ledger.db", time.time()
    rules = policy(team("ant", 0), team("bee", 0))
    first, long, other = (replace(rules, half_life=seconds) for seconds in (5e6, 1e6, 1e5))

    def write(team: str) -> None:
        ledger = Ledger(path)
        ledger.start()
        ledger.record_spans([Span(team, "h100", now - 1000, now, 0, 8, 8, 8, 0, 0, 0)])
        ledger.close()

    async def cycles() -> None:
        past, seen = Past(path), snapshot(1)
        assert await past.filled_in(rules, seen) is seen
        assert not (await past.filled_in(first, seen)).borrowed_lately  # there is no ledger yet
        write("ant")
        past = Past(path)
        assert (await past.filled_in(long, seen)).borrowed_lately == {"ant": pytest.approx(8000, rel=1e-2)}
        write("bee")
        assert set((await past.filled_in(long, seen)).borrowed_lately) == {"ant"}
        assert set((await past.filled_in(other, seen)).borrowed_lately) == {"ant", "bee"}  # another policy

    asyncio.run(cycles())


def test_other_cohorts_are_looked_for_at_once_and_no_cycle_waits_for_them(tmp_path: Path) -> None:
    path, now = tmp_path / "ledger.db", time.time()
    ledger = Ledger(path)
    ledger.start()
    ledger.record_spans([Span("ant", "h100", now - 1000, now, 0, 8, 8, 8, 0, 0, 0)])
    ledger.close()

    def rules(cohort: str):
        return policy(team("ant", 0, cohort=cohort), half_life=1e6, cohorts=frozen({cohort: Cohort(cohort)}))

    async def cycles() -> None:
        past, seen, after = Past(path), snapshot(1), rules("new")
        assert set((await past.filled_in(rules("old"), seen)).cohorts_borrowed_lately) == {"old"}
        assert set((await past.filled_in(after, seen)).cohorts_borrowed_lately) == {"old"}
        for _ in range(500):
            await asyncio.sleep(0.01)
            found = await past.filled_in(after, seen)
            if set(found.cohorts_borrowed_lately) == {"new"}:
                break
        assert found.cohorts_borrowed_lately == {"new": pytest.approx(8000, rel=1e-2)}
        assert found.borrowed_lately == {"ant": pytest.approx(8000, rel=1e-2)}

    asyncio.run(cycles())
