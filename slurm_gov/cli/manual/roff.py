"""Writing manual pages: the few macros of man(7) that they need, and every text escaped."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

_ESCAPES = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}


def escape(text: str) -> str:
    """Text that troff prints as it is, wherever it stands in a line."""
    found = "".join(_ESCAPES.get(c, c if c.isascii() else f"\\[u{ord(c):04X}]") for c in text)
    return f"\\&{found}" if found.startswith(".") else found


def inline(text: str) -> str:
    """A line in which what stands in backquotes is bold."""
    parts = re.split(r"`([^`]+)`", text)
    return "".join(f"\\fB{escape(part)}\\fR" if number % 2 else escape(part) for number, part in enumerate(parts))


def argument(text: str) -> str:
    """One argument of a macro."""
    return '"' + escape(text).replace('"', r"\(dq") + '"'


def _filled(text: str) -> list[str]:
    """Escaped text in short lines, none of which begins as a macro does."""
    lines = textwrap.wrap(text, 78, break_long_words=False, break_on_hyphens=False)
    return [f"\\&{line}" if line.startswith(".") else line for line in lines]


class Page:
    """A manual page that grows line by line; ``text()`` is all of it."""

    def __init__(self, name: str, section: int, date: str, source: str, summary: str) -> None:
        self._lines = [
            '.\\" Made by python -m slurm_gov.cli.manual; do not edit.',
            f".TH {argument(name.upper())} {section} {date} {argument(source)} {argument('slurm-gov')}",
            ".SH NAME",
            *_filled(rf"{escape(name)} \- {escape(summary)}"),
        ]

    def section(self, title: str) -> None:
        self._lines.append(f".SH {argument(title.upper())}")

    def subsection(self, title: str) -> None:
        self._lines.append(f".SS {argument(title)}")

    def paragraph(self, text: str) -> None:
        if not self._lines[-1].startswith((".SH", ".SS")):
            self._lines.append(".PP")
        self._lines += _filled(inline(text))

    def synopsis(self, command: str, rest: str) -> None:
        """One command with its arguments."""
        if not self._lines[-1].startswith((".SH", ".SS")):
            self._lines.append(".br")
        self._lines.append(f"\\fB{escape(command)}\\fR {escape(rest)}".rstrip())

    def literal(self, text: str) -> None:
        """Lines as they are."""
        before = [] if self._lines[-1].startswith((".SH", ".SS")) else [".PP"]
        lines = [escape(line) or r"\&" for line in text.split("\n")]
        self._lines += [*before, ".nf", ".RS 4", *lines, ".RE", ".fi"]

    def items(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Terms in bold, each with what it means below it."""
        for term, meaning in pairs:
            self._lines += [".TP", f".B {argument(term)}", *_filled(inline(meaning) or r"\&")]

    def references(self, pages: Iterable[str]) -> None:
        """Other pages, as ``slurm-gov(1)``."""
        for one in pages:
            name, _, section = one.partition("(")
            self._lines.append(f".BR {argument(name)} ({section[:-1]}),")
        self._lines[-1] = self._lines[-1].removesuffix(",")

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"
