"""Lending, borrowing, reclaim and preemption through real sbatch; every assertion is on what Slurm says."""

from __future__ import annotations

import re
import time

import pytest
from conftest import NewSandbox
from governed import AS_ROOT, GAMES, Cluster

HALF = "{quota: {h100: 32}, borrow: unlimited}"
STRICT = "{quota: {h100: 32}, borrow: none}"
TWO_NODES = ("-N2", "--gpus-per-node=h100:8")
ONE_NODE = ("-N1", "--gpus-per-node=h100:8")


@pytest.fixture(scope="module")
def governed(module_sandbox: NewSandbox) -> Cluster:
    return Cluster(module_sandbox())


@pytest.fixture
def cluster(governed: Cluster) -> Cluster:
    governed.clear()
    return governed


def test_idle_gpus_are_lent(cluster: Cluster) -> None:
    cluster.policy(HALF, STRICT)
    jobs = [cluster.sbatch("research", *TWO_NODES) for _ in range(4)]
    cluster.running(*jobs)
    assert cluster.used("research") == 64
    assert cluster.caps("research")["gres/gpu:h100"] == 64
    assert cluster.caps("product")["gres/gpu:h100"] == 32


def test_an_owner_takes_back_from_one_borrower(cluster: Cluster) -> None:
    cluster.policy(HALF, STRICT)
    jobs = [cluster.sbatch("research", *TWO_NODES) for _ in range(4)]
    cluster.running(*jobs)
    owner = cluster.sbatch("product", *TWO_NODES)
    cluster.running(owner)
    cluster.restarted(*jobs, times=1)
    assert cluster.caps("research")["gres/gpu:h100"] == 48
    victim = next(job for job in jobs if cluster.restarts(job))
    cluster.until(lambda: cluster.reason(victim) == "AssocGrpGRES", "the victim waits for GPUs, not for a time")
    assert f"for={owner} team=product" in cluster.squeue_comment(victim)


def test_an_owner_takes_back_from_several_borrowers(cluster: Cluster) -> None:
    cluster.policy(HALF, STRICT)
    jobs = [cluster.sbatch("research", *ONE_NODE) for _ in range(8)]
    cluster.running(*jobs)
    owner = cluster.sbatch("product", "-N3", "--gpus-per-node=h100:8")
    cluster.running(owner)
    cluster.restarted(*jobs, times=3)
    assert cluster.used("research") == 40


def test_the_victims_are_on_nodes_where_the_owner_fits(cluster: Cluster) -> None:
    """16 free GPUs scattered over nodes are not two nodes with 8: whole nodes must be cleared, and only those."""
    cluster.policy("{quota: {h100: 0}, borrow: unlimited}", "{quota: {h100: 64}, borrow: none}")
    jobs = [cluster.sbatch("research", "-w", f"n{n}", "--gres=gpu:h100:4") for n in range(1, 9)]
    cluster.running(*jobs)
    owner = cluster.sbatch("product", *TWO_NODES)
    cluster.running(owner)
    cluster.restarted(*jobs, times=2)


def test_the_preempted_job_runs_again_from_its_checkpoint(cluster: Cluster) -> None:
    cluster.policy(HALF, STRICT)
    victims = [cluster.train("research", *TWO_NODES) for _ in range(4)]
    cluster.running(*(job for job, _ in victims))
    owner = cluster.sbatch("product", *TWO_NODES)
    cluster.running(owner)
    cluster.restarted(*(job for job, _ in victims), times=1)
    victim, checkpoint = next(one for one in victims if cluster.restarts(one[0]))
    began = time.monotonic()
    cluster.sandbox.run(["scancel", str(owner)])
    cluster.running(victim)
    # Slurm itself would let a requeued job wait for two minutes.
    assert time.monotonic() - began < 60
    log = checkpoint.with_name(checkpoint.name + ".log")
    cluster.until(lambda: "restart 1" in log.read_text(), "it began again")
    first, signalled, again = log.read_text().splitlines()
    assert first == "start 0 restart 0"
    kept = int(signalled.split()[1])
    assert kept > 0
    assert again == f"start {kept} restart 1"


