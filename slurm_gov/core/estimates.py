"""When waiting jobs may start: an estimate from the time limits of what runs, worked out only for those who ask.

The jobs of a team's line that wait for the same pool start one after another, each as soon as its team's limits and
the nodes allow, while running jobs end at their time limits and nobody else takes what they leave. Jobs mostly end
before their limit, and other teams and later jobs may be served first: it is what can be expected, no promise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from slurm_gov.core.capacity import Ground, team_use
from slurm_gov.core.decision import Decision, Plan, Reason
from slurm_gov.core.demand import Kind, Kinds
from slurm_gov.core.policy import Policy
from slurm_gov.core.room import Room
from slurm_gov.core.shares import Shares
from slurm_gov.core.snapshot import Held, RunState, Snapshot, WaitingJob

AHEAD = 300
"""So many starts ahead in its team's line at most: beyond that an estimate is worth little."""
WORK = 6_000
"""So many looks for a place in all: whoever asks for all estimates of the largest clusters gets the first of them."""
STARTING = frozenset({Reason.STARTS_NOW, Reason.RECLAIMING, Reason.PREEMPTING_WITHIN_TEAM})


@dataclass(frozen=True, slots=True)
class Estimate:
    """When a job may start: ``start`` in seconds since the epoch, ``None`` if nobody can say. ``why`` goes on from
    "earliest start about 14:20," or, without a start, from "no estimate:".
    """

    start: float | None
    why: str


@dataclass(frozen=True, slots=True)
class _End:
    """Somebody who leaves at some time."""

    team: str | None
    use: Mapping[str, int]
    held: tuple[Held, ...]
    why: str


