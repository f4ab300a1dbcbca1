"""The decisions of a plan, written out when they are read, and what is new in them."""

from __future__ import annotations

from dataclasses import replace

from clusters import policy, snapshot, team, waiting

from slurm_gov.core.decision import Decision, Decisions, News, Reason, Verdict
from slurm_gov.core.plan import Planner

FIRST, SECOND, THIRD = (waiting(id, "ant", priority=priority) for id, priority in ((7, 10), (3, 30), (5, 20)))
LIMIT = (Reason.TEAM_AT_LIMIT, "team {} asks for {} more", ("{ant}", 8))
STARTS = (Reason.STARTS_NOW, "{}", ("100% {idle}",))


def told() -> Decisions:
    """Jobs 3, 5 and 7, in this order; the one in the middle starts."""
    verdicts = [Verdict("ant", "h100", LIMIT, [SECOND, FIRST]), Verdict("ant", "h100", STARTS, [THIRD])]
    return Decisions([SECOND, THIRD, FIRST], verdicts)


def test_they_are_in_slurms_order_with_their_figures() -> None:
    waits = "team {ant} asks for 8 more"
    assert list(told()) == [
        Decision(3, "3", "ant", "h100", Reason.TEAM_AT_LIMIT, waits),
        Decision(5, "5", "ant", "h100", Reason.STARTS_NOW, "100% {idle}"),
        Decision(7, "7", "ant", "h100", Reason.TEAM_AT_LIMIT, waits),
    ]
    assert (len(told()), told()[1].job, [one.job for one in told()[1:]]) == (3, 5, [5, 7])


def test_they_are_equal_if_they_say_the_same() -> None:
    apart = [Verdict("ant", "h100", LIMIT, [SECOND]), Verdict("ant", "h100", LIMIT, [FIRST])]
    assert Decisions([SECOND, THIRD, FIRST], [*apart, told().verdicts[1]]) == told()
    assert Decisions([SECOND, FIRST], apart) != told()
    assert Decisions() != told()


def test_some_can_be_read_alone() -> None:
    assert [one.job for one in told().having({Reason.TEAM_AT_LIMIT})] == [3, 7]
    assert [one.job for one in told().having({Reason.TEAM_AT_LIMIT, Reason.STARTS_NOW})] == [3, 5, 7]
    assert told().having({Reason.NO_TEAM}) == []
    assert told().reasons({5, 7, 9}) == {5: Reason.STARTS_NOW, 7: Reason.TEAM_AT_LIMIT}


def test_news_is_who_waits_for_another_reason() -> None:
    news, first = News(), told()
    assert [one.job for one in news.of(first)] == [3, 5, 7]
    assert news.of(first) == []
    # Other figures are no news, and neither is another verdict of the same reason.
    figures = Verdict("ant", "h100", (*LIMIT[:2], ("ant", 16)), [SECOND, FIRST])
    assert news.of(Decisions(first.line, [figures, first.verdicts[1]])) == []
    waits = Verdict("ant", "h100", LIMIT, [THIRD])
    assert [one.job for one in news.of(Decisions(first.line, [figures, waits]))] == [5]


def test_who_comes_back_is_news() -> None:
    news, first = News(), told()
    news.of(first)
    assert news.of(Decisions([SECOND, FIRST], first.verdicts[:1])) == []
    assert [one.job for one in news.of(first)] == [5]


def test_a_plan_that_was_read_late_says_what_it_said() -> None:
    """A later plan shares what it is made of with an earlier one, which somebody may read after it was made."""
    rules = policy(team("ant", 8))
    jobs = [waiting(id, "ant", priority=100 - 10 * id) for id in (1, 2, 3)]
    waits = snapshot(1, *jobs, waiting(5, "ant", priority=1, held_back="its user holds it"))
    planner, expected = Planner(), list(Planner().plan(rules, waits).decisions)
    early = planner.plan(rules, waits)
    late = planner.plan(rules, replace(waits, waiting=(*jobs[1:], waiting(4, "ant"))))
    last = planner.plan(rules, replace(waits, waiting=()))
    assert list(early.decisions) == expected
    assert [(one.job, one.reason is Reason.STARTS_NOW) for one in late.decisions] == [
        (4, True),
        (2, False),
        (3, False),
    ]
    assert last.decisions.verdicts == []
