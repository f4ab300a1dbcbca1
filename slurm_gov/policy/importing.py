"""What importing from other systems has in common: reading their objects field by field, what is said of what has no
counterpart, and the policy file that comes of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from difflib import get_close_matches
from fractions import Fraction
from typing import Any

from slurm_gov.core.beside import KINDS
from slurm_gov.policy import values
from slurm_gov.policy.load import Checked, check_text
from slurm_gov.policy.problems import PolicyError, Problem, shown
from slurm_gov.policy.text import Document, Path, dotted, kind

PARTITION = "gpu"
"""The partition of a pool where nobody says which."""
_PLAIN = re.compile(r"[a-z_][a-z0-9_./-]*")
_NOT_TEXT = {"null", "true", "false"}
_ACCOUNT_MAX = 60  # far below Slurm's own limit, and still readable in its tables
_TYPE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,59}")


@dataclass(frozen=True, slots=True)
class Source:
    """One file's name and text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Imported:
    """A policy file's text, accepted by our own loader; ``notes`` is what has no counterpart in it, a line each."""

    text: str
    checked: Checked
    notes: tuple[str, ...]


class Notes:
    """What has no counterpart, or was decided here; the same of several objects is said once."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], list[str]] = {}

    def add(self, what: str, instead: str, whose: str = "") -> None:
        """``what`` has no counterpart, ``instead`` is what happens here; ``whose`` object it was found in."""
        owners = self._said.setdefault((what, instead), [])
        if whose and whose not in owners:
            owners.append(whose)

    def lines(self) -> tuple[str, ...]:
        return tuple(
            f"{what}{_listed(owners)}: {instead}" if instead else f"{what}{_listed(owners)}"
            for (what, instead), owners in self._said.items()
        )


def _listed(owners: list[str]) -> str:
    if not owners:
        return ""
    more = f" and {len(owners) - 4} more" if len(owners) > 4 else ""
    return f" ({', '.join(owners[:4])}{more})"


@dataclass(slots=True)
class Object:
    """A mapping in an input file, read field by field. What is wrong with a field goes to ``problems`` with its
    place, and the field is as if it were not there.
    """

    file: str
    document: Document
    path: Path
    data: Mapping[str, Any]
    problems: list[Problem]

    def wrong(self, path: Iterable[str], message: str, remedy: str = "", key: bool = False) -> None:
        """Something is wrong with the field at ``path`` below this object."""
        full = (*self.path, *path)
        place = self.document.place(full, key=key)
        self.problems.append(Problem(self.file, place.line, place.column, dotted(full), message, remedy))

    @property
    def line(self) -> str:
        """Where it begins: file and line."""
        return f"{self.file}:{self.document.place(self.path).line}"

    def has(self, name: str) -> bool:
        """Whether the field is there and not empty."""
        return self.data.get(name) is not None

    def known(self, *names: str) -> list[str]:
        """Fields that are none of these: near misses are mistakes, the others are returned."""
        others = []
        for name in self.data:
            if name in names:
                continue
            near = _near(name, names)
            if near:
                self.wrong([name], "there is no such field", f'did you mean "{near}"?', key=True)
            else:
                others.append(name)
        return others

    def text(self, name: str, required: bool = False) -> str | None:
        """A field that is text."""
        value = self.data.get(name)
        if isinstance(value, str) and value:
            return value
        if value is not None:
            self.wrong(
                [name], f"is {kind(value)} where text is wanted" if value != "" else "is empty", "write a name"
            )
        elif required:
            self.wrong([name], "is missing", f"every {self._kind()} has it")
        return None

    def _kind(self) -> str:
        return str(self.data.get("kind") or "one")

    def choice(self, name: str, *words: str) -> str | None:
        """A field that is one of a few words."""
        value = self.data.get(name)
        if value is None or value in words:
            return value
        said = shown(value) if isinstance(value, str) else kind(value)
        near = _near(str(value), words)
        one_of = f"{', '.join(words[:-1])} or {words[-1]}"
        self.wrong([name], f"is {said}", f'did you mean "{near}"?' if near else f"write {one_of}")
        return None

    def whole(self, name: str, least: int, most: int) -> int | None:
        """A field that is a whole number."""
        value = self.data.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong([name], f"is {kind(value)}", f"write a whole number from {least} to {most}")
        elif not least <= value <= most:
            self.wrong([name], f"{value} is out of range", f"write a whole number from {least} to {most}")
        else:
            return value
        return None

    def number(self, name: str) -> float | None:
        """A field that is a number from 0."""
        value = self.data.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            self.wrong([name], f"is {kind(value)}", "write a number from 0")
            return None
        return value

    def section(self, name: str) -> Object | None:
        """A field that is a mapping."""
        value = self.data.get(name)
        if isinstance(value, dict):
            return Object(self.file, self.document, (*self.path, name), value, self.problems)
        if value is not None:
            self.wrong([name], f"is {kind(value)} where a mapping is wanted")
        return None

    def list(self, name: str) -> Iterator[Object]:
        """A field that is a list of mappings."""
        value = self.data.get(name)
        if value is not None and not isinstance(value, list):
            self.wrong([name], f"is {kind(value)} where a list is wanted", f"write {name}: [...]")
            return
        for index, item in enumerate(value or ()):
            if isinstance(item, dict):
                yield Object(self.file, self.document, (*self.path, name, str(index)), item, self.problems)
            else:
                self.wrong([name, str(index)], f"is {kind(item)} where a mapping is wanted")


def _near(word: str, known: Iterable[str]) -> str:
    names = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), list(names), n=1, cutoff=0.75)
    return names[near[0]] if near else ""


# -- which GPUs of ours are which of theirs -----------------------------------------------------------


def is_type(text: str) -> bool:
    """Whether a GRES and a pool may have this as their type and name."""
    return bool(_TYPE.fullmatch(text)) and not text.isdigit()


@dataclass(frozen=True, slots=True)
class PoolOption:
    """Which Slurm GPUs and partitions stand for one of theirs, as somebody said with ``--pool``."""

    gres: str
    partitions: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> PoolOption:
        """``h100``, ``h100:PARTITION[,PARTITION]`` or ``gpu:h100:PARTITION``; ValueError says what is wrong."""
        parts = text.split(":")
        name, kind_of_gpu, partitions = {
            1: ("gpu", parts[0], PARTITION),
            2: ("gpu", *parts),
            3: tuple(parts),
        }.get(len(parts), ("", "", ""))
        gres = f"{name}:{kind_of_gpu}"
        if kind_of_gpu.isdigit():
            raise ValueError(f"{shown(text)}: {kind_of_gpu} is a number, not a GPU type; such as h100:gpu")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or not is_type(kind_of_gpu):
            raise ValueError(f"{shown(text)} is no GPU type with its partition; such as h100:gpu")
        names = tuple(partitions.split(","))
        if not all(re.fullmatch(r"[^\s,]+", one) for one in names):
            raise ValueError(f"{shown(text)}: a partition's name is missing; such as h100:gpu or h100:gpu,long")
        return cls(gres, names)


class Pools:
    """The pools that come of their instance types or flavors: one for each GPU type, as Slurm counts them."""

    def __init__(self, options: Mapping[str, PoolOption]) -> None:
        self.options = options
        self.asked: dict[str, str] = {}  # theirs to the pool it became
        self.made: dict[str, tuple[str, list[str]]] = {}  # pool to GRES and partitions
        self.guessed: list[str] = []  # theirs, of which nobody said which partition

    def of(self, theirs: str, gpu_type: str | None) -> str | None:
        """The pool for one of theirs; ``gpu_type`` is what is known of it, ``None`` if nothing is."""
        if theirs in self.asked:
            return self.asked[theirs]
        option = self.options.get(theirs)
        if option is None:
            if gpu_type is None:
                return None
            option = PoolOption(f"gpu:{gpu_type}", (PARTITION,))
            self.guessed.append(theirs)
        name = option.gres.partition(":")[2]
        if name in self.made and self.made[name][0].lower() != option.gres.lower():
            name = option.gres.replace(":", "-")
        partitions = self.made.setdefault(name, (option.gres, []))[1]
        partitions += [one for one in option.partitions if one not in partitions]
        self.asked[theirs] = name
        return name

    def notes(self, notes: Notes, what: str) -> None:
        """What was assumed, and which of theirs became one pool."""
        if self.guessed:
            first = self.guessed[0]
            kind_of_gpu = self.made[self.asked[first]][0].partition(":")[2]
            notes.add(
                f"the partition of {', '.join(sorted(self.guessed))} is not in the files",
                f'taken as "{PARTITION}", with the GPU type as Slurm\'s type; otherwise '
                f"--pool {first}={kind_of_gpu}:PARTITION (sinfo -o '%P %G' shows both)",
            )
        for name, (gres, _) in self.made.items():
            several = sorted(theirs for theirs, pool in self.asked.items() if pool == name)
            if len(several) > 1:
                notes.add(
                    f"{what} {', '.join(several)} have the same GPU type",
                    f"one pool, {name} ({gres}), with quotas and limits added up: Slurm counts and caps by type; "
                    f"to keep them apart give their nodes other types in gres.conf, and --pool for each",
                )

    def unused(self) -> list[str]:
        """Options that speak of nothing in the files."""
        return sorted(self.options.keys() - self.asked.keys())


# -- names --------------------------------------------------------------------------------------------


class Names:
    """Their names as Slurm's, for accounts or QOS: changed where Slurm would not take them, each of its own."""

    def __init__(self, notes: Notes, what: str, slurm_calls_it: str) -> None:
        self._notes, self._what, self._calls = notes, what, slurm_calls_it
        self._taken: set[str] = set()
        self._known: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The name here."""
        if name in self._known:
            return self._known[name]
        made = re.sub(r"[^a-z0-9_.-]+", "-", name.lower()).strip("-.")[:_ACCOUNT_MAX].strip("-.")
        made = made or "unnamed"
        if made == "root" and self._calls == "Slurm account":
            made = "root-team"
        number, one = 2, made
        while one in self._taken:
            one, number = f"{made}-{number}", number + 1
        if one != name:
            self._notes.add(f"{self._what} {shown(name)} cannot be the name of a {self._calls}", f"it is {one} here")
        self._taken.add(one)
        self._known[name] = one
        return one


# -- the policy file ----------------------------------------------------------------------------------

Limit = str | int


@dataclass(slots=True)
class Holder:
    """A team or cohort of the policy to be written. ``quota``, ``lend`` and ``borrow`` are per pool, and per
    ``POOL/cpu`` and ``POOL/mem`` (MiB).
    """

    comment: str = ""
    quota: dict[str, int] = field(default_factory=dict)
    lend: dict[str, Limit] = field(default_factory=dict)
    borrow: dict[str, Limit] = field(default_factory=dict)
    weight: int | None = None
    cohort: str | None = None  # of a cohort: its parent
    rules: dict[str, Limit] = field(default_factory=dict)


@dataclass(slots=True)
class Draft:
    """A policy to be written, in the words of the file."""

    origin: list[str] = field(default_factory=list)
    pools: dict[str, tuple[str, list[str], str]] = field(default_factory=dict)  # GRES, partitions, comment
    classes: dict[str, tuple[int, str]] = field(default_factory=dict)  # weight, comment
    teams: dict[str, Holder] = field(default_factory=dict)
    cohorts: dict[str, Holder] = field(default_factory=dict)
    sharing: list[tuple[str, str, str]] = field(default_factory=list)  # setting, value, comment
    victims: tuple[str, str] | None = None  # value, comment

    @property
    def beside(self) -> set[str]:
        """The quotas of CPUs and memory that anybody has."""
        holders = [*self.teams.values(), *self.cohorts.values()]
        return {resource for holder in holders for resource in holder.quota if "/" in resource}

    def text(self) -> str:
        """The policy file."""
        lines = [f"# {line}".rstrip() for line in self.origin]
        lines += [
            "",
            "# Nodes with one kind of accelerator; partition and type as sinfo -o '%P %G' shows them.",
            "pools:",
        ]
        for name, (gres, partitions, comment) in self.pools.items():
            listed = name_of(partitions[0]) if len(partitions) == 1 else f"[{', '.join(map(name_of, partitions))}]"
            lines.append(_line(f"  {name_of(name)}: {{partition: {listed}, gres: {json.dumps(gres)}}}", comment))
        if self.classes:
            lines += ["", "# Each becomes a Slurm QOS: a job names one with --qos.", "priority_classes:"]
            lines += [_line(f"  {name_of(name)}: {w}", comment) for name, (w, comment) in self.classes.items()]
        lines += ["", "# Slurm accounts, with all accounts below them."]
        if self.beside:
            lines.append("# Beside a pool's GPUs: cpu are CPUs, mem is memory; a number is MiB.")
        lines.append("teams:")
        for name, team in self.teams.items():
            lines += self._holder(name, team, "cohort")
        if self.cohorts:
            lines += ["", "# Teams that lend to one another.", "cohorts:"]
            for name, cohort in self.cohorts.items():
                # What is not named is without limit here, where a team is closed to it.
                lines += self._holder(name, cohort, "parent", self.pools.keys() | self.beside)
        lines += ["", "sharing:"]
        lines += [_line(f"  {setting}: {value}", comment) for setting, value, comment in self.sharing]
        lines += [
            "",
            "# How a job is made to leave: a signal, time to save, and it is requeued. These are the defaults.",
            "preemption:",
            "  grace: 30s",
            "  signal: USR1",
        ]
        if self.victims is not None:
            lines.append(_line(f"  victims: {self.victims[0]}", self.victims[1]))
        return "\n".join(lines) + "\n"

    def _holder(self, name: str, holder: Holder, above: str, everything: Set[str] = frozenset()) -> list[str]:
        lines = [f"  # {line}" for line in holder.comment.splitlines()]
        if not (holder.quota or holder.lend or holder.borrow or holder.weight or holder.cohort):
            return [*lines, f"  {name_of(name)}: {{}}"]
        lines.append(f"  {name_of(name)}:")
        if holder.quota:
            amounts = {one: memory(n) if one.endswith("/mem") else n for one, n in holder.quota.items()}
            lines.append(f"    quota: {_per_pool(amounts)}")
        if holder.cohort:
            lines.append(f"    {above}: {name_of(holder.cohort)}")
        if holder.weight is not None:
            lines.append(f"    fair_share_weight: {holder.weight}")
        for setting, limits in (("lend", holder.lend), ("borrow", holder.borrow)):
            if limits:
                said = next(iter(limits.values()))
                one_for_all = len(set(limits.values())) == 1 and limits.keys() >= everything
                # A number for all is of GPUs.
                one_for_all = one_for_all and not (isinstance(said, int) and any("/" in one for one in limits))
                lines.append(f"    {setting}: {said if one_for_all else _per_pool(limits)}")
        lines += [f"    {setting}: {value}" for setting, value in holder.rules.items()]
        return lines


def name_of(name: str) -> str:
    """A name as YAML reads it back as that text."""
    return name if _PLAIN.fullmatch(name) and name not in _NOT_TEXT else json.dumps(name)


def printable(text: str) -> str:
    """Text for a comment: on one line, nothing unprintable."""
    return "".join(c if c.isprintable() else " " for c in text)


def _line(text: str, comment: str) -> str:
    return f"{text:<40} # {printable(comment)}" if comment else text


def _per_pool(amounts: Mapping[str, Limit]) -> str:
    return "{" + ", ".join(f"{name_of(pool)}: {amount}" for pool, amount in amounts.items()) + "}"


def number_limit(number: int) -> Limit:
    """A limit in the file's notation."""
    return "none" if number == 0 else number


