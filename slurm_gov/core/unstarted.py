"""Jobs that Slurm does not start although there is room for them, as far as that can be told from outside: it knows
of sockets and cores, of switches, of the nodes that it keeps for a job ahead.

What they could have is not kept for them for ever: they are noted, come last for a while, and nobody leaves for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from zlib import crc32

from slurm_gov.core.decision import Plan, Reason
from slurm_gov.core.snapshot import Request, Snapshot, Unstarted, WaitingJob

PATIENCE = {"Resources": 60.0, "Priority": 300.0, "ReqNodeNotAvail": 300.0}
"""Seconds for which a job may start and does not, by Slurm's reason: with Resources it has looked for nodes for it,
with the others it may not have come to it. No other reason counts.
"""
IN_VAIN = "Resources"
TAKES_NOBODY = 86400.0
"""Seconds for which nobody leaves for a job that Slurm found no nodes for where there seemed to be room."""
FIRST, LONGEST = 600.0, 4 * 3600.0
"""Seconds for which it comes last, the first time and at most; each time twice as long, for whenever that is over
idle GPUs may be kept for it in vain.
"""


class _Seen(NamedTuple):
    """A job as it was when it could have started first, and when that was."""

    tasks: int
    submit: float
    since: float


class Patience:
    """Which jobs may start, cycle after cycle, and since when. After a restart it begins anew."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}

    def overdue(self, snapshot: Snapshot, plan: Plan) -> dict[int, float]:
        """The jobs that could have started for too long now, and since when. A task of an array that starts, or any
        other reason of Slurm's in between, and it begins anew.
        """
        seen: dict[int, _Seen] = {}
        late: dict[int, float] = {}
        for verdict in plan.decisions.verdicts:
            for job in verdict.jobs if verdict.reason is Reason.STARTS_NOW else ():
                patience = _patience(job)
                if patience is None:
                    continue
                known = self._seen.get(job.id)
                if known is None or known[:2] != (job.tasks, job.submit):
                    known = _Seen(job.tasks, job.submit, snapshot.now)
                seen[job.id] = known
                if snapshot.now - known.since >= patience:
                    late[job.id] = known.since
        self._seen = seen
        return late


def _patience(job: WaitingJob) -> float | None:
    if job.part_of or job.comes_last:
        return None
    return next((PATIENCE[reason] for reason in PATIENCE if job.slurm_reason.startswith(reason)), None)


def noted(
    snapshot: Snapshot, late: Mapping[int, float], looked_at: Mapping[int, float]
) -> list[tuple[WaitingJob, Unstarted]]:
    """The notes to make on those that are late and that Slurm has ``looked_at`` since they could have started."""
    notes = []
    for job in snapshot.waiting:
        if job.id in late and looked_at.get(job.id, 0.0) > late[job.id] + 1:
            before = job.unstarted
            wait = FIRST if before is None else min(2 * (before.until - before.since), LONGEST)
            reason = next(one for one in PATIENCE if job.slurm_reason.startswith(one))
            notes.append((job, Unstarted(snapshot.now, snapshot.now + wait, in_short(job), reason)))
    return notes


def holds(note: Unstarted | None, now: float) -> tuple[bool, bool]:
    """Whether a job with this note comes last, and whether nobody leaves for it."""
    if note is None:
        return False, False
    return note.until > now, note.until > now or (note.reason == IN_VAIN and note.since + TAKES_NOBODY > now)


def in_short(job: WaitingJob) -> str:
    """What it asks for, the same for the same on any day: eight hexadecimal digits."""
    asked = [(job.partitions, job.request), *((one.partitions, one.request) for one in job.others)]
    text = repr([(partitions, _sorted(request)) for partitions, request in asked])
    return f"{crc32(text.encode()):08x}"


def _sorted(request: Request) -> list[object]:
    return [_in_order(value) for value in request.shape]


def _in_order(value: object) -> object:
    """Sets have another order in each process."""
    return sorted(map(str, map(_in_order, value))) if isinstance(value, frozenset) else value
