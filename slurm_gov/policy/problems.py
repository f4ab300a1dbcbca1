"""What is wrong with a policy file: one ``Problem`` per mistake, all of them in one ``PolicyError``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

SHOWN = 50  # more problems than this are counted, not printed


def shown(text: object, limit: int = 60) -> str:
    """Text from a file made safe to print: in quotes, no control characters, not longer than ``limit``."""
    raw = str(text)
    cut = raw if len(raw) <= limit else raw[: limit - 1] + "…"
    return f'"{printable(cut)}"'


def printable(text: str) -> str:
    """Text with every control character, line ends too, made visible."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. ``line`` and ``column`` count from 1; 0 means the file as a whole.

    ``path`` is where it is in the file's structure, such as ``teams.research.borrow``; ``message`` says what
    is wrong, ``remedy`` what would be right.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        said = f"{self.path}: {self.message}" if self.path else self.message
        return printable(f"{place}: {said}; {self.remedy}" if self.remedy else f"{place}: {said}")


class PolicyError(Exception):
    """A policy file that was refused, with every mistake in it. ``str()`` is the report, a line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(self.report())

    def report(self) -> str:
        """One line per problem, in the order of the file."""
        lines = [str(problem) for problem in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"{self.problems[0].file}: and {len(self.problems) - SHOWN} more")
        return "\n".join(lines)


def did_you_mean(word: str, known: Iterable[str], what: str) -> str:
    """A remedy for an unknown name: the nearest known one, or the list of those that exist."""
    names = sorted(known)
    near = get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    if not names:
        return f"there is no {what} in this file"
    some = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"known {what}s: {some}"
