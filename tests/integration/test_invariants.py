"""What watches the storm sees what it is there to see: by hand-made observations, without Slurm."""

from __future__ import annotations

from dataclasses import replace

import pytest
from invariants import SETTLE, STALLED, Invariants, Job, Observation, Run

from slurm_gov.policy import loads

POLICY = """
pools: {h100: {partition: gpu, gres: "gpu:h100"}}
teams:
  a: {quota: {h100: 16}, borrow: 8, cohort: c}
  b: {quota: {h100: 16}, borrow: unlimited, lend: 4, cohort: c}
cohorts: {c: {}}
"""
MARK = "[slurm-gov preempt for={0} team={1} since=100 until=102 run=50: why]"


def job(
    id: int, team: str, gpus: int = 8, state: str = "R", mark: str = "", reason: str = "None", **more: int
) -> Job:
    held = {"gres/gpu:h100": gpus} if state == "R" else {}
    return Job(id, 0, state, reason, team, held, (f"n{id}",), "50", mark, **more)


def watched(
    *observations: tuple[float, list[Job], dict[str, int]],
    free: int = 0,
    counted: dict[tuple[str, str], int] | None = None,
    **facts: object,
) -> list[str]:
    watch = Invariants(loads(POLICY), {"h100": 40})
    for name, value in facts.items():
        setattr(watch, name, value)
    for now, jobs, caps in observations:
        limits = {team: {"gres/gpu:h100": cap} for team, cap in caps.items()}
        watch.watch(Observation(now, tuple(jobs), limits, {"h100": (free,)}, counted))
    return [line.partition(": ")[2] for line in watch.broken]


def run(job: int, start: float = 50, end: float = 101, **more: int) -> Run:
    return Run(job, "COMPLETED", start, end, "a", "h100", 8, **more)


def taken(jobs: list[Job], *runs: Run, then: list[Job] | None = None) -> list[str]:
    """What is said of those who are told to leave at 100, and then at 105, if these are all runs."""
    watch = Invariants(loads(POLICY), {"h100": 40})
    for now, seen in ((100.0, jobs), (105.0, then)):
        if seen is not None:
            watch.watch(Observation(now, tuple(seen), {team: {"gres/gpu:h100": cap} for team, cap in CAPS.items()}))
    watch.judge_takings(runs)
    return watch.broken


CAPS = {"a": 24, "b": 32}


def test_a_quiet_cluster() -> None:
    jobs = [job(1, "a"), job(2, "a"), job(3, "a"), job(4, "b")]
    assert watched(*((float(now), jobs, CAPS) for now in range(60))) == []


def test_a_cap_below_the_quota() -> None:
    assert watched((0.0, [], {"a": 15, "b": 16})) == ["a's cap of h100 is 15, its quota 16"]
    assert watched((0.0, [], {"b": 16})) == ["a's cap of h100 is None, its quota 16"]


def test_use_above_the_cap_for_long() -> None:
    jobs = [job(1, "a"), job(2, "a"), job(3, "a")]
    found = watched(*((float(now), jobs, {"a": 16, "b": 16}) for now in range(int(SETTLE) + 3)))
    assert found == ["for 21 s: a holds 24 h100 beside jobs that are told to leave, and its cap is 16"]
    leaving = [*jobs[:2], job(3, "a", mark=MARK.format(9, "b"))]
    assert watched(*((float(now), leaving, {"a": 16, "b": 16}) for now in range(int(SETTLE) + 3))) == []


def test_more_than_the_borrow_limit() -> None:
    jobs = [job(number, "a") for number in range(4)]
    assert watched((0.0, jobs, {"a": 40, "b": 16})) == [
        "a holds 32 h100, and may hold 24 (16 above quotas, 0 before)"
    ]


def test_what_an_owner_takes_nobody_keeps_from_it() -> None:
    """Together a and b may hold 36. B borrows all of it that a leaves; then a starts within its quota."""
    both = POLICY.replace("cohorts: {c: {}}", "cohorts: {c: {borrow: 4}}")
    borrows, starts = [job(number, "b") for number in range(4)], job(9, "a")
    assert watched((0.0, borrows, CAPS), (1.0, [*borrows, starts], CAPS), policy=loads(both)) == []
    more = job(10, "b")
    found = watched((0.0, borrows, CAPS), (1.0, [*borrows, starts], CAPS), (50.0, [*borrows, starts, more], CAPS),
                    policy=loads(both))  # fmt: skip
    assert found == ["c holds 48 h100, and may hold 36 (24 above quotas, 16 before)"]


def test_more_than_is_lent() -> None:
    """Of a's quota all is lent, of b's 4, and 8 are in no quota: 28."""
    jobs = [job(number, "b") for number in range(6)]
    assert watched((0.0, jobs[:5], {"a": 16, "b": 48})) == []
    assert watched((0.0, jobs, {"a": 16, "b": 48})) == ["32 h100 are borrowed, and no more than 28 can be lent"]


