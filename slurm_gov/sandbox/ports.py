"""Free TCP ports for a sandbox, reserved so that two sandboxes never pick the same ones.

A block of ports is reserved by binding an abstract Unix socket named after it: the kernel lets one process
do that, everybody on the machine sees it, no file is left behind, and it ends with the last process that
holds it. `up` holds it while it starts daemons; the database server inherits it and holds it afterwards,
so ports stay reserved while a daemon is restarted.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field
from pathlib import Path

from slurm_gov.sandbox.errors import SandboxError

_FIRST = 10_000
_BLOCK = 64


@dataclass
class Ports:
    """A range of reserved ports: slurmdbd's, slurmctld's, the MQTT broker's, slurm-govd's, that of the one beside a
    backup controller, then one per node."""

    base: int
    locks: list[socket.socket] = field(default_factory=list, repr=False)

    @property
    def slurmdbd(self) -> int:
        return self.base

    @property
    def slurmctld(self) -> int:
        return self.base + 1

    @property
    def mqtt(self) -> int:
        return self.base + 2

    @property
    def governor(self) -> int:
        return self.base + 3

    @property
    def backup_governor(self) -> int:
        return self.base + 4

    @property
    def first_node(self) -> int:
        return self.base + 5

    def release(self) -> None:
        """Let go of our own hold on the reservation."""
        for lock in self.locks:
            lock.close()
        self.locks.clear()


def reserve(nodes: int) -> Ports:
    """Find and reserve ports for a sandbox of that many nodes, below the range of outgoing connections."""
    count = nodes + 5
    blocks = -(-count // _BLOCK)
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    base = _FIRST
    while base + blocks * _BLOCK <= end:
        locks: list[socket.socket] = []
        with contextlib.ExitStack() as undo:
            for number in range(base, base + blocks * _BLOCK, _BLOCK):
                lock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                try:
                    lock.bind(f"\0slurm-gov-sandbox-ports-{number}")
                except OSError:
                    break
                locks.append(lock)
            else:
                if all(_is_free(port) for port in range(base, base + count)):
                    undo.pop_all()
                    return Ports(base, locks)
        base += _BLOCK
    raise SandboxError(f"no {count} free ports in a row between {_FIRST} and {end}")


def is_listening(port: int, address: str = "") -> bool:
    """Whether some process of this machine listens on a TCP port, of that IPv4 address if one is given; asks the
    kernel, disturbs no daemon.
    """
    number = f"{int.from_bytes(socket.inet_aton(address), 'little'):08X}" if address else ""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError), Path(table).open() as lines:
            for line in lines:
                fields = line.split()
                where, _, its_port = fields[1].rpartition(":")
                if fields[3] == "0A" and int(its_port, 16) == port and where.startswith(number):
                    return True
    return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
