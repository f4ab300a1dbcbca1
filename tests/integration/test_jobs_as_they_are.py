"""Jobs in all their forms, and what keeps them from being preempted, through real sbatch on one governed Slurm."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest
from conftest import NewSandbox
from governed import Cluster

from slurm_gov.sandbox.errors import SandboxError
from slurm_gov.slurm import parse

ALL = "{quota: {h100: 64}, borrow: none}"
GUEST = "{quota: {h100: 0}, borrow: unlimited}"
ONE_NODE = ("-N1", "--gpus-per-node=h100:8")
POLICY = """\
pools: {{h100: {{partition: [gpu, long], gres: "gpu:h100"}}}}
priority_classes: {{inference: 100, training: 50, experiment: 10}}
teams: {{research: {research}, product: {product}}}
preemption: {{grace: {grace}, signal: "B:USR1"{more}}}
"""
HET = (
    *("sbatch", "--parsable", "--account=research", "-N1", "--gpus-per-node=h100:8"),
    *(":", "--account=research", "-N2", "--gpus-per-node=h100:8", "--output=/dev/null", "--wrap=sleep 600"),
)
CONF = (
    "Licenses=matlab:1",
    "PartitionName=long Nodes=n[5-8] DefaultTime=1-00:00:00 MaxTime=INFINITE State=UP",
)


@pytest.fixture(scope="module")
def governed(module_sandbox: NewSandbox) -> Cluster:
    return Cluster(module_sandbox(slurm_conf=CONF, accounts=("strangers",)))


@pytest.fixture
def cluster(governed: Cluster) -> Cluster:
    governed.clear()
    return governed


def govern(cluster: Cluster, research: str = GUEST, product: str = ALL, more: str = "", grace: str = "1s") -> None:
    """Make this the running policy; ``more`` is for its section preemption."""
    more = f", {more}" if more else ""
    cluster.sandbox.layout.policy.write_text(
        POLICY.format(research=research, product=product, grace=grace, more=more)
    )
    cluster.reload()


def guests(cluster: Cluster, *options: str) -> dict[str, int]:
    """Research borrows all eight nodes, with a job on each: node to job."""
    jobs = [cluster.sbatch("research", *ONE_NODE, *options) for _ in range(8)]
    cluster.running(*jobs)
    return {node: int(job) for job, node in map(str.split, cluster.squeue("%A %N", "-A", "research"))}


def preempted(cluster: Cluster, jobs: dict[str, int], times: int = 0) -> set[str]:
    """The nodes that were taken back, when so many were."""
    if times:
        cluster.restarted(*jobs.values(), times=times)
    return {node for node, job in jobs.items() if cluster.restarts(job)}


def why(cluster: Cluster, job: int) -> Any:
    """What `slurm-gov why --json` says of a job."""
    command = [sys.executable, "-m", "slurm_gov.cli.main", "why", str(job), "--json"]
    return json.loads(cluster.sandbox.run(command).stdout)["jobs"][0]


# -- what keeps a job from being preempted -----------------------------------------------------------------


def test_a_team_has_a_minimum_runtime_of_its_own(cluster: Cluster) -> None:
    govern(cluster, research="{quota: {h100: 0}, borrow: unlimited, min_runtime: 1h}")
    jobs = guests(cluster)
    owner = cluster.sbatch("product", *ONE_NODE)
    cluster.stays(lambda: cluster.states()[owner] == "PD", "nobody leaves", 3)
    assert "min_runtime" in why(cluster, owner)["job"]["why"]
    govern(cluster, research="{quota: {h100: 0}, borrow: unlimited, min_runtime: 1s}")
    cluster.running(owner)
    cluster.restarted(*jobs.values(), times=1)


def test_a_protected_class_stays(cluster: Cluster) -> None:
    govern(cluster, more="classes: {experiment: {protected: true}}")
    kept = [cluster.sbatch("research", *ONE_NODE, "--qos=experiment") for _ in range(7)]
    cluster.running(*kept)
    other = cluster.sbatch("research", *ONE_NODE, "--qos=training")
    cluster.running(other)
    owner = cluster.sbatch("product", *ONE_NODE)
    cluster.running(owner)
    cluster.restarted(other, *kept, times=1)
    assert cluster.restarts(other) == 1


def test_a_job_that_was_preempted_is_left_alone_for_a_while_also_by_another_daemon(cluster: Cluster) -> None:
    govern(cluster, more="max_preemptions: {count: 1, per: 1h}")
    jobs = guests(cluster)
    owner = cluster.sbatch("product", *ONE_NODE)
    cluster.running(owner)
    (node,) = preempted(cluster, jobs, 1)
    victim = jobs[node]
    cluster.sandbox.run(["scancel", str(owner)])
    cluster.running(victim)
    cluster.sandbox.stop_governor()
    cluster.sandbox.start_governor()
    # It would lose the least again, having started last.
    second = cluster.sbatch("product", *ONE_NODE)
    cluster.running(second)
    cluster.restarted(*jobs.values(), times=2)
    assert cluster.restarts(victim) == 1


def test_who_saved_its_work_loses_least(cluster: Cluster) -> None:
    saved = cluster.work / "saved"
    govern(cluster)
    jobs = guests(cluster)
    time.sleep(2)
    cluster.sandbox.run(["scontrol", "update", f"job={jobs['n3']}", f"comment=checkpoint={time.time():.0f}"])
    owner = cluster.sbatch("product", *ONE_NODE)
    cluster.running(owner)
    assert preempted(cluster, jobs, 1) == {"n3"}
    assert "since its checkpoint" in cluster.squeue_comment(jobs["n3"])
    (cluster.work / f"saved-{jobs['n6']}").write_text("")
    time.sleep(1)
    govern(cluster, more=f"checkpoint_file: {saved}-%j")
    cluster.until(lambda: why(cluster, jobs["n6"])["job"]["checkpoint"], "the file was seen")
    time.sleep(1.5)  # and by the daemon
    second = cluster.sbatch("product", *ONE_NODE)
    cluster.running(second)
    assert preempted(cluster, jobs, 2) == {"n3", "n6"}


# -- what people are told ----------------------------------------------------------------------------------


def test_when_a_job_may_start_and_its_place_in_line(cluster: Cluster) -> None:
    govern(cluster, research="{quota: {h100: 32}, borrow: none}", product="{quota: {h100: 32}}")
    jobs = [cluster.sbatch("research", *ONE_NODE, f"--time={minutes}") for minutes in (20, 10, 30, 40)]
    cluster.running(*jobs)
    first = cluster.sbatch("research", *ONE_NODE, "--time=60")
    second = cluster.sbatch("research", *ONE_NODE)
    cluster.until(lambda: cluster.reason(second) == "AssocGrpGRES", "it waits for its team")
    start = int(cluster.show(jobs[1], "StartTime") and time.mktime(
        time.strptime(cluster.show(jobs[1], "StartTime"), "%Y-%m-%dT%H:%M:%S")
    ))  # fmt: skip
    one, two = why(cluster, first)["job"], why(cluster, second)["job"]
    assert (one["earliest"], one["earliest_why"]) == (start + 600, f"when {jobs[1]} reaches its time limit")
    assert two["earliest_why"] == f"when {jobs[0]} reaches its time limit"
    assert (two["team_place"], two["team_in_line"], two["next_in_line"]) == (2, 2, str(first))
    assert two["why"].startswith("team research holds 32 of 32 quota and 0 of 0 borrow of h100")


# -- forms of jobs -----------------------------------------------------------------------------------------


FORMS = [
    ["--gres=gpu:h100:8", "-N2"],
    ["--gpus=h100:16", "-N2", "-n2"],
    ["--gpus-per-task=h100:4", "-n4"],
    ["--gpus=16", "-N2", "-n2"],
    ["--exclusive", "-N2", "--gres=gpu:h100:1"],
]


def test_an_owner_gets_its_nodes_whatever_the_form_of_its_request(cluster: Cluster) -> None:
    govern(cluster)
    jobs = guests(cluster)
    for number, options in enumerate(FORMS[:4], 1):
        owner = cluster.sbatch("product", *options)
        cluster.running(owner)
        cluster.restarted(*jobs.values(), times=2 * number)
    assert cluster.used("product") == 64


def test_an_owner_that_must_be_on_one_node_gets_one(cluster: Cluster) -> None:
    """4 GPUs are free on each of the eight nodes: squeue tells the same of `-N1 --gpus=8` and of `--gpus=8`."""
    govern(cluster)
    jobs = [cluster.sbatch("research", "-N1", "--gpus-per-node=h100:4", f"-wn{node}") for node in range(1, 9)]
    cluster.running(*jobs)
    spread = cluster.sbatch("product", "--gpus=h100:8"), cluster.sbatch("product", "-n4", "--gpus-per-task=h100:2")
    cluster.running(*spread)
    assert not any(map(cluster.restarts, jobs))
    whole = cluster.sbatch("product", "-N1", "--gpus=h100:8")
    cluster.running(whole)
    cluster.restarted(*jobs, times=1)


@pytest.mark.parametrize(
    "options",
    [("-N2", "--gpus=h100:16"), ("-N2", "--ntasks-per-node=2", "--gpus-per-task=h100:4")],
    ids=["total", "tasks"],
)
def test_an_owner_that_must_be_on_two_nodes_gets_two(cluster: Cluster, options: tuple[str, ...]) -> None:
    """4 GPUs are free on each of the eight nodes, 32 in all."""
    govern(cluster)
    jobs = [cluster.sbatch("research", "-N1", "--gpus-per-node=h100:4", f"-wn{node}") for node in range(1, 9)]
    cluster.running(*jobs)
    owner = cluster.sbatch("product", *options)
    cluster.running(owner)
    cluster.restarted(*jobs, times=2)


def test_an_exclusive_job_takes_back_whole_nodes(cluster: Cluster) -> None:
    govern(cluster)
    jobs = guests(cluster)
    owner = cluster.sbatch("product", *FORMS[4])
    cluster.running(owner)
    cluster.restarted(*jobs.values(), times=2)
    assert cluster.used("product") == 16


def test_those_leave_who_are_where_the_owner_may_go(cluster: Cluster) -> None:
    govern(cluster)
    jobs = guests(cluster)
    expected: set[str] = set()
    for node, feature in (("n4", "ib"), ("n6", "roce")):
        features = f"availablefeatures={feature}", f"activefeatures={feature}"
        cluster.sandbox.run(["scontrol", "update", f"nodename={node}", *features])
    for options, nodes in [
        (["-w", "n2"], {"n2"}),
        (["-x", "n[1-7]"], {"n8"}),
        (["-C", "ib"], {"n4"}),
        (["-C", "roce|ib"], {"n6"}),
        (["-p", "long", "-x", "n5,n8"], {"n7"}),
        (["-p", "long,gpu", "-w", "n1"], {"n1"}),
    ]:
        owner = cluster.sbatch("product", *ONE_NODE, *options)
        cluster.running(owner)
        new = preempted(cluster, jobs, len(expected) + 1) - expected
        assert len(new) == 1
        assert new <= nodes, options
        expected |= new
    cluster.sandbox.run(["scontrol", "update", "nodename=n[4,6]", "availablefeatures=", "activefeatures="])


def test_a_job_borrows_on_the_nodes_that_are_reserved_for_it(cluster: Cluster) -> None:
    govern(cluster)
    times = ("starttime=now", "duration=60", "nodes=n8", "accounts=research", "flags=ignore_jobs")
    cluster.sandbox.run(["scontrol", "create", "reservation", "reservationname=mine", *times])
    try:
        inside = cluster.sbatch("research", *ONE_NODE, "--reservation=mine")
        cluster.running(inside)
        assert cluster.squeue("%N", "-j", str(inside)) == ["n8"]
        others = [cluster.sbatch("research", *ONE_NODE) for _ in range(7)]
        cluster.running(*others)
        cluster.sandbox.run(["scancel", str(inside)])
    finally:
        cluster.until(lambda: "mine" not in cluster.squeue("%v"), "nobody is in it")
        cluster.sandbox.run(["scontrol", "delete", "reservationname=mine"])


def test_what_a_job_could_have_that_slurm_does_not_start_is_lent(cluster: Cluster) -> None:
    """Two nodes of one kind: one of each is free, which we cannot tell from two of one."""
    govern(cluster)
    for node, feature in (("n1", "ib"), ("n[2-8]", "roce")):
        features = f"availablefeatures={feature}", f"activefeatures={feature}"
        cluster.sandbox.run(["scontrol", "update", f"nodename={node}", *features])
    cluster.running(*(cluster.sbatch("product", *ONE_NODE, "-w", f"n{number}") for number in range(2, 8)))
    alike = cluster.sbatch("product", "-N2", "--gpus-per-node=h100:8", "-C", "[ib|roce]")
    guest = cluster.sbatch("research", *ONE_NODE, "--priority=1000000")
    cluster.until(lambda: why(cluster, alike)["job"]["reason"] == "starts_now", "as far as we can tell")
    cluster.stays(lambda: cluster.states()[guest] == "PD", "two nodes are kept for it", 20)
    cluster.until(lambda: cluster.states()[guest] == "R", "they are not for ever", 90)
    assert why(cluster, alike)["job"]["reason"] == "not_started"
    comment = cluster.sandbox.run(["scontrol", "show", "job", str(alike)]).stdout
    assert "[slurm-gov unstarted since=" in comment
    cluster.stays(lambda: cluster.restarts(guest) == 0, "nor does anybody leave for it", 5)
    # Its user helps himself: it is like any other, and the guest leaves.
    cluster.sandbox.run(["scontrol", "update", f"jobid={alike}", "features="])
    cluster.running(alike)
    cluster.sandbox.run(["scontrol", "update", "nodename=n[1-8]", "availablefeatures=", "activefeatures="])


def test_tasks_above_an_arrays_own_limit_are_no_demand(cluster: Cluster) -> None:
    govern(cluster, product="{quota: {h100: 32}, borrow: none}")
    cluster.sbatch("research", *ONE_NODE, "--array=1-6%2")
    cluster.until(lambda: cluster.used("research") == 16, "two tasks run")
    cluster.stays(lambda: cluster.caps("research")["gres/gpu:h100"] <= 24, "no more is lent than may be used", 3)
    jobs = [cluster.sbatch("product", *ONE_NODE) for _ in range(4)]
    cluster.running(*jobs)
    assert cluster.used("research") == 16


def test_nobody_leaves_for_a_job_that_waits_for_a_licence(cluster: Cluster) -> None:
    govern(cluster)
    holder = cluster.sbatch("strangers", "--licenses=matlab:1")
    cluster.running(holder)
    jobs = guests(cluster)
    owner = cluster.sbatch("product", *ONE_NODE, "--licenses=matlab:1")
    cluster.stays(lambda: cluster.states()[owner] == "PD" and not preempted(cluster, jobs), "nobody leaves", 4)
    assert why(cluster, owner)["job"]["reason"] == "not_ready"
    cluster.sandbox.run(["scancel", str(holder)])
    cluster.running(owner)
    cluster.restarted(*jobs.values(), times=1)


def test_nobody_leaves_for_a_job_that_depends_or_begins_later_or_is_held(cluster: Cluster) -> None:
    govern(cluster)
    jobs = guests(cluster)
    some = next(iter(jobs.values()))
    for options in ([f"--dependency=afterok:{some}"], ["--begin=now+1hour"], ["--hold"]):
        cluster.sbatch("product", *ONE_NODE, *options)
    cluster.stays(lambda: not preempted(cluster, jobs), "nobody leaves", 4)


def test_a_het_job_borrows_and_comes_back_whole(cluster: Cluster) -> None:
    # A quota of its size, and in use: Slurm 26.05 refuses a het job that asks for more than the cap of the moment.
    govern(cluster, research="{quota: {h100: 24}, borrow: unlimited}", product="{quota: {h100: 40}, borrow: none}")
    own = [cluster.sbatch("research", *ONE_NODE) for _ in range(3)]
    cluster.running(*own)
    time.sleep(2)  # they would lose more than the het job
    leader = int(cluster.sandbox.run(HET).stdout)
    cluster.until(lambda: cluster.used("research") == 48, "all components run on what is lent")
    owner = cluster.sbatch("product", "-N5", "--gpus-per-node=h100:8")
    cluster.running(owner)
    # Not at once: a job that is being requeued is for a moment in no state that squeue shows.
    others = lambda: {job: state for job, state in cluster.states().items() if job not in (owner, *own)}  # noqa: E731
    cluster.until(lambda: set(others().values()) == {"PD"}, "all its components wait again")
    assert cluster.used("research") == 24
    assert not any(map(cluster.restarts, own))
    cluster.sandbox.run(["scancel", str(owner)])
    cluster.until(lambda: cluster.used("research") == 48, "all of it runs again", 60)
    assert cluster.restarts(leader) == 1


def test_an_owners_het_job_takes_back_what_all_of_it_needs(cluster: Cluster) -> None:
    govern(cluster)
    jobs = guests(cluster)
    leader = int(cluster.sandbox.run([*HET[:2], *(word.replace("research", "product") for word in HET[2:])]).stdout)
    cluster.until(lambda: cluster.used("product") == 24, "all components run", 60)
    cluster.restarted(*jobs.values(), times=3)
    assert why(cluster, leader)["job"]["gpus"] == 24


def test_what_a_het_job_cannot_use_is_lent(cluster: Cluster) -> None:
    """One of its components waits for a node that its own team holds: the others hold nothing for it."""
    govern(cluster)
    cluster.running(cluster.sbatch("product", *ONE_NODE, "-wn1"))
    one, other = ("--account=product", *ONE_NODE), ("--account=product", *ONE_NODE, "-wn1")
    waits = ("--output=/dev/null", "--wrap=sleep 600")
    leader = int(cluster.sandbox.run(["sbatch", "--parsable", *one, ":", *other, *waits]).stdout)
    # Slurm keeps a node for each component that could have one, but not from jobs that go before it.
    cluster.running(*(cluster.sbatch("research", *ONE_NODE, "--priority=1000000") for _ in range(7)))
    assert cluster.states()[leader] == "PD"
    assert why(cluster, leader)["job"]["reason"] == "waits_for_nodes"


def test_a_het_job_beyond_the_cap_waits_where_slurm_lets_it(cluster: Cluster) -> None:
    """docs/troubleshooting.md says which Slurm refuses it, and what its users may do."""
    govern(cluster)
    cluster.until(lambda: cluster.caps("research").get("gres/gpu:h100") == 0, "nothing is lent while nobody asks")
    version = parse.version(cluster.sandbox.run(["sbatch", "--version"]).stdout.split()[-1])
    assert version
    if version < (26, 5):
        cluster.sandbox.run(HET)
        cluster.until(lambda: cluster.used("research") == 24, "it borrows")
    else:
        with pytest.raises(SandboxError, match="Job violates accounting/QOS policy"):
            cluster.sandbox.run(HET)


def test_a_suspended_job_keeps_its_gpus_and_an_interactive_one_stays(cluster: Cluster) -> None:
    govern(cluster, research="{quota: {h100: 16}, borrow: unlimited}", product="{quota: {h100: 48}, borrow: none}")
    cluster.sandbox.run(["salloc", "--no-shell", "--account=research", "-N2", "--gpus-per-node=h100:8"])
    asleep = [cluster.sbatch("research", "-N2", "--gpus-per-node=h100:8") for _ in range(3)]
    cluster.running(*asleep)
    cluster.sandbox.run(["scontrol", "suspend", str(asleep[0])])
    owner = cluster.sbatch("product", "-N4", "--gpus-per-node=h100:8")
    cluster.running(owner)
    # Two of the three batch jobs leave; the interactive one holds what is left of the quota.
    cluster.restarted(*asleep, times=2)
    assert cluster.used("research") + sum(state == "S" for state in cluster.states().values()) * 16 == 32


def test_cpus_are_capped_lent_and_taken_back(cluster: Cluster) -> None:
    """64 CPUs a node: research owns half of them, and nearly no GPU is asked for."""
    half = "{quota: {h100: 32, h100/cpu: 256}, borrow: unlimited}"
    govern(cluster, research=half, product=half)
    cpus = ("-N1", "-n1", "-c64", "--gpus-per-node=h100:1", "--mem=1000")
    jobs = [cluster.sbatch("research", *cpus) for _ in range(8)]
    cluster.running(*jobs)
    cluster.until(lambda: cluster.caps("research").get("cpu") == 512, "research is lent the other half")
    owner = cluster.sbatch("product", *cpus)
    cluster.running(owner)
    cluster.restarted(*jobs, times=1)
    cluster.until(lambda: cluster.caps("research")["cpu"] == 448, "what was taken back is not research's")
    victim = next(job for job in jobs if cluster.restarts(job))
    cluster.until(lambda: cluster.reason(victim) == "AssocGrpCpuLimit", "it waits for CPUs")
    cluster.sandbox.run(["scancel", str(owner)])
    cluster.running(victim)
    # A job without GPUs takes its team's CPUs back too.
    cluster.running(cluster.sbatch("product", "-n1", "-c64", "--mem=1000"))
    cluster.restarted(*jobs, times=2)
    cluster.sandbox.sacctmgr(["modify account where name=research,product set GrpTRES=cpu=-1"])
