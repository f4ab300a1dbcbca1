"""The screen of `slurm-gov top`."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.css.query import NoMatches
from textual.widgets import DataTable, Input, Static

from slurm_gov.cli.common import Failure, plain
from slurm_gov.cli.frame import Frame, Row
from slurm_gov.cli.views import VIEWS, View
from slurm_gov.cli.words import bar, clock, span

TALL = 40
"""Lines from which the decisions have a place of their own."""


class Top(App[None]):
    """Draws frames, asks for the next one in a thread of its own, and remembers what the reader chose."""

    CSS = """
    Screen { layout: vertical; }
    #head { height: 1; } #trouble { height: auto; max-height: 3; }
    #pools { height: auto; max-height: 30%; scrollbar-size: 1 1; }
    #tabs { height: 1; margin-top: 1; } #table { height: 1fr; scrollbar-size: 1 1; } #why { height: 2; }
    #log { height: 30%; border-top: solid $panel; display: none; } #keys { height: 1; }
    #filter { display: none; height: 1; border: none; padding: 0; }
    Top.-tall #log { display: block; }
    DataTable { background: transparent; }
    DataTable > .datatable--header { background: transparent; text-style: bold; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        *(Binding(view.key, f"view('{view.key}')", view.name) for view in VIEWS.values()),
        Binding("s", "sort", "sort"),
        Binding("r", "reverse", "reverse"),
        Binding("slash", "filter", "filter"),
        Binding("escape", "clear", show=False),
        Binding("space", "pause", "pause"),
    ]

    def __init__(self, ask: Callable[[], Frame], first: Frame, interval: float) -> None:
        super().__init__(ansi_color=True)
        self._ask = ask
        self._frame = first
        self._interval = interval
        self._trouble = first.trouble
        self._view = VIEWS["t"]
        self._order: dict[str, tuple[int, bool]] = {}
        self._words = ""
        self._paused = False
        self._shown: list[Row] = []
        self._columns: list[str] = []
        self._built = False
        self._looking: threading.Thread | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Static(id="trouble")
        with VerticalScroll(id="pools", can_focus=False):
            yield Static(id="bars")
        yield Static(id="tabs")
        yield DataTable(id="table", cursor_type="row", zebra_stripes=False, cell_padding=1)
        yield Static(id="why")
        yield Static(id="log")
        yield Input(id="filter", placeholder="only rows with these words", compact=True)
        yield Static(id="keys")

    def on_mount(self) -> None:
        self._built = True
        self.query_one(DataTable).focus()
        self._draw()
        self.set_interval(self._interval, self._refresh)

    def on_resize(self) -> None:
        self._draw()

    # -- what the reader does ----------------------------------------------------------------------------------

    def action_view(self, key: str) -> None:
        self._view = VIEWS[key]
        self.query_one(DataTable).clear(columns=True)
        self._columns = []
        self._draw()

    def action_sort(self) -> None:
        column, reverse = self._order.get(self._view.key, (-1, False))
        column += 1
        self._order[self._view.key] = (column, reverse)
        if column >= len(self._view.columns):
            del self._order[self._view.key]  # after the last column: the order in which the rows came
        self._draw()

    def action_reverse(self) -> None:
        column, reverse = self._order.get(self._view.key, (-1, False))
        self._order[self._view.key] = (column, not reverse)
        self._draw()

    def action_filter(self) -> None:
        entry = self.query_one(Input)
        entry.display = True
        entry.focus()

    def action_clear(self) -> None:
        entry = self.query_one(Input)
        entry.value = self._words = ""
        entry.display = False
        self.query_one(DataTable).focus()
        self._draw()

    def action_pause(self) -> None:
        self._paused = not self._paused
        self._draw()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._words = event.value.casefold()
        self._draw()

    def on_input_submitted(self) -> None:
        self.query_one(Input).display = bool(self._words)
        self.query_one(DataTable).focus()

    def on_data_table_row_highlighted(self) -> None:
        self._say_why()

    # -- frames ------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        if self._paused:
            self._draw_head()
        elif self._looking is None or not self._looking.is_alive():
            # A thread of its own, that nobody waits for: who quits need not wait until Slurm answers.
            self._looking = threading.Thread(target=self._look, daemon=True)
            self._looking.start()

    def _look(self) -> None:
        try:
            told = functools.partial(self._came, self._ask())
        except Failure as error:
            told = functools.partial(self._failed, error.message)
        with contextlib.suppress(RuntimeError, NoMatches):  # the screen is gone
            self.call_from_thread(told)

    def _came(self, frame: Frame) -> None:
        self._frame, self._trouble = frame, frame.trouble
        self._draw()

    def _failed(self, message: str) -> None:
        self._trouble = message
        self._draw()

    # -- drawing -----------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        if not self._built or not self.query(DataTable):
            return
        self.set_class(self.size.height >= TALL, "-tall")
        self._draw_head()
        self.query_one("#bars", Static).update(_pools(self._frame, self.size.width))
        self.query_one("#tabs", Static).update(self._tabs())
        self._draw_table()
        self._say_why()
        self.query_one("#log", Static).update(_log(self._frame, self.size.height * 3 // 10 - 1))
        self.query_one("#keys", Static).update(_keys())

    def _draw_head(self) -> None:
        frame = self._frame
        age = time.time() - frame.time
        line = Text.assemble(("slurm-gov top", "bold"), f"  {clock(frame.time, time.time())}")
        if age > max(5.0, 3 * self._interval) or self._trouble:
            line.append(f" ({span(age)} ago)", "yellow")
        line.append(f"  {frame.nodes} nodes, {frame.running_jobs} jobs running, {frame.waiting_jobs} waiting", "dim")
        if self._paused:
            line.append("  paused", "bold yellow")
        if self.size.width >= 100:
            line.append(f"  from {frame.source}", "dim")
        self.query_one("#head", Static).update(line)
        trouble = Text()
        for text, style in ((self._trouble, "bold red"), *((one, "yellow") for one in frame.warnings[:2])):
            if text:
                trouble.append_text(Text("\n" if trouble else "")).append_text(plain(text, style))
        said = self.query_one("#trouble", Static)
        said.display = bool(trouble)
        said.update(trouble)

    def _tabs(self) -> Text:
        line = Text()
        for view in VIEWS.values():
            rows = view.rows(self._frame)
            name = f" {view.name} {len(rows)} " if rows is not None else f" {view.name} - "
            line.append(name, "reverse bold" if view is self._view else "dim").append(" ")
        if self._words:
            line.append_text(plain(f" only: {self._words}", "yellow"))
        return line

    def _draw_table(self) -> None:
        table: DataTable[Text] = self.query_one(DataTable)
        view = self._view
        columns = [one for one in view.columns if self.size.width >= one.from_width]
        order, reverse = self._order.get(view.key, (-1, False))
        chosen = view.columns[order] if order >= 0 else None
        heads = [one.name + (" ▼" if reverse else " ▲") * (one is chosen) for one in columns]
        rows = [row for row in view.rows(self._frame) or () if self._words in view.words(row)]
        if chosen is not None:
            rows.sort(key=chosen.key, reverse=reverse)
        elif reverse:
            rows.reverse()
        self._shown = rows
        place, top = table.cursor_row, table.scroll_y
        if heads != self._columns:
            table.clear(columns=True)
            for head, column in zip(heads, columns, strict=True):
                table.add_column(Text(head, justify="right" if column.right else "left"))
            self._columns = heads
        else:
            table.clear()
        for row in rows:
            table.add_row(*(one.cell(row) for one in columns))
        if rows:
            table.move_cursor(row=min(place, len(rows) - 1), scroll=False)
            table.scroll_to(y=top, animate=False)

    def _say_why(self) -> None:
        if not self.query(DataTable):
            return  # the screen is going
        row = self.query_one(DataTable).cursor_row
        empty = self._view.empty if self._view.rows(self._frame) is not None else self._view.unknown
        text = self._view.why(self._shown[row]) if 0 <= row < len(self._shown) else "" if self._shown else empty
        self.query_one("#why", Static).update(plain(text, "dim"))


def _pools(frame: Frame, width: int) -> Text:
    """Two lines for every pool: figures, and all of its capacity as a bar."""
    lines = Text()
    for row in frame.pools:
        sick = max(0, row["total"] - row["used"] - row["free"])
        within = max(0, row["used"] - row["borrowed"] - row["without_team"])
        lines.append_text(Text("\n" if lines else "")).append_text(plain(row["pool"], "bold"))
        lines.append(f"  {row['used']} of {row['total']} GPUs used", "")
        figures = (
            (row["borrowed"], "borrowed", "yellow"),
            (row["without_team"], "no team", "magenta"),
            (row["free"], "free", "dim"),
            (sick, "not healthy", "red"),
        )
        for amount, name, style in figures:
            if amount:
                lines.append(f", {amount} {name}", style)
        parts = [(within, "█", "green"), (row["borrowed"], "▓", "yellow"), (row["without_team"], "▒", "magenta"),
                 (row["free"], "·", "dim"), (sick, "×", "red")]  # fmt: skip
        if row["total"]:
            lines.append("\n").append_text(bar(parts, max(10, min(width, 160) - 1)))
    return lines


def _log(frame: Frame, lines: int) -> Text:
    """The last decisions, for a screen with room."""
    view: View = VIEWS["d"]
    text = Text()
    for row in (view.rows(frame) or [])[: max(0, lines)]:
        if text:
            text.append("\n")
        for column in view.columns:
            text.append_text(column.cell(row)).append("  ")
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _keys() -> Text:
    keys: list[tuple[str, str]] = [(view.key, view.name) for view in VIEWS.values()]
    keys += [("s", "sort"), ("r", "turn"), ("/", "filter"), ("q", "quit"), ("space", "stop")]
    line = Text(no_wrap=True, overflow="crop")
    for key, name in keys:
        line.append(key, "bold").append(f" {name}  ", "dim")
    return line
