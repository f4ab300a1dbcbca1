"""Which of several slurmctlds is the one in control.

``scontrol ping`` does not say: a backup that stands by is UP too. But the one in control writes its number among the
SlurmctldHosts into StateSaveLocation, which all of them share, every few seconds; backups judge by the same file.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from slurm_gov.slurm.client import SlurmError
from slurm_gov.slurm.run import run

_HEARTBEAT = struct.Struct("!QQ")
"""When, in seconds since the epoch, and the number of the host."""


@dataclass(frozen=True, slots=True)
class Controllers:
    """SlurmctldHosts, the primary first, and the folder that they share."""

    hosts: tuple[str, ...]
    state: Path

    def active(self) -> str:
        """The host whose slurmctld is in control, as far as is known: when it died and nobody has taken over yet, it
        is that one still. Raises ``SlurmError`` if it cannot be known.
        """
        if len(self.hosts) == 1:
            return self.hosts[0]
        return self.hosts[_read(self.state / "heartbeat", len(self.hosts))]


def parse(config: str) -> Controllers:
    """Of what ``scontrol show config`` says. Raises ``SlurmError``."""
    hosts = re.findall(r"^SlurmctldHost\[\d+\]\s*= ([^\s(]+)", config, re.MULTILINE)
    state = re.search(r"^StateSaveLocation\s*= (\S+)", config, re.MULTILINE)
    if not hosts or not state:
        raise SlurmError("scontrol show config does not say which hosts have a slurmctld")
    return Controllers(tuple(hosts), Path(state[1]))


async def controllers(timeout: float) -> Controllers:
    """Those of the Slurm here. Raises ``SlurmError``."""
    return parse(await run(["scontrol", "show", "config"], timeout))


def is_here(host: str) -> bool:
    """Whether a SlurmctldHost is this machine: by its name, as slurmctld itself knows it."""
    name = socket.gethostname()
    return host in (name, name.partition(".")[0])


def _read(file: Path, hosts: int) -> int:
    for left in (2, 1, 0):
        try:
            _, number = _HEARTBEAT.unpack(file.read_bytes()[: _HEARTBEAT.size])
        except (OSError, struct.error) as error:
            if left:  # it is being replaced
                time.sleep(0.1)
                continue
            said = error.strerror if isinstance(error, OSError) else "it is cut short"
            raise SlurmError(f"which slurmctld is in control cannot be read from {file}: {said}") from None
        if number < hosts:
            return int(number)
        raise SlurmError(f"{file} says that slurmctld number {number} is in control; slurm.conf has {hosts}")
    raise AssertionError
