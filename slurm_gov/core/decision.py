"""What one cycle decided, and why: the plan and its parts."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, overload

from slurm_gov.core.snapshot import WaitingJob


class Reason(StrEnum):
    """Why a job waits: one of a fixed list, so that it can be counted and looked up."""

    STARTS_NOW = "starts_now"
    RECLAIMING = "reclaiming"
    PREEMPTING_WITHIN_TEAM = "preempting_within_team"
    WAITS_FOR_NODES = "waits_for_nodes"
    TEAM_AT_LIMIT = "team_at_limit"
    NOTHING_TO_BORROW = "nothing_to_borrow"
    BORROW_DOES_NOT_FIT = "borrow_does_not_fit"
    NOT_STARTED = "not_started"
    CAN_NEVER_RUN = "can_never_run"
    NOT_READY = "not_ready"
    NO_TEAM = "no_team"
    NO_POOL = "no_pool"


@dataclass(frozen=True, slots=True)
class Preempt:
    """One running job that must leave, for whom, and why it and not another."""

    job: int
    display_id: str
    team: str
    beneficiary: int
    beneficiary_display_id: str
    beneficiary_team: str
    reason: str


class Decision(NamedTuple):
    """What was decided of one waiting job. ``why`` is a sentence with the figures."""

    job: int
    display_id: str
    team: str | None
    pool: str | None
    reason: Reason
    why: str


Outcome = tuple[Reason, str, tuple[object, ...]]
"""What was decided, and why: a sentence for ``str.format``, and its figures. It is put together when it is read."""


class Verdict(NamedTuple):
    """What was decided of some waiting jobs, the same of all of them; ``jobs`` are in Slurm's order."""

    team: str | None
    pool: str | None
    outcome: Outcome
    jobs: Sequence[WaitingJob]

    @property
    def reason(self) -> Reason:
        return self.outcome[0]

    @property
    def why(self) -> str:
        """The sentence with its figures."""
        _, sentence, figures = self.outcome
        return sentence.format(*figures)

    def written(self, jobs: Iterable[WaitingJob]) -> list[tuple[WaitingJob, Decision]]:
        """Some of its jobs, and what was decided of each."""
        team, pool, reason, why = self.team, self.pool, self.reason, self.why
        return [(job, Decision(job.id, job.display_id, team, pool, reason, why)) for job in jobs]


class Decisions(Sequence[Decision]):
    """One decision for each waiting job, in Slurm's order.

    There may be tens of thousands, and most cycles look at few of them: they are written out when somebody reads
    them all. ``verdicts`` say the same for many jobs at once; they are the very same ones as in the plan before where
    nothing about them has changed.
    """

    def __init__(self, line: Sequence[WaitingJob] = (), verdicts: Sequence[Verdict] = ()) -> None:
        """``line`` are all waiting jobs in Slurm's order; each is in one verdict."""
        self.verdicts = verdicts
        self.line = line
        self._written: tuple[Decision, ...] | None = None

    def having(self, reasons: Collection[Reason]) -> list[Decision]:
        """Those with one of these reasons, in Slurm's order, without writing out the others."""
        chosen = [one for one in self.verdicts if one.outcome[0] in reasons]
        return _in_order([each for one in chosen for each in one.written(one.jobs)])

    def reasons(self, jobs: Container[int]) -> dict[int, Reason]:
        """Why these wait, by id, without writing out anything."""
        return {job.id: one.reason for one in self.verdicts for job in one.jobs if job.id in jobs}

    def _all(self) -> tuple[Decision, ...]:
        if self._written is None:
            found = {id(job): decision for one in self.verdicts for job, decision in one.written(one.jobs)}
            self._written = tuple([found[id(job)] for job in self.line])
        return self._written

    @overload
    def __getitem__(self, index: int) -> Decision: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Decision, ...]: ...

    def __getitem__(self, index: int | slice) -> Decision | tuple[Decision, ...]:
        return self._all()[index]

    def __iter__(self) -> Iterator[Decision]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self.line)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decisions) and self._all() == other._all()

    def __repr__(self) -> str:
        return f"Decisions{self._all()!r}"

    __hash__ = None  # type: ignore[assignment]


class Standing(NamedTuple):
    """Where one team stands in one pool, in GPUs, before this plan's changes take effect.

    ``cap`` is what the plan sets; ``borrowed`` is use above quota; ``lent`` is how much of its unused quota
    others hold; ``waiting`` is what its waiting jobs ask for.
    """

    team: str
    pool: str
    quota: int
    cap: int
    used: int
    borrowed: int
    lent: int
    waiting: int
    waiting_jobs: int
    running_jobs: int


def _in_order(found: list[tuple[WaitingJob, Decision]]) -> list[Decision]:
    found.sort(key=lambda one: (-one[0].priority, one[0].id))
    return [decision for _, decision in found]


class News:
    """Which decisions give another reason than the last ones did."""

    def __init__(self) -> None:
        self._reasons: dict[int, Reason] = {}
        self._verdicts: Sequence[Verdict] = ()

    def of(self, decisions: Decisions) -> list[Decision]:
        """Those of jobs that wait for another reason than the last time, or did not wait then; in Slurm's order.

        Nothing is looked at of those that are together as before, for the same reason.
        """
        verdicts, before = decisions.verdicts, self._verdicts
        self._verdicts, known = verdicts, self._reasons
        changed, past = _others(verdicts, before), _others(before, verdicts)
        news: list[tuple[WaitingJob, Decision]] = []
        for verdict in changed:
            reason = verdict.outcome[0]
            if new := [job for job in verdict.jobs if known.get(job.id) is not reason]:
                known.update({job.id: reason for job in new})
                news += verdict.written(new)
        here = {job.id for verdict in changed for job in verdict.jobs}
        for gone in {job.id for verdict in past for job in verdict.jobs} - here:
            known.pop(gone, None)
        return _in_order(news)


def _others(verdicts: Sequence[Verdict], known: Sequence[Verdict]) -> list[Verdict]:
    """Those that are about other jobs than the known ones, or give another reason."""
    reasons = {id(one.jobs): one.outcome[0] for one in known}
    return [one for one in verdicts if reasons.get(id(one.jobs)) is not one.outcome[0]]


@dataclass(frozen=True, slots=True)
class PoolStanding:
    """One pool's capacity, in GPUs: ``healthy`` of ``total``; ``free`` = healthy and held by no job."""

    pool: str
    nodes: int
    total: int
    healthy: int
    used: int
    free: int
    quota: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What one cycle decided.

    ``caps``: team to TRES to amount, for every team. ``preempt``: jobs that must leave, in victim order.
    ``spare``: ids of jobs being preempted that nobody needs any more. ``decisions``: one per
    waiting job, in Slurm's order. ``behind``: waiting jobs that would take the room under their team's cap that
    another job of the team needs, and is to get: id to that one's id.
    """

    caps: Mapping[str, Mapping[str, int]]
    preempt: tuple[Preempt, ...] = ()
    spare: tuple[int, ...] = ()
    decisions: Decisions = field(default_factory=Decisions)
    standings: tuple[Standing, ...] = ()
    pools: tuple[PoolStanding, ...] = ()
    warnings: tuple[str, ...] = ()
    behind: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
