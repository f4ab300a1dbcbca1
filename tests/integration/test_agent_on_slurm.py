"""The agent beside a real Slurm: what Slurm expects, whether slurmd lives, and as Slurm's HealthCheckProgram."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NewSandbox
from fleet import OFF, until
from ruamel.yaml import YAML

from slurm_gov.sandbox import Pool, Sandbox
from slurm_gov.sandbox.governor import program

NVML = Path(__file__).parents[1] / "unit" / "nvml" / "libnvidia-ml.c"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agent")


@pytest.fixture(scope="module")
def cluster(module_sandbox: NewSandbox, work: Path) -> Sandbox:
    """One node with eight h100, and the agent as its HealthCheckProgram: `work/sick` makes it find something."""
    health = work / "health.sh"
    agent = program("slurm-gov-agent")
    health.write_text("#!/bin/sh\nexit 0\n")
    health.chmod(0o755)
    write(work / "health.yaml", node="n1", checks=OFF, site_checks={"site": {"command": [str(work / "site.sh")]}})
    (work / "site.sh").write_text(f"#!/bin/sh\n[ -e {work}/sick ] && {{ echo the fan is broken; exit 2; }}\nexit 0\n")
    (work / "site.sh").chmod(0o755)
    lines = (f"HealthCheckProgram={health}", "HealthCheckInterval=2", "HealthCheckNodeState=ANY")
    cluster = module_sandbox(pools=(Pool(nodes=1),), governor=False, slurm_conf=lines)
    # slurmd gives it an environment of its own, without the sandbox's SLURM_CONF.
    run = f"exec {agent} -c {work}/health.yaml check --health-check-program --drain site"
    (work / "new").write_text(
        f"#!/bin/sh\nenv > {work}/environment\n"
        f"export PATH=/usr/bin:/bin SLURM_CONF={cluster.layout.slurm_conf}\n{run} >> {work}/said 2>&1\n"
    )
    (work / "new").chmod(0o755)
    (work / "new").replace(health)
    return cluster


def write(file: Path, **config: object) -> None:
    roots = {"state": str(file.with_suffix(".state")), "kernel_log": "/dev/null"}
    with file.open("w") as text:
        YAML(typ="safe").dump({"roots": roots, **config}, text)


def check(cluster: Sandbox, config: Path, name: str, **variables: str) -> tuple[int, str]:
    command = [program("slurm-gov-agent"), "-c", config, "check", name]
    done = cluster.run(command, check=False, env=variables)
    return done.returncode, done.stdout.strip()


def test_gpus_against_what_slurm_expects(cluster: Sandbox, work: Path) -> None:
    library = work / "lib"
    library.mkdir()
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library / "libnvidia-ml.so.1", NVML], check=True)
    write(work / "gpu.yaml", node="n1")
    path = {"LD_LIBRARY_PATH": str(library)}
    code, text = check(cluster, work / "gpu.yaml", "gpu_count", **path, NVML_GPUS="8")
    assert (code, text) == (0, "OK      gpu_count")
    code, text = check(cluster, work / "gpu.yaml", "gpu_count", **path, NVML_GPUS="7")
    assert code == 2 and "7 GPUs, 8 expected" in text
    code, text = check(cluster, work / "gpu.yaml", "gpu", **path, NVML_GPUS="8", NVML_3_FAILED="1")
    assert code == 2 and "GPU 3: a memory row cannot be remapped" in text
    code, text = check(cluster, work / "gpu.yaml", "gpu_count", NVML_GPUS="8")
    assert code == 2 and "no NVIDIA driver" in text
    write(work / "slow.yaml", node="n1", checks={"gpu": {"limit": "1s"}})
    code, text = check(cluster, work / "slow.yaml", "gpu_count", **path, NVML_GPUS="8", NVML_SLEEP="600")
    assert code == 3 and "no answer within 1 s" in text


@pytest.fixture
def back(cluster: Sandbox) -> Iterator[None]:
    yield
    if not cluster.pids()["slurmd-n1"]:
        cluster.start_node("n1")
    until(lambda: cluster.nodes().get("n1", "").startswith(("idle", "drain")), "the node is back")


@pytest.mark.usefixtures("back")
def test_slurmd(cluster: Sandbox, work: Path) -> None:
    port = cluster.ports.first_node
    write(work / "slurmd.yaml", node="n1", checks={"slurmd": {"port": port, "looks": 1}})
    assert check(cluster, work / "slurmd.yaml", "slurmd") == (0, "OK      slurmd")
    cluster.stop_node("n1")
    code, text = check(cluster, work / "slurmd.yaml", "slurmd")
    assert code == 2 and f"nobody listens on port {port}" in text
    with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
        code, text = check(cluster, work / "slurmd.yaml", "slurmd")
        assert code == 2 and "does not take connections" in text


def test_as_health_check_program(cluster: Sandbox, work: Path) -> None:
    until(lambda: cluster.nodes().get("n1") == "idle", "the node is idle")
    (work / "sick").touch()
    until(lambda: cluster.nodes()["n1"].startswith("drain"), "the node is drained")
    assert "SLURMD_NODENAME=n1" in (work / "environment").read_text().splitlines()
    reason = cluster.run(["sinfo", "-h", "-o", "%E", "-n", "n1"]).stdout.strip()
    assert reason == "slurm-gov-agent: site: site: the fan is broken"
    cluster.stop_node("n1")
    cluster.start_node("n1")
    until(lambda: cluster.pids()["slurmd-n1"] and cluster.nodes()["n1"] == "drained", "slurmd registers all the same")
    (work / "sick").unlink()
    cluster.run(["scontrol", "update", "nodename=n1", "state=resume"])
    until(lambda: cluster.nodes()["n1"] == "idle", "the administrator lifts it")
