"""What one cycle decides, on small clusters whose answer a person can work out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from clusters import (
    H100,
    NOW,
    TWO,
    being_preempted,
    full_of_research,
    left,
    node,
    policy,
    running,
    snapshot,
    team,
    waiting,
)

from slurm_gov.core.decision import Plan, Reason
from slurm_gov.core.plan import plan
from slurm_gov.core.policy import BorrowPreempts, Cohort, Preemption, Quota, Rebalance, WithinTeam, frozen
from slurm_gov.core.snapshot import Mark, Node, Request, RunState


def reason(decided: Plan, job: int) -> Reason:
    return next(one.reason for one in decided.decisions if one.job == job)


def victims(decided: Plan) -> list[int]:
    return sorted(one.job for one in decided.preempt)


def test_idle_gpus_are_lent_in_whole_jobs():
    jobs = [waiting(id, "research", 2) for id in (1, 2, 3, 4, 5)]
    decided = plan(TWO, snapshot(8, *jobs))
    assert [reason(decided, id) for id in (1, 2, 3, 4)] == [Reason.STARTS_NOW] * 4
    assert decided.caps["research"][H100] == 64
    assert decided.caps["product"][H100] == 32
    assert reason(decided, 5) is Reason.NOTHING_TO_BORROW


def test_caps_without_demand_are_the_quotas():
    assert plan(TWO, snapshot(8)).caps["research"][H100] == 32


def test_an_owner_takes_back_from_the_most_recently_started_borrowers():
    decided = plan(TWO, snapshot(8, *full_of_research(), waiting(10, "product", 2)))
    assert victims(decided) == [7, 8]
    assert reason(decided, 10) is Reason.RECLAIMING
    assert decided.caps["research"][H100] == 48
    assert {one.beneficiary for one in decided.preempt} == {10}


def test_reclaim_takes_no_more_than_what_was_borrowed():
    jobs = [waiting(id, "product", 2) for id in (10, 11, 12)]
    decided = plan(TWO, snapshot(8, *full_of_research(), *jobs))
    assert len(victims(decided)) == 4
    assert reason(decided, 12) is Reason.NOTHING_TO_BORROW
    assert decided.caps["research"][H100] == 32


def test_two_whole_nodes_are_not_sixteen_scattered_gpus():
    rules = policy(team("research", 0), team("product", 16))
    scattered = [running(id, "research", f"n{id}", gpus=4, start=NOW - id) for id in (1, 2, 3, 4)]
    decided = plan(rules, snapshot(4, *scattered, waiting(10, "product", 2)))
    assert victims(decided) == [1, 2]


def test_the_cheapest_nodes_are_chosen_not_the_latest_jobs():
    """Taking the latest first would end three jobs (1, 2 and one of 3, 4); clearing node n2 costs one."""
    rules = policy(team("research", 0), team("product", 8))
    jobs = [
        running(1, "research", "n1", gpus=1, start=NOW - 10),
        running(3, "research", "n1", gpus=7, start=NOW - 5000),
        running(2, "research", "n2", gpus=8, start=NOW - 500),
    ]
    assert victims(plan(rules, snapshot(2, *jobs, waiting(10, "product")))) == [2]


def test_lower_priority_goes_first_however_long_it_ran():
    jobs = full_of_research()
    jobs[2] = replace(jobs[2], qos="experiment")
    assert victims(plan(TWO, snapshot(8, *jobs, waiting(10, "product")))) == [3]


def test_nobody_within_quota_is_preempted_for_another_team():
    rules = policy(team("research", 64), team("product", 32))
    decided = plan(rules, snapshot(8, *full_of_research(), waiting(10, "product")))
    assert victims(decided) == []
    assert reason(decided, 10) is Reason.WAITS_FOR_NODES


def test_no_preemption_that_cannot_make_its_beneficiary_start():
    rules = policy(team("research", 0), team("product", 32), team("other", 16))
    jobs = [
        running(1, "research", "n1"),
        running(2, "other", "n2", start=NOW - 50),
        running(3, "other", "n3", start=NOW - 50),
    ]
    decided = plan(rules, snapshot(3, *jobs, waiting(10, "product", 2)))
    assert victims(decided) == []
    assert reason(decided, 10) is Reason.WAITS_FOR_NODES


def test_a_job_that_cannot_be_requeued_is_not_chosen():
    jobs = [replace(job, requeueable=job.id not in (7, 8)) for job in full_of_research()]
    decided = plan(TWO, snapshot(8, *jobs, waiting(10, "product", 2)))
    assert victims(decided) == [5, 6]


def test_a_job_that_cannot_be_requeued_comes_last_where_the_policy_allows_it():
    rules = replace(TWO, preemption=Preemption(cancel_unrequeueable=True))
    jobs = [replace(job, requeueable=job.id == 1) for job in full_of_research()]
    decided = plan(rules, snapshot(8, *jobs, waiting(10, "product", 2)))
    assert victims(decided) == [1, 8]


def test_borrow_limit():
    rules = policy(team("research", 32, borrow=8), team("product", 32))
    decided = plan(rules, snapshot(8, *[waiting(id, "research") for id in range(1, 8)]))
    assert decided.caps["research"][H100] == 40
    assert reason(decided, 6) is Reason.TEAM_AT_LIMIT


@pytest.mark.parametrize(("lend", "cap"), [(0, 32), (8, 40), (None, 64)])
def test_lend_limit(lend, cap):
    rules = policy(team("research", 32), team("product", 32, lend=lend))
    decided = plan(rules, snapshot(8, *[waiting(id, "research") for id in range(1, 9)]))
    assert decided.caps["research"][H100] == cap


@pytest.mark.parametrize(("lend_unallocated", "cap"), [(True, 48), (False, 32)])
def test_capacity_that_no_team_was_given(lend_unallocated, cap):
    rules = policy(team("research", 32), team("product", 16, lend=0), lend_unallocated=lend_unallocated)
    decided = plan(rules, snapshot(8, *[waiting(id, "research") for id in range(1, 9)]))
    assert decided.caps["research"][H100] == cap


def test_cohorts_do_not_lend_to_one_another():
    rules = policy(
        team("research", 16, cohort="a"),
        team("vision", 16, cohort="a"),
        team("product", 32, cohort="b"),
        cohorts=frozen({"a": Cohort("a"), "b": Cohort("b")}),
    )
    decided = plan(rules, snapshot(8, *[waiting(id, "research") for id in range(1, 9)]))
    assert decided.caps["research"][H100] == 32


def test_idle_capacity_is_divided_by_weight():
    rules = policy(
        team("a", 0, fair_share_weight=30),
        team("b", 0, fair_share_weight=10),
        team("c", 0),
        team("owner", 64),
    )
    jobs = [
        waiting(100 * index + number, name, gpus=8, priority=1000 - number)
        for index, name in enumerate("abc")
        for number in range(8)
    ]
    decided = plan(rules, snapshot(8, *jobs))
    assert [decided.caps[name][H100] for name in "abc"] == [48, 16, 0]


def test_within_the_team_the_higher_class_replaces_the_lower():
    rules = policy(team("research", 16, borrow=0))
    jobs = [running(1, "research", "n1", qos="experiment"), running(2, "research", "n2", qos="training")]
    decided = plan(rules, snapshot(4, *jobs, waiting(10, "research", qos="inference")))
    assert victims(decided) == [1]
    assert reason(decided, 10) is Reason.PREEMPTING_WITHIN_TEAM
    assert decided.caps["research"][H100] == 16
    never = policy(team("research", 16, borrow=0, preempt_within_team=WithinTeam.NEVER))
    decided = plan(never, snapshot(4, *jobs, waiting(10, "research", qos="inference")))
    assert victims(decided) == []
    assert reason(decided, 10) is Reason.TEAM_AT_LIMIT


def test_sick_nodes_are_no_capacity():
    nodes = [node(f"n{index}", usable=index > 2) for index in range(1, 5)]
    rules = policy(team("research", 8), team("product", 8))
    decided = plan(rules, snapshot(nodes, *[waiting(id, "research") for id in (1, 2, 3)]))
    assert decided.caps["research"][H100] == 16
    assert decided.pools[0].healthy == 16


def test_quotas_above_the_healthy_capacity_are_reported():
    nodes = [node(f"n{index}", usable=index > 2) for index in range(1, 9)]
    assert "64, but only 48" in plan(TWO, snapshot(nodes)).warnings[0]


def test_the_next_cycle_keeps_the_victims_it_began_with():
    """Even if cheaper ones have come since."""
    jobs = [being_preempted(job, 10) if job.id in (3, 4) else job for job in full_of_research()]
    decided = plan(TWO, snapshot(8, *jobs, waiting(10, "product", 2)))
    assert victims(decided) == [3, 4]
    assert decided.spare == ()


def test_a_victim_that_nobody_needs_any_more_is_spared():
    jobs = [being_preempted(job, 10) if job.id in (3, 4) else job for job in full_of_research()]
    assert plan(TWO, snapshot(8, *jobs)).spare == (3, 4)
    assert plan(TWO, snapshot(8, *jobs, waiting(10, "product", 1))).spare == (3,)


def test_a_mark_of_an_earlier_run_is_history():
    jobs = full_of_research()
    jobs[0] = replace(jobs[0], mark=Mark(10, "product", NOW - 500, NOW - 470, run=NOW - 5000))
    decided = plan(TWO, snapshot(8, *jobs, waiting(10, "product")))
    assert victims(decided) == [8]
    assert decided.spare == ()


def test_nobody_is_preempted_when_ending_jobs_make_room():
    jobs = full_of_research()
    jobs[0] = replace(jobs[0], state=RunState.COMPLETING)
    jobs[1] = replace(jobs[1], state=RunState.COMPLETING)
    decided = plan(TWO, snapshot(8, *jobs, waiting(10, "product", 2), waiting(11, "research")))
    assert victims(decided) == []
    assert reason(decided, 10) is Reason.WAITS_FOR_NODES


def test_what_a_victim_leaves_over_is_not_lent_before_it_is_free():
    rules = policy(team("research", 0), team("product", 4))
    jobs = [running(1, "research", "n1")]
    decided = plan(rules, snapshot(1, *jobs, waiting(10, "product", gpus=4), waiting(11, "research", gpus=4)))
    assert victims(decided) == [1]
    assert decided.caps["research"][H100] == 0


def test_an_untyped_request_counts_for_the_pool_of_its_partition():
    request = Request(frozen({"gres/gpu": 8}), gpus_per_node=8)
    decided = plan(TWO, snapshot(8, waiting(1, "research", request=request)))
    assert decided.standings[0].waiting + decided.standings[1].waiting == 8
    assert decided.caps["research"]["gres/gpu"] == 32


def test_the_untyped_cap_leaves_room_for_gpus_of_no_pool():
    other = Node("x1", ("other",), frozen({"gres/gpu:a100": 4}), 64, 512_000)
    nodes = [*(node(f"n{index}") for index in range(1, 9)), other]
    assert plan(TWO, snapshot(nodes)).caps["research"]["gres/gpu"] == 36


def test_a_parent_teams_cap_covers_the_teams_below_it():
    rules = policy(team("science", 16), team("research", 32))
    decided = plan(rules, snapshot(8, parents=frozen({"research": "science", "science": "root"})))
    assert decided.caps["science"][H100] == 48
    assert decided.caps["research"][H100] == 32


def test_accounts_below_a_team_are_the_team():
    parents = frozen({"vision": "research", "research": "root"})
    decided = plan(TWO, snapshot(8, *[waiting(id, "vision") for id in range(1, 9)], parents=parents))
    assert decided.caps["research"][H100] == 64


@pytest.mark.parametrize(
    ("job", "expected", "text"),
    [
        (waiting(1, "strangers"), Reason.NO_TEAM, "strangers"),
        (waiting(1, "research", request=Request()), Reason.NO_POOL, "no GPUs"),
        (waiting(1, "research", held_back="held by its user"), Reason.NOT_READY, "held"),
        (waiting(1, "research", 9), Reason.CAN_NEVER_RUN, "never hold more than 64"),
        (waiting(1, "research", 1, 16), Reason.CAN_NEVER_RUN, "could not give"),
    ],
)
def test_reasons(job, expected, text):
    decided = plan(TWO, snapshot(8, job))
    assert reason(decided, 1) is expected
    assert text in decided.decisions[0].why


def test_tasks_of_an_array_count_each():
    decided = plan(TWO, snapshot(8, waiting(1, "research", 1, 8, tasks=100)))
    assert decided.caps["research"][H100] == 64


def test_gpus_without_a_number_per_node_may_be_spread():
    request = Request(frozen({H100: 12}), min_nodes=1, cpus=12)
    busy = [running(1, "product", "n1", gpus=4), running(2, "product", "n2", gpus=4)]
    decided = plan(TWO, snapshot(2, *busy, waiting(3, "research", request=request)))
    assert reason(decided, 3) is Reason.WAITS_FOR_NODES
    small = replace(request, gpus=frozen({H100: 8}))
    assert reason(plan(TWO, snapshot(2, *busy, waiting(3, "research", request=small))), 3) is Reason.STARTS_NOW


def test_the_snapshot_is_unchanged_and_order_does_not_matter():
    before = snapshot(8, *full_of_research(), waiting(10, "product", 2), waiting(11, "research"))
    copy = repr(before)
    first = plan(TWO, before)
    assert repr(before) == copy
    turned = replace(before, nodes=before.nodes[::-1], running=before.running[::-1], waiting=before.waiting[::-1])
    assert plan(TWO, turned) == first


def test_standings_add_up():
    decided = plan(TWO, snapshot(8, *full_of_research(), waiting(10, "product", 2)))
    research, product = sorted(decided.standings, key=lambda one: one.team, reverse=True)
    assert (research.used, research.borrowed, research.lent, research.cap) == (64, 32, 0, 48)
    assert (product.used, product.borrowed, product.lent, product.waiting) == (0, 0, 32, 16)


def test_what_a_teams_own_victim_leaves_over_is_not_lent_before_it_is_free():
    rules = policy(team("research", 8, preempt_within_team=WithinTeam.LOWER_PRIORITY), team("other", 16))
    jobs = [running(1, "research", "n1", qos="experiment"), running(2, "research", "n2 n3", qos="experiment")]
    first, second = (waiting(id, "research", qos="inference") for id in (10, 11))
    decided = plan(rules, snapshot(3, *jobs, first, second))
    assert Reason.STARTS_NOW not in {reason(decided, 10), reason(decided, 11)}


def test_newer_is_who_began_to_wait_later_not_who_started_later():
    rules = policy(team("research", 8, borrow=0, preempt_within_team=WithinTeam.LOWER_OR_NEWER_EQUAL_PRIORITY))
    job = running(1, "research", "n1", start=NOW - 5, submit=NOW - 100)
    waits = replace(waiting(10, "research"), submit=NOW - 50)
    assert victims(plan(rules, snapshot(1, job, waits))) == []
    assert victims(plan(rules, snapshot(1, job, replace(waits, submit=NOW - 200)))) == [1]


def test_nobody_is_preempted_for_a_place_that_another_job_of_the_team_would_take():
    """Job 10 is ahead in Slurm's line and may preempt nobody: what 1 left, it would get, not 11."""
    rules = policy(team("research", 8, borrow=0))
    job = running(1, "research", "n1", qos="training")
    ahead = waiting(10, "research", qos="training", priority=2000)
    assert victims(plan(rules, snapshot(1, job, ahead, waiting(11, "research", qos="inference")))) == []
    assert victims(plan(rules, snapshot(1, job, waiting(11, "research", qos="inference")))) == [1]


