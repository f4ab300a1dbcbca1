"""What `slurm-gov status`, `jobs`, `why` and `plan` say of a real Slurm, against what Slurm itself says."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import NewSandbox
from governed import AS_ROOT, GAMES, Cluster

from slurm_gov.ledger import Span
from slurm_gov.ledger.store import Words, open_to_write, write

HALF = "{quota: {h100: 32}, borrow: 50%}"
STRICT = "{quota: {h100: 32}, borrow: none}"
ONE_NODE = ("-N1", "--gpus-per-node=h100:8")
COHORTS = """\
pools: {h100: {partition: gpu, gres: "gpu:h100"}}
priority_classes: {inference: 100, training: 50, experiment: 10}
teams:
  research: {quota: {h100: 0}, cohort: left, borrow: unlimited, fair_share_weight: 1}
  product: {quota: {h100: 0}, cohort: right, borrow: unlimited, fair_share_weight: 1}
cohorts: {left: {fair_share_weight: 1}, right: {fair_share_weight: 1}}
sharing: {half_life: 10h}
"""
STUBBORN = 'trap "" USR1; sleep 600 & wait; wait; sleep 600'
CLI = [sys.executable, "-m", "slurm_gov.cli.main"]


@pytest.fixture(scope="module")
def governed(module_sandbox: NewSandbox) -> Cluster:
    return Cluster(module_sandbox(accounts=("strangers",)))


@pytest.fixture
def cluster(governed: Cluster) -> Iterator[Cluster]:
    governed.clear()
    governed.policy(HALF, STRICT, grace="15s")
    yield governed
    if not governed.sandbox.pids().get("slurm-govd"):
        governed.sandbox.start_governor()


def text(cluster: Cluster, *arguments: object) -> str:
    """What a view prints."""
    return cluster.sandbox.run([*CLI, *map(str, arguments)]).stdout


def data(cluster: Cluster, *arguments: object) -> Any:
    """A view's JSON."""
    return json.loads(text(cluster, *arguments, "--json"))


def team(cluster: Cluster, name: str) -> dict[str, Any]:
    """A team's row of `status`."""
    return next(row for row in data(cluster, "status")["teams"] if row["team"] == name)


def full(cluster: Cluster) -> list[int]:
    """Research on 6 of the 8 nodes: its quota and all it may borrow."""
    jobs = [cluster.sbatch("research", *ONE_NODE, script=STUBBORN) for _ in range(6)]
    cluster.running(*jobs)
    return jobs


def test_lending_is_what_slurm_says(cluster: Cluster) -> None:
    jobs = full(cluster)
    more = cluster.sbatch("research", *ONE_NODE)
    stranger = cluster.sbatch("strangers", "--gres=gpu:h100:2")
    cluster.running(stranger)
    cluster.until(lambda: cluster.reason(more) == "AssocGrpGRES", "the seventh waits for the cap")

    status = data(cluster, "status")
    (pool,) = status["pools"]
    assert (pool["total"], pool["used"], pool["free"]) == (64, 50, 14)
    assert (pool["borrowed"], pool["without_team"]) == (16, 2)
    research, product = team(cluster, "research"), team(cluster, "product")
    assert research["used"] == cluster.used("research") == 48
    assert research["cap"] == cluster.caps("research")["gres/gpu:h100"] == 48
    assert (research["borrowed"], research["waiting_jobs"], research["waiting_gpus"]) == (16, 1, 8)
    assert (product["lent"], product["cap"]) == (16, cluster.caps("product")["gres/gpu:h100"])

    listed = data(cluster, "jobs")
    assert {row["id"] for row in listed["running"]} == {id for id, state in cluster.states().items() if state == "R"}
    borrowed = sum(row["borrowed"] for row in listed["running"] if row["team"] == "research")
    assert borrowed == research["borrowed"]
    for row in listed["running"]:
        assert cluster.squeue("%N", "-j", str(row["id"])) == row["nodes"]
    assert next(row for row in listed["running"] if row["id"] == stranger)["team"] is None
    (waits,) = listed["waiting"]
    assert (waits["id"], waits["reason"], waits["slurm_reason"]) == (more, "team_at_limit", "AssocGrpGRES")
    assert [row["id"] for row in data(cluster, "jobs", "--team", "research", "--state", "running")["running"]] == jobs

    said = text(cluster, "why", more)
    assert "holds 32 of 32 quota and 16 of 16 borrow of h100" in said
    assert "Slurm says  AssocGrpGRES" in said
    assert "belongs to no team" in text(cluster, "why", stranger)


