"""Rules of one cycle that few clusters need, each where it alone makes the difference."""

from __future__ import annotations

from dataclasses import replace

import pytest
from clusters import H100, NOW, being_preempted, node, policy, running, snapshot, team, waiting

from slurm_gov.core.decision import Decision, Plan, Reason
from slurm_gov.core.plan import Planner, plan
from slurm_gov.core.policy import (
    BorrowPreempts,
    Cohort,
    Idle,
    Policy,
    Pool,
    Quota,
    Rebalance,
    Reclaim,
    Team,
    WithinTeam,
    frozen,
)
from slurm_gov.core.snapshot import (
    Held,
    Mark,
    Node,
    Preempted,
    Request,
    RunningJob,
    RunState,
    Snapshot,
    WaitingJob,
)


def decision(decided: Plan, job: int) -> Decision:
    return next(one for one in decided.decisions if one.job == job)


def victims(decided: Plan) -> list[int]:
    return sorted(one.job for one in decided.preempt)


def on(job: WaitingJob, **request) -> WaitingJob:
    """The job with something else asked of the nodes."""
    return replace(job, request=replace(job.request, **request))


# -- what changes while a plan is made ---------------------------------------------------------------------


def test_a_start_that_borrows_makes_none_of_its_teams_jobs_leave() -> None:
    """Job 1 is within its team's quota. When job 5 runs beyond it, job 5 is the one that may go for job 6."""
    rules = policy(
        team("ant", 8), team("bee", 0, borrow_preempts=BorrowPreempts()), team("absent", 8), idle=Idle.FIRST_COME
    )
    old, new = running(1, "ant", "n1", qos="experiment"), waiting(5, "ant", priority=2000, qos="experiment")
    other = waiting(6, "bee", priority=1000, qos="inference")
    planner = Planner()
    decided = planner.plan(rules, snapshot(2, old, new, other))
    assert decision(decided, 5).reason is Reason.STARTS_NOW
    assert victims(decided) == []
    runs = running(5, "ant", "n2", start=NOW, qos="experiment")
    assert victims(planner.plan(rules, snapshot(2, old, runs, other))) == [5]


def test_what_a_team_is_given_makes_no_more_of_its_jobs_leave() -> None:
    """Ant holds 12 of 8 and is given 8 more: it may lose 4, and job 6 would need both of its jobs' nodes."""
    rules = policy(
        team("ant", 8), team("bee", 0, borrow_preempts=BorrowPreempts()), team("absent", 16), idle=Idle.FIRST_COME
    )
    held = [running(1, "ant", "n1", gpus=4, qos="experiment"), running(2, "ant", "n2", qos="experiment")]
    new = waiting(5, "ant", priority=2000, qos="experiment")
    decided = plan(rules, snapshot(3, *held, new, waiting(6, "bee", 2, qos="inference")))
    assert decision(decided, 5).reason is Reason.STARTS_NOW
    assert victims(decided) == []


def test_what_a_team_is_given_of_its_own_is_taken_back_from_its_cohort() -> None:
    """Ant holds what bee lends it. When bee takes what it needs from elsewhere, red holds too much: cat's job may
    have the place of ant's.
    """
    inside = [team("ant", 8, cohort="red"), team("bee", 8, cohort="red")]
    rules = policy(*inside, team("cat", 16), cohorts=frozen({"red": Cohort("red")}))
    held = [running(1, "ant", "n1"), running(2, "ant", "n2"), running(3, "cat", "n3")]
    decided = plan(rules, snapshot(4, *held, waiting(5, "bee", priority=2000), waiting(6, "cat", priority=1000)))
    assert decision(decided, 5).reason is Reason.STARTS_NOW
    assert decision(decided, 6).reason is Reason.RECLAIMING and len(victims(decided)) == 1


def test_who_comes_within_its_quota_takes_no_more_than_it_needs() -> None:
    """More is held than all quotas together. For the first task of job 5 ant's own job 2 leaves; then the second is
    within ant's quota, and there is room for it.
    """
    rules = policy(team("ant", 8), team("bee", 4), lend_unallocated=False)
    held = [running(1, "ant", "n1", gpus=4, qos="inference"), running(2, "ant", "n1", gpus=4)]
    two = replace(waiting(5, "ant", gpus=2, qos="inference"), display_id="5_[1-2]", tasks=2)
    decided = plan(rules, snapshot(2, *held, running(3, "bee", "n2"), two))
    assert victims(decided) == [2]
    assert len([one for one in decided.decisions if one.reason is Reason.PREEMPTING_WITHIN_TEAM]) == 1


def test_who_loses_a_job_to_a_borrower_is_an_owner_again() -> None:
    """Job 1 holds two nodes and leaves for job 6, which needs one; job 5 is within its team's quota then."""
    rules = policy(
        team("ant", 8, reclaim=Reclaim.NEVER, preempt_within_team=WithinTeam.NEVER),
        team("bee", 0, borrow_preempts=BorrowPreempts()),
        team("absent", 8),
        idle=Idle.FIRST_COME,
    )
    waits = [waiting(6, "bee", priority=2000, qos="inference"), waiting(5, "ant", priority=1000)]
    decided = plan(rules, snapshot(2, running(1, "ant", "n1 n2"), *waits))
    assert victims(decided) == [1]
    assert decision(decided, 5).reason is Reason.WAITS_FOR_NODES


