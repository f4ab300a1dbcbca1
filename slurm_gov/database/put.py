"""Adding rows whose key may be there already: each kind of database says it in its own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, case


def put(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], grow: str = "") -> None:
    """Add rows; one whose primary key is there replaces it, or with ``grow`` only raises that column of it."""
    if not rows:
        return
    kind = connection.dialect.name
    adding: Any
    if kind in ("mysql", "mariadb"):
        from sqlalchemy.dialects import mysql

        adding = mysql.insert(table)
        given = adding.inserted
    elif kind == "postgresql":
        from sqlalchemy.dialects import postgresql

        adding = postgresql.insert(table)
        given = adding.excluded
    else:
        from sqlalchemy.dialects import sqlite

        adding = sqlite.insert(table)
        given = adding.excluded
    if grow:
        change = {grow: case((given[grow] > table.c[grow], given[grow]), else_=table.c[grow])}
    else:
        change = {column.name: given[column.name] for column in table.c if not column.primary_key}
    if kind in ("mysql", "mariadb"):
        adding = adding.on_duplicate_key_update(change)
    else:
        keys = [column.name for column in table.primary_key]
        adding = adding.on_conflict_do_update(index_elements=keys, set_=change)
    connection.execute(adding, list(rows))
