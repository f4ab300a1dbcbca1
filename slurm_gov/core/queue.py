"""The waiting jobs in Slurm's order, and in batches of the same kind. Kept from one cycle to the next.

Nearly all of them are the same as in the cycle before, so only what came and what went is looked at.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator
from itertools import islice
from operator import attrgetter
from typing import cast

from slurm_gov.core import beside
from slurm_gov.core.decision import Decision, Reason
from slurm_gov.core.demand import Form, Kind, Kinds, Want
from slurm_gov.core.policy import Resource
from slurm_gov.core.shares import Amounts
from slurm_gov.core.snapshot import WaitingJob

Outcome = tuple[Reason, str]
"""What was decided, and the sentence with the figures."""


class Wish:
    """A waiting job while plans are made: how many of its tasks still look for a place, what was decided of it, and
    what is ``said`` of that, in which words it was ``told``.

    ``batch`` is the one it is in; without one it is no demand now, and what is said of it never changes.
    ``place`` is its place in Slurm's order: highest priority first, then job id. ``gone``: it waits no longer.
    """

    __slots__ = ("batch", "gone", "job", "kind", "outcome", "place", "said", "tasks", "told")

    def __init__(self, job: WaitingJob, kind: Kind) -> None:
        self.job = job
        self.kind = kind
        self.place = (-job.priority, job.id)
        self.batch: Batch | None = None
        self.gone = False
        self.tasks = job.tasks
        self.outcome = kind.no_demand
        self.said: Decision | None = None
        self.told: Outcome | None = None
        if job.held_back and not _waits_for_us(job, kind):
            self.outcome = (Reason.NOT_READY, job.held_back)
        if self.outcome is not None:
            self.say(self.outcome)

    def say(self, outcome: Outcome) -> None:
        """Say that this was decided of it: the very same as the last time if it is the same."""
        self.told = outcome
        said, (reason, why) = self.said, outcome
        if said is None or said.reason is not reason or said.why != why:
            job, kind = self.job, self.kind
            self.said = Decision(job.id, job.display_id, kind.team, kind.pool, reason, why)


def _waits_for_us(job: WaitingJob, kind: Kind) -> bool:
    """Whether it waits for a cap on CPUs or memory that is ours: its team has a quota of them."""
    ours = beside.LIMIT_REASONS.get(job.slurm_reason)
    return ours is not None and kind.want is not None and any(r.endswith(f"/{ours}") for r in kind.want.amounts)


class Batch:
    """All waiting jobs of one kind, in Slurm's order, and the first of them that still looks for a place.

    What was found impossible for that one is so for all that follow: ``outcome`` is then what is said of them.
    ``place`` is the place of the first one in Slurm's order; ``done``: nothing more can be done for it in this cycle.
    ``begun``: one has started in this cycle. ``told`` is what all of its jobs were told the last time; ``tasks`` is
    how many these are, where each task of an array is one.
    """

    __slots__ = (
        "amounts",
        "begun",
        "done",
        "failed",
        "form",
        "index",
        "kind",
        "outcome",
        "place",
        "tasks",
        "team",
        "told",
        "want",
        "wishes",
    )

    def __init__(self, kind: Kind) -> None:
        assert kind.want and kind.form
        self.kind = kind
        self.want: Want = kind.want
        self.form: Form = kind.form
        self.team: str = kind.want.team
        self.amounts: Amounts = kind.want.amounts
        self.wishes: list[Wish] = []
        self.index = 0
        self.failed = self.done = self.begun = False
        self.outcome: Outcome | None = None
        self.told: Outcome | None = None

    def __lt__(self, other: Batch) -> bool:
        return False  # a heap asks only of two jobs with one id: there are none, and it must not fail if there are

    def begin(self) -> None:
        """Forget what was decided in an earlier cycle; but what was said stays known, to be said again."""
        self.failed = self.done = False
        if self.begun:
            self.begun = False
            for wish in self.wishes[: self.index + 1]:
                wish.tasks, wish.outcome = wish.job.tasks, None
            self._look_at(0)

    def changed(self) -> None:
        """Others are in it than before."""
        self.wishes.sort(key=_place)
        self.tasks = sum([wish.job.tasks for wish in self.wishes])
        self.told = None
        self._look_at(0)

    def _look_at(self, index: int) -> None:
        self.index = index
        self.place = self.wishes[index].place

    @property
    def first(self) -> Wish:
        """The first of its jobs that still looks for a place."""
        return self.wishes[self.index]

    def start(self, outcome: Outcome) -> None:
        """One task of the first one has its place. An array is one record: what is said of it is said of its first
        task in line.
        """
        wish = self.wishes[self.index]
        self.begun = True
        wish.tasks -= 1
        if wish.outcome is None:
            wish.outcome = outcome
        if not wish.tasks:
            if self.index + 1 < len(self.wishes):
                self._look_at(self.index + 1)
            else:
                self.index += 1
                self.done = True

    def fail(self, outcome: Outcome) -> None:
        """Nothing can be done for what is left of it."""
        self.failed = self.done = True
        if outcome != self.outcome:
            self.outcome = outcome

    def tell(self) -> None:
        """Say what was decided of each of its jobs."""
        wishes, outcome = self.wishes, self.outcome
        if self.told is outcome and not self.begun:
            return  # they were told so already
        if self.begun:
            for wish in wishes[: self.index + 1]:
                if decided := wish.outcome or outcome:
                    wish.say(decided)
        if self.failed and outcome:
            reason, why = outcome
            team, pool, new = self.kind.team, self.kind.pool, tuple.__new__
            for wish in islice(wishes, self.index, None):
                if wish.told is not outcome and wish.outcome is None:
                    wish.told = outcome
                    job = wish.job
                    # As Decision(...) does it, without a call for each: there may be tens of thousands.
                    wish.said = new(Decision, (job.id, job.display_id, team, pool, reason, why))
        self.told = None if self.begun else outcome


class Queue:
    """``in_order`` is everybody; ``of_team`` each team's demand; ``tasks`` how many jobs count for the same, by team,
    where each task of an array is one; ``asked`` is what they ask for of each resource, by team, and how many they
    are; ``least`` is what each of a team's asks for at least. ``marked`` are those that a mark says have left for
    others.
    """

    def __init__(self, kinds: Kinds) -> None:
        self.in_order: list[Wish] = []
        self.of_team: dict[str, dict[Kind, Batch]] = {}
        self.tasks: dict[str, dict[Want, int]] = {}
        self.asked: dict[str, dict[Resource, tuple[int, int]]] = {}
        self.least: dict[str, Amounts] = {}
        self.marked: set[Wish] = set()
        self._kinds = kinds
        self._known: dict[int, Wish] = {}  # by the record's own identity: records never change

    def batches(self) -> Iterator[Batch]:
        """All of them."""
        for of_team in self.of_team.values():
            yield from of_team.values()

    def decisions(self) -> tuple[Decision, ...]:
        """What was decided of everybody, in Slurm's order."""
        for batch in self.batches():
            batch.tell()
        said = tuple([wish.said for wish in self.in_order])
        return cast(tuple[Decision, ...], said)

    def become(self, waiting: Collection[WaitingJob]) -> None:
        """Hold these and no others, nothing done about any of them yet."""
        for batch in self.batches():
            batch.begin()
        records = set(map(id, waiting))
        gone = [self._known.pop(key) for key in self._known.keys() - records]
        new = records - self._known.keys()
        came = [Wish(job, self._kinds.of(job)) for job in waiting if id(job) in new] if new else []
        changed: set[Batch] = set()
        if gone:
            for wish in gone:
                wish.gone = True
                self.marked.discard(wish)
                if wish.batch is not None:
                    changed.add(wish.batch)
            for batch in changed:
                batch.wishes = [wish for wish in batch.wishes if not wish.gone]
        if came:
            for wish in came:
                self._known[id(wish.job)] = wish
                if wish.job.mark is not None:
                    self.marked.add(wish)
                if wish.outcome is None:  # else it is no demand
                    batch = wish.batch = self._batch(wish.kind)
                    batch.wishes.append(wish)
                    changed.add(batch)
        self.in_order = _replaced(self.in_order, gone, came)
        for batch in changed:
            if batch.wishes:
                batch.changed()
            else:
                del self.of_team[batch.team][batch.kind]
        for team in {batch.team for batch in changed}:
            self._sum_up(team)

    def _batch(self, kind: Kind) -> Batch:
        assert kind.want
        of_team = self.of_team.get(kind.want.team)
        if of_team is None:
            of_team = self.of_team[kind.want.team] = {}
        batch = of_team.get(kind)
        if batch is None:
            batch = of_team[kind] = Batch(kind)
        return batch

    def _sum_up(self, team: str) -> None:
        """How many jobs of a team there are now, and what they ask for."""
        tasks: dict[Want, int] = {}
        asked: dict[Resource, tuple[int, int]] = {}
        for batch in self.of_team[team].values():
            count = batch.tasks
            tasks[batch.want] = tasks.get(batch.want, 0) + count
            for resource, amount in batch.amounts.items():
                amounts, jobs = asked.get(resource, (0, 0))
                asked[resource] = amounts + amount * count, jobs + count
        self.tasks[team], self.asked[team] = tasks, asked
        least: Amounts | None = None
        for want in tasks:
            mine = want.amounts
            least = mine if least is None else {r: min(n, mine[r]) for r, n in least.items() if r in mine}
        self.least[team] = least or {}
        if not tasks:
            del self.of_team[team]


def _replaced(line: list[Wish], gone: list[Wish], came: list[Wish]) -> list[Wish]:
    """A line in Slurm's order without these and with those: most of it is not even looked at."""
    if not line:
        return sorted(came, key=_place)
    new: list[Wish] = []
    done = 0
    for wish in sorted([*gone, *came], key=_place):
        here = bisect_left(line, wish.place, done, key=_place)
        if wish.gone:
            while line[here] is not wish:
                here += 1
            new += line[done:here]
            done = here + 1
        else:
            new += line[done:here]
            new.append(wish)
            done = here
    return new + line[done:]


_place = attrgetter("place")
