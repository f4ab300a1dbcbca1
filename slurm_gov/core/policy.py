"""What the administrator decided, resolved and checked: the policy that the core decides by.

A ``Policy`` holds plain numbers only. Percentages, defaults and names were resolved by ``slurm_gov.policy``,
which reads the file; nothing here reads anything.

Amounts are counted per *resource*, a string. A pool's accelerators are the resource named like the pool
(``"h100"``); other resources of the same pool would be ``"h100/cpu"`` and ``"h100/mem"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar

from slurm_gov.core.health import Health

K = TypeVar("K")
V = TypeVar("V")

Resource = str


def frozen(mapping: Mapping[K, V]) -> Mapping[K, V]:
    """A read-only copy of a mapping, so that policy and snapshot stay immutable all through."""
    return MappingProxyType(dict(mapping))


def nothing() -> Mapping[str, int]:
    """No amounts at all."""
    return MappingProxyType({})


class Mode(StrEnum):
    """How much the governor does: for taking it into use step by step.

    ``OBSERVE``: it decides and reports, and acts on nothing. ``CAPS``: it sets caps and judges submissions, and
    preempts nobody. ``ENFORCE``: everything.
    """

    OBSERVE = "observe"
    CAPS = "caps"
    ENFORCE = "enforce"


class WithinTeam(StrEnum):
    """Whose jobs of one's own team may be preempted (Kueue: withinClusterQueue)."""

    NEVER = "never"
    LOWER_PRIORITY = "lower_priority"
    LOWER_OR_NEWER_EQUAL_PRIORITY = "lower_or_newer_equal_priority"


class Reclaim(StrEnum):
    """Which borrowers' jobs an owner may preempt to get its quota back (Kueue: reclaimWithinCohort)."""

    NEVER = "never"
    LOWER_PRIORITY = "lower_priority"
    ANY = "any"


class Idle(StrEnum):
    """How idle capacity is divided among teams that want to borrow."""

    FAIR_SHARE = "fair_share"
    FIRST_COME = "first_come"


class Rebalance(StrEnum):
    """Whether a team may take borrowed capacity from teams that hold a larger share (Kueue: fairSharing's
    preemptionStrategies), and how long it may go on.

    ``FINAL_SHARE``: while its new share stays at or below the other's share after the loss
    (LessThanOrEqualToFinalShare). ``INITIAL_SHARE``: while it stays below the other's share before the loss
    (LessThanInitialShare). ``FINAL_THEN_INITIAL_SHARE``: by the first, and if that does not suffice by the second.
    """

    NEVER = "never"
    FINAL_SHARE = "final_share"
    INITIAL_SHARE = "initial_share"
    FINAL_THEN_INITIAL_SHARE = "final_then_initial_share"


class Victims(StrEnum):
    """Which of the sets of victims that make room is taken.

    ``CHEAPEST``: the one that loses the least work, where it costs less than the one found in the order of
    candidates. ``IN_ORDER``: always the latter, which is Kueue's.
    """

    CHEAPEST = "cheapest"
    IN_ORDER = "in_order"


@dataclass(frozen=True, slots=True)
class BorrowPreempts:
    """A team's job may preempt other teams' borrowers of lower priority although it will borrow itself
    (Kueue: borrowWithinCohort), up to a priority, 0 to 100; ``None`` means without limit.
    """

    max_priority: int | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """One team's (or cohort's) claim on one resource, in units of that resource.

    ``nominal`` is guaranteed; ``borrow`` is how far above it the holder may go and ``lend`` how much of
    what it does not use others may have. ``None`` means without limit.
    """

    nominal: int = 0
    borrow: int | None = None
    lend: int | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """Nodes with one kind of accelerator. ``gres`` is Slurm's name of it, such as ``gpu:h100``.

    ``price`` is what one of them costs for an hour, ``None`` if nobody says. ``tres`` is the TRES that Slurm counts
    it in, such as ``gres/gpu:h100``, and ``untyped_tres`` that of the same GRES whatever its type (``gres/gpu``).
    Slurm compares TRES without case, and we keep them in lower case.
    """

    name: str
    partitions: tuple[str, ...]
    gres: str
    price: float | None = None
    tres: str = field(init=False)
    untyped_tres: str = field(init=False)

    def __post_init__(self) -> None:
        tres = f"gres/{self.gres}".lower()
        object.__setattr__(self, "tres", tres)
        object.__setattr__(self, "untyped_tres", tres.partition(":")[0])


