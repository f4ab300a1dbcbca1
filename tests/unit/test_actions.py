"""From a plan to what must be done in Slurm now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from clusters import H100, NOW, TWO, decisions, policy, running, snapshot, team, waiting
from hypothesis import given
from hypothesis import strategies as st

from slurm_gov.core.actions import WAIT_ON, Actions, actions, comes_back, has_left, left_after_all, waits_for_slurm
from slurm_gov.core.actions import requeued as requeued_jobs
from slurm_gov.core.decision import Decision, Plan, Preempt, Reason
from slurm_gov.core.plan import plan
from slurm_gov.core.policy import Policy, Preemption, frozen
from slurm_gov.core.snapshot import FaultMark, Mark, RunningJob, Snapshot, WaitingJob

GPU = "gres/gpu"
PARENTS = frozen({"research": "root", "product": "root"})
TEAMS = (team("research", 32), team("product", 32))


def caps(research: Mapping[str, int], product: Mapping[str, int]) -> Mapping[str, Mapping[str, int]]:
    return frozen({"research": frozen(research), "product": frozen(product)})


def cluster(*jobs: RunningJob | WaitingJob, **more) -> Snapshot:
    more.setdefault("parents", PARENTS)
    return snapshot(8, *jobs, **more)


def preempt(job: int, beneficiary: int = 99) -> Preempt:
    return Preempt(job, str(job), "research", beneficiary, str(beneficiary), "product", "takes back 8 of h100")


def with_grace(seconds: float, **more) -> Policy:
    return policy(*TEAMS, preemption=Preemption(grace=seconds, **more))


def made(*preempts: Preempt, jobs: list[RunningJob], grace: float = 30) -> Actions:
    return actions(with_grace(grace), cluster(*jobs), Plan({}, preempts))


# -- caps ----------------------------------------------------------------------------------------------


def test_caps_as_the_plan_wants_them_are_left_alone() -> None:
    same = caps({H100: 40, GPU: 40}, {H100: 24, GPU: 24})
    todo = actions(TWO, cluster(caps=same), Plan(same))
    assert (todo.lower, todo.raise_) == ({}, {})
    assert not todo


def test_what_is_more_is_lowered_and_what_is_less_is_raised() -> None:
    have = caps({H100: 40, GPU: 40}, {H100: 24, GPU: 60})
    want = caps({H100: 32, GPU: 32}, {H100: 48, GPU: 48})
    todo = actions(TWO, cluster(caps=have), Plan(want))
    assert todo.lower == {"research": {H100: 32, GPU: 32}, "product": {GPU: 48}}
    assert todo.raise_ == {"product": {H100: 48}}
    assert todo


def test_no_cap_is_more_than_any_cap() -> None:
    todo = actions(
        TWO, cluster(caps=frozen({"research": frozen({GPU: 8})})), Plan(caps({H100: 32, GPU: 32}, {H100: 0}))
    )
    assert todo.lower == {"research": {H100: 32}, "product": {H100: 0}}
    assert todo.raise_ == {"research": {GPU: 32}}


def test_other_limits_of_an_account_are_not_ours() -> None:
    have = caps({H100: 32, "gres/gpu:a100": 4}, {H100: 32})
    assert not actions(TWO, cluster(caps=have), Plan(caps({H100: 32}, {H100: 32})))


def test_a_team_without_an_account_is_named_and_left() -> None:
    todo = actions(TWO, cluster(parents=frozen({"research": "root"})), Plan(caps({H100: 32}, {H100: 32})))
    assert todo.missing == ("product",)
    assert todo.lower == {"research": {H100: 32}}
    assert not actions(TWO, cluster(parents=frozen({})), Plan(caps({H100: 32}, {H100: 32})))


AMOUNTS = st.dictionaries(
    st.sampled_from(["research", "product"]), st.dictionaries(st.sampled_from([H100, GPU]), st.integers(0, 64))
)


@given(AMOUNTS, AMOUNTS)
def test_lowered_and_then_raised_the_caps_are_what_the_plan_wants(
    have: dict[str, dict[str, int]], want: dict[str, dict[str, int]]
) -> None:
    todo = actions(TWO, cluster(caps=have), Plan(want))
    now = {name: dict(have.get(name, {})) for name in want}
    for step, is_right in (
        (todo.lower, lambda old, new: old is None or new < old),
        (todo.raise_, lambda o, n: n > o),
    ):
        for name, limits in step.items():
            for tres, amount in limits.items():
                assert is_right(now[name].get(tres), amount)
                now[name][tres] = amount
    assert all(now[name][tres] == amount for name, limits in want.items() for tres, amount in limits.items())


# -- preemption ----------------------------------------------------------------------------------------


def test_a_job_is_warned_first() -> None:
    job = running(1, "research", "n1")
    todo = made(preempt(1), jobs=[job])
    (leave,) = todo.warn
    assert (leave.job, leave.preempt) == (job, preempt(1))
    assert leave.mark == Mark(99, "product", NOW, NOW + 30, job.start, "takes back 8 of h100")
    assert (todo.requeue, todo.cancel, todo.next_deadline) == ((), (), NOW + 30)


def warned(job: RunningJob, left: float) -> RunningJob:
    """A job whose grace period ends in so many seconds."""
    return replace(job, mark=Mark(99, "product", NOW + left - 30, NOW + left, job.start, "why"))


def test_a_warned_job_is_not_warned_again() -> None:
    todo = made(preempt(1), jobs=[warned(running(1, "research", "n1"), 12)])
    assert (todo.warn, todo.requeue, todo.next_deadline) == ((), (), NOW + 12)
    assert not todo


def test_whom_it_leaves_for_is_noted_anew_when_that_one_needs_it_no_more() -> None:
    """That is who is owed the place, and what its user reads. Its grace period goes on; there is no second signal."""
    job, other = warned(running(1, "research", "n1"), 12), warned(running(2, "research", "n2"), -1)
    todo = made(preempt(1, 98), preempt(2, 97), jobs=[job, other])
    reason = "takes back 8 of h100"
    assert [leave.mark for leave in todo.renote] == [
        replace(job.mark, beneficiary=98, since=NOW, reason=reason),
        replace(other.mark, beneficiary=97, since=NOW, reason=reason),
    ]
    assert [leave.mark for leave in todo.requeue] == [todo.renote[1].mark]
    assert todo.warn == () and bool(todo)
    # As long as somebody leaves for that one, which of them is for whom may stay as it was told; and as long as that
    # one waits, until the grace period is over: the plan may change its mind.
    assert made(preempt(1, 98), preempt(2, 99), jobs=[job, other]).renote == ()
    plan_now = Plan({}, (preempt(1, 98), preempt(2, 97)))
    todo = actions(with_grace(30), cluster(job, other, waiting(99, "product")), plan_now)
    assert [leave.job.id for leave in todo.renote] == [2]


@pytest.mark.parametrize("late", [0.0, 0.1, 1000.0])
def test_when_its_grace_period_is_over_it_is_requeued(late: float) -> None:
    job = warned(running(1, "research", "n1"), -late)
    todo = made(preempt(1), jobs=[job])
    assert [leave.job for leave in todo.requeue] == [job]
    assert todo.requeue[0].mark == job.mark
    assert (todo.warn, todo.cancel, todo.next_deadline) == ((), (), None)


def test_a_job_that_cannot_be_requeued_is_cancelled() -> None:
    todo = made(preempt(1), jobs=[warned(running(1, "research", "n1", requeueable=False), 0)])
    assert ([leave.job.id for leave in todo.cancel], todo.requeue) == ([1], ())


def test_a_note_from_an_earlier_run_does_not_count() -> None:
    job = running(1, "research", "n1")
    before = replace(job, mark=Mark(98, "product", NOW - 500, NOW - 470, job.start - 1000, "why"))
    todo = made(preempt(1), jobs=[before])
    assert [leave.mark.beneficiary for leave in todo.warn] == [99]
    assert todo.requeue == ()


def test_without_a_grace_period_it_is_noted_and_requeued_at_once() -> None:
    job, other = running(1, "research", "n1"), running(2, "research", "n2", requeueable=False)
    todo = made(preempt(1), preempt(2), jobs=[job, other], grace=0)
    assert [leave.job.id for leave in todo.warn] == [1, 2]
    assert [leave.job.id for leave in todo.requeue] == [1]
    assert [leave.job.id for leave in todo.cancel] == [2]
    assert todo.warn[0].mark.deadline == NOW
    assert todo.next_deadline is None


def test_what_has_run_for_less_than_the_grace_period_gets_no_more_than_that() -> None:
    jobs = [running(1, "research", "n1", start=NOW - 4), running(2, "research", "n2", start=NOW + 1)]
    todo = made(preempt(1), preempt(2), jobs=jobs)
    assert [leave.mark.deadline for leave in todo.warn] == [NOW + 4, NOW]
    assert [leave.job.id for leave in todo.requeue] == [2]


def test_the_next_deadline_is_the_first_to_come() -> None:
    jobs = [
        warned(running(1, "research", "n1"), 20),
        warned(running(2, "research", "n2"), 7),
        warned(running(3, "research", "n3"), -1),
        running(4, "research", "n4"),
    ]
    assert made(*(preempt(id) for id in (1, 2, 3, 4)), jobs=jobs).next_deadline == NOW + 7


def test_a_job_that_nobody_needs_any_more_is_spared() -> None:
    job = warned(running(1, "research", "n1"), -5)
    todo = actions(with_grace(30), cluster(job), Plan({}, spare=(1,)))
    assert (todo.spare, todo.requeue, todo.warn) == ((job,), (), ())


def test_jobs_that_our_signal_ended_are_requeued() -> None:
    ended = running(1, "research", "n1"), running(2, "research", "n2", requeueable=False)
    todo = actions(TWO, cluster(ended=ended), Plan({}))
    assert [job.id for job in todo.requeue_ended] == [1]


def test_a_job_that_was_spared_and_ended_all_the_same_has_left() -> None:
    told = warned(running(1, "research", "n1"), 10)
    spared = replace(told, mark=replace(told.mark, spared=True))
    assert left_after_all(spared) == told.mark
    assert left_after_all(told) is None, "it is noted so already"
    assert left_after_all(running(1, "research", "n1")) is None
    assert left_after_all(replace(spared, start=spared.start + 1)) is None, "that was an earlier run"
    fault = FaultMark("n1", NOW - 9, spared.start, until=NOW)
    assert left_after_all(replace(spared, fault=fault)) is None, "the fault made it leave"
    for other in (replace(fault, run=fault.run - 1), replace(fault, until=0.0)):
        assert left_after_all(replace(spared, fault=other)) == told.mark


def test_who_was_spared_and_waits_was_requeued_by_somebody_else() -> None:
    mark = Mark(9, "product", NOW - 100, NOW - 70, NOW - 900)
    for one, ours in ((mark, True), (replace(mark, spared=True), False), (None, False)):
        assert has_left(one, NOW - 50, NOW + 71) is ours
    assert not has_left(mark, NOW - 102, NOW + 19), "it waits since before"
    assert not has_left(mark, NOW - 50, None)
    assert not has_left(mark, NOW - 50, NOW + 81), "its user's own begin time"
    assert has_left(replace(mark, held=NOW + 81), NOW - 50, NOW + 81)


def test_a_job_that_a_raised_cap_lets_start_is_nudged() -> None:
    job = waiting(7, "product")
    starts = Decision(7, "7", "product", "h100", Reason.STARTS_NOW, "it starts")
    now = cluster(job, caps=caps({H100: 32}, {H100: 32}))
    assert actions(TWO, now, Plan(caps({H100: 32}, {H100: 40}), decisions=decisions(starts))).nudge == 7
    assert actions(TWO, now, Plan(caps({H100: 40}, {H100: 32}), decisions=decisions(starts))).nudge is None
    waits = starts._replace(reason=Reason.WAITS_FOR_NODES)
    assert actions(TWO, now, Plan(caps({H100: 32}, {H100: 40}), decisions=decisions(waits))).nudge is None


# -- requeued jobs start again ---------------------------------------------------------------------------


def requeued(ago: float, wait: float = 121, **more) -> WaitingJob:
    """A job that we requeued so many seconds ago, with Slurm's two minutes before it."""
    submit = NOW - ago
    job = waiting(1, "research", slurm_reason="BeginTime", begin=submit + wait)
    return replace(job, submit=submit, mark=Mark(99, "product", submit - 30, submit, submit - 900, "why"), **more)


