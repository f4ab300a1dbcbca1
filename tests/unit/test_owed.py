"""For whom others left, and until when that is owed."""

from __future__ import annotations

from dataclasses import replace

from clusters import NOW, TWO, policy, running, snapshot, team, waiting

from slurm_gov.core.actions import actions
from slurm_gov.core.decision import Reason
from slurm_gov.core.owed import unpaid
from slurm_gov.core.plan import plan
from slurm_gov.core.snapshot import Behind, Mark, RunningJob, WaitingJob

MARK = Mark(10, "research", NOW - 140, NOW - 110, NOW - 1000)


def who_left(mark: Mark = MARK, id: int = 1, begins: bool = False) -> WaitingJob:
    """A job that was requeued and waits to begin, or does not any more."""
    left = waiting(id, "product", mark=mark)
    return left if begins else replace(left, slurm_reason="BeginTime", begin=NOW + 11, held_back="begin time")


def is_owed(*jobs: RunningJob | WaitingJob, mark: Mark = MARK) -> bool:
    return unpaid(snapshot(4, *jobs), [who_left(mark)]) == [mark]


def array(id: int, account: str, tasks: int, **more) -> WaitingJob:
    return replace(waiting(id, account, **more), display_id=f"{id}_[1-{tasks}]", tasks=tasks)


def task(id: int, of: int, nodes: str, start: float) -> RunningJob:
    return replace(running(id, "research", nodes, start=start), display_id=f"{of}_{id}")


def test_it_is_owed_until_it_has_started() -> None:
    assert is_owed(waiting(10, "research"))
    assert not is_owed() and not is_owed(running(10, "research", "n1"))
    assert unpaid(snapshot(4), []) == []


def test_not_to_one_that_slurm_does_not_start() -> None:
    """Who left for it need not wait, even where there seems to be room that nobody else takes."""
    last = waiting(10, "research", comes_last=True)
    assert not is_owed(last)
    now = snapshot(8, replace(who_left(), submit=NOW - 110), last)
    decided = plan(TWO, now)
    assert [one.reason for one in decided.decisions if one.job == 10] == [Reason.STARTS_NOW]
    assert [job.id for job, _ in actions(TWO, now, decided).release] == [1]


def test_who_was_spared_gave_up_nothing() -> None:
    """It was told to leave hours ago and then that it may stay; now it was requeued for another reason, which is
    none of our business.
    """
    spared = replace(MARK, spared=True)
    assert not is_owed(waiting(10, "research"), mark=spared)
    soon = replace(waiting(1, "product", mark=spared, slurm_reason="BeginTime", begin=NOW + 111), submit=NOW - 10)
    now = snapshot(8, replace(soon, held_back="begin time"), array(10, "research", 3))
    todo = actions(TWO, now, plan(TWO, now))
    assert (todo.release, todo.wait_on) == ((), ())


def test_not_to_one_that_was_requeued_meanwhile() -> None:
    assert not is_owed(waiting(10, "research", submit=NOW - 100))
    # Both times are whole seconds.
    assert is_owed(waiting(10, "research", submit=NOW - 139)) and not is_owed(
        waiting(10, "research", submit=NOW - 138)
    )


def test_an_array_has_its_place_when_one_of_its_tasks_has_started_since() -> None:
    many = array(10, "research", 2000)
    assert is_owed(many) and is_owed(many, task(11, 10, "n1", NOW - 200), task(12, 12, "n2", NOW - 20))
    assert not is_owed(many, task(11, 10, "n1", NOW - 20), task(13, 10, "n2", NOW - 200))
    # One more leaves for its next task: that is another debt.
    assert is_owed(many, task(11, 10, "n1", NOW - 20), mark=replace(MARK, since=NOW - 10))
    # Each task settles one, the oldest first.
    later, now = replace(MARK, since=NOW - 130), snapshot(4, many, task(11, 10, "n1", NOW - 20))
    both = [who_left(later), who_left(id=2)]
    assert unpaid(now, both) == [later]
    assert unpaid(replace(now, running=(*now.running, task(12, 10, "n2", NOW - 10))), both) == []
    # A job of that number which is no task is not meant.
    assert is_owed(waiting(10, "research"), running(10, "research", "n1", start=NOW - 20))


def test_who_may_start_again_waits_for_no_array() -> None:
    """The tasks that have had its place have ended meanwhile, and are seen no more."""
    free = who_left(begins=True)
    assert unpaid(snapshot(4, array(10, "research", 2000)), [free]) == []
    assert unpaid(snapshot(4, array(10, "research", 1)), [free]) == [], "the last task"
    assert unpaid(snapshot(4, waiting(10, "research")), [free]) == [MARK], "no array: it has not started"
    behind = replace(who_left(), held_back="", behind=Behind(12, NOW + 11))
    assert unpaid(snapshot(4, array(10, "research", 2000)), [behind]) == []
    leaves = replace(running(1, "product", "n1"), mark=MARK)
    assert unpaid(snapshot(4, array(10, "research", 2000)), [leaves]) == [MARK]


def test_who_left_for_an_array_does_not_wait_until_all_its_tasks_have_started() -> None:
    """Job 1 left for the first of them; its own team's quota is empty, and lent to the rest."""
    left = replace(
        waiting(1, "product", mark=MARK, slurm_reason="BeginTime", begin=NOW + 11, held_back="begin time"),
        submit=NOW - 110,
    )
    for started, reason in ((NOW - 200, "wait_on"), (NOW - 20, "release")):
        now = snapshot(8, left, array(10, "research", 2000), task(11, 10, "n1", started))
        todo = actions(TWO, now, plan(TWO, now))
        assert [job.id for job, _ in getattr(todo, reason)] == [1]
        assert (todo.wait_on == ()) is (reason == "release")


def test_those_like_it_that_are_ahead_are_owed_nothing() -> None:
    """Job 1 has left for job 10; job 20, like it and ahead of it, is served by the shares of the teams."""
    rules = policy(team("ant", 0, fair_share_weight=90), team("bee", 0, fair_share_weight=1), team("absent", 16))
    left = replace(waiting(1, "bee"), mark=replace(MARK, team="bee"), held_back="its begin time has not come")
    jobs = [left, running(5, "absent", "n1"), waiting(10, "bee", priority=1000), waiting(30, "ant", priority=10)]
    ahead = waiting(20, "bee", priority=3000)

    def starts(*more: WaitingJob) -> list[int]:
        decided = plan(rules, snapshot(2, *jobs, *more))
        return [one.job for one in decided.decisions if one.reason is Reason.STARTS_NOW]

    assert starts() == [10]
    assert starts(ahead) == [30]