def test_a_reclaim_from_grace_period_to_history(cluster: Cluster) -> None:
    full(cluster)
    time.sleep(15)  # what has run for less than the grace period gets no more than that
    owners = [cluster.sbatch("product", *ONE_NODE) for _ in range(3)]
    cluster.until(lambda: data(cluster, "plan")["in_grace"], "a job is being preempted", 10)
    (leaving,) = data(cluster, "status")["preemptions"]
    victim, owner = int(leaving["job"]), int(leaving["beneficiary"])
    assert owner in owners
    assert cluster.states()[victim] == "R"
    assert f"for={owner} team=product" in cluster.squeue_comment(victim)
    assert 0 < leaving["seconds_left"] <= 15
    assert leaving["deadline"] - leaving["since"] == pytest.approx(15, abs=1.1)

    said = text(cluster, "why", victim)
    assert f"it is being preempted, for job {owner} of team product" in said
    assert "all of its GPUs are above the quota of research" in said
    (explained,) = data(cluster, "why", owner)["jobs"]
    assert explained["job"]["reason"] == "reclaiming"
    assert [one["job"] for one in explained["preempted_for_it"]] == [str(victim)]
    assert f"for job {owner} of product" in text(cluster, "jobs")
    assert [row["job"] for row in data(cluster, "plan")["in_grace"]] == [str(victim)]

    cluster.running(*owners)
    assert cluster.states()[victim] == "PD"
    assert data(cluster, "status")["preemptions"] == []
    past = data(cluster, "why", victim)["jobs"][0]["job"]["preempted_before"]
    assert (past["beneficiary"], past["beneficiary_team"]) == (str(owner), "product")
    assert time.time() - 60 < past["at"] < time.time()
    assert "takes back h100 within its quota of 32" in past["reason"]
    assert f"for job {owner} of team product" in text(cluster, "why", victim)


