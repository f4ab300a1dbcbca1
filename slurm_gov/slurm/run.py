"""Running one of Slurm's commands: with a time limit, a clean environment, and a clear error."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence

from slurm_gov.slurm.client import SlurmError, SlurmUnavailable

# What these commands say when they cannot reach their daemon, on every version seen (22.05, 24.11, 26.05).
_UNREACHABLE = (
    "unable to contact slurm controller",
    "connect failure",
    "connection refused",
    "connection reset",
    "communication",
    "socket timed out",
    "timed out",
    "unable to connect",
    "problem talking to the database",
    "problem getting",
    "slurm_persist_conn_open",
    "zero bytes were transmitted",
    "configuration source",
    "protocol authentication error",
    "backup controller",
    "standby mode",
    "munge",
)
PATIENCE = 10.0
"""Seconds for which a killed command may take to be gone: it may hang in the kernel, on a file server."""
_KEPT = ("SLURM_CONF",)
_OURS = ("SLURM", "SQUEUE", "SINFO", "SACCT", "SCONTROL", "SCANCEL", "SPRIO", "SSHARE")


def environment() -> dict[str, str]:
    """Our environment less whatever would change what Slurm's commands print; times as epoch seconds."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or not name.startswith(_OURS)}
    # Array task lists are cut at 64 characters unless told otherwise.
    return kept | {"SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0", "LC_ALL": "C.UTF-8"}


async def run(args: Sequence[str], timeout: float, input: str | None = None) -> str:
    """Run a command and return what it printed.

    Raises ``SlurmUnavailable`` if it does not end within ``timeout`` seconds, is not installed, or says that it
    cannot reach its daemon; ``SlurmError`` with its own words if it fails otherwise.
    """
    code, out, err = await run_raw(args, timeout, input)
    if code != 0:
        raise failure(args, err or out or f"exit code {code}")
    return out


async def run_raw(
    args: Sequence[str], timeout: float, input: str | None = None, more: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Run a command: its exit code, standard output and standard error, whatever they are. ``more`` is added to its
    environment.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *args,
            stdin=asyncio.subprocess.PIPE if input is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment() | dict(more or {}),
        )
    except FileNotFoundError:
        raise SlurmUnavailable(f"{args[0]} is not installed, or not in PATH") from None
    except OSError as error:
        raise SlurmUnavailable(f"{args[0]} cannot be run: {error.strerror}") from None
    talking = asyncio.ensure_future(process.communicate(input.encode() if input is not None else None))
    try:
        done, _ = await asyncio.wait({talking}, timeout=timeout)
        if not done:
            raise SlurmUnavailable(f"{_name(args)} did not answer within {timeout:g} s")
        out, err = talking.result()
    finally:
        if not talking.done() or process.returncode is None:
            talking.cancel()
            await _end(process)
    return process.returncode or 0, out.decode(errors="surrogateescape"), err.decode(errors="replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it if it still runs, and see that it is gone. Whoever is told to stop meanwhile, perhaps not for the first
    time, stops only then: the event loop may be closed next, and would complain of a process that ends later.
    """
    if process.returncode is None:
        # Not process.kill(): of one that has just ended that takes the exit code, and the event loop complains.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    gone, cancelled, loop = False, False, asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    while not gone and loop.time() < until:
        gone = process.returncode is not None  # and once more, to see that its pipes are closed, too
        try:
            await asyncio.sleep(0.002)
        except asyncio.CancelledError:
            cancelled = True
    if process.stdin is not None:
        _no_matter(process.stdin)
    if cancelled:
        raise asyncio.CancelledError


def _no_matter(given: asyncio.StreamWriter) -> None:
    """It did not read all that it was given: older asyncio (3.11.2) complains of that unless somebody asks."""
    asking = given.wait_closed()
    with contextlib.suppress(StopIteration, OSError):
        asking.send(None)
    asking.close()


def failure(args: Sequence[str], said: str) -> SlurmError:
    """The error for what a command said when it failed."""
    line = " ".join(said.split())
    kind = SlurmUnavailable if any(text in line.lower() for text in _UNREACHABLE) else SlurmError
    return kind(f"{_name(args)}: {line}")


def _name(args: Sequence[str]) -> str:
    """The command with its verb, without the long formats."""
    return " ".join(arg for arg in args[:3] if not arg.startswith("-"))
