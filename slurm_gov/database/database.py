"""Opening a database and writing to it in transactions."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Engine,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from slurm_gov.database.part import INNODB, Part
from slurm_gov.database.where import DRIVERS, Where, shown

TIMEOUT = 5.0
"""Seconds to reach a shared database, and for each of its answers."""

_VERSIONS = Table(
    "slurm_gov_version",
    MetaData(),
    Column("part", String(32), primary_key=True),
    Column("version", BigInteger, nullable=False),
    **INNODB,
)


class DatabaseError(Exception):
    """It cannot be opened, read or written. The message says which, and why, in one line, never the password."""

    def __init__(self, why: str, database: object = None) -> None:
        super().__init__(why if database is None else f"{database}: {why}")


class Database:
    """One part of a database: a file's only one, or one of several in a shared one.

    Made at once, connected when it is first used. Safe in several threads. After an error the next use connects
    anew, and finds the database as it is then.
    """

    def __init__(
        self,
        where: Where,
        part: Part,
        *,
        make: bool = True,
        readonly: bool = False,
        busy: float = 5.0,
        pragmas: Iterable[str] = (),
    ) -> None:
        """Without ``make`` no tables are made, and with ``readonly`` nothing is written at all. ``busy``: seconds to
        wait for another writer of a file; ``pragmas``: what is said to SQLite when it is opened to be written.
        Raises ``DatabaseError`` if the driver is missing.
        """
        self.where = where
        self.shared = isinstance(where, URL)
        self._part = part
        self._make_tables = make and not readonly
        self._checked = False
        if isinstance(where, URL):
            self._engine = _shared(where)
        else:
            self._engine = _file(where, readonly, busy, tuple(pragmas))
        self._writer = self._engine.execution_options(writing=True)

    def __str__(self) -> str:
        return shown(self.where)

    def open(self) -> Database:
        """Make the tables or bring them up to date, or see that they are ours. Raises ``DatabaseError``."""
        with self._told("opened"):
            if not self._make_tables:
                with self._engine.connect() as connection:
                    self._see(connection)
            else:
                if isinstance(self.where, Path):
                    self.where.parent.mkdir(parents=True, exist_ok=True)
                self._make_all()
        self._checked = True
        return self

    def _make_all(self) -> None:
        for left in (2, 1, 0):
            try:
                with self._writer.begin() as connection:
                    self._make(connection)
                return
            except DBAPIError as error:
                # Two daemons that start together may both be making the tables: one finds them made.
                if not self.shared or not left or error.connection_invalidated:
                    raise
                time.sleep(0.3)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction in which nobody else writes this part: all of it is done, or nothing."""
        if not self._checked:
            self.open()
        with self._told("written"), self._writer.begin() as connection:
            if self.shared:
                # One writer at a time, so that ids are in the order in which they can be seen.
                mine = select(_VERSIONS.c.version).where(_VERSIONS.c.part == self._part.name)
                connection.execute(mine.with_for_update())
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read on."""
        if not self._checked:
            self.open()
        with self._told("read"), self._engine.connect() as connection:
            yield connection

    def close(self) -> None:
        """Let go of all connections; the next use makes new ones."""
        self._engine.dispose()
        self._checked = False

    @contextlib.contextmanager
    def _told(self, how: str) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            self.close()
            raise DatabaseError(f"cannot be {how}: {_reason(error)}", self) from None

    # -- versions -------------------------------------------------------------------------------------------

    def _make(self, connection: Connection) -> None:
        newest = self._part.version
        if self.shared:
            _VERSIONS.create(connection, checkfirst=True)
            mine = _VERSIONS.c.part == self._part.name
            version = connection.execute(select(_VERSIONS.c.version).where(mine).with_for_update()).scalar()
            if version is None:
                self._part.tables.create_all(connection)
                connection.execute(insert(_VERSIONS).values(part=self._part.name, version=newest))
                version = newest
            self._refuse(version, newest)
            if version < newest:
                connection.execute(update(_VERSIONS).where(mine).values(version=newest))
            return
        version = _user_version(connection)
        self._refuse(version, newest)
        if version == 0 and connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema").scalar():
            raise DatabaseError(f"a database, but no {self._part.what} of slurm-gov", self)
        for script in self._part.scripts[version:]:
            for statement in _statements(script):
                connection.exec_driver_sql(statement)
        if version < newest:
            connection.exec_driver_sql(f"PRAGMA user_version = {newest}")

    def _see(self, connection: Connection) -> None:
        if self.shared:
            version = 0
            if inspect(connection).has_table(_VERSIONS.name):
                mine = _VERSIONS.c.part == self._part.name
                version = connection.execute(select(func.max(_VERSIONS.c.version)).where(mine)).scalar() or 0
            if version == 0:
                raise DatabaseError(f"there is no {self._part.what} in it", self)
        else:
            version = _user_version(connection)
        if not 0 < version <= self._part.version:
            raise DatabaseError(f"no {self._part.what} that this slurm-gov can read (its version is {version})", self)

    def _refuse(self, version: int, newest: int) -> None:
        if version > newest:
            raise DatabaseError(
                f"written by a newer slurm-gov (its version is {version}, this one knows {newest})", self
            )


def _user_version(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar() or 0)


def _shared(where: URL) -> Engine:
    kind, _, driver = where.drivername.partition("+")
    arguments: dict[str, Any] = {}
    if driver == "pymysql":
        arguments = {"connect_timeout": TIMEOUT, "read_timeout": TIMEOUT, "write_timeout": TIMEOUT}
        where = where.update_query_dict({"charset": "utf8mb4"})
    elif driver == "pg8000":
        arguments = {"timeout": TIMEOUT}
    elif driver == "psycopg":
        arguments = {"connect_timeout": int(TIMEOUT)}
    try:
        # What was committed is what is read, whoever wrote it: not the snapshot of MariaDB's default.
        return create_engine(where, connect_args=arguments, pool_pre_ping=True, isolation_level="READ COMMITTED")
    except (ImportError, NoSuchModuleError):
        extra = "mariadb" if kind in ("mysql", "mariadb") else "postgresql"
        missing = driver or DRIVERS[kind]
        raise DatabaseError(
            f"{shown(where)}: cannot be opened: its driver {missing} is not installed; pip install "
            f"'slurm-gov[{extra}]'"
        ) from None


def _file(path: Path, readonly: bool, busy: float, pragmas: tuple[str, ...]) -> Engine:
    def connect() -> sqlite3.Connection:
        if readonly:
            return _to_read(path, busy)
        db = sqlite3.connect(path, timeout=busy, isolation_level=None, check_same_thread=False)
        try:
            for pragma in pragmas:
                db.execute(f"PRAGMA {pragma}")
        except BaseException:
            db.close()
            raise
        return db

    # One connection: threads take turns, as SQLite's writers must.
    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_size=1, max_overflow=0)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(
            "BEGIN IMMEDIATE" if connection.get_execution_options().get("writing") else "BEGIN"
        )

    return engine


def _to_read(path: Path, busy: float) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=busy, isolation_level=None, check_same_thread=False
    )
    try:
        db.execute("SELECT 1 FROM sqlite_schema LIMIT 1")
    except sqlite3.OperationalError:
        # Nobody writes now, and we may not make the files that readers share: read it as it lies there.
        db.close()
        if path.with_name(path.name + "-wal").exists():
            raise
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?immutable=1", uri=True, isolation_level=None, check_same_thread=False
        )
    return db


def _statements(script: str) -> Iterator[str]:
    """executescript() would commit first, and a half-made file would stay."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _reason(error: BaseException) -> str:
    """What the database said, in one line, without the statement."""
    said: Any = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if said.args and isinstance(said.args[0], dict):  # pg8000
        said = said.args[0].get("M", said)
    elif len(said.args) > 1 and isinstance(said.args[0], int) and not isinstance(said, OSError):  # pymysql
        said = said.args[1]
    return " ".join(str(said).split()) or type(error).__name__
