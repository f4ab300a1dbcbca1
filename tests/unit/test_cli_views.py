"""The views' rows, from policy, snapshot and plan; and how they are printed. No Slurm."""

from __future__ import annotations

import json
from dataclasses import replace
from math import log

import pytest
from click.testing import CliRunner
from clusters import (
    H100,
    NOW,
    TWO,
    being_preempted,
    full_of_research,
    node,
    policy,
    running,
    snapshot,
    team,
    waiting,
)

from slurm_gov.cli import look as look_module
from slurm_gov.cli import words
from slurm_gov.cli.main import cli
from slurm_gov.core import rows
from slurm_gov.core.actions import actions
from slurm_gov.core.decision import Reason
from slurm_gov.core.plan import plan
from slurm_gov.core.policy import Cohort, Idle, Quota, frozen
from slurm_gov.core.rows import Look, Phase
from slurm_gov.core.snapshot import FaultMark, Mark, Request, RunState, Snapshot


def look(rules, taken: Snapshot) -> Look:
    decided = plan(rules, taken)
    return Look(rules, taken, decided, actions(rules, taken, decided))


def accounts(*names: str, caps: dict[str, int] | None = None) -> dict[str, object]:
    """Accounts as Slurm has them, and their caps."""
    return {
        "parents": frozen(dict.fromkeys(names, "root")),
        "caps": frozen({name: frozen({H100: cap}) for name, cap in (caps or {}).items()}),
    }


BOTH = accounts("research", "product", caps={"research": 64, "product": 32})


# -- status ----------------------------------------------------------------------------------------------


def test_status_says_which_quota_is_short_and_by_how_much():
    nodes = [*(node(f"n{index}") for index in range(1, 7)), node("n7", usable=False), node("n8", usable=False)]
    # TWO gives each half of 64; 48 are healthy. What research holds within its quota is its own; it borrows nothing.
    held = [running(1, "research", "n1 n2 n3 n4")]
    (short,) = rows.shortages(look(TWO, snapshot(nodes, *held)))
    assert (short.team, short.short, short.quota, short.sick_nodes) == ("product", 16, 32, ("n7", "n8"))
    # With nobody running either could be short: neither has anything yet that the other must leave it.
    assert rows.shortages(look(TWO, snapshot(nodes))) == []
    # A borrower gives way: research borrows 8 of 40, and product is short of what sick nodes took, not of that.
    borrowing = [running(1, "research", "n1 n2 n3 n4 n5")]
    (short,) = rows.shortages(look(TWO, snapshot(nodes, *borrowing)))
    assert (short.team, short.short) == ("product", 16)


def test_pools_say_who_holds_what():
    nodes = [*(node(f"n{index}") for index in range(1, 8)), node("n8", usable=False)]
    jobs = [running(1, "research", "n1 n2 n3 n4 n5"), running(2, "strangers", "n6", gpus=2)]
    (row,) = rows.pools(look(TWO, snapshot(nodes, *jobs)))
    assert (row.nodes, row.total, row.healthy, row.used, row.free) == (8, 64, 56, 42, 14)
    assert (row.borrowed, row.without_team, row.quota) == (8, 2, 64)


def test_teams_have_slurms_cap_and_the_plans():
    taken = snapshot(8, *full_of_research(), waiting(10, "product", 2), **BOTH)
    product, research = rows.teams(look(TWO, taken))
    assert (research.used, research.borrowed, research.cap, research.planned_cap) == (64, 32, 64, 48)
    assert (product.lent, product.waiting_gpus, product.waiting_jobs) == (32, 16, 1)
    assert (product.quota, product.borrow_limit, product.lend_limit) == (32, None, None)


def test_a_team_without_a_cap_or_an_account():
    found = look(TWO, snapshot(8, **accounts("research")))
    assert [row.cap for row in rows.teams(found)] == [None, None]
    assert any("team product has no account" in text for text in rows.warnings(found))


def test_accounts_without_a_team_are_counted():
    jobs = [running(1, "strangers", "n1", gpus=4), waiting(2, "strangers", 2, tasks=3), running(3, "research", "n2")]
    (row,) = rows.without_team(look(TWO, snapshot(8, *jobs)))
    assert (row.used, row.running_jobs, row.waiting_jobs, row.waiting_gpus) == (4, 1, 3, 48)


