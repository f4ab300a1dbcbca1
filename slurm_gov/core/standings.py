"""What a plan says of teams and pools beside its decisions: caps, standings, warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import compress, repeat

from slurm_gov.core.beside import KINDS
from slurm_gov.core.beside import caps as caps_beside
from slurm_gov.core.capacity import Ground
from slurm_gov.core.caps import tres_caps
from slurm_gov.core.decision import PoolStanding, Standing
from slurm_gov.core.memory import Holdings
from slurm_gov.core.policy import Policy, Resource, frozen
from slurm_gov.core.shares import lent_by
from slurm_gov.core.snapshot import Snapshot


def caps(
    policy: Policy, snapshot: Snapshot, ground: Ground, will_hold: Callable[[str, Resource], int]
) -> dict[str, Mapping[str, int]]:
    """Every team's cap: its quota, or what it is to hold until the next plan if that is more."""
    amounts: dict[str, dict[Resource, int]] = {}
    for team in sorted(policy.teams):
        quotas = policy.teams[team].quotas
        amounts[team] = {
            resource: max(quotas[resource].nominal if resource in quotas else 0, will_hold(team, resource))
            for resource in {**dict.fromkeys(policy.pools), **quotas}
        }
    above = {team: _teams_above(policy, snapshot, team) for team in amounts}
    found = tres_caps(policy, amounts, ground.ungoverned, above)
    for team, more in caps_beside(policy, amounts, snapshot.nodes, above).items():
        found[team] = frozen({**found[team], **more})
    return found


def _teams_above(policy: Policy, snapshot: Snapshot, team: str) -> list[str]:
    above: list[str] = []
    parent = snapshot.parents.get(team)
    while parent and parent != team:
        next_team = snapshot.team_of(policy, parent)
        if next_team is None or next_team in above:
            break
        above.append(next_team)
        parent = snapshot.parents.get(next_team)
    return above


def team_standings(
    policy: Policy,
    held: Holdings,
    asked: Mapping[str, Mapping[Resource, tuple[int, int]]],
    caps: Mapping[str, Mapping[str, int]],
) -> Iterator[Standing]:
    """Where each team stands in each pool; ``asked`` is what its waiting jobs ask for and how many they are."""
    shares = held.shares
    for name, pool in policy.pools.items():
        lent = lent_by(policy, shares, name)
        for team in sorted(policy.teams):
            quota, used = shares.quota(team, name).nominal, shares.usage(team, name)
            amount, jobs = asked.get(team, {}).get(name, (0, 0))
            borrowed, running = max(0, used - quota), held.jobs(team).get(name, 0)
            yield Standing(
                team, name, quota, caps[team][pool.tres], used, borrowed, lent[team], amount, jobs, running
            )


def pool_standings(policy: Policy, held: Holdings) -> tuple[PoolStanding, ...]:
    """Each pool's capacity."""
    standings = []
    for pool in policy.pools.values():
        names, gpus, usable = held.ground.gpus[pool.name]
        used = list(map(held.on_nodes[pool.tres].get, names, repeat(0)))
        standings.append(
            PoolStanding(
                pool=pool.name,
                nodes=len(names),
                total=sum(gpus),
                healthy=held.ground.healthy[pool.name],
                used=sum(used),
                free=sum([has - held for has, held in compress(zip(gpus, used, strict=True), usable) if has > held]),
                quota=_quotas(policy, pool.name),
            )
        )
    return tuple(standings)


def _quotas(policy: Policy, pool: str) -> int:
    return sum(team.quotas[pool].nominal for team in policy.teams.values() if pool in team.quotas) + sum(
        cohort.quotas[pool].nominal for cohort in policy.cohorts.values() if pool in cohort.quotas
    )


def warnings(policy: Policy, snapshot: Snapshot, ground: Ground) -> Iterable[str]:
    """What an administrator should know."""
    for pool in policy.pools:
        quotas, capacity = _quotas(policy, pool), ground.healthy[pool]
        if quotas > capacity:
            yield (
                f"the quotas of {pool} add up to {quotas}, but only {capacity} are healthy: "
                f"not all of them can be kept"
            )
    governed = {partition for pool in policy.pools.values() for partition in pool.partitions}
    for one in policy.pools.values():
        for partition in sorted(ground.partitions[one.name] - governed):
            yield (
                f"partition {partition} has nodes of pool {one.name} and is in no pool: jobs waiting "
                f"there are not governed; add it to the pool's partitions"
            )
    for team in sorted(policy.teams):
        set_here = {resource.partition("/")[2] for resource in policy.teams[team].quotas}
        for kind in sorted(KINDS.keys() & snapshot.caps.get(team, {}).keys() - set_here):
            yield (
                f"team {team} has a cap on {kind} in Slurm that is not the policy's: jobs that wait for it are left "
                f"alone; to lift it: sacctmgr modify account where name={team} set GrpTRES={kind}=-1"
            )
    tres = {one.tres for one in policy.pools.values()}
    for account, limits in sorted(snapshot.caps.items()):
        if not tres.isdisjoint(limits) and snapshot.team_of(policy, account) is None:
            lift = ",".join(f"{name}=-1" for name in sorted(limits) if name.startswith("gres/gpu"))
            yield (
                f"account {account} is no team of the policy, but has a cap on GPUs: what it was lent stays with "
                f"it; to lift the cap: sacctmgr modify account where name={account} set GrpTRES={lift}"
            )
