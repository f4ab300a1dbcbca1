"""Its tables, in a file of its own or in a shared database, and what is written into them.

A sentence is kept as its words and its numbers ("team research holds # of #", "24,32"), and names once: so a
million decisions take less than 100 MB.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    delete,
    insert,
    select,
    union,
    update,
)

from slurm_gov.database import INNODB, Database, DatabaseError, Part, Where, id_column, put, text_column
from slurm_gov.database.part import LONGEST
from slurm_gov.ledger.event import Event, Kind
from slurm_gov.ledger.span import Span

DEFAULT_LEDGER = "/var/lib/slurm-gov/ledger.db"


LedgerError = DatabaseError
"""The ledger cannot be read or written. The message says which, and why, in one line."""


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

TABLES = MetaData()
words_table = Table(
    "words",
    TABLES,
    id_column(),
    Column("text", String(LONGEST), nullable=False, unique=True),
    **INNODB,
)
events_table = Table(
    "events",
    TABLES,
    id_column(),
    Column("at", BigInteger, nullable=False, index=True),
    Column("kind", SmallInteger, nullable=False),
    *(Column(name, BigInteger) for name in ("who", "team", "pool")),
    text_column("job"),
    *(Column(name, BigInteger) for name in ("user", "node", "gpus", "lost", "for_team")),
    *(text_column(name) for name in ("for_job", "before", "after")),
    Column("why", BigInteger),
    text_column("numbers"),
    **INNODB,
)
spans_table = Table(
    "spans",
    TABLES,
    *(Column(name, BigInteger, primary_key=True, autoincrement=False) for name in ("since", "team", "pool")),
    Column("until", BigInteger, nullable=False),
    *(
        Column(name, Integer, nullable=False)
        for name in ("quota", "cap", "used", "borrowed", "lent", "waiting", "waiting_jobs")
    ),
    Index("spans_until", "until"),
    **INNODB,
)
retention_table = Table(
    "retention", MetaData(), Column("since", BigInteger, nullable=False)
)  # of the file's triggers
PRAGMAS = (
    "auto_vacuum = INCREMENTAL",
    "journal_mode = WAL",
    "synchronous = FULL",
    "journal_size_limit = 4194304",
)


def part() -> Part:
    """The ledger as a part of a database."""
    return Part("ledger", "ledger", TABLES, MIGRATIONS)


_NAMES = ("who", "team", "pool", "user", "node", "for_team")
_EVENT = (
    "INSERT INTO events (at, kind, who, team, pool, user, node, for_team, job, gpus, lost, for_job, before, after,"
    " why, numbers) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
"""What is told of an event, in the order of ``_row``."""
_NUMBER = re.compile(r"[0-9]+")
_GAP = "\x1a"
"""Where a number was taken out of a sentence: a character that no sentence has (SUBSTITUTE)."""


def open_to_write(where: Where) -> Database:
    """Open the ledger, made or brought up to date if need be. Raises ``LedgerError``."""
    return Database(where, part(), pragmas=PRAGMAS).open()


class Words:
    """Names and sentences as numbers. Forget it when a transaction is rolled back."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def id(self, connection: Connection, text: str) -> int | None:
        """The number of a text, given now if it has none; ``None`` for no text."""
        if not text:
            return None
        if connection.dialect.name != "sqlite":
            text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
        found = self._known.get(text)
        if found is None:
            asked = select(words_table.c.id).where(words_table.c.text == text)
            found = connection.execute(asked).scalar()
            if found is None:
                connection.execute(insert(words_table).values(text=text))
                found = int(connection.execute(asked).scalar_one())
            if len(self._known) >= 10_000:
                self._known.clear()
            self._known[text] = found
        return found


