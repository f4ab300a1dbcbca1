"""The bar of a pool: every GPU in exactly one segment, whoever holds it."""

from __future__ import annotations

from clusters import TWO, node, policy, running, snapshot, team, waiting
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_gov.core.actions import actions
from slurm_gov.core.plan import plan
from slurm_gov.core.policy import Cohort, Policy, frozen
from slurm_gov.core.rows import Look
from slurm_gov.core.snapshot import Snapshot
from slurm_gov.web.sharing import Use, segments

COHORTS = frozen({"x": Cohort("x"), "y": Cohort("y")})


def look(policy: Policy, snapshot: Snapshot) -> Look:
    decided = plan(policy, snapshot)
    return Look(policy, snapshot, decided, actions(policy, snapshot, decided))


def shown(policy: Policy, snapshot: Snapshot) -> list[tuple[str, str | None, str | None, int]]:
    return [(str(one.use), one.owner, one.user, one.gpus) for one in segments(look(policy, snapshot), "h100")]


def test_nobody_runs_anything() -> None:
    assert shown(TWO, snapshot(8)) == [("free", "product", None, 32), ("free", "research", None, 32)]


def test_a_borrower_is_seen_on_its_lenders_part() -> None:
    jobs = [running(id, "research", f"n{id}") for id in range(1, 7)]
    assert shown(TWO, snapshot(8, *jobs)) == [
        ("lent", "product", "research", 16),
        ("free", "product", None, 16),
        ("within", "research", "research", 32),
    ]


def test_a_borrower_holds_its_cohorts_and_what_no_team_was_given() -> None:
    teams = policy(team("a", 8, cohort="x"), team("b", 16, cohort="y"), team("c", 16, cohort="x"), cohorts=COHORTS)
    jobs = [running(id, "a", f"n{id}") for id in range(1, 7)]  # 48 of its 8
    assert shown(teams, snapshot(8, *jobs)) == [
        ("within", "a", "a", 8),
        ("free", "b", None, 16),
        ("lent", "c", "a", 16),
        ("lent", None, "a", 24),
    ]


def test_jobs_without_a_team_hold_what_no_team_was_given() -> None:
    one = policy(team("a", 8))
    assert shown(one, snapshot(2, running(1, "guest", "n1"))) == [("free", "a", None, 8), ("lent", None, None, 8)]


def test_sick_nodes_and_promises_that_no_node_keeps() -> None:
    nodes = [node("n1"), node("n2", usable=False)]
    assert shown(policy(team("a", 16), team("b", 8)), snapshot(nodes, running(1, "a", "n1"))) == [
        ("within", "a", "a", 8),
        ("missing", "a", None, 8),
        ("away", "b", None, 8),
    ]


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([1, 4, 8]), st.booleans()), min_size=1, max_size=12),
)
def test_every_gpu_is_in_one_segment(quotas: list[int], nodes: list[tuple[int, int, bool]]) -> None:
    teams = policy(
        *(team(f"t{n}", quota, cohort="x" if n % 2 else "y") for n, quota in enumerate(quotas)), cohorts=COHORTS
    )
    machines = [node(f"n{n}", usable=usable) for n, (_, _, usable) in enumerate(nodes)]
    jobs = [running(n + 1, f"t{who}", f"n{n}", gpus) for n, (who, gpus, _) in enumerate(nodes) if who]
    seen = look(teams, snapshot(machines, *jobs))
    parts = segments(seen, "h100")
    (pool,) = seen.plan.pools

    def total(*uses: Use) -> int:
        return sum(one.gpus for one in parts if one.use in uses)

    assert all(one.gpus > 0 for one in parts)
    assert total(*Use) == max(pool.total, sum(quotas))
    assert total(Use.WITHIN, Use.LENT) == pool.used
    assert total(Use.FREE) == pool.free
    for standing in seen.plan.standings:
        mine = [one for one in parts if one.owner == standing.team]
        assert sum(one.gpus for one in mine) == standing.quota
        assert (
            sum(one.gpus for one in parts if one.use is Use.LENT and one.user == standing.team) == standing.borrowed
        )


def test_the_waiting_are_in_no_segment() -> None:
    assert shown(TWO, snapshot(8, waiting(1, "research"))) == shown(TWO, snapshot(8))
