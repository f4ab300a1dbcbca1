"""Rows of squeue, sinfo and scontrol, as Slurm 22.05 printed them, to nodes, jobs, accounts and users."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from clusters import H100

from slurm_gov.core.cluster import User
from slurm_gov.core.marks import write_behind, write_fault, write_mark, write_signal, write_unstarted
from slurm_gov.core.snapshot import Behind, FaultMark, Held, Mark, Node, RunningJob, RunState, Unstarted, WaitingJob
from slurm_gov.core.unstarted import in_short
from slurm_gov.slurm import read
from slurm_gov.slurm.commands import JOB_FIELDS
from slurm_gov.slurm.read import Reservation
from slurm_gov.slurm.unchanged import Unchanged

# sbatch --gres=gpu:h100:8 -N2, running.
RUNNING = {
    "jobid": "3", "arrayjobid": "3", "arraytaskid": "N/A", "statecompact": "R", "reason": "None", "username": "root",
    "account": "default", "qos": "normal", "partition": "gpu", "prioritylong": "3333", "submittime": "1795448551",
    "starttime": "1795448551", "endtime": "1795534951", "eligibletime": "1795448551", "timelimit": "1-00:00:00",
    "tres-alloc": "cpu=2,mem=8000M,node=2,billing=2,gres/gpu=16,gres/gpu:h100=16", "tres-per-job": "N/A",
    "tres-per-node": "gres:gpu:h100:8", "tres-per-task": "N/A", "ntpernode": "0", "nodelist": "n[1-2]",
    "feature": "(null)", "reqnodes": "", "oversubscribe": "OK", "requeue": "1", "batchflag": "1",
    "dependency": "(null)",
    "hetjobid": "N/A", "hetjoboffset": "N/A", "reservation": "(null)", "admin_comment": "(null)", "name": "train",
    "comment": "(null)", "licenses": "(null)",
}  # fmt: skip
# The same, pending.
WAITING = RUNNING | {
    "jobid": "17", "arrayjobid": "17", "statecompact": "PD", "reason": "Resources", "starttime": "N/A",
    "endtime": "N/A", "nodelist": "",
}  # fmt: skip
NODE = {
    "nodelist": "n1", "partitionname": "gpu", "statecomplete": "mixed", "gres": "gpu:h100:8", "cpus": "64",
    "memory": "512000", "features_act": "(null)", "reason": "none",
}  # fmt: skip


def test_the_rows_here_have_the_fields_that_are_asked_for() -> None:
    assert set(RUNNING) == set(JOB_FIELDS)


# -- nodes ---------------------------------------------------------------------------------------------


def test_a_node() -> None:
    assert read.nodes([NODE]) == (Node("n1", ("gpu",), {H100: 8}, 64, 512_000, frozenset(), True, "MIXED"),)


def test_a_node_in_two_partitions_is_one_node() -> None:
    both = read.nodes([NODE, NODE | {"partitionname": "all"}, NODE | {"nodelist": "n2"}])
    assert [(node.name, node.partitions) for node in both] == [("n1", ("gpu", "all")), ("n2", ("gpu",))]


def test_a_reserved_node_is_for_the_jobs_of_the_reservation() -> None:
    here = {"n1": frozenset({"mine"})}
    for state, usable, reserved in (
        ("idle+reserved", False, {"mine"}),
        ("mixed+reserved", False, {"mine"}),
        ("idle+drain+reserved", False, set()),
        ("idle+maint+reserved", False, set()),
        ("idle", True, set()),  # not for long
    ):
        (node,) = read.nodes([NODE | {"statecomplete": state}], reserved=here)
        assert (node.usable, node.reserved) == (usable, reserved), state
    (ours,) = read.nodes([NODE | {"statecomplete": "idle+reserved"}], kept=frozenset({"n1"}), reserved=here)
    assert (ours.usable, ours.reserved) == (True, set())


def test_the_reservations_that_nodes_stand_in_now() -> None:
    those = [Reservation(name, start, 200.0, frozenset({"n1", node})) for name, start, node in
             (("a", 50.0, "n2"), ("b", 100.0, "n1"), ("later", 101.0, "n3"))]  # fmt: skip
    assert read.by_node(those, 100.0) == {"n1": {"a", "b"}, "n2": {"a"}}
    assert read.by_node(those, 200.0) == {}
    assert request(reservation="a,b").reservations == {"a", "b"}
    assert not request(reservation="a").plain


def test_a_node_with_more() -> None:
    (node,) = read.nodes([NODE | {"gres": "gpu:A100:4(S:0-1),shard:16,tmpdisk:2T", "features_act": "ib,nvme"}])
    assert node.gpus == {"gres/gpu:a100": 4}
    assert node.features == {"ib", "nvme"}
    (plain,) = read.nodes([NODE | {"gres": "(null)"}])
    assert plain.gpus == {}


@pytest.mark.parametrize(
    "state",
    [
        "idle", "mixed", "allocated", "idle+planned", "mixed+planned", "idle+completing", "idle+cloud",
        "idle+cloud+powered_down", "allocated+cloud+powering_up", "idle+power_up", "idle+dynamic_norm",
        "mixed+resume",
    ],
)  # fmt: skip
def test_nodes_on_which_slurm_starts_jobs(state: str) -> None:
    assert read.usable(state)


@pytest.mark.parametrize(
    "state",
    [
        "down", "down+drain", "down+not_responding", "idle+drain", "mixed+drain", "allocated+drain", "idle+fail",
        "mixed+fail", "down*", "idle*", "idle+not_responding", "error", "unknown", "future", "idle+maintenance",
        "idle+maint", "allocated+reserved", "idle+reserved", "mixed+reboot_requested", "idle+reboot_issued",
        "idle+drain+reboot_issued", "idle+power_down", "idle+cloud+powering_down", "idle+invalid_reg",
        "down+drain+invalid_reg", "idle+blocked", "idle+drain+dynamic_norm",
    ],
)  # fmt: skip
def test_nodes_on_which_slurm_starts_no_job(state: str) -> None:
    """States and flags of 22.05, 24.11 and 26.05, in sinfo's StateComplete."""
    assert not read.usable(state)


