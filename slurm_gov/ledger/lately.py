"""What teams borrowed lately, as the ledger knows it: what was long ago counts less and less."""

from __future__ import annotations

from collections.abc import Iterable
from math import log

from slurm_gov.database import Where
from slurm_gov.ledger.read import spans
from slurm_gov.ledger.span import Span

HALVES = 10
"""After so many half-lives a thousandth is left of it: it is forgotten."""


def borrowed_lately(path: Where, half_life: float, now: float) -> dict[str, float]:
    """Each team's borrowed GPU-seconds in all pools, where what is ``half_life`` seconds old counts half.

    Raises ``LedgerError``.
    """
    return decayed(spans(path, now - HALVES * half_life, now), half_life, now)


def decayed(held: Iterable[Span], half_life: float, now: float) -> dict[str, float]:
    """The same of these spans; teams that borrowed nothing are left out."""
    sums: dict[str, float] = {}
    for span in held:
        if span.borrowed:
            # the integral of 2 ** -(age / half_life) over the span
            newer, older = (2 ** (-max(0.0, now - at) / half_life) for at in (span.until, span.since))
            sums[span.team] = sums.get(span.team, 0.0) + span.borrowed * (newer - older) * half_life / log(2)
    return sums
