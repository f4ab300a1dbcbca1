"""Quotas of CPUs and memory beside those of GPUs, and quotas in whole nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from clusters import H100, NOW, node, running, snapshot, waiting

from slurm_gov.core.decision import Plan, Reason
from slurm_gov.core.plan import Planner, plan
from slurm_gov.core.policy import Policy, Quota
from slurm_gov.core.snapshot import Held, Node, Request, RunningJob, Snapshot, WaitingJob
from slurm_gov.policy import PolicyError, dumps, loads

FILE = """\
pools: {{h100: {{partition: gpu, gres: "gpu:h100", gpus_per_node: 8}}}}
teams:
  research: {research}
  product: {product}
"""


def policy(research: str, product: str = "{quota: {h100: 32}}") -> Policy:
    return loads(FILE.format(research=research, product=product))


def job(id: int, account: str, cpus: int, gpus: int = 1, memory: int = 0, **more) -> WaitingJob:
    """A job on one node with so many CPUs and GPUs."""
    request = Request({H100: gpus}, 1, gpus, cpus=cpus, memory_per_node=memory)
    return waiting(id, account, request=request, **more)


def holds(id: int, account: str, on: str, cpus: int, gpus: int = 1, memory: int = 0) -> RunningJob:
    return replace(running(id, account, on), held=(Held(on, {H100: gpus}, cpus, memory),))


def reasons(decided: Plan) -> list[Reason]:
    return [one.reason for one in decided.decisions]


CPUS = "{quota: {h100: 32, h100/cpu: 128}, borrow: none}"


def test_a_team_is_held_to_its_quota_of_cpus() -> None:
    """64 CPUs a node; 32 GPUs are its own, 128 CPUs too."""
    rules = policy(CPUS)
    decided = plan(rules, snapshot(8, *(job(id, "research", 60) for id in (1, 2, 3)), job(4, "product", 60)))
    assert reasons(decided) == [Reason.STARTS_NOW, Reason.STARTS_NOW, Reason.TEAM_AT_LIMIT, Reason.STARTS_NOW]
    assert decided.decisions[2].why == (
        "team research holds 120 of 128 quota and 0 of 0 borrow of h100/cpu, and asks for 60 more"
    )


def test_a_team_without_such_a_quota_is_not_held() -> None:
    decided = plan(policy("{quota: {h100: 32}}"), snapshot(8, *(job(id, "research", 64) for id in range(1, 5))))
    assert set(reasons(decided)) == {Reason.STARTS_NOW}
    assert not {"cpu", "mem"} & decided.caps["research"].keys()


def test_the_cap_leaves_room_for_what_is_outside_the_pool() -> None:
    other = Node("c1", ("cpu",), {}, 1000, 9_000)
    nodes = [*(node(f"n{n}") for n in range(1, 9)), other]
    rules = policy("{quota: {h100: 32, h100/cpu: 128, h100/mem: 1T}, borrow: none}")
    caps = plan(rules, snapshot(nodes)).caps
    assert (caps["research"]["cpu"], caps["research"]["mem"]) == (128 + 1000, 1024 * 1024 + 9_000)
    assert not {"cpu", "mem"} & caps["product"].keys()


def test_who_asks_for_no_more_cpus_than_those_that_run_hold_is_not_kept_from_being_overtaken() -> None:
    """Job 10 asks for more GPUs than any of the team's jobs holds, and for these there is room; what it waits for is
    CPUs, of which it asks for as many as jobs 1 and 2 hold: when one of them ends it starts.
    """
    rules = replace(policy("{quota: {h100: 32, h100/cpu: 128}, borrow: none}"), protect_after=3600.0)
    runs = [holds(id, "research", f"n{id}", 50) for id in (1, 2)]
    waits = [job(10, "research", 50, 8, submit=NOW - 7200, priority=2000), job(11, "research", 8)]
    decided = plan(rules, snapshot(8, *runs, *waits))
    assert reasons(decided) == [Reason.TEAM_AT_LIMIT, Reason.STARTS_NOW]
    assert decided.behind == {}
    more = replace(waits[0], request=replace(waits[0].request, cpus=60))
    assert reasons(plan(rules, snapshot(8, *runs, more, waits[1]))) == [Reason.TEAM_AT_LIMIT] * 2


def test_cpus_are_lent_and_borrowed() -> None:
    rules = policy(
        "{quota: {h100: 32, h100/cpu: 128}, borrow: 50%}", "{quota: {h100: 32, h100/cpu: 384}, lend: {h100/cpu: 60}}"
    )
    seen = snapshot(8, *(job(id, "research", 60) for id in range(1, 5)))
    decided = plan(rules, seen)
    assert reasons(decided) == [Reason.STARTS_NOW, Reason.STARTS_NOW, Reason.STARTS_NOW, Reason.TEAM_AT_LIMIT]
    assert decided.caps["research"]["cpu"] == 180
    assert decided.caps["product"]["cpu"] == 384


def test_an_owner_takes_back_cpus() -> None:
    """Research holds all CPUs of all nodes, product's 256 among them, and few GPUs."""
    rules = policy("{quota: {h100: 32, h100/cpu: 256}, borrow: unlimited}", "{quota: {h100: 32, h100/cpu: 256}}")
    jobs = [holds(n, "research", f"n{n}", 64) for n in range(1, 9)]
    jobs[4] = replace(jobs[4], start=NOW - 10)
    decided = plan(rules, snapshot(8, *jobs, job(99, "product", 64)))
    assert [one.job for one in decided.preempt] == [5]
    assert decided.caps["research"]["cpu"] == 448


