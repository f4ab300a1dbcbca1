"""The sentences of a plan have the figures that people ask for."""

from __future__ import annotations

from dataclasses import replace

from clusters import NOW, TWO, policy, running, snapshot, team, waiting

from slurm_gov.core.decision import Plan
from slurm_gov.core.plan import plan
from slurm_gov.core.policy import ClassRules, Policy, Preemption, frozen
from slurm_gov.core.snapshot import RunningJob

HOUR = 3600.0


def why(decided: Plan) -> str:
    return decided.decisions[0].why


def reasons(rules: Policy, *jobs: RunningJob, nodes: int = 1) -> dict[int, str]:
    """Why each victim goes for product's job 99, by job."""
    decided = plan(rules, snapshot(8, *jobs, waiting(99, "product", nodes=nodes)))
    return {one.job: one.reason.split("; ", 1)[1] for one in decided.preempt}


def full(**by_node: dict) -> list[RunningJob]:
    """Research on all eight nodes, the last one for an hour, each other one an hour longer than the next."""
    return [
        running(n, "research", f"n{n}", **({"start": NOW - (9 - n) * HOUR} | by_node.get(f"n{n}", {})))
        for n in range(1, 9)
    ]


def test_a_team_at_its_limit() -> None:
    rules = policy(team("research", 32, borrow=16), team("product", 32))
    jobs = [running(n, "research", f"n{n}") for n in range(1, 7)]
    assert why(plan(rules, snapshot(8, *jobs, waiting(99, "research")))) == (
        "team research holds 32 of 32 quota and 16 of 16 borrow of h100, and asks for 8 more"
    )


def test_nothing_to_borrow() -> None:
    rules = policy(team("research", 32), team("product", 32, lend=8))
    jobs = [running(n, "research", f"n{n}") for n in range(1, 6)]
    assert why(plan(rules, snapshot(8, *jobs, waiting(99, "research")))) == (
        "team research holds 32 of 32 quota and 8 borrowed of h100, and asks for 8 more; "
        "nothing is idle that it may borrow"
    )


def test_what_keeps_the_borrowers_that_an_owner_waits_for() -> None:
    strict = replace(TWO, preemption=Preemption(min_runtime=10 * HOUR))
    said = why(plan(strict, snapshot(8, *full(), waiting(99, "product"))))
    assert said.endswith(" (8 borrowers' jobs stay, 1 for another 2 h: it has not run for 10 h yet (min_runtime))")
    protected = replace(TWO, preemption=Preemption(classes=frozen({"training": ClassRules(protected=True)})))
    everywhere = running(8, "research", " ".join(f"n{n}" for n in range(1, 9)))
    said = why(plan(protected, snapshot(8, everywhere, waiting(99, "product"))))
    assert said.endswith(" (the borrower's job 8 stays: class training is protected)")


def test_why_the_last_started_goes_and_who_would_be_next() -> None:
    assert reasons(TWO, *full()) == {
        8: "team research held 64 of its quota of 32; it loses 8.0 GPU-hours since its start, class weight 50; "
        "the lowest class and then the last started goes first, next would be 7"
    }


def test_why_one_that_saved_its_work_goes_instead_of_the_last_started() -> None:
    assert reasons(TWO, *full(n3={"start": NOW - 9 * HOUR, "checkpoint": NOW - HOUR / 2})) == {
        3: "team research held 64 of its quota of 32; it loses 4.0 GPU-hours since its checkpoint; "
        "8, class weight 50, would lose 8.0"
    }


def test_why_the_only_one_that_may_go() -> None:
    classes = frozen({"inference": ClassRules(protected=True)})
    jobs = full(**{f"n{n}": {"qos": "inference"} for n in range(2, 9)})
    rules = replace(TWO, preemption=Preemption(classes=classes))
    assert reasons(rules, *jobs)[1].endswith("it loses 64.0 GPU-hours since its start; no other job may go")


def test_why_those_go_whose_nodes_make_room() -> None:
    """A small job on each of six nodes started last; two jobs of four GPUs share the last node."""
    small = [running(n, "research", f"n{n}", gpus=4, start=NOW - 60) for n in range(1, 7)]
    old = [running(10 + n, "research", f"n{n}", gpus=4, start=NOW - 3 * HOUR) for n in range(1, 7)]
    pair = [running(n, "research", "n7", gpus=4, start=NOW - HOUR) for n in (20, 21)]
    fill = running(30, "research", "n8", start=NOW - 5 * HOUR)
    found = reasons(TWO, *small, *old, *pair, fill)
    assert sorted(found) == [20, 21]
    assert "would be next, but makes no room where it is needed" in found[20]
