"""Who used what: the arithmetic, without a Slurm."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_gov.core.policy import Pool
from slurm_gov.core.run import Run
from slurm_gov.ledger import Event, Kind, Span
from slurm_gov.ledger.usage import NO_TEAM, Books, observed, usage
from slurm_gov.slurm.client import SlurmError
from slurm_gov.slurm.sacct import read_runs

QUOTAS = {("research", "h100"): 16, ("product", "h100"): 16}
PARENTS = {"research": "root", "lab": "research", "product": "root", "other": "root"}
POOLS = (Pool("h100", ("gpu",), "gpu:h100"), Pool("a100", ("old",), "gpu:a100"))


def run(job: str, account: str, gpus: int, start: float | None, end: float | None, **more) -> Run:
    elapsed = (end or 1000.0) - start if start is not None else 0.0
    whole = {
        "user": "ann",
        "qos": "normal",
        "pool": "h100",
        "eligible": start,
        "elapsed": elapsed,
        "state": "COMPLETED",
    }
    return Run(job, account, gpus=gpus, start=start, end=end, **{**whole, **more})


def held(team: str, since: float, until: float, quota: int = 16, lent: int = 0) -> Span:
    return Span(team, "h100", since, until, quota, quota, 0, 0, lent, 0, 0)


def books(*runs: Run, spans: tuple[Span, ...] = (), events: tuple[Event, ...] = (), **more) -> Books:
    return Books(runs, spans, events, QUOTAS, PARENTS, **more)


def by_team(*args, periods=(0.0, 1000.0), now=1000.0, **more):
    found = usage(books(*args, **more), periods, lambda team, run: team, True, now)
    return {(number, team): one for (number, team, _), one in found.items()}


def test_what_is_above_the_quota_is_borrowed_by_who_came_last() -> None:
    runs = [run("1", "research", 8, 0, 100), run("2", "lab", 16, 50, 100), run("3", "research", 8, 200, 300)]
    found = by_team(*runs)
    research = found[0, "research"]
    assert (research.used, research.within_quota, research.borrowed) == (800 + 800 + 800, 2400 - 8 * 50, 8 * 50)
    assert (research.quota, research.jobs) == (16_000, 3)
    assert research.utilisation == pytest.approx(0.125)
    jobs = usage(books(*runs), (0.0, 1000.0), lambda team, run: run.job, False, 1000.0)
    assert {key[1]: one.borrowed for key, one in jobs.items()} == {"1": 0, "2": 400, "3": 0}


def test_a_higher_class_does_not_borrow_before_a_lower_one() -> None:
    early = run("1", "research", 16, 0, 100, qos="experiment")
    late = run("2", "research", 16, 50, 100, qos="inference")
    kept = books(early, late, priorities={"inference": 100, "experiment": 10})
    found = usage(kept, (0.0, 1000.0), lambda team, run: run.qos, False, 1000.0)
    assert {key[1]: one.borrowed for key, one in found.items()} == {"experiment": 800, "inference": 0}


def test_a_run_across_midnight_belongs_to_both_days_and_one_that_goes_on_to_now() -> None:
    found = by_team(
        run("1", "research", 8, 50, 150), run("2", "product", 4, 120, None), periods=(0.0, 100.0, 200.0), now=160.0
    )
    assert (found[0, "research"].used, found[1, "research"].used) == (400, 400)
    assert (found[0, "research"].jobs, found[1, "research"].jobs) == (1, 0)
    assert (found[0, "product"].used, found[1, "product"].used) == (0, 160)
    assert (found[0, "product"].quota, found[1, "product"].quota) == (1600, 16 * 60)


def test_the_quota_is_what_it_was_then() -> None:
    spans = (held("research", 100, 200, 16), held("research", 500, 600, 8), held("research", 600, 700, 24))
    found = by_team(run("1", "research", 16, 0, 1000), spans=spans)
    # 16 until 500 (the hole keeps what was before), 8 until 600, 24 from then on
    assert found[0, "research"].quota == 16 * 500 + 8 * 100 + 24 * 400
    assert found[0, "research"].borrowed == 8 * 100


def test_what_was_lent_counts_only_where_somebody_looked() -> None:
    spans = (held("product", 100, 200, lent=8), held("product", 300, 400, lent=4))
    found = by_team(spans=spans, periods=(0.0, 350.0, 1000.0))
    assert (found[0, "product"].lent, found[1, "product"].lent) == (800 + 200, 200)
    assert observed(spans, 0, 1000) == pytest.approx(0.2)
    assert observed((held("a", 0, 100), held("b", 50, 150)), 0, 150) == 1.0
    assert observed((), 0, 0) == 0


def test_waiting_from_eligible_to_start_or_end_or_now() -> None:
    found = by_team(
        run("1", "research", 8, 100, 200, eligible=40),
        run("2", "research", 8, None, 90, eligible=80),
        run("3", "research", 2, None, None, eligible=900, tasks=5),
        run("4", "research", 8, None, None, eligible=None),
        run("5", "research", 8, None, None, eligible=5000),
    )
    assert found[0, "research"].waiting == 8 * 60 + 8 * 10 + 2 * 5 * 100


def test_what_was_lost_is_its_jobs_groups() -> None:
    runs = [
        run("7", "lab", 8, 0, 100, state="REQUEUED", user="bob"),
        run("7", "lab", 8, 102, 300),
        run("8", "product", 4, 0, 50, state="NODE_FAIL"),
        run("9", "product", 4, 0, 60, state="NODE_FAIL"),
    ]
    events = (
        Event(Kind.REQUEUE, at=101.5, team="research", pool="h100", job="7", lost=700),
        Event(Kind.REQUEUE, at=60.5, team="product", pool="h100", job="9", node="n1", lost=40),
        Event(Kind.REQUEUE, at=61.0, team="product", pool="h100", job="gone", user="eve", lost=5),
        Event(Kind.CAP, at=61.0, team="product", pool="h100", lost=5),
        Event(Kind.REQUEUE, at=5000.0, team="product", pool="h100", job="gone", lost=5),
    )
    found = by_team(*runs, events=events)
    assert (found[0, "research"].lost_preemption, found[0, "research"].lost_node_failure) == (700, 0)
    assert (found[0, "product"].lost_preemption, found[0, "product"].lost_node_failure) == (5, 40 + 4 * 50)
    users = usage(books(*runs, events=events), (0.0, 1000.0), lambda team, run: run.user, False, 1000.0)
    assert {key[1]: one.lost_preemption for key, one in users.items()} == {"bob": 700, "ann": 0, "eve": 5}


def test_suspended_time_is_not_used() -> None:
    found = by_team(run("1", "research", 8, 0, 100, elapsed=50.0))
    assert found[0, "research"].used == 400


def test_jobs_without_a_team_neither_borrow_nor_stay_within() -> None:
    found = by_team(run("1", "other", 8, 0, 100))[0, NO_TEAM]
    assert (found.used, found.within_quota, found.borrowed, found.quota) == (800, 0, 0, None)


def test_a_former_team_had_its_quota_until_it_went() -> None:
    spans = (Span("old", "h100", 0, 400, 8, 8, 0, 0, 0, 0, 0),)
    kept = Books([run("1", "old", 8, 0, 1000)], spans, (), QUOTAS, PARENTS)
    found = usage(kept, (0.0, 1000.0), lambda team, run: team, True, 1000.0)
    assert found[0, "old", "h100"].quota == 8 * 400
    assert found[0, "old", "h100"].borrowed == 8 * 600


_times = st.integers(0, 500)
_runs = st.lists(
    st.builds(
        lambda number, account, gpus, start, length, qos: run(
            str(number), account, gpus, start, start + length if length else None, qos=qos
        ),
        st.integers(1, 20), st.sampled_from(["research", "lab", "product", "other"]), st.integers(1, 32), _times,
        st.integers(0, 400), st.sampled_from(["normal", "inference"]),
    ),
    max_size=25,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(_runs, st.lists(st.tuples(_times, st.integers(0, 40)), max_size=4), st.lists(_times, max_size=3))
def test_it_adds_up_whatever_the_grouping(runs, quotas, cuts) -> None:
    quotas = sorted(dict(quotas).items())
    ends = [*(time for time, _ in quotas[1:]), 700][: len(quotas)]
    spans = [held("research", time, end, quota) for (time, quota), end in zip(quotas, ends, strict=True)]
    kept = books(*runs, spans=tuple(spans), priorities={"inference": 100})
    periods = sorted({0.0, *map(float, cuts), 600.0})
    totals = []
    for group in (
        lambda team, run: team,
        lambda team, run: run.account,
        lambda team, run: run.qos,
        lambda team, run: "",
    ):
        found = usage(kept, periods, group, False, 650.0).values()
        totals.append(
            [sum(getattr(one, name) for one in found) for name in ("used", "within_quota", "borrowed", "waiting")]
        )
        assert all(one.borrowed >= -1e-6 and one.within_quota >= -1e-6 for one in found)
    for other in totals[1:]:
        assert other == pytest.approx(totals[0])
    # A second by a second, as slow as it is plain.
    used = borrowed = 0
    for second in range(600):
        now_held = {
            team: sum(one.gpus for one in runs if one.account in accounts and one.start <= second < (one.end or 650))
            for team, accounts in {"research": ("research", "lab"), "product": ("product",), "": ("other",)}.items()
        }
        quota = 16 if not quotas else [q for t, q in quotas if t <= second or t == quotas[0][0]][-1]
        used += sum(now_held.values())
        borrowed += max(0, now_held["research"] - quota) + max(0, now_held["product"] - 16)
    assert totals[0][0] == pytest.approx(used)
    assert totals[0][2] == pytest.approx(borrowed)


# -- reading sacct ---------------------------------------------------------------------------------------


def said(*rows: str) -> str:
    return "".join(row.replace("|", "\x1f") + "\n" for row in rows)


def test_rows_of_sacct() -> None:
    found = read_runs(
        said(
            "24_3|lab|ann|normal|gpu|REQUEUED|100|110|200|35|cpu=1,gres/gpu:h100=8,gres/gpu=8,node=1|gres/gpu=8",
            "24_[4-9,12%2]|lab|ann|normal|gpu|PENDING|100|Unknown|Unknown|0||cpu=1,gres/gpu:h100=8,gres/gpu=8",
            "25|lab|ann|normal|old|CANCELLED by 0|100|120|None|10|gres/gpu=2|gres/gpu=2",
            "26|lab|ann|normal|gpu|RUNNING|100|120|Unknown|10|cpu=4|cpu=4",
            "27|lab|ann|normal|gpu|PENDING|Unknown|Unknown|Unknown|0||gres/gpu:h100=1",
        ),
        POOLS,
    )
    base = Run("24_3", "lab", "ann", "normal", "h100", 8, 100, 110, 200, 35, "REQUEUED")
    assert found == [
        base,
        replace(base, job="24", start=None, end=None, elapsed=0, state="PENDING", tasks=7),
        replace(base, job="25", pool="a100", gpus=2, start=120, end=None, elapsed=10, state="CANCELLED"),
        replace(base, job="27", gpus=1, eligible=None, start=None, end=None, elapsed=0, state="PENDING"),
    ]


@pytest.mark.parametrize(
    "row", ["1|2", "1|a|u|q|gpu|RUNNING|1|1|1|x|gres/gpu:h100=1|", "1|a|u|q|gpu|R|1|1|1|1|gres/gpu:h100=z|"]
)
def test_what_sacct_cannot_have_meant_is_an_error(row: str) -> None:
    with pytest.raises(SlurmError, match="sacct printed"):
        read_runs(said(row), POOLS)
