"""The file: its tables, how it is opened, and how it grows out of older versions of itself.

A sentence is kept as its words and its numbers ("team research holds # of #", "24,32"), and names once: so a
million decisions take less than 100 MB.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from slurm_gov.ledger.event import Event, Kind
from slurm_gov.ledger.span import Span

DEFAULT_LEDGER = "/var/lib/slurm-gov/ledger.db"


class LedgerError(Exception):
    """The ledger cannot be read or written. The message says which file, and why, in one line."""


KINDS = {
    kind: number
    for number, kind in enumerate(
        (
            Kind.CAP,
            Kind.PREEMPT,
            Kind.SPARE,
            Kind.REQUEUE,
            Kind.CANCEL,
            Kind.RELEASE,
            Kind.REFUSE,
            Kind.NODE,
            Kind.POLICY,
            Kind.DAEMON,
        ),
        1,
    )
}
"""How each kind is numbered in the file: never change one, only add."""

# Each brings the file from the version of its index to the next. Never change one that was released: add one.
MIGRATIONS = (
    """
    CREATE TABLE words (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        who INTEGER REFERENCES words, team INTEGER REFERENCES words, pool INTEGER REFERENCES words, job,
        user INTEGER REFERENCES words, node INTEGER REFERENCES words, gpus INTEGER, lost INTEGER,
        for_team INTEGER REFERENCES words, for_job,
        before, after,
        why INTEGER REFERENCES words, numbers TEXT
    );
    CREATE INDEX events_at ON events (at);
    CREATE TABLE spans (
        team INTEGER NOT NULL REFERENCES words, pool INTEGER NOT NULL REFERENCES words,
        since INTEGER NOT NULL, until INTEGER NOT NULL,
        quota INTEGER NOT NULL, cap INTEGER NOT NULL, used INTEGER NOT NULL, borrowed INTEGER NOT NULL,
        lent INTEGER NOT NULL, waiting INTEGER NOT NULL, waiting_jobs INTEGER NOT NULL,
        PRIMARY KEY (since, team, pool)
    ) WITHOUT ROWID;
    CREATE INDEX spans_until ON spans (until);
    CREATE TABLE retention (since INTEGER NOT NULL);
    INSERT INTO retention VALUES (0);
    CREATE TRIGGER append_only BEFORE UPDATE ON events
        BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
    CREATE TRIGGER kept BEFORE DELETE ON events WHEN old.at >= (SELECT since FROM retention)
        BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
    """,
)

_NAMES = ("who", "team", "pool", "user", "node", "for_team")
_EVENT = (
    "INSERT INTO events (at, kind, who, team, pool, job, user, node, gpus, lost, for_team, for_job, before, after,"
    " why, numbers) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_SPAN = (
    "INSERT INTO spans VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET until = max(until, excluded.until)"
)
_NUMBER = re.compile(r"[0-9]+")
_GAP = "\x1a"
"""Where a number was taken out of a sentence: a character that no sentence has (SUBSTITUTE)."""


def open_to_write(path: Path) -> sqlite3.Connection:
    """Open the ledger, made or brought up to date if need be. Raises ``LedgerError``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA journal_size_limit = 4194304")
            _migrate(db, path)
        except BaseException:
            db.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(f"{path}: {error}") from None
    return db


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    db.execute("BEGIN IMMEDIATE")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise LedgerError(
            f"{path}: written by a newer slurm-gov (its version is {version}, this one knows {len(MIGRATIONS)})"
        )
    if version == 0 and db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise LedgerError(f"{path}: a database, but no ledger of slurm-gov")
    for script in MIGRATIONS[version:]:
        for statement in _statements(script):
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    db.execute("COMMIT")


def _statements(script: str) -> Iterable[str]:
    """executescript() would commit first, and a half-made file would stay."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


class Words:
    """Names and sentences as numbers. Forget it when a transaction is rolled back."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._known: dict[str, int] = {}

    def id(self, text: str) -> int | None:
        """The number of a text, given now if it has none; ``None`` for no text."""
        if not text:
            return None
        found = self._known.get(text)
        if found is None:
            self._db.execute("INSERT OR IGNORE INTO words (text) VALUES (?)", (text,))
            found = int(self._db.execute("SELECT id FROM words WHERE text = ?", (text,)).fetchone()[0])
            if len(self._known) >= 10_000:
                self._known.clear()
            self._known[text] = found
        return found


def write(db: sqlite3.Connection, words: Words, events: Iterable[Event], spans: Iterable[Span]) -> None:
    """Add all of these, or none. Raises ``sqlite3.Error``; a span that is there is only made longer."""
    db.execute("BEGIN IMMEDIATE")
    try:
        db.executemany(_EVENT, [_row(words, event) for event in events])
        db.executemany(
            _SPAN,
            [
                (
                    words.id(one.team),
                    words.id(one.pool),
                    _milliseconds(one.since),
                    _milliseconds(one.until),
                    one.quota,
                    one.cap,
                    one.used,
                    one.borrowed,
                    one.lent,
                    one.waiting,
                    one.waiting_jobs,
                )
                for one in spans
            ],
        )
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _row(words: Words, event: Event) -> tuple[Any, ...]:
    why = _clean(event.why)
    numbers = _NUMBER.findall(why)
    who, team, pool, user, node, for_team = (words.id(_clean(getattr(event, name))) for name in _NAMES)
    return (
        _milliseconds(event.at),
        KINDS[event.kind],
        who,
        team,
        pool,
        _short(event.job),
        user,
        node,
        event.gpus or None,
        event.lost or None,
        for_team,
        _short(event.for_job),
        _short(event.before),
        _short(event.after),
        words.id(_NUMBER.sub(_GAP, why)),
        ",".join(numbers) or None,
    )


def sentence(text: str | None, numbers: str | None) -> str:
    """A sentence with its numbers put back."""
    if not text or not numbers:
        return text or ""
    parts = text.split(_GAP)
    return "".join(one for pair in zip(parts, [*numbers.split(","), ""], strict=True) for one in pair)


def _clean(text: str) -> str:
    """Text that SQLite takes (no lone surrogates) and that cannot be mistaken for a gap."""
    return text.encode("utf-8", "backslashreplace").decode().replace(_GAP, "?")


def _short(text: str) -> int | str | None:
    """Plain numbers are kept as numbers, which takes less room; nothing as nothing."""
    if text.isdecimal() and text.isascii() and len(text) < 16 and str(int(text)) == text:
        return int(text)
    return _clean(text) or None


def _milliseconds(time: float) -> int:
    return round(time * 1000)


def forget(db: sqlite3.Connection, before: float, chunk: int = 10_000) -> int:
    """Delete what is older, a chunk at a time so that nobody waits long; returns how many events went."""
    horizon = _milliseconds(before)
    db.execute("UPDATE retention SET since = max(since, ?)", (horizon,))
    gone = 0
    while True:
        count = db.execute(
            "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at < ? ORDER BY at LIMIT ?)",
            (horizon, chunk),
        ).rowcount
        gone += count
        if count < chunk:
            break
    spans = db.execute("DELETE FROM spans WHERE until < ?", (horizon,)).rowcount
    if gone or spans:
        columns = [f"SELECT {name} AS id FROM events" for name in (*_NAMES, "why")]
        used = " UNION ".join([*columns, "SELECT team FROM spans", "SELECT pool FROM spans"])
        db.execute(f"DELETE FROM words WHERE id NOT IN (SELECT id FROM ({used}) WHERE id IS NOT NULL)")
        db.execute("PRAGMA incremental_vacuum").fetchall()
    return gone
