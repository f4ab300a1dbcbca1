"""Fairness over time: who borrowed much lately waits behind who did not."""

from __future__ import annotations

from dataclasses import replace
from math import log
from pathlib import Path

import pytest
from clusters import policy, running, snapshot, team, waiting

from slurm_gov.core.decision import Reason
from slurm_gov.core.plan import plan
from slurm_gov.core.policy import Idle, Policy, frozen
from slurm_gov.ledger import LedgerError, Span, borrowed_lately
from slurm_gov.ledger.lately import decayed

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
        borrowed_lately(path, HALF, 100)
    ledger = Ledger(path)
    ledger.start()
    ledger.record_spans([span("ant", 0, 100, 8), span("bee", 0, 100, 0)])
    ledger.close()
    assert borrowed_lately(path, HALF, 100) == pytest.approx(decayed([span("ant", 0, 100, 8)], HALF, 100))
