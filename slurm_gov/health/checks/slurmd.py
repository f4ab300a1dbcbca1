"""Is slurmd alive? It must listen on its port, and take the connections that wait there.

Nothing is sent to it: the kernel's table tells both. The queue of a listening socket is what nobody has accepted yet.
Slurm itself notices a dead slurmd only after SlurmdTimeout (five minutes as shipped).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slurm_gov.health.checks.base import FAIL, UNKNOWN, Look, Memory, Outcome, Probe, Result, read


@dataclass(frozen=True, slots=True)
class Settings:
    """Where slurmd listens, and how long it may not."""

    port: int = 6818  # SlurmdPort, or this node's Port
    # Looks in a row: a restart of slurmd takes a second or two, a busy one accepts within one.
    looks: int = 3


def parse(table: str, port: int) -> int | None:
    """Connections that wait to be accepted on a port, from the text of /proc/net/tcp; None if nobody listens."""
    waiting = None
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 4 and fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
            waiting = (waiting or 0) + int(fields[4].partition(":")[2], 16)
    return waiting


def judge(waiting: int | None, memory: Memory, settings: Settings) -> tuple[list[Result], Memory]:
    gone = memory.get("gone", 0) + 1 if waiting is None else 0
    stuck = memory.get("stuck", 0) + 1 if waiting else 0
    found = []
    if gone >= settings.looks:
        found.append(Result(FAIL, f"nobody listens on port {settings.port}", fault="slurmd", advice="reboot"))
    elif stuck >= settings.looks:
        text = f"slurmd does not take connections: {waiting} wait on port {settings.port}"
        found.append(Result(FAIL, text, fault="slurmd", advice="reboot"))
    return found, {"gone": gone, "stuck": stuck}


def run(look: Look, settings: Mapping[str, Any]) -> Outcome:
    mine: Settings = settings["slurmd"]
    tables = [text for name in ("tcp", "tcp6") if (text := read(look.proc / "net" / name)) is not None]
    if not tables:
        return Outcome({"slurmd": [Result(UNKNOWN, f"{look.proc}/net/tcp cannot be read", fault="slurmd")]})
    counts = [count for table in tables if (count := parse(table, mine.port)) is not None]
    results, memory = judge(sum(counts) if counts else None, look.memory, mine)
    return Outcome({"slurmd": results}, memory)


PROBE = Probe("slurmd", every=10, limit=5, settings={"slurmd": Settings}, run=run)
