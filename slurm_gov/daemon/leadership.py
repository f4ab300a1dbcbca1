"""Which of several governors acts: the one that has the lease, beside the slurmctld that is in control.

All of them look and show, one acts. Who loses the lease, or cannot renew it, acts no more before another may: by its
own clock, which also runs while the process or the machine stands still, its lease ends a little before the database
says so. A command is sent only if it will have ended by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from sqlalchemy import Connection

from slurm_gov.daemon.lease import Lease, Leases, fence
from slurm_gov.daemon.log import log
from slurm_gov.database import DatabaseError
from slurm_gov.slurm.client import SlurmError
from slurm_gov.slurm.controllers import Controllers, controllers, is_here
from slurm_gov.slurm.permit import NotLeading

LENGTH = 10.0
"""Seconds that a lease holds: after so long another takes over from a governor that died."""
EVERY = 1.0
"""Seconds between two looks at the lease."""
LEAST = 3.0
"""Seconds that a command must be given: one of Slurm's that is given less may be cut off half-way."""
SPARE = 0.5
"""Seconds that must be left when a command has ended: killing it takes a moment."""
HOSTS_REFRESH = 60.0
"""Seconds between two looks at slurm.conf."""

NOT_ASKED = "Slurm has not said yet which hosts have a slurmctld"


class Step(StrEnum):
    """What to do about the lease."""

    TAKE = "take"
    RENEW = "renew"
    RELEASE = "release"
    WAIT = "wait"