# -- running jobs --------------------------------------------------------------------------------------


def running(state: RunState = RunState.RUNNING, **values: str) -> RunningJob:
    return read.running(RUNNING | {name.replace("_per_", "-per-"): value for name, value in values.items()}, state)


def test_a_running_job() -> None:
    assert running() == RunningJob(
        id=3,
        display_id="3",
        user="root",
        account="default",
        partition="gpu",
        qos="normal",
        start=1795448551.0,
        held=(Held("n1", {H100: 8}, 1, 4000), Held("n2", {H100: 8}, 1, 4000)),
        time_limit=86_400.0,
        submit=1795448551.0,
        name="train",
    )


def test_its_parts_add_up_to_the_whole() -> None:
    row = RUNNING | {"nodelist": "n[1-3]", "tres-alloc": "cpu=11,mem=44000M,node=3,gres/gpu=11,gres/gpu:h100=11"}
    job = read.running(row, RunState.RUNNING)
    assert sum(held.gpus[H100] for held in job.held) == 11
    assert sum(held.cpus for held in job.held) == 11
    assert sum(held.memory for held in job.held) == 44_000


@pytest.mark.parametrize(
    ("requeue", "batch", "possible"), [("1", "1", True), ("0", "1", False), ("1", "0", False), ("0", "0", False)]
)
def test_only_batch_jobs_that_allow_it_can_be_requeued(requeue: str, batch: str, possible: bool) -> None:
    assert running(requeue=requeue, batchflag=batch).requeueable is possible


def test_notes_are_read() -> None:
    mark = Mark(9, "product", 1795448600.0, 1795448630.0, 1795448551.0, "why")
    job = running(admin_comment=write_signal(write_mark("x", mark), "B:USR2"))
    assert (job.mark, job.signal, job.being_preempted) == (mark, "B:USR2", True)
    assert running().mark is None
    assert running().signal == ""


def test_a_job_without_a_time_limit_has_none() -> None:
    assert running(timelimit="UNLIMITED").time_limit is None


NAMES = [
    ({}, "3", ("3", "3")),
    # The last task of an array bears the array's number.
    ({"arraytaskid": "7"}, "3_7", ("3_7", "3_7")),
    ({"jobid": "9", "arraytaskid": "0"}, "3_0", ("3_0", "3_0")),
    ({"arraytaskid": "4-20%3"}, "3_[4-20%3]", ("3_[4-20]", "3_[4-20]")),
    ({"arraytaskid": "4,6-12:2"}, "3_[4,6-12:2]", ("3_[4,6-12:2]", "3_[4,6-12:2]")),
    # A component of a het job can be changed alone but not stopped alone.
    ({"jobid": "4", "arrayjobid": "4", "hetjobid": "3", "hetjoboffset": "1"}, "3+1", ("3+1", "3")),
    ({"hetjobid": "3", "hetjoboffset": "0"}, "3+0", ("3+0", "3")),
]


@pytest.mark.parametrize(("values", "shown", "names"), NAMES)
def test_names_of_jobs_in_commands_mean_that_job_only(
    values: dict[str, str], shown: str, names: tuple[str, str]
) -> None:
    assert running(**values).display_id == shown
    assert read.names(RUNNING | values) == names


