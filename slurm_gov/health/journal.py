"""What must survive: the record of every node, its history, running operations, people's orders, last reports.

One SQLite file, or tables in a database that several controllers share. slurm-govd writes it; ``slurm-gov node``
reads it, and writes orders into it, whether the daemon runs or not. A record is on disk before anything is done about
it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Double,
    Executable,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    and_,
    delete,
    func,
    insert,
    select,
    update,
)

from slurm_gov.core.health import Effect, Repair
from slurm_gov.database import INNODB, Database, DatabaseError, Part, Where, exists, id_column, put, text_column
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
"""
_TABLES = MetaData()
_NAME = String(255)
_node = Table("node", _TABLES, Column("name", _NAME, primary_key=True), text_column("data", nullable=False), **INNODB)
_history = Table(
    "history",
    _TABLES,
    id_column(),
    Column("time", Double, nullable=False),
    Column("node", _NAME, nullable=False),
    Column("event", String(64), nullable=False),
    Column("before", String(64)),
    Column("after", String(64)),
    text_column("fault"),
    text_column("reason", nullable=False),
    text_column("by"),
    Column("injected", Integer, nullable=False, default=0),
    text_column("jobs"),
    Index("history_node", "node", "time"),
    Index("history_time", "time"),
    **INNODB,
)
_operation = Table(
    "operation",
    _TABLES,
    Column("name", _NAME, primary_key=True),
    Column("node", _NAME, nullable=False),
    Column("repair", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("began", Double, nullable=False),
    Column("tried", Double, nullable=False),
    Column("progress", String(64), nullable=False),
    text_column("message", nullable=False),
    **INNODB,
)
_orders = Table(
    "orders",
    _TABLES,
    id_column(),
    Column("time", Double, nullable=False),
    Column("node", _NAME, nullable=False),
    Column("want", String(64), nullable=False),
    Column("now", Integer, nullable=False),
    text_column("by", nullable=False),
    text_column("reason", nullable=False),
    Column("answered", Double),
    text_column("answer"),
    **INNODB,
)
_report = Table(
    "report",
    _TABLES,
    Column("node", _NAME, primary_key=True),
    Column("received", Double, nullable=False),
    Column("heard", Double, nullable=False),
    Column("presence", String(64)),
    text_column("payload", nullable=False),
    **INNODB,
)
_PART = Part("nodes", "journal", _TABLES, (_SCHEMA,))


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

    def __init__(
        self, where: Where, create: bool = True, fence: Callable[[Connection], None] = lambda connection: None
    ) -> None:
        """Raises ``JournalError`` if it cannot be opened, or (without ``create``) is not there.

        ``fence`` is called in every transaction that writes, and raises to forbid it.
        """
        self.where = where
        self._fence = fence
        if not create and not exists(where):
            raise JournalError(f"{where} is not there: slurm-govd makes it when its policy has a health: section")
        pragmas = ("journal_mode = WAL", "synchronous = FULL") if create else ()
        try:
            self._db = Database(where, _PART, make=create, busy=10, pragmas=pragmas).open()
        except DatabaseError as error:
            raise JournalError(str(error)) from None

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with self._db.writing() as connection:
                self._fence(connection)
                yield connection
        except DatabaseError as error:
            raise JournalError(str(error)) from None

    def _rows(self, query: Executable) -> list[Any]:
        try:
            with self._db.reading() as connection:
                return list(connection.execute(query).fetchall())
        except DatabaseError as error:
            raise JournalError(str(error)) from None

    # -- nodes and their history ---------------------------------------------------------------------------

    def records(self) -> dict[str, Record]:
        """Every node that was ever looked at, by name."""
        rows = self._rows(select(_node.c.name, _node.c.data))
        return {name: _record(json.loads(data)) for name, data in rows}

    def keep(self, records: Iterable[Record], events: Iterable[Event] = ()) -> None:
        """Write records and the history that goes with them, together."""
        with self._writing() as db:
            put(db, _node, [{"name": one.node, "data": json.dumps(_plain(one))} for one in records])
            rows = [
                {
                    "time": e.time,
                    "node": e.node,
                    "event": e.event,
                    "before": e.before,
                    "after": e.after,
                    "fault": e.fault,
                    "reason": e.reason,
                    "by": e.by,
                    "injected": int(e.injected),
                    "jobs": json.dumps(e.jobs),
                }
                for e in events
            ]
            if rows:
                db.execute(insert(_history), rows)

    def forget(self, before: float) -> None:
        """Drop history and answered orders from before a time (seconds since the epoch)."""
        with self._writing() as db:
            db.execute(delete(_history).where(_history.c.time < before))
            db.execute(delete(_orders).where(_orders.c.answered < before))
            db.execute(delete(_operation).where(_operation.c.tried < before, _operation.c.progress != "running"))

    def history(self, node: str | None = None, since: float = 0.0) -> list[Event]:
        """What happened, oldest first."""
        c = _history.c
        asked = select(c.time, c.node, c.event, c.reason, c.before, c.after, c.fault, c.by, c.injected, c.jobs)
        asked = asked.where(c.time >= since).order_by(c.time, c.id)
        rows = self._rows(asked if node is None else asked.where(c.node == node))
        return [Event(*row[:8], bool(row[8]), tuple(json.loads(row[9] or "[]"))) for row in rows]  # type: ignore[call-arg]

    def fault_counts(self, since: float) -> dict[str, int]:
        """How many faults each node had; drills do not count."""
        c = _history.c
        counted = and_(c.event == "fault", c.injected == 0, c.time >= since)
        return {row[0]: row[1] for row in self._rows(select(c.node, func.count()).where(counted).group_by(c.node))}

    # -- operations ----------------------------------------------------------------------------------------

    def operations(self, running: bool = True) -> dict[str, Operation]:
        """Operations by name: those that run, or all."""
        asked = select(_operation)
        rows = self._rows(asked.where(_operation.c.progress == "running") if running else asked)
        return {row[0]: Operation(row[0], row[1], Repair(row[2]), *row[3:]) for row in rows}

    def operation(self, name: str) -> Operation | None:
        """One operation."""
        rows = self._rows(select(_operation).where(_operation.c.name == name))
        return Operation(rows[0][0], rows[0][1], Repair(rows[0][2]), *rows[0][3:]) if rows else None

    def keep_operation(self, one: Operation) -> None:
        """Write how far an operation is."""
        with self._writing() as db:
            put(db, _operation, [asdict(one) | {"repair": str(one.repair)}])

    # -- orders --------------------------------------------------------------------------------------------

    def order(self, node: str, order: Order, time: float) -> int:
        """Leave an order for the daemon; returns its number."""
        row = {
            "time": time,
            "node": node,
            "want": str(order.want),
            "now": int(order.now),
            "by": order.by,
            "reason": order.reason,
        }
        with self._writing() as db:
            return int(db.execute(insert(_orders).returning(_orders.c.id), row).scalar_one())

    def orders(self) -> list[tuple[str, Order]]:
        """Orders that nobody has answered, oldest first, each with its node."""
        c = _orders.c
        asked = select(c.node, c.want, c.by, c.now, c.reason, c.id).where(c.answered.is_(None)).order_by(c.id)
        return [(row[0], Order(Want(row[1]), row[2], bool(row[3]), row[4], row[5])) for row in self._rows(asked)]

    def answer(self, id: int, answer: str, time: float) -> None:
        """Say what became of an order; empty: it is followed."""
        with self._writing() as db:
            db.execute(update(_orders).where(_orders.c.id == id).values(answered=time, answer=answer))

    def answered(self, id: int) -> str | None:
        """What became of an order; None: not answered yet."""
        c = _orders.c
        rows = self._rows(select(c.answer).where(c.id == id, c.answered.is_not(None)))
        return str(rows[0][0]) if rows else None

    # -- reports -------------------------------------------------------------------------------------------

    def reports(self) -> dict[str, Reported]:
        """The last report of each agent."""
        c = _report.c
        rows = self._rows(select(c.node, c.received, c.heard, c.presence, c.payload))
        return {row[0]: Reported(*row) for row in rows}

    def keep_reports(self, reports: Iterable[Reported]) -> None:
        """Write reports."""
        with self._writing() as db:
            put(db, _report, [asdict(one) for one in reports])


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