def release(job: WaitingJob, rules: Policy = TWO) -> list[tuple[int, float]]:
    return [(job.id, delay) for job, delay in actions(rules, cluster(job), Plan({})).release]


@pytest.mark.parametrize(("ago", "delay"), [(0, 2), (0.5, 2), (1, 1), (1.9, 1), (2, 0), (60, 0)])
def test_a_requeued_job_starts_no_earlier_than_two_seconds_after(ago: float, delay: float) -> None:
    """In whole seconds, as Slurm counts, and rounded up."""
    assert release(requeued(ago)) == [(1, delay)]


@pytest.mark.parametrize(("ago", "delay"), [(0, 60), (10.5, 50), (59.5, 1), (60, 0), (100, 0)])
def test_the_policy_may_make_it_wait_longer(ago: float, delay: float) -> None:
    assert release(requeued(ago), with_grace(30, requeue_delay=60)) == [(1, delay)]


def test_what_slurm_lets_start_as_soon_is_left_alone() -> None:
    assert release(requeued(0, wait=2)) == []
    assert release(requeued(0, wait=2.9)) == []
    assert release(requeued(120.5)) == []
    assert release(requeued(500)) == []


def test_a_wait_longer_than_slurms_is_not_made_longer() -> None:
    assert release(requeued(0), with_grace(30, requeue_delay=600)) == []


