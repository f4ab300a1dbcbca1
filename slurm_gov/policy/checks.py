"""What a well-shaped file can still get wrong: names that refer to nothing, loops, things that contradict.

The checks read the plain data, not the models, and pass over what is not of the right shape (the schema
reports that): so that all mistakes of a file are reported at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from slurm_gov.core.policy import Idle, Policy
from slurm_gov.policy import health_checks, values
from slurm_gov.policy.problems import did_you_mean, shown
from slurm_gov.policy.text import Path

# (path, whether the key itself is wrong rather than its value, message, remedy)
Finding = tuple[Path, bool, str, str]


def find(data: Any) -> Iterator[Finding]:
    """All contradictions in the plain data of a policy file."""
    pools = _mapping(data, "pools")
    teams = _mapping(data, "teams")
    cohorts = _mapping(data, "cohorts")
    yield from _names(data)
    yield from _double_pools(pools)
    for section, holders in (("teams", teams), ("cohorts", cohorts)):
        for name, holder in holders.items():
            yield from _holder((section, name), holder, pools)
    for name, team in teams.items():
        if isinstance(team, dict):
            yield from _reference(("teams", name, "cohort"), team.get("cohort"), cohorts)
    for name, cohort in cohorts.items():
        if isinstance(cohort, dict):
            yield from _reference(("cohorts", name, "parent"), cohort.get("parent"), cohorts)
    yield from _loops(cohorts)
    yield from health_checks.find(data)
    classes = _mapping(data, "priority_classes")
    for name in _mapping(data, "preemption", "classes"):
        if name not in classes:
            yield (
                ("preemption", "classes", name),
                True,
                "is no priority class of this file",
                did_you_mean(name, classes, "priority class"),
            )


def _mapping(data: Any, *path: str) -> dict[str, Any]:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def _names(data: Any) -> Iterator[Finding]:
    for section, what, calls in (("teams", "team", "account"), ("priority_classes", "priority class", "QOS")):
        for name in _mapping(data, section):
            bad = values.name_problem(name, what, calls)
            if bad:
                yield (section, name), True, *bad
            elif (section, name) == ("teams", "root"):
                yield (
                    (section, name),
                    True,
                    "is Slurm's account above all others and cannot be a team",
                    "name the accounts below it",
                )
    for section, what in (("pools", "pool"), ("cohorts", "cohort")):
        for name in _mapping(data, section):
            bad = values.plain_name_problem(name, what)
            if bad:
                yield (section, name), True, *bad


def _double_pools(pools: dict[str, Any]) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for name, pool in pools.items():
        gres = pool.get("gres") if isinstance(pool, dict) else None
        if not isinstance(gres, str):
            continue
        first = seen.setdefault(gres.lower(), name)
        if first != name:
            yield (
                ("pools", name, "gres"),
                False,
                f"{shown(gres)} is pool {first}'s already, and Slurm holds one cap per account for it",
                "make them one pool with a list of partitions, or give the nodes another type in gres.conf",
            )


def _holder(path: Path, holder: Any, pools: dict[str, Any]) -> Iterator[Finding]:
    """A team's or cohort's quota, lend and borrow name only pools that exist and that it has a quota in."""
    quota = holder.get("quota") if isinstance(holder, dict) else None
    amounts = quota if isinstance(quota, dict) else {}
    for resource, amount in amounts.items():
        yield from _quota((*path, "quota", resource), resource, amount, set(amounts), pools)
    for setting in ("lend", "borrow"):
        limits = holder.get(setting) if isinstance(holder, dict) else None
        if not isinstance(limits, dict):
            continue
        for resource in limits:
            pool = resource.partition("/")[0]
            if pool not in pools or not _is_resource(resource):
                yield (
                    (*path, setting, resource),
                    True,
                    "is no pool of this file",
                    did_you_mean(resource, pools, "pool"),
                )
            elif path[0] == "teams" and isinstance(quota, dict) and resource not in quota:
                yield (
                    (*path, setting, resource),
                    True,
                    "is a pool that the team's quota does not name, so it is closed to the team"
                    if resource == pool
                    else "is not in the team's quota",
                    f"add {resource}: 0 to its quota, or remove this" if resource == pool else "remove this",
                )


def _is_resource(name: str) -> bool:
    return name.partition("/")[1:] == ("", "") or name.partition("/")[2] in ("cpu", "mem")


def _quota(path: Path, resource: str, value: Any, named: set[str], pools: dict[str, Any]) -> Iterator[Finding]:
    """One amount of a quota: of accelerators or whole nodes of a pool, of CPUs or memory beside them."""
    pool, _, kind = resource.partition("/")
    nodes = isinstance(value, dict)
    memory = isinstance(value, str) and value.strip()[-1:].upper() in tuple("MGTP")
    if pool not in pools:
        yield path, True, "is no pool of this file", did_you_mean(pool, pools, "pool")
    elif not _is_resource(resource):
        yield path, True, "is no resource of a pool", f"write {pool}, {pool}/cpu or {pool}/mem"
    elif kind and path[0] == "teams" and pool not in named:
        yield (
            path,
            True,
            "has no accelerators beside it, so the pool is closed to the team",
            f"add {pool}: 0, or more",
        )
    elif nodes and kind:
        yield path, False, "is in whole nodes", f"write a number; only {pool} itself may be {{nodes: 4}}"
    elif nodes and not (isinstance(pools[pool], dict) and pools[pool].get("gpus_per_node")):
        remedy = f"add gpus_per_node to pool {pool}: what sinfo -o %G shows"
        yield path, False, "is in whole nodes, and how many accelerators a node has is not said", remedy
    elif memory and kind != "mem":
        yield path, False, f"is memory: {shown(value)}", f"write a number; memory is {pool}/mem"


def _reference(path: Path, name: Any, cohorts: dict[str, Any]) -> Iterator[Finding]:
    if isinstance(name, str) and name not in cohorts:
        remedy = did_you_mean(name, cohorts, "cohort")
        if not cohorts:
            remedy = f"add it under cohorts ({name}: {{}}), or leave this out"
        yield path, False, f"there is no cohort {shown(name)}", remedy


def _loops(cohorts: dict[str, Any]) -> Iterator[Finding]:
    reported: set[str] = set()
    for start in cohorts:
        chain = [start]
        while True:
            cohort = cohorts.get(chain[-1])
            above = cohort.get("parent") if isinstance(cohort, dict) else None
            if not isinstance(above, str) or above not in cohorts:
                break
            if above in chain:
                loop = chain[chain.index(above) :]
                if start in loop and not reported & set(loop):
                    reported |= set(loop)
                    message = (
                        "is its own parent"
                        if len(loop) == 1
                        else f"parents go in a circle: {' → '.join([*loop, above])}"
                    )
                    yield ("cohorts", start, "parent"), False, message, "one of them must have no parent"
                break
            chain.append(above)


def warnings(policy: Policy, data: Any) -> Iterator[Finding]:
    """What is allowed but probably not meant."""
    teams = policy.teams.values()
    borrowers = [t for t in teams if any(q.borrow != 0 for q in t.quotas.values())]
    if policy.idle is Idle.FAIR_SHARE and len(borrowers) > 1 and not any(t.fair_share_weight for t in teams):
        yield (
            ("teams",),
            True,
            "every team's fair_share_weight is 0, so idle capacity is not divided by weight",
            "give the teams weights, or set sharing.idle: first_come",
        )
    for team in teams:
        raw = _mapping(data, "teams", team.name)
        if all(q.nominal == 0 and q.borrow == 0 for q in team.quotas.values()):
            message = "may hold nothing: its quota is 0 and so is what it may borrow"
            remedy = "give it a quota, or a borrow limit that is not a percentage, such as unlimited"
            yield ("teams", team.name), True, message, remedy
        for pool, quota in team.quotas.items():
            if quota.lend is not None and quota.lend > quota.nominal:
                one_pool = (pool,) if isinstance(raw.get("lend"), dict) else ()
                message = f"lends {quota.lend} of {pool} but its quota there is {quota.nominal}"
                yield ("teams", team.name, "lend", *one_pool), False, message, "it lends at most its quota"
    for pool in policy.pools:
        quotas = [team.quotas[pool] for team in teams]
        quotas += [cohort.quotas[pool] for cohort in policy.cohorts.values()]
        if not any(quota.nominal for quota in quotas):
            yield (
                ("pools", pool),
                True,
                "nobody has a quota in this pool",
                "all of it is unallocated capacity",
            )
    used = {t.cohort for t in teams} | {c.parent for c in policy.cohorts.values()}
    for cohort in policy.cohorts:
        if cohort not in used:
            yield (
                ("cohorts", cohort),
                True,
                "no team and no cohort belongs to it",
                "remove it, or name it in a team",
            )
    if policy.half_life is not None and policy.idle is Idle.FIRST_COME:
        message = "has no effect, because idle capacity goes to jobs in Slurm's order"
        yield ("sharing", "half_life"), False, message, "leave it out, or set idle: fair_share"
    if policy.preemption.signal.endswith("KILL"):
        message = "a job cannot catch KILL, so it has no time to write a checkpoint"
        yield ("preemption", "signal"), False, message, "use a signal that it can catch, such as USR1"