def test_warnings_quotas_not_covered_and_a_pool_without_nodes():
    assert "add up to 64, but only 16" in rows.warnings(look(TWO, snapshot(2)))[0]
    texts = rows.warnings(look(TWO, snapshot(0)))
    assert "pool h100 has no nodes: no node in partition gpu has gres gpu:h100" in texts


# -- preemptions -----------------------------------------------------------------------------------------


def nested(**more):
    """Ant and bee lend to one another in a cohort that borrows from the one above; cat is in none."""
    teams = [
        replace(team("ant", 8, cohort="low", borrow=None), fair_share_weight=50),
        replace(team("bee", 16, cohort="low"), fair_share_weight=0),
        replace(team("cat", 0, borrow=None), fair_share_weight=0),
    ]
    low = Cohort("low", "top", frozen({}), fair_share_weight=20)
    cohorts = frozen({"low": low, "top": Cohort("top", None, frozen({"h100": Quota(16)}), 0)})
    return replace(policy(*teams, lend_unallocated=True), cohorts=cohorts, **more)


def test_shares_of_cohorts_and_teams():
    """Ant holds 40 of 8: 16 of bee, which is in the same cohort, and 16 of the cohort above; cat 8 of nobody's."""
    jobs = [running(id, "ant", f"n{id}") for id in range(1, 6)] + [running(6, "cat", "n6")]
    found = rows.shares(look(nested(), snapshot(6, *jobs)))
    assert [(row.name, row.cohort, row.is_team, row.borrowed) for row in found] == [
        ("(shared)", None, False, 8),
        ("cat", "(shared)", True, 8),
        ("top", None, False, 0),
        ("low", "top", False, 16),
        ("ant", "low", True, 32),
        ("bee", "low", True, 0),
    ]
    share = {row.name: row.share for row in found}
    assert share["low"] == 16 * 1000 / 48 / 20, "48: quotas of 40 and 8 that are nobody's"
    assert share["ant"] == 32 * 1000 / 48 / 50
    assert share["cat"] == 1000 and share["bee"] == share["top"] == 0
    assert all(row.borrowed_lately is row.share_lately is None for row in found)


def test_shares_with_what_was_borrowed_lately(run):
    hour = 3600.0
    past = {"borrowed_lately": frozen({"ant": 4 * hour / log(2), "gone": 5.0})}
    taken = snapshot(6, running(1, "ant", "n1"), **past, cohorts_borrowed_lately=frozen({"low": 2 * hour / log(2)}))
    found = look(nested(half_life=hour), taken)
    lately = {row.name: (row.borrowed_lately, row.share_lately) for row in rows.shares(found)}
    assert lately["ant"] == pytest.approx((4, 4 * 1000 / 48 / 50))
    assert lately["low"] == pytest.approx((2, 2 * 1000 / 48 / 20))
    assert lately["bee"] == (0, 0)
    said = run(found, "status", "--shares").output
    assert "what was borrowed 1 h ago counts half" in said
    assert any(line.split() == ["ant", "50", "4.0", "(+2)"] for line in said.splitlines())
    assert "shares" not in json.loads(run(found, "status", "--json").output)
    assert len(json.loads(run(found, "status", "--shares", "--json").output)["shares"]) == 6


def test_a_share_without_weight_is_last_and_first_come_has_none(run):
    found = look(nested(), snapshot(6, running(6, "cat", "n6")))
    lines = run(found, "status", "--shares").output.splitlines()
    assert any(line.split() == ["cat", "0", "8", "last"] for line in lines)
    assert any(line.split() == ["ant", "50"] for line in lines)
    first_come = look(nested(idle=Idle.FIRST_COME), snapshot(6))
    assert "without effect: the policy's sharing is first_come" in run(first_come, "status", "--shares").output


def test_phases_of_a_preemption():
    jobs = full_of_research()
    jobs[2], jobs[3] = (being_preempted(job, 10) for job in jobs[2:4])
    jobs[3] = replace(jobs[3], mark=replace(jobs[3].mark, deadline=NOW - 1))
    found = look(TWO, snapshot(8, *jobs, waiting(10, "product", 3)))
    by_job = {row.job: row for row in rows.preemptions(found)}
    assert {job: row.phase for job, row in by_job.items()} == {
        "3": Phase.GRACE,
        "4": Phase.LEAVING,
        "8": Phase.NEXT_CYCLE,
    }
    assert by_job["3"].seconds_left == 25
    assert by_job["4"].seconds_left == 0
    assert by_job["8"].deadline is None
    assert by_job["8"].beneficiary == "10"
    assert "takes back h100" in by_job["8"].reason
    assert [row.job for row in rows.preemptions(found)] == ["4", "3", "8"]


