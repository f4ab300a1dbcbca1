"""The waiting jobs in Slurm's order, and in batches of the same kind. Kept from one cycle to the next.

Nearly all of them are the same as in the cycle before, so only what came and what went is looked at.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import attrgetter, itemgetter

from slurm_gov.core import beside
from slurm_gov.core.decision import Decisions, Outcome, Reason, Verdict
from slurm_gov.core.demand import Form, Kind, Kinds, Want
from slurm_gov.core.differences import differences
from slurm_gov.core.policy import Resource
from slurm_gov.core.shares import Amounts, Holder, QuotaUse
from slurm_gov.core.snapshot import Held, WaitingJob


class Wish:
    """A waiting job while plans are made: how many of its tasks still look for a place, and what was decided of it.

    ``batch`` is the one it is in; without one it is no demand now, and what is decided of it never changes; unless it
    is a part of a het job: then it is what is decided of the first component.
    ``place`` is its place in Slurm's order. ``gone``: it waits no longer.
    """

    __slots__ = ("batch", "gone", "job", "kind", "outcome", "place", "tasks")

    def __init__(self, job: WaitingJob, kind: Kind) -> None:
        self.job = job
        self.kind = kind
        self.place = _place_of(job)
        self.batch: Batch | None = None
        self.gone = False
        self.tasks = job.tasks
        self.outcome: Outcome | None = None
        if job.held_back and not _waits_for_us(job, kind):
            self.outcome = (Reason.NOT_READY, "{}", (job.held_back,))
        elif kind.no_demand is not None:
            reason, why = kind.no_demand
            self.outcome = (reason, "{}", (why,))


def _waits_for_us(job: WaitingJob, kind: Kind) -> bool:
    """Whether it waits for a cap on CPUs or memory that is ours: its team has a quota of them."""
    ours = beside.LIMIT_REASONS.get(job.slurm_reason)
    return ours is not None and kind.want is not None and any(r.endswith(f"/{ours}") for r in kind.want.amounts)


class Ask:
    """What some of a team's waiting jobs ask for, the same for all of them, and how that stands while plans are made:
    worked out as it is needed, until something ``changes``.

    ``within``: its team's quota covers it; ``takes_others``: others may have to leave for it; ``shares``: those of
    its team and cohorts with it. Beyond the quota: the nodes that it gets now (``held``), or what is said of that
    (``outcome``), whether victims might help, and whether its team is ``allowed`` so much more at all. ``quota_use``:
    how much of its quota the team holds with it, as was so of a ``holder`` in this ``version``. ``refusal`` is what
    was said when its team was not allowed so much: what was so of a team in a version, which could have so much
    (``refused``).
    """

    __slots__ = (
        "allowed",
        "amounts",
        "changes",
        "form",
        "held",
        "holder",
        "items",
        "outcome",
        "quota_use",
        "refusal",
        "refused",
        "shares",
        "takes_others",
        "team",
        "version",
        "victims_help",
        "within",
    )

    def __init__(self, want: Want, form: Form) -> None:
        self.team, self.amounts, self.form = want.team, want.amounts, form
        self.items = tuple(want.amounts.items())
        self.holder: Holder | None = None
        self.version = 0
        self.quota_use: QuotaUse | None = None
        self.refused: tuple[Holder, int, Resource, int] | None = None
        self.refusal: Outcome | None = None
        self.held: tuple[Held, ...] | None = None
        self.allowed = self.victims_help = False
        self.forget(-1)

    def forget(self, changes: int) -> None:
        """Something has changed, and it is the how-manieth time."""
        self.changes = changes
        self.within: bool | None = None
        self.takes_others: bool | None = None
        self.shares: tuple[float, ...] | None = None
        self.outcome: Outcome | None = None


class Batch:
    """All waiting jobs of one kind, in Slurm's order, and the first of them that still looks for a place.

    What was found impossible for that one is so for all that follow: ``outcome`` is then what is said of them.
    ``line`` is whom they stand in line with: their team, and the pool whose nodes they ask for; ``place`` is the
    place of the first one in Slurm's order, and ``since`` is since when it waits; ``done``: nothing more can be done
    for it in this cycle. ``begun``: one has started in this cycle. ``jobs`` are the records, and ``tasks`` is how
    many they are, where each task of an array is one; ``oldest`` is since when the one waits that waits longest.
    ``said`` is the verdict on all of them the last time, and ``told`` what it says, if it was one for all.
    """

    __slots__ = (
        "amounts",
        "ask",
        "begun",
        "done",
        "form",
        "index",
        "jobs",
        "kind",
        "line",
        "oldest",
        "outcome",
        "place",
        "said",
        "since",
        "tasks",
        "team",
        "told",
        "want",
        "wishes",
    )

    def __init__(self, kind: Kind, ask: Ask) -> None:
        assert kind.want and kind.form
        self.kind = kind
        self.ask = ask
        self.want: Want = kind.want
        self.form: Form = kind.form
        self.team: str = kind.want.team
        self.line: tuple[str, str] = kind.want.team, kind.form.pool.name
        self.amounts: Amounts = kind.want.amounts
        self.wishes: list[Wish] = []
        self.index = 0
        self.done = self.begun = False
        self.outcome: Outcome | None = None
        self.told: Outcome | None = None
        self.said: Verdict | None = None

    def __lt__(self, other: Batch) -> bool:
        return False  # a heap asks only of two jobs with one id: there are none, and it must not fail if there are

    def begin(self) -> None:
        """Forget who has started in an earlier cycle."""
        self.begun = False
        for wish in self.wishes[: self.index + 1]:
            wish.tasks, wish.outcome = wish.job.tasks, None
        self._look_at(0)

    def changed(self) -> None:
        """Others are in it than before."""
        self.wishes.sort(key=_place)
        self.jobs = [wish.job for wish in self.wishes]
        self.tasks = sum([job.tasks for job in self.jobs])
        self.oldest = min([job.submit for job in self.jobs])
        self.said = None
        self._look_at(0)

    def _look_at(self, index: int) -> None:
        self.index = index
        first = self.wishes[index]
        self.place, self.since = first.place, first.job.submit

    @property
    def failed(self) -> bool:
        """Whether some of it got no place."""
        return self.done and self.index < len(self.wishes)

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

    def tell_each(self) -> Iterator[Verdict]:
        """What was decided of each of them that has started, and of all others."""
        for wish in self.wishes[: self.index + 1]:
            yield _verdict(self.kind, wish.outcome or self.outcome, [wish.job])
        if rest := self.jobs[self.index + 1 :]:
            yield _verdict(self.kind, self.outcome, rest)


def _verdict(kind: Kind, outcome: Outcome | None, jobs: Sequence[WaitingJob]) -> Verdict:
    assert outcome is not None
    return Verdict(kind.team, kind.pool, outcome, jobs)


Place = tuple[int, int]
Heads = list[tuple[Place, Batch]]
"""Batches and the places of the first of each; the first in line is the last here."""


def in_line(batches: Iterable[Batch]) -> Heads:
    """Batches by their places."""
    return sorted([(batch.place, batch) for batch in batches], key=itemgetter(0), reverse=True)


def from_the_end(head: tuple[tuple[int, int], Batch]) -> tuple[int, int]:
    """By what ``Heads`` are sorted."""
    (place, id), _ = head
    return -place, -id


class Queue:
    """``line`` is everybody, in Slurm's order; ``of_team`` each team's demand, and ``heads`` the same in line;
    ``tasks`` how many jobs count for the same, by team, where each task of an array is one; ``asked`` is what they
    ask for of each resource, by team, and how many they are; ``least`` is what each of a team's asks for at least,
    and ``oldest`` since when the one waits that waits longest.
    ``marked`` are those that a mark says have left for others. ``last`` are each team's jobs that come after all
    others: they are asked for, and in none of the rest. ``moved`` are the teams of whose jobs something else may be
    decided than the last time: to be added to by whoever decides it.
    """

    def __init__(self, kinds: Kinds) -> None:
        self.line: list[WaitingJob] = []
        self.of_team: dict[str, dict[Kind, Batch]] = {}
        self.last: dict[str, dict[Kind, Batch]] = {}
        self.heads: dict[str, Heads] = {}
        self.tasks: dict[str, dict[Want, int]] = {}
        self.asked: dict[str, dict[Resource, tuple[int, int]]] = {}
        self.least: dict[str, Amounts] = {}
        self.oldest: dict[str, float] = {}
        self.moved: set[str] = set()
        self.marked: set[Wish] = set()
        self._kinds = kinds
        self._waiting: Collection[WaitingJob] = ()
        self._known: dict[int, Wish] = {}  # by the record's own identity: records never change
        self._asks: dict[tuple[Want, Form], Ask] = {}
        self._apart: dict[Wish, Verdict] = {}  # who is no demand
        # What was decided of each team's jobs, but for those that come last.
        self._said: dict[str, list[Verdict]] = {}
        self._begun: list[Batch] = []  # those of which one has started in the last plan
        self._parts: dict[Wish, None] = {}
        self._whole: dict[int, Wish] = {}  # het jobs by id

    def batches(self) -> Iterator[Batch]:
        """All but those that come last."""
        for of_team in self.of_team.values():
            yield from of_team.values()

    def last_in_line(self) -> list[Batch]:
        """Those that come last, in Slurm's order."""
        return sorted([batch for of_team in self.last.values() for batch in of_team.values()], key=_place)

    def decisions(self) -> Decisions:
        """What was decided of everybody. No more is done in this plan."""
        verdicts = list(self._apart.values())
        for team, of_team in self.of_team.items():
            said = self._said.get(team)
            if said is None or team in self.moved:
                said = self._said[team] = self._tell(of_team.values())
            else:
                for batch in of_team.values():
                    batch.done = False
            verdicts += said
        self.moved.clear()
        for of_team in self.last.values():
            verdicts += self._tell(of_team.values())
        for wish in self._parts:
            whole = self._whole[wish.job.part_of]
            of_all = whole.batch.outcome if whole.batch is not None else None
            verdicts.append(_verdict(wish.kind, whole.outcome or of_all, [wish.job]))
        return Decisions(self.line, verdicts)

    def _tell(self, batches: Iterable[Batch]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        # As _verdict does it, without a call for each: there may be thousands.
        say, new = verdicts.append, tuple.__new__
        for batch in batches:
            batch.done = False
            if batch.begun:
                self._begun.append(batch)
                verdicts += batch.tell_each()
                continue
            outcome, said = batch.outcome, batch.said
            if said is None or batch.told is not outcome:
                batch.told = outcome
                kind = batch.kind
                said = batch.said = new(Verdict, (kind.team, kind.pool, outcome, batch.jobs))
            say(said)
        return verdicts

    def become(self, waiting: Collection[WaitingJob]) -> None:
        """Hold these and no others, nothing done about any of them yet."""
        for batch in self._begun:
            batch.begin()
            self.moved.add(batch.team)
        self._begun.clear()
        known = self._known
        left, new = differences(self._waiting, waiting, known)
        gone = [known.pop(id(job)) for job in left]
        came = [Wish(job, self._kinds.of(job)) for job in new]
        self._waiting = waiting
        changed: set[Batch] = set()
        for wish in gone:
            wish.gone = True
            self.marked.discard(wish)
            self._parts.pop(wish, None)
            if wish.job.others:
                del self._whole[wish.job.id]
            if wish.batch is not None:
                changed.add(wish.batch)
            elif not wish.job.part_of:
                del self._apart[wish]
        for batch in changed:
            batch.wishes = [wish for wish in batch.wishes if not wish.gone]
        for wish in came:
            known[id(wish.job)] = wish
            if wish.job.mark is not None:
                self.marked.add(wish)
            if wish.job.others:
                self._whole[wish.job.id] = wish
            if wish.job.part_of:
                self._parts[wish] = None
            elif wish.outcome is None:
                batch = wish.batch = self._batch(wish.kind)
                batch.wishes.append(wish)
                changed.add(batch)
            else:
                self._apart[wish] = _verdict(wish.kind, wish.outcome, [wish.job])
        self._replace(gone, came)
        for batch in changed:
            if batch.wishes:
                batch.changed()
            else:
                del self._store(batch.kind)[batch.team][batch.kind]
        for team in {batch.team for batch in changed}:
            self.moved.add(team)
            self._sum_up(team)

    def _store(self, kind: Kind) -> dict[str, dict[Kind, Batch]]:
        return self.last if kind.comes_last else self.of_team

    def _batch(self, kind: Kind) -> Batch:
        assert kind.want
        store = self._store(kind)
        of_team = store.get(kind.want.team)
        if of_team is None:
            of_team = store[kind.want.team] = {}
        batch = of_team.get(kind)
        if batch is None:
            assert kind.form
            key = kind.want, kind.form
            ask = self._asks.get(key) or Ask(*key)
            self._asks[key] = ask
            batch = of_team[kind] = Batch(kind, ask)
        return batch

    def _sum_up(self, team: str) -> None:
        """How many jobs of a team there are now, and what they ask for."""
        tasks: dict[Want, int] = {}
        asked: dict[Resource, tuple[int, int]] = {}
        for batch in self.of_team.get(team, {}).values():
            want = batch.want
            tasks[want] = tasks.get(want, 0) + batch.tasks
        self.tasks[team], self.asked[team] = tasks, asked
        last = [(batch.want, batch.tasks) for batch in self.last.get(team, {}).values()]
        for want, count in (*tasks.items(), *last):
            for resource, amount in want.amounts.items():
                amounts, jobs = asked.get(resource, (0, 0))
                asked[resource] = amounts + amount * count, jobs + count
        smallest = [want.amounts for want in tasks]
        self.least[team] = {
            resource: min([amounts[resource] for amounts in smallest])
            for resource in (smallest[0] if smallest else ())
            if all(resource in amounts for amounts in smallest)
        }
        if tasks:
            self.heads[team] = in_line(self.of_team[team].values())
            self.oldest[team] = min([batch.oldest for batch in self.of_team[team].values()])
        else:
            self.of_team.pop(team, None)
            self.heads.pop(team, None)
        if not last:
            self.last.pop(team, None)

    def _replace(self, gone: list[Wish], came: list[Wish]) -> None:
        """Have these no more in the line, and those: most of it is not even looked at. It is a new one each time,
        for plans keep theirs.
        """
        old = self.line
        line: list[WaitingJob] = []
        done = 0
        for wish in sorted([*gone, *came], key=_place):
            # Mostly it is near by.
            near = done + 256
            end = near if near < len(old) and _place_of(old[near]) > wish.place else len(old)
            here = bisect_left(old, wish.place, done, end, key=_place_of)
            if wish.gone:
                while old[here] is not wish.job:
                    here += 1
            line += old[done:here]
            if wish.gone:
                done = here + 1
            else:
                line.append(wish.job)
                done = here
        self.line = line + old[done:]


def _place_of(job: WaitingJob) -> Place:
    """Its place in Slurm's order: highest priority first, then job id."""
    return -job.priority, job.id


_place = attrgetter("place")
