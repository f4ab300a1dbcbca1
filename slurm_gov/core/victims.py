"""Who must leave so that a job can start: the cheapest set of running jobs whose going makes room.

Who may be preempted by position in the tree of cohorts, the order in which candidates are looked at, the
re-check that a victim's team is still over its quota, and putting back who turned out not to be needed are
Kueue's classical preemption. Choosing by nodes is ours: a set found node by node is taken instead where it
costs less (``Victims.CHEAPEST``).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from enum import StrEnum
from heapq import merge
from itertools import islice, tee
from math import inf
from operator import attrgetter

from slurm_gov.core.capacity import team_use
from slurm_gov.core.policy import Policy, Rebalance, Reclaim, Resource, Victims, WithinTeam
from slurm_gov.core.room import Room
from slurm_gov.core.shares import Amounts, Holder, Shares
from slurm_gov.core.shields import Shield, may_have_shield, shield
from slurm_gov.core.snapshot import RunningJob, RunState


class Victim:
    """A running job as a candidate. ``use`` is per resource, ``gpus`` the sum of its GPUs; ``leaving``: it is being
    preempted already. ``order`` is when it is looked at, ``part`` the first of that. ``left_for`` are the jobs for
    which earlier runs of it had to leave, and when they last had to. ``exposed``: no shield will ever keep it.
    ``ending``: it ends by itself. ``plain``: nothing of that is to be looked at.
    """

    __slots__ = (
        "ending",
        "exposed",
        "gpus",
        "job",
        "leaving",
        "left_for",
        "order",
        "part",
        "plain",
        "priority",
        "team",
        "use",
    )

    def __init__(self, job: RunningJob, team: str, priority: int, use: Amounts, exposed: bool = False) -> None:
        self.job = job
        self.exposed = exposed
        self.team = team
        self.priority = priority
        self.use = use
        self.gpus = sum(amount for resource, amount in use.items() if "/" not in resource)
        self.leaving = job.being_preempted
        self.ending = job.state is RunState.COMPLETING
        self.left_for = {one.beneficiary: one.at for one in reversed(job.preempted)}
        self.plain = exposed and not self.ending and not self.left_for
        self.part = (not self.leaving, not job.requeueable)
        self.order = (*self.part, priority, -job.start, job.id)


@dataclass(frozen=True, slots=True)
class Preemptor:
    """The waiting job that looks for victims. ``amounts`` is per resource; ``contested`` are the resources
    that somebody must give up for it. ``job`` is its id: nobody leaves twice for it (0: any may); ``left`` is when
    it was last told to leave itself, if it ever was. ``started``: of an array, when the last of its tasks did.
    """

    team: str
    priority: int
    submit: float
    amounts: Amounts
    contested: frozenset[Resource]
    job: int = 0
    left: float = -inf
    started: float = -inf


class Claim(StrEnum):
    """What allows it to preempt a job; in the order in which candidates are looked at.

    ``RECLAIM``: the job fits the quota of its team, or of a cohort around it that the victim's team is not in.
    ``RECLAIM_IF_WITHIN_QUOTA``: if the job does not borrow in the end. ``WHILE_BORROWING``: the victim has a low
    priority (Kueue: borrowWithinCohort). ``FAIR_SHARE``: the victim's team has the larger share.
    """

    RECLAIM = "reclaim"
    FAIR_SHARE = "fair_share"
    WHILE_BORROWING = "while_borrowing"
    RECLAIM_IF_WITHIN_QUOTA = "reclaim_if_within_quota"
    WITHIN_TEAM = "within_team"


@dataclass(slots=True, eq=False)
class Candidate:
    """A job that policy allows to be preempted for this preemptor.

    ``meet`` is the nearest cohort that both teams are in (``None`` within one team): everyone below it on the
    victim's side must be over quota, or what they hold is theirs.
    """

    victim: Victim
    claim: Claim
    meet: Holder | None = None


class Working:
    """Shares and room together: what a trial changes and takes back."""

    def __init__(self, shares: Shares, room: Room) -> None:
        self.shares = shares
        self.room = room

    def remove(self, victim: Victim) -> None:
        """As if the victim had left."""
        self.shares.remove(victim.team, victim.use)
        self.room.give(victim.job.held)

    def put_back(self, victim: Victim) -> None:
        """As if the victim stayed after all."""
        self.shares.add(victim.team, victim.use)
        self.room.take(victim.job.held)

    @contextmanager
    def trial(self) -> Iterator[Callable[[], None]]:
        """Whatever happens inside is undone at the end; but not what was done before it calls what it is given: for
        when all is as it was at the beginning.
        """
        shares, room = self.shares.mark(), self.room.mark()

        def as_it_was() -> None:
            self.shares.forget(shares)
            self.room.forget(room)

        try:
            yield as_it_was
        finally:
            self.shares.undo(shares)
            self.room.undo(room)


class Line:
    """The running jobs that may be preempted at all, in the order in which they would be.

    For every cohort it keeps those whose teams, and all cohorts between, hold more than their quota: only they
    can be taken from by others in that cohort. So a search looks at nobody whose team is safe. It is told of
    every change of who holds what (``update``, ``leave``). ``shielded`` are those of each team that may not be
    preempted, and why.
    """

    def __init__(self, policy: Policy, shares: Shares, running: Iterable[Victim], now: float) -> None:
        """``running`` is in that order already."""
        self.shielded: dict[str, list[tuple[Victim, Shield]]] = {}
        self.left_for: set[int] = set()
        self._shares = shares
        self._of_team: dict[Holder, list[Victim]] = {}
        self._in_cohort: dict[Holder, list[Victim]] = {}
        self._over: dict[Holder, bool] = {}
        self._held: dict[str, dict[tuple[int, bool], Amounts]] = {}
        self._helps: dict[object, dict[Victim, bool]] = {}
        self._begin(shares.cluster)
        lists: dict[str, list[list[Victim]]] = {}  # where a team's jobs are to be found
        for victim in running:
            team = victim.team
            if not victim.plain:
                if victim.ending:
                    continue
                self.left_for |= victim.left_for.keys()
                if not victim.exposed and (kept := shield(policy, team, victim.job, now)) is not None:
                    self.shielded.setdefault(team, []).append((victim, kept))
                    continue
            if team not in lists:
                holder = shares.holder(team)
                lists[team] = [self._of_team[holder]]
                if self._over[holder]:
                    lists[team] += self._where_seen(holder)
            for line in lists[team]:
                line.append(victim)

    def _begin(self, holder: Holder) -> None:
        self._over[holder] = holder.holds_too_much(holder.usage)
        if holder.is_team:
            self._of_team[holder] = []
        else:
            self._in_cohort[holder] = []
        for child in holder.children:
            self._begin(child)

    def _below(self, holder: Holder) -> list[Victim]:
        return self._of_team[holder] if holder.is_team else self._in_cohort[holder]

    def _where_seen(self, holder: Holder) -> Iterator[list[Victim]]:
        """The lists of the cohorts above that see what is below this one, if it is over its quota."""
        for cohort in holder.above():
            yield self._in_cohort[cohort]
            if not self._over[cohort]:
                return

    def update(self, team: str) -> None:
        """What a team holds has changed."""
        holder: Holder | None = self._shares.holder(team)
        while holder is not None:
            over = holder.holds_too_much(holder.usage)
            if over is not self._over[holder]:
                self._over[holder] = over
                for line in self._where_seen(holder):
                    for victim in self._below(holder):
                        (_put if over else _drop)(line, victim)
            holder = holder.parent

    def leave(self, victim: Victim) -> None:
        """It is preempted in this plan already; to be told before its team's holding changes."""
        holder = self._shares.holder(victim.team)
        _drop(self._of_team[holder], victim)
        self._held.pop(victim.team, None)
        if self._over[holder]:
            for line in self._where_seen(holder):
                _drop(line, victim)

    def of_team(self, team: str) -> list[Victim]:
        """A team's own jobs."""
        return self._of_team[self._shares.holder(team)]

    def held_below(self, team: str, priority: int, equal: bool) -> Amounts:
        """What a team's own jobs of lower classes hold, or of equal ones too."""
        known = self._held.setdefault(team, {})
        held = known.get((priority, equal))
        if held is None:
            sums: dict[Resource, int] = {}
            for victim in self.of_team(team):
                if victim.priority < priority or (equal and victim.priority == priority):
                    for resource, amount in victim.use.items():
                        sums[resource] = sums.get(resource, 0) + amount
            held = known[priority, equal] = sums
        return held

    def that_add(self, cohorts: Sequence[Holder]) -> list[Holder]:
        """Of cohorts, each within the next, those in which jobs can be taken that are not in the ones before."""
        found: list[Holder] = []
        inner: Holder | None = None
        for cohort in cohorts:
            known = 0
            if inner is not None and inner.parent is cohort and self._over[inner]:
                known = len(self._in_cohort[inner])
            if len(self._in_cohort[cohort]) > known:
                found.append(cohort)
            inner = cohort
        return found

    def within(self, cohorts: Iterable[Holder]) -> Iterable[Victim]:
        """The jobs that can be taken from within these cohorts, each once."""
        lists = [self._in_cohort[cohort] for cohort in cohorts]
        return lists[0] if len(lists) == 1 else _once(merge(*lists, key=_order))

    def helps(self, contested: frozenset[Resource], nodes: object) -> dict[Victim, bool]:
        """Whose going would help whoever lacks these and may use the same ``nodes``: as far as anybody has asked."""
        return self._helps.setdefault((contested, nodes), {})