@pytest.mark.parametrize("rule", [one for one in Rebalance if one is not Rebalance.NEVER])
def test_who_borrows_in_one_pool_loses_nothing_of_its_quota_in_another(rule: Rebalance) -> None:
    """Ant borrows in both pools. Job 9 needs two of its nodes; when one is given back, the other is ant's own."""
    a100, other = "gres/gpu:a100", Pool("a100", ("old",), "gpu:a100")
    quotas = frozen({"h100": Quota(8), "a100": Quota(4)})
    rules = policy(team("dog", 8), rebalance=rule, lend_unallocated=False)
    teams = frozen({**rules.teams, "ant": Team("ant", quotas), "cat": Team("cat", quotas)})
    rules = replace(rules, teams=teams, pools=frozen({**rules.pools, "a100": other}))
    old = Node("m1", ("old",), frozen({a100: 8}), 64, 512_000)
    borrowed = replace(running(3, "ant", "m1"), partition="old", held=(Held("m1", frozen({a100: 8}), 8, 1000),))
    held = [running(1, "ant", "n1"), running(2, "ant", "n2"), borrowed]
    nodes = [node("n1"), node("n2"), old]
    assert victims(plan(rules, snapshot(nodes, *held, waiting(9, "dog", 2, gpus=2)))) == []
    assert len(victims(plan(rules, snapshot(nodes, *held, waiting(9, "dog", 1, gpus=4))))) == 1


def test_what_one_job_frees_the_first_of_those_that_found_nothing_gets_in_the_next_cycle() -> None:
    """Job 1 finds no room, nor does job 3, just like it; then job 2 takes back two nodes and needs one."""
    rules = policy(team("lame", 16, reclaim=Reclaim.NEVER), team("owner", 8), team("guest", 0))
    guest = running(9, "guest", "n1 n2")
    jobs = [waiting(1, "lame", priority=3000), waiting(2, "owner", priority=2000), waiting(3, "lame", priority=1000)]
    decided = plan(rules, snapshot(2, guest, *jobs))
    assert victims(decided) == [9]
    assert all("no borrower's job that may go" in decision(decided, job).why for job in (1, 3))
    gone = snapshot(2, replace(guest, state=RunState.COMPLETING), *jobs)
    assert decision(plan(rules, gone), 1).why.endswith("starts when job 9 has ended")


def test_a_team_at_its_limit_that_loses_a_job_is_no_longer_at_it_in_the_next_cycle() -> None:
    rules = policy(
        team("ant", 8, borrow=8),
        team("bee", 0, borrow_preempts=BorrowPreempts()),
        team("absent", 24),
        idle=Idle.FIRST_COME,
    )
    leaves = running(1, "ant", "n1", qos="experiment")
    jobs = [
        running(2, "ant", "n2", qos="inference"),
        waiting(11, "ant", priority=3000, qos="experiment"),
        on(waiting(10, "bee", priority=2000, qos="inference"), required_nodes=frozenset({"n1"})),
        waiting(12, "ant", priority=1000, qos="experiment"),
    ]
    decided = plan(rules, snapshot(4, leaves, *jobs))
    assert victims(decided) == [1]
    assert [decision(decided, job).reason for job in (11, 12)] == [Reason.TEAM_AT_LIMIT] * 2
    decided = plan(rules, snapshot(4, *jobs))
    assert [decision(decided, job).reason for job in (11, 12)] == [Reason.STARTS_NOW, Reason.TEAM_AT_LIMIT]


def test_nobody_leaves_for_a_job_whose_place_another_of_the_team_would_take() -> None:
    """Job 11 is ahead, may preempt nobody, and takes its GPUs wherever they are: also those of job 1."""
    rules = policy(team("ant", 8))
    spread = replace(waiting(11, "ant", qos="experiment", priority=2000), request=Request(frozen({H100: 8}), cpus=8))
    jobs = [running(1, "ant", "n1", qos="experiment"), waiting(12, "ant", qos="inference")]
    assert victims(plan(rules, snapshot(1, *jobs))) == [1]
    assert victims(plan(rules, snapshot(1, *jobs, spread))) == []


def test_those_ahead_are_thought_of_in_line_whatever_the_order_in_which_they_are_told_of() -> None:
    """Of what job 1 leaves job 11 takes 2, so there is no room for job 12, and 4 are left for job 13."""
    rules = policy(team("ant", 8, borrow=0))

    def wants(id: int, gpus: int, priority: int) -> WaitingJob:
        job = waiting(id, "ant", qos="experiment", priority=priority)
        return replace(job, request=Request(frozen({H100: gpus}), cpus=gpus))

    small, large = wants(11, 2, 3000), wants(12, 7, 2500)
    jobs = [running(1, "ant", "n1", qos="experiment"), waiting(13, "ant", gpus=4, qos="inference", priority=2000)]
    for ahead in (small, large), (large, small):
        assert victims(plan(rules, snapshot(1, *jobs, *ahead))) == [1]


def test_who_others_have_left_for_is_served_before_all_other_borrowers() -> None:
    """Job 1 has left for job 10; ant, which holds nothing, would be served first otherwise."""
    rules = policy(team("ant", 0), team("bee", 0), team("absent", 16))
    free = [running(2, "bee", "n1"), waiting(10, "bee", priority=2000), waiting(11, "ant", priority=3000)]
    assert decision(plan(rules, snapshot(2, *free)), 11).reason is Reason.STARTS_NOW
    mark = Mark(10, "bee", NOW - 30, NOW - 1, NOW - 900)
    gone = replace(waiting(1, "bee"), mark=mark, held_back="its begin time has not come")
    decided = plan(rules, snapshot(2, *free, gone))
    assert [decision(decided, job).reason for job in (10, 11)] == [Reason.STARTS_NOW, Reason.NOTHING_TO_BORROW]
    # Also while it has ended and does not wait yet.
    ended = replace(running(1, "bee", "n2"), mark=replace(mark, run=NOW - 100), state=RunState.COMPLETING)
    decided = plan(rules, snapshot(2, *free, ended=(ended,)))
    assert [decision(decided, job).reason for job in (10, 11)] == [Reason.STARTS_NOW, Reason.NOTHING_TO_BORROW]
    # As long as it is leaving the place is not there; and when job 10 is gone nobody is owed it.
    leaving = replace(running(1, "bee", "n2"), mark=replace(mark, run=NOW - 100))
    assert [one.job for one in plan(rules, snapshot(2, *free, leaving)).preempt] == []
    assert decision(plan(rules, snapshot(2, free[0], free[2], gone)), 11).reason is Reason.STARTS_NOW


