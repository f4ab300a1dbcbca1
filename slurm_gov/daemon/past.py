"""What teams borrowed lately, from the ledger, for the fairness over time that the policy asks for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

from slurm_gov.core.policy import frozen
from slurm_gov.core.snapshot import Snapshot
from slurm_gov.daemon.log import log
from slurm_gov.database import Where, exists
from slurm_gov.ledger import LedgerError, borrowed_lately

EVERY = 60.0
"""Seconds between two looks at the ledger; it is that far behind itself."""


class Past:
    """Reads the ledger in a thread: only the first cycle waits for it. Without a ledger nobody has a past."""

    def __init__(self, ledger: Where) -> None:
        self._ledger = ledger
        self._known: Mapping[str, float] = frozen({})
        self._of: float | None = None
        self._looked = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def filled_in(self, half_life: float | None, snapshot: Snapshot) -> Snapshot:
        """The snapshot with what teams borrowed lately, if the policy has a half-life."""
        if half_life is None:
            return snapshot
        if half_life != self._of:
            await self._look(half_life)
        elif time.monotonic() - self._looked > EVERY and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._look(half_life))
        return replace(snapshot, borrowed_lately=self._known)

    async def _look(self, half_life: float) -> None:
        self._of, self._looked = half_life, time.monotonic()
        if not exists(self._ledger):
            return  # the first cycle of all: nobody has a past
        try:
            found = await asyncio.to_thread(borrowed_lately, self._ledger, half_life, time.time())
        except LedgerError as error:
            log.warning("what teams borrowed lately is not known", error=str(error))
        else:
            self._known = frozen(found)
