"""Jobs of sick nodes on a real Slurm: where they go, when, and in what order; and what capacity is left."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from node_cluster import WHOLE_NODE, Nodes

from slurm_gov.sandbox.governor import program


def fault_note(nodes: Nodes, job: int) -> dict[str, str]:
    """Our note of a fault in a job's AdminComment."""
    found = re.search(r"\[slurm-gov fault ([^:]*): ([^\]]*)\]", nodes.squeue_comment(job))
    return dict(word.split("=") for word in found[1].split()) | {"why": found[2]} if found else {}


def priority(nodes: Nodes, job: int) -> int:
    return int(nodes.squeue("%Q", "-j", str(job))[0])


def test_a_lost_gpu_costs_a_job_seconds_and_the_node_comes_back(nodes: Nodes) -> None:
    """The whole way: XID 79 on one node of a two-node job."""
    job = nodes.sbatch("research", "-N2", *WHOLE_NODE)
    nodes.running(job)
    bad = sorted(nodes.nodes_of(job))[0]
    beside = nodes.sbatch("research", "-N2", "--requeue", "-w", ",".join(nodes.nodes_of(job)))  # without GPUs
    nodes.running(beside)
    (nodes.work / "hang").touch()
    since = nodes.inject(bad, "xid", "79", "--gpu", "3")
    nodes.until(lambda: nodes.drained(bad), "it is drained")
    nodes.until(lambda: nodes.restarts(job) == 1, "the job was requeued")
    nodes.running(job)
    assert bad not in nodes.nodes_of(job) and nodes.restarts(beside) == 1, "it runs elsewhere"
    assert "place is not kept" not in nodes.sandbox.log("slurm-govd").read_text()
    nodes.gets(bad, "rebooting")
    nodes.agrees(bad)
    assert "injected" in nodes.in_slurm(bad)[1]
    (nodes.work / "hang").unlink()
    nodes.goes(bad, since, "doubted", "condemned", "rebooted", "returned", "passed")
    assert nodes.calls() == [f"reboot {bad}"]
    note = fault_note(nodes, job)
    assert (note["node"], note["count"]) == (bad, "1") and "XID 79" in note["why"]
    why = " ".join(nodes.sandbox.run([program("slurm-gov"), "why", str(job)]).stdout.split())
    assert f"by a fault of node {bad}" in why
    request = json.loads((nodes.work / "requests").read_text().splitlines()[0])
    about = {"node": bad, "operation": "reboot", "injected": True, "fault": "gpu_lost", "pool": "h100"}
    assert about.items() <= request.items()


def test_a_job_that_a_fault_stopped_keeps_its_place_in_line(nodes: Nodes) -> None:
    """It starts before a job of equal class that was submitted after it and before the fault: although that one fits
    on what the fault set free, in the very moment.
    """
    # Nine nodes are full, one is idle; the second job needs two.
    first = nodes.sbatch("research", "-N2", *WHOLE_NODE, "--qos=training")
    nodes.running(first)
    teams = ["research"] * 2 + ["product"] * 5
    fill = [nodes.sbatch(team, "-N1", *WHOLE_NODE, "--qos=training") for team in teams]
    nodes.running(*fill)
    second = nodes.sbatch("research", "-N2", *WHOLE_NODE, "--qos=training")
    (nodes.work / "hang").touch()  # no repair makes room
    time.sleep(2)
    assert nodes.states()[second] == "PD"
    bad, other = sorted(nodes.nodes_of(first))
    nodes.fault(bad, "broken")
    nodes.until(lambda: nodes.restarts(first) == 1, "requeued")
    nodes.running(first)
    assert nodes.states()[second] == "PD" and other in nodes.nodes_of(first)
    assert nodes.restarts(second) == 0 and all(nodes.states()[job] == "R" for job in fill), "nobody was preempted"
    kept = nodes.sandbox.run(["scontrol", "show", "reservation"], check=False).stdout
    assert "slurm-gov-place" not in kept
    # Where it does not fit any more, what is left is not kept for it; but it is first as soon as there is room.
    third = nodes.sbatch("research", "-N1", "-t1", *WHOLE_NODE, "--qos=training")  # short: backfill may take it
    nodes.rules("breaker: 60%\nmax_away: 4")
    nodes.fault(sorted(nodes.nodes_of(first))[0], "broken")
    nodes.until(lambda: nodes.restarts(first) == 2, "requeued")
    nodes.running(third, timeout=60)
    assert nodes.states()[first] == nodes.states()[second] == "PD"
    assert priority(nodes, first) > priority(nodes, second), "by their age alone it would be behind"
    nodes.sandbox.run(["scancel", *map(str, fill[:2])])
    nodes.running(first)
    assert nodes.states()[second] == "PD"


