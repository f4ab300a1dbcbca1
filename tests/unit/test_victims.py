"""Whose jobs leave, where one rule alone makes the difference."""

from __future__ import annotations

from dataclasses import replace

from clusters import H100, NOW, node, policy, running, snapshot, team, waiting

from slurm_gov.core.plan import plan
from slurm_gov.core.policy import (
    BorrowPreempts,
    Cohort,
    Policy,
    Preemption,
    Quota,
    Rebalance,
    Reclaim,
    Victims,
    WithinTeam,
    frozen,
)
from slurm_gov.core.snapshot import Held, RunningJob, RunState, Snapshot


def victims(rules: Policy, seen: Snapshot) -> list[int]:
    return [one.job for one in plan(rules, seen).preempt]


def minutes(job: RunningJob, ran: float) -> RunningJob:
    return replace(job, start=NOW - 60 * ran)


def test_a_job_that_ends_already_is_waited_for() -> None:
    rules = policy(team("research", 0), team("product", 16))
    ending = minutes(running(1, "research", "n1", state=RunState.COMPLETING), 1)
    seen = snapshot(2, ending, minutes(running(2, "research", "n2"), 60), waiting(9, "product", 2))
    assert victims(rules, seen) == [2]


def test_what_ends_already_does_not_put_a_team_above_its_quota() -> None:
    """Seen in a storm: 48 of a quota of 48 ran, 5 were ending, and a job of 32 was preempted for another team."""
    rules = policy(team("product", 8), team("speech", 8))
    jobs = [running(1, "product", "n1"), running(2, "product", "n2", gpus=5, state=RunState.COMPLETING)]
    assert victims(rules, snapshot(2, *jobs, waiting(9, "speech"))) == []


def test_what_is_lent_goes_before_ones_own_however_little_that_costs() -> None:
    """Product's own job 1 is of a lower class and has just begun; it would take the rest back from job 2 for it."""
    rules = policy(team("product", 16), team("research", 0))
    jobs = [
        minutes(running(1, "product", "n1", qos="experiment"), 1),
        minutes(running(2, "research", "n2", qos="training"), 120),
        waiting(9, "product", qos="inference"),
    ]
    assert victims(rules, snapshot(2, *jobs)) == [2]


def test_who_cannot_be_requeued_goes_last() -> None:
    either = Preemption(cancel_unrequeueable=True, victims=Victims.IN_ORDER)
    rules = policy(team("research", 0), team("product", 16), preemption=either)
    jobs = [running(1, "research", "n1", qos="experiment", requeueable=False), running(2, "research", "n2")]
    assert victims(rules, snapshot(2, *jobs, waiting(9, "product"))) == [2]
    assert sorted(victims(rules, snapshot(2, *jobs, waiting(9, "product", 2)))) == [1, 2]


def test_reclaim_never_takes_nothing_back() -> None:
    rules = policy(team("research", 0), team("product", 16, reclaim=Reclaim.NEVER))
    jobs = [running(1, "research", "n1"), running(2, "research", "n2")]
    assert victims(rules, snapshot(2, *jobs, waiting(9, "product"))) == []


def test_the_work_that_is_lost_is_of_all_gpus_of_a_job() -> None:
    """Ten minutes on eight GPUs are more than a quarter of an hour on four."""
    jobs = [minutes(running(1, "research", "n1"), 10), minutes(running(2, "research", "n2", gpus=4), 15)]
    seen = snapshot(2, *jobs, waiting(9, "product"))
    teams = (team("research", 0), team("product", 16))
    assert victims(policy(*teams), seen) == [2]
    assert victims(policy(*teams, preemption=Preemption(victims=Victims.IN_ORDER)), seen) == [1]


def test_a_borrower_does_not_take_the_place_of_its_equals() -> None:
    rules = policy(team("mine", 8, borrow_preempts=BorrowPreempts()), team("other", 0), team("absent", 8))
    jobs = [running(1, "mine", "n1", qos="inference"), running(2, "other", "n2", qos="training")]
    assert victims(rules, snapshot(2, *jobs, waiting(9, "mine", qos="training"))) == []
    assert victims(rules, snapshot(2, *jobs, waiting(9, "mine", qos="inference"))) == [2]


