"""Who goes before whom within a team: a large job and the small ones that would take its room."""

from __future__ import annotations

from dataclasses import replace

from clusters import H100, NOW, decisions, node, policy, running, snapshot, team, waiting

from slurm_gov.core.actions import AT_A_TIME, WAIT_ON, Actions, actions
from slurm_gov.core.ahead import MOST_BEHIND, MOST_IN_ALL
from slurm_gov.core.decision import Decision, Plan, Reason
from slurm_gov.core.plan import Planner, plan
from slurm_gov.core.policy import Policy, Pool, Quota, Team, frozen
from slurm_gov.core.snapshot import Behind, Held, Mark, Node, RunState, Snapshot, WaitingJob

HOUR = 3600.0


def rules(protect_after: float | None = HOUR, quota: int = 16, **ant) -> Policy:
    return policy(team("ant", quota, borrow=0, **ant), protect_after=protect_after, lend_unallocated=False)


def long_ago(job: WaitingJob, hours: float = 2) -> WaitingJob:
    return replace(job, submit=NOW - hours * HOUR)


def small(id: int, gpus: int = 2, **more) -> WaitingJob:
    more.setdefault("priority", 1000)
    return waiting(id, "ant", 1, gpus, **more)


def reason(decided: Plan, job: int) -> tuple[Reason, str]:
    return next((one.reason, one.why) for one in decided.decisions if one.job == job)


# Ant holds 12 of its 16 with two jobs; job 10 wants both nodes whole.
HELD = [running(1, "ant", "n1"), running(2, "ant", "n2", gpus=4)]
LARGE = waiting(10, "ant", 2, priority=2000)


# -- one that has waited for long --------------------------------------------------------------------------


def test_who_has_waited_for_long_is_not_overtaken_within_the_quota() -> None:
    decided = plan(rules(), snapshot(2, *HELD, long_ago(LARGE), small(11), small(12, gpus=8)))
    assert reason(decided, 11) == (
        Reason.TEAM_AT_LIMIT,
        "job 10 of team ant is ahead, has waited long and needs the room",
    )
    assert decided.behind == {11: 10, 12: 10}, "also one that fits only when something has ended"
    assert decided.caps["ant"][H100] == 16


def test_who_cannot_run_now_whatever_ends_keeps_nobody_waiting() -> None:
    """One of the two nodes that job 10 needs is down, perhaps for days."""
    away = [node("n1"), node("n2"), node("n3", usable=False)]
    needs = replace(LARGE, request=replace(LARGE.request, required_nodes=frozenset({"n2", "n3"})))
    held, last = HELD[1:], running(1, "ant", "n1", gpus=6)
    decided = plan(rules(), snapshot(away, *held, last, long_ago(needs), small(11)))
    assert reason(decided, 11)[0] is Reason.STARTS_NOW and decided.behind == {}
    # Nor in borrowing, where the cap would follow the team's use down.
    borrows = policy(team("ant", 8), team("absent", 16), protect_after=HOUR, lend_unallocated=False)
    decided = plan(borrows, snapshot(away, *held, last, long_ago(needs), small(11)))
    assert reason(decided, 11)[0] is Reason.STARTS_NOW


