"""What a right policy file means."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from slurm_gov.core.policy import (
    BorrowPreempts,
    ClassRules,
    Cohort,
    Idle,
    MaxPreemptions,
    Mode,
    Policy,
    Pool,
    Preemption,
    Quota,
    Rebalance,
    Reclaim,
    Team,
    Victims,
    WithinTeam,
)
from slurm_gov.policy import PolicyError, as_data, check, check_text, dumps, load, loads
from slurm_gov.policy.schema import json_schema

ETC = Path(__file__).parents[2] / "etc"
POOLS = 'pools: {h100: {partition: gpu, gres: "gpu:h100"}, a100: {partition: [old, older], gres: "gpu:a100"}}\n'


def team(settings: str) -> Team:
    """The team research with these settings, in a file of two pools."""
    return loads(f"{POOLS}teams:\n  research: {{{settings}}}\ncohorts: {{lab: {{}}}}\n").teams["research"]


def preemption(settings: str) -> Preemption:
    return loads(f"{POOLS}teams: {{a: {{quota: {{h100: 1}}}}}}\npreemption: {{{settings}}}\n").preemption


def test_smallest_file_has_hyperpods_defaults() -> None:
    policy = loads('pools: {h100: {partition: gpu, gres: "gpu:h100"}}\nteams: {research: {quota: {h100: 64}}}\n')
    assert policy == Policy(
        pools={"h100": Pool("h100", ("gpu",), "gpu:h100")},
        teams={
            "research": Team(
                "research",
                {"h100": Quota(64, borrow=32, lend=None)},
                cohort=None,
                fair_share_weight=0,
                preempt_within_team=WithinTeam.LOWER_PRIORITY,
                reclaim=Reclaim.ANY,
            )
        },
        cohorts={},
        priority_classes={},
        idle=Idle.FAIR_SHARE,
        lend_unallocated=True,
        protect_after=86400.0,
        preemption=Preemption(30.0, "USR1", 0.0, 0.0, False),
    )


def test_every_setting() -> None:
    policy = loads(
        POOLS
        + """
priority_classes: {inference: 100, idle: 0}
teams:
  research:
    quota: {h100: 64, a100: 3}
    cohort: lab
    fair_share_weight: 100
    lend: {h100: 16, a100: none}
    borrow: {h100: unlimited, a100: 50%}
    preempt_within_team: lower_or_newer_equal_priority
    reclaim: lower_priority
cohorts:
  lab: {parent: all, quota: {h100: 10}, lend: 50%, borrow: {a100: 200%}, fair_share_weight: 7}
  all: {}
sharing: {idle: first_come, lend_unallocated: false}
preemption: {grace: 2m, signal: B:TERM, min_runtime: 1h, requeue_delay: 90, if_not_requeueable: cancel}
"""
    )
    assert policy.pools["a100"].partitions == ("old", "older")
    assert policy.priority_classes == {"inference": 100, "idle": 0}
    assert policy.teams["research"] == Team(
        "research",
        {"h100": Quota(64, None, 16), "a100": Quota(3, 1, 0)},
        "lab",
        100,
        WithinTeam.LOWER_OR_NEWER_EQUAL_PRIORITY,
        Reclaim.LOWER_PRIORITY,
    )
    assert policy.cohorts == {
        # percentages of a cohort are of all quotas in it: 10 + 64 h100, 3 a100
        "lab": Cohort("lab", "all", {"h100": Quota(10, None, 37), "a100": Quota(0, 6, 1)}, 7),
        "all": Cohort("all", None, {"h100": Quota(0, None, None), "a100": Quota(0, None, None)}, 0),
    }
    assert (policy.idle, policy.lend_unallocated) == (Idle.FIRST_COME, False)
    assert policy.preemption == Preemption(120.0, "B:TERM", 3600.0, 90.0, True)


def test_what_may_keep_a_job_from_being_preempted() -> None:
    policy = loads(
        POOLS
        + """
priority_classes: {inference: 100, training: 50}
teams: {research: {quota: {h100: 64}, min_runtime: 1h}}
sharing: {half_life: 7d}
preemption:
  classes: {inference: {protected: true}, training: {min_runtime: 30m}}
  max_preemptions: {count: 2, per: 24h}
  checkpoint_file: /scratch/%u/%j/checkpoint