def test_jobs_leave_draining_and_suspect_nodes_by_their_class(nodes: Nodes) -> None:
    """health.jobs.classes: on a node that is only suspect training leaves, and inference goes on to its end."""
    classes = "{training: {suspect: checkpoint}, experiment: {draining: checkpoint}}"
    nodes.rules(f"breaker: 40%\njobs: {{grace: 1s, classes: {classes}}}")
    where = ["-N1", "-w", "n3", "--gpus-per-node=2", "--requeue"]
    jobs = {}
    for name in ("training", "experiment", "inference"):
        jobs[name], checkpoint = nodes.train("research", *where, f"--qos={name}")
        jobs[name, "log"] = Path(f"{checkpoint}.log")
    running = [jobs[name] for name in ("training", "experiment", "inference")]
    nodes.running(*running)
    nodes.until(lambda: all(jobs[name, "log"].exists() for name in ("training", "experiment", "inference")), "begun")
    would = nodes.order("drain", "n3", "--dry-run")
    told = ", ".join(str(jobs[name]) for name in ("training", "experiment"))
    assert f"tell its jobs to save a checkpoint, and requeue them 1 s later: {told}" in would
    assert f"wait for its jobs to finish: {jobs['inference']}" in would
    since = nodes.fault("n3", "odd")
    nodes.until(lambda: nodes.restarts(jobs["training"]) == 1, "training leaves a suspect node")
    nodes.stays(lambda: nodes.states()[jobs["experiment"]] == "R", "the others go on", 2)
    assert nodes.path("n3", since) == ["doubted"]
    nodes.fault("n3", "flaky")
    nodes.until(lambda: nodes.restarts(jobs["experiment"]) == 1, "experiments leave a draining one")
    nodes.stays(lambda: nodes.states()[jobs["inference"]] == "R", "inference finishes", 2)
    assert nodes.state("n3") == "draining" and nodes.restarts(jobs["inference"]) == 0
    assert "signal" not in jobs["inference", "log"].read_text() and fault_note(nodes, jobs["inference"]) == {}
    for name in ("training", "experiment"):
        log = jobs[name, "log"].read_text()
        assert log.count("signal ") == 1 and fault_note(nodes, jobs[name])["node"] == "n3"
    nodes.sandbox.run(["scancel", str(jobs["inference"])])
    nodes.goes("n3", since, "doubted", "condemned", "rebooted", "returned", "passed")


def test_jobs_save_a_checkpoint_and_go_on_from_it(nodes: Nodes) -> None:
    """jobs.draining: checkpoint. The job is signalled, requeued after its grace, and goes on from its checkpoint."""
    nodes.rules("breaker: 40%\njobs: {draining: checkpoint, grace: 1s}")
    job, checkpoint = nodes.train("research", "-N1", *WHOLE_NODE)
    nodes.running(job)
    (bad,) = nodes.nodes_of(job)
    since = nodes.fault(bad, "flaky")
    nodes.until(lambda: nodes.restarts(job) == 1, "requeued")
    nodes.running(job)
    nodes.until(lambda: "restart 1" in Path(f"{checkpoint}.log").read_text(), "it tells of its second start")
    log = Path(f"{checkpoint}.log").read_text()
    saved = log.partition("signal ")[2].split()[0]
    assert f"start {saved} restart 1" in log
    nodes.goes(bad, since, "doubted", "condemned", "rebooted", "returned", "passed")
    assert nodes.told(bad, "job", since) == ["requeued"]


def test_who_was_told_to_save_its_work_stays_if_the_node_is_well_in_time(nodes: Nodes) -> None:
    nodes.rules("breaker: 40%\njobs: {suspect: checkpoint, grace: 10m}")
    job, checkpoint = nodes.train("research", "-N1", "-w", "n4", *WHOLE_NODE)
    nodes.running(job)
    nodes.until(Path(f"{checkpoint}.log").exists, "it has begun")
    since = nodes.fault("n4", "odd")
    nodes.until(lambda: "signal " in Path(f"{checkpoint}.log").read_text(), "it is told")
    assert fault_note(nodes, job)["count"] == "1"
    nodes.well("n4")
    nodes.goes("n4", since, "doubted", "recovered")
    nodes.until(lambda: fault_note(nodes, job) == {}, "nothing of it is left")
    assert nodes.states()[job] == "R" and nodes.restarts(job) == 0


