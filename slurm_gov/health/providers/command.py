"""Provider ``command``: a site's own executable.

It is called as ``COMMAND... reboot|replace|status NODE`` with the request as JSON on its standard input (the fields
of an MQTT request, docs/mqtt.md), and says how it went by its exit code:

====  =================================================================================
0     done (``status``: the last line of its output is the answer)
75    not now: try again later (EX_TEMPFAIL)
64    it cannot do this (EX_USAGE): not tried again
else  failed; the last line of its output says why; tried again, as the policy allows
====  =================================================================================

While it runs, each line that it prints tells people how far it is.

After a crash of slurm-govd it is called again with the same ``id`` and ``attempt``: it must then go on, or find that
it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence

from slurm_gov.health.messages import Request
from slurm_gov.health.providers.provider import ProviderError

CANNOT, LATER = 64, 75
KEPT = 65_536
"""Bytes of what a command printed that are kept: the last."""


class CommandProvider:
    """Runs a command per operation."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)

    async def operate(self, request: Request, say: Callable[[str], None]) -> str:
        return await self._call(request, say)

    async def status(self, node: str) -> str:
        now = time.time()
        request = Request(node=node, id=f"{node}.status", time=now, operation="status", deadline=now + 60)
        return await self._call(request, lambda said: None)

    async def _call(self, request: Request, say: Callable[[str], None]) -> str:
        argv = [*self._command, request.operation, request.node]
        code, said = await run(argv, request.model_dump_json(), say)
        last = said.strip().splitlines()[-1][:300] if said.strip() else f"exit code {code}"
        if code == 0:
            return last if said.strip() else "done"
        if code == LATER:
            raise ProviderError(f"not now: {last}")
        raise ProviderError(last, final=code == CANNOT)


async def run(
    argv: Sequence[str], given: str = "", say: Callable[[str], None] = lambda said: None
) -> tuple[int, str]:
    """Run a command in a session of its own: its exit code and the last that it printed. ``say`` gets each of its
    lines as it comes. Cancelled: all of it is ended.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise ProviderError(f"{argv[0]} cannot be run: {error.strerror}", final=True) from None
    try:
        out, _ = await asyncio.gather(_read(process.stdout, say), _write(process.stdin, given))  # type: ignore[arg-type]
        await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    return process.returncode or 0, out


async def _write(stream: asyncio.StreamWriter, text: str) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it does not read what it is given
        stream.write(text.encode())
        await stream.drain()
        stream.close()
        await stream.wait_closed()


async def _read(stream: asyncio.StreamReader, say: Callable[[str], None]) -> str:
    """The last that was printed, with what is not printable replaced."""
    kept, line = "", b""
    while block := await stream.read(65_536):
        *lines, line = (line + block)[-KEPT:].split(b"\n")
        for one in lines:
            say(_legible(one))
        kept = f"{kept}{_legible(block)}"[-KEPT:]
    return kept


def _legible(text: bytes) -> str:
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text.decode(errors="replace"))
