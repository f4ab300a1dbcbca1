"""What the views show, as rows: pure functions of policy, snapshot and plan. The fields are the JSON's keys.

GPUs are counts, times are seconds since the epoch, ``None`` is "none" or "does not apply".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from slurm_gov.core.actions import Actions, requeued, waits_for_slurm
from slurm_gov.core.capacity import lately, pool_use
from slurm_gov.core.decision import Decision, Plan, Reason
from slurm_gov.core.estimates import Estimates
from slurm_gov.core.memory import Memory
from slurm_gov.core.policy import Mode, Policy
from slurm_gov.core.shields import shield
from slurm_gov.core.snapshot import Mark, RunningJob, RunState, Snapshot, WaitingJob


@dataclass(frozen=True)
class Look:
    """One look at Slurm and what would be decided of it. ``notes`` are warnings about the look itself."""

    policy: Policy
    snapshot: Snapshot
    plan: Plan
    actions: Actions
    notes: tuple[str, ...] = ()

    @cached_property
    def display_ids(self) -> dict[int, str]:
        """The id of every job in the queue as people know it."""
        jobs: tuple[RunningJob | WaitingJob, ...] = (*self.snapshot.running, *self.snapshot.waiting)
        return {job.id: job.display_id for job in jobs}

    @cached_property
    def held(self) -> dict[int, Mark]:
        """The requeued jobs that are not to start before those for which they left, and the notes that say so."""
        return {job.id: mark for job, mark, reason in requeued(self.snapshot, self.plan) if reason is not None}


class Phase(StrEnum):
    """How far a preemption has come."""

    NEXT_CYCLE = "next_cycle"
    """The next cycle signals the job; its grace period begins."""
    GRACE = "grace"
    """It was signalled, its grace period is running."""
    LEAVING = "leaving"
    """Its grace period is over, or it has stopped: the next cycle requeues (or cancels) it."""
    SPARED = "spared"
    """It was signalled, but nobody needs its place any more: the next cycle lets it stay."""


@dataclass(frozen=True, slots=True)
class PoolRow:
    """One pool. ``borrowed`` and ``without_team`` are parts of ``used``; ``quota`` is the sum of all quotas."""

    pool: str
    nodes: int
    total: int
    healthy: int
    used: int
    free: int
    quota: int
    borrowed: int
    without_team: int


@dataclass(frozen=True, slots=True)
class TeamRow:
    """One team in one pool. ``cap`` is Slurm's now (``None``: it has none), ``planned_cap`` the plan's."""

    team: str
    pool: str
    quota: int
    borrow_limit: int | None
    lend_limit: int | None
    used: int
    borrowed: int
    lent: int
    cap: int | None
    planned_cap: int
    running_jobs: int
    waiting_jobs: int
    waiting_gpus: int


@dataclass(frozen=True, slots=True)
class ShortRow:
    """A quota that cannot be kept now: so many of the team's GPUs it would not get if all borrowers left."""

    team: str
    pool: str
    quota: int
    short: int
    sick_nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShareRow:
    """How much a team or cohort borrows: of several that want what is idle, the one with the smallest share is served
    first, the outermost cohorts compared first. ``cohort`` is the one that it is in; of teams without one "(shared)".

    ``borrowed`` is how many GPUs it holds now beyond its quota, a cohort beyond what its teams lend to one another.
    ``share`` is that per thousand of what could be lent to it, divided by ``weight``; without weight it is not
    divided, and it comes after all others. ``borrowed_lately`` is how many GPUs it borrowed on average, and
    ``share_lately`` what that adds to the share when it is to borrow more (``None``: the policy has no half-life).
    """

    name: str
    is_team: bool
    cohort: str | None
    weight: float
    borrowed: int
    share: float
    borrowed_lately: float | None
    share_lately: float | None


@dataclass(frozen=True, slots=True)
class OtherRow:
    """What jobs of accounts without a team hold and want of one pool."""

    pool: str
    used: int
    running_jobs: int
    waiting_jobs: int
    waiting_gpus: int