def test_a_borrower_at_its_limit_waits_with_slurms_own_reason(cluster: Cluster) -> None:
    cluster.policy("{quota: {h100: 32}, borrow: 8}", STRICT)
    jobs = [cluster.sbatch("research", *ONE_NODE) for _ in range(6)]
    cluster.until(lambda: cluster.used("research") == 40, "research holds 40")
    waiting = [job for job in jobs if cluster.states()[job] == "PD"]
    assert len(waiting) == 1
    cluster.until(lambda: cluster.reason(waiting[0]) == "AssocGrpGRES", "AssocGrpGRES")
    cluster.stays(lambda: cluster.used("research") == 40, "research holds 40", 3)


def test_what_is_not_lent_is_not_borrowed(cluster: Cluster) -> None:
    cluster.policy(HALF, "{quota: {h100: 32}, lend: none}")
    jobs = [cluster.sbatch("research", *ONE_NODE) for _ in range(5)]
    cluster.until(lambda: cluster.used("research") == 32, "research holds its quota")
    cluster.stays(lambda: cluster.used("research") == 32, "research holds no more", 3)
    waiting = [job for job in jobs if cluster.states()[job] == "PD"]
    assert [cluster.reason(job) for job in waiting] == ["AssocGrpGRES"]


def test_a_higher_class_replaces_a_lower_one_of_its_own_team(cluster: Cluster) -> None:
    cluster.policy("{quota: {h100: 16}, borrow: none}", "{quota: {h100: 48}, borrow: none, lend: none}")
    low = cluster.sbatch("research", *ONE_NODE, "--qos=experiment")
    high = cluster.sbatch("research", *ONE_NODE, "--qos=training")
    cluster.running(low, high)
    urgent = cluster.sbatch("research", *ONE_NODE, "--qos=inference")
    cluster.running(urgent)
    cluster.restarted(low, high, times=1)
    assert cluster.restarts(low) == 1
    cluster.until(lambda: cluster.states().get(low) == "PD", "the lower one waits again")


def test_a_job_that_cannot_be_requeued_is_left_alone(cluster: Cluster) -> None:
    cluster.policy("{quota: {h100: 0}, borrow: unlimited}", "{quota: {h100: 64}, borrow: none}")
    jobs = [cluster.sbatch("research", *TWO_NODES, "--no-requeue") for _ in range(3)]
    cluster.running(*jobs)
    loose = cluster.sbatch("research", *TWO_NODES)
    cluster.running(loose)
    owner = cluster.sbatch("product", *TWO_NODES)
    cluster.running(owner)
    cluster.restarted(loose, times=1)
    second = cluster.sbatch("product", *TWO_NODES)
    cluster.stays(lambda: cluster.states()[second] == "PD", "nobody else may be preempted", 4)
    assert all(cluster.states()[job] == "R" for job in jobs)


def test_a_victim_is_spared_when_the_owner_goes_away(cluster: Cluster) -> None:
    cluster.policy(HALF, STRICT, grace="6s")
    jobs = [cluster.train("research", *TWO_NODES)[0] for _ in range(4)]
    cluster.running(*jobs)
    time.sleep(6)  # what has run for less than the grace period gets no more than that
    owner = cluster.sbatch("product", *TWO_NODES)
    cluster.until(lambda: any("preempt" in cluster.squeue_comment(job) for job in jobs), "one was signalled")
    cluster.sandbox.run(["scancel", str(owner)])
    cluster.until(lambda: any(" spared: " in cluster.squeue_comment(job) for job in jobs), "it is spared")
    cluster.stays(lambda: all(cluster.restarts(job) == 0 for job in jobs), "nobody was requeued", 8)


def test_a_victim_that_was_spared_and_ends_because_of_the_signal_is_not_lost(cluster: Cluster) -> None:
    """It saves its work for some seconds and exits, as it was told to; meanwhile nobody needs its place any more."""
    cluster.policy(HALF, STRICT, grace="20s")
    script = "trap 'sleep 4; exit 0' USR1; while :; do sleep 0.1 & wait $!; done"
    jobs = [cluster.sbatch("research", *TWO_NODES, script=script) for _ in range(4)]
    cluster.running(*jobs)
    time.sleep(20)
    owner = cluster.sbatch("product", *TWO_NODES)
    cluster.until(lambda: any("preempt" in cluster.squeue_comment(job) for job in jobs), "one was signalled")
    cluster.sandbox.run(["scancel", str(owner)])
    cluster.until(lambda: any(" spared: " in cluster.squeue_comment(job) for job in jobs), "it is spared")
    cluster.restarted(*jobs, times=1)
    cluster.until(
        lambda: not any(" spared: " in cluster.squeue_comment(job) for job in jobs), "it has left after all"
    )
    cluster.running(*jobs)