def test_an_exclusive_job_counts_for_all_gpus_of_its_nodes():
    request = Request(frozen({H100: 1}), gpus_per_node=1, exclusive=True)
    decided = plan(policy(team("research", 0)), snapshot(1, waiting(1, "research", request=request)))
    assert decided.caps["research"][H100] == 8


def test_required_nodes_are_all_taken_and_others_beside_them():
    request = Request(frozen({H100: 16}), min_nodes=2, gpus_per_node=8, required_nodes=frozenset({"n2"}))
    busy = running(1, "product", "n2")
    assert reason(plan(TWO, snapshot(3, waiting(2, "research", request=request))), 2) is Reason.STARTS_NOW
    assert reason(plan(TWO, snapshot(3, busy, waiting(2, "research", request=request))), 2) is not Reason.STARTS_NOW


def test_a_spread_job_takes_as_many_gpus_of_a_node_as_its_cpus_allow():
    nodes = [Node(f"n{index}", ("gpu",), frozen({H100: 8}), 4, 512_000) for index in (1, 2)]
    job = waiting(1, "research", request=Request(frozen({H100: 8}), cpus=8))
    assert reason(plan(TWO, snapshot(nodes, job)), 1) is Reason.STARTS_NOW


def test_a_job_that_started_in_the_future_of_our_clock_may_be_preempted():
    jobs = [replace(job, start=NOW + 1) for job in full_of_research()]
    assert len(victims(plan(TWO, snapshot(8, *jobs, waiting(10, "product"))))) == 1


