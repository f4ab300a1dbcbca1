"""Writing the ledger, from a thread of its own: whoever records never waits for the disk."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from slurm_gov.database import Database, Where, exists
from slurm_gov.ledger.event import Event
from slurm_gov.ledger.read import events as read_events
from slurm_gov.ledger.span import Span
from slurm_gov.ledger.store import LedgerError, Words, forget, open_to_write, write

PATIENCE = 0.2
"""Seconds in which what comes is written together."""
RETRY = (1.0, 30.0)
"""Seconds after which writing is tried again when it failed: at first, and at most."""
PENDING = 20_000
"""What is kept in memory while it cannot be written; what comes beyond that is lost, and counted."""
RECENT = 500
"""Events kept in memory for whoever begins to look."""
TIDY = 86_400.0
"""Seconds between two looks for what is too old."""


@dataclass(frozen=True, slots=True)
class Health:
    """How the writing goes. ``error`` is why it fails now, empty if it does not."""

    written: int = 0
    pending: int = 0
    lost: int = 0
    failures: int = 0
    error: str = ""


def note(path: Where, events: Iterable[Event]) -> None:
    """Add events to a ledger that is there, from another process than slurm-govd, and wait until they are written.

    Raises ``LedgerError``. A ledger that is not there is not made: it would belong to the wrong user.
    """
    if not exists(path):
        raise LedgerError(f"{path}: there is no ledger")
    now = time.time()
    db = open_to_write(path)
    try:
        write(db, Words(), [event if event.at else replace(event, at=now) for event in events], ())
    finally:
        db.close()


class Ledger:
    """The ledger of one running slurm-govd.

    ``listeners`` are called with each event as it is recorded, in the recording thread; ``recent`` holds the
    last ones, the oldest first. Both work while the disk is full.
    """

    def __init__(
        self, path: Where, keep: float | None = None, on_trouble: Callable[[Health], None] = lambda health: None
    ) -> None:
        """``keep``: seconds after which events and spans are deleted, ``None``: never.

        ``on_trouble`` is called, in the writing thread, when writing begins to fail and when it works again.
        """
        self.path = path
        self.listeners: list[Callable[[Event], None]] = []
        self.recent: deque[Event] = deque(maxlen=RECENT)
        self._keep = keep
        self._on_trouble = on_trouble
        self._events: deque[Event] = deque()
        self._spans: dict[tuple[str, str, float], Span] = {}
        self._changed = threading.Condition()
        self._ending = False
        self._health = Health()
        self._db: Database | None = None
        self._words: Words | None = None
        self._tidied = float("-inf")
        self._thread = threading.Thread(target=self._write_all, name="ledger", daemon=True)

    def start(self) -> None:
        """Begin to write. Never fails: what cannot be written now is tried again."""
        with contextlib.suppress(LedgerError):  # there is none yet, or the thread will say what is wrong
            self.recent.extend(one.event for one in read_events(self.path, limit=RECENT, newest=True))
        self._thread.start()

    def close(self, patience: float = 5.0) -> None:
        """Write what is left, for at most ``patience`` seconds, and end."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(patience)

    def record(self, event: Event) -> None:
        """Add an event. Returns at once; safe in every thread."""
        if not event.at:
            event = replace(event, at=time.time())
        with self._changed:
            self.recent.append(event)
            if len(self._events) < PENDING:
                self._events.append(event)
            else:
                self._health = replace(self._health, lost=self._health.lost + 1)
            self._changed.notify()
        for listener in self.listeners:
            listener(event)

    def record_spans(self, spans: Iterable[Span]) -> None:
        """Add spans, or make those longer that begin at the same time. Returns at once; safe in every thread."""
        with self._changed:
            for span in spans:
                key = (span.team, span.pool, span.since)
                if key in self._spans or len(self._spans) < PENDING:
                    self._spans[key] = span
                else:
                    self._health = replace(self._health, lost=self._health.lost + 1)
            self._changed.notify()

    @property
    def health(self) -> Health:
        """How the writing goes."""
        with self._changed:
            return replace(self._health, pending=len(self._events) + len(self._spans))

    # -- the writing thread ---------------------------------------------------------------------------------

    def _write_all(self) -> None:
        wait = RETRY[0]
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._events or self._spans or self._ending)
                if not self._ending:
                    self._changed.wait_for(lambda: self._ending, PATIENCE)
                events, spans = list(self._events), dict(self._spans)
                ending = self._ending
            try:
                self._write(events, spans)
            except LedgerError as error:
                self._failed(str(error))
                if ending:
                    return
                with self._changed:
                    self._changed.wait_for(lambda: self._ending, wait)
                wait = min(2 * wait, RETRY[1])
            else:
                wait = RETRY[0]
                self._wrote(events, spans)
                if ending:
                    self._disconnect()
                    return

    def _write(self, events: list[Event], spans: dict[tuple[str, str, float], Span]) -> None:
        if self._db is None:
            self._db = open_to_write(self.path)
        # Forgotten after each transaction that failed: what was new in it is not in the file.
        self._words = self._words or Words()
        write(self._db, self._words, events, spans.values())
        if self._keep is not None and time.monotonic() - self._tidied > TIDY:
            self._tidied = time.monotonic()
            forget(self._db, time.time() - self._keep)
            self._words = None

    def _wrote(self, events: list[Event], spans: dict[tuple[str, str, float], Span]) -> None:
        with self._changed:
            for _ in events:
                self._events.popleft()
            for key, span in spans.items():
                if self._spans.get(key) is span:
                    del self._spans[key]
            before = self._health
            self._health = replace(before, written=before.written + len(events), error="")
        if before.error:
            self._on_trouble(self.health)

    def _failed(self, error: str) -> None:
        self._disconnect()
        with self._changed:
            before = self._health
            self._health = replace(before, failures=before.failures + 1, error=error)
        if not before.error:
            self._on_trouble(self.health)

    def _disconnect(self) -> None:
        """A connection that failed is not used again: the next one finds the file as it is then."""
        db, self._db, self._words = self._db, None, None
        if db is not None:
            db.close()
