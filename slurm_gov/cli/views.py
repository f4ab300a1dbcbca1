"""The tables of `slurm-gov top`: what each shows of a frame, how it is sorted, and what it says of a row."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from slurm_gov.cli.common import plain
from slurm_gov.cli.frame import Frame, Row
from slurm_gov.cli.words import NO_TEAM, REASON_STYLE, clock, short_id, span
from slurm_gov.core.decision import Reason


@dataclass(frozen=True)
class Column:
    """One column: its name, what it shows, by what it is sorted, and from how many columns of screen it is there."""

    name: str
    show: Callable[[Row], object]
    sort: Callable[[Row], Any] | None = None
    right: bool = False
    style: Callable[[Row], str] = lambda row: ""
    from_width: int = 0

    def cell(self, row: Row) -> Text:
        """Nothing but text, whatever stands in it."""
        value = self.show(row)
        text = plain("" if value is None else value, self.style(row))
        text.justify = "right" if self.right else "left"
        text.no_wrap, text.overflow = True, "ellipsis"
        return text

    def key(self, row: Row) -> tuple[int, float, str]:
        """For sorting: numbers before texts, nothing last."""
        value = (self.sort or self.show)(row)
        if value is None or value == "":
            return 2, 0.0, ""
        return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value).casefold())


@dataclass(frozen=True)
class View:
    """One table. ``rows`` gives ``None`` where nobody knows them; ``unknown`` says why."""

    key: str
    name: str
    rows: Callable[[Frame], list[Row] | None]
    columns: tuple[Column, ...] = field(repr=False)
    why: Callable[[Row], str] = lambda row: ""
    empty: str = ""
    unknown: str = ""

    def words(self, row: Row) -> str:
        """What a filter looks in."""
        shown = (str(column.show(row)) for column in self.columns)
        return "\n".join((*shown, self.why(row))).casefold()


def _of(name: str) -> Callable[[Row], Any]:
    return lambda row: row[name]


def _short(text: object, most: int) -> str:
    """A name that leaves room for others."""
    said = str(text)
    return said if len(said) <= most else f"{said[: most - 1]}…"


def _team(row: Row) -> str:
    return _short(row["team"] or NO_TEAM, 18)


def _user(row: Row) -> str:
    return _short(row["user"], 12)


def _cap(row: Row) -> str:
    now = "none" if row["cap"] is None else str(row["cap"])
    return now if row["cap"] == row["planned_cap"] else f"{now} > {row['planned_cap']}"


def _teams(frame: Frame) -> list[Row]:
    others = [
        {"team": "", "pool": row["pool"], "quota": None, "used": row["used"], "borrowed": 0, "lent": 0, "cap": "",
         "planned_cap": "", "running_jobs": row["running_jobs"], "waiting_jobs": row["waiting_jobs"],
         "waiting_gpus": row["waiting_gpus"]}
        for row in frame.without_team if row["used"] or row["waiting_jobs"]
    ]  # fmt: skip
    return [row for row in frame.teams if row["quota"] or row["used"] or row["waiting_jobs"]] + others


def _use(row: Row) -> str:
    """Ten characters: quota used, borrowed."""
    quota: int = row["quota"] or 0
    most = max(quota, int(row["used"]), 1)
    within = round(10 * min(int(row["used"]), quota) / most)
    borrowed = round(10 * int(row["borrowed"]) / most)
    return ("█" * within + "▓" * borrowed).ljust(10, "·")[:10]


def _gpus(row: Row) -> str:
    return f"{row['gpus']} x {row['tasks']}" if row["tasks"] > 1 else str(row["gpus"])


def _start(row: Row) -> str:
    at = row["expected_start"]
    return clock(at, time.time()) if at and at > time.time() else ""


def _reason(row: Row) -> str:
    return str(row["reason"]).replace("_", " ")


def _reason_style(row: Row) -> str:
    return REASON_STYLE.get(Reason(row["reason"]), "yellow")


def _job_why(row: Row) -> str:
    slurm = f" (Slurm says {row['slurm_reason']})" if row["slurm_reason"] not in ("", "None") else ""
    return f"{row['why']}{slurm}"


def _left(row: Row) -> str:
    if row["phase"] == "next_cycle":
        return "is signalled next"
    if row["phase"] == "spared":
        return "stays"
    left = (row["deadline"] or 0) - time.time()
    return f"{span(left)}, then {row['then']}" if left > 0 else f"over: {row['then']}"


def _what(row: Row) -> str:
    """A decision in a few words; its sentence is the row's ``why``."""
    if row["kind"] == "cap":
        return f"{row['team']}: {row['before'] or 'none'} > {row['after']} {row['pool']}"
    if row["kind"] == "node":
        return f"{row['node']}: {row['before']} > {row['after']}" if row["after"] else str(row["node"])
    if row["job"]:
        whose = f" of {row['team']}" if row["team"] else ""
        for_whom = f" for {row['for_job']} of {row['for_team']}" if row["for_job"] else ""
        return f"job {row['job']}{whose}{for_whom}"
    return " ".join(one for one in (row["user"] or row["who"], row["team"]) if one)


