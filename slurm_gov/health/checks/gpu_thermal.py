"""GPUs that are too hot: near the temperature at which they slow down, or slowed down by their hardware.

One slow GPU slows every job that spans it. The hardware halves its clocks at the slowdown temperature; a fan or
the water has failed then, or a heat sink came loose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slurm_gov.health.checks.base import FAIL, WARN, Result
from slurm_gov.health.checks.nvml import Gpu

HARDWARE = 0x40  # HwThermalSlowdown
SOFTWARE = 0x20  # SwThermalSlowdown: the driver lowers clocks to stay below the limit


@dataclass(frozen=True, slots=True)
class Settings:
    """How hot is too hot, in degrees Celsius."""

    margin: int = 3  # degrees below the GPU's own slowdown temperature that are worth a warning
    limit: int | None = None  # degrees; None: the GPU's slowdown temperature, where it tells one
    looks: int = 3  # in a row: a burst of load passes


def judge(gpus: Sequence[Gpu], memory: Mapping[str, Any], settings: Settings) -> tuple[list[Result], dict[str, int]]:
    """``memory``: looks in a row in which a GPU (by index) was slowed down."""
    found, slowed = [], {}
    for gpu in gpus:

        def say(state: str, text: str, gpu: Gpu = gpu) -> Result:
            return Result(state, f"GPU {gpu.index}: {text}", f"gpu {gpu.index}", "gpu_thermal", None, "person",
                          gpu.index, gpu.uuid)  # fmt: skip

        reasons = gpu.reasons or 0
        limit = settings.limit or gpu.slowdown_temperature
        looks = memory.get(str(gpu.index), 0) + 1 if reasons & (HARDWARE | SOFTWARE) else 0
        if looks:
            slowed[str(gpu.index)] = looks
        at = f" at {gpu.temperature} °C" if gpu.temperature is not None else ""
        if looks >= settings.looks and reasons & HARDWARE:
            found.append(say(FAIL, f"slowed down by its hardware{at}"))
        elif looks >= settings.looks:
            found.append(say(WARN, f"slowed down by its driver{at}"))
        elif limit and gpu.temperature is not None and gpu.temperature >= limit - settings.margin:
            found.append(say(WARN, f"{gpu.temperature} °C, it slows down at {limit} °C"))
    return found, slowed