def test_memory_likewise() -> None:
    rules = policy("{quota: {h100: 32, h100/mem: 500G}, borrow: none}")
    decided = plan(rules, snapshot(8, *(job(id, "research", 1, memory=300_000) for id in (1, 2))))
    assert reasons(decided) == [Reason.STARTS_NOW, Reason.TEAM_AT_LIMIT]


def test_an_exclusive_job_counts_for_all_cpus_of_its_nodes() -> None:
    request = Request({H100: 1}, 1, 1, cpus=1, exclusive=True)
    two = [waiting(id, "research", request=request) for id in (1, 2, 3)]
    decided = plan(policy(CPUS), snapshot(8, *two))
    assert reasons(decided) == [Reason.STARTS_NOW, Reason.STARTS_NOW, Reason.TEAM_AT_LIMIT]


def test_a_job_that_can_never_have_so_many_cpus() -> None:
    decided = plan(policy("{quota: {h100: 32, h100/cpu: 16}, borrow: none}"), snapshot(8, job(1, "research", 20)))
    assert reasons(decided) == [Reason.CAN_NEVER_RUN]


@pytest.mark.parametrize(("reason", "ours"), [("AssocGrpCpuLimit", True), ("AssocGrpMemLimit", False)])
def test_a_cap_on_cpus_is_ours_only_where_the_team_has_a_quota_of_them(reason: str, ours: bool) -> None:
    held = job(1, "research", 8, slurm_reason=reason, held_back="a limit that the site set beside ours holds it")
    other = job(2, "product", 8, slurm_reason=reason, held_back="a limit that the site set beside ours holds it")
    decided = plan(policy(CPUS), snapshot(8, held, other))
    assert reasons(decided) == [Reason.STARTS_NOW if ours else Reason.NOT_READY, Reason.NOT_READY]


def test_a_cap_that_is_not_the_policys_is_reported() -> None:
    seen: Snapshot = snapshot(8, caps={"research": {"cpu": 5}, "product": {"mem": 7}})
    warnings = plan(policy(CPUS), seen).warnings
    assert len(warnings) == 1
    assert "team product has a cap on mem in Slurm that is not the policy's" in warnings[0]


# -- the file ----------------------------------------------------------------------------------------------


def test_amounts_and_limits() -> None:
    rules = policy(
        "{quota: {h100: 32, h100/cpu: 100, h100/mem: 2T}, borrow: 16, lend: 50%}",
        "{quota: {h100: {nodes: 4}, h100/cpu: 10}, borrow: {h100: 8, h100/cpu: none}}",
    )
    assert rules.teams["research"].quotas == {
        "h100": Quota(32, borrow=16, lend=16),
        "h100/cpu": Quota(100, borrow=50, lend=50),  # 16 of 32 GPUs, so half of the CPUs
        "h100/mem": Quota(2 * 1024 * 1024, borrow=1024 * 1024, lend=1024 * 1024),
    }
    assert rules.teams["product"].quotas == {"h100": Quota(32, borrow=8), "h100/cpu": Quota(10, borrow=0)}
    assert loads(dumps(rules)).teams == rules.teams


def test_cohorts_have_them_too() -> None:
    text = FILE.format(research="{quota: {h100: 8, h100/cpu: 10}, cohort: lab}", product="{quota: {h100: 8}}")
    rules = loads(text + "cohorts: {lab: {quota: {h100: {nodes: 1}, h100/cpu: 30}, borrow: 50%}}\n")
    assert rules.cohorts["lab"].quotas == {"h100": Quota(8, borrow=8), "h100/cpu": Quota(30, borrow=20)}
    assert loads(dumps(rules)).cohorts == rules.cohorts


