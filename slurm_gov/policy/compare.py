"""What differs between two policies, setting by setting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from slurm_gov.core.policy import Policy
from slurm_gov.policy.show import as_data


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting, as ``teams.research.quota.h100``, with its resolved values; empty where it is not there.

    ``team`` is the team it belongs to, if one.
    """

    setting: str
    before: str
    after: str
    team: str = ""


def differences(before: Policy, after: Policy) -> list[Difference]:
    """Every setting that differs; a team or pool that is new or gone is one."""
    return list(_compare((), as_data(before), as_data(after)))


def _compare(path: tuple[str, ...], before: Any, after: Any) -> Iterator[Difference]:
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from _compare((*path, str(key)), before.get(key), after.get(key))
    else:
        team = path[1] if len(path) > 1 and path[0] == "teams" else ""
        yield Difference(".".join(path), _text(before), _text(after), team)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
