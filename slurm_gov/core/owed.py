"""For whom others have left, or must, and that have not started since: what those lost must not be in vain."""

from __future__ import annotations

from collections.abc import Iterable

from slurm_gov.core.snapshot import Mark, Snapshot

MARGIN = 1.0
"""Seconds by which the times of a note and of Slurm may differ: both are whole seconds."""


def unpaid(snapshot: Snapshot, marks: Iterable[Mark]) -> list[Mark]:
    """The marks whose beneficiary still waits for what was given up for it. Who was spared gave up nothing, and one
    that Slurm does not start, whatever there is for it, is waited for no longer.

    A job that was spared gave up nothing, however it ends; a beneficiary that was requeued meanwhile has had its
    place. An array is one record for as long as any of its tasks waits,
    and others must not wait behind all of them: each task that has started since settles one mark, the oldest first.
    """
    marks = [mark for mark in marks if not mark.spared]
    if not marks:
        return []
    wanted = {mark.beneficiary for mark in marks}
    waits = {job.id: job for job in snapshot.waiting if job.id in wanted}
    arrays = {_array(job.display_id) for job in waits.values()}
    started: dict[str, list[float]] = {}
    for one in sorted(snapshot.running, key=lambda job: job.start) if arrays else ():
        array = _array(one.display_id)
        if array in arrays and array != one.display_id:
            started.setdefault(array, []).append(one.start)
    found = []
    for mark in sorted(marks, key=lambda mark: mark.since):
        job = waits.get(mark.beneficiary)
        if job is None or job.comes_last or mark.since < job.submit - MARGIN:
            continue
        starts = started.get(_array(job.display_id), [])
        while starts and starts[0] <= mark.since + MARGIN:
            starts.pop(0)
        if starts:
            starts.pop(0)
        else:
            found.append(mark)
    return found


def _array(display_id: str) -> str:
    return display_id.partition("_")[0]
