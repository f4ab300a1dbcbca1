"""Rows of Slurm's text to nodes and jobs. Pure: the rows were read elsewhere, no Slurm is needed here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from types import MappingProxyType

from slurm_gov.core.actions import HELD_MARGIN, comes_back, has_left
from slurm_gov.core.cluster import User
from slurm_gov.core.marks import (
    read_behind,
    read_fault,
    read_mark,
    read_most_nodes,
    read_preempted,
    read_signal,
    read_unstarted,
)
from slurm_gov.core.policy import frozen
from slurm_gov.core.snapshot import Component, Held, Node, Request, RunningJob, RunState, Unstarted, WaitingJob
from slurm_gov.core.unstarted import holds, in_short
from slurm_gov.slurm import parse
from slurm_gov.slurm.unchanged import Unchanged, whole

HOLDING = {
    "R": RunState.RUNNING, "CF": RunState.RUNNING, "SI": RunState.RUNNING, "RS": RunState.RUNNING,
    "S": RunState.SUSPENDED, "ST": RunState.SUSPENDED, "CG": RunState.COMPLETING, "SO": RunState.COMPLETING,
}  # fmt: skip
_UNUSABLE = (
    "down", "drain", "fail", "error", "unknown", "future", "maint", "reserved", "reboot_requested",
    "reboot_issued", "powering_down", "power_down", "not_responding", "inval", "blocked", "no_respond",
)  # fmt: skip
# Reasons with which a job is no demand now, whatever becomes free.
_NOT_READY = {
    "Dependency": "it waits for the jobs it depends on",
    "DependencyNeverSatisfied": "a job it depends on did not end as it asks: it will never start",
    "JobHeldUser": "its user holds it",
    "JobHeldAdmin": "an administrator holds it",
    "JobArrayTaskLimit": "its array's own limit of running tasks is reached",
    "Licenses": "it waits for a licence",
    "BeginTime": "its begin time has not come",
    "JobHoldMaxRequeue": "it was requeued too often: it is held",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition is inactive",
    "PartitionConfig": "it asks for what its partition does not allow",
    "PartitionNodeLimit": "it asks for more nodes than its partition allows",
    "PartitionTimeLimit": "it asks for more time than its partition allows",
    "AccountNotAllowed": "its account may not use its partition",
    "BurstBufferResources": "it waits for its burst buffer",
    "BurstBufferStageIn": "it waits for its burst buffer",
    "FedJobLock": "it waits for the other clusters of its federation",
    "ReservationDeleted": "its reservation was deleted",
    "Reservation": "it waits for its reservation",
    "BadConstraints": "no node fits its constraints",
    "DeadLine": "it cannot meet its deadline",
    "InvalidAccount": "its account is invalid",
    "InvalidQOS": "its QOS is invalid",
    "RequeueHold": "it was requeued and held",
    "launch_failed_requeued_held": "its launch failed: it is held",
}
TOP_PRIORITY = 2**32 - 1
"""Above all that Slurm gives: a job of an expedited requeue stands before the others, whatever its priority."""
_OUR_LIMITS = ("AssocGrpGRES", "AssocGrpGres", "AssocGrpGRESGroup")
"""Slurm's reasons that our caps cause; other ``Assoc*``, ``QOS*`` and ``Max*`` reasons are limits of the site."""


Row = Mapping[str, str]
_NO_HET = parse.UNSET | {"0"}


def text(value: str) -> str:
    """A field's value; empty where Slurm says that there is none."""
    return "" if value in ("(null)", "N/A") else value


def legible(value: str) -> str:
    """A text that is only for people: bytes that are no UTF-8 become question marks."""
    return value if value.isascii() else value.encode(errors="replace").decode()


def nodes(
    rows: Iterable[Row],
    unchanged: Unchanged | None = None,
    kept: frozenset[str] = frozenset(),
    reserved: Mapping[str, frozenset[str]] = MappingProxyType({}),
) -> tuple[Node, ...]:
    """Nodes from sinfo's rows: one row per node and partition. Those of ``kept`` stand in a reservation that counts
    as none; ``reserved`` has the names of all others, by node.
    """
    unchanged = unchanged or Unchanged()
    partitions: dict[str, list[str]] = {}
    last: dict[str, Row] = {}
    for row in rows:
        partitions.setdefault(row["nodelist"], []).append(text(row["partitionname"]))
        last[row["nodelist"]] = row
    return tuple(
        unchanged.get(
            ("node", name),
            (whole(row), partitions[name], name in kept, reserved.get(name)),
            partial(_node, row, tuple(partitions[name]), name in kept, reserved.get(name, frozenset())),
        )
        for name, row in last.items()
    )