@pytest.mark.parametrize("quota", [0, 16])
def test_what_is_owed_to_one_is_not_owed_to_the_next_like_it(quota: int) -> None:
    """Job 10 has the place that job 1 left, within its team's quota or not; the other node goes to ant, by weight."""
    rules = policy(team("ant", 0, fair_share_weight=1), team("bee", quota), team("absent", 24 - quota))
    gone = replace(
        waiting(1, "bee"), mark=Mark(10, "bee", NOW - 30, NOW - 1, NOW - 900), held_back="its begin time has not come"
    )
    bees = [waiting(10, "bee", priority=2000), waiting(12, "bee", priority=1000)]
    decided = plan(rules, snapshot(3, running(2, "bee", "n1"), gone, *bees, waiting(11, "ant", priority=500)))
    assert [decision(decided, job).reason for job in (10, 11)] == [Reason.STARTS_NOW] * 2
    assert decision(decided, 12).reason is Reason.NOTHING_TO_BORROW


def test_nobody_borrows_ahead_of_one_that_is_about_to_start_where_others_have_left_for_it() -> None:
    """Slurm starts job 11 first, which is ahead in line, and perhaps on the node that job 1 left for job 10: others
    would have to leave for job 10 again.
    """
    rules = policy(team("ant", 0), team("bee", 8), team("absent", 8))
    mark = Mark(10, "bee", NOW - 30, NOW - 19, NOW - 900)
    gone = replace(waiting(1, "ant", mark=mark), held_back="its begin time has not come")
    owed, ahead = waiting(10, "bee", priority=2000), waiting(11, "ant", priority=3000)

    def reasons(*jobs: WaitingJob) -> list[Reason]:
        decided = plan(rules, snapshot(2, *jobs))
        return [decision(decided, job).reason for job in (10, 11)]

    assert reasons(gone, owed, ahead) == [Reason.STARTS_NOW, Reason.NOTHING_TO_BORROW]
    why = decision(plan(rules, snapshot(2, gone, owed, ahead)), 11).why
    assert why.endswith("it may borrow when job 10, for which others have left, has started")
    both = [Reason.STARTS_NOW] * 2
    assert reasons(gone, owed, replace(ahead, priority=1000)) == both, "Slurm starts job 10 first"
    assert reasons(gone, owed, on(ahead, required_nodes=frozenset({"n2"}))) == both, "it cannot have that node"
    assert reasons(replace(gone, mark=replace(mark, deadline=NOW - 20)), owed, ahead) == both, "long ago"
    assert reasons(replace(gone, mark=None), owed, ahead) == both
    assert reasons(gone, replace(gone, id=2, mark=replace(mark, beneficiary=11)), owed, ahead) == both, "so is it"


def test_nobody_else_leaves_for_a_job_whose_place_is_being_left() -> None:
    """Job 1 leaves for job 10, and is ending: job 2 has nothing to do with it."""
    rules = policy(team("ant", 8), team("absent", 8))
    leaves = replace(being_preempted(running(1, "ant", "n1", qos="experiment"), 10), state=RunState.COMPLETING)
    other, owed = running(2, "ant", "n2", qos="experiment"), waiting(10, "ant", qos="inference")
    decided = plan(rules, snapshot(2, leaves, other, owed))
    assert decision(decided, 10).why.endswith("; starts when job 1 has ended")
    assert victims(decided) == []
    # Nor where it leaves for nobody.
    decided = plan(rules, snapshot(2, replace(leaves, mark=None), other, owed))
    assert decision(decided, 10).why.endswith("it may borrow when job 1 has ended")
    assert victims(decided) == []


def test_whom_one_waits_for_is_said_of_the_nodes_as_they_are_then() -> None:
    """Job 31 of cat's asks for what job 20 of bee's does, after job 30 has taken the node that was free."""
    rules = policy(team("bee", 0), team("cat", 0), team("absent", 24))
    ending = [replace(running(n, "absent", f"n{n + 1}"), state=RunState.COMPLETING) for n in (1, 2)]
    waits = [waiting(20, "bee", 2), waiting(30, "cat", priority=2000), waiting(31, "cat", 2)]
    decided = plan(rules, snapshot(3, *ending, *waits))
    assert decision(decided, 30).reason is Reason.STARTS_NOW
    assert decision(decided, 20).why.endswith("it may borrow when job 1 has ended")
    assert decision(decided, 31).why.endswith("it may borrow when job 1, 2 has ended")


def owed_two_nodes(*more: RunningJob | WaitingJob, on_n2: str = "ant") -> Snapshot:
    """Job 1 has left node n1 for job 10 of ant's, which needs n1 and n2; job 2 has not left n2 yet, job 3 stays."""
    mark = Mark(10, "ant", NOW - 30, NOW - 1, NOW - 900)
    return snapshot(
        3,
        replace(
            waiting(1, "ant", qos="experiment", priority=5000), mark=mark, held_back="its begin time has not come"
        ),
        being_preempted(running(2, on_n2, "n2", qos="experiment"), 10),
        running(3, "bee", "n3"),
        on(waiting(10, "ant", nodes=2, qos="inference", priority=2000), required_nodes=frozenset({"n1", "n2"})),
        *more,
    )


