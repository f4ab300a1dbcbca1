"""Jobs of sick nodes: told to save a checkpoint, requeued, and given their place in line back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from slurm_gov.core.health import Health
from slurm_gov.core.marks import PLACE
from slurm_gov.core.policy import Policy
from slurm_gov.core.snapshot import RunningJob, Snapshot
from slurm_gov.daemon.log import log
from slurm_gov.daemon.node_news import NodeNews
from slurm_gov.health.fleet import Decided
from slurm_gov.health.jobs import Leaving, place_of, settle, still_leaves
from slurm_gov.health.jobs import stays as jobs_that_stay
from slurm_gov.health.lifecycle import Do, Record, State
from slurm_gov.slurm.client import NodeClient, SlurmClient, SlurmError

PLACE_LASTS = 180.0
"""Seconds that nodes are kept for a job that comes back, if it takes that long to end."""


class NodeJobs:
    """Acts on jobs. ``wake`` starts a cycle of the governor."""

    def __init__(self, client: SlurmClient, nodes: NodeClient, news: NodeNews, wake: Callable[[], None]) -> None:
        self._client = client
        self._nodes = nodes
        self._news = news
        self._wake = wake
        # Job to the start of the run that is stopped, and when its place ends at the latest (monotonic).
        self._places: dict[int, tuple[float | None, float]] = {}

    @property
    def keeps_places(self) -> bool:
        """Whether nodes are kept for jobs that come back: until then no other node is given to anybody."""
        return bool(self._places)

    def adopt(self, reservation: str) -> None:
        """Look after a place that was kept before this daemon started, if it is one."""
        id = reservation.removeprefix(PLACE)
        if id != reservation and id.isdecimal():
            self._places[int(id)] = None, time.monotonic() + PLACE_LASTS

    async def leave(self, record: Record, leaving: Leaving, policy: Policy, snapshot: Snapshot) -> None:
        """Make jobs leave a node; not yet those that go when it is DOWN."""
        for job, mark in leaving.note:
            await self._client.note_fault(job.id, mark)
        for job in leaving.signal:
            log.info("told to save a checkpoint", job=job.display_id, node=record.node)
            await self._client.signal(job.id, job.signal or policy.preemption.signal)
        for job in leaving.going:
            await self._keep_place(record.node, job, snapshot)
        for job in leaving.requeue:
            await self._client.requeue([job.id])
            self._news.jobs(record, [job], "requeued", policy, snapshot)

    async def _keep_place(self, bad: str, job: RunningJob, snapshot: Snapshot) -> None:
        """Keep the other nodes of a job: free for the seconds until it may start again, they would be others'."""
        usable = {node.name for node in snapshot.nodes if node.usable}
        place = place_of(job, {bad}, usable)
        if not place or job.id in self._places:
            return
        try:
            await self._nodes.reserve(f"{PLACE}{job.id}", place, PLACE_LASTS)
            self._places[job.id] = job.start, time.monotonic() + PLACE_LASTS
        except SlurmError as error:
            log.warning("a job's place is not kept", job=job.display_id, error=str(error))

    async def give_places(self, snapshot: Snapshot) -> bool:
        """Let jobs start that are ready, on the nodes that were kept for them; whether there was one."""
        now = time.monotonic()
        ready = [
            id for id, (run, end) in sorted(self._places.items()) if now > end or not still_leaves(snapshot, id, run)
        ]
        for id in ready:
            await self._nodes.unreserve(f"{PLACE}{id}")
            self._places.pop(id)
            if any(job.id == id for job in snapshot.waiting):
                with contextlib.suppress(SlurmError):  # its user may have cancelled it
                    await self._client.nudge(id)
        return bool(ready)

    async def stays(self, snapshot: Snapshot, decided: Decided) -> bool:
        """Jobs that were told to save a checkpoint, and whose nodes are well: nothing happens to them."""
        emptied = [name for name, do in decided.do.items() if do & {Do.EMPTY, Do.CHECKPOINT}]
        stays = jobs_that_stay(snapshot.running, emptied)
        for job, mark in stays:
            try:
                await self._client.note_fault(job.id, mark)
                log.info("stays after all", job=job.display_id)
            except SlurmError as error:
                log.warning("action failed", job=job.display_id, error=str(error))
        return bool(stays)

    async def settle(self, health: Health, snapshot: Snapshot, decided: Decided) -> bool:
        """Jobs that faults stopped get their place back."""
        if not any(job.fault for job in snapshot.waiting):
            return False
        well = frozenset(name for name, one in decided.records.items() if one.state is State.HEALTHY)
        excluded = {job.id: job.request.excluded_nodes for job in snapshot.waiting}
        acted = False
        for one in settle(snapshot, excluded, well, health.jobs):
            try:
                if one.avoids is not None:
                    await self._client.avoid(one.job.id, one.avoids)
                if one.place is not None:
                    await self._client.keep_place(one.job.id, one.place)
                if one.hold:
                    await self._client.hold(one.job.id)
                    log.warning("held", job=one.job.display_id, reason=one.mark.reason)
                if one.start is not None:
                    await self._client.allow_start(one.job.id, one.start)
                    log.info("may start again", job=one.job.display_id, delay=one.start)
                    asyncio.get_running_loop().call_later(one.start + 0.1, self._wake)
                if one.mark != one.job.fault:
                    await self._client.note_fault(one.job.id, one.mark)
                acted = True
            except SlurmError as error:
                log.warning("action failed", job=one.job.display_id, error=str(error))
        return acted