@dataclass(frozen=True, slots=True)
class Team:
    """A Slurm account, with all accounts below it, that has a policy.

    ``min_runtime``: how long its jobs run before they may be preempted, in seconds; ``None``: as for all.
    """

    name: str
    quotas: Mapping[Resource, Quota]
    cohort: str | None = None
    fair_share_weight: float = 0
    preempt_within_team: WithinTeam = WithinTeam.LOWER_PRIORITY
    reclaim: Reclaim = Reclaim.ANY
    borrow_preempts: BorrowPreempts | None = None
    min_runtime: float | None = None


@dataclass(frozen=True, slots=True)
class Cohort:
    """Teams that lend to one another. A cohort may belong to another and hold quota of its own."""

    name: str
    parent: str | None = None
    quotas: Mapping[Resource, Quota] = field(default_factory=lambda: MappingProxyType({}))
    fair_share_weight: float = 0


@dataclass(frozen=True, slots=True)
class MaxPreemptions:
    """One job is not preempted more than ``count`` times in any ``per`` seconds."""

    count: int
    per: float


@dataclass(frozen=True, slots=True)
class ClassRules:
    """What holds for the running jobs of one priority class: ``min_runtime`` in seconds, ``None`` where only the
    general one holds; jobs of a ``protected`` class are never preempted.
    """

    min_runtime: float | None = None
    protected: bool = False


@dataclass(frozen=True, slots=True)
class Preemption:
    """How a job is made to leave. Times in seconds.

    ``signal`` is in the notation of ``sbatch --signal``: ``USR1`` goes to the job's steps, ``B:USR1`` to its
    batch script. ``requeue_delay`` is how long a preempted job waits before it may start again. ``classes`` is by
    priority class. ``checkpoint_file`` is the path of a file that a job writes at each checkpoint, with Slurm's
    ``%j``, ``%A``, ``%a`` and ``%u`` in it; empty if there is none.
    """

    grace: float = 30.0
    signal: str = "USR1"
    min_runtime: float = 0.0
    requeue_delay: float = 0.0
    cancel_unrequeueable: bool = False
    victims: Victims = Victims.CHEAPEST
    classes: Mapping[str, ClassRules] = field(default_factory=lambda: MappingProxyType({}))
    max_preemptions: MaxPreemptions | None = None
    checkpoint_file: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything the administrator decided. Mappings are keyed by name.

    ``protect_after``: a job that has waited so many seconds for more than its team's quota leaves is not overtaken
    by later jobs of its team; ``None``: they may always.
    ``half_life``: the seconds after which what a team or cohort borrowed counts half against it when idle capacity
    is divided; ``None``: only what it borrows now counts.
    ``health``: what is done about sick nodes; ``None``: nothing.
    """

    pools: Mapping[str, Pool]
    teams: Mapping[str, Team]
    cohorts: Mapping[str, Cohort] = field(default_factory=lambda: MappingProxyType({}))
    priority_classes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    idle: Idle = Idle.FAIR_SHARE
    lend_unallocated: bool = True
    rebalance: Rebalance = Rebalance.NEVER
    protect_after: float | None = None
    half_life: float | None = None
    preemption: Preemption = Preemption()
    mode: Mode = Mode.ENFORCE
    health: Health | None = None

    def priority_of(self, qos: str) -> int:
        """The weight, 0 to 100, of the priority class that a QOS stands for; 0 if it is none."""
        return self.priority_classes.get(qos, 0)