def test_array_tasks(cluster: Cluster) -> None:
    array = cluster.sbatch("research", "--array=1-8:2", *ONE_NODE, "--qos=training", "--hold")
    cluster.sandbox.run(["scontrol", "release", f"{array}_3"])
    cluster.until(lambda: cluster.squeue("%i", "-t", "R") == [f"{array}_3"], "task 3 runs")
    (ran,) = data(cluster, "why", f"{array}_3")["jobs"]
    assert (ran["kind"], ran["job"]["gpus"], ran["job"]["priority_weight"]) == ("running", 8, 50)
    (held,) = data(cluster, "why", f"{array}_7")["jobs"]
    assert (held["job"]["reason"], held["job"]["tasks"]) == ("not_ready", 3)
    assert held["job"]["slurm_reason"] == "JobHeldUser"
    assert len(data(cluster, "why", array)["jobs"]) == 2
    done = cluster.sandbox.run([*CLI, "why", f"{array}_2"], check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"there is no job {array}_2" in done.stderr


def test_the_plan_says_what_the_next_cycle_then_does(cluster: Cluster) -> None:
    cluster.sandbox.stop_governor()
    jobs = [cluster.sbatch("research", *ONE_NODE, script=STUBBORN) for _ in range(6)]
    cluster.until(lambda: cluster.used("research") == 32, "research holds its quota")
    before = cluster.caps("research")
    plan = data(cluster, "plan")
    (change,) = [one for one in plan["raise"] if one["tres"] == "gres/gpu:h100"]
    assert (change["team"], change["before"], change["after"]) == ("research", 32, 48)
    assert {row["id"] for row in plan["starts"]} == {id for id, state in cluster.states().items() if state == "PD"}
    assert "nothing to do" not in text(cluster, "plan")
    assert cluster.caps("research") == before
    cluster.sandbox.start_governor()
    cluster.running(*jobs)
    assert cluster.caps("research")["gres/gpu:h100"] == change["after"]
    cluster.until(lambda: "nothing to do" in text(cluster, "plan"), "nothing is left to do")


def test_a_cohort_that_borrowed_lately_waits_behind_one_that_did_not(cluster: Cluster) -> None:
    """The past of one is in the ledger. The views, a cycle without the daemon and the daemon agree."""
    sandbox = cluster.sandbox
    foreign = cluster.sbatch("strangers", "-N8", "--gpus-per-node=h100:8")
    cluster.running(foreign)
    teams = sandbox.layout.policy.read_text()
    try:
        sandbox.layout.policy.write_text(COHORTS)
        cluster.reload()
        caps = lambda: [cluster.caps(team).get("gres/gpu:h100") for team in ("research", "product")]  # noqa: E731
        cluster.until(lambda: caps() == [0, 0], "nothing is lent yet")
        jobs = {team: [cluster.sbatch(team, *ONE_NODE) for _ in range(8)] for team in ("research", "product")}
        sandbox.stop_governor()
        db, now = open_to_write(sandbox.layout.ledger), time.time()
        write(db, Words(), (), [Span("research", "h100", now - 36_000, now, 0, 64, 64, 64, 0, 0, 0)])
        db.close()
        sandbox.run(["scancel", str(foreign)])
        cluster.until(lambda: not sandbox.run(["squeue", "-h", "--account=strangers"]).stdout, "all nodes are idle")
        why = {row["id"]: row["reason"] for row in data(cluster, "jobs", "--state", "waiting")["waiting"]}
        starts = {team: [job for job in jobs[team] if why[job] == "starts_now"] for team in jobs}
        # 64 GPUs for a half-life are 32 on average: product gets four nodes before research gets one.
        assert (len(starts["research"]), len(starts["product"])) == (2, 6)
        command = [Path(sys.executable).with_name("slurm-govd"), "--policy", sandbox.layout.policy, "--dry-run"]
        said = sandbox.run([*command, "--ledger", sandbox.layout.ledger]).stdout
        assert all(f"job {job} ({team}): starts_now" in said for team in starts for job in starts[team])
        sandbox.start_governor()
        cluster.running(*starts["research"], *starts["product"])
    finally:
        sandbox.layout.policy.write_text(teams)
        if sandbox.pids().get("slurm-govd"):
            cluster.reload()


def test_a_job_that_has_ended(cluster: Cluster) -> None:
    job = cluster.sbatch("research", script="true")
    cluster.until(lambda: job not in cluster.states(), "the job has ended")
    ended = [*CLI, "why", str(job)]
    cluster.until(
        lambda: "COMPLETED" in cluster.sandbox.run(ended, check=False).stderr, "its accounting says COMPLETED"
    )
    done = cluster.sandbox.run(ended, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"slurm-gov: job {job} has ended: COMPLETED at ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
def test_an_ordinary_user_sees_the_same(cluster: Cluster) -> None:
    job = cluster.sbatch("research", *ONE_NODE)
    cluster.running(job)
    asked = ["jobs", "--json", "--state", "running"]
    done = cluster.sandbox.run([*GAMES, *CLI, *asked], cwd=Path("/"), check=False)
    if "ermission denied" in done.stderr or "ModuleNotFoundError" in done.stderr:
        pytest.skip("this checkout is in a folder that only its owner may enter")
    assert json.loads(done.stdout)["running"] == json.loads(cluster.sandbox.run([*CLI, *asked]).stdout)["running"]


def test_without_slurm_an_error_of_one_line(cluster: Cluster) -> None:
    nowhere = cluster.work / "slurm.conf"
    conf = cluster.sandbox.layout.slurm_conf.read_text()
    nowhere.write_text(conf + "\nMessageTimeout=2\nSlurmctldPort=1\n")
    done = cluster.sandbox.run([*CLI, "status"], check=False, env={"SLURM_CONF": str(nowhere)})
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("slurm-gov: ")
    assert "scontrol ping" in done.stderr
