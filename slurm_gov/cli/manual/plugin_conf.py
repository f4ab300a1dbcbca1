"""The options of job_submit_gov.conf, from the sample: what stands above a line explains it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from slurm_gov.cli.manual.commands import Block


@dataclass(frozen=True, slots=True)
class ConfOption:
    """Options that are explained together, as ``NAME=DEFAULT``."""

    lines: tuple[str, ...]
    meaning: tuple[Block, ...]


def read_sample(text: str) -> tuple[str, list[ConfOption]]:
    """What the head of the file says, and its options."""
    head, *paragraphs = re.split(r"\n\n", text.strip())
    options = []
    for paragraph in paragraphs:
        lines = paragraph.split("\n")
        given = tuple(line[1:] for line in lines if re.match(r"#[a-z_]+=", line))
        said = [line.removeprefix("#") for line in lines if line[1:] not in given]
        options.append(ConfOption(given, tuple(_blocks(said))))
    return " ".join(line.removeprefix("#").strip() for line in head.split("\n") if line != "#"), options


def _blocks(lines: list[str]) -> list[Block]:
    """Lines that are indented further stand as they are."""
    blocks: list[Block] = []
    for line in lines:
        literal = line.startswith("   ")
        if blocks and blocks[-1].literal == literal:
            joined = f"{blocks[-1].text}\n{line}" if literal else f"{blocks[-1].text} {line.strip()}"
            blocks[-1] = Block(joined, literal)
        else:
            blocks.append(Block(line if literal else line.strip(), literal))
    return blocks
