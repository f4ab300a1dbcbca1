"""Mounts that hang, and mounts that are missing.

A dead NFS or Lustre server makes every process that touches the mount hang in the kernel, and a job that finds an
empty mount point writes to the wrong disk or dies. Each mount is touched by a process of its own, since that
process may hang for good; it is left behind then, and the answer is given all the same.
"""

from __future__ import annotations

import os
import re
import select
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slurm_gov.health.checks.base import FAIL, UNKNOWN, Look, Outcome, Probe, Result, read

# File systems whose server may go away. fuse.* and the like match by their beginning.
NETWORK = (
    "nfs",
    "nfs4",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "cephfs",
    "cifs",
    "smb3",
    "9p",
    "afs",
    "wekafs",
    "panfs",
    "glusterfs",
)
_FUSE_LOCAL = ("fuse.lxcfs", "fuse.gvfsd-fuse", "fuse.portal", "fuseblk", "fusectl")


@dataclass(frozen=True, slots=True)
class Settings:
    """``required``: must be mounted. Network mounts are all touched, except those in ``ignore``."""

    required: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    # A busy server may take seconds; what takes longer than this makes jobs fail, too.
    seconds: float = 10.0


def network_mounts(mounts: str) -> list[str]:
    """Mount points of network file systems, from the text of /proc/mounts."""
    found = {}
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point, kind = unescape(fields[1]), fields[2]
        remote = kind in NETWORK or (kind.startswith("fuse.") and not kind.startswith(_FUSE_LOCAL))
        found[point] = remote  # the last line of a mount point is the one that is seen
    return [point for point, remote in found.items() if remote]


def missing(mounts: str, required: Sequence[str]) -> list[Result]:
    """One result for each required mount point where nothing is mounted."""
    there = {unescape(fields[1]) for line in mounts.splitlines() if len(fields := line.split()) > 2}
    return [
        Result(FAIL, f"{point} is not mounted", point, "storage", advice="reboot")
        for point in required
        if (point.rstrip("/") or "/") not in there
    ]


def touch_all(points: Sequence[str], seconds: float, touch: Any = os.statvfs) -> list[Result]:
    """Touch every mount at once; those that do not answer in time hang, and their processes are left behind."""
    waiting: dict[int, tuple[str, int]] = {}  # pidfd to mount point and pid
    for point in points:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                touch(point)
                code = 0
            except OSError as error:
                code = min(error.errno or 1, 250)
            finally:
                os._exit(code)
        waiting[os.pidfd_open(pid)] = point, pid
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    found, end = [], time.monotonic() + seconds
    while waiting and (left := end - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            poll.unregister(fd)
            point, pid = waiting.pop(fd)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os.close(fd)
            if code:
                why = os.strerror(code) if code > 0 else f"signal {-code}"
                found.append(Result(FAIL, f"{point}: {why}", point, "storage", advice="reboot"))
    for fd, (point, pid) in waiting.items():
        os.kill(pid, signal.SIGKILL)  # a process stuck in the kernel dies of it when its server comes back
        os.close(fd)
        found.append(Result(FAIL, f"{point} hangs: no answer in {seconds:.0f} s", point, "storage", advice="reboot"))
    return found


def run(look: Look, settings: Mapping[str, Any]) -> Outcome:
    mine: Settings = settings["mounts"]
    mounts = read(look.proc / "mounts")
    if mounts is None:
        return Outcome({"mounts": [Result(UNKNOWN, f"{look.proc / 'mounts'} cannot be read", fault="storage")]})
    absent = missing(mounts, mine.required)
    gone = {result.subject for result in absent}
    points = dict.fromkeys([*network_mounts(mounts), *mine.required])
    return Outcome(
        {"mounts": absent + touch_all([p for p in points if p not in gone and p not in mine.ignore], mine.seconds)}
    )


def unescape(field: str) -> str:
    """A path as /proc/mounts writes it: spaces and the like in octal."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), field)


PROBE = Probe("mounts", every=60, limit=30, settings={"mounts": Settings}, run=run)
