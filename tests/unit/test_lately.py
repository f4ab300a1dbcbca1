"""Fairness over time: who borrowed much lately waits behind who did not, teams and cohorts."""

from __future__ import annotations

from dataclasses import replace
from math import log
from pathlib import Path

import pytest
from clusters import policy, running, snapshot, team, waiting

from slurm_gov.core.decision import Reason
from slurm_gov.core.plan import Planner, plan
from slurm_gov.core.policy import Cohort, Idle, Policy, Quota, frozen
from slurm_gov.core.shares import SHARED
from slurm_gov.ledger import LedgerError, Span, borrowed_lately
from slurm_gov.ledger.lately import Lately, decayed

HALF = 1000.0
_NONE = Quota()


def rules(half_life: float | None = HALF, weights: tuple[int, int] = (1, 1), **more) -> Policy:
    """Two teams without quota share eight nodes."""
    teams = [team(name, 0, fair_share_weight=weight) for name, weight in zip(("ant", "bee"), weights, strict=True)]
    return policy(*teams, half_life=half_life, **more)


def started(
    rules: Policy, lately: dict[str, float], ants: int = 8, bees: int = 8, cohorts: dict[str, float] | None = None
) -> tuple[int, int]:
    """How many nodes each of two teams gets of eight, by what each borrowed lately (GPUs, on average)."""
    jobs = [waiting(100 + n, "ant") for n in range(ants)] + [waiting(200 + n, "bee") for n in range(bees)]
    teams, theirs = ({name: gpus * HALF / log(2) for name, gpus in one.items()} for one in (lately, cohorts or {}))
    seen = replace(snapshot(8, *jobs), borrowed_lately=frozen(teams), cohorts_borrowed_lately=frozen(theirs))
    decided = plan(rules, seen)
    teams = [one.team for one in decided.decisions if one.reason is Reason.STARTS_NOW]
    return teams.count("ant"), teams.count("bee")


def test_without_a_past_they_get_the_same() -> None:
    assert started(rules(), {}) == (4, 4)


def test_who_borrowed_lately_waits_until_the_other_has_had_as_much() -> None:
    assert started(rules(), {"ant": 16}) == (3, 5)
    assert started(rules(), {"ant": 16, "bee": 16}) == (4, 4)
    assert started(rules(), {"ant": 1000}) == (0, 8)


def test_it_still_borrows_what_the_other_does_not_want() -> None:
    assert started(rules(), {"ant": 1000}, bees=2) == (6, 2)


def test_the_past_is_divided_by_the_weight_like_the_present() -> None:
    assert started(rules(weights=(3, 1)), {}) == (6, 2)
    assert started(rules(weights=(3, 1)), {"ant": 48, "bee": 16}) == (6, 2)


def test_without_a_half_life_or_with_first_come_the_past_does_not_count() -> None:
    assert started(rules(None), {"ant": 1000}) == (4, 4)
    assert started(rules(idle=Idle.FIRST_COME), {"ant": 1000}) == (8, 0)


def test_nobody_is_preempted_because_of_the_past() -> None:
    jobs = [running(n, "ant", f"n{n}") for n in range(1, 9)]
    seen = replace(snapshot(8, *jobs, waiting(99, "bee")), borrowed_lately=frozen({"ant": 1e9}))
    assert not plan(rules(), seen).preempt


def in_cohorts(left: int = 0, right: int = 0, weights: tuple[int, int] = (1, 1), top: str | None = "top") -> Policy:
    """Ant is alone in cohort left, bee in cohort right; each of these has so much quota, and its weight."""
    cohorts = [
        Cohort(name, top, frozen({"h100": Quota(quota)}), weight)
        for name, quota, weight in zip(("left", "right"), (left, right), weights, strict=True)
    ]
    if top is not None:
        cohorts.append(Cohort(top))
    teams = [team("ant", 0, cohort="left", fair_share_weight=1), team("bee", 0, cohort="right", fair_share_weight=1)]
    return policy(*teams, half_life=HALF, cohorts=frozen({one.name: one for one in cohorts}))


@pytest.mark.parametrize("top", ["top", None])
def test_a_cohort_that_borrowed_lately_waits_until_the_other_has_had_as_much(top: str | None) -> None:
    assert started(in_cohorts(top=top), {}) == (4, 4)
    assert started(in_cohorts(top=top), {}, cohorts={"left": 16}) == (3, 5)
    assert started(in_cohorts(top=top), {}, cohorts={"left": 16, "right": 16}) == (4, 4)
    assert started(in_cohorts(top=top), {}, cohorts={"left": 1000}) == (0, 8)
    assert started(in_cohorts(top=top), {}, cohorts={"left": 1000}, bees=2) == (6, 2)


def test_what_its_team_borrowed_does_not_count_against_a_cohort() -> None:
    assert started(in_cohorts(), {"ant": 1000}) == (4, 4)


def test_a_cohorts_past_is_divided_by_its_weight_like_its_present() -> None:
    assert started(in_cohorts(weights=(3, 1)), {}) == (6, 2)
    assert started(in_cohorts(weights=(3, 1)), {}, cohorts={"left": 48, "right": 16}) == (6, 2)


