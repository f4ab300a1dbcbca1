"""InfiniBand and RoCE ports: links that are down, slow, or flap.

One lost rail of a multi-rail node slows or hangs every job across it; a link that goes down and up again within
seconds shows nowhere but in its counter. A port counts once it was seen active in this boot: unused ports of a card
are no fault. ``ports`` or ``count`` say what must be there from the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_gov.health.checks.base import FAIL, WARN, Look, Memory, Outcome, Probe, Result, number, read


@dataclass(frozen=True, slots=True)
class Settings:
    """What must be there, and how often it may fail."""

    ports: tuple[str, ...] = ()  # as mlx5_0/1: must be active
    count: int | None = None  # so many ports must be active
    ignore: tuple[str, ...] = ()
    rate: float | None = None  # Gb/s that every active port must have; None: what the port had at first
    looks: int = 3  # in a row that a link is down: training after a cable or switch event takes seconds
    warn_flaps: int = 2  # within ``window``: NCCL survives some, slowly
    fail_flaps: int = 5
    window: float = 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class Port:
    """A port as sysfs shows it. ``downed`` counts how often the link went down, None if not told."""

    name: str  # mlx5_0/1
    active: bool
    state: str  # ACTIVE, DOWN, INIT, ARMED
    physical: str  # LinkUp, Polling, Disabled
    rate: float  # Gb/s
    downed: int | None = None


def read_ports(infiniband: Path) -> list[Port]:
    """All ports below /sys/class/infiniband; none if there is no such hardware."""
    found = []
    for port in sorted(infiniband.glob("*/ports/*")):
        state = _word(read(port / "state"))
        if state is None:
            continue
        rate = (read(port / "rate") or "0").split()[0]
        downed = number(read(port / "counters/link_downed"))
        if downed is None:  # RoCE: counted by the card
            downed = number(read(port / "hw_counters/link_downed"))
        name = f"{port.parent.parent.name}/{port.name}"
        physical = _word(read(port / "phys_state")) or ""
        found.append(Port(name, state == "ACTIVE", state, physical, float(rate), downed))
    return found


def judge(ports: list[Port], memory: Memory, now: float, settings: Settings) -> tuple[list[Result], Memory]:
    """``memory``: per port, ``rate`` when first active, ``down`` looks in a row, and times of ``flaps``."""
    found: list[Result] = []
    kept: dict[str, Any] = {}
    there = {port.name: port for port in ports if port.name not in settings.ignore}
    for name in sorted({*there, *settings.ports, *memory.get("ports", {})} - {*settings.ignore}):
        port, past = there.get(name), dict(memory.get("ports", {}).get(name, {}))
        if port is None or not port.active:
            past["down"] = past.get("down", 0) + 1
            wanted = name in settings.ports or "rate" in past
            if wanted and past["down"] >= settings.looks:
                why = f"{port.state}, {port.physical or 'no physical state'}" if port else "gone"
                found.append(Result(FAIL, f"{name} is not active: {why}", name, "network", advice="person"))
        else:
            past["down"] = 0
            past.setdefault("rate", port.rate)
            want = settings.rate or past["rate"]
            if port.rate < want:
                text = f"{name} runs at {port.rate:g} Gb/s instead of {want:g}"
                found.append(Result(FAIL, text, name, "network", advice="person"))
        if port and port.downed is not None:
            times = [t for t in past.get("flaps", []) if now - settings.window < t <= now]
            times += [now] * min(max(port.downed - past.get("downed", port.downed), 0), 100)
            past |= {"downed": port.downed, "flaps": times[-100:]}
            if len(times) >= settings.warn_flaps and not any(result.subject == name for result in found):
                state = FAIL if len(times) >= settings.fail_flaps else WARN
                text = f"{name} went down {len(times)} times within {settings.window / 60:.0f} min"
                found.append(Result(state, text, name, "network", advice="person"))
        kept[name] = past
    active = sum(port.active for port in there.values())
    missing = memory.get("missing", 0) + 1 if settings.count is not None and active < settings.count else 0
    if missing >= settings.looks:
        found.append(
            Result(FAIL, f"{active} active ports, {settings.count} expected", "count", "network", advice="person")
        )
    return found, {"ports": kept, "missing": missing}


def run(look: Look, settings: Mapping[str, Any]) -> Outcome:
    ports = read_ports(look.sys / "class/infiniband")
    results, memory = judge(ports, look.memory, look.now, settings["infiniband"])
    return Outcome({"infiniband": results}, memory)


def _word(text: str | None) -> str | None:
    """``4: ACTIVE`` as ``ACTIVE``."""
    return text.partition(": ")[2] if text and ": " in text else text


PROBE = Probe("infiniband", every=15, limit=10, settings={"infiniband": Settings}, run=run)
