"""The small notations of the policy file: ``50%``, ``unlimited``, ``30s``, ``gpu:h100``, ``B:USR1``.

Each parser takes what YAML gave and returns the checked value, or raises with what is wrong and what
would be right.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic_core import PydanticCustomError

from slurm_gov.policy.problems import did_you_mean, shown
from slurm_gov.policy.text import kind

MAX_AMOUNT = 1_000_000_000
MAX_SECONDS = 365 * 86400
MAX_PREEMPTIONS = 20  # as many as a job's note remembers

# what sbatch and scancel take by name
SIGNALS = ("HUP", "INT", "QUIT", "ABRT", "KILL", "ALRM", "TERM", "USR1",
           "USR2", "URG", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "XCPU")  # fmt: skip

_PERCENT = re.compile(r"([0-9]{1,9})\s*%")
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*(s|m|h|d|)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_ACCOUNT = re.compile(r"[a-z0-9_][a-z0-9_.-]*")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_GRES = re.compile(r"[A-Za-z][A-Za-z0-9_]*:[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PARTITION = re.compile(r"[^\s,\x00-\x1f\x7f]+")


def wrong(message: str, remedy: str = "") -> PydanticCustomError:
    """The error that a parser raises: pydantic collects it with its place."""
    context = {"message": message, "remedy": remedy}
    return PydanticCustomError("policy", "{message}", context)


@dataclass(frozen=True, slots=True)
class Limit:
    """How much may be lent or borrowed: a number, a percentage of the quota, or without limit (both None)."""

    number: int | None = None
    percent: int | None = None

    def of(self, quota: int) -> int | None:
        """The limit as a number of accelerators for a quota, rounded down; None is without limit."""
        return self.number if self.percent is None else quota * self.percent // 100


ALL = Limit()
NONE = Limit(number=0)


def _limit(value: Any, everything: str, most: int, example: str) -> Limit:
    wanted = f"{everything}, none, a percentage of the quota such as 50%, or a number such as 16"
    if value == everything:
        return ALL
    if value == "none":
        return NONE
    if isinstance(value, str):
        percent = _PERCENT.fullmatch(value.strip())
        if percent:
            number = int(percent[1])
            if 1 <= number <= most:
                return Limit(percent=number)
            instead = "none" if number == 0 else everything
            raise wrong(f"{number}% is out of range", f"1% to {most}%, or {instead}")
        if value.strip().isdigit():
            raise wrong(f"is the text {shown(value)}", f"write the number without quotes, or {value.strip()}%")
        other = {"all": "unlimited", "unlimited": "all", "no": "none", "off": "none", "any": everything}
        if value.lower() in (everything, "none") or other.get(value.lower()) in (everything, "none"):
            meant = value.lower() if value.lower() in (everything, "none") else other[value.lower()]
            raise wrong(f"{shown(value)} is not known here", f"did you mean {meant}?")
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise wrong(f"{value} is negative", f"write {wanted}")
        if value > MAX_AMOUNT:
            raise wrong(f"{value} is more than any cluster has", f"write {everything}")
        return Limit(number=value)
    if isinstance(value, float):
        raise wrong(f"is the number {value}", f"write a whole number, or a percentage such as {example}")
    raise wrong(f"is {kind(value)}", f"write {wanted}")


def lend(value: Any) -> Limit:
    """``all``, ``none``, ``1%`` to ``100%``, or a number of accelerators."""
    return _limit(value, "all", 100, "50%")


def borrow(value: Any) -> Limit:
    """``unlimited``, ``none``, ``1%`` to ``500%`` of the quota, or a number of accelerators."""
    return _limit(value, "unlimited", 500, "50%")


def whole(what: str, most: int, example: int) -> Callable[[Any], int]:
    """A parser for whole numbers from 0 to ``most``."""

    def parse(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            if 0 <= value <= most:
                return value
            problem = "is negative" if value < 0 else "is too large"
            raise wrong(f"{value} {problem}", f"write {what} from 0 to {most}")
        if isinstance(value, str) and value.strip().isdigit():
            raise wrong(f"is the text {shown(value)}", "write the number without quotes")
        raise wrong(f"is {kind(value)}", f"write {what} from 0 to {most}, such as {example}")

    return parse


amount = whole("a number of accelerators", MAX_AMOUNT, 8)
weight = whole("a weight", 100, 50)


def price(value: Any) -> float:
    """What one accelerator costs for an hour: 0 or more, in the site's own currency."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(f"is {kind(value)}, not a price", "write a number without a currency, such as 2.5")
    if not 0 <= value <= MAX_AMOUNT:
        raise wrong(f"{value:g} is no price", "write a number from 0 up, such as 2.5")
    return float(value)


