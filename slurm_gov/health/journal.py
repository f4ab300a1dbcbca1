"""What must survive: the record of every node, its history, running operations, people's orders, last reports.

One SQLite file. slurm-govd writes it; ``slurm-gov node`` reads it, and writes orders into it, whether the daemon runs
or not. A record is on disk before anything is done about it.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from slurm_gov.core.health import Effect, Repair
from slurm_gov.health.lifecycle import Order, Record, Repaired, State, Want

KEEP = 35 * 86400.0
"""Seconds that history is kept: lemons are looked for over 28 days."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS node (name TEXT PRIMARY KEY, data TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS history (
  id INTEGER PRIMARY KEY, time REAL NOT NULL, node TEXT NOT NULL, event TEXT NOT NULL, before TEXT, after TEXT,
  fault TEXT, reason TEXT NOT NULL, by TEXT, injected INTEGER NOT NULL DEFAULT 0, jobs TEXT);
CREATE INDEX IF NOT EXISTS history_node ON history (node, time);
CREATE INDEX IF NOT EXISTS history_time ON history (time);
CREATE TABLE IF NOT EXISTS operation (
  name TEXT PRIMARY KEY, node TEXT NOT NULL, repair TEXT NOT NULL, attempt INTEGER NOT NULL, began REAL NOT NULL,
  tried REAL NOT NULL, progress TEXT NOT NULL, message TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS orders (
  id INTEGER PRIMARY KEY, time REAL NOT NULL, node TEXT NOT NULL, want TEXT NOT NULL, now INTEGER NOT NULL,
  by TEXT NOT NULL, reason TEXT NOT NULL, answered REAL, answer TEXT);
CREATE TABLE IF NOT EXISTS report (node TEXT PRIMARY KEY, received REAL NOT NULL, heard REAL NOT NULL, presence TEXT,
  payload TEXT NOT NULL);
PRAGMA user_version = 1;
"""


class JournalError(Exception):
    """The journal cannot be used; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a node's history. ``event`` is an arrow of the lifecycle, or ``fault``, ``blamed``, ``alert``,
    ``job`` (jobs were made to leave), ``verification`` (how far it is).
    """

    time: float
    node: str
    event: str
    reason: str
    before: str | None = None
    after: str | None = None
    fault: str | None = None
    by: str | None = None
    injected: bool = False
    jobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """A reboot or replacement and how far it is. ``began``, ``tried``: the first and the last attempt's start."""

    name: str
    node: str
    repair: Repair
    attempt: int
    began: float
    tried: float
    progress: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Reported:
    """The last report of a node's agent, as it came. ``heard``: its last sign of life."""

    node: str
    received: float
    heard: float
    presence: str | None
    payload: str


class Journal:
    """The file. Every call is one transaction; calls may come from several threads."""

    def __init__(self, path: Path, create: bool = True) -> None:
        """Raises ``JournalError`` if it cannot be opened, or (without ``create``) is not there."""
        self.path = path
        self._lock = threading.Lock()
        if not create and not path.exists():
            raise JournalError(f"{path} is not there: slurm-govd makes it when its policy has a health: section")
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            if create:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.executescript(_SCHEMA)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        except (sqlite3.Error, OSError) as error:
            raise JournalError(f"{path} cannot be opened: {error}") from None
        if version != 1:
            raise JournalError(f"{path} is of version {version}; this slurm-gov knows version 1")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise JournalError(f"{self.path} cannot be written: {error}") from None

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise JournalError(f"{self.path} cannot be read: {error}") from None

    # -- nodes and their history ---------------------------------------------------------------------------

    def records(self) -> dict[str, Record]:
        """Every node that was ever looked at, by name."""
        return {name: _record(json.loads(data)) for name, data in self._rows("SELECT name, data FROM node")}

    def keep(self, records: Iterable[Record], events: Iterable[Event] = ()) -> None:
        """Write records and the history that goes with them, together."""
        with self._writing() as db:
            db.executemany(
                "INSERT INTO node VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET data = excluded.data",
                [(one.node, json.dumps(_plain(one))) for one in records],
            )
            db.executemany(
                "INSERT INTO history (time, node, event, before, after, fault, reason, by, injected, jobs) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        e.time,
                        e.node,
                        e.event,
                        e.before,
                        e.after,
                        e.fault,
                        e.reason,
                        e.by,
                        e.injected,
                        json.dumps(e.jobs),
                    )
                    for e in events
                ],
            )

    def forget(self, before: float) -> None:
        """Drop history and answered orders from before a time (seconds since the epoch)."""
        with self._writing() as db:
            db.execute("DELETE FROM history WHERE time < ?", (before,))
            db.execute("DELETE FROM orders WHERE answered < ?", (before,))
            db.execute("DELETE FROM operation WHERE tried < ? AND progress != 'running'", (before,))

    def history(self, node: str | None = None, since: float = 0.0) -> list[Event]:
        """What happened, oldest first."""
        rows = self._rows(
            "SELECT time, node, event, reason, before, after, fault, by, injected, jobs FROM history "
            "WHERE (? IS NULL OR node = ?) AND time >= ? ORDER BY time, id",
            node, node, since,
        )  # fmt: skip
        return [
            Event(*row[:4], *row[4:8], bool(row[8]), tuple(json.loads(row[9] or "[]")))  # type: ignore[call-arg]
            for row in rows
        ]

    def fault_counts(self, since: float) -> dict[str, int]:
        """How many faults each node had; drills do not count."""
        rows = self._rows(
            "SELECT node, count(*) FROM history WHERE event = 'fault' AND NOT injected AND time >= ? GROUP BY node",
            since,
        )
        return dict(rows)

    # -- operations ----------------------------------------------------------------------------------------

    def operations(self, running: bool = True) -> dict[str, Operation]:
        """Operations by name: those that run, or all."""
        rows = self._rows("SELECT * FROM operation WHERE NOT ? OR progress = 'running'", running)
        return {row[0]: Operation(row[0], row[1], Repair(row[2]), *row[3:]) for row in rows}

    def operation(self, name: str) -> Operation | None:
        """One operation."""
        rows = self._rows("SELECT * FROM operation WHERE name = ?", name)
        return Operation(rows[0][0], rows[0][1], Repair(rows[0][2]), *rows[0][3:]) if rows else None

    def keep_operation(self, one: Operation) -> None:
        """Write how far an operation is."""
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO operation VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (one.name, one.node, str(one.repair), one.attempt, one.began, one.tried, one.progress, one.message),
            )

    # -- orders --------------------------------------------------------------------------------------------

    def order(self, node: str, order: Order, time: float) -> int:
        """Leave an order for the daemon; returns its number."""
        with self._writing() as db:
            cursor = db.execute(
                "INSERT INTO orders (time, node, want, now, by, reason) VALUES (?, ?, ?, ?, ?, ?)",
                (time, node, str(order.want), order.now, order.by, order.reason),
            )
            return int(cursor.lastrowid or 0)

    def orders(self) -> list[tuple[str, Order]]:
        """Orders that nobody has answered, oldest first, each with its node."""
        rows = self._rows("SELECT node, want, by, now, reason, id FROM orders WHERE answered IS NULL ORDER BY id")
        return [(row[0], Order(Want(row[1]), row[2], bool(row[3]), row[4], row[5])) for row in rows]

    def answer(self, id: int, answer: str, time: float) -> None:
        """Say what became of an order; empty: it is followed."""
        with self._writing() as db:
            db.execute("UPDATE orders SET answered = ?, answer = ? WHERE id = ?", (time, answer, id))

    def answered(self, id: int) -> str | None:
        """What became of an order; None: not answered yet."""
        rows = self._rows("SELECT answer FROM orders WHERE id = ? AND answered IS NOT NULL", id)
        return str(rows[0][0]) if rows else None

    # -- reports -------------------------------------------------------------------------------------------

    def reports(self) -> dict[str, Reported]:
        """The last report of each agent."""
        rows = self._rows("SELECT node, received, heard, presence, payload FROM report")
        return {row[0]: Reported(*row) for row in rows}

    def keep_reports(self, reports: Iterable[Reported]) -> None:
        """Write reports."""
        with self._writing() as db:
            db.executemany(
                "INSERT OR REPLACE INTO report VALUES (?, ?, ?, ?, ?)",
                [(one.node, one.received, one.heard, one.presence, one.payload) for one in reports],
            )


def _plain(record: Record) -> dict[str, Any]:
    data = {one.name: getattr(record, one.name) for one in fields(record)}
    data["repairs"] = [asdict(one) for one in record.repairs]
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in data.items()}


def _record(data: dict[str, Any]) -> Record:
    known = {one.name for one in fields(Record)}
    data = {name: value for name, value in data.items() if name in known}
    data["state"] = State(data["state"])
    data["effect"] = Effect(data["effect"])
    data["repair"] = Repair(data["repair"])
    data["came_from"] = Repair(data["came_from"])
    data["muted"] = MappingProxyType(data["muted"])
    data["lingering"] = MappingProxyType({key: (seen[0], seen[1]) for key, seen in data["lingering"].items()})
    data["repairs"] = tuple(Repaired(one["time"], Repair(one["repair"]), one["fault"]) for one in data["repairs"])
    return Record(**data)