def test_a_cohort_within_its_quota_keeps_what_its_teams_lend_one_another():
    rules = policy(
        team("a1", 0, cohort="a"),
        team("a2", 8, cohort="a"),
        team("b1", 8, cohort="b"),
        cohorts=frozen({"a": Cohort("a"), "b": Cohort("b")}),
    )
    decided = plan(rules, snapshot(1, running(1, "a1", "n1"), waiting(10, "b1")))
    assert victims(decided) == []
    assert victims(plan(rules, snapshot(1, running(1, "a1", "n1"), waiting(10, "a2")))) == [1]


def test_a_cohorts_own_quota_is_taken_back_from_those_outside():
    rules = policy(
        team("inner", 0, cohort="lab"),
        team("outer", 0, cohort="top"),
        cohorts=frozen({"top": Cohort("top"), "lab": Cohort("lab", "top", frozen({"h100": Quota(8)}))}),
    )
    found = snapshot(1, running(1, "outer", "n1"), waiting(10, "inner"))
    decided = plan(rules, found)
    assert victims(decided) == [1]
    assert (decided.caps["inner"][H100], decided.caps["outer"][H100]) == (0, 0)
    assert plan(rules, left(found, decided)).caps["inner"][H100] == 8


def test_a_borrower_may_preempt_lower_classes_of_other_teams_where_the_policy_says_so():
    teams = [team("owner", 8), team("poor", 0), team("rich", 0)]
    job, waits = running(1, "poor", "n1", qos="experiment"), waiting(10, "rich", qos="inference")
    assert victims(plan(policy(*teams), snapshot(1, job, waits))) == []
    teams[2] = replace(teams[2], borrow_preempts=BorrowPreempts(max_priority=10))
    assert victims(plan(policy(*teams), snapshot(1, job, waits))) == [1]
    assert victims(plan(policy(*teams), snapshot(1, replace(job, qos="training"), waits))) == []