def _once(victims: Iterable[Victim]) -> Iterator[Victim]:
    last = None
    for victim in victims:
        if victim is not last:
            yield victim
        last = victim


_order = attrgetter("order")


def _put(line: list[Victim], victim: Victim) -> None:
    insort(line, victim, key=_order)


def _drop(line: list[Victim], victim: Victim) -> None:
    del line[bisect_left(line, victim.order, key=_order)]


_CLAIM_ORDER = {Claim.RECLAIM: 0, Claim.FAIR_SHARE: 0, Claim.WITHIN_TEAM: 2}


def candidate_order(candidate: Candidate) -> tuple[bool, bool, int, int, float, int]:
    """Already being preempted first, not requeueable last, other teams before one's own, lower priority first,
    most recently started first, job id.
    """
    evicted, kept, priority, recent, id = candidate.victim.order
    return evicted, kept, _CLAIM_ORDER.get(candidate.claim, 1), priority, recent, id


class Candidates:
    """Who may be preempted for this job by policy, in the order they are looked at: found as they are needed, and
    remembered, so that they can be looked at again. For as long as nothing changes.
    """

    def __init__(
        self,
        policy: Policy,
        shares: Shares,
        preemptor: Preemptor,
        line: Line,
        may_help: Callable[[Victim], bool] = lambda victim: True,
        nodes: object = None,
        take_own: bool = True,
    ) -> None:
        """``may_help`` says whether a job's going could make room at all; ``nodes`` is another one if that would say
        something else. ``take_own``: whether its team's own jobs may be looked at.
        """
        self._policy = policy
        self._preemptor = preemptor
        self._line = line
        self._may_help = may_help
        self._nodes = nodes
        self._shares = shares
        # Some have left for this very job before: they are no candidates for it.
        self._some_left = preemptor.job in line.left_for
        self._own_jobs = _own_jobs(policy, preemptor, line, may_help) if take_own else []
        self._reach = _Reach(policy, shares, preemptor, self._own_jobs)
        self._cohorts = line.that_add(self._reach.cohorts)
        self._advantage_only = False
        self._find()

    @property
    def none(self) -> bool:
        """Whether it is known at once that there are none."""
        return not self._own_jobs and not self._cohorts

    @property
    def group(self) -> object:
        """Equal for all preemptors that have the very same candidates; ``None`` where that is not known."""
        if self._own_jobs or not self._cohorts or self._some_left or not self._same_for_others():
            return None
        # Who is on its own side of the innermost cohort is no candidate.
        side = self._shares.holder(self._preemptor.team)
        while side.parent is not None and side.parent is not self._cohorts[0]:
            side = side.parent
        return side, tuple(self._cohorts), self._preemptor.contested, self._nodes

    def _same_for_others(self) -> bool:
        """Whether it may take all that are in its cohorts, apart from its own side, whatever their priority."""
        lower_only = self._policy.teams[self._preemptor.team].reclaim is Reclaim.LOWER_PRIORITY
        return not lower_only and all(map(self._reach.has_advantage_in, self._cohorts))

    def with_a_chance(self) -> Candidates:
        """These without those that may only go if the job does not borrow in the end, where it surely would: there
        is no need to find them.
        """
        if self._policy.teams[self._preemptor.team].borrow_preempts is not None or self._may_come_within_quota():
            return self
        cohorts = [cohort for cohort in self._cohorts if self._reach.has_advantage_in(cohort)]
        if len(cohorts) == len(self._cohorts):
            return self
        fewer = copy(self)
        fewer._cohorts, fewer._advantage_only = cohorts, True
        fewer._find()
        return fewer

    def _may_come_within_quota(self) -> bool:
        """Whether its team stays within its quota with this job if all candidates of its own leave."""
        team = self._preemptor.team
        for resource, amount in self._preemptor.amounts.items():
            leaves = sum(one.victim.use.get(resource, 0) for one in self._own_jobs)
            held = self._shares.usage(team, resource) - leaves
            if amount > 0 and held + amount > self._shares.quota(team, resource).nominal:
                return False
        return True

    def __iter__(self) -> Iterator[Candidate]:
        return copy(self._all)

    def first(self, count: int) -> list[Candidate]:
        return list(islice(self, count))

    def _find(self) -> None:
        """Find them as they are looked at; a copy of ``_all`` begins with those that were."""
        if not self._cohorts:
            (self._all,) = tee(self._own_jobs, 1)
        else:
            (self._all,) = tee(self._find_ready() if self._same_for_others() else self._find_any(), 1)

    def _find_any(self) -> Iterator[Candidate]:
        policy, preemptor = self._policy, self._preemptor
        reach, may_help = self._reach, self._may_help
        own_jobs = list(self._own_jobs)
        lower_only = policy.teams[preemptor.team].reclaim is Reclaim.LOWER_PRIORITY
        part: tuple[bool, bool] | None = None
        second: list[Candidate] = []
        for victim in self._line.within(self._cohorts):
            if victim.part != part:
                yield from second
                second = []
                while own_jobs and own_jobs[0].victim.part < victim.part:
                    yield own_jobs.pop(0)
                part = victim.part
            if victim.team == preemptor.team or (lower_only and victim.priority >= preemptor.priority):
                continue
            if self._some_left and has_left_for(victim, preemptor):
                continue
            found = reach.of(victim.team)
            if found is None or not uses(victim, preemptor) or not may_help(victim):
                continue
            meet, advantage = found
            if advantage:
                yield Candidate(victim, Claim.RECLAIM, meet)
            elif not self._advantage_only:
                second.append(Candidate(victim, _claim_while_borrowing(policy, preemptor, victim), meet))
        yield from second
        yield from own_jobs

    def _find_ready(self) -> Iterator[Candidate]:
        """The same, where it has the advantage over all that are in these cohorts."""
        preemptor, reach, may_help = self._preemptor, self._reach, self._may_help
        own_jobs, own_team, some_left = list(self._own_jobs), preemptor.team, self._some_left
        helps = self._line.helps(preemptor.contested, self._nodes)
        part: tuple[bool, bool] | None = None
        for victim in self._line.within(self._cohorts):
            if victim.part != part:
                while own_jobs and own_jobs[0].victim.part < victim.part:
                    yield own_jobs.pop(0)
                part = victim.part
            if victim.team == own_team or (some_left and has_left_for(victim, preemptor)):
                continue
            # Looked up at the first of a team's jobs, whether that one helps or not: others are removed meanwhile.
            found = reach.of(victim.team)
            if found is None or not found[1]:
                continue
            does = helps.get(victim)
            if does is None:
                does = helps[victim] = uses(victim, preemptor) and may_help(victim)
            if does:
                yield Candidate(victim, Claim.RECLAIM, found[0])
        yield from own_jobs


