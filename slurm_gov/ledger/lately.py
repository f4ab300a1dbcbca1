"""What teams and cohorts borrowed lately, as the ledger knows it: what was long ago counts less and less.

The ledger tells what each team used at every moment, and what its quota was then. The rest is as the policy has it
now: which cohorts there are and who is in them, their own quotas, and how much of what is unused is lent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf, log
from typing import NamedTuple

from slurm_gov.core.policy import Cohort, Policy, Quota
from slurm_gov.core.shares import SHARED
from slurm_gov.database import Where
from slurm_gov.ledger.read import Balance, balances

HALVES = 10
"""After so many half-lives a thousandth is left of it: it is forgotten."""


class Lately(NamedTuple):
    """Borrowed GPU-seconds by name, in all pools; who borrowed nothing is left out."""

    teams: Mapping[str, float]
    cohorts: Mapping[str, float]


def borrowed_lately(path: Where, policy: Policy, now: float) -> Lately:
    """What each borrowed, where what is one ``half_life`` of the policy old counts half. Raises ``LedgerError``.

    A team borrows what it uses beyond its quota. A cohort borrows what it takes from outside itself: what its teams
    borrow from one another does not count, and what one of them does not lend makes up for nothing. Of the last
    minute not all is known: what goes on is written once in it.
    """
    if policy.half_life is None:
        return Lately({}, {})
    return decayed(balances(path, now - HALVES * policy.half_life, now), policy, policy.half_life, now)


def decayed(found: Iterable[Balance], policy: Policy, half_life: float, now: float) -> Lately:
    """The same of these balances, of which none begins before the one in front of it."""
    trees: dict[str, _Tree] = {}
    lasts: dict[tuple[str, str], tuple[float, int]] = {}
    ends: list[tuple[float, str, str]] = []

    def change(team: str, pool: str, more: int, at: float) -> None:
        if pool not in trees:
            trees[pool] = _Tree(policy, pool)
        holder = trees[pool].teams.get(team)
        if holder is not None and more:
            # In seconds: what is left now of one GPU that was borrowed from ever until then.
            _change(holder, more, 2 ** (-max(0.0, now - at) / half_life) * half_life / log(2))

    def end(before: float) -> None:
        while ends and ends[0][0] < before:
            until, team, pool = heappop(ends)
            last = lasts.get((team, pool))
            if last is not None and last[0] == until:  # nothing followed at once
                del lasts[team, pool]
                change(team, pool, -last[1], until)

    for team, pool, since, until, balance in found:
        end(since)
        # Where two overlap, because the clock was set back, the one that began later holds.
        _, before = lasts.get((team, pool), (until, 0))
        change(team, pool, balance - before, since)
        lasts[team, pool] = until, balance
        heappush(ends, (until, team, pool))
    end(inf)
    return Lately(_sums(tree.teams for tree in trees.values()), _sums(tree.cohorts for tree in trees.values()))


@dataclass(slots=True, eq=False)
class _Holder:
    """A team or cohort in one pool.

    ``balance``: what is used in it less its quotas, negative while some of these is unused; of that it lends no more
    than ``lend``. ``borrowed``: its GPU-seconds until the balance last changed, which was at ``since``.
    """

    above: _Holder | None
    lend: int | None
    balance: int = 0
    since: float = 0.0
    borrowed: float = 0.0


class _Tree:
    """Who lends to whom in one pool."""

    def __init__(self, policy: Policy, pool: str) -> None:
        self._policy = policy
        self._pool = pool
        self.cohorts: dict[str, _Holder] = {}
        for name in policy.cohorts:
            self._cohort(name)
        self.teams: dict[str, _Holder] = {}
        for team in policy.teams.values():
            # Where all teams are in one cohort nobody asks what that borrowed.
            above = self._cohort(team.cohort if team.cohort is not None else SHARED) if policy.cohorts else None
            self.teams[team.name] = _Holder(above, team.quotas.get(pool, Quota()).lend)

    def _cohort(self, name: str) -> _Holder:
        if name not in self.cohorts:
            cohort = self._policy.cohorts.get(name, Cohort(name))
            quota = cohort.quotas.get(self._pool, Quota())
            above = self._cohort(cohort.parent) if cohort.parent is not None else None
            self.cohorts[name] = _Holder(above, quota.lend)
            _change(self.cohorts[name], -quota.nominal, 0.0)
        return self.cohorts[name]


def _change(holder: _Holder | None, more: int, at: float) -> None:
    """Count more, here and above as far as it comes there."""
    while holder is not None and more:
        before = holder.balance
        after = holder.balance = before + more
        if before > 0:
            holder.borrowed += before * (at - holder.since)
        holder.since = at
        lend = holder.lend
        if lend is not None:  # no more than that is unused for those above
            before, after = max(before, -lend), max(after, -lend)
        more, holder = after - before, holder.above


def _sums(found: Iterable[dict[str, _Holder]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for holders in found:
        for name, holder in holders.items():
            if holder.borrowed:
                sums[name] = sums.get(name, 0.0) + holder.borrowed
    return sums
