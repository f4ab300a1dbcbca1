"""What came and what went between two snapshots, in whatever order their records are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slurm_gov.core.differences import differences


class Record:
    """One like any other: only which one it is counts."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record)

    def __hash__(self) -> int:
        return 0


RECORDS = [Record() for _ in range(8)]


def found(before: list[Record], now: list[Record]) -> tuple[list[int], list[int]]:
    """The numbers of those that are gone, and of those that are new."""
    gone, new = differences(before, now, {id(one) for one in before})
    number = {id(one): index for index, one in enumerate(RECORDS)}
    return [number[id(one)] for one in gone], [number[id(one)] for one in new]


def records(*numbers: int) -> list[Record]:
    return [RECORDS[number] for number in numbers]


def test_in_the_same_order() -> None:
    assert found(records(1, 2, 3), records(1, 2, 3)) == ([], [])
    assert found(records(1, 2, 3), records(0, 1, 4, 3, 5)) == ([2], [0, 4, 5])
    assert found(records(1, 2, 3), records(1)) == ([2, 3], [])
    assert found([], records(1)) == ([], [1])
    assert found(records(1), []) == ([1], [])


def test_in_another_order() -> None:
    assert found(records(1, 2, 3, 4), records(4, 5, 2)) == ([1, 3], [5])
    assert found(records(1, 2), records(2, 1)) == ([], [])


NUMBERS = st.lists(st.integers(0, 7), unique=True)


@given(NUMBERS, NUMBERS)
def test_whatever_the_order(before: list[int], now: list[int]) -> None:
    gone, new = found(records(*before), records(*now))
    assert sorted(gone) == sorted(set(before) - set(now))
    assert new == [number for number in now if number not in before]