def test_a_spared_job_and_one_that_our_signal_stopped():
    jobs = full_of_research()
    jobs[2] = being_preempted(jobs[2], 10)
    stopped = replace(being_preempted(jobs.pop(), 11), state=RunState.COMPLETING)
    found = look(TWO, snapshot(8, *jobs, ended=(stopped,)))
    assert {row.job: row.phase for row in rows.preemptions(found)} == {"3": Phase.SPARED, "8": Phase.LEAVING}
    assert next(row for row in rows.running(found) if row.job == "8").state == "stopped"


def test_the_beneficiary_is_named_as_people_know_it():
    jobs = full_of_research()
    jobs[0] = being_preempted(jobs[0], 10)
    task = replace(waiting(10, "product"), display_id="9_4")
    assert rows.preemptions(look(TWO, snapshot(8, *jobs, task)))[0].beneficiary == "9_4"
    assert rows.preemptions(look(TWO, snapshot(8, *jobs)))[0].beneficiary == "10"


def test_what_a_sick_node_did_to_a_job_is_told(run):
    mark = FaultMark("n3", NOW - 60, NOW - 900, count=2, settled=True, reason="XID 79")
    told = replace(running(1, "research", "n1"), fault=FaultMark("n1", NOW, NOW - 100, until=NOW + 60, reason="disk"))
    waits = replace(waiting(2, "research"), fault=mark, submit=NOW - 60)
    found = look(TWO, snapshot(8, told, waits, **BOTH))
    said = " ".join(run(found, "why", "1", "2", width=200).output.split())
    assert "told to save its work, node n1 is sick: requeued at" in said and ": disk" in said
    assert "by a fault of node n3, the 2nd time: XID 79" in said and "requeued" in said
    assert rows.running(found)[0].fault == rows.Fault(NOW, "n1", 1, NOW + 60, "disk")
    assert rows.waiting(found)[0].fault == rows.Fault(NOW - 60, "n3", 2, None, "XID 79")


def test_a_mark_of_an_earlier_run_is_history():
    old = Mark(10, "product", NOW - 500, NOW - 470, run=NOW - 5000, reason="product came")
    jobs = [replace(running(1, "research", "n1"), mark=old), replace(waiting(2, "research"), mark=old)]
    found = look(TWO, snapshot(8, *jobs))
    for row in (*rows.running(found), *rows.waiting(found)):
        assert row.preempted_before == rows.PastPreemption(NOW - 500, "10", "product", "product came")
    assert rows.preemptions(found) == []
    assert rows.running(found)[0].preemption is None


# -- jobs ------------------------------------------------------------------------------------------------


def borrowed(found: Look) -> dict[int, int]:
    return {row.id: row.borrowed for row in rows.running(found) if row.borrowed}


def test_the_latest_jobs_are_the_borrowed_ones_and_add_up():
    found = look(TWO, snapshot(8, *full_of_research()))
    assert borrowed(found) == {5: 8, 6: 8, 7: 8, 8: 8}
    assert sum(borrowed(found).values()) == rows.teams(found)[1].borrowed


def test_a_job_on_the_line_is_borrowed_in_part():
    rules = policy(team("research", 12), team("product", 32))
    jobs = [running(1, "research", "n1", start=NOW - 20), running(2, "research", "n2", start=NOW - 10)]
    assert borrowed(look(rules, snapshot(8, *jobs))) == {2: 4}


def test_borrowed_are_those_that_an_owner_would_take():
    """Lower priority before later start; what cannot be requeued last; what is being preempted first."""
    rules = policy(team("research", 8), team("product", 32))
    jobs = [
        running(1, "research", "n1", start=NOW - 50, qos="experiment"),
        running(2, "research", "n2", start=NOW - 10),
    ]
    assert borrowed(look(rules, snapshot(8, *jobs))) == {1: 8}
    assert borrowed(look(rules, snapshot(8, replace(jobs[0], requeueable=False), jobs[1]))) == {2: 8}
    jobs[1] = being_preempted(jobs[1], 10)
    assert borrowed(look(rules, snapshot(8, *jobs))) == {2: 8}