def test_jobs_of_another_pool_are_not_in_its_way() -> None:
    """Each pool has its own line: job 12 waits behind job 10, job 22 behind job 20, and job 31 behind nobody."""
    a100, other = "gres/gpu:a100", Pool("a100", ("old",), "gpu:a100")

    def old(job: WaitingJob) -> WaitingJob:
        gpus = frozen({a100: job.request.gpus[H100]})
        return replace(job, partitions=("old",), request=replace(job.request, gpus=gpus))

    quotas = frozen({"h100": Quota(16, borrow=0), "a100": Quota(16, borrow=0)})
    both = replace(rules(), teams=frozen({"ant": Team("ant", quotas)}))
    both = replace(both, pools=frozen({**both.pools, "a100": other}))
    nodes = [node("n1"), node("n2"), *(Node(f"m{i}", ("old",), frozen({a100: 8}), 64, 512_000) for i in (1, 2))]
    decided = plan(both, snapshot(nodes, *HELD, long_ago(LARGE), small(12), old(small(31))))
    assert reason(decided, 12)[0] is Reason.TEAM_AT_LIMIT and reason(decided, 31)[0] is Reason.STARTS_NOW
    assert decided.behind == {12: 10}
    runs = replace(running(3, "ant", "m1", gpus=4), partition="old", held=(Held("m1", frozen({a100: 4}), 4, 1000),))
    waits = [long_ago(LARGE), small(12), long_ago(old(replace(LARGE, id=20))), old(small(22))]
    assert plan(both, snapshot(nodes, *HELD, runs, *waits)).behind == {12: 10, 22: 20}
    # Also one that borrows.
    mine, theirs = frozen({"h100": Quota(16, borrow=0), "a100": Quota(0)}), frozen({"a100": Quota(16)})
    borrows = replace(both, teams=frozen({"ant": Team("ant", mine), "absent": Team("absent", theirs)}))
    decided = plan(borrows, snapshot(nodes, *HELD, long_ago(LARGE), small(12, gpus=8), old(small(31))))
    assert reason(decided, 12)[0] is Reason.TEAM_AT_LIMIT and reason(decided, 31)[0] is Reason.STARTS_NOW


def test_one_that_came_when_nothing_else_had_changed_is_not_overtaken_either() -> None:
    planner, same = Planner(), rules()
    assert planner.plan(same, snapshot(2, *HELD, small(11))).behind == {}
    waits = [long_ago(LARGE), small(11)]
    assert planner.plan(same, snapshot(2, *HELD, *waits)).behind == {11: 10}
    # Nor one that is larger than those that run only since another has ended.
    assert planner.plan(same, snapshot(2, running(3, "ant", "n1 n2"), *waits)).behind == {}
    assert planner.plan(same, snapshot(2, *HELD, *waits)).behind == {11: 10}


def test_it_is_the_first_of_several() -> None:
    other = long_ago(waiting(9, "ant", 2, gpus=7, priority=1500))
    for waits in ([long_ago(LARGE), other], [other, long_ago(LARGE)]):
        assert plan(rules(), snapshot(2, *HELD, *waits, small(11))).behind == {9: 10, 11: 10}
    # Another like job 9 is ahead of job 10, but has not waited for long.
    new = replace(other, id=8, priority=3000, submit=NOW)
    assert plan(rules(), snapshot(2, *HELD, long_ago(LARGE), new, other)).behind == {9: 10}


def test_who_has_not_or_where_the_policy_says_never_is() -> None:
    for protect_after, hours in ((HOUR, 0.5), (None, 50)):
        decided = plan(rules(protect_after), snapshot(2, *HELD, long_ago(LARGE, hours), small(11)))
        assert reason(decided, 11)[0] is Reason.STARTS_NOW
        assert decided.behind == {}


def test_earlier_ones_go_first_all_the_same() -> None:
    decided = plan(rules(), snapshot(2, *HELD, long_ago(LARGE), small(9, priority=3000)))
    assert reason(decided, 9)[0] is Reason.STARTS_NOW
    assert decided.behind == {}


def test_nobody_waits_behind_a_job_that_its_quota_could_never_hold() -> None:
    decided = plan(rules(quota=12), snapshot(3, HELD[1], long_ago(LARGE), small(11)))
    assert decided.behind == {}
    assert reason(decided, 11)[0] is Reason.STARTS_NOW


def test_nobody_waits_behind_one_that_is_no_larger_than_those_that_run() -> None:
    """When one of these ends it is the first in line."""
    decided = plan(rules(quota=12), snapshot(2, *HELD, long_ago(waiting(10, "ant", priority=2000)), small(11)))
    assert decided.behind == {}


# Ant's quota is 8, and it may borrow as many; job 10 wants both nodes, and a job of ant holds 4.
BEYOND = policy(team("ant", 8, borrow=8), team("bee", 8), protect_after=HOUR, lend_unallocated=False)


