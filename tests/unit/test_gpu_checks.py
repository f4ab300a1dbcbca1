"""The GPU checks: what is read through the real pynvml (from a library of ours), and how each check judges it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slurm_gov.health.checks import (
    gpu,
    gpu_count,
    gpu_link,
    gpu_memory,
    gpu_pcie,
    gpu_power,
    gpu_recovery,
    gpu_thermal,
)
from slurm_gov.health.checks.base import Outcome, Result
from slurm_gov.health.checks.expected import Expected, count_gpus, parse
from slurm_gov.health.checks.nvml import Gpu, Gpus, bus_id

DEFAULTS = {check: made() for check, made in gpu.PROBE.settings.items()}
WELL = Gpu(
    0, uuid="GPU-1", bus_id="0000:3b:00.0", uncorrected=0, remap_pending=False, remap_failed=False, temperature=45,
    slowdown_temperature=90, reasons=1, links_active=18, links_down=0, pcie_width=16, pcie_width_max=16, power=90.0,
    power_limit=700.0, recovery=0,
)  # fmt: skip


def node(**changes: Any) -> Gpus:
    """Eight GPUs; ``changes`` are of number 3."""
    return Gpus(tuple(replace(WELL, index=i, uuid=f"GPU-{i}", **(changes if i == 3 else {})) for i in range(8)))


def judged(seen: Gpus, looks: int = 1, expect: int | None = 8, **settings: Any) -> dict[str, list[Result]]:
    """What is said at the last of so many equal looks; checks that say nothing are left out."""
    outcome = Outcome({})
    for _ in range(looks):
        outcome = gpu.judge(seen, expect, json.loads(json.dumps(outcome.memory)), DEFAULTS | settings)
    assert set(outcome.results) == set(DEFAULTS)
    return {check: found for check, found in outcome.results.items() if found}


def only(found: dict[str, list[Result]], check: str) -> Result:
    assert list(found) == [check], found
    assert len(found[check]) == 1
    return found[check][0]


def test_a_healthy_node() -> None:
    assert judged(node(), looks=5) == {}


@pytest.mark.parametrize(
    ("changes", "looks", "check", "state", "fault", "advice"),
    [
        ({"remap_failed": True}, 1, "gpu_memory", "fail", "gpu_memory", "replace"),
        ({"remap_pending": True}, 1, "gpu_memory", "warn", "gpu_reset", "drain"),
        ({"retire_pending": True}, 1, "gpu_memory", "warn", "gpu_reset", "drain"),
        ({"uncorrected": 1}, 1, "gpu_memory", "warn", "gpu_memory", "drain"),
        ({"uncorrected": 10, "remap_pending": True}, 1, "gpu_memory", "fail", "gpu_memory", "reset_gpu"),
        ({"temperature": 88}, 1, "gpu_thermal", "warn", "gpu_thermal", "person"),
        ({"reasons": 0x40 | 0x8, "temperature": 92}, 3, "gpu_thermal", "fail", "gpu_thermal", "person"),
        ({"reasons": 0x20}, 3, "gpu_thermal", "warn", "gpu_thermal", "person"),
        ({"reasons": 0x80}, 3, "gpu_power", "fail", "gpu_power", "person"),
        ({"power": 900.0}, 3, "gpu_power", "warn", "gpu_power", "person"),
        ({"links_active": 17, "links_down": 1}, 2, "gpu_link", "fail", "gpu_link", "reboot"),
        ({"pcie_width": 8}, 1, "gpu_pcie", "fail", "gpu_pcie", "reboot"),
        ({"recovery": 2}, 1, "gpu_recovery", "fail", "gpu_reset", "reboot"),
        ({"recovery": 4}, 1, "gpu_recovery", "warn", "gpu_reset", "drain"),
        ({"lost": "GPU is lost"}, 3, "gpu_count", "fail", "gpu_lost", "reboot"),
    ],
)
def test_one_sick_gpu(changes: Any, looks: int, check: str, state: str, fault: str, advice: str) -> None:
    result = only(judged(node(**changes), looks), check)
    assert (result.state, result.fault, result.advice) == (state, fault, advice)
    assert (result.gpu_index, result.gpu_uuid, result.subject) == (3, "GPU-3", "gpu 3")
    assert "GPU 3" in result.message


@pytest.mark.parametrize(("changes", "check"), [({"reasons": 0x40}, "gpu_thermal"), ({"reasons": 0x80}, "gpu_power")])
def test_a_burst_is_not_a_fault(changes: Any, check: str) -> None:
    assert judged(node(**changes), looks=2) == {}
    slow = gpu.judge(node(**changes), 8, {}, DEFAULTS)
    well = gpu.judge(node(), 8, slow.memory, DEFAULTS)
    again = gpu.judge(node(**changes), 8, well.memory, DEFAULTS)
    assert not again.results[check], "looks must be in a row"


def test_what_a_gpu_does_not_tell_is_no_fault() -> None:
    assert judged(Gpus(tuple(Gpu(i) for i in range(8))), looks=5) == {}


@pytest.mark.parametrize(
    ("count", "expect", "state"), [(7, 8, "fail"), (9, 8, "warn"), (8, None, None), (0, 0, None), (0, None, None)]
)
def test_the_count(count: int, expect: int | None, state: str | None) -> None:
    found = judged(Gpus(node().gpus[:count] if count < 9 else (*node().gpus, WELL)), expect=expect)
    assert (only(found, "gpu_count").state if state else found) == (state or {})


def test_where_slurm_does_not_answer_the_most_seen_since_boot_counts() -> None:
    first = gpu.judge(node(), None, {}, DEFAULTS)
    later = gpu.judge(Gpus(node().gpus[:7]), None, first.memory, DEFAULTS)
    assert (later.results["gpu_count"] or [])[0].message == "7 GPUs, 8 expected"


def test_the_configuration_says_more_than_slurm() -> None:
    assert judged(Gpus(), expect=8, gpu_count=gpu_count.Settings(expect=0)) == {}


@pytest.mark.parametrize(
    ("problem", "expect", "state"),
    [("library", 8, "fail"), ("driver", 8, "fail"), ("mismatch", 8, "fail"), ("library", 0, None),
     ("library", None, None), ("driver", None, "unknown")],
)  # fmt: skip
def test_a_missing_driver_is_said_and_said_once(problem: str, expect: int | None, state: str | None) -> None:
    outcome = gpu.judge(Gpus(problem=problem, message="no driver"), expect, {}, DEFAULTS)
    counts = outcome.results["gpu_count"]
    assert [r.state for r in counts or []] == ([state] if state else [])
    assert all(outcome.results[check] is None for check in DEFAULTS if check != "gpu_count")


def test_thresholds_are_settings() -> None:
    seen = node(temperature=80, links_active=16, pcie_width=16)
    assert only(
        judged(seen, gpu_thermal=gpu_thermal.Settings(limit=82), gpu_link=gpu_link.Settings(links=16)), "gpu_thermal"
    )
    assert len(judged(node(), gpu_pcie=gpu_pcie.Settings(width=32))["gpu_pcie"]) == 8
    assert len(judged(node(), gpu_power=gpu_power.Settings(limit=750.0))["gpu_power"]) == 8
    assert judged(node(uncorrected=3), gpu_memory=gpu_memory.Settings(warn_uncorrected=4)) == {}


def test_every_action_of_the_driver_is_known() -> None:
    import pynvml

    actions = {v for n, v in vars(pynvml).items() if n.startswith("NVML_GPU_RECOVERY_ACTION_")}
    assert actions == {0, *gpu_recovery.ACTIONS}


# -- reading, through pynvml ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).parent / "nvml" / "libnvidia-ml.c"
    command = ["cc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", source]
    subprocess.run(command, check=True)
    return folder


def read(library: Path, **variables: object) -> dict[str, Any]:
    """``read_gpus`` in a process that finds our library."""
    program = (
        "import json, dataclasses; from slurm_gov.health.checks.nvml import read_gpus;"
        "print(json.dumps(dataclasses.asdict(read_gpus())))"
    )
    env = os.environ | {"LD_LIBRARY_PATH": str(library)} | {f"NVML_{k}": str(v) for k, v in variables.items()}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_reading_all_of_a_gpu(library: Path) -> None:
    values = {"TEMP": 71, "REASONS": 0x48, "LINKS": 17, "WIDTH": 8, "PENDING": 1, "FAILED": 1, "ECC": 4,
              "RECOVERY": 2, "POWER": 650}  # fmt: skip
    seen = read(library, GPUS=2, **{f"1_{name}": value for name, value in values.items()})
    assert seen["problem"] is None
    well, sick = (Gpu(**one) for one in seen["gpus"])
    same = {"uuid": "GPU-00000000-0000-0000-0000-000000000000", "power_limit": 700.0, "bus_id": "0000:3b:00.0"}
    assert well == replace(WELL, **same)
    assert sick == Gpu(
        1, uuid="GPU-00000000-0000-0000-0000-000000000001", bus_id="0000:3c:00.0", uncorrected=4, remap_pending=True,
        remap_failed=True, temperature=71, slowdown_temperature=90, reasons=0x48, links_active=17, links_down=1,
        pcie_width=8, pcie_width_max=16, power=650.0, power_limit=700.0, recovery=2,
    )  # fmt: skip


def test_reading_gpus_that_fell_off_the_bus(library: Path) -> None:
    seen = read(library, GPUS=4, LOST=1, FELL=2)
    assert [one["lost"] for one in seen["gpus"]] == [None, "GPU is lost", "GPU is lost", None]


@pytest.mark.parametrize(("error", "problem"), [(9, "driver"), (18, "mismatch"), (4, "error")])
def test_reading_without_a_driver(library: Path, error: int, problem: str) -> None:
    seen = read(library, INIT=error)
    assert (seen["problem"], seen["gpus"]) == (problem, [])


def test_reading_without_the_library(tmp_path: Path) -> None:
    assert read(tmp_path)["problem"] == "library"


def test_addresses() -> None:
    assert bus_id(b"00000000:3B:00.0") == bus_id("0000:3b:00.0") == "0000:3b:00.0"
    assert bus_id("00010000:C1:00.0") == "10000:c1:00.0"


# -- what Slurm expects ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gres", "count"),
    [("gpu:h100:8(S:0-1)", 8), ("gpu:8", 8), ("gpu", 1), ("gpu:a100:2,gpu:t4:1", 3),
     ("shard:64,gpu:h100:4(S:0,1)", 4), ("(null)", 0), ("nic:2", 0), ("gpu:h100:8(S:0),mps:h100:800", 8)],
)  # fmt: skip
def test_gres(gres: str, count: int) -> None:
    assert count_gpus(gres) == count


def test_scontrol_show_node() -> None:
    text = """NodeName=n1 Arch=x86_64 CoresPerSocket=1
   CPUAlloc=0 CPUEfctv=64 CPUTot=64 CPULoad=0.52
   AvailableFeatures=(null)
   Gres=gpu:h100:8(S:0-1)
   NodeAddr=127.0.0.1 NodeHostName=vm Port=10004 Version=22.05.8
   RealMemory=512000 AllocMem=0 FreeMem=21000 Sockets=64 Boards=1
   State=IDLE ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A
"""
    assert parse(text) == Expected(8, 512000)
    assert parse("Node n9 not found\n") == Expected()
