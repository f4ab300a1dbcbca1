"""Who goes before whom within a team. Caps cannot order a team's jobs: Slurm starts whatever fits under the cap, so
small jobs can keep a large one waiting for ever, or slip in where others left for it one after another.

Where that would happen the later ones are told to wait, for a while at a time: see ``Plan.behind``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping
from math import inf
from operator import attrgetter
from typing import NamedTuple

from slurm_gov.core.demand import Form, Want
from slurm_gov.core.memory import Holdings
from slurm_gov.core.policy import Policy, Resource
from slurm_gov.core.queue import Batch, Place, Queue, Wish
from slurm_gov.core.shares import Amounts, Holder
from slurm_gov.core.victims import Victim

MOST_BEHIND = 1000
"""So many jobs of a team at most are made to wait behind one. Each of them costs Slurm an update now and then, and
Slurm would start the next in line if some of them stayed.
"""
MOST_IN_ALL = 2000
"""So many in all teams together."""


class Ahead(NamedTuple):
    """A waiting job that later jobs of its team and pool must not get in the way of: its place, id, what it
    counts for, since when it waits, and, if it waits for the team's own jobs to leave, what its team may have now.
    """

    place: tuple[int, int]
    job: int
    amounts: Amounts
    submit: float
    room: Amounts | None = None


def heads_of_line(policy: Policy, now: float, queue: Queue, held: Holdings) -> dict[tuple[str, str], Ahead]:
    """In each team and pool, the first job that has waited longer than ``protect_after`` for what other jobs of the
    team hold, and that is larger than any of them: no later one is to take what they leave before it. It is within
    the quota; or it is larger, and without them its team might have as much as things are now. None whose nodes are
    away: that may be for days.
    """
    heads: dict[tuple[str, str], Ahead] = {}
    if policy.protect_after is None:
        return heads
    since = now - policy.protect_after
    fits: dict[Form, bool] = {}  # as things are
    for team in queue.heads:
        if queue.oldest[team] > since:
            continue
        large, larger, candidates = _large(queue, held, team)
        room: dict[Want, Amounts] | None = None
        for place, batch in candidates:
            want, head = batch.want, heads.get(batch.line)
            if batch.oldest > since or (head is not None and head.place < place):
                continue
            if want not in large:
                if room is None:
                    room = _room(held, team, larger)
                if want not in room:
                    continue
            wish = next(one for one in batch.wishes if one.job.submit <= since)
            if (head is None or wish.place < head.place) and held.could_run(batch.form):
                if want in large:
                    holder = held.shares.holder(team)
                    may_have: Amounts = {r: holder.quota(r).nominal - holder.usage.get(r, 0) for r in want.amounts}
                elif room is not None and _fits_alone(held, team, batch.form, fits):
                    may_have = room[want]
                else:
                    continue
                heads[batch.line] = Ahead(wish.place, wish.job.id, want.amounts, wish.job.submit, may_have)
    return heads


def _room(held: Holdings, team: str, wants: Collection[Want]) -> dict[Want, Amounts]:
    """Of those that are more than the team's quota, the ones that it could have if all of its own jobs left, but not
    beside a quota in use, and what it could have now. If others borrow what its jobs would leave, it waits for those.
    """
    holder, shares = held.shares.holder(team), held.shares
    resources = {resource for want in wants for resource in want.amounts}
    alone = {r: max(shares.available(team, r, holder.usage.get(r, 0)), holder.quota(r).nominal) for r in resources}
    beside = {resource: amount - holder.quota(resource).nominal for resource, amount in alone.items()}
    able = [
        want
        for want in wants
        if all(n <= alone[r] for r, n in want.amounts.items()) and any(n > beside[r] for r, n in want.amounts.items())
    ]
    now = {resource: shares.available(team, resource) for resource in resources} if able else {}
    return dict.fromkeys(able, now)


def _fits_alone(held: Holdings, team: str, form: Form, fits: dict[Form, bool]) -> bool:
    """Whether there would be nodes for it if its team's own jobs had left. ``fits``: whether there are without that,
    as far as anybody has asked.
    """
    if form not in fits:
        fits[form] = form.fits(held.later)
    if fits[form]:
        return True
    with held.later.trial():
        for one in held.of_team[team].values():
            if not one.ending:
                held.later.give(one.job.held)
        return form.fits(held.later)


def _large(queue: Queue, held: Holdings, team: str) -> tuple[set[Want], set[Want], list[tuple[Place, Batch]]]:
    """Those that are large, of what a team's waiting jobs would count for, those that are so and more than its quota,
    and the batches of either, in line; looked up until the jobs that wait or those that run have changed.
    """
    wants, known = queue.tasks[team], held.large.get(team)
    if known is None or known[0] is not wants:
        if known is not None and known[0].keys() == wants.keys():
            large, larger, _ = known[1]
        else:
            large, larger = _sizes(held.shares.holder(team), wants, held.largest(team))
        either = large | larger
        line = [head for head in reversed(queue.heads[team]) if head[1].want in either] if either else []
        known = held.large[team] = wants, (large, larger, line)
    return known[1]


def _sizes(team: Holder, wants: Iterable[Want], largest: Amounts) -> tuple[set[Want], set[Want]]:
    """Which of these are large: they fit a team's quota, not beside what it holds, and are more than any of its jobs
    holds. When one as large ends Slurm starts the first in line; of what smaller ones leave it would start others.
    And which are more than the quota, and more than any of its jobs holds.
    """
    usage: Amounts = team.usage
    large: set[Want] = set()
    larger: set[Want] = set()
    for want in wants:
        amounts = want.amounts
        more = [resource for resource, amount in amounts.items() if amount > largest.get(resource, 0)]
        if not more:
            continue
        quotas = {resource: team.quota(resource).nominal for resource in amounts}
        if any(amount > quotas[resource] for resource, amount in amounts.items()):
            larger.add(want)
        elif any(usage.get(resource, 0) + amounts[resource] > quotas[resource] for resource in more):
            large.add(want)
    return large, larger


def _earliest(room: Amounts, amounts: Amounts, running: Collection[Victim]) -> float:
    """When the team's jobs, at their time limits, will have left room for these amounts beside what there is now; 0
    if nobody can say, since one of them has no limit.
    """
    left = {resource: amount - room[resource] for resource, amount in amounts.items()}
    stays = [one for one in running if not one.ending]
    ends = [(one.job.start + one.job.time_limit if one.job.time_limit else inf, one.job.id, one) for one in stays]
    for end, _, one in sorted(ends, key=lambda each: each[:2]):
        left = {resource: amount - one.use.get(resource, 0) for resource, amount in left.items()}
        if all(amount <= 0 for amount in left.values()):
            return end if end < inf else 0.0
    return 0.0


def behind(
    now: float,
    batches: Collection[Batch],
    running: Collection[Victim],
    promised: Iterable[Ahead],
    head: Ahead | None,
    free: Mapping[Resource, int],
    leaves: Mapping[Resource, int],
) -> dict[int, int]:
    """Which of a team's waiting jobs would take the room under its cap that another one needs: id to that one's id.
    All of them ask for the same pool.

    ``promised`` are those that are to start when others have left, ``head`` is the one that has waited for long;
    ``free`` is what the cap leaves now, ``leaves`` what those that must leave hold of it. Only where the cap stands
    in the one's way: what waits for nodes alone Slurm keeps before later jobs by itself. Who is gone by then may go.
    No array of which a task has its place: a note is on all of it, and that task would not start either. Nobody where
    they are too many: then Slurm starts whom it will.
    """
    waits = [*promised, *([head] if head is not None else [])]
    blocked = [one for one in waits if any(n > free.get(r, n) for r, n in one.amounts.items())]
    if not blocked:
        return {}
    first = min(blocked, key=lambda one: one.place)
    # Behind one that has waited for long stand all, whatever ends next; else those that fit what is left soon.
    soon = {} if first is head else {resource: n + leaves.get(resource, 0) for resource, n in free.items()}
    later: list[Wish] = []
    for batch in batches:
        if batch.failed and all(n <= soon.get(r, n) for r, n in batch.amounts.items()):
            next_one = batch.index if batch.first.outcome is None else batch.index + 1
            begin = bisect_right(batch.wishes, first.place, next_one, key=_place)
            if len(later) + len(batch.wishes) - begin > MOST_BEHIND:
                return {}
            later += batch.wishes[begin:]
    start = _earliest(first.room, first.amounts, running) if first.room is not None else 0.0
    later = [wish for wish in later if _runs_into(wish, now, start)]
    return {wish.job.id: first.job for wish in sorted(later, key=_place)}


_place = attrgetter("place")


def _runs_into(wish: Wish, now: float, time: float) -> bool:
    """Whether a job that started now might still run at a time."""
    limit = wish.job.time_limit
    return limit is None or now + limit > time
