"""What must hold at every moment on a governed cluster, judged by what squeue and sacctmgr say.

An observation is not of one moment: Slurm changes while it is asked, and a cap follows a decision by the time that
sacctmgr takes. So what may be otherwise for a moment is wrong only when it lasts longer than ``SETTLE``.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from slurm_gov.core.policy import Policy, Quota

SETTLE = 20.0
"""Seconds that a change may take on a busy machine: to be decided, written, and followed by Slurm."""
LOOKED = 10
"""Seconds that the look at Slurm of a decision may be old when the decision is seen."""
STALLED = 90.0
"""Seconds without any start of a team that has a small job waiting within its quota."""
_MARK = re.compile(
    r"\[slurm-gov preempt for=(\d+) team=(\S+) since=(\S+) until=\S+ run=(\d+)(?: held=\d+)?( spared)?: ([^\]]*)\]"
)
_NO_DEMAND = {"Dependency", "BeginTime", "JobHeldUser", "JobHeldAdmin", "JobArrayTaskLimit", "JobHoldMaxRequeue"}

Use = dict[tuple[str, str], int]  # GPUs by team and pool


@dataclass(frozen=True)
class Job:
    """A line of squeue."""

    id: int
    array: int
    state: str
    reason: str
    account: str
    gpus: Mapping[str, int]  # allocated, by TRES
    nodes: str
    start: str
    comment: str
    restarts: int = 0

    @property
    def mark(self) -> tuple[int, str, str] | None:
        """For which job and team it is preempted, or was; and in which run."""
        found = _MARK.search(self.comment)
        return (int(found[1]), found[2], found[4]) if found else None

    @property
    def since(self) -> str:
        """When that was decided."""
        found = _MARK.search(self.comment)
        return found[3] if found else ""


@dataclass(frozen=True)
class Run:
    """One run of a job, as accounting has it; times in seconds since the epoch."""

    job: int
    state: str
    start: float
    end: float
    account: str
    pool: str
    gpus: int


@dataclass(frozen=True)
class Observation:
    """What was seen at about one time."""

    now: float
    jobs: tuple[Job, ...]
    caps: Mapping[str, Mapping[str, int]]


@dataclass
class Invariants:
    """Watches; ``broken`` has a line for everything that was not as it must be."""

    policy: Policy
    capacity: Mapping[str, int]  # GPUs by pool
    arrays: set[int] = field(default_factory=set)  # their ids
    keep: set[int] = field(default_factory=set)  # jobs that cannot be requeued
    small: set[int] = field(default_factory=set)  # jobs that fit on a part of a node
    demand: dict[int, tuple[str, str, int]] = field(default_factory=dict)  # job to team, pool, GPUs
    broken: list[str] = field(default_factory=list)
    seen: int = 0
    preempted: dict[tuple[int, str], tuple[int, int]] = field(
        default_factory=dict
    )  # job and run, for whom in which run
    most_borrowed: Use = field(default_factory=dict)
    _taken: dict[tuple[str, str, str], list[tuple[Job, int]]] = field(default_factory=dict)
    _quotas: dict[tuple[str, str, str], int] = field(default_factory=dict)
    _now: float = 0.0
    _old: Policy | None = None
    _changed: float = float("-inf")
    _history: deque[tuple[float, Use]] = field(default_factory=deque)
    _since: dict[str, float] = field(default_factory=dict)
    _running: set[int] = field(default_factory=set)
    _last_start: dict[str, float] = field(default_factory=dict)
    _last_caps: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def change(self, policy: Policy, now: float) -> None:
        """Another policy is in force; for a while the old one may still be acted on."""
        self._old, self.policy, self._changed = self.policy, policy, now

    def watch(self, seen: Observation) -> None:
        """Judge an observation."""
        self.seen += 1
        self._now = seen.now
        use = self._use(seen.jobs)
        leaving = self._use(job for job in seen.jobs if self._leaves(job))
        self._caps_hold_quotas(seen)
        self._use_stays_below_caps(seen, use, leaving)
        self._limits_hold(seen, use)
        self._history.append((seen.now, use))
        while self._history[0][0] < seen.now - SETTLE:
            self._history.popleft()
        self._preemptions(seen)
        self._nobody_stalls(seen, use)
        self._last_caps = seen.caps

    # -- what holds ----------------------------------------------------------------------------------

    def _caps_hold_quotas(self, seen: Observation) -> None:
        """A cap is never below the quota: at once, also in the middle of a change."""
        for team, pool, tres in self._each():
            quota = min(policy.teams[team].quotas[pool].nominal for policy in self._in_force(seen.now))
            cap = seen.caps.get(team, {}).get(tres)
            if cap is None or cap < quota:
                self._wrong(f"{team}'s cap of {pool} is {cap}, its quota {quota}")

    def _use_stays_below_caps(self, seen: Observation, use: Use, leaving: Use) -> None:
        for team, pool, tres in self._each():
            cap = max(caps.get(team, {}).get(tres, 0) for caps in (seen.caps, self._last_caps))
            held = use.get((team, pool), 0) - leaving.get((team, pool), 0)
            self._lasting(
                seen.now, f"use {team} {pool}", held > cap,
                f"{team} holds {held} {pool} beside jobs that are told to leave, and its cap is {cap}",
            )  # fmt: skip

    def _limits_hold(self, seen: Observation, use: Use) -> None:
        """Nobody comes to hold more than quota and borrow limit allow; who did before a change may keep it."""
        for pool in self.policy.pools:
            lendable = 0
            for policy in self._in_force(seen.now):
                lendable = max(lendable, self._lendable(policy, pool))
            borrowed = 0
            for team in self.policy.teams:
                self._limit(seen.now, team, [team], pool, use)
                here = max(0, use.get((team, pool), 0) - self.policy.teams[team].quotas[pool].nominal)
                self.most_borrowed[team, pool] = max(self.most_borrowed.get((team, pool), 0), here)
                borrowed += here
            for cohort in self.policy.cohorts:
                self._limit(seen.now, cohort, self._members(cohort), pool, use)
            before = max((self._borrowed(old, pool) for _, old in self._history), default=0)
            if borrowed > max(lendable, before):
                self._wrong(f"{borrowed} {pool} are borrowed, and no more than {lendable} can be lent")

    def _limit(self, now: float, name: str, teams: list[str], pool: str, use: Use) -> None:
        limits = []
        for policy in self._in_force(now):
            own: Quota = (policy.teams[name] if name in policy.teams else policy.cohorts[name]).quotas[pool]
            quotas = sum(policy.teams[team].quotas[pool].nominal for team in teams)
            if name not in policy.teams:
                quotas += own.nominal
            limits.append(None if own.borrow is None else quotas + own.borrow)
        if None in limits:
            return
        most = max(limit for limit in limits if limit is not None)
        held = sum(use.get((team, pool), 0) for team in teams)
        within, above = self._parts(teams, pool, use)
        # What a team takes within its quota nobody may keep from it: others then borrow too much for a while.
        looks = [self._parts(teams, pool, old) for _, old in self._history]
        free = most - min([within, *(part for part, _ in looks)])
        before = max((part for _, part in looks), default=0)
        if held > most and above > max(free, before):
            self._wrong(f"{name} holds {held} {pool}, and may hold {most} ({above} above quotas, {before} before)")

    def _parts(self, teams: list[str], pool: str, use: Use) -> tuple[int, int]:
        """What these teams hold within their own quotas, and above them."""
        within = above = 0
        for team in teams:
            quota = min(policy.teams[team].quotas[pool].nominal for policy in self._in_force(self._now))
            mine = use.get((team, pool), 0)
            within, above = within + min(mine, quota), above + max(0, mine - quota)
        return within, above

    def _preemptions(self, seen: Observation) -> None:
        """Who is preempted for another team is of one that held more than its quota; nobody twice for the same."""
        restarts = {job.id: job.restarts for job in seen.jobs}
        fresh = [job for job in seen.jobs if self._leaves(job) and (job.id, job.mark[2]) not in self.preempted]
        for job in seen.jobs:
            # Spared: it was told to leave, and did not.
            if job.state == "R" and not self._leaves(job):
                self.preempted.pop((job.id, job.start), None)
            # Spared for a moment between two looks, and told again: it leaves for whom its mark names now.
            elif self._leaves(job) and (whom := self.preempted.get((job.id, job.mark[2]))) and whom[0] != job.mark[0]:
                self.preempted[job.id, job.mark[2]] = job.mark[0], restarts.get(job.mark[0], 0)
        for job in fresh:
            beneficiary, _, run = job.mark
            # A beneficiary that ran and was preempted itself waits anew.
            whom = (beneficiary, restarts.get(beneficiary, 0))
            earlier = {other for (id, _), other in self.preempted.items() if id == job.id}
            if whom in earlier and beneficiary not in self.arrays:
                self._wrong(f"job {job.id} is preempted for {beneficiary} a second time")
            if job.account not in self.policy.teams:
                self._wrong(f"job {job.id} of account {job.account}, which has no policy, is preempted")
                continue
            if job.id in self.keep:
                self._wrong(f"job {job.id} cannot be requeued and is preempted")
            self.preempted[job.id, run] = whom
        for job in fresh:
            if job.mark[1] != job.account and job.account in self.policy.teams:
                for pool, amount in self._pools_of(job):
                    key = (job.account, pool, job.since)
                    self._taken.setdefault(key, []).append((job, amount))
                    policies = self._in_force(seen.now)
                    self._quotas[key] = min(policy.teams[job.account].quotas[pool].nominal for policy in policies)

    def judge_takings(self, runs: Iterable[Run]) -> None:
        """Before the last of those that one decision takes from a team, the team still held more than its quota: by
        what accounting says of all runs, since those that lived for less than a second may never have been seen.
        """
        runs = list(runs)
        for (account, pool, since), victims in self._taken.items():
            held = [run for run in runs if run.account == account and run.pool == pool]
            # In whole seconds, and the look that decided was a little earlier.
            seconds = range(int(since) - LOOKED, int(since) + 2)
            most = max(sum(one.gpus for one in held if one.start <= at + 1 and one.end >= at) for at in seconds)
            taken = [amount for _, amount in victims]
            quota = self._quotas[account, pool, since]
            # Which of them was the last is not seen: the mildest is taken.
            if most - (sum(taken) - max(taken)) <= quota:
                job = victims[-1][0]
                self._wrong(
                    f"job {job.id} of {account} is preempted: its team held at most {most} of its quota of {quota} "
                    f"{pool}, and {len(taken)} of its jobs with {sum(taken)} are taken at once; {job.comment}"
                )

    def _nobody_stalls(self, seen: Observation, use: Use) -> None:
        running = {job.id for job in seen.jobs if job.state == "R"}
        for job in seen.jobs:
            if job.id in running - self._running:
                self._last_start[job.account] = seen.now
        self._running = running
        for team in self.policy.teams:
            waits = [
                job.id
                for job in seen.jobs
                if job.state == "PD" and job.account == team and job.reason not in _NO_DEMAND and job.id in self.small
                if self._within_quota(job.id, use)
            ]
            key = f"stalled {team}"
            if not waits:
                self._since.pop(key, None)
                continue
            since = max(self._since.setdefault(key, seen.now), self._last_start.get(team, 0.0))
            if seen.now - since > STALLED:
                self._wrong(f"{team} has waited {seen.now - since:.0f} s with {waits} within its quota")
                self._since[key] = seen.now

    # -- figures -------------------------------------------------------------------------------------

    def _within_quota(self, job: int, use: Use) -> bool:
        team, pool, gpus = self.demand[job]
        return use.get((team, pool), 0) + gpus <= self.policy.teams[team].quotas[pool].nominal

    def _use(self, jobs: Iterable[Job]) -> Use:
        use: Use = {}
        for job in jobs:
            if job.state == "R":
                for pool, amount in self._pools_of(job):
                    use[job.account, pool] = use.get((job.account, pool), 0) + amount
        return use

    def _pools_of(self, job: Job) -> list[tuple[str, int]]:
        pools = self.policy.pools.values()
        return [(pool.name, job.gpus[pool.tres]) for pool in pools if job.gpus.get(pool.tres)]

    @staticmethod
    def _leaves(job: Job) -> bool:
        """Whether it runs and is told to leave."""
        found = _MARK.search(job.comment) if job.state == "R" else None
        return found is not None and found[4] == job.start and not found[5]

    def _each(self) -> list[tuple[str, str, str]]:
        return [(team, pool.name, pool.tres) for team in self.policy.teams for pool in self.policy.pools.values()]

    def _in_force(self, now: float) -> list[Policy]:
        return [self.policy, *([self._old] if self._old and now < self._changed + SETTLE else [])]

    def _members(self, cohort: str) -> list[str]:
        inside = {cohort}
        for _ in self.policy.cohorts:
            inside |= {one.name for one in self.policy.cohorts.values() if one.parent in inside}
        return [team.name for team in self.policy.teams.values() if team.cohort in inside]

    def _lendable(self, policy: Policy, pool: str) -> int:
        """All that could be lent if nobody with a quota used any of it."""
        holders = [*policy.teams.values(), *policy.cohorts.values()]
        quotas = [holder.quotas[pool] for holder in holders]
        given = sum(quota.nominal for quota in quotas)
        lent = sum(one.nominal if one.lend is None else min(one.lend, one.nominal) for one in quotas)
        return lent + (max(0, self.capacity[pool] - given) if policy.lend_unallocated else 0)

    def _borrowed(self, use: Use, pool: str) -> int:
        teams = self.policy.teams.values()
        return sum(max(0, use.get((team.name, pool), 0) - team.quotas[pool].nominal) for team in teams)

    def _lasting(self, now: float, key: str, wrong: bool, said: str) -> None:
        if not wrong:
            self._since.pop(key, None)
        elif now - self._since.setdefault(key, now) > SETTLE:
            self._wrong(f"for {now - self._since[key]:.0f} s: {said}")
            self._since[key] = now

    def _wrong(self, said: str) -> None:
        self.broken.append(f"at {self._now:.1f}: {said}")
