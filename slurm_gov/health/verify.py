"""Verification checks of nodes that are back: run one after another, with the node drained or in a reservation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from slurm_gov.core.health import Verification
from slurm_gov.health.lifecycle import Outcome, Progress, Record
from slurm_gov.health.providers.command import run
from slurm_gov.health.providers.provider import ProviderError
from slurm_gov.health.sights import RESERVATION


class Slurm(Protocol):
    """The part of Slurm's client that is needed."""

    async def reserve(self, name: str, nodes: Iterable[str], seconds: float, maintenance: bool) -> None: ...

    async def resume(self, node: str) -> None: ...

    async def drain(self, node: str, reason: str) -> None: ...

    async def unreserve(self, name: str) -> None: ...


class Verifications:
    """Runs them. Nothing is remembered over a restart: they run again."""

    def __init__(self, slurm: Slurm, failed: type[Exception], account: str, told: Callable[[str, str], None]) -> None:
        self._slurm = slurm
        self._failed = failed
        self._account = account
        self._told = told
        self._tasks: dict[str, tuple[str, asyncio.Task[Outcome]]] = {}
        self._reserved: set[str] = set()

    def outcome(self, record: Record) -> Outcome | None:
        """How the verification of a node's present state is; None if it was not begun."""
        name, task = self._tasks.get(record.node, ("", None))
        if task is None or name != record.operation:
            return None
        return task.result() if task.done() and not task.cancelled() else Outcome(Progress.RUNNING)

    def reserved(self, node: str) -> bool:
        """Whether the node stands undrained in our reservation now."""
        return node in self._reserved

    def ensure(self, record: Record, checks: Sequence[Verification]) -> None:
        """Have them run; harmless if they do, or did."""
        name, _ = self._tasks.get(record.node, ("", None))
        if name != record.operation:
            self.release(record.node)
            self._tasks[record.node] = record.operation, asyncio.create_task(self._run(record, tuple(checks)))

    def release(self, node: str) -> None:
        """End what runs for a node."""
        _, task = self._tasks.pop(node, ("", None))
        if task is not None:
            task.cancel()

    async def stop(self) -> None:
        """End all."""
        tasks = [task for _, task in self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, record: Record, checks: Sequence[Verification]) -> Outcome:
        try:
            for number, check in enumerate(sorted(checks, key=lambda one: one.in_reservation), 1):
                self._told(record.node, f"verification {check.name} runs ({number} of {len(checks)})")
                said = await (self._inside(record, check) if check.in_reservation else self._outside(record, check))
                if said:
                    return Outcome(Progress.FAILED, f"verification {check.name}: {said}")
                self._told(record.node, f"verification {check.name} passed")
        except self._failed as error:
            return Outcome(Progress.FAILED, f"verification: {error}")
        except ProviderError as error:
            return Outcome(Progress.FAILED, f"verification: {error}")
        finally:
            if record.node in self._reserved:
                await asyncio.shield(self._leave(record))
        return Outcome(Progress.DONE)

    async def _outside(self, record: Record, check: Verification) -> str:
        """On this host, with the node's name as last argument and what is known as JSON on standard input."""
        given = {"node": record.node, "pool": record.pool, "fault": record.fault, "reason": record.reason}
        return await self._limited([*check.command, record.node], check, json.dumps(given))

    async def _inside(self, record: Record, check: Verification) -> str:
        """On the node itself, as a job that has it alone, in a reservation that nobody else may use."""
        name = f"{RESERVATION}{record.node}"
        if record.node not in self._reserved:
            await self._slurm.reserve(name, [record.node], 86400.0, True)
            self._reserved.add(record.node)
            await self._slurm.resume(record.node)
        argv = ["srun", f"--reservation={name}", f"--nodelist={record.node}", "-N1", "-n1", "--exclusive", "--quiet"]
        argv += ["--job-name=slurm-gov-verify", f"--time={max(1, round(check.time_limit / 60))}"]
        if self._account:
            argv.append(f"--account={self._account}")
        return await self._limited([*argv, *check.command], check)

    async def _limited(self, argv: Sequence[str], check: Verification, given: str = "") -> str:
        """What is wrong, empty if nothing."""
        work = asyncio.ensure_future(run(argv, given))
        try:
            done, _ = await asyncio.wait({work}, timeout=check.time_limit)
            if not done:
                return f"not done within {check.time_limit:.0f} s"
            code, said = work.result()
        finally:
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        last = said.strip().splitlines()[-1][:200] if said.strip() else ""
        return f"exit code {code}{f': {last}' if last else ''}" if code else ""

    async def _leave(self, record: Record) -> None:
        """Drained first, then out of the reservation: nobody's job may slip in between."""
        try:
            await self._slurm.drain(record.node, record.slurm_reason)
            await self._slurm.unreserve(f"{RESERVATION}{record.node}")
        finally:
            self._reserved.discard(record.node)