@pytest.mark.parametrize(
    ("quota", "problem"),
    [
        ("{h100: {nodes: 4.5}}", "write a number of nodes from 0"),
        ("{h100: {node: 4}}", "write a number of accelerators, or {nodes: 4} for whole nodes"),
        ("{h100: 4T}", 'is memory: "4T"; write a number; memory is h100/mem'),
        ("{h100: 4, h100/cpus: 4}", "is no resource of a pool; write h100, h100/cpu or h100/mem"),
        ("{h100: 4, h100/cpu: {nodes: 4}}", "is in whole nodes; write a number; only h100 itself may be {nodes: 4}"),
        ("{h100: 4, h100/cpu: 4G}", 'is memory: "4G"'),
        ("{h100/cpu: 4}", "has no accelerators beside it, so the pool is closed to the team; add h100: 0, or more"),
        ("{b200/cpu: 4}", "is no pool of this file"),
    ],
)
def test_mistakes(quota: str, problem: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy(f"{{quota: {quota}}}")
    assert problem in str(caught.value.report())


def test_whole_nodes_need_to_know_how_many_accelerators_one_has() -> None:
    text = FILE.format(research="{quota: {h100: {nodes: 4}}}", product="{quota: {h100: 8}}")
    with pytest.raises(PolicyError) as caught:
        loads(text.replace(", gpus_per_node: 8", ""))
    assert "add gpus_per_node to pool h100" in str(caught.value.report())


# -- jobs without GPUs -------------------------------------------------------------------------------------

BOTH = policy("{quota: {h100: 8, h100/cpu: 128}, borrow: unlimited}", "{quota: {h100: 8, h100/cpu: 128}}")


def cpus(id: int, account: str, count: int, **more) -> WaitingJob:
    request = Request(cpus=count, **more.pop("request", {}))
    return waiting(id, account, request=request, **more)


def test_a_job_without_gpus_takes_back_its_teams_cpus() -> None:
    """Research holds 192 of the 256 CPUs of four nodes, 64 of them product's."""
    lent = [holds(id, "research", f"n{id}", 64, gpus=1) for id in (1, 2, 3)]
    decided = plan(BOTH, snapshot(4, *lent, cpus(9, "product", 100)))
    assert reasons(decided) == [Reason.RECLAIMING]
    assert [one.team for one in decided.preempt] == ["research"]
    assert "team product takes back h100/cpu within its quota of 128 for job 9" in decided.preempt[0].reason
    assert "research held 192 of its quota of 128" in decided.preempt[0].reason


def test_a_job_without_gpus_borrows_cpus() -> None:
    held = holds(1, "research", "n1", 60)
    decided = plan(BOTH, snapshot(4, held, cpus(8, "research", 130), cpus(9, "research", 69)))
    assert reasons(decided) == [Reason.STARTS_NOW, Reason.NOTHING_TO_BORROW]
    assert decided.caps["research"]["cpu"] == 190


def test_a_job_without_gpus_is_where_cpus_are_free() -> None:
    foreign = [holds(id, "strangers", f"n{id}", 60) for id in (1, 2, 3, 4)]
    decided = plan(BOTH, snapshot(4, *foreign, cpus(8, "product", 13), cpus(9, "product", 4)))
    assert reasons(decided) == [Reason.STARTS_NOW, Reason.WAITS_FOR_NODES]
    assert "no room for 4 CPUs of h100" in decided.decisions[1].why


def test_a_job_without_gpus_that_has_no_such_quota_is_left_to_slurm() -> None:
    only_gpus = policy("{quota: {h100: 8}}")
    assert reasons(plan(only_gpus, snapshot(1, cpus(1, "research", 8)))) == [Reason.NO_POOL]
    elsewhere = replace(cpus(1, "research", 8), partitions=("gpu", "cpu"))
    assert reasons(plan(BOTH, snapshot(1, elsewhere))) == [Reason.NO_POOL], "it may run in a partition of no pool"


def test_memory_alone_is_asked_for_too() -> None:
    rules = policy("{quota: {h100: 8, h100/mem: 100G}, borrow: none}")
    few, many = ({"memory_per_node": gib * 1024} for gib in (100, 101))
    jobs = cpus(1, "research", 4, request=few), cpus(2, "research", 4, request=many)
    decided = plan(rules, snapshot(1, *jobs))
    assert reasons(decided) == [Reason.STARTS_NOW, Reason.CAN_NEVER_RUN]


def test_what_a_job_without_gpus_holds_is_free_again_when_it_has_left() -> None:
    """The room by CPUs follows what is taken and given."""
    planner = Planner()
    one, two = (replace(running(id, "research", "n1"), held=(Held("n1", {}, 40, 0),)) for id in (1, 2))
    for held, starts in (([one], False), ([], True), ([two], False)):
        found = snapshot(1, *held, cpus(9, "research", 30))
        decided = planner.plan(BOTH, found)
        assert decided == plan(BOTH, found)
        assert (reasons(decided) == [Reason.STARTS_NOW]) is starts
