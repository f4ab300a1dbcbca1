"""Disk space, inodes, and file systems that went read-only.

A full /tmp or spool makes every job on the node fail, one after another (a black hole). A local file system that the
kernel turned read-only has a dying disk under it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slurm_gov.health.checks.base import FAIL, UNKNOWN, WARN, Look, Outcome, Probe, Result, read
from slurm_gov.health.checks.mounts import unescape

# Those that are never written. NFS: its server says what may be written.
_ALWAYS_READ_ONLY = ("squashfs", "erofs", "iso9660", "cramfs", "nfs", "nfs4")


@dataclass(frozen=True, slots=True)
class Settings:
    """``paths`` must be writable and have room; those that do not exist are left out."""

    paths: tuple[str, ...] = ("/", "/tmp", "/var", "/var/tmp", "/dev/shm", "/var/spool/slurmd")
    warn_free: float = 5.0  # percent: time to look, before jobs notice
    fail_free: float = 1.0  # percent: slurmd itself can no longer write a job's script
    fail_free_bytes: int = 100 * 2**20  # 1 % of a large disk is plenty, of a small one nothing
    fail_inodes: float = 0.5  # percent free


@dataclass(frozen=True, slots=True)
class Space:
    """A file system as statvfs(3) tells it; bytes and counts."""

    path: str
    total: int
    free: int
    inodes: int
    inodes_free: int
    read_only: bool


def judge(spaces: list[Space], settings: Settings) -> list[Result]:
    """One result per path that is not well."""
    found = []
    for one in spaces:
        if one.read_only:
            found.append(Result(FAIL, f"{one.path} is read-only", one.path, "storage", advice="reboot"))
            continue
        free = 100 * one.free / one.total if one.total else 100.0
        inodes = 100 * one.inodes_free / one.inodes if one.inodes else 100.0  # some file systems do not count them
        if inodes < settings.fail_inodes:
            found.append(
                Result(FAIL, f"{one.path}: {inodes:.1f} % of inodes free", one.path, "storage", advice="person")
            )
        elif free < settings.fail_free and one.free < settings.fail_free_bytes:
            found.append(Result(FAIL, f"{one.path}: {_size(one.free)} free", one.path, "storage", advice="person"))
        elif free < settings.warn_free:
            found.append(Result(WARN, f"{one.path}: {free:.1f} % free", one.path, "storage", advice="person"))
    return found


def read_only(mountinfo: str, path: str) -> bool:
    """Whether the file system under a path is read-only, from the text of /proc/self/mountinfo.

    The file system itself, not the mount: systemd shows a unit with ProtectSystem=strict all mounts as read-only.
    """
    best, found = -1, False
    for line in mountinfo.splitlines():
        head, separator, tail = line.partition(" - ")
        fields, kinds = head.split(), tail.split()
        if not separator or len(fields) < 6 or len(kinds) < 3:
            continue
        point = unescape(fields[4])
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= best:
            best = len(point)  # of two at the same place the later one is seen
            found = "ro" in kinds[2].split(",") and kinds[0] not in _ALWAYS_READ_ONLY
    return found


def run(look: Look, settings: Mapping[str, Any]) -> Outcome:
    mine: Settings = settings["disk"]
    spaces, unreadable = [], []
    mountinfo = read(look.proc / "self/mountinfo") or ""
    for path in mine.paths:
        try:
            told = os.statvfs(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            broken = error.errno in (errno.EIO, errno.EUCLEAN)  # XFS and ext4 that shut themselves down
            unreadable.append(Result(FAIL if broken else UNKNOWN, f"{path}: {error.strerror}", path, "storage"))
            continue
        room = told.f_frsize
        spaces.append(
            Space(path, told.f_blocks * room, told.f_bavail * room, told.f_files, told.f_favail,
                  read_only(mountinfo, os.path.realpath(path)))
        )  # fmt: skip
    return Outcome({"disk": judge(spaces, mine) + unreadable})


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


PROBE = Probe("disk", every=60, limit=10, settings={"disk": Settings}, run=run)
