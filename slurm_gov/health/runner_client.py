"""The agent's side of the runner: a request, an answer within its time, and a new runner if that one died."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import socket
import subprocess
import sys
from typing import Any

log = logging.getLogger("slurm-gov-agent")
_SPARE = 15.0  # seconds beyond a check's own limit: then the runner itself hangs


class RunnerClient:
    """Starts ``slurm_gov.health.runner`` when it is first needed."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = asyncio.Lock()

    async def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """The runner's answer; ``{"error": ...}`` if it has none."""
        try:
            writer = await self._connected()
        except OSError as error:
            return {"error": f"no process can be started: {error.strerror}"}
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        writer.write(json.dumps(request | {"id": number}).encode() + b"\n")
        done, _ = await asyncio.wait([answer], timeout=request["limit"] + _SPARE)
        self._waiting.pop(number, None)
        if done:
            return answer.result()
        log.error("the process that runs the checks does not answer; starting another")
        await self.close()
        return {"error": "the process that runs the checks does not answer"}

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._starting:
            if self._writer and self._reading and not self._reading.done():
                return self._writer
            await self.close()
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "slurm_gov.health.runner"],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    start_new_session=True,
                )
            reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=2**21)
            self._reading = asyncio.create_task(self._read(reader, self._process))
            return self._writer

    async def _read(self, reader: asyncio.StreamReader, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := await reader.readline():
                answer = json.loads(line)
                waiting = self._waiting.get(answer.pop("id"))
                if waiting and not waiting.done():
                    waiting.set_result(answer)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result({"error": "the process that runs the checks ended"})

    async def close(self) -> None:
        """End the runner and what it runs."""
        if self._writer:
            self._writer.close()  # it ends what it runs, then itself
            self._writer = None
        if self._reading:
            await asyncio.wait([self._reading], timeout=1)
            self._reading.cancel()
            await asyncio.wait([self._reading])
            self._reading = None
        if self._process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, 2)
            self._process.kill()
            self._process.wait()
            self._process = None
