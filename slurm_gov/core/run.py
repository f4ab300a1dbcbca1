"""One run of a job as accounting knows it: what it asked for, what it held, and when."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one job in one pool; a requeued job has several. Times are seconds since the epoch.

    ``job`` is the id as people see it (``24_3``). ``gpus`` is what it holds, or asks for while ``start`` is ``None``;
    ``tasks`` is how many waiting tasks of an array this is. ``eligible`` is since when it may start, ``None`` if
    it may not. ``end`` is ``None`` if it has not ended. ``elapsed`` are the seconds that Slurm counts, which leaves
    out those in which it was suspended.
    """

    job: str
    account: str
    user: str
    qos: str
    pool: str
    gpus: int
    eligible: float | None
    start: float | None
    end: float | None
    elapsed: float
    state: str
    tasks: int = 1