# -- GPUs spread unevenly ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "uneven"),
    [
        ({}, False),
        ({"nodelist": "n1", "tres-per-node": "N/A"}, False),
        ({"tres-per-node": "N/A", "tres-per-job": "gres:gpu:h100:16"}, True),
        ({"tres-per-node": "gres:gpu:8"}, False),
        ({"tres-per-node": "gres:gpu:h100:1"}, True),  # exclusive: it asked for 2 and got all that the nodes have
        ({"tres-per-node": "N/A", "tres-alloc": "cpu=2,mem=8000M,node=2,billing=2"}, False),
    ],
)
def test_which_jobs_may_be_uneven(values: dict[str, str], uneven: bool) -> None:
    assert read.may_be_uneven(RUNNING | values) is uneven


# scontrol -d show job, of sbatch --gpus=h100:12 -N2 -n12
DETAIL = """\
JobId=34 JobName={name}
   UserId=root(0) GroupId=root(0) MCS_label=N/A
   JobState=RUNNING Reason=None Dependency=(null)
   NodeList=n[4-5]
   NumNodes=2 NumCPUs=12 NumTasks=12 CPUs/Task=1 ReqB:S:C:T=0:0:*:*
   JOB_GRES=gpu:h100:12
     Nodes=n4 CPU_IDs=0-10 Mem=44000 GRES=gpu:h100:8(IDX:0-7)
     Nodes=n5 CPU_IDs=0 Mem=4000 GRES=gpu:h100:4(IDX:0-3)
   MinCPUsNode=1 MinMemoryCPU=4000M MinTmpDiskNode=0
   TresPerJob=gres:gpu:h100:12
"""
EVEN = running(nodelist="n[4-5]", **{"tres-alloc": "cpu=12,mem=48000M,node=2,gres/gpu=12,gres/gpu:h100=12"})


def held(detail: str, job: RunningJob = EVEN) -> list[tuple[str, int]]:
    return [(one.node, one.gpus.get(H100, 0)) for one in read.detail(detail, job)]


def test_what_each_node_gives() -> None:
    assert held(DETAIL.format(name="wrap")) == [("n4", 8), ("n5", 4)]


def test_a_name_cannot_add_nodes() -> None:
    assert held(DETAIL.format(name="x\n     Nodes=n6 CPU_IDs=0 Mem=1 GRES=gpu:h100:12")) == [("n4", 8), ("n5", 4)]


def test_nodes_that_give_the_same_are_named_together() -> None:
    job = running(nodelist="n[4-5]")
    assert held(" Nodes=n[4-5] CPU_IDs=0-63 Mem=256000 GRES=gpu:h100:8(IDX:0-7)\n", job) == [("n4", 8), ("n5", 8)]


def test_a_node_may_give_none() -> None:
    text = DETAIL.format(name="wrap").replace("h100:8(IDX:0-7)", "h100:12(IDX:0-11)")
    assert held(text.replace("GRES=gpu:h100:4(IDX:0-3)", "GRES=")) == [("n4", 12), ("n5", 0)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "slurm_load_jobs error: Invalid job id specified",
        DETAIL.format(name="wrap").replace("n5", "n6"),
        DETAIL.format(name="wrap").replace("h100:4", "h100:5"),
        DETAIL.format(name="x\n     Nodes=n[4-5] CPU_IDs=0 Mem=1 GRES=gpu:h100:6"),
        DETAIL.format(name="x\n     Nodes=n[4- CPU_IDs=0 Mem=1 GRES=gpu:h100:6"),
    ],
)
def test_what_does_not_add_up_is_not_believed(text: str) -> None:
    """Also a job whose name pretends to be such a line."""
    assert held(text) == [("n4", 6), ("n5", 6)]


# -- waiting jobs --------------------------------------------------------------------------------------


def waiting(excluded: frozenset[str] = frozenset(), **values: str) -> WaitingJob:
    row = WAITING | {name.replace("_per_", "-per-"): value for name, value in values.items()}
    (job,) = read.waiting([row], {17: excluded}, now=float(row["submittime"]))
    return job


def request(tres: str = "", **values: str) -> Any:
    return waiting(**values, **({"tres-alloc": tres} if tres else {})).request


def test_a_waiting_job() -> None:
    job = waiting(frozenset({"n3"}), reqnodes="n[1-2]", eligibletime="1795452151")
    assert (job.id, job.display_id, job.user, job.account, job.qos) == (17, "17", "root", "default", "normal")
    assert (job.priority, job.submit, job.begin, job.time_limit) == (3333, 1795448551.0, 1795452151.0, 86_400.0)
    assert (job.tasks, job.slurm_reason, job.held_back) == (1, "Resources", "")
    assert job.request.gpus == {H100: 16}
    assert (job.request.min_nodes, job.request.gpus_per_node, job.request.cpus) == (2, 8, 2)
    assert job.request.memory_per_cpu == 4000
    assert job.request.required_nodes == {"n1", "n2"}
    assert job.request.excluded_nodes == {"n3"}
    assert job.request.plain
    assert not job.request.exclusive


