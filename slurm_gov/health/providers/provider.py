"""What a provider is: something that can reboot or replace a node, and say how one is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from slurm_gov.health.messages import Request


class ProviderError(Exception):
    """An operation failed; the message says why, in one line. ``final``: trying again would not help."""

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Provider(Protocol):
    """One way to reboot and replace nodes.

    The same ``request.id`` with the same ``attempt`` is the same operation: after a crash of the daemon it is asked
    again, and must neither be done twice nor be lost.
    """

    async def operate(self, request: Request, say: Callable[[str], None]) -> str:
        """Do it, and return when it is done; what is returned is said to people, and so is how far it is, by ``say``.

        It is cancelled when its time is over. Raises ``ProviderError``.
        """
        ...

    async def status(self, node: str) -> str:
        """What the provider knows of a node, in one line. Raises ``ProviderError``."""
        ...
