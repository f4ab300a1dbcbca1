"""Results as Markdown: a table on the terminal, and the same in RESULTS.md."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from slurm_gov import __version__
from slurm_gov.sandbox import Sandbox

RESULTS = Path(__file__).with_name("RESULTS.md")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = [("-" * width if column == 0 else "-" * (width - 1) + ":") for column, width in enumerate(widths)]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def verdict(what: str, figure: float, limit: float, unit: str = "") -> str:
    """One target: reached, or missed by how much."""
    if figure <= limit:
        return f"- reached: {what}: {figure:.2f}{unit}, at most {limit:.2f}{unit} wanted"
    missed = figure / limit - 1
    return f"- **missed**: {what}: {figure:.2f}{unit}, at most {limit:.2f}{unit} wanted ({missed:.0%} above)"


def circumstances(cluster: Sandbox | None, command: str) -> str:
    """When, on what, and how."""
    slurm = "" if cluster is None else cluster.run(["sinfo", "--version"]).stdout.strip() + ", "
    day = datetime.datetime.now().strftime("%Y-%m-%d %H:%M")
    load = os.getloadavg()[0]
    return (
        f"{day}; {slurm}slurm-gov {__version__} ({_commit()}), Python {platform.python_version()}, "
        f"Linux {platform.release()}; {os.cpu_count()} cores, {_cpu()}; load before: {load:.1f}; `{command}`"
    )


def write(title: str, text: str) -> None:
    """Put a section into RESULTS.md in place of the last one with that title."""
    sections: dict[str, str] = {}
    old = RESULTS.read_text() if RESULTS.exists() else ""
    for part in old.split("\n## ")[1:]:
        name, _, body = part.partition("\n")
        sections[name.strip()] = body.strip()
    sections[title] = text.strip()
    body = "".join(f"\n## {name}\n{sections[name]}\n" for name in sorted(sections))
    RESULTS.write_text(
        f"# The last figures\nWritten by `python -m bench --write`; see [README.md](README.md).\n{body}"
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    done = subprocess.run(
        ["git", "-C", Path(__file__).parent, "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "no git"