def test_rebalancing_takes_from_the_larger_share():
    teams = [team("owner", 64), team("more", 0, fair_share_weight=1), team("less", 0, fair_share_weight=1)]
    jobs = [running(id, "more", f"n{id}") for id in range(1, 9)]
    waits = waiting(10, "less", tasks=8)
    assert victims(plan(policy(*teams), snapshot(8, *jobs, waits))) == []
    found, fair = snapshot(8, *jobs, waits), policy(*teams, rebalance=Rebalance.FINAL_SHARE)
    decided = plan(fair, found)
    assert len(victims(decided)) == 4
    assert (decided.caps["less"][H100], decided.caps["more"][H100]) == (0, 32)
    after = plan(fair, left(found, decided))
    assert after.caps["less"][H100] == after.caps["more"][H100] == 32


def test_a_spread_job_needs_its_memory_on_every_node():
    nodes = [Node(f"n{index}", ("gpu",), frozen({H100: 8}), 64, 4000) for index in (1, 2)]
    request = Request(frozen({H100: 12}), memory_per_node=4000)
    assert reason(plan(TWO, snapshot(nodes, waiting(1, "research", request=request))), 1) is Reason.STARTS_NOW
    busy = running(2, "product", "n2", gpus=1)
    waits = plan(TWO, snapshot(nodes, busy, waiting(1, "research", request=request)))
    assert reason(waits, 1) is Reason.WAITS_FOR_NODES