class _Reach:
    """Which teams a preemptor may take from, by where they meet in the tree of cohorts; looked up once a team."""

    def __init__(self, policy: Policy, shares: Shares, preemptor: Preemptor, own_jobs: Sequence[Candidate]) -> None:
        self._shares = shares
        self._contested = preemptor.contested
        self._path: dict[Holder, bool | None] = {}
        self._known: dict[str, tuple[Holder, bool] | None] = {}
        own = policy.teams[preemptor.team]
        here = shares.holder(preemptor.team)
        # Without it, only what it has an advantage for may be taken once its team's quota is used up.
        always = own.borrow_preempts is not None or policy.rebalance is not Rebalance.NEVER
        always = always or _under_quota(shares, preemptor)
        advantage, remaining = _fits_in_quota(here, preemptor.amounts)
        for cohort in here.above() if own.reclaim is not Reclaim.NEVER else ():
            # What may leave inside is only known for the team itself; with others inside, look further.
            inside = own_jobs if here.is_team else ()
            if (here.is_team or not own_jobs) and not advantage and _at_borrow_limit(here, remaining, inside):
                break  # nobody outside can help it
            self._path[cohort] = advantage if advantage or always else None
            fits, remaining = _fits_in_quota(cohort, remaining)
            advantage = advantage or fits
            here = cohort
        self.cohorts = [cohort for cohort, allowed in self._path.items() if allowed is not None]

    def has_advantage_in(self, cohort: Holder) -> bool:
        """Whether the job fits a quota that those it meets in this cohort have no part in."""
        return bool(self._path[cohort])

    def of(self, team: str) -> tuple[Holder, bool] | None:
        """The cohort where they meet and whether the preemptor has the advantage; ``None``: hands off."""
        try:
            return self._known[team]
        except KeyError:
            found = self._known[team] = self._look(team)
            return found

    def _look(self, team: str) -> tuple[Holder, bool] | None:
        holder = self._shares.holder(team)
        while holder.holds_too_much(self._contested):
            parent = holder.parent
            if parent is None:
                return None
            if parent in self._path:
                advantage = self._path[parent]
                return None if advantage is None else (parent, advantage)
            holder = parent
        return None


