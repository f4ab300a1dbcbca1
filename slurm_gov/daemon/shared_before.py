"""What was there before slurm-gov, for all controllers: in the shared database, and in no file of one of them."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, Table, delete, select

from slurm_gov.database import INNODB, Database, DatabaseError, Part, Where, put, text_column
from slurm_gov.slurm.before import Before

_TABLES = MetaData()
_before = Table(
    "before_us",
    _TABLES,
    Column("id", Integer, primary_key=True, autoincrement=False),
    text_column("data", nullable=False),
    **INNODB,
)
_PART = Part("before", "record of what was there before us", _TABLES)


class SharedBefore(Before):
    """As ``Before``, kept in a database. Its errors are ``OSError``, and ``ValueError`` for what cannot be read.

    The file of a governor that was alone before is taken over: its ``folder`` is where that lies.
    """

    def __init__(self, where: Where, folder: Path) -> None:
        self._db = Database(where, _PART)
        super().__init__(name=str(self._db))
        if not self.known and (alone := Before(folder)).known:
            self.known = alone.known
            self._write()

    def _load(self) -> str | None:
        try:
            with self._db.reading() as connection:
                return connection.execute(select(_before.c.data)).scalar()
        except DatabaseError as error:
            raise OSError(str(error)) from None

    def _save(self, text: str | None) -> None:
        try:
            with self._db.writing() as connection:
                if text is None:
                    connection.execute(delete(_before))
                else:
                    put(connection, _before, [{"id": 1, "data": text}])
        except DatabaseError as error:
            raise OSError(str(error)) from None