def test_a_cohorts_quota_is_its_own_even_while_others_hold_more_than_they_should():
    rules = policy(
        team("inner", 0, cohort="lab"),
        team("outer", 0),
        cohorts=frozen({"lab": Cohort("lab", None, frozen({"h100": Quota(8)}))}),
        lend_unallocated=False,
    )
    decided = plan(rules, snapshot(2, running(1, "outer", "n1"), waiting(10, "inner")))
    assert victims(decided) == []
    assert reason(decided, 10) is Reason.STARTS_NOW


@pytest.mark.parametrize(("protect_after", "starts"), [(None, Reason.STARTS_NOW), (50.0, Reason.TEAM_AT_LIMIT)])
def test_a_large_job_that_has_waited_long_is_not_overtaken_in_borrowing(protect_after, starts):
    """Its team holds 40 of at most 64: 32 more are too many until small ones end, if no others take their place."""
    rules = policy(team("research", 32, borrow=32), team("product", 64), protect_after=protect_after)
    jobs = [running(id, "research", f"n{id}") for id in range(1, 6)]
    large, small = waiting(10, "research", 4, priority=2000), waiting(11, "research", priority=1000)
    large, small = (replace(job, submit=NOW - 60) for job in (large, small))
    decided = plan(rules, snapshot(12, *jobs, large, small))
    assert reason(decided, 10) is Reason.TEAM_AT_LIMIT
    assert reason(decided, 11) is starts
    assert decided.caps["research"][H100] == (48 if protect_after is None else 40)


