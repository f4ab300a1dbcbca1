"""slurm-gov doctor on a real cluster: each planted misconfiguration is found, and its remedy named."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm_gov.sandbox import Pool, Sandbox

POLICY = """\
mode: enforce
pools:
  h100: {partition: gpu, gres: "gpu:h100"}
priority_classes: {training: 50}
teams:
  research: {quota: {h100: 8}}
  product: {quota: {h100: 8}}
"""


@pytest.fixture(scope="module")
def cluster(module_sandbox: Callable[..., Sandbox], tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    file = tmp_path_factory.mktemp("policy") / "policy.yaml"
    file.write_text(POLICY)
    return module_sandbox(pools=(Pool("h100", 2, 8),), policy=file, governor=True)


def doctor(cluster: Sandbox, *options: str, policy: Path | None = None) -> tuple[int, dict[str, str], dict[str, str]]:
    """The exit code; errors and warnings, message to remedy."""
    command = [sys.executable, "-m", "slurm_gov.cli.main", "doctor", "--json"]
    command += [
        "--policy",
        str(policy or cluster.layout.policy),
        "--socket",
        str(cluster.layout.govd_socket),
        *options,
    ]
    done: subprocess.CompletedProcess[str] = cluster.run(command, check=False)
    assert done.returncode in (0, 1) and done.stdout, done.stderr
    said = json.loads(done.stdout)
    errors, warnings = ({one["message"]: one["remedy"] for one in said[kind]} for kind in ("errors", "warnings"))
    return done.returncode, errors, warnings


def finds(found: dict[str, str], message: str, remedy: str) -> None:
    """One finding has both texts."""
    assert any(message in text and remedy in helps for text, helps in found.items()), (message, remedy, found)


def edit(cluster: Sandbox, **settings: str) -> None:
    """Change slurm.conf as an administrator would. The settings are read at the next start of slurmctld."""
    file = cluster.layout.slurm_conf
    lines = [line for line in file.read_text().splitlines() if line.partition("=")[0] not in settings]
    lines += [f"{name}={value}" for name, value in settings.items()]
    file.write_text("\n".join(lines) + "\n")


def test_a_good_cluster_has_nothing_wrong(cluster: Sandbox) -> None:
    assert doctor(cluster) == (0, {}, {})


def test_slurmctld_tells_its_time(cluster: Sandbox) -> None:
    """The first line of `scontrol show config` is the controller's clock now, not when it read its configuration."""
    before = int(time.time())
    told = cluster.run(["scontrol", "show", "config"], env={"SLURM_TIME_FORMAT": "%s"}).stdout.splitlines()[0]
    assert before <= int(told.split()[-1]) <= time.time(), told


def test_what_is_found_without_a_restart(cluster: Sandbox, tmp_path: Path) -> None:
    conf = cluster.layout.etc / "job_submit_gov.conf"
    good = conf.read_text()
    plugin = cluster.layout.plugins / "job_submit_gov.so"
    binary = plugin.read_bytes()
    try:
        # The plugin's configuration, and the plugin: a new file, for slurmctld has the old one mapped.
        conf.write_text("socket=/run/elsewhere.sock\nfail=maybe\n")
        replaced = binary.replace(b" wire 1\0", b" wire 9\0")
        replaced = re.sub(rb"for Slurm 0x..", b"for Slurm 0x13", replaced)
        plugin.unlink()
        plugin.write_bytes(replaced)
        # A cap of the site's own above the teams, and a team without its own, which slurm-govd would give it again.
        cluster.stop_governor()
        cluster.sacctmgr(["modify account where name=root set GrpTRES=gres/gpu:h100=4"])
        cluster.sacctmgr(["modify account where name=product set GrpTRES=gres/gpu:h100=-1"])
        code, errors, warnings = doctor(cluster, "--mqtt", "127.0.0.1:9")  # no broker there
        assert code == 1
        finds(errors, "fail wants open or closed", "correct the line")
        finds(errors, "the plugin asks on /run/elsewhere.sock", f"socket={cluster.layout.govd_socket}")
        finds(errors, "was built for Slurm 19.", "slurm-gov install")
        finds(errors, "speaks wire format 9", "slurm-gov install")
        finds(errors, "slurm-govd does not answer", "systemctl enable --now slurm-govd")
        finds(errors, "the MQTT broker 127.0.0.1:9 cannot be reached", "--mqtt")
        finds(errors, "the policy is not applied", "slurm-gov policy apply")
        finds(warnings, "account root, above team", "GrpTRES=gres/gpu:h100=-1")

        plugin.unlink()
        conf.unlink()
        policy = tmp_path / "wrong.yaml"
        policy.write_text(POLICY.replace("{h100: 8}", "{h10: 8}"))
        _, errors, _ = doctor(cluster, policy=policy)
        finds(errors, "job_submit_gov.so is not in PluginDir", "slurm-gov install")
        finds(errors, "job_submit_gov.conf is not there", "slurm-gov install writes it")
        finds(errors, 'did you mean "h100"', "slurm-gov policy check")
        _, errors, _ = doctor(cluster, policy=tmp_path / "none.yaml")
        finds(errors, "there is no policy", "slurm-gov install writes a sample")
    finally:
        plugin.unlink(missing_ok=True)
        plugin.write_bytes(binary)
        conf.write_text(good)
        cluster.sacctmgr(["modify account where name=root set GrpTRES=gres/gpu:h100=-1"])
        cluster.start_governor()
    cluster_is_good(cluster)