def test_gpus_that_must_be_on_one_node_are_so_many_on_each() -> None:
    """squeue tells the same of `-N1 --gpus=8` and of `--gpus=8`; the first was noted."""
    one = "cpu=1,mem=4000M,node=1,billing=1,gres/gpu=8,gres/gpu:h100=8"
    for comment, each in (("", 0), ("[slurm-gov nodes=1]", 8), ("[slurm-gov nodes=2]", 0)):
        asked = request(one, tres_per_node="N/A", admin_comment=comment)
        assert (asked.gpus, asked.gpus_per_node) == ({H100: 8}, each)
    two = request(one.replace("node=1", "node=2"), tres_per_node="N/A", admin_comment="[slurm-gov nodes=1]")
    assert (two.min_nodes, two.gpus_per_node) == (2, 0), "it was changed since"


def test_jobs_in_other_states_do_not_wait() -> None:
    rows = [WAITING | {"statecompact": state} for state in ("R", "CG", "RQ", "RH", "SE", "RV", "F", "S")]
    assert read.waiting(rows, {}) == ()


def test_several_partitions() -> None:
    assert waiting(partition="gpu,old").partitions == ("gpu", "old")


def test_gpus_asked_for_in_other_ways() -> None:
    per_job = request("cpu=11,mem=44000M,node=2,gres/gpu=11", tres_per_node="N/A", tres_per_job="gres:gpu:11")
    assert (per_job.gpus, per_job.gpus_per_node, per_job.gpus_per_task) == ({"gres/gpu": 11}, 0, 1)
    per_task = request(
        "cpu=4,mem=16000M,node=1,gres/gpu=8,gres/gpu:h100=8", tres_per_node="N/A", tres_per_task="gres:gpu:h100:2"
    )
    assert (per_task.gpus, per_task.gpus_per_node, per_task.gpus_per_task) == ({H100: 8}, 0, 2)
    none = request("cpu=40,mem=160000M,node=40,billing=40", tres_per_node="N/A")
    assert (none.gpus, none.min_nodes, none.memory_per_cpu) == ({}, 40, 4000)


@pytest.mark.parametrize(
    ("said", "exclusive"),
    [("OK", False), ("YES", False), ("NO", True), ("USER", True), ("MCS", True), ("TOPO", True)],
)
def test_exclusive_jobs(said: str, exclusive: bool) -> None:
    assert request(oversubscribe=said).exclusive is exclusive


@pytest.mark.parametrize(
    "values",
    [
        {"feature": "[r1*2&r2*2]"},
        {"reservation": "maint1"},
        {"tres-alloc": "cpu=1,mem=1M,node=1,gres/gpu=2,gres/gpu:h100=1,gres/gpu:a100=1"},
    ],
)
def test_what_the_core_cannot_judge_is_not_plain(values: dict[str, str]) -> None:
    assert not request(**values).plain


def test_features_are_plain_whether_all_are_needed_or_some() -> None:
    assert request(feature="ib&nvme").features == {"ib", "nvme"}
    assert request(feature="ib&nvme").plain
    some = request(feature="rdma&(ib|roce)")
    assert (some.features, some.any_features, some.plain) == (
        {"rdma"},
        {frozenset({"ib"}), frozenset({"roce"})},
        True,
    )


def test_how_many_nodes_it_may_have_at_most() -> None:
    """`-N2-4 --gpus=16`; squeue tells only of the least number, and of `-N2` nothing else."""
    sixteen = "cpu=2,mem=8000M,node=2,gres/gpu=16,gres/gpu:h100=16"
    for comment, most in (
        ("", 0),
        ("[slurm-gov nodes=2-4]", 4),
        ("[slurm-gov nodes=2]", 2),
        ("[slurm-gov nodes=3]", 0),
    ):
        asked = request(sixteen, tres_per_node="N/A", admin_comment=comment)
        assert (asked.min_nodes, asked.max_nodes, asked.gpus_per_node) == (2, most, 0)


def test_tasks_on_each_node_say_how_many_gpus_it_gives() -> None:
    """`--ntasks-per-node=4 --gpus-per-task=2`, and so many nodes: all of them alike; else it is the most of each."""
    sixteen = "cpu=8,mem=8000M,node=2,gres/gpu=16,gres/gpu:h100=16"
    asked = {"tres_per_node": "N/A", "tres_per_task": "gres:gpu:h100:2"}
    alike = request(sixteen, ntpernode="4", admin_comment="[slurm-gov nodes=2]", **asked)
    assert (alike.gpus_per_node, alike.max_nodes, alike.most_per_node) == (8, 0, 0)
    most = request(sixteen, ntpernode="4", **asked)
    assert (most.gpus_per_node, most.max_nodes, most.most_per_node, most.gpus_per_task) == (0, 0, 8, 2)
    for nothing in ("0", "N/A"):
        assert request(sixteen, ntpernode=nothing, **asked).most_per_node == 0


