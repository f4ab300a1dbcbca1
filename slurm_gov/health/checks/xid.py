"""XIDs: what the NVIDIA driver reports to the kernel log, and the SXids of NVSwitches.

Which number means what is data, not code: ``xid.tsv`` beside this file, from NVIDIA's catalogue and gpud's, with
three columns of ours (state, fault, advice) that a site may override. XID 154 carries NVIDIA's own advice for that
GPU and wins over whatever the table says. Some stay until the node reboots or somebody clears them; what a job most
likely did itself, and warnings, fade.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from slurm_gov.health.checks.base import BADNESS, FAIL, OK, WARN, Result, read

ADVICE_CODE = 154
# "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"; the numbers are NVML's.
_ADVICE = re.compile(r"action changed from \S+ \([^)]*\) to 0x([0-9a-fA-F]+) \(([^)]*)\)")
_ADVICES = {
    0: (OK, "none"),
    1: (FAIL, "reset_gpu"),
    2: (FAIL, "reboot"),
    3: (WARN, "drain"),
    4: (WARN, "drain"),
    5: (FAIL, "person"),
    6: (FAIL, "reboot"),
    7: (FAIL, "reboot"),
}
_LINE = re.compile(
    r"(?P<kind>NVRM: Xid|nvidia-nvswitch\d+: SXid) \((?:PCI:)?(?P<pci>[0-9a-fA-F:.]{7,20})\): "
    r"(?P<code>\d{1,5}),? *(?P<text>.*)"
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Seconds after which something is no longer said."""

    app_fades: float = 3600.0  # a job's own fault: long enough to be seen beside others of the same job
    warn_fades: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Rule:
    """What one XID means here."""

    state: str
    fault: str
    advice: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Xid:
    """One report. ``pci`` as ``0000:65:00``; ``time`` in seconds since 1970; ``switch``: an SXid."""

    code: int
    pci: str
    text: str
    time: float
    switch: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """A GPU by its PCI address."""

    index: int
    uuid: str | None = None


@cache
def table() -> Mapping[int, Rule]:
    """The rules that come with this version."""
    lines = (Path(__file__).parent / "xid.tsv").read_text().splitlines()
    columns = lines[0].split("\t")
    rows = [dict(zip(columns, line.split("\t"), strict=True)) for line in lines[1:]]
    return {
        int(row["xid"]): Rule(row["state"], row["fault"], row["advice"], row["description"].partition(" -- ")[0])
        for row in rows
    }


def rules(overrides: Mapping[str, Mapping[str, Any]]) -> dict[int, Rule]:
    """The table with a site's changes: XID to any of ``state``, ``fault``, ``advice``."""
    merged = dict(table())
    for code, change in overrides.items():
        old = merged.get(int(code), Rule(WARN, "other", "person", "unknown"))
        given = {key: value for key, value in change.items() if value is not None}
        merged[int(code)] = Rule(
            given.get("state", old.state),
            given.get("fault", old.fault),
            given.get("advice", old.advice),
            old.description,
        )
    return merged


def parse(text: str, time: float) -> Xid | None:
    """An XID or SXid from one line of the kernel log, None if it has none."""
    found = _LINE.search(text)
    if not found:
        return None
    return Xid(int(found["code"]), address(found["pci"]), found["text"], time, found["kind"].endswith("SXid"))


def address(pci: str) -> str:
    """A PCI address as ``0000:65:00``: lower case, four digits of domain, no function."""
    parts = pci.lower().partition(".")[0].split(":")
    domain, bus, device = ["0", *parts][-3:]
    return f"{int(domain or '0', 16):04x}:{int(bus, 16):02x}:{int(device, 16):02x}"


def gpus_of_driver(proc: Path) -> dict[str, Known]:
    """GPUs by PCI address as the driver lists them, which asks no GPU; NVML counts in the same order."""
    folder = proc / "driver/nvidia/gpus"
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return {}
    found = {}
    for index, name in enumerate(names):
        text = read(folder / name / "information") or ""
        uuid = re.search(r"GPU UUID:\s*(GPU-[0-9a-fA-F-]{36})", text)
        found[address(name)] = Known(index, uuid[1] if uuid else None)
    return found


def remember(kept: Iterable[Xid], new: Xid) -> list[Xid]:
    """What is kept after a report: the last one of each number and GPU, and a state that a GPU recovered from not.

    ``GPU recovery action changed ... to None`` ends what was said of that GPU before.
    """
    if new.code == ADVICE_CODE and not new.switch and _advice(new)[0] == OK:
        return [one for one in kept if one.pci != new.pci or one.switch]
    same = (new.code, new.pci, new.switch)
    return [one for one in kept if (one.code, one.pci, one.switch) != same] + [new]


def judge(
    kept: Iterable[Xid], meanings: Mapping[int, Rule], gpus: Mapping[str, Known], now: float, settings: Settings
) -> list[Result]:
    """One result per GPU (or switch) and XID that matters now."""
    kept = list(kept)
    told = {one.pci: _advice(one) for one in kept if one.code == ADVICE_CODE and not one.switch}
    worst: dict[tuple[str, int], Result] = {}
    for one in sorted(kept, key=lambda x: (x.time, x.code)):
        rule = (
            _switch_rule(one) if one.switch else meanings.get(one.code, Rule(WARN, "other", "person", "unknown XID"))
        )
        state, advice = rule.state, rule.advice
        if " nonfatal " in f" {one.text.lower()} " and state == FAIL:  # the NVLink 5 XIDs say it in their text
            state = WARN
        age = now - one.time
        if not one.switch and one.pci in told and rule.fault != "gpu_app":
            state, advice = told[one.pci]
        elif state == WARN and age > (settings.app_fades if rule.fault == "gpu_app" else settings.warn_fades):
            continue
        if state == OK:
            continue
        gpu = gpus.get(one.pci)
        name = f"gpu {gpu.index}" if gpu else f"pci {one.pci}"
        message = _say(one, rule, name)
        result = Result(
            state, message, f"{name} xid {one.code}", rule.fault, one.code, advice,
            gpu.index if gpu else None, gpu.uuid if gpu else None,
        )  # fmt: skip
        worst[name, one.code] = result
    return sorted(worst.values(), key=lambda r: (BADNESS[r.state], r.subject))


def _advice(one: Xid) -> tuple[str, str]:
    found = _ADVICE.search(one.text)
    return _ADVICES.get(int(found[1], 16), (FAIL, "person")) if found else (WARN, "person")


def _switch_rule(one: Xid) -> Rule:
    fatal = one.text.lower().startswith("fatal")
    return Rule(FAIL if fatal else WARN, "gpu_link", "reboot" if fatal else "none", "NVSwitch")


def _say(one: Xid, rule: Rule, name: str) -> str:
    kind = "SXid" if one.switch else "XID"
    said = one.text if one.code == ADVICE_CODE or one.switch else rule.description
    return f"{name}: {kind} {one.code}: {said}"[:300].rstrip(": ")
