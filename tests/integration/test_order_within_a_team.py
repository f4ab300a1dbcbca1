"""A large job and the small ones of its own team: caps cannot order them, Slurm starts whatever fits under a cap."""

from __future__ import annotations

import re
import time

import pytest
from conftest import NewSandbox
from governed import Cluster

from slurm_gov.sandbox import Pool
from slurm_gov.sandbox.governor import program

POLICY = """\
pools:
  h100: {{partition: gpu, gres: "gpu:h100"}}
priority_classes: {{inference: 100, training: 50, experiment: 10}}
teams:
  research: {{quota: {{h100: {quota}}}, borrow: none}}
sharing: {{lend_unallocated: false, protect_after: {protect_after}}}
preemption: {{grace: {grace}, signal: "B:USR1"}}
"""
SMALL = ("-N1", "--gpus-per-node=h100:2")
LARGE = ("-N2", "--gpus-per-node=h100:8")
STAYS = "trap '' USR1; sleep 600"


@pytest.fixture(scope="module")
def cluster(module_sandbox: NewSandbox) -> Cluster:
    return Cluster(module_sandbox(pools=(Pool(nodes=3),)))


def govern(cluster: Cluster, quota: int = 16, protect_after: str = "none", grace: str = "4s") -> None:
    cluster.clear()
    text = POLICY.format(quota=quota, protect_after=protect_after, grace=grace)
    cluster.sandbox.layout.policy.write_text(text)
    cluster.reload()
    cluster.until(lambda: cluster.caps("research").get("gres/gpu:h100") == quota, "the cap is the quota")


def begins_later(cluster: Cluster, *jobs: int) -> list[int]:
    return [job for job in jobs if cluster.reason(job) == "BeginTime"]


def test_what_leaves_early_goes_to_the_one_it_was_taken_for(cluster: Cluster) -> None:
    """One victim leaves at the signal, the other at the end of its grace period: nobody slips in between."""
    govern(cluster)
    early = cluster.sbatch("research", "-N1", "--gpus-per-node=h100:8", "--qos=experiment", script="sleep 600")
    late = cluster.sbatch("research", "-N1", "--gpus-per-node=h100:8", "--qos=experiment", script=STAYS)
    cluster.running(early, late)
    time.sleep(5)  # longer than the grace period, which is cut to the time that a job has run
    small = [cluster.sbatch("research", *SMALL, "--qos=experiment") for _ in range(4)]
    cluster.until(
        lambda: all(cluster.reason(job) == "AssocGrpGRES" for job in small), "the small ones wait for the cap"
    )
    large = cluster.sbatch("research", *LARGE, "--qos=inference")
    cluster.running(large)
    assert [cluster.restarts(job) for job in (early, late)] == [1, 1]
    assert cluster.used("research") == 16
    assert not {"R", "CG"} & {cluster.states()[job] for job in small}, "no small one has run"
    cluster.until(lambda: not begins_later(cluster, *small), "they wait for GPUs again, not for a time")
    assert all("behind=" not in cluster.squeue_comment(job) for job in small)


def test_a_large_job_within_the_quota_does_not_starve(cluster: Cluster) -> None:
    """Small jobs come without end; after a while those behind the large one step back, and it runs."""
    govern(cluster, protect_after="5s")
    small = [cluster.sbatch("research", *SMALL, script=f"sleep {4 + n % 4}") for n in range(24)]
    cluster.until(lambda: cluster.used("research") == 16, "they hold the quota")
    large = cluster.sbatch("research", *LARGE)
    later = [cluster.sbatch("research", *SMALL, script=f"sleep {4 + n % 4}") for n in range(16)]
    cluster.until(lambda: begins_later(cluster, *later), "later ones step back", 60)
    held = begins_later(cluster, *later)[0]
    assert f"[slurm-gov behind={large} until=" in cluster.squeue_comment(held)
    why = cluster.sandbox.run([program("slurm-gov"), "why", str(held)]).stdout
    assert re.search(rf"stands back +behind job {large} of its team", why)
    cluster.running(large, timeout=90)
    started = cluster.states()
    assert sum(started.get(job) == "PD" for job in later) >= len(later) // 2, "it went before later ones"
    cluster.sandbox.run(["scancel", str(large)])
    cluster.until(lambda: not set(cluster.states()) & {*small, *later}, "and all of them run in the end", 120)


def test_they_may_go_when_the_daemon_is_dead(cluster: Cluster) -> None:
    govern(cluster, protect_after="2s")
    first, second = (cluster.sbatch("research", "-N1", "--gpus-per-node=h100:8") for _ in range(2))
    cluster.running(first, second)
    large, small = cluster.sbatch("research", *LARGE), cluster.sbatch("research", *SMALL)
    cluster.until(lambda: "behind=" in cluster.squeue_comment(small), "the small one steps back")
    cluster.sandbox.run(["scancel", str(first)])
    cluster.stays(lambda: cluster.states()[small] == "PD", "it waits although there is room for it", 5)
    cluster.sandbox.stop_governor()
    try:
        cluster.running(small, timeout=120)
        assert cluster.states()[large] == "PD"
    finally:
        cluster.sandbox.start_governor()
