"""What a click command says of itself, in parts: description, options, examples, exit codes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import click

# Blocks of a help text that are sections of their own, by how their first line begins.
_SECTIONS = {"Example": "Examples", "Environment": "Environment", "Signals": "Signals", "Exit codes": "Exit codes"}


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, whose lines may be filled, or lines that are shown as they are."""

    text: str
    literal: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """``names`` as click writes them (``-t, --team TEAM``); ``help`` with default, range and environment."""

    names: str
    help: str


@dataclass(frozen=True, slots=True)
class Command:
    """One command. ``sections`` has the blocks of ``_SECTIONS`` that it has, by title, their lines dedented."""

    name: str
    summary: str
    usage: str
    description: tuple[Block, ...]
    options: tuple[Option, ...] = ()
    sections: dict[str, str] = field(default_factory=dict)
    commands: tuple[Command, ...] = ()

    def walk(self) -> Iterator[Command]:
        """This command, then those below it."""
        yield self
        for one in self.commands:
            yield from one.walk()


def describe(command: click.Command, name: str, parent: click.Context | None = None) -> Command:
    """All about a command and those below it. ``name`` is the last word of its name."""
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    description, sections = _read(command.help or "")
    below = []
    if isinstance(command, click.Group):
        for one in command.list_commands(context):
            found = command.get_command(context, one)
            if found is not None and not found.hidden:
                below.append(describe(found, one, context))
    return Command(
        name=context.command_path,
        summary=_summary(command.get_short_help_str(300)),
        usage=" ".join(command.collect_usage_pieces(context)),
        description=description,
        options=tuple(_options(command, context)),
        sections=sections,
        commands=tuple(below),
    )


def _read(text: str) -> tuple[tuple[Block, ...], dict[str, str]]:
    blocks: list[Block] = []
    sections: dict[str, str] = {}
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text).partition("\f")[0].strip()):
        literal = paragraph.startswith("\b\n")
        if not literal:
            blocks.append(Block(" ".join(paragraph.split())))
            continue
        lines = paragraph.split("\n")[1:]
        title = next((title for start, title in _SECTIONS.items() if lines[0].startswith(start)), "")
        if title and lines[0].endswith(":"):
            sections[title] = inspect.cleandoc("\n" + "\n".join(lines[1:]))
        else:
            blocks.append(Block("\n".join(lines), literal=True))
    return tuple(blocks), sections


def _options(command: click.Command, context: click.Context) -> Iterator[Option]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is None or "--help" in parameter.opts:
            continue
        names, said = record
        variable = _variable(parameter, context)
        text, bracket, extra = said.rpartition("  [") if said.endswith("]") else (said, "", "")
        if not bracket and said.startswith("["):
            text, bracket, extra = "", "  [", said[1:]
        if variable and "env var:" not in said:
            extra = f"env var: {variable}; {extra}" if bracket else f"env var: {variable}]"
            bracket = bracket or "  ["
        yield Option(names, " ".join(f"{text}{bracket}{extra}".split()))


def _variable(parameter: click.Parameter, context: click.Context) -> str:
    """The environment variable that sets an option, whether or not --help shows it. Flags are not worth one."""
    if isinstance(parameter.envvar, str):
        return parameter.envvar
    if not isinstance(parameter, click.Option) or parameter.is_flag or context.parent is not None:
        return ""
    prefix = context.auto_envvar_prefix
    return f"{prefix}_{parameter.name.upper()}" if prefix and parameter.name else ""


def _summary(text: str) -> str:
    return text.rstrip(".")


def pairs(text: str) -> list[tuple[str, str]]:
    """Lines such as ``0  done`` as (term, meaning); what goes on in the next line is joined."""
    found: list[tuple[str, str]] = []
    for line in text.split("\n"):
        if start := re.match(r"(\S+(?:, \S+)*|otherwise)\s+(.*)", line):
            found.append((start[1], start[2]))
        elif found:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
    return found
