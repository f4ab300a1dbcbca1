"""A report of usage: rows of GPU-hours by period and group, and what they cost. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from slurm_gov.core.policy import Policy
from slurm_gov.core.run import Run
from slurm_gov.ledger.usage import Books, Group, Usage, usage

HOUR = 3600.0


class By(StrEnum):
    """What a report is grouped by."""

    TEAM = "team"
    ACCOUNT = "account"
    USER = "user"
    CLASS = "class"
    POOL = "pool"


class Per(StrEnum):
    """The length of a report's periods."""

    TOTAL = "total"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


GROUPS: Mapping[By, Group] = {
    By.TEAM: lambda team, run: team,
    By.ACCOUNT: lambda team, run: run.account,
    By.USER: lambda team, run: run.user,
    By.CLASS: lambda team, run: run.qos,
    By.POOL: lambda team, run: run.pool,
}


@dataclass(frozen=True, slots=True)
class Row:
    """What one group used in one period, in GPU-hours; see ``Usage``. The fields are the JSON's keys.

    ``period`` is the date on which the period begins, ``None`` if there is only one. ``cost`` is ``used`` at the
    pools' prices, ``None`` where no pool that it used has one. ``utilisation`` is from 0 to 1.
    """

    period: str | None
    group: str
    quota: float | None
    used: float
    within_quota: float
    borrowed: float
    lent: float | None
    waiting: float
    lost_preemption: float
    lost_node_failure: float
    utilisation: float | None
    jobs: int
    cost: float | None


def periods(since: float, until: float, per: Per) -> list[float]:
    """Where the periods begin, and at last where the last one ends: at local midnights, but the first and last."""
    cuts = [since]
    day = datetime.fromtimestamp(since).replace(hour=0, minute=0, second=0, microsecond=0)
    while per is not Per.TOTAL:
        day += timedelta(days=1)
        if day.timestamp() >= until:
            break
        if per is Per.DAY or (per is Per.WEEK and day.weekday() == 0) or (per is Per.MONTH and day.day == 1):
            cuts.append(day.timestamp())
    return [*cuts, until]


def report(
    books: Books, policy: Policy, cuts: Sequence[float], by: By, now: float, team: str = "", pool: str = ""
) -> list[Row]:
    """The rows of a report, those of each period by what they used, most first.

    ``team`` and ``pool`` leave only what is theirs.
    """
    plain = GROUPS[by]

    def group(its_team: str, run: Run) -> str:
        return plain(its_team, run) if team in ("", its_team) and pool in ("", run.pool) else _LEFT_OUT

    sums: dict[tuple[int, str], tuple[Usage, float | None]] = {}
    found = usage(books, cuts, group, by in (By.TEAM, By.POOL), now)
    for (number, name, its_pool), one in found.items():
        if name == _LEFT_OUT or one == Usage() or (not one.quota and one == Usage(quota=0.0, lent=0.0)):
            continue
        place = policy.pools.get(its_pool)
        price = place.price if place is not None else None
        total, cost = sums.setdefault((number, name), (Usage(), None))
        total.add(one)
        if price is not None:
            sums[number, name] = total, (cost or 0.0) + price * one.used / HOUR
    single = len(cuts) == 2
    return [
        row(None if single else datetime.fromtimestamp(cuts[number]).date().isoformat(), name, one, cost)
        for (number, name), (one, cost) in sorted(
            sums.items(), key=lambda item: (item[0][0], -item[1][0].used, -(item[1][0].quota or 0), item[0][1])
        )
    ]


_LEFT_OUT = "\0"


def row(period: str | None, name: str, one: Usage, cost: float | None) -> Row:
    """A row of GPU-hours."""
    return Row(
        period=period,
        group=name,
        quota=None if one.quota is None else one.quota / HOUR,
        used=one.used / HOUR,
        within_quota=one.within_quota / HOUR,
        borrowed=one.borrowed / HOUR,
        lent=None if one.lent is None else one.lent / HOUR,
        waiting=one.waiting / HOUR,
        lost_preemption=one.lost_preemption / HOUR,
        lost_node_failure=one.lost_node_failure / HOUR,
        utilisation=one.utilisation,
        jobs=one.jobs,
        cost=cost,
    )


def total(rows: Iterable[Row], name: str = "total") -> Row:
    """All rows in one."""
    rows = list(rows)

    def added(field: str) -> float:
        return sum(getattr(one, field) or 0.0 for one in rows)

    def known(field: str) -> float | None:
        return added(field) if any(getattr(one, field) is not None for one in rows) else None

    quota, within = known("quota"), added("within_quota")
    return Row(
        None, name, quota, added("used"), within, added("borrowed"), known("lent"), added("waiting"),
        added("lost_preemption"), added("lost_node_failure"), within / quota if quota else None,
        int(added("jobs")), known("cost"),
    )  # fmt: skip


def merged(rows: Iterable[Row]) -> list[Row]:
    """The rows of all periods, one for each group, by what they used."""
    groups: dict[str, list[Row]] = {}
    for one in rows:
        groups.setdefault(one.group, []).append(one)
    return sorted((total(some, name) for name, some in groups.items()), key=lambda one: (-one.used, one.group))
