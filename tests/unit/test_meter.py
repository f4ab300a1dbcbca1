"""What was held for how long, from single looks."""

from __future__ import annotations

from slurm_gov.core.decision import Standing
from slurm_gov.ledger import Span
from slurm_gov.ledger.meter import Held, Meter

RESEARCH = Standing("research", "h100", 16, 16, 24, 8, 0, 4, 1, 3)
PRODUCT = Standing("product", "h100", 16, 16, 0, 0, 8, 0, 0, 0)
NOTHING = Standing("idle", "h100", 0, 0, 0, 0, 0, 0, 0, 0)
CAPS = {("research", "h100"): 24}


def test_a_span_lasts_until_something_changes() -> None:
    meter = Meter()
    assert meter.look(100, [RESEARCH, PRODUCT, NOTHING], CAPS) == []
    assert meter.look(102, [RESEARCH, PRODUCT, NOTHING], CAPS) == []
    fewer = RESEARCH._replace(used=20, borrowed=4)
    assert meter.look(105, [fewer, PRODUCT, NOTHING], CAPS) == [
        Span("research", "h100", 100, 105, 16, 24, 24, 8, 0, 4, 1)
    ]
    meter.look(107, [fewer, PRODUCT], CAPS)
    assert meter.totals["research", "h100"] == Held(16 * 7, 8 * 5 + 4 * 2, 0)
    assert meter.totals["product", "h100"] == Held(0, 0, 8 * 7)
    assert meter.going_on() == [
        Span("research", "h100", 105, 107, 16, 24, 20, 4, 0, 4, 1),
        Span("product", "h100", 100, 107, 16, 16, 0, 0, 8, 0, 0),
    ]


def test_what_goes_on_is_written_once_a_minute() -> None:
    meter = Meter()
    meter.look(100, [RESEARCH], CAPS)
    written = [meter.look(100 + 10 * n, [RESEARCH], CAPS) for n in range(1, 13)]
    assert [len(spans) for spans in written] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]
    assert [(one.since, one.until) for spans in written for one in spans] == [(100, 160), (100, 220)]


def test_a_hole_is_nobodys() -> None:
    meter = Meter(gap=60)
    meter.look(100, [RESEARCH], CAPS)
    meter.look(110, [RESEARCH], CAPS)
    assert [(one.since, one.until) for one in meter.look(500, [RESEARCH], CAPS)] == [(100, 110)]
    meter.look(510, [RESEARCH], CAPS)
    assert meter.totals["research", "h100"] == Held(16 * 20, 8 * 20, 0)
    assert [(one.since, one.until) for one in meter.going_on()] == [(500, 510)]


def test_a_clock_that_steps_back_counts_nothing_twice() -> None:
    meter = Meter()
    meter.look(100, [RESEARCH], CAPS)
    meter.look(110, [RESEARCH], CAPS)
    meter.look(50, [RESEARCH], CAPS)
    meter.look(60, [RESEARCH], CAPS)
    assert meter.totals["research", "h100"] == Held(16 * 20, 8 * 20, 0)


def test_a_team_that_the_policy_drops_ends() -> None:
    meter = Meter()
    meter.look(100, [RESEARCH, PRODUCT], CAPS)
    assert [(one.team, one.since, one.until) for one in meter.look(105, [PRODUCT], {})] == [("research", 100, 105)]
    assert [one.team for one in meter.going_on()] == ["product"]


def test_a_team_that_is_new_counts_from_then_on() -> None:
    meter = Meter()
    meter.look(100, [PRODUCT], {})
    meter.look(105, [PRODUCT, RESEARCH], CAPS)
    meter.look(107, [PRODUCT, RESEARCH], CAPS)
    assert meter.totals["research", "h100"] == Held(16 * 2, 8 * 2, 0)
    assert [(one.team, one.since) for one in meter.going_on()] == [("product", 100), ("research", 105)]
