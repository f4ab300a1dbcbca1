"""A planner that remembers earlier cycles decides as one that has just begun, whatever came, went and changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import slurm_model
from hypothesis import given, settings
from hypothesis import strategies as st
from test_played_on import Storm, run_storm, storms
from worlds import NOW, World, pick, with_loans, worlds

from slurm_gov.core.decision import Plan, Reason
from slurm_gov.core.plan import Planner, plan
from slurm_gov.core.policy import Policy, frozen
from slurm_gov.core.snapshot import Mark, Node, RunningJob, RunState, Snapshot, WaitingJob


def agree(planner: Planner, policy: Policy, snapshot: Snapshot) -> Plan:
    """The plan, if a planner with a past and one without agree on it, and on it again."""
    fresh = plan(policy, snapshot)
    for _ in range(2):
        again = planner.plan(policy, snapshot)
        assert again == fresh
        told = [id(job) for verdict in again.decisions.verdicts for job in verdict.jobs]
        assert sorted(told) == sorted(map(id, snapshot.waiting)), "each job is in one verdict"
    return fresh


@settings(max_examples=150)
@given(storms(30.0))
def test_it_agrees_all_through_a_storm(storm: Storm) -> None:
    planner = Planner()
    slurm_model.plan, saved = (lambda policy, snapshot: agree(planner, policy, snapshot)), slurm_model.plan
    try:
        run_storm(storm.slurm, storm.arrivals)
        for _ in range(8):
            storm.slurm.cycle()
            storm.slurm.pass_time()
    finally:
        slurm_model.plan = saved


def changed_node(node: Node, how: str) -> Node:
    match how:
        case "sick":
            return replace(node, usable=not node.usable, state="DOWN")
        case "state":
            return replace(node, state="MIXED")
        case "more":
            return replace(node, cpus=node.cpus * 2)
    return node


def changed_running(job: RunningJob, how: str) -> RunningJob:
    match how:
        case "ends":
            return replace(job, state=RunState.COMPLETING)
        case "marked":
            return replace(job, mark=Mark(101, "ant", NOW, NOW + 30, job.start))
        case "equal":
            return replace(job)
        case "less":
            return replace(job, held=job.held[:1])
    return job


def changed_waiting(job: WaitingJob, how: str) -> WaitingJob:
    match how:
        case "held":
            return replace(job, held_back="" if job.held_back else "held by its user")
        case "priority":
            return replace(job, priority=job.priority + 700)
        case "class":
            return replace(job, qos="inference")
        case "equal":
            return replace(job)
        case "tasks":
            return replace(job, tasks=job.tasks + 1)
        case "marked":
            return replace(job, mark=Mark(101 + job.id % 3, "ant", NOW - 60, NOW - 30, NOW - 500))
    return job


@st.composite
def histories(draw: st.DrawFn) -> list[World]:
    """A cluster, and the same again and again with a few things changed; at times one of another policy."""
    world = draw(worlds())
    seen = [world]
    others = draw(worlds())
    for _ in range(draw(st.integers(1, 5))):
        snapshot = seen[-1].snapshot

        def some(things: tuple[Any, ...], change: Any, ways: list[str]) -> tuple[Any, ...]:
            kept = [one for one in things if draw(pick([True, True, True, False])) or change is changed_node]
            return tuple(change(one, draw(pick(["same", "same", "same", *ways]))) for one in kept)

        snapshot = replace(
            snapshot,
            now=snapshot.now + draw(pick([0.0, 20.0, 400.0])),
            nodes=some(snapshot.nodes, changed_node, ["sick", "state", "more"]),
            running=some(snapshot.running, changed_running, ["ends", "marked", "equal", "less"]),
            ended=some(snapshot.ended, changed_running, ["equal"]),
            waiting=some(
                snapshot.waiting, changed_waiting, ["held", "priority", "class", "equal", "tasks", "marked"]
            ),
        )
        if draw(pick([False, False, False, True])):  # a node is gone, whatever ran on it
            snapshot = replace(snapshot, nodes=snapshot.nodes[:-1])
        if draw(pick([False, False, False, True])):  # what was borrowed lately has become another amount
            snapshot = with_loans(draw, world.policy, snapshot)
        if draw(pick([False] * 7 + [True])):  # an account has moved
            snapshot = replace(snapshot, parents=frozen({**snapshot.parents, "lab": draw(pick(["root", "ant"]))}))
        if draw(pick([False, False, True])):  # somebody new
            known = {job.id for job in snapshot.waiting}
            new = tuple(job for job in world.snapshot.waiting if job.id not in known)
            snapshot = replace(snapshot, waiting=snapshot.waiting + new)
        seen.append(World(draw(pick([world.policy] * 4 + [others.policy])), snapshot))
    return seen


@settings(max_examples=400)
@given(histories())
def test_it_agrees_whatever_changes(history: list[World]) -> None:
    planner = Planner()
    for world in history:
        agree(planner, world.policy, world.snapshot)


def test_what_is_unchanged_is_told_again() -> None:
    """The point of it: the same records in, the very same verdicts out, not equal ones."""
    from bench.cluster import cluster

    policy, snapshot = cluster(100, calm=True)
    planner = Planner()
    first = planner.plan(policy, snapshot)
    second = planner.plan(policy, replace(snapshot, now=snapshot.now + 5))
    wait = (Reason.TEAM_AT_LIMIT, Reason.NOTHING_TO_BORROW, Reason.BORROW_DOES_NOT_FIT)
    starts = {one.team for one in first.decisions.verdicts if one.reason not in wait}
    waits = [one for one in first.decisions.verdicts if one.team not in starts]
    assert len(waits) > 10
    assert {id(one) for one in waits} <= {id(one) for one in second.decisions.verdicts}


def test_a_planner_that_failed_starts_anew() -> None:
    """An error in the middle of a cycle must not leave half a plan behind."""
    from bench.cluster import cluster

    policy, snapshot = cluster(100, calm=False)
    planner = Planner()
    planner.plan(policy, snapshot)
    broken = replace(snapshot, now="not a time")  # type: ignore[arg-type]
    try:
        planner.plan(policy, broken)
    except TypeError:
        pass
    else:
        raise AssertionError("it did not fail")
    assert planner.plan(policy, snapshot) == plan(policy, snapshot)