@dataclass(frozen=True, slots=True)
class PreemptionRow:
    """A running job that is being preempted, or will be. ``then`` is ``requeue``, or ``cancel`` for a job that
    cannot be requeued; ``deadline`` is the end of its grace period.
    """

    job: str
    team: str | None
    user: str
    gpus: int
    phase: Phase
    beneficiary: str
    beneficiary_team: str
    since: float | None
    deadline: float | None
    seconds_left: float | None
    then: str
    reason: str


@dataclass(frozen=True, slots=True)
class PastPreemption:
    """An earlier run of a job that was preempted, from the note on it."""

    at: float
    beneficiary: str
    beneficiary_team: str
    reason: str


@dataclass(frozen=True, slots=True)
class Fault:
    """What a sick node did to a job, from the note on it: it was stopped ``at`` a time, for the ``count``-th time, or
    was told to save its work and is requeued at ``until``.
    """

    at: float
    node: str
    count: int
    until: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class RunningRow:
    """A job that holds nodes. ``borrowed`` is how many of its GPUs count as above its team's quota. ``checkpoint`` is
    when it says that it last saved its work. ``stays_because`` is what keeps it from being preempted, whoever asks,
    and ``stays_until`` when that ends (``None``: not before the job does).
    """

    id: int
    job: str
    name: str
    state: str
    user: str
    account: str
    team: str | None
    priority_class: str
    priority_weight: int
    pool: str | None
    gpus: int
    nodes: tuple[str, ...]
    since: float
    time_limit: float | None
    requeueable: bool
    borrowed: int
    preemption: PreemptionRow | None
    preempted_before: PastPreemption | None
    fault: Fault | None
    checkpoint: float | None
    stays_until: float | None
    stays_because: str


@dataclass(frozen=True, slots=True)
class WaitingRow:
    """A pending job; ``gpus`` and ``nodes`` are of one task if it is an array. ``place`` counts, in Slurm's order,
    the jobs that wait for the same pool, ``team_place`` those of its own team among them; a job that is not ready, or
    can never run, has none. ``next_in_line`` is the first of its team. ``expected_start`` is Slurm's own estimate,
    where it has made one. ``earliest`` is ours, and ``earliest_why`` what the job waits for until then or why nobody
    can say; both are empty where they were not asked for (``estimated``). ``behind`` is the job of its team behind
    which it was made to wait, until ``behind_until`` at least. ``left_for`` is the job for which it left and that is
    to start before it; it may start at ``held_until``, unless that one is about to start then.
    """

    id: int
    job: str
    name: str
    state: str
    user: str
    account: str
    team: str | None
    priority_class: str
    priority_weight: int
    pool: str | None
    gpus: int
    nodes: int
    gpus_per_node: int | None
    tasks: int
    partitions: tuple[str, ...]
    submitted: float
    time_limit: float | None
    expected_start: float | None
    slurm_priority: int
    slurm_reason: str
    place: int | None
    in_line: int
    team_place: int | None
    team_in_line: int
    next_in_line: str
    reason: Reason
    why: str
    preempted_before: PastPreemption | None
    fault: Fault | None

    earliest: float | None = None
    earliest_why: str = ""
    behind: str = ""
    behind_until: float | None = None
    left_for: str = ""
    held_until: float | None = None


@dataclass(frozen=True, slots=True)
class CapChange:
    """A cap that the next cycle moves; ``before`` is ``None`` where Slurm has none."""

    team: str
    tres: str
    before: int | None
    after: int


@dataclass(frozen=True, slots=True)
class Release:
    """A requeued job that the next cycle lets start, after ``delay`` seconds."""

    job: str
    delay: float


# -- status ----------------------------------------------------------------------------------------------


