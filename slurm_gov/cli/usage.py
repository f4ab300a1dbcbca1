"""slurm-gov usage: GPU-hours of a period, from Slurm's accounting and the ledger."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from slurm_gov.cli.common import Failure, clean
from slurm_gov.cli.log import ledger_file
from slurm_gov.cli.look import policy_file
from slurm_gov.cli.times import Moment
from slurm_gov.ledger.report import By, Per, Row

if TYPE_CHECKING:
    from slurm_gov.core.policy import Policy
    from slurm_gov.database import Where
    from slurm_gov.ledger.usage import Books

TIMEOUT = 600.0
"""Seconds that sacct may take: a year of a large cluster is much."""
FORMATS = ("table", "csv", "json", "html")


@dataclass(frozen=True)
class Report:
    """All that a report shows. ``since`` and ``until`` are seconds since the epoch; ``observed`` is from 0 to 1.

    ``days`` are the rows by day, for charts.
    """

    by: By
    since: float
    until: float
    observed: float
    rows: list[Row]
    days: list[Row]
    notes: list[str]


@click.command()
@policy_file
@ledger_file
@click.option(
    "--from", "since", type=Moment(), help="The begin: 2026-11-01, yesterday, 30d.  [default: 7d, from midnight]"
)
@click.option("--to", "until", type=Moment(), help="The end, not included: 2026-12-01, today.  [default: now]")
@click.option(
    "--by",
    type=click.Choice([one.value for one in By]),
    default="team",
    show_default=True,
    help="One row for each of these.",
)
@click.option(
    "--per",
    type=click.Choice([one.value for one in Per]),
    default="total",
    show_default=True,
    help="Rows for each period.",
)
@click.option("-t", "--team", default="", metavar="TEAM", help="Only what this team used, as in --team x --by user.")
@click.option("-p", "--pool", default="", metavar="POOL", help="Only this pool.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True,
              help="How it is written; html is a page of its own.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it into this file.")
def usage(
    policy_path: str,
    path: Where,
    since: float | None,
    until: float | None,
    by: str,
    per: str,
    team: str,
    pool: str,
    form: str,
    as_json: bool,
    output: Path | None,
) -> None:
    """Report who used how many GPU-hours, within quota and borrowed, what was lent, waited for and lost.

    \b
      quota     what the team was guaranteed in this time
      used      what its jobs held, by Slurm's accounting (sacct): within + borrowed
      within    the part of it within the quota that stood then
      borrowed  the part above: of the jobs of the lowest class that started last
      lent      how much of its unused quota others held, while slurm-govd looked
      waiting   GPUs of jobs that could have started, times how long they waited
      lost      work undone by preemptions and by node failures; all of a run
                where its job tells of no checkpoints
      use       within / quota
      cost      used, at the pools' prices in the policy (price: 2.5)

    Dates are local, and days end at local midnight. What runs counts up to now. GPUs that are in no pool of the
    policy are not counted. docs/usage.md says how it is added up.

    \b
    Examples:
      slurm-gov usage --from 2026-11-01 --to 2026-12-01
      slurm-gov usage --team research --by user
      slurm-gov usage --from 30d --per day --format csv -o november.csv
      slurm-gov usage --from 30d --format html -o usage.html

    \b
    Exit codes:
      0  shown
      1  slurmdbd does not answer, there is no ledger, or the policy is wrong
      2  wrong usage
    """
    from slurm_gov.cli.look import read_policy

    now = time.time()
    until = now if until is None else min(until, now)
    if since is None:
        from slurm_gov.cli.times import moment

        since = moment("today", until) - 7 * 86_400
    if since >= until:
        raise click.UsageError("--from must be before --to, and in the past")
    policy = read_policy(policy_path)
    _known(policy, team, pool)
    form = "json" if as_json else form
    made = _report(policy, path, since, until, By(by), Per(per), team, pool, form == "html")
    if form == "table" and output is None:
        _table(made)
        return
    text = {"table": _as_text, "csv": _csv, "json": _json, "html": _html}[form](made)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text)


def _known(policy: Policy, team: str, pool: str) -> None:
    from slurm_gov.policy.problems import did_you_mean, shown

    for name, known, what in ((team, policy.teams, "team"), (pool, policy.pools, "pool")):
        if name and name not in known:
            raise Failure(f"the policy has no {what} {shown(name)}; {did_you_mean(name, known, what)}")


def _report(
    policy: Policy, path: Where, since: float, until: float, by: By, per: Per, team: str, pool: str, charts: bool
) -> Report:
    from slurm_gov.ledger.report import periods, report
    from slurm_gov.ledger.usage import observed

    books, notes = _books(policy, path, since, until)
    now = time.time()

    def rows(each: Per) -> list[Row]:
        return report(books, policy, periods(since, until, each), by, min(now, until), team, pool)

    return Report(
        by, since, until, observed(books.spans, since, until), rows(per), rows(Per.DAY) if charts else [], notes
    )


def _books(policy: Policy, path: Where, since: float, until: float) -> tuple[Books, list[str]]:
    import asyncio

    from slurm_gov.cli.look import failure
    from slurm_gov.ledger import Event, Kind, LedgerError, events, spans
    from slurm_gov.ledger.usage import Books
    from slurm_gov.slurm import sacct
    from slurm_gov.slurm.client import SlurmError

    async def ask() -> tuple:  # type: ignore[type-arg]
        pools = policy.pools.values()
        return await sacct.runs(pools, since, until, TIMEOUT), await sacct.parents(TIMEOUT)

    notes: list[str] = []
    lost: list[Event] = []
    held = []
    try:
        lost = [one.event for one in events(path, kinds=(Kind.REQUEUE, Kind.CANCEL), since=since, until=until)]
        held = spans(path, since, until)
    except LedgerError as error:
        notes.append(f"{error}: nothing is known of what was lent and lost, and today's quotas are taken")
    try:
        runs, parents = asyncio.run(ask())
    except SlurmError as error:
        raise failure(error) from None
    quotas = {(name, pool): quota.nominal for name, one in policy.teams.items() for pool, quota in one.quotas.items()}
    return Books(runs, held, lost, quotas, parents, policy.priority_classes), notes


# -- how it is shown ------------------------------------------------------------------------------------------


def _json(made: Report) -> str:
    import json

    data = {
        "from": made.since,
        "to": made.until,
        "by": made.by,
        "unit": "GPU-hours",
        "observed": round(made.observed, 4),
        "rows": [asdict(row) for row in made.rows],
        "notes": made.notes,
    }
    return json.dumps(data, indent=2) + "\n"


def _csv(made: Report) -> str:
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [field.name for field in fields(Row)]
    writer.writerow([made.by if name == "group" else name for name in names])
    for row in made.rows:
        writer.writerow([_cell(getattr(row, name)) for name in names])
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.4f}"
    # A name that a spreadsheet would take for a formula is made text.
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _as_text(made: Report) -> str:
    import io

    from rich.console import Console

    out = Console(file=io.StringIO(), markup=False, emoji=False, highlight=False, width=160)
    _table(made, out)
    return out.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def _table(made: Report, out: object = None) -> None:
    from rich.console import Console

    from slurm_gov.cli import words
    from slurm_gov.cli.common import add, plain, table
    from slurm_gov.ledger.report import total

    console = out if isinstance(out, Console) else words.output()
    form = "%Y-%m-%d %H:%M"
    times = (time.strftime(form, time.localtime(at)) for at in (made.since, made.until))
    console.print(plain(f"GPU-hours by {made.by}, {' to '.join(times)}", "bold"))
    periods = len({row.period for row in made.rows}) > 1
    owners = any(row.quota is not None for row in made.rows)
    cost = any(row.cost is not None for row in made.rows)
    wide = console.width >= 100  # else what can be worked out, or is least needed, is left out
    columns = [
        *(["from"] if periods else []),
        made.by.value,
        *(["quota"] if owners else []),
        "used",
        *(["within"] if wide else []),
        "borrowed",
        *(["lent"] if owners else []),
        "waiting",
        "lost",
        *(["use"] if owners else []),
        *(["cost"] if cost else []),
        *(["jobs"] if wide else []),
    ]
    made_table = table(*columns, right=[name for name in columns if name not in ("from", made.by.value)])

    def line(row: Row, style: str = "") -> None:
        cells: list[object] = [*([row.period or ""] if periods else []), row.group]
        cells += [hours(row.quota)] if owners else []
        cells += [hours(row.used), *([hours(row.within_quota)] if wide else []), plain(hours(row.borrowed), "yellow")]
        cells += [plain(hours(row.lent), "cyan")] if owners else []
        cells += [hours(row.waiting), plain(hours(row.lost_preemption + row.lost_node_failure), "red")]
        cells += [percent(row.utilisation)] if owners else []
        cells += [hours(row.cost)] if cost else []
        add(made_table, *cells, *([row.jobs] if wide else []), style=style)

    for row in made.rows:
        line(row)
    if len(made.rows) > 1:
        made_table.add_section()
        line(total(made.rows), "bold")
    for column in made_table.columns:
        column.no_wrap = column.justify == "right"
    console.print(words.narrow(made_table))
    if owners and made.observed < 0.999:
        console.print(plain(f"slurm-govd looked {made.observed:.1%} of this time; lent is what it saw", "dim"))
    for note in made.notes:
        print(f"note: {clean(note)}", file=sys.stderr)


def hours(value: float | None) -> str:
    """GPU-hours for people: two figures behind the point while they are few."""
    if not value:
        return "" if value is None else "0"
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _html(made: Report) -> str:
    from slurm_gov.cli.usage_page import page

    return page(made)