def test_an_exclusive_job_counts_for_all_gpus_of_its_nodes_even_if_it_asks_for_none():
    request = Request(min_nodes=2, cpus=2, exclusive=True)
    decided = plan(policy(team("research", 8)), snapshot(8, waiting(1, "research", request=request)))
    assert decided.caps["research"][H100] == 16
    assert "with it 16 of 8 h100" in decided.decisions[0].why


def test_a_partition_beside_the_pool_is_reported():
    nodes = [replace(node("n1"), partitions=("gpu", "debug")), node("n2")]
    (said,) = plan(policy(team("research", 8)), snapshot(nodes)).warnings
    assert "partition debug has nodes of pool h100" in said


def test_an_account_that_left_the_policy_with_a_cap_is_reported():
    caps = frozen({"former": frozen({H100: 40, "gres/gpu": 40}), "research": frozen({H100: 8}), "cpu": frozen({})})
    (said,) = plan(policy(team("research", 8)), snapshot(2, caps=caps)).warnings
    assert "account former is no team" in said
    assert "name=former set GrpTRES=gres/gpu=-1,gres/gpu:h100=-1" in said


def test_an_owner_is_told_whose_jobs_are_spared():
    jobs = [replace(job, requeueable=False) for job in full_of_research()]
    decided = plan(TWO, snapshot(8, *jobs, waiting(10, "product", 2)))
    assert "no room for 2 nodes with 8 h100 each" in decided.decisions[0].why
    assert "if_not_requeueable: never" in decided.decisions[0].why
