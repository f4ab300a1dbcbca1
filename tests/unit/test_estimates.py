"""When waiting jobs may start, from the time limits of what runs."""

from __future__ import annotations

from dataclasses import replace

from clusters import NOW, TWO, being_preempted, node, policy, running, snapshot, team, waiting

from slurm_gov.core.estimates import Estimate, Estimates
from slurm_gov.core.plan import plan
from slurm_gov.core.policy import Policy
from slurm_gov.core.snapshot import Snapshot

HOUR = 3600.0
STRICT = policy(team("research", 32, borrow=0), team("product", 32, borrow=0))


def estimate(rules: Policy, seen: Snapshot, job: int) -> Estimate:
    return Estimates(rules, seen, plan(rules, seen)).of(job)


def four_of_research(**more) -> list:
    """Its whole quota, ending one after another: 1 in an hour, 4 in four."""
    return [running(n, "research", f"n{n}", start=NOW - HOUR, time_limit=(n + 1) * HOUR, **more) for n in range(1, 5)]


def test_a_job_that_starts_now() -> None:
    assert estimate(TWO, snapshot(8, waiting(9, "research")), 9).start == NOW


def test_a_job_at_its_teams_limit_waits_for_the_first_that_ends() -> None:
    found = estimate(STRICT, snapshot(8, *four_of_research(), waiting(9, "research")), 9)
    assert found == Estimate(NOW + HOUR, "when 1 reaches its time limit")


def test_a_larger_job_waits_for_more_of_them() -> None:
    found = estimate(STRICT, snapshot(8, *four_of_research(), waiting(9, "research", nodes=3)), 9)
    assert found == Estimate(NOW + 3 * HOUR, "when 3 reaches its time limit")


def test_the_line_of_its_team_goes_first() -> None:
    ahead = waiting(8, "research", nodes=2, priority=2000, time_limit=HOUR / 2)
    seen = snapshot(8, *four_of_research(), ahead, waiting(9, "research", nodes=2, priority=1000))
    decided = plan(STRICT, seen)
    estimates = Estimates(STRICT, seen, decided)
    assert estimates.of(9) == Estimate(NOW + 2.5 * HOUR, "when 8, which is ahead of it, reaches its time limit")
    assert estimates.of(8) == Estimate(NOW + 2 * HOUR, "when 2 reaches its time limit")
    assert Estimates(STRICT, seen, decided).of(8) == estimates.of(8)


def test_all_tasks_of_an_array_ahead_go_first() -> None:
    ahead = waiting(8, "research", priority=2000, tasks=3)
    found = estimate(STRICT, snapshot(8, *four_of_research(), ahead, waiting(9, "research", priority=1000)), 9)
    assert found == Estimate(NOW + 4 * HOUR, "when 4 reaches its time limit")


def test_other_teams_lines_do_not_matter() -> None:
    others = [waiting(n, "product", nodes=4, priority=9000) for n in (6, 7)]
    found = estimate(STRICT, snapshot(8, *four_of_research(), *others, waiting(9, "research")), 9)
    assert found.start == NOW + HOUR


def test_nobody_can_say_when_jobs_without_a_limit_end() -> None:
    jobs = [replace(job, time_limit=None) for job in four_of_research()]
    assert estimate(STRICT, snapshot(8, *jobs, waiting(9, "research")), 9) == Estimate(
        None, "it waits for jobs without a time limit"
    )


def test_a_job_beyond_its_time_limit_ends_at_any_moment() -> None:
    jobs = [replace(job, time_limit=60.0) for job in four_of_research()]
    assert estimate(STRICT, snapshot(8, *jobs, waiting(9, "research")), 9).start == NOW


def test_an_owner_starts_when_the_grace_period_is_over() -> None:
    rules = policy(team("research", 32), team("product", 32))
    seen = snapshot(8, *(running(n, "research", f"n{n}") for n in range(1, 9)), waiting(9, "product", nodes=2))
    assert estimate(rules, seen, 9) == Estimate(NOW + 30, "when those preempted for it have left")


def test_what_a_preempted_job_leaves_is_not_counted_twice() -> None:
    """Both nodes go to job 9, which reclaims them; job 10 of research waits for the next one to end."""
    rules = policy(team("research", 32), team("product", 32))
    jobs = [running(n, "research", f"n{n}", start=NOW - n, time_limit=n * HOUR) for n in range(1, 9)]
    jobs[0], jobs[1] = being_preempted(jobs[0], 9), being_preempted(jobs[1], 9)
    seen = snapshot(8, *jobs, waiting(9, "product", nodes=2), waiting(10, "research"))
    assert estimate(rules, seen, 10) == Estimate(NOW - 3 + 3 * HOUR, "when 3 reaches its time limit")


def test_a_job_that_is_not_ready() -> None:
    at = replace(waiting(9, "research"), held_back="its begin time has not come", begin=NOW + 60)
    assert estimate(TWO, snapshot(8, at), 9) == Estimate(NOW + 60, "when its begin time has come")
    held = replace(waiting(9, "research"), held_back="its user holds it")
    assert estimate(TWO, snapshot(8, held), 9) == Estimate(None, "its user holds it")


def test_a_job_that_can_never_run_or_finds_no_healthy_nodes() -> None:
    assert estimate(STRICT, snapshot(8, waiting(9, "research", nodes=5)), 9).start is None
    sick = [node(f"n{n}", usable=n > 6) for n in range(1, 9)]
    assert estimate(STRICT, snapshot(sick, waiting(9, "research", nodes=3)), 9) == Estimate(
        None, "its nodes are not healthy now"
    )


def test_it_is_not_said_for_jobs_far_down_a_line() -> None:
    jobs = [running(n, "research", f"n{n}", time_limit=HOUR) for n in range(1, 5)]
    long = waiting(8, "research", priority=2000, tasks=1000, time_limit=60.0)
    assert estimate(STRICT, snapshot(8, *jobs, long, waiting(9, "research")), 9) == Estimate(
        None, "too many jobs are ahead of it"
    )
