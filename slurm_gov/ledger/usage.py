"""Who used what: GPU-seconds from Slurm's own accounting, divided by the quotas that stood then. Pure.

What was held is sacct's word: every run, from its start to its end. The ledger adds what Slurm does not know:
each team's quota at every moment, what it lent, and what its preempted jobs lost.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from slurm_gov.core.run import Run
from slurm_gov.ledger.event import Event, Kind
from slurm_gov.ledger.span import Span

NO_TEAM = "(no team)"
UNKNOWN = "(unknown)"
MATCH = 10.0
"""Seconds by which slurmctld's time of a job's end and ours of its requeue may differ."""

Group = Callable[[str, Run], str]
"""From a team and a run of one of its jobs to the group it is counted in."""


@dataclass(slots=True)
class Usage:
    """What one group used in one period, in GPU-seconds.

    ``used`` = ``within_quota`` + ``borrowed``, but for jobs of no team, which are in ``used`` alone. ``quota`` and
    ``lent`` belong to teams and pools; elsewhere they are ``None``. ``jobs`` counts runs that held GPUs.
    """

    quota: float | None = None
    used: float = 0.0
    within_quota: float = 0.0
    borrowed: float = 0.0
    lent: float | None = None
    waiting: float = 0.0
    lost_preemption: float = 0.0
    lost_node_failure: float = 0.0
    jobs: int = 0

    @property
    def utilisation(self) -> float | None:
        """The part of its quota that it used itself, 0 to 1; ``None`` without a quota."""
        return self.within_quota / self.quota if self.quota else None

    def add(self, other: Usage) -> None:
        """Count another one's in."""
        for name in ("used", "within_quota", "borrowed", "waiting", "lost_preemption", "lost_node_failure", "jobs"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.quota is not None:
            self.quota = (self.quota or 0.0) + other.quota
        if other.lent is not None:
            self.lent = (self.lent or 0.0) + other.lent


Key = tuple[int, str, str]
"""The number of the period, the group, the pool."""


@dataclass(frozen=True, slots=True)
class Books:
    """What a report is made from. ``quotas``: team and pool to the present quota; ``parents``: of accounts."""

    runs: Sequence[Run]
    spans: Sequence[Span]
    events: Sequence[Event]
    quotas: Mapping[tuple[str, str], int]
    parents: Mapping[str, str]
    priorities: Mapping[str, int] = field(default_factory=dict)

    def teams(self) -> dict[str, str]:
        """Each account of a run to its team: itself or the nearest above it, also a former one."""
        known = {team for team, _ in self.quotas} | {span.team for span in self.spans}
        found = {}
        for account in {run.account for run in self.runs}:
            seen: set[str] = set()
            one = account
            while one and one not in known and one not in seen:
                seen.add(one)
                one = self.parents.get(one, "")
            found[account] = one if one in known else NO_TEAM
        return found


def usage(books: Books, periods: Sequence[float], group: Group, by_team: bool, now: float) -> dict[Key, Usage]:
    """What each group used in each pool, from ``periods[i]`` to ``periods[i + 1]``, up to ``now``.

    ``by_team``: the groups are teams (or parts of the whole cluster), and get quota and lent.
    """
    found: dict[Key, Usage] = {}
    teams = books.teams()
    runs: dict[tuple[str, str], list[Run]] = {}
    for run in books.runs:
        runs.setdefault((teams[run.account], run.pool), []).append(run)
        _waiting(found, periods, now, run, group(teams[run.account], run))
    spans: dict[tuple[str, str], list[Span]] = {}
    for span in books.spans:
        spans.setdefault((span.team, span.pool), []).append(span)
    for owner in sorted({*runs, *spans, *books.quotas}):
        team, pool = owner
        quota = _quotas(spans.get(owner, ()), books.quotas.get(owner), now)
        _held(found, periods, now, books.priorities, team, runs.get(owner, ()), quota, group)
        if by_team and team != NO_TEAM:
            _owned(found, periods, now, team, pool, quota, spans.get(owner, ()), group)
    _lost(found, periods, books, teams, group)
    return found


def _at(found: dict[Key, Usage], period: int, group: str, pool: str) -> Usage:
    key = (period, group, pool)
    one = found.get(key)
    if one is None:
        one = found[key] = Usage()
    return one


def _parts(periods: Sequence[float], since: float, until: float) -> Iterable[tuple[int, float, float]]:
    """The periods that a stretch of time touches, and from when to when."""
    since, until = max(since, periods[0]), min(until, periods[-1])
    while since < until:
        number = bisect_right(periods, since) - 1
        end = min(until, periods[number + 1])
        yield number, since, end
        since = end


def _waiting(found: dict[Key, Usage], periods: Sequence[float], now: float, run: Run, group: str) -> None:
    if run.eligible is not None:
        until = next((time for time in (run.start, run.end) if time is not None), now)
        for number, since, end in _parts(periods, run.eligible, min(until, now)):
            _at(found, number, group, run.pool).waiting += run.gpus * run.tasks * (end - since)


def _quotas(spans: Sequence[Span], present: int | None, now: float) -> list[tuple[float, int]]:
    """From when on a team had which quota, the earliest first. Holes in what was seen keep what was before."""
    steps: list[tuple[float, int]] = []
    for span in spans:
        if not steps or steps[-1][1] != span.quota:
            steps.append((span.since if steps else float("-inf"), span.quota))
    if not steps:
        return [(float("-inf"), present or 0)]
    last = max(span.until for span in spans)
    if present is None and last < now:
        steps.append((last, 0))
    return steps


def _held(
    found: dict[Key, Usage],
    periods: Sequence[float],
    now: float,
    priorities: Mapping[str, int],
    team: str,
    runs: Iterable[Run],
    quota: Sequence[tuple[float, int]],
    group: Group,
) -> None:
    """Go through time, from one change to the next: what is held above the quota is borrowed, by those who came
    last: of lower priority class, or later.
    """
    # Time, what (first of what is at the same time), run or quota. A period's begin is a change too, so that no
    # stretch of time belongs to two of them.
    changes = [(time, _QUOTA, amount) for time, amount in quota if periods[0] < time < periods[-1]]
    changes += [(time, _PERIOD, 0) for time in periods[1:-1]]
    held: list[_Holding] = []
    for run in runs:
        if run.start is None:
            continue
        until = now if run.end is None else run.end
        start, end = max(run.start, periods[0]), min(until, periods[-1])
        if start >= end:
            continue
        # While it is suspended Slurm does not count: spread evenly over the run, as nobody knows when it was.
        counted = 1.0 if run.end is None else min(1.0, run.elapsed / (run.end - run.start))
        one = _Holding(run, group(team, run), counted, (-priorities.get(run.qos, 0), run.start, len(held)))
        changes += [(start, _START, len(held)), (end, _END, len(held))]
        held.append(one)
        for number, since, to in _parts(periods, start, end):
            place = _at(found, number, one.group, run.pool)
            place.used += run.gpus * (to - since) * counted
            place.within_quota += run.gpus * (to - since) * counted if team != NO_TEAM else 0.0
        _at(found, bisect_right(periods, start) - 1, one.group, run.pool).jobs += 1
    if team == NO_TEAM:
        return
    nominal = quota[bisect_right([time for time, _ in quota], periods[0]) - 1][1]
    order: list[tuple[int, float, int]] = []  # who holds, those who borrow last
    total, last = 0, periods[0]
    for time, what, number in sorted(changes):
        if time > last and total > nominal:
            _borrowed(found, bisect_right(periods, last) - 1, time - last, held, order, total - nominal)
        last = max(last, time)
        if what == _QUOTA:
            nominal = number
        elif what == _START:
            insort(order, held[number].place)
            total += held[number].run.gpus
        elif what == _END:
            del order[bisect_left(order, held[number].place)]
            total -= held[number].run.gpus


_END, _START, _QUOTA, _PERIOD = range(4)


@dataclass(frozen=True, slots=True)
class _Holding:
    """A run that held GPUs; ``counted`` is the part of its time that Slurm counts."""

    run: Run
    group: str
    counted: float
    place: tuple[int, float, int]


def _borrowed(
    found: dict[Key, Usage],
    period: int,
    seconds: float,
    held: Sequence[_Holding],
    order: Sequence[tuple[int, float, int]],
    above: int,
) -> None:
    for _, _, number in reversed(order):
        if above <= 0:
            return
        one = held[number]
        borrowed = min(one.run.gpus, above)
        above -= borrowed
        place = _at(found, period, one.group, one.run.pool)
        place.borrowed += borrowed * seconds * one.counted
        place.within_quota -= borrowed * seconds * one.counted


def _owned(
    found: dict[Key, Usage],
    periods: Sequence[float],
    now: float,
    team: str,
    pool: str,
    quota: Sequence[tuple[float, int]],
    spans: Iterable[Span],
    group: Group,
) -> None:
    name = group(team, Run("", team, "", "", pool, 0, None, None, None, 0.0, ""))
    ends = [*(time for time, _ in quota[1:]), now]
    for (time, amount), end in zip(quota, ends, strict=True):
        for number, since, until in _parts(periods, time, min(end, now)):
            one = _at(found, number, name, pool)
            one.quota = (one.quota or 0.0) + amount * (until - since)
            one.lent = one.lent or 0.0
    for span in spans:
        for number, since, until in _parts(periods, span.since, min(span.until, now)):
            one = _at(found, number, name, pool)
            one.lent = (one.lent or 0.0) + span.lent * (until - since)


def _lost(
    found: dict[Key, Usage], periods: Sequence[float], books: Books, teams: Mapping[str, str], group: Group
) -> None:
    runs: dict[str, list[Run]] = {}
    for run in books.runs:
        if run.start is not None:
            runs.setdefault(run.job, []).append(run)
    told: set[tuple[str, float | None]] = set()
    for event in books.events:
        if event.kind not in (Kind.REQUEUE, Kind.CANCEL) or not periods[0] <= event.at < periods[-1]:
            continue
        matching = [
            run
            for run in runs.get(event.job, ())
            if (run.start or 0.0) <= event.at + MATCH and (run.end is None or event.at - MATCH <= run.end)
        ]
        # It ended with this; the next one may have begun at once.
        match = min(matching, key=lambda run: abs((run.end or event.at) - event.at), default=None)
        if match is None:
            run = Run(event.job, UNKNOWN, event.user, UNKNOWN, event.pool, 0, None, None, None, 0.0, "")
            name = group(event.team or NO_TEAM, run)
        else:
            name = group(teams[match.account], match)
            told.add((match.job, match.start))
        one = _at(found, bisect_right(periods, event.at) - 1, name, event.pool)
        if event.node:
            one.lost_node_failure += event.lost
        else:
            one.lost_preemption += event.lost
    for run in books.runs:
        failed = run.state == "NODE_FAIL" and (run.job, run.start) not in told
        if failed and run.end is not None and periods[0] <= run.end < periods[-1]:
            name = group(teams[run.account], run)
            one = _at(found, bisect_right(periods, run.end) - 1, name, run.pool)
            one.lost_node_failure += run.gpus * run.elapsed


def observed(spans: Iterable[Span], since: float, until: float) -> float:
    """The part of the time, 0 to 1, in which the governor looked: what was lent is known only then."""
    seen, last = 0.0, since
    for span in sorted(spans, key=lambda span: span.since):
        begin, end = max(last, span.since), min(until, span.until)
        if end > begin:
            seen += end - begin
            last = end
    return seen / (until - since) if until > since else 0.0