def memory(mib: int) -> str | int:
    """A quota of memory in the file's notation: ``4T``, ``96500M``."""
    if not mib:
        return 0
    power = next(power for power in (3, 2, 1, 0) if mib % 1024**power == 0)
    return f"{mib // 1024**power}{'MGTP'[power]}"


def rounded(amount: Fraction, kind_of: str, notes: Notes, whose: str) -> int:
    """An amount of CPUs (``cpu``) or of MiB (``mem``) in whole ones, so that nobody gets more than they had."""
    whole = amount.numerator // amount.denominator
    if whole != amount:
        notes.add(f"amounts that are no whole {KINDS[kind_of]}", "rounded down", whose)
    return whole


def finish(draft: Draft, notes: Notes) -> Imported:
    """The draft as a policy file that our loader accepts. Raises PolicyError if it does not."""
    for name, holder in (*draft.teams.items(), *draft.cohorts.items()):
        for limits in (holder.lend, holder.borrow):
            for resource, limit in limits.items():
                if isinstance(limit, int) and limit > MOST:
                    limits[resource] = MOST
                    notes.add(f"limits above {MOST}", "written as that, the most that the file takes", name)
    text = draft.text()
    checked = check_text(text, "(the imported policy)")
    return Imported(text, checked, notes.lines())


def refuse(problems: list[Problem]) -> None:
    """Raise PolicyError if there are any problems."""
    if problems:
        raise PolicyError(sorted(set(problems), key=lambda p: (p.file, p.line, p.column, p.path, p.message)))


def whole_problem(file: str, message: str, remedy: str = "") -> PolicyError:
    """Something is wrong with a file as a whole."""
    return PolicyError([Problem(file, 0, 0, "", message, remedy)])


MOST = values.MAX_AMOUNT
"""Of GPUs, CPUs or GiB: more than any cluster has."""
