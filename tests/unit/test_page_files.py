"""What the browser gets, and what Slurm's node states come down to."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import node

import slurm_gov.web
from slurm_gov.web.nodes import Condition, condition

STATIC = Path(slurm_gov.web.__file__).parent / "static"
OURS = sorted(file for file in STATIC.iterdir() if not file.name.startswith("lit-html"))


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_nothing_is_loaded_from_elsewhere_and_nothing_is_markup(file: Path) -> None:
    text = file.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]+\.[a-z]", text)
    # No way from a text to markup but lit-html's own, which has none without these.
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|unsafeHTML|document\.write|eval\(|new Function", text)


@pytest.mark.parametrize("file", [one for one in OURS if one.suffix == ".js"], ids=lambda file: file.name)
def test_every_import_is_there(file: Path) -> None:
    for name in re.findall(r'from "\./([^"]+)"', file.read_text()):
        assert (STATIC / name).is_file(), name


@pytest.mark.parametrize(
    ("state", "used", "jobs", "expected"),
    [
        ("IDLE", 0, 0, Condition.FREE),
        ("IDLE+PLANNED", 0, 0, Condition.FREE),
        ("MIXED", 4, 1, Condition.PARTLY),
        ("MIXED", 8, 1, Condition.FULL),
        ("ALLOCATED", 4, 1, Condition.PARTLY),  # of what is counted here, GPUs, some are left
        ("MIXED+DRAIN", 8, 1, Condition.DRAINING),
        ("IDLE+DRAIN", 0, 0, Condition.DRAINED),
        ("DOWN*+DRAIN", 0, 0, Condition.DOWN),
        ("IDLE*", 0, 0, Condition.DOWN),
        ("IDLE+NOT_RESPONDING", 0, 0, Condition.DOWN),
        ("ALLOCATED+FAIL", 8, 1, Condition.DOWN),
        ("IDLE+CLOUD+POWERED_DOWN", 0, 0, Condition.OFF),
        ("IDLE+CLOUD+POWERING_UP", 0, 0, Condition.STARTING),
        ("DOWN+REBOOT_ISSUED", 0, 0, Condition.STARTING),
        ("IDLE+MAINT", 0, 0, Condition.RESERVED),
        ("RESERVED", 0, 0, Condition.RESERVED),
    ],
)
def test_what_a_state_comes_down_to(state: str, used: int, jobs: int, expected: Condition) -> None:
    assert condition(replace(node("n1"), state=state), 8, used, jobs) is expected
