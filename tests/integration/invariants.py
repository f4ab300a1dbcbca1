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
"""Seconds without any start of a team that has a small job waiting within its quota; or without any start in a pool
where one could borrow.
"""
_MARK = re.compile(
    r"\[slurm-gov preempt for=(\d+) team=(\S+) since=(\S+) until=\S+ run=(\d+)(?: held=\d+)?( spared)?: ([^\]]*)\]"
)
_NO_DEMAND = {"Dependency", "BeginTime", "JobHeldUser", "JobHeldAdmin", "JobArrayTaskLimit", "JobHoldMaxRequeue"}

Use = dict[tuple[str, str], int]  # GPUs by team and pool


@dataclass(frozen=True)
class Job:
    """A line of squeue: a job, a task of an array, or a component of a het job."""

    id: int
    array: int
    state: str
    reason: str
    account: str
    gpus: Mapping[str, int]  # allocated, by TRES
    nodes: tuple[str, ...]
    start: str
    comment: str
    restarts: int = 0
    het: int = 0  # the het job that it is a component of

    @property
    def whole(self) -> int:
        """What leaves if it does: a het job leaves with all its components."""
        return self.het or self.id

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
    het: int = 0  # the het job that it is a component of


@dataclass
class Taking:
    """That a job, or a het job with all its components, is told to leave what it holds in a pool."""

    since: int
    whole: int
    gpus: int
    quota: int  # its team's
    comment: str
    spared: bool = False


@dataclass(frozen=True)
class Observation:
    """What was seen at about one time.

    ``free``: by pool, how many GPUs are free on each of its nodes. ``counted`` is what the governor says that each
    team holds in each pool, and those that are no team's, under the name "".
    """

    now: float
    jobs: tuple[Job, ...]
    caps: Mapping[str, Mapping[str, int]]
    free: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    counted: Use | None = None


