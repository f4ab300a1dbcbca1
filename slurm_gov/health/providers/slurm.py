"""Provider ``slurm``: Slurm's own means. Reboot by RebootProgram; replace by SuspendProgram and ResumeProgram."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from slurm_gov.core.snapshot import Node
from slurm_gov.health import sights
from slurm_gov.health.messages import Request
from slurm_gov.health.providers.provider import ProviderError

POLL = 0.5
UNDRAINED = 60.0
"""Seconds that the reservation around a node lasts if we do not take it away."""


class Slurm(Protocol):
    """The part of Slurm's client that is needed."""

    async def reboot(self, node: str, reason: str) -> None: ...

    async def power(self, node: str, up: bool, reason: str = "") -> None: ...

    async def drain(self, node: str, reason: str) -> None: ...

    async def resume(self, node: str) -> None: ...

    async def reserve(self, name: str, nodes: Iterable[str], seconds: float) -> None: ...

    async def unreserve(self, name: str) -> None: ...


class SlurmProvider:
    """``node`` gives the node as Slurm last showed it; ``failed`` is the error that means a refusal."""

    def __init__(self, slurm: Slurm, node: Callable[[str], Node | None], failed: type[Exception]) -> None:
        self._slurm = slurm
        self._node = node
        self._failed = failed

    async def operate(self, request: Request, say: Callable[[str], None]) -> str:
        try:
            if request.operation == "reboot":
                await self._reboot(request)
                return "rebooted by Slurm"
            await self._replace(request, say)
            return "powered down and up by Slurm"
        except self._failed as error:
            text = str(error)
            raise ProviderError(text, final="Invalid" in text) from None

    async def _reboot(self, request: Request) -> None:
        reason = f"slurm-gov: rebooting: {request.reason}"
        if not self._has(request.node, "REBOOT"):  # else it is at it already, since before a crash of ours
            await self._slurm.reboot(request.node, reason)
        await self._until(request.node, lambda: self._has(request.node, "REBOOT"), 10)
        await self._until(request.node, lambda: not self._has(request.node, "REBOOT"))

    async def _replace(self, request: Request, say: Callable[[str], None]) -> None:
        node, reason = request.node, f"slurm-gov: replacing: {request.reason}"
        if not self._has(node, "POWERED_DOWN", "POWERING_UP"):
            say("Slurm powers it down")
            if not self._has(node, "POWERING_DOWN", "POWER_DOWN"):
                await self._slurm.power(node, up=False, reason=reason)
            await self._until(node, lambda: self._has(node, "POWERING_DOWN", "POWERED_DOWN"))
            await self._slurm.drain(node, reason)  # powering down has lifted it
            await self._until(node, lambda: self._has(node, "POWERED_DOWN"))
        say("Slurm powers it up")
        if not self._has(node, "POWERING_UP"):
            await self._power_up(node, reason)
        await self._until(node, lambda: not self._has(node, "POWERING_UP", "POWER_UP"))

    async def _power_up(self, node: str, reason: str) -> None:
        """Slurm powers no drained node up, and forgets the reason of one that it does; nobody's job may slip in while
        it is not drained.
        """
        name = f"{sights.RESERVATION}{node}"
        await self._slurm.reserve(name, [node], UNDRAINED)
        try:
            if self._has(node, "DRAIN", "DOWN"):
                await self._slurm.resume(node)
            await self._slurm.power(node, up=True)
            await self._until(node, lambda: self._has(node, "POWERING_UP") or not self._has(node, "POWER"), 20)
            await self._slurm.drain(node, reason)
        finally:
            await self._slurm.unreserve(name)

    def _has(self, node: str, *words: str) -> bool:
        there = self._node(node)
        return there is not None and any(flag.startswith(words) for flag in sights.flags(there))

    async def _until(self, node: str, so: Callable[[], bool], limit: float | None = None) -> None:
        """Until it is so; without ``limit`` the operation's own time limit ends it."""
        while not so():
            await asyncio.sleep(POLL)
            if limit is not None:
                limit -= POLL
                if limit <= 0:
                    return

    async def status(self, node: str) -> str:
        there = self._node(node)
        if there is None:
            raise ProviderError(f"Slurm knows no node {node}", final=True)
        return there.state.lower()
