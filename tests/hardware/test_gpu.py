"""The agent's GPU checks on real GPUs, beside what nvidia-smi says. Run on a machine that has some, as root:

    python -m pytest -s tests/hardware

It changes no setting of a GPU. Load needs PyTorch, the stray program nvcc; without them those tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from slurm_gov.health.checks.nvml import read_gpus

AGENT = [sys.executable, "-c", "from slurm_gov.health.agent_main import main; main()"]
LOAD = """
import time, torch
a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    for _ in range(100):
        a @ a
    torch.cuda.synchronize()
"""

if shutil.which("nvidia-smi") is None or read_gpus().problem:
    pytest.skip(f"no GPUs here: {read_gpus().message}", allow_module_level=True)


def smi(*fields: str) -> list[list[str]]:
    """What nvidia-smi says, a row each GPU."""
    argv = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return [[word.strip() for word in line.split(",")] for line in done.stdout.splitlines()]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write(tmp_path, len(smi("index")))


def write(folder: Path, expect: int, every: str = "30s") -> Path:
    path = folder / f"agent-{expect}.yaml"
    checks = f"checks: {{gpu: {{every: {every}}}, gpu_count: {{expect: {expect}}}, slurmd: off}}"
    path.write_text(f"node: n1\n{checks}\nroots: {{state: {folder}}}\n")
    return path


def check(config: Path, *names: str) -> list[dict[str, Any]]:
    """What one look finds."""
    done = subprocess.run([*AGENT, "-c", config, "check", "--json", *names], capture_output=True, text=True)
    assert done.returncode in (0, 1, 2, 3), done.stderr
    return json.loads(done.stdout)["results"]


@contextmanager
def running(config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The agent, writing every status that it would publish."""
    with log.open("wb") as file:
        agent = subprocess.Popen([*AGENT, "-c", config, "run", "--dry-run"], stdout=file, stderr=subprocess.STDOUT)
        try:
            yield agent
        finally:
            agent.terminate()
            assert agent.wait(30) == 0, log.read_text()[-2000:]


def statuses(log: Path) -> list[dict[str, Any]]:
    lines = [line for line in log.read_text().splitlines() if line.startswith("{") and '"results"' in line]
    return [json.loads(line) for line in lines]


def xids(log: Path) -> list[dict[str, Any]]:
    said = [one for status in statuses(log) for one in status["results"]]
    return [one for one in said if one["check"] == "xid" and one["state"] != "ok"]


def test_it_reads_what_nvidia_smi_says() -> None:
    began = time.monotonic()
    seen = read_gpus()
    took = time.monotonic() - began
    assert seen.problem is None and not any(gpu.lost for gpu in seen.gpus)
    for gpu in seen.gpus:
        print(f"\n{gpu}")
    print(f"one look: {took * 1000:.0f} ms")
    rows = smi(
        "index", "uuid", "pci.bus_id", "pcie.link.width.current", "pcie.link.width.max",
        "temperature.gpu", "enforced.power.limit", "ecc.errors.uncorrected.volatile.total",
    )  # fmt: skip
    assert [[str(gpu.index), gpu.uuid] for gpu in seen.gpus] == [row[:2] for row in rows]
    for gpu, row in zip(seen.gpus, rows, strict=True):
        assert gpu.bus_id is not None and row[2].lower().endswith(gpu.bus_id)
        for ours, theirs in zip((gpu.pcie_width, gpu.pcie_width_max), row[3:5], strict=True):
            assert theirs in (str(ours), "[N/A]")
        assert gpu.temperature == pytest.approx(float(row[5]), abs=5)
        assert gpu.power_limit == pytest.approx(float(row[6]), abs=0.1)
        assert row[7] in (str(gpu.uncorrected), "[N/A]")
        assert gpu.remap_failed is not None or gpu.retire_pending is not None, "one of the two, by generation"
        assert gpu.reasons is not None and gpu.recovery in (0, None)


