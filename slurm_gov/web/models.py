"""The bodies of the read API's answers, beside the rows that they hold. GPUs are counts, times are seconds since the
epoch, durations seconds; ``null`` is "none" or "does not apply".
"""

from __future__ import annotations

from dataclasses import dataclass

from slurm_gov.core.rows import OtherRow, PoolRow, PreemptionRow, RunningRow, TeamRow, WaitingRow
from slurm_gov.web.board import Happening
from slurm_gov.web.history import Sample
from slurm_gov.web.nodes import NodeRow
from slurm_gov.web.sharing import Segment


@dataclass(frozen=True, slots=True)
class CycleTimes:
    """How the last cycle went: seconds for looking, deciding and acting; actions that Slurm refused; why acting was
    broken off, empty if it was not.
    """

    look: float
    decide: float
    act: float
    failures: int
    error: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """The governor itself. ``now`` is its clock, ``time`` when it looked at Slurm; ``slurm_answers`` is false while
    Slurm does not, since ``silent_since``, saying ``slurm_error``: then all else is as of ``time``.
    """

    version: str
    now: float
    started: float
    time: float
    slurm_answers: bool
    silent_since: float | None
    slurm_error: str
    interval: float
    cycle: CycleTimes
    nodes: int
    running_jobs: int
    waiting_jobs: int
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Pool(PoolRow):
    """One pool, and all of its capacity as ``segments``: who owns it and who uses it."""

    segments: list[Segment]


@dataclass(frozen=True, slots=True)
class Pools:
    """All pools, in the policy's order."""

    time: float
    pools: list[Pool]


@dataclass(frozen=True, slots=True)
class Teams:
    """Teams, one row for every pool; and what accounts without a team hold and want."""

    time: float
    teams: list[TeamRow]
    without_team: list[OtherRow]


@dataclass(frozen=True, slots=True)
class Jobs:
    """A page of jobs, of ``total`` that were found: the running ones by start, then the waiting ones in Slurm's
    order. ``next`` is the ``offset`` of the next page, ``null`` on the last.
    """

    time: float
    total: int
    offset: int
    next: int | None
    jobs: list[RunningRow | WaitingRow]


@dataclass(frozen=True, slots=True)
class Preemptions:
    """Jobs that are being preempted, or will be, the next to leave first."""

    time: float
    preemptions: list[PreemptionRow]


@dataclass(frozen=True, slots=True)
class Nodes:
    """A page of nodes, of ``total`` that were found. ``next`` is the ``offset`` of the next page."""

    time: float
    total: int
    offset: int
    next: int | None
    nodes: list[NodeRow]


@dataclass(frozen=True, slots=True)
class Decisions:
    """What the governor did lately, the newest first. ``slurm-gov log`` reads all of it."""

    time: float
    decisions: list[Happening]


@dataclass(frozen=True, slots=True)
class History:
    """How the pools were used, the oldest sample first. ``step`` is the time between two."""

    time: float
    step: float
    samples: list[Sample]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why there is no answer."""

    detail: str
