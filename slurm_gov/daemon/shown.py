"""What the governor's cycles hand to the live page and the read API."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from slurm_gov.core.rows import Look
from slurm_gov.daemon.cycle import Cycle
from slurm_gov.ledger import Event
from slurm_gov.web.board import Board, Happening, Took


class Shown:
    """A watcher that puts every cycle on the board. Quick: what is shown is computed when somebody asks."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def cycle(self, cycle: Cycle) -> None:
        took = Took(cycle.look_seconds, cycle.decide_seconds, cycle.act_seconds, cycle.failures, cycle.error)
        notes = (cycle.leader,) if cycle.standby else ()
        self._board.put(Look(cycle.policy, cycle.snapshot, cycle.plan, cycle.actions, notes=notes), took)

    def blind(self, error: str) -> None:
        self._board.blind(time.time(), error)

    def event(self, event: Event) -> None:
        self._board.happened(lambda id: Happening(id, **asdict(event)))

    def asked(self, facts: Mapping[str, Any]) -> None:
        pass
