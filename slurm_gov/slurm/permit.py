"""Who may change Slurm: asked before every command that changes something, in one place."""

from __future__ import annotations

from collections.abc import Callable

from slurm_gov.slurm.client import SlurmUnavailable

Permit = Callable[[float], float]
"""Given how many seconds a command may take, how many it may take now: fewer, where the right to act ends sooner.
Raises ``NotLeading`` if it must not be sent.
"""


class NotLeading(SlurmUnavailable):
    """Another controller may act, not this one: nothing was sent."""


def alone(limit: float) -> float:
    """The permit where there is one governor only."""
    return limit
