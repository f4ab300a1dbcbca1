"""Writes down in the ledger what the governor does, and what teams hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slurm_gov.core.policy import Policy
from slurm_gov.daemon.cycle import Cycle
from slurm_gov.daemon.log import log
from slurm_gov.ledger import Event, Ledger
from slurm_gov.ledger.ledger import Health
from slurm_gov.ledger.meter import Meter


class Bookkeeper:
    """A watcher. ``gap``: seconds between two cycles after which nobody knows what was in between."""

    def __init__(self, ledger: Ledger, gap: float) -> None:
        self._ledger = ledger
        self._gap = gap
        self._meter = Meter(gap)

    def cycle(self, cycle: Cycle) -> None:
        if cycle.standby:  # who leads writes it down; what teams hold must not count twice
            self._ledger.record_spans(self._meter.going_on())
            self._meter = Meter(self._gap)
            return
        caps = planned_caps(cycle.policy, cycle.plan.caps)
        self._ledger.record_spans(self._meter.look(cycle.snapshot.now, cycle.plan.standings, caps))

    def blind(self, error: str) -> None:
        pass

    def event(self, event: Event) -> None:
        self._ledger.record(event)

    def asked(self, facts: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        """Write down what goes on, and end."""
        self._ledger.record_spans(self._meter.going_on())
        self._ledger.close()


def planned_caps(policy: Policy, caps: Mapping[str, Mapping[str, int]]) -> dict[tuple[str, str], int]:
    """The caps of a plan, by team and pool instead of TRES."""
    return {
        (team, pool.name): limits[pool.tres]
        for team, limits in caps.items()
        for pool in policy.pools.values()
        if pool.tres in limits
    }


def say_trouble(health: Health) -> None:
    """Log that the ledger cannot be written, or can again."""
    if health.error:
        log.error("the ledger cannot be written; scheduling goes on", error=health.error, pending=health.pending)
    else:
        log.info("the ledger is written again", lost=health.lost)