def pools(look: Look) -> list[PoolRow]:
    """Every pool, in the policy's order."""
    others = {row.pool: row.used for row in without_team(look)}
    return [
        PoolRow(
            pool=one.pool,
            nodes=one.nodes,
            total=one.total,
            healthy=one.healthy,
            used=one.used,
            free=one.free,
            quota=one.quota,
            borrowed=sum(team.borrowed for team in look.plan.standings if team.pool == one.pool),
            without_team=others[one.pool],
        )
        for one in look.plan.pools
    ]


def teams(look: Look) -> list[TeamRow]:
    """Every team in every pool."""
    rows = []
    for one in look.plan.standings:
        quota = look.policy.teams[one.team].quotas.get(one.pool)
        tres = look.policy.pools[one.pool].tres
        rows.append(
            TeamRow(
                team=one.team,
                pool=one.pool,
                quota=one.quota,
                borrow_limit=quota.borrow if quota else None,
                lend_limit=quota.lend if quota else None,
                used=one.used,
                borrowed=one.borrowed,
                lent=one.lent,
                cap=look.snapshot.caps.get(one.team, {}).get(tres),
                planned_cap=one.cap,
                running_jobs=one.running_jobs,
                waiting_jobs=one.waiting_jobs,
                waiting_gpus=one.waiting,
            )
        )
    return rows


def shares(look: Look) -> list[ShareRow]:
    """Every cohort and team that may borrow beside others, each cohort before those in it."""
    policy, snapshot = look.policy, look.snapshot
    tree = Memory(policy, snapshot).holdings(snapshot).shares
    teams, cohorts = lately(policy, snapshot.borrowed_lately), lately(policy, snapshot.cohorts_borrowed_lately)
    tree.remember(teams, cohorts)
    rows = []
    for depth, one in tree.tree():
        if not (one.is_team or one.children):
            continue
        known = (teams if one.is_team else cohorts).get(one.name, 0.0)
        rows.append(
            ShareRow(
                name=one.name,
                is_team=one.is_team,
                cohort=one.parent.name if one.parent is not None and depth else None,
                weight=one.weight,
                borrowed=sum(max(0, one.usage.get(pool, 0) - one.subtree.get(pool, 0)) for pool in policy.pools),
                share=one.share().weighted,
                borrowed_lately=None if policy.half_life is None else known,
                share_lately=None if policy.half_life is None else one.past,
            )
        )
    return rows


def without_team(look: Look) -> list[OtherRow]:
    """What accounts without a team hold and want, for every pool."""
    strangers = [
        pool_use(look.policy, job)
        for job in look.snapshot.running
        if look.snapshot.team_of(look.policy, job.account) is None
    ]
    wishes = [(one.pool, job) for one in look.plan.decisions.verdicts if one.team is None for job in one.jobs]
    rows = []
    for pool in look.policy.pools:
        held = [use[pool] for use in strangers if pool in use]
        wanted = [job for wished, job in wishes if wished == pool]
        rows.append(
            OtherRow(
                pool=pool,
                used=sum(held),
                running_jobs=len(held),
                waiting_jobs=sum(job.tasks for job in wanted),
                waiting_gpus=sum(sum(job.request.gpus.values()) * job.tasks for job in wanted),
            )
        )
    return rows


def _mode(policy: Policy) -> list[str]:
    match policy.mode:
        case Mode.OBSERVE:
            return ["the policy's mode is observe: slurm-govd decides and reports, and acts on nothing"]
        case Mode.CAPS:
            return ["the policy's mode is caps: nobody is preempted, an owner waits until borrowers' jobs have ended"]
        case Mode.ENFORCE:
            return []


def shortages(look: Look) -> list[ShortRow]:
    """Quotas that sick nodes leave short, and by how much: others' use within their own quotas comes first."""
    found = []
    every = teams(look)
    for pool in pools(look):
        mine = [row for row in every if row.pool == pool.pool]
        within = {row.team: min(row.used, row.quota) for row in mine}
        there = pool.used + pool.free - pool.without_team
        where = look.policy.pools[pool.pool]
        sick = tuple(
            node.name
            for node in look.snapshot.nodes
            if not node.usable and where.tres in node.gpus and set(where.partitions) & set(node.partitions)
        )
        for row in mine:
            short = row.quota - (there - sum(within.values()) + within[row.team])
            if short > 0:
                found.append(ShortRow(row.team, pool.pool, row.quota, min(short, row.quota), sick))
    return found


