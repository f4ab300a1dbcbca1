"""What submissions and changes of jobs get for an answer."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from slurm_gov.admission.judge import judge, typed
from slurm_gov.admission.view import JobFacts, PoolFacts, UserFacts, View
from slurm_gov.admission.wire import Cause, Kind, Request, Verdict

H100 = PoolFacts("h100", "gpu:h100", (8,) * 8)
A100 = PoolFacts("a100", "gpu:a100", (4, 4))
NORMAL = frozenset({"training", "experiment"})
VIEW = View(
    slurm_uid=64030,
    default_partition="gpu",
    teams={"research": "research", "vision": "research", "product": "product"},
    users={
        1000: UserFacts("alice", "research", {"research": NORMAL, "product": NORMAL | {"inference"}}, False),
        1001: UserFacts("olga", "research", {"research": NORMAL}, True),
    },
    pools={"gpu": (H100,), "old": (A100,), "mixed": (H100, A100)},
    most={
        ("research", "h100"): (64, "quota 32, borrow unlimited"),
        ("product", "h100"): (48, "quota 32, borrow 16"),
        ("research", "a100"): (8, "quota 8, borrow none"),
    },
    priority_classes={"inference": 100, "training": 50, "experiment": 10},
    jobs={7: JobFacts("research", ("gpu",), 2)},
)


def submit(**fields) -> Request:
    return Request(submit_uid=1000, user_id=1000, **fields)


def modify(uid: int = 1000, job_id: int = 7, **fields) -> Request:
    return Request(submit_uid=uid, kind=Kind.MODIFY, job_id=job_id, **fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gres:gpu:8", "gres:gpu:h100:8"),
        ("gres/gpu:8", "gres/gpu:h100:8"),
        ("gres/gpu=8", "gres/gpu:h100=8"),
        ("gpu:8", "gpu:h100:8"),
        ("gpu", "gpu:h100:1"),
        ("gres:gpu", "gres:gpu:h100:1"),
        ("gres:gpu:h100:8", "gres:gpu:h100:8"),
        ("gres:gpu:a100", "gres:gpu:a100"),
        ("gres:nic:1,gres:gpu:2", "gres:nic:1,gres:gpu:h100:2"),
        ("gres:gpus:2", "gres:gpus:2"),
        ("", ""),
    ],
)
def test_untyped_gpus_get_the_type(text, expected):
    assert typed(text, "h100") == expected


@pytest.mark.parametrize("name", ["tres_per_job", "tres_per_node", "tres_per_socket", "tres_per_task"])
def test_every_way_to_ask_is_typed(name):
    answer = judge(submit(**{name: "gres:gpu:2"}), VIEW)
    assert (answer.verdict, getattr(answer, name)) == (Verdict.ACCEPT, "gres:gpu:h100:2")


def test_what_needs_no_change_is_left_alone():
    answer = judge(submit(tres_per_node="gres:gpu:h100:8", name="x"), VIEW)
    assert answer.verdict is Verdict.ACCEPT
    assert answer.tres_per_node is None
    assert judge(submit(), VIEW).verdict is Verdict.ACCEPT


def test_the_partition_decides_the_type():
    assert judge(submit(partition="old", tres_per_node="gpu:2"), VIEW).tres_per_node == "gpu:a100:2"
    assert judge(submit(partition="cpu", tres_per_node="gpu:2"), VIEW).tres_per_node is None


def test_several_kinds_must_be_told_apart():
    answer = judge(submit(partition="mixed", tres_per_node="gpu:2"), VIEW)
    assert (answer.verdict, answer.cause) == (Verdict.REFUSE, Cause.TRES)
    assert "--gres=gpu:a100:2 or --gres=gpu:h100:2" in answer.message
    assert judge(submit(partition="mixed", tres_per_node="gpu:a100:2"), VIEW).verdict is Verdict.ACCEPT


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"tres_per_node": "gpu:16"}, "the largest node of pool h100 has 8"),
        ({"tres_per_node": "gpu:8", "min_nodes": 9}, "9 nodes with 8 h100 each; the pool has 8 such nodes"),
        ({"tres_per_job": "gpu:65"}, "65 h100; pool h100 has 64 in all"),
        ({"tres_per_task": "gpu:1", "num_tasks": 65}, "65 h100; pool h100 has 64 in all"),
        ({"tres_per_job": "gpu:h100:49", "account": "product"}, "can never hold more than 48 (quota 32, borrow 16)"),
        ({"tres_per_job": "gpu:64", "account": "Product"}, "can never hold more than 48"),
        (
            {"tres_per_node": "gpu:1", "min_nodes": 7, "shared": 0, "account": "product"},
            "asks for 56 h100; team product",
        ),
    ],
)
def test_what_can_never_run_is_refused_with_the_figures(fields, text):
    answer = judge(submit(**fields), VIEW)
    assert answer.verdict is Verdict.REFUSE
    assert answer.message.startswith("slurm-gov: ")
    assert text in answer.message
    assert answer.team is not None


def test_a_job_for_several_partitions_needs_only_one_that_can_take_it():
    both = "gpu,old"
    assert judge(submit(partition=both, tres_per_node="gpu:h100:8"), VIEW).verdict is Verdict.ACCEPT
    assert judge(submit(partition=both, tres_per_node="gpu:h100:9"), VIEW).verdict is Verdict.REFUSE


def test_accounts_without_a_policy_are_only_typed():
    answer = judge(submit(account="strangers", tres_per_job="gpu:1000"), VIEW)
    assert (answer.verdict, answer.tres_per_job) == (Verdict.ACCEPT, "gpu:h100:1000")


def test_nothing_is_refused_before_the_first_view():
    answer = judge(submit(tres_per_node="gpu:1000", account="x"), View())
    assert (answer.verdict, answer.tres_per_node) == (Verdict.ACCEPT, None)


@pytest.mark.parametrize(("flags", "expected"), [(0, "[slurm-gov signal=USR2]"), (1, "[slurm-gov signal=B:USR2]")])
def test_the_jobs_own_signal_is_noted(flags, expected):
    assert judge(submit(warn_signal=12, warn_flags=flags), VIEW).admin_comment == expected


@pytest.mark.parametrize(
    ("asked", "noted"),
    [
        ({"max_nodes": 1, "tres_per_job": "gres:gpu:h100:8"}, "[slurm-gov nodes=1]"),
        ({"max_nodes": 1, "tres_per_task": "gres:gpu:h100:4"}, "[slurm-gov nodes=1]"),
        ({"max_nodes": 1, "tres_per_job": "gres:gpu:h100:8", "admin_comment": "his"}, "his [slurm-gov nodes=1]"),
        ({"max_nodes": 1, "tres_per_job": "gres:gpu:h100:8", "warn_signal": 10},
         "[slurm-gov signal=USR1] [slurm-gov nodes=1]"),
        ({"min_nodes": 2, "max_nodes": 2, "tres_per_job": "gres:gpu:h100:8"}, "[slurm-gov nodes=2]"),
        ({"max_nodes": 4, "tres_per_task": "gres:gpu:h100:8"}, "[slurm-gov nodes=1-4]"),
        ({"tres_per_job": "gres:gpu:h100:8"}, None),
        ({"max_nodes": 1, "tres_per_node": "gres:gpu:h100:8"}, None),
    ],
)  # fmt: skip
def test_on_how_many_nodes_a_job_may_be_is_noted_where_nobody_tells_later(asked: dict, noted: str | None) -> None:
    assert judge(submit(account="research", **asked), VIEW).admin_comment == noted


def test_a_job_stays_in_its_team():
    assert judge(modify(account="vision"), VIEW).verdict is Verdict.ACCEPT
    answer = judge(modify(account="product"), VIEW)
    assert (answer.verdict, answer.cause) == (Verdict.REFUSE, Cause.ACCOUNT)
    assert "team research" in answer.message
    assert "team product" in answer.message
    assert judge(modify(account="strangers"), VIEW).verdict is Verdict.REFUSE


def test_only_classes_one_may_have():
    assert judge(modify(qos="training"), VIEW).verdict is Verdict.ACCEPT
    answer = judge(modify(qos="inference"), VIEW)
    assert (answer.verdict, answer.cause) == (Verdict.REFUSE, Cause.QOS)
    assert "allowed: training, experiment" in answer.message


@pytest.mark.parametrize("uid", [0, 64030, 1001])
def test_administrators_may_do_as_they_like(uid):
    assert judge(modify(uid, account="product", qos="inference"), VIEW).verdict is Verdict.ACCEPT


def test_a_job_not_seen_yet_is_not_moved():
    assert judge(modify(job_id=8, account="product"), VIEW).verdict is Verdict.REFUSE
    assert judge(modify(job_id=8, time_limit=5), VIEW).verdict is Verdict.ACCEPT


def test_array_tasks_are_known_by_their_array():
    request = replace(modify(account="product"), job_id=None, job_id_str="7_3")
    assert "team research" in judge(request, VIEW).message


def test_changed_gpus_are_judged_like_new_ones():
    assert judge(modify(tres_per_node="gpu:4"), VIEW).tres_per_node == "gpu:h100:4"
    assert judge(modify(tres_per_node="gpu:9"), VIEW).verdict is Verdict.REFUSE


def test_a_view_travels_between_processes():
    assert pickle.loads(pickle.dumps(VIEW)) == VIEW


def test_in_the_mode_observe_everything_is_accepted_as_it_came():
    view = replace(VIEW, observe=True)
    refused = judge(submit(account="research", tres_per_node="gres:gpu:9"), VIEW)
    assert refused.verdict is Verdict.REFUSE
    answer = judge(submit(account="research", tres_per_node="gres:gpu:9"), view)
    assert answer.verdict is Verdict.ACCEPT
    assert answer.would_refuse == refused.message
    untyped = judge(submit(account="research", tres_per_node="gres:gpu:4", warn_signal=10), view)
    assert (untyped.tres_per_node, untyped.admin_comment, untyped.would_refuse) == (None, None, None)
