"""Faults that somebody injected, for tests and drills. A file that the command writes and the agent watches.

They are shown beside what the checks say, and carry their mark all the way: a drill can always be told from a fault.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from slurm_gov.health.checks import xid
from slurm_gov.health.checks.base import Result
from slurm_gov.health.checks.registry import XID, fault_of


@dataclass(frozen=True, slots=True)
class Injected:
    """One fault. ``code``: the XID, None for any other check. It ends with its boot, unless it ``survives``."""

    number: int
    time: float
    boot_id: str
    check: str
    code: int | None = None
    gpu: int | None = None
    state: str = "fail"
    fault: str | None = None
    message: str = ""
    survives: bool = False

    def __str__(self) -> str:
        what = f"xid {self.code}" if self.code is not None else f"check {self.check} {self.state}"
        gpu = f" on GPU {self.gpu}" if self.gpu is not None else ""
        return f"{self.number}: {what}{gpu}" + (", survives reboots" if self.survives else "")


def load(folder: Path, boot_id: str) -> list[Injected]:
    """Those that hold in this boot. A file that cannot be read holds none."""
    try:
        data = json.loads((folder / "injected.json").read_text())
        found = [Injected(**one) for one in data]
    except (OSError, ValueError, TypeError):
        return []
    return [one for one in found if one.survives or one.boot_id == boot_id]


def save(folder: Path, faults: Iterable[Injected]) -> None:
    """Replace the file. OSError if the folder cannot be written."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = folder / "injected.new"
    new.write_text(json.dumps([asdict(one) for one in faults]))
    new.replace(folder / "injected.json")


def results(
    faults: Iterable[Injected], meanings: Mapping[int, xid.Rule], gpus: Mapping[str, xid.Known]
) -> dict[str, list[tuple[Result, float]]]:
    """What injected faults look like beside real results: by check, each with the time of its injection."""
    found: dict[str, list[tuple[Result, float]]] = {}
    uuids = {known.index: known.uuid for known in gpus.values()}
    for one in faults:
        name = f"gpu {one.gpu}" if one.gpu is not None else ""
        uuid = uuids.get(one.gpu) if one.gpu is not None else None
        if one.code is None:
            message = one.message or "injected"
            fault = one.fault or fault_of(one.check)
            result = Result(one.state, message, name, fault, None, "none", one.gpu, uuid)
            found.setdefault(one.check, []).append((result, one.time))
            continue
        rule = meanings.get(one.code, xid.Rule("warn", "other", "person", "unknown XID"))
        text = f"XID {one.code}: {rule.description or 'no description'} (injected)"
        subject = f"{name} xid {one.code}".strip()
        message = f"{name}: {text}" if name else text
        result = Result(rule.state, message, subject, one.fault or rule.fault, one.code, rule.advice, one.gpu, uuid)
        found.setdefault(XID, []).append((result, one.time))
    return found
