"""Arrays as squeue 24.11 and 26.05 show them: all waiting tasks of an array in one row, a requeued task among them.

Up to 22.05 ``--array-unique`` shows each record apart; later versions know only that row, or one row per task. So
where an array has more than one waiting record, these are asked for by name, and take the place of the row.
Pure: the rows were read elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from slurm_gov.slurm import parse

Row = Mapping[str, str]
Records = Mapping[str, Mapping[str, Sequence[int]]]
"""Array to job id to its waiting tasks, as numbers."""

TASK_FIELDS = ("jobid", "arrayjobid", "arraytaskid")


def suspects(rows: Iterable[Row]) -> list[str]:
    """The arrays whose row may stand for several records."""
    return sorted(
        {row["arrayjobid"] for row in rows if row["statecompact"] == "PD" and parse.tasks(row["arraytaskid"]) > 1}
    )


def several(tasks: Iterable[Row]) -> dict[str, dict[str, list[int]]]:
    """The arrays that have several waiting records, from one row (``TASK_FIELDS``) per task."""
    records: dict[str, dict[str, list[int]]] = {}
    for row in tasks:
        if row["arraytaskid"].isdecimal():
            records.setdefault(row["arrayjobid"], {}).setdefault(row["jobid"], []).append(int(row["arraytaskid"]))
    return {array: found for array, found in records.items() if len(found) > 1}


def names(records: Records) -> list[str]:
    """One task of each record, as squeue and scontrol are to be asked for it."""
    return [f"{array}_{tasks[0]}" for array, found in records.items() for tasks in found.values()]


def apart(rows: Sequence[Row], records: Records, asked: Iterable[Row], limits: Mapping[str, int]) -> list[Row]:
    """``rows`` with the rows of such arrays replaced by those of their records.

    ``asked`` has a row for each of ``names``; ``limits`` is how many tasks of an array may run at a time.
    A record that is gone meanwhile is left out: the next look will not miss it.
    """
    kept = [row for row in rows if row["statecompact"] != "PD" or row["arrayjobid"] not in records]
    for row in asked:
        tasks = records.get(row["arrayjobid"], {}).get(row["jobid"], ())
        if row["statecompact"] != "PD" or not tasks:
            continue
        limit = limits.get(row["arrayjobid"])
        suffix = f"%{limit}" if limit and len(tasks) > 1 else ""
        kept.append({**row, "arraytaskid": _short(tasks) + suffix})
    return kept


def _short(tasks: Sequence[int]) -> str:
    """``[1, 3, 4, 5]`` as ``1,3-5``."""
    runs: list[list[int]] = []
    for task in sorted(tasks):
        if runs and task == runs[-1][1] + 1:
            runs[-1][1] = task
        else:
            runs.append([task, task])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
