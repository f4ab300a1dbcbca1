"""The page's document and its changes, on the benchmark's cluster of 1,000 nodes and 5,000 waiting jobs."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.page import World, fill, put
from slurm_gov.web.board import Board, Happening
from slurm_gov.web.document import changes, document
from slurm_gov.web.view import View

SCALARS = st.one_of(st.integers(0, 3), st.text(max_size=2), st.lists(st.integers(0, 2), max_size=2))
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=4), max_leaves=12
).filter(lambda one: isinstance(one, dict))


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396, as its text has it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


@given(DOCUMENTS, DOCUMENTS)
def test_changes_make_one_document_of_another(before: dict[str, Any], after: dict[str, Any]) -> None:
    untouched = copy.deepcopy(before)
    patch = changes(before, after)
    assert merged(before, patch) == after
    assert (patch == {}) == (before == after)
    assert before == untouched


@pytest.fixture(scope="module")
def world() -> World:
    made = World(1000, 5000)
    fill(made)
    return made


def test_the_stream_is_small_whatever_the_number_of_jobs(world: World) -> None:
    """At most 50 KB/s with a cycle every second, which is as often as the stream speaks."""
    board = Board()
    sizes = []
    before: dict[str, Any] | None = None
    for _ in range(8):
        look = world.look()
        put(board, world, look)
        after = document(board, board.state, View(look))
        if before is not None:
            patch = changes(before, after)
            assert merged(before, patch) == after
            sizes.append(len(json.dumps(patch, separators=(",", ":"))))
        before = after
        world.act(look)
    assert before is not None
    assert len(before["waiting"]) == 100 and len(before["nodes"]) == 1000
    assert before["cluster"]["waiting_jobs"] == 5000
    assert sum(before["reasons"][reason][0] for reason in before["reasons"]) == 5000
    assert sum(sizes) / len(sizes) < 50_000, sizes
    assert len(json.dumps(before)) < 400_000


def test_nothing_is_null_for_null_takes_away(world: World) -> None:
    board = Board()
    board.happened(lambda id: Happening(id, 1.0, "cap", why="so"))
    look = world.look()
    put(board, world, look)

    def walk(value: object) -> None:
        assert value is not None
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(inner)

    walk(document(board, board.state, View(look)))