def warnings(look: Look) -> list[str]:
    """What an administrator should know."""
    empty = [pool.pool for pool in look.plan.pools if not pool.nodes]
    return [
        *_mode(look.policy),
        *look.notes,
        *look.plan.warnings,
        *(
            f"pool {name} has no nodes: no node in partition {', '.join(look.policy.pools[name].partitions)} "
            f"has gres {look.policy.pools[name].gres}"
            for name in empty
        ),
        *(f"team {team} has no account in Slurm: see slurm-gov policy diff" for team in look.actions.missing),
    ]


# -- preemptions -----------------------------------------------------------------------------------------


def preemptions(look: Look) -> list[PreemptionRow]:
    """Jobs being preempted and those that the next cycle will signal, the next to leave first."""
    planned = {one.job: one for one in look.plan.preempt}
    now = look.snapshot.now
    rows = []
    for job in (*look.snapshot.running, *look.snapshot.ended):
        mark = job.mark if job.being_preempted else None
        preempt = planned.get(job.id)
        if mark is None and preempt is None:
            continue
        stopped = job.state is RunState.COMPLETING
        if mark is None:
            phase = Phase.NEXT_CYCLE
        elif job.id in look.plan.spare:
            phase = Phase.SPARED
        elif stopped or mark.deadline <= now:
            phase = Phase.LEAVING
        else:
            phase = Phase.GRACE
        rows.append(
            PreemptionRow(
                job=job.display_id,
                team=look.snapshot.team_of(look.policy, job.account),
                user=job.user,
                gpus=_gpus_held(job),
                phase=phase,
                beneficiary=preempt.beneficiary_display_id if preempt else _display(look, mark),
                beneficiary_team=preempt.beneficiary_team if preempt else mark.team if mark else "",
                since=mark.since if mark else None,
                deadline=mark.deadline if mark else None,
                seconds_left=max(0.0, round(mark.deadline - now, 1)) if mark else None,
                then="requeue" if job.requeueable else "cancel",
                # The note says why it was chosen; what the present plan says of it may have moved on.
                reason=(mark.reason if mark else "") or (preempt.reason if preempt else ""),
            )
        )
    return sorted(rows, key=lambda row: (row.deadline is None, row.deadline or 0.0, row.job))


def _display(look: Look, mark: Mark | None) -> str:
    """The beneficiary's id as people know it; the plain number once it is gone."""
    return "" if mark is None else look.display_ids.get(mark.beneficiary, str(mark.beneficiary))


def _past(look: Look, job: RunningJob | WaitingJob) -> PastPreemption | None:
    if job.mark is None or job.mark.spared or (isinstance(job, RunningJob) and job.being_preempted):
        return None
    return PastPreemption(job.mark.since, _display(look, job.mark), job.mark.team, job.mark.reason)


def _fault(job: RunningJob | WaitingJob) -> Fault | None:
    mark = job.fault
    return None if mark is None else Fault(mark.at, mark.node, mark.count, mark.until or None, mark.reason)


# -- jobs ------------------------------------------------------------------------------------------------