def test_a_daemon_that_hangs_is_found(cluster: Sandbox) -> None:
    """The whole of it, and each of its two processes."""
    pid = cluster.pids()["slurm-govd"]
    assert pid
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True).stdout.split()
    for hung in ([pid], [int(children[0])], [pid, int(children[0])]):
        try:
            for one in hung:
                os.kill(one, signal.SIGSTOP)
            code, errors, _ = doctor(cluster)
            assert code == 1
            finds(errors, "slurm-govd hangs", "systemctl restart slurm-govd")
        finally:
            for one in hung:
                os.kill(one, signal.SIGCONT)
    assert doctor(cluster)[0] == 0


def test_what_slurm_conf_lacks(cluster: Sandbox) -> None:
    good = cluster.layout.slurm_conf.read_text()
    cluster.stop_governor()
    try:
        edit(
            cluster,
            AccountingStorageEnforce="associations",
            AccountingStorageTRES="gres/gpu",
            JobSubmitPlugins="require_timelimit",
            MinJobAge="5",
            SchedulerParameters="assoc_limit_stop,bf_max_job_test=10",
            PriorityWeightQOS="0",
            JobRequeue="0",
            PreemptType="preempt/qos",
            PreemptMode="REQUEUE",
        )
        cluster.restart_slurmctld()
        code, errors, warnings = doctor(cluster)
        assert code == 1
        both = {**errors, **warnings}
        finds(
            errors, "AccountingStorageEnforce lacks limits, qos", "AccountingStorageEnforce=associations,limits,qos"
        )
        finds(errors, "AccountingStorageTRES lacks gres/gpu:h100", "AccountingStorageTRES=gres/gpu,gres/gpu:h100")
        finds(errors, "JobSubmitPlugins is require_timelimit", "JobSubmitPlugins=require_timelimit,gov")
        finds(errors, "MinJobAge is 5 s", "MinJobAge=300")
        finds(errors, "assoc_limit_stop", "take assoc_limit_stop out")
        finds(warnings, "bf_max_job_test=10", "bf_max_job_test=500")
        finds(warnings, "PriorityWeightQOS is 0", "PriorityWeightQOS=1000000")
        finds(warnings, "JobRequeue is 0", "JobRequeue=1")
        finds(both, "PreemptType is preempt/qos", "PreemptType=preempt/none")
        cluster.stop_daemon("slurmdbd")
        _, errors, _ = doctor(cluster)
        finds(errors, "slurmdbd does not answer", "systemctl status slurmdbd")
        cluster.start_slurmdbd()
    finally:
        cluster.layout.slurm_conf.write_text(good)
        cluster.restart_slurmctld()
        cluster.start_governor()


def cluster_is_good(cluster: Sandbox) -> None:
    applied = [sys.executable, "-m", "slurm_gov.cli.main", "policy", "apply", "--yes", str(cluster.layout.policy)]
    cluster.run(applied, env={"SLURM_GOV_POLICY": ""})
    code, errors, _ = doctor(cluster)
    assert (code, errors) == (0, {})
