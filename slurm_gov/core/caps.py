"""From GPUs per pool to what is written as an account's GrpTRES."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from slurm_gov.core.policy import Policy, frozen


def tres_caps(
    policy: Policy,
    amounts: Mapping[str, Mapping[str, int]],
    ungoverned: Mapping[str, int],
    above: Mapping[str, Sequence[str]],
) -> dict[str, Mapping[str, int]]:
    """Each team's caps by TRES. ``amounts`` is team to pool to GPUs, ``ungoverned`` what is said of that below, and
    ``above`` the teams whose accounts stand above a team's.

    The untyped TRES is capped too, at the sum over its pools: it holds a job that came in untyped while nobody
    answered the plugin. GPUs of no pool are nobody's quota, so the untyped cap leaves room for all of them. A
    parent account's GrpTRES holds for all accounts below it, so it covers theirs.
    """
    pools = policy.pools.values()
    own: dict[str, dict[str, int]] = {}
    for team, held in amounts.items():
        own[team] = {pool.tres: held[pool.name] for pool in pools}
        for pool in pools:
            own[team][pool.untyped_tres] = own[team].get(pool.untyped_tres, 0) + held[pool.name]
    caps = {team: dict(mine) for team, mine in own.items()}
    for team, mine in own.items():
        for higher in above.get(team, ()):
            for tres, amount in mine.items():
                caps[higher][tres] += amount
    for mine in caps.values():
        for tres, amount in ungoverned.items():
            mine[tres] += amount
    return {team: frozen(mine) for team, mine in caps.items()}


def ungoverned(policy: Policy, node_gpus: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """How many GPUs belong to no pool, by the pools' untyped TRES; ``node_gpus`` is each node's GPUs by TRES."""
    pools = policy.pools.values()
    governed = {pool.tres for pool in pools}
    found = dict.fromkeys((pool.untyped_tres for pool in pools), 0)
    for gpus in node_gpus:
        for tres, amount in gpus.items():
            if tres not in governed and (tres := tres.lower()) not in governed:
                untyped = tres.partition(":")[0]
                if untyped in found:
                    found[untyped] += amount
    return found