def running(look: Look) -> list[RunningRow]:
    """The jobs that hold nodes, by start; and those that our signal stopped and that are owed a requeue."""
    borrowed = borrowed_gpus(look)
    leaving = {row.job: row for row in preemptions(look)}
    ended = {job.id for job in look.snapshot.ended}
    rows = []
    for job in (*look.snapshot.running, *look.snapshot.ended):
        use = pool_use(look.policy, job)
        team = look.snapshot.team_of(look.policy, job.account)
        kept = shield(look.policy, team, job, look.snapshot.now) if team is not None else None
        rows.append(
            RunningRow(
                id=job.id,
                job=job.display_id,
                name=job.name,
                state="stopped" if job.id in ended else str(job.state).lower(),
                user=job.user,
                account=job.account,
                team=team,
                priority_class=job.qos,
                priority_weight=look.policy.priority_of(job.qos),
                pool=next(iter(use), None),
                gpus=_gpus_held(job),
                nodes=tuple(dict.fromkeys(held.node for held in job.held)),
                since=job.start,
                time_limit=job.time_limit,
                requeueable=job.requeueable,
                borrowed=borrowed.get(job.id, 0),
                preemption=leaving.get(job.display_id),
                preempted_before=_past(look, job),
                fault=_fault(job),
                checkpoint=job.checkpoint,
                stays_until=kept.until if kept else None,
                stays_because=kept.why if kept else "",
            )
        )
    return sorted(rows, key=lambda row: (row.since, row.id))


def borrowed_gpus(look: Look) -> dict[int, int]:
    """How many of each running job's GPUs count as borrowed: job id to GPUs; they add up to what its team borrows.

    A team's quota covers its jobs in the order in which an owner would leave them alone: those being preempted
    last, those that cannot be requeued first, then by priority class, then the longest-running. What is above
    the quota then is borrowed; a job on the line is borrowed in part.
    """
    borrowed: dict[int, int] = {}
    covered: dict[tuple[str, str], int] = {}
    for job in sorted(
        look.snapshot.running,
        key=lambda job: (job.being_preempted, job.requeueable, -look.policy.priority_of(job.qos), job.start, -job.id),
    ):
        team = look.snapshot.team_of(look.policy, job.account)
        if team is None:
            continue
        for pool, gpus in pool_use(look.policy, job).items():
            quota = look.policy.teams[team].quotas.get(pool)
            room = max(0, (quota.nominal if quota else 0) - covered.get((team, pool), 0))
            covered[team, pool] = covered.get((team, pool), 0) + gpus
            if gpus > room:
                borrowed[job.id] = borrowed.get(job.id, 0) + gpus - room
    return borrowed


def waiting(look: Look, some: Iterable[Decision] | None = None) -> list[WaitingRow]:
    """The pending jobs, in Slurm's order; or those of some decisions."""
    jobs = {job.id: job for job in look.snapshot.waiting}
    everybody, teams = _Lines(), _Lines()
    for decision in look.plan.decisions:
        if decision.reason not in (Reason.NOT_READY, Reason.CAN_NEVER_RUN):
            everybody.add(decision, decision.pool)
            teams.add(decision, (decision.team, decision.pool))
    return [
        _waiting_row(look, jobs[one.job], one, everybody, teams)
        for one in (look.plan.decisions if some is None else some)
    ]


def estimated(look: Look, some: Iterable[WaitingRow]) -> list[WaitingRow]:
    """These rows with their ``earliest``: some work for each team, so only for rows that somebody looks at."""
    estimates = Estimates(look.policy, look.snapshot, look.plan)
    found = []
    for row in some:
        one = estimates.of(row.id)
        why = f"or as soon as job {row.left_for} has started" if row.left_for else one.why
        found.append(replace(row, earliest=one.start, earliest_why=why))
    return found


class _Lines:
    """Who stands where in which line."""

    def __init__(self) -> None:
        self.place: dict[int, int] = {}
        self.length: dict[object, int] = {}
        self.first: dict[object, str] = {}

    def add(self, decision: Decision, line: object) -> None:
        self.length[line] = self.place[decision.job] = self.length.get(line, 0) + 1
        self.first.setdefault(line, decision.display_id)