def test_that_slurm_did_not_start_it_holds_for_a_while_and_for_the_same_request() -> None:
    known, bare = Unchanged(), waiting()
    note = Unstarted(bare.submit + 100, bare.submit + 700, in_short(bare), "Priority")

    def at(after: float, note: Unstarted = note, **values: str) -> tuple[Unstarted | None, bool, bool]:
        row = WAITING | values | {"admin_comment": write_unstarted("", note)}
        (job,) = read.waiting([row], {}, now=bare.submit + after, unchanged=known)
        known.looked()
        return job.unstarted, job.comes_last, job.takes_nobody

    assert at(699) == (note, True, True)
    assert at(700) == (note, False, False), "also where nothing else has changed"
    vain = replace(note, reason="Resources")
    assert at(700, vain) == (vain, False, True)
    assert at(699, **{"tres-per-node": "gres:gpu:h100:4"}) == (None, False, False), "its user has changed it"
    assert at(699, replace(note, since=bare.submit - 2)) == (None, False, False), "it was requeued since"


HET = [
    WAITING | {"hetjobid": "17", "hetjoboffset": "0", "tres-alloc": "cpu=8,mem=1G,node=1", "tres-per-node": "N/A"},
    WAITING | {"jobid": "18", "arrayjobid": "18", "hetjobid": "17", "hetjoboffset": "1", "partition": "gpu,old"},
    WAITING | {"jobid": "19", "arrayjobid": "19", "hetjobid": "17", "hetjoboffset": "2", "feature": "ib"},
]


def test_the_first_component_of_a_het_job_has_all_of_it() -> None:
    for rows in (HET, HET[::-1]):
        first, *parts = sorted(read.waiting(rows, {18: frozenset({"n9"})}), key=lambda job: job.id)
        assert [(one.partitions, one.request.gpus) for one in first.others] == [
            (("gpu", "old"), {H100: 16}),
            (("gpu",), {H100: 16}),
        ]
        assert (first.others[0].request.excluded_nodes, first.others[1].request.features) == ({"n9"}, {"ib"})
        assert (first.request.plain, first.part_of) == (True, 0)
        assert [(one.display_id, one.part_of, one.others) for one in parts] == [("17+1", 17, ()), ("17+2", 17, ())]


def test_what_holds_a_component_holds_a_het_job() -> None:
    first, *_ = read.waiting([HET[0], HET[1] | {"reason": "Licenses"}], {})
    assert first.held_back == "it waits for a licence"


@pytest.mark.parametrize(
    "rows",
    [HET[1:], [HET[0], HET[1] | {"account": "other"}], [HET[0] | {"statecompact": "R"}, HET[1]]],
    ids=["the first is gone", "two accounts", "the first runs"],
)
def test_components_that_are_no_whole_stand_for_themselves(rows: list[dict[str, str]]) -> None:
    for job in read.waiting(rows, {}):
        assert (job.others, job.part_of, job.request.plain) == ((), 0, False)


def test_a_het_job_of_which_a_component_has_changed_is_another_record() -> None:
    known = Unchanged()

    def looked_at(rows: list[dict[str, str]]) -> WaitingJob:
        first, *_ = read.waiting(rows, {}, unchanged=known)
        known.looked()
        return first

    first = looked_at(HET)
    assert looked_at(HET) is first
    assert looked_at([*HET[:2], HET[2] | {"feature": "eth"}]) is not first


@pytest.mark.parametrize(
    ("reason", "ready"),
    [
        ("Resources", True),
        ("Priority", True),
        ("None", True),
        ("AssocGrpGRES", True),
        ("AssocGrpGres", True),
        ("ReqNodeNotAvail,_UnavailableNodes:n1", True),
        ("Dependency", False),
        ("DependencyNeverSatisfied", False),
        ("JobHeldUser", False),
        ("JobHeldAdmin", False),
        ("JobArrayTaskLimit", False),
        ("BeginTime", False),
        ("PartitionNodeLimit", False),
        ("PartitionTimeLimit", False),
        ("PartitionDown", False),
        ("JobHoldMaxRequeue", False),
        ("Licenses", False),
        ("Reservation", False),
        ("AssocGrpCpuLimit", False),
        ("AssocGrpGRESMinutes", False),
        ("AssocMaxJobsLimit", False),
        ("QOSMaxGRESPerUser", False),
        ("QOSGrpGRES", False),
        ("MaxGRESPerAccount", False),
        ("MaxCpuPerAccount", False),
    ],
)
def test_reasons_for_which_a_job_is_no_demand(reason: str, ready: bool) -> None:
    assert (waiting(reason=reason).held_back == "") is ready


