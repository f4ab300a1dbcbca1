"""Metrics with a series for every team: kept and written here, since prometheus-client took about 200 ms for the
17,000 lines of 200 teams in 4 pools, on a busy machine (`python -m bench observe` measures). What is few is
prometheus-client's.

All of it may be written by one thread and read by another: a reader takes copies.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

Labels = tuple[str, ...]


@lru_cache(maxsize=65_536)
def labels(names: Labels, values: Labels) -> str:
    """``{team="research",pool="h100"}``."""
    pairs = (f'{name}="{escape(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{','.join(pairs)}}}"


def escape(value: str) -> str:
    """A label's value as the text format wants it."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def head(name: str, kind: str, help: str) -> str:
    """The two lines before a family's samples."""
    return f"# HELP {name} {help}\n# TYPE {name} {kind}"


def gauge(name: str, help: str, names: Labels, samples: Iterable[tuple[Labels, float]]) -> Iterator[str]:
    """The lines of a gauge."""
    yield head(name, "gauge", help)
    for values, amount in samples:
        yield f"{name}{labels(names, values)} {amount}"


class Totals:
    """A counter with labels."""

    def __init__(self, name: str, help: str, names: Labels) -> None:
        self._name, self._help, self._names = name, help, names
        self._totals: dict[Labels, float] = {}

    def add(self, amount: float, *values: str) -> None:
        """Count this much more of it."""
        self._totals[values] = self._totals.get(values, 0.0) + amount

    def set(self, totals: Mapping[Labels, float]) -> None:
        """Take over what was summed up elsewhere."""
        self._totals = dict(totals)

    def lines(self) -> Iterator[str]:
        """As Prometheus reads it."""
        yield head(self._name, "counter", self._help)
        for values, amount in list(self._totals.items()):
            yield f"{self._name}{labels(self._names, values)} {amount:.10g}"


class Durations:
    """A histogram with labels; ``buckets`` are upper bounds in seconds."""

    def __init__(self, name: str, help: str, names: Labels, buckets: tuple[float, ...]) -> None:
        self._name, self._help, self._names = name, help, names
        self._buckets = buckets
        self._bounds = [f"{bound:g}" for bound in buckets]
        self._counts: dict[Labels, tuple[list[int], float]] = {}

    def observe(self, seconds: float, *values: str) -> None:
        """Count one that took so long."""
        counts, total = self._counts.get(values, ([0] * (len(self._buckets) + 1), 0.0))
        counts = counts.copy()
        counts[bisect_left(self._buckets, seconds)] += 1
        self._counts[values] = counts, total + seconds

    def lines(self) -> Iterator[str]:
        """As Prometheus reads it."""
        yield head(self._name, "histogram", self._help)
        for values, (counts, total) in list(self._counts.items()):
            own = labels(self._names, values)
            most = own[:-1] + ',le="'
            sum_so_far = 0
            for bound, count in zip(self._bounds, counts, strict=False):
                sum_so_far += count
                yield f'{self._name}_bucket{most}{bound}"}} {sum_so_far}'
            sum_so_far += counts[-1]
            yield f'{self._name}_bucket{most}+Inf"}} {sum_so_far}'
            yield f"{self._name}_sum{own} {total:.10g}"
            yield f"{self._name}_count{own} {sum_so_far}"