def test_a_job_that_the_signal_kills_is_requeued_all_the_same(cluster: Cluster) -> None:
    """A script without a handler dies of USR1 at once: it was our doing, so it must run again."""
    cluster.policy(HALF, STRICT, grace="4s")
    jobs = [cluster.sbatch("research", *TWO_NODES) for _ in range(4)]
    cluster.running(*jobs)
    owner = cluster.sbatch("product", *TWO_NODES)
    cluster.running(owner)
    cluster.restarted(*jobs, times=1)
    victim = next(job for job in jobs if cluster.restarts(job))
    cluster.sandbox.run(["scancel", str(owner)])
    cluster.running(victim)


def test_a_job_that_says_that_it_is_done_is_not_started_again(cluster: Cluster) -> None:
    """docs/policy.md tells of it, for those that end in their grace period because their work is done."""
    cluster.policy(HALF, STRICT, grace="6s")
    done = "scontrol update JobId=$SLURM_JOB_ID Requeue=0; exit 0"
    script = f"trap '{done}' USR1; while :; do sleep 0.1 & wait $!; done"
    jobs = [cluster.sbatch("research", *TWO_NODES, script=script) for _ in range(4)]
    cluster.running(*jobs)
    time.sleep(6)
    owner = cluster.sbatch("product", *TWO_NODES)
    cluster.running(owner)
    cluster.stays(lambda: sorted(cluster.states().values()) == ["R"] * 4, "one is gone for good", 6)
    assert not any(map(cluster.restarts, (job for job in jobs if job in cluster.states())))


def test_a_job_that_saves_and_exits_with_0_is_requeued_too(cluster: Cluster) -> None:
    """The commonest handler: save a checkpoint and exit. Slurm calls that COMPLETED."""
    cluster.policy(HALF, STRICT, grace="6s")
    script = "trap 'exit 0' USR1; while :; do sleep 0.1 & wait $!; done"
    jobs = [cluster.sbatch("research", *TWO_NODES, script=script) for _ in range(4)]
    cluster.running(*jobs)
    time.sleep(1)
    owner = cluster.sbatch("product", *TWO_NODES)
    cluster.running(owner)
    cluster.restarted(*jobs, times=1)
    cluster.sandbox.run(["scancel", str(owner)])
    cluster.running(*jobs)


def test_nobody_is_preempted_for_a_job_that_a_reservation_keeps_out(cluster: Cluster) -> None:
    cluster.policy(HALF, STRICT)
    jobs = [cluster.sbatch("research", *TWO_NODES, "-t30") for _ in range(4)]
    cluster.running(*jobs)
    reservation = "reservationname=m1 starttime=now+3600 duration=60 nodes=ALL users=root flags=maint,ignore_jobs"
    cluster.sandbox.run(["scontrol", "create", "reservation", *reservation.split()])
    try:
        long = cluster.sbatch("product", *TWO_NODES)
        cluster.stays(lambda: cluster.states()[long] == "PD", "it cannot start before the reservation", 5)
        assert [cluster.restarts(job) for job in jobs] == [0] * 4
        short = cluster.sbatch("product", *TWO_NODES, "-t30")
        cluster.running(short)
        cluster.restarted(*jobs, times=1)
    finally:
        cluster.sandbox.run(["scontrol", "delete", "reservation", "m1"])


def test_a_jobs_own_signal_goes_before_the_policys(cluster: Cluster) -> None:
    cluster.policy(HALF, STRICT, grace="3s")
    mark = cluster.work / "usr2"
    mark.unlink(missing_ok=True)
    script = f"trap 'touch {mark}' USR2; while :; do sleep 0.1 & wait $!; done"
    jobs = [cluster.sbatch("research", *TWO_NODES, "--signal=B:USR2@30", script=script) for _ in range(4)]
    cluster.running(*jobs)
    time.sleep(1)
    owner = cluster.sbatch("product", *TWO_NODES)
    cluster.running(owner)
    assert mark.exists()