def test_well_gpus_are_well(config: Path) -> None:
    found = [one for one in check(config, "gpu") if one["check"].startswith("gpu")]
    assert {one["check"] for one in found} == {
        "gpu_count", "gpu_memory", "gpu_thermal", "gpu_power", "gpu_link", "gpu_pcie", "gpu_recovery"
    }  # fmt: skip
    assert all(one["state"] == "ok" for one in found), found


def test_a_missing_gpu_is_missed(tmp_path: Path) -> None:
    there = len(smi("index"))
    (count,) = (one for one in check(write(tmp_path, there + 1), "gpu") if one["check"] == "gpu_count")
    assert (count["state"], count["message"]) == ("fail", f"{there} GPUs, {there + 1} expected")


def test_full_load_is_no_fault(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    log, config = tmp_path / "log", write(tmp_path, len(smi("index")), every="3s")
    load = subprocess.Popen([sys.executable, "-c", LOAD.format(seconds=30)])
    try:
        with running(config, log):
            time.sleep(20)
            (row,) = smi("temperature.gpu", "power.draw", "enforced.power.limit", "utilization.gpu")[:1]
            print(f"\nunder load: {row[0]} °C, {row[1]} W of {row[2]} W, {row[3]} % busy; {read_gpus().gpus[0]}")
            assert float(row[3]) > 50, "the load was none"
    finally:
        assert load.wait(90) == 0
    said = [one for status in statuses(log) for one in status["results"] if one["check"].startswith("gpu")]
    assert said and all(one["state"] == "ok" for one in said), [one for one in said if one["state"] != "ok"]


def test_an_xid_of_a_job_s_own_is_told_and_blames_no_node(tmp_path: Path, config: Path) -> None:
    nvcc = shutil.which("nvcc") or pytest.skip("no nvcc here")
    program, log = tmp_path / "stray", tmp_path / "log"
    built = subprocess.run(
        [nvcc, "-o", program, Path(__file__).with_name("stray.cu")], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    with running(config, log):
        time.sleep(5)
        assert not xids(log), "there were XIDs before: a node that has just booted is needed"
        began = time.time()
        assert subprocess.run([program]).returncode == 0, "the driver must have ended it"
        while not xids(log) and time.time() < began + 30:
            time.sleep(0.1)
        after = time.time() - began
    told = xids(log)
    kernel = subprocess.run(["dmesg"], capture_output=True, text=True).stdout
    print("\n" + "\n".join(line for line in kernel.splitlines() if "Xid" in line)[-500:])
    assert told, f"nothing told; the kernel's log: {kernel[-500:]}"
    print(f"told after {after:.1f} s: {json.dumps(told[0])}")
    assert told[0]["code"] in (13, 31) and told[0]["state"] == "warn", "a job's own doing"
    assert told[0]["gpu"]["index"] == 0 and told[0]["gpu"]["uuid"] == smi("uuid")[0][0]
    assert all(one["state"] == "ok" for one in check(config, "gpu") if one["check"] != "xid"), (
        "the GPU itself is well"
    )


def test_it_is_light(config: Path, tmp_path: Path) -> None:
    """At most 60 MB and 1 % of one core, all it starts included."""
    log = tmp_path / "log"

    def seconds(processes: list[psutil.Process]) -> float:
        return sum(sum(one.cpu_times()[:4]) for one in processes)

    with running(config, log) as agent:
        time.sleep(20)
        of = [psutil.Process(agent.pid), *psutil.Process(agent.pid).children()]
        before, began = seconds(of), time.monotonic()
        time.sleep(62)
        share = (seconds(of) - before) / (time.monotonic() - began)
        memory = sum(one.memory_full_info().pss for one in of) / 1e6  # what they share counts once
        resident = [round(one.memory_info().rss / 1e6, 1) for one in of]
    print(
        f"\nthe agent: {share:.2%} of one core, {memory:.1f} MB (resident, each: {resident}), {os.cpu_count()} cores"
    )
    assert 0 < share <= 0.01 and memory <= 60