def test_who_others_have_left_for_goes_before_later_jobs_of_its_team_within_the_quota() -> None:
    """While not all of them have left, job 11 is within the quota, job 10 not: it would take what job 1 left."""
    rules = policy(team("ant", 16), team("bee", 8))
    decided = plan(rules, owed_two_nodes(waiting(11, "ant", priority=1000)))
    assert decision(decided, 10).reason is Reason.PREEMPTING_WITHIN_TEAM
    assert decision(decided, 11).reason is Reason.NOTHING_TO_BORROW
    assert victims(decided) == [2]
    # But not before earlier ones, nor before other teams'.
    for earlier in waiting(11, "ant", priority=3000), waiting(11, "bee", priority=1000):
        found = owed_two_nodes(earlier)
        found = replace(found, running=tuple(job for job in found.running if job.id != 3))
        assert decision(plan(rules, found), 11).why.startswith("within ")


def test_who_will_still_borrow_when_all_have_left_goes_behind_its_teams_quota() -> None:
    """Job 10 is beyond ant's quota of 8 whatever happens, so job 11 has what is ant's own; nor does job 20 of bee's,
    for which somebody has left as well, take that meanwhile.
    """
    rules = policy(team("ant", 8), team("bee", 8), team("absent", 8))
    left = replace(
        waiting(2, "bee", qos="experiment"),
        mark=Mark(20, "bee", NOW - 30, NOW - 1, NOW - 900),
        held_back="its begin time has not come",
    )
    found = owed_two_nodes(waiting(11, "ant", priority=1000), left, waiting(20, "bee", nodes=2, priority=500))
    running_now = tuple(job for job in found.running if job.id == 3)
    decided = plan(rules, replace(found, running=running_now))
    assert decision(decided, 11).why.startswith("within ant's quota")
    assert [decision(decided, job).reason for job in (10, 20)] == [Reason.NOTHING_TO_BORROW] * 2


def test_later_jobs_within_the_quota_wait_only_for_what_others_have_left_for() -> None:
    """Job 10 gets nothing, for job 2 is within its team's quota now."""
    rules = policy(team("ant", 16), team("cat", 8))
    found = owed_two_nodes(waiting(11, "ant", priority=1000), on_n2="cat")
    running_too = replace(found.running[1], account="ant")
    decided = plan(rules, replace(found, running=(found.running[0], running_too)))
    assert victims(decided) == []
    assert decision(decided, 11).why.startswith("within ant's quota")


def test_room_that_others_were_told_to_make_is_kept_until_limits_allow_it() -> None:
    """Ant and bee may hold 24 together, and do. Others have left for job 11, and n4 is free: it starts when job 1 has
    left, and job 12 does not start there meanwhile.
    """
    rules = policy(
        team("ant", 0, cohort="pair"),
        team("bee", 8, cohort="pair"),
        team("owner", 24, cohort="top"),
        cohorts=frozen({"top": Cohort("top"), "pair": Cohort("pair", "top", frozen({"h100": Quota(0, borrow=16)}))}),
    )
    left = replace(
        waiting(9, "bee"), mark=Mark(11, "bee", NOW - 30, NOW - 1, NOW - 900), held_back="its begin time has not come"
    )
    jobs = [running(1, "ant", "n1", qos="experiment"), running(2, "ant", "n2"), running(3, "bee", "n3")]
    waits = [on(waiting(10, "owner", priority=2000), required_nodes=frozenset({"n1"})), waiting(11, "bee"), left]
    other = on(waiting(12, "owner", priority=1), excluded_nodes=frozenset({"n1"}))
    decided = plan(rules, snapshot(4, *jobs, *waits, replace(other, account="guests")))
    assert victims(decided) == [1]
    found = decision(decided, 11)
    assert found.reason is Reason.WAITS_FOR_NODES
    assert found.why.endswith("; starts when those that were told to leave have left")


def two_pools(*teams: Team) -> Policy:
    rules = policy(*teams)
    return replace(rules, pools=frozen({**rules.pools, "a100": Pool("a100", ("old",), "gpu:a100")}))


def test_a_job_that_is_ahead_and_takes_nothing_of_it_keeps_nobody_from_its_own_teams_place() -> None:
    """Job 11 is about to get what it waits for: in another pool, or on the node that job 9 is leaving."""
    ends = replace(running(9, "guests", "n2"), state=RunState.COMPLETING)
    jobs = [running(1, "ant", "n1", qos="experiment"), waiting(12, "ant", qos="inference", priority=1000)]
    a100 = "gres/gpu:a100"
    rules = two_pools(team("ant", 8))
    old = Node("n2", ("old",), frozen({a100: 8}), 64, 512_000)
    elsewhere = replace(
        waiting(11, "ant", priority=2000),
        partitions=("old",),
        request=Request(frozen({a100: 8}), gpus_per_node=8, cpus=8),
    )
    ends_there = replace(ends, held=(Held("n2", frozen({a100: 8}), 8, 1000),), partition="old")
    decided = plan(rules, snapshot([node("n1"), old], *jobs, ends_there, elsewhere))
    assert decision(decided, 11).why.endswith("it may borrow when job 9 has ended")
    assert victims(decided) == [1]
    # On the node that job 9 leaves there is room for one such job, not for two.
    ends, jobs[1] = running(9, "guests", "n1"), on(jobs[1], required_nodes=frozenset({"n2"}))
    ends, jobs[0] = replace(ends, state=RunState.COMPLETING), running(1, "ant", "n2", qos="experiment")
    anywhere = waiting(11, "ant", qos="experiment", priority=2000)
    anywhere = replace(anywhere, request=Request(frozen({H100: 8}), cpus=8))
    rules = policy(team("ant", 8), team("absent", 8))
    assert victims(plan(rules, snapshot(2, *jobs, ends, anywhere))) == [1]
    assert victims(plan(rules, snapshot(2, *jobs, ends, replace(anywhere, tasks=2)))) == []
    # Those behind it are not in its way, also where one just like them is ahead.
    later = [replace(anywhere, id=id, display_id=str(id), priority=500) for id in (21, 22)]
    assert victims(plan(rules, snapshot(2, *jobs, ends, anywhere, *later))) == [1]
    # And what limits keep from both nodes takes neither.
    jobs += [ends, running(5, "ant", "n3", qos="inference"), on(anywhere, gpus=frozen({H100: 16}))]
    assert victims(plan(policy(team("ant", 16), team("absent", 8)), snapshot(3, *jobs))) == []
    assert victims(plan(policy(team("ant", 16, borrow=0)), snapshot(3, *jobs))) == [1]


