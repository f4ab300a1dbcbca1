"""How the views say things: times, counts, bars, and the tables that more than one of them prints."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from slurm_gov.cli.common import add, console, plain, table
from slurm_gov.core.decision import Reason
from slurm_gov.core.rows import Phase, PreemptionRow, RunningRow, WaitingRow
from slurm_gov.core.words import span as span

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

NO_TEAM = "(no team)"
WIDE_ENOUGH = 110
"""Columns from which tables show all that they have."""
REASON_STYLE = {
    Reason.STARTS_NOW: "green",
    Reason.RECLAIMING: "green",
    Reason.PREEMPTING_WITHIN_TEAM: "green",
    Reason.NOT_STARTED: "red",
    Reason.CAN_NEVER_RUN: "red",
    Reason.NOT_READY: "dim",
    Reason.NO_TEAM: "dim",
    Reason.NO_POOL: "dim",
}


def output() -> Console:
    """The console of the views: what its encoding cannot show becomes a question mark, not an error."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    return console()


def clock(at: float, now: float) -> str:
    """``14:20:05`` if it is today, else ``2026-03-01 14:20``, in the reader's time zone."""
    then, today = time.localtime(at), time.localtime(now)
    return time.strftime("%H:%M:%S" if then[:3] == today[:3] else "%Y-%m-%d %H:%M", then)


def about(at: float, now: float) -> str:
    """As ``clock``, without the seconds."""
    text = clock(at, now)
    return text[:-3] if text.count(":") == 2 else text


def earliest(row: WaitingRow, now: float) -> str:
    """``about 14:20, when 4699 reaches its time limit``, or why nobody can say."""
    if row.earliest is None:
        return f"nobody can say: {row.earliest_why}" if row.earliest_why else ""
    return f"about {about(row.earliest, now)}, {row.earliest_why}"


def count(number: int, one: str, many: str = "") -> str:
    """``1 job``, ``2 jobs``."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def ordinal(number: int) -> str:
    """``1st``, ``2nd``, ``11th``."""
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def short_id(job: str) -> str:
    """An array's list of waiting tasks can be long: ``4711_1,5,9-...``."""
    return job if len(job) <= 20 else f"{job[:17]}..."


def bar(parts: Sequence[tuple[int, str, str]], width: int) -> Text:
    """A bar of (amount, character, style) parts, each at least one character if it is anything at all.

    The parts fill the width exactly; rounding errors go to the largest.
    """
    from rich.text import Text

    total = sum(amount for amount, _, _ in parts)
    made = Text()
    if total <= 0:
        return made
    cells = [max(1, round(amount * width / total)) if amount > 0 else 0 for amount, _, _ in parts]
    largest = cells.index(max(cells))
    cells[largest] = max(1, cells[largest] + width - sum(cells))
    for (_, character, style), length in zip(parts, cells, strict=True):
        made.append(character * length, style=style)
    return made


def narrow(rows: Table) -> Table:
    """The table with its columns closer together: more of it fits in 80 columns."""
    rows.padding = (0, 1, 0, 0)
    return rows


def interleave(out: Console, rows: Table, notes: Sequence[Text | None], indent: int) -> None:
    """Print a table with a note under each of its rows, across all columns."""
    from rich.padding import Padding
    from rich.segment import Segments

    narrow(rows)
    for column in rows.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    lines = out.render_lines(rows, pad=False, new_lines=True)
    head = len(lines) - len(notes)
    for number, line in enumerate(lines):
        out.print(Segments(line), end="")
        if number >= head and (note := notes[number - head]) is not None:
            out.print(Padding(note, (0, 0, 0, indent), expand=False))


def warn(out: Console, warnings: Iterable[str]) -> None:
    """Warnings, a line for each."""
    for text in warnings:
        out.print(plain(f"warning: {text}", "yellow"))


def phase(row: PreemptionRow, now: float) -> str:
    """How far a preemption has come, in words: ``23 s left, then requeue``."""
    if row.phase is Phase.NEXT_CYCLE:
        return "signalled in the next cycle"
    if row.phase is Phase.SPARED:
        return "not needed any more: stays"
    if row.phase is Phase.LEAVING or row.seconds_left is None:
        return f"grace is over: {row.then}"
    return f"{span(row.seconds_left)} left, then {row.then}"


