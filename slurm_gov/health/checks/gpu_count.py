"""Are the GPUs there that Slurm expects, and does each answer?

Slurm counts device files, which stay when a GPU falls off the bus; jobs then start with a GPU that is not there.
A missing driver is said as such: a node without GPUs in Slurm has none to miss.
"""

from __future__ import annotations

from dataclasses import dataclass

from slurm_gov.health.checks.base import FAIL, UNKNOWN, WARN, Result
from slurm_gov.health.checks.nvml import Gpus


@dataclass(frozen=True, slots=True)
class Settings:
    """How many GPUs there must be."""

    expect: int | None = None  # None: the node's Gres in Slurm; where Slurm does not say, the most seen since boot


def judge(seen: Gpus, expect: int | None, settings: Settings) -> list[Result]:
    """``expect``: how many GPUs Slurm says there are, None if it does not answer."""
    want = settings.expect if settings.expect is not None else expect
    if seen.problem:
        if want == 0 or (want is None and seen.problem == "library"):
            return []
        state = UNKNOWN if want is None else FAIL
        advice = "reboot" if seen.problem in ("mismatch", "driver") else "person"
        return [Result(state, seen.message, "driver", "gpu_driver", advice=advice)]
    found = [
        Result(FAIL, f"GPU {gpu.index} does not answer: {gpu.lost}", f"gpu {gpu.index}", "gpu_lost", advice="reboot",
               gpu_index=gpu.index, gpu_uuid=gpu.uuid)
        for gpu in seen.gpus if gpu.lost
    ]  # fmt: skip
    if want is not None and len(seen.gpus) < want:
        text = f"{len(seen.gpus)} GPUs, {want} expected"
        found.append(Result(FAIL, text, "count", "gpu_lost", advice="reboot"))
    elif want is not None and len(seen.gpus) > want:
        text = f"{len(seen.gpus)} GPUs, Slurm knows only {want}"
        found.append(Result(WARN, text, "count", "other", advice="person"))
    return found
