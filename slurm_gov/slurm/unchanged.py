"""Most of what Slurm says is what it said the last time: then the very record of last time is handed out again.

So nothing is parsed twice, and whoever reads the records sees at a glance what is unchanged: the planner goes by it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

T = TypeVar("T")


class Unchanged:
    """The records of the last look and those of this one."""

    def __init__(self) -> None:
        self._last: dict[Hashable, tuple[object, object]] = {}
        self._this: dict[Hashable, tuple[object, object]] = {}

    def get(self, key: Hashable, said: object, make: Callable[[], T]) -> T:
        """The record made of what was said: a new one only if something else is said than the last time."""
        known = self._last.get(key)
        if known is None or known[0] != said:
            known = said, make()
        self._this[key] = known
        return known[1]  # type: ignore[return-value]

    def looked(self) -> None:
        """The look is over: what was not asked for in it is forgotten."""
        self._last, self._this = self._this, {}


def whole(row: Mapping[str, str]) -> str:
    """All that a row says, as one text: it is kept until the next look, and a row takes much more memory."""
    return "\\0".join(row.values())
