"""What a database is made of: each part has tables of its own and a version of its own."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Column, MetaData, Text
from sqlalchemy.dialects.mysql import LONGTEXT

LONGEST = 600
"""Characters that a unique text may have in a shared database: PostgreSQL indexes no more than 2,700 bytes."""


@dataclass(frozen=True)
class Part:
    """``scripts`` makes and upgrades an SQLite file: each brings it from the version of its index to the next, and
    none that was released may change. ``tables`` are the same of the newest version, for a shared database.
    """

    name: str
    what: str
    scripts: tuple[str, ...]
    tables: MetaData


def text_column(name: str, **more: object) -> Column[str]:
    """A column of any text."""
    return Column(name, Text().with_variant(LONGTEXT(), "mysql", "mariadb"), **more)  # type: ignore[arg-type]
