"""Fairness over time: who borrowed much lately waits behind who did not."""

from __future__ import annotations

from dataclasses import replace
from math import log
from pathlib import Path

import pytest
from clusters import policy, running, snapshot, team, waiting

from slurm_gov.core.capacity import Subtree
from slurm_gov.core.decision import Reason
from slurm_gov.core.plan import plan
from slurm_gov.core.policy import Cohort, Idle, Policy, frozen
from slurm_gov.ledger import LedgerError, Span, borrowed_lately
from slurm_gov.ledger.lately import decayed, decayed_above

HALF = 1000.0


def rules(half_life: float | None = HALF, weights: tuple[int, int] = (1, 1), **more) -> Policy:
    """Two teams without quota share eight nodes."""
    teams = [team(name, 0, fair_share_weight=weight) for name, weight in zip(("ant", "bee"), weights, strict=True)]
    return policy(*teams, half_life=half_life, **more)


def started(rules: Policy, lately: dict[str, float], ants: int = 8, bees: int = 8) -> tuple[int, int]:
    """How many nodes each of two teams gets of eight, by what it borrowed lately (GPUs, on average)."""
    jobs = [waiting(100 + n, "ant") for n in range(ants)] + [waiting(200 + n, "bee") for n in range(bees)]
    seconds = {name: gpus * HALF / log(2) for name, gpus in lately.items()}
    decided = plan(rules, replace(snapshot(8, *jobs), borrowed_lately=frozen(seconds)))
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


# -- where it comes from -----------------------------------------------------------------------------------


def span(team: str, since: float, until: float, borrowed: int, pool: str = "h100") -> Span:
    return Span(team, pool, since, until, 0, 0, borrowed, borrowed, 0, 0, 0)


def test_what_is_a_half_life_old_counts_half() -> None:
    moment = [span("ant", 99, 100, 8)]
    now = decayed(moment, HALF, 100)["ant"]
    assert now == pytest.approx(8, rel=1e-3)
    assert decayed(moment, HALF, 100 + HALF)["ant"] == pytest.approx(now / 2)
    assert decayed(moment, HALF, 100 + 3 * HALF)["ant"] == pytest.approx(now / 8)


def test_whoever_always_borrowed_as_much_borrowed_that_much_on_average() -> None:
    ever = decayed([span("ant", 0, 100_000, 8)], HALF, 100_000)["ant"]
    assert ever * log(2) / HALF == pytest.approx(8)


def test_spans_and_pools_add_up_and_it_does_not_matter_how_they_are_cut() -> None:
    whole = decayed([span("ant", 0, 600, 8)], HALF, 700)
    parts = [span("ant", 0, 200, 8), span("ant", 200, 600, 4), span("ant", 200, 600, 4, "a100"), span("bee", 0, 9, 0)]
    assert decayed(parts, HALF, 700) == pytest.approx(whole)


def test_a_span_that_ends_later_than_now_does_not_grow() -> None:
    assert decayed([span("ant", 0, 200, 8)], HALF, 100) == pytest.approx(decayed([span("ant", 0, 100, 8)], HALF, 100))


def test_it_is_read_from_the_ledger(tmp_path: Path) -> None:
    from slurm_gov.ledger.ledger import Ledger

    path = tmp_path / "ledger.sqlite"
    with pytest.raises(LedgerError):
        borrowed_lately(path, HALF, 100, {})
    ledger = Ledger(path)
    ledger.start()
    held = [span("ant", 0, 100, 8), span("bee", 0, 100, 0)]
    ledger.record_spans(held)
    ledger.close()
    cohorts = {"lab": Subtree(frozenset({"ant"}), {"h100": 4})}
    found = borrowed_lately(path, HALF, 100, cohorts)
    assert found.teams == pytest.approx(decayed(held, HALF, 100))
    assert found.cohorts == pytest.approx(decayed_above(held, HALF, 100, cohorts))


# -- cohorts -------------------------------------------------------------------------------------------------


def above(quota: int, *held: Span, now: float = 1000.0) -> dict[str, float]:
    cohorts = {"lab": Subtree(frozenset({"ant", "bee"}), {"h100": quota}), "far": Subtree(frozenset({"cat"}), {})}
    return decayed_above(held, HALF, now, cohorts)


def one(borrowed: int, since: float = 0, until: float = 1000) -> float:
    """What is left of one team's borrowing so much."""
    return pytest.approx(decayed([span("ant", since, until, borrowed)], HALF, 1000)["ant"])


def test_what_the_teams_of_a_cohort_lend_one_another_it_has_not_borrowed() -> None:
    assert above(16, span("ant", 0, 1000, 12)) == {}
    assert above(16, span("ant", 0, 1000, 12), span("bee", 0, 1000, 8)) == {"lab": one(4)}


def test_only_while_they_use_more_than_all_quotas_together() -> None:
    """Ant uses 8 until 600, bee 8 from 400: 16 at once, of 12."""
    assert above(12, span("ant", 0, 600, 8), span("bee", 400, 1000, 8)) == {"lab": one(4, 400, 600)}


def test_each_pool_for_itself_and_in_any_order() -> None:
    held = span("ant", 0, 1000, 8), span("bee", 0, 1000, 8, "a100"), span("cat", 0, 1000, 1)
    assert above(4, *held) == above(4, *reversed(held)) == {"lab": one(12), "far": one(1)}


def test_a_cohort_that_borrowed_much_lately_waits_behind_one_that_did_not() -> None:
    """Its teams have no past of their own."""
    cohorts = {name: Cohort(name, "all", frozen({}), 1) for name in ("red", "blue")} | {"all": Cohort("all")}
    teams = [team("ant", 0, cohort="red", fair_share_weight=1), team("bee", 0, cohort="blue", fair_share_weight=1)]
    rules = policy(*teams, cohorts=frozen(cohorts), half_life=HALF)
    jobs = [waiting(100 + n, "ant") for n in range(8)] + [waiting(200 + n, "bee") for n in range(8)]
    lent = team("cat", 64, cohort="all")
    rules = replace(rules, teams=frozen({**rules.teams, "cat": lent}))

    def nodes(**gpus: float) -> tuple[int, int]:
        seconds = {name: amount * HALF / log(2) for name, amount in gpus.items()}
        decided = plan(rules, replace(snapshot(8, *jobs), cohorts_lately=frozen(seconds)))
        served = [one.team for one in decided.decisions if one.reason is Reason.STARTS_NOW]
        return served.count("ant"), served.count("bee")

    assert nodes() == (4, 4)
    assert nodes(red=16) == (3, 5)
    assert nodes(red=16, blue=16) == (4, 4)
    assert nodes(red=1000) == (0, 8)
