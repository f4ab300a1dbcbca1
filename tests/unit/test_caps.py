"""From GPUs per pool to GrpTRES."""

from __future__ import annotations

import pytest
from clusters import H100, policy, team
from hypothesis import given
from hypothesis import strategies as st

from slurm_gov.core.caps import tres_caps, ungoverned
from slurm_gov.core.policy import Policy, Pool, frozen

GPU, A100 = "gres/gpu", "gres/gpu:a100"


def two_pools() -> Policy:
    pools = {"h100": Pool("h100", ("gpu",), "gpu:h100"), "a100": Pool("a100", ("old",), "gpu:a100")}
    return Policy(frozen(pools), frozen({}))


NODES = [{H100: 8}, {H100: 8}, {A100: 4}]


def test_every_pool_is_capped_and_all_of_them_together() -> None:
    amounts = {"research": {"h100": 8, "a100": 4}, "product": {"h100": 0, "a100": 0}}
    assert tres_caps(two_pools(), amounts, ungoverned(two_pools(), NODES), {}) == {
        "research": {H100: 8, A100: 4, GPU: 12},
        "product": {H100: 0, A100: 0, GPU: 0},
    }


def test_gpus_of_no_pool_are_nobodys_quota_and_kept_from_nobody() -> None:
    nodes = [*NODES, {"gres/gpu:l40": 2, H100: 1}, {GPU: 1}, {"gres/shard": 64, "gres/mps": 100}, {}]
    caps = tres_caps(
        two_pools(),
        {"research": {"h100": 8, "a100": 4}, "product": {"h100": 0, "a100": 0}},
        ungoverned(two_pools(), nodes),
        {},
    )
    assert caps["research"] == {H100: 8, A100: 4, GPU: 12 + 3}
    assert caps["product"] == {H100: 0, A100: 0, GPU: 3}


def test_a_parents_cap_covers_its_children() -> None:
    amounts = {name: {"h100": gpus} for name, gpus in (("lab", 8), ("vision", 4), ("robots", 2))}
    caps = tres_caps(policy(), amounts, {GPU: 1}, {"vision": ["lab"], "robots": ["vision", "lab"]})
    assert caps == {
        "lab": {H100: 14, GPU: 14 + 1},
        "vision": {H100: 6, GPU: 6 + 1},
        "robots": {H100: 2, GPU: 2 + 1},
    }


def test_tres_are_in_lower_case_whatever_the_type_is_called() -> None:
    capitals = Policy(frozen({"h": Pool("h", ("gpu",), "gpu:H100")}), frozen({}))
    for on_nodes in (H100, "gres/gpu:H100"):
        assert tres_caps(capitals, {"a": {"h": 8}}, ungoverned(capitals, [{on_nodes: 8}]), {}) == {
            "a": {H100: 8, GPU: 8}
        }


def test_nobody_has_no_caps() -> None:
    assert tres_caps(two_pools(), {}, ungoverned(two_pools(), NODES), {}) == {}


def test_the_result_cannot_be_changed() -> None:
    caps = tres_caps(policy(team("a", 1)), {"a": {"h100": 1}}, {}, {})
    with pytest.raises(TypeError):
        caps["a"][H100] = 2  # type: ignore[index]


@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.fixed_dictionaries({"h100": st.integers(0, 99), "a100": st.integers(0, 99)}),
    ),
    st.lists(st.dictionaries(st.sampled_from([GPU, H100, A100, "gres/gpu:l40"]), st.integers(0, 8))),
)
def test_the_untyped_cap_never_keeps_a_team_from_what_the_typed_ones_allow(
    amounts: dict[str, dict[str, int]], nodes: list[dict[str, int]]
) -> None:
    others = sum(node.get(tres, 0) for node in nodes for tres in (GPU, "gres/gpu:l40"))
    for name, caps in tres_caps(two_pools(), amounts, ungoverned(two_pools(), nodes), {}).items():
        assert (caps[H100], caps[A100]) == (amounts[name]["h100"], amounts[name]["a100"])
        assert caps[GPU] == caps[H100] + caps[A100] + others
