"""What is remembered from one cycle to the next: what jobs are to the policy, never what was decided about them.

Nearly all jobs are the same as in the cycle before. A job's record never changes, so what was worked out from it
holds for as long as the same record comes back and policy, accounts and nodes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter

from slurm_gov.core.capacity import Ground
from slurm_gov.core.demand import Kinds
from slurm_gov.core.policy import Policy, Resource
from slurm_gov.core.queue import Queue
from slurm_gov.core.room import Room
from slurm_gov.core.shares import Shares
from slurm_gov.core.snapshot import Node, RunningJob, RunState, Snapshot
from slurm_gov.core.victims import Victim, as_victim


class Memory:
    """Of one policy, one set of accounts and one set of nodes."""

    def __init__(self, policy: Policy, snapshot: Snapshot) -> None:
        self.kinds = Kinds(policy, snapshot.nodes, snapshot.parents)
        self._policy = policy
        self._parents = snapshot.parents
        self._nodes = snapshot.nodes
        self._queue = Queue(self.kinds)
        self._victims: dict[int, Victim | RunningJob] = {}
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
        known, now, policy = self._victims, {}, self._policy
        for job in snapshot.running:
            one = known.get(job.id)
            if one is None or _job(one) is not job:
                team = self.kinds.team(job.account)
                one = job if team is None else as_victim(policy, team, job)
            now[job.id] = one
        self._victims = now
        if not _same(_capacity, snapshot.nodes, self._held.snapshot_nodes):
            self._held = Holdings(policy, snapshot)
        self._held.become(now)
        return self._held


class Holdings:
    """Who holds what: the shares and the room that is free ``now``, and those that will be ``later``, when the jobs
    that end or must leave are gone. Made the present one by what came and went.

    ``of_team``: each team's running jobs; ``in_line``: all of these in the order in which they would be preempted;
    ``on_nodes``: what jobs hold of each TRES that is a pool's, by node.
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
        self._summed: dict[str, tuple[dict[Resource, int], dict[Resource, int]]] = {}
        self._all: dict[int, Victim | RunningJob] = {}
        self._ending: dict[int, RunningJob] = {}

    def become(self, all: dict[int, Victim | RunningJob]) -> None:
        """Count these and no others."""
        gone: list[Victim] = []
        came: list[Victim] = []
        for id, one in self._all.items():
            if all.get(id) is not one:
                job = _job(one)
                self.now.give(job.held)
                self._hold(job, -1)
                if job.state is RunState.COMPLETING:
                    del self._ending[id]
                else:
                    self.later.give(job.held)
                if isinstance(one, Victim):
                    gone.append(one)
                    del self.of_team[one.team][id]
                    self._summed.pop(one.team, None)
                    if job.state is not RunState.COMPLETING:
                        self.shares.remove(one.team, one.use)
                        self.shares_now.remove(one.team, one.use)
        for id, one in all.items():
            if self._all.get(id) is not one:
                job = _job(one)
                self.now.take(job.held)
                self._hold(job, 1)
                if job.state is RunState.COMPLETING:
                    self._ending[id] = job
                else:
                    self.later.take(job.held)
                if isinstance(one, Victim):
                    came.append(one)
                    self.of_team[one.team][id] = one
                    self._summed.pop(one.team, None)
                    # What ends already is no longer its team's: Slurm's own count of a cap leaves it out too.
                    if job.state is not RunState.COMPLETING:
                        self.shares.add(one.team, one.use)
                        self.shares_now.add(one.team, one.use)
        if gone or came:
            ids = {victim.job.id for victim in gone}
            self.in_line = [victim for victim in self.in_line if victim.job.id not in ids] + came
            self.in_line.sort(key=_order)
        self._all = all
        for working in (self.now, self.later, self.shares, self.shares_now):
            working.settle()

    def _hold(self, job: RunningJob, sign: int) -> None:
        for one in job.held:
            for tres, amount in one.gpus.items():
                if (held := self.on_nodes.get(tres)) is not None:
                    held[one.node] = held.get(one.node, 0) + sign * amount

    def ending(self) -> list[RunningJob]:
        """The jobs that are ending, by id."""
        return [self._ending[id] for id in sorted(self._ending)]

    def largest(self, team: str) -> Mapping[Resource, int]:
        """The most that any running job of a team holds, by resource."""
        return self._sums(team)[0]

    def jobs(self, team: str) -> Mapping[Resource, int]:
        """How many running jobs of a team hold something of each resource."""
        return self._sums(team)[1]

    def _sums(self, team: str) -> tuple[dict[Resource, int], dict[Resource, int]]:
        found = self._summed.get(team)
        if found is None:
            largest, jobs = found = self._summed[team] = {}, {}
            for one in self.of_team[team].values():
                for resource, amount in one.use.items():
                    jobs[resource] = jobs.get(resource, 0) + 1
                    if amount > largest.get(resource, 0):
                        largest[resource] = amount
        return found

    def undo(self) -> None:
        """Take back what was done since it became the present one."""
        for working in (self.now, self.later, self.shares, self.shares_now):
            working.undo(0)


def _job(one: Victim | RunningJob) -> RunningJob:
    return one.job if isinstance(one, Victim) else one


_order = attrgetter("order")
_what = attrgetter("name", "partitions", "gpus", "cpus", "memory", "features")
_capacity = attrgetter("name", "partitions", "gpus", "cpus", "memory", "features", "usable")


def _same(what: Callable[[Node], object], nodes: tuple[Node, ...], others: tuple[Node, ...]) -> bool:
    """Whether these are the same nodes, as far as they are looked at."""
    if nodes is others:
        return True
    if len(nodes) != len(others):
        return False
    return all(one is other or what(one) == what(other) for one, other in zip(nodes, others, strict=True))
