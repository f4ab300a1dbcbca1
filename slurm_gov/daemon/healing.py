"""Sick nodes: the node lifecycle's loop.

Like the governor it looks, decides and acts, and may be killed at any point: the journal has the records, and
everything else is derived anew. It acts on every cycle's snapshot; a report that a node is sick drains it at once.
What is seen, told and done is in ``node_sights``, ``node_news``, ``node_acts`` and ``node_jobs``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from slurm_gov.core.health import Effect, Health, Repair
from slurm_gov.core.policy import Policy
from slurm_gov.core.snapshot import Node, Snapshot
from slurm_gov.daemon.cycle import Cycle
from slurm_gov.daemon.leadership import LEAST, Leadership
from slurm_gov.daemon.log import log
from slurm_gov.daemon.node_acts import NodeActs
from slurm_gov.daemon.node_jobs import NodeJobs
from slurm_gov.daemon.node_news import NodeNews
from slurm_gov.daemon.node_sights import NodeSights
from slurm_gov.database import Where
from slurm_gov.health import sights
from slurm_gov.health.fleet import decide
from slurm_gov.health.journal import KEEP, Journal, JournalError, Operation
from slurm_gov.health.lifecycle import OPERATING, Record, State, parse_reason
from slurm_gov.health.monitor import Broker, Monitor
from slurm_gov.health.operations import Operations
from slurm_gov.health.providers.pools import PoolProviders
from slurm_gov.health.verify import Verifications
from slurm_gov.ledger.event import Event as Deed
from slurm_gov.slurm.client import NodeClient, SlurmClient, SlurmError

WRITE_REPORTS = 15.0
TIDY = 3600.0


class Healer:
    """Heals nodes. ``wake`` starts a cycle of the governor; ``record`` writes every arrow down."""

    def __init__(
        self,
        client: SlurmClient,
        nodes: NodeClient,
        journal: Journal,
        broker: Broker | None,
        wake: Callable[[], None],
        record: Callable[[Deed], None] = lambda one: None,
        may: Callable[[], object] = lambda: None,
    ) -> None:
        self._nodes = nodes
        self._journal = journal
        self._wake = wake
        self._records = journal.records()
        self._cycle: Cycle | None = None
        self._fresh = False
        self._due = asyncio.Event()
        self._reports_written = time.monotonic()
        self._tidied = float("-inf")
        self.monitor = Monitor(broker, lambda node: self._due.set(), journal.reports().values(), _say)
        self._news = NodeNews(journal, self.monitor, record)
        self._operations = Operations(journal, time.time, self._operation_told, may)
        self._verifications = Verifications(nodes, SlurmError, "", self._news.verification)
        self._providers = PoolProviders(nodes, self._node, SlurmError, self.monitor)
        known = (self.monitor, self._operations, self._verifications, self._providers)
        self._sights = NodeSights(nodes, journal, *known, self._due.set)
        self._jobs = NodeJobs(client, nodes, self._news, wake)
        self._acts = NodeActs(nodes, self._jobs, self._news, *known)

    @property
    def records(self) -> Mapping[str, Record]:
        """What is remembered of each node; replaced at each step, never changed."""
        return self._records

    @property
    def alerts(self) -> Mapping[str, str]:
        """What a person should know now, by node, pool or rack."""
        return self._news.alerts

    def see(self, cycle: Cycle | None) -> None:
        """The governor looked at Slurm; None: Slurm does not answer, and nothing is done by what was known."""
        self._cycle = cycle
        if cycle is not None:
            self._fresh = True
            self._due.set()

    async def run(self) -> None:
        """Until cancelled."""
        listening = asyncio.create_task(self.monitor.run())
        try:
            while True:
                await self._due.wait()
                await asyncio.sleep(self.monitor.settling)
                self._due.clear()
                fresh, self._fresh = self._fresh, False
                if self._cycle is not None and self._cycle.policy.health is not None:
                    try:
                        await self._step(self._cycle.policy, self._cycle.policy.health, self._cycle.snapshot, fresh)
                    except SlurmError as error:
                        log.error("nodes: step broken off, it is done again", error=str(error))
                    except JournalError as error:
                        log.error("nodes: nothing is done while it cannot be written down", error=str(error))
                    except Exception:
                        log.exception("nodes: step failed")
        finally:
            listening.cancel()
            self._sights.stop()
            await asyncio.gather(listening, return_exceptions=True)
            await self._verifications.stop()
            await self._operations.stop()
            with contextlib.suppress(JournalError):
                self._journal.keep_reports(self.monitor.kept())
            self._journal.close()

    async def _step(self, policy: Policy, health: Health, snapshot: Snapshot, fresh: bool) -> None:
        """Look, decide, act. Not ``fresh``: a report came meanwhile; then nodes are drained, and all else waits."""
        now = time.time()
        pools = sights.pools_of(policy, snapshot)
        here = {node.name: node for node in snapshot.nodes if node.name in pools}
        self._providers.follow(health)
        racks = await self._sights.racks(health)
        records = {name: self._record(here[name], pool, now) for name, pool in pools.items()}
        details = await self._sights.details(records)
        orders = self._sights.orders(here)
        seen = self._sights.look(health, snapshot, here, records, details, orders, now)
        seen = {name: replace(sight, stale=not fresh) for name, sight in seen.items()}
        jobs = sights.job_nodes(snapshot)
        decided = decide(records, seen, jobs, health, now, racks)
        misses = {name: miss for name, node in here.items() if (miss := sights.near_miss(node))}
        decided = replace(decided, alerts={**decided.alerts, **misses})
        self._news.faults(seen)
        await self._news.step(self._records, decided, orders, snapshot, now)
        self._records = self._records | dict(decided.records)
        acted = await self._acts.act(policy, health, snapshot, here, decided, seen, fresh, now)
        if fresh:
            acted |= await self._jobs.stays(snapshot, decided)
            acted |= await self._jobs.settle(health, snapshot, decided)
            acted |= await self._jobs.give_places(snapshot)
            self._news.forget_blamed(decided, seen, jobs, now)
            await self._tidy(now, records)
        if acted or decided.moved or not fresh:
            self._wake()

    def _record(self, node: Node, pool: str, now: float) -> Record:
        """What is remembered of a node; what Slurm's reason says, if the journal was lost."""
        record = self._records.get(node.name)
        if record is not None:
            return replace(record, pool=pool)
        adopted = parse_reason(node.reason)
        if adopted is None:
            return Record(node.name, pool, since=now)
        state, reason = adopted
        log.warning("nodes: taken up where Slurm's reason says it was", node=node.name, state=str(state))
        # What was being done is not known: done again from the drain on.
        state = State.DRAINING if state in OPERATING or state is State.VERIFYING else state
        return Record(
            node.name,
            pool,
            state,
            now,
            fault="",
            effect=Effect.DRAIN,
            repair=Repair.REBOOT,
            reason=reason,
            by="the reason in Slurm",
        )

    def _node(self, name: str) -> Node | None:
        """A node as the last snapshot showed it."""
        nodes = self._cycle.snapshot.nodes if self._cycle else ()
        return next((node for node in nodes if node.name == name), None)

    def _operation_told(self, one: Operation) -> None:
        self._news.operation(one)
        if one.progress != "running":
            self._due.set()
            self._wake()

    async def _tidy(self, now: float, records: dict[str, Record]) -> None:
        """Reservations that a crash left, reports to disk, old history away."""
        if self._tidied == float("-inf"):
            for name in await self._nodes.reservations():
                self._jobs.adopt(name)
                node = name.removeprefix(sights.RESERVATION)
                if name != node and node in records and records[node].state is not State.VERIFYING:
                    await self._nodes.unreserve(name)
        if now > self._tidied + TIDY:
            self._tidied = now
            await asyncio.to_thread(self._journal.forget, now - KEEP)
        if time.monotonic() > self._reports_written + WRITE_REPORTS:
            self._reports_written = time.monotonic()
            await asyncio.to_thread(self._journal.keep_reports, self.monitor.kept())


