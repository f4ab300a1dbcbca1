"""Where the commands find ledger and node journal: the shared database that SLURM_GOV_DATABASE names, or files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from slurm_gov.database import Where
    from slurm_gov.slurm.before import Before

F = TypeVar("F", bound=Callable[..., Any])
VARIABLE = "SLURM_GOV_DATABASE"


class Place(click.ParamType):  # type: ignore[type-arg]
    """A file, or the URL of a shared database."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Where:
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        if "://" not in value:
            if Path(value).is_dir():
                self.fail(f"File {value!r} is a directory.", param, ctx)
            return Path(value)
        from slurm_gov.database import WhereError, locate

        try:
            return locate(value)
        except WhereError as error:
            self.fail(str(error), param, ctx)


def place(option: str, name: str, variable: str, default: str, help: str) -> Callable[[F], F]:
    """An option that names a file; the shared database comes first if there is one and nobody named a file."""

    def shared_first(ctx: click.Context, param: click.Parameter, value: Where) -> Where:
        if ctx.get_parameter_source(name) in (click.core.ParameterSource.COMMANDLINE,):
            return value
        return shared() or value

    return click.option(
        option,
        name,
        type=Place(),
        envvar=variable,
        default=default,
        show_default=True,
        show_envvar=True,
        metavar="FILE",
        callback=shared_first,
        help=f"{help} A URL names a shared database; so does {VARIABLE}.",
    )


def shared() -> Where | None:
    """The shared database, if the environment names one. Raises ``click.UsageError``."""
    if not (url := os.environ.get(VARIABLE)):
        return None
    from slurm_gov.database import WhereError, locate

    try:
        return locate(url)
    except WhereError as error:
        raise click.UsageError(f"{VARIABLE}: {error}") from None


def ledger() -> Where:
    """Where the ledger is, for commands that have no option for it."""
    return shared() or _file()


def _file() -> Path:
    from slurm_gov.ledger import DEFAULT_LEDGER

    return Path(os.environ.get("SLURM_GOV_LEDGER") or DEFAULT_LEDGER)


def before() -> Before:
    """What was there before slurm-gov: beside the ledger. Raises ``ValueError``, ``OSError``."""
    from slurm_gov.slurm.before import Before

    folder = _file().parent
    if (where := shared()) is None:
        return Before(folder)
    from slurm_gov.daemon.shared_before import SharedBefore

    return SharedBefore(where, folder)


def leader() -> str:
    """Who leads, in a sentence; empty without a shared database. Raises ``click.UsageError``."""
    if (where := shared()) is None:
        return ""
    from slurm_gov.daemon.lease import Leases
    from slurm_gov.database import DatabaseError

    try:
        lease = Leases(where, make=False).read()
    except DatabaseError as error:
        return f"who leads is not known: {error}"
    if lease is None or not lease.held:
        return "nobody leads: no governor acts"
    return f"{lease.host} leads (term {lease.term}, renewed {lease.age:.0f} s ago)"
