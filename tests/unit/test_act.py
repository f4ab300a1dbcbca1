"""Doing what a plan asks for: what is told to Slurm, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest
from clusters import NOW, TWO, running, snapshot

from slurm_gov.core.actions import actions
from slurm_gov.core.decision import Plan, Preempt
from slurm_gov.core.snapshot import Mark, Snapshot
from slurm_gov.daemon.act import act
from slurm_gov.daemon.deeds import Deeds


class Slurm:
    """A client that notes what it is asked to change."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, Mark | None]] = []

    async def mark(self, job: int, mark: Mark | None) -> None:
        self.asked.append(("mark", job, mark))

    async def requeue(self, jobs: Iterable[int]) -> None:
        self.asked += [("requeue", job, None) for job in jobs]


def asked(seen: Snapshot, plan: Plan = Plan({})) -> list[tuple[str, int, Mark | None]]:  # noqa: B008 (it never changes)
    slurm = Slurm()
    todo = actions(TWO, seen, plan)
    done = Deeds(TWO, seen, plan, lambda event: None)
    assert asyncio.run(act(slurm, TWO, todo, NOW, done)) == 0  # type: ignore[arg-type]
    return slurm.asked


@pytest.mark.parametrize("spared", [True, False])
def test_a_job_that_ended_in_its_grace_period_is_requeued_and_noted_as_having_left(spared: bool) -> None:
    job = running(1, "research", "n1")
    told = Mark(9, "product", NOW - 20, NOW + 10, job.start, "why")
    changes = asked(replace(snapshot(8), ended=(replace(job, mark=replace(told, spared=spared)),)))
    # Slurm takes no note on a job that has ended: only when it waits again.
    assert changes == [("requeue", 1, None), *([("mark", 1, told)] if spared else [])]


def test_who_leaves_for_another_now_is_noted_before_it_goes_and_not_signalled_again() -> None:
    job = running(1, "research", "n1")
    told = replace(job, mark=Mark(9, "product", NOW - 40, NOW - 10, job.start, "why"))
    now = Plan({}, (Preempt(1, "1", "research", 10, "10", "product", "takes back 8 of h100"),))
    mark = replace(told.mark, beneficiary=10, since=NOW, reason="takes back 8 of h100")
    assert asked(snapshot(8, told), now) == [("mark", 1, mark), ("requeue", 1, None)]
