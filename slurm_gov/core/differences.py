"""What came and what went from one snapshot to the next, told by the records themselves: they never change."""

from __future__ import annotations

from collections.abc import Collection, Container
from typing import TypeVar

Record = TypeVar("Record")


def differences(
    before: Collection[Record], now: Collection[Record], known: Container[int]
) -> tuple[list[Record], list[Record]]:
    """Which records are here no more, and which are new. ``known`` are the identities (``id``) of those before."""
    gone: list[Record] = []
    new: list[Record] = []
    rest = iter(before)
    one = next(rest, None)
    for record in now:  # mostly they come in the same order
        if one is record:
            one = next(rest, None)
        elif id(record) not in known:
            new.append(record)
        else:
            while one is not None and one is not record:
                gone.append(one)
                one = next(rest, None)
            if one is None:
                break
            one = next(rest, None)
    else:
        return (gone if one is None else [*gone, one, *rest]), new
    here = set(map(id, now))
    return [record for record in before if id(record) not in here], [one for one in now if id(one) not in known]
