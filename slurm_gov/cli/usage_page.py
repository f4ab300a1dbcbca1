"""The usage report as one HTML page: a table, and charts drawn in it. Nothing is loaded from elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from slurm_gov import __version__
from slurm_gov.ledger.report import Row, merged, total

if TYPE_CHECKING:
    from slurm_gov.cli.usage import Report

BARS = 12
"""Groups that get a colour of their own by day; the rest is one."""
WIDTH, HEIGHT = 760.0, 200.0


@dataclass(frozen=True)
class Bar:
    """One group: parts of the width, 0 to 100. ``mark`` is where its quota is."""

    row: Row
    within: float
    borrowed: float
    without_team: float
    mark: float | None


@dataclass(frozen=True)
class Block:
    """One group on one day, in the coordinates of the chart."""

    x: float
    y: float
    width: float
    height: float
    colour: int
    title: str


def page(made: Report) -> str:
    """The whole page."""
    from slurm_gov.cli.usage import hours, percent

    environment = Environment(
        loader=PackageLoader("slurm_gov.cli", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"hours": hours, "percent": percent}
    form = "%Y-%m-%d %H:%M"
    rows = merged(made.rows)
    days = sorted({row.period or "" for row in made.days})
    blocks, legend, top = _days(made.days, days)
    return environment.get_template("usage_page.html.j2").render(
        made=made,
        since=time.strftime(form, time.localtime(made.since)),
        until=time.strftime(form, time.localtime(made.until)),
        written=time.strftime(f"{form} %Z"),
        version=__version__,
        rows=made.rows,
        total=total(made.rows),
        periods=len({row.period for row in made.rows}) > 1,
        owners=any(row.quota is not None for row in made.rows),
        costs=any(row.cost is not None for row in made.rows),
        bars=_bars(rows),
        days=days,
        blocks=blocks,
        legend=legend,
        top=top,
        width=WIDTH,
        height=HEIGHT,
    )


def _bars(rows: list[Row]) -> list[Bar]:
    most = max([max(row.used, row.quota or 0.0) for row in rows], default=0.0) or 1.0
    return [
        Bar(
            row,
            100 * row.within_quota / most,
            100 * row.borrowed / most,
            100 * max(0.0, row.used - row.within_quota - row.borrowed) / most,
            None if row.quota is None else 100 * row.quota / most,
        )
        for row in rows
    ]


def _days(rows: list[Row], days: list[str]) -> tuple[list[Block], list[tuple[int, str]], float]:
    """A column for each day with the groups above one another; the largest groups have colours of their own."""
    order = [row.group for row in merged(rows)]
    colours = {group: min(number, BARS) for number, group in enumerate(order)}
    sums = {day: sum(row.used for row in rows if (row.period or "") == day) for day in days}
    top = max(sums.values(), default=0.0) or 1.0
    column = WIDTH / max(1, len(days))
    blocks = []
    reached = dict.fromkeys(days, HEIGHT)
    for row in sorted(rows, key=lambda row: order.index(row.group)):
        day = row.period or ""
        height = HEIGHT * row.used / top
        if height <= 0:
            continue
        reached[day] -= height
        gap = min(2.0, column / 8)
        title = f"{day} {row.group}: {row.used:,.2f} GPU-hours".strip()
        x = days.index(day) * column
        blocks.append(Block(x + gap, reached[day], column - 2 * gap, height, colours[row.group], title))
    legend = [(number, group) for number, group in enumerate(order[:BARS])]
    return blocks, [*legend, (BARS, "others")] if len(order) > BARS else legend, top