def test_nobody_borrows_on_the_credit_of_those_who_have_yet_to_leave() -> None:
    """Ant and bee may hold 24 together, and do. Job 1 must leave for the owner; node n4 is free, but job 11 may have
    it only when job 1 has left: until then they would hold 32.
    """
    both = frozen({"pair": Cohort("pair", None, frozen({"h100": Quota(0, borrow=16)}))})
    rules = policy(
        team("ant", 0, cohort="pair"),
        team("bee", 8, cohort="pair"),
        team("owner", 24, cohort="top", borrow=0),
        cohorts=frozen({"top": Cohort("top"), "pair": replace(both["pair"], parent="top")}),
    )
    jobs = [running(1, "ant", "n1", qos="experiment"), running(2, "ant", "n2"), running(3, "bee", "n3")]
    waits = [on(waiting(10, "owner", priority=2000), required_nodes=frozenset({"n1"})), waiting(11, "bee")]
    decided = plan(rules, snapshot(4, *jobs, *waits))
    assert victims(decided) == [1]
    assert "it may borrow when those that were told to leave have left" in decision(decided, 11).why
    assert decided.caps["bee"][H100] == 8
    after = plan(rules, snapshot(4, *jobs[1:], *waits))
    assert decision(after, 11).reason is Reason.STARTS_NOW
    assert after.caps["bee"][H100] == 16


def test_nobody_leaves_again_for_an_array_of_which_no_task_has_started_since() -> None:
    """Job 1 left for array 10, or for a task of it. What it left was another's, of a higher priority in Slurm."""
    rules = policy(team("owner", 16), team("guest", 0), team("absent", 8))
    back = running(1, "guest", "n1", start=NOW - 5, preempted=(Preempted(NOW - 100, 10),))
    waits = replace(waiting(10, "owner"), submit=NOW - 200)
    several, last = replace(waits, tasks=2, display_id="10_[1-2]"), replace(waits, display_id="10_[2]")
    alone = replace(waits, display_id="9_2")
    requeued = replace(last, mark=Mark(3, "guest", NOW - 150, NOW - 150, NOW - 180))
    for job, tasks, start, leave in (
        (several, "10_7", NOW - 90, [1]),
        (last, "10_1", NOW - 90, [1]),
        (several, "10_7", NOW - 110, []),
        (last, "10_1", NOW - 110, []),
        (several, "100_7", NOW - 90, []),
        (alone, "9_1", NOW - 90, []),
        (requeued, "10_1", NOW - 90, []),
    ):
        task = replace(running(20, "owner", "n2", start=start), display_id=tasks)
        assert victims(plan(rules, snapshot(2, back, task, job))) == leave, (job.display_id, tasks, start)
    for job in (several, last, alone):
        assert victims(plan(rules, snapshot(1, back, job))) == []


def test_nobody_is_asked_to_leave_again_for_the_job_for_which_it_left() -> None:
    rules = policy(team("owner", 8), team("guest", 0), team("absent", 8))
    back = running(1, "guest", "n1", start=NOW - 5, preempted=(Preempted(NOW - 100, 10),))
    other = running(2, "guest", "n2", start=NOW - 900)
    waits = replace(waiting(10, "owner"), submit=NOW - 200)
    assert victims(plan(rules, snapshot(2, back, other, waits))) == [2]
    assert victims(plan(rules, snapshot(1, back, waits))) == []
    # For another job, or the same when it waits anew, it is.
    for job in (replace(waits, id=11), replace(waits, submit=NOW - 50)):
        assert victims(plan(rules, snapshot(1, back, job))) == [1]
    own = policy(team("owner", 8))
    mine = replace(back, account="owner", qos="experiment")
    assert victims(plan(own, snapshot(1, mine, replace(waits, qos="inference")))) == []
    assert victims(plan(own, snapshot(1, mine, replace(waits, id=11, qos="inference")))) == [1]


def test_nor_when_that_one_has_run_and_was_preempted_itself() -> None:
    """Else three would take turns: each has a right to the place of the next."""
    rules = policy(team("owner", 8), team("guest", 0))
    back = running(1, "guest", "n1", start=NOW - 5, preempted=(Preempted(NOW - 100, 10),))
    waits, mark = waiting(10, "owner", submit=NOW - 50), Mark(20, "third", NOW - 60, NOW - 50, NOW - 90)
    assert victims(plan(rules, snapshot(1, back, replace(waits, mark=mark)))) == []
    last_task = replace(waits, mark=mark, display_id="10_9")
    assert victims(plan(rules, snapshot(1, back, last_task))) == []
    # It was preempted before that, and is requeued for another reason; or it was spared.
    for other in (replace(mark, since=NOW - 110), replace(mark, spared=True)):
        assert victims(plan(rules, snapshot(1, back, replace(waits, mark=other)))) == [1]