def test_untyped_requests_are_typed(cluster: Cluster) -> None:
    cluster.policy(HALF, STRICT)
    forms = ["--gres=gpu:2", "--gpus=2", "--gpus-per-node=2", "--gpus-per-task=2"]
    jobs = [cluster.sbatch("product", "-n1", form) for form in forms]
    cluster.running(*jobs)
    for job in jobs:
        text = cluster.sandbox.run(["scontrol", "show", "job", str(job)]).stdout
        assert re.search("TresPer.*gpu:h100[:=]2", text)
        assert "gres/gpu:h100=2" in text


def test_the_refusal_is_read_on_the_users_terminal(cluster: Cluster) -> None:
    cluster.policy(HALF, STRICT)
    said = cluster.refused("sbatch", "-Aproduct", "-N9", "--gpus-per-node=8", "--wrap=true")
    assert "slurm-gov: the job asks for 9 nodes with 8 h100 each; the pool has 8 such nodes" in said
    said = cluster.refused("sbatch", "-Aproduct", "--gpus=40", "--wrap=true")
    assert "team product can never hold more than 32 (quota 32, borrow none)" in said
    said = cluster.refused("srun", "-Aproduct", "--gpus=40", "true")
    assert "team product can never hold more than 32" in said
    assert cluster.states() == {}


@pytest.mark.skipif(not AS_ROOT, reason="needs a second user")
def test_a_user_cannot_move_a_job_to_another_team_or_class(cluster: Cluster) -> None:
    cluster.policy(HALF, STRICT)
    submit = [*GAMES, "sbatch", "--parsable", "-o/dev/null", "-Aresearch", "-H", "--gpus=1", "--wrap=true"]
    job = cluster.sandbox.run(submit, cwd=cluster.work).stdout.strip()
    cluster.until(lambda: cluster.reason(int(job)) == "JobHeldUser", "it is there")
    time.sleep(1)
    said = cluster.refused(*GAMES, "scontrol", "update", f"JobId={job}", "Account=product")
    assert cluster.show(int(job), "Account") == "research", said
    cluster.sandbox.run([*GAMES, "scontrol", "update", f"JobId={job}", "TimeLimit=10"])
    assert cluster.show(int(job), "TimeLimit") == "00:10:00"
    cluster.sandbox.run(["scontrol", "update", f"JobId={job}", "Account=product"])
    assert cluster.show(int(job), "Account") == "product"


@pytest.mark.parametrize(
    "name",
    ["a\nb", "\x1b[2Jgone", "R|0|@@", "gpu:h100:8", "日本語", "'; DROP", '"x"', "%i %t", "a b=c", "\\n", "@" * 200],
)
def test_no_job_name_confuses_the_governor(cluster: Cluster, name: str) -> None:
    cluster.policy(HALF, STRICT)
    hostile = cluster.sbatch("research", *TWO_NODES, f"--job-name={name}", f"--comment={name}")
    others = [cluster.sbatch("research", *TWO_NODES) for _ in range(3)]
    cluster.running(hostile, *others)
    assert cluster.caps("research")["gres/gpu:h100"] == 64


def test_a_new_policy_is_followed_and_a_broken_one_is_not(cluster: Cluster) -> None:
    cluster.policy("{quota: {h100: 32}, borrow: 8}", STRICT)
    jobs = [cluster.sbatch("research", *ONE_NODE) for _ in range(8)]
    cluster.until(lambda: cluster.used("research") == 40, "research holds 40")
    path = cluster.sandbox.layout.policy
    good = path.read_text()
    path.write_text(good.replace("borrow: 8", "borrow: lots"))
    said = cluster.reload()
    assert "not reloaded" in said
    assert "teams.research.borrow" in said
    cluster.stays(lambda: cluster.used("research") == 40, "the old policy stays", 3)
    path.write_text(good)
    cluster.policy(HALF, STRICT)
    cluster.running(*jobs)