@dataclass(frozen=True, slots=True)
class Nodes:
    """Whole nodes: so many times the accelerators that a node of the pool has."""

    count: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory as it was written, such as 4T; in MiB."""

    mib: int


_MEMORY = re.compile(r"([0-9]{1,13})\s*([MGTP])", re.IGNORECASE)


def quota(value: Any) -> int | Nodes | Memory:
    """A number, ``{nodes: 4}``, or memory such as ``500G``."""
    if isinstance(value, dict):
        if set(value) != {"nodes"}:
            raise wrong("is a mapping", "write a number of accelerators, or {nodes: 4} for whole nodes")
        return Nodes(whole("a number of nodes", MAX_AMOUNT, 4)(value["nodes"]))
    if isinstance(value, str) and (parts := _MEMORY.fullmatch(value.strip())):
        return Memory(int(parts[1]) * 1024 ** "MGTP".index(parts[2].upper()))
    return amount(value)


def preemptions(value: Any) -> int:
    """How often a job may be preempted: 1 to 20."""
    if value == 0 and isinstance(value, int) and not isinstance(value, bool):
        raise wrong("0 would be never", "write 1 to 20, or protect classes: classes: {NAME: {protected: true}}")
    return whole("a number", MAX_PREEMPTIONS, 2)(value)


def node_gpus(value: Any) -> int:
    """How many accelerators a node has: 1 to 1024."""
    if value == 0 and isinstance(value, int) and not isinstance(value, bool):
        raise wrong("0 would be no pool", "write what sinfo -o %G shows, such as 8")
    return whole("a number of accelerators", 1024, 8)(value)


def flag(value: Any) -> bool:
    """true or false."""
    if isinstance(value, bool):
        return value
    raise wrong(f"is {kind(value)}", "write true or false")


def borrow_preempts(value: Any) -> int | str | None:
    """``none``, ``lower_priority``, or the highest weight, 0 to 100, of those who may be preempted."""
    if value in ("none", "lower_priority"):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 100:
        return value
    said = shown(value) if isinstance(value, str | int) else kind(value)
    raise wrong(f"is {said}", "write none, lower_priority, or a weight from 0 to 100")


def choice(*words: str) -> Callable[[Any], str]:
    """A parser for one word out of a few."""

    def parse(value: Any) -> str:
        if isinstance(value, str):
            if value in words:
                return value
            near = did_you_mean(value.replace("-", "_"), words, "value")
            if near.startswith("did"):
                raise wrong(f"{shown(value)} is not known here", near)
        said = shown(value) if isinstance(value, str) else kind(value)
        raise wrong(f"is {said}", f"write {', '.join(words[:-1])} or {words[-1]}")

    return parse


def duration(value: Any) -> float:
    """Seconds from ``30s``, ``5m``, ``2h``, ``1d``, or a plain number of seconds."""
    example = "write a duration such as 30s, 5m, 2h or 1d"
    seconds: float
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not value >= 0:
            raise wrong(f"{value} is negative", example)
        seconds = float(value)
    elif isinstance(value, str) and (parts := _DURATION.fullmatch(value.strip())):
        seconds = float(parts[1]) * _UNITS[parts[2]]
    else:
        raise wrong(f"is {kind(value)}", example)
    if seconds > MAX_SECONDS:
        raise wrong("is longer than a year", example)
    return seconds


def half_life(value: Any) -> float:
    """A duration that is not 0."""
    seconds = duration(value)
    if not seconds:
        raise wrong("0 would forget at once", "write a duration such as 7d, or leave it out")
    return seconds


def checkpoint_file(value: Any) -> str:
    """An absolute path with Slurm's %j, %A, %a and %u."""
    example = "write an absolute path such as /scratch/%u/%j/checkpoint"
    if not isinstance(value, str):
        raise wrong(f"is {kind(value)}", example)
    if not value.startswith("/"):
        raise wrong(f"{shown(value)} is no absolute path", example)
    if not value.isprintable():
        raise wrong("has characters that cannot be printed", example)
    for found in re.findall(r"%(.?)", value.replace("%%", "")):
        if found not in tuple("jAau"):
            raise wrong(f"%{found} is not known here", "known: %j (job id), %A (array), %a (task), %u (user), %%")
    if not re.search(r"%[jA]", value.replace("%%", "")):
        raise wrong(f"{shown(value)} is the same file for all jobs of a user", "name the job in it: %j")
    return value


def delay(value: Any) -> float:
    """A duration, or ``none`` for 0."""
    return 0.0 if value == "none" else duration(value)


def patience(value: Any) -> float | None:
    """A duration, or ``none`` for no end."""
    return None if value == "none" else duration(value)