def test_somebody_within_quota_preempted_for_another_team() -> None:
    mine = [job(1, "a"), job(2, "a", mark=MARK.format(9, "b"))]
    runs = [run(number) for number in (1, 2, 3, 4)]
    assert "is preempted: its team held at most 16" in taken(mine, *runs[:2])[0]
    assert taken(mine, *runs[:3]) == []
    two = [job(1, "a"), job(2, "a", mark=MARK.format(9, "b")), job(3, "a", mark=MARK.format(9, "b"))]
    assert "and 2 of its jobs with 16 are taken at once" in taken(two, *runs[:3])[0]
    assert taken(two, *runs) == []
    # Who had ended before, began later, or is another's, was not held then.
    for other in (run(5, 0, 80), run(5, 103, 110), replace(run(5), account="b"), replace(run(5), pool="a100")):
        assert taken(mine, *runs[:2], other) != []
    assert taken(mine, *runs[:2], run(5, 100, 100)) == [], "a run too short to be seen"
    within_team = [job(1, "a"), job(2, "a", mark=MARK.format(9, "a"))]
    assert taken(within_team, *runs[:2]) == []


def test_twice_for_the_same() -> None:
    first = [job(1, "a"), job(2, "a"), job(3, "a", mark=MARK.format(9, "b"))]
    mark = first[2].comment.replace("since=100", "since=105").replace("run=50", "run=70")
    again = [*first[:2], Job(3, 0, "R", "None", "a", {"gres/gpu:h100": 8}, ("n1",), "70", mark)]
    assert watched((0.0, first, CAPS), (5.0, again, CAPS)) == ["job 3 is preempted for 9 a second time"]
    assert watched((0.0, first, CAPS), (5.0, again, CAPS), arrays={9}) == []
    spared = [*first[:2], job(3, "a", mark=MARK.format(9, "b").replace(": why", " spared: why"))]
    assert watched((0.0, first, CAPS), (2.0, spared, CAPS), (5.0, again, CAPS)) == []


def test_whom_it_left_for_is_said_by_its_last_mark() -> None:
    """It was spared and told again for another between two looks."""
    looks = [[job(1, "a"), job(3, "a", mark=MARK.format(whom, "b"))] for whom in (9, 8)]
    comment = MARK.format(9, "b").replace("run=50", "run=70")
    again = [job(1, "a"), Job(3, 0, "R", "None", "a", {"gres/gpu:h100": 8}, ("n1",), "70", comment)]
    wrong = "job 3 is preempted for 9 a second time"
    assert wrong not in watched((0.0, looks[0], CAPS), (2.0, looks[1], CAPS), (5.0, again, CAPS))
    assert wrong in watched((0.0, looks[1], CAPS), (2.0, looks[0], CAPS), (5.0, again, CAPS))
    # Or by the one that it waits with: it was noted anew in the moment in which it went.
    waits = [job(1, "a"), job(3, "a", state="PD", mark=MARK.format(8, "b"))]
    assert wrong not in watched((0.0, looks[0], CAPS), (2.0, waits, CAPS), (5.0, again, CAPS))
    waits = [job(1, "a"), job(3, "a", state="PD", mark=MARK.format(9, "b"))]
    assert wrong in watched((0.0, looks[1], CAPS), (2.0, waits, CAPS), (5.0, again, CAPS))


def test_one_that_cannot_be_requeued() -> None:
    jobs = [job(1, "a"), job(2, "a"), job(3, "a", mark=MARK.format(9, "b"))]
    assert watched((0.0, jobs, CAPS), keep={3}) == ["job 3 cannot be requeued and is preempted"]


@pytest.mark.parametrize(("reason", "stalls"), [("Resources", True), ("BeginTime", False)])
def test_a_team_that_waits_within_its_quota(reason: str, stalls: bool) -> None:
    jobs = [job(1, "a"), job(2, "a", state="PD", reason=reason)]
    times = [10.0 * step for step in range(int(STALLED / 10) + 3)]
    found = watched(*((now, jobs, CAPS) for now in times), small={2}, demand={2: ("a", "h100", 8)})
    assert bool(found) is stalls
    assert found == [] or "a has waited" in found[0]


def test_where_a_small_job_could_borrow_something_starts() -> None:
    """A holds its quota and waits; b uses nothing, and of its 16 it lends 4; 8 are nobody's."""
    waits = job(5, "a", state="PD", reason="Resources")
    times = [10.0 * step for step in range(int(STALLED / 10) + 3)]

    def found(gpus: int, free: int, *others: Job) -> list[str]:
        jobs = [job(1, "a"), job(2, "a"), waits, *others]
        looks = ((now, jobs, CAPS) for now in times)
        return watched(*looks, free=free, small={5}, demand={5: ("a", "h100", gpus)})

    assert found(8, 24) == ["h100 has lain idle, and could be lent: 100 s with [5] and no start"]
    assert found(8, 19) == [], "12 of them are b's own"
    assert found(8, 7) == [], "on no node is enough"
    assert found(9, 24) == [], "a may borrow 8"
    assert found(8, 16, job(3, "b", state="R", gpus=12)) != [], "b uses what it keeps"