def test_reserved_for_another_says_nothing_where_nothing_is_reserved() -> None:
    """Seen from 24.11 on: of a job of two partitions, one of which lacks the node that it asks for."""
    row = WAITING | {"reason": "ReqNodeNotAvail, May be reserved for other job"}
    (job,) = read.waiting([row], {})
    assert "reservation" in job.held_back
    (job,) = read.waiting([row], {}, any_reserved=False)
    assert job.held_back == ""


def test_a_job_of_priority_0_is_held_whatever_the_reason_says() -> None:
    assert waiting(prioritylong="0", reason="None").held_back == "it is held"
    assert waiting(prioritylong="0", reason="JobHeldAdmin").held_back == "an administrator holds it"


def test_tasks_of_an_array_that_may_start() -> None:
    array = WAITING | {"arraytaskid": "4-20%3"}
    one = RUNNING | {"jobid": "18", "arrayjobid": "17", "arraytaskid": "1"}
    two = one | {"jobid": "19", "arraytaskid": "2", "statecompact": "CG"}
    other = RUNNING | {"jobid": "20", "arrayjobid": "20"}
    assert [read.waiting([array, *rows], {})[0].tasks for rows in ([], [one, other], [one, two])] == [3, 2, 1]
    assert waiting(arraytaskid="4-20").tasks == 17


def test_tasks_above_an_arrays_limit_are_no_demand_whatever_reason_slurm_gave_last() -> None:
    array = WAITING | {"arraytaskid": "4-20%2", "reason": "AssocGrpGRES"}
    one = RUNNING | {"jobid": "18", "arrayjobid": "17", "arraytaskid": "1"}
    again = WAITING | {"jobid": "19", "arrayjobid": "17", "arraytaskid": "2", "reason": "AssocGrpGRES"}
    rest, requeued = read.waiting([array, one, again], {})
    assert (requeued.held_back, requeued.tasks) == ("", 1)  # it goes before those that never ran
    assert rest.held_back == "its array's own limit of running tasks is reached"
    (rest,) = read.waiting([array, one], {})
    assert (rest.held_back, rest.tasks) == ("", 1)


LICENCES = """\
LicenseName=matlab Total=3 Used=2 Free=1 Reserved=0 Remote=no
LicenseName=ansys Total=1 Used=1 Free=0 Reserved=0 Remote=no
"""


@pytest.mark.parametrize(
    ("wanted", "lack"),
    [
        ("(null)", ""),
        ("", ""),
        ("matlab", ""),
        ("matlab:1", ""),
        ("matlab:2", "matlab:2"),
        ("matlab:1,ansys:1", "ansys:1"),
        ("matlab|ansys", ""),
        ("matlab:2|ansys:1", "matlab:2|ansys:1"),
        ("unknown:5", ""),  # another cluster's, perhaps: Slurm knows
    ],
)
def test_a_job_whose_licence_is_not_free_is_no_demand(wanted: str, lack: str) -> None:
    free = read.licences(LICENCES)
    assert free == {"matlab": 1, "ansys": 0}
    assert read.lacking(wanted, free) == lack
    (job,) = read.waiting([WAITING | {"licenses": wanted}], {}, licences=free)
    assert job.held_back == (f"it waits for a licence ({lack})" if lack else "")


def test_a_requeued_job_keeps_its_note_and_waits_for_its_time() -> None:
    mark = Mark(9, "product", 1795448600.0, 1795448630.0, 1795448551.0, "why")
    back = {"reason": "BeginTime", "submittime": "1795448630"}
    job = waiting(**back, eligibletime="1795448751", admin_comment=write_mark("", mark))
    assert (job.mark, job.begin) == (mark, 1795448751.0)
    assert job.held_back == "it left for job 9 of team product, and Slurm lets it wait for two minutes at most"
    ours = write_mark("", replace(mark, held=1795448900.0))
    job = waiting(**back, eligibletime="1795448902", admin_comment=ours)
    assert job.held_back == "it left for job 9 of team product, and waits until that has started"
    job = waiting(**back, eligibletime="1795449999", admin_comment=ours)
    assert job.held_back == "its begin time has not come", "its user's own"