VIEWS = {
    view.key: view
    for view in (
        View(
            "t",
            "teams",
            _teams,
            (
                Column("team", _team),
                Column("pool", _of("pool")),
                Column("use", _use, _of("used"), style=lambda row: "yellow" if row["borrowed"] else "green",
                       from_width=80),
                Column("used", _of("used"), right=True),
                Column("quota", _of("quota"), right=True),
                Column("borrowed", lambda row: row["borrowed"] or "", right=True, style=lambda row: "yellow"),
                Column("lent", lambda row: row["lent"] or "", right=True, style=lambda row: "cyan"),
                Column("cap", _cap, right=True,
                       style=lambda row: "yellow" if row["cap"] != row["planned_cap"] else ""),
                Column("running", lambda row: row["running_jobs"] or "", right=True, from_width=75),
                Column("waiting", lambda row: row["waiting_jobs"] or "", right=True),
                Column("GPUs asked for", lambda row: row["waiting_gpus"] or "", right=True, from_width=100),
            ),
            empty="the policy has no teams",
        ),
        View(
            "w",
            "waiting",
            lambda frame: frame.waiting,
            (
                Column("line", _of("place"), right=True),
                Column("job", lambda row: short_id(row["job"]), _of("id")),
                Column("name", lambda row: _short(row["name"], 24), from_width=120),
                Column("team", _team),
                Column("user", _user),
                Column("class", _of("priority_class"), from_width=100),
                Column("pool", _of("pool"), from_width=100),
                Column("GPUs", _gpus, lambda row: row["gpus"] * row["tasks"], right=True),
                Column("since", lambda row: span(time.time() - row["submitted"]), _of("submitted"), right=True),
                Column("start", _start, _of("expected_start")),
                Column("reason", _reason, style=_reason_style),
            ),
            _job_why,
            empty="no job waits",
        ),
        View(
            "l",
            "leaving",
            lambda frame: frame.preemptions,
            (
                Column("job", _of("job")),
                Column("team", _team),
                Column("user", _user),
                Column("GPUs", _of("gpus"), right=True),
                Column("for job", _of("beneficiary")),
                Column("of team", _of("beneficiary_team")),
                Column("grace period", _left, _of("deadline")),
            ),
            _of("reason"),
            empty="no job is being preempted",
        ),
        View(
            "d",
            "decisions",
            lambda frame: frame.decisions,
            (
                Column("time", lambda row: clock(row["at"], time.time()), _of("at")),
                Column("what", _of("kind")),
                Column("about", _what),
                Column("why", _of("why"), from_width=110),
            ),
            _of("why"),
            empty="nothing was decided yet",
            unknown="slurm-govd does not answer, and only it knows what it decided: see slurm-gov log",
        ),
    )
}  # fmt: skip
