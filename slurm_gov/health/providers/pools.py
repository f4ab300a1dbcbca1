"""The provider of every pool, as the policy says."""

from __future__ import annotations

from collections.abc import Callable

from slurm_gov.core.health import Health
from slurm_gov.core.health import Provider as Rules
from slurm_gov.core.snapshot import Node
from slurm_gov.health.monitor import Monitor
from slurm_gov.health.providers import make
from slurm_gov.health.providers.provider import Provider
from slurm_gov.health.providers.slurm import Slurm


class PoolProviders:
    """Made anew when the policy changes. ``node`` gives a node as Slurm last showed it."""

    def __init__(
        self, slurm: Slurm, node: Callable[[str], Node | None], failed: type[Exception], monitor: Monitor
    ) -> None:
        self._slurm = slurm
        self._node = node
        self._failed = failed
        self._monitor = monitor
        self._made_for: Health | None = None
        self._providers: dict[str, Provider] = {}

    def follow(self, health: Health) -> None:
        """Be as this policy says."""
        if health is not self._made_for:
            self._made_for = health
            self._providers = {
                pool: make(self.rules(health, pool), self._slurm, self._node, self._failed, self._monitor)
                for pool in health.pools
            }

    def of(self, pool: str) -> Provider:
        """The provider of a pool of the policy that is followed."""
        return self._providers[pool]

    @staticmethod
    def rules(health: Health, pool: str) -> Rules:
        """What the policy says of it."""
        name = health.pools[pool].provider
        return health.providers.get(name) or Rules(name, name)