def test_a_team_without_quota_borrows_all():
    rules = policy(team("research", 64), replace(team("guests", 0), quotas=frozen({})))
    found = look(rules, snapshot(8, running(1, "guests", "n1")))
    assert borrowed(found) == {1: 8}


def test_places_in_line_are_slurms_order_per_pool_of_those_that_can_run():
    jobs = [
        waiting(1, "research", priority=10),
        waiting(2, "research", priority=30, held_back="its user holds it"),
        waiting(3, "product", priority=20),
        waiting(4, "research", 9, priority=40),
        waiting(5, "research", priority=50, request=Request()),
        waiting(6, "strangers", priority=5),
    ]
    found = rows.waiting(look(TWO, snapshot(8, *jobs)))
    assert [row.id for row in found] == [5, 4, 2, 3, 1, 6]
    assert {row.id: row.place for row in found} == {5: 1, 4: None, 2: None, 3: 1, 1: 2, 6: 3}
    assert {row.id: row.in_line for row in found if row.place} == {5: 1, 3: 3, 1: 3, 6: 3}
    assert next(row for row in found if row.id == 4).reason is Reason.CAN_NEVER_RUN


def test_running_rows():
    found = look(TWO, snapshot(8, running(2, "strangers", "n2 n1", gpus=4), running(1, "research", "n3")))
    first, second = rows.running(found)
    assert (first.id, first.team, first.gpus, first.pool, first.nodes) == (1, "research", 8, "h100", ("n3",))
    assert (second.team, second.gpus, second.account) == (None, 8, "strangers")
    assert (first.priority_class, first.priority_weight) == ("training", 50)


# -- why -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "expected"),
    [
        ("20", [20, 21, 22]),
        ("21", [21]),
        ("20_1", [21]),
        ("20_7", [20]),
        ("20_9", [20]),
        ("20_10", []),
        ("20_40", [20]),
        ("20_41", []),
        ("20_42", [20]),
        ("30", [30]),
        ("30_1", []),
        ("3", []),
        ("99", []),
    ],
)
def test_job_ids_and_array_tasks(id, expected):
    array = replace(waiting(20, "research", tasks=20), display_id="20_3-7,9,20-44:2%4")
    tasks = [replace(running(20 + n, "research", f"n{n}"), display_id=f"20_{n}") for n in (1, 2)]
    found = look(TWO, snapshot(8, array, *tasks, waiting(30, "product")))
    every = [*rows.waiting(found), *rows.running(found)]
    assert sorted(row.id for row in rows.find(every, id)) == expected


def test_whose_jobs_leave_for_a_waiting_one():
    found = look(TWO, snapshot(8, *full_of_research(), waiting(10, "product", 2), waiting(11, "research")))
    first, second = rows.waiting(found)
    assert sorted(row.job for row in rows.preempted_for(found, first)) == ["7", "8"]
    assert rows.preempted_for(found, second) == []


# -- plan ------------------------------------------------------------------------------------------------


def test_cap_changes_before_and_after():
    taken = snapshot(8, *full_of_research(), waiting(10, "product", 2), **accounts("research", "product"))
    taken = replace(taken, caps=frozen({"research": frozen({H100: 64, "gres/gpu": 64})}))
    lower, raise_ = rows.cap_changes(look(TWO, taken))
    assert rows.CapChange("research", H100, 64, 48) in lower
    assert rows.CapChange("product", H100, None, 32) in lower
    assert raise_ == []


def test_releases():
    mark = Mark(10, "product", NOW - 40, NOW - 10, run=NOW - 100)
    job = replace(
        waiting(1, "research"),
        mark=mark,
        slurm_reason="BeginTime",
        submit=NOW - 10,
        begin=NOW + 110,
        held_back="not yet",
    )
    assert rows.releases(look(TWO, snapshot(8, job))) == [rows.Release("1", 0.0)]


# -- words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (23.4, "23 s"), (120, "2 min"), (3600, "1 h"), (7800, "2 h 10 min"), (90000, "1 d 1 h")],
)
def test_spans(seconds, text):
    assert words.span(seconds) == text


