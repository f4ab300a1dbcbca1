"""Find every process that belongs to a sandbox, and end exactly those.

No name is ever enough to end a process, and neither is its environment: slurmstepd overwrites its own, and
jobs may empty theirs. So every daemon of a sandbox is started with a resource limit of an odd value that
stands for the sandbox. All its descendants inherit it, through slurmd and slurmstepd down to what a job left
behind in a session of its own, and nobody else has it: not a shell in which SLURM_CONF points here.
The limit is RLIMIT_RTTIME, which Slurm does not propagate from submitters; its value is over thirty years.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slurm_gov.sandbox.errors import SandboxError
from slurm_gov.sandbox.layout import Layout


def mark(layout: Layout) -> int:
    """The limit, in microseconds, that marks the processes of a sandbox."""
    return (1 << 50) + int.from_bytes(hashlib.sha256(os.fsencode(layout.dir)).digest()[:6])


def marked(layout: Layout, argv: Sequence[str]) -> list[str]:
    """A command line that runs argv with the mark."""
    return ["prlimit", f"--rttime={mark(layout)}:{mark(layout)}", "--", *argv]


@dataclass(frozen=True)
class Process:
    """A process as /proc shows it; id and start time together are never used twice."""

    pid: int
    start: int  # in clock ticks since boot
    name: str


def look_up(pid: int) -> Process | None:
    """The process with this id, unless it is gone or only waits for its parent to notice its end."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    name = stat[stat.index("(") + 1 : stat.rindex(")")]
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    return Process(pid, int(fields[19]), name)


def record(layout: Layout, daemon: str, pid: int) -> None:
    """Write down which process is a daemon's."""
    process = look_up(pid)
    if process:
        file = layout.run / f"{daemon}.pid"
        file.with_suffix(".new").write_text(f"{pid} {process.start}\n")
        file.with_suffix(".new").rename(file)


def recorded(layout: Layout) -> dict[str, Process | None]:
    """Every daemon that was started, and its process if that still runs."""
    found: dict[str, Process | None] = {}
    for file in sorted(layout.run.glob("*.pid")):
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid, start = map(int, file.read_text().split())
            process = look_up(pid)
            found[file.stem] = process if process and process.start == start else None
    return found


def find(layout: Layout) -> list[Process]:
    """All processes of a sandbox that run now."""
    number = str(mark(layout)).encode()
    found = {p for p in recorded(layout).values() if p}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # ended meanwhile, or another user's
                if number in (entry / "limits").read_bytes() and (process := look_up(int(entry.name))):
                    found.add(process)
    return list(found)


def end_all(layout: Layout, timeout: float = 20.0) -> int:
    """End every process of a sandbox; returns how many there were.

    At once with SIGKILL: nothing a sandbox knows outlives it, so there is nothing to save.
    """
    deadline = time.monotonic() + timeout
    ended: set[Process] = set()
    while processes := find(layout):
        if time.monotonic() > deadline:
            raise SandboxError(f"these processes do not end: {', '.join(f'{p.name} {p.pid}' for p in processes)}")
        ended.update(processes)
        # The controller first, so that it starts nothing on account of what else we end.
        processes.sort(key=lambda p: p.name != "slurmctld")
        waiting = [fd for p in processes if (fd := _signal(p, signal.SIGKILL)) is not None]
        _wait_all(waiting, timeout=5.0)
    return len(ended)


def stop(process: Process, sig: signal.Signals, timeout: float) -> bool:
    """Send a signal to one process and wait for its end; False if it did not end in time."""
    fd = _signal(process, sig)
    if fd is not None:
        _wait_all([fd], timeout)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    left = look_up(process.pid)
    return left is None or left.start != process.start


def _signal(process: Process, sig: signal.Signals) -> int | None:
    """Signal a process through a pidfd, so that a process that took over the id cannot be hit."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    now = look_up(process.pid)
    if now is None or now.start != process.start:
        os.close(fd)
        return None
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(fd, sig)
    return fd


def _wait_all(pidfds: list[int], timeout: float) -> None:
    """Wait for processes to end (a pidfd is readable then), and close the pidfds."""
    deadline = time.monotonic() + timeout
    poll = select.poll()
    for fd in pidfds:
        poll.register(fd, select.POLLIN)
    left = len(pidfds)
    while left and (rest := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(rest * 1000):
            poll.unregister(fd)
            left -= 1
    for fd in pidfds:
        os.close(fd)
