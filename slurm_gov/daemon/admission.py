"""The daemon's side of the admission process: start it, tell it what is new, hear what came."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slurm_gov.admission.server import LENGTH, listen
from slurm_gov.admission.view import View
from slurm_gov.daemon.log import log


class Admission:
    """The admission process; started again if it ever ends."""

    def __init__(self, path: Path, on_event: Callable[[dict[str, Any]], None]) -> None:
        self.path = path
        self._on_event = on_event
        self._listening: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._view: View | None = None

    async def start(self) -> None:
        """Listen and answer from now on. Raises ``OSError`` if the socket cannot be had."""
        self._listening = listen(self.path)
        started = asyncio.Event()
        self._task = asyncio.create_task(self._keep_running(started))
        await started.wait()

    async def stop(self) -> None:
        """Stop answering and take the socket away."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._listening:
            self.path.unlink(missing_ok=True)
            self._listening.close()

    def show(self, view: View) -> None:
        """Judge submissions by this from now on."""
        if view != self._view:
            if self._view is None or view.slurm_uid != self._view.slurm_uid:
                self._give_to(view.slurm_uid)
            self._view = view
            self._send()

    def _give_to(self, uid: int) -> None:
        """slurmctld must be able to connect when it does not run as we do; who asks is checked all the same."""
        if uid != os.getuid():
            try:
                os.chown(self.path, uid, -1)
            except OSError as error:
                log.warning("socket not given to SlurmUser", path=str(self.path), uid=uid, error=str(error))

    def _send(self) -> None:
        if self._writer is not None and self._view is not None:
            data = pickle.dumps(self._view, protocol=pickle.HIGHEST_PROTOCOL)
            self._writer.write(LENGTH.pack(len(data)) + data)

    async def _keep_running(self, started: asyncio.Event) -> None:
        assert self._listening is not None
        while True:
            ours, theirs = socket.socketpair()
            numbers = (self._listening.fileno(), theirs.fileno())
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "slurm_gov.admission.server", *map(str, numbers), pass_fds=numbers
            )
            theirs.close()
            reader, self._writer = await asyncio.open_connection(sock=ours)
            self._send()
            started.set()
            while line := await reader.readline():
                with contextlib.suppress(ValueError):  # A line cut short while we were too busy to listen.
                    self._on_event(json.loads(line))
            self._writer.close()
            self._writer = None
            log.error("admission process ended, starting it again", code=await self._process.wait())
            await asyncio.sleep(0.2)