def _under_quota(shares: Shares, preemptor: Preemptor) -> bool:
    holder = shares.holder(preemptor.team)
    for resource in preemptor.contested:  # noqa: SIM110 (a plain loop: nothing is asked more often)
        if holder.usage.get(resource, 0) >= holder.quota(resource).nominal:
            return False
    return True


def _at_borrow_limit(holder: Holder, amounts: Amounts, inside: Sequence[Candidate]) -> bool:
    """Whether its own borrow limit forbids a team or cohort these amounts, even if those inside left."""
    for resource, amount in amounts.items():
        borrow = holder.quota(resource).borrow
        if borrow is not None and amount > 0:
            leaves = sum(one.victim.use.get(resource, 0) for one in inside) if inside else 0
            used = max(holder.usage.get(resource, 0) - leaves, holder.keeps.get(resource, 0))
            if used + amount > holder.subtree.get(resource, 0) + borrow:
                return True
    return False


def _own_jobs(
    policy: Policy, preemptor: Preemptor, line: Line, may_help: Callable[[Victim], bool]
) -> list[Candidate]:
    rule = policy.teams[preemptor.team].preempt_within_team
    if rule is WithinTeam.NEVER:
        return []
    return [
        Candidate(victim, Claim.WITHIN_TEAM)
        for victim in line.of_team(preemptor.team)
        if _may_take_own(rule, preemptor, victim) and uses(victim, preemptor) and may_help(victim)
    ]


