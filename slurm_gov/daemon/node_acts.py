"""What the node lifecycle wants, done: in Slurm, at the provider, by the agent. Doing it twice does no harm."""

from __future__ import annotations

from collections.abc import Mapping

from slurm_gov.core.health import Health
from slurm_gov.core.policy import Policy
from slurm_gov.core.snapshot import Node, RunState, Snapshot
from slurm_gov.daemon.log import log
from slurm_gov.daemon.node_jobs import NodeJobs
from slurm_gov.daemon.node_news import NodeNews
from slurm_gov.health import sights
from slurm_gov.health.fleet import Decided
from slurm_gov.health.jobs import Leaving, at_once, to_checkpoint
from slurm_gov.health.lifecycle import OPERATING, Do, Hand, Record, Sight, State, parse_reason
from slurm_gov.health.messages import Command
from slurm_gov.health.monitor import Monitor
from slurm_gov.health.operations import Operations
from slurm_gov.health.providers.pools import PoolProviders
from slurm_gov.health.verify import Verifications
from slurm_gov.slurm.client import NodeClient, NodeDetails, SlurmError

ASK_AGAIN = 5.0
"""Seconds between two commands to an agent that has not answered."""


class NodeActs:
    """Acts on nodes; what becomes of their jobs is ``NodeJobs``'."""

    def __init__(
        self,
        nodes: NodeClient,
        jobs: NodeJobs,
        news: NodeNews,
        monitor: Monitor,
        operations: Operations,
        verifications: Verifications,
        providers: PoolProviders,
    ) -> None:
        self._nodes = nodes
        self._jobs = jobs
        self._news = news
        self._monitor = monitor
        self._operations = operations
        self._verifications = verifications
        self._providers = providers
        self._asked: dict[str, float] = {}

    async def act(
        self,
        policy: Policy,
        health: Health,
        snapshot: Snapshot,
        here: Mapping[str, Node],
        decided: Decided,
        seen: Mapping[str, Sight],
        fresh: bool,
        now: float,
    ) -> bool:
        """Make it so; whether anything was changed in Slurm. One node's trouble does not keep others from being
        served.
        """
        acted = False
        busy = sights.jobs_on(snapshot)
        for name, do in decided.do.items():
            record, node, sight = decided.records[name], here[name], seen[name]
            try:
                if Do.DRAIN in do:
                    acted |= await self._drain(record, node, sight)
                if not fresh:
                    continue
                if Do.RELEASE in do:
                    self._operations.release(name)
                    self._verifications.release(name)
                    self._asked.pop(name, None)
                waits = node.reason == sights.SPARE and self._jobs.keeps_places  # for a job whose place is kept
                if Do.LIFT in do and sight.hand is Hand.OURS and not waits:
                    acted |= await self._lift(node)
                if Do.POWER_OFF in do:
                    await self._nodes.power(name, up=False, force=False)
                    log.info("spare powered down", node=name)
                    acted = True
                if Do.OPERATE in do and (sights.drained(node) or sights.down(node) or sights.changing(node)):
                    self._operations.ensure(
                        record, self._providers.of(record.pool), self._providers.rules(health, record.pool)
                    )
                if Do.VERIFY in do:
                    self._verify(record, node, health, now)
                leaving = Leaving()
                jobs = [snapshot.running[index] for index in busy.get(name, ())]
                # Jobs that only have to end are waited for, unless nobody is there to end them.
                ending = sight.answers and all(job.state is RunState.COMPLETING for job in jobs)
                if Do.EMPTY in do and not ending and (sights.drained(node) or sights.down(node)):
                    leaving = at_once(name, jobs, record.reason, health.jobs, now)
                elif Do.CHECKPOINT in do and sights.drained(node):
                    suspect = record.state is State.SUSPECT
                    leaving = to_checkpoint(name, jobs, record.reason, health.jobs, now, suspect)
                if leaving:
                    acted = True
                    await self._jobs.leave(record, leaving, policy, snapshot)
                    if leaving.down:
                        await self._down(record, leaving, policy, snapshot)
            except SlurmError as error:
                log.warning("nodes: action failed, it is tried again", node=name, error=str(error))
        return acted

    async def _touchable(self, name: str) -> NodeDetails | None:
        """The node this moment, if it is ours to touch: since the snapshot an administrator may have come."""
        there = (await self._nodes.details([name])).get(name)
        if there is None or sights.hand(_as_node(name, there)) is Hand.ADMINISTRATOR:
            return None
        return there

    async def _drain(self, record: Record, node: Node, sight: Sight) -> bool:
        """Drained with our reason, and with the right one."""
        reason = sights.SPARE if record.state is State.HEALTHY else record.slurm_reason
        said = parse_reason(node.reason)
        right = sight.hand is Hand.OURS and (
            node.reason == reason if record.state is State.HEALTHY else said is not None and said[0] is record.state
        )
        if (sight.drained and right) or (sights.changing(node) and record.state in OPERATING):
            return False
        if record.state in OPERATING and sight.down and sight.hand is Hand.OURS:
            return False  # as good as drained: it comes back from a reboot like this
        there = await self._touchable(record.node)
        if there is None or (record.state in OPERATING and sights.changing(_as_node(record.node, there))):
            return False
        now = _as_node(record.node, there)
        if sights.drained(now) and now.reason.startswith(reason):
            return False
        await self._nodes.drain(record.node, reason)
        log.info("drained", node=record.node, reason=reason)
        return True

    async def _lift(self, node: Node) -> bool:
        there = await self._touchable(node.name)
        if there is None or sights.hand(now := _as_node(node.name, there)) is not Hand.OURS:
            return False
        if now.reason == sights.SPARE and sights.changing(now) and not sights.powered_down(now):
            return False  # on its way down: it can be powered up when it is there
        drained = sights.drained(now) or sights.down(now)
        if drained:
            await self._nodes.resume(node.name)
            log.info("drain lifted", node=node.name)
        if drained and now.reason == sights.SPARE and sights.powered_down(now):
            # Only now: Slurm powers no drained node up.
            await self._nodes.power(node.name, up=True)
            log.info("spare powered up", node=node.name)
        return drained

    async def _down(self, record: Record, leaving: Leaving, policy: Policy, snapshot: Snapshot) -> None:
        """After its drain, so that it stays: Slurm requeues what is left there."""
        there = await self._touchable(record.node)
        if there is not None and sights.drained(_as_node(record.node, there)):
            await self._nodes.down(record.node, record.slurm_reason)
            self._news.jobs(record, [job for job, _ in leaving.note], "requeued at once", policy, snapshot)

    def _verify(self, record: Record, node: Node, health: Health, now: float) -> None:
        report = self._monitor.reports.get(record.node)
        if report is not None and report.status.command != record.operation:
            # One that is not there yet would not hear it.
            if report.online and now > self._asked.get(record.node, 0.0) + ASK_AGAIN:
                self._asked[record.node] = now
                # What was seen before the repair is history; what is wrong now, all checks will say.
                self._monitor.publish(
                    Command(node=record.node, id=record.operation, time=now, command="clear", deep=True)
                )
            return
        ready = sights.answers(node) and (sights.drained(node) or self._verifications.reserved(record.node))
        if ready or self._verifications.outcome(record) is not None:
            self._verifications.ensure(record, health.verifications)


def _as_node(name: str, there: NodeDetails) -> Node:
    return Node(name, (), {}, 0, 0, state=there.state, reason=there.reason)
