"""For whom others have left, or must, and that have not started since: what those lost must not be in vain."""

from __future__ import annotations

from collections.abc import Iterable

from slurm_gov.core.snapshot import Mark, Snapshot

MARGIN = 1.0
"""Seconds by which the times of a note and of Slurm may differ: both are whole seconds."""


def unpaid(snapshot: Snapshot, marks: Iterable[Mark]) -> list[Mark]:
    """The marks whose beneficiary still waits for what was given up for it.

    One that was requeued meanwhile has had its place. An array has had it when one of its tasks has started since: it
    is one record for as long as any of them waits, and others must not wait behind all of them.
    """
    marks = list(marks)
    if not marks:
        return []
    wanted = {mark.beneficiary for mark in marks}
    waits = {job.id: job for job in snapshot.waiting if job.id in wanted}
    arrays = {_array(job.display_id) for job in waits.values()}
    started: dict[str, float] = {}
    for one in snapshot.running:
        array = _array(one.display_id)
        if array in arrays and array != one.display_id:
            started[array] = max(started.get(array, 0.0), one.start)
    return [
        mark
        for mark in marks
        if (job := waits.get(mark.beneficiary)) is not None
        and mark.since >= job.submit - MARGIN
        and started.get(_array(job.display_id), 0.0) <= mark.since + MARGIN
    ]


def _array(display_id: str) -> str:
    return display_id.partition("_")[0]
