"""What Slurm says again gives the same record, not an equal one; anything else gives a new one."""

from __future__ import annotations

from test_read import NODE, WAITING

from slurm_gov.slurm import read
from slurm_gov.slurm.unchanged import Unchanged


def test_the_same_row_gives_the_same_job() -> None:
    unchanged = Unchanged()
    looks = []
    for row in (WAITING, dict(WAITING), WAITING | {"prioritylong": "4444"}):
        looks += read.waiting([row], {}, (), 0.0, unchanged)
        unchanged.looked()
    first, second, third = looks
    assert second is first
    assert third is not first
    assert third.priority == 4444


def test_what_is_not_in_the_row_counts_too() -> None:
    unchanged = Unchanged()
    (first,) = read.waiting([WAITING], {}, (), 0.0, unchanged)
    unchanged.looked()
    (second,) = read.waiting([WAITING], {17: frozenset({"n1"})}, (), 0.0, unchanged)
    assert second.request.excluded_nodes == {"n1"}
    assert second is not first


def test_a_node_in_one_more_partition_is_another() -> None:
    unchanged = Unchanged()
    (first,) = read.nodes([NODE], unchanged)
    unchanged.looked()
    (same,) = read.nodes([NODE], unchanged)
    unchanged.looked()
    (other,) = read.nodes([NODE, NODE | {"partitionname": "all"}], unchanged)
    assert same is first
    assert other.partitions == ("gpu", "all")


def test_what_is_gone_is_forgotten() -> None:
    unchanged = Unchanged()
    (first,) = read.nodes([NODE], unchanged)
    unchanged.looked()
    unchanged.looked()
    (again,) = read.nodes([NODE], unchanged)
    assert again == first
    assert again is not first