def test_ordinals():
    assert [words.ordinal(n) for n in (1, 2, 3, 4, 11, 22, 112)] == [
        "1st",
        "2nd",
        "3rd",
        "4th",
        "11th",
        "22nd",
        "112th",
    ]


@pytest.mark.parametrize("amounts", [(24, 8, 0), (1, 10_000, 1), (0, 0, 5), (1, 1, 1)])
def test_bars_fill_their_width_and_hide_nothing(amounts):
    made = words.bar([(n, character, "") for n, character in zip(amounts, "abc", strict=True)], 40)
    assert len(made) == 40
    assert set(made.plain) == {character for n, character in zip(amounts, "abc", strict=True) if n}


# -- the commands ----------------------------------------------------------------------------------------

EVIL = "[bold]\x1b[31mevil\nline"


@pytest.fixture
def run(monkeypatch):
    """Run a view on a given look, as on a terminal of a given width."""

    def run(found: Look, *arguments: str, width: int = 80):
        for name in ("status", "jobs", "plan", "why"):
            monkeypatch.setattr(f"slurm_gov.cli.{name}.take_a_look", lambda path: found)
        monkeypatch.setattr("slurm_gov.cli.why.ended", lambda ids: {})
        monkeypatch.setenv("COLUMNS", str(width))
        return CliRunner().invoke(cli, list(arguments))

    return run


def busy() -> Look:
    """Everything at once: borrowed, being preempted, preempted before, arrays, no team, evil text."""
    jobs = full_of_research()
    jobs[0] = replace(jobs[0], user=EVIL)
    jobs[6] = replace(being_preempted(jobs[6], 10), display_id="7_3")
    jobs[6] = replace(jobs[6], mark=replace(jobs[6].mark, reason=EVIL))
    old = Mark(9, EVIL, NOW - 500, NOW - 470, run=NOW - 5000, reason=EVIL)
    pending = [
        waiting(10, "product", 2),
        replace(waiting(11, "research", tasks=100), display_id="11_" + ",".join(map(str, range(0, 200, 2)))),
        waiting(12, EVIL),
        replace(waiting(13, "research", qos=EVIL, slurm_reason=EVIL, held_back=EVIL), mark=old),
    ]
    return look(TWO, snapshot(8, *jobs, *pending, **BOTH))


VIEWS = [("status",), ("status", "--shares"), ("jobs",), ("plan",), ("why", "7_3", "10", "11", "12", "13", "1")]


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("view", VIEWS, ids=" ".join)
def test_views_fit_the_terminal_and_show_text_as_text(run, view, width):
    done = run(busy(), *view, width=width)
    assert done.exit_code == 0, done.output
    assert max(len(line) for line in done.output.splitlines()) <= width
    assert "\x1b" not in done.output
    assert "Traceback" not in done.output
    if view[0] == "why":
        assert "[bold]\\x1b[31mevil\\nline" in " ".join(done.output.split())


@pytest.mark.parametrize("view", VIEWS, ids=" ".join)
def test_json_is_one_document_with_numbers(run, view):
    done = run(busy(), *view, "--json")
    data = json.loads(done.output)
    assert data["time"] == NOW
    for key in {"status": ["teams"], "jobs": ["running", "waiting"], "plan": ["waits"], "why": ["jobs"]}[view[0]]:
        assert data[key]


def test_json_of_the_plan(run):
    data = json.loads(run(busy(), "plan", "--json").output)
    assert {(one["team"], one["before"], one["after"]) for one in data["lower"] if one["tres"] == H100} == {
        ("research", 64, 48)
    }
    assert [one["job"] for one in data["in_grace"]] == ["7_3"]
    assert [one["job"] for one in data["preempt"]] == ["8"]
    assert data["preempt"][0]["beneficiary"] == "10"
    assert data["starts"] == []
    assert len(data["waits"]) == 4


def test_filters(run):
    data = json.loads(run(busy(), "jobs", "--json", "--team", "product").output)
    assert (data["running"], [one["id"] for one in data["waiting"]]) == ([], [10])
    data = json.loads(run(busy(), "jobs", "--json", "--state", "running", "--user", "alice").output)
    assert (len(data["running"]), data["waiting"]) == (7, [])
    assert "no such jobs" in run(busy(), "jobs", "--user", "nobody").output
    done = run(busy(), "jobs", "--team", "produkt", width=200)
    assert done.exit_code == 1
    assert 'no team "produkt"; did you mean "product"?' in done.output


