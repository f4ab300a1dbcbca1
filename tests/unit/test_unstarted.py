"""Jobs that Slurm does not start although there seems to be room for them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from clusters import H100, NOW, policy, running, snapshot, team, waiting

from slurm_gov.core.actions import actions
from slurm_gov.core.decision import Reason
from slurm_gov.core.estimates import Estimates
from slurm_gov.core.plan import Planner, plan
from slurm_gov.core.policy import frozen
from slurm_gov.core.snapshot import Component, Mark, Request, Snapshot, Unstarted, WaitingJob
from slurm_gov.core.unstarted import FIRST, LONGEST, PATIENCE, TAKES_NOBODY, Patience, holds, in_short, noted

BOTH = policy(team("research", 16), team("product", 16))
JOB = waiting(9, "product", slurm_reason="Resources")


def last(id: int, account: str, nodes: int = 1, **more) -> WaitingJob:
    return waiting(id, account, nodes, comes_last=True, slurm_reason="Resources", **more)


def reasons(found) -> dict[int, Reason]:
    return {one.job: one.reason for one in found.decisions}


# -- when it is noticed ------------------------------------------------------------------------------------


def late(patience: Patience, job: WaitingJob, at: float, nodes: int = 1) -> dict[int, float]:
    found = replace(snapshot(nodes, job), now=NOW + at)
    return patience.overdue(found, plan(BOTH, found))


@pytest.mark.parametrize(("reason", "seconds"), sorted(PATIENCE.items()))
def test_who_may_start_for_long_and_does_not_is_late(reason: str, seconds: float) -> None:
    patience, job = Patience(), replace(JOB, slurm_reason=reason)
    assert late(patience, job, 0) == {}
    assert late(patience, job, seconds - 1) == {}
    assert late(patience, job, seconds) == {9: NOW}
    assert late(patience, job, seconds + 10) == {9: NOW}


def test_a_reason_with_a_list_of_nodes() -> None:
    patience, job = Patience(), replace(JOB, slurm_reason="ReqNodeNotAvail, UnavailableNodes:n1")
    assert [late(patience, job, at) for at in (0, 299, 300)] == [{}, {}, {9: NOW}]


@pytest.mark.parametrize(
    "other",
    [
        replace(JOB, slurm_reason="AssocGrpGRES"),  # our own cap, which is about to be raised
        replace(JOB, slurm_reason="None"),
        replace(JOB, comes_last=True),
        replace(JOB, part_of=8),
        replace(JOB, tasks=3),
        replace(JOB, submit=NOW - 1),
    ],
    ids=["our cap", "not looked at", "noted already", "a component", "a task has started", "requeued"],
)
def test_the_time_begins_anew(other: WaitingJob) -> None:
    patience = Patience()
    late(patience, JOB, 0)
    if other.part_of:
        assert late(patience, replace(waiting(8, "product"), others=(Component(("gpu",), JOB.request),)), 30) == {}
    else:
        assert late(patience, other, 30) == {}
    assert late(patience, JOB, 60) == {}
    assert late(patience, JOB, 89) == {}


def test_nor_is_one_for_which_there_is_no_room() -> None:
    patience = Patience()
    late(patience, JOB, 0)
    full = replace(snapshot(1, running(1, "product", "n1"), JOB), now=NOW + 30)
    assert patience.overdue(full, plan(BOTH, full)) == {}
    assert late(patience, JOB, 60) == {}


def test_it_is_noted_only_if_slurm_has_looked_at_it_since() -> None:
    found = replace(snapshot(1, JOB, waiting(10, "product")), now=NOW + 60)
    assert noted(found, {9: NOW}, {}) == []
    assert noted(found, {9: NOW}, {9: NOW + 1}) == []
    assert noted(found, {9: NOW}, {9: NOW + 2, 10: NOW + 2}) == [
        (JOB, Unstarted(NOW + 60, NOW + 60 + FIRST, in_short(JOB), "Resources"))
    ]


@pytest.mark.parametrize(("before", "then"), [(FIRST, 2 * FIRST), (LONGEST / 2 + 1, LONGEST), (LONGEST, LONGEST)])
def test_each_time_it_comes_last_for_twice_as_long(before: float, then: float) -> None:
    job = replace(JOB, unstarted=Unstarted(NOW - before - 60, NOW - 60, in_short(JOB), "Priority"))
    ((_, note),) = noted(snapshot(1, job), {9: NOW - 60}, {9: NOW})
    assert note.until - note.since == then


def test_what_it_asks_for_in_short_is_the_same_in_any_order() -> None:
    """Sets have another order in each process."""
    features = frozenset({frozenset("ab"), frozenset("c")})
    request = Request(frozen({H100: 8}), features=frozenset("xyz"), any_features=features)
    job = waiting(1, "product", request=request)
    assert in_short(job) == in_short(replace(job, id=2, priority=3))
    program = (
        "from clusters import waiting; from slurm_gov.core.unstarted import in_short; "
        "from slurm_gov.core.snapshot import Request; ways = frozenset({frozenset('ab'), frozenset('c')}); "
        "request = Request({'gres/gpu:h100': 8}, features=frozenset('xyz'), any_features=ways); "
        "print(in_short(waiting(1, 'product', request=request)))"
    )
    for seed in ("1", "2", "3"):
        here = {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        said = subprocess.run([sys.executable, "-c", program], env=here, capture_output=True, text=True, check=True)
        assert said.stdout.strip() == in_short(job)
    others = [
        replace(job, partitions=("old",)),
        replace(job, request=replace(request, min_nodes=2)),
        replace(job, request=replace(request, any_features=frozenset())),
        replace(job, others=(Component(("gpu",), request),)),
    ]
    assert len({in_short(one) for one in (job, *others)}) == 5


# -- what comes of it --------------------------------------------------------------------------------------


def test_what_it_could_have_is_lent() -> None:
    rules, lent = policy(team("research", 8), team("product", 16)), waiting(10, "research", 2)
    before = reasons(plan(rules, snapshot(2, waiting(9, "product", 2), lent)))
    assert before == {9: Reason.STARTS_NOW, 10: Reason.NOTHING_TO_BORROW}
    decided = plan(rules, snapshot(2, last(9, "product", 2), lent))
    assert reasons(decided) == {9: Reason.NOT_STARTED, 10: Reason.STARTS_NOW}
    assert decided.caps["product"][H100] == 16
    assert "did not start it where there seemed to be room for 2 nodes" in decided.decisions[0].why


def test_what_nobody_else_takes_stays_open_to_it() -> None:
    for quota, where in ((16, "within"), (0, "beyond")):
        rules = policy(team("research", 16), team("product", quota))
        decided = plan(rules, snapshot(3, last(9, "product", 2), waiting(10, "research")))
        assert reasons(decided) == {9: Reason.STARTS_NOW, 10: Reason.STARTS_NOW}
        assert decided.decisions[0].why.startswith(where)
        assert decided.caps["product"][H100] == 16


def test_nobody_leaves_for_it() -> None:
    lent = [running(id, "research", f"n{id}") for id in (1, 2, 3, 4)]
    assert plan(BOTH, snapshot(4, *lent, waiting(9, "product"))).preempt
    assert not plan(BOTH, snapshot(4, *lent, last(9, "product"))).preempt
    assert not plan(BOTH, snapshot(4, *lent, waiting(9, "product", takes_nobody=True))).preempt


def test_when_it_no_longer_comes_last_nobody_leaves_for_it_in_vain() -> None:
    """Slurm had found no nodes where there seemed to be room. What is only kept for a job ahead is another matter."""
    for reason, takes_nobody in (("Resources", True), ("Priority", False)):
        note = Unstarted(NOW, NOW + 600, "", reason)
        assert holds(note, NOW + 599) == (True, True)
        assert holds(note, NOW + 600) == (False, takes_nobody)
        assert holds(note, NOW + TAKES_NOBODY) == (False, False)
    assert holds(None, NOW) == (False, False)


def test_its_quota_is_its_own_whatever_was_lent() -> None:
    """Research borrows 8 of product's 16; two nodes that are nobody's are free."""
    rules = policy(team("research", 16), team("product", 16), lend_unallocated=False)
    lent = [running(id, "research", f"n{id}") for id in (1, 2, 3)]
    assert reasons(plan(rules, snapshot(5, *lent, last(9, "product", 2)))) == {9: Reason.STARTS_NOW}


def test_a_limit_holds_for_it_as_for_others() -> None:
    decided = plan(
        policy(team("product", 8, borrow=0), team("x", 8)), snapshot(2, last(9, "product", 1), last(10, "product", 1))
    )
    assert reasons(decided) == {9: Reason.STARTS_NOW, 10: Reason.NOT_STARTED}


def test_who_left_for_it_waits_for_it_no_longer() -> None:
    mark = Mark(9, "product", NOW - 50, NOW - 40, NOW - 1000)
    left = waiting(5, "research", mark=mark, slurm_reason="BeginTime", submit=NOW - 40, begin=NOW + 70)
    for job, released in ((waiting(9, "product"), 0), (last(9, "product"), 1)):
        found = snapshot(1, left, job)
        assert len(actions(BOTH, found, plan(BOTH, found)).release) == released


def test_nor_where_there_seems_to_be_room_again() -> None:
    mark = Mark(9, "product", NOW - 50, NOW - 40, NOW - 1000)
    left = waiting(5, "research", mark=mark, slurm_reason="BeginTime", submit=NOW - 40, begin=NOW + 10)
    for job, todo in ((waiting(9, "product"), (0, 2)), (last(9, "product"), (2, 0))):
        found = snapshot(2, left, replace(left, id=6), job)
        done = actions(BOTH, found, plan(BOTH, found))
        assert (len(done.release), len(done.wait_on)) == todo


def test_it_is_asked_for_all_the_same() -> None:
    decided = plan(BOTH, snapshot(1, last(9, "product", 1), waiting(10, "product", 1)))
    (standing,) = [one for one in decided.standings if one.team == "product"]
    assert (standing.waiting, standing.waiting_jobs) == (16, 2)


def test_there_is_no_estimate_for_it() -> None:
    found = snapshot(1, running(1, "product", "n1", time_limit=600.0), last(9, "product"), waiting(10, "product"))
    known = Estimates(BOTH, found, plan(BOTH, found))
    assert (known.of(9).start, known.of(10).start) == (None, NOW + 500)


def test_planned_again_as_notes_come_and_go() -> None:
    planner = Planner()
    jobs = [waiting(id, "product", submit=NOW - id) for id in (9, 10)]
    lasts = [replace(job, comes_last=True) for job in jobs]
    nodes = snapshot(1).nodes
    for step in [jobs, [lasts[0], jobs[1]], lasts, [jobs[0], lasts[1]], [lasts[0]], [], jobs[:1]]:
        found = Snapshot(NOW, nodes, (), tuple(step))
        assert planner.plan(BOTH, found) == plan(BOTH, found)
