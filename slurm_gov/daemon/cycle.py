"""What one turn of the loop was: handed to those who watch it (metrics, ledger, live page, node health)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from slurm_gov.core.actions import Actions
from slurm_gov.core.decision import Plan
from slurm_gov.core.policy import Policy
from slurm_gov.core.snapshot import Snapshot
from slurm_gov.ledger import Event


@dataclass(frozen=True, slots=True)
class Cycle:
    """One look, decide and act. Durations in seconds; ``failures`` counts actions that Slurm refused.

    ``error`` is set when acting was broken off (Slurm stopped answering, a cap could not be written); what was
    not done is decided anew by the next cycle. ``standby``: another governor leads, and nothing was to be done here.
    ``leader`` says who does, where there are several.
    """

    policy: Policy
    snapshot: Snapshot
    plan: Plan
    actions: Actions
    look_seconds: float
    decide_seconds: float
    act_seconds: float
    failures: int = 0
    error: str = ""
    standby: bool = False
    leader: str = ""


class Watcher(Protocol):
    """Sees what the governor does, on its event loop: quick, and without a say in it.

    A watcher that raises is logged and stays: watching must never stop governing.
    """

    def cycle(self, cycle: Cycle) -> None:
        """A cycle is over."""
        ...

    def blind(self, error: str) -> None:
        """Slurm did not answer: nothing was decided."""
        ...

    def event(self, event: Event) -> None:
        """Something was done or happened: an action, a refusal, a node's step, a change of the policy."""
        ...

    def asked(self, facts: Mapping[str, Any]) -> None:
        """The plugin asked about a job, and told how it fares: ``round_trip_us`` and its counters, if it did."""
        ...