def _may_take_own(rule: WithinTeam, preemptor: Preemptor, victim: Victim) -> bool:
    if victim.left_for and has_left_for(victim, preemptor):
        return False
    if victim.priority < preemptor.priority:
        return True
    # Newer is who began to wait later, not who started later: else two jobs would take turns for ever.
    return (
        rule is WithinTeam.LOWER_OR_NEWER_EQUAL_PRIORITY
        and victim.priority == preemptor.priority
        and victim.job.submit is not None
        and victim.job.submit > preemptor.submit
    )


def has_left_for(victim: Victim, preemptor: Preemptor) -> bool:
    """Whether an earlier run of it left for this very job since that began to wait: it is not asked to again. Nor if
    that one was preempted itself since, and waits anew for that: three would take turns for ever, each with a right
    of its own to the place of the next. An array is one record: for it a job leaves again if one of its tasks has
    started since; else what it left is another's, and would be so again.
    """
    at = victim.left_for.get(preemptor.job) if preemptor.job else None
    return at is not None and (at >= preemptor.submit or at <= preemptor.left) and at > preemptor.started


def uses(victim: Victim, preemptor: Preemptor) -> bool:
    """Whether the victim holds anything that the job needs somebody to give up."""
    use = victim.use
    for resource in preemptor.contested:  # noqa: SIM110 (a plain loop: nothing is asked more often)
        if use.get(resource, 0) > 0:
            return True
    return False


