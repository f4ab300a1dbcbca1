"""What one cycle decided, and why: the plan and its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class Reason(StrEnum):
    """Why a job waits: one of a fixed list, so that it can be counted and looked up."""

    STARTS_NOW = "starts_now"
    RECLAIMING = "reclaiming"
    PREEMPTING_WITHIN_TEAM = "preempting_within_team"
    WAITS_FOR_NODES = "waits_for_nodes"
    TEAM_AT_LIMIT = "team_at_limit"
    NOTHING_TO_BORROW = "nothing_to_borrow"
    BORROW_DOES_NOT_FIT = "borrow_does_not_fit"
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
    """What was decided of one waiting job. ``why`` is a sentence with the figures.

    A tuple, because in every cycle there may be tens of thousands of new ones.
    """

    job: int
    display_id: str
    team: str | None
    pool: str | None
    reason: Reason
    why: str


@dataclass(frozen=True, slots=True)
class Standing:
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
    decisions: tuple[Decision, ...] = ()
    standings: tuple[Standing, ...] = ()
    pools: tuple[PoolStanding, ...] = ()
    warnings: tuple[str, ...] = ()
    behind: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
