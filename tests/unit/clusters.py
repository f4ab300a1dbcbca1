"""Builders of small clusters for the unit tests: teams, nodes, running and waiting jobs."""

from __future__ import annotations

from dataclasses import replace

from slurm_gov.core.decision import Decision, Decisions, Plan, Verdict
from slurm_gov.core.policy import Policy, Pool, Quota, Team, frozen
from slurm_gov.core.snapshot import Held, Mark, Node, Request, RunningJob, Snapshot, WaitingJob

H100 = "gres/gpu:h100"
NOW = 100_000.0


def team(name: str, quota: int, borrow: int | None = None, lend: int | None = None, **more) -> Team:
    return Team(name, frozen({"h100": Quota(quota, borrow, lend)}), **more)


def policy(*teams: Team, **more) -> Policy:
    pool = Pool("h100", ("gpu",), "gpu:h100")
    classes = frozen({"inference": 100, "training": 50, "experiment": 10})
    return Policy(
        pools=frozen({"h100": pool}),
        teams=frozen({one.name: one for one in teams}),
        priority_classes=classes,
        **more,
    )


def node(name: str, gpus: int = 8, usable: bool = True) -> Node:
    return Node(name, ("gpu",), frozen({H100: gpus}), 64, 512_000, usable=usable)


def running(id: int, account: str, nodes: str, gpus: int = 8, start: float = NOW - 100, **more) -> RunningJob:
    held = tuple(Held(name, frozen({H100: gpus}), gpus, 1000) for name in nodes.split())
    more.setdefault("qos", "training")
    return RunningJob(id, str(id), "alice", account, "gpu", start=start, held=held, **more)


def waiting(id: int, account: str, nodes: int = 1, gpus: int = 8, **more) -> WaitingJob:
    """A job that asks for ``nodes`` nodes with ``gpus`` GPUs each."""
    request = Request(frozen({H100: nodes * gpus}), min_nodes=nodes, gpus_per_node=gpus, cpus=nodes * gpus)
    more.setdefault("qos", "training")
    more.setdefault("priority", 1000)
    more.setdefault("request", request)
    more.setdefault("submit", NOW - 600)
    return WaitingJob(id, str(id), "bob", account, ("gpu",), **more)


def decisions(*decided: Decision) -> Decisions:
    """As a plan has them: each of a job of its own."""
    jobs = [replace(waiting(one.job, one.team or ""), display_id=one.display_id) for one in decided]
    told = [(one, (one.reason, "{}", (one.why,)), [job]) for one, job in zip(decided, jobs, strict=True)]
    return Decisions(jobs, [Verdict(one.team, one.pool, outcome, its) for one, outcome, its in told])


def snapshot(nodes: int | list[Node], *jobs: RunningJob | WaitingJob, **more) -> Snapshot:
    if isinstance(nodes, int):
        nodes = [node(f"n{index}") for index in range(1, nodes + 1)]
    return Snapshot(
        NOW,
        tuple(nodes),
        tuple(job for job in jobs if isinstance(job, RunningJob)),
        tuple(job for job in jobs if isinstance(job, WaitingJob)),
        **more,
    )


TWO = policy(team("research", 32), team("product", 32))


def full_of_research() -> list[RunningJob]:
    return [running(id, "research", f"n{id}", start=NOW - 1000 + id) for id in range(1, 9)]


def left(found: Snapshot, decided: Plan) -> Snapshot:
    """The same when those whom a plan preempts have left; they do not wait yet."""
    gone = {one.job for one in decided.preempt}
    return replace(found, running=tuple(job for job in found.running if job.id not in gone))


def being_preempted(job: RunningJob, beneficiary: int) -> RunningJob:
    return replace(job, mark=Mark(beneficiary, "product", NOW - 5, NOW + 25, job.start))
