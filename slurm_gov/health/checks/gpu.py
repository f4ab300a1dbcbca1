"""The GPUs, looked at once and judged by seven checks: one process, since starting NVML is what costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slurm_gov.health.checks import gpu_count, gpu_link, gpu_memory, gpu_pcie, gpu_power, gpu_recovery, gpu_thermal
from slurm_gov.health.checks.base import Look, Outcome, Probe
from slurm_gov.health.checks.expected import expected
from slurm_gov.health.checks.nvml import Gpus, read_gpus


def judge(seen: Gpus, expect: int | None, memory: Mapping[str, Any], settings: Mapping[str, Any]) -> Outcome:
    """All checks on one look; pure."""
    others = dict.fromkeys(PROBE.settings)
    if seen.problem:  # said once; of GPUs that cannot be asked there is nothing else to say
        kept = {key: memory[key] for key in ("most", "thermal", "power", "link") if key in memory}
        count = gpu_count.judge(seen, expect if expect is not None else memory.get("most"), settings["gpu_count"])
        return Outcome({**others, "gpu_count": count}, kept)
    gpus = [gpu for gpu in seen.gpus if not gpu.lost]  # a lost one is said once, by gpu_count
    most = max(memory.get("most", 0), len(seen.gpus))
    want = expect if expect is not None else most or None
    thermal, hot = gpu_thermal.judge(gpus, memory.get("thermal", {}), settings["gpu_thermal"])
    power, starved = gpu_power.judge(gpus, memory.get("power", {}), settings["gpu_power"])
    link, short = gpu_link.judge(gpus, memory.get("link", {}), settings["gpu_link"])
    results = {
        "gpu_count": gpu_count.judge(seen, want, settings["gpu_count"]),
        "gpu_memory": gpu_memory.judge(gpus, settings["gpu_memory"]),
        "gpu_thermal": thermal,
        "gpu_power": power,
        "gpu_link": link,
        "gpu_pcie": gpu_pcie.judge(gpus, settings["gpu_pcie"]),
        "gpu_recovery": gpu_recovery.judge(gpus),
    }
    return Outcome(results, {"most": most, "thermal": hot, "power": starved, "link": short})


def run(look: Look, settings: Mapping[str, Any]) -> Outcome:
    asked: dict[str, Any] = dict(look.memory.get("slurm") or {})
    expect = None
    if settings["gpu_count"].expect is None:
        told, asked = expected(look)
        expect = told.gpus
    outcome = judge(read_gpus(), expect, look.memory, settings)
    return Outcome(outcome.results, {**outcome.memory, "slurm": asked})


PROBE = Probe(
    "gpu",
    every=30,
    limit=25,  # nvmlInit alone takes seconds where nobody keeps the driver loaded (persistence mode)
    settings={
        "gpu_count": gpu_count.Settings,
        "gpu_memory": gpu_memory.Settings,
        "gpu_thermal": gpu_thermal.Settings,
        "gpu_power": gpu_power.Settings,
        "gpu_link": gpu_link.Settings,
        "gpu_pcie": gpu_pcie.Settings,
        "gpu_recovery": gpu_recovery.Settings,
    },
    run=run,
)
