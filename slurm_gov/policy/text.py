"""From YAML text to plain data, with the place of every value; refuses what would be read wrongly.

Only YAML's events are used, not its object model: so every value keeps its line, a key that is there twice is
an error and not a silent last-one-wins, and no text can build anything but dicts, lists, strings and numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

from slurm_gov.policy.problems import PolicyError, Problem, shown

MAX_BYTES = 4 * 1024 * 1024
MAX_VALUES = 200_000  # counted after aliases are followed: an alias bomb stops here
MOST_VALUES_OF_OTHERS = 2_000_000  # in files that are not ours, such as all objects of a Kubernetes cluster
MAX_DEPTH = 20

Path = tuple[str, ...]
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,60}")
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the file, counted from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Value:
    """One YAML value and where it is. ``data`` is a scalar, a list of values, or a dict of named values."""

    place: Place
    data: Any
    size: int = 1


@dataclass(slots=True)
class Document:
    """The plain data of a file, and by path the place of each value and of each key."""

    data: Any
    values: dict[Path, Place]
    keys: dict[Path, Place]

    def place(self, path: Path, key: bool = False) -> Place:
        """Where ``path`` is; where the file has no such value, the nearest thing above it."""
        tables = (self.keys, self.values) if key else (self.values, self.keys)
        for table in tables:
            if path in table:
                return table[path]
        while path:
            path = path[:-1]
            for table in (self.keys, self.values):
                if path in table:
                    return table[path]
        return Place(1, 1)


class _Stop(Exception):
    """Reading cannot go on; the problem says why."""

    def __init__(self, place: Place, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.place, self.message, self.remedy = place, message, remedy


def parse(text: str, filename: str) -> tuple[Document, list[Problem]]:
    """Read one YAML document; the problems are those that do not stop the reading (keys given twice).

    Raises PolicyError when the text is no YAML, holds no mapping, or is unreasonably large.
    """
    reader = _Reader(filename)
    try:
        if len(text) > MAX_BYTES:
            raise _Stop(Place(0, 0), f"is larger than {MAX_BYTES >> 20} MiB", "a policy is far smaller")
        value = reader.read(text)
    except _Stop as stop:
        problem = Problem(filename, stop.place.line, stop.place.column, "", stop.message, stop.remedy)
        raise PolicyError([problem]) from None
    return _document(value), reader.problems


def parse_all(text: str, filename: str) -> tuple[list[Document], list[Problem]]:
    """Read all YAML documents of a file that is no policy, of any shape; empty ones are left out.

    Raises PolicyError when the text is no YAML or unreasonably large.
    """
    reader = _Reader(filename, MOST_VALUES_OF_OTHERS)
    try:
        values = reader.read_all(text)
    except _Stop as stop:
        problem = Problem(filename, stop.place.line, stop.place.column, "", stop.message, stop.remedy)
        raise PolicyError([problem]) from None
    return [_document(value) for value in values if value.data is not None], reader.problems


def _document(value: Value) -> Document:
    document = Document(None, {}, {})
    document.data = _plain(value, (), document)
    return document


def _plain(value: Value, path: Path, document: Document) -> Any:
    document.values[path] = value.place
    if isinstance(value.data, dict):
        plain = {}
        for key, (place, below) in value.data.items():
            document.keys[(*path, key)] = place
            plain[key] = _plain(below, (*path, key), document)
        return plain
    if isinstance(value.data, list):
        return [_plain(below, (*path, str(i)), document) for i, below in enumerate(value.data)]
    return value.data


class _Reader:
    """Builds values from YAML's events."""

    def __init__(self, filename: str, most: int = MAX_VALUES) -> None:
        self.filename = filename
        self.most = most
        self.starts: list[Place] = []
        self.problems: list[Problem] = []
        self.anchors: dict[str, Value | None] = {}
        self.events: Iterator[Event] = iter(())

    def read(self, text: str) -> Value:
        values = self.read_all(text)
        if len(values) > 1:
            raise _Stop(self.starts[1], "a second document starts here", 'remove the "---" before it')
        if not values or values[0].data is None:
            raise _Stop(Place(0, 0), "is empty", 'a policy has at least "pools" and "teams"')
        if not isinstance(values[0].data, dict):
            raise _Stop(values[0].place, f"is {kind(values[0].data)}, not a mapping", 'start with "pools:"')
        return values[0]

    def read_all(self, text: str) -> list[Value]:
        self.events = self._events(text)
        values: list[Value] = []
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                self.anchors = {}  # an anchor is its document's own
                self.starts.append(_place(event))
            elif not isinstance(event, StreamStartEvent | StreamEndEvent | DocumentEndEvent):
                values.append(self._value(event, ()))
        return values

    def _events(self, text: str) -> Iterator[Event]:
        try:
            yield from YAML(typ="safe", pure=True).parse(text)
        except MarkedYAMLError as error:
            raise _syntax(error, text) from None
        except YAMLError as error:
            raise _unreadable(error, text) from None
        except (ValueError, TypeError, IndexError, AttributeError, AssertionError, KeyError) as error:
            # ruamel.yaml trips over some malformed directives and escapes instead of reporting them
            raise _Stop(Place(0, 0), f"is not valid YAML ({error})") from None

    def _value(self, event: Event, path: Path) -> Value:
        place = _place(event)
        if len(path) > MAX_DEPTH:
            raise _Stop(place, f"is nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, AliasEvent):
            return self._alias(event, place)
        anchor: str | None = getattr(event, "anchor", None)
        if anchor:
            self.anchors[anchor] = None
        if isinstance(event, ScalarEvent):
            value = Value(place, _scalar(event, place))
        elif isinstance(event, SequenceStartEvent):
            value = self._sequence(place, path)
        elif isinstance(event, MappingStartEvent):
            value = self._mapping(place, path)
        else:
            raise _Stop(place, "is not valid YAML here")
        if value.size > self.most:
            raise _Stop(place, f"holds more than {self.most} values", "a policy is far smaller")
        if anchor:
            self.anchors[anchor] = value
        return value

    def _alias(self, event: AliasEvent, place: Place) -> Value:
        if event.anchor not in self.anchors:
            raise _Stop(place, f"*{event.anchor} refers to no anchor above", f"write &{event.anchor} there")
        value = self.anchors[event.anchor]
        if value is None:
            raise _Stop(place, f"*{event.anchor} contains itself")
        return value

    def _sequence(self, place: Place, path: Path) -> Value:
        value = Value(place, [])
        while not isinstance(event := next(self.events), SequenceEndEvent):
            below = self._value(event, (*path, str(len(value.data))))
            value.data.append(below)
            self._grow(value, below)
        return value

    def _mapping(self, place: Place, path: Path) -> Value:
        value = Value(place, {})
        merged: list[Value] = []
        while not isinstance(event := next(self.events), MappingEndEvent):
            where = _place(event)
            if isinstance(event, AliasEvent):
                raise _Stop(where, f"*{event.anchor} stands where a name is wanted", "write the name itself")
            if not isinstance(event, ScalarEvent):
                raise _Stop(where, "a name is wanted before the colon", 'write "name: value"')
            key: str = event.value
            below = self._value(next(self.events), (*path, key))
            self._grow(value, below)
            if key == "<<" and event.style is None:
                merged += below.data if isinstance(below.data, list) else [below]
            elif key in value.data:
                first = value.data[key][0]
                message = f"is given twice, first in line {first.line}"
                self.problems.append(
                    Problem(self.filename, where.line, where.column, dotted((*path, key)), message, "keep one")
                )
            else:
                value.data[key] = (where, below)
        for other in merged:
            if not isinstance(other.data, dict):
                raise _Stop(other.place, "<< takes a mapping or a list of mappings", 'such as "<<: *anchor"')
            for key, pair in other.data.items():
                value.data.setdefault(key, pair)
        return value

    def _grow(self, value: Value, below: Value) -> None:
        value.size += below.size
        if value.size > self.most:
            raise _Stop(below.place, f"holds more than {self.most} values", "a policy is far smaller")


def _place(event: Event) -> Place:
    mark = event.start_mark
    return Place(mark.line + 1, mark.column + 1) if mark is not None else Place(1, 1)


def _scalar(event: ScalarEvent, place: Place) -> Any:
    """YAML 1.2's core schema: text in quotes is text; plain null, booleans and decimal numbers are those."""
    text: str = event.value
    tag = str(event.tag) if event.tag else ""
    if tag and tag not in ("!", "tag:yaml.org,2002:str"):
        raise _Stop(place, f"the tag {shown(tag)} has no meaning here", "remove it")
    if event.style is not None or tag:
        return text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if len(text) <= 20 and _INT.fullmatch(text):
        return int(text)
    if len(text) <= 40 and _FLOAT.fullmatch(text):
        return float(text)
    return text


def kind(data: Any) -> str:
    """What a value is, in words."""
    if data is None:
        return "empty"
    if isinstance(data, bool):
        return "true" if data else "false"
    if isinstance(data, int | float):
        return f"the number {data}"
    if isinstance(data, str):
        return f"the text {shown(data)}"
    return "a list" if isinstance(data, list) else "a mapping"


def dotted(path: Path) -> str:
    """A path as people write it: ``teams.research.borrow``; names that are not plain are put in quotes."""
    return ".".join(part if _PLAIN.fullmatch(part) else shown(part) for part in path)


def _syntax(error: MarkedYAMLError, text: str) -> _Stop:
    mark = error.problem_mark or error.context_mark
    place = Place(mark.line + 1, mark.column + 1) if mark is not None else Place(0, 0)
    said = " ".join(str(error.problem or error.context or "not valid YAML").split())
    lines = text.splitlines()
    line = lines[place.line - 1] if 0 < place.line <= len(lines) else ""
    if "\t" in line[: place.column]:
        return _Stop(place, "a tab, which YAML does not allow as indentation", "use spaces")
    remedy = ""
    if "found character '%'" in said or "found character '@'" in said or "found character '`'" in said:
        remedy = "put the value in quotes"
    elif "mapping values are not allowed" in said:
        remedy = "check the indentation, and put a value with a colon in quotes"
    elif "expected <block end>" in said or "while parsing a block" in str(error.context or ""):
        remedy = "indent it like the lines above it"
    elif "could not find expected ':'" in said:
        remedy = 'write "name: value"'
    elif "expected ',' or" in said:
        remedy = "close the bracket that was opened before"
    return _Stop(place, f"not valid YAML: {said}", remedy)


def _unreadable(error: YAMLError, text: str) -> _Stop:
    position = getattr(error, "position", None)
    character = getattr(error, "character", None)
    if isinstance(position, int) and character is not None:
        before = text[:position]
        place = Place(before.count("\n") + 1, position - before.rfind("\n"))
        code = character if isinstance(character, int) else ord(character)
        return _Stop(place, f"the character U+{code:04X} is not allowed in YAML", "remove it")
    return _Stop(Place(0, 0), f"not valid YAML: {' '.join(str(error).split())}")
