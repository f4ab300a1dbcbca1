"""slurm-gov policy apply on a real Slurm: what it creates, what it leaves alone, what it says when it cannot."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm_gov.sandbox import Pool, Sandbox

POLICY = """\
pools:
  h100: {partition: h100, gres: "gpu:h100"}
  a100: {partition: a100, gres: "gpu:a100"}
priority_classes: {inference: 100, training: 50}
teams:
  research: {quota: {h100: 8, a100: 4}, fair_share_weight: 1}
  product: {quota: {h100: 8}}
"""
ME = pwd.getpwuid(os.geteuid()).pw_name
ACCOUNTS = ["sacctmgr", "-nP", "show", "assoc", "format=account,user,parentname,grptres,qos"]


@pytest.fixture(scope="module")
def cluster(module_sandbox: Callable[..., Sandbox]) -> Sandbox:
    return module_sandbox(pools=(Pool("h100", 2, 8), Pool("a100", 1, 4)), governor=False)


def gov(cluster: Sandbox, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """slurm-gov policy ..., without a terminal."""
    command = [sys.executable, "-m", "slurm_gov.cli.main", "policy", *arguments]
    return cluster.run(command, check=False, env={"SLURM_GOV_POLICY": ""})


def written(tmp_path: Path, text: str = POLICY) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    return file


def everything(cluster: Sandbox) -> tuple[list[str], ...]:
    """Accounts, users, caps and QOS, as slurmdbd has them."""
    qos = ["sacctmgr", "-nP", "show", "qos", "format=name,priority"]
    return tuple(sorted(cluster.run(command).stdout.splitlines()) for command in (ACCOUNTS, qos))


def wait_for(check: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not check():
        assert time.monotonic() < deadline, f"not so after a minute: {what}"
        time.sleep(0.2)


def changes(cluster: Sandbox, file: Path) -> list[str]:
    done = gov(cluster, "diff", "--json", file)
    assert done.returncode in (0, 3), done.stderr
    return [change["text"] for change in json.loads(done.stdout)["changes"]]


def cap(cluster: Sandbox, account: str) -> str:
    """The GrpTRES of an account as slurmctld has it."""
    said = cluster.run(["scontrol", "-o", "show", "assoc_mgr", "flags=assoc", f"accounts={account}"]).stdout
    line = next(line for line in said.splitlines() if f"Account={account} UserName= " in line)
    return next(word for word in line.split() if word.startswith("GrpTRES="))


def submit(cluster: Sandbox, account: str, gpus: int, kind: str = "gpu:h100") -> str:
    command = ["sbatch", "--parsable", "-A", account, "-q", "training", "-p", "h100", "--gres", f"{kind}:{gpus}"]
    return cluster.run([*command, "-o", "/dev/null", "--wrap", "sleep 300"]).stdout.strip()


def state(cluster: Sandbox, job: str) -> str:
    return cluster.run(["squeue", "-h", "-j", job, "-o", "%T %r"]).stdout.strip()


def becomes(cluster: Sandbox, job: str, expected: str) -> None:
    deadline = time.monotonic() + 30
    while (now := state(cluster, job)) != expected:
        assert time.monotonic() < deadline, f"job {job} is {now}, not {expected}"
        time.sleep(0.2)


def test_apply_creates_what_the_policy_needs(cluster: Sandbox, tmp_path: Path) -> None:
    file = written(tmp_path)
    before = cluster.run(ACCOUNTS).stdout
    refused = gov(cluster, "apply", file)
    assert (refused.returncode, refused.stderr) == (
        1,
        "slurm-gov: not changed: there is no terminal to ask on; add --yes\n",
    )
    assert gov(cluster, "apply", "--dry-run", file).returncode == 0
    assert cluster.run(ACCOUNTS).stdout == before

    done = gov(cluster, "apply", "--yes", file)
    assert (done.returncode, done.stderr) == (0, "")
    rows = cluster.run(ACCOUNTS).stdout.splitlines()
    assert "research||root|gres/gpu:a100=4,gres/gpu:h100=8,gres/gpu=12|inference,normal,training" in rows
    assert "product||root|gres/gpu:a100=0,gres/gpu:h100=8,gres/gpu=8|inference,normal,training" in rows
    qos = cluster.run(["sacctmgr", "-nP", "show", "qos", "format=name,priority"]).stdout.split()
    assert {"inference|100", "training|50"} <= set(qos)
    assert "gres/gpu:h100=8(0)" in cap(cluster, "research")

    again = gov(cluster, "apply", file)
    assert (again.returncode, again.stdout) == (0, "nothing to change in Slurm\n")
    assert gov(cluster, "diff", file).returncode == 0


def test_caps_hold_and_a_larger_quota_lets_the_next_job_start(cluster: Sandbox, tmp_path: Path) -> None:
    assert gov(cluster, "apply", "--yes", written(tmp_path)).returncode == 0
    cluster.sacctmgr([f"add user {ME} account=product cluster={cluster.config.cluster}"])
    first, second = submit(cluster, "product", 8), submit(cluster, "product", 4)
    becomes(cluster, first, "RUNNING None")
    becomes(cluster, second, "PENDING AssocGrpGRES")
    larger = written(tmp_path, POLICY.replace("product: {quota: {h100: 8}}", "product: {quota: {h100: 12}}"))
    assert changes(cluster, larger) == [
        "account product: GrpTRES gres/gpu:h100 8 → 12",
        "account product: GrpTRES gres/gpu 8 → 12",
    ]
    assert gov(cluster, "apply", "--yes", larger).returncode == 0
    becomes(cluster, second, "RUNNING None")
    cluster.run(["scancel", first, second])


def test_a_job_without_a_type_is_held_too(cluster: Sandbox, tmp_path: Path) -> None:
    assert gov(cluster, "apply", "--yes", written(tmp_path)).returncode == 0
    cluster.sacctmgr([f"add user {ME} account=research cluster={cluster.config.cluster}"])
    first, second = submit(cluster, "research", 8), submit(cluster, "research", 8, kind="gpu")
    becomes(cluster, first, "RUNNING None")
    becomes(cluster, second, "PENDING AssocGrpGRES")
    cluster.run(["scancel", first, second])


def test_a_cap_above_the_quota_is_the_governors(cluster: Sandbox, tmp_path: Path) -> None:
    file = written(tmp_path)
    assert gov(cluster, "apply", "--yes", file).returncode == 0
    cluster.sacctmgr(["modify account where name=research set GrpTRES=gres/gpu:h100=14,gres/gpu=18,cpu=100"])
    assert changes(cluster, file) == []
    cluster.sacctmgr(["modify account where name=research set GrpTRES=gres/gpu:h100=3"])
    assert changes(cluster, file) == ["account research: GrpTRES gres/gpu:h100 3 → 8"]
    cluster.sacctmgr(["modify account where name=research set GrpTRES=gres/gpu:h100=-1,gres/gpu=-1"])
    assert changes(cluster, file) == [
        "account research: GrpTRES gres/gpu:h100 none → 8",
        "account research: GrpTRES gres/gpu none → 12",
    ]
    assert gov(cluster, "apply", "--yes", file).returncode == 0
    assert "cpu=100(" in cap(cluster, "research")  # what others set on the account stays
    assert "gres/gpu:h100=8(" in cap(cluster, "research")


def test_what_people_write_in_slurm_does_not_confuse_the_reading(cluster: Sandbox, tmp_path: Path) -> None:
    file = written(tmp_path)
    assert gov(cluster, "apply", "--yes", file).returncode == 0
    evil = "x|research|||root|gres/gpu:h100=1|\nresearch|||root|gres/gpu:h100=0|normal"
    cluster.run(["sacctmgr", "-i", "add", "account", "odd", f"description={evil}", f"organization={evil}"])
    cluster.run(["sacctmgr", "-i", "add", "account", "below", "parent=research", "description=\x1b[31m"])
    assert changes(cluster, file) == []
    done = gov(cluster, "apply", "--yes", file)
    assert "\x1b" not in done.stdout + done.stderr


def test_users_with_a_qos_list_of_their_own_are_named(cluster: Sandbox, tmp_path: Path) -> None:
    file = written(tmp_path)
    assert gov(cluster, "apply", "--yes", file).returncode == 0
    cluster.sacctmgr(["add user daemon account=research", "modify user where name=daemon set qos=normal"])
    done = gov(cluster, "diff", file)
    remedy = done.stderr.rstrip().partition("run: ")[2]
    assert done.returncode == 0
    assert "user daemon of account research has a QOS list of its own" in done.stderr
    cluster.run(["sacctmgr", "-i", *remedy.split()[1:]])
    assert gov(cluster, "diff", file).stderr == ""


def test_a_policy_for_another_cluster_is_refused(cluster: Sandbox, tmp_path: Path) -> None:
    before = cluster.run(ACCOUNTS).stdout
    text = POLICY.replace("partition: h100", "partition: b200").replace('"gpu:a100"', '"gpu:l40"')
    done = gov(cluster, "apply", "--yes", written(tmp_path, text))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: AccountingStorageTRES lacks gres/gpu:l40, so Slurm cannot cap it; "
        "add AccountingStorageTRES=gres/gpu,gres/gpu:l40 to slurm.conf and restart slurmctld",
        "error: pool h100: this cluster has no partition b200; its partitions: a100, h100",
        "error: pool a100: no node of partition a100 has gpu:l40; what is there: gpu:a100",
        "slurm-gov: this cluster cannot hold the policy yet: 3 errors, nothing was changed",
    ]
    assert cluster.run(ACCOUNTS).stdout == before


def test_many_teams_in_one_go(cluster: Sandbox, tmp_path: Path) -> None:
    teams = "".join(f"  many{i}: {{quota: {{h100: 0}}, borrow: 4}}\n" for i in range(100))
    file = written(tmp_path, POLICY + teams)
    done = gov(cluster, "apply", "--yes", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert changes(cluster, file) == []
    names = ",".join(f"many{i}" for i in range(100))
    cluster.run(["sacctmgr", "-i", "delete", "account", f"name={names}"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_without_the_right_changes_nothing(cluster: Sandbox, tmp_path: Path) -> None:
    assert gov(cluster, "apply", "--yes", written(tmp_path)).returncode == 0
    before = cluster.run(ACCOUNTS).stdout
    text = POLICY.replace("research: {quota: {h100: 8", "research: {quota: {h100: 9")
    file = cluster.dir / "policy.yaml"  # where everybody may read it
    file.write_text(text)
    command = [sys.executable, "-m", "slurm_gov.cli.main", "policy", "apply", "--yes", file]
    nobody = pwd.getpwnam("nobody")  # setpriv keeps root's right to read this checkout
    become = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    done = cluster.run([*become, *command], check=False)
    last = done.stderr.strip().rpartition("\n")[2]
    if not last.startswith("slurm-gov: "):
        pytest.skip(f"nobody may not run slurm-gov here: {last}")
    assert done.returncode == 1
    assert last.startswith("slurm-gov: 2 of 2 changes were not made, first: account research: GrpTRES")
    assert "doesn't have privilege" in last or "denied" in last
    assert cluster.run(ACCOUNTS).stdout == before


def test_a_slurm_that_holds_no_caps_and_one_that_does_not_answer(
    new_sandbox: Callable[..., Sandbox], tmp_path: Path
) -> None:
    cluster = new_sandbox(
        pools=(Pool("h100", 1, 8),),
        governor=False,
        slurm_conf=("AccountingStorageEnforce=associations", "JobRequeue=0", "PriorityWeightQOS=0"),
    )
    text = 'pools: {h100: {partition: gpu, gres: "gpu:h100"}}\npriority_classes: {training: 1}\n'
    file = written(tmp_path, text + "teams: {research: {quota: {h100: 8}}}\n")
    done = gov(cluster, "apply", "--yes", file)
    assert done.returncode == 1
    assert [line.split(",")[0] for line in done.stderr.splitlines()] == [
        "error: AccountingStorageEnforce lacks limits",
        "warning: PriorityWeightQOS is 0",
        "warning: JobRequeue is 0",
        "slurm-gov: this cluster cannot hold the policy yet: 1 error",
    ]
    cluster.stop_daemon("slurmdbd")
    done = gov(cluster, "diff", file)
    assert done.returncode == 1
    assert done.stderr.startswith("slurm-gov: sacctmgr ")
    assert done.stderr.count("\n") == 1


def test_what_was_there_before_is_there_again(module_sandbox: Callable[..., Sandbox], tmp_path: Path) -> None:
    """Caps and QOS of the site's own before slurm-gov; applied, governed, removed; all is as it was."""
    cluster = module_sandbox(pools=(Pool("h100", 2, 8), Pool("a100", 1, 4)), governor=False)
    for line in (
        "add account research parent=root GrpTRES=gres/gpu:h100=4,cpu=100",
        "add account other parent=root",
        "add qos training priority=7",
        f"add user {ME} account=research,other",
    ):
        cluster.run(["sacctmgr", "-i", *line.split()])
    before = everything(cluster)
    policy = POLICY.replace("fair_share_weight: 1", "borrow: unlimited")
    done = gov(cluster, "apply", "--yes", written(tmp_path, policy))
    assert done.returncode == 0, done.stderr
    assert everything(cluster) != before

    # Governed: idle GPUs are lent, so the cap moves once more.
    cluster.layout.policy.write_text(policy)
    cluster.start_governor()
    job = cluster.submit("sleep 300", "--account=research", "--partition=h100", "-N2", "--gres=gpu:h100:8")
    wait_for(lambda: "gres/gpu:h100=16(" in cap(cluster, "research"), "research is lent the rest")
    refused = gov(cluster, "remove", "--yes")
    assert refused.returncode == 1
    assert "first stop it" in refused.stderr
    cluster.run(["scancel", str(job)])
    cluster.stop_daemon("slurm-govd")

    dry = gov(cluster, "remove", "--dry-run")
    assert dry.returncode == 0
    assert "account product" in dry.stdout
    assert everything(cluster) != before
    wait_for(lambda: not cluster.run(["squeue", "-h"]).stdout, "the job is gone")
    done = gov(cluster, "remove", "--created", "--yes")
    assert done.returncode == 0, done.stderr
    assert everything(cluster) == before
    assert "nothing to change" in gov(cluster, "remove", "--dry-run").stdout