def test_nothing_to_do(run):
    caps = {name: frozen({H100: 32, "gres/gpu": 32}) for name in ("research", "product")}
    quiet = replace(snapshot(8, **accounts("research", "product")), caps=frozen(caps))
    assert run(look(TWO, quiet), "plan").output == "nothing to do: Slurm is as the policy wants it\n"
    assert run(look(TWO, quiet), "jobs").output == "no jobs\n"


NOT_YET = "its begin time has not come"


def test_why_and_the_plan_say_for_whom_a_requeued_job_waits(run):
    mark = Mark(10, "product", NOW - 60, NOW - 30, NOW - 900, "why it")
    back = waiting(1, "research", submit=NOW - 30, slurm_reason="BeginTime", held_back=NOT_YET, mark=mark)
    back = replace(back, begin=NOW + 91)
    task = replace(waiting(10, "product", 2), display_id="9_4")
    found = look(TWO, snapshot(8, back, task, **BOTH))
    row = next(row for row in rows.waiting(found) if row.id == 1)
    assert row.why == "it left for job 9_4 of team product, which has not started yet"
    assert (row.left_for, row.held_until) == ("9_4", NOW + 91)
    said = " ".join(run(found, "why", "1").output.split())
    at = words.clock(NOW + 91, NOW)
    assert f"because {row.why} " in said
    assert f"may start at {at} at the latest, unless job 9_4 is about to start then" in said
    assert f"earliest about {words.about(NOW + 91, NOW)}, or as soon as job 9_4 has started" in said
    for view in ("why", "plan"):
        said = " ".join(run(found, view, *(["1"] if view == "why" else []), width=300).output.split())
        assert row.why in said and NOT_YET not in said


def test_why_says_that_slurm_lets_a_requeued_job_wait(run):
    """Whoever requeued it; also once the one that it left for has started, or if it was spared."""
    back = waiting(1, "research", submit=NOW - 30, slurm_reason="BeginTime", held_back=NOT_YET, begin=NOW + 91)
    mark = Mark(10, "product", NOW - 60, NOW - 30, NOW - 900)
    others = running(10, "product", "n1"), waiting(10, "product")
    for job, other in (
        (back, others[1]),
        (replace(back, mark=mark), others[0]),
        (replace(back, mark=replace(mark, spared=True)), others[1]),
    ):
        found = look(TWO, snapshot(8, job, other, **BOTH))
        row = next(row for row in rows.waiting(found) if row.id == 1)
        assert row.why == "it was requeued, and Slurm lets such a job wait for two minutes"
        assert (row.left_for, row.held_until) == ("", None)
        assert "may start" not in run(found, "why", "1").output
    later = look(TWO, snapshot(8, replace(back, begin=NOW + 600), **BOTH))
    assert [row.why for row in rows.waiting(later)] == [NOT_YET], "a begin time of its user's own"


def test_why_of_an_unknown_job(run):
    done = run(busy(), "why", "10", "999")
    assert done.exit_code == 1
    assert "there is no job 999" in done.output
    assert "job 10: waiting" in done.output
    assert run(busy(), "why", "1x").exit_code == 2
    assert run(busy(), "why").exit_code == 2


def test_slurm_that_does_not_answer_is_one_line_with_a_remedy(monkeypatch, tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text('pools: {h100: {partition: gpu, gres: "gpu:h100"}}\nteams: {research: {quota: {h100: 8}}}\n')
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(cli, ["status", "--policy", str(file)])
    assert done.exit_code == 1
    assert "not installed, or not in PATH; run this where Slurm's commands are" in done.output
    from slurm_gov.slurm.client import SlurmUnavailable

    assert "scontrol ping" in look_module.failure(SlurmUnavailable("squeue: connect failure")).message


def test_a_policy_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.delenv("SLURM_GOV_POLICY", raising=False)
    done = CliRunner().invoke(cli, ["plan", "--policy", str(tmp_path / "none.yaml")])
    assert done.exit_code == 1
    assert "name the policy with --policy FILE" in done.output
