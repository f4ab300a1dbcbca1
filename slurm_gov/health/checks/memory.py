"""Main memory: what is left, pages that the kernel took out of use, errors that the controller counted, size.

An uncorrectable error kills the process that owned the page, and the next one will, too. Memory that is gone makes
slurmd register with less than its configuration says, and Slurm drains the node with "Low RealMemory".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_gov.health.checks.base import FAIL, UNKNOWN, WARN, Look, Memory, Outcome, Probe, Result, number, read
from slurm_gov.health.checks.expected import expected


@dataclass(frozen=True, slots=True)
class Settings:
    """What is too little, and what too many."""

    warn_available: float = 2.0  # percent of all memory: the OOM killer is near, and it may choose slurmd
    fail_corrupted_kb: int = (
        4096  # HardwareCorrupted in /proc/meminfo; single 4 KiB pages come and stay on healthy nodes
    )
    # Corrected errors an hour: vendors replace a DIMM at some thousands a day.
    warn_corrected: int = 1000
    # Uncorrected errors of the DIMMs since boot that are too many.
    fail_uncorrected: int = 1
    expect_mb: int | None = None  # None: RealMemory of the node in Slurm
    tolerance: float = 1.0  # percent that may be missing: what the kernel and its crash kernel keep for themselves


@dataclass(frozen=True, slots=True)
class Reading:
    """``info`` in KiB as in /proc/meminfo; errors of all memory controllers since boot, None without EDAC."""

    info: Mapping[str, int]
    corrected: int | None = None
    uncorrected: int | None = None
    expect_mb: int | None = None


def parse_meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo, in KiB (counts as they are)."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        value = number(rest.split()[0]) if rest.split() else None
        if value is not None:
            found[name] = value
    return found


def judge(reading: Reading, memory: Memory, now: float, settings: Settings) -> tuple[list[Result], Memory]:
    info, found = reading.info, []
    total = info.get("MemTotal", 0)
    if not total:
        return [Result(UNKNOWN, "MemTotal is not in meminfo", fault="memory")], memory
    available = 100 * info.get("MemAvailable", total) / total
    if available < settings.warn_available:
        found.append(Result(WARN, f"{available:.1f} % of memory available", "available", "memory"))
    corrupted = info.get("HardwareCorrupted", 0)
    if corrupted >= settings.fail_corrupted_kb:
        found.append(Result(FAIL, f"{corrupted} KiB of memory corrupted", "corrupted", "memory", advice="replace"))
    if reading.uncorrected is not None and reading.uncorrected >= settings.fail_uncorrected:
        text = f"{reading.uncorrected} uncorrected memory errors since boot"
        found.append(Result(FAIL, text, "uncorrected", "memory", advice="replace"))
    if reading.corrected is not None:
        since, first = memory.get("since", now), memory.get("corrected", reading.corrected)
        if reading.corrected < first or now - since > 3600 or now < since:
            since, first = now, reading.corrected
        if reading.corrected - first >= settings.warn_corrected:
            text = f"{reading.corrected - first} corrected memory errors within an hour"
            found.append(Result(WARN, text, "corrected", "memory", advice="person"))
        memory = {**memory, "since": since, "corrected": first}
    expect = settings.expect_mb if settings.expect_mb is not None else reading.expect_mb
    if expect and total / 1024 < expect * (1 - settings.tolerance / 100):
        text = f"{total // 1024} MB of memory, {expect} expected"
        found.append(Result(FAIL, text, "size", "memory", advice="replace"))
    return found, memory


def run(look: Look, settings: Mapping[str, Any]) -> Outcome:
    mine: Settings = settings["memory"]
    text = read(look.proc / "meminfo")
    if text is None:
        return Outcome({"memory": [Result(UNKNOWN, f"{look.proc / 'meminfo'} cannot be read", fault="memory")]})
    kept = dict(look.memory)
    expect_mb = None
    if mine.expect_mb is None:
        told, kept["slurm"] = expected(look)
        expect_mb = told.memory_mb
    edac = look.sys / "devices/system/edac/mc"
    reading = Reading(parse_meminfo(text), _sum(edac, "ce_count"), _sum(edac, "ue_count"), expect_mb)
    results, memory = judge(reading, kept, look.now, mine)
    return Outcome({"memory": results}, memory)


def _sum(edac: Path, name: str) -> int | None:
    counts = [number(read(file)) for file in sorted(edac.glob(f"mc[0-9]*/{name}"))]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


PROBE = Probe("memory", every=60, limit=20, settings={"memory": Settings}, run=run)