def test_once_released_it_is_not_released_again() -> None:
    [(_, delay)] = release(requeued(0))
    for later in (0.0, 0.5, 1.0, 1.9, 5.0):
        assert release(requeued(later, wait=delay)) == []


def test_a_begin_time_of_the_users_own_stays() -> None:
    assert release(requeued(0, wait=3600)) == []
    assert release(replace(requeued(0), mark=None)) == []
    # It was requeued, or submitted, before our note was made: the wait is not of our making.
    assert release(replace(requeued(0), mark=Mark(99, "product", NOW + 30, NOW + 60, NOW - 900))) == []


@pytest.mark.parametrize("reason", ["Resources", "Priority", "AssocGrpGRES", "JobHeldUser", "Dependency"])
def test_a_job_that_waits_for_something_else_is_not_released(reason: str) -> None:
    assert release(requeued(5, slurm_reason=reason)) == []


def test_a_job_without_a_begin_time_is_not_released() -> None:
    assert release(requeued(5, begin=None)) == []


def test_one_that_was_spared_was_not_requeued_by_us() -> None:
    job = requeued(5)
    assert job.mark is not None
    assert release(replace(job, mark=replace(job.mark, spared=True))) == []
    spared = left_for(10, 11, spared=True)
    assert todo_about(spared, waiting(10, "research")).wait_on == ()


