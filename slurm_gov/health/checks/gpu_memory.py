"""GPU memory: rows that wait to be remapped, rows that cannot be, uncorrectable errors.

From Ampere on a bad row is replaced by a spare one at the next reset: until then the GPU works, and the error is
contained. When the spares are used up the GPU must go (NVIDIA's own criterion for a return).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slurm_gov.health.checks.base import FAIL, WARN, Result
from slurm_gov.health.checks.nvml import Gpu


@dataclass(frozen=True, slots=True)
class Settings:
    """How many errors are too many."""

    # Uncorrectable errors since the driver was loaded. Each ended one job; many mean that the next job is hit, too.
    warn_uncorrected: int = 1
    fail_uncorrected: int = 10


def judge(gpus: Sequence[Gpu], settings: Settings) -> list[Result]:
    """The worst thing about each GPU that is not well."""
    return [result for gpu in gpus if (result := _one(gpu, settings))]


def _one(gpu: Gpu, settings: Settings) -> Result | None:
    def say(state: str, text: str, fault: str, advice: str) -> Result:
        return Result(state, f"GPU {gpu.index}: {text}", f"gpu {gpu.index}", fault, None, advice, gpu.index, gpu.uuid)

    errors = gpu.uncorrected or 0
    if gpu.remap_failed:
        return say(FAIL, "a memory row cannot be remapped, no spare is left", "gpu_memory", "replace")
    if errors >= settings.fail_uncorrected:
        return say(FAIL, f"{errors} uncorrectable memory errors", "gpu_memory", "reset_gpu")
    if gpu.remap_pending:
        return say(WARN, "a memory row waits for a reset to be remapped", "gpu_reset", "drain")
    if gpu.retire_pending:
        return say(WARN, "a memory page waits for a reset to be retired", "gpu_reset", "drain")
    if errors >= settings.warn_uncorrected:
        return say(WARN, f"{errors} uncorrectable memory error{'s' * (errors > 1)}", "gpu_memory", "drain")
    return None
