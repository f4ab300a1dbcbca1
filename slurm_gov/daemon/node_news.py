"""What is remembered and told of a step of the node lifecycle: journal, log, ledger, MQTT events."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from slurm_gov.core.policy import Policy
from slurm_gov.core.snapshot import RunningJob, Snapshot
from slurm_gov.daemon.log import log
from slurm_gov.health import sights
from slurm_gov.health.board import line
from slurm_gov.health.fleet import Decided, Moved
from slurm_gov.health.journal import Event, Journal, JournalError, Operation
from slurm_gov.health.lifecycle import Order, Record, Sight, State, Want, standing
from slurm_gov.health.messages import Command
from slurm_gov.health.messages import Event as Announcement
from slurm_gov.health.messages import Fault as FaultKind
from slurm_gov.health.monitor import Monitor
from slurm_gov.ledger.event import GOVERNOR, Kind
from slurm_gov.ledger.event import Event as Deed

_KINDS = {str(kind): kind for kind in FaultKind}


class NodeNews:
    """Tells everything once. ``record`` writes into the ledger. ``alerts`` is what a person should know now."""

    def __init__(self, journal: Journal, monitor: Monitor, record: Callable[[Deed], None]) -> None:
        self._journal = journal
        self._monitor = monitor
        self._note = record
        self.alerts: Mapping[str, str] = {}
        past = journal.history()
        self._blamed = {(e.node, e.fault or "", job) for e in past if e.event == "blamed" for job in e.jobs}
        self._faults = {(e.node, e.fault or "", e.time) for e in past if e.event == "fault"}

    def faults(self, seen: Mapping[str, Sight]) -> None:
        """Every fault is written down once: lemons are found by them."""
        new = []
        for name, sight in seen.items():
            for fault in sight.faults:
                key = (name, fault.key, fault.since)
                if key not in self._faults:
                    self._faults.add(key)
                    log.warning(
                        "node fault",
                        node=name,
                        fault=fault.key,
                        effect=str(fault.effect),
                        message=fault.message,
                        injected=fault.injected,
                    )
                    new.append(
                        Event(
                            fault.since,
                            name,
                            "fault",
                            fault.message or fault.key,
                            fault=fault.key,
                            injected=fault.injected,
                        )
                    )
        if new:
            self._journal.keep((), new)

    async def step(
        self,
        before: Mapping[str, Record],
        decided: Decided,
        orders: Mapping[str, Order],
        snapshot: Snapshot,
        now: float,
    ) -> None:
        """Write down what was decided, before anything is done; then tell. ``before``: the records till now."""
        alerts = await self._keep(before, decided, snapshot, now)
        for name, order in orders.items():
            if order.id is not None:
                self._journal.answer(order.id, decided.refused.get(name, ""), now)
            if name in decided.refused:
                log.warning("order refused", node=name, order=str(order.want), by=order.by, why=decided.refused[name])
            elif order.want is Want.CLEAR:
                self._tell_to_clear(name, now)
        busy = sights.jobs_on(snapshot)
        for one in decided.moved:
            self._tell(one, _names(snapshot, busy.get(one.after.node, ())), now)
        for name, text in alerts.items():
            about = decided.records.get(name)
            self._announce("alert", text, now, about, name if about is not None else None)

    async def _keep(
        self, before: Mapping[str, Record], decided: Decided, snapshot: Snapshot, now: float
    ) -> dict[str, str]:
        """Returns the alerts that are new."""
        busy = sights.jobs_on(snapshot)
        events = []
        for one in decided.moved:
            names = _names(snapshot, busy.get(one.after.node, ()))
            events.append(
                Event(
                    now,
                    one.after.node,
                    str(one.arrow),
                    one.after.reason,
                    str(one.before.state),
                    str(one.after.state),
                    one.after.fault or None,
                    one.after.by or None,
                    one.after.injected,
                    names,
                )
            )
        changed = [one for name, one in decided.records.items() if _material(one) != _material(before.get(name))]
        alerts = {name: text for name, text in decided.alerts.items() if self.alerts.get(name) != text}
        for name, text in alerts.items():
            log.warning("alert", about=name, text=text)
            events.append(Event(now, name, "alert", text))
        for name in self.alerts.keys() - decided.alerts.keys():
            log.info("alert over", about=name)
        for name, blames in decided.blamed.items():
            for fault, job in blames.items():
                if (name, fault, job) not in self._blamed:
                    self._blamed.add((name, fault, job))
                    log.warning("fault blamed on a job", node=name, fault=fault, job=job)
                    why = f"{fault} on many nodes of job {job}: the job's"
                    events.append(Event(now, name, "blamed", why, fault=fault, jobs=(job,)))
                    self._announce("blamed", why, now, decided.records[name], name, jobs=(job,))
        if changed or events:
            await asyncio.to_thread(self._journal.keep, changed, events)
        self.alerts = dict(decided.alerts)
        return alerts

    def _tell(self, one: Moved, jobs: tuple[str, ...], now: float) -> None:
        after = one.after
        log.info(
            str(one.arrow),
            node=after.node,
            before=str(one.before.state),
            after=str(after.state),
            reason=after.reason,
            **({"by": after.by} if after.by else {}),
            **({"injected": True} if after.injected else {}),
        )
        who = after.by or GOVERNOR
        why = after.reason or str(one.arrow)
        deed = Deed(Kind.NODE, why, at=now, who=who, pool=after.pool, node=after.node)
        self._note(replace(deed, before=str(one.before.state), after=str(after.state)))
        self._announce(str(one.arrow), after.reason, now, after, after.node, str(one.before.state), jobs)

    def forget_blamed(self, decided: Decided, seen: Mapping[str, Sight], jobs: Collection[str], now: float) -> None:
        """Let agents forget what a job did to their nodes once it is over: the next such fault is the node's."""
        for name, fault, job in sorted(self._blamed):
            record, sight = decided.records.get(name), seen.get(name)
            if job in jobs or record is None or sight is None:
                continue
            self._blamed.discard((name, fault, job))
            there = any(one.key == fault for one in sight.faults)
            if there and record.state is State.HEALTHY and not standing(record, sight):
                self._tell_to_clear(name, now)

    def _tell_to_clear(self, node: str, now: float) -> None:
        self._monitor.publish(Command(node=node, id=f"{node}.clear.{now:.0f}", time=now, command="clear"))

    def jobs(self, record: Record, jobs: Sequence[RunningJob], what: str, policy: Policy, snapshot: Snapshot) -> None:
        """Jobs were made to leave a sick node."""
        now = time.time()
        names = tuple(job.display_id for job in jobs)
        log.info(what, node=record.node, reason=record.reason, jobs=list(names))
        for job in jobs:
            gpus = sum(sum(held.gpus.values()) for held in job.held)
            lost = round(gpus * max(0.0, now - job.kept))
            kind = Kind.REQUEUE if job.requeueable else Kind.CANCEL
            deed = Deed(kind, record.reason, at=now, pool=record.pool, node=record.node)
            team = snapshot.team_of(policy, job.account) or ""
            self._note(replace(deed, job=job.display_id, user=job.user, team=team, gpus=gpus, lost=lost))
        self._journal.keep((), [Event(now, record.node, "job", what, jobs=names)])
        self._announce("job", what, now, record, record.node, jobs=names)

    def _announce(
        self,
        event: str,
        reason: str,
        now: float,
        about: Record | None,
        node: str | None,
        before: str | None = None,
        jobs: tuple[str, ...] = (),
    ) -> None:
        """An MQTT event, for whoever wants to know."""
        with contextlib.suppress(ValueError):  # a node whose name MQTT does not take is not announced
            self._monitor.publish(
                Announcement(
                    node=node,
                    time=now,
                    event=event,
                    reason=line(reason, 400),
                    pool=about.pool if about else None,
                    before=before,
                    after=str(about.state) if about else None,
                    fault=_KINDS.get(about.kind) if about else None,
                    jobs=jobs[:1000],
                    injected=about.injected if about else False,
                )
            )

    @staticmethod
    def operation(one: Operation) -> None:
        """A reboot or a replacement got further."""
        log.info(
            "operation",
            node=one.node,
            repair=str(one.repair),
            attempt=one.attempt,
            progress=one.progress,
            message=one.message,
        )

    def verification(self, node: str, text: str) -> None:
        """A verification got further."""
        log.info(text, node=node)
        with contextlib.suppress(JournalError):  # it is only for people
            self._journal.keep((), [Event(time.time(), node, "verification", text)])


def _names(snapshot: Snapshot, jobs: Iterable[int]) -> tuple[str, ...]:
    return tuple(snapshot.running[index].display_id for index in jobs)


def _material(record: Record | None) -> tuple[Any, ...] | None:
    """What is worth a write: not when a fault was last seen."""
    if record is None:
        return None
    return tuple(sorted(record.lingering)), replace(record, lingering={})
