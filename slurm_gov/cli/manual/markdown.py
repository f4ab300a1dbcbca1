"""The reference pages of the documentation: docs/commands-reference.md and docs/policy-reference.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from slurm_gov.cli.manual.commands import Block, Command
from slurm_gov.cli.manual.programs import programs
from slurm_gov.cli.manual.settings import settings

_MADE = "<!-- Made by `make reference`; do not edit. -->\n"


def reference_pages() -> dict[str, str]:
    """Both pages, by their file's name."""
    return {"commands-reference.md": _commands(), "policy-reference.md": _policy()}


def _commands() -> str:
    parts = [
        "# Command reference\n",
        _MADE,
        "Every command with every option, as `--help` and the manual pages have them (`man slurm-gov-status`). What "
        "the commands are for, and what `--json` prints: [commands.md](commands.md).\n",
    ]
    for program in programs():
        for one in program.walk():
            parts += _command(one, 2 if one is program else 3)
    return "\n".join(parts)


def _command(command: Command, level: int) -> Iterator[str]:
    yield f"{'#' * level} {command.name}\n"
    yield _fence(f"{command.name} {command.usage}".strip())
    yield from _blocks(command.description)
    if command.options:
        yield "\n".join(
            f"- {_code(one.names)}{f': {_text(one.help)}' if one.help else ''}" for one in command.options
        )
        yield ""
    for title, text in command.sections.items():
        yield f"{title}:\n"
        yield _fence(text)


def _policy() -> str:
    parts = [
        "# Policy reference\n",
        _MADE,
        "Every setting of the policy file, from its [JSON Schema](../etc/policy.schema.json). What the settings do "
        "together, and how a file becomes the running policy: [policy.md](policy.md). What is in capitals in a path "
        "is a name of the site's own.\n",
        "| setting | default |",
        "|---|---|",
    ]
    found = settings()
    for one in found:
        parts.append(f"| [`{one.path}`](#{_anchor(one.path)}) | {one.default} |")
    parts.append("")
    for one in found:
        parts.append(f"{'##' if one.depth == 1 else '###'} {one.path}\n")
        parts.append(f"{_text(one.meaning)}\n")
        parts.append(f"{one.type[0].upper()}{one.type[1:]}. {_default(one.default)}\n")
        if one.example:
            parts.append(_fence(one.example, "yaml"))
    return "\n".join(parts)


def _default(default: str) -> str:
    return "Required." if default == "required" else f"Default: {default}."


def _anchor(path: str) -> str:
    """The anchor of a heading with only letters, digits, dots, underscores and brackets."""
    return "".join(c for c in path.lower() if c.isalnum() or c == "_")


def _blocks(blocks: Iterable[Block]) -> Iterator[str]:
    for block in blocks:
        yield _fence(block.text) if block.literal else f"{_text(block.text)}\n"


def _fence(text: str, language: str = "text") -> str:
    return f"```{language}\n{text}\n```\n"


def _code(text: str) -> str:
    return f"`{text}`"


def _text(text: str) -> str:
    """Text of ours in which nothing is markup but backquotes."""
    parts = text.split("`")
    for number in range(0, len(parts), 2):
        parts[number] = parts[number].replace("<", "&lt;").replace("*", "\\*").replace("[", "\\[")
    return "`".join(parts)