def test_a_cohort_without_a_weight_has_a_past_too() -> None:
    assert started(in_cohorts(weights=(0, 0)), {}, cohorts={"left": 16}) == (3, 5)


def test_within_its_own_quota_a_cohort_waits_for_nobody() -> None:
    """It could take it back at once."""
    assert started(in_cohorts(left=16), {}, cohorts={"left": 1000}) == (2, 6)


def test_teams_without_a_cohort_are_one_as_others_are() -> None:
    teams = [team("ant", 0, fair_share_weight=1), team("bee", 0, cohort="right", fair_share_weight=1)]
    rules = policy(*teams, half_life=HALF, cohorts=frozen({"right": Cohort("right")}))
    assert started(rules, {}) == (4, 4)
    assert started(rules, {}, cohorts={SHARED: 1000}) == (0, 8)
    assert started(rules, {}, cohorts={"right": 1000}) == (8, 0)


def test_the_past_of_the_outermost_cohort_comes_first() -> None:
    cohorts = [Cohort("top"), Cohort("left", "top"), Cohort("right", "top"), Cohort("inner", "left")]
    teams = [team("ant", 0, cohort="inner", fair_share_weight=1), team("bee", 0, cohort="right", fair_share_weight=1)]
    rules = policy(*teams, half_life=HALF, cohorts=frozen({one.name: one for one in cohorts}))
    assert started(rules, {}, cohorts={"inner": 1000}) == (4, 4)
    assert started(rules, {"bee": 1000}, cohorts={"inner": 1000, "left": 16}) == (3, 5)


def test_a_name_may_be_a_teams_and_a_cohorts() -> None:
    teams = [team("ant", 0, cohort="bee", fair_share_weight=1), team("bee", 0, cohort="ant", fair_share_weight=1)]
    rules = policy(*teams, half_life=HALF, cohorts=frozen({"ant": Cohort("ant"), "bee": Cohort("bee")}))
    assert started(rules, {"ant": 1000}, cohorts={"ant": 16}) == (5, 3)


def test_a_planner_that_remembers_forgets_a_past_that_is_over() -> None:
    jobs = [waiting(100 + n, "ant") for n in range(8)] + [waiting(200 + n, "bee") for n in range(8)]
    rules, seen, planner = in_cohorts(), snapshot(8, *jobs), Planner()
    for past in ({}, {"left": 1e9}, {"right": 1e9}, {}):
        found = replace(seen, cohorts_borrowed_lately=frozen(past), borrowed_lately=frozen({"ant": 1e3, "gone": 1.0}))
        assert planner.plan(rules, found) == plan(rules, found)


# -- where it comes from -----------------------------------------------------------------------------------


def held(since: float, until: float, used: int, who: str = "ant", quota: int = 0, pool: str = "h100"):
    """A team's balance in a pool, as the ledger has it."""
    return who, pool, since, until, used - quota


def lately(rules: Policy, *found: tuple, now: float = 100.0) -> Lately:
    """What was borrowed; nothing is so old that it would count less."""
    return decayed(sorted(found, key=lambda one: one[2]), rules, 1e9, now)


def test_what_is_a_half_life_old_counts_half() -> None:
    moment = [held(99, 100, 8)]
    now = decayed(moment, rules(), HALF, 100).teams["ant"]
    assert now == pytest.approx(8, rel=1e-3)
    assert decayed(moment, rules(), HALF, 100 + HALF).teams["ant"] == pytest.approx(now / 2)
    assert decayed(moment, rules(), HALF, 100 + 3 * HALF).teams["ant"] == pytest.approx(now / 8)


def test_whoever_always_borrowed_as_much_borrowed_that_much_on_average() -> None:
    ever = decayed([held(0, 100_000, 8)], rules(), HALF, 100_000).teams["ant"]
    assert ever * log(2) / HALF == pytest.approx(8)


def test_spans_and_pools_add_up_and_it_does_not_matter_how_they_are_cut() -> None:
    whole = decayed([held(0, 600, 8)], rules(), HALF, 700)
    parts = [held(0, 9, 0, "bee"), held(0, 200, 8), held(200, 600, 4), held(200, 600, 4, pool="a100")]
    assert decayed(parts, rules(), HALF, 700).teams == pytest.approx(whole.teams)


def test_a_span_that_ends_later_than_now_does_not_grow() -> None:
    shorter = decayed([held(0, 100, 8)], rules(), HALF, 100)
    assert decayed([held(0, 200, 8)], rules(), HALF, 100).teams == pytest.approx(shorter.teams)


def test_what_nobody_saw_counts_for_nothing() -> None:
    assert lately(rules(), held(0, 10, 8), held(50, 60, 8)).teams == {"ant": pytest.approx(160)}


def test_after_a_clock_that_was_set_back_nothing_counts_twice() -> None:
    assert lately(rules(), held(0, 60, 8), held(40, 80, 16)).teams == {"ant": pytest.approx(8 * 40 + 16 * 40)}
    assert lately(rules(), held(0, 90, 8), held(40, 60, 8)).teams == {"ant": pytest.approx(8 * 60)}