def test_who_wants_more_than_the_quota_is_not_overtaken_where_only_its_own_team_is_in_its_way() -> None:
    held = running(1, "ant", "n1", gpus=4)
    decided = plan(BEYOND, snapshot(2, held, long_ago(LARGE), small(11)))
    assert reason(decided, 11)[0] is Reason.TEAM_AT_LIMIT
    assert decided.behind == {11: 10}
    fresh = plan(BEYOND, snapshot(2, held, LARGE, small(11)))
    assert reason(fresh, 11)[0] is Reason.STARTS_NOW and fresh.behind == {}


def test_nor_where_one_as_large_runs() -> None:
    """When that ends Slurm starts the first in line."""
    job = running(1, "ant", "n1 n2")
    assert plan(BEYOND, snapshot(2, job, long_ago(LARGE), small(11))).behind == {}


def test_nobody_waits_behind_one_that_waits_for_other_teams() -> None:
    held = running(1, "ant", "n1", gpus=4)
    decided = plan(BEYOND, snapshot(2, held, running(2, "bee", "n2", gpus=1), long_ago(LARGE), small(11)))
    assert reason(decided, 11)[0] is Reason.STARTS_NOW and decided.behind == {}


def test_nobody_within_the_quota_waits_where_there_is_enough_beside_it() -> None:
    """The cap goes down to the quota as jobs of the team end: that is enough for it."""
    beside = policy(team("ant", 8), team("bee", 24), protect_after=HOUR)
    held = running(1, "ant", "n1", gpus=4), running(2, "bee", "n4")
    decided = plan(beside, snapshot(4, *held, long_ago(LARGE), small(11)))
    assert reason(decided, 11)[0] is reason(decided, 10)[0] is Reason.STARTS_NOW


def test_who_is_ending_makes_no_room_at_its_time_limit() -> None:
    """Job 1 has left already, and job 2 stays for another 500 s."""
    ending = replace(HELD[0], state=RunState.COMPLETING, time_limit=110.0)
    jobs = ending, replace(HELD[1], time_limit=600.0), long_ago(LARGE), small(11, time_limit=300.0), small(12)
    assert plan(rules(), snapshot(2, *jobs)).behind == {12: 10}


def test_nor_where_they_are_on_other_nodes() -> None:
    """Two nodes are free but for ant's job; bee uses what it could lend on a third."""
    decided = plan(
        BEYOND, snapshot(3, running(1, "ant", "n1", gpus=4), running(2, "bee", "n3"), long_ago(LARGE), small(11))
    )
    assert reason(decided, 11)[0] is Reason.STARTS_NOW and decided.behind == {}


def test_the_first_that_has_waited_long_is_ahead_not_the_first_of_its_kind() -> None:
    """Of two kinds of large jobs the newer ones come first in line."""
    large = [
        replace(LARGE, id=id, priority=priority) for id, priority in ((10, 2009), (11, 2008), (12, 2006), (13, 2004))
    ]
    other = replace(LARGE.request, cpus=1)
    kinds = [
        large[0],
        replace(large[1], request=other),
        long_ago(large[2]),
        long_ago(replace(large[3], request=other)),
    ]
    decided = plan(rules(), snapshot(2, *HELD, *kinds, small(21)))
    assert decided.behind == {21: 12, 13: 12}


def test_a_large_one_that_comes_later_is_looked_at_too() -> None:
    """Nothing but the waiting jobs has changed since the plan before, where one had waited for long too."""
    planner, rule, old = Planner(), rules(), long_ago(small(11))
    assert planner.plan(rule, snapshot(2, *HELD, old)).behind == {}
    assert planner.plan(rule, snapshot(2, *HELD, long_ago(LARGE), old)).behind == {11: 10}
    assert planner.plan(rule, snapshot(2, *HELD, old)).behind == {}


def test_an_array_of_which_a_task_starts_is_not_told_to_step_back() -> None:
    """Job 1 left for it, so its next task goes before job 1, which has waited for long. A note on the array would
    keep that task from starting, and what it was given would lie idle for ever.
    """
    tasks = replace(waiting(20, "ant", 2, priority=10, tasks=3), display_id="20_[3-5]")
    mark = Mark(20, "ant", NOW - 2 * HOUR, NOW - 2 * HOUR, NOW - 3 * HOUR)
    back = replace(waiting(1, "ant", 3, priority=2000), submit=NOW - 2 * HOUR + 1, mark=mark)
    asks = replace(tasks, submit=NOW - 3 * HOUR), replace(back, slurm_reason="BeginTime", begin=NOW - 1)
    decided = plan(policy(team("ant", 8), protect_after=HOUR), snapshot(4, *asks))
    assert [reason(decided, id)[0] for id in (20, 1)] == [Reason.STARTS_NOW, Reason.NOTHING_TO_BORROW]
    assert decided.behind == {}


