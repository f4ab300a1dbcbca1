"""What there is and who uses it: nodes by pool, what of them is healthy, and what running jobs hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import log

from slurm_gov.core import beside
from slurm_gov.core.caps import ungoverned
from slurm_gov.core.policy import Policy, Pool, Resource
from slurm_gov.core.shares import Shares
from slurm_gov.core.snapshot import Node, RunningJob, Snapshot


class Ground:
    """The nodes by pool, worked out once for as long as they are the same.

    ``gpus``: of the nodes in a pool their names, how many each has, and whether it is healthy; ``partitions``: those
    that the nodes of a pool are in. ``healthy``: each pool's healthy capacity in GPUs, and in CPUs and MiB where
    anybody has a quota of these. ``ungoverned``: GPUs of no pool, by their untyped TRES.
    """

    def __init__(self, policy: Policy, nodes: Iterable[Node], all_usable: bool = False) -> None:
        """Healthy are the nodes that Slurm would start a job on, or all."""
        every = tuple(nodes)
        self.of_pool = {pool.name: [node for node in every if in_pool(node, pool)] for pool in policy.pools.values()}
        self.gpus = {
            pool.name: (
                [node.name for node in here],
                [node.gpus[pool.tres] for node in here],
                [node.usable for node in here],
            )
            for pool, here in zip(policy.pools.values(), self.of_pool.values(), strict=True)
        }
        self.partitions = {
            name: {partition for node in here for partition in node.partitions} for name, here in self.of_pool.items()
        }
        self.ungoverned = ungoverned(policy, (node.gpus for node in every))
        usable = {name: [node for node in here if all_usable or node.usable] for name, here in self.of_pool.items()}
        self.healthy: dict[Resource, int] = {
            pool.name: sum(node.gpus[pool.tres] for node in usable[pool.name]) for pool in policy.pools.values()
        }
        for resource in sorted(beside.resources(policy)):
            name = resource.partition("/")[0]
            if name in usable:
                self.healthy[resource] = beside.capacity(resource, usable[name])


def pool_use(policy: Policy, job: RunningJob) -> dict[Resource, int]:
    """What a running job uses of each pool, in GPUs.

    Counted by TRES wherever the node is, because that is how Slurm holds it against the cap.
    """
    use: dict[Resource, int] = {}
    for pool in policy.pools.values():
        amount = sum(held.gpus.get(pool.tres, 0) for held in job.held)
        if amount:
            use[pool.name] = amount
    return use


def team_use(policy: Policy, team: str, job: RunningJob) -> dict[Resource, int]:
    """What a running job counts for, for its team: GPUs, and CPUs and memory where the team has quotas of them."""
    return pool_use(policy, job) | beside.use(policy, team, job)


def in_pool(node: Node, pool: Pool) -> bool:
    """Whether a node belongs to a pool: it is in one of its partitions and has its GRES."""
    return pool.tres in node.gpus and not set(pool.partitions).isdisjoint(node.partitions)


def lately(policy: Policy, borrowed: Mapping[str, float]) -> dict[str, float]:
    """What each ``borrowed`` lately, in GPU-seconds, as GPUs on average: so many leave that in the end."""
    if policy.half_life is None:
        return {}
    return {name: seconds * log(2) / policy.half_life for name, seconds in borrowed.items()}


def ceiling(policy: Policy, snapshot: Snapshot) -> Shares:
    """The tree as it would be with every node healthy and nothing used: what is available in it is the most
    that a team could ever hold.
    """
    return Shares(policy, Ground(policy, snapshot.nodes, all_usable=True).healthy)
