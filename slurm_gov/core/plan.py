"""One cycle's decisions: policy and snapshot in, a plan with reasons out. Pure: no clock, no I/O, no Slurm.

1. what is healthy, who uses what, what is free on which node
2. owners: waiting jobs within their team's quota start where they fit, or take back what was lent
3. borrowers: what is idle after that is divided among the teams whose jobs wait beyond their quota
4. caps: quota, or what a team is to hold if that is more

Jobs that are the same to policy and nodes are one ``Kind``: what was found impossible for one of them is
impossible for all, until something is given back.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush, heapreplace
from math import inf
from operator import attrgetter
from typing import NamedTuple

from slurm_gov.core import ahead
from slurm_gov.core.ahead import Ahead
from slurm_gov.core.capacity import lately
from slurm_gov.core.decision import Outcome, Plan, Preempt, Reason
from slurm_gov.core.demand import Form, Want
from slurm_gov.core.fairness import fair_search
from slurm_gov.core.memory import Holdings, Memory
from slurm_gov.core.owed import unpaid
from slurm_gov.core.policy import Idle, Policy, Rebalance, Resource, WithinTeam, frozen
from slurm_gov.core.queue import Ask, Batch, Heads, Place, Wish, from_the_end, in_line
from slurm_gov.core.room import eligible
from slurm_gov.core.sentences import holds, who_stays, why_it
from slurm_gov.core.shares import Amounts, Holder, QuotaUse, quota_use
from slurm_gov.core.snapshot import Held, RunningJob, RunState, Snapshot, WaitingJob
from slurm_gov.core.standings import caps, pool_standings, team_standings, warnings
from slurm_gov.core.victims import (
    Candidate,
    Candidates,
    Claim,
    Line,
    Preemptor,
    Victim,
    Working,
    may_take_others,
    search,
)


def plan(policy: Policy, snapshot: Snapshot) -> Plan:
    """Decide one cycle. Equal inputs give the equal plan, whatever the order of jobs and nodes in them."""
    return Planner().plan(policy, snapshot)


class Planner:
    """Decides cycle after cycle. It gives the same plans as ``plan``, faster where records come back unchanged: the
    very same objects. One cycle at a time.
    """

    def __init__(self) -> None:
        self._memory: Memory | None = None

    def plan(self, policy: Policy, snapshot: Snapshot) -> Plan:
        """Decide one cycle."""
        if self._memory is None or not self._memory.holds_for(policy, snapshot):
            self._memory = Memory(policy, snapshot)
        memory, self._memory = self._memory, None  # if anything is raised, it is not to be trusted
        held = memory.holdings(snapshot)
        decided = _Cycle(policy, snapshot, memory, held).decide()
        held.undo()
        self._memory = memory
        return decided


_place = attrgetter("place")
SETTLING = 20.0
"""Seconds for which nobody borrows ahead of a job for which others have left: mostly it has started long before."""
_NOT_LOOKED: tuple[int, tuple[Held, ...]] = (-1, ())


class _Chosen(NamedTuple):
    """Who leaves for a job, and the first of those who might have, in order: one more than leave, if there are."""

    victims: tuple[Candidate, ...]
    in_order: list[Candidate]


class _Cycle:
    """The working state of one cycle; thrown away with it.

    ``now`` is the room that is free at this moment; ``later`` is what will be free when the jobs that are ending
    and those that this plan preempts have left. What is promised is taken from both. ``shares_now`` and ``shares``
    are likewise who holds what: beyond a quota, nobody starts on the credit of those who have yet to leave.
    """

    def __init__(self, policy: Policy, snapshot: Snapshot, memory: Memory, held: Holdings) -> None:
        self.policy = policy
        self.snapshot = snapshot
        self.kinds = memory.kinds
        self.holdings, self.nodes, self.ground = held, held.nodes, held.ground
        self.shares, self.shares_now, self.now, self.later = held.shares, held.shares_now, held.now, held.later
        self.shares.remember(
            lately(policy, snapshot.borrowed_lately), lately(policy, snapshot.cohorts_borrowed_lately)
        )
        self.working = Working(self.shares, self.later)
        self.queue = memory.queue(snapshot)
        self._changed = memory.changes
        self.changes = next(self._changed)
        self.available: dict[tuple[str, Resource], int] = {}  # until something changes
        self.held: dict[tuple[str, Resource], tuple[int, str]] = {}  # in words, of a version of the team
        self.own: dict[str, dict[int, Amounts]] = {}  # what a team's jobs hold that may leave, by class, as it is
        self.freed = 0  # how often something was given back
        self.owed: set[int] = set()
        self.left_for: set[int] = set()  # of these, those for which others have left just now
        # Those of them that start now: place in line, id, and the nodes meant for it.
        self.settling: list[tuple[Place, str, tuple[Held, ...]]] = []
        self.losers: set[str] = set()
        self.lost: set[str] = set()  # all teams of which jobs have to leave, where losers are those not looked at yet
        self.leaves: dict[tuple[str, Resource], int] = {}  # what those that must leave hold, by team
        self.leaving: dict[str, list[str]] = {}
        self.promised: dict[tuple[str, str], list[Ahead]] = {}  # to start when others have left, by team and pool
        self.passed_over: dict[str, dict[Form, Want]] = defaultdict(dict)
        self.nobody_for: dict[str, tuple[int, Amounts]] = {}
        # What found no nodes although all that its candidates may leave would leave; until something changes.
        self.hopeless: dict[object, list[Form]] = {}
        self.places_now: dict[Form, tuple[int, tuple[Held, ...] | None]] = {}
        self.places_later: dict[Form, tuple[int, tuple[Held, ...] | None]] = {}
        self.full_later: dict[Form, int] = {}
        self.named: dict[Form, tuple[tuple[Held, ...], str]] = {}  # who leaves what was found for it later
        self.may_use: dict[object, dict[str, bool]] = {}  # by what is equal for those that may use the same nodes
        self.preempt: list[Preempt] = []
        for job in held.ending():
            self._will_leave(job.held, job.display_id)
        self.line = Line(policy, self.shares, held.in_line, snapshot.now)
        after = policy.protect_after
        self.long_ago = -inf if after is None else snapshot.now - after
        self.protected = ahead.heads_of_line(policy, snapshot.now, self.queue, held)
        self.said_behind: dict[int, Outcome] = {}

    def decide(self) -> Plan:
        owed = self._owed()
        self._serve_owners(owed)
        for batch in owed:
            if self._is_owed(batch) and not self._waits_behind(batch):
                self._serve_owed(batch)
        self._serve_borrowers()
        self._serve_last()
        will_have = caps(self.policy, self.snapshot, self.ground, self._will_hold)
        behind = self._behind(will_have)
        preempted = {one.job for one in self.preempt}
        self.shares.undo(0)  # who stands where is said of how it was before
        return Plan(
            caps=will_have,
            preempt=tuple(self.preempt),
            spare=tuple(
                job.id
                for job in self.holdings.being_preempted()
                if job.state is not RunState.COMPLETING and job.id not in preempted
            ),
            decisions=self.queue.decisions(),
            standings=tuple(team_standings(self.policy, self.holdings, self.queue.asked, will_have)),
            pools=pool_standings(self.policy, self.holdings),
            warnings=tuple(warnings(self.policy, self.snapshot, self.ground)),
            behind=frozen(behind),
        )

    def _ask(self, batch: Batch) -> Ask:
        """What it asks for, and how that stands now."""
        ask = batch.ask
        if ask.changes != self.changes:
            ask.forget(self.changes)
        return ask

    def _within(self, batch: Batch) -> bool:
        """Whether its team's quota covers it."""
        ask = self._ask(batch)
        if ask.within is None:
            ask.within = self.shares.within_quota(ask.team, ask.amounts)
        return ask.within

    def _allowed(self, batch: Batch) -> bool:
        """Whether quotas, lending and borrowing limits allow it."""
        for resource, amount in batch.amounts.items():
            if amount > 0 and amount > self._available(batch.team, resource):
                return False
        return True

    def _available(self, team: str, resource: Resource) -> int:
        """What a team may still take of a resource."""
        key = team, resource
        found = self.available.get(key)
        if found is None:
            found = self.available[key] = self.shares.available(team, resource)
        return found

    def _allowed_now(self, batch: Batch) -> bool:
        """Whether the same is so as long as those that must leave have not left."""
        return not self.preempt or self.shares_now.fits(batch.team, batch.amounts)

    def _will_hold(self, team: str, resource: Resource) -> int:
        """What a team is to hold until the next cycle: without those that must leave, and without what is promised
        for their places. What one of them leaves early must not go to another job of the team.
        """
        return self.shares_now.usage(team, resource) - self.leaves.get((team, resource), 0)

    # -- where it fits -------------------------------------------------------------------------------------

    def _place_now(self, form: Form) -> tuple[Held, ...] | None:
        """Nodes that are free now. What is free now only becomes less in a cycle: no need to look again."""
        changes, held = self.places_now.get(form, _NOT_LOOKED)
        if changes != self.changes and held is not None:
            held = form.place(self.now)
            self.places_now[form] = self.changes, held
        return held

    def _place_later(self, form: Form) -> tuple[Held, ...] | None:
        """Nodes that are or will be free. What was not found is not there until something is given back."""
        if self.full_later.get(form) == self.freed:
            return None
        changes, held = self.places_later.get(form, _NOT_LOOKED)
        if changes != self.changes:
            held = form.place(self.later)
            self.places_later[form] = self.changes, held
            if held is None:
                self.full_later[form] = self.freed
        return held

    # -- owners --------------------------------------------------------------------------------------------

    def _serve_owners(self, owed: Iterable[Batch]) -> None:
        """All jobs within their teams' quotas, in Slurm's order. A team whose jobs had to leave may come to be within
        its quota again: then so are jobs of it.

        And those that are ``owed`` a place and within the quota when the team's own jobs have left that were told to:
        before later ones of the team, which would take what the first of those leaves.
        """
        inside = set(self._within_quota())
        line = [(batch.place, batch) for batch in inside]
        heapify(line)
        soon: dict[str, list[Batch]] = {}
        for batch in filter(self._will_be_within_quota, owed):
            soon.setdefault(batch.team, []).append(batch)
        while line:
            place, batch = line[0]
            for one in soon.get(batch.team, ()):
                if self._is_owed(one) and one.place < place and not self._waits_behind(one):
                    self._serve_owed(one)
            if not self._waits_behind(batch):
                self._serve_owner(batch)
            # What is beyond the quota now stays so for all that follow, unless the team loses something.
            if batch.done or batch.place == place:
                heappop(line)
                inside.discard(batch)
            else:
                heapreplace(line, (batch.place, batch))
            for loser in sorted(filter(self._may_be_within_quota, self.losers)):
                for one in self.queue.of_team.get(loser, {}).values():
                    if one not in inside and not one.done and self._within(one):
                        inside.add(one)
                        heappush(line, (one.place, one))
            self.losers.clear()

    def _will_be_within_quota(self, batch: Batch) -> bool:
        """Whether its team's quota does not cover it now, but will when those of the team that were told to leave
        have left.
        """
        if self._within(batch):
            return False
        holder, more = self.shares.holder(batch.team), dict(batch.amounts)
        for victim in self.holdings.of_team[batch.team].values():
            if victim.leaving and not victim.ending:
                for resource in more:
                    more[resource] -= victim.use.get(resource, 0)
        return all(holder.usage.get(one, 0) + n <= holder.quota(one).nominal for one, n in more.items())

    def _within_quota(self) -> Iterator[Batch]:
        """The batches whose first job its team's quota covers."""
        for team in filter(self._may_be_within_quota, self.queue.of_team):
            tasks = self.queue.tasks[team]
            wants = {want for want in tasks if self.shares.within_quota(team, want.amounts)}
            if wants:
                yield from (batch for batch in self.queue.of_team[team].values() if batch.want in wants)

    def _may_be_within_quota(self, team: str) -> bool:
        """Whether its quota covers what each of its waiting jobs asks for at least."""
        return self.shares.within_quota(team, self.queue.least.get(team, {}))

    def _serve_owner(self, batch: Batch) -> None:
        """Start the tasks of its first job as far as its team's quota covers them, or take back what was lent."""
        wish = batch.first
        while wish.tasks and self._within(batch):
            if (held := self._place_now(batch.form)) is not None:
                why = "within {}; it fits on free nodes"
                self._start(batch, held, (Reason.STARTS_NOW, why, (self._quota_use(batch),)))
            elif (held := self._place_later(batch.form)) is not None:
                figures = self._quota_use(batch), self._who_leaves(held)
                self._start(batch, held, (Reason.WAITS_FOR_NODES, "within {}; starts when {} has ended", figures))
            elif (victims := self._victims(batch)) is not None:
                self._take_place_of(batch, victims)
            else:
                why = "within {}, but there is no room for {}, and no borrower's job that may go would make it{}"
                nodes, stays = batch.form, self._spared(batch)
                self._fail(batch, (Reason.WAITS_FOR_NODES, why, (self._quota_use(batch), nodes, stays)))
                return

    def _victims(self, batch: Batch) -> _Chosen | None:
        """Whose going would let this job start: on the nodes and, beyond its quota, under all limits."""
        kind, amounts = batch.kind, batch.amounts
        if kind.takes_nobody:
            return None
        fair = self.policy.rebalance is not Rebalance.NEVER
        take_own = not self._an_easier_one_waits(batch)
        if not (fair or take_own or self._may_take_others(batch)):
            return None
        lacking = frozenset([r for r, n in amounts.items() if n > self._available(batch.team, r)])
        contested = lacking or frozenset(amounts)
        job = batch.first.job
        # The tasks of an array are one record: that one of them had its victims must not keep the others from theirs.
        # A task that was requeued is a record of its own; the last one keeps the array's id.
        many = job.tasks > 1 or (job.mark is None and job.display_id.startswith(f"{job.id}_"))
        started = self._last_start_of(job) if many and job.id in self.line.left_for else -inf
        left = -inf if job.mark is None or job.mark.spared else job.mark.since
        preemptor = Preemptor(batch.team, kind.priority, job.submit, amounts, contested, job.id, left, started)

        known = self.may_use.setdefault(batch.form.nodes, {})

        def on_its_nodes(victim: Victim) -> bool:
            for held in victim.job.held:
                usable = known.get(held.node)
                if usable if usable is not None else self._may_use(batch.form, held.node):
                    return True
            return False

        def anywhere(victim: Victim) -> bool:
            return True

        # Whoever leaves, it is not allowed less than now.
        allowed = self._within(batch) or self._allowed(batch)

        lacks_nodes = False  # as far as is known of the last look

        def fits() -> bool:
            nonlocal lacks_nodes
            lacks_nodes = False
            if allowed or self.shares.within_quota(batch.team, amounts) or self.shares.fits(batch.team, amounts):
                lacks_nodes = not batch.form.fits(self.later)
                return not lacks_nodes
            return False

        # Where nodes are what it lacks, only jobs on nodes that it may use can make room for it.
        has_nodes = self._place_later(batch.form) is not None
        may_help = anywhere if has_nodes else on_its_nodes
        nodes = None if has_nodes else batch.form.nodes
        found = Candidates(self.policy, self.shares, preemptor, self.line, may_help, nodes, take_own)
        possible = found if fair else found.with_a_chance()
        if possible.none:
            return None
        group = None if fair else possible.group
        hopeless = self.hopeless.setdefault(group, []) if group is not None else []
        if any(self.kinds.is_easier(form, batch.form) for form in hopeless):
            return None
        if fair:
            chosen = fair_search(self.policy, self.working, preemptor, list(found), fits)
        else:
            chosen = search(self.policy, self.working, preemptor, found, fits, self.snapshot.now)
        # The last look was when all that may leave had left. With equal nodes, more room is never worse.
        if chosen is None and (allowed or (lacks_nodes and batch.form.equal_nodes)):
            hopeless.append(batch.form)
        if chosen is None or self._others_would_take_it(batch, chosen):
            return None
        return _Chosen(chosen, possible.first(len(chosen) + 1))

    def _last_start_of(self, array: WaitingJob) -> float:
        """When the last of an array's tasks started, of those that run; before all times if none does."""
        tasks, team = f"{array.display_id.partition('_')[0]}_", self.kinds.team(array.account)
        running = self.holdings.of_team[team].values() if team is not None else ()
        return max((one.job.start for one in running if one.job.display_id.startswith(tasks)), default=-inf)

    def _an_easier_one_waits(self, batch: Batch) -> bool:
        """Whether a job of the team that was passed over would fit wherever this one does, and asks for no more:
        then that one would take whatever the team's own victims leave.
        """
        passed_over = self.passed_over.get(batch.team)
        if not passed_over:
            return False
        if batch.form in passed_over:
            return True
        for form, want in passed_over.items():
            if _at_least(batch.amounts, want.amounts) and self.kinds.is_easier(form, batch.form):
                return True
        return False

    def _others_would_take_it(self, batch: Batch, chosen: tuple[Candidate, ...]) -> bool:
        """Whether others of the team would get what the victims leave, so that there would be nothing left for this
        one: if it borrows, those that the quota covers then; and those ahead in line that were passed over, for Slurm
        would start them.

        They may be ones that policy lets preempt nobody. Then this one would preempt again, and so on. What others
        leave for its team's quota is the team's, whichever of its jobs gets it.
        """
        own = all(candidate.claim is Claim.WITHIN_TEAM for candidate in chosen)
        with self.working.trial():
            for candidate in chosen:
                self.working.remove(candidate.victim)
            borrows = not self.shares.within_quota(batch.team, batch.amounts)
            if not own and not borrows:
                return False
            covers = borrows and self._may_be_within_quota(batch.team)
            first: list[tuple[bool, Place, Wish, Batch]] = []  # whether it may borrow: those who do not come first
            for other in self.queue.of_team[batch.team].values():
                if not (covers or other.failed) or other is batch or other.amounts.keys().isdisjoint(batch.amounts):
                    continue
                if covers and self.shares.within_quota(other.team, other.amounts):
                    first += [(False, wish.place, wish, other) for wish in other.wishes[other.index :]]
                if other.failed and other.place < batch.place:
                    before = bisect_left(other.wishes, batch.place, key=_place)
                    first += [(True, wish.place, wish, other) for wish in other.wishes[other.index : before]]
            full: set[tuple[bool, Batch]] = set()  # room only becomes less
            left: dict[Wish, int] = {}
            for may_borrow, _, wish, other in sorted(first, key=lambda one: one[:2]):
                tasks = 0 if (may_borrow, other) in full else left.get(wish, wish.tasks)
                while tasks:
                    held = self._would_start(other)
                    if held is None or not (may_borrow or self.shares.within_quota(other.team, other.amounts)):
                        full.add((may_borrow, other))
                        break
                    tasks = left[wish] = tasks - 1
                    self.shares.add(other.team, other.amounts)
                    self.later.take(held)
                    if self._would_start(batch) is None:
                        return True
        return False

    def _would_start(self, batch: Batch) -> tuple[Held, ...] | None:
        """Where its first job would run if limits and nodes were in the end as they are in this trial."""
        if self.shares.within_quota(batch.team, batch.amounts) or self.shares.fits(batch.team, batch.amounts):
            return batch.form.place(self.later)
        return None

    def _may_use(self, form: Form, name: str) -> bool:
        """Whether a node is one that these jobs may use, however full it is."""
        node = self.nodes.get(name)
        # Who has a reservation takes nobody's place.
        usable = (
            node is not None
            and node.usable
            and any(eligible(one.request, node, partition) for one in form.parts for partition in one.partitions)
        )
        self.may_use.setdefault(form.nodes, {})[name] = usable
        return usable

    def _take_place_of(self, batch: Batch, found: _Chosen) -> None:
        chosen = found.victims
        why = "{} {}; starts when {} has left"
        where = "within" if self.shares.within_quota(batch.team, batch.amounts) else "beyond"
        quota_use = self._quota_use(batch)
        for candidate in chosen:
            victim = candidate.victim
            why_it_goes = why_it(candidate, chosen, found.in_order, self.snapshot.now)
            self.preempt.append(self._preempt(batch, candidate, why_it_goes))
            self.line.leave(victim)
            self.own.pop(victim.team, None)
            self.working.remove(victim)
            for resource, amount in victim.use.items():
                key = victim.team, resource
                self.leaves[key] = self.leaves.get(key, 0) + amount
            self.line.update(victim.team)
            self.losers.add(victim.team)
            self.lost.add(victim.team)
            self._will_leave(victim.job.held, victim.job.display_id)
        held = self._place_later(batch.form)
        assert held is not None
        reason = Reason.RECLAIMING
        if all(candidate.claim is Claim.WITHIN_TEAM for candidate in chosen):
            reason = Reason.PREEMPTING_WITHIN_TEAM
        names = ", ".join(f"{one.victim.job.display_id} ({one.victim.team})" for one in chosen)
        self._start(batch, held, (reason, why, (where, quota_use, names)))

    def _preempt(self, batch: Batch, candidate: Candidate, why_it_goes: str) -> Preempt:
        job, victim = batch.first.job, candidate.victim
        resource = next(iter(batch.amounts))
        holder = self.shares.holder(victim.team)
        used, quota = holder.usage.get(resource, 0) - holder.given.get(resource, 0), holder.quota(resource).nominal
        over = f"team {victim.team} held {used} of its quota of {quota}"
        if candidate.claim is Claim.WITHIN_TEAM:
            why = (
                f"job {job.display_id} of the same team has priority class weight {batch.kind.priority}, "
                f"this one {victim.priority}"
            )
        elif candidate.claim is Claim.WHILE_BORROWING:
            why = (
                f"job {job.display_id} of team {batch.team} borrows too, and has priority class weight "
                f"{batch.kind.priority}, this one {victim.priority}; {over}"
            )
        elif candidate.claim is Claim.FAIR_SHARE:
            why = f"team {batch.team} has the smaller share of what is lent, for job {job.display_id}; {over}"
        else:
            why = f"{self._claimant(batch, resource)} for job {job.display_id}"
            if not self.shares.within_quota(batch.team, batch.amounts):
                why += f" of team {batch.team}"
            why += f"; {over}"
        why = f"{why}; {why_it_goes}"
        return Preempt(victim.job.id, victim.job.display_id, victim.team, job.id, job.display_id, batch.team, why)

    def _claimant(self, batch: Batch, resource: Resource) -> str:
        """Who takes back what is its own: the team, or the nearest cohort around it whose quotas cover the job."""
        mine = self.shares.quota(batch.team, resource).nominal
        if not self.shares.within_quota(batch.team, batch.amounts):
            for cohort in self.shares.holder(batch.team).above():
                subtree = cohort.subtree.get(resource, 0)
                if cohort.parent and cohort.usage.get(resource, 0) + batch.amounts.get(resource, 0) <= subtree:
                    return f"cohort {cohort.name} takes back {resource} within its quotas of {subtree}"
        return f"team {batch.team} takes back {resource} within its quota of {mine}"

    # -- borrowers -----------------------------------------------------------------------------------------

    def _serve_borrowers(self) -> None:
        """Divide what is idle: job by job to the team with the smallest share, or first come first served."""
        if self.policy.idle is Idle.FIRST_COME:
            heads = in_line(self.queue.batches())
            while (batch := self._next(heads, of_all=True)) is not None:
                self._serve_borrower(batch)
            return
        # Only teams with a job that may be able to start stand in line: on a full cluster, most have none.
        heads_of = {team: heads.copy() for team, heads in self.queue.heads.items()}
        line = [
            (self._place_in_line(batch), team, batch, self.changes)
            for team, heads in heads_of.items()
            if (batch := self._next(heads)) is not None
        ]
        heapify(line)
        while line:
            _, team, first, changes = line[0]
            # If shares have changed since it was put in line it is served only if it is still the first.
            if changes == self.changes:
                self._serve_borrower(first)
            batch = self._next(heads_of[team])
            if batch is None:
                heappop(line)
            else:
                heapreplace(line, (self._place_in_line(batch), team, batch, self.changes))

    def _owed(self) -> list[Batch]:
        """The batches whose first job is one for which others had to leave, or must, and that has not started yet:
        what they lost must not be in vain. Not those where another is ahead of it: Slurm would start that one.
        """
        left: list[RunningJob | WaitingJob] = [wish.job for wish in self.queue.marked]
        for jobs in (self.snapshot.ended, self.holdings.being_preempted()):
            left += [job for job in jobs if job.being_preempted]
        marks = unpaid(self.snapshot, left)
        self.owed = {mark.beneficiary for mark in marks}
        self.left_for = {mark.beneficiary for mark in marks if self.snapshot.now - mark.deadline < SETTLING}
        batches = filter(self._is_owed, self.queue.batches()) if self.owed else ()
        return sorted(batches, key=lambda one: one.place)

    def _is_owed(self, batch: Batch) -> bool:
        """Whether its first job is, of those that still look for a place."""
        return not batch.done and batch.first.job.id in self.owed

    def _serve_owed(self, batch: Batch) -> None:
        """One task of a job beyond its team's quota that others had to leave for: room that will be there without
        those who are leaving still is kept for it, or somebody else takes that too, and they must leave after all.
        """
        ask = self._looked_at(batch)
        if not ask.allowed or ask.held is not None or (held := self._place_later(batch.form)) is None:
            self._serve_borrower(batch)
            return
        figures: tuple[object, ...] = (self._quota_use(batch),)
        why = "beyond {}; starts when those that were told to leave have left"
        if self._place_now(batch.form) is None:
            why, figures = "beyond {}; starts when {} has ended", (*figures, self._who_leaves(held))
        self._start(batch, held, (Reason.WAITS_FOR_NODES, why, figures))

    def _serve_last(self) -> None:
        """Those that Slurm has not started where there seemed to be room: what nobody else takes is theirs."""
        for batch in self.queue.last_in_line():
            while not batch.done:
                within, held = self._within(batch), self._place_now(batch.form)
                if held is not None and (within or (self._allowed(batch) and self._allowed_now(batch))):
                    why = "{} {}; there seems to be room that nobody else takes, but Slurm did not start it before"
                    figures = "within" if within else "beyond", self._quota_use(batch)
                    self._start(batch, held, (Reason.STARTS_NOW, why, figures))
                else:
                    why = (
                        "Slurm did not start it where there seemed to be room for {}: nothing is kept for it for now"
                    )
                    self._fail(batch, (Reason.NOT_STARTED, why, (batch.form,)))

    def _next(self, heads: Heads, of_all: bool = False) -> Batch | None:
        """The batch of the next job that may be able to start. Of those ahead of which can be told at a glance that
        they cannot, whoever else is served before them, it is said why. ``of_all``: not of one team, but of all.
        """
        # Nothing starts meanwhile.
        changes, protected, said_behind, lost = self.changes, self.protected, self.said_behind, self.lost
        while heads:
            one = heads.pop()
            place, batch = one
            if batch.done:
                continue
            if batch.place is not place:  # its first jobs have started
                insort(heads, (batch.place, batch), key=from_the_end)
                continue
            head = protected.get(batch.line)
            if head is not None and place > head.place:
                said = said_behind.get(head.job) or self._is_ahead(head, batch)
                self._fail(batch, said)
                if not of_all:
                    self._fail_behind(heads, batch.line, said)
                continue
            ask = batch.ask
            if ask.changes != changes:
                ask.forget(changes)
            if ask.outcome is None:
                self._look(batch, ask)
            if (
                ask.held is not None
                or (batch.team in lost and self._comes_within(batch))
                or (ask.victims_help and self._may_have_victims(batch))
            ):
                heads.append(one)
                return batch
            # Nor have others that ask for the same any: this one would take what its team's own jobs leave.
            ask.victims_help = False
            self._fail_to_borrow(batch, ask)
        return None

    def _place_in_line(self, batch: Batch) -> tuple[tuple[float, ...], int, int]:
        """The shares its team and cohorts would have if its first job borrowed; weight 0 comes after all others."""
        ask = self._ask(batch)
        if ask.shares is None:
            ask.shares = self.shares.shares_with(ask.team, ask.amounts)
        return ask.shares, *batch.place

    def _looked_at(self, batch: Batch) -> Ask:
        """What jobs like this get beyond their team's quota: the same for all of them, until something changes."""
        ask = batch.ask
        if ask.changes != self.changes:
            ask.forget(self.changes)
        if ask.outcome is None:
            self._look(batch, ask)
        return ask

    def _look(self, batch: Batch, ask: Ask) -> None:
        team, ask.held, ask.victims_help = ask.team, None, False
        for resource, amount in ask.items:
            could = self.available.get((team, resource))
            if could is None:
                could = self._available(team, resource)
            if amount > could and amount > 0:
                ask.allowed, ask.victims_help = False, True
                holder = self.shares.holder(team)
                so = holder, holder.version, resource, could
                if ask.refused != so:  # else it is what was said the last time
                    ask.refused, ask.refusal = so, self._not_allowed(holder, resource, amount, could)
                ask.outcome = ask.refusal
                return
        ask.allowed = True
        beyond = self._quota_use(batch)
        if (held := self._place_now(ask.form)) is not None:
            if self._allowed_now(batch):
                ask.held, ask.outcome = held, (Reason.STARTS_NOW, "beyond {}: it borrows what is idle", (beyond,))
                return
            why = "beyond {}; it may borrow when those that were told to leave have left"
            ask.outcome = (Reason.NOTHING_TO_BORROW, why, (beyond,))
        elif (held := self._place_later(ask.form)) is not None:
            # Only what is idle now is lent: in the cycle in which it is.
            why = "beyond {}; it may borrow when {} has ended"
            ask.outcome = (Reason.BORROW_DOES_NOT_FIT, why, (beyond, self._who_leaves_for(ask.form, held)))
        else:
            why = "beyond {}; it may borrow, but there is no room for {}"
            ask.outcome, ask.victims_help = (Reason.BORROW_DOES_NOT_FIT, why, (beyond, ask.form)), True

    def _may_have_victims(self, batch: Batch) -> bool:
        """Whether it is worth looking for victims for a job beyond its team's quota."""
        if batch.kind.takes_nobody:
            return False
        if self._own_that_may_leave(batch) and not self._an_easier_one_waits(batch):
            return True
        return self._may_take_others(batch)

    def _own_that_may_leave(self, batch: Batch) -> Amounts:
        """What those of its own team's jobs hold that may be candidates for it, or more: a look that costs little."""
        team, priority = batch.team, batch.kind.priority
        known = self.own.get(team)
        if known is None:
            known = self.own[team] = {}
        found = known.get(priority)
        if found is None:
            rule, found = self.policy.teams[team].preempt_within_team, {}
            if rule is not WithinTeam.NEVER:
                line = self.line if team in self.line.shielded else self.holdings
                found = line.held_below(team, priority, rule is WithinTeam.LOWER_OR_NEWER_EQUAL_PRIORITY)
            known[priority] = found
        return found

    def _worth_a_search(self, batch: Batch) -> bool:
        """Whether, if it may not take others, it may be allowed when its team's own jobs have left; or be within its
        quota, for then others may have to leave as well.
        """
        if self._may_take_others(batch):
            return True
        own, holder, allowed, within = self._own_that_may_leave(batch), self.shares.holder(batch.team), True, True
        for resource, amount in batch.ask.items:
            more = amount - own.get(resource, 0)
            if more > 0 and more > self._available(batch.team, resource):
                allowed = False
            if holder.usage.get(resource, 0) + more > holder.quota(resource).nominal:
                within = False
        return allowed or within

    def _may_take_others(self, batch: Batch) -> bool:
        """Whether it may have any candidates in other teams. Where there are none for some amounts, there are none
        for more, until something is given back.
        """
        ask = self._ask(batch)
        if ask.takes_others is None:
            ask.takes_others = self._look_for_others(ask.team, ask.amounts)
        return ask.takes_others

    def _look_for_others(self, team: str, amounts: Amounts) -> bool:
        freed, least = self.nobody_for.get(team, (-1, amounts))
        if freed == self.freed and _at_least(amounts, least):
            return False
        if freed != self.freed:
            least = self.queue.least[team]
            if not may_take_others(self.policy, self.shares, team, least):
                self.nobody_for[team] = self.freed, least
                return False
        if may_take_others(self.policy, self.shares, team, amounts):
            return True
        self.nobody_for[team] = self.freed, amounts
        return False

    def _serve_borrower(self, batch: Batch) -> None:
        """One task of a job beyond its team's quota: it borrows, or takes the place of others where it may."""
        ask = self._looked_at(batch)
        if self._comes_within(batch):
            self._serve_owner(batch)
        elif ask.held is not None and ask.outcome is not None:
            if (one := self._would_come_before(batch)) is not None:
                why = "beyond {}; it may borrow when job {}, for which others have left, has started"
                self._fail(batch, (Reason.NOTHING_TO_BORROW, why, (self._quota_use(batch), one)))
            else:
                self._start(batch, ask.held, ask.outcome)
        elif self._worth_a_search(batch) and (victims := self._victims(batch)) is not None:
            self._take_place_of(batch, victims)
        else:
            self._fail_to_borrow(batch, ask)

    def _would_come_before(self, batch: Batch) -> str | None:
        """The job that has just been given what others left, and that Slurm would start after this one, perhaps when
        this one has taken its nodes: which of those that are free Slurm takes nobody can tell. Others would have to
        leave again. It is soon over: a start takes seconds.
        """
        if self._is_owed(batch):
            return None
        for place, job, held in self.settling:
            if batch.place < place and any(self._may_use(batch.form, one.node) for one in held):
                return job
        return None

    def _comes_within(self, batch: Batch) -> bool:
        """Whether its team's quota covers it now that others of the team have to leave."""
        return batch.team in self.lost and self._within(batch)

    def _fail_to_borrow(self, batch: Batch, ask: Ask) -> None:
        assert ask.outcome is not None
        if not ask.allowed and batch.since <= self.long_ago:
            self._protect(batch)
        self._fail(batch, ask.outcome)

    def _protect(self, batch: Batch) -> None:
        """Let nobody of the team overtake a job of its pool that has waited long, where that lets it run in the end.

        The team's cap then follows its use down, to the quota at the lowest: it helps if the job fits above that.
        """
        borrowed = ((self.shares.quota(batch.team, r).borrow, n) for r, n in batch.amounts.items())
        if all(borrow is None or n <= borrow for borrow, n in borrowed) and self.holdings.could_run(batch.form):
            job = batch.first.job
            head = Ahead(batch.place, job.id, batch.amounts, job.submit)
            self.protected.setdefault(batch.line, head)

    def _behind(self, will_have: Mapping[str, Mapping[str, int]]) -> dict[int, int]:
        """Which waiting jobs must not get in the way of which, under these caps."""
        found: dict[int, int] = {}
        # Where others have left already, and then who has waited longest.
        waits = {place: head.submit for place, head in self.protected.items()} | dict.fromkeys(self.promised, 0.0)
        for team, pool in sorted(waits, key=lambda place: (waits[place], place)):
            pools = self.policy.pools.values()
            free = {one.name: will_have[team][one.tres] - self.shares_now.usage(team, one.name) for one in pools}
            leaves = {one.name: self.leaves.get((team, one.name), 0) for one in pools}
            promised, head = self.promised.get((team, pool), ()), self.protected.get((team, pool))
            batches = [one for one in self.queue.of_team.get(team, {}).values() if one.line[1] == pool]
            running = self.holdings.of_team[team].values()
            more = ahead.behind(self.snapshot.now, batches, running, promised, head, free, leaves)
            if len(found) + len(more) > ahead.MOST_IN_ALL:
                break
            found |= more
        return found

    def _waits_behind(self, batch: Batch) -> bool:
        """Whether an earlier job of its team that has waited long goes before it; if so, that is said of it."""
        head = self.protected.get(batch.line)
        if head is None or batch.place <= head.place:
            return False
        self._fail(batch, self._is_ahead(head, batch))
        return True

    def _fail_behind(self, heads: Heads, line: tuple[str, str], outcome: Outcome) -> None:
        """Whoever else stands in that line is behind the same job: there is no need to look at each in its turn."""
        others = []
        for one in heads:
            batch = one[1]
            if batch.line != line:
                others.append(one)
            elif not batch.done:
                self._fail(batch, outcome)
        heads[:] = others

    def _is_ahead(self, head: Ahead, batch: Batch) -> Outcome:
        said = self.said_behind.get(head.job)
        if said is None:
            why = "job {} of team {} is ahead, has waited long and needs the room"
            said = self.said_behind[head.job] = Reason.TEAM_AT_LIMIT, why, (head.job, batch.team)
        return said

    def _not_allowed(self, holder: Holder, resource: Resource, amount: int, could: int) -> Outcome:
        """Why a team may not hold so much more."""
        team, quota = holder.name, holder.quota(resource)
        key = team, resource
        version, held = self.held.get(key, (-1, ""))
        if version != holder.version:
            held = holds(self.shares, team, resource)
            self.held[key] = holder.version, held
        if quota.borrow is not None and holder.usage.get(resource, 0) + amount > quota.nominal + quota.borrow:
            return Reason.TEAM_AT_LIMIT, "{}, and asks for {} more", (held, amount)
        if could > 0:
            return Reason.NOTHING_TO_BORROW, "{}, and asks for {} more; it could have {} now", (held, amount, could)
        why = "{}, and asks for {} more; nothing is idle that it may borrow"
        return Reason.NOTHING_TO_BORROW, why, (held, amount)

    # -- what comes of it ----------------------------------------------------------------------------------

    def _start(self, batch: Batch, held: tuple[Held, ...], outcome: Outcome) -> None:
        """One task of its first job gets these nodes, now or later."""
        self.changes = next(self._changed)
        self.available.clear()
        self.hopeless.clear()
        self.shares.give(batch.team, batch.amounts)
        self.line.update(batch.team)
        self.later.take(held)
        if outcome[0] is Reason.STARTS_NOW:
            self.shares_now.add(batch.team, batch.amounts)
            self.now.take(held)
            if batch.first.job.id in self.left_for:
                self.settling.append((batch.place, batch.first.job.display_id, held))
        else:
            # What it gets from those who leave, it need not take from what is free already.
            self.now.no_more_than(self.later, held)
            job = batch.first.job
            promise = Ahead(batch.place, job.id, batch.amounts, job.submit)
            self.promised.setdefault(batch.line, []).append(promise)
        batch.start(outcome)
        self.queue.moved.add(batch.team)

    def _will_leave(self, held: Iterable[Held], name: str) -> None:
        """Something is given back, in time: what was impossible may be possible now."""
        self.freed += 1
        self.changes = next(self._changed)
        for one in held:
            self.leaving.setdefault(one.node, []).append(name)

    def _who_leaves(self, held: Iterable[Held]) -> str:
        names = dict.fromkeys(name for one in held for name in self.leaving.get(one.node, ()))
        return "job " + ", ".join(names) if names else "another"

    def _who_leaves_for(self, form: Form, held: tuple[Held, ...]) -> str:
        """The same, where many ask for the same: as long as it is these very nodes, it is what was said before."""
        before, names = self.named.get(form, ((), ""))
        if before is not held:
            names = self._who_leaves(held)
            self.named[form] = held, names
        return names

    def _fail(self, batch: Batch, outcome: Outcome) -> None:
        """Nothing can be done in this cycle for what is left of it."""
        self.passed_over[batch.team][batch.form] = batch.want
        batch.done = True
        if outcome != batch.outcome:  # else it is the very same as the last time
            batch.outcome = outcome
            self.queue.moved.add(batch.team)

    def _quota_use(self, batch: Batch) -> QuotaUse:
        """What its team would hold, of its quota."""
        ask, holder = batch.ask, self.shares.holder(batch.team)
        if ask.quota_use is None or ask.holder is not holder or ask.version != holder.version:
            ask.holder, ask.version = holder, holder.version
            ask.quota_use = quota_use(holder, ask.amounts)
        return ask.quota_use

    def _spared(self, batch: Batch) -> str:
        """Which borrowers' jobs would make room if nothing kept them, and what does."""
        kept = []
        for team, shielded in self.line.shielded.items():
            if team != batch.team and self.shares.over_quota(team, batch.amounts):
                kept += [one for one in shielded if any(one[0].use.get(resource) for resource in batch.amounts)]
        return who_stays(kept, self.snapshot.now)


def _at_least(amounts: Amounts, others: Amounts) -> bool:
    """Whether there is as much of everything as there."""
    for resource, amount in others.items():  # noqa: SIM110 (a plain loop: nothing is asked more often)
        if amounts.get(resource, 0) < amount:
            return False
    return True
