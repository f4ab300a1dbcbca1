"""From a plan to what must be done in Slurm now. Pure, and derived anew in every cycle: what was not done
is still needed, what was done is not done again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil

from slurm_gov.core.decision import Plan, Preempt, Reason
from slurm_gov.core.owed import unpaid
from slurm_gov.core.policy import Policy
from slurm_gov.core.snapshot import Behind, FaultMark, Mark, RunningJob, Snapshot, Unstarted, WaitingJob

WAIT_ON = 60.0
"""Seconds for which a requeued job is kept waiting at a time, as long as the one it left for has not started."""
AT_A_TIME = 100
"""So many jobs at most are made to wait behind others in one cycle, or let go."""
WAIT_ON_WITHIN = 20.0
"""Seconds before the end of its wait in which that is looked at."""

REQUEUE_WAIT = 130.0
"""Slurm lets a requeued job start no earlier than about 121 s after its requeue; see docs/slurm-facts.md."""
SLURMS_WAIT = 121.0
"""What it is by default, to the second: no user's own begin time is just that."""
HELD_MARGIN = 5.0
"""Seconds by which the begin time that Slurm made of ours may be later than we noted."""
CREDENTIAL_MARGIN = 2.0
"""A job launched on the same node in the second of its requeue is killed there for good ("Job credential
revoked"): it must start in a later second; see docs/slurm-facts.md.
"""


@dataclass(frozen=True, slots=True)
class Leave:
    """A job that must leave: with the note to make, or made, on it."""

    job: RunningJob
    preempt: Preempt
    mark: Mark