def test_what_newer_jobs_would_leave_is_not_taken_for_a_job_behind_another_like_it() -> None:
    """Job 12 has waited longer than job 1 runs for, but job 11 is ahead of it and would start in its place."""
    newer = WithinTeam.LOWER_OR_NEWER_EQUAL_PRIORITY
    rules = policy(team("ant", 16, preempt_within_team=newer), team("guest", 0))
    ahead = replace(waiting(11, "ant", 2, priority=2000), submit=NOW - 10)
    jobs = [
        running(1, "ant", "n1", submit=NOW - 50),
        running(2, "guest", "n2"),
        replace(waiting(12, "ant", 2, priority=1000), submit=NOW - 100),
    ]
    assert victims(plan(rules, snapshot(2, *jobs, ahead))) == []
    assert victims(plan(rules, snapshot(2, *jobs))) == [1, 2]


@pytest.mark.parametrize("idle", Idle)
def test_the_next_of_a_kind_waits_for_those_between(idle: Idle) -> None:
    """Jobs 1 and 3 are alike; when job 1 has its node, job 2 is the next in line."""
    rules = policy(team("ant", 0), team("lender", 16), idle=idle)
    jobs = [waiting(1, "ant", priority=30), waiting(2, "ant", gpus=4, priority=20), waiting(3, "ant", priority=10)]
    decided = plan(rules, snapshot(2, *jobs))
    assert [one.job for one in decided.decisions if one.reason is Reason.STARTS_NOW] == [1, 2]


def test_a_node_is_given_once() -> None:
    decided = plan(policy(team("ant", 32)), snapshot(1, waiting(1, "ant"), waiting(2, "ant")))
    assert [one.reason for one in decided.decisions] == [Reason.STARTS_NOW, Reason.WAITS_FOR_NODES]


def test_what_is_free_and_promised_is_not_lent() -> None:
    """Job 10 gets n1, which is free, together with n2, which must be cleared: nobody else may start on n1."""
    rules = policy(team("owner", 16), team("guest", 0))
    jobs = [
        running(1, "guest", "n2"),
        running(2, "nobody", "n3"),
        waiting(10, "owner", 2, priority=2000),
        waiting(11, "guest", priority=1000),
    ]
    decided = plan(rules, snapshot(3, *jobs))
    assert victims(decided) == [1]
    assert decision(decided, 11).reason is not Reason.STARTS_NOW


# -- for whom nobody is preempted --------------------------------------------------------------------------


def test_nobody_leaves_for_a_job_whose_place_one_ahead_of_it_would_take() -> None:
    rules = policy(team("ant", 8, borrow=0))
    jobs = [
        running(1, "ant", "n1", qos="training"),
        waiting(11, "ant", priority=2000, qos="training"),
        waiting(12, "ant", priority=1000, qos="inference"),
    ]
    assert victims(plan(rules, snapshot(1, *jobs))) == []
    assert victims(plan(rules, snapshot(1, jobs[0], jobs[2]))) == [1]


def test_nobody_leaves_for_a_job_that_cannot_be_judged() -> None:
    rules = policy(team("owner", 16), team("guest", 0))
    jobs = [running(1, "guest", "n1"), running(2, "guest", "n2")]
    assert victims(plan(rules, snapshot(2, *jobs, waiting(9, "owner")))) == [1]
    assert victims(plan(rules, snapshot(2, *jobs, on(waiting(9, "owner"), plain=False)))) == []


def test_nobody_leaves_for_a_job_that_would_still_be_above_its_teams_limit() -> None:
    rules = policy(team("ant", 8, borrow=8), team("absent", 16))
    jobs = [
        running(1, "ant", "n1", qos="experiment"),
        running(2, "ant", "n2", qos="inference"),
        waiting(9, "ant", 2, qos="inference"),
    ]
    decided = plan(rules, snapshot(3, *jobs))
    assert victims(decided) == []
    assert decision(decided, 9).reason is Reason.TEAM_AT_LIMIT


def test_as_many_leave_as_its_teams_limit_asks_for() -> None:
    """Two nodes are free, but ant may hold 16 only."""
    rules = policy(team("ant", 8, borrow=8), team("absent", 24))
    jobs = [running(id, "ant", f"n{id}", qos="experiment") for id in (1, 2)]
    assert victims(plan(rules, snapshot(4, *jobs, waiting(9, "ant", 2, qos="inference")))) == [1, 2]


# -- reservations ------------------------------------------------------------------------------------------


def test_a_job_borrows_on_the_nodes_that_are_reserved_for_it() -> None:
    """What is idle elsewhere covers it; the reserved node counts for nobody."""
    rules = policy(team("ant", 0), team("absent", 8))
    nodes = [node("n1"), replace(node("n2", usable=False), reserved=frozenset({"mine"}))]
    request = replace(waiting(1, "ant").request, reservations=frozenset({"mine"}), plain=False)
    inside, outside = waiting(11, "ant", request=request), waiting(12, "ant", priority=1)
    decided = plan(rules, snapshot(nodes, inside, outside))
    assert [one.reason for one in decided.decisions] == [Reason.STARTS_NOW, Reason.NOTHING_TO_BORROW]
    assert decided.pools[0].healthy == 8
    planner = Planner()
    for reserved in (frozenset({"mine"}), frozenset(), frozenset({"mine"})):
        found = snapshot([nodes[0], replace(nodes[1], reserved=reserved)], inside, outside)
        assert planner.plan(rules, found) == plan(rules, found)


# -- protection --------------------------------------------------------------------------------------------