def test_teams_that_the_policy_no_longer_has_are_left_out() -> None:
    assert lately(rules(), held(0, 10, 8, "gone"), held(0, 10, 8, "bee")).teams == {"bee": pytest.approx(80)}


def tree(left: Quota = _NONE, ant: Quota = _NONE, cohort: str = "left") -> Policy:
    """Ant and bee are in cohort left, cat in cohort right, both in cohort top."""
    cohorts = [Cohort("top"), Cohort("left", "top", frozen({"h100": left})), Cohort("right", "top")]
    return policy(
        replace(team("ant", 0, cohort=cohort), quotas=frozen({"h100": ant})),
        team("bee", 8, cohort="left"),
        team("cat", 8, cohort="right"),
        half_life=HALF,
        cohorts=frozen({one.name: one for one in cohorts}),
    )


def test_what_teams_of_a_cohort_borrow_from_one_another_is_not_the_cohorts() -> None:
    found = lately(tree(), held(0, 100, 8), held(0, 100, 0, "bee", 8))
    assert found == ({"ant": pytest.approx(800)}, {})
    found = lately(tree(), held(0, 100, 12), held(0, 100, 0, "bee", 8))
    assert found == ({"ant": pytest.approx(1200)}, {"left": pytest.approx(400), "top": pytest.approx(400)})


def test_it_is_what_they_use_at_the_same_time() -> None:
    """Ant borrows what bee has just given back, and again."""
    found = lately(tree(), held(0, 50, 0, "bee", 8), held(50, 100, 8, "bee", 8), held(0, 50, 8), held(50, 100, 8))
    assert found.cohorts == {"left": pytest.approx(400), "top": pytest.approx(400)}


def test_what_a_cohort_borrows_from_another_is_not_that_of_the_one_above() -> None:
    found = lately(tree(), held(0, 100, 8), held(0, 100, 8, "bee", 8), held(0, 100, 2, "cat", 8))
    assert found.cohorts == {"left": pytest.approx(800), "top": pytest.approx(200)}


def test_what_is_not_lent_makes_up_for_nothing() -> None:
    keeps = tree(ant=Quota(8, lend=2))
    found = lately(keeps, held(0, 100, 0, quota=8), held(0, 100, 16, "bee", 8))
    assert found == ({"bee": pytest.approx(800)}, {"left": pytest.approx(600), "top": pytest.approx(600)})
    closed = tree(left=Quota(8, lend=0))
    assert lately(closed, held(0, 100, 16, "cat", 8)).cohorts == {
        "right": pytest.approx(800),
        "top": pytest.approx(800),
    }


def test_a_cohorts_own_quota_is_for_its_members() -> None:
    found = lately(tree(left=Quota(8)), held(0, 100, 12), held(0, 100, 8, "bee", 8))
    assert found == ({"ant": pytest.approx(1200)}, {"left": pytest.approx(400), "top": pytest.approx(400)})


def test_quotas_are_those_of_then_and_cohorts_those_of_now() -> None:
    found = [held(0, 100, 16, quota=16), held(0, 100, 8, "bee", 0), held(0, 100, 0, "cat", 8)]
    assert lately(tree(), *found) == ({"bee": pytest.approx(800)}, {"left": pytest.approx(800)})
    moved = tree(cohort="right")
    assert lately(moved, *found) == ({"bee": pytest.approx(800)}, {"left": pytest.approx(800)})
    more = [held(0, 100, 16, quota=0), *found[1:]]
    assert lately(moved, *more).cohorts["right"] == pytest.approx(800)


def test_where_all_teams_are_in_one_cohort_it_has_no_past() -> None:
    assert lately(rules(), held(0, 100, 8)).cohorts == {}


def test_teams_without_a_cohort_have_one_past_together() -> None:
    both = policy(
        team("ant", 0), team("bee", 8), team("cat", 0, cohort="right"), cohorts=frozen({"right": Cohort("right")})
    )
    assert lately(both, held(0, 100, 12), held(0, 100, 0, "bee", 8)).cohorts == {SHARED: pytest.approx(400)}


def test_it_is_read_from_the_ledger(tmp_path: Path) -> None:
    from slurm_gov.ledger.ledger import Ledger

    path = tmp_path / "ledger.sqlite"
    with pytest.raises(LedgerError):
        borrowed_lately(path, tree(), 100)
    ledger = Ledger(path)
    ledger.start()
    ant, bee = Span("ant", "h100", 0, 100, 0, 12, 12, 12, 0, 0, 0), Span("bee", "h100", 20, 100, 8, 8, 0, 0, 8, 0, 0)
    ledger.record_spans([bee, ant])
    ledger.close()
    expected = decayed([held(0, 100, 12), held(20, 100, 0, "bee", 8)], tree(), HALF, 100)
    assert borrowed_lately(path, tree(), 100) == (pytest.approx(expected.teams), pytest.approx(expected.cohorts))
    assert borrowed_lately(path, replace(tree(), half_life=None), 100) == ({}, {})
