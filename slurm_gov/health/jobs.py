"""What becomes of jobs on sick nodes. Pure: the notes on the jobs are all that is remembered.

A job is noted first, then stopped. When it waits again it gets its place in line back, avoids the node until that is
well, and may start as soon as there is room; one that faults stopped too often is held, for its user to look at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil

from slurm_gov.core.actions import CREDENTIAL_MARGIN, comes_back
from slurm_gov.core.health import FaultJobs
from slurm_gov.core.snapshot import FaultMark, Node, RunningJob, RunState, Snapshot, WaitingJob


@dataclass(frozen=True, slots=True)
class Leaving:
    """What to do about the jobs of one node, in this order. ``note``: mark them first. ``signal``: tell them to save
    a checkpoint. ``requeue``: one by one. ``down``: the node goes DOWN, which requeues all that are left. ``going``:
    all that are requeued now. ``waits_for``: jobs that the node must wait for.
    """

    note: tuple[tuple[RunningJob, FaultMark], ...] = ()
    signal: tuple[RunningJob, ...] = ()
    requeue: tuple[RunningJob, ...] = ()
    down: bool = False
    going: tuple[RunningJob, ...] = ()
    waits_for: tuple[RunningJob, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.note or self.signal or self.requeue or self.down)


@dataclass(frozen=True, slots=True)
class Settle:
    """What a job that came back gets: its place, what it avoids (``None``: as it is), a hold, its new note, and after
    how many seconds it may start (``None``: as Slurm has it).
    """

    job: WaitingJob
    mark: FaultMark
    place: float | None = None
    avoids: frozenset[str] | None = None
    hold: bool = False
    start: float | None = None


def note(job: RunningJob, node: str, reason: str, now: float, until: float = 0.0) -> FaultMark:
    """The note for a job that a sick node stops."""
    before = job.fault
    waited = (before.waited if before else 0.0) + max(0.0, now - (job.submit or job.start or now))
    count = (before.count if before else 0) + 1
    if before is not None and before.run == job.start:
        count, waited = before.count, before.waited
    return FaultMark(node, now, job.start, count, waited, until, reason=reason)


def at_once(node: str, jobs: Iterable[RunningJob], reason: str, rules: FaultJobs, now: float) -> Leaving:
    """Requeue the jobs of a failing node now: by DOWN, unless that would kill one that shall not be killed."""
    there = [job for job in jobs if job.state is not RunState.COMPLETING]
    notes = tuple((job, note(job, node, reason, now)) for job in there if not _noted(job, node) or job.fault.until)  # type: ignore[union-attr]
    going = tuple(job for job in there if job.requeueable)
    stuck = tuple(job for job in there if not job.requeueable)
    if stuck and not rules.end_unrequeueable:
        return Leaving(note=notes, requeue=going, going=going, waits_for=stuck)
    return Leaving(note=notes, down=True, going=going)


def to_checkpoint(
    node: str, jobs: Iterable[RunningJob], reason: str, rules: FaultJobs, now: float, suspect: bool = False
) -> Leaving:
    """Tell the jobs of a draining node to save a checkpoint, and requeue those whose grace is over; of one that is
    only ``suspect``, those jobs whose class leaves such nodes.
    """
    there = [job for job in jobs if job.state is RunState.RUNNING and job.requeueable]
    new = [job for job in there if not _told(job) and _leaves(job, rules, suspect)]
    over = tuple(job for job in there if _told(job) and job.fault and job.fault.until <= now)
    return Leaving(
        note=tuple((job, note(job, node, reason, now, now + rules.of(job.qos).grace)) for job in new),
        signal=tuple(new),
        requeue=over,
        going=over,
    )


def stays(jobs: Iterable[RunningJob], emptied: Collection[str]) -> list[tuple[RunningJob, FaultMark | None]]:
    """Jobs that were told to save a checkpoint and stay after all, each with its note from before, if it had one.
    ``emptied``: the nodes that jobs leave.
    """
    found = []
    for job in jobs:
        mark = job.fault
        if mark is None or not _told(job) or any(held.node in emptied for held in job.held):
            continue
        waited = max(0.0, mark.waited - max(0.0, mark.at - (job.submit or job.start or mark.at)))
        before = replace(mark, run=0.0, count=mark.count - 1, waited=waited, until=0.0, settled=True, avoids="")
        found.append((job, before if before.count else None))
    return found


def _leaves(job: RunningJob, rules: FaultJobs, suspect: bool) -> bool:
    moves = rules.of(job.qos)
    return moves.suspect if suspect else moves.draining


def _told(job: RunningJob) -> bool:
    """Whether it was told to save a checkpoint: in this run, for whichever of its nodes."""
    return job.fault is not None and job.fault.run == job.start and job.fault.until > 0


def _noted(job: RunningJob, node: str) -> bool:
    return job.fault is not None and job.fault.run == job.start and job.fault.node == node


def place_of(job: RunningJob, without: Collection[str], usable: Collection[str]) -> frozenset[str]:
    """The nodes to keep for a job that a fault stops, until it may start again: others would take them meanwhile.
    ``without``: nodes that it leaves.
    """
    return frozenset(held.node for held in job.held if held.node not in without and held.node in usable)


def still_leaves(snapshot: Snapshot, id: int, run: float | None) -> bool:
    """Whether a job that a fault stops is not yet ready to start again. ``run``: the start of the run that is
    stopped, if known: its note may be younger than the snapshot.
    """
    for job in snapshot.running:
        if job.id == id:
            noted = job.fault.run if job.fault is not None else None
            return job.start in (run, noted) or job.state is RunState.COMPLETING
    for waits in snapshot.waiting:
        if waits.id == id and comes_back(waits.fault, waits.mark, waits.submit, waits.begin):
            return not waits.held_back and waits.begin is not None and waits.begin > snapshot.now
    return False


def settle(
    snapshot: Snapshot, excluded: Mapping[int, frozenset[str]], well: frozenset[str], rules: FaultJobs
) -> list[Settle]:
    """What to do for waiting jobs that faults stopped. ``excluded``: what each avoids; ``well``: healthy nodes."""
    found = []
    for job in snapshot.waiting:
        mark = job.fault
        if mark is None or job.submit < mark.at - 1:
            continue
        start = _start(snapshot, job, mark)
        if not mark.settled:
            hold = mark.count > rules.restarts
            avoids = _avoids(snapshot, job, mark, excluded.get(job.id, frozenset()))
            new = replace(mark, settled=True, avoids=mark.node if avoids else "", until=0.0)
            if hold:
                new = replace(new, reason=f"{mark.reason}; held: stopped {mark.count} times by faults")
            found.append(Settle(job, new, mark.waited, avoids, hold, None if hold else start))
        elif mark.avoids and mark.avoids in well:
            left = excluded.get(job.id, frozenset()) - {mark.avoids}
            found.append(Settle(job, replace(mark, avoids=""), avoids=left, start=start))
        elif start is not None:
            found.append(Settle(job, mark, start=start))
    return found


def _avoids(snapshot: Snapshot, job: WaitingJob, mark: FaultMark, already: frozenset[str]) -> frozenset[str] | None:
    """What it shall avoid, or None where that would leave it too few nodes ever to run on."""
    if mark.node in job.request.required_nodes or mark.node in already:
        return None
    there = [node for node in snapshot.nodes if _could(node, job) and node.name not in already | {mark.node}]
    return already | {mark.node} if len(there) >= job.request.min_nodes else None


def _could(node: Node, job: WaitingJob) -> bool:
    return bool(set(node.partitions) & set(job.partitions)) and job.request.may_use(node)


def _start(snapshot: Snapshot, job: WaitingJob, mark: FaultMark) -> float | None:
    """After how many seconds it may start, if Slurm would let it wait its two minutes."""
    back = job.slurm_reason == "BeginTime" and comes_back(mark, job.mark, job.submit, job.begin)
    if not back or job.begin is None:
        return None
    wanted = job.submit + CREDENTIAL_MARGIN
    return max(0.0, float(ceil(wanted - snapshot.now))) if job.begin > max(wanted, snapshot.now) + 1 else None
