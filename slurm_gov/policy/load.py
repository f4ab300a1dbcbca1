"""Reading a policy file: all of it is right, or all of it is refused with every mistake at its line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from slurm_gov.core.policy import Policy
from slurm_gov.policy import checks, schema
from slurm_gov.policy.parts import ONE, PER_POOL
from slurm_gov.policy.problems import PolicyError, Problem, did_you_mean
from slurm_gov.policy.resolve import resolve
from slurm_gov.policy.text import MAX_BYTES, Document, Path, dotted, kind, parse

# what a section needs, as an example, when it is missing or has the wrong shape
EXAMPLES = {
    "pools": 'write pools: {h100: {partition: gpu, gres: "gpu:h100"}}',
    "teams": "write teams: {research: {quota: {h100: 64}}}",
    "priority_classes": "write priority_classes: {training: 50}",
    "cohorts": "write cohorts: {lab: {}}",
    "sharing": "write sharing: {idle: fair_share}",
    "preemption": "write preemption: {grace: 30s}",
    "quota": "write quota: {POOL: NUMBER}, such as quota: {h100: 64}",
    "max_preemptions": "write max_preemptions: {count: 2, per: 24h}",
    "count": "write a number such as 2",
    "per": "write a duration such as 24h",
    "health": "write health: {}, or health: {recovery: none}",
    "partition": "write partition: gpu",
    "gres": 'write gres: "gpu:h100"',
}


@dataclass(frozen=True, slots=True)
class Checked:
    """A policy that was accepted, and what in it is allowed but probably not meant."""

    policy: Policy
    warnings: tuple[Problem, ...] = ()


def load(path: str | os.PathLike[str]) -> Policy:
    """The policy in a file. Raises PolicyError with every mistake, also when the file cannot be read."""
    return check(path).policy


def loads(text: str, filename: str = "policy.yaml") -> Policy:
    """The policy in a text; ``filename`` is for messages. Raises PolicyError."""
    return check_text(text, filename).policy


def check(path: str | os.PathLike[str]) -> Checked:
    """As load, with the warnings."""
    filename = os.fspath(path)
    try:
        with FilePath(path).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PolicyError([Problem(filename, 0, 0, "", f"cannot be read: {why}")]) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        message = f"the byte 0x{raw[error.start]:02x} is not UTF-8"
        raise PolicyError([Problem(filename, line, column, "", message, "save the file as UTF-8")]) from None
    return check_text(text, filename)


def check_text(text: str, filename: str = "policy.yaml") -> Checked:
    """As loads, with the warnings."""
    document, problems = parse(text, filename)
    file: schema.PolicyFile | None = None
    try:
        file = schema.PolicyFile.model_validate(document.data)
    except ValidationError as error:
        for details in error.errors(include_url=False, include_input=False):
            problems.append(_shape_problem(details, document, filename))
    for path, is_key, message, remedy in checks.find(document.data):
        problems.append(_problem(document, filename, path, is_key, message, remedy))
    if problems or file is None:
        raise PolicyError(sorted(set(problems), key=lambda p: (p.line, p.column, p.path, p.message)))
    policy = resolve(file)
    noted = checks.warnings(policy, document.data)
    return Checked(policy, tuple(_problem(document, filename, *finding) for finding in noted))


def _problem(document: Document, filename: str, path: Path, is_key: bool, message: str, remedy: str) -> Problem:
    place = document.place(path, key=is_key)
    return Problem(filename, place.line, place.column, dotted(path), message, remedy)


def _shape_problem(details: ErrorDetails, document: Document, filename: str) -> Problem:
    """One of pydantic's errors in our words."""
    path = tuple(str(part) for part in details["loc"] if part not in (ONE, PER_POOL))
    data = _at(document.data, path)
    last = path[-1] if path else ""
    is_key = data is None
    example = EXAMPLES.get(last, "")
    match details["type"]:
        case "policy":
            context = details["ctx"]
            message, remedy = context["message"], context["remedy"]
        case "missing":
            message, remedy = "is missing", example
        case "extra_forbidden":
            known = _settings(path[:-1])
            message, remedy, is_key = "there is no such setting", did_you_mean(last, known, "setting"), True
        case "too_short":
            message, remedy = "names nothing", example
        case "model_type" | "dict_type" | "model_attributes_type":
            message = f"is {kind(data)} where a mapping is wanted"
            remedy = example or _example_of(path)
        case "string_type":
            message = f"is {kind(data)} where a name is wanted"
            remedy = "put it in quotes" if isinstance(data, int | float) else "leave it out, or write a name"
        case _:  # no other kind of error is possible with this schema; should one be, its own words are best
            message, remedy = str(details["msg"]), example
    return _problem(document, filename, path, is_key, message, remedy)


def _at(data: Any, path: Path) -> Any:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _section(path: Path) -> type[BaseModel] | None:
    """The model that describes what stands at a path."""
    model: type[BaseModel] = schema.PolicyFile
    parts: Iterator[str] = iter(path)
    for part in parts:
        field = model.model_fields.get(part)
        if field is None:
            return None
        below = [a for a in (field.annotation, *get_args(field.annotation)) if isinstance(a, type)]
        models = [a for a in below if issubclass(a, BaseModel)]
        if not models:
            return None
        model = models[0]
        if field.annotation is not model:
            next(parts, None)  # dict[str, Model]: the next part is a name
    return model


def _settings(path: Path) -> list[str]:
    model = _section(path)
    return list(model.model_fields) if model else []


def _example_of(path: Path) -> str:
    if len(path) == 2 and path[0] == "teams":
        return "write NAME: {quota: {h100: 64}}"
    if len(path) == 2 and path[0] == "pools":
        return 'write NAME: {partition: gpu, gres: "gpu:h100"}'
    if len(path) == 2 and path[0] == "cohorts":
        return "write NAME: {}"
    return "write a mapping"
