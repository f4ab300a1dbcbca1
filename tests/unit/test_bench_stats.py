"""The statistics of the bench."""

import pytest

from bench.stats import percentile, summary


def test_percentile_is_a_value_that_occurred() -> None:
    values = list(range(1000, 0, -1))
    assert percentile(values, 50) == 500
    assert percentile(values, 99) == 990
    assert percentile(values, 100) == 1000
    assert percentile([7], 1) == 7


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1], 0), ([1], 101)])
def test_percentile_refuses_nonsense(values: list[float], percent: float) -> None:
    with pytest.raises(ValueError):
        percentile(values, percent)


def test_summary() -> None:
    one = summary([4, 1, 3, 2])
    assert (one.count, one.mean, one.median, one.p99, one.least, one.most) == (4, 2.5, 2.5, 4, 1, 4)
