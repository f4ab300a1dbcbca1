"""CPUs and memory, where a team has quotas of them beside its GPUs: the resources ``h100/cpu`` and ``h100/mem``.

They are lent, borrowed and taken back like GPUs, among the teams that have such quotas. Slurm counts them for the
whole cluster, so a team's cap leaves room for all that is outside the pools in which it has such a quota.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from slurm_gov.core.policy import Policy, Resource
from slurm_gov.core.snapshot import Held, Node, RunningJob

KINDS = {"cpu": "CPUs", "mem": "MiB of memory"}
"""What stands behind the slash, as Slurm calls it, and in words."""
LIMIT_REASONS = {"AssocGrpCpuLimit": "cpu", "AssocGrpMemLimit": "mem"}
"""Slurm's reasons of jobs that wait for such a cap: ours if the team has such a quota, else the site's."""


def resources(policy: Policy) -> set[Resource]:
    """All of them that anybody has a quota of."""
    quotas = [*(team.quotas for team in policy.teams.values()), *(one.quotas for one in policy.cohorts.values())]
    return {resource for owned in quotas for resource in owned if "/" in resource}


def capacity(resource: Resource, nodes: Iterable[Node]) -> int:
    """How much of it these nodes have: CPUs, or MiB."""
    return sum(node.cpus if resource.endswith("/cpu") else node.memory for node in nodes)


def amounts(policy: Policy, team: str, pool: str, cpus: int, memory: int) -> dict[Resource, int]:
    """What so many CPUs and MiB in a pool count for: nothing for a team without such quotas."""
    quotas = policy.teams[team].quotas
    asked = {f"{pool}/cpu": cpus, f"{pool}/mem": memory}
    return {resource: amount for resource, amount in asked.items() if resource in quotas and amount}


def use(policy: Policy, team: str, job: RunningJob) -> dict[Resource, int]:
    """What a running job of a team uses of them: counted in the pool of its partition, as Slurm counts all of it."""
    if len(policy.teams[team].quotas) == len(policy.pools):
        return {}
    pool = next((pool.name for pool in policy.pools.values() if job.partition in pool.partitions), None)
    return {} if pool is None else amounts(policy, team, pool, *totals(job.held))


def totals(held: Iterable[Held]) -> tuple[int, int]:
    """CPUs and MiB."""
    cpus = memory = 0
    for one in held:
        cpus += one.cpus
        memory += one.memory
    return cpus, memory


def caps(
    policy: Policy,
    held: Mapping[str, Mapping[Resource, int]],
    nodes: Sequence[Node],
    above: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, int]]:
    """The caps on ``cpu`` and ``mem`` of the teams that have such quotas. ``held`` is team to resource to amount,
    ``above`` the teams whose accounts stand above a team's: a cap up there covers those below.
    """
    found: dict[str, dict[str, int]] = {}
    known = resources(policy)
    if not known:
        return found
    for kind in KINDS:
        everything = capacity(f"/{kind}", nodes)
        in_pools = {
            pool.name: capacity(f"/{kind}", (node for node in nodes if set(pool.partitions) & set(node.partitions)))
            for pool in policy.pools.values()
            if f"{pool.name}/{kind}" in known
        }
        own = {}
        for team, amount in held.items():
            mine = [pool for pool in in_pools if f"{pool}/{kind}" in amount]
            outside = max(0, everything - sum(in_pools[pool] for pool in mine))
            if mine:
                own[team] = outside + sum(amount[f"{pool}/{kind}"] for pool in mine)
        for team, cap in own.items():
            below = [one for one in held if team in above.get(one, ())]
            found.setdefault(team, {})[kind] = cap + sum(own.get(one, everything) for one in below)
    return found
