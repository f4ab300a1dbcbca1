"""What Slurm said at one moment: nodes, jobs, accounts and the caps that stand. Immutable.

Times are seconds since the epoch, memory is in MiB, GPUs are counted by TRES (``"gres/gpu:h100"``).
The untyped TRES (``"gres/gpu"``) appears only in what a job asks for when it named no type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from operator import attrgetter
from types import MappingProxyType
from typing import NamedTuple

from slurm_gov.core.policy import Policy, nothing


@dataclass(frozen=True, slots=True)
class Node:
    """One node. ``usable`` is false when Slurm would start no new job on it (down, draining, failing...).

    ``reason`` is what Slurm has noted about that, in anybody's words. ``reserved``: the reservations that it stands
    in now, where that is all that keeps other jobs from it: those of the reservation may use it.
    """

    name: str
    partitions: tuple[str, ...]
    gpus: Mapping[str, int]
    cpus: int
    memory: int
    features: frozenset[str] = frozenset()
    usable: bool = True
    state: str = "IDLE"
    reason: str = ""
    reserved: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Held:
    """What one running job holds on one node."""

    node: str
    gpus: Mapping[str, int] = field(default_factory=nothing)
    cpus: int = 0
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """Our note on a job (in its AdminComment): that it is being preempted, or was.

    ``run`` is the start time of the run it concerns: a mark with another ``run`` than the job's present one
    is history. ``deadline`` is when the grace period ends. ``held`` is until when we last had the requeued job wait
    for its beneficiary to start, 0 if we did not. ``spared``: the job was told to leave, and then that it may stay;
    if it ends in its grace period all the same, that is still our doing, and it is not noted as spared any more.
    ``reason`` is for people.
    """

    beneficiary: int
    team: str
    since: float
    deadline: float
    run: float
    reason: str = ""
    held: float = 0.0
    spared: bool = False


class Preempted(NamedTuple):
    """That an earlier run of a job was preempted: when, and for which job (0 if nobody remembers)."""

    at: float
    beneficiary: int = 0


@dataclass(frozen=True, slots=True)
class FaultMark:
    """Our note on a job (in its AdminComment) that a sick node made it leave, or will.

    ``run`` is the start of the run it concerns, as in ``Mark``. ``count`` is how often faults have stopped the job.
    ``waited`` is for how many seconds it had been in the queue: the place in line that it keeps. ``until`` is when it
    is requeued, if it was told to save a checkpoint first, else 0. ``settled``: it has its place back and avoids
    ``avoids``, or is held because it was stopped too often.
    """

    node: str
    at: float
    run: float
    count: int = 1
    waited: float = 0.0
    until: float = 0.0
    settled: bool = False
    avoids: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Behind:
    """Our note on a waiting job (in its AdminComment): that we have it wait until ``until`` behind job ``job`` of its
    team, which needs the room that it would take.
    """

    job: int
    until: float


@dataclass(frozen=True, slots=True)
class Unstarted:
    """Our note on a waiting job (in its AdminComment): that Slurm has not started it where there seemed to be room,
    so that nothing is kept for it from ``since`` to ``until``. ``asked`` is what it asked for then, in short, and
    ``reason`` Slurm's.
    """

    since: float
    until: float
    asked: str
    reason: str


class RunState(StrEnum):
    """What a job that holds nodes is doing."""

    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    COMPLETING = "COMPLETING"


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that holds nodes.

    ``requeueable`` is false for interactive jobs and those submitted with ``--no-requeue``. ``submit`` is when it
    began to wait for this run: its submission or its last requeue; ``None`` if unknown. ``name`` is the user's text.
    ``preempted`` are the preemptions of earlier runs of it. ``checkpoint`` is when it last saved its work, if it
    says so.
    """

    id: int
    display_id: str
    user: str
    account: str
    partition: str
    qos: str
    start: float
    held: tuple[Held, ...]
    state: RunState = RunState.RUNNING
    requeueable: bool = True
    time_limit: float | None = None
    mark: Mark | None = None
    signal: str = ""
    submit: float | None = None
    name: str = ""
    preempted: tuple[Preempted, ...] = ()
    checkpoint: float | None = None
    fault: FaultMark | None = None

    @property
    def kept(self) -> float:
        """The time up to which nothing of this run is lost if it stops: its start or its last checkpoint."""
        return self.start if self.checkpoint is None else max(self.start, self.checkpoint)

    @property
    def being_preempted(self) -> bool:
        """Whether it is told to leave in this very run: it was signalled, its grace period is running."""
        return self.mark is not None and self.mark.run == self.start and not self.mark.spared

    @property
    def was_spared(self) -> bool:
        """Whether it was told to leave in this very run, and then that it may stay."""
        return self.mark is not None and self.mark.run == self.start and self.mark.spared


