"""What a database is made of: each part has tables of its own and a version of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, MetaData, Text

LONGEST = 600
"""Characters that a unique text may have in a shared database: PostgreSQL indexes no more than 2,700 bytes."""
INNODB: dict[str, Any] = {
    f"{kind}_{option}": value
    for kind, collation in (("mariadb", "utf8mb4_nopad_bin"), ("mysql", "utf8mb4_bin"))
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", collation))
}
"""For tables in MariaDB: transactions, and texts that are equal only if all their characters are."""


@dataclass(frozen=True)
class Part:
    """``tables`` are those of a shared database, of the newest version. ``scripts`` makes and upgrades the same in an
    SQLite file: each brings it from the version of its index to the next, and none that was released may change.
    """

    name: str
    what: str
    tables: MetaData
    scripts: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        """The newest."""
        return max(1, len(self.scripts))


def id_column() -> Column[int]:
    """Numbers that rows get as they come."""
    return Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)


def text_column(name: str, **more: Any) -> Column[str]:
    """A column of any text."""
    # In MariaDB a TEXT has 64 KiB; with a length it is as large as that needs.
    return Column(name, Text().with_variant(Text(2**24), "mysql", "mariadb"), **more)
