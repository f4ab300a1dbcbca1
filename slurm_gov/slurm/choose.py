"""Which client slurm-govd uses.

``auto`` is Slurm's commands: with 256 nodes and 5,000 jobs a whole snapshot took them 263 ms at the median, and
pyslurm 290 ms, with as much CPU (``python -m bench clients``, bench/RESULTS.md); and pyslurm has to be built anew
with every upgrade of Slurm.
"""

from __future__ import annotations

from collections.abc import Sequence

from slurm_gov.slurm.client import SlurmError
from slurm_gov.slurm.commands import CommandClient
from slurm_gov.slurm.pyslurm_client import PyslurmClient, usable

CLIENTS: Sequence[str] = ("auto", "commands", "pyslurm")


async def choose(kind: str, timeout: float) -> CommandClient:
    """The client of that kind, every call of which may take ``timeout`` seconds.

    ``SlurmError`` says why pyslurm cannot be used where it is asked for.
    """
    if kind != "pyslurm":
        return CommandClient(timeout)
    if reason := await usable(timeout):
        raise SlurmError(f"--client pyslurm: {reason}; `make pyslurm` builds it for the Slurm that is installed")
    return PyslurmClient(timeout)
