"""From the checked file to the core's Policy: percentages become numbers, defaults are filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from slurm_gov.core.policy import (
    BorrowPreempts,
    ClassRules,
    Cohort,
    Idle,
    MaxPreemptions,
    Mode,
    Policy,
    Pool,
    Preemption,
    Quota,
    Rebalance,
    Reclaim,
    Team,
    Victims,
    WithinTeam,
    frozen,
)
from slurm_gov.policy import health_resolve, schema, values

Limits = values.Limit | dict[str, values.Limit]


def resolve(file: schema.PolicyFile) -> Policy:
    """The policy a file stands for. Every team and cohort gets one Quota for each pool.

    Percentages are rounded down. A team's percentages are of its own quota; a cohort's are of the quotas of
    the cohort, of its teams and of all cohorts below it together. A pool that a team's quota does not name
    is closed to it: Quota(0, borrow=0, lend=0).
    """
    pools = {name: Pool(name, pool.partition, pool.gres, pool.price) for name, pool in file.pools.items()}
    teams = {name: _team(name, team, pools, file) for name, team in file.teams.items()}
    totals = _totals(file, pools)
    cohorts = {name: _cohort(name, cohort, file, totals[name]) for name, cohort in file.cohorts.items()}
    preemption = Preemption(
        grace=file.preemption.grace,
        signal=file.preemption.signal,
        min_runtime=file.preemption.min_runtime,
        requeue_delay=file.preemption.requeue_delay,
        cancel_unrequeueable=file.preemption.if_not_requeueable == "cancel",
        victims=Victims(file.preemption.victims),
        classes=frozen(
            {name: ClassRules(rules.min_runtime, rules.protected) for name, rules in file.preemption.classes.items()}
        ),
        max_preemptions=MaxPreemptions(most.count, most.per) if (most := file.preemption.max_preemptions) else None,
        checkpoint_file=file.preemption.checkpoint_file or "",
    )
    mode = Mode(file.mode)
    if mode is Mode.CAPS:
        teams = {name: _harmless(team) for name, team in teams.items()}
    return Policy(
        mode=mode,
        pools=frozen(pools),
        teams=frozen(teams),
        cohorts=frozen(cohorts),
        priority_classes=frozen(file.priority_classes),
        idle=Idle(file.sharing.idle),
        lend_unallocated=file.sharing.lend_unallocated,
        rebalance=Rebalance.NEVER if mode is Mode.CAPS else Rebalance(file.sharing.rebalance),
        protect_after=file.sharing.protect_after,
        half_life=file.sharing.half_life,
        preemption=preemption,
        health=health_resolve.resolve(file.health, pools, file.mode),
    )


def _limit(limits: Limits, resource: str, default: values.Limit, nominal: Mapping[str, int]) -> int | None:
    """A lend or borrow limit of a resource, of what is nominal. A number is of accelerators: CPUs and memory follow
    in proportion, unless they have a limit of their own.
    """
    pool = resource.partition("/")[0]
    limit = limits.get(resource) if isinstance(limits, dict) else limits
    if limit is None or (limit.number and not isinstance(limits, dict)):
        limit = limit or (limits.get(pool, default) if isinstance(limits, dict) else default)
        if limit.number and resource != pool:
            return nominal[resource] * limit.number // nominal[pool] if nominal.get(pool) else None
    return limit.of(nominal[resource])


def _amounts(quota: Mapping[str, int | values.Nodes | values.Memory], file: schema.PolicyFile) -> dict[str, int]:
    """A quota in units of its resources: accelerators, CPUs, MiB."""
    found = {}
    for resource, value in quota.items():
        if isinstance(value, values.Nodes):
            found[resource] = value.count * (file.pools[resource].gpus_per_node or 0)
        else:
            found[resource] = value.mib if isinstance(value, values.Memory) else value
    return found


def _team(name: str, team: schema.Team, pools: Mapping[str, Pool], file: schema.PolicyFile) -> Team:
    nominal = _amounts(team.quota, file)
    quotas = {pool: Quota(0, borrow=0, lend=0) for pool in pools}
    for resource in nominal:
        quotas[resource] = Quota(
            nominal[resource],
            borrow=_limit(team.borrow, resource, schema.TEAM_BORROW, nominal),
            lend=_limit(team.lend, resource, values.ALL, nominal),
        )
    return Team(
        name=name,
        quotas=frozen(quotas),
        cohort=team.cohort,
        fair_share_weight=team.fair_share_weight,
        preempt_within_team=WithinTeam(team.preempt_within_team),
        reclaim=Reclaim(team.reclaim),
        borrow_preempts=_borrow_preempts(team.borrow_preempts),
        min_runtime=team.min_runtime,
    )


def _harmless(team: Team) -> Team:
    """The team in the mode ``caps``: it preempts nobody."""
    return replace(team, preempt_within_team=WithinTeam.NEVER, reclaim=Reclaim.NEVER, borrow_preempts=None)


def _borrow_preempts(value: str | int) -> BorrowPreempts | None:
    if value == "none":
        return None
    return BorrowPreempts(value if isinstance(value, int) else None)


def _cohort(name: str, cohort: schema.Cohort, file: schema.PolicyFile, total: Mapping[str, int]) -> Cohort:
    own = _amounts(cohort.quota, file)
    quotas = {
        resource: Quota(
            own.get(resource, 0),
            borrow=_limit(cohort.borrow, resource, values.ALL, total),
            lend=_limit(cohort.lend, resource, values.ALL, total),
        )
        for resource in total
    }
    return Cohort(name, cohort.parent, frozen(quotas), cohort.fair_share_weight)


def _totals(file: schema.PolicyFile, pools: Mapping[str, Pool]) -> dict[str, dict[str, int]]:
    """For each cohort and resource: the quotas of the cohort, its teams and all cohorts below it."""
    totals = {name: dict.fromkeys(pools, 0) for name in file.cohorts}
    claims = [(team.cohort, team.quota) for team in file.teams.values()]
    claims += [(name, cohort.quota) for name, cohort in file.cohorts.items()]
    for start, quota in claims:
        above = start
        while above is not None:
            for resource, amount in _amounts(quota, file).items():
                totals[above][resource] = totals[above].get(resource, 0) + amount
            above = file.cohorts[above].parent
    return totals
