"""The rules once more, written without the core's working classes: what a plan is judged by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from slurm_gov.core.policy import Policy, Pool, Quota
from slurm_gov.core.snapshot import Held, Node, Request, RunningJob, RunState, Snapshot, WaitingJob
from slurm_gov.core.victims import Claim

Use = dict[tuple[str, str], int]
"""Team and pool to GPUs."""


def team_of(policy: Policy, snapshot: Snapshot, account: str) -> str | None:
    while account not in policy.teams:
        if account not in snapshot.parents:
            return None
        account = snapshot.parents[account]
    return account


def pool_of(policy: Policy, job: WaitingJob) -> Pool | None:
    for partition in job.partitions:
        for pool in policy.pools.values():
            if partition in pool.partitions and {pool.tres, pool.untyped_tres} & job.request.gpus.keys():
                return pool
    return None


def wanted(job: WaitingJob) -> int:
    return sum(job.request.gpus.values())


def gpus_of(job: RunningJob, pool: Pool) -> int:
    return sum(held.gpus.get(pool.tres, 0) for held in job.held)


def use_of(policy: Policy, snapshot: Snapshot, jobs: Iterable[RunningJob]) -> Use:
    """What each team uses; a job that ends already has given its GPUs back, as Slurm counts them against a cap."""
    use: Use = {(team, pool): 0 for team in policy.teams for pool in policy.pools}
    for job in jobs:
        team = team_of(policy, snapshot, job.account)
        if team is not None and job.state is not RunState.COMPLETING:
            for pool in policy.pools.values():
                use[team, pool.name] += gpus_of(job, pool)
    return use


def quota_of(policy: Policy, team: str, pool: str) -> Quota:
    return policy.teams[team].quotas.get(pool, Quota())


def owed(snapshot: Snapshot) -> set[int]:
    """The waiting jobs that others were told to leave for, and that have not started since, but for those that come
    last. Of an array each task that has started since pays for one of those that left before, and whoever may start
    again waits for none any more.
    """
    notes = [(job.mark, job.start) for job in (*snapshot.running, *snapshot.ended) if job.mark is not None]
    marks = [mark for mark, start in notes if mark.run == start]
    waits = [(job.mark, job.slurm_reason == "BeginTime" and not job.behind) for job in snapshot.waiting]
    told = [(mark, waits) for mark, waits in (*((mark, True) for mark in marks), *waits) if mark and not mark.spared]
    found = set()
    for job in snapshot.waiting:
        if job.comes_last:
            continue
        left = [
            mark.since
            for mark, waits in told
            if mark.beneficiary == job.id and mark.since >= job.submit - 1 and (waits or "_" not in job.display_id)
        ]
        array = job.display_id.partition("_")[0]
        starts = [one.start for one in snapshot.running if one.display_id.startswith(f"{array}_")]
        if any(sum(at >= since for at in left) > sum(at > since + 1 for at in starts) for since in left):
            found.add(job.id)
    return found


# -- nodes -----------------------------------------------------------------------------------------------------


class Free:
    """What is free on the healthy nodes when these jobs run."""

    def __init__(self, nodes: Iterable[Node], running: Iterable[RunningJob]) -> None:
        self.nodes = {node.name: node for node in nodes if node.usable}
        self.gpus = {(node.name, tres): n for node in self.nodes.values() for tres, n in node.gpus.items()}
        self.cpus = {node.name: node.cpus for node in self.nodes.values()}
        self.memory = {node.name: node.memory for node in self.nodes.values()}
        self.jobs = dict.fromkeys(self.nodes, 0)
        for job in running:
            self.take(job.held)

    def take(self, held: Sequence[Held]) -> None:
        for one in held:
            if one.node in self.nodes:
                for tres, amount in one.gpus.items():
                    self.gpus[one.node, tres] -= amount
                self.cpus[one.node] -= one.cpus
                self.memory[one.node] -= one.memory
                self.jobs[one.node] += 1

    @property
    def overfull(self) -> bool:
        """Whether more was taken of some node than it has."""
        return min([0, *self.gpus.values(), *self.cpus.values(), *self.memory.values()]) < 0

    def total(self, tres: str) -> int:
        return sum(max(0, self.gpus.get((name, tres), 0)) for name in self.nodes)

    def place(self, request: Request, partition: str, tres: str) -> list[Held] | None:
        """Nodes for a request, in the order of their names; ``None`` if there are not enough."""
        total = sum(request.gpus.values())
        unit = max(1, request.gpus_per_task)
        most: dict[str, int] = {}
        for name, node in self.nodes.items():
            if (
                partition not in node.partitions
                or not request.features <= node.features
                or (request.any_features and not any(one <= node.features for one in request.any_features))
                or name in request.excluded_nodes
                or (request.exclusive and self.jobs[name])
            ):
                continue
            largest = min(total, request.most_per_node or total)
            sizes = [request.gpus_per_node] if request.gpus_per_node else range(unit, largest + 1, unit)
            able = [size for size in sizes if self._has(request, name, tres, size, total)]
            if able:
                most[name] = max(able)
        first = sorted(request.required_nodes)
        if any(name not in most for name in first):
            return None
        count = max(request.min_nodes, len(first))
        if request.gpus_per_node:
            chosen = [*first, *(name for name in most if name not in first)][:count]
            if len(chosen) < count:
                return None
            return [self._held(request, name, tres, request.gpus_per_node, total) for name in chosen]
        by_size = [*first, *sorted((name for name in most if name not in first), key=lambda name: -most[name])]
        by_size = by_size[: request.max_nodes or None]
        if len(by_size) < count or total < count * unit:
            return None
        give = dict.fromkeys(by_size[:count], unit)
        missing = total - count * unit
        for name in by_size:
            more = min(missing, most[name] - give.get(name, 0)) // unit * unit
            if more > 0:
                give[name] = give.get(name, 0) + more
                missing -= more
        return None if missing else [self._held(request, name, tres, n, total) for name, n in give.items()]

    def _has(self, request: Request, name: str, tres: str, gpus: int, total: int) -> bool:
        # An exclusive job is given the whole node, but what it asks for must be there.
        need = self._held(replace(request, exclusive=False), name, tres, gpus, total)
        return (
            gpus <= self.gpus.get((name, tres), 0)
            and need.cpus <= self.cpus[name]
            and need.memory <= self.memory[name]
        )

    def _held(self, request: Request, name: str, tres: str, gpus: int, total: int) -> Held:
        node = self.nodes[name]
        if request.exclusive:
            return Held(name, node.gpus, node.cpus, node.memory)
        if request.gpus_per_node:
            cpus = -(-request.cpus // max(1, request.min_nodes))
        else:
            cpus = -(-request.cpus * gpus // total)
        return Held(name, {tres: gpus}, cpus, request.memory_per_node or request.memory_per_cpu * cpus)


def suits(job: WaitingJob, tres: str, held: Sequence[Held], nodes: Iterable[Node]) -> bool:
    """Whether these nodes, however full, are what a job asks for."""
    request, by_name = job.request, {node.name: node for node in nodes}
    names = {one.node for one in held}
    on = [by_name[name] for name in names]
    right = all(node.usable and set(node.partitions) & set(job.partitions) for node in on)
    right = right and all(request.features <= node.features for node in on)
    right = right and (
        not request.any_features or all(any(one <= node.features for one in request.any_features) for node in on)
    )
    right = right and len(names) <= (request.max_nodes or len(names))
    right = right and request.required_nodes <= names and not names & request.excluded_nodes
    gpus = [one.gpus.get(tres, 0) for one in held]
    if request.exclusive:
        return right and all(one.gpus == by_name[one.node].gpus for one in held)
    if request.gpus_per_node:
        return right and gpus == [request.gpus_per_node] * request.min_nodes and len(names) == request.min_nodes
    most = request.most_per_node or wanted(job)
    return right and sum(gpus) == wanted(job) and len(names) >= request.min_nodes and max(gpus) <= most


# -- limits ----------------------------------------------------------------------------------------------------


def excess(policy: Policy, snapshot: Snapshot, use: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """By how much each team, cohort and the cluster goes beyond what limits allow it, per pool.

    Computed from the leaves up: what a team or cohort uses beyond what it keeps for itself is used above it.
    """
    found: dict[tuple[str, str], int] = {}
    for pool in policy.pools.values():
        healthy = sum(
            node.gpus.get(pool.tres, 0)
            for node in snapshot.nodes
            if node.usable and set(pool.partitions) & set(node.partitions)
        )
        every = [one.quotas.get(pool.name, Quota()).nominal for one in policy.teams.values()]
        every += [one.quotas.get(pool.name, Quota()).nominal for one in policy.cohorts.values()]
        unallocated = max(0, healthy - sum(every)) if policy.lend_unallocated else 0
        limited = {name: (one.parent, one.quotas.get(pool.name, Quota())) for name, one in policy.cohorts.items()}
        limited["(none)"] = (None, Quota())

        def up(
            name: str,
            quota: Quota,
            used: int,
            subtree: int,
            top: bool,
            at: str = pool.name,
        ) -> tuple[int, int]:
            """What is used above this one, and what it lends there."""
            if quota.borrow is not None:
                found[name, at] = max(0, used - subtree - quota.borrow)
            kept = subtree if top else 0 if quota.lend is None else max(0, subtree - quota.lend)
            return max(0, used - kept), subtree - kept

        def below(name: str | None, pool: str = pool.name, limited: dict = limited) -> tuple[int, int]:
            used = lent = 0
            for team in policy.teams.values():
                if (team.cohort or "(none)") == name:
                    quota = quota_of(policy, team.name, pool)
                    one = up(f"team {team.name}", quota, use[team.name, pool], quota.nominal, False)
                    used, lent = used + one[0], lent + one[1]
            for cohort, (parent, quota) in limited.items():
                if parent == name:
                    inside = below(cohort)
                    one = up(f"cohort {cohort}", quota, inside[0], inside[1] + quota.nominal, parent is None)
                    used, lent = used + one[0], lent + one[1]
            return used, lent

        used, _ = below(None)
        found["(cluster)", pool.name] = max(0, used - unallocated)
    return found


# -- a plan, one job after another -----------------------------------------------------------------------------


class Standing:
    """Who holds what while a plan is made: some have to leave, others are given their nodes.

    ``ending``: whether jobs that end by themselves still hold theirs; of a cap they are no part any more.
    """

    def __init__(self, policy: Policy, snapshot: Snapshot, ending: bool) -> None:
        self.policy = policy
        self.snapshot = snapshot
        self.ending = ending
        self.running = {job.id: job for job in snapshot.running}
        self.given: list[Sequence[Held]] = []
        self.more: Use = {}

    def free(self, without: Iterable[int] = ()) -> Free:
        gone = set(without)
        stay = [job for id, job in self.running.items() if id not in gone]
        free = Free(self.snapshot.nodes, [one for one in stay if self.ending or one.state is not RunState.COMPLETING])
        for held in self.given:
            free.take(held)
        return free

    def use(self, without: Iterable[int] = ()) -> Use:
        gone = set(without)
        use = use_of(self.policy, self.snapshot, [job for id, job in self.running.items() if id not in gone])
        return {place: amount + self.more.get(place, 0) for place, amount in use.items()}

    def fits(self, job: WaitingJob, claims: Mapping[int, Claim]) -> bool:
        """Whether a job fits when these have left for it, on the nodes and, beyond its team's quota, under all
        limits. Whoever leaves, it is not allowed less than before; and some may leave only if it does not borrow.
        """
        pool, team = pool_of(self.policy, job), team_of(self.policy, self.snapshot, job.account)
        assert pool is not None and team is not None
        request = replace(job.request, gpus={pool.tres: wanted(job)})
        if self.free(claims).place(request, job.partitions[0], pool.tres) is None:
            return False
        use = self.use(claims)
        if use[team, pool.name] + wanted(job) <= quota_of(self.policy, team, pool.name).nominal:
            return True
        if Claim.RECLAIM_IF_WITHIN_QUOTA in claims.values():
            return False
        return any(self._allowed(team, pool.name, wanted(job), now) for now in (use, self.use()))

    def _allowed(self, team: str, pool: str, amount: int, use: Use) -> bool:
        more = {**use, (team, pool): use[team, pool] + amount}
        before = excess(self.policy, self.snapshot, use)
        return all(n <= before[place] for place, n in excess(self.policy, self.snapshot, more).items())

    def give(self, job: WaitingJob, held: Sequence[Held], claims: Iterable[int]) -> None:
        """These leave, and the job gets its nodes."""
        for id in claims:
            del self.running[id]
        self.given.append(held)
        pool, team = pool_of(self.policy, job), team_of(self.policy, self.snapshot, job.account)
        assert pool is not None and team is not None
        self.more[team, pool.name] = self.more.get((team, pool.name), 0) + wanted(job)
