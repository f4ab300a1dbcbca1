"""A planner that remembers decides as one that does not, whatever comes back changed."""

from __future__ import annotations

from dataclasses import replace

from clusters import H100, NOW, TWO, node, policy, running, snapshot, team, waiting

from slurm_gov.core.plan import Planner, plan
from slurm_gov.core.policy import Policy, frozen
from slurm_gov.core.snapshot import Mark, Snapshot

RUNNING = [running(id, "research", f"n{id}") for id in range(1, 9)]
WAITING = [waiting(11, "product"), waiting(12, "research", priority=900), waiting(13, "guests", priority=800)]
BEFORE = snapshot(8, *RUNNING, *WAITING)


def same_as_new(second: Snapshot, rules: Policy = TWO, first: Snapshot = BEFORE, before: Policy = TWO) -> None:
    """The second cycle of a planner is as if it were its first."""
    planner = Planner()
    assert planner.plan(before, first) == plan(before, first)
    assert planner.plan(rules, second) == plan(rules, second)
    assert plan(rules, second) != plan(before, first), "nothing changed: this shows nothing"


def test_jobs_that_are_gone_and_new_ones() -> None:
    same_as_new(replace(BEFORE, running=tuple(RUNNING[2:])))
    same_as_new(replace(BEFORE, waiting=tuple(WAITING[1:])))
    same_as_new(replace(BEFORE, waiting=(waiting(10, "research", priority=2000), *WAITING)))
    same_as_new(replace(BEFORE, waiting=(*WAITING, waiting(10, "product", priority=1500))))


def test_a_line_of_many() -> None:
    """Only what changed is looked at, wherever it stands in line."""
    many = [waiting(id, "product", priority=100_000 - id) for id in range(1000, 1900)]
    for first, second in ((many[:-1], many), (many, many[:-1]), (many[1:], many), (many[2:], [many[0], *many[3:]])):
        same_as_new(replace(BEFORE, waiting=tuple(second)), first=replace(BEFORE, waiting=tuple(first)))


def test_jobs_that_changed() -> None:
    same_as_new(replace(BEFORE, waiting=(replace(WAITING[0], held_back="its user holds it"), *WAITING[1:])))
    same_as_new(replace(BEFORE, waiting=(WAITING[0], replace(WAITING[1], priority=5000), WAITING[2])))
    same_as_new(replace(BEFORE, running=(replace(RUNNING[0], account="product"), *RUNNING[1:])))
    same_as_new(replace(BEFORE, running=(replace(RUNNING[0], qos="inference"), *RUNNING[1:])))


def test_what_is_decided_of_the_same_job_changes() -> None:
    same_as_new(replace(BEFORE, running=()))


def test_who_started_and_has_to_wait_again_is_told_so() -> None:
    """In the first cycle the second of two equal jobs is told what both are told when somebody was faster."""
    rules = policy(team("ant", 8, borrow=0))
    both = [waiting(11, "ant"), waiting(12, "ant")]
    same_as_new(snapshot(1, running(1, "ant", "n1"), *both), rules, snapshot(1, *both), rules)


def test_what_is_owed_for_one_that_waits_no_longer() -> None:
    """While a job waits that left for another one, the other goes before all."""
    rules = policy(team("ant", 0), team("bee", 0), team("lender", 8))
    mark = Mark(12, "bee", NOW - 60, NOW - 30, NOW - 500)
    two = [waiting(11, "ant", priority=2000), waiting(12, "bee")]
    same_as_new(snapshot(1, *two), rules, snapshot(1, *two, waiting(13, "guests", mark=mark)), rules)


def test_another_policy() -> None:
    same_as_new(BEFORE, rules=policy(team("research", 48), team("product", 8), team("guests", 8)))


def test_other_accounts() -> None:
    same_as_new(replace(BEFORE, parents=frozen({"guests": "product", "product": "root", "research": "root"})))


def test_other_nodes() -> None:
    nine = replace(waiting(11, "product", 1, 9), priority=1000)
    first = snapshot(2, nine)
    grown = snapshot([node("n1"), node("n2", gpus=16)], nine)
    assert grown.nodes[1].gpus[H100] == 16
    same_as_new(grown, first=first)
    same_as_new(snapshot([node("n1"), node("n2", usable=False)], waiting(11, "product", 2)),
                first=snapshot(2, waiting(11, "product", 2)))  # fmt: skip
