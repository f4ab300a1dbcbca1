"""The process in which pyslurm runs: it reads Slurm and answers on its standard output.

A process of its own, because libslurm ends the process that uses it when it finds no configuration, keeps Python's
lock while it waits for slurmctld, reads slurm.conf only once, and can crash. None of that may reach slurm-govd.
It ends when its standard input does. An exchange is a pickle each way, with its length before it.

Answers are rows with the fields of `commands.JOB_FIELDS` and `commands.NODE_FIELDS`, as squeue and sinfo would print
them, so that everything after them is the same for both clients. Only what stands in Slurm's public structures is
asked of pyslurm: what 25.11 believes of the others is wrong on 26.05 (`Job.cpus`, and
`Job.get_resource_layout_per_node` crashes).
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, BinaryIO

STATES = {
    "PENDING": "PD", "RUNNING": "R", "SUSPENDED": "S", "COMPLETING": "CG", "CONFIGURING": "CF", "STOPPED": "ST",
    "SIGNALING": "SI", "STAGE_OUT": "SO", "RESIZING": "RS", "FAILED": "F", "COMPLETED": "CD",
}  # fmt: skip
LENGTH = struct.Struct("!Q")


def send(to: BinaryIO, message: object) -> int:
    """Write one message; its size in bytes."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    to.write(LENGTH.pack(len(data)) + data)
    to.flush()
    return len(data)


def main() -> None:
    """Answer until the asker closes our standard input."""
    # pyslurm and libslurm print now and then: that goes to standard error, not between our answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import pyslurm  # type: ignore[import-not-found,unused-ignore]  # libslurm reads slurm.conf here, and ends this process if there is none

    asked = sys.stdin.buffer
    while head := asked.read(LENGTH.size):
        what, *args = pickle.loads(asked.read(LENGTH.unpack(head)[0]))
        try:
            answer: tuple[str, Any] = ("ok", CALLS[what](pyslurm, *args))
        except pyslurm.RPCError as error:
            answer = ("refused", str(error))
        except (UnicodeError, ValueError, TypeError, AttributeError) as error:
            answer = ("unreadable", f"{type(error).__name__}: {error}")
        send(answers, answer)


def look(pyslurm: Any) -> tuple[list[dict[str, str]], dict[int, str], list[dict[str, str]], list[tuple[Any, ...]]]:
    """Jobs, the nodes that pending jobs exclude, nodes, reservations."""
    jobs = [row for job in pyslurm.Jobs.load().values() if (row := _job(job)) is not None]
    return (
        jobs,
        {int(row["jobid"]): row.pop("excnodes") for row in jobs if row["excnodes"]},
        [row for node in pyslurm.Nodes.load().values() for row in _node(node)],
        [(one.name, one.start_time, one.end_time, one.nodes) for one in pyslurm.Reservations.load().values()],
    )


def requeue(pyslurm: Any, jobs: Iterable[int]) -> dict[int, str]:
    """Requeue jobs; what Slurm said of those that it did not requeue."""
    refused = {}
    for job in jobs:
        try:
            pyslurm.Job(job).requeue()
        except pyslurm.RPCError as error:
            refused[job] = str(error)
    return refused


def version(pyslurm: Any) -> str:
    """The version of pyslurm."""
    return str(pyslurm.__version__)


CALLS: dict[str, Callable[..., Any]] = {"look": look, "requeue": requeue, "version": version}


def _job(job: Any) -> dict[str, str] | None:
    state = STATES.get(job.state)
    if state is None:
        return None
    array = job.array_id
    tres = job.allocated_tres if state != "PD" else None
    per_task = job.tres_per_task
    return {
        "jobid": str(job.id),
        "arrayjobid": str(array or job.id),
        "arraytaskid": _tasks(job, array),
        "statecompact": state,
        "state": job.state,
        "reason": job.state_reason or "None",
        "username": _user(job),
        "account": job.account or "",
        "qos": job.qos or "",
        "partition": job.partition or "",
        "prioritylong": str(job.priority or 0),
        "submittime": str(job.submit_time or ""),
        "starttime": str(job.start_time or ""),
        "endtime": str(job.end_time or "") if state in ("F", "CD") else "",
        "eligibletime": str(job.eligible_time or ""),
        "timelimit": f"{limit}:00" if isinstance(limit := job.time_limit, int) else "",
        "tres-alloc": _tres(tres or job.requested_tres),
        "tres-per-job": "",
        "tres-per-node": _gres(job.gres_per_node),
        "tres-per-task": ",".join(f"gres/{name}:{one.count}" for name, one in per_task.gres.items())
        if per_task
        else "",
        "ntpernode": str(job.ntasks_per_node or ""),
        "nodelist": job.allocated_nodes or "",
        "feature": ",".join(job.constraints or ()),
        "reqnodes": job.required_nodes or "",
        "excnodes": (job.excluded_nodes or "") if state == "PD" else "",
        "oversubscribe": job.resource_sharing or "",
        "requeue": "1" if job.is_requeueable else "0",
        "batchflag": "1" if job.is_batch_job else "0",
        "dependency": "",
        "hetjobid": str(job.heterogeneous_id or ""),
        "hetjoboffset": str(job.heterogeneous_offset or 0),
        "reservation": job.reservation or "",
        "admin_comment": _text(lambda: job.admin_comment),
        "name": _text(lambda: job.name),
        "comment": _text(lambda: job.comment),
        "licenses": _text(lambda: ",".join(job.licenses or ())),
    }


def _tasks(job: Any, array: int | None) -> str:
    waiting = job.array_tasks_waiting
    if waiting:
        limit = job.array_tasks_parallel
        return f"{waiting}%{limit}" if limit else str(waiting)
    return str(job.array_task_id or 0) if array else ""  # pyslurm 25.11 takes task 0 for no task


def _user(job: Any) -> str:
    return _name_of(job.user_id) or str(job.user_name)


@lru_cache
def _name_of(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _tres(tres: Any) -> str:
    if tres is None:
        return ""
    amounts = {"cpu": tres.cpu, "node": tres.node}
    parts = [f"{name}={one.count}" for name, one in amounts.items() if one]
    if tres.mem:
        parts.append(f"mem={tres.mem.count}M")
    return ",".join([*parts, *(f"gres/{name}={one.count}" for name, one in tres.gres.items())])


def _text(value: Callable[[], str | None]) -> str:
    """What people wrote; bytes that are no UTF-8, which pyslurm refuses, as the commands' reader has them."""
    try:
        return value() or ""
    except UnicodeDecodeError as error:
        return error.object.decode(errors="surrogateescape")


def _gres(counts: Mapping[str, int] | None) -> str:
    return ",".join(f"{name}:{count}" for name, count in (counts or {}).items())


def _node(node: Any) -> list[dict[str, str]]:
    row = {
        "nodelist": node.name,
        "statecomplete": str(node.state or "unknown").lower(),
        "gres": _gres(node.configured_gres),
        "cpus": str(node.total_cpus),
        "memory": str(node.real_memory),
        "features_act": ",".join(node.active_features or ()),
        "reason": _text(lambda: node.reason),
    }
    return [row | {"partitionname": name} for name in node.partitions or ("",)]


if __name__ == "__main__":
    main()
