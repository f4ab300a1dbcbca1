"""What is seen of nodes in one step: by Slurm, by their agents' reports, by asking at their slurmds' ports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from slurm_gov.core.health import Health
from slurm_gov.core.snapshot import Node, Snapshot
from slurm_gov.daemon.log import log
from slurm_gov.health import faults, sights
from slurm_gov.health.faults import Fault
from slurm_gov.health.fleet import spares_out
from slurm_gov.health.journal import Journal
from slurm_gov.health.lifecycle import OPERATING, Hand, Order, Record, Sight, State, Want
from slurm_gov.health.monitor import Monitor
from slurm_gov.health.operations import Operations
from slurm_gov.health.probe import Probe
from slurm_gov.health.providers.pools import PoolProviders
from slurm_gov.health.verify import Verifications
from slurm_gov.slurm.client import NodeClient, NodeDetails

RACKS_REFRESH = 600.0


class NodeSights:
    """Looks. ``changed()`` is called when what a slurmd's port says has changed."""

    def __init__(
        self,
        nodes: NodeClient,
        journal: Journal,
        monitor: Monitor,
        operations: Operations,
        verifications: Verifications,
        providers: PoolProviders,
        changed: Callable[[], None],
    ) -> None:
        self._nodes = nodes
        self._journal = journal
        self._monitor = monitor
        self._operations = operations
        self._verifications = verifications
        self._providers = providers
        self._probe = Probe(lambda node: changed())
        self._lost_since: dict[str, float] = {}
        self._racks: dict[str, str] = {}
        self._racks_seen = float("-inf")

    def stop(self) -> None:
        """Ask at no port any more."""
        self._probe.stop()

    async def racks(self, health: Health) -> Mapping[str, str]:
        """Node to rack, where the policy leaves that to Slurm's topology."""
        if health.rack == "topology" and time.monotonic() - self._racks_seen > RACKS_REFRESH:
            self._racks = await self._nodes.racks()
            self._racks_seen = time.monotonic()
            if not self._racks:
                log.warning("health.rack is topology, and Slurm has none: the circuit breaker knows no racks")
        return self._racks if health.rack == "topology" else {}

    async def details(self, records: Mapping[str, Record]) -> dict[str, NodeDetails]:
        """What scontrol knows of those nodes that are on their way, or whose agents are silent."""
        watched = [name for name, one in records.items() if one.state in OPERATING or one.state is State.DRAINING]
        silent = [name for name, one in self._monitor.reports.items() if not one.online and name in records]
        return await self._nodes.details({*watched, *silent})

    def orders(self, here: Mapping[str, Node]) -> dict[str, Order]:
        """People's orders: from the journal, and from Slurm (HyperPod's signals). One per node and step."""
        found = {name: order for name, node in here.items() if (order := sights.signal(node))}
        for name, order in self._journal.orders():
            if name in here:
                found.setdefault(name, order)
            elif order.id is not None:
                self._journal.answer(order.id, f"Slurm knows no node {name} in a pool of the policy", time.time())
        return found

    def look(
        self,
        health: Health,
        snapshot: Snapshot,
        here: Mapping[str, Node],
        records: Mapping[str, Record],
        details: Mapping[str, NodeDetails],
        orders: Mapping[str, Order],
        now: float,
    ) -> dict[str, Sight]:
        """Every node, as the lifecycle wants to know it."""
        busy = sights.jobs_on(snapshot)
        reserve = spares_out(records, health)
        counts = self._journal.fault_counts(now - health.lemons.days * 86400)
        found = {}
        for name, node in here.items():
            record = records[name]
            report = self._monitor.reports.get(name)
            rules = self._providers.rules(health, record.pool)
            operation = self._operations.outcome(record) if record.state in OPERATING else None
            attempt = self._operations.attempt(record)
            many = counts.get(name, 0)
            whose = sights.hand(node)
            if record.state is State.VERIFYING and self._verifications.reserved(name):
                whose = Hand.NOBODY  # a maintenance reservation, but ours
            found[name] = Sight(
                faults=tuple(self._faults_of(health, node, record, details.get(name), orders.get(name), now)),
                drained=sights.drained(node),
                down=sights.down(node),
                answers=sights.answers(node) and not sights.changing(node),
                hand=whose,
                registered=details[name].registered if name in details else None,
                jobs=len(busy.get(name, ())),
                reported=report.received if report else None,
                fresh=report is not None and report.status.command == record.operation,
                operation=operation,
                late=attempt is not None and now > attempt.tried + rules.time_limit,
                verification=self._verifications.outcome(record) if record.state is State.VERIFYING else None,
                order=orders.get(name),
                can=rules.can,
                reserved=self._verifications.reserved(name),
                spare=name in reserve,
                powered=not sights.off(node),
                lemon=f"{many} faults in {health.lemons.days:.0f} days" if many >= health.lemons.faults else "",
            )
        return found

    def _faults_of(
        self,
        health: Health,
        node: Node,
        record: Record,
        details: NodeDetails | None,
        order: Order | None,
        now: float,
    ) -> Iterable[Fault]:
        report = self._monitor.reports.get(node.name)
        if report is not None:
            # A report from before the repair says nothing about the node that came back; but who clears a node
            # means all that is reported.
            clearing = order is not None and order.want is Want.CLEAR
            before = record.state in (*OPERATING, State.VERIFYING) and report.status.command != record.operation
            if clearing or not before:
                for result in report.status.results:
                    if (fault := faults.from_result(result, health)) is not None:
                        yield fault
            away = sights.off(node) or record.state in OPERATING
            if health.silence_after is not None and not away and now > report.heard + health.silence_after:
                yield faults.silent(report.heard, health)
        expected = record.state in (*OPERATING, State.VERIFYING) or sights.off(node)
        self._probe.watch(node.name, details, report is not None and not report.online and not expected)
        if expected:
            self._lost_since.pop(node.name, None)
            return
        why = sights.lost(node)
        heard = report is not None and report.online and now < report.heard + health.lost_after
        if not sights.down(node) and (report is None or heard):
            # Slurm misses it but has not given it up, and nobody else says that it is dead: a lost ping kills no job.
            why = ""
        gone = self._probe.gone(node.name)
        if gone is not None and gone.refused:
            yield replace(faults.lost(gone.since, "its agent and its slurmd are gone", health), confirm=0.0)
        elif gone is not None:
            fault = faults.lost(gone.since, "its agent is gone and it cannot be reached", health)
            if fault.counts(now):
                yield replace(fault, confirm=0.0)
        elif why:
            since = self._lost_since.setdefault(node.name, now)
            fault = faults.lost(since, why, health)
            if fault.counts(now):
                yield replace(fault, confirm=0.0)
        else:
            self._lost_since.pop(node.name, None)
