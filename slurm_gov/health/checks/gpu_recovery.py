"""What the driver itself says that a GPU needs: NVML's recovery action, the same that XID 154 announces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slurm_gov.health.checks.base import FAIL, WARN, Result
from slurm_gov.health.checks.nvml import Gpu

# NVML's number: (state, fault, advice, what to say). 0 is none.
ACTIONS = {
    1: (FAIL, "gpu_reset", "reset_gpu", "the driver asks for a reset of the GPU"),
    2: (FAIL, "gpu_reset", "reboot", "the driver asks for a reboot of the node"),
    3: (WARN, "gpu_reset", "drain", "the driver asks to drain peer-to-peer traffic"),
    4: (WARN, "gpu_reset", "drain", "the driver asks to drain the GPU and reset it"),
    5: (FAIL, "gpu_link", "person", "the driver asks to recover the IMEX domain"),
    6: (FAIL, "gpu_reset", "reboot", "the driver asks for a reset of the bus"),
    7: (FAIL, "gpu_reset", "reboot", "the driver asks for a reboot of the system"),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """None: the driver decides."""


def judge(gpus: Sequence[Gpu]) -> list[Result]:
    found = []
    for gpu in gpus:
        if gpu.recovery in ACTIONS:
            state, fault, advice, text = ACTIONS[gpu.recovery]
            name = f"gpu {gpu.index}"
            found.append(Result(state, f"GPU {gpu.index}: {text}", name, fault, None, advice, gpu.index, gpu.uuid))
    return found