@given(st.floats(0, 200), st.floats(0, 300), st.integers(1, 200))
def test_it_is_never_released_too_early(ago: float, requeue_delay: float, wait: int) -> None:
    job = requeued(ago, wait)
    for _, delay in release(job, with_grace(30, requeue_delay=requeue_delay)):
        assert delay == int(delay) >= 0
        assert NOW + delay >= job.submit + max(2.0, requeue_delay) - 1e-6
        assert job.begin is not None
        assert NOW + delay < job.begin


# -- and not before the job that they left for -----------------------------------------------------------


def left_for(job: int, until: float, **more) -> WaitingJob:
    """Job 1, which left for a job a while ago and may start again in so many seconds."""
    mark = Mark(job, "research", NOW - 140, NOW - 110, NOW - 1000, "why", **more)
    made = waiting(1, "research", mark=mark, slurm_reason="BeginTime", begin=NOW + until, held_back="begin time")
    return replace(made, submit=NOW - 110)


def todo_about(*jobs: RunningJob | WaitingJob) -> Actions:
    now = snapshot(8, *jobs)
    return actions(TWO, now, plan(TWO, now))


def test_it_is_let_go_when_that_has_started_or_will_not() -> None:
    """Of equal limits Slurm might start it first: it would be preempted again, and so on."""
    soon = replace(left_for(10, 11), submit=NOW - 10, mark=Mark(10, "research", NOW - 40, NOW - 10, NOW - 1000))
    assert [job.id for job, _ in todo_about(soon).release] == [1]
    assert todo_about(soon, waiting(10, "research")).release == ()
    for other in (waiting(10, "research", held_back="its user holds it"), waiting(10, "research", 99)):
        assert [job.id for job, _ in todo_about(soon, other).release] == [1]