class Healing:
    """The governor's watcher that heals nodes, from the first policy that says so on; of several governors, the one
    that leads, which takes up what the journal has.
    """

    def __init__(
        self,
        client: SlurmClient,
        nodes: NodeClient,
        journal: Where,
        broker: Broker | None,
        wake: Callable[[], None],
        record: Callable[[Deed], None] = lambda one: None,
        leadership: Leadership | None = None,
    ) -> None:
        self._make = lambda: _make(client, nodes, journal, broker, wake, record, leadership)
        self._leadership = leadership
        self._wanted = asyncio.Event()
        self._healer: Healer | None = None

    @property
    def monitor(self) -> Monitor | None:
        """What came over MQTT; None while nodes are not looked after."""
        return self._healer.monitor if self._healer else None

    @property
    def records(self) -> Mapping[str, Record]:
        """What is remembered of each node; nothing while nodes are not looked after."""
        return self._healer.records if self._healer else {}

    @property
    def alerts(self) -> Mapping[str, str]:
        """What a person should know now, by node, pool or rack."""
        return self._healer.alerts if self._healer else {}

    def cycle(self, cycle: Cycle) -> None:
        if cycle.policy.health is not None:
            self._wanted.set()
        if self._healer is not None and not cycle.standby:
            self._healer.see(cycle)

    def blind(self, error: str) -> None:
        if self._healer is not None:
            self._healer.see(None)

    def event(self, event: Deed) -> None:
        pass

    def asked(self, facts: Mapping[str, Any]) -> None:
        pass

    async def run(self) -> None:
        """Until cancelled."""
        await self._wanted.wait()
        while self._leadership is not None:
            await self._leadership.led()
            healing = asyncio.create_task(self._heal())
            losing = asyncio.create_task(self._leadership.lost())
            try:
                await asyncio.wait({healing, losing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (healing, losing):
                    task.cancel()
                for result in await asyncio.gather(healing, losing, return_exceptions=True):
                    if isinstance(result, Exception):
                        log.error("nodes: begun again", error=str(result))
                self._healer = None
        await self._heal()

    async def _heal(self) -> None:
        healer = None
        while healer is None:
            try:
                healer = await asyncio.to_thread(self._make)
            except JournalError as error:
                log.error("nodes are not looked after", error=str(error))
                await asyncio.sleep(10)
        self._healer = healer
        await healer.run()


def _make(
    client: SlurmClient,
    nodes: NodeClient,
    journal: Where,
    broker: Broker | None,
    wake: Callable[[], None],
    record: Callable[[Deed], None],
    leadership: Leadership | None,
) -> Healer:
    """Raises ``JournalError``."""
    if leadership is None:
        return Healer(client, nodes, Journal(journal), broker, wake, record)
    fenced = Journal(journal, fence=leadership.fence())
    return Healer(client, nodes, fenced, broker, wake, record, lambda: leadership.permit(LEAST))


def _say(level: str, text: str) -> None:
    getattr(log, level)(text)


__all__ = ["Healing"]
