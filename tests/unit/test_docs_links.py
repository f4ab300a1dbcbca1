"""Links in all our Markdown lead somewhere: files that are there, and headings that they have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    file
    for file in ROOT.rglob("*.md")
    if not {".venv", "build", ".git"} & set(file.relative_to(ROOT).parts) and ".pytest_cache" not in file.parts
)


@cache
def parsed(file: Path) -> tuple[tuple[str, ...], frozenset[str]]:
    """The targets of a page's links and images, and the anchors of its headings."""
    tokens = MarkdownIt().enable("table").parse(file.read_text())
    targets, anchors = [], []
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            anchors.append(slug(tokens[number + 1].content))
        for child in token.children or ():
            for name in ("href", "src"):
                if child.attrGet(name):
                    targets.append(str(child.attrGet(name)))
    return tuple(targets), frozenset(anchors)


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading, and mkdocs too where no two blanks meet."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")


def broken(file: Path) -> Iterator[str]:
    for target in parsed(file)[0]:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (file.parent / path).resolve() if path else file
        if not there.exists():
            yield f"{target}: no such file"
        elif not there.is_relative_to(ROOT):
            yield f"{target}: outside of the project"
        elif anchor and there.suffix == ".md" and anchor not in parsed(there)[1]:
            yield f"{target}: no such heading; there are {sorted(parsed(there)[1])}"


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(file: Path) -> None:
    assert not list(broken(file))


def test_all_pages_are_looked_at() -> None:
    assert {ROOT / "README.md", ROOT / "docker/README.md", ROOT / "bench/README.md", ROOT / "docs/index.md"} <= set(
        PAGES
    )
    assert sum(len(parsed(file)[0]) for file in PAGES) > 150
