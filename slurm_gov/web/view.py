"""One look as rows, each kind computed when it is first asked for."""

from __future__ import annotations

from functools import cached_property

from slurm_gov.core import rows
from slurm_gov.core.rows import Look, OtherRow, PoolRow, PreemptionRow, RunningRow, TeamRow, WaitingRow
from slurm_gov.web.board import State
from slurm_gov.web.nodes import NodeRow, nodes
from slurm_gov.web.sharing import Segment, segments


class View:
    """The rows of one look."""

    def __init__(self, look: Look) -> None:
        self.look = look

    @cached_property
    def pools(self) -> list[PoolRow]:
        return rows.pools(self.look)

    @cached_property
    def segments(self) -> dict[str, list[Segment]]:
        return {pool.pool: segments(self.look, pool.pool) for pool in self.look.plan.pools}

    @cached_property
    def teams(self) -> list[TeamRow]:
        return rows.teams(self.look)

    @cached_property
    def without_team(self) -> list[OtherRow]:
        return rows.without_team(self.look)

    @cached_property
    def preemptions(self) -> list[PreemptionRow]:
        return rows.preemptions(self.look)

    @cached_property
    def running(self) -> list[RunningRow]:
        return rows.running(self.look)

    @cached_property
    def waiting(self) -> list[WaitingRow]:
        return rows.waiting(self.look)

    @cached_property
    def nodes(self) -> list[NodeRow]:
        return nodes(self.look)

    @cached_property
    def warnings(self) -> list[str]:
        return rows.warnings(self.look)


class Views:
    """The view of the newest look, made once per look."""

    def __init__(self) -> None:
        self._view: View | None = None

    def of(self, state: State) -> View | None:
        """Its view; ``None`` if Slurm has not answered yet."""
        if state.look is None:
            return None
        if self._view is None or self._view.look is not state.look:
            self._view = View(state.look)
        return self._view