def _node(row: Row, partitions: tuple[str, ...], kept: bool, reserved: frozenset[str]) -> Node:
    bare = re.sub(r"\+reserved\b", "", row["statecomplete"], flags=re.IGNORECASE)
    state = bare if kept else row["statecomplete"]
    return Node(
        name=row["nodelist"],
        partitions=partitions,
        gpus=frozen(parse.gpus(row["gres"])),
        cpus=int(row["cpus"]),
        memory=int(row["memory"]),
        features=frozenset(text(row["features_act"]).split(",")) - {""},
        usable=usable(state),
        state=state.upper(),
        reason="" if row["reason"] in ("none", "Unknown") else legible(text(row["reason"])),
        reserved=reserved if usable(bare) and not usable(state) else frozenset(),
    )


def usable(state: str) -> bool:
    """Whether Slurm would start a new job on a node in this state (``mixed+drain``, ``idle+planned``...)."""
    return not any(flag.startswith(_UNUSABLE) for flag in state.lower().rstrip("*").split("+")) and "*" not in state


def running(row: Row, state: RunState) -> RunningJob:
    """A job that holds nodes, from squeue's row. Its GPUs are taken to be spread evenly over its nodes."""
    names = parse.nodes(row["nodelist"])
    amounts = parse.tres(row["tres-alloc"])
    share = max(1, len(names))
    held = tuple(
        Held(
            name,
            frozen({tres: _part(n, share, index) for tres, n in parse.gpus_of(amounts).items()}),
            _part(int(amounts.get("cpu", 0)), share, index),
            _part(int(amounts.get("mem", 0)), share, index),
        )
        for index, name in enumerate(names)
    )
    comment = text(row["admin_comment"])
    start = parse.time(row["starttime"]) or 0.0
    return RunningJob(
        id=int(row["jobid"]),
        display_id=_display_id(row),
        user=row["username"],
        account=row["account"],
        partition=row["partition"],
        qos=row["qos"],
        start=start,
        held=held,
        state=state,
        requeueable=row["requeue"] == "1" and row["batchflag"] == "1",
        time_limit=parse.duration(row["timelimit"]),
        mark=read_mark(comment),
        signal=read_signal(comment),
        submit=parse.time(row["submittime"]),
        name=legible(row["name"]),
        preempted=read_preempted(comment, start),
        checkpoint=checkpoint(text(row["comment"])),
        fault=read_fault(comment),
    )


def het_id(row: Row) -> int:
    """The job id of the first component of the het job that it is of; 0 if it is of none."""
    return 0 if row["hetjobid"] in _NO_HET else int(row["hetjobid"])


def together(parts: Sequence[RunningJob]) -> RunningJob:
    """A het job that runs, from its components, the first one first: Slurm starts and stops all of it at once."""
    first = parts[0]
    return replace(
        first,
        display_id=str(first.id),
        held=tuple(held for part in parts for held in part.held),
        time_limit=min((part.time_limit for part in parts if part.time_limit is not None), default=None),
    )


def checkpoint(comment: str) -> float | None:
    """When a job last saved its work, if its comment says so: ``checkpoint=1795445991``, or an ISO date and time
    (in this machine's time zone if it names none). What cannot be read says nothing.
    """
    said = re.findall(r"(?:^|[\s,;])checkpoint=([^\s,;]+)", comment)
    if not said:
        return None
    if re.fullmatch(r"\d{1,11}(?:\.\d*)?", said[-1], re.ASCII):
        return float(said[-1])
    try:
        return datetime.fromisoformat(said[-1]).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def ended_by_us(job: RunningJob, end: float) -> bool:
    """Whether a job that has ended did so in the grace period that we gave it: it is owed a requeue. Also if it was
    spared meanwhile: it had its signal.
    """
    mark = job.mark
    if mark is not None and mark.run == job.start and mark.since - 1 <= end <= mark.deadline + 60:
        return True
    fault = job.fault
    return (
        fault is not None and fault.run == job.start and fault.until > 0 and fault.at - 1 <= end <= fault.until + 60
    )


