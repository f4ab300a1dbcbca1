"""What teams and cohorts borrowed lately, from the ledger, for the fairness over time that the policy asks for."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from slurm_gov.core.policy import Policy, frozen
from slurm_gov.core.snapshot import Snapshot
from slurm_gov.daemon.log import log
from slurm_gov.database import Where, exists
from slurm_gov.ledger import Lately, LedgerError, borrowed_lately

EVERY = 60.0
"""Seconds between two looks at the ledger; it is that far behind itself."""


class Past:
    """Reads the ledger in a thread: only the first cycle waits for it. Without a ledger nobody has a past."""

    def __init__(self, ledger: Where) -> None:
        self._ledger = ledger
        self._known = Lately(frozen({}), frozen({}))
        self._of: Policy | None = None
        self._looked = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def filled_in(self, policy: Policy, snapshot: Snapshot) -> Snapshot:
        """The snapshot with what teams and cohorts borrowed lately, if the policy has a half-life."""
        if policy.half_life is None:
            return snapshot
        if self._of is None or policy.half_life != self._of.half_life:
            await self._look(policy)
        elif (policy is not self._of or time.monotonic() - self._looked > EVERY) and (
            self._task is None or self._task.done()
        ):
            self._task = asyncio.create_task(self._look(policy))
        return replace(snapshot, borrowed_lately=self._known.teams, cohorts_borrowed_lately=self._known.cohorts)

    async def _look(self, policy: Policy) -> None:
        self._of, self._looked = policy, time.monotonic()
        if not exists(self._ledger):
            return  # the first cycle of all: nobody has a past
        try:
            found = await asyncio.to_thread(borrowed_lately, self._ledger, policy, time.time())
        except LedgerError as error:
            log.warning("what was borrowed lately is not known", error=str(error))
        else:
            if self._of is policy:  # and not one that came meanwhile
                self._known = Lately(frozen(found.teams), frozen(found.cohorts))
