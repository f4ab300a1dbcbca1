"""What the live page shows, as one JSON document, and the changes from one to the next (RFC 7396 merge patches).

The document holds what fits on a page, whatever the number of jobs: all pools, teams and nodes, the first waiting
jobs, counts of the rest. A key that does not apply is left out, so that ``null`` can mean "take it away".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from slurm_gov.core import rows
from slurm_gov.core.decision import Reason
from slurm_gov.core.rows import Look, PreemptionRow, WaitingRow
from slurm_gov.web.api import cluster_of
from slurm_gov.web.board import Board, State
from slurm_gov.web.history import STEP, Sample
from slurm_gov.web.nodes import NodeRow
from slurm_gov.web.view import View

WAITING = 100
"""The waiting jobs on the page, the first in line; the read API has all of them."""
HAPPENED = 100
"""The decisions on the page."""

Document = dict[str, Any]


def document(board: Board, state: State, seen: View) -> Document:
    """The page at this moment."""
    cluster = cluster_of(board, state, seen)
    # Those that are not ready are waiting for something else: they come last, though Slurm may rank them first.
    line = sorted(seen.look.plan.decisions, key=lambda one: one.reason is Reason.NOT_READY)
    first = rows.waiting(seen.look, line[:WAITING])
    leave: dict[str, float] = {}
    for one in seen.preemptions:
        if one.deadline is not None:
            leave[one.beneficiary] = max(leave.get(one.beneficiary, 0.0), one.deadline)
    return {
        "cluster": _without_none(
            version=cluster.version,
            started=cluster.started,
            time=cluster.time,
            interval=cluster.interval,
            silent_since=cluster.silent_since,
            slurm_error=cluster.slurm_error or None,
            acting_failed=cluster.cycle.error or None,
            failures=cluster.cycle.failures or None,
            cycle=round(cluster.cycle.look + cluster.cycle.decide + cluster.cycle.act, 2),
            running_jobs=cluster.running_jobs,
            waiting_jobs=cluster.waiting_jobs,
            warnings=cluster.warnings,
        ),
        "pools": {
            row.pool: _without_none(
                n=number,
                nodes=row.nodes,
                total=row.total,
                healthy=row.healthy,
                used=row.used,
                free=row.free,
                quota=row.quota,
                borrowed=row.borrowed,
                without_team=row.without_team,
                segments=[[str(s.use), s.owner or "", s.user or "", s.gpus] for s in seen.segments[row.pool]],
            )
            for number, row in enumerate(seen.pools)
        },
        "teams": {
            f"{row.pool}/{row.team}": _without_none(
                team=row.team,
                pool=row.pool,
                quota=row.quota,
                borrow_limit=row.borrow_limit,
                used=row.used,
                borrowed=row.borrowed,
                lent=row.lent,
                cap=row.cap,
                planned_cap=row.planned_cap,
                running=row.running_jobs,
                waiting=row.waiting_jobs,
                waiting_gpus=row.waiting_gpus,
            )
            for row in seen.teams
        },
        "others": {
            row.pool: {"used": row.used, "running": row.running_jobs, "waiting": row.waiting_jobs}
            for row in seen.without_team
            if row.used or row.waiting_jobs
        },
        "reasons": _reasons(seen.look),
        "waiting": {row.job: _waiting(number, row, leave.get(row.job)) for number, row in enumerate(first)},
        "preemptions": {row.job: _preemption(row) for row in seen.preemptions},
        "nodes": {row.node: _node(row) for row in seen.nodes},
        "happened": {
            str(one.id): {name: value for name in one.__slots__ if (value := getattr(one, name))}
            for one in state.happened[-HAPPENED:]
        },
        "history": _history(state.history),
        "history_step": STEP,
    }


def _without_none(**fields: Any) -> Document:
    return {name: value for name, value in fields.items() if value is not None}


def _reasons(look: Look) -> Document:
    """For every reason the number of jobs that wait for it, and of the GPUs that they ask for."""
    counts: dict[str, list[int]] = {}
    for one in look.plan.decisions.verdicts:
        count = counts.setdefault(str(one.reason), [0, 0])
        for job in one.jobs:
            count[0] += job.tasks
            count[1] += job.tasks * sum(job.request.gpus.values())
    return counts


def _waiting(number: int, row: WaitingRow, room: float | None) -> Document:
    """``room`` is when the last of those that leave for it has left: Slurm knows nothing of that."""
    return _without_none(
        n=number,
        name=row.name or None,
        user=row.user,
        team=row.team,
        pool=row.pool,
        gpus=row.gpus,
        nodes=row.nodes,
        tasks=row.tasks if row.tasks > 1 else None,
        priority_class=row.priority_class,
        since=row.submitted,
        expected=room or row.expected_start,
        place=row.place,
        reason=str(row.reason),
        why=row.why,
        slurm=row.slurm_reason if row.slurm_reason not in ("", "None") else None,
    )


def _preemption(row: PreemptionRow) -> Document:
    return _without_none(
        team=row.team,
        user=row.user,
        gpus=row.gpus,
        phase=str(row.phase),
        beneficiary=row.beneficiary,
        beneficiary_team=row.beneficiary_team,
        deadline=row.deadline,
        then=row.then,
        reason=row.reason,
    )


def _node(row: NodeRow) -> Document:
    return _without_none(
        c=str(row.condition),
        g=row.gpus,
        u=row.used or None,
        p=row.pools[0] if row.pools else None,
        s=row.state,
        r=row.reason or None,
        t=row.teams or None,
    )


def _history(samples: Iterable[Sample]) -> Document:
    history: Document = {}
    for sample in samples:
        for one in sample.pools:
            figures = [one.within, one.borrowed, one.without_team, one.free, one.away, one.waiting]
            history.setdefault(one.pool, {})[str(int(sample.at))] = figures
    return history


def changes(before: Document, after: Document) -> Document:
    """The merge patch that makes one document of another; empty if they are equal."""
    patch: Document = {name: None for name in before if name not in after}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            if inner := changes(old, value):
                patch[name] = inner
        elif value != old:
            patch[name] = value
    return patch
