"""The lease in the shared database: who may act, until when, by the database's own clock.

Each time somebody new takes it its term grows, so that whoever had it before can be told from who has it now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    insert,
    select,
    text,
    update,
)

from slurm_gov.database import INNODB, Database, DatabaseError, Part, Where

_TABLES = MetaData()
_lease = Table(
    "lease",
    _TABLES,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("holder", String(200), nullable=False),
    Column("host", String(255), nullable=False),
    Column("term", BigInteger, nullable=False),
    Column("since", Double, nullable=False),
    Column("renewed", Double, nullable=False),
    Column("until", Double, nullable=False),
    **INNODB,
)
_PART = Part("lease", "lease", _TABLES)
_CLOCKS = {"postgresql": "SELECT extract(epoch FROM clock_timestamp())"}
_CLOCK = "SELECT UNIX_TIMESTAMP(SYSDATE(6))"


@dataclass(frozen=True, slots=True)
class Lease:
    """``holder`` is one process, empty if it was given back, ``host`` where it runs. ``since``: when it took it,
    ``age``: seconds since it was renewed, ``left``: until it ends; all by the database's clock.
    """

    holder: str
    host: str
    term: int
    since: float
    age: float
    left: float

    @property
    def held(self) -> bool:
        """Whether somebody has it now."""
        return bool(self.holder) and self.left > 0


class Leases:
    """The row. Every call asks the database, for some seconds at most, and raises ``DatabaseError``."""

    def __init__(self, where: Where, make: bool = True) -> None:
        self._db = Database(where, _PART, make=make)

    def __str__(self) -> str:
        return str(self._db)

    def read(self) -> Lease | None:
        """As it is now; None: nobody ever had it."""
        with self._db.reading() as connection:
            row = connection.execute(select(_lease)).fetchone()
            return None if row is None else _as_lease(row, _now(connection))

    def take(self, holder: str, host: str, length: float) -> Lease | None:
        """Take it for ``length`` seconds, if nobody has it; None: somebody has."""
        with self._db.writing() as connection:
            now, row = _locked(connection)
            if row is not None and _as_lease(row, now).held and row.holder != holder:
                return None
            term = 1 if row is None else row.term + 1
            values = {
                "holder": holder,
                "host": host,
                "term": term,
                "since": now,
                "renewed": now,
                "until": now + length,
            }
            if row is None:
                connection.execute(insert(_lease).values(id=1, **values))
            else:
                connection.execute(update(_lease).values(values))
            return Lease(holder, host, term, now, 0.0, length)

    def renew(self, holder: str, term: int, length: float) -> bool:
        """Have it for ``length`` seconds from now; False: it is somebody else's by now."""
        with self._db.writing() as connection:
            now, row = _locked(connection)
            if row is None or (row.holder, row.term) != (holder, term):
                return False
            connection.execute(update(_lease).values(renewed=now, until=now + length))
            return True

    def release(self, holder: str, term: int) -> None:
        """Give it back, if it is still ours: others may take it at once."""
        with self._db.writing() as connection:
            now, row = _locked(connection)
            if row is not None and (row.holder, row.term) == (holder, term):
                connection.execute(update(_lease).values(holder="", until=now))

    def close(self) -> None:
        self._db.close()


def fence(connection: Connection, holder: str, term: int) -> None:
    """Forbid a transaction of who has lost the lease; whoever wants to take it waits for the transaction's end."""
    row = connection.execute(select(_lease.c.holder, _lease.c.term).with_for_update(read=True)).fetchone()
    if row is None or (row.holder, row.term) != (holder, term):
        raise DatabaseError("not written: another governor leads by now")


def _locked(connection: Connection) -> tuple[float, Row[Any] | None]:
    """The row, ours alone until the transaction ends, and the time: asked after the lock was had."""
    row = connection.execute(select(_lease).with_for_update()).fetchone()
    return _now(connection), row


def _now(connection: Connection) -> float:
    return float(connection.execute(text(_CLOCKS.get(connection.dialect.name, _CLOCK))).scalar_one())


def _as_lease(row: Row[Any], now: float) -> Lease:
    return Lease(row.holder, row.host, row.term, row.since, now - row.renewed, row.until - now)