"""
    )
    assert policy.teams["research"].min_runtime == 3600.0
    assert policy.half_life == 7 * 86400.0
    assert policy.preemption == Preemption(
        classes={"inference": ClassRules(None, True), "training": ClassRules(1800.0, False)},
        max_preemptions=MaxPreemptions(2, 86400.0),
        checkpoint_file="/scratch/%u/%j/checkpoint",
    )
    assert loads(dumps(policy)) == policy


@pytest.mark.parametrize(
    ("written", "lend"), [("all", None), ("none", 0), ("50%", 3), ("100%", 7), ("1%", 0), ("0", 0), ("16", 16)]
)
def test_lend(written: str, lend: int | None) -> None:
    assert team(f"quota: {{h100: 7}}, lend: {written}").quotas["h100"].lend == lend


@pytest.mark.parametrize(
    ("written", "borrow"),
    [("unlimited", None), ("none", 0), ("50%", 3), ("500%", 35), ("'14 %'", 0), ("15%", 1), ("0", 0), ("16", 16)],
)
def test_borrow(written: str, borrow: int | None) -> None:
    assert team(f"quota: {{h100: 7}}, borrow: {written}").quotas["h100"].borrow == borrow


def test_limits_per_pool_leave_the_default_for_the_others() -> None:
    quotas = team("quota: {h100: 8, a100: 4}, lend: {h100: none}, borrow: {h100: unlimited}").quotas
    assert quotas == {"h100": Quota(8, None, 0), "a100": Quota(4, 2, None)}


def test_a_pool_that_the_quota_does_not_name_is_closed() -> None:
    quotas = team("quota: {h100: 8}, lend: all, borrow: unlimited").quotas
    assert quotas["a100"] == Quota(0, borrow=0, lend=0)


def test_a_team_may_only_borrow() -> None:
    assert team("quota: {h100: 0}, borrow: unlimited").quotas["h100"] == Quota(0, None, None)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400), ("45", 45), ("1.5", 1.5), ("1.5m", 90), ("0s", 0)],
)
def test_durations(written: str, seconds: float) -> None:
    assert preemption(f"grace: {written}").grace == seconds


def test_no_requeue_delay() -> None:
    assert preemption("requeue_delay: none").requeue_delay == 0


@pytest.mark.parametrize(
    ("written", "signal"),
    [("USR1", "USR1"), ("sigterm", "TERM"), ("10", "USR1"), ("B:USR2", "B:USR2"), ("b:15", "B:TERM"), ("2", "INT")],
)
def test_signals(written: str, signal: str) -> None:
    assert preemption(f"signal: {written}").signal == signal


def test_anchors_and_merges() -> None:
    policy = loads(
        POOLS + "teams:\n  a: &usual {quota: {h100: 4}, borrow: none}\n  b: {<<: *usual, borrow: 4}\n  c: *usual\n"
    )
    assert [policy.teams[name].quotas["h100"].borrow for name in "abc"] == [0, 4, 0]


def test_sections_with_everything_commented_out() -> None:
    policy = loads(POOLS + "teams: {a: {quota: {h100: 4}}}\ncohorts:\n#  lab: {}\npreemption:\nsharing:\n")
    assert policy.preemption == Preemption()


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + (POOLS + "teams: {a: {quota: {h100: 4}}}\n").encode())
    assert list(load(file).teams) == ["a"]


def test_many_teams_are_quick() -> None:
    teams = "".join(f"  t{i}: {{quota: {{h100: {i}}}, borrow: 50%}}\n" for i in range(1000))
    assert len(loads(POOLS + "teams:\n" + teams).teams) == 1000


def test_resolved_policy_is_a_policy_file() -> None:
    policy = load(ETC / "policy.yaml")
    assert loads(dumps(policy)) == policy
    assert as_data(policy)["preemption"]["grace"] == "30s"


def test_the_sample_is_right_without_warnings() -> None:
    assert check(ETC / "policy.yaml").warnings == ()


def test_the_exported_schema_is_up_to_date() -> None:
    exported = (ETC / "policy.schema.json").read_text()
    expected = json.dumps(json_schema(), indent=2) + "\n"
    assert exported == expected, "run: slurm-gov policy schema > etc/policy.schema.json"


def test_every_setting_is_described_for_editors() -> None:
    schema = json_schema()
    sections = [schema, *schema["$defs"].values()]
    described = [section.get("description") for section in sections]
    described += [p.get("description") or p["$ref"] for section in sections for p in section["properties"].values()]
    assert all(described)


WEIGHTED = "fair_share_weight: 1"


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "teams:\n  a: {quota: {h100: 8, a100: 8}}\n  b: {quota: {h100: 8}}\n",
            "p:2:1: teams: every team's fair_share_weight is 0, so idle capacity is not divided by weight; "
            "give the teams weights, or set sharing.idle: first_come",
        ),
        (
            f"teams:\n  a: {{quota: {{h100: 0, a100: 1}}}}\n  b: {{quota: {{h100: 0}}, {WEIGHTED}}}\n",
            "p:4:3: teams.b: may hold nothing: its quota is 0 and so is what it may borrow; "
            "give it a quota, or a borrow limit that is not a percentage, such as unlimited",
        ),
        (
            "teams:\n  a: {quota: {h100: 8, a100: 1}, lend: {h100: 9}}\n",
            "p:3:47: teams.a.lend.h100: lends 9 of h100 but its quota there is 8; it lends at most its quota",
        ),
        (
            "teams:\n  a: {quota: {h100: 8}}\n",
            "p:1:51: pools.a100: nobody has a quota in this pool; all of it is unallocated capacity",
        ),
        (
            "teams:\n  a: {quota: {h100: 8, a100: 1}}\ncohorts: {lab: {}}\n",
            "p:4:11: cohorts.lab: no team and no cohort belongs to it; remove it, or name it in a team",
        ),
        (
            "teams:\n  a: {quota: {h100: 8, a100: 1}}\npreemption: {signal: 9}\n",
            "p:4:22: preemption.signal: a job cannot catch KILL, so it has no time to write a checkpoint; "
            "use a signal that it can catch, such as USR1",
        ),
    ],
)
def test_warnings(text: str, warning: str) -> None:
    assert warning in [str(w) for w in check_text(POOLS + text, "p").warnings]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("none", None),
        ("lower_priority", BorrowPreempts()),
        ("0", BorrowPreempts(0)),
        ("10", BorrowPreempts(10)),
    ],
)
def test_who_may_be_preempted_by_a_borrower(text: str, rule: BorrowPreempts | None) -> None:
    head = "pools: {h100: {partition: gpu, gres: 'gpu:h100'}}\n"
    policy = loads(f"{head}teams: {{a: {{quota: {{h100: 8}}, borrow_preempts: {text}}}}}\n", "p")
    assert policy.teams["a"].borrow_preempts == rule
    assert loads(dumps(policy), "p") == policy


@pytest.mark.parametrize("text", ["-1", "101", "true", "any", "1.5", "[1]"])
def test_who_may_not(text: str) -> None:
    head = "pools: {h100: {partition: gpu, gres: 'gpu:h100'}}\n"
    with pytest.raises(PolicyError, match="write none, lower_priority, or a weight from 0 to 100"):
        loads(f"{head}teams: {{a: {{quota: {{h100: 8}}, borrow_preempts: {text}}}}}\n", "p")


def test_the_mode_caps_preempts_nobody_and_observe_changes_nothing_else() -> None:
    text = """
