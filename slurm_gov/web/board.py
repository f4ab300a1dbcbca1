"""What the daemon last saw, decided and did, for those who read: one writer, many readers, nobody waits."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from slurm_gov.core.rows import Look
from slurm_gov.web.history import History, Sample

RECENT = 300
"""Decisions kept for whoever begins to look."""


@dataclass(frozen=True, slots=True)
class Took:
    """How a cycle went: seconds for looking at Slurm, deciding and acting; actions that Slurm refused; why acting
    was broken off, if it was.
    """

    look: float = 0.0
    decide: float = 0.0
    act: float = 0.0
    failures: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that the governor decided or saw. ``at`` is in seconds since the epoch; ``id`` only ever grows.

    ``kind`` is one word of a short list; ``why`` is a sentence. What does not apply is empty; ``gpus`` is then 0.
    """

    id: int
    at: float
    kind: str
    why: str = ""
    who: str = ""
    team: str = ""
    pool: str = ""
    job: str = ""
    user: str = ""
    node: str = ""
    gpus: int = 0
    lost: int = 0
    for_team: str = ""
    for_job: str = ""
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """All of it at one moment; never changed, only replaced. ``number`` grows with each replacement.

    ``look`` is ``None`` until Slurm has answered for the first time. ``seen`` is when the governor last tried to
    look, ``blind_since`` since when Slurm does not answer, and ``error`` what it said instead.
    """

    number: int = 0
    look: Look | None = None
    took: Took = Took()
    seen: float = 0.0
    blind_since: float | None = None
    error: str = ""
    happened: tuple[Happening, ...] = ()
    history: tuple[Sample, ...] = ()


class Board:
    """Holds the state. Everything may be called in any thread and returns at once, but for ``changed``."""

    def __init__(self, interval: float = 2.0) -> None:
        """``interval``: seconds between two cycles when all is quiet."""
        self.interval = interval
        self.started = time.time()
        self.closed = False
        self._numbers = itertools.count(1)
        self._state = State()
        self._happened: deque[Happening] = deque(maxlen=RECENT)
        self._history = History()
        self._lock = threading.Lock()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    @property
    def state(self) -> State:
        """The newest."""
        return self._state

    # -- writing: the governor's thread -----------------------------------------------------------------------

    def put(self, look: Look, took: Took = Took()) -> None:
        """A cycle is over."""
        self._history.add(look)
        self._replace(look=look, took=took, blind_since=None, error="")

    def blind(self, at: float, error: str) -> None:
        """Slurm does not answer."""
        self._replace(look=self._state.look, took=self._state.took, blind_since=self._state.blind_since or at,
                      error=error)  # fmt: skip

    def happened(self, make: Callable[[int], Happening]) -> None:
        """Something happened; ``make`` is given its id. It is shown with the next cycle."""
        with self._lock:
            self._happened.append(make(next(self._numbers)))

    def close(self) -> None:
        """Nothing more will come: who waits for it goes."""
        self.closed = True
        self._wake()

    def _replace(self, look: Look | None, took: Took, blind_since: float | None, error: str) -> None:
        with self._lock:
            happened = tuple(self._happened)
        self._state = State(
            number=self._state.number + 1,
            look=look,
            took=took,
            seen=time.time(),
            blind_since=blind_since,
            error=error,
            happened=happened,
            history=self._history.samples(),
        )
        self._wake()

    def _wake(self) -> None:
        for loop, event in tuple(self._waiting):
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:  # its loop has ended
                self._waiting.discard((loop, event))

    # -- reading: the server's event loop ----------------------------------------------------------------------

    async def changed(self, number: int, within: float) -> bool:
        """Wait until there is a newer state than this, or none will come; whether so within so many seconds."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        self._waiting.add((loop, event))
        try:
            if self.closed or self._state.number > number:
                return True
            waiting = asyncio.ensure_future(event.wait())
            done, _ = await asyncio.wait({waiting}, timeout=within)
            waiting.cancel()
            return bool(done)
        finally:
            self._waiting.discard((loop, event))


def newest(happened: Iterable[Happening], limit: int) -> list[Happening]:
    """The last so many, the newest first."""
    return sorted(happened, key=lambda one: -one.id)[:limit]
