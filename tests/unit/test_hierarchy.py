"""A cohort as a whole has a claim on its quota: Kueue's reclaim within hierarchical cohorts, in whole plans."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from clusters import NOW, left, policy, running, snapshot, team, waiting

from slurm_gov.core.decision import Plan, Reason
from slurm_gov.core.plan import plan
from slurm_gov.core.policy import Cohort, Policy, Quota, Reclaim, frozen


def tree(left: Cohort | None = None, right: Cohort | None = None, **ant) -> Policy:
    """Ant (16) and bee (16) in cohort left, cat (0) and dog (32) in cohort right, both in cohort top."""
    cohorts = (Cohort("top"), left or Cohort("left", "top"), right or Cohort("right", "top"))
    return policy(
        team("ant", 16, cohort="left", **ant),
        team("bee", 16, cohort="left"),
        team("cat", 0, cohort="right"),
        team("dog", 32, cohort="right"),
        cohorts=frozen({one.name: one for one in cohorts}),
    )


# Ant uses its quota, cat borrows six nodes: dog's four and bee's two.
ANTS = [running(n, "ant", f"n{n}") for n in (1, 2)]
CATS = [running(n, "cat", f"n{n}", start=NOW - 1000 + n) for n in range(3, 9)]


def victims(decided: Plan) -> list[tuple[int, str]]:
    return [(one.job, one.team) for one in decided.preempt]


def test_a_team_above_its_quota_reclaims_what_its_cohort_is_owed() -> None:
    found = snapshot(8, *ANTS, *CATS, waiting(99, "ant"))
    decided = plan(tree(), found)
    assert victims(decided) == [(8, "cat")]
    assert decided.decisions[0].reason is Reason.RECLAIMING
    assert "cohort left takes back h100 within its quotas of 32 for job 99 of team ant" in decided.preempt[0].reason
    assert decided.caps["ant"]["gres/gpu:h100"] == 16, "nobody else of ant starts beyond its quota meanwhile"
    after = plan(tree(), left(found, decided))
    assert after.decisions[0].reason is Reason.STARTS_NOW
    assert after.caps["ant"]["gres/gpu:h100"] == 24


def test_only_as_far_as_the_cohorts_quota_goes() -> None:
    decided = plan(tree(), snapshot(8, *ANTS, *CATS, *(waiting(n, "ant") for n in (97, 98, 99))))
    assert victims(decided) == [(8, "cat"), (7, "cat")]
    assert [one.reason for one in decided.decisions] == [
        Reason.RECLAIMING,
        Reason.RECLAIMING,
        Reason.NOTHING_TO_BORROW,
    ]


def test_the_member_whose_quota_it_is_takes_it_back_from_the_other_member() -> None:
    jobs = [running(n, "ant", f"n{n}", start=NOW - 1000 + n) for n in range(1, 5)] + [
        running(n, "dog", f"n{n}") for n in range(5, 9)
    ]
    assert victims(plan(tree(), snapshot(8, *jobs, waiting(99, "bee")))) == [(4, "ant")]


def test_within_the_cohort_a_borrower_takes_nothing_from_a_borrower() -> None:
    jobs = [running(n, "ant" if n < 5 else "dog", f"n{n}") for n in range(1, 9)]
    assert victims(plan(tree(), snapshot(8, *jobs, waiting(99, "ant")))) == []


def test_nothing_from_a_cohort_that_is_within_its_own_quota() -> None:
    cats = [running(n, "cat", f"n{n}") for n in range(3, 7)]
    bees = [running(n, "bee", f"n{n}") for n in range(7, 9)]
    decided = plan(tree(), snapshot(8, *ANTS, *cats, *bees, waiting(99, "ant")))
    assert victims(decided) == []


@pytest.mark.parametrize("rule", [{"borrow": 0}, {"reclaim": Reclaim.NEVER}])
def test_what_forbids_it(rule: dict[str, Any]) -> None:
    assert victims(plan(tree(**rule), snapshot(8, *ANTS, *CATS, waiting(99, "ant")))) == []


def test_a_lower_priority_only_where_the_team_reclaims_that_way() -> None:
    rules = tree(reclaim=Reclaim.LOWER_PRIORITY)
    mixed = [replace(job, qos="experiment" if job.id == 5 else "inference") for job in CATS]
    assert victims(plan(rules, snapshot(8, *ANTS, *mixed, waiting(99, "ant")))) == [(5, "cat")]


def test_a_cohorts_own_quota_counts_too() -> None:
    left = Cohort("left", "top", frozen({"h100": Quota(8)}))
    three = policy(
        team("ant", 16, cohort="left"),
        team("cat", 0, cohort="right"),
        cohorts=frozen({"top": Cohort("top"), "left": left, "right": Cohort("right", "top")}),
        lend_unallocated=False,
    )
    jobs = [*ANTS, running(3, "cat", "n3")]
    seen = snapshot(3, *jobs, waiting(98, "ant"), waiting(99, "ant"))
    decided = plan(three, seen)
    assert victims(decided) == [(3, "cat")]
    assert decided.decisions[1].reason is not Reason.RECLAIMING
