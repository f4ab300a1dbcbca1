"""What the administrator decided about sick nodes, resolved and checked. Times in seconds.

Nothing here decides: ``slurm_gov.health`` does, by this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import floor
from types import MappingProxyType


class Effect(StrEnum):
    """What a fault does to its node; each is more than the one before."""

    IGNORE = "ignore"
    SUSPECT = "suspect"
    DRAIN = "drain"
    FAIL = "fail"

    @property
    def rank(self) -> int:
        """0 for ``ignore`` to 3 for ``fail``."""
        return list(Effect).index(self)


class Repair(StrEnum):
    """What is done about a fault first."""

    NONE = "none"
    REBOOT = "reboot"
    REPLACE = "replace"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class FaultRule:
    """What one kind of fault means here; ``None`` leaves it to the table in ``health/faults.py``."""

    effect: Effect | None = None
    repair: Repair | None = None
    confirm: float | None = None
    recover: float | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """How nodes are rebooted and replaced. ``kind`` is ``slurm``, ``docker``, ``command`` or ``mqtt``.

    An operation that has not ended after ``time_limit`` failed; it is tried ``attempts`` times, ``backoff`` apart,
    twice as long each time. ``can``: the repairs that it is asked for. ``options`` are the kind's own.
    """

    name: str
    kind: str
    time_limit: float = 900.0
    attempts: int = 3
    backoff: float = 30.0
    can: frozenset[Repair] = frozenset({Repair.REBOOT, Repair.REPLACE})
    options: Mapping[str, str | tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Verification:
    """A check that a repaired node must pass: an executable on the controller's host with the node still drained, or
    (``in_reservation``) a job on the node itself, inside a reservation of ours.
    """

    name: str
    command: tuple[str, ...]
    in_reservation: bool = False
    time_limit: float = 600.0


@dataclass(frozen=True, slots=True)
class Share:
    """A number of nodes, or a percentage of a pool's nodes."""

    number: int | None = None
    percent: int | None = None

    def of(self, nodes: int) -> int:
        """How many of so many nodes: a percentage is rounded down, but is at least one node."""
        if self.number is not None:
            return self.number
        return max(1, floor(nodes * (self.percent or 0) / 100))


@dataclass(frozen=True, slots=True)
class PoolHealth:
    """How one pool's sick nodes are treated. ``spares`` are nodes kept out of service until another is away: drained,
    and with ``spares_off`` powered down too.
    """

    automatic: bool = True
    provider: str = "slurm"
    spares: tuple[str, ...] = ()
    spares_off: bool = False


@dataclass(frozen=True, slots=True)
class Moves:
    """Which sick nodes jobs leave: of those that are ``draining``, or already of those that are ``suspect``, they are
    signalled to save a checkpoint and requeued ``grace`` seconds later. On the others they finish.
    """

    draining: bool = False
    suspect: bool = False
    grace: float = 120.0


@dataclass(frozen=True, slots=True)
class FaultJobs:
    """What happens to jobs on sick nodes.

    ``moves``, and ``classes`` by priority class: which jobs leave nodes that do not fail.
    ``restarts``: how often a job may come back after faults before it is held. ``end_unrequeueable``: whether
    jobs that cannot be requeued are ended where a node fails; else the node waits for them. ``same_xid``: so many
    nodes of one job with the same XID make it the job's.
    """

    moves: Moves = Moves()
    classes: Mapping[str, Moves] = field(default_factory=lambda: MappingProxyType({}))
    restarts: int = 5
    end_unrequeueable: bool = False
    same_xid: int = 3

    def of(self, priority_class: str) -> Moves:
        """What holds for jobs of a class."""
        return self.classes.get(priority_class, self.moves)


@dataclass(frozen=True, slots=True)
class Lemons:
    """Nodes that had ``faults`` faults in ``days`` days are lemons; with ``exclude`` they go to ``failed`` when they
    are next repaired, instead of coming back.
    """

    days: float = 28.0
    faults: int = 4
    exclude: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """Everything about sick nodes. Mappings by name; ``pools`` has every pool of the policy.

    ``silence_after``: a node whose agent has been silent for so long is suspect although its slurmd is alive;
    ``None``: never. ``lost_after``: a node that does not answer Slurm for so long is lost. ``rack``: a pattern whose
    first group is a node's rack, ``"topology"`` for Slurm's switches, or empty for none. ``reboots``: so many with
    the same fault within ``history`` make a replacement. ``hands_off``: why nothing is done by itself, or empty.
    """

    pools: Mapping[str, PoolHealth]
    providers: Mapping[str, Provider]
    faults: Mapping[str, FaultRule] = field(default_factory=lambda: MappingProxyType({}))
    verifications: tuple[Verification, ...] = ()
    breaker: Share = Share(percent=20)
    rack: str = ""
    max_away: Share = Share(percent=20)
    jobs: FaultJobs = FaultJobs()
    lemons: Lemons = Lemons()
    confirm: float = 20.0
    recover: float = 60.0
    silence_after: float | None = None
    lost_after: float = 30.0
    report_within: float = 300.0
    history: float = 3 * 86400.0
    reboots: int = 2
    hands_off: str = ""
