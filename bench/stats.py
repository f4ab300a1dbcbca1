"""Means and percentiles. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values")
    if not 0 < percent <= 100:
        raise ValueError(f"{percent} is no percentage above 0 and up to 100")
    ordered = sorted(values)
    return ordered[math.ceil(percent / 100 * len(ordered)) - 1]


@dataclass(frozen=True)
class Summary:
    """What a table shows of a series."""

    count: int
    mean: float
    median: float
    p95: float
    p99: float
    least: float
    most: float


def summary(values: Sequence[float]) -> Summary:
    """Of a series that is not empty."""
    return Summary(
        count=len(values),
        mean=statistics.fmean(values),
        median=statistics.median(values),
        p95=percentile(values, 95),
        p99=percentile(values, 99),
        least=min(values),
        most=max(values),
    )