def decide(mine: bool, lease: Lease | None, active_here: bool | None) -> Step:
    """The step of one governor. ``mine``: it had the lease when last seen; ``active_here``: whether the slurmctld of
    its host is in control, None: not known.

    Who has it keeps it while that is not known: nobody else can know better, and Slurm does not answer then.
    """
    if mine:
        return Step.RELEASE if active_here is False else Step.RENEW
    if active_here and (lease is None or not lease.held):
        return Step.TAKE
    return Step.WAIT


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of the lease. ``why`` it is not ours, or why that is not known; empty if it is."""

    lease: Lease | None = None
    at: float = 0.0
    why: str = "not looked yet"


class Leadership:
    """The side of one governor. ``changed()`` is called when it begins to lead, and when it ends."""

    def __init__(self, leases: Leases, timeout: float, changed: Callable[[], None]) -> None:
        self.host = socket.gethostname()
        self.holder = f"{self.host}:{os.getpid()}:{secrets.token_hex(4)}"
        self.seen = Seen()
        self._leases = leases
        self._timeout = timeout
        self._changed = changed
        self._term = 0
        self._until = float("-inf")
        self._acting = 0
        self._led = asyncio.Event()
        self._lost = asyncio.Event()
        self._controllers: Controllers | None = None
        self._asking: asyncio.Task[Controllers] | None = None
        self._asked = float("-inf")
        self._unknown = NOT_ASKED

    # -- asked by those who act ---------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        """Whether this governor may act now."""
        return bool(self._term) and _clock() < self._until

    @property
    def term(self) -> int:
        """The number of our lease; 0: we have none."""
        return self._term

    def begin(self) -> bool:
        """A cycle begins: what is decided in it may be done under the lease of this moment, and no later one."""
        self._acting = self._term if self.leads else 0
        return bool(self._acting)

    def permit(self, limit: float) -> float:
        """The ``Permit``: how long a command may take that is to be sent now."""
        left = self._until - SPARE - _clock()
        if not self._term or self._acting != self._term or left < min(limit, LEAST):
            raise NotLeading("nothing is sent to Slurm: this governor does not lead (any more)")
        return min(limit, left)

    def fence(self) -> Callable[[Connection], None]:
        """What forbids transactions that were begun under the lease of this moment when it is lost."""
        return partial(fence, holder=self.holder, term=self._term)

    async def led(self) -> None:
        """Until it leads."""
        await self._led.wait()

    async def lost(self) -> None:
        """Until it does not."""
        await self._lost.wait()

    @property
    def age(self) -> float:
        """Seconds since the lease was renewed, by whoever has it."""
        seen = self.seen
        return _clock() - seen.at + (seen.lease.age if seen.lease and not self._term else 0.0) if seen.at else 0.0

    @property
    def about(self) -> str:
        """Who leads, in a sentence."""
        lease = self.seen.lease
        if self.leads:
            return f"this one leads, on {self.host} (term {self._term})"
        if lease is not None and lease.held:
            return f"standby: the governor on {lease.host} leads (term {lease.term}), nothing is done from here"
        return f"standby, and nobody leads: {self.seen.why or 'the lease has ended'}"

    # -- the lease -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take the lease when it is our turn, and keep it. Until cancelled; then it is given back."""
        try:
            while True:
                began = _clock()
                await self._look()
                await asyncio.sleep(max(0.1, EVERY - (_clock() - began)))
        finally:
            await asyncio.shield(self._give_back())

    async def _look(self) -> None:
        why = ""
        try:
            here: bool | None = await self._active_here()
            if not here:
                why = "the slurmctld of another host is in control"
        except SlurmError as error:
            here, why = None, str(error)
        if self._term and not self.leads:
            self._end("the lease was not renewed in time")
        asked = _clock()
        try:
            lease = await asyncio.to_thread(self._leases.read)
            match decide(bool(self._term), lease, here):
                case Step.RENEW:
                    if await asyncio.to_thread(self._leases.renew, self.holder, self._term, LENGTH):
                        self._until = asked + LENGTH
                    else:
                        self._end("another governor has taken it")
                case Step.RELEASE:
                    term = self._term
                    self._end(why)
                    await asyncio.to_thread(self._leases.release, self.holder, term)
                case Step.TAKE:
                    taken = await asyncio.to_thread(self._leases.take, self.holder, self.host, LENGTH)
                    if taken is not None:
                        lease = taken
                        self._begin(taken.term, asked + LENGTH)
                case Step.WAIT:
                    pass
            seen = Seen(lease, asked, "" if self._term else why)
        except DatabaseError as error:
            seen = Seen(None, self.seen.at, f"the lease cannot be read or taken: {error}")
        if seen.why not in (self.seen.why, NOT_ASKED) and (here is None or "cannot be" in seen.why):
            log.error("who leads is not known", why=seen.why)
        self.seen = seen

    async def _active_here(self) -> bool:
        """Whether our slurmctld is in control. Raises ``SlurmError`` if that is not known."""
        if self._asking is not None and self._asking.done():
            asked, self._asking = self._asking, None
            try:
                self._controllers = asked.result()
            except SlurmError as error:
                self._unknown = str(error)
        if self._asking is None and (self._controllers is None or _clock() > self._asked + HOSTS_REFRESH):
            # Beside us: a Slurm that does not answer must not keep the lease from being renewed.
            self._asked = _clock()
            self._asking = asyncio.create_task(controllers(self._timeout))
        known = self._controllers
        if known is None:
            raise SlurmError(self._unknown)
        return len(known.hosts) == 1 or is_here(await asyncio.to_thread(known.active))

    def _begin(self, term: int, until: float) -> None:
        self._term, self._until = term, until
        self._lost.clear()
        self._led.set()
        log.info("this governor leads", host=self.host, term=term)
        self._changed()

    def _end(self, why: str) -> None:
        log.warning("this governor does not lead any more", term=self._term, why=why)
        self._term, self._until, self._acting = 0, float("-inf"), 0
        self._led.clear()
        self._lost.set()
        self._changed()

    async def _give_back(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        if self._term:
            term = self._term
            self._end("it stops")
            with contextlib.suppress(DatabaseError):
                await asyncio.to_thread(self._leases.release, self.holder, term)
        self._leases.close()


def _clock() -> float:
    """Seconds; it goes on while we are stopped, and while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
