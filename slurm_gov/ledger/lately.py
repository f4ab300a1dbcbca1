"""What teams and cohorts borrowed lately, as the ledger knows it: what was long ago counts less and less."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import log
from typing import NamedTuple

from slurm_gov.core.capacity import Subtree
from slurm_gov.database import Where
from slurm_gov.ledger.read import spans
from slurm_gov.ledger.span import Span

HALVES = 10
"""After so many half-lives a thousandth is left of it: it is forgotten."""


class Lately(NamedTuple):
    """GPU-seconds that were borrowed in all pools, where what is one half-life old counts half. A cohort's are what
    its teams used beyond all of its quotas: not what they borrowed from one another.
    """

    teams: dict[str, float]
    cohorts: dict[str, float]


def borrowed_lately(path: Where, half_life: float, now: float, cohorts: Mapping[str, Subtree]) -> Lately:
    """What is left of it now, ``half_life`` in seconds. A cohort is judged by the teams and quotas that it has today.

    Raises ``LedgerError``.
    """
    held = spans(path, now - HALVES * half_life, now)
    return Lately(decayed(held, half_life, now), decayed_above(held, half_life, now, cohorts))


def decayed(held: Iterable[Span], half_life: float, now: float) -> dict[str, float]:
    """Each team's, of these spans; those that borrowed nothing are left out."""
    sums: dict[str, float] = {}
    for span in held:
        if span.borrowed:
            left = span.borrowed * _weight(span.since, span.until, half_life, now)
            sums[span.team] = sums.get(span.team, 0.0) + left
    return sums


def decayed_above(
    held: Iterable[Span], half_life: float, now: float, cohorts: Mapping[str, Subtree]
) -> dict[str, float]:
    """Each cohort's, of these spans; those that borrowed nothing are left out."""
    of_team: dict[str, list[str]] = {}
    for name, cohort in cohorts.items():
        for team in cohort.teams:
            of_team.setdefault(team, []).append(name)
    changes: dict[
        tuple[str, str], list[tuple[float, int]]
    ] = {}  # by cohort and pool: when, and how much more is used
    for span in held:
        if span.used:
            for name in of_team.get(span.team, ()):
                changes.setdefault((name, span.pool), []).extend(((span.since, span.used), (span.until, -span.used)))
    sums: dict[str, float] = {}
    for (name, pool), of_pool in changes.items():
        used, since, quota = 0, 0.0, cohorts[name].quotas.get(pool, 0)
        for at, more in sorted(of_pool):
            if used > quota and at > since:
                left = (used - quota) * _weight(since, at, half_life, now)
                sums[name] = sums.get(name, 0.0) + left
            used, since = used + more, at
    return sums


def _weight(since: float, until: float, half_life: float, now: float) -> float:
    """The integral of 2 ** -(age / half_life) over a time, in seconds."""
    newer, older = (2 ** (-max(0.0, now - at) / half_life) for at in (until, since))
    return (newer - older) * half_life / log(2)