def write(db: Database, words: Words, events: Iterable[Event], spans: Iterable[Span]) -> None:
    """Add all of these, or none. Raises ``LedgerError``; a span that is there is only made longer."""
    with db.writing() as connection:
        rows = [_row(connection, words, event) for event in events]
        if rows and db.shared:
            connection.execute(insert(events_table), rows)
        elif rows:  # as the driver takes them: half the time
            connection.exec_driver_sql(_EVENT, [tuple(row.values()) for row in rows])
        held = [
            {
                "team": words.id(connection, one.team),
                "pool": words.id(connection, one.pool),
                "since": _milliseconds(one.since),
                "until": _milliseconds(one.until),
                "quota": one.quota,
                "cap": one.cap,
                "used": one.used,
                "borrowed": one.borrowed,
                "lent": one.lent,
                "waiting": one.waiting,
                "waiting_jobs": one.waiting_jobs,
            }
            for one in spans
        ]
        put(connection, spans_table, held, grow="until")


def _row(connection: Connection, words: Words, event: Event) -> dict[str, Any]:
    why = _clean(event.why)
    if connection.dialect.name != "sqlite":  # where numbers would count twice, with their gaps
        why = why if len(why) <= LONGEST else why[: LONGEST - 1] + "…"
    numbers = _NUMBER.findall(why)
    return {
        "at": _milliseconds(event.at),
        "kind": KINDS[event.kind],
        **{name: words.id(connection, _clean(getattr(event, name))) for name in _NAMES},
        "job": _short(connection, event.job),
        "gpus": event.gpus or None,
        "lost": event.lost or None,
        "for_job": _short(connection, event.for_job),
        "before": _short(connection, event.before),
        "after": _short(connection, event.after),
        "why": words.id(connection, _NUMBER.sub(_GAP, why)),
        "numbers": ",".join(numbers) or None,
    }


def sentence(text: str | None, numbers: str | None) -> str:
    """A sentence with its numbers put back."""
    if not text or not numbers:
        return text or ""
    parts = text.split(_GAP)
    return "".join(one for pair in zip(parts, [*numbers.split(","), ""], strict=True) for one in pair)


def _clean(text: str) -> str:
    """Text that a database takes (no lone surrogates, no NUL) and that cannot be mistaken for a gap."""
    return text.encode("utf-8", "backslashreplace").decode().replace(_GAP, "?").replace("\0", "?")


def _short(connection: Connection, text: str) -> int | str | None:
    """Plain numbers are kept as numbers in a file, whose columns have no type: that takes less room."""
    return plain(text) if connection.dialect.name == "sqlite" else _clean(text) or None


def plain(text: str) -> int | str | None:
    """A plain number as a number, nothing as nothing."""
    if text.isdecimal() and text.isascii() and len(text) < 16 and str(int(text)) == text:
        return int(text)
    return _clean(text) or None


def _milliseconds(time: float) -> int:
    return round(time * 1000)


def forget(db: Database, before: float, chunk: int = 10_000) -> int:
    """Delete what is older, a chunk at a time so that nobody waits long; returns how many events went."""
    horizon = _milliseconds(before)
    if not db.shared:
        since = retention_table.c.since
        with db.writing() as connection:
            connection.execute(update(retention_table).values(since=horizon).where(since < horizon))
    oldest = select(events_table.c.id).where(events_table.c.at < horizon).order_by(events_table.c.at).limit(chunk)
    gone = 0
    while True:
        with db.writing() as connection:
            ids = list(connection.execute(oldest).scalars())
            for some in range(0, len(ids), 500):
                connection.execute(delete(events_table).where(events_table.c.id.in_(ids[some : some + 500])))
        gone += len(ids)
        if len(ids) < chunk:
            break
    with db.writing() as connection:
        spans = connection.execute(delete(spans_table).where(spans_table.c.until < horizon)).rowcount
        if gone or spans:
            columns = [*(events_table.c[name] for name in (*_NAMES, "why")), spans_table.c.team, spans_table.c.pool]
            used = union(*(select(one.label("id")).where(one.is_not(None)) for one in columns)).subquery()
            connection.execute(delete(words_table).where(words_table.c.id.not_in(select(used.c.id))))
            if isinstance(file := connection.connection.driver_connection, sqlite3.Connection):
                file.execute("PRAGMA incremental_vacuum").fetchall()  # each row that is fetched frees some pages
    return gone
