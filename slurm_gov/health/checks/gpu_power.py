"""GPUs that get too little power.

The power brake is a wire from the server: a power supply failed, or the rack is over its budget. It cuts clocks to a
fraction. A power limit below what the site set is somebody's forgotten experiment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slurm_gov.health.checks.base import FAIL, WARN, Result
from slurm_gov.health.checks.nvml import Gpu

BRAKE = 0x80  # HwPowerBrakeSlowdown


@dataclass(frozen=True, slots=True)
class Settings:
    """How little power is too little."""

    looks: int = 3  # in a row with the power brake on
    limit: float | None = None  # watts that every GPU must be allowed; None: not checked
    over: float = 1.2  # of its limit: a GPU that draws more for some looks does not measure or control its power


def judge(gpus: Sequence[Gpu], memory: Mapping[str, Any], settings: Settings) -> tuple[list[Result], dict[str, Any]]:
    """``memory``: looks in a row, by GPU, under the brake (``brake``) and over the limit (``over``)."""
    found: list[Result] = []
    kept: dict[str, dict[str, int]] = {"brake": {}, "over": {}}

    def again(kind: str, gpu: Gpu, so: object) -> bool:
        if so:
            kept[kind][str(gpu.index)] = memory.get(kind, {}).get(str(gpu.index), 0) + 1
        return kept[kind].get(str(gpu.index), 0) >= settings.looks

    for gpu in gpus:
        brake = again("brake", gpu, (gpu.reasons or 0) & BRAKE)
        over = again("over", gpu, gpu.power and gpu.power_limit and gpu.power > settings.over * gpu.power_limit)
        state, text = "", ""
        if brake:
            state, text = FAIL, "slowed down by the server's power brake"
        elif over:
            state, text = WARN, f"draws {gpu.power:.0f} W with a limit of {gpu.power_limit:.0f} W"
        elif settings.limit and gpu.power_limit is not None and gpu.power_limit < settings.limit:
            state, text = WARN, f"limited to {gpu.power_limit:.0f} W instead of {settings.limit:.0f} W"
        if state:
            name = f"gpu {gpu.index}"
            found.append(
                Result(state, f"GPU {gpu.index}: {text}", name, "gpu_power", None, "person", gpu.index, gpu.uuid)
            )
    return found, kept
