"""Het jobs: all components start together, or none does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from clusters import H100, NOW, node, policy, running, snapshot, team, waiting

from slurm_gov.core.decision import Reason
from slurm_gov.core.estimates import Estimates
from slurm_gov.core.plan import Planner, plan
from slurm_gov.core.policy import Pool, Quota, frozen
from slurm_gov.core.snapshot import Component, Node, Request, WaitingJob

A100 = "gres/gpu:a100"
BOTH = policy(team("research", 16), team("product", 16))


def het(id: int, account: str, *requests: Request, partition: str = "gpu", **more) -> list[WaitingJob]:
    """The records of a het job: the first component has all of it, the others name it."""
    others = tuple(Component((partition,), one) for one in requests[1:])
    first = waiting(id, account, request=requests[0], others=others, **more)
    return [first] + [
        waiting(id + number, account, request=one, part_of=id, **more) for number, one in enumerate(requests[1:], 1)
    ]


def nodes(count: int, gpus: int = 8, **more) -> Request:
    return Request(frozen({H100: count * gpus}), min_nodes=count, gpus_per_node=gpus, cpus=count, **more)


def reasons(found) -> dict[int, Reason]:
    return {one.job: one.reason for one in found.decisions}


def test_all_of_it_starts_and_counts() -> None:
    found = plan(BOTH, snapshot(4, *het(1, "research", nodes(1), nodes(2))))
    assert set(reasons(found).values()) == {Reason.STARTS_NOW}
    assert found.caps["research"][H100] == 24
    assert "with it 24 of 16" in found.decisions[0].why
    assert found.decisions[1].why == found.decisions[0].why


def test_what_a_component_could_have_is_lent_while_another_finds_no_nodes() -> None:
    far = nodes(1, features=frozenset({"ib"}))  # one node has it, and it is taken
    here = [replace(node("n1"), features=frozenset({"ib"})), node("n2"), node("n3"), node("n4")]
    jobs = [running(9, "product", "n1"), *het(1, "research", nodes(2), far), waiting(5, "product", 3)]
    found = plan(policy(team("research", 24), team("product", 8)), snapshot(here, *jobs))
    assert reasons(found) == {1: Reason.WAITS_FOR_NODES, 2: Reason.WAITS_FOR_NODES, 5: Reason.STARTS_NOW}
    assert "no room for 1 node with 8 h100 and 2 nodes with 8 h100 each" in found.decisions[0].why


def test_an_owner_takes_back_what_all_components_need() -> None:
    lent = [running(id, "product", f"n{id}", start=NOW - 1000 + id) for id in range(1, 5)]
    found = plan(BOTH, snapshot(4, *lent, *het(11, "research", nodes(1), nodes(1))))
    assert [one.job for one in found.preempt] == [4, 3]
    assert {one.beneficiary for one in found.preempt} == {11}
    assert set(reasons(found).values()) == {Reason.RECLAIMING}


def test_an_owner_takes_back_what_is_where_any_component_may_go() -> None:
    """One may go to the first node alone, which is looked for first; the other to any."""
    here = [replace(node("n1"), features=frozenset({"ib"})), node("n2")]
    lent = [running(1, "product", "n1"), running(2, "product", "n2")]
    rules = policy(team("research", 16), team("product", 0))
    found = plan(rules, snapshot(here, *lent, *het(11, "research", nodes(1, features=frozenset({"ib"})), nodes(1))))
    assert sorted(one.job for one in found.preempt) == [1, 2]


def test_components_that_would_need_the_same_node_do_not_fit() -> None:
    found = plan(BOTH, snapshot(1, *het(1, "research", nodes(1, 4), nodes(1, 8))))
    assert set(reasons(found).values()) == {Reason.CAN_NEVER_RUN}
    assert set(reasons(plan(BOTH, snapshot(1, *het(1, "research", nodes(1, 4), nodes(1, 4))))).values()) == {
        Reason.STARTS_NOW
    }


def test_the_component_that_has_fewer_nodes_to_choose_from_goes_first() -> None:
    here = [node("n1", 4), node("n2", 8)]
    found = plan(BOTH, snapshot(here, *het(1, "research", nodes(1, 4), nodes(1, 8))))
    assert set(reasons(found).values()) == {Reason.STARTS_NOW}


def test_each_component_is_tried_first() -> None:
    """Four GPUs are free on two nodes: the spread one must not take the third, which the other needs whole."""
    held = [running(number, "guests", f"n{number}", gpus=4) for number in (2, 3)]
    spread = Request(frozen({H100: 8}), cpus=1)
    found = plan(BOTH, snapshot(3, *held, *het(1, "research", spread, nodes(1))))
    assert set(reasons(found).values()) == {Reason.STARTS_NOW}


def test_a_het_job_that_was_passed_over_is_no_easier_than_others() -> None:
    """Its other component waits for a node that product keeps; job 12 may take the place of its own team's."""
    here = [node("n1"), node("n2"), replace(node("n3"), memory=1_000_000)]
    own = [running(id, "research", f"n{id}", qos="experiment") for id in (1, 2)]
    waits = het(10, "research", nodes(1), nodes(1, 4, memory_per_node=600_000), priority=2000)
    jobs = [*own, running(3, "product", "n3"), *waits, waiting(12, "research", 2, qos="inference")]
    found = plan(policy(team("research", 16), team("product", 8)), snapshot(here, *jobs))
    assert {one.job: one.beneficiary for one in found.preempt} == {1: 12, 2: 12}