@dataclass(frozen=True, slots=True)
class Actions:
    """What to do, in the order to do it.

    ``lower`` and ``raise_``: account to TRES to amount. ``spare``: jobs to take our note from. ``warn``: jobs to
    note and signal, their grace period begins. ``renote``: jobs that were told to leave for one that needs their
    place no more, and leave for another. ``requeue``, ``cancel``: jobs whose grace period is over.
    ``requeue_ended``: jobs that our signal stopped. ``nudge``: a waiting job that a raised cap lets start.
    ``release``: requeued jobs and the seconds after which they may start. ``wait_on``: requeued jobs that are to wait
    longer, with the note to make on them. ``step_back``: waiting jobs that are to wait behind another of their team,
    and the note for them. ``let_go``: those that need not any more. ``unstarted``: waiting jobs that Slurm does not
    start, and the note for them. ``missing``: teams that have no account in Slurm.
    """

    lower: Mapping[str, Mapping[str, int]]
    spare: tuple[RunningJob, ...]
    warn: tuple[Leave, ...]
    requeue: tuple[Leave, ...]
    cancel: tuple[Leave, ...]
    requeue_ended: tuple[RunningJob, ...]
    raise_: Mapping[str, Mapping[str, int]]
    nudge: int | None
    release: tuple[tuple[WaitingJob, float], ...]
    wait_on: tuple[tuple[WaitingJob, Mark], ...]
    step_back: tuple[tuple[WaitingJob, Behind], ...]
    let_go: tuple[WaitingJob, ...]
    missing: tuple[str, ...]
    next_deadline: float | None
    unstarted: tuple[tuple[WaitingJob, Unstarted], ...] = ()
    renote: tuple[Leave, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(
            self.lower
            or self.spare
            or self.warn
            or self.renote
            or self.requeue
            or self.cancel
            or self.requeue_ended
            or self.raise_
            or self.release
            or self.wait_on
            or self.step_back
            or self.let_go
            or self.unstarted
        )


def actions(policy: Policy, snapshot: Snapshot, plan: Plan) -> Actions:
    """What makes Slurm as the plan wants it. ``next_deadline`` is when the next grace period ends."""
    lower: dict[str, dict[str, int]] = {}
    raise_: dict[str, dict[str, int]] = {}
    for team, caps in plan.caps.items():
        if team not in snapshot.parents:
            continue
        have = snapshot.caps.get(team, {})
        for tres, want in caps.items():
            # No cap is more than any cap.
            if tres not in have or want < have[tres]:
                lower.setdefault(team, {})[tres] = want
            elif want > have[tres]:
                raise_.setdefault(team, {})[tres] = want

    jobs = {job.id: job for job in snapshot.running}
    warn: list[Leave] = []
    renote: list[Leave] = []
    go: list[Leave] = []
    deadlines: list[float] = []
    told = any(jobs[one.job].being_preempted for one in plan.preempt)
    waits = {job.id for job in snapshot.waiting} if told else set()
    beneficiaries = {one.beneficiary for one in plan.preempt}
    for preempt in plan.preempt:
        job = jobs[preempt.job]
        if job.being_preempted and job.mark is not None:
            mark = job.mark
            # Whom it leaves for is owed its place, and that is told by the note. Until it goes that may change often.
            final = mark.deadline <= snapshot.now or mark.beneficiary not in waits
            if final and mark.beneficiary not in beneficiaries:
                whom, team = preempt.beneficiary, preempt.beneficiary_team
                mark = replace(mark, beneficiary=whom, team=team, since=snapshot.now, reason=preempt.reason)
                renote.append(Leave(job, preempt, mark))
            if mark.deadline <= snapshot.now:
                go.append(Leave(job, preempt, mark))
            else:
                deadlines.append(mark.deadline)
            continue
        # What has run for less than the grace period has no more to save than that.
        grace = min(policy.preemption.grace, max(0.0, snapshot.now - job.start))
        mark = Mark(
            preempt.beneficiary,
            preempt.beneficiary_team,
            snapshot.now,
            snapshot.now + grace,
            job.start,
            preempt.reason,
        )
        warn.append(Leave(job, preempt, mark))
        if grace > 0:
            deadlines.append(mark.deadline)
        else:
            go.append(Leave(job, preempt, mark))
    release, wait_on = _requeued(policy, snapshot, plan)
    step_back, let_go = _behind(snapshot, plan)
    return Actions(
        lower=lower,
        spare=tuple(jobs[id] for id in plan.spare),
        warn=tuple(warn),
        renote=tuple(renote),
        requeue=tuple(one for one in go if one.job.requeueable),
        cancel=tuple(one for one in go if not one.job.requeueable),
        requeue_ended=tuple(job for job in snapshot.ended if job.requeueable),
        raise_=raise_,
        nudge=next((one.job for one in plan.decisions.having({Reason.STARTS_NOW}) if one.team in raise_), None),
        release=release,
        wait_on=wait_on,
        step_back=step_back,
        let_go=let_go,
        missing=tuple(sorted(team for team in plan.caps if team not in snapshot.parents)),
        next_deadline=min(deadlines, default=None),
    )


def requeued(snapshot: Snapshot, plan: Plan) -> Iterator[tuple[WaitingJob, Mark, Reason | None]]:
    """The jobs that wait because we requeued them, with the reason for which the one that each left for waits itself;
    ``None`` if that has started, or will not.
    """
    ours = [(job, job.mark) for job in snapshot.waiting if job.mark is not None and _waits_for_us(job, job.mark)]
    still = set(unpaid(snapshot, [job for job, _ in ours]))
    wanted = {mark.beneficiary for mark in still}
    reasons = plan.decisions.reasons(wanted) if wanted else {}
    for job, mark in ours:
        reason = reasons.get(mark.beneficiary) if mark in still else None
        yield job, mark, None if reason in _WILL_NOT_START else reason


def _requeued(
    policy: Policy, snapshot: Snapshot, plan: Plan
) -> tuple[tuple[tuple[WaitingJob, float], ...], tuple[tuple[WaitingJob, Mark], ...]]:
    """Of the jobs that we requeued and that Slurm lets wait: who may start sooner, and who is to wait longer.

    As long as the job that one left for has not started, it waits: its Slurm priority may be the higher one, and it
    would take back the place that it left.
    """
    release: list[tuple[WaitingJob, float]] = []
    wait_on: list[tuple[WaitingJob, Mark]] = []
    for job, mark, reason in requeued(snapshot, plan):
        begin = job.begin or 0.0
        if reason in _PROMISED:
            if begin - snapshot.now < WAIT_ON_WITHIN:
                wait_on.append((job, replace(mark, held=snapshot.now + WAIT_ON)))
        elif reason is None:
            start = job.submit + max(CREDENTIAL_MARGIN, policy.preemption.requeue_delay)
            if begin > max(start, snapshot.now) + 1:
                # Slurm counts whole seconds: rounded up, so that it is never too early.
                release.append((job, max(0.0, float(ceil(start - snapshot.now)))))
    return tuple(release), tuple(wait_on)


def _behind(snapshot: Snapshot, plan: Plan) -> tuple[tuple[tuple[WaitingJob, Behind], ...], tuple[WaitingJob, ...]]:
    """Who is to wait behind another of its team for a while, and who may go. If nobody asks any more, as when the
    daemon has died, all may go when that is over; and not while the one ahead is about to start.
    """
    # For longer where they are many: each time costs Slurm an update of each.
    wait = WAIT_ON if len(plan.behind) <= AT_A_TIME else 10 * WAIT_ON
    jobs = {job.id: job for job in snapshot.waiting if job.behind is not None or job.id in plan.behind}
    step_back = [
        (job, Behind(ahead, snapshot.now + wait))
        for id, ahead in plan.behind.items()
        if (job := jobs[id]).behind is None or job.behind.until - snapshot.now < wait / 3
    ]
    ahead_of = {job.behind.job for job in jobs.values() if job.behind is not None}
    starting = {one.job for one in plan.decisions.having({Reason.STARTS_NOW}) if one.job in ahead_of}
    let_go = [
        job
        for id, job in sorted(jobs.items())
        if job.behind is not None
        and id not in plan.behind
        and job.behind.until > snapshot.now
        and job.behind.job not in starting
    ]
    return tuple(step_back[:AT_A_TIME]), tuple(let_go[:AT_A_TIME])


_PROMISED = frozenset({Reason.STARTS_NOW, Reason.RECLAIMING, Reason.PREEMPTING_WITHIN_TEAM, Reason.WAITS_FOR_NODES})
_WILL_NOT_START = frozenset(
    {Reason.NOT_STARTED, Reason.NOT_READY, Reason.CAN_NEVER_RUN, Reason.NO_TEAM, Reason.NO_POOL}
)


def left_after_all(job: RunningJob) -> Mark | None:
    """The note for a job that ended in its grace period although it was spared: it left like any other. ``None`` for
    all others, and where a sick node had told it to leave.
    """
    by_fault = job.fault is not None and job.fault.run == job.start and job.fault.until > 0
    return replace(job.mark, spared=False) if job.mark is not None and job.was_spared and not by_fault else None


def _waits_for_us(job: WaitingJob, mark: Mark) -> bool:
    return job.slurm_reason == "BeginTime" and has_left(mark, job.submit, job.begin)


def has_left(mark: Mark | None, submit: float, begin: float | None) -> bool:
    """Whether a job with this begin time waits because we requeued it. A requeued job's submit time is the time of
    its requeue; a begin time further off than Slurm's wait, or what we made of it, is its user's own.
    """
    if mark is None or mark.spared or begin is None or submit < mark.since - 1:
        return False
    return begin - submit <= REQUEUE_WAIT or begin <= mark.held + HELD_MARGIN


def waits_for_slurm(job: WaitingJob) -> bool:
    """Whether it waits because Slurm lets every requeued job wait, whoever requeued it."""
    return job.slurm_reason == "BeginTime" and job.begin is not None and job.begin - job.submit == SLURMS_WAIT


def comes_back(fault: FaultMark | None, mark: Mark | None, submit: float, begin: float | None) -> bool:
    """Whether a waiting job was last stopped by a fault, and waits because Slurm makes requeued jobs wait."""
    if fault is None or submit < fault.at - 1 or (mark is not None and mark.since > fault.at):
        return False
    return begin is not None and begin - submit <= REQUEUE_WAIT