def test_nobody_waits_behind_one_whose_nodes_others_hold() -> None:
    """16 are free of three nodes, and bee, within its quota, holds the rest, some of each."""
    three = policy(team("ant", 8, borrow=8), team("bee", 16), protect_after=HOUR, lend_unallocated=False)
    held = [running(number, "bee", f"n{number}", gpus=2) for number in (1, 2, 3)]
    decided = plan(three, snapshot(3, *held, long_ago(LARGE), small(11)))
    assert reason(decided, 11)[0] is Reason.STARTS_NOW and decided.behind == {}


def test_who_is_gone_before_one_that_wants_more_than_the_quota_could_start_need_not_wait() -> None:
    held = running(1, "ant", "n1", gpus=4, time_limit=4000.0)  # until 3,900 s from now
    jobs = [small(11, time_limit=3900.0), small(12, time_limit=3901.0)]
    assert plan(BEYOND, snapshot(2, held, long_ago(LARGE), *jobs)).behind == {12: 10}


def test_when_its_team_has_left_it_starts_and_not_a_small_one_within_the_quota() -> None:
    jobs = LARGE, small(11)
    assert reason(plan(BEYOND, snapshot(2, *jobs)), 11)[0] is Reason.STARTS_NOW
    decided = plan(BEYOND, snapshot(2, long_ago(LARGE), small(11)))
    assert reason(decided, 10)[0] is Reason.STARTS_NOW
    assert decided.caps["ant"][H100] == 16


def test_where_too_many_are_behind_none_steps_back() -> None:
    many = [small(id) for id in range(1000, 1000 + MOST_BEHIND)]
    assert len(plan(rules(), snapshot(2, *HELD, long_ago(LARGE), *many)).behind) == MOST_BEHIND
    assert plan(rules(), snapshot(2, *HELD, long_ago(LARGE), *many, small(11))).behind == {}


def test_of_several_teams_first_those_whose_jobs_wait_longest() -> None:
    """Two teams may have a thousand each behind a large one; the third must wait."""
    teams = [f"t{n}" for n in range(3)]
    jobs = []
    for n, name in enumerate(teams):
        jobs += [running(10 * n + 1, name, f"n{2 * n + 1}"), running(10 * n + 2, name, f"n{2 * n + 2}", gpus=4)]
        jobs.append(replace(long_ago(LARGE, hours=50 if n == 2 else 10 + n), id=900 + n, account=name))
        jobs += [replace(small(1000 * (n + 1) + m), account=name) for m in range(MOST_BEHIND)]
    both = policy(*(team(name, 16, borrow=0) for name in teams), protect_after=HOUR, lend_unallocated=False)
    decided = plan(both, snapshot(6, *jobs))
    assert set(decided.behind.values()) == {901, 902}
    assert len(decided.behind) == MOST_IN_ALL


def test_when_there_is_room_for_it_nobody_is_behind() -> None:
    decided = plan(rules(), snapshot(2, long_ago(LARGE), small(11)))
    assert reason(decided, 10)[0] is Reason.STARTS_NOW
    assert decided.behind == {}


def test_who_is_gone_before_it_could_start_may_go() -> None:
    """By their time limits ant's jobs leave in an hour: who runs for half an hour is in nobody's way."""
    held = [replace(job, start=NOW - HOUR, time_limit=2 * HOUR) for job in HELD]
    short, long = small(11, time_limit=HOUR / 2), small(12, time_limit=2 * HOUR)
    decided = plan(rules(), snapshot(2, *held, long_ago(LARGE), short, long, small(13)))
    assert decided.behind == {12: 10, 13: 10}
    # It needs both of them gone; and nobody can say when one without a limit is.
    later = [held[0], replace(held[1], time_limit=4 * HOUR)]
    assert plan(rules(), snapshot(2, *later, long_ago(LARGE), small(12, time_limit=2 * HOUR))).behind == {}
    unlimited = [replace(held[0], time_limit=None), held[1]]
    assert plan(rules(), snapshot(2, *unlimited, long_ago(LARGE), short)).behind == {11: 10}


