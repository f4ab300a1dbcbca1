"""Reboots and replacements under way: at most one per node, each with its time limit, tried again after a while.

How far each is stands in the journal, so that the next daemon goes on where this one died.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

from slurm_gov.core.health import Provider as Rules
from slurm_gov.core.health import Repair
from slurm_gov.health.board import line
from slurm_gov.health.journal import Journal, JournalError, Operation
from slurm_gov.health.lifecycle import Outcome, Progress, Record, State
from slurm_gov.health.messages import Fault, Request
from slurm_gov.health.providers.provider import Provider, ProviderError

LONGEST_BACKOFF = 3600.0
STATUS_LIMIT = 10.0
SAID_EVERY = 2.0
"""Seconds between two words of a provider that are written down."""


class Operations:
    """Runs them. ``told(operation)`` is called whenever one gets further; ``may()`` before a provider is asked, and
    raises if it must not be.
    """

    def __init__(
        self,
        journal: Journal,
        clock: Callable[[], float],
        told: Callable[[Operation], None],
        may: Callable[[], object] = lambda: None,
    ) -> None:
        self._may = may
        self._journal = journal
        self._clock = clock
        self._told = told
        self._known = journal.operations(running=False)
        self._tasks: dict[str, tuple[str, asyncio.Task[None]]] = {}

    def outcome(self, record: Record) -> Outcome | None:
        """How the operation of a node's present state is; None if it was not begun."""
        one = self._known.get(record.operation)
        return Outcome(Progress(one.progress), one.message) if one else None

    def attempt(self, record: Record) -> Operation | None:
        """The operation of a node's present state."""
        return self._known.get(record.operation)

    def ensure(self, record: Record, provider: Provider, rules: Rules) -> None:
        """Have the operation of a rebooting or replacing node run; harmless if it does, or did."""
        name, node = record.operation, record.node
        one = self._known.get(name)
        if one and one.progress != Progress.RUNNING:
            return
        of, task = self._tasks.get(node, ("", None))
        if one and task and of == name:
            if not task.done():
                return
            # It ended by an error of ours: the journal could not be written.
            self._told(replace(one, message=f"begun again after: {task.exception()}"))
        self.release(node)
        if one is None:
            repair = Repair.REBOOT if record.state is State.REBOOTING else Repair.REPLACE
            now = self._clock()
            one = Operation(name, node, repair, 1, now, now, str(Progress.RUNNING))
            self._keep(one)
        self._tasks[node] = name, asyncio.create_task(self._run(one, record, provider, rules))

    def release(self, node: str) -> None:
        """Stop looking after whatever runs for a node; what a provider has begun, it may end."""
        running = self._tasks.pop(node, None)
        if running and not running[1].done():
            running[1].cancel()
            one = self._known.get(running[0])
            if one and one.progress == Progress.RUNNING:
                self._keep(replace(one, progress=str(Progress.FAILED), message="given up: the node was let go"))

    async def stop(self) -> None:
        """End the tasks, leaving the journal as it is: the next daemon goes on."""
        tasks = [task for _, task in self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, one: Operation, record: Record, provider: Provider, rules: Rules) -> None:
        while True:
            await asyncio.sleep(max(0.0, one.tried - self._clock()))
            failed = await self._try(one, record, provider, rules)
            if failed is None:
                return
            if failed.final or one.attempt >= rules.attempts:
                self._keep(replace(one, progress=str(Progress.FAILED), message=str(failed)))
                return
            wait = min(rules.backoff * 2 ** (one.attempt - 1), LONGEST_BACKOFF)
            message = f"{failed}; tried again after {wait:.0f} s"
            one = replace(one, attempt=one.attempt + 1, tried=self._clock() + wait, message=message)
            self._keep(one)

    async def _try(self, one: Operation, record: Record, provider: Provider, rules: Rules) -> ProviderError | None:
        kinds = {str(kind) for kind in Fault}
        request = Request(
            node=one.node,
            id=f"{one.name}.{one.attempt}"[-80:],
            time=one.tried,
            operation="reboot" if one.repair is Repair.REBOOT else "replace",
            deadline=one.tried + rules.time_limit,
            attempt=one.attempt,
            pool=record.pool,
            fault=Fault(record.kind) if record.kind in kinds else None,
            reason=record.reason[:400],
            injected=record.injected,
        )
        self._may()
        work = asyncio.ensure_future(provider.operate(request, self._hears(one)))
        try:
            done, _ = await asyncio.wait({work}, timeout=max(1.0, request.deadline - self._clock()))
            if not done:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                return ProviderError(f"not done within {rules.time_limit:.0f} s{await self._status(one, provider)}")
            self._keep(replace(one, progress=str(Progress.DONE), message=work.result()))
        except ProviderError as error:
            return error
        finally:
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        return None

    async def _status(self, one: Operation, provider: Provider) -> str:
        """What a provider that did not get done knows of the node, if it says so soon."""
        try:
            async with asyncio.timeout(STATUS_LIMIT):
                return f"; its provider says: {line(await provider.status(one.node), 200)}"
        except (ProviderError, TimeoutError):
            return ""

    def _hears(self, one: Operation) -> Callable[[str], None]:
        """Takes what a provider says meanwhile, for people; of many words in a short time only the first."""
        last, said = float("-inf"), ""

        def hear(text: str) -> None:
            nonlocal last, said
            text = line(text, 300)
            if text and text != said and self._clock() >= last + SAID_EVERY:
                last, said = self._clock(), text
                with contextlib.suppress(JournalError):  # it is only for people
                    self._keep(replace(one, message=text))

        return hear

    def _keep(self, one: Operation) -> None:
        self._journal.keep_operation(one)
        self._known[one.name] = one
        self._told(one)