def _claim_while_borrowing(policy: Policy, preemptor: Preemptor, victim: Victim) -> Claim:
    rule = policy.teams[preemptor.team].borrow_preempts
    if rule is None or victim.priority >= preemptor.priority:
        return Claim.RECLAIM_IF_WITHIN_QUOTA
    if rule.max_priority is not None and victim.priority > rule.max_priority:
        return Claim.RECLAIM_IF_WITHIN_QUOTA
    return Claim.WHILE_BORROWING


def _fits_in_quota(holder: Holder, amounts: Amounts) -> tuple[bool, Amounts]:
    """Whether these amounts fit a team's or cohort's quota, and what is left to ask of the cohort above it."""
    fits, usage, subtree = True, holder.usage, holder.subtree
    for resource, amount in amounts.items():
        if usage.get(resource, 0) + amount > subtree.get(resource, 0):
            fits = False
    return fits, holder.beyond_kept(amounts)


def may_take_others(policy: Policy, shares: Shares, team: str, amounts: Amounts) -> bool:
    """Whether a job may have candidates in other teams: a look that costs little. If not,
    ``Candidates(...).with_a_chance()`` has none there.
    """
    own = policy.teams[team]
    if own.reclaim is Reclaim.NEVER:
        return False
    if own.borrow_preempts is not None or policy.rebalance is not Rebalance.NEVER:
        return True
    here = shares.holder(team)
    while (cohort := here.parent) is not None:
        usage, subtree = here.usage, here.subtree
        for resource, amount in amounts.items():
            if usage.get(resource, 0) + amount > subtree.get(resource, 0):
                break
        else:
            return True
        if cohort.parent is None or (here.limited and _at_borrow_limit(here, amounts, ())):
            return False
        if here.keeps_any:
            amounts = here.beyond_kept(amounts)
        here = cohort
    return False


LOOK_AHEAD = 32
"""At least so many candidates are weighed against one another by cost, and four times as many as are needed: the
first in order are those of the lowest priority and the shortest run, so the cheapest are mostly among them.
"""


def search(
    policy: Policy,
    working: Working,
    preemptor: Preemptor,
    ordered: Candidates,
    fits: Callable[[], bool],
    now: float,
) -> tuple[Candidate, ...] | None:
    """The candidates whose going lets ``fits()`` be true, or ``None`` if no allowed set does.

    Nothing in ``working`` is changed. The set is irreducible: without any one of them it would not fit.
    """
    by_order = _by_rules(policy, working, preemptor, ordered.with_a_chance(), fits)
    if by_order is None or policy.preemption.victims is Victims.IN_ORDER or not cost(by_order, now)[-1]:
        return by_order
    least = cost(by_order, now)
    looked_at = ordered.first(max(LOOK_AHEAD, 4 * len(by_order)))
    # No set costs less than any one of it.
    if all(cost((one,), now) >= least for one in looked_at):
        return by_order
    by_node = _by_rules(policy, working, preemptor, _by_node(looked_at, now), fits)
    return by_node if by_node is not None and cost(by_node, now) < least else by_order


def cost(victims: Iterable[Candidate], now: float) -> tuple[int, int, int, float, int]:
    """What losing these jobs costs, least first: jobs that cannot be requeued, the team's own, the highest priority
    among them, the GPU-seconds of work since their last checkpoint, their number. Those already being preempted cost
    nothing.

    As in Kueue's order, what is lent comes before what is one's own, however little that has run: whoever lost its
    own job would take the rest back for it in the next cycle.
    """
    kept, own, priority, work, count = 0, 0, -1, 0.0, 0
    for candidate in victims:
        victim = candidate.victim
        job = victim.job
        if not victim.leaving:
            kept += not job.requeueable
            own += candidate.claim is Claim.WITHIN_TEAM
            priority = max(priority, victim.priority)
            work += victim.gpus * max(0.0, now - job.kept)
            count += 1
    return kept, own, priority, work, count


