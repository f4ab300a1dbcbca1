"""docs/troubleshooting.md explains messages: each that it quotes is one that the code says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text()
# Tables whose first column quotes Slurm, or shows what is seen, instead of what we say.
NOT_OURS = ("By Slurm's reason", "Nodes")


def said() -> str:
    """Every string of the programs, each on a line; what is filled in is left out."""
    texts = []
    for file in (ROOT / "slurm_gov").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    for file in (ROOT / "plugin_c").glob("*.c"):
        literals = re.findall(r'"((?:[^"\\\n]|\\.)*)"', file.read_text())
        texts += [*literals, re.sub(r"%[a-z]+", "", "".join(literals))]
    return "\n".join(texts)


def quoted() -> list[str]:
    """The first cell of each row of the tables of messages."""
    found = []
    for section in re.split(r"^##+ ", TEXT, flags=re.MULTILINE)[1:]:
        if section.split("\n")[0] not in NOT_OURS:
            found += re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)
    return found


# What the system says in the place of "…", and stands in the table to be recognised.
SYSTEM = {": Address already in use", "No such file or directory", "Permission denied", "slurm-gov is not answering"}


@pytest.fixture(scope="module")
def program() -> str:
    return said()


@pytest.mark.parametrize("message", quoted())
def test_a_message_that_is_explained_is_one_that_is_said(message: str, program: str) -> None:
    parts = [part.strip(" :;,") for part in message.split("…")]
    for part in parts:
        for one in re.split(r"[:;] ", part):
            if len(one) > 3 and not any(one in known for known in SYSTEM):
                assert one in program, f"nobody says {one!r}"


def test_there_are_enough_of_them() -> None:
    assert len(quoted()) > 45
