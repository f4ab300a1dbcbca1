"""What every check gets and gives. Plain data, so that it travels between processes as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OK, WARN, FAIL, UNKNOWN = "ok", "warn", "fail", "unknown"
BADNESS = {FAIL: 0, UNKNOWN: 1, WARN: 2, OK: 3}


@dataclass(frozen=True, slots=True)
class Result:
    """What a check says about one subject. The words are those of ``messages.CheckResult``."""

    state: str
    message: str = ""
    subject: str = ""
    fault: str | None = None
    code: int | None = None
    advice: str = "none"
    gpu_index: int | None = None
    gpu_uuid: str | None = None


Memory = Mapping[str, Any]
"""What a probe wants to know again at its next run: JSON. Empty after a reboot."""


@dataclass(frozen=True, slots=True)
class Look:
    """Where and when a probe looks. Tests point the paths at fixtures."""

    node: str
    now: float  # seconds since 1970
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    kernel_log: str = "/dev/kmsg"
    memory: Memory = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results by check, and what to remember. An empty list: all is well; None: there was nothing to look at."""

    results: Mapping[str, list[Result] | None]
    memory: Memory = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Probe:
    """What runs in one process: one look at something, judged by one or more checks.

    ``every`` and ``limit`` are seconds. ``settings`` maps each check to its dataclass of thresholds; ``run`` gets
    those in force, by check.
    """

    name: str
    every: float
    limit: float
    settings: Mapping[str, type]
    run: Callable[[Look, Mapping[str, Any]], Outcome]


def read(file: Path) -> str | None:
    """A small file's text without spaces around it; None if it cannot be read."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return None


def number(text: str | None) -> int | None:
    """A decimal number, None if it is none."""
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None
