"""What must hold of every plan, on random clusters in any state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

from checker import Free, Standing, excess, gpus_of, owed, pool_of, quota_of, suits, team_of, use_of, wanted
from hypothesis import given, settings
from hypothesis import strategies as st
from witness import Served, planned
from worlds import World, worlds

from slurm_gov.core.actions import REQUEUE_WAIT, WAIT_ON_WITHIN, actions
from slurm_gov.core.decision import Plan, Reason
from slurm_gov.core.plan import plan
from slurm_gov.core.policy import ClassRules
from slurm_gov.core.snapshot import RunState, WaitingJob

PROMISED = {Reason.STARTS_NOW, Reason.RECLAIMING, Reason.PREEMPTING_WITHIN_TEAM, Reason.WAITS_FOR_NODES}
NO_DEMAND = {Reason.CAN_NEVER_RUN, Reason.NOT_READY, Reason.NO_TEAM, Reason.NO_POOL}

quick = settings(max_examples=700)


def caps_cover_quotas(world: World, decided: Plan) -> None:
    for team in world.policy.teams.values():
        for pool in world.policy.pools.values():
            assert decided.caps[team.name][pool.tres] >= quota_of(world.policy, team.name, pool.name).nominal


def _borrowed_use(world: World, decided: Plan) -> dict[tuple[str, str], int]:
    """What each team will hold at least: its cap where it borrows, else what it holds and keeps."""
    policy, snapshot = world.policy, world.snapshot
    leaving = {one.job for one in decided.preempt}
    use = use_of(policy, snapshot, [job for job in snapshot.running if job.id not in leaving])
    for team, pool in use:
        cap = decided.caps[team][policy.pools[pool].tres]
        if cap > quota_of(policy, team, pool).nominal:
            use[team, pool] = cap
    return use


def limits_hold(world: World, decided: Plan) -> None:
    policy, snapshot = world.policy, world.snapshot
    before = excess(policy, snapshot, use_of(policy, snapshot, snapshot.running))
    after = excess(policy, snapshot, _borrowed_use(world, decided))
    for place, amount in after.items():
        assert amount <= before[place], f"{place} exceeds its limit by {amount}, before by {before[place]}"


def limits_hold_until_those_who_must_leave_have_left(world: World, decided: Plan) -> None:
    """At every moment: each team holds what it holds now, and may reach its cap at once."""
    policy, snapshot = world.policy, world.snapshot
    use = use_of(policy, snapshot, snapshot.running)
    before = excess(policy, snapshot, use)
    for team, pool in use:
        cap = decided.caps[team][policy.pools[pool].tres]
        if cap > quota_of(policy, team, pool).nominal:
            use[team, pool] = max(use[team, pool], cap)
    for place, amount in excess(policy, snapshot, use).items():
        assert amount <= before[place], f"{place} may exceed its limit by {amount}, before by {before[place]}"


def nobody_leaves_twice_for_the_same(world: World, decided: Plan) -> None:
    running = {job.id: job for job in world.snapshot.running}
    waiting = {job.id: job for job in world.snapshot.waiting}
    for one in decided.preempt:
        job = waiting[one.beneficiary]
        left = [last.at for last in running[one.job].preempted if last.beneficiary == job.id]
        array = job.tasks > 1 or "_" in job.display_id
        assert array or all(at < job.submit for at in left), f"job {one.job} left for {job.id} before"


def who_steps_back_is_behind_one_of_its_team(world: World, decided: Plan) -> None:
    policy, snapshot = world.policy, world.snapshot
    jobs = {job.id: job for job in snapshot.waiting}
    told = {one.job: one for one in decided.decisions}
    promised = PROMISED - {Reason.STARTS_NOW}
    for id, ahead in decided.behind.items():
        assert told[id].team == told[ahead].team is not None
        assert (-jobs[id].priority, id) > (-jobs[ahead].priority, ahead)
        assert told[id].reason not in (Reason.NOT_READY, Reason.CAN_NEVER_RUN, Reason.NO_POOL)
        assert told[id].reason not in PROMISED - {Reason.WAITS_FOR_NODES}
        waited = policy.protect_after is not None and snapshot.now - jobs[ahead].submit >= policy.protect_after
        # What is said of an array is said of its first task; another may be promised what others leave.
        more = told[ahead].reason is Reason.STARTS_NOW and jobs[ahead].tasks > 1
        assert waited or more or told[ahead].reason in promised


def lent_is_idle_and_given_once(world: World, decided: Plan) -> None:
    policy, snapshot = world.policy, world.snapshot
    use = use_of(policy, snapshot, snapshot.running)
    free = Free(snapshot.nodes, snapshot.running)
    reason = {one.job: one.reason for one in decided.decisions}
    jobs = {job.id: job for job in snapshot.waiting}
    for pool in policy.pools.values():
        idle = free.total(pool.tres)
        leaving = sum(
            gpus_of(job, pool)
            for job in snapshot.running
            if job.state is RunState.COMPLETING or job.id in {one.job for one in decided.preempt}
        )
        lent = 0
        for team in policy.teams:
            stands = max(use[team, pool.name], quota_of(policy, team, pool.name).nominal)
            lent += max(0, decided.caps[team][pool.tres] - stands)
        assert lent <= idle + leaving
        now = sum(
            wanted(jobs[id])
            for id, why in reason.items()
            if why is Reason.STARTS_NOW and pool_of(policy, jobs[id]) == pool
        )
        assert now <= idle


def nobody_within_quota_is_preempted_for_another_team(world: World, decided: Plan) -> None:
    policy, snapshot = world.policy, world.snapshot
    use = use_of(policy, snapshot, snapshot.running)
    running = {job.id: job for job in snapshot.running}
    for one in decided.preempt:
        victim = running[one.job]
        assert team_of(policy, snapshot, victim.account) == one.team
        if one.team != one.beneficiary_team:
            held = {pool: gpus_of(victim, policy.pools[pool]) for pool in policy.pools}
            assert any(
                n and use[one.team, pool] > quota_of(policy, one.team, pool).nominal for pool, n in held.items()
            ), f"job {one.job} of {one.team} is within its team's quota"
        for pool in policy.pools:
            use[one.team, pool] -= gpus_of(victim, policy.pools[pool])


def victims_may_be_preempted(world: World, decided: Plan) -> None:
    policy, snapshot = world.policy, world.snapshot
    running = {job.id: job for job in snapshot.running}
    assert len({one.job for one in decided.preempt}) == len(decided.preempt)
    assert not {one.job for one in decided.preempt} & set(decided.spare)
    for one in decided.preempt:
        victim = running[one.job]
        assert victim.state is not RunState.COMPLETING
        assert victim.requeueable or policy.preemption.cancel_unrequeueable
        rules = policy.preemption.classes.get(victim.qos, ClassRules())
        assert not rules.protected
        if victim.being_preempted:
            continue
        assert victim.mark is None or not victim.was_spared or victim.mark.deadline <= snapshot.now
        own = [time for time in (policy.teams[one.team].min_runtime, rules.min_runtime) if time is not None]
        assert snapshot.now - victim.start >= max(own, default=policy.preemption.min_runtime)
        most = policy.preemption.max_preemptions
        if most is not None:
            assert sum(snapshot.now - one.at < most.per for one in victim.preempted) < most.count


def nobody_leaves_for_one_that_may_not_start(world: World, decided: Plan) -> None:
    jobs = {job.id: job for job in world.snapshot.waiting}
    for one in decided.preempt:
        job = jobs[one.beneficiary]
        assert job.request.plain and not (job.comes_last or job.takes_nobody or job.held_back)


def whoever_was_told_to_leave_leaves_or_is_spared(world: World, decided: Plan) -> None:
    told = {one.id for one in world.snapshot.running if one.being_preempted and one.state is not RunState.COMPLETING}
    leaves = {one.job for one in decided.preempt}
    assert set(decided.spare) == told - leaves and len(decided.spare) == len(told - leaves)


def who_must_leave_is_told_first(world: World, decided: Plan) -> None:
    snapshot, leave = world.snapshot, {one.job for one in decided.preempt}
    todo = actions(world.policy, snapshot, decided)
    told = {job.id: job.mark.deadline for job in snapshot.running if job.being_preempted and job.mark}
    go = {one.job.id: one for one in (*todo.requeue, *todo.cancel)}
    assert {one.job.id for one in todo.warn} == leave - told.keys()
    assert all(one.mark.deadline <= snapshot.now for one in go.values())
    assert {id for id, deadline in told.items() if id in leave and deadline <= snapshot.now} <= go.keys() <= leave
    assert [job.id for job in todo.spare] == list(decided.spare)
    assert {job.id for job in todo.requeue_ended} == {job.id for job in snapshot.ended if job.requeueable}


def who_left_waits_for_whom_it_left_for(world: World, decided: Plan) -> None:
    snapshot, owes = world.snapshot, owed(world.snapshot)
    todo = actions(world.policy, snapshot, decided)
    reason = {one.job: one.reason for one in decided.decisions}
    arrays = {job.id for job in snapshot.waiting if "_" in job.display_id}
    since = {job.id: job.submit for job in snapshot.waiting}
    waits_on = {job.id: mark.beneficiary for job, mark in todo.wait_on}
    released = {job.id for job, _ in todo.release}
    assert all(one in owes and reason[one] in PROMISED for one in waits_on.values())
    assert not released & waits_on.keys()
    for job in snapshot.waiting:
        mark, begin = job.mark, job.begin
        if not mark or not begin or job.slurm_reason != "BeginTime" or begin - job.submit > REQUEUE_WAIT:
            continue  # the begin time is not of our making
        soon = begin - snapshot.now < WAIT_ON_WITHIN
        if mark.spared:
            assert job.id not in waits_on and job.id not in released
        elif mark.since < since.get(mark.beneficiary, inf) - 1:
            assert job.id not in waits_on and (soon or job.id in released)
        elif mark.beneficiary in owes - arrays and reason[mark.beneficiary] in PROMISED:
            assert job.id not in released and soon == (job.id in waits_on)


def who_steps_back_does_so_in_time(world: World, decided: Plan) -> None:
    todo = actions(world.policy, world.snapshot, decided)
    before = {job.id for job in world.snapshot.waiting if job.behind is not None}
    back, go = {job.id for job, _ in todo.step_back}, {job.id for job in todo.let_go}
    assert decided.behind.keys() - before <= back <= decided.behind.keys()
    assert go <= before - decided.behind.keys()
    ahead = {one.job for one in decided.decisions if one.reason is Reason.STARTS_NOW}
    for job in world.snapshot.waiting:
        if job.behind is not None and job.behind.until > world.snapshot.now and job.id not in decided.behind:
            assert (job.id in go) == (job.behind.job not in ahead)


def every_waiting_job_has_one_reason(world: World, decided: Plan) -> None:
    assert sorted(one.job for one in decided.decisions) == sorted(job.id for job in world.snapshot.waiting)
    assert all(one.why for one in decided.decisions)


RULES: list[Callable[[World, Plan], None]] = [
    caps_cover_quotas,
    limits_hold,
    limits_hold_until_those_who_must_leave_have_left,
    nobody_leaves_twice_for_the_same,
    who_steps_back_is_behind_one_of_its_team,
    lent_is_idle_and_given_once,
    nobody_within_quota_is_preempted_for_another_team,
    victims_may_be_preempted,
    nobody_leaves_for_one_that_may_not_start,
    whoever_was_told_to_leave_leaves_or_is_spared,
    who_must_leave_is_told_first,
    who_left_waits_for_whom_it_left_for,
    who_steps_back_does_so_in_time,
    every_waiting_job_has_one_reason,
]


def each_in_turn(world: World, served: list[Served]) -> None:
    """Whoever is served finds its nodes beside all that were served before it, when those who leave for it have
    left; and not if any one of them stayed.
    """
    now, later = (Standing(world.policy, world.snapshot, ending) for ending in (True, False))
    for job, held, reason, claims in served:
        if claims:
            assert job.request.plain
            assert later.fits(job, claims), f"job {job.id} does not fit although {list(claims)} have left"
        for one in claims:
            rest = {id: claim for id, claim in claims.items() if id != one}
            assert not later.fits(job, rest), f"of {list(claims)} job {one} could be spared for job {job.id}"
        pool = pool_of(world.policy, job)
        assert pool is not None and suits(job, pool.tres, held, world.snapshot.nodes), f"job {job.id} on {held}"
        later.give(job, held, claims)
        assert not later.free().overfull, f"job {job.id} was promised what others have"
        if reason is Reason.STARTS_NOW:
            now.give(job, held, ())
            assert not now.free().overfull, f"job {job.id} was given what others hold"


def whom_others_left_for_goes_before_borrowers(world: World, decided: Plan, served: list[Served]) -> None:
    """As long as nobody has to leave, which changes everything: whoever is served beyond its team's quota leaves no
    place that is owed to another. To one that is the first of its kind, or Slurm would start that one.
    """
    policy, snapshot = world.policy, world.snapshot
    demand = {one.job for one in decided.decisions if one.reason not in NO_DEMAND}
    line = sorted((job for job in snapshot.waiting if job.id in demand), key=lambda job: (-job.priority, job.id))
    first: dict[object, WaitingJob] = {}
    for job in line:
        first.setdefault((job.account, job.partitions, job.qos, job.request.shape), job)
    open_debts = {job.id: job for job in first.values() if job.id in owed(snapshot)}
    standing = Standing(policy, snapshot, ending=False)
    for job, held, _, claims in served:
        if claims or policy.protect_after is not None:
            break
        pool, team = pool_of(policy, job), team_of(policy, snapshot, job.account)
        within = standing.use()[team, pool.name] + wanted(job) <= quota_of(policy, team, pool.name).nominal
        if open_debts.pop(job.id, None) is None and not within:
            assert not any(standing.fits(one, {}) for one in open_debts.values()), f"job {job.id} goes first"
        standing.give(job, held, ())


@settings(quick, max_examples=1000)
@given(worlds())
def test_every_rule_holds(world):
    before = repr(world.snapshot)
    decided, served = planned(world.policy, world.snapshot)
    assert repr(world.snapshot) == before
    for rule in RULES:
        rule(world, decided)
    each_in_turn(world, served)
    whom_others_left_for_goes_before_borrowers(world, decided, served)


@settings(quick, max_examples=300)
@given(worlds(), st.randoms(use_true_random=False))
def test_equal_inputs_give_the_equal_plan_whatever_their_order(world, random):
    def shuffled(things):
        return tuple(random.sample(things, len(things)))

    seen = world.snapshot
    lists = {name: shuffled(getattr(seen, name)) for name in ("nodes", "running", "waiting", "ended")}
    other = replace(seen, **lists)
    assert plan(world.policy, other) == plan(world.policy, seen)


def _alone(world: World, job: WaitingJob) -> World:
    return World(world.policy, replace(world.snapshot, waiting=(replace(job, tasks=1),)))


@settings(quick, max_examples=700)
@given(worlds())
def test_one_job_alone(world):
    """With one waiting job it can be said exactly what is right."""
    for job in world.snapshot.waiting[:3]:
        check_alone(_alone(world, job))


def check_alone(world: World) -> None:
    policy, snapshot = world.policy, world.snapshot
    (job,) = snapshot.waiting
    decided, served = planned(policy, snapshot)
    each_in_turn(world, served)
    reason = decided.decisions[0].reason
    if reason in NO_DEMAND:
        assert not decided.preempt
        return
    fits = Standing(policy, snapshot, ending=True).fits(job, {})
    if reason is Reason.STARTS_NOW:
        assert fits, "said to start now, but it does not fit"
    else:
        assert not fits, f"{reason}, but it fits now"
    leave = reason in (Reason.RECLAIMING, Reason.PREEMPTING_WITHIN_TEAM)
    assert leave == bool(decided.preempt), f"{reason}, and these leave: {decided.preempt}"
