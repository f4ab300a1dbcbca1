"""What must hold of every plan, on random clusters in any state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from checker import Free, excess, gpus_of, pool_of, quota_of, team_of, use_of, wanted
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import World, worlds

from slurm_gov.core.decision import Plan, Reason
from slurm_gov.core.plan import _Chosen, _Cycle, plan
from slurm_gov.core.policy import ClassRules
from slurm_gov.core.queue import Batch
from slurm_gov.core.snapshot import RunState, WaitingJob

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
        assert job.tasks > 1 or all(at < job.submit for at in left), f"job {one.job} left for {job.id} before"


def who_steps_back_is_behind_one_of_its_team(world: World, decided: Plan) -> None:
    policy, snapshot = world.policy, world.snapshot
    jobs = {job.id: job for job in snapshot.waiting}
    told = {one.job: one for one in decided.decisions}
    promised = (Reason.RECLAIMING, Reason.PREEMPTING_WITHIN_TEAM, Reason.WAITS_FOR_NODES)
    for id, ahead in decided.behind.items():
        assert told[id].team == told[ahead].team is not None
        assert (-jobs[id].priority, id) > (-jobs[ahead].priority, ahead)
        assert told[id].reason not in (Reason.NOT_READY, Reason.CAN_NEVER_RUN, Reason.NO_POOL)
        assert told[id].reason is not Reason.STARTS_NOW or jobs[id].tasks > 1
        waited = policy.protect_after is not None and snapshot.now - jobs[ahead].submit >= policy.protect_after
        assert waited or told[ahead].reason in promised


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
    every_waiting_job_has_one_reason,
]


@settings(quick, max_examples=1000)
@given(worlds())
def test_every_rule_holds(world):
    before = repr(world.snapshot)
    decided = plan(world.policy, world.snapshot)
    assert repr(world.snapshot) == before
    for rule in RULES:
        rule(world, decided)


@settings(quick, max_examples=300)
@given(worlds(), st.randoms(use_true_random=False))
def test_equal_inputs_give_the_equal_plan_whatever_their_order(world, random):
    def shuffled(things):
        return tuple(random.sample(things, len(things)))

    seen = world.snapshot
    other = replace(seen, nodes=shuffled(seen.nodes), running=shuffled(seen.running), waiting=shuffled(seen.waiting))
    assert plan(world.policy, other) == plan(world.policy, seen)


@settings(quick, max_examples=300)
@given(worlds())
def test_no_victim_could_be_spared_however_many_wait(world):
    """As things are when each is served: without any one of them the job would not fit, or would not be allowed."""
    taken = _Cycle._take_place_of

    def judged(cycle: _Cycle, batch: Batch, found: _Chosen) -> None:
        for stays in found.victims:
            with cycle.working.trial():
                for one in found.victims:
                    if one is not stays:
                        cycle.working.remove(one.victim)
                assert cycle._would_start(batch) is None, f"job {stays.victim.job.id} could stay"
        taken(cycle, batch, found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Cycle, "_take_place_of", judged)
        plan(world.policy, world.snapshot)


def _alone(world: World, job: WaitingJob) -> World:
    return World(world.policy, replace(world.snapshot, waiting=(replace(job, tasks=1),)))


@settings(quick, max_examples=500)
@given(worlds())
def test_one_job_alone(world):
    """With one waiting job it can be said exactly what is right."""
    for job in world.snapshot.waiting[:3]:
        check_alone(_alone(world, job))


def check_alone(world: World) -> None:
    policy, snapshot = world.policy, world.snapshot
    (job,) = snapshot.waiting
    decided = plan(policy, snapshot)
    reason = decided.decisions[0].reason
    pool, team = pool_of(policy, job), team_of(policy, snapshot, job.account)
    if pool is None or team is None or job.held_back:
        assert not decided.preempt
        return
    request = replace(job.request, gpus={pool.tres: wanted(job)})
    leaving = {one.job for one in decided.preempt}
    ending = {one.id for one in snapshot.running if one.state is RunState.COMPLETING}

    def fits(without: set[int]) -> bool:
        """Whether it fits, on the nodes and (beyond its quota) under all limits, when these have left."""
        stay = [one for one in snapshot.running if one.id not in without]
        free = Free(snapshot.nodes, [one for one in stay if one.id not in ending or not (without & ending)])
        if free.place(request, job.partitions[0], pool.tres) is None:
            return False
        use = use_of(policy, snapshot, stay if not without <= ending else snapshot.running)
        if use_now[team, pool.name] + wanted(job) <= quota_of(policy, team, pool.name).nominal:
            return True
        before = excess(policy, snapshot, use)
        use[team, pool.name] += wanted(job)
        return all(n <= before[place] for place, n in excess(policy, snapshot, use).items())

    use_now = use_of(policy, snapshot, snapshot.running)
    if reason is Reason.STARTS_NOW:
        assert fits(set()), "said to start now, but it does not fit"
    elif reason is not Reason.CAN_NEVER_RUN:
        assert not fits(set()), f"{reason}, but it fits now"
    if leaving:
        assert request.plain
        assert fits(leaving) or fits(leaving | ending), "does not fit although its victims have left"
        for one in leaving:
            assert not fits(leaving - {one}), f"victim {one} could be spared"
    elif reason in (Reason.RECLAIMING, Reason.PREEMPTING_WITHIN_TEAM):
        raise AssertionError("nobody leaves")