def test_the_limit_of_fault_restarts_counts_no_preemptions(nodes: Nodes) -> None:
    """max_restarts: 1. Preempted between two faults it is held at the second one, at its third restart."""
    nodes.rules("breaker: 60%\nmax_away: 4\njobs: {max_restarts: 1}")
    job = nodes.sbatch("research", "-N6", *WHOLE_NODE, "--qos=experiment")  # one more than its quota
    nodes.running(job)
    owner = nodes.sbatch("product", "-N5", *WHOLE_NODE, "--qos=training")
    nodes.until(lambda: nodes.restarts(job) == 1, "preempted for its owner", 60)
    nodes.running(owner)
    nodes.sandbox.run(["scancel", str(owner)])
    nodes.running(job, timeout=60)
    assert fault_note(nodes, job) == {}
    nodes.fault(sorted(nodes.nodes_of(job))[0], "broken")
    nodes.until(lambda: nodes.restarts(job) == 2, "stopped by a fault")
    nodes.running(job, timeout=60)
    assert fault_note(nodes, job)["count"] == "1", "once by a fault, twice in all"
    nodes.fault(sorted(nodes.nodes_of(job))[0], "broken")
    nodes.until(lambda: nodes.restarts(job) == 3, "stopped by a second fault")
    nodes.until(lambda: nodes.reason(job) == "JobHeldUser", "and held, for its user to look at")
    nodes.until(lambda: "held: stopped 2 times by faults" in fault_note(nodes, job)["why"], "its note says so")
    assert fault_note(nodes, job)["count"] == "2"
    nodes.sandbox.run(["scontrol", "release", str(job)])
    nodes.running(job, timeout=60)


def test_the_same_xid_on_many_nodes_of_one_job_blames_the_job(nodes: Nodes) -> None:
    """No node is drained for it, nor is the breaker opened; without that job the next one is the node's."""
    nodes.rules("breaker: 20%")
    job = nodes.sbatch("research", "-N3", *WHOLE_NODE)
    nodes.running(job)
    where = sorted(nodes.nodes_of(job))
    since = time.time()
    nodes.sandbox.stop_governor()
    for node in where:
        nodes.falls(node)
    # A place that a daemon which was killed had kept: the next one sees that nobody comes back to it.
    left = ["ReservationName=slurm-gov-place-999", f"Nodes={where[0]}", "StartTime=now", "Duration=9"]
    nodes.sandbox.run(["scontrol", "create", "reservation", *left, "Flags=IGNORE_JOBS", "Users=root"])
    nodes.sandbox.start_governor()
    nodes.until(lambda: all(nodes.told(node, "blamed", since) for node in where), "the job is blamed")
    nodes.stays(lambda: nodes.states()[job] == "R" and not any(map(nodes.drained, where)), "nothing is done", 2)
    reservations = lambda: nodes.sandbox.run(["scontrol", "show", "reservation"]).stdout  # noqa: E731
    nodes.until(lambda: "slurm-gov-place" not in reservations(), "nothing is kept for nobody")
    assert all(f"of job {job}" in nodes.told(node, "blamed", since)[0] for node in where)
    assert all(nodes.path(node, since) == [] for node in where)
    told = nodes.sandbox.log(f"agent-{where[0]}").read_text()
    nodes.sandbox.run(["scancel", str(job)])
    forgets = re.compile(rf"command {where[0]}\.clear\S*: clear\n")
    agent = nodes.sandbox.log(f"agent-{where[0]}")
    nodes.until(lambda: forgets.search(agent.read_text()[len(told) :]), "what the job did is forgotten")
    nodes.falls(where[0])
    nodes.goes(where[0], since, "doubted", "condemned", "rebooted", "returned", "passed")


def test_when_quotas_no_longer_fit_borrowers_give_way_and_status_says_what_is_short(nodes: Nodes) -> None:
    """Research borrows, product waits for its own; then two nodes are lost."""
    nodes.rules("breaker: 60%\nmax_away: 6")
    mine = [nodes.sbatch("research", "-N1", *WHOLE_NODE, "--qos=training") for _ in range(7)]
    nodes.running(*mine)
    owner = [nodes.sbatch("product", "-N1", *WHOLE_NODE, "--qos=training") for _ in range(3)]
    nodes.running(*owner)
    (nodes.work / "hang").touch()
    # Product has 24 of its 40: with two of its three nodes gone, research's loan is what makes room.
    gone = [node for job in owner[:2] for node in nodes.nodes_of(job)]
    for node in gone:
        nodes.fault(node, "broken")
    nodes.until(lambda: all(nodes.restarts(job) == 1 for job in owner[:2]), "they were requeued")
    nodes.running(*owner, timeout=60)
    assert nodes.restarts(owner[2]) == 0
    nodes.until(lambda: sum(nodes.states()[job] == "R" for job in mine) == 5, "research is back to its quota", 60)
    assert (nodes.used("research"), nodes.used("product")) == (40, 24)
    status = json.loads(nodes.sandbox.run([program("slurm-gov"), "status", "--json"]).stdout)
    (pool,) = status["pools"]
    assert (pool["total"], pool["healthy"]) == (80, 64)
    (short,) = status["short"]
    assert (short["team"], short["quota"], short["short"]) == ("product", 40, 16)
    assert sorted(short["sick_nodes"]) == sorted(gone)
    text = nodes.sandbox.run([program("slurm-gov"), "status"]).stdout
    assert "product is short of 16 of its 40 h100; not healthy: " in text