def _part(amount: int, parts: int, index: int) -> int:
    """The index-th part of an amount, so that the parts add up to it."""
    return amount * (index + 1) // parts - amount * index // parts


def _display_id(row: Row) -> str:
    if row["hetjobid"] not in _NO_HET:
        return f"{row['hetjobid']}+{row['hetjoboffset']}"
    task = row["arraytaskid"]
    if task in parse.UNSET:
        return row["jobid"]
    return f"{row['arrayjobid']}_{task if task.isdecimal() else f'[{task}]'}"


def names(row: Row) -> tuple[str, str]:
    """What Slurm's commands are to call a job: to change its record, and to stop it.

    An array's number, which is also that of one of its tasks, would reach all tasks, and a het job's all its
    components; but a component cannot be stopped alone.
    """
    if row["hetjobid"] not in _NO_HET:
        return _display_id(row), row["hetjobid"]
    name = re.sub(r"%\d+", "", _display_id(row))
    return name, name


def may_be_uneven(row: Row) -> bool:
    """Whether the job's nodes may give different numbers of GPUs.

    They do not if it asked for so many on each and got no more (an exclusive job gets all that a node has).
    """
    count = len(parse.nodes(row["nodelist"]))
    total = sum(parse.gpus_of(parse.tres(row["tres-alloc"])).values())
    return count > 1 and total > 0 and parse.gpu_count(row["tres-per-node"]) * count != total


def detail(said: str, job: RunningJob) -> tuple[Held, ...]:
    """What each node gives, from ``scontrol -d show job``; believed only if it adds up to the whole.

    A job name with newlines could pretend to be such a line, hence the checks.
    """
    nodes = {one.node for one in job.held}
    found: dict[str, dict[str, int]] = {}
    for listed, gres in re.findall(r"^ +Nodes=(\S+) CPU_IDs=\S* Mem=\d+ GRES=(\S*)", said, re.MULTILINE):
        try:
            names = nodes.intersection(parse.nodes(listed))
        except ValueError:
            return job.held
        if any(found.setdefault(name, parse.gpus(gres)) != parse.gpus(gres) for name in names):
            return job.held
    total: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    for one in job.held:
        total.update(found.get(one.node, {}))
        wanted.update(one.gpus)
    if total != wanted or found.keys() != nodes:
        return job.held
    return tuple(Held(one.node, frozen(found[one.node]), one.cpus, one.memory) for one in job.held)


@dataclass(frozen=True, slots=True)
class Reservation:
    """Nodes that Slurm keeps for something, from ``start`` to ``end`` (seconds since the epoch)."""

    name: str
    start: float
    end: float
    nodes: frozenset[str]


def reservations(said: str) -> tuple[Reservation, ...]:
    """Reservations of nodes, from ``scontrol -o show reservations``."""
    found = re.findall(r"^ReservationName=(\S+) StartTime=(\d+) EndTime=(\d+) .*? Nodes=(\S+) ", said, re.MULTILINE)
    return tuple(
        Reservation(name, float(start), float(end), frozenset(parse.nodes(names)))
        for name, start, end, names in found
    )


def by_node(reserved: Iterable[Reservation], now: float) -> dict[str, frozenset[str]]:
    """The reservations that each node stands in now."""
    found: dict[str, frozenset[str]] = {}
    for one in reserved:
        for node in one.nodes if one.start <= now < one.end else ():
            found[node] = found.get(node, frozenset()) | {one.name}
    return found


