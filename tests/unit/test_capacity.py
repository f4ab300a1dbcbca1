"""The tree of teams and cohorts: what is kept, lent and shared, in figures that a person can work out."""

from __future__ import annotations

import random
from dataclasses import replace
from math import log

from clusters import H100, NOW, node, policy, running, snapshot, team

from slurm_gov.core.capacity import Ground, lately
from slurm_gov.core.policy import Cohort, Pool, Quota, Team, frozen
from slurm_gov.core.shares import SHARED, Shares, lent_by
from slurm_gov.core.snapshot import Node
from slurm_gov.core.victims import Line, as_victim, may_take_others


def cohort(name: str, parent: str | None = None, quota: int = 0, **limits: int | None) -> Cohort:
    return Cohort(name, parent, frozen({"h100": Quota(quota, **limits)}))


def test_what_could_be_lent_to_a_cohort_is_bounded_by_its_borrow_limit() -> None:
    rules = policy(
        team("a", 16, cohort="low"),
        team("b", 64, cohort="top"),
        cohorts=frozen({"top": cohort("top"), "low": cohort("low", "top", borrow=8)}),
    )
    shares = Shares(rules, {"h100": 80})
    assert shares.cohort("top").potential("h100") == 80
    assert shares.cohort("low").potential("h100") == 24
    shares.add("a", {"h100": 24})
    assert shares.holder("a").share().weighted == 8 * 1000 / 24


def test_a_cohorts_quota_is_not_lent_as_if_nobody_had_been_given_it() -> None:
    rules = policy(team("a", 16, cohort="c"), cohorts=frozen({"c": cohort("c", quota=32)}))
    assert Shares(rules, {"h100": 64}).unallocated("h100") == 16


def test_nodes_in_other_partitions_are_not_the_pools() -> None:
    beside = Node("x1", ("interactive",), frozen({H100: 8}), 64, 512_000)
    found = snapshot([node("n1"), node("n2", usable=False), beside])
    rules = policy(team("a", 8))
    assert Ground(rules, found.nodes).healthy == {"h100": 8}
    assert Ground(rules, found.nodes, all_usable=True).healthy == {"h100": 16}


def test_what_was_borrowed_lately_is_an_average_over_the_half_life() -> None:
    """Eight GPUs borrowed all the time leave 8 x half-life / ln 2 GPU-seconds."""
    rules = policy(team("a", 8), half_life=1000.0)
    borrowed = {"a": 8 * 1000.0 / log(2)}
    assert round(lately(rules, borrowed)["a"], 9) == 8
    assert lately(replace(rules, half_life=None), borrowed) == {}


def test_nobody_lends_more_than_its_limit() -> None:
    rules = policy(team("a", 32, lend=4), team("b", 32, lend=None), team("c", 0))
    shares = Shares(rules, {"h100": 64})
    shares.add("c", {"h100": 36})
    assert lent_by(rules, shares, "h100") == {"a": 4, "b": 32, "c": 0}
    shares.add("a", {"h100": 30})
    assert lent_by(rules, shares, "h100")["a"] <= 2


def test_the_outermost_cohorts_share_comes_first() -> None:
    """Who is served first is decided between the outermost cohorts before it is between their teams."""
    rules = policy(
        team("busy", 0, cohort="full"),
        team("calm", 0, cohort="full"),
        team("lone", 8, cohort="idle", fair_share_weight=1),
        cohorts=frozen(
            {"top": cohort("top", quota=64), "full": cohort("full", "top"), "idle": cohort("idle", "top")}
        ),
    )
    shares = Shares(rules, {"h100": 72})
    shares.add("busy", {"h100": 32})
    first, second = shares.shares_with("calm", {"h100": 8}), shares.shares_with("lone", {"h100": 8})
    assert len(first) == 6  # top, its cohort, the team: of each, whether it has no weight, and its share
    assert first[:2] == second[:2]
    assert first[2:4] > second[2:4]
    assert first[4:] == (True, 8 * 1000 / 72)
    assert first > second


