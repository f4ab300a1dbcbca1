"""What all commands share: one-line errors, --json, tables, and text from users shown as nothing but text."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

WIDE = 250  # columns when the output is a file or a pipe, so that nothing is folded
F = TypeVar("F", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


class Failure(click.ClickException):
    """An expected error: shown as one line, ``slurm-gov: ...``, exit code 1.

    ``details`` are lines printed before it, as they are (such as the mistakes in a file).
    """

    exit_code = 1

    def __init__(self, message: str, details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)

    def show(self, file: Any = None) -> None:
        stream = file or sys.stderr
        for line in self.details:
            print(clean(line), file=stream)
        print(f"slurm-gov: {one_line(self.message)}", file=stream)


def clean(text: object) -> str:
    """Text with control characters made visible, line ends too: no escape sequence reaches a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def one_line(text: object) -> str:
    """An error message on one line."""
    return clean(" ".join(str(text).split()))


def plain(text: object, style: str = "") -> Text:
    """A cell or line that rich shows as it is, without reading markup in it."""
    from rich.text import Text

    return Text(clean(text), style=style)


def console() -> Console:
    """Where views are printed: stdout; no markup, emoji codes or highlighting, plain when no terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE
    return Console(markup=False, emoji=False, highlight=False, width=width)


def table(*columns: str, right: Iterable[str] = (), title: str | None = None) -> Table:
    """An empty table; the columns named in ``right`` hold numbers. Fill it with ``add(table, ...)``."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, show_edge=False)
    numbers = set(right)
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return made


def add(to: Table, *cells: object, style: str = "") -> None:
    """Add a row; cells that are not rich objects are shown as plain text, None as nothing."""
    from rich.text import Text

    to.add_row(*(c if isinstance(c, Text) else plain("" if c is None else c, style) for c in cells))


def print_json(data: object) -> None:
    """Print data as JSON, readable and in one stable order as given."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=True, default=_jsonable))


def _jsonable(value: Any) -> Any:
    if hasattr(value, "items"):
        return dict(value.items())
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