class Estimates:
    """The estimates of one plan; every team's line is worked out when it is first asked for."""

    def __init__(self, policy: Policy, snapshot: Snapshot, plan: Plan) -> None:
        self._policy, self._snapshot, self._plan = policy, snapshot, plan
        self._kinds = Kinds(policy, snapshot.nodes, snapshot.parents)
        self._jobs = {job.id: job for job in snapshot.waiting}
        self._decided = {one.job: one for one in plan.decisions}
        self._known: dict[int, Estimate] = {}
        self._lines: dict[tuple[str | None, str | None], list[Decision]] = {}
        self._ready = False
        self._work = WORK

    def of(self, id: int) -> Estimate:
        """The estimate of a waiting job."""
        if id not in self._known:
            self._line(id)
        return self._known[id]

    def _line(self, id: int) -> None:
        """Work out the line that a job stands in."""
        decided = self._decided[id]
        kind = self._kinds.of(self._jobs[id])
        if whole := self._jobs[id].part_of:
            self._known[id] = self.of(whole)
        elif decided.reason is Reason.STARTS_NOW:
            self._known[id] = Estimate(self._snapshot.now, "as soon as Slurm looks at it")
        elif decided.reason is Reason.NOT_READY:
            begin = self._jobs[id].begin
            coming = begin is not None and begin > self._snapshot.now
            why = "when its begin time has come" if coming else self._jobs[id].held_back
            self._known[id] = Estimate(begin if coming else None, why)
        elif kind.want is None:
            self._known[id] = Estimate(None, decided.why)
        elif decided.reason is Reason.NOT_STARTED:
            self._known[id] = Estimate(None, "Slurm does not start it, and does not say what it waits for")
        else:
            self._make_ready()
            self._play(kind)
            self._known.setdefault(id, Estimate(None, "too many jobs are ahead of it"))

    def _make_ready(self) -> None:
        """The cluster as it is when this plan has been carried out."""
        if self._ready:
            return
        self._ready = True
        now, policy = self._snapshot.now, self._policy
        self._shares = Shares(policy, Ground(policy, self._snapshot.nodes).healthy)
        self._room = Room(self._snapshot.nodes)
        self._ends: list[tuple[float, int]] = []
        self._leaves: list[_End] = []
        preempted = {one.job for one in self._plan.preempt}
        completing = any(job.state is RunState.COMPLETING for job in self._snapshot.running)
        ending = preempted or completing
        self._soon = "as soon as what is ending now has ended" if ending else "in one of the next cycles"
        freed: dict[int, float] = {}  # by beneficiary: when the last one has left for it
        for one in self._plan.preempt:
            freed[one.beneficiary] = max(now + policy.preemption.grace, freed.get(one.beneficiary, 0.0))
        for job in sorted(self._snapshot.running, key=lambda job: job.id):
            if job.id in preempted or job.state is RunState.COMPLETING:
                continue
            team = self._kinds.team(job.account)
            use = team_use(policy, team, job) if team is not None else {}
            if team is not None:
                self._shares.add(team, use)
            self._room.take(job.held)
            if job.time_limit is not None and job.state is RunState.RUNNING:
                why = f"when {job.display_id} reaches its time limit"
                self._will_end(max(now, job.start + job.time_limit), _End(team, use, job.held, why))
        for decided in self._plan.decisions:
            self._lines.setdefault((decided.team, decided.pool), []).append(decided)
            if decided.reason in STARTING:
                self._start(self._jobs[decided.job], freed.get(decided.job, now))
                if decided.job in freed:
                    self._known[decided.job] = Estimate(freed[decided.job], "when those preempted for it have left")
        heapify(self._ends)

    def _will_end(self, at: float, end: _End) -> None:
        self._leaves.append(end)
        self._ends.append((at, len(self._leaves) - 1))

    def _start(self, job: WaitingJob, at: float) -> None:
        """One task starts; what it holds comes back at its time limit."""
        kind = self._kinds.of(job)
        held = kind.form.place(self._room) if kind.form is not None else None
        if kind.want is None or held is None:
            return
        self._shares.add(kind.want.team, kind.want.amounts)
        self._room.take(held)
        if job.time_limit is not None:
            why = f"when {job.display_id}, which is ahead of it, reaches its time limit"
            self._will_end(at + job.time_limit, _End(kind.want.team, kind.want.amounts, held, why))

    def _play(self, like: Kind) -> None:
        """Let the line of a team and pool start, job by job; everything is taken back at the end."""
        ends, leaves = list(self._ends), len(self._leaves)
        shares, room = self._shares.mark(), self._room.mark()
        try:
            now, why, placed = self._snapshot.now, self._soon, 0
            for decided in self._lines[like.team, like.pool]:
                job, first = self._jobs[decided.job], True
                kind = self._kinds.of(job)
                if kind.want is None or decided.reason in (Reason.NOT_READY, Reason.NOT_STARTED):
                    continue
                for _ in range(job.tasks - (decided.reason in STARTING)):
                    while not self._fits(kind):
                        if not self._ends or self._work <= 0:
                            self._known.setdefault(decided.job, self._never(kind))
                            return
                        now, why = self._next_end(now)
                    if first:
                        self._known.setdefault(decided.job, Estimate(now, why))
                        first = False
                    self._play_start(job, now)
                    placed += 1
                    if placed >= AHEAD:
                        return
        finally:
            self._shares.undo(shares)
            self._room.undo(room)
            self._ends = ends
            del self._leaves[leaves:]

    def _play_start(self, job: WaitingJob, at: float) -> None:
        known = len(self._ends)
        self._start(job, at)
        if len(self._ends) > known:
            heappush(self._ends, self._ends.pop())

    def _next_end(self, now: float) -> tuple[float, str]:
        at, key = heappop(self._ends)
        end = self._leaves[key]
        if end.team is not None:
            self._shares.remove(end.team, end.use)
        self._room.give(end.held)
        return max(now, at), end.why

    def _fits(self, kind: Kind) -> bool:
        assert kind.want is not None and kind.form is not None
        self._work -= 1
        team, amounts = kind.want.team, kind.want.amounts
        allowed = self._shares.within_quota(team, amounts) or self._shares.fits(team, amounts)
        return allowed and kind.form.fits(self._room)

    def _never(self, kind: Kind) -> Estimate:
        if self._work <= 0:
            return Estimate(None, "too many jobs run and wait to work it out for all of them")
        endless = any(job.time_limit is None for job in self._snapshot.running)
        return Estimate(
            None, "it waits for jobs without a time limit" if endless else "its nodes are not healthy now"
        )