pools: {h100: {partition: gpu, gres: "gpu:h100"}}
teams: {a: {quota: {h100: 8}, borrow_preempts: lower_priority}}
sharing: {rebalance: final_share}
"""
    assert loads(text).mode is Mode.ENFORCE
    caps = loads(f"mode: caps{text}")
    assert (caps.mode, caps.rebalance) == (Mode.CAPS, Rebalance.NEVER)
    team = caps.teams["a"]
    assert (team.reclaim, team.preempt_within_team, team.borrow_preempts) == (Reclaim.NEVER, WithinTeam.NEVER, None)
    assert replace(loads(f"mode: observe{text}"), mode=Mode.ENFORCE) == loads(text)
    for mode in ("observe", "caps"):
        policy = loads(f"mode: {mode}{text}")
        assert loads(dumps(policy)) == policy


def test_rebalancing_and_the_choice_of_victims() -> None:
    text = "pools: {h100: {partition: gpu, gres: 'gpu:h100'}}\nteams: {a: {quota: {h100: 8}}}\n"
    text += "sharing: {rebalance: final_share, protect_after: 1h}\npreemption: {victims: in_order}\n"
    policy = loads(text, "p")
    assert policy.protect_after == 3600
    assert (policy.rebalance, policy.preemption.victims) == (Rebalance.FINAL_SHARE, Victims.IN_ORDER)
    assert loads(dumps(policy), "p") == policy
