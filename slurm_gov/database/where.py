"""Naming a database: a path is an SQLite file, a URL a server that several hosts share."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

Where = Path | URL
"""A file of this host, or a shared database."""

DRIVERS = {
    "mariadb": "mariadb+pymysql",
    "mysql": "mariadb+pymysql",
    "postgresql": "postgresql+pg8000",
    "postgres": "postgresql+pg8000",
}
"""What the URL begins with, and the driver that we then use: the extras of those names install them."""


class WhereError(ValueError):
    """That is no URL of a database which can be shared. The message, one line, never has the password."""


def locate(url: str) -> URL:
    """A shared database by its URL, as ``mariadb://USER:PASSWORD@HOST/NAME``. Raises ``WhereError``."""
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        raise WhereError(f"no URL of a database; one is {_EXAMPLE}") from None
    kind = found.drivername.partition("+")[0]
    if kind == "sqlite":
        raise WhereError("SQLite is a file of one host, which cannot be shared; mariadb and postgresql can")
    if kind not in DRIVERS:
        raise WhereError(f"{kind}: no kind of database that can be used; mariadb and postgresql can")
    if not found.database:
        raise WhereError(f"{shown(found)}: the name of the database is missing; write {_EXAMPLE}")
    return found if "+" in found.drivername else found.set(drivername=DRIVERS[kind])


_EXAMPLE = "mariadb://USER:PASSWORD@HOST/NAME or postgresql://USER:PASSWORD@HOST/NAME"


def shown(where: Where) -> str:
    """A database's name for people: without the password."""
    if isinstance(where, Path):
        return str(where)
    plain = where.set(drivername=where.drivername.partition("+")[0], query={})
    return plain.render_as_string(hide_password=True)


def exists(where: Where) -> bool:
    """Whether there is such a file; a shared database is asked when it is opened."""
    return not isinstance(where, Path) or where.exists()
