"""What teams borrowed lately reaches the cycle, from the ledger, also of an earlier daemon."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from clusters import snapshot

from slurm_gov.daemon.past import Past
from slurm_gov.ledger import Ledger, Span


def test_an_earlier_daemons_ledger_is_read_and_not_in_every_cycle(tmp_path: Path) -> None:
    path, now = tmp_path / "ledger.db", time.time()

    def write(team: str) -> None:
        ledger = Ledger(path)
        ledger.start()
        ledger.record_spans([Span(team, "h100", now - 1000, now, 0, 8, 8, 8, 0, 0, 0)])
        ledger.close()

    async def cycles() -> None:
        past, seen = Past(path), snapshot(1)
        assert await past.filled_in(None, seen) is seen
        assert not (await past.filled_in(5e6, seen)).borrowed_lately  # there is no ledger yet
        write("ant")
        past = Past(path)
        assert (await past.filled_in(1e6, seen)).borrowed_lately == {"ant": pytest.approx(8000, rel=1e-2)}
        write("bee")
        assert set((await past.filled_in(1e6, seen)).borrowed_lately) == {"ant"}
        assert set((await past.filled_in(1e5, seen)).borrowed_lately) == {"ant", "bee"}  # another policy

    asyncio.run(cycles())
