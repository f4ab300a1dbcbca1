"""How the pools were used in the last hours: a sample every half minute, forgotten when the daemon ends."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from slurm_gov.core.rows import Look

STEP = 30.0
"""Seconds between two samples."""
HOURS = 6.0
"""How far back they go."""


@dataclass(frozen=True, slots=True)
class PoolSample:
    """One pool at one moment, in GPUs. ``within`` quota, ``borrowed`` and ``without_team`` are in use; ``free`` and
    ``away`` (not healthy) are not; ``waiting`` is what waiting jobs ask for.
    """

    pool: str
    within: int
    borrowed: int
    without_team: int
    free: int
    away: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Sample:
    """All pools at one moment, in seconds since the epoch."""

    at: float
    pools: tuple[PoolSample, ...]


class History:
    """The samples of the last hours."""

    def __init__(self, step: float = STEP, hours: float = HOURS) -> None:
        self._step = step
        self._samples: deque[Sample] = deque(maxlen=int(hours * 3600 / step))
        self._as_tuple: tuple[Sample, ...] = ()

    def add(self, look: Look) -> None:
        """Keep this look, if it is time for a sample; it stands for the step that begins with it."""
        at = look.snapshot.now // self._step * self._step
        if not self._samples or self._samples[-1].at != at:
            self._samples.append(sample(look, at))
            self._as_tuple = tuple(self._samples)

    def samples(self) -> tuple[Sample, ...]:
        """The oldest first."""
        return self._as_tuple


def sample(look: Look, at: float) -> Sample:
    """What a look shows of every pool."""
    pools = []
    for pool in look.plan.pools:
        teams = [one for one in look.plan.standings if one.pool == pool.pool]
        used, borrowed = sum(one.used for one in teams), sum(one.borrowed for one in teams)
        pools.append(
            PoolSample(
                pool=pool.pool,
                within=used - borrowed,
                borrowed=borrowed,
                without_team=max(0, pool.used - used),
                free=pool.free,
                away=max(0, pool.total - pool.used - pool.free),
                waiting=sum(one.waiting for one in teams),
            )
        )
    return Sample(at, tuple(pools))