def test_components_of_two_pools_count_in_both() -> None:
    pools = {"h100": Pool("h100", ("gpu",), "gpu:h100"), "a100": Pool("a100", ("old",), "gpu:a100")}
    quotas = {"h100": Quota(8, 0), "a100": Quota(4, 0)}
    two = policy(replace(team("research", 0), quotas=frozen(quotas)))
    two = replace(two, pools=frozen(pools))
    old = Node("o1", ("old",), frozen({A100: 8}), 64, 512_000)

    def asked(a100: int) -> list[WaitingJob]:
        part = Request(frozen({A100: a100}), gpus_per_node=a100, cpus=1)
        return het(1, "research", nodes(1), part, partition="old")

    assert set(reasons(plan(two, snapshot([node("n1"), old], *asked(4)))).values()) == {Reason.STARTS_NOW}
    never = plan(two, snapshot([node("n1"), old], *asked(5)))
    assert set(reasons(never).values()) == {Reason.CAN_NEVER_RUN}
    assert "asks for 5 a100" in never.decisions[0].why


def test_a_component_without_gpus_is_left_to_slurm() -> None:
    cpus = Request(cpus=100)
    first = plan(BOTH, snapshot(2, *het(1, "research", cpus, nodes(1))))
    assert set(reasons(first).values()) == {Reason.STARTS_NOW}
    assert first.caps["research"][H100] == 16
    neither = plan(BOTH, snapshot(2, *het(1, "research", cpus, cpus)))
    assert set(reasons(neither).values()) == {Reason.NO_POOL}


def test_what_is_not_plain_in_a_component_is_so_for_all() -> None:
    lent = [running(id, "product", f"n{id}") for id in range(1, 5)]
    found = plan(BOTH, snapshot(4, *lent, *het(11, "research", nodes(1), nodes(1, plain=False))))
    assert found.preempt == ()


def test_what_holds_the_first_is_said_of_all() -> None:
    held = het(1, "research", nodes(1), nodes(1), held_back="its user holds it")
    assert set(reasons(plan(BOTH, snapshot(4, *held))).values()) == {Reason.NOT_READY}


def test_an_estimate_is_the_same_for_all() -> None:
    jobs = [running(1, "research", "n1 n2", time_limit=600.0), *het(11, "research", nodes(1), nodes(1))]
    found = snapshot(2, *jobs)
    known = Estimates(BOTH, found, plan(BOTH, found))
    assert known.of(12) == known.of(11)
    assert known.of(11).start == NOW + 500


def test_components_count_once_in_others_estimates() -> None:
    jobs = [
        *het(11, "research", nodes(1), nodes(1), time_limit=600.0),
        waiting(13, "research", time_limit=300.0, priority=10),
        waiting(14, "research", priority=5),
    ]
    rules = policy(team("research", 24))
    found = snapshot(3, *jobs)
    assert Estimates(rules, found, plan(rules, found)).of(14).start == NOW + 300


@pytest.mark.parametrize("order", [1, -1])
def test_planned_again_as_its_components_come_and_go(order: int) -> None:
    planner = Planner()
    jobs = [*het(11, "research", nodes(1), nodes(1)), waiting(5, "product", 4)]
    steps = [jobs, jobs[2:], jobs, [replace(jobs[0], priority=7), *jobs[1:]], jobs[2:]]
    here = [node(f"n{number}") for number in range(1, 5)]
    for step in steps:
        found = snapshot(here, *step[::order])
        assert planner.plan(BOTH, found) == plan(BOTH, found)