def waiting(
    rows: Sequence[Row],
    excluded: Mapping[int, frozenset[str]],
    reserved: Sequence[Reservation] = (),
    now: float = 0.0,
    unchanged: Unchanged | None = None,
    licences: Mapping[str, int] = MappingProxyType({}),
    any_reserved: bool = True,
) -> tuple[WaitingJob, ...]:
    """The pending jobs of squeue's rows; ``excluded`` has the nodes that they exclude, ``licences`` what is free.

    ``any_reserved`` is false where the cluster has no reservation, not even one of ours.
    """
    unchanged = unchanged or Unchanged()
    allowed = _tasks_allowed(rows)
    # Our note stands on the first component of a het job and holds for all of it.
    notes = {row["hetjobid"]: row["admin_comment"] for row in rows if row["hetjobid"] == row["jobid"]}
    kept = {
        row["jobid"]: excluded.get(int(row["jobid"]), frozenset()) | _kept_from(row, reserved, now)
        for row in rows
        if row["statecompact"] == "PD"
    }
    het = _het(rows)
    jobs = []
    for row in rows:
        if row["statecompact"] == "PD":
            tasks, lack = allowed[int(row["jobid"])], lacking(row["licenses"], licences)
            comment = text(notes.get(row["hetjobid"], row["admin_comment"]))
            parts = tuple((part, kept[part["jobid"]]) for part in het.get(row["hetjobid"], ()))
            make = partial(_waiting, row, kept[row["jobid"]], tasks, comment, lack, any_reserved, parts)
            known = tuple((whole(part), nodes) for part, nodes in parts)
            note = read_unstarted(comment)
            noted = holds(note, now)
            # Who was given another begin time waits for no reason until Slurm has looked at it again.
            early = row["reason"] == "None" and (parse.time(row["eligibletime"]) or 0.0) > now
            make = partial(make, note=note, noted=noted, early=early)
            said = (whole(row), kept[row["jobid"]], tasks, comment, lack, any_reserved, known, noted, early)
            jobs.append(unchanged.get(("waiting", row["jobid"]), said, make))
    return tuple(jobs)