def _by_rules(
    policy: Policy,
    working: Working,
    preemptor: Preemptor,
    ordered: Iterable[Candidate],
    fits: Callable[[], bool],
) -> tuple[Candidate, ...] | None:
    """Try with the candidates that may go although the job borrows, and with all if it does not borrow."""

    def within_quota() -> bool:
        return working.shares.within_quota(preemptor.team, preemptor.amounts) and fits()

    for may_borrow in _attempts(policy, working.shares, preemptor, ordered):
        if may_borrow:
            taken = _take_until_fit(working, preemptor, ordered, fits, Claim.RECLAIM_IF_WITHIN_QUOTA)
        else:
            taken = _take_until_fit(working, preemptor, ordered, within_quota)
        if taken is not None:
            return taken
    return None


def _attempts(policy: Policy, shares: Shares, preemptor: Preemptor, ordered: Iterable[Candidate]) -> tuple[bool, ...]:
    """Whether to try with borrowing, without, or both and which first: Kueue's order."""
    within_only = policy.teams[preemptor.team].borrow_preempts is None
    if shares.within_quota(preemptor.team, preemptor.amounts):
        return (True,)  # it does not borrow: both are the same
    if within_only and not _under_quota(shares, preemptor):
        return (True,)
    # All of them are found here, where nobody has been removed yet.
    claims = {one.claim for one in ordered}
    if claims <= {Claim.WITHIN_TEAM}:
        return (True,)
    if within_only and Claim.RECLAIM not in claims:
        return (False, True)
    return (True, False)


def _take_until_fit(
    working: Working,
    preemptor: Preemptor,
    ordered: Iterable[Candidate],
    fits: Callable[[], bool],
    without: Claim | None = None,
) -> tuple[Candidate, ...] | None:
    """``without``: candidates with this claim stay."""
    with working.trial() as as_it_was:
        taken: list[Candidate] = []
        safe: set[str] = set()
        for candidate in ordered:
            # Taking one job may bring its team or cohort back to its quota: the rest of it is then safe.
            team = candidate.victim.team
            if team in safe or candidate.claim is without:
                continue
            if not _still_over_quota(working.shares, candidate, preemptor):
                safe.add(team)
                continue
            working.remove(candidate.victim)
            taken.append(candidate)
            if fits():
                needed = put_back_the_spared(working, taken, fits)
                # Few are needed of the many that were tried: to undo that one by one would take longer.
                for one in needed:
                    working.put_back(one.victim)
                as_it_was()
                return needed
        return None


def _still_over_quota(shares: Shares, candidate: Candidate, preemptor: Preemptor) -> bool:
    if candidate.meet is None:
        return True
    holder: Holder | None = shares.holder(candidate.victim.team)
    while holder is not None and holder is not candidate.meet:
        if not holder.holds_too_much(preemptor.contested):
            return False
        holder = holder.parent
    return True


def put_back_the_spared(
    working: Working, taken: Sequence[Candidate], fits: Callable[[], bool]
) -> tuple[Candidate, ...]:
    """Of victims whose going makes it fit, those that are needed: the last one is; the others go back one by
    one, the last taken first, if they can be spared.
    """
    needed = [taken[-1]]
    for candidate in reversed(taken[:-1]):
        working.put_back(candidate.victim)
        if not fits():
            working.remove(candidate.victim)
            needed.append(candidate)
    return tuple(reversed(needed))


def _by_node(ordered: Sequence[Candidate], now: float) -> list[Candidate]:
    """The candidates again, gathered by node: those on the node that costs least to clear come first."""
    on_node: dict[str, list[Candidate]] = {}
    for candidate in ordered:
        for held in candidate.victim.job.held:
            on_node.setdefault(held.node, []).append(candidate)
    cheapest_first = sorted(on_node, key=lambda node: (cost(on_node[node], now), node))
    order: dict[int, Candidate] = {}
    for node in cheapest_first:
        for candidate in on_node[node]:
            order.setdefault(candidate.victim.job.id, candidate)
    return list(order.values())


def as_victim(policy: Policy, team: str, job: RunningJob) -> Victim:
    """A running job of a team as a candidate."""
    use = team_use(policy, team, job)
    return Victim(job, team, policy.priority_of(job.qos), use, not may_have_shield(policy, team, job))