def test_who_left_may_start_again_when_the_one_that_it_left_for_has() -> None:
    """Whichever component of a het job was told to."""
    left = job(3, "a", state="PD", reason="BeginTime", mark=MARK.format(9, "b"), restarts=1, het=2)
    first = job(2, "a", state="PD", reason="BeginTime", restarts=1, het=2)
    waits = job(9, "b", state="PD")
    looks = [(float(now), [first, left], CAPS) for now in range(int(SETTLE) + 3)]
    assert watched(*looks) == ["for 21 s: job 2 left for 9, which waits no more, and may not start yet"]
    assert watched(*((now, [*jobs, waits], caps) for now, jobs, caps in looks)) == []
    assert watched(*looks[:15], (15.0, [], CAPS), *looks[16:]) == []


def test_a_het_job_leaves_as_a_whole() -> None:
    """One of its components is told to; those of one decision are judged by what all of them hold."""
    mark = MARK.format(9, "b")
    parts = [job(2, "a", het=2), job(3, "a", mark=mark, het=2)]
    runs = [run(1), run(2, het=2), run(3, het=2)]
    assert taken([job(1, "a"), *parts], *runs) == []
    assert "and 2 of its jobs with 24 are taken at once" in taken([job(1, "a", mark=mark), *parts], *runs)[0]
    assert watched((0.0, [job(1, "a"), *parts], CAPS), keep={2}) == ["job 2 cannot be requeued and is preempted"]


def test_what_was_told_to_leave_before_counts_as_gone() -> None:
    """At 100 the first may go, at 105 no other: unless the first was spared, or has left and another has come."""
    first, second = MARK.format(9, "b"), MARK.format(8, "b").replace("since=100", "since=105")
    jobs = [job(1, "a"), job(2, "a"), job(3, "a", mark=first)]
    runs = [run(number, end=110) for number in (1, 2, 3)]
    later = [job(1, "a"), job(2, "a", mark=second), jobs[2]]
    assert "and 2 of its jobs with 16 are taken at once" in taken(jobs, *runs, then=later)[0]
    spared = [job(1, "a"), job(2, "a", mark=second), job(3, "a", mark=first.replace(": why", " spared: why"))]
    assert taken(jobs, *runs, then=spared) == []
    gone = [run(1, end=110), run(2, end=110), run(3, end=101), run(4, start=103, end=110)]
    assert taken(jobs, *gone, then=[job(1, "a"), job(2, "a", mark=second), job(4, "a")]) == []
    back = [*gone[:3], run(3, start=103, end=110)]
    again = replace(job(3, "a"), start="103")
    assert taken(jobs, *back, then=[job(1, "a"), job(2, "a", mark=second), again]) == []


def test_those_of_no_team_are_let_be() -> None:
    assert watched((0.0, [job(1, "x", gpus=40)], CAPS)) == []
    for told in (job(1, "x", mark=MARK.format(9, "b")), job(1, "x", restarts=1)):
        assert "which is no team, was stopped or told to" in watched((0.0, [told], CAPS), (1.0, [told], CAPS))[0]
    assert watched((0.0, [], CAPS | {"x": 8})) == ["account x is no team, and has caps: {'gres/gpu:h100': 8}"]


def test_the_governor_counts_what_squeue_shows() -> None:
    jobs = [job(1, "a"), job(2, "a", het=2), job(3, "a", het=2), job(4, "x")]
    looks = [(float(now), jobs, CAPS) for now in range(int(SETTLE) + 3)]
    assert watched(*looks, counted={("a", "h100"): 24, ("b", "h100"): 0, ("", "h100"): 8}) == []
    assert watched(*looks, counted={("a", "h100"): 16, ("b", "h100"): 0, ("", "h100"): 0}) == [
        "for 21 s: the governor counts 16 h100 of a, and squeue shows 24",
        "for 21 s: the governor counts 0 h100 of no team, and squeue shows 8",
    ]


def test_an_exclusive_job_has_its_nodes_for_itself() -> None:
    assert watched((0.0, [job(1, "a"), job(2, "a")], CAPS), exclusive={1: 8}) == []
    said = "exclusive job 1 holds 1 GPUs of 8, beside jobs []"
    assert watched((0.0, [job(1, "a", gpus=1)], CAPS), exclusive={1: 8}) == [said]
    beside = replace(job(2, "a"), nodes=("n1",))
    assert watched((0.0, [job(1, "a"), beside], CAPS), exclusive={1: 8}) == [
        "exclusive job 1 holds 8 GPUs of 8, beside jobs [2]"
    ]