def test_who_was_given_another_begin_time_is_not_ready_although_slurm_gives_no_reason_yet() -> None:
    known, row = Unchanged(), WAITING | {"reason": "None", "eligibletime": "1795448751"}

    def at(now: float, **values: str) -> tuple[str, str]:
        (job,) = read.waiting([row | values], {}, now=now, unchanged=known)
        known.looked()
        return job.slurm_reason, job.held_back

    assert at(1795448750.5) == ("BeginTime", "its begin time has not come")
    assert at(1795448751.2) == ("None", ""), "also where nothing else has changed"
    assert at(1795448750.5, reason="Resources") == ("Resources", "")
    assert at(1795448750.5, eligibletime="N/A") == ("None", "")
    mark = Mark(9, "product", 1795448600.0, 1795448630.0, 1795448551.0, "why", held=1795448751.0)
    left = {"submittime": "1795448630", "admin_comment": write_mark("", mark)}
    assert at(1795448700.0, **left)[1] == "it left for job 9 of team product, and waits until that has started"


def test_who_waits_behind_another_by_our_doing_is_demand() -> None:
    note = {"reason": "BeginTime", "admin_comment": write_behind("", Behind(4711, 1795448700))}
    job = waiting(eligibletime="1795448702", **note)
    assert (job.behind, job.held_back) == (Behind(4711, 1795448700), "")
    # A begin time further off is its user's own; and what is held stays held.
    job = waiting(eligibletime="1795448799", **note)
    assert (job.behind, job.held_back) == (None, "its begin time has not come")
    assert waiting(eligibletime="1795448702", **note | {"reason": "JobHeldUser"}).held_back


def test_a_job_that_a_fault_stopped_is_demand_while_slurm_makes_it_wait() -> None:
    """What it needs is not lent to others for the seconds until it may start."""
    fault = FaultMark("n1", 1795448600.0, 1795448551.0, reason="XID 79")
    comment = write_fault("", fault)
    back = {"reason": "BeginTime", "submittime": "1795448600", "eligibletime": "1795448721"}
    assert waiting(**back, admin_comment=comment).held_back == ""
    assert waiting(**back | {"eligibletime": "1795459999"}, admin_comment=comment).held_back, "its user's begin time"
    assert waiting(**back | {"submittime": "1795448551"}, admin_comment=comment).held_back, "not since the fault"
    preempted = Mark(9, "product", 1795448650.0, 1795448650.0, 1795448640.0, "why")
    later = back | {"submittime": "1795448650"}
    assert waiting(**later, admin_comment=write_mark(comment, preempted)).held_back, "preempted since"


def test_text_of_users_is_text() -> None:
    name = "evil\nname|x\x1b[31m ü"
    assert waiting(admin_comment=name).mark is None
    assert running(username=name, account=name).user == name


# -- accounts and users --------------------------------------------------------------------------------

NO_LIMITS = "cpu=N(3),mem=N(12000),energy=N(0),node=N(1),billing=N(3),fs/disk=N(0),vmem=N(0),pages=N(0)"
REST = "GrpTRESMins=cpu=N(804),gres/gpu=N(290),gres/gpu:h100=5(290) GrpTRESRunMins=cpu=N(0),gres/gpu=7(0) MaxJobs="
ASSOC = f"""\
Current Association Manager state
Association Records
ClusterName=c Account=root UserName= Partition= Priority=0 ID=1 SharesRaw/Norm/Level/Factor=1/0.00/1/0.00 \
ParentAccount= Lft=1 DefAssoc=No GrpTRES={NO_LIMITS},gres/gpu=N(0),gres/gpu:h100=N(0) {REST}
ClusterName=c Account=root UserName=root(0) Partition= Priority=0 ID=2 ParentAccount= GrpTRES={NO_LIMITS} {REST}
ClusterName=c Account=lab UserName= Partition= Priority=0 ID=3 ParentAccount=root(1) Lft=2 DefAssoc=No \
GrpTRES={NO_LIMITS},gres/gpu=20(16),gres/gpu:H100=16(16) {REST}
ClusterName=c Account=vision UserName= Partition= ID=4 ParentAccount=lab(3) \
GrpTRES={NO_LIMITS},gres/gpu:h100=0(0) {REST}
ClusterName=c Account=vision UserName=ann(1001) Partition= ID=5 ParentAccount= GrpTRES=cpu=N(0),gres/gpu=3(0) {REST}
"""


def test_accounts_and_their_caps() -> None:
    parents, caps = read.associations(ASSOC)
    assert parents == {"lab": "root", "vision": "lab"}
    assert caps == {"root": {}, "lab": {"gres/gpu": 20, H100: 16}, "vision": {H100: 0}}
    assert read.cluster_name(ASSOC) == "c"
    assert read.cluster_name("Current Association Manager state\n\nNo associations\n") == ""