def test_it_waits_on_as_long_as_that_may_start() -> None:
    (one,) = todo_about(left_for(10, 11), waiting(10, "research")).wait_on
    assert (one[0].id, one[1].held) == (1, NOW + WAIT_ON)
    assert one[1] == replace(left_for(10, 11).mark, held=NOW + WAIT_ON)
    # Not yet; not for one that is not there, or cannot start now.
    assert todo_about(left_for(10, 20), waiting(10, "research")).wait_on == ()
    assert todo_about(left_for(10, 11)).wait_on == ()
    needs_all = waiting(10, "research", 8)
    assert todo_about(left_for(10, 11), needs_all).wait_on != ()
    assert todo_about(left_for(10, 11), needs_all, running(2, "product", "n1")).wait_on == ()


def test_that_it_waits_on_is_known_to_be_our_doing() -> None:
    """What we made it wait is longer than Slurm's own wait; what its user made it wait is left alone."""
    held = left_for(10, 55, held=NOW + 54)
    assert [job.id for job, _ in todo_about(held).release] == [1]
    assert todo_about(left_for(10, 15, held=NOW + 14), waiting(10, "research")).wait_on != ()
    for ours in (NOW - 500, 0.0):
        assert not todo_about(left_for(10, 600, held=ours)).release


def reasons(*jobs: RunningJob | WaitingJob) -> list[Reason | None]:
    now = snapshot(8, *jobs)
    return [reason for _, _, reason in requeued_jobs(now, plan(TWO, now))]


def test_for_whom_a_requeued_job_waits() -> None:
    left = left_for(10, 11)
    assert reasons(left, waiting(10, "research")) == [Reason.STARTS_NOW]
    needs_all = waiting(10, "research", 8)
    assert reasons(left, needs_all, running(2, "product", "n1")) == [Reason.NOTHING_TO_BORROW]
    assert reasons(left) == [None]
    assert reasons(left, waiting(10, "research", held_back="its user holds it")) == [None]
    assert reasons(replace(left, slurm_reason="Priority"), waiting(10, "research")) == []


def test_who_waits_because_slurm_lets_every_requeued_job_wait() -> None:
    assert waits_for_slurm(requeued(5)) and waits_for_slurm(replace(requeued(5), mark=None))
    # A user's own begin time, or ours, is another.
    for wait in (2, 60, 120, 122, 3600):
        assert not waits_for_slurm(requeued(5, wait))
    assert not waits_for_slurm(requeued(5, begin=None))
    assert not waits_for_slurm(requeued(5, slurm_reason="Dependency"))


def test_who_comes_back_after_a_fault() -> None:
    """The last thing that stopped it was the fault, and it waits for no reason but Slurm's."""
    fault, since = FaultMark("n3", NOW - 60, NOW - 900), NOW - 60
    assert comes_back(fault, None, since, since + 121) and comes_back(fault, None, since - 1, since + 121)
    assert not comes_back(None, None, since, since + 121), "no fault"
    assert not comes_back(fault, None, since - 2, since + 121), "not since the fault"
    assert not comes_back(fault, None, since, since + 3600), "a begin time of the user's own"
    assert not comes_back(fault, None, since, None)
    earlier, later = (Mark(9, "product", at, at, NOW - 900) for at in (since - 30, since + 30))
    assert comes_back(fault, earlier, since, since + 121)
    assert not comes_back(fault, later, since + 30, since + 151), "preempted since"