@dataclass(frozen=True, slots=True)
class Request:
    """What one waiting job (or one task of an array) asks for.

    ``gpus`` is the total per TRES. Where ``gpus_per_node`` is not 0 each of its nodes gives exactly that
    many; otherwise the total may be spread over ``min_nodes`` or more nodes in multiples of ``gpus_per_task``:
    over ``max_nodes`` at most and up to ``most_per_node`` on each, if these are not 0. ``cpus`` is the total;
    ``memory_per_node`` or ``memory_per_cpu`` in MiB, 0 = not said. Its nodes have all ``features``, and all of one
    set of ``any_features`` if there are any. With ``reservations`` it has the nodes of these, and no others.
    ``plain`` is false if the job has constraints that the core cannot judge; nobody is preempted for it.
    """

    gpus: Mapping[str, int] = field(default_factory=nothing)
    min_nodes: int = 1
    gpus_per_node: int = 0
    gpus_per_task: int = 1
    max_nodes: int = 0
    most_per_node: int = 0
    cpus: int = 1
    memory_per_node: int = 0
    memory_per_cpu: int = 0
    exclusive: bool = False
    features: frozenset[str] = frozenset()
    any_features: frozenset[frozenset[str]] = frozenset()
    required_nodes: frozenset[str] = frozenset()
    excluded_nodes: frozenset[str] = frozenset()
    reservations: frozenset[str] = frozenset()
    plain: bool = True

    @property
    def shape(self) -> tuple[object, ...]:
        """Equal for requests that are the same to every node; hashable, which the mapping inside is not."""
        gpus = tuple(self.gpus.items())
        return (gpus if len(gpus) < 2 else tuple(sorted(gpus)), *_rest(self))

    def may_use(self, node: Node) -> bool:
        """Whether a node has the features that it needs."""
        has = node.features
        return self.features <= has and (not self.any_features or any(one <= has for one in self.any_features))


_rest = attrgetter(*(one.name for one in fields(Request) if one.name != "gpus"))


@dataclass(frozen=True, slots=True)
class Component:
    """What another component of a het job asks for, and where."""

    partitions: tuple[str, ...]
    request: Request


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """A pending job; an array's waiting tasks are one record with ``tasks`` of them.

    ``priority`` is Slurm's own; ``slurm_reason`` is what squeue shows. ``held_back`` says in words why it is
    no demand now (dependency, begin time, hold...), or is empty; ``begin`` is its earliest start, if set, and
    ``expected`` when Slurm thinks that it will start, where Slurm has thought about it. ``behind``: that its begin
    time is our doing; it is demand all the same. ``others`` are the other components of a het job, which start
    together with it: they are records too, and name this one (``part_of``). ``unstarted``: that Slurm did not start
    it where there seemed to be room; ``comes_last``: that this is not long ago; ``takes_nobody``: that it found no
    nodes there, within a day.
    """

    id: int
    display_id: str
    user: str
    account: str
    partitions: tuple[str, ...]
    qos: str
    priority: int
    submit: float
    request: Request
    tasks: int = 1
    slurm_reason: str = ""
    held_back: str = ""
    begin: float | None = None
    mark: Mark | None = None
    time_limit: float | None = None
    name: str = ""
    expected: float | None = None
    fault: FaultMark | None = None
    behind: Behind | None = None
    others: tuple[Component, ...] = ()
    part_of: int = 0
    unstarted: Unstarted | None = None
    comes_last: bool = False
    takes_nobody: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent-enough look at Slurm.

    ``parents`` maps each account to its parent account; ``caps`` holds each account's GrpTRES as slurmctld
    has it, TRES to amount, with no entry where there is no limit. ``ended`` are jobs that carry our mark and
    ended during their grace period, whatever their exit code: it was our doing, and they are owed a requeue.
    ``borrowed_lately`` is each team's borrowed GPU-seconds, where what is one ``half_life`` old counts half;
    ``cohorts_borrowed_lately`` likewise what each cohort took from outside itself.
    """

    now: float
    nodes: tuple[Node, ...]
    running: tuple[RunningJob, ...]
    waiting: tuple[WaitingJob, ...]
    parents: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    caps: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: MappingProxyType({}))
    ended: tuple[RunningJob, ...] = ()
    borrowed_lately: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    cohorts_borrowed_lately: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def team_of(self, policy: Policy, account: str) -> str | None:
        """The team an account belongs to: itself or the nearest account above it that has a policy."""
        seen: set[str] = set()
        current: str | None = account
        while current and current not in seen:
            if current in policy.teams:
                return current
            seen.add(current)
            current = self.parents.get(current)
        return None