def on_one_node(*jobs: RunningJob, ask: int) -> Snapshot:
    return snapshot([node("n1", gpus=16)], *jobs, waiting(9, "mine", gpus=ask, qos="inference"))


def test_staying_within_quota_is_tried_before_borrowing() -> None:
    """Of its own jobs the larger one would do if it borrowed one GPU; with both it stays within its quota."""
    rules = policy(team("mine", 10), team("other", 2))
    jobs = [
        running(1, "mine", "n1", gpus=5, qos="experiment"),
        running(2, "mine", "n1", gpus=3, qos="experiment"),
        running(3, "other", "n1", gpus=5, qos="experiment"),
    ]
    assert sorted(victims(rules, on_one_node(*jobs, ask=8))) == [1, 2]


def test_who_has_used_its_quota_takes_nothing_from_others_without_an_advantage() -> None:
    """Its own job must leave n2, and so must another team's: but what that one borrows is not its own to take."""
    mine = replace(
        running(1, "mine", "n1", qos="experiment"),
        held=tuple(Held(name, frozen({H100: 4}), 4, 1000) for name in ("n1", "n2")),
    )
    keeps = running(3, "absent", "n1", gpus=4)
    job = waiting(9, "mine", qos="inference")
    job = replace(job, request=replace(job.request, required_nodes=frozenset({"n2"})))
    rules = policy(team("mine", 8), team("absent", 8), team("other", 0))
    assert victims(rules, snapshot(2, mine, running(2, "other", "n2", gpus=4), keeps, job)) == []
    within = policy(team("mine", 12), team("absent", 4), team("other", 0))
    assert sorted(victims(within, snapshot(2, mine, running(2, "other", "n2", gpus=4), keeps, job))) == [1, 2]


# -- by fair share ---------------------------------------------------------------------------------------


def fair(*teams, rule: Rebalance = Rebalance.FINAL_THEN_INITIAL_SHARE, **more) -> Policy:
    return policy(*teams, rebalance=rule, **more)


def test_nothing_is_taken_from_who_borrows_nothing() -> None:
    """Others' use is within their quotas: theirs, however small the share of who waits is."""
    rules = fair(team("mine", 0, fair_share_weight=100), team("other", 16, fair_share_weight=1))
    jobs = [running(1, "other", "n1"), running(2, "other", "n2")]
    assert victims(rules, snapshot(2, *jobs, waiting(9, "mine"))) == []


def test_who_has_lost_all_that_it_borrowed_loses_no_more() -> None:
    """Of 24 GPUs of quota 16 are there: what the owner still lacks is the other's own."""
    jobs = [running(1, "other", "n1"), running(2, "other", "n2")]
    for rule in Rebalance:
        rules = fair(team("mine", 16), team("other", 8), rule=rule)
        assert victims(rules, snapshot(2, *jobs, waiting(9, "mine", 2))) == []
        assert len(victims(rules, snapshot(2, *jobs, waiting(9, "mine")))) == 1


def test_of_equal_shares_a_cohort_gives_before_a_team() -> None:
    """The cohort and the team hold the same above their quotas, with the same weight."""
    rules = fair(
        team("mine", 0, cohort="top", fair_share_weight=1),
        team("member", 0, cohort="low", fair_share_weight=1),
        team("single", 0, cohort="top", fair_share_weight=1),
        cohorts=frozen(
            {
                "top": Cohort("top", None, frozen({"h100": Quota(32)})),
                "low": Cohort("low", "top", frozen({}), fair_share_weight=1),
            }
        ),
    )
    jobs = [
        *(minutes(running(number, "member", f"n{number}"), 60) for number in (1, 2)),
        *(minutes(running(number, "single", f"n{number}"), 10) for number in (3, 4)),
    ]
    (victim,) = victims(rules, snapshot(4, *jobs, waiting(9, "mine")))
    assert victim in (1, 2)


def test_within_team_never_holds_for_fair_shares_too() -> None:
    rules = fair(team("mine", 16, preempt_within_team=WithinTeam.NEVER), team("other", 0))
    jobs = [running(1, "mine", "n1", qos="experiment"), running(2, "mine", "n2", qos="experiment")]
    assert victims(rules, snapshot(2, *jobs, waiting(9, "mine", qos="inference"))) == []
