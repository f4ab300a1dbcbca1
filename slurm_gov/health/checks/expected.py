"""What Slurm expects of this node: its GPUs and memory, as ``scontrol show node`` tells them. Asked once an hour."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import Any

from slurm_gov.health.checks.base import Look

AGAIN = 3600.0  # seconds: a node's configuration changes seldom, and a thousand nodes ask
AFTER_FAILURE = 300.0


@dataclass(frozen=True, slots=True)
class Expected:
    """None: not known. ``gpus`` counts all types together."""

    gpus: int | None = None
    memory_mb: int | None = None


def parse(text: str) -> Expected:
    """From the output of ``scontrol show node NODE``."""
    gres = re.search(r"^\s*Gres=(\S*)", text, re.MULTILINE)
    memory = re.search(r"\bRealMemory=(\d+)", text)
    if gres is None:
        return Expected()
    return Expected(count_gpus(gres[1]), int(memory[1]) if memory else None)


def count_gpus(gres: str) -> int:
    """GPUs in a Gres such as ``gpu:h100:8(S:0-1),shard:64`` or ``gpu:a100:2,gpu:t4:1`` or ``gpu``."""
    total = 0
    for part in re.sub(r"\([^)]*\)", "", gres).split(","):
        words = part.split(":")
        if words[0] == "gpu":
            total += int(words[-1]) if words[-1].isdigit() else 1
    return total


def expected(look: Look) -> tuple[Expected, dict[str, Any]]:
    """What Slurm expects, and what to remember under ``slurm``. What was known once stays so while nobody answers."""
    known = look.memory.get("slurm") or {}
    told = Expected(known.get("gpus"), known.get("memory_mb"))
    if look.now - known.get("asked", 0) < known.get("again", AGAIN) and look.now >= known.get("asked", 0):
        return told, dict(known)
    answer = ask(look.node)
    told = answer or told
    again = AGAIN if answer else AFTER_FAILURE
    return told, {"asked": look.now, "again": again, "gpus": told.gpus, "memory_mb": told.memory_mb}


def ask(node: str) -> Expected | None:
    """Ask slurmctld; None if it does not answer or does not know the node."""
    try:
        done = subprocess.run(
            ["scontrol", "show", "node", "--", node], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = parse(done.stdout)
    return found if done.returncode == 0 and found != Expected() else None
