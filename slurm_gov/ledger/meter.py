"""From one look at a time to what was held for how long. Pure: time comes in, spans come out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from slurm_gov.core.decision import Standing
from slurm_gov.ledger.span import Span

KEEP_UP = 60.0
"""Seconds after which a span that is still the same is written again, longer: what a crash can cost at most."""


@dataclass(slots=True)
class Held:
    """GPU-seconds of one team in one pool, since the meter began."""

    within_quota: float = 0.0
    borrowed: float = 0.0
    lent: float = 0.0


class Meter:
    """Measures what teams hold. Between two looks everything counts as it was at the first of them.

    Two looks more than ``gap`` seconds apart leave a hole: what was in between nobody saw.
    """

    def __init__(self, gap: float = 60.0) -> None:
        self.totals: dict[tuple[str, str], Held] = {}
        self._gap = gap
        self._open: dict[tuple[str, str], tuple[float, _State]] = {}
        self._seen = float("-inf")
        self._written = float("-inf")

    def look(self, now: float, standings: Iterable[Standing], caps: Mapping[tuple[str, str], int]) -> list[Span]:
        """What has ended, and from time to time all that goes on. ``caps``: team and pool to the cap that is set."""
        seen = 0 <= now - self._seen <= self._gap
        until = now if seen else self._seen
        ended: list[Span] = []
        before, self._open = self._open, {}
        for one in standings:
            key = (one.team, one.pool)
            cap = caps.get(key, one.cap)
            state = (one.quota, cap, one.used, one.borrowed, one.lent, one.waiting, one.waiting_jobs)
            self._open[key] = now, state
            if key not in before:
                continue
            since, last = before.pop(key)
            if seen:
                self._count(key, last, now - self._seen)
            if seen and last == state:
                self._open[key] = since, state
            else:
                ended.append(Span(*key, since, until, *last))
        for key, (since, last) in before.items():  # teams that the policy no longer has
            if seen:
                self._count(key, last, now - self._seen)
            ended.append(Span(*key, since, until, *last))
        self._seen = now
        if now - self._written >= KEEP_UP or now < self._written:
            self._written = now
            ended += self.going_on()
        return _telling(ended)

    def going_on(self) -> list[Span]:
        """What has not ended, as far as it was seen."""
        return _telling(Span(*key, since, self._seen, *state) for key, (since, state) in self._open.items())

    def _count(self, key: tuple[str, str], state: _State, seconds: float) -> None:
        _, _, used, borrowed, lent, _, _ = state
        held = self.totals.get(key)
        if held is None:
            held = self.totals[key] = Held()
        held.within_quota += (used - borrowed) * seconds
        held.borrowed += borrowed * seconds
        held.lent += lent * seconds


_State = tuple[int, int, int, int, int, int, int]
"""A span without its owner and its times."""


def _telling(spans: Iterable[Span]) -> list[Span]:
    """Those that say something: a team that has, holds and wants nothing in a pool is none of them."""
    return [one for one in spans if one.until > one.since and (one.quota or one.used or one.waiting_jobs)]