USERS = """\
Current Association Manager state
User Records
UserName=nobody(65534) DefAccount=default DefWckey= AdminLevel=None
UserName=root(0) DefAccount=default DefWckey= AdminLevel=Administrator
UserName=ann(1001) DefAccount=(null) DefWckey=(null) AdminLevel=Operator
UserName=gone(4294967294) DefAccount=default DefWckey= AdminLevel=None
"""
ALLOWED = "|root|normal\nroot|root|normal\n|default|normal\nnobody|default|normal\nann|lab|high,normal\nann|vision|\n"


def test_users() -> None:
    none: frozenset[str] = frozenset()
    found = read.users(USERS, ALLOWED)
    assert found == {
        65534: User("nobody", 65534, "default", {"default": frozenset({"normal"})}),
        0: User("root", 0, "default", {"root": frozenset({"normal"})}, admin=True),
        1001: User("ann", 1001, "", {"lab": frozenset({"high", "normal"}), "vision": none}, admin=True),
    }


RESERVED = (
    "ReservationName=m2 StartTime=5000 EndTime=9000 Duration=01:00:00 Nodes=n[1-2] NodeCnt=2 CoreCnt=128 "
    "Features=(null) PartitionName=(null) Flags=MAINT,SPEC_NODES TRES=cpu=128 Users=root State=INACTIVE\n"
)


def test_a_job_that_would_run_into_a_reservation_cannot_have_its_nodes() -> None:
    reserved = read.reservations(RESERVED)
    assert [(one.name, one.start, one.end, sorted(one.nodes)) for one in reserved] == [
        ("m2", 5000, 9000, ["n1", "n2"])
    ]
    assert read.reservations("No reservations in the system\n") == ()

    def kept(limit: str, name: str = "(null)", now: float = 1000.0) -> frozenset[str]:
        one = WAITING | {"timelimit": limit, "reservation": name}
        return read.waiting([one], {}, reserved, now)[0].request.excluded_nodes

    assert kept("1-00:00:00") == {"n1", "n2"}
    assert kept("UNLIMITED") == {"n1", "n2"}
    assert kept("1:00:00") == frozenset()
    assert kept("1-00:00:00", name="m2") == frozenset()
    assert kept("1-00:00:00", now=9001.0) == frozenset()


def test_what_users_write_is_text_whatever_its_bytes() -> None:
    (job,) = read.waiting([WAITING | {"name": "<b>\x1b[31m\udcff é"}], {}, {}, 0.0)
    assert job.name == "<b>\x1b[31m? é"
    (node,) = read.nodes([NODE | {"reason": "bad \udcfe disk", "statecomplete": "drained"}])
    assert node.reason == "bad ? disk"
    job.name.encode()


def test_slurms_own_estimate_of_a_start() -> None:
    (job,) = read.waiting([WAITING | {"starttime": "1795448999"}], {}, {}, 0.0)
    assert job.expected == 1795448999.0


def test_caps_on_cpus_and_memory_are_read_memory_in_mib() -> None:
    said = (
        "ClusterName=sandbox Account=research UserName= Partition= Priority=0 ID=5 ParentAccount=root(1) "
        "GrpTRES=cpu=5(0),mem=2097152(0),energy=N(0),node=N(0),gres/gpu=8(0),gres/gpu:h100=N(0) GrpTRESMins=cpu=N(0)"
    )
    assert read.associations(said)[1] == {"research": {"cpu": 5, "mem": 2097152, "gres/gpu": 8}}


@pytest.mark.parametrize(
    "said",
    [
        "SwitchName=s1 Level=0 LinkSpeed=1 Nodes=n[1-2]\nSwitchName=s2 Level=0 LinkSpeed=1 Nodes=n3\n"
        "SwitchName=top Level=1 LinkSpeed=1 Nodes=n[1-3] Switches=s[1-2]\n",
        "BlockName=s1 BlockIndex=0 Nodes=n[1-2] BlockSize=2\nBlockName=s2 BlockIndex=1 Nodes=n3 BlockSize=2\n"
        "AggregatedBlock=s[1-2] BlockIndex=2 Nodes=n[1-3] BlockSize=4\n",
    ],
    ids=["tree", "block"],
)
def test_racks(said: str) -> None:
    assert read.racks(said) == {"n1": "s1", "n2": "s1", "n3": "s2"}
    assert read.racks("No topology information available\n") == {}


def test_nodes_that_are_kept_for_a_job_count_as_before() -> None:
    rows = [
        {**NODE, "nodelist": name, "statecomplete": state}
        for name, state in (("n1", "idle+reserved+planned"), ("n2", "idle+reserved"), ("n3", "idle+drain+reserved"))
    ]
    found = read.nodes(rows, kept=frozenset({"n1", "n3"}))
    assert [(one.usable, one.state) for one in found] == [
        (True, "IDLE+PLANNED"), (False, "IDLE+RESERVED"), (False, "IDLE+DRAIN")]  # fmt: skip