def signal_name(value: Any) -> str:
    """A signal as ``sbatch --signal`` writes it, in one form: ``USR1`` or ``B:USR1``."""
    example = "write a name such as USR1, or B:USR1 for the batch script only"
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise wrong(f"is {kind(value)}", example)
    scope, colon, rest = value.strip().rpartition(":")
    if colon and scope.upper() != "B":
        raise wrong(f"{shown(value)}: only B: may stand before the signal", example)
    if "@" in rest:
        raise wrong(f"{shown(value)}: no @time here", "the time is preemption.grace; write the signal alone")
    name = rest.strip().upper().removeprefix("SIG")
    if re.fullmatch(r"[0-9]{1,3}", name):
        try:
            name = signal.Signals(int(name)).name.removeprefix("SIG")
        except ValueError:
            raise wrong(f"there is no signal {int(name)}", example) from None
    if name not in SIGNALS:
        near = get_close_matches(name, SIGNALS, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"known signals: {' '.join(SIGNALS)}"
        raise wrong(f"Slurm knows no signal {shown(rest)}", remedy)
    return f"B:{name}" if colon else name


def gres(value: Any) -> str:
    """A typed GRES in Slurm's notation, such as ``gpu:h100``."""
    example = 'write name:type as in gres.conf, such as "gpu:h100"'
    if not isinstance(value, str):
        raise wrong(f"is {kind(value)}", example)
    if value.startswith("gres/"):
        raise wrong(f"{shown(value)} is a TRES", f"leave out gres/: {shown(value[5:])}")
    name, _, rest = value.partition(":")
    if rest.isdigit():
        message = f"{shown(value)} is a count of {name}, not a type, and a pool is counted and capped by its type"
        raise wrong(message, f'write "{name}:TYPE" with the Type= of gres.conf, such as "{name}:h100"')
    if _GRES.fullmatch(value):
        return value
    if value and ":" not in value:
        raise wrong(
            f"{shown(value)} has no type, and a pool is counted and capped by its type",
            f'write "{value}:TYPE" with the Type= of gres.conf, such as "{value}:h100"'
            if value.isalnum()
            else example,
        )
    typed, _, count = rest.rpartition(":")
    if count.isdigit() and _GRES.fullmatch(f"{name}:{typed}"):
        raise wrong(f"{shown(value)} has a count", f'leave it out: "{name}:{typed}"')
    raise wrong(f"{shown(value)} is no typed GRES", example)


def partitions(value: Any) -> tuple[str, ...]:
    """A partition's name or a list of them."""
    example = "write a partition's name, or a list such as [gpu, gpu-long]"
    names = value if isinstance(value, list) else [value]
    if not names:
        raise wrong("is an empty list", example)
    for name in names:
        if isinstance(name, int | float) and not isinstance(name, bool):
            raise wrong(f"is {kind(name)}", f'put the name in quotes: "{name}"')
        if not isinstance(name, str):
            raise wrong(f"is {kind(name)}" if name is value else f"has {kind(name)} in it", example)
        if not _PARTITION.fullmatch(name):
            several = [part for part in re.split(r"[\s,]+", name) if part]
            listed = f"write a list: [{', '.join(several)}]" if len(several) > 1 else example
            raise wrong(f"{shown(name)} is no partition name", listed)
    double = {name for name in names if names.count(name) > 1}
    if double:
        raise wrong(f"{shown(min(double))} is in the list twice", "keep one of them")
    return tuple(names)


def name_problem(name: str, what: str, slurm_calls_it: str) -> tuple[str, str] | None:
    """What is wrong with a name that Slurm must take as an account's or a QOS's; None if nothing."""
    if _ACCOUNT.fullmatch(name) and len(name) <= 100:
        return None
    if len(name) > 100:
        return f"{what} name has {len(name)} characters", "at most 100"
    lower = name.lower()
    if _ACCOUNT.fullmatch(lower):
        return (
            f"a {what} is a Slurm {slurm_calls_it}, and Slurm writes {slurm_calls_it} names in lower case",
            f"write {lower}",
        )
    made = re.sub(r"[^a-z0-9_.-]+", "-", lower).strip("-.")
    allowed = "use lower-case letters, digits, _ - . (not - or . first)"
    return f"is no name for a {what}", f"{allowed}, such as {made}" if made else allowed


def plain_name_problem(name: str, what: str) -> tuple[str, str] | None:
    """What is wrong with a name that only this file uses; None if nothing."""
    if _PLAIN_NAME.fullmatch(name):
        return None
    return f"is no name for a {what}", "use letters, digits, _ - . (at most 100)"
