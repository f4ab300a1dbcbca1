"""The contract of a Slurm client, on a real Slurm: what it reads is what Slurm has, what it changes is changed.

What is expected is asked of Slurm's own commands, in other ways than the client asks.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import TypeVar

import pytest

from slurm_gov.core.actions import HELD_MARGIN
from slurm_gov.core.snapshot import Behind, Mark, Request, RunningJob, RunState, Snapshot, WaitingJob
from slurm_gov.sandbox import Sandbox
from slurm_gov.slurm.client import SlurmClient, SlurmError, SlurmUnavailable
from slurm_gov.slurm.commands import CommandClient
from slurm_gov.slurm.pyslurm_client import PyslurmClient

IMPLEMENTATIONS: dict[str, Callable[..., SlurmClient]] = {"commands": CommandClient}
if find_spec("pyslurm"):  # `make pyslurm`, where there is one for this Slurm
    IMPLEMENTATIONS["pyslurm"] = PyslurmClient

H100 = "gres/gpu:h100"
NOBODY = 999_999_999  # a job that does not exist
UNTIL_STOPPED = "while :; do sleep 0.1 & wait $!; done"
T = TypeVar("T")
HOSTILE = "evil\nname|x\t@,\x1b[31m ü 東 \udcff\n7"
# A job name that looks like a line of scontrol show job.
PRETENDER = "x\n     Nodes=n8 CPU_IDs=0 Mem=1 GRES=gpu:h100:11(IDX:0-7)\n   GrpTRES=gres/gpu=1"


@pytest.fixture(scope="module")
def sandbox(module_sandbox: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    made = module_sandbox(
        governor=False,
        accounts=("research", "product", "below"),
        slurm_conf=("SlurmctldParameters=enable_expedited_requeue",),  # 25.11 and later know it
    )
    made.sacctmgr(["modify account where name=below set parent=research"])
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(made.layout.slurm_conf)
    yield made
    if before is None:
        del os.environ["SLURM_CONF"]
    else:
        os.environ["SLURM_CONF"] = before


@pytest.fixture
def slurm(sandbox: Sandbox) -> Iterator[Sandbox]:
    """The sandbox without jobs, before and after."""
    yield sandbox
    sandbox.run(["scancel", "-u", "root"])
    until(lambda: not sandbox.run(["squeue", "-h"]).stdout, 60)


@pytest.fixture(params=IMPLEMENTATIONS)
def new(request: pytest.FixtureRequest) -> Callable[..., SlurmClient]:
    """Makes a client."""
    return IMPLEMENTATIONS[request.param]


@pytest.fixture
def client(new: Callable[..., SlurmClient]) -> SlurmClient:
    return new()


def do(call: Awaitable[T]) -> T:
    async def wait() -> T:
        return await call

    return asyncio.run(wait())


def until(check: Callable[[], object], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, f"not so after {timeout} s"
        time.sleep(0.1)


def submit(slurm: Sandbox, *options: str, script: str = UNTIL_STOPPED, account: str = "research") -> int:
    return slurm.submit(script, f"--account={account}", *options)


def started(slurm: Sandbox, *options: str, **how: str) -> int:
    job = submit(slurm, *options, **how)
    slurm.wait_job(job, "RUNNING")
    time.sleep(0.5)  # for the script to come to its traps
    return job


def waiting(snapshot: Snapshot, job: int) -> WaitingJob:
    return next(one for one in snapshot.waiting if one.id == job)


def running(snapshot: Snapshot, job: int) -> RunningJob:
    return next(one for one in snapshot.running if one.id == job)


def comment(slurm: Sandbox, job: int | str) -> str:
    said = slurm.run(["scontrol", "show", "job", str(job)]).stdout + "AdminComment="
    return re.findall(r"AdminComment=(.*)", said)[0].strip()


def restarts(slurm: Sandbox, job: int | str) -> int:
    return int(re.findall(r"Restarts=(\d+)", slurm.run(["scontrol", "show", "job", str(job)]).stdout)[0])


def tasks(slurm: Sandbox, array: int) -> dict[int, int]:
    """Task to job id, of an array whose tasks are apart."""
    lines = slurm.run(["squeue", "-h", "-r", "-j", str(array), "-o", "%K %A"]).stdout.splitlines()
    return {int(task): int(job) for task, job in map(str.split, lines)}


def mark_of(job: RunningJob, reason: str = "why") -> Mark:
    now = float(int(time.time()))
    return Mark(4711, "product", now, now + 30, job.start, reason)


# -- reading -------------------------------------------------------------------------------------------


def test_nodes_are_what_sinfo_says(slurm: Sandbox, client: SlurmClient) -> None:
    slurm.run(["scontrol", "update", "nodename=n1", "availablefeatures=ib,nvme", "activefeatures=ib,nvme"])
    slurm.run(["scontrol", "update", "nodename=n7", "state=down", "reason=test"])
    slurm.run(["scontrol", "update", "nodename=n8", "state=drain", "reason=test"])
    try:
        nodes = {node.name: node for node in do(client.snapshot()).nodes}
        lines = slurm.run(["sinfo", "-h", "-N", "-o", "%N %T %c %m %G %R"]).stdout.splitlines()
        assert len(nodes) == len(lines) == 8
        for name, _, cpus, memory, gres, partition in map(str.split, lines):
            node = nodes[name]
            assert (node.cpus, node.memory, node.partitions) == (int(cpus), int(memory), (partition,))
            assert {tres.replace("gres/", "") + f":{count}" for tres, count in node.gpus.items()} == {gres}
        assert nodes["n1"].features == {"ib", "nvme"}
        assert {name for name, node in nodes.items() if not node.usable} == {"n7", "n8"}
    finally:
        slurm.run(["scontrol", "update", "nodename=n[7-8]", "state=resume"])
        slurm.run(["scontrol", "update", "nodename=n1", "availablefeatures=", "activefeatures="])


# sbatch's options to what the job asks for; n1 has the features ib and nvme.
REQUESTS = [
    (["--gres=gpu:h100:8", "-N2"], {"gpus": {H100: 16}, "min_nodes": 2, "gpus_per_node": 8, "cpus": 2}),
    (["--gres=gpu:4", "-N2-3"], {"gpus": {"gres/gpu": 8}, "min_nodes": 2, "gpus_per_node": 4}),
    (["--gpus=h100:11", "-N2", "-n11"], {"gpus": {H100: 11}, "min_nodes": 2, "gpus_per_node": 0, "cpus": 11}),
    (["--gpus-per-node=h100:2"], {"gpus": {H100: 2}, "gpus_per_node": 2}),
    (["--gpus-per-task=h100:2", "-n4"], {"gpus": {H100: 8}, "gpus_per_node": 0, "gpus_per_task": 2, "cpus": 4}),
    (["-n3", "-c2", "--mem-per-cpu=123"], {"gpus": {}, "cpus": 6, "memory_per_cpu": 123}),
    (["--gres=gpu:h100:1", "--mem=10G"], {"gpus": {H100: 1}, "memory_per_cpu": 10_240}),
    (["--exclusive", "--gres=gpu:h100:8"], {"gpus": {H100: 8}, "exclusive": True}),
    (["-x", "n1,n3", "--gres=gpu:h100:1"], {"excluded_nodes": {"n1", "n3"}, "plain": True}),
    (["-w", "n[1-2]", "--gres=gpu:h100:1"], {"required_nodes": {"n1", "n2"}, "min_nodes": 2}),
    (["-C", "ib&nvme", "--gres=gpu:h100:1"], {"features": {"ib", "nvme"}, "plain": True}),
    (
        ["-C", "ib|nvme", "--gres=gpu:h100:1"],
        {"any_features": {frozenset({"ib"}), frozenset({"nvme"})}, "plain": True},
    ),
    (["-C", "[ib|nvme]", "--gres=gpu:h100:1"], {"plain": False}),
    (["-N2", "--ntasks-per-node=2", "--gpus-per-task=h100:1"], {"gpus": {H100: 4}, "most_per_node": 2}),
]


def test_waiting_jobs_ask_for_what_they_were_submitted_with(slurm: Sandbox, client: SlurmClient) -> None:
    slurm.run(["scontrol", "update", "nodename=n1", "availablefeatures=ib,nvme", "activefeatures=ib,nvme"])
    jobs = [submit(slurm, "--hold", *options) for options, _ in REQUESTS]
    snapshot = do(client.snapshot())
    for job, (options, expected) in zip(jobs, REQUESTS, strict=True):
        request: Request = waiting(snapshot, job).request
        assert {name: getattr(request, name) for name in expected} == expected, options
        rest = {"exclusive": False, "excluded_nodes": set(), "required_nodes": set(), "features": set()}
        for name, plain in rest.items():
            assert name in expected or getattr(request, name) == plain or options[0] == "-C", (options, name)
    slurm.run(["scancel", *map(str, jobs)])
    until(lambda: not slurm.run(["squeue", "-h"]).stdout)
    slurm.run(["scontrol", "update", "nodename=n1", "availablefeatures=", "activefeatures="])


def test_why_a_job_is_no_demand_now(slurm: Sandbox, client: SlurmClient) -> None:
    blocker = started(slurm, "--gres=gpu:h100:8", "-N8")
    slurm.run(["scontrol", "update", "partitionname=gpu", "maxnodes=4"])  # 24.11 refuses -N40 on 8 nodes at once
    begins = submit(slurm, "--begin=now+3600")
    back = {
        begins: "BeginTime",
        submit(slurm, "--hold"): "JobHeldUser",
        submit(slurm, f"--dependency=afterany:{blocker}"): "Dependency",
        submit(slurm, "-N5"): "PartitionNodeLimit",
    }
    ready = submit(slurm, "--gres=gpu:h100:1"), submit(slurm, "--gres=gpu:h100:1", "--exclusive")

    def reasons() -> dict[int, str]:
        return {job.id: job.slurm_reason for job in do(client.snapshot()).waiting}

    until(lambda: reasons().items() >= back.items())
    snapshot = do(client.snapshot())
    assert all(waiting(snapshot, job).held_back for job in back)
    assert not any(waiting(snapshot, job).held_back for job in ready)
    slurm.run(["scontrol", "update", "partitionname=gpu", "maxnodes=unlimited"])
    begin = waiting(snapshot, begins).begin
    assert begin is not None
    assert 3500 < begin - snapshot.now <= 3600


def test_what_a_waiting_job_is(slurm: Sandbox, client: SlurmClient) -> None:
    job = submit(slurm, "--hold", "-t", "1-02:04", "--comment=mine", account="below")
    found = waiting(do(client.snapshot()), job)
    assert (found.display_id, found.user, found.account, found.qos) == (str(job), "root", "below", "normal")
    assert (found.partitions, found.tasks, found.mark) == (("gpu",), 1, None)
    assert found.time_limit == 93_840
    assert abs(found.submit - time.time()) < 30


def test_a_job_of_an_expedited_requeue_waits_before_all_others(slurm: Sandbox, client: SlurmClient) -> None:
    version = re.findall(r"\d+", slurm.run(["scontrol", "--version"]).stdout)
    if (int(version[0]), int(version[1])) < (25, 11):
        pytest.skip("this Slurm knows no expedited requeue")
    job = started(slurm, "--requeue=expedite", "--gres=gpu:h100:8")
    started(slurm, "--gres=gpu:h100:8", "-N7")
    other = submit(slurm, "--gres=gpu:h100:8", "--priority=4000000000")
    (node,) = [held.node for held in running(do(client.snapshot()), job).held]
    try:
        for state in ("drain", "down"):
            slurm.run(["scontrol", "update", f"nodename={node}", f"state={state}", "reason=test"])
        until(lambda: {job, other} == {one.id for one in do(client.snapshot()).waiting})
        # It has its new priority when its last step has ended.
        priority = lambda one: waiting(do(client.snapshot()), one).priority  # noqa: E731
        until(lambda: priority(job) > priority(other))
    finally:
        slurm.run(["scontrol", "update", f"nodename={node}", "state=resume"])


def test_arrays(slurm: Sandbox, client: SlurmClient) -> None:
    array = submit(slurm, "--array=0-40:4%2", "--gres=gpu:h100:1")
    until(lambda: len(do(client.snapshot()).running) == 2)
    snapshot = do(client.snapshot())
    assert {job.display_id for job in snapshot.running} == {f"{array}_0", f"{array}_4"}
    (rest,) = snapshot.waiting
    assert (rest.id, rest.display_id) == (array, f"{array}_[8-40:4%2]")
    assert (rest.tasks, rest.slurm_reason) == (1, "JobArrayTaskLimit")
    assert rest.held_back
    held = submit(slurm, "--array=1-5,9", "--hold")
    assert waiting(do(client.snapshot()), held).tasks == 6


def test_running_jobs_hold_what_the_nodes_say(slurm: Sandbox, client: SlurmClient) -> None:
    """Also jobs that give no even number, exclusive ones that get more than they asked for, untyped ones."""
    jobs = [
        started(slurm, "--gpus=h100:11", "-N2", "-n11", f"--job-name={PRETENDER}"),
        started(slurm, "--exclusive", "-N2", "--gres=gpu:h100:1"),
        started(slurm, "--gres=gpu:2", "-N2"),
        started(slurm, "--gpus=3", "--mem=1000"),
        started(slurm, "-n3"),
    ]
    snapshot = do(client.snapshot())
    assert {job.id for job in snapshot.running} == set(jobs)
    gpus: Counter[str] = Counter()
    for job in snapshot.running:
        gpus.update({held.node: held.gpus.get(H100, 0) for held in job.held})
        assert all(set(held.gpus) <= {H100} for held in job.held)
    for node in snapshot.nodes:
        said = slurm.run(["scontrol", "show", "node", node.name]).stdout
        found = re.search(r"AllocTRES=.*gres/gpu:h100=(\d+)", said)
        assert gpus[node.name] == (int(found[1]) if found else 0), node.name
    for id in jobs:
        said = slurm.run(["squeue", "-h", "-j", str(id), "-o", "%C %D"]).stdout.split()
        assert sum(held.cpus for held in running(snapshot, id).held) == int(said[0])
        assert len(running(snapshot, id).held) == int(said[1])
    assert sum(held.memory for held in running(snapshot, jobs[3]).held) == 1000


def test_which_jobs_can_be_requeued(slurm: Sandbox, client: SlurmClient) -> None:
    batch, never = started(slurm), started(slurm, "--no-requeue")
    slurm.run(["salloc", "--no-shell", "--account=research", "--gres=gpu:h100:1"])
    snapshot = do(client.snapshot())
    assert {job.id: job.requeueable for job in snapshot.running if job.id in (batch, never)} == {
        batch: True,
        never: False,
    }
    (interactive,) = (job for job in snapshot.running if job.id not in (batch, never))
    assert not interactive.requeueable


def test_suspended_and_completing_jobs_hold_their_nodes(slurm: Sandbox, client: SlurmClient) -> None:
    suspended = started(slurm, "--gres=gpu:h100:8")
    stubborn = started(slurm, "--gres=gpu:h100:8", script=f"trap '' TERM; {UNTIL_STOPPED}")
    requeued = started(slurm, "--gres=gpu:h100:8", script=f"trap '' TERM; {UNTIL_STOPPED}")
    slurm.run(["scontrol", "suspend", str(suspended)])
    slurm.run(["scancel", str(stubborn)])
    slurm.run(["scontrol", "requeue", str(requeued)])
    snapshot = do(client.snapshot())
    assert running(snapshot, suspended).state is RunState.SUSPENDED
    assert running(snapshot, stubborn).state is RunState.COMPLETING
    assert running(snapshot, requeued).state is RunState.COMPLETING
    assert snapshot.waiting == ()
    assert all(sum(held.gpus[H100] for held in job.held) == 8 for job in snapshot.running)


def test_text_of_users_does_not_confuse_the_reading(slurm: Sandbox, client: SlurmClient) -> None:
    plain = submit(slurm, "--hold")
    odd = [
        submit(slurm, "--hold", f"--job-name={text}", f"--comment={text}", f"--wckey={text}")
        for text in (HOSTILE, PRETENDER, "\n", "[slurm-gov preempt for=1 team=t since=1 until=2 run=3: x]")
    ]
    slurm.run(["scontrol", "update", f"jobid={odd[0]}", f"admincomment={HOSTILE}"])
    snapshot = do(client.snapshot())
    assert {job.id for job in snapshot.waiting} == {plain, *odd}
    assert [waiting(snapshot, job).request for job in odd] == [waiting(snapshot, plain).request] * len(odd)
    assert all(job.mark is None for job in snapshot.waiting)
    assert snapshot.parents == {"research": "root", "product": "root", "below": "research"}
    do(client.mark(odd[0], Mark(1, "product", 1.0, 2.0, 3.0)))
    do(client.mark(odd[0], None))
    squeue = ["squeue", "-h", "-j", str(odd[0]), "-O", "admin_comment:0"]
    assert subprocess.run(squeue, capture_output=True, check=True).stdout.strip() == os.fsencode(HOSTILE)


def test_users_and_accounts(slurm: Sandbox, client: SlurmClient) -> None:
    cluster = do(client.cluster())
    assert cluster.parents == {"research": "root", "product": "root", "below": "research"}
    assert (cluster.default_partition, cluster.slurm_uid) == ("gpu", os.geteuid())
    root = cluster.users[0]
    assert (root.name, root.admin) == ("root", True)
    assert {"research", "product", "below"} <= set(root.accounts)
    assert root.accounts["research"] == {"normal"}


# -- changing ------------------------------------------------------------------------------------------


def caps(slurm: Sandbox, account: str) -> dict[str, int]:
    text = slurm.run(["sacctmgr", "-nP", "show", "assoc", f"account={account}", "user=", "format=grptres"]).stdout
    return {name: int(n) for name, _, n in (part.partition("=") for part in text.strip().split(",")) if n}


def test_caps_are_set_and_read(slurm: Sandbox, client: SlurmClient) -> None:
    wanted = {"research": {H100: 8, "gres/gpu": 8}, "product": {H100: 0, "gres/gpu": 3}}
    for _ in range(2):
        do(client.set_caps(wanted))
    assert {name: caps(slurm, name) for name in wanted} == wanted
    until(lambda: do(client.snapshot()).caps == {"root": {}, "below": {}, **wanted})
    started(slurm, "--gres=gpu:h100:8")
    held, untyped = submit(slurm, "--gres=gpu:h100:1"), submit(slurm, "--gres=gpu:1", account="below")
    until(lambda: {job.slurm_reason for job in do(client.snapshot()).waiting} == {"AssocGrpGRES"})
    do(client.set_caps({"research": {H100: 10, "gres/gpu": 10}}))
    slurm.wait_job(held, "RUNNING")
    slurm.wait_job(untyped, "RUNNING")
    assert caps(slurm, "product") == wanted["product"]
    slurm.sacctmgr(["modify account where name=research,product set GrpTRES=gres/gpu=-1,gres/gpu:h100=-1"])
    until(lambda: not any(do(client.snapshot()).caps.values()))


def test_no_caps_are_no_change(slurm: Sandbox, client: SlurmClient) -> None:
    do(client.set_caps({}))
    do(client.set_caps({"research": {}}))
    assert caps(slurm, "research") == {}


@pytest.mark.parametrize("wrong", [{"research": {"gres/gpu:b200": 1}}, {"nowhere": {H100: 1}}])
def test_caps_that_slurm_does_not_take(slurm: Sandbox, client: SlurmClient, wrong: dict[str, dict[str, int]]) -> None:
    with pytest.raises(SlurmError) as raised:
        do(client.set_caps(wrong))
    assert not isinstance(raised.value, SlurmUnavailable)


def test_a_note_is_kept_by_slurm_beside_other_text(
    slurm: Sandbox, client: SlurmClient, new: Callable[..., SlurmClient]
) -> None:
    job = started(slurm)
    slurm.run(["scontrol", "update", f"jobid={job}", "admincomment=see ticket 12"])
    found = running(do(client.snapshot()), job)
    mark = mark_of(found, "takes 8 of h100 back, 'quoted' \"twice\" = ü")
    for _ in range(2):
        do(client.mark(job, mark))
    assert comment(slurm, job).startswith("see ticket 12 [slurm-gov preempt for=4711 team=product ")
    again = running(do(new().snapshot()), job)
    assert again.mark == mark
    assert again.being_preempted
    do(client.mark(job, None))
    assert comment(slurm, job) == "see ticket 12"
    assert running(do(client.snapshot()), job).mark is None


def test_a_task_of_an_array_is_that_task_alone(slurm: Sandbox, client: SlurmClient) -> None:
    """The last task bears the array's number, by which Slurm's commands mean all tasks."""
    array = submit(slurm, "--array=1-3", "--gres=gpu:h100:1")
    until(lambda: len(do(client.snapshot()).running) == 3)
    job = running(do(client.snapshot()), array)
    assert job.display_id == f"{array}_3"
    do(client.mark(array, mark_of(job)))
    assert [bool(comment(slurm, f"{array}_{task}")) for task in (1, 2, 3)] == [False, False, True]
    do(client.requeue([array]))
    until(lambda: array in {job.id for job in do(client.snapshot()).waiting})
    do(client.allow_start(array, 2))
    until(lambda: array in {job.id for job in do(client.snapshot()).running})
    assert [restarts(slurm, f"{array}_{task}") for task in (1, 2, 3)] == [0, 0, 1]
    do(client.snapshot())
    do(client.cancel([array]))
    until(lambda: set(tasks(slurm, array)) == {1, 2})


def test_a_nudge_changes_nothing_of_an_array(slurm: Sandbox, client: SlurmClient) -> None:
    array = submit(slurm, "--array=1-9%2", "--gres=gpu:h100:1")
    until(lambda: len(do(client.snapshot()).running) == 2)
    snapshot = do(client.snapshot())
    one, _ = snapshot.running
    do(client.mark(one.id, mark_of(one)))
    do(client.nudge(array))
    after = do(client.snapshot())
    assert running(after, one.id).being_preempted
    (before,), (rest,) = snapshot.waiting, after.waiting
    same = ("id", "display_id", "tasks", "request", "priority", "submit", "mark")
    assert [getattr(rest, name) for name in same] == [getattr(before, name) for name in same]


def test_a_het_job_is_one(slurm: Sandbox, client: SlurmClient) -> None:
    """It runs, has its note and leaves as a whole; while it waits its first component has all of it."""
    options = ["--account=research", "--output=/dev/null", "--gres=gpu:h100:1"]
    wrap = ["sbatch", "--parsable", *options, ":", *options, f"--wrap={UNTIL_STOPPED}"]
    leader = int(slurm.run(wrap).stdout.partition(";")[0])
    until(lambda: len(do(client.snapshot()).running) == 1, 60)
    (job,) = do(client.snapshot()).running
    assert (job.id, job.display_id, job.requeueable) == (leader, str(leader), True)
    assert sum(held.gpus[H100] for held in job.held) == 2
    do(client.mark(leader, mark_of(job)))
    assert running(do(client.snapshot()), leader).being_preempted
    do(client.requeue([leader]))
    until(lambda: len(do(client.snapshot()).waiting) == 2)
    first, second = sorted(do(client.snapshot()).waiting, key=lambda job: job.id)
    assert (first.id, [one.request.gpus for one in first.others], first.part_of) == (leader, [{H100: 1}], 0)
    assert (second.display_id, second.part_of, second.others) == (f"{leader}+1", leader, ())
    assert first.mark is not None and first.request.plain


def test_a_signal_goes_to_the_steps_or_to_the_batch_script(slurm: Sandbox, client: SlurmClient) -> None:
    told = slurm.dir / "told"
    told.unlink(missing_ok=True)  # of the other client
    step = f"trap 'echo step >> {told}' USR1; echo ready >> {told}; {UNTIL_STOPPED}"
    script = f'trap "echo batch >> {told}" USR1; srun sh -c "{step.replace("$", chr(92) + "$")}" & {UNTIL_STOPPED}'
    job = started(slurm, script=script)
    until(lambda: told.exists() and told.read_text() == "ready\n")
    do(client.snapshot())
    do(client.signal(job, "USR1"))
    until(lambda: told.read_text() == "ready\nstep\n")
    do(client.signal(job, "B:USR1"))
    until(lambda: told.read_text() == "ready\nstep\nbatch\n")
    do(client.signal(job, "KILL"))  # Slurm would cancel the job for good
    time.sleep(1)
    assert slurm.job_state(job) == "RUNNING"


def test_a_job_that_our_signal_ended_is_remembered_and_can_be_requeued(slurm: Sandbox, client: SlurmClient) -> None:
    job, other = started(slurm), started(slurm)
    found = running(do(client.snapshot()), job)
    do(client.mark(job, mark_of(found)))
    for one in (job, other):
        do(client.signal(one, "B:USR1"))
        slurm.wait_job(one, "FAILED")
    snapshot = do(client.snapshot())
    assert [one.id for one in snapshot.ended] == [job]  # the other one carries no note of ours
    assert snapshot.ended[0].being_preempted
    do(client.requeue([job]))
    until(lambda: job in {one.id for one in do(client.snapshot()).waiting})
    assert do(client.snapshot()).ended == ()


def test_a_requeued_job_starts_again_when_it_may(slurm: Sandbox, client: SlurmClient) -> None:
    job = started(slurm)
    do(client.mark(job, mark_of(running(do(client.snapshot()), job))))
    do(client.requeue([job]))
    until(lambda: job in {one.id for one in do(client.snapshot()).waiting})
    found = waiting(do(client.snapshot()), job)
    assert found.slurm_reason == "BeginTime"
    assert found.mark is not None
    assert found.begin is not None
    assert 110 < found.begin - found.submit <= 130
    with pytest.raises(SlurmError):
        do(client.requeue([job]))  # done before, and no harm
    for _ in range(2):
        do(client.allow_start(job, 3))
    slurm.wait_job(job, "RUNNING")
    again = running(do(client.snapshot()), job)
    assert again.start - found.submit >= 2
    assert not again.being_preempted
    assert restarts(slurm, job) == 1
    assert do(client.snapshot()).waiting == ()


def test_a_requeued_job_waits_on_and_then_may_start(slurm: Sandbox, client: SlurmClient) -> None:
    job = started(slurm)
    mark = mark_of(running(do(client.snapshot()), job))
    do(client.mark(job, mark))
    do(client.requeue([job]))
    until(lambda: job in {one.id for one in do(client.snapshot()).waiting})
    held = time.time() + 600
    for _ in range(2):
        do(client.wait_on(job, replace(mark, held=round(held)), 600))
    until(lambda: waiting(do(client.snapshot()), job).slurm_reason == "BeginTime")  # "None" until Slurm's next look
    found = waiting(do(client.snapshot()), job)
    assert found.mark is not None and found.begin is not None
    assert found.mark.held == round(held)
    assert abs(found.begin - held) <= HELD_MARGIN
    do(client.allow_start(job, 3))
    slurm.wait_job(job, "RUNNING")
    do(client.cancel([job]))
    until(lambda: do(client.snapshot()).running == ())


def test_a_waiting_job_steps_back_and_keeps_its_place(slurm: Sandbox, client: SlurmClient) -> None:
    """Slurm counts its age anew when its begin time moves: what it has waited is given back to it."""
    here = ("--nodelist=n1", "--gres=gpu:h100:8")
    runs = submit(slurm, *here)
    slurm.wait_job(runs, "RUNNING")
    job = submit(slurm, *here)
    until(lambda: waiting(do(client.snapshot()), job).slurm_reason == "Resources")
    before = waiting(do(client.snapshot()), job)
    behind = Behind(4711, round(time.time() + 600))
    for _ in range(2):
        do(client.step_back(job, behind))
    until(lambda: waiting(do(client.snapshot()), job).slurm_reason == "BeginTime")
    found = waiting(do(client.snapshot()), job)
    assert (found.behind, found.held_back) == (behind, "")
    for _ in range(2):
        do(client.let_go(job, 3.5 * 86400))
    until(lambda: waiting(do(client.snapshot()), job).slurm_reason == before.slurm_reason)
    found = waiting(do(client.snapshot()), job)
    assert (found.behind, found.held_back) == (None, before.held_back)
    config = slurm.run(["scontrol", "show", "config"]).stdout
    weight = int(re.search(r"PriorityWeightAge\s*= (\d+)", config)[1])  # type: ignore[index]
    # One more than it had, and one for Slurm's rounding.
    assert weight > 0 and 0 <= found.priority - before.priority - weight // 2 <= 2, "of seven days it waited a half"
    do(client.cancel([job, runs]))


def test_several_jobs_at_once(slurm: Sandbox, client: SlurmClient) -> None:
    jobs = [started(slurm) for _ in range(4)]
    do(client.snapshot())
    do(client.requeue(jobs[:2]))
    do(client.cancel(jobs[2:]))
    until(lambda: [slurm.job_state(job) for job in jobs] == ["PENDING"] * 2 + ["CANCELLED"] * 2)
    do(client.cancel(jobs[2:]))  # done before, and no harm
    do(client.requeue([]))


# -- errors ----------------------------------------------------------------------------------------------

# Unlike the others, a signal is not waited for: the job's state shows whether it came.
CALLS: dict[str, Callable[[SlurmClient], Awaitable[object]]] = {
    "snapshot": lambda client: client.snapshot(),
    "cluster": lambda client: client.cluster(),
    "mark": lambda client: client.mark(NOBODY, Mark(1, "t", 1.0, 2.0, 3.0)),
    "requeue": lambda client: client.requeue([NOBODY]),
    "cancel": lambda client: client.cancel([NOBODY]),
    "allow_start": lambda client: client.allow_start(NOBODY, 2),
    "wait_on": lambda client: client.wait_on(NOBODY, Mark(1, "t", 1.0, 2.0, 3.0), 60),
    "step_back": lambda client: client.step_back(NOBODY, Behind(1, 2.0)),
    "let_go": lambda client: client.let_go(NOBODY, 3.0),
    "nudge": lambda client: client.nudge(NOBODY),
}
OF_A_JOB = {
    name: CALLS[name] for name in ("mark", "requeue", "allow_start", "wait_on", "step_back", "let_go", "nudge")
} | {"signal": lambda client: client.signal(NOBODY, "USR1")}


@pytest.mark.parametrize("call", OF_A_JOB.values(), ids=OF_A_JOB)
def test_an_unknown_job_is_an_error_and_no_silence(
    slurm: Sandbox, client: SlurmClient, call: Callable[[SlurmClient], Awaitable[object]]
) -> None:
    with pytest.raises(SlurmError, match=r"(?i)invalid job id") as raised:
        do(call(client))
    assert not isinstance(raised.value, SlurmUnavailable)
    assert "\n" not in str(raised.value)


def test_an_unknown_job_is_cancelled_already(slurm: Sandbox, client: SlurmClient) -> None:
    do(client.cancel([NOBODY]))


def unavailable(call: Awaitable[object], within: float) -> None:
    began = time.monotonic()
    with pytest.raises(SlurmUnavailable) as raised:
        do(call)
    assert time.monotonic() - began < within
    assert "\n" not in str(raised.value)


def test_a_slurmctld_that_hangs(slurm: Sandbox, new: Callable[..., SlurmClient]) -> None:
    client = new(timeout=1.0)
    do(client.snapshot())
    pid = slurm.pids()["slurmctld"]
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        for call in CALLS.values():
            unavailable(call(client), 2.5)
        do(client.signal(NOBODY, "USR1"))
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: slurm.nodes())
    assert len(do(new().snapshot()).nodes) == 8


def test_a_slurmctld_that_is_gone(slurm: Sandbox, new: Callable[..., SlurmClient]) -> None:
    """Never an empty snapshot: no jobs and no answer are not the same."""
    client = new(timeout=2.0)
    job = started(slurm)
    assert len(do(client.snapshot()).running) == 1
    slurm.stop_daemon("slurmctld")
    try:
        for call in CALLS.values():
            unavailable(call(client), 3.5)
    finally:
        slurm.start_slurmctld()
    until(lambda: "RUNNING" in slurm.job_state(job))
    assert len(do(client.snapshot()).running) == 1


def test_a_slurmdbd_that_is_gone(slurm: Sandbox, new: Callable[..., SlurmClient]) -> None:
    """No cap could be written then, so nothing is to be decided: snapshot says so too."""
    careful, lazy = new(accounting_check=0.0), new(accounting_check=3600.0)
    do(careful.snapshot())
    do(lazy.snapshot())
    slurm.stop_daemon("slurmdbd")
    try:
        unavailable(careful.snapshot(), 12)
        unavailable(careful.cluster(), 12)
        unavailable(careful.set_caps({"research": {H100: 1}}), 15)
        do(lazy.snapshot())  # it saw slurmdbd a moment ago
        unavailable(lazy.set_caps({"research": {H100: 1}}), 15)
        unavailable(lazy.snapshot(), 12)
    finally:
        slurm.start_slurmdbd()
    until(lambda: not slurm.run(["sacctmgr", "-n", "show", "cluster"], check=False).returncode)
    do(lazy.snapshot())
    assert caps(slurm, "research") == {}


def test_a_slurm_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    client = CommandClient()  # pyslurm does not find Slurm by PATH
    for call in CALLS.values():
        unavailable(call(client), 5)


def test_a_configuration_that_is_not_there(new: Callable[..., SlurmClient], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", "/nonexistent/slurm.conf")
    with pytest.raises(SlurmError):
        do(new(timeout=2.0).snapshot())
