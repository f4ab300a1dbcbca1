"""The largest cluster, or a part of it, in memory: full, and more jobs waiting than can run.

The whole: 10,000 nodes with 8 GPUs, 1,000 teams in 3 levels of cohorts, 10,000 running jobs and 50,000 waiting
ones. Quotas cover the cluster; four in five teams hold all of it and want more. In a storm the others ask for
theirs back, all in the same cycle, and higher classes want the place of lower ones; in a calm nobody does.
"""

from __future__ import annotations

import random
from dataclasses import replace

from slurm_gov.core.decision import Plan, Reason
from slurm_gov.core.policy import Cohort, Policy, Pool, Quota, Team, frozen
from slurm_gov.core.room import Room
from slurm_gov.core.snapshot import Held, Mark, Node, Request, RunningJob, Snapshot, WaitingJob

NODES, TEAMS, RUNNING, WAITING = 10_000, 1_000, 10_000, 50_000
TRES = "gres/gpu:h100"
NOW = 1_000_000.0
CLASSES = {"inference": 100, "training": 50, "experiment": 10}


def policy(part: int, nodes: int) -> Policy:
    """Teams in cohorts of ten, ten of these in one, all of those in one."""
    teams: dict[str, Team] = {}
    cohorts: dict[str, Cohort] = {"all": Cohort("all")}
    count = max(10, TEAMS // part)
    quota = nodes * 8 // count
    for number in range(count):
        division, group = f"division{number // 100}", f"group{number // 10}"
        cohorts.setdefault(division, Cohort(division, "all", fair_share_weight=1))
        cohorts.setdefault(group, Cohort(group, division, fair_share_weight=1))
        teams[f"team{number}"] = Team(
            f"team{number}", frozen({"h100": Quota(quota, borrow=quota)}), group, 1 + number % 5
        )
    pool = Pool("h100", ("gpu",), "gpu:h100")
    return Policy(frozen({"h100": pool}), frozen(teams), frozen(cohorts), frozen(CLASSES), protect_after=86_400.0)


def cluster(part: int, calm: bool) -> tuple[Policy, Snapshot]:
    """A full cluster of one ``part``-th of the size, always the same one."""
    dice = random.Random(part)
    nodes = [Node(f"n{number:05}", ("gpu",), frozen({TRES: 8}), 128, 2_000_000) for number in range(NODES // part)]
    rules = policy(part, len(nodes))
    names = list(rules.teams)
    owners, borrowers = names[::5], [name for name in names if name not in set(names[::5])]
    running = []
    free = [node.name for node in nodes]
    for id in range(1, RUNNING // part + 1):
        if not free:
            break
        size = min(len(free), dice.choice([1, 1, 1, 1, 1, 1, 1, 1, 2, 4]))
        held = tuple(Held(free.pop(), frozen({TRES: 8}), 64, 500_000) for _ in range(size))
        team = dice.choice(borrowers)
        running.append(_running(id, team, dice, held))
    small = iter(range(RUNNING // part))
    while len(running) < RUNNING // part and next(small, None) is not None:
        whole = running.pop(dice.randrange(len(running)))
        if len(whole.held) == 1 and whole.held[0].gpus[TRES] > 1:
            half = whole.held[0].gpus[TRES] // 2
            piece = replace(whole.held[0], gpus=frozen({TRES: half}), cpus=8 * half, memory=10_000 * half)
            running.append(replace(whole, held=(piece,)))
            running.append(_running(RUNNING + len(running) + next(small, 0), whole.account, dice, (piece,)))
        else:
            running.append(whole)
    waiting = []
    for id in range(100_000, 100_000 + WAITING // part):
        team = dice.choice(owners if id % 50 == 0 and not calm else borrowers)
        waiting.append(_waiting(id, team, "experiment" if calm else dice.choice(list(CLASSES)), dice))
    parents = frozen(dict.fromkeys(names, "root"))
    return rules, Snapshot(NOW, tuple(nodes), tuple(running), tuple(waiting), parents)


def _running(id: int, team: str, dice: random.Random, held: tuple[Held, ...]) -> RunningJob:
    qos = dice.choice(list(CLASSES))
    return RunningJob(id, str(id), "user", team, "gpu", qos, NOW - dice.randrange(100_000), held)


def _waiting(id: int, team: str, qos: str, dice: random.Random) -> WaitingJob:
    count, gpus = dice.choice([(1, 8), (1, 8), (1, 1), (1, 4), (2, 8), (4, 8), (16, 8)])
    request = Request(frozen({TRES: count * gpus}), count, gpus, cpus=8 * count * gpus)
    priority, submit = dice.randrange(100_000), NOW - dice.randrange(100_000)
    return WaitingJob(id, str(id), "user", team, ("gpu",), qos, priority, submit, request)


_START = {
    Reason.STARTS_NOW,
    Reason.RECLAIMING,
    Reason.PREEMPTING_WITHIN_TEAM,
    Reason.WAITS_FOR_NODES,
}


def carry_out(snapshot: Snapshot, decided: Plan) -> Snapshot:
    """What is there when Slurm has done what the plan says: the preempted wait again, others run in their place."""
    out = {one.job for one in decided.preempt}
    stay = [job for job in snapshot.running if job.id not in out]
    waiting = {job.id: job for job in snapshot.waiting}
    room = Room(snapshot.nodes)
    for job in stay:
        room.take(job.held)
    for one in decided.decisions:
        job = waiting[one.job]
        held = room.place(job.request, "gpu", TRES) if one.reason in _START else None
        if held is not None:
            room.take(held)
            stay.append(RunningJob(job.id, job.display_id, job.user, job.account, "gpu", job.qos, NOW, held))
            del waiting[job.id]
    again = [_again(job) for job in snapshot.running if job.id in out]
    return replace(snapshot, running=tuple(stay), waiting=(*waiting.values(), *again))


GRACE = 30.0


def warn(snapshot: Snapshot, decided: Plan) -> Snapshot:
    """As things go with a grace period: who must leave is told, and leaves when it is over; who may start starts."""
    told = {one.job: one for one in decided.preempt}
    running: list[RunningJob] = []
    again: list[WaitingJob] = []
    for job in snapshot.running:
        mark = job.mark if job.being_preempted else None
        if job.id not in told:
            running.append(job if job.mark is None else replace(job, mark=None))
        elif mark is None:
            one = told[job.id]
            mark = Mark(one.beneficiary, one.beneficiary_team, snapshot.now, snapshot.now + GRACE, job.start)
            running.append(replace(job, mark=mark))
        elif mark.deadline > snapshot.now:
            running.append(job)
        else:
            again.append(replace(_again(job), mark=mark, submit=snapshot.now))
    room = Room(snapshot.nodes)
    for job in running:
        room.take(job.held)
    waiting = {job.id: job for job in snapshot.waiting}
    starts = sorted(
        (waiting[one.job] for one in decided.decisions if one.reason in _START), key=lambda job: job.submit
    )
    for job in starts:
        held = room.place(job.request, "gpu", TRES)
        if held is not None:
            room.take(held)
            running.append(
                RunningJob(job.id, job.display_id, job.user, job.account, "gpu", job.qos, snapshot.now, held)
            )
            del waiting[job.id]
    return replace(snapshot, running=tuple(running), waiting=(*waiting.values(), *again))


def _again(job: RunningJob) -> WaitingJob:
    gpus = sum(held.gpus[TRES] for held in job.held)
    count = len(job.held)
    request = Request(frozen({TRES: gpus}), count, gpus // count, cpus=8 * gpus)
    return WaitingJob(job.id, job.display_id, job.user, job.account, ("gpu",), job.qos, 1000, NOW, request)


def change(snapshot: Snapshot, dice: random.Random, parts: int = 100) -> Snapshot:
    """One in ``parts`` of the running jobs has ended, and as many of the waiting ones were replaced by new ones."""
    ended = set(dice.sample(range(len(snapshot.running)), len(snapshot.running) // parts))
    gone = set(dice.sample(range(len(snapshot.waiting)), len(snapshot.waiting) // parts))
    first = max(job.id for job in (*snapshot.running, *snapshot.waiting)) + 1
    old = [snapshot.waiting[index] for index in sorted(gone)]
    new = [_waiting(first + number, job.account, job.qos, dice) for number, job in enumerate(old)]
    return replace(
        snapshot,
        now=snapshot.now + 5,
        running=tuple(job for index, job in enumerate(snapshot.running) if index not in ended),
        waiting=(*(job for index, job in enumerate(snapshot.waiting) if index not in gone), *new),
    )
