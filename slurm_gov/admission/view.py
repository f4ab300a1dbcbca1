"""What submissions are judged by: worked out by the daemon once a cycle, handed to the admission process.

Plain dictionaries, so that it travels between processes and a look-up costs next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from slurm_gov.core.capacity import ceiling, in_pool
from slurm_gov.core.cluster import Cluster
from slurm_gov.core.policy import Mode, Policy
from slurm_gov.core.shares import limits
from slurm_gov.core.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """One pool as a submission sees it. ``gres`` is typed (``gpu:h100``); ``nodes`` has each node's GPUs,
    the largest first, sick nodes too: they will come back.
    """

    name: str
    gres: str
    nodes: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.nodes)


@dataclass(frozen=True, slots=True)
class UserFacts:
    """A Slurm user: default account, QOS by account, and whether it is an operator or administrator."""

    name: str
    default_account: str
    qos: dict[str, frozenset[str]]
    admin: bool


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A pending job, for judging a change of it."""

    account: str
    partitions: tuple[str, ...]
    nodes: int


@dataclass(frozen=True, slots=True)
class View:
    """Everything the answer to a submission depends on.

    ``teams``: account to team. ``pools``: partition to its pools. ``most``: (team, pool) to what it could ever
    hold and its limits in words. ``observe``: every request is accepted as it came, and what it would have got is
    only reported.
    """

    slurm_uid: int = 0
    observe: bool = False
    default_partition: str = ""
    teams: dict[str, str] = field(default_factory=dict)
    users: dict[int, UserFacts] = field(default_factory=dict)
    pools: dict[str, tuple[PoolFacts, ...]] = field(default_factory=dict)
    most: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    priority_classes: dict[str, int] = field(default_factory=dict)
    jobs: dict[int, JobFacts] = field(default_factory=dict)


def make_view(policy: Policy, snapshot: Snapshot, cluster: Cluster) -> View:
    """The view of this moment."""
    top = ceiling(policy, snapshot)
    accounts = {*snapshot.parents, *policy.teams}
    teams = {account: team for account in accounts if (team := snapshot.team_of(policy, account)) is not None}
    pools: dict[str, list[PoolFacts]] = {}
    for pool in policy.pools.values():
        for partition in pool.partitions:
            sizes = sorted(
                (
                    node.gpus[pool.tres]
                    for node in snapshot.nodes
                    if in_pool(node, pool) and partition in node.partitions
                ),
                reverse=True,
            )
            pools.setdefault(partition, []).append(PoolFacts(pool.name, pool.gres, tuple(sizes)))
    return View(
        slurm_uid=cluster.slurm_uid,
        observe=policy.mode is Mode.OBSERVE,
        default_partition=cluster.default_partition,
        teams=teams,
        users={
            uid: UserFacts(user.name, user.default_account, dict(user.accounts), user.admin)
            for uid, user in cluster.users.items()
        },
        pools={partition: tuple(facts) for partition, facts in pools.items()},
        most={
            (team, pool): (top.available(team, pool), limits(top, team, pool))
            for team in policy.teams
            for pool in policy.pools
        },
        priority_classes=dict(policy.priority_classes),
        jobs={job.id: JobFacts(job.account, job.partitions, job.request.min_nodes) for job in snapshot.waiting},
    )