def test_what_a_team_keeps_for_itself_is_not_asked_of_its_cohort() -> None:
    """Ant lends nothing of its 8, and uses 4: of 8 more it asks its cohort for 4, which are the cohort's own."""
    low = cohort("low", "top", quota=4)
    rules = policy(team("ant", 8, lend=0, cohort="low"), cohorts=frozen({"top": cohort("top"), "low": low}))
    shares = Shares(rules, {"h100": 32})
    shares.add("ant", {"h100": 4})
    assert shares.shares_with("ant", {"h100": 8})[2:4] == (False, 0.0)
    assert shares.shares_with("ant", {"h100": 9})[2:4] > (False, 0.0)
    assert may_take_others(rules, shares, "ant", {"h100": 8})
    assert not may_take_others(rules, shares, "ant", {"h100": 9})


def test_who_takes_what_is_its_own_of_several_pools_has_no_past() -> None:
    both = frozen({"h100": Quota(8), "a100": Quota(8)})
    rules = policy(Team("ant", both, fair_share_weight=1), team("bee", 64))
    rules = replace(rules, pools=frozen({**rules.pools, "a100": Pool("a100", ("old",), "gpu:a100")}))
    shares = Shares(rules, {"h100": 72, "a100": 8})
    shares.remember({"ant": 100.0}, {})
    assert shares.shares_with("ant", {"h100": 8, "a100": 8})[-2:] == (False, 0.0)
    assert shares.shares_with("ant", {"h100": 8, "a100": 9})[-1] > 100 * 1000 / 80


def test_who_comes_to_be_above_its_quota_is_preempted_in_its_turn() -> None:
    """Job 2 of ant's started last but one; its cohort comes to hold too much when bee gets something."""
    low = cohort("low", "top")
    rules = policy(
        team("ant", 0, cohort="low"),
        team("bee", 16, cohort="low"),
        team("cat", 0, cohort="top"),
        cohorts=frozen({"low": low, "top": cohort("top")}),
    )
    ran = [
        running(1, "cat", "n1", start=NOW - 3),
        running(2, "ant", "n2", start=NOW - 2),
        running(3, "cat", "n3", start=NOW - 1),
    ]
    victims = sorted((as_victim(rules, one.account, one) for one in ran), key=lambda one: one.order)
    shares = Shares(rules, {"h100": 32})
    for one in victims:
        shares.add(one.team, one.use)
    line = Line(rules, shares, victims, NOW)
    whole = [shares.cohort("top")]
    assert [one.job.id for one in line.within(whole)] == [3, 1]
    shares.give("bee", {"h100": 16})
    line.update("bee")
    assert [one.job.id for one in line.within(whole)] == [3, 2, 1]
    shares.remove("bee", {"h100": 16})
    line.update("bee")
    assert [one.job.id for one in line.within(whole)] == [3, 1]


def test_sharing_by_nobody_in_particular_is_one_cohort() -> None:
    shares = Shares(policy(team("a", 16), team("b", 16)), {"h100": 32})
    assert shares.related("a") == shares.related("b") == SHARED
    use = running(1, "a", "n1 n2 n3", gpus=8)
    shares.add("a", {"h100": sum(one.gpus[H100] for one in use.held)})
    assert shares.available("b", "h100") == 8


def test_what_would_be_available_if_some_were_not_used_is_what_is_when_it_is_not() -> None:
    """In trees with limits of every kind, by chance, from 0 to all that a team uses."""
    dice = random.Random(3)
    for _ in range(200):
        some = [cohort("top", None, dice.randrange(9), **_limits(dice))]
        some += [cohort(name, "top", dice.randrange(9), **_limits(dice)) for name in ("left", "right")]
        places = [dice.choice([None, "left", "right"]) for _ in "abcd"]
        teams = [
            team(name, dice.randrange(9), cohort=c, **_limits(dice)) for name, c in zip("abcd", places, strict=True)
        ]
        rules = policy(*teams, cohorts=frozen({one.name: one for one in some}))
        shares = Shares(rules, {"h100": dice.randrange(40)})
        for name in "abcd":
            shares.add(name, {"h100": dice.randrange(12)})
        for name in "abcd":
            for less in range(shares.usage(name, "h100") + 1):
                said = shares.available(name, "h100", less)
                with shares.trial():
                    shares.remove(name, {"h100": less})
                    assert said == shares.available(name, "h100")
                assert said == shares.available(name, "h100", less)


def _limits(dice: random.Random) -> dict[str, int | None]:
    return {limit: dice.choice([None, 0, dice.randrange(9)]) for limit in ("borrow", "lend")}
