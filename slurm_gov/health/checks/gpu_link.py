"""NVLinks that are down.

A job with one link less runs at the speed of the slowest pair, or not at all where the fabric manager shut the GPU
out. GPUs of one node are alike: each must have as many active links as the best of them, or as ``links`` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slurm_gov.health.checks.base import FAIL, Result
from slurm_gov.health.checks.nvml import Gpu


@dataclass(frozen=True, slots=True)
class Settings:
    """How many NVLinks a GPU must have."""

    links: int | None = None  # that every GPU must have; None: the most that any GPU of this node had since boot
    looks: int = 2  # in a row: links train after a reset


def judge(gpus: Sequence[Gpu], memory: Mapping[str, Any], settings: Settings) -> tuple[list[Result], dict[str, Any]]:
    """``memory``: the ``most`` links seen, and looks in a row in which a GPU had fewer (``short``)."""
    asked = [gpu for gpu in gpus if gpu.links_active is not None]
    most = max([memory.get("most", 0), *(gpu.links_active or 0 for gpu in asked)])
    want = settings.links if settings.links is not None else most
    found, short = [], {}
    for gpu in asked:
        if (gpu.links_active or 0) >= want:
            continue
        looks = short[str(gpu.index)] = memory.get("short", {}).get(str(gpu.index), 0) + 1
        if looks >= settings.looks:
            text = f"GPU {gpu.index}: {gpu.links_active} NVLinks active of {want}"
            found.append(Result(FAIL, text, f"gpu {gpu.index}", "gpu_link", None, "reboot", gpu.index, gpu.uuid))
    return found, {"most": most, "short": short}
