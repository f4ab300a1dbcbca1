"""Doing what a plan asks for: what is told to Slurm, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest
from clusters import NOW, TWO, running, snapshot

from slurm_gov.core.actions import actions
from slurm_gov.core.decision import Plan
from slurm_gov.core.snapshot import Mark, RunningJob
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


def asked(ended: RunningJob) -> list[tuple[str, int, Mark | None]]:
    slurm, seen = Slurm(), replace(snapshot(8), ended=(ended,))
    todo = actions(TWO, seen, Plan({}))
    done = Deeds(TWO, seen, Plan({}), lambda event: None)
    assert asyncio.run(act(slurm, TWO, todo, NOW, done)) == 0  # type: ignore[arg-type]
    return slurm.asked


@pytest.mark.parametrize("spared", [True, False])
def test_a_job_that_ended_in_its_grace_period_is_requeued_and_noted_as_having_left(spared: bool) -> None:
    job = running(1, "research", "n1")
    told = Mark(9, "product", NOW - 20, NOW + 10, job.start, "why")
    changes = asked(replace(job, mark=replace(told, spared=spared)))
    # Slurm takes no note on a job that has ended: only when it waits again.
    assert changes == [("requeue", 1, None), *([("mark", 1, told)] if spared else [])]
