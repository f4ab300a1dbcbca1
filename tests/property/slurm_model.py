"""A little Slurm in virtual time: starts waiting jobs in order of priority under the caps and where they fit.

It does what the governor asks in the order the governor does it (lower caps, signal, requeue, raise caps), and
places jobs by its own rule, not by the core's, so that a plan must not depend on where Slurm puts a job.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from checker import Free, pool_of, wanted

from slurm_gov.core.actions import REQUEUE_WAIT, WAIT_ON, actions
from slurm_gov.core.decision import Plan
from slurm_gov.core.plan import plan
from slurm_gov.core.policy import Policy, frozen
from slurm_gov.core.snapshot import Node, Preempted, RunningJob, RunState, Snapshot, WaitingJob
from slurm_gov.ledger import Lately, Span
from slurm_gov.ledger.lately import decayed
from slurm_gov.ledger.meter import Meter
from slurm_gov.ledger.read import Balance

CYCLE = 20.0
"""Seconds from one look to the next."""


def balances(spans: Iterable[Span]) -> list[Balance]:
    """As the ledger tells them."""
    in_order = sorted(spans, key=lambda one: one.since)
    return [(one.team, one.pool, one.since, one.until, one.used - one.quota) for one in in_order]


@dataclass
class Run:
    """A running job with what it was when it waited, to wait again."""

    job: RunningJob
    was: WaitingJob
    left: int  # cycles of work left


class Slurm:
    """The cluster and its queue. ``work`` is how many cycles each job runs, by job id."""

    def __init__(self, policy: Policy, nodes: list[Node], parents: dict[str, str], now: float) -> None:
        self.policy = policy
        self.nodes = nodes
        self.parents = parents
        self.now = now
        self.waiting: dict[int, WaitingJob] = {}
        self.runs: dict[int, Run] = {}
        self.caps: dict[str, dict[str, int]] = {team: {} for team in policy.teams}
        self.work: dict[int, int] = {}
        self.requeues: dict[int, int] = {}
        self.preempted: dict[int, tuple[Preempted, ...]] = {}
        self.next_id = 10_000
        self.meter = Meter()
        self.spans: dict[tuple[str, str, float], Span] = {}

    def submit(self, job: WaitingJob, work: int) -> None:
        self.waiting[job.id] = replace(job, submit=self.now)
        self.work[job.id] = work

    def look(self) -> Snapshot:
        past = self.lately()
        return Snapshot(
            self.now,
            tuple(self.nodes),
            tuple(run.job for run in self.runs.values()),
            tuple(self._seen(job) for job in self.waiting.values()),
            frozen(self.parents),
            frozen({account: frozen(caps) for account, caps in self.caps.items()}),
            borrowed_lately=frozen(past.teams),
            cohorts_borrowed_lately=frozen(past.cohorts),
        )

    def lately(self) -> Lately:
        """What the governor's ledger says."""
        if self.policy.half_life is None:
            return Lately({}, {})
        return decayed(balances(self.spans.values()), self.policy, self.policy.half_life, self.now)

    def _seen(self, job: WaitingJob) -> WaitingJob:
        if job.begin is not None and job.begin > self.now:
            held_back = "" if job.behind is not None else "waits for its begin time"
            return replace(job, slurm_reason="BeginTime", held_back=held_back)
        return replace(job, behind=None)

    def _stands_back(self, job: WaitingJob) -> bool:
        return job.begin is not None and job.begin > self.now

    def cycle(self) -> tuple[Plan, bool]:
        """One cycle of the governor and one of Slurm: the plan, and whether anything changed."""
        snapshot = self.look()
        decided = plan(self.policy, snapshot)
        todo = actions(self.policy, snapshot, decided)
        written = self.meter.look(self.now, decided.standings, {})
        self.spans.update({(one.team, one.pool, one.since): one for one in written})
        for account, caps in todo.lower.items():
            self.caps[account].update(caps)
        for job in todo.spare:
            self.runs[job.id].job = replace(job, mark=replace(job.mark, spared=True))
        for leave in (*todo.warn, *todo.renote):
            self.runs[leave.job.id].job = replace(leave.job, mark=leave.mark)
        for leave in todo.requeue:
            told = Preempted(leave.mark.since, leave.mark.beneficiary)
            self.preempted[leave.job.id] = (told, *self.preempted.get(leave.job.id, ()))
            self._requeue(leave.job.id)
        for leave in todo.cancel:
            del self.runs[leave.job.id]
        for account, caps in todo.raise_.items():
            self.caps[account].update(caps)
        for job, delay in todo.release:
            self.waiting[job.id] = replace(self.waiting[job.id], begin=self.now + delay)
        for job, mark in todo.wait_on:
            self.waiting[job.id] = replace(self.waiting[job.id], begin=self.now + WAIT_ON, mark=mark)
        for job, behind in todo.step_back:
            self.waiting[job.id] = replace(self.waiting[job.id], begin=behind.until, behind=behind)
        for job in todo.let_go:
            self.waiting[job.id] = replace(self.waiting[job.id], begin=None, behind=None)
        started = self.schedule()
        self.now += CYCLE
        waits = any(job.begin is not None and job.begin > self.now - CYCLE for job in self.waiting.values())
        return decided, bool(todo) or started or waits or todo.next_deadline is not None

    def _requeue(self, id: int) -> None:
        run = self.runs.pop(id)
        self.requeues[id] = self.requeues.get(id, 0) + 1
        self.waiting[id] = replace(
            run.was, submit=self.now, begin=self.now + REQUEUE_WAIT - 9, mark=run.job.mark, tasks=1
        )
        self.work[id] = max(1, run.left)

    def schedule(self) -> bool:
        """Start what may start, first the highest priority; whether anything did."""
        started = False
        for job in sorted(self.waiting.values(), key=lambda job: (-job.priority, job.id)):
            tasks = job.tasks
            while tasks and not self._seen(job).held_back and not self._stands_back(job) and self._start(job, tasks):
                tasks, started = tasks - 1, True
        return started

    def _start(self, job: WaitingJob, tasks: int) -> bool:
        pool = pool_of(self.policy, job)
        tres = pool.tres if pool else next(iter(job.request.gpus))
        team = job.account if job.account in self.policy.teams else None
        amount = wanted(job)
        if team is not None and self.used(team, tres) + amount > self.caps[team].get(tres, amount + 10**6):
            return False
        request = replace(job.request, gpus={tres: amount})
        free = Free(self.nodes, [run.job for run in self.runs.values()])
        held = free.place(request, job.partitions[0], tres)
        if held is None:
            return False
        id, display_id = job.id, job.display_id
        if tasks > 1:
            id, self.next_id = self.next_id, self.next_id + 1
            display_id = f"{job.id}_{id}"
            self.waiting[job.id] = replace(job, tasks=tasks - 1)
        else:
            del self.waiting[job.id]
        running = RunningJob(
            id,
            display_id,
            job.user,
            job.account,
            job.partitions[0],
            job.qos,
            self.now,
            tuple(held),
            mark=job.mark,
            submit=job.submit,
            preempted=self.preempted.get(id, ()),
        )
        self.runs[id] = Run(running, replace(job, id=id, display_id=display_id, tasks=1), self.work[job.id])
        return True

    def used(self, team: str, tres: str) -> int:
        """What counts against its cap: a job that is completing does no more."""
        jobs = [run.job for run in self.runs.values() if run.job.account == team]
        jobs = [job for job in jobs if job.state is not RunState.COMPLETING]
        return sum(held.gpus.get(tres, 0) for job in jobs for held in job.held)

    def let_go(self) -> None:
        """Jobs that were completing are gone."""
        for id, run in list(self.runs.items()):
            if run.job.state is RunState.COMPLETING:
                del self.runs[id]

    def pass_time(self) -> None:
        """One cycle of work for every running job; those at their end complete, and are gone a cycle later."""
        self.let_go()
        for run in self.runs.values():
            run.left -= 1
            if run.left <= 0:
                run.job = replace(run.job, state=RunState.COMPLETING)