def protected(waited: float, gpus: int = 8, borrow: int | None = None, others: int = 0) -> Reason:
    """What is decided of a job that would overtake one that asks for 16 GPUs and has waited. Ant holds so many of its
    quota of 8, and as many are asked for; 8 may be borrowed, if so many nodes of another team have not taken them.
    """
    rules = policy(team("ant", 8, borrow=borrow), team("absent", 24, lend=8), protect_after=60.0)
    ahead = replace(waiting(11, "ant", 2, priority=2000), submit=NOW - waited)
    held = [running(1, "ant", "n1", gpus=gpus), *(running(2, "absent", f"n{one}") for one in range(2, 2 + others))]
    decided = plan(rules, snapshot(4, *held, ahead, waiting(12, "ant", gpus=gpus, priority=1000)))
    assert decision(decided, 11).reason in (Reason.NOTHING_TO_BORROW, Reason.TEAM_AT_LIMIT)
    return decision(decided, 12).reason


def test_who_has_waited_long_is_not_overtaken() -> None:
    assert protected(61) is Reason.TEAM_AT_LIMIT


def test_who_has_not_waited_long_is() -> None:
    assert protected(59) is Reason.STARTS_NOW


def test_who_could_borrow_so_much_only_if_its_own_team_left_is_not_overtaken() -> None:
    assert protected(61, gpus=4, borrow=8) is Reason.TEAM_AT_LIMIT


def test_who_waits_for_other_teams_is_overtaken_however_long_it_waited() -> None:
    assert protected(61, gpus=4, borrow=8, others=3) is Reason.STARTS_NOW


# -- pools -------------------------------------------------------------------------------------------------


def test_partitions_of_no_pool_are_not_looked_at() -> None:
    beside = Node("x1", ("other",), node("n1").gpus, 64, 512_000)
    job = replace(waiting(9, "ant"), partitions=("other", "gpu"))
    decided = plan(policy(team("ant", 16)), snapshot([node("n1"), beside], running(1, "nobody", "n1"), job))
    assert decision(decided, 9).reason is Reason.WAITS_FOR_NODES
    assert decided.caps["ant"][H100] == 16


def test_of_several_pools_the_first_in_which_it_can_run() -> None:
    """Ant may use the second pool alone; bee both."""
    pools = {"h100": Pool("h100", ("gpu",), "gpu:h100"), "a100": Pool("a100", ("old",), "gpu:a100")}
    old = Node("o1", ("old",), frozen({"gres/gpu:a100": 8}), 64, 512_000)
    none, eight = Quota(0, 0), Quota(8, 0)
    teams = {
        "ant": Team("ant", frozen({"h100": none, "a100": eight})),
        "bee": Team("bee", frozen({"h100": eight, "a100": none})),
        "cat": Team("cat", frozen({"h100": none, "a100": none})),
    }
    rules = replace(policy(), pools=frozen(pools), teams=frozen(teams))
    request = Request(frozen({"gres/gpu": 8}), gpus_per_node=8)
    jobs = [
        replace(waiting(id, name, request=request), partitions=("gpu", "old")) for id, name in enumerate(teams, 1)
    ]
    decided = plan(rules, snapshot([node("n1"), old], *jobs))
    assert [(one.pool, one.reason) for one in decided.decisions] == [
        ("a100", Reason.STARTS_NOW),
        ("h100", Reason.STARTS_NOW),
        ("h100", Reason.CAN_NEVER_RUN),
    ]


# -- what one decision of a cycle means for the next ------------------------------------------------------------


def outcome(rules: Policy, found: Snapshot) -> tuple[dict[int, int], dict[int, Reason]]:
    """Who leaves for whom, and what is said of each."""
    decided = plan(rules, found)
    return {one.job: one.beneficiary for one in decided.preempt}, {one.job: one.reason for one in decided.decisions}


def only_on(job: WaitingJob, *nodes: str) -> WaitingJob:
    return on(job, required_nodes=frozenset(nodes))


def test_a_team_whose_job_leaves_is_served_within_its_quota_before_borrowers() -> None:
    rules = policy(team("ant", 16), team("bee", 0), team("absent", 16), idle=Idle.FIRST_COME)
    jobs = [
        running(1, "ant", "n1", qos="experiment"),
        running(2, "guests", "n2", gpus=3),
        running(3, "ant", "n3", gpus=4, qos="inference"),
        running(4, "guests", "n3", gpus=4),
        only_on(waiting(8, "ant", gpus=4, qos="inference", priority=3000), "n1"),
        waiting(9, "ant", gpus=5, priority=1000),
        waiting(10, "bee", gpus=5, priority=2000),
    ]
    leave, said = outcome(rules, snapshot(3, *jobs))
    assert leave == {1: 8}
    assert (said[9], said[10]) == (Reason.STARTS_NOW, Reason.BORROW_DOES_NOT_FIT)


def test_no_job_of_a_team_leaves_for_one_behind_an_easier_one() -> None:
    """Slurm would give its place to that one; also where a borrower's job would leave beside it."""
    rules = policy(team("ant", 24, reclaim=Reclaim.LOWER_PRIORITY), team("bee", 0))
    jobs = [running(1, "bee", "n1"), running(2, "ant", "n2", qos="experiment")]
    hard = waiting(9, "ant", 2, qos="inference", priority=1000)
    easy = waiting(8, "ant", qos="experiment", priority=2000)
    assert outcome(rules, snapshot(2, *jobs, hard))[0] == {1: 9, 2: 9}
    assert outcome(rules, snapshot(2, *jobs, easy, hard))[0] == {}


def test_nor_does_one_of_another_team_for_more_than_its_quota() -> None:
    """Slurm would start job 8, which may preempt nobody. What the quota covers is the team's, whoever gets it."""
    jobs = [running(1, "poor", "n1", qos="experiment")]
    easy = waiting(8, "ant", qos="experiment", priority=2000)
    hard = waiting(9, "ant", qos="inference", priority=1000)
    for quota, alone, behind in ((0, {1: 9}, {}), (8, {1: 9}, {1: 9})):
        ant = team("ant", quota, borrow_preempts=BorrowPreempts(), reclaim=Reclaim.LOWER_PRIORITY)
        rules = policy(ant, team("poor", 0), team("owner", 8 - quota))
        assert outcome(rules, snapshot(1, *jobs, hard))[0] == alone
        assert outcome(rules, snapshot(1, *jobs, easy, hard))[0] == behind


