"""Where a job fits: nodes with these GPUs, CPUs and this memory, and no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slurm_gov.core.policy import frozen
from slurm_gov.core.room import Room, easier
from slurm_gov.core.snapshot import Held, Node, Request

H100 = "gres/gpu:h100"


def node(name: str, gpus: int = 8, cpus: int = 64, memory: int = 64_000, **more) -> Node:
    return Node(name, more.pop("partitions", ("gpu",)), frozen({H100: gpus}), cpus, memory, **more)


def equal(nodes: int = 1, each: int = 8, **more) -> Request:
    return Request(frozen({H100: nodes * each}), min_nodes=nodes, gpus_per_node=each, **more)


def spread(gpus: int, **more) -> Request:
    return Request(frozen({H100: gpus}), **more)


def placed(room: Room, request: Request, partition: str = "gpu") -> dict[str, int] | None:
    held = room.place(request, partition, H100)
    return None if held is None else {one.node: one.gpus[H100] for one in held}


TWO = [node("n1"), node("n2")]


def test_the_fullest_node_that_fits() -> None:
    room = Room(TWO)
    room.take([Held("n2", {H100: 4}, 1, 1)])
    assert placed(room, equal(each=4)) == {"n2": 4}
    assert placed(room, equal(each=5)) == {"n1": 5}
    assert placed(room, equal(2, 5)) is None
    assert placed(room, equal(2, 4)) == {"n1": 4, "n2": 4}


def test_on_no_more_nodes_than_it_may_have() -> None:
    room = Room([node(f"n{number}") for number in range(1, 5)])
    room.take([Held(f"n{number}", {H100: number}, 0, 0) for number in range(1, 5)])  # 7, 6, 5 and 4 are free
    assert placed(room, spread(14)) == {"n1": 7, "n2": 6, "n3": 1}
    assert placed(room, spread(13, max_nodes=2)) == {"n1": 7, "n2": 6}
    assert placed(room, spread(14, max_nodes=2)) is None
    assert placed(room, spread(12, max_nodes=2, required_nodes=frozenset({"n3"}))) == {"n3": 5, "n1": 7}
    assert placed(room, spread(13, max_nodes=2, required_nodes=frozenset({"n3"}))) is None


def test_the_fewest_nodes_where_cpus_are_scarce() -> None:
    """The node with the most free GPUs has CPUs for one of them only."""
    room = Room([node("n1"), node("n2"), node("n3")])
    room.take([Held("n1", {}, 63, 0), Held("n2", {H100: 1}, 0, 0), Held("n3", {H100: 1}, 0, 0)])
    assert placed(room, spread(14, cpus=14)) == {"n1": 1, "n2": 7, "n3": 6}
    assert placed(room, spread(14, cpus=14, max_nodes=2)) == {"n2": 7, "n3": 7}


def test_reserved_nodes_are_for_the_jobs_of_the_reservation() -> None:
    mine, other = frozenset({"mine"}), frozenset({"other"})
    room = Room([node("n1"), node("n2", usable=False, reserved=mine), node("n3", usable=False)])
    assert placed(room, equal(1)) == {"n1": 8}
    assert placed(room, equal(2)) is None
    assert placed(room, equal(1, reservations=mine)) == {"n2": 8}
    assert placed(room, equal(1, reservations=mine | other)) == {"n2": 8}
    assert placed(room, equal(2, reservations=mine)) is None
    assert placed(room, equal(1, reservations=other)) is None
    assert placed(room, equal(1, reservations=mine, required_nodes=frozenset({"n1"}))) is None
    assert placed(room, equal(1, reservations=mine, required_nodes=frozenset({"n2"}))) == {"n2": 8}
    assert not easier(equal(reservations=mine), equal(2))
    empty = Room([node("n2", usable=False, reserved=mine)], all_usable=True)
    assert placed(empty, equal(1, reservations=other)) == {"n2": 8}, "it may end"


def test_cpus_that_are_free_again_are_found() -> None:
    room, eight = Room([node("n1", cpus=8), node("n2", cpus=4)]), Request(frozen({"cpu": 8}), cpus=8)
    room.take([Held("n1", {}, 8, 0)])
    assert room.place(eight, "gpu", "cpu") is None
    room.give([Held("n1", {}, 8, 0)])
    assert room.place(eight, "gpu", "cpu") == (Held("n1", {}, 8, 0),)
    assert room.place(Request(frozen({"cpu": 4}), cpus=4), "gpu", "cpu") == (Held("n2", {}, 4, 0),)


def test_no_more_on_a_node_than_its_tasks_there_may_have() -> None:
    room = Room(TWO)
    assert placed(room, spread(8, most_per_node=4)) == {"n1": 4, "n2": 4}
    assert placed(room, spread(9, most_per_node=4)) is None
    assert placed(room, spread(4, most_per_node=6, gpus_per_task=4)) == {"n1": 4}


def test_nodes_of_which_some_feature_will_do() -> None:
    room = Room([node("n1", features=frozenset("ac")), node("n2", features=frozenset("b")), node("n3")])
    either = frozenset({frozenset("a"), frozenset("b")})
    assert placed(room, equal(2, any_features=either)) == {"n1": 8, "n2": 8}
    assert placed(room, equal(3, any_features=either)) is None
    assert placed(room, equal(1, any_features=either, features=frozenset("c"))) == {"n1": 8}
    assert placed(room, equal(2, any_features=either, features=frozenset("c"))) is None
    assert not easier(equal(any_features=either), equal(2))
    assert easier(equal(any_features=either), equal(2, any_features=either))


@pytest.mark.parametrize(
    "request_",
    [
        equal(each=1, cpus=61),
        equal(each=1, memory_per_node=60_001),
        equal(each=1, cpus=10, memory_per_cpu=6_001),
        spread(1, cpus=61),
        spread(1, memory_per_node=60_001),
        spread(1, cpus=10, memory_per_cpu=6_001),
    ],
    ids=["cpus", "memory", "memory per cpu", "cpus, spread", "memory, spread", "memory per cpu, spread"],
)
def test_cpus_and_memory_count(request_: Request) -> None:
    room = Room([node("n1")])
    assert placed(room, request_) == {"n1": 1}
    room.take([Held("n1", {H100: 1}, 4, 4_000)])
    assert placed(room, request_) is None


def test_exclusive_jobs_have_their_nodes_alone() -> None:
    room = Room(TWO)
    room.take([Held("n1", {}, 1, 1)])
    alone = replace(equal(each=1), exclusive=True)
    assert room.place(alone, "gpu", H100) == (Held("n2", frozen({H100: 8}), 64, 64_000),)
    room.take(room.place(alone, "gpu", H100))
    assert placed(room, alone) is None
    assert placed(room, equal(each=1)) == {"n1": 1}


def test_exclusive_spread_jobs_have_their_nodes_alone() -> None:
    room = Room(TWO)
    room.take([Held("n1", {}, 1, 1)])
    alone = replace(spread(4), exclusive=True)
    assert room.place(alone, "gpu", H100) == (Held("n2", frozen({H100: 8}), 64, 64_000),)
    assert room.has_place(alone, "gpu", H100)
    room.take(room.place(alone, "gpu", H100))
    assert placed(room, alone) is None
    assert not room.has_place(alone, "gpu", H100)


def test_a_tasks_gpus_are_on_one_node() -> None:
    room = Room([node("n1", gpus=3), node("n2", gpus=5)])
    assert placed(room, spread(8)) == {"n2": 5, "n1": 3}
    assert placed(room, spread(6, gpus_per_task=2)) == {"n2": 4, "n1": 2}
    assert placed(room, spread(8, gpus_per_task=2)) is None


def test_a_spread_job_has_as_many_nodes_as_it_asks_for() -> None:
    assert placed(Room(TWO), spread(8)) == {"n1": 8}
    assert placed(Room(TWO), spread(8, min_nodes=2)) == {"n1": 7, "n2": 1}
    assert placed(Room(TWO), spread(8, min_nodes=2, gpus_per_task=2)) == {"n1": 6, "n2": 2}
    assert placed(Room(TWO), spread(8, min_nodes=3)) is None


def test_excluded_required_and_featured_nodes() -> None:
    nodes = [*TWO, node("n3", features=frozenset({"ib"}))]
    assert placed(Room(nodes), equal(excluded_nodes=frozenset({"n1"}))) == {"n2": 8}
    assert placed(Room(nodes), spread(8, excluded_nodes=frozenset({"n1", "n2"}))) == {"n3": 8}
    assert placed(Room(nodes), equal(features=frozenset({"ib"}))) == {"n3": 8}
    assert placed(Room(nodes), equal(required_nodes=frozenset({"n2"}))) == {"n2": 8}
    assert placed(Room(nodes), equal(2, required_nodes=frozenset({"n2"}))) == {"n2": 8, "n1": 8}
    assert placed(Room(nodes), equal(required_nodes=frozenset({"n9"}))) is None
    assert placed(Room(nodes), equal(), "other") is None


def test_nodes_that_are_not_usable_are_no_room() -> None:
    nodes = [node("n1", usable=False)]
    assert placed(Room(nodes), equal()) is None
    assert placed(Room(nodes, all_usable=True), equal()) == {"n1": 8}


def test_a_trial_leaves_no_trace() -> None:
    room = Room(TWO)
    room.take([Held("n2", {H100: 8}, 60, 60_000)])
    with room.trial():
        room.give([Held("n2", {H100: 8}, 60, 60_000)])
        room.take([Held("n1", {H100: 8}, 60, 60_000)])
        assert placed(room, equal()) == {"n2": 8}
    assert placed(room, equal()) == {"n1": 8}
    assert placed(room, equal(2, 1)) is None


def test_no_more_than_is_there_later() -> None:
    now, later = Room(TWO), Room(TWO)
    later.take([Held("n1", {H100: 6}, 60, 60_000)])
    now.no_more_than(later, [Held("n1")])
    assert placed(now, equal(each=3)) == {"n2": 3}
    assert placed(now, equal(each=2)) == {"n1": 2}
    assert placed(now, equal(each=2, cpus=5)) == {"n2": 2}
    assert placed(now, equal(each=2, memory_per_node=4_001)) == {"n2": 2}
