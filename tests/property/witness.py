"""A plan in the order in which it came about: who was served after whom, on which nodes, and who leaves for each."""

from __future__ import annotations

from typing import Any, NamedTuple

from slurm_gov.core import plan as core
from slurm_gov.core.decision import Outcome, Plan, Reason
from slurm_gov.core.policy import Policy
from slurm_gov.core.queue import Batch
from slurm_gov.core.snapshot import Held, Snapshot, WaitingJob
from slurm_gov.core.victims import Claim


class Served(NamedTuple):
    """One task that got a place: ``claims`` says of each job that leaves for it, by id, why it may be asked to."""

    job: WaitingJob
    held: tuple[Held, ...]
    reason: Reason
    claims: dict[int, Claim]


class _Watched(core._Cycle):
    """A cycle that remembers whom it served."""

    served: list[Served]  # of the last cycle

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.claims: dict[int, Claim] = {}
        _Watched.served = []

    def _take_place_of(self, batch: Batch, found: core._Chosen) -> None:
        self.claims = {one.victim.job.id: one.claim for one in found.victims}
        super()._take_place_of(batch, found)

    def _start(self, batch: Batch, held: tuple[Held, ...], outcome: Outcome) -> None:
        _Watched.served.append(Served(batch.first.job, held, outcome[0], self.claims))
        self.claims = {}
        super()._start(batch, held, outcome)


def planned(policy: Policy, snapshot: Snapshot) -> tuple[Plan, list[Served]]:
    """The plan, and how it came about."""
    cycle, core._Cycle = core._Cycle, _Watched  # type: ignore[misc]
    try:
        return core.plan(policy, snapshot), _Watched.served
    finally:
        core._Cycle = cycle  # type: ignore[misc]