def preemption_table(out: Console, rows: Sequence[PreemptionRow], now: float) -> None:
    """Jobs that leave: whose, for whom, how long they have, and why."""
    made = table("job", "team", "user", "GPUs", "for job", "of team", "grace period", right=("GPUs",))
    for row in rows:
        add(
            made,
            row.job,
            row.team or NO_TEAM,
            row.user,
            row.gpus,
            row.beneficiary,
            row.beneficiary_team,
            phase(row, now),
        )
    interleave(out, made, [plain(row.reason, "dim") for row in rows], 2)


def gpus_asked(row: WaitingRow) -> str:
    """``16``, or ``8 x 100`` for an array."""
    return f"{row.gpus} x {row.tasks}" if row.tasks > 1 else str(row.gpus)


def ask(row: WaitingRow) -> str:
    """What a job asks for, in words: ``2 nodes with 8 h100 each (16 GPUs)``."""
    kind = row.pool or "GPUs"
    if not row.gpus:
        words = f"no GPUs, {count(row.nodes, 'node')}"
    elif row.gpus_per_node and row.nodes > 1:
        words = f"{row.nodes} nodes with {row.gpus_per_node} {kind} each ({row.gpus} GPUs)"
    elif row.nodes > 1:
        words = f"{row.gpus} {kind} on {row.nodes} or more nodes"
    else:
        words = f"{row.gpus} {kind} on 1 node" if row.gpus_per_node else f"{row.gpus} {kind}"
    words += f" in partition {','.join(row.partitions)}"
    return f"{words}, for each of {row.tasks} tasks" if row.tasks > 1 else words


def waiting_table(out: Console, rows: Sequence[WaitingRow], now: float) -> None:
    """Waiting jobs, with the sentence that says why under each, and when it may start if that was asked for; the
    reasons are columns where there is room.
    """
    wide = out.width >= WIDE_ENOUGH
    columns = ("line", "job", "team", "user", "class", "GPUs", "nodes", *(("reason", "Slurm says") if wide else ()))
    made = table(*columns, right=("line", "GPUs", "nodes"))
    notes = []
    for row in rows:
        reason = plain(row.reason, REASON_STYLE.get(row.reason, "yellow"))
        start = "" if row.earliest is None else f"; earliest start {earliest(row, now)}"
        cells = (row.place, short_id(row.job), row.team or NO_TEAM, row.user, row.priority_class, gpus_asked(row))
        if wide:
            add(made, *cells, row.nodes, reason, row.slurm_reason)
            notes.append(plain(row.why + start, "dim"))
        else:
            add(made, *cells, row.nodes)
            said = f" (Slurm says {row.slurm_reason})" if row.slurm_reason not in ("", "None") else ""
            notes.append(reason.append_text(plain(f": {row.why}{start}{said}", "not bold dim")))
    interleave(out, made, notes, 6)


def running_table(out: Console, rows: Sequence[RunningRow], now: float) -> None:
    """Running jobs: since when, within quota or borrowed; under it, for whom one is being preempted."""
    made = table("job", "team", "user", "class", "GPUs", "nodes", "since", "quota", right=("GPUs", "nodes"))
    notes: list[Text | None] = []
    for row in rows:
        add(
            made,
            row.job,
            row.team or NO_TEAM,
            row.user,
            row.priority_class,
            row.gpus,
            len(row.nodes),
            clock(row.since, now),
            plain(standing(row), "yellow" if row.borrowed else ""),
        )
        notes.append(plain(state_note(row, now), "magenta") if state_note(row, now) else None)
    interleave(out, made, notes, 2)


def standing(row: RunningRow) -> str:
    """Whether a running job is within its team's quota: ``within``, ``borrowed``, ``borrowed 4 of 8``."""
    if row.team is None or not row.pool:
        return "none"
    if not row.borrowed:
        return "within"
    return "borrowed" if row.borrowed >= row.gpus else f"borrowed {row.borrowed} of {row.gpus}"


def state_note(row: RunningRow, now: float) -> str:
    """What is special about a running job; empty if nothing is."""
    notes = [] if row.state == "running" else [row.state]
    if (one := row.preemption) is not None:
        verb = "will be preempted" if one.phase is Phase.NEXT_CYCLE else "being preempted"
        notes.append(f"{verb} for job {one.beneficiary} of {one.beneficiary_team}: {phase(one, now)}")
    return "; ".join(notes)