def _het(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The het jobs that wait, by the job id of their first component: the rows of all, the first one first. One of
    several accounts counts for several teams: it is looked at component by component.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["hetjobid"] not in _NO_HET and row["statecompact"] == "PD":
            found.setdefault(row["hetjobid"], []).append(row)
    for id, parts in list(found.items()):
        parts.sort(key=lambda part: int(part["hetjoboffset"]))
        if parts[0]["jobid"] != id or len({part["account"] for part in parts}) > 1:
            del found[id]
    return found


def _tasks_allowed(rows: Sequence[Row]) -> dict[int, int]:
    """How many tasks of each pending record may start by its array's own limit (``%4``): job id to tasks.

    A requeued task is a record of its own that does not name the limit; it goes before those that never ran.
    """
    active = Counter(row["arrayjobid"] for row in rows if row["statecompact"] in HOLDING)
    pending = [row for row in rows if row["statecompact"] == "PD"]
    limits = {row["arrayjobid"]: limit for row in pending if (limit := parse.task_limit(row["arraytaskid"]))}
    left = {array: max(0, limit - active[array]) for array, limit in limits.items()}
    allowed = {}
    for row in sorted(pending, key=lambda row: parse.task_limit(row["arraytaskid"]) is not None):
        count = parse.tasks(row["arraytaskid"])
        if row["arrayjobid"] in left:
            count = min(count, left[row["arrayjobid"]])
            left[row["arrayjobid"]] -= count
        allowed[int(row["jobid"])] = count
    return allowed


def licences(said: str) -> dict[str, int]:
    """How many of each licence are free, from ``scontrol -o show licenses``."""
    return {name: int(free) for name, free in re.findall(r"^LicenseName=(\S+) .*?Free=(\d+)", said, re.MULTILINE)}


def lacking(wanted: str, free: Mapping[str, int]) -> str:
    """Which licence of ``matlab:2,ansys`` (or of ``matlab|ansys``, any) there is too little of; empty if none."""

    def is_free(one: str) -> bool:
        name, _, count = one.partition(":")
        return name not in free or free[name] >= int(count or 1)

    if "|" in wanted:
        return "" if any(map(is_free, wanted.split("|"))) else wanted
    return next((one for one in text(wanted).split(",") if one and not is_free(one)), "")


def _kept_from(row: Row, reserved: Sequence[Reservation], now: float) -> frozenset[str]:
    """Nodes that a job cannot have because, by its time limit, it would run into a reservation of others."""
    if not reserved:
        return frozenset()
    limit = parse.duration(row["timelimit"])
    kept: frozenset[str] = frozenset()
    for one in reserved:
        if one.name != row["reservation"] and one.end > now and (limit is None or now + limit > one.start):
            kept |= one.nodes
    return kept


def _request(row: Row, excluded: frozenset[str], comment: str, plain: bool) -> Request:
    """What a waiting job, or a component of one, asks for. ``comment`` is its own AdminComment."""
    amounts = parse.tres(row["tres-alloc"])
    gpus, cpus = parse.gpus_of(amounts), max(1, int(amounts.get("cpu", 1)))
    nodes, total = max(1, int(amounts.get("node", 1))), sum(gpus.values())
    least, most = read_most_nodes(comment)
    if not least <= nodes <= most:  # its user wants another number by now
        most = 0
    each, per_task = parse.gpu_count(row["tres-per-node"]), parse.gpu_count(row["tres-per-task"])
    on_node = per_task * int(row["ntpernode"]) if row["ntpernode"].isdecimal() else 0
    if not each and (most == 1 or (on_node and total == on_node * most)):
        each = total // most
    wanted = parse.features(row["feature"])
    features, any_features = wanted or (frozenset(), frozenset())
    return Request(
        gpus=frozen(gpus),
        min_nodes=nodes,
        gpus_per_node=each,
        gpus_per_task=per_task or 1,
        max_nodes=0 if each else most,
        most_per_node=0 if each else on_node,
        cpus=cpus,
        memory_per_cpu=int(amounts.get("mem", 0)) // cpus,
        exclusive=_exclusive(row),
        features=features,
        any_features=any_features,
        required_nodes=frozenset(parse.nodes(row["reqnodes"])),
        excluded_nodes=excluded,
        reservations=frozenset(text(row["reservation"]).split(",")) - {""},
        plain=plain and wanted is not None and row["reservation"] in parse.UNSET and len(gpus) <= 1,
    )


def _waiting(
    row: Row,
    excluded: frozenset[str],
    allowed: int,
    comment: str,
    lack: str,
    any_reserved: bool,
    parts: Sequence[tuple[Row, frozenset[str]]] = (),
    note: Unstarted | None = None,
    noted: tuple[bool, bool] = (False, False),
    early: bool = False,
) -> WaitingJob:
    others = [one for one in parts if one[0] is not row] if parts and parts[0][0] is row else []
    submit, begin = parse.time(row["submittime"]) or 0.0, parse.time(row["eligibletime"])
    behind, fault, mark = read_behind(comment), read_fault(comment), read_mark(comment)
    # What we have wait behind another is demand all the same; a begin time further off is its user's own.
    ours = behind is not None and begin is not None and begin <= behind.until + HELD_MARGIN
    # So is what a fault stopped: in a moment it may start, and what it needs is not to be given away.
    back = comes_back(fault, mark, submit, begin)
    slurms = "BeginTime" if early else row["reason"]
    reason = "" if (ours or back) and slurms == "BeginTime" else slurms
    held_back = not_ready(reason, any_reserved) or ("it is held" if row["prioritylong"] == "0" else "")
    if mark is not None and reason == "BeginTime" and has_left(mark, submit, begin):
        held_back = f"it left for job {mark.beneficiary} of team {mark.team}, and "
        held_back += "waits until that has started" if mark.held else "Slurm lets it wait for two minutes at most"
    # Slurm may hold it for another reason first, and tell of these when that is gone.
    for part, _ in others:
        held_back = held_back or not_ready(part["reason"], any_reserved)
    if not held_back and not allowed:
        held_back = _NOT_READY["JobArrayTaskLimit"]
    if not held_back and lack:
        held_back = f"{_NOT_READY['Licenses']} ({lack})"
    job = WaitingJob(
        id=int(row["jobid"]),
        display_id=_display_id(row),
        user=row["username"],
        account=row["account"],
        partitions=tuple(row["partition"].split(",")),
        qos=row["qos"],
        priority=TOP_PRIORITY if row.get("state") == "EXPEDITING" else int(row["prioritylong"]),
        submit=submit,
        request=_request(row, excluded, text(row["admin_comment"]), bool(parts) or row["hetjobid"] in _NO_HET),
        tasks=max(1, allowed),
        slurm_reason=slurms,
        held_back=held_back,
        begin=begin,
        mark=mark,
        time_limit=parse.duration(row["timelimit"]),
        name=legible(row["name"]),
        expected=parse.time(row["starttime"]),
        fault=fault,
        behind=behind if ours else None,
        others=tuple(
            Component(tuple(part["partition"].split(",")), _request(part, kept, text(part["admin_comment"]), True))
            for part, kept in others
        ),
        part_of=int(row["hetjobid"]) if parts and parts[0][0] is not row else 0,
    )
    if note is None or note.since < submit - 1 or note.asked != in_short(job):
        return job  # there is none, or it has been started or changed since
    comes_last, takes_nobody = noted
    return replace(job, unstarted=note, comes_last=comes_last, takes_nobody=takes_nobody)


def _exclusive(row: Row) -> bool:
    """Whether a job wants its nodes for itself. 26.05 has a field for that; before, OverSubscribe=NO said so."""
    if "exclusive" in row:
        return row["exclusive"] in ("NODE", "USER", "MCS", "TOPO")
    return row["oversubscribe"] in ("NO", "USER", "MCS", "TOPO", "EXCLUSIVE")


def not_ready(reason: str, any_reserved: bool = True) -> str:
    """Why a job is no demand now, whatever becomes free; empty if it is one.

    From 24.11 on "May be reserved for other job" is also said of a job of two partitions, one of which lacks the node
    that it asks for: with no reservation anywhere it says nothing.
    """
    if reason in _NOT_READY:
        return _NOT_READY[reason]
    if reason.startswith("ReqNodeNotAvail") and "eserved" in reason and any_reserved:
        return f"it would run into a reservation ({reason})"
    if reason.startswith(("Assoc", "QOS", "Max")) and reason not in _OUR_LIMITS:
        return f"a limit that the site set beside ours holds it ({reason})"
    return ""


def racks(said: str) -> dict[str, str]:
    """Node to leaf switch, or to block, from ``scontrol show topology``."""
    leaves = re.findall(r"^(?:SwitchName=(\S+) Level=0|BlockName=(\S+)) .*?Nodes=(\S+)", said, re.MULTILINE)
    return {node: switch or block for switch, block, names in leaves for node in parse.nodes(names)}


def associations(said: str) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Accounts' parents and their GPU limits, from ``scontrol -o show assoc_mgr flags=assoc``."""
    parents: dict[str, str] = {}
    caps: dict[str, dict[str, int]] = {}
    for line in said.splitlines():
        found = re.match(r"ClusterName=\S+ Account=(\S+) UserName= ", line)
        if found is None:
            continue
        account = found[1]
        if parent := re.search(r" ParentAccount=([^\s(]+)", line):
            parents[account] = parent[1]
        limits = re.search(r" GrpTRES=(\S*)", line)
        caps[account] = {
            tres.lower(): int(amount)
            for tres, amount in re.findall(r"(gres/[\w:.-]+|cpu|mem)=(\d+)\(", limits[1] if limits else "")
        }
    return parents, caps


def cluster_name(said: str) -> str:
    """This cluster's name, from the same text; empty if it has no association yet."""
    found = re.search(r"^ClusterName=(\S+) Account=", said, re.MULTILINE)
    return found[1] if found else ""


def users(said: str, allowed: str) -> dict[int, User]:
    """Users by uid, from assoc_mgr's user records and sacctmgr's ``user|account|qos`` lines."""
    accounts: dict[str, dict[str, frozenset[str]]] = {}
    for line in allowed.splitlines():
        user, account, qos = line.split("|")
        if user:
            accounts.setdefault(user, {})[account] = frozenset(qos.split(",")) - {""}
    found = re.findall(r"^UserName=(\S+)\((\d+)\) DefAccount=(\S*) .*?AdminLevel=(.*)$", said, re.MULTILINE)
    return {
        int(uid): User(
            name=name,
            uid=int(uid),
            default_account=text(default),
            accounts=frozen(accounts.get(name, {})),
            admin=level.strip() in ("Operator", "Administrator"),
        )
        for name, uid, default, level in found
        if uid != "4294967294"
    }
