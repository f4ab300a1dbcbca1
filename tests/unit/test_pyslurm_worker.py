"""The rows that the pyslurm process answers with are those that squeue and sinfo print."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from slurm_gov.slurm import pyslurm_worker as worker
from slurm_gov.slurm.commands import JOB_FIELDS, NODE_FIELDS


class Nothing:
    """A job or node of which nothing is known but what is given."""

    def __init__(self, **known: Any) -> None:
        self.__dict__.update(known)

    def __getattr__(self, name: str) -> None:
        return None


class Undecodable(Nothing):
    @property
    def name(self) -> str:
        return b"job \xff".decode()


def tres(**counts: int) -> Any:
    gres = {name.replace("_", ":"): SimpleNamespace(count=n) for name, n in counts.items() if name.startswith("gpu")}
    amounts = {name: SimpleNamespace(count=counts[name]) for name in ("cpu", "node", "mem") if name in counts}
    return Nothing(gres=gres, **amounts)


def job(**known: Any) -> dict[str, str]:
    row = worker._job(Nothing(id=7, user_id=0) if not known else Nothing(**{"id": 7, "user_id": 0} | known))
    assert row is not None
    return row


def test_every_field_that_is_read_of_the_commands_is_there() -> None:
    row = job(state="PENDING")
    assert {*row} == {*JOB_FIELDS, "excnodes", "state"}
    (node,) = worker._node(Nothing(name="n1", state="IDLE", total_cpus=8, real_memory=1000))
    assert {*node} == {*NODE_FIELDS}


def test_states_that_squeue_is_not_asked_for_are_left_out() -> None:
    assert worker._job(Nothing(id=7, state="CANCELLED")) is None
    assert worker._job(Nothing(id=7, state="REQUEUE_HOLD")) is None


def test_tres_as_squeue_prints_them() -> None:
    asked = tres(cpu=4, node=2, mem=8000, gpu=16, gpu_h100=16)
    row = job(state="PENDING", requested_tres=asked, gres_per_node={"gres/gpu:h100": 8}, time_limit=90)
    assert row["tres-alloc"] == "cpu=4,node=2,mem=8000M,gres/gpu=16,gres/gpu:h100=16"
    assert (row["tres-per-node"], row["timelimit"]) == ("gres/gpu:h100:8", "90:00")
    assert job(state="RUNNING", allocated_tres=tres(cpu=64), requested_tres=asked)["tres-alloc"] == "cpu=64"


def test_tasks_of_arrays() -> None:
    assert job(state="PENDING")["arraytaskid"] == ""
    assert (
        job(state="PENDING", array_id=5, array_tasks_waiting="1-9", array_tasks_parallel=2)["arraytaskid"] == "1-9%2"
    )
    assert job(state="RUNNING", array_id=5, array_task_id=3)["arraytaskid"] == "3"
    assert job(state="RUNNING", array_id=5, array_task_id=None)["arraytaskid"] == "0"  # what 25.11 makes of task 0


def test_bytes_that_are_no_text_are_kept() -> None:
    row = worker._job(Undecodable(id=7, user_id=0, state="PENDING"))
    assert row is not None
    assert row["name"] == "job \udcff"
