"""How nodes are rebooted and replaced: Slurm itself, Docker, a site's command, a message."""

from __future__ import annotations

from collections.abc import Callable

from slurm_gov.core.health import Provider as Rules
from slurm_gov.core.snapshot import Node
from slurm_gov.health.monitor import Monitor
from slurm_gov.health.providers.provider import Provider, ProviderError
from slurm_gov.health.providers.slurm import Slurm

__all__ = ["Provider", "ProviderError", "make"]


def make(
    rules: Rules, slurm: Slurm, node: Callable[[str], Node | None], failed: type[Exception], monitor: Monitor
) -> Provider:
    """The provider that a policy asks for. ``node`` gives a node as Slurm last showed it."""
    match rules.kind:
        case "command":
            from slurm_gov.health.providers.command import CommandProvider

            return CommandProvider(rules.options["command"])
        case "docker":
            from slurm_gov.health.providers.docker import DockerProvider

            return DockerProvider(str(rules.options.get("container", "")), str(rules.options.get("socket", "")))
        case "mqtt":
            from slurm_gov.health.providers.mqtt import MqttProvider

            return MqttProvider(monitor)
        case _:
            from slurm_gov.health.providers.slurm import SlurmProvider

            return SlurmProvider(slurm, node, failed)
