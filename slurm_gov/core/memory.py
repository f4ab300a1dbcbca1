"""What is remembered from one cycle to the next: what jobs are to the policy, never what was decided about them.

Nearly all jobs are the same as in the cycle before. A job's record never changes, so what was worked out from it
holds for as long as the same record comes back and policy, accounts and nodes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import count
from operator import attrgetter
from typing import NamedTuple

from slurm_gov.core.capacity import Ground
from slurm_gov.core.demand import Form, Kinds, Want
from slurm_gov.core.differences import differences
from slurm_gov.core.policy import Policy, Resource
from slurm_gov.core.queue import Batch, Place, Queue
from slurm_gov.core.room import Room
from slurm_gov.core.shares import Shares
from slurm_gov.core.snapshot import Node, RunningJob, RunState, Snapshot
from slurm_gov.core.victims import Victim, as_victim


class Memory:
    """Of one policy, one set of accounts and one set of nodes."""

    def __init__(self, policy: Policy, snapshot: Snapshot) -> None:
        self.kinds = Kinds(policy, snapshot.nodes, snapshot.parents)
        self.changes = count()
        self._policy = policy
        self._parents = snapshot.parents
        self._nodes = snapshot.nodes
        self._queue = Queue(self.kinds)
        self._running: tuple[RunningJob, ...] = ()
        self._known: dict[int, Victim | RunningJob] = {}  # by the record's own identity
        self._held = Holdings(policy, snapshot)

    def holds_for(self, policy: Policy, snapshot: Snapshot) -> bool:
        """Whether it may be used for this snapshot; nodes may have changed their state."""
        return (
            policy is self._policy
            and snapshot.parents == self._parents
            and _same(_what, snapshot.nodes, self._nodes)
            and self.kinds.count <= 2 * len(snapshot.waiting) + 1000
        )

    def queue(self, snapshot: Snapshot) -> Queue:
        """Who waits now, nothing done about them yet."""
        self._queue.become(snapshot.waiting)
        return self._queue

    def holdings(self, snapshot: Snapshot) -> Holdings:
        """Who holds what now. What is done to it in a cycle is undone at its end (``Holdings.undo``)."""
        known, policy = self._known, self._policy
        left, new = differences(self._running, snapshot.running, known)
        self._running = snapshot.running
        gone = [known.pop(id(job)) for job in left]
        came: list[Victim | RunningJob] = []
        for job in new:
            team = self.kinds.team(job.account)
            one = known[id(job)] = job if team is None else as_victim(policy, team, job)
            came.append(one)
        if not _same(_capacity, snapshot.nodes, self._held.snapshot_nodes):
            self._held = Holdings(policy, snapshot)
            gone, came = [], list(known.values())
        self._held.change(gone, came)
        return self._held


class Holdings:
    """Who holds what: the shares and the room that is free ``now``, and those that will be ``later``, when the jobs
    that end or must leave are gone. Made the present one by what came and went.

    ``of_team``: each team's running jobs; ``in_line``: all of these in the order in which they would be preempted;
    ``on_nodes``: what jobs hold of each TRES that is a pool's, by node. ``large`` is for ``ahead.py``: which of a
    team's jobs are large, until those that run or wait change.
    """

    def __init__(self, policy: Policy, snapshot: Snapshot) -> None:
        self.snapshot_nodes = snapshot.nodes
        self.nodes = {node.name: node for node in sorted(snapshot.nodes, key=lambda node: node.name)}
        self.ground = Ground(policy, snapshot.nodes)
        self.shares_now = Shares(policy, self.ground.healthy)
        self.shares = Shares(policy, self.ground.healthy)
        self.now, self.later = Room(self.nodes.values()), Room(self.nodes.values())
        self.of_team: dict[str, dict[int, Victim]] = {team: {} for team in policy.teams}
        self.on_nodes: dict[str, dict[str, int]] = {pool.tres: {} for pool in policy.pools.values()}
        self.in_line: list[Victim] = []
        self._empty: Room | None = None
        self._could_run: dict[Form, bool] = {}
        self._summed: dict[str, _Sums] = {}
        self.large: dict[str, tuple[Mapping[Want, int], tuple[set[Want], set[Want], list[tuple[Place, Batch]]]]] = {}
        self._marked: dict[int, RunningJob] = {}
        self._ending: dict[int, RunningJob] = {}

    def change(self, gone: Iterable[Victim | RunningJob], came: Iterable[Victim | RunningJob]) -> None:
        """Count these no more, and those."""
        left: set[Victim] = set()
        for one in gone:
            job = _job(one)
            self.now.give(job.held)
            self._hold(job, -1)
            self._marked.pop(job.id, None)
            if job.state is RunState.COMPLETING:
                del self._ending[job.id]
            else:
                self.later.give(job.held)
            if isinstance(one, Victim):
                left.add(one)
                del self.of_team[one.team][job.id]
                self._forget(one.team)
                if job.state is not RunState.COMPLETING:
                    self.shares.remove(one.team, one.use)
                    self.shares_now.remove(one.team, one.use)
        if left:
            self.in_line = [victim for victim in self.in_line if victim not in left]
        in_line = len(self.in_line)
        for one in came:
            job = _job(one)
            self.now.take(job.held)
            self._hold(job, 1)
            if job.mark is not None:
                self._marked[job.id] = job
            if job.state is RunState.COMPLETING:
                self._ending[job.id] = job
            else:
                self.later.take(job.held)
            if isinstance(one, Victim):
                self.in_line.append(one)
                self.of_team[one.team][job.id] = one
                self._forget(one.team)
                # What ends already is no longer its team's: Slurm's own count of a cap leaves it out too.
                if job.state is not RunState.COMPLETING:
                    self.shares.add(one.team, one.use)
                    self.shares_now.add(one.team, one.use)
        if len(self.in_line) > in_line:
            self.in_line.sort(key=_order)
        for working in (self.now, self.later, self.shares, self.shares_now):
            working.settle()

    def _forget(self, team: str) -> None:
        self._summed.pop(team, None)
        self.large.pop(team, None)

    def _hold(self, job: RunningJob, sign: int) -> None:
        for one in job.held:
            for tres, amount in one.gpus.items():
                if (held := self.on_nodes.get(tres)) is not None:
                    held[one.node] = held.get(one.node, 0) + sign * amount

    def could_run(self, form: Form) -> bool:
        """Whether there would be room for a job if nothing else ran on the nodes that are usable now."""
        if form not in self._could_run:
            if self._empty is None:
                self._empty = Room(self.nodes.values())
            self._could_run[form] = form.fits(self._empty)
        return self._could_run[form]

    def being_preempted(self) -> list[RunningJob]:
        """The jobs that were told to leave, by id."""
        return [job for _, job in sorted(self._marked.items()) if job.being_preempted]

    def ending(self) -> list[RunningJob]:
        """The jobs that are ending, by id."""
        return [self._ending[id] for id in sorted(self._ending)]

    def largest(self, team: str) -> Mapping[Resource, int]:
        """The most that any running job of a team holds, by resource."""
        return self._sums(team).largest

    def jobs(self, team: str) -> Mapping[Resource, int]:
        """How many running jobs of a team hold something of each resource."""
        return self._sums(team).jobs

    def held_below(self, team: str, priority: int, equal: bool) -> Mapping[Resource, int]:
        """What a team's running jobs of lower classes hold, or of equal ones too."""
        sums = self._sums(team)
        held = sums.below.get((priority, equal))
        if held is None:
            held = sums.below[priority, equal] = {}
            for weight, mine in sums.classes.items():
                if weight < priority or (equal and weight == priority):
                    for resource, amount in mine.items():
                        held[resource] = held.get(resource, 0) + amount
        return held

    def _sums(self, team: str) -> _Sums:
        found = self._summed.get(team)
        if found is None:
            found = self._summed[team] = _Sums({}, {}, {}, {})
            largest, jobs, classes, _ = found
            for one in self.of_team[team].values():
                held = classes.get(one.priority)
                if held is None:
                    held = classes[one.priority] = {}
                for resource, amount in one.use.items():
                    jobs[resource] = jobs.get(resource, 0) + 1
                    held[resource] = held.get(resource, 0) + amount
                    if amount > largest.get(resource, 0):
                        largest[resource] = amount
        return found

    def undo(self) -> None:
        """Take back what was done since it became the present one."""
        for working in (self.now, self.later, self.shares, self.shares_now):
            working.undo(0)


class _Sums(NamedTuple):
    """Of a team's running jobs: the most that any holds, how many hold something, and what those of each class hold,
    by resource; and what those below some class hold, as far as anybody has asked.
    """

    largest: dict[Resource, int]
    jobs: dict[Resource, int]
    classes: dict[int, dict[Resource, int]]
    below: dict[tuple[int, bool], dict[Resource, int]]


def _job(one: Victim | RunningJob) -> RunningJob:
    return one.job if isinstance(one, Victim) else one


_order = attrgetter("order")
_what = attrgetter("name", "partitions", "gpus", "cpus", "memory", "features")
_capacity = attrgetter("name", "partitions", "gpus", "cpus", "memory", "features", "usable", "reserved")


def _same(what: Callable[[Node], object], nodes: tuple[Node, ...], others: tuple[Node, ...]) -> bool:
    """Whether these are the same nodes, as far as they are looked at."""
    if nodes is others:
        return True
    if len(nodes) != len(others):
        return False
    return all(one is other or what(one) == what(other) for one, other in zip(nodes, others, strict=True))
