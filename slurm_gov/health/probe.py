"""Is a node's slurmd there? Asked only of nodes whose agent has gone, by connecting to its port.

slurmctld itself finds out only after SlurmdTimeout; silence on MQTT alone says nothing about the node. A refused
connection means that the host is there and slurmd is not; none at all may be the network's fault.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

TRIES, PAUSE, LIMIT = 3, 1.0, 2.0
"""So many tries must fail, seconds between them, seconds for each."""


class Where(Protocol):
    """Where a slurmd listens."""

    @property
    def address(self) -> str: ...

    @property
    def port(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Gone:
    """A slurmd that is not there. ``since`` in seconds since the epoch; ``refused``: its host answered."""

    since: float
    refused: bool


class Probe:
    """Asks while told to watch. ``changed(node)`` is called when a slurmd turns out to be gone, or back."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._gone: dict[str, Gone] = {}

    def gone(self, node: str) -> Gone | None:
        """Since when, and how, the node's slurmd is gone; None if it is not."""
        return self._gone.get(node)

    def watch(self, node: str, where: Where | None, wanted: bool) -> None:
        """Ask about this node from now on, or no more."""
        task = self._tasks.get(node)
        if not wanted:
            if task is not None:
                self._tasks.pop(node).cancel()
            self._gone.pop(node, None)
        elif where is not None and (task is None or task.done()):
            self._tasks[node] = asyncio.create_task(self._ask(node, where.address, where.port))

    def stop(self) -> None:
        """Ask no more."""
        for task in self._tasks.values():
            task.cancel()

    async def _ask(self, node: str, address: str, port: int) -> None:
        failed, since = 0, 0.0
        while True:
            began = time.time()
            answer = await ask(address, port)
            if answer == "listens":
                failed = 0
                if self._gone.pop(node, None) is not None:
                    self._changed(node)
            else:
                failed += 1
                since = began if failed == 1 else since
                now = Gone(since, answer == "refused")
                if failed >= TRIES and self._gone.get(node) != now:
                    self._gone[node] = now
                    self._changed(node)
            await asyncio.sleep(PAUSE)


async def ask(address: str, port: int) -> str:
    """``listens``, ``refused`` (the host is there, and says no), or ``unreachable``."""
    trying = asyncio.ensure_future(asyncio.open_connection(address, port))
    done, _ = await asyncio.wait({trying}, timeout=LIMIT)
    if not done:
        trying.cancel()
        return "unreachable"
    try:
        _, writer = trying.result()
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "unreachable"
    writer.close()
    return "listens"
