"""Slurm's text to numbers and names: tables, TRES, GRES, node lists, task lists. No Slurm is needed here.

What cannot be read raises ``ValueError``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import hostlist

_UNITS = {"": 1.0, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2, "P": 1024.0**3}
_GRES = re.compile(
    r"(?:gres[:/])?(?P<name>[A-Za-z]\w*)(?::(?P<type>(?!\d+[KkMmGg]?(?:$|[:=]))[\w.-]+))?(?:[:=](?P<count>\d+)(?P<unit>[KkMmGg]?))?$"
)
MOST_WAYS = 64
"""So many names and signs at most in a job's constraints, and so many sets of features that they may be met by."""
UNSET = frozenset({"", "(null)", "N/A", "NONE", "None", "Unknown"})


def table(text: str, fields: Sequence[str], word: str) -> list[dict[str, str]]:
    """Rows of squeue's or sinfo's ``-O`` output with ``word`` after every field. Values may have line breaks."""
    cells = text.split(word)
    if (len(cells) - 1) % len(fields) or cells[-1].strip():
        raise ValueError(f"{len(cells)} fields, not rows of {len(fields)}")
    # The line break that ends a row comes before the first field of the next.
    return [
        dict(zip(fields, (cells[row].removeprefix("\n"), *cells[row + 1 : row + len(fields)]), strict=True))
        for row in range(0, len(cells) - 1, len(fields))
    ]


def tres(text: str) -> dict[str, float]:
    """``cpu=2,mem=8000M,node=2,gres/gpu:h100=16`` as a mapping; memory in MiB, the rest as counts.

    Names are in lower case: Slurm compares TRES without case, and prints them as slurmdbd first heard of them.
    """
    amounts: dict[str, float] = {}
    for part in text.split(","):
        name, _, amount = part.partition("=")
        if not amount or text in UNSET:
            continue
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)", amount, re.ASCII)
        if found is None:
            raise ValueError(f"no amount of a TRES: {part!r}")
        amounts[name.lower()] = float(found[1]) * (_UNITS[found[2]] if name.lower() == "mem" else 1.0)
    return amounts


def is_gpu(tres: str) -> bool:
    """Whether a TRES counts GPUs (``gres/gpu``, ``gres/gpu:h100``), and not their memory or use."""
    return tres == "gres/gpu" or tres.startswith("gres/gpu:")


def gpus_of(amounts: Mapping[str, float]) -> dict[str, int]:
    """The GPUs in a TRES mapping, by type where a type was named: never both typed and untyped."""
    gpus = {name: int(amount) for name, amount in amounts.items() if is_gpu(name) and amount}
    typed = {name: amount for name, amount in gpus.items() if ":" in name}
    return typed or gpus


def gres(text: str) -> dict[str, int]:
    """``gpu:h100:8(S:0-1),gpu:2`` as GRES to count: ``{"gres/gpu:h100": 8, "gres/gpu": 2}``.

    Types are as they stand in gres.conf: unlike a TRES, Slurm compares them with case.
    """
    counts: dict[str, int] = {}
    for part in re.split(r",(?![^()\[\]]*[)\]])", text):
        found = _GRES.fullmatch(re.sub(r"\(.*\)$", "", part.strip()))
        if found is None or text in UNSET:
            continue
        name = f"gres/{found['name']}" + (f":{found['type']}" if found["type"] else "")
        factor = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}[found["unit"].lower() if found["unit"] else ""]
        counts[name] = counts.get(name, 0) + int(found["count"] or 1) * factor
    return counts


def gpus(text: str) -> dict[str, int]:
    """The GPUs in ``gpu:h100:8(S:0-1),shard:4``, as TRES to count."""
    counts = {name.lower(): count for name, count in gres(text).items()}
    return {name: count for name, count in counts.items() if is_gpu(name)}


def gpu_count(text: str) -> int:
    """How many GPUs a ``tres_per_*`` string asks for, whatever their type; 0 if none."""
    return sum(gpus(text).values())


@lru_cache(maxsize=65536)
def nodes(text: str) -> tuple[str, ...]:
    """``n[1-3,7]`` as node names."""
    try:
        return () if text in UNSET else tuple(hostlist.expand_hostlist(text))
    except hostlist.BadHostlist as error:
        raise ValueError(f"no list of nodes: {text[:200]!r}: {error}") from None


def tasks(text: str) -> int:
    """How many array tasks ``3-5,9,20-40:2%4`` names; 1 for a job that is no array."""
    if text in UNSET:
        return 1
    total = 0
    for part in text.partition("%")[0].split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if found is None:
            continue
        first, last, step = int(found[1]), int(found[2] or found[1]), int(found[3] or 1)
        total += (last - first) // step + 1
    return max(1, total)


def task_limit(text: str) -> int | None:
    """The ``%4`` of a task list: how many may run at a time."""
    limit = text.partition("%")[2]
    return int(limit) if limit.isdecimal() and int(limit) else None


def time(text: str) -> float | None:
    """A time printed with ``SLURM_TIME_FORMAT=%s``, or ``None``."""
    return float(text) if text.isdecimal() and int(text) else None


def duration(text: str) -> float | None:
    """``1-12:30:00``, ``90:00`` as seconds; ``None`` for UNLIMITED and the like."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def features(text: str) -> tuple[frozenset[str], frozenset[frozenset[str]]] | None:
    """The features that a node needs all of (``a&b``), and sets of which it needs one beside (``(a|b)&c``), none if
    that is all; ``None`` for what says more, as ``[a|b]``, by which all nodes must be alike, or ``a*2``.

    Slurm reads it from left to right, without precedence, and what stands in parentheses first.
    """
    if text in UNSET:
        return frozenset(), frozenset()
    tokens = re.findall(r"[\w.-]+|\S", text)
    if len(tokens) > MOST_WAYS or not all(re.fullmatch(r"[\w.-]+|[&|()]", token) for token in tokens):
        return None
    ways = _ways(tokens)
    if ways is None or tokens:
        return None
    shared = frozenset.intersection(*ways)
    # Where one way needs no more than all do, the others say nothing.
    return shared, frozenset() if shared in ways else frozenset(way - shared for way in ways)


def _ways(tokens: list[str]) -> frozenset[frozenset[str]] | None:
    """The sets of features any of which will do, of the tokens up to a closing parenthesis; ``None`` if it cannot be
    read, or if they are too many to be looked at.
    """
    found: frozenset[frozenset[str]] | None = None
    operator = ""
    while tokens:
        token = tokens.pop(0)
        if token == "(":
            more = _ways(tokens)
            if more is None or not tokens or tokens.pop(0) != ")":
                return None
        elif token in "&|)":
            return None
        else:
            more = frozenset({frozenset({token})})
        if found is None:
            found = more
        else:
            found = found | more if operator == "|" else frozenset(one | other for one in found for other in more)
        if len(found) > MOST_WAYS:
            return None
        if not tokens or tokens[0] == ")":
            return found
        operator = tokens.pop(0)
        if operator not in "&|":
            return None
    return None


def version(text: str) -> tuple[int, int, int] | None:
    """``22.05.8`` or ``25.11.0-0rc1`` as numbers."""
    found = re.match(r"\s*(\d+)\.(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None