def _waiting_row(look: Look, job: WaitingJob, decision: Decision, everybody: _Lines, teams: _Lines) -> WaitingRow:
    not_ready = decision.reason is Reason.NOT_READY
    mark = look.held.get(job.id) if not_ready else None
    why = decision.why
    if mark is not None:
        why = f"it left for job {_display(look, mark)} of team {mark.team}, which has not started yet"
    elif not_ready and waits_for_slurm(job):
        why = "it was requeued, and Slurm lets such a job wait for two minutes"
    return WaitingRow(
        id=job.id,
        job=job.display_id,
        name=job.name,
        state="waiting",
        user=job.user,
        account=job.account,
        team=decision.team,
        priority_class=job.qos,
        priority_weight=look.policy.priority_of(job.qos),
        pool=decision.pool,
        gpus=sum(job.request.gpus.values()),
        nodes=job.request.min_nodes,
        gpus_per_node=job.request.gpus_per_node or None,
        tasks=job.tasks,
        partitions=job.partitions,
        submitted=job.submit,
        time_limit=job.time_limit,
        expected_start=job.expected,
        slurm_priority=job.priority,
        slurm_reason=job.slurm_reason,
        place=everybody.place.get(job.id),
        in_line=everybody.length.get(decision.pool, 0),
        team_place=teams.place.get(job.id),
        team_in_line=teams.length.get((decision.team, decision.pool), 0),
        next_in_line=teams.first.get((decision.team, decision.pool), ""),
        reason=decision.reason,
        why=why,
        preempted_before=_past(look, job),
        behind=look.display_ids.get(job.behind.job, str(job.behind.job)) if job.behind else "",
        behind_until=job.behind.until if job.behind else None,
        left_for=_display(look, mark),
        held_until=job.begin if mark is not None else None,
        fault=_fault(job),
    )


def _gpus_held(job: RunningJob) -> int:
    return sum(sum(held.gpus.values()) for held in job.held)


# -- why -------------------------------------------------------------------------------------------------

JOB_ID = re.compile(r"(?P<job>\d+)(?:_(?P<task>\d+)|\+\d+)?")


def find(rows: Iterable[RunningRow | WaitingRow], id: str) -> list[RunningRow | WaitingRow]:
    """The rows that a job id names: ``123``, also all that is left of an array 123; ``123_4``, one task of it;
    ``123+1``, a component of a het job, or all of it where it runs.
    """
    wanted = JOB_ID.fullmatch(id)
    assert wanted, id
    found = []
    for row in rows:
        array, _, tasks = row.job.partition("_")
        if "+" in id:
            if row.job in (id, wanted["job"]):
                found.append(row)
        elif wanted["task"] is None:
            if str(row.id) == wanted["job"] or array == wanted["job"]:
                found.append(row)
        elif array == wanted["job"] and _names_task(tasks, int(wanted["task"])):
            found.append(row)
    return found


def _names_task(tasks: str, task: int) -> bool:
    """Whether ``3-5,9,20-40:2%4`` names a task."""
    for part in tasks.strip("[]").partition("%")[0].split(","):
        if one := re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part):
            first, last, step = int(one[1]), int(one[2] or one[1]), int(one[3] or 1)
            if first <= task <= last and (task - first) % step == 0:
                return True
    return False


def preempted_for(look: Look, row: WaitingRow) -> list[PreemptionRow]:
    """The running jobs that leave, or will, so that this one can start."""
    for_it = {one.display_id for one in look.plan.preempt if one.beneficiary == row.id}
    return [one for one in preemptions(look) if one.job in for_it]


# -- plan ------------------------------------------------------------------------------------------------


def cap_changes(look: Look) -> tuple[list[CapChange], list[CapChange]]:
    """The caps that the next cycle lowers, and those it raises."""
    lower, raise_ = (
        [
            CapChange(team, tres, look.snapshot.caps.get(team, {}).get(tres), after)
            for team, limits in caps.items()
            for tres, after in limits.items()
        ]
        for caps in (look.actions.lower, look.actions.raise_)
    )
    return lower, raise_


def releases(look: Look) -> list[Release]:
    """Requeued jobs that the next cycle lets start."""
    return [Release(job.display_id, delay) for job, delay in look.actions.release]
