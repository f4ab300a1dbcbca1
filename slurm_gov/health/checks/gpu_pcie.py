"""GPUs with fewer PCIe lanes than they and their slot have.

The width is settled at boot and does not change with load (the speed does: idle GPUs slow their link down, so it is
not looked at). Eight lanes of sixteen halve every copy from host memory and network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slurm_gov.health.checks.base import FAIL, Result
from slurm_gov.health.checks.nvml import Gpu


@dataclass(frozen=True, slots=True)
class Settings:
    """How many lanes a GPU must have."""

    width: int | None = None  # lanes that every GPU must have; None: the most that GPU and slot can do


def judge(gpus: Sequence[Gpu], settings: Settings) -> list[Result]:
    found = []
    for gpu in gpus:
        want = settings.width or gpu.pcie_width_max
        if want and gpu.pcie_width is not None and gpu.pcie_width < want:
            text = f"GPU {gpu.index}: {gpu.pcie_width} PCIe lanes instead of {want}"
            found.append(Result(FAIL, text, f"gpu {gpu.index}", "gpu_pcie", None, "reboot", gpu.index, gpu.uuid))
    return found
