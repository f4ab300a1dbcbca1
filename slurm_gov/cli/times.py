"""Times on the command line: how people write them, and what moment they mean."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import click

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)(?:\s+ago)?")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
HOW = "a date or time (2026-11-23, '2026-11-23 14:00', 14:00), now, today, yesterday, or how long ago (90m, 24h, 7d)"


def moment(text: str, now: float) -> float:
    """The moment that a text means, in seconds since the epoch; dates and times are local.

    Raises ``ValueError`` for what is none.
    """
    text = text.strip().lower()
    here = datetime.fromtimestamp(now)
    midnight = here.replace(hour=0, minute=0, second=0, microsecond=0)
    if text == "now":
        return now
    if text in ("today", "yesterday", "tomorrow"):
        return (midnight + timedelta(days=("yesterday", "today", "tomorrow").index(text) - 1)).timestamp()
    if ago := _AGO.fullmatch(text):
        return now - float(ago[1]) * _UNITS[ago[2]]
    if re.fullmatch(r"\d\d?:\d\d(:\d\d)?", text):
        hour, minute, second = (int(part) for part in (*text.split(":"), "0")[:3])
        return midnight.replace(hour=hour, minute=minute, second=second).timestamp()
    if re.fullmatch(r"\d{4}-\d\d", text):
        text += "-01"
    return datetime.fromisoformat(text.upper()).timestamp()


class Moment(click.ParamType):  # type: ignore[type-arg]
    """A click type: seconds since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        import time

        if isinstance(value, float):
            return value
        try:
            return moment(value, time.time())
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is no time: give {HOW}", param, ctx)