def test_other_teams_are_not_concerned() -> None:
    both = policy(team("ant", 16, borrow=0), team("bee", 8), protect_after=HOUR)
    decided = plan(both, snapshot(3, *HELD, long_ago(LARGE), replace(small(11), account="bee")))
    assert reason(decided, 11)[0] is Reason.STARTS_NOW
    assert decided.behind == {}


# -- one for which others leave ----------------------------------------------------------------------------


def test_what_leaves_early_is_not_for_those_behind() -> None:
    victims = [running(1, "ant", "n1", qos="experiment"), running(2, "ant", "n2", qos="experiment")]
    large = replace(LARGE, qos="inference")
    jobs = [
        small(11, qos="experiment"),
        small(12, gpus=8, qos="experiment"),
        small(13, qos="inference", priority=3000),
    ]
    decided = plan(rules(None), snapshot(2, *victims, large, *jobs[:2]))
    assert {one.job for one in decided.preempt} == {1, 2}
    assert decided.behind == {11: 10, 12: 10}
    # Not who is ahead of it; and nobody if the cap does not stand in its way.
    assert 13 not in plan(rules(None), snapshot(2, *victims, large, *jobs)).behind
    # Nor whom what leaves would not let start.
    others = [running(n, "ant", f"n{n}", qos="inference") for n in (3, 4)]
    three = waiting(14, "ant", 3, qos="training")
    decided = plan(rules(None, quota=32), snapshot(4, *victims, *others, large, jobs[0], three))
    assert decided.behind == {11: 10}
    wide = plan(rules(None, quota=64), snapshot(2, *victims, large, *jobs[:2]))
    assert {one.job for one in wide.preempt} == {1, 2}
    assert wide.behind == {}


# -- what is done about it ---------------------------------------------------------------------------------


def todo(now: Snapshot, behind: dict[int, int], *decided: Decision) -> Actions:
    return actions(rules(), now, Plan({}, behind=behind, decisions=decisions(*decided)))


def held(until: float, job: int = 10) -> WaitingJob:
    return replace(small(11), behind=Behind(job, NOW + until), slurm_reason="BeginTime", begin=NOW + until)


def test_it_is_told_to_wait_and_again_before_that_is_over() -> None:
    for job in (small(11), held(10)):
        (found,) = todo(snapshot(2, job), {11: 10}).step_back
        assert (found[0], found[1]) == (job, Behind(10, NOW + WAIT_ON))
    assert not todo(snapshot(2, held(50)), {11: 10})


def test_it_is_let_go_when_nobody_is_ahead_any_more() -> None:
    assert todo(snapshot(2, held(50)), {}).let_go == (held(50),)
    assert not todo(snapshot(2, held(-1)), {}), "it may go already"
    assert not todo(snapshot(2, small(11)), {})


def test_not_while_the_one_ahead_is_about_to_start() -> None:
    starts = Decision(10, "10", "ant", "h100", Reason.STARTS_NOW, "it starts")
    assert not todo(snapshot(2, held(50)), {}, starts).let_go
    waits = starts._replace(reason=Reason.TEAM_AT_LIMIT)
    assert todo(snapshot(2, held(50)), {}, waits).let_go


def test_not_all_at_once_and_for_longer_if_they_are_many() -> None:
    many = [small(id) for id in range(1000, 1000 + 3 * AT_A_TIME)]
    step_back = todo(snapshot(2, *many), {job.id: 10 for job in many}).step_back
    assert [job.id for job, _ in step_back] == list(range(1000, 1000 + AT_A_TIME))
    assert {note.until for _, note in step_back} == {NOW + 10 * WAIT_ON}
    noted = [replace(job, behind=Behind(10, NOW + 50)) for job in many]
    assert [job.id for job in todo(snapshot(2, *noted), {}).let_go] == list(range(1000, 1000 + AT_A_TIME))
