"""Tasks stuck in the kernel (state D).

A task in uninterruptible sleep for minutes waits for a device or a server that does not answer. No signal ends it,
so Slurm cannot clean up the job, and the node ends as "Kill task failed".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slurm_gov.health.checks.base import FAIL, WARN, Look, Memory, Outcome, Probe, Result, read


@dataclass(frozen=True, slots=True)
class Settings:
    """Seconds that one and the same task is seen in state D at every look."""

    # A write to a slow disk or a Lustre eviction takes a minute or two, and passes.
    warn_after: float = 180.0
    # Slurm's UnkillableStepTimeout is one minute; after ten nothing passes by itself.
    fail_after: float = 600.0


@dataclass(frozen=True, slots=True)
class Task:
    """A process in state D; ``start`` in clock ticks since boot tells it from a later one of the same id."""

    pid: int
    name: str
    start: int


def parse(stat: str) -> tuple[Task, str] | None:
    """A task and its state from the text of /proc/PID/stat. The name may hold spaces and parentheses."""
    head, _, tail = stat.rpartition(")")
    pid, _, name = head.partition(" (")
    fields = tail.split()
    if len(fields) < 20 or not pid.isdigit():
        return None
    return Task(int(pid), name, int(fields[19])), fields[0]


def judge(stuck: Iterable[Task], memory: Memory, now: float, settings: Settings) -> tuple[list[Result], Memory]:
    """What to say about tasks that are in state D now, knowing since when each was seen so."""
    kept = {f"{task.pid} {task.start}": (memory.get(f"{task.pid} {task.start}", now), task) for task in stuck}
    found = []
    long = sorted((since, task.pid, task.name) for since, task in kept.values() if now - since >= settings.warn_after)
    if long:
        since, pid, name = long[0]
        state = FAIL if now - since >= settings.fail_after else WARN
        more = f" and {len(long) - 1} more" if len(long) > 1 else ""
        found.append(
            Result(
                state, f"{name} ({pid}){more} in state D for {_minutes(now - since)}", fault="kernel", advice="reboot"
            )
        )
    return found, {key: since for key, (since, _) in kept.items()}


def run(look: Look, settings: Mapping[str, Any]) -> Outcome:
    results, memory = judge(_stuck(look), look.memory, look.now, settings["tasks"])
    return Outcome({"tasks": results}, memory)


def _stuck(look: Look) -> Iterator[Task]:
    for entry in look.proc.iterdir():
        if entry.name.isdigit() and (text := read(entry / "stat")) and (told := parse(text)) and told[1] == "D":
            yield told[0]


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


PROBE = Probe("tasks", every=60, limit=20, settings={"tasks": Settings}, run=run)
