"""The kernel's log, as it comes: /dev/kmsg, or journalctl where a service may not read that.

Reading /dev/kmsg never waits and asks no driver, so it needs no process of its own; and an XID is known in the
moment in which the kernel writes it. Records that programs wrote there themselves are left out: anybody who may
write to /dev/kmsg could forge an XID otherwise.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """``uptime``: when it was written, in seconds since boot."""

    uptime: float
    text: str


def parse_kmsg(record: str) -> Line | None:
    """A record of /dev/kmsg: ``PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;TEXT``; None if it is not the kernel's own."""
    head, separator, rest = record.partition(";")
    fields = head.split(",")
    if not separator or len(fields) < 3 or not (fields[0].isdigit() and fields[2].isdigit()):
        return None
    if int(fields[0]) >> 3 != 0:  # facility 0 is the kernel; writers to /dev/kmsg cannot choose it
        return None
    return Line(int(fields[2]) / 1e6, rest.partition("\n")[0])


def parse_journal(line: str) -> Line | None:
    """A line of ``journalctl --dmesg --output=json``; None if it is not the kernel's own."""
    try:
        entry = json.loads(line)
        text = entry["MESSAGE"]
        if not isinstance(text, str) or (entry["_TRANSPORT"], entry["SYSLOG_FACILITY"]) != ("kernel", "0"):
            return None
        return Line(int(entry.get("_SOURCE_MONOTONIC_TIMESTAMP") or entry["__MONOTONIC_TIMESTAMP"]) / 1e6, text)
    except (ValueError, KeyError, TypeError):
        return None


class KernelLog:
    """An open kernel log. ``source``: a path with records of /dev/kmsg's form, or ``journal``.

    The first ``read`` gives everything since boot that the kernel still has.
    """

    def __init__(self, source: str) -> None:
        self._parse = parse_journal if source == "journal" else parse_kmsg
        self._child: int | None = None
        self._rest = b""
        if source == "journal":
            self.fd, self._child = _journal()
        else:
            self.fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._records = source != "journal" and stat.S_ISCHR(os.fstat(self.fd).st_mode)

    def read(self, limit: int = 2000) -> Iterator[Line]:
        """What came since; at most so many reads, so that a flood of messages cannot hold anybody up."""
        for _ in range(limit):
            try:
                data = os.read(self.fd, 8192 if self._records else 65_536)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EPIPE:  # overwritten before we read it; the next read goes on
                    continue
                raise
            if not data:
                return
            if self._records:
                records = [data]
            else:
                *records, self._rest = (self._rest + data).split(b"\n")
            for record in records:
                line = self._parse(record.decode(errors="replace"))
                if line:
                    yield line

    def close(self) -> None:
        os.close(self.fd)
        if self._child is not None:
            os.kill(self._child, 15)
            os.waitpid(self._child, 0)


def wall_clock(uptime: float) -> float:
    """A time since boot as seconds since 1970. The kernel's stamps do not count time asleep; servers do not sleep."""
    return time.time() - time.clock_gettime(time.CLOCK_MONOTONIC) + uptime


def _journal() -> tuple[int, int]:
    out, into = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(out, False)
    argv = ["journalctl", "--dmesg", "--follow", "--lines=all", "--output=json", "--no-pager", "--quiet"]
    actions = [(os.POSIX_SPAWN_DUP2, into, 1), (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
    try:
        return out, os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)
    except OSError:
        os.close(out)
        raise
    finally:
        os.close(into)