def test_taken_into_use_step_by_step(cluster: Cluster) -> None:
    """observe: nothing is done, only said. caps: lent, but not taken back. enforce: taken back too."""
    cluster.policy(HALF, STRICT)
    log = cluster.sandbox.log("slurm-govd")
    text = cluster.sandbox.layout.policy.read_text()

    def mode(name: str) -> None:
        cluster.sandbox.layout.policy.write_text(f"mode: {name}\n{text}")
        cluster.reload()

    try:
        before = log.stat().st_size
        mode("observe")
        borrower = [cluster.sbatch("research", *TWO_NODES) for _ in range(3)]
        said = lambda: log.read_text()[before:]  # noqa: E731
        cluster.until(lambda: "would raise the cap of research" in said(), "it says what it would do")
        cluster.sandbox.submit("true", "--account=product", "-N5", "--gres=gpu:h100:8", "--hold")  # not refused
        cluster.until(lambda: "would refuse" in said(), "it says whom it would refuse")
        cluster.running(*borrower[:2])
        cluster.stays(lambda: cluster.states()[borrower[2]] == "PD", "nothing is lent", 3)
        assert cluster.caps("research")["gres/gpu"] == 32
        assert "cap raised" not in said()

        mode("caps")
        cluster.running(*borrower)
        owner = cluster.sbatch("product", "-N4", "--gpus-per-node=h100:8")
        cluster.stays(lambda: cluster.states()[owner] == "PD", "nobody is preempted", 4)
        assert [cluster.restarts(job) for job in borrower] == [0, 0, 0]

        mode("enforce")
        cluster.running(owner)
        cluster.restarted(*borrower, times=1)
    finally:
        cluster.sandbox.layout.policy.write_text(text)
        cluster.reload()


def test_accounts_without_a_policy_run_and_are_not_preempted(cluster: Cluster) -> None:
    cluster.policy(HALF, "{quota: {h100: 32}, borrow: none, lend: all}")
    cluster.sandbox.sacctmgr(["add account strangers", "add user root account=strangers"])
    foreign = [cluster.sbatch("strangers", *TWO_NODES) for _ in range(4)]
    cluster.running(*foreign)
    owner = cluster.sbatch("product", *TWO_NODES)
    cluster.stays(lambda: cluster.states()[owner] == "PD", "the owner waits", 4)
    assert all(cluster.restarts(job) == 0 for job in foreign)


def test_tasks_of_an_array_are_preempted_one_by_one(cluster: Cluster) -> None:
    """A requeued task keeps its own reason and note; its array goes on; it is signalled once."""
    cluster.policy("{quota: {h100: 0}, borrow: unlimited}", "{quota: {h100: 64}, borrow: none}", grace="3s")
    signals = cluster.work / "signals"
    signals.unlink(missing_ok=True)
    script = f"trap 'echo $SLURM_JOB_ID >> {signals}' USR1; while :; do sleep 0.1 & wait $!; done"
    cluster.sbatch("research", *TWO_NODES, "--array=1-9", script=script)
    cluster.until(lambda: cluster.used("research") == 64, "four tasks run")
    time.sleep(1)
    owner = cluster.sbatch("product", *TWO_NODES)
    cluster.running(owner)
    assert len(signals.read_text().split()) == 1
    victim = int(signals.read_text())
    cluster.until(
        lambda: f"{victim} AssocGrpGRES" in cluster.squeue("%A %r", "-r", "-t", "PD"),
        "the requeued task waits for GPUs, not for a time",
        20,
    )
    assert f"for={owner}" in cluster.squeue_comment(victim)
    cluster.sandbox.run(["scancel", str(owner)])
    cluster.until(lambda: cluster.used("research") == 64, "four tasks run again")


def test_the_last_task_of_an_array_is_not_taken_for_the_whole_array(cluster: Cluster) -> None:
    """Its job id is the array's: requeue, signal or comment by that number would reach every task."""
    cluster.policy("{quota: {h100: 0}, borrow: unlimited}", "{quota: {h100: 64}, borrow: none}", grace="2s")
    array = cluster.sbatch("research", *TWO_NODES, "--array=1-4", script="trap : USR1; sleep 600 & wait; sleep 600")
    cluster.until(lambda: cluster.used("research") == 64, "all four tasks run")
    assert array in cluster.states()
    # Slurm numbers the last task like the array; the lowest number goes first among equals.
    owners = [cluster.sbatch("product", *TWO_NODES) for _ in range(2)]
    cluster.running(*owners)
    tasks = [line.split() for line in cluster.squeue("%F %A %t", "-r", "-A", "research")]
    assert sorted(state for _, _, state in tasks) == ["PD", "PD", "R", "R"]
    restarts = [cluster.restarts(int(job)) for _, job, _ in tasks]
    assert sorted(restarts) == [0, 0, 1, 1]
    assert sum("slurm-gov preempt" in cluster.squeue_comment(int(job)) for _, job, _ in tasks) == 2
