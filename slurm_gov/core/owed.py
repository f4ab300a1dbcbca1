"""For whom others have left, or must, and that have not started since: what those lost must not be in vain."""

from __future__ import annotations

from collections.abc import Iterable

from slurm_gov.core.snapshot import Mark, RunningJob, Snapshot, WaitingJob

MARGIN = 1.0
"""Seconds by which the times of a note and of Slurm may differ: both are whole seconds."""


def unpaid(snapshot: Snapshot, left: Iterable[RunningJob | WaitingJob]) -> list[Mark]:
    """The marks of these jobs whose beneficiary still waits for what was given up for it. One that Slurm does not
    start, whatever there is for it, is waited for no longer.

    A job that was spared gave up nothing, however it ends; a beneficiary that was requeued meanwhile has had its
    place. An array is one record for as long as any of its tasks waits, and others must not wait behind all of them:
    each task that has started since settles one mark, the oldest first. Those that have ended are not seen: who may
    start again waits for no array any more.
    """
    told = [(job, job.mark) for job in left if job.mark is not None and not job.mark.spared]
    free = {id(mark) for job, mark in told if isinstance(job, WaitingJob) and not _waits_to_begin(job)}
    marks = [mark for _, mark in told]
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
        if id(mark) in free and (job.tasks > 1 or _array(job.display_id) != job.display_id):
            continue
        starts = started.get(_array(job.display_id), [])
        while starts and starts[0] <= mark.since + MARGIN:
            starts.pop(0)
        if starts:
            starts.pop(0)
        else:
            found.append(mark)
    return found


def _waits_to_begin(job: WaitingJob) -> bool:
    """Whether it is its begin time that a job waits for, and not because it stands behind another of its team."""
    return job.slurm_reason == "BeginTime" and job.behind is None


def _array(display_id: str) -> str:
    return display_id.partition("_")[0]