@dataclass
class Invariants:
    """Watches; ``broken`` has a line for everything that was not as it must be.

    What it is told of jobs is by job id, of het jobs by that of the whole.
    """

    policy: Policy
    capacity: Mapping[str, int]  # GPUs by pool
    arrays: set[int] = field(default_factory=set)  # their ids
    keep: set[int] = field(default_factory=set)  # jobs that cannot be requeued
    small: set[int] = field(default_factory=set)  # jobs that fit on a part of a node
    exclusive: dict[int, int] = field(default_factory=dict)  # jobs that want whole nodes: to GPUs of a node
    demand: dict[int, tuple[str, str, int]] = field(default_factory=dict)  # job to team, pool, GPUs
    broken: list[str] = field(default_factory=list)
    seen: int = 0
    preempted: dict[tuple[int, str], tuple[int, int]] = field(
        default_factory=dict
    )  # job and run, for whom in which run
    most_borrowed: Use = field(default_factory=dict)
    _taken: dict[tuple[str, str], list[Taking]] = field(default_factory=dict)  # from a team, of a pool
    _said: set[str] = field(default_factory=set)
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
        self._all_are_counted(seen, use)
        self._exclusive_ones_have_whole_nodes(seen)
        self._preemptions(seen)
        self._who_left_comes_back(seen)
        self._strangers_are_let_be(seen)
        self._note_starts(seen)
        self._nobody_stalls(seen, use)
        self._nothing_lies_idle(seen, use)
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

    def _all_are_counted(self, seen: Observation, use: Use) -> None:
        """The governor counts what squeue shows: each component of a het job, whole nodes, and those of no team."""
        for (team, pool), counted in (seen.counted or {}).items():
            looks = [old.get((team, pool), 0) for _, old in self._history]
            self._lasting(
                seen.now, f"count {team} {pool}", not min(looks) <= counted <= max(looks),
                f"the governor counts {counted} {pool} of {team or 'no team'}, and squeue shows {looks[-1]}",
            )  # fmt: skip

    def _exclusive_ones_have_whole_nodes(self, seen: Observation) -> None:
        on: dict[str, set[int]] = {}
        running = [job for job in seen.jobs if job.state == "R"]
        for job in running:
            for node in job.nodes:
                on.setdefault(node, set()).add(job.id)
        for job in running:
            if job.id in self.exclusive:
                held, whole = sum(job.gpus.values()), self.exclusive[job.id] * len(job.nodes)
                others = set().union(*(on[node] for node in job.nodes)) - {job.id}
                if held != whole or others:
                    self._once(f"exclusive job {job.id} holds {held} GPUs of {whole}, beside jobs {sorted(others)}")

    def _preemptions(self, seen: Observation) -> None:
        """Who is preempted for another team is of one that held more than its quota; nobody twice for the same, nor
        one that cannot be requeued. A het job leaves as a whole.
        """
        restarts = {job.id: job.restarts for job in seen.jobs}
        running = sorted((job for job in seen.jobs if job.state == "R"), key=lambda job: -job.id)
        # Whom one left for may have been noted anew in the moment in which it went.
        for job in seen.jobs:
            if job.state == "PD" and job.mark and " spared: " not in job.comment:
                key, beneficiary = (job.whole, job.mark[2]), job.mark[0]
                if key in self.preempted and self.preempted[key][0] != beneficiary:
                    self.preempted[key] = (beneficiary, restarts.get(beneficiary, 0))
        begun = {job.whole: job.start for job in running}
        leaving = {job.whole: job for job in running if self._leaves(job)}
        for job in running:
            # Spared: it was told to leave, and did not. Of a het job the component that was told may end first.
            stays = job.whole not in leaving and (not job.het or " spared: " in job.comment)
            if stays and self.preempted.pop((job.whole, begun[job.whole]), None):
                self._note_spared(job.whole)
        for whole, job in leaving.items():
            beneficiary, team, _ = job.mark
            # A beneficiary that ran and was preempted itself waits anew.
            key, whom = (whole, begun[whole]), (beneficiary, restarts.get(beneficiary, 0))
            known = self.preempted.get(key)
            earlier = {other for (id, run), other in self.preempted.items() if (id, run) != key and id == whole}
            # Spared for a moment between two looks, and told again: it leaves for whom its mark names now.
            if known is None or known[0] != beneficiary:
                self.preempted[key] = whom
            if known is not None:
                continue
            if whom in earlier and beneficiary not in self.arrays:
                self._wrong(f"job {whole} is preempted for {beneficiary} a second time")
            if whole in self.keep:
                self._wrong(f"job {whole} cannot be requeued and is preempted")
            if team != job.account and job.account in self.policy.teams:
                self._note_taking(job, [one for one in running if one.whole == whole and one.account == job.account])

    def _note_spared(self, whole: int) -> None:
        for takings in self._taken.values():
            for taking in takings:
                taking.spared = taking.spared or taking.whole == whole

    def _note_taking(self, told: Job, leave: list[Job]) -> None:
        """One of these was told to leave, and all of them do."""
        for pool, _ in self._pools_of(told):
            gpus = sum(amount for one in leave for name, amount in self._pools_of(one) if name == pool)
            quota = min(policy.teams[told.account].quotas[pool].nominal for policy in self._in_force(self._now))
            taking = Taking(int(told.since), told.whole, gpus, quota, told.comment)
            self._taken.setdefault((told.account, pool), []).append(taking)

    def judge_takings(self, runs: Iterable[Run]) -> None:
        """Before the last of those that have been told to leave, the team still held more than its quota: by what
        accounting says of all runs, since those that lived for less than a second may never have been seen.
        """
        runs = list(runs)
        for (account, pool), takings in self._taken.items():
            held = [run for run in runs if run.account == account and run.pool == pool]
            for since in sorted({one.since for one in takings}):
                # In whole seconds, and the look that decided was a little earlier.
                seconds = range(since - LOOKED, since + 2)
                most = max(sum(one.gpus for one in held if one.start <= at + 1 and one.end >= at) for at in seconds)
                now = [one for one in takings if one.since == since]
                # Those of earlier decisions that have not left yet, in the run in which they were told to.
                stay = [run for run in held if run.start < since and run.end > since + 1]
                begun = {run.het or run.job: run.start for run in stay}
                before = [one for one in takings if one.since < since and not one.spared]
                before = [one for one in before if begun.get(one.whole, since) <= one.since]
                taken = [one.gpus for one in (*now, *{one.whole: one for one in before}.values())]
                # Which of them was the last is not seen: the mildest is taken.
                if most - (sum(taken) - max(taken)) <= now[-1].quota:
                    self._wrong(
                        f"job {now[-1].whole} of {account} is preempted: its team held at most {most} of its quota "
                        f"of {now[-1].quota} {pool}, and {len(taken)} of its jobs with {sum(taken)} are taken at "
                        f"once; {now[-1].comment}"
                    )

    def _who_left_comes_back(self, seen: Observation) -> None:
        """Who was requeued waits until the one that it left for has started, and not until Slurm would let it."""
        wait = {job.id for job in seen.jobs if job.state == "PD"}
        marked = sorted((job for job in seen.jobs if job.mark), key=lambda job: float(job.since))
        left_for = {job.whole: job.mark[0] for job in marked}
        kept = {
            job.whole: f"job {job.whole} left for {left_for[job.whole]}, which waits no more, and may not start yet"
            for job in seen.jobs
            if job.state == "PD" and job.reason == "BeginTime"
            if job.restarts and "[slurm-gov behind" not in job.comment
            if left_for.get(job.whole, job.id) not in wait
        }
        for key in [key for key in self._since if key.startswith("back ") and int(key[5:]) not in kept]:
            del self._since[key]
        for whole, said in kept.items():
            self._lasting(seen.now, f"back {whole}", True, said)

    def _strangers_are_let_be(self, seen: Observation) -> None:
        """Jobs of accounts without a policy are told nothing, and their accounts have no caps."""
        for job in seen.jobs:
            told = job.restarts or re.search(r"\[slurm-gov (preempt|behind)", job.comment)
            if told and job.account not in self.policy.teams:
                self._once(f"job {job.id} of {job.account}, which is no team, was stopped or told to: {job.comment}")
        for account, caps in seen.caps.items():
            if account not in self.policy.teams and caps:
                self._once(f"account {account} is no team, and has caps: {caps}")

    def _note_starts(self, seen: Observation) -> None:
        running = {job.id for job in seen.jobs if job.state == "R"}
        for job in seen.jobs:
            if job.id in running - self._running:
                for what in (f"team {job.account}", *(f"pool {pool}" for pool, _ in self._pools_of(job))):
                    self._last_start[what] = seen.now
        self._running = running

    def _nobody_stalls(self, seen: Observation, use: Use) -> None:
        for team in self.policy.teams:
            waits = [job for job in self._small(seen) if job.account == team and self._within_quota(job.id, use)]
            self._starts(seen.now, f"team {team}", waits, f"{team} has waited, within its quota")

    def _nothing_lies_idle(self, seen: Observation, use: Use) -> None:
        """Where a small job could borrow what is idle, something starts."""
        for pool in self.policy.pools:
            waits = [job for job in self._small(seen) if self._could_borrow(job.id, pool, seen, use)]
            self._starts(seen.now, f"pool {pool}", waits, f"{pool} has lain idle, and could be lent")

    def _small(self, seen: Observation) -> list[Job]:
        """The waiting jobs that need but a part of any node, and nothing else."""
        return [
            job for job in seen.jobs if job.state == "PD" and job.id in self.small and job.reason not in _NO_DEMAND
        ]

    def _starts(self, now: float, what: str, waits: list[Job], said: str) -> None:
        """There is a start for these before long."""
        key = f"stalled {what}"
        if not waits:
            self._since.pop(key, None)
            return
        since = max(self._since.setdefault(key, now), self._last_start.get(what, 0.0))
        if now - since > STALLED:
            self._wrong(f"{said}: {now - since:.0f} s with {[job.id for job in waits]} and no start")
            self._since[key] = now

    # -- figures -------------------------------------------------------------------------------------

    def _within_quota(self, job: int, use: Use) -> bool:
        team, pool, gpus = self.demand[job]
        return use.get((team, pool), 0) + gpus <= self.policy.teams[team].quotas[pool].nominal

    def _could_borrow(self, job: int, pool: str, seen: Observation, use: Use) -> bool:
        """Whether limits and idle GPUs surely let a job borrow; what is not surely lent counts as kept."""
        team, where, gpus = self.demand[job]
        if where != pool or max(seen.free.get(pool, (0,))) < gpus:
            return False
        for policy in self._in_force(seen.now):
            around = [team, *(name for name in policy.cohorts if team in self._members(name))]
            holders = {**policy.teams, **policy.cohorts}
            nobodys = max(0, self.capacity[pool] - sum(one.quotas[pool].nominal for one in holders.values()))
            kept = 0 if policy.lend_unallocated else nobodys
            for name, holder in holders.items():
                teams = [name] if name in policy.teams else self._members(name)
                own = holder.quotas[pool]
                quotas = sum(policy.teams[one].quotas[pool].nominal for one in teams)
                quotas += own.nominal if name not in policy.teams else 0
                held = sum(use.get((one, pool), 0) for one in teams)
                if name in around:
                    if own.borrow is not None and held + gpus > quotas + own.borrow:
                        return False
                elif own.lend is not None:
                    within, _ = self._parts(teams, pool, use)
                    kept += max(0, quotas - own.lend - within)
            if sum(seen.free[pool]) - kept < gpus:
                return False
        return True

    def _use(self, jobs: Iterable[Job]) -> Use:
        """What teams hold; what those hold that are no team's stands under no name."""
        use: Use = {}
        for job in jobs:
            if job.state == "R":
                for pool, amount in self._pools_of(job):
                    team = job.account if job.account in self.policy.teams else ""
                    use[team, pool] = use.get((team, pool), 0) + amount
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

    def _once(self, said: str) -> None:
        if said not in self._said:
            self._said.add(said)
            self._wrong(said)

    def _wrong(self, said: str) -> None:
        self.broken.append(f"at {self._now:.1f}: {said}")
