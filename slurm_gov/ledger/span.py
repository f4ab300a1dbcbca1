"""What a team held in a pool, for as long as nothing of it changed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """One team in one pool from ``since`` to ``until``, in seconds since the epoch; the rest is in GPUs.

    ``borrowed`` is the part of ``used`` above ``quota``; ``lent`` is how much of its unused quota others held;
    ``waiting`` is what its waiting jobs asked for.
    """

    team: str
    pool: str
    since: float
    until: float
    quota: int
    cap: int
    used: int
    borrowed: int
    lent: int
    waiting: int
    waiting_jobs: int
