"""The agent's metrics as a file for node-exporter's textfile folder: Prometheus then has them without asking the
agent, also from a node that the broker does not hear.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from slurm_gov.health.board import Entry
from slurm_gov.health.checks.base import FAIL, OK, UNKNOWN, WARN

STATES = {OK: 0, WARN: 1, UNKNOWN: 2, FAIL: 3}
EVERY = 15
"""Seconds between two writings: as often as node-exporter is usually scraped."""


def exposition(entries: Iterable[tuple[str, Entry]], version: str, now: float) -> str:
    """What the board knows, in Prometheus' text format. Labels are names of checks only, never a message of one."""
    worst: dict[str, int] = {}
    troubles: dict[str, int] = {}
    looked: dict[str, float] = {}
    injected = 0
    for check, entry in entries:
        state = STATES[entry.result.state]
        worst[check] = max(worst.get(check, 0), state)
        troubles[check] = troubles.get(check, 0) + (state > 0)
        looked[check] = max(looked.get(check, 0.0), entry.checked)
        injected += entry.injected
    lines = _family("check_state", "Worst result of a check: 0 ok, 1 warn, 2 unknown, 3 fail.", worst)
    lines += _family("check_troubles", "Results of a check that are not ok.", troubles)
    lines += _family("check_timestamp_seconds", "When a check last spoke, seconds since 1970.", looked)
    for name, help, value in (
        ("injected", "Results that were injected for a drill.", f" {injected}"),
        ("timestamp_seconds", "When this was written, seconds since 1970.", f" {now:.3f}"),
        ("build_info", "The version of the agent.", f'{{version="{version}"}} 1'),
    ):
        lines += [*_head(name, help), f"slurm_gov_agent_{name}{value}"]
    return "\n".join(lines) + "\n"


def _family(name: str, help: str, values: dict[str, int] | dict[str, float]) -> list[str]:
    if not values:
        return []
    samples = (f'slurm_gov_agent_{name}{{check="{check}"}} {value}' for check, value in sorted(values.items()))
    return [*_head(name, help), *samples]


def _head(name: str, help: str) -> list[str]:
    return [f"# HELP slurm_gov_agent_{name} {help}", f"# TYPE slurm_gov_agent_{name} gauge"]


def write(path: Path, text: str) -> None:
    """Replace the file in one step, so that no half of one is scraped. Raises ``OSError``."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.chmod(0o644)
    new.replace(path)
