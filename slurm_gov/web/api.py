"""The read API, /api/v1: what the views show, as JSON. Described by its own OpenAPI document."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, HTTPException, Path, Query

from slurm_gov import __version__
from slurm_gov.core.decision import Reason
from slurm_gov.core.rows import RunningRow, WaitingRow, estimated, find
from slurm_gov.web import models
from slurm_gov.web.board import Board, State, newest
from slurm_gov.web.history import STEP
from slurm_gov.web.nodes import Condition
from slurm_gov.web.view import View, Views

MOST = 1000
"""Rows on one page."""
ESTIMATED = 10
"""Waiting jobs for which it is worked out when they may start, where one job is asked for."""
T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=MOST, description="How many at most.")]
Offset = Annotated[int, Query(ge=0, le=10_000_000, description="How many to leave out first.")]
Name = Annotated[str | None, Query(max_length=200)]
_NOT_YET: dict[int | str, dict[str, Any]] = {
    503: {"model": models.Problem, "description": "Slurm has not answered since slurm-govd started."}
}
_NO_SUCH: dict[int | str, dict[str, Any]] = {
    404: {"model": models.Problem, "description": "There is none of that name."}
}


def make_api(board: Board, views: Views) -> APIRouter:
    """The paths below /api/v1."""
    api = APIRouter(prefix="/api/v1", responses=_NOT_YET)

    def view() -> View:
        found = views.of(board.state)
        if found is None:
            error = board.state.error
            raise HTTPException(503, f"Slurm has not answered yet{f': {error}' if error else ''}")
        return found

    def moment(seen: View) -> float:
        return seen.look.snapshot.now

    @api.get("/cluster", summary="The governor itself, and whether Slurm answers")
    async def cluster() -> models.Cluster:
        return cluster_of(board, board.state, view())

    @api.get("/pools", summary="Pools: who owns and who uses their capacity")
    async def pools() -> models.Pools:
        seen = view()
        return models.Pools(
            moment(seen),
            [models.Pool(**_fields(row), segments=seen.segments[row.pool]) for row in seen.pools],
        )

    @api.get("/teams", summary="Teams: quota, use, borrowed, lent, cap, waiting", responses=_NO_SUCH)
    async def teams(pool: Name = None, team: Name = None) -> models.Teams:
        seen = view()
        _known(pool, seen.look.policy.pools, "pool")
        _known(team, seen.look.policy.teams, "team")
        return models.Teams(
            moment(seen),
            [row for row in seen.teams if pool in (None, row.pool) and team in (None, row.team)],
            [row for row in seen.without_team if pool in (None, row.pool) and team is None],
        )

    @api.get("/jobs", summary="Running and waiting jobs, and why each waits", responses=_NO_SUCH)
    async def jobs(
        state: Annotated[str | None, Query(pattern="^(running|waiting)$")] = None,
        pool: Name = None,
        team: Name = None,
        user: Name = None,
        reason: Reason | None = None,
        search: Annotated[
            str | None, Query(max_length=200, description="Part of the id, name, user, team, account or class.")
        ] = None,
        offset: Offset = 0,
        limit: Limit = 100,
    ) -> models.Jobs:
        seen = view()
        _known(pool, seen.look.policy.pools, "pool")
        _known(team, seen.look.policy.teams, "team")
        rows: list[RunningRow | WaitingRow] = []
        if state != "waiting" and reason is None:
            rows += seen.running
        if state != "running":
            rows += [row for row in seen.waiting if reason in (None, row.reason)]
        word = (search or "").casefold()
        found = [
            row
            for row in rows
            if pool in (None, row.pool)
            and team in (None, row.team)
            and user in (None, row.user)
            and (not word or word in _words(row))
        ]
        page, following = _page(found, offset, limit)
        return models.Jobs(moment(seen), len(found), offset, following, page)

    @api.get("/jobs/{job}", summary="One job, or all that is left of an array", responses=_NO_SUCH)
    async def job(
        job: Annotated[str, Path(pattern="^[0-9]{1,12}(_[0-9]{1,12})?$", description="4711, or 4711_3.")],
    ) -> models.Jobs:
        seen = view()
        found = find([*seen.running, *seen.waiting], job)
        if not found:
            raise HTTPException(404, f"job {job} is not in Slurm's queue")
        # When it may start is some work to find out: for one job, or the first of an array.
        wait = [row for row in found if isinstance(row, WaitingRow)][:ESTIMATED]
        known = {row.id: row for row in estimated(seen.look, wait)}
        page, following = _page([known.get(row.id, row) for row in found], 0, MOST)
        return models.Jobs(moment(seen), len(found), 0, following, page)

    @api.get("/preemptions", summary="Jobs that leave, and for whom")
    async def preemptions() -> models.Preemptions:
        seen = view()
        return models.Preemptions(moment(seen), seen.preemptions)

    @api.get("/nodes", summary="Nodes, and who holds what on them", responses=_NO_SUCH)
    async def nodes(
        pool: Name = None,
        condition: Condition | None = None,
        offset: Offset = 0,
        limit: Limit = MOST,
    ) -> models.Nodes:
        seen = view()
        _known(pool, seen.look.policy.pools, "pool")
        found = [
            row for row in seen.nodes if (pool is None or pool in row.pools) and condition in (None, row.condition)
        ]
        page, following = _page(found, offset, limit)
        return models.Nodes(moment(seen), len(found), offset, following, page)

    @api.get("/decisions", summary="What the governor did lately")
    async def decisions(
        after: Annotated[int, Query(ge=0, description="Only those with a larger id.")] = 0,
        limit: Limit = 100,
    ) -> models.Decisions:
        happened = [one for one in board.state.happened if one.id > after]
        return models.Decisions(moment(view()), newest(happened, limit))

    @api.get("/history", summary="How the pools were used in the last hours")
    async def history(
        since: Annotated[float, Query(ge=0, description="Only later samples.")] = 0,
    ) -> models.History:
        samples = [one for one in board.state.history if one.at > since]
        return models.History(moment(view()), STEP, samples)

    return api


def cluster_of(board: Board, state: State, seen: View) -> models.Cluster:
    """The governor itself at this moment."""
    snapshot, took = seen.look.snapshot, state.took
    return models.Cluster(
        version=__version__,
        now=time.time(),
        started=board.started,
        time=snapshot.now,
        slurm_answers=state.blind_since is None,
        silent_since=state.blind_since,
        slurm_error=state.error,
        interval=board.interval,
        cycle=models.CycleTimes(took.look, took.decide, took.act, took.failures, took.error),
        nodes=len(snapshot.nodes),
        running_jobs=len(snapshot.running),
        waiting_jobs=sum(job.tasks for job in snapshot.waiting),
        warnings=seen.warnings,
    )


def _fields(row: Any) -> dict[str, Any]:
    """A row's fields as they are, not copied as ``asdict`` does."""
    return {one.name: getattr(row, one.name) for one in dataclasses.fields(row)}


def _known(name: str | None, names: object, kind: str) -> None:
    if name is not None and name not in names:  # type: ignore[operator]
        raise HTTPException(404, f"the policy has no {kind} of that name")


def _page(rows: Sequence[T], offset: int, limit: int) -> tuple[list[T], int | None]:
    end = offset + limit
    return list(rows[offset:end]), end if end < len(rows) else None


def _words(row: RunningRow | WaitingRow) -> str:
    return "\n".join(
        (row.job, str(row.id), row.name, row.user, row.team or "", row.account, row.priority_class)
    ).casefold()
