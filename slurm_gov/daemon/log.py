"""The daemon's log: one line per event, as text for people or JSON for machines, on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def set_up(form: str, level: str) -> None:
    """Log as ``text`` or ``json``, from ``level`` (``debug``, ``info``, ``warning``, ``error``) up."""
    renderer: Any
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        # Values are printed with repr(), so that no name from a user can move the cursor or forge a line.
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=24)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=False),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


log: structlog.stdlib.BoundLogger = structlog.get_logger()