def test_no_job_of_a_team_leaves_for_one_that_borrows_where_the_quota_would_go_to_another() -> None:
    """When both had left, the quota of 8 would cover job 10, and job 9 could not have 16 beside it; or it could."""
    rules = policy(team("ant", 8, preempt_within_team=WithinTeam.LOWER_PRIORITY), team("bee", 8))
    jobs = [running(1, "ant", "n1", qos="experiment"), running(2, "ant", "n2", qos="experiment")]
    large, small = waiting(9, "ant", 2, qos="inference", priority=1000), waiting(10, "ant", qos="experiment")
    assert outcome(rules, snapshot(2, *jobs, large))[0] == {1: 9, 2: 9}
    assert outcome(rules, snapshot(2, *jobs, large, small))[0] == {}
    assert outcome(rules, snapshot(2, *jobs, large, replace(small, tasks=3)))[0] == {}
    there = on(large, required_nodes=frozenset({"n1", "n2"}))
    elsewhere = on(replace(small, tasks=9), excluded_nodes=there.request.required_nodes)
    assert outcome(rules, snapshot(3, *jobs, there, elsewhere))[0] == {1: 9, 2: 9}
    limited = policy(team("ant", 8, borrow=16, preempt_within_team=WithinTeam.LOWER_PRIORITY), team("bee", 24))
    assert outcome(limited, snapshot(4, *jobs, there, elsewhere))[0] == {1: 9, 2: 9}, "only one task is its own"


LAB = frozen({"lab": Cohort("lab", None, frozen({}))})


def test_that_nobody_may_leave_for_much_says_nothing_of_less() -> None:
    """Of its cohort's quota 8 are unused: 16 are too many, 8 are not."""
    rules = policy(team("ant", 0, cohort="lab"), team("absent", 8, cohort="lab"), team("bee", 0), cohorts=LAB)
    jobs = [running(1, "bee", "n1"), running(2, "guests", "n2")]
    much, less = waiting(8, "ant", 2, priority=2000), waiting(9, "ant", priority=1000)
    assert outcome(rules, snapshot(2, *jobs, much, less))[0] == {1: 9}


def test_what_is_said_of_as_much_is_not_what_was_said_before_another_started() -> None:
    rules = policy(team("ant", 0), team("lender", 16))
    much = [waiting(8, "ant", 2, priority=3000), waiting(10, "ant", 2, priority=1000, qos="experiment")]
    jobs = [running(1, "lender", "n1", gpus=4), *much, waiting(9, "ant", gpus=1, priority=2000)]
    whys = {one.job: one.why for one in plan(rules, snapshot(2, *jobs)).decisions}
    assert whys[8] == "team ant holds 0 of 0 quota and 0 borrowed of h100, and asks for 16 more; it could have 12 now"
    assert (
        whys[10] == "team ant holds 0 of 0 quota and 1 borrowed of h100, and asks for 16 more; it could have 11 now"
    )


def test_that_nobody_may_leave_is_so_until_somebody_left() -> None:
    """The cohort's quota was used up when the first was looked at, and is not any more."""
    teams = team("ant", 0, cohort="lab"), team("mate", 8, cohort="lab"), team("bee", 0)
    rules = policy(*teams, cohorts=LAB, idle=Idle.FIRST_COME)
    jobs = [
        running(1, "mate", "n1", qos="experiment"),
        running(2, "bee", "n2"),
        only_on(waiting(8, "ant", gpus=4, priority=3000), "n1"),
        only_on(waiting(9, "mate", gpus=4, qos="inference", priority=2000), "n1"),
        only_on(waiting(10, "ant", gpus=4, priority=1000), "n2"),
    ]
    assert outcome(rules, snapshot(2, *jobs))[0] == {1: 9, 2: 10}


def test_who_left_for_one_before_may_leave_for_another() -> None:
    rules = policy(team("prod", 16), team("res", 0))
    before = running(1, "res", "n1", preempted=(Preempted(NOW, 8),))
    other = on(waiting(9, "prod", priority=1000), cpus=16)
    jobs = [before, running(2, "guests", "n2"), waiting(8, "prod", priority=2000), other]
    assert outcome(rules, snapshot(2, *jobs))[0] == {1: 9}


def test_for_whom_somebody_leaves_comes_before_who_is_ahead_in_line() -> None:
    """What it lost must not be in vain: not even if a job of a higher priority came meanwhile."""
    equal = WithinTeam.LOWER_OR_NEWER_EQUAL_PRIORITY
    rules = policy(
        team("ant", 8, preempt_within_team=equal), team("bee", 8), team("cat", 8, preempt_within_team=equal),
        lend_unallocated=False,
    )  # fmt: skip
    owed = on(waiting(101, "ant", gpus=4, qos="inference", priority=10), excluded_nodes=frozenset({"n1"}))
    newer = running(2, "ant", "n2", qos="inference", submit=NOW + 1)
    jobs = [
        running(1, "cat", "n1", qos="experiment"),
        running(3, "ant", "n3", qos="inference", submit=NOW - 5000),
        owed,
        waiting(102, "cat", gpus=4, priority=500),
    ]
    assert outcome(rules, snapshot(6, newer, *jobs))[0] == {1: 102}
    assert outcome(rules, snapshot(6, being_preempted(newer, 101), *jobs))[0] == {2: 101}
