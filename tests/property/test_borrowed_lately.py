"""What the ledger says that teams and cohorts borrowed is what the shares said at each moment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slurm_model import balances
from worlds import pick, policies

from slurm_gov.core.decision import Standing
from slurm_gov.core.policy import Policy
from slurm_gov.core.shares import CLUSTER, Holder, Shares
from slurm_gov.ledger.lately import decayed
from slurm_gov.ledger.meter import Meter

EVER = 1e9  # a half-life in which nothing comes to count less
Use = dict[tuple[str, str], int]


@st.composite
def histories(draw: st.DrawFn) -> tuple[Policy, list[tuple[float, Use]]]:
    """Looks at what teams use, each with its time; some so far apart that nobody knows what was between."""
    rules = draw(policies())
    owners = [(team, pool) for team in rules.teams for pool in rules.pools]
    looks, now, use = [], 1000.0, dict.fromkeys(owners, 0)
    for _ in range(draw(st.integers(2, 12))):
        use = {owner: draw(pick([before, 0, 4, 8, 40])) for owner, before in use.items()}
        looks.append((now, use))
        now += draw(pick([5.0, 20.0, 60.0, 300.0]))
    return rules, looks


def standings(rules: Policy, use: Use) -> list[Standing]:
    """As a plan has them."""
    found = []
    for (team, pool), used in use.items():
        quota = rules.teams[team].quotas[pool].nominal
        found.append(Standing(team, pool, quota, quota, used, max(0, used - quota), 0, 0, 0, 0))
    return found


def borrowed_now(holder: Holder) -> int:
    return sum(max(0, used - holder.subtree.get(pool, 0)) for pool, used in holder.usage.items())


@given(histories())
def test_it_is_what_the_shares_said(history: tuple[Policy, list[tuple[float, Use]]]) -> None:
    rules, looks = history
    meter, spans = Meter(), {}
    teams, cohorts = dict.fromkeys(rules.teams, 0.0), {}
    for (now, use), later in zip(looks, [*(at for at, _ in looks[1:]), None], strict=True):
        written = meter.look(now, standings(rules, use), {})
        shares = Shares(rules, dict.fromkeys(rules.pools, 0))
        for (team, pool), used in use.items():
            shares.add(team, {pool: used})
        seconds = later - now if later is not None and later - now <= 60 else 0.0
        for team in teams:
            teams[team] += seconds * borrowed_now(shares.holder(team))
        for cohort in {holder.name for team in teams for holder in shares.holder(team).above()} - {CLUSTER}:
            cohorts[cohort] = cohorts.get(cohort, 0.0) + seconds * borrowed_now(shares.cohort(cohort))
        spans.update({(one.team, one.pool, one.since): one for one in (*written, *meter.going_on())})
    found = decayed(balances(spans.values()), rules, EVER, looks[-1][0])
    assert found.teams == pytest.approx({name: seconds for name, seconds in teams.items() if seconds}, rel=1e-4)
    if rules.cohorts:
        assert found.cohorts == pytest.approx({name: n for name, n in cohorts.items() if n}, rel=1e-4)
