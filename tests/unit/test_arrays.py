"""Arrays whose waiting records squeue shows as one row."""

from __future__ import annotations

from slurm_gov.slurm import arrays


def row(job: int, array: int, tasks: str, state: str = "PD", **more: str) -> dict[str, str]:
    return {"jobid": str(job), "arrayjobid": str(array), "arraytaskid": tasks, "statecompact": state} | more


def test_only_waiting_rows_of_several_tasks_can_hide_a_record() -> None:
    rows = [row(1, 1, "0-4%2"), row(7, 7, "N/A"), row(8, 8, "3"), row(9, 9, "1-5", state="R"), row(10, 10, "1,5-40")]
    assert arrays.suspects(rows) == ["1", "10"]


def test_a_requeued_task_stands_apart_from_the_rest_of_its_array() -> None:
    tasks = [row(4, 1, "2"), *(row(1, 1, str(task)) for task in (6, 7, 8, 12)), row(5, 5, "0"), row(5, 5, "1")]
    records = arrays.several(tasks)
    assert records == {"1": {"4": [2], "1": [6, 7, 8, 12]}}
    assert arrays.names(records) == ["1_2", "1_6"]
    other, running = row(5, 5, "0-1"), row(2, 1, "0", state="R")
    merged = row(1, 1, "2,6-8,12", reason="BeginTime,Resources")
    asked = [row(4, 1, "2", reason="BeginTime"), row(1, 1, "6", reason="Resources")]
    assert arrays.apart([merged, other, running], records, asked, {"1": 4}) == [
        other,
        running,
        row(4, 1, "2", reason="BeginTime"),
        row(1, 1, "6-8,12%4", reason="Resources"),
    ]


def test_a_record_that_started_meanwhile_is_left_out() -> None:
    records = {"1": {"4": [2], "1": [6, 7]}}
    asked = [row(4, 1, "2", state="R"), row(1, 1, "6")]
    assert arrays.apart([row(1, 1, "2,6-7")], records, asked, {}) == [row(1, 1, "6-7")]
