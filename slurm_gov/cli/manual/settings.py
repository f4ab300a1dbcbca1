"""Every setting of the policy file, from its JSON Schema: path, type in words, default, meaning, example."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from slurm_gov.policy.schema import json_schema
from slurm_gov.policy.values import MAX_AMOUNT

EXAMPLE = Path(__file__).with_name("example.yaml")
# What stands for the site's own names in a path, by the setting that holds them.
_NAMES = {
    "pools": "POOL",
    "priority_classes": "CLASS",
    "teams": "TEAM",
    "cohorts": "COHORT",
    "classes": "CLASS",
    "providers": "PROVIDER",
    "faults": "FAULT",
}
# Patterns that people do not want to read.
_PATTERNS = {
    r"^([1-9][0-9]?|100)%$": "a percentage (`1%` to `100%`)",
    r"^([1-9][0-9]?|[1-4][0-9][0-9]|500)%$": "a percentage (`1%` to `500%`)",
    r"^[0-9]+ ?[MGTPmgtp]$": "memory (`500G`, `4T`)",
    r"^[^\s,]+$": "a name",
    r"^/": "an absolute path",
    r"^B:[0-9]+$": "",
}
_DURATION = "a duration (`30s`, `5m`, `2h`, `1d`, or seconds)"


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the file. ``path`` is ``teams.TEAM.borrow``; ``depth`` is 1 for what stands at the left margin."""

    path: str
    depth: int
    type: str
    default: str
    meaning: str
    example: str


def settings() -> list[Setting]:
    """All settings, in the order of the schema."""
    schema = json_schema()
    example = YAML(typ="safe").load(EXAMPLE)
    return list(_walk(schema, schema["$defs"], "", [example], 1))


def _walk(
    schema: dict[str, Any], defs: dict[str, Any], above: str, examples: list[Any], depth: int
) -> Iterator[Setting]:
    required = schema.get("required", ())
    for name, given in schema["properties"].items():
        told = _without_null(given)
        path = f"{above}{name}"
        values = [one[name] for one in examples if isinstance(one, dict) and name in one]
        section, below = _section(told, defs, values)
        wild = f".{_NAMES[name]}" if name in _NAMES and section is not None else ""
        wild = f"{wild}[]" if told.get("type") == "array" and section is not None else wild
        yield Setting(
            path=path,
            depth=depth,
            type=_section_words(told, name) if section is not None else words(told),
            default="required" if name in required else _default(told),
            meaning=str(told.get("description") or (section or {}).get("description", "")),
            example=_yaml({name: values[0]}) if values and section is None else "",
        )
        if section is not None:
            yield from _walk(section, defs, f"{path}{wild}.", below, depth + 1)


def _section(
    told: dict[str, Any], defs: dict[str, Any], values: list[Any]
) -> tuple[dict[str, Any] | None, list[Any]]:
    """The section that a setting holds, or several of by name or in a list, and their values in the example."""
    if "$ref" in told:
        return defs[told["$ref"].rpartition("/")[2]], values
    inner = told.get("additionalProperties") if told.get("type") == "object" else None
    if isinstance(inner, dict) and "$ref" in inner:
        return defs[inner["$ref"].rpartition("/")[2]], [one for value in values for one in value.values()]
    items = told.get("items", {})
    if "$ref" in items:
        return defs[items["$ref"].rpartition("/")[2]], [one for value in values for one in value]
    return None, []


def _section_words(told: dict[str, Any], name: str) -> str:
    if "$ref" in told:
        return "a section"
    return "a list of sections" if told.get("type") == "array" else f"a section for each {_NAMES[name]}"


def _without_null(given: dict[str, Any]) -> dict[str, Any]:
    """The schema of a setting without the ``null`` that stands for "not set"."""
    kinds = [one for one in given.get("anyOf", ()) if one != {"type": "null"}]
    if len(kinds) != 1:
        return given
    rest = {key: value for key, value in given.items() if key != "anyOf"}
    return {**kinds[0], **rest}


def _default(told: dict[str, Any]) -> str:
    value = told.get("default")
    if value is None or value == [] or (value == {} and "$ref" not in told):
        return "not set"
    return "all defaults" if value == {} else f"`{_scalar(value)}`"


def words(told: dict[str, Any]) -> str:
    """A type as people say it; values in backquotes."""
    if "oneOf" in told:
        return f"{words(told['oneOf'][0])}; or a mapping from pool to one of these"
    *first, last = dict.fromkeys(filter(None, _kinds(told)))
    return f"{', '.join(first)} or {last}" if first else last


def _kinds(told: dict[str, Any]) -> Iterator[str]:
    """The alternatives of a type."""
    if "anyOf" in told:
        if _is_duration(told["anyOf"]):
            yield from (["`none`"] if {"const": "none"} in told["anyOf"] else [])
            yield _DURATION
        else:
            for one in told["anyOf"]:
                yield from _kinds(one)
        return
    if "enum" in told:
        yield from (f"`{one}`" for one in told["enum"])
        return
    match told.get("type"):
        case "boolean":
            yield from ("`true`", "`false`")
        case "integer" | "number":
            yield _number(told)
        case "array":
            yield f"a list of {words(told['items']).removeprefix('a ')}s"
        case "object" if "properties" in told:
            yield f"`{{{', '.join(f'{name}: NUMBER' for name in told['properties'])}}}`"
        case "object":
            yield f"a mapping from name to {words(told['additionalProperties'])}"
        case "string" if told.get("format") == "regex":
            yield from ("`topology`", "a regular expression")
        case "string" if "pattern" in told:
            yield _PATTERNS.get(told["pattern"], _pattern(told))
        case ["string", "number"]:
            yield from ("`none`", _DURATION)
        case _:
            yield "a text"


def _is_duration(kinds: list[dict[str, Any]]) -> bool:
    return any(str(one.get("pattern", "")).endswith("(s|m|h|d)?$") for one in kinds)


def _pattern(told: dict[str, Any]) -> str:
    """A pattern with examples is told by them."""
    return f"a text such as {', '.join(f'`{one}`' for one in told['examples'])}" if "examples" in told else "a text"


def _number(told: dict[str, Any]) -> str:
    low, high = told.get("minimum", 0), told.get("maximum", MAX_AMOUNT)
    if high >= MAX_AMOUNT:
        return "a number"
    return f"a {'whole ' if told['type'] == 'integer' else ''}number from {low:g} to {high:g}"


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _yaml(value: dict[str, Any]) -> str:
    """One line of YAML, as an administrator would write it."""
    out = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.width = 10_000
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(value, out)
    return out.getvalue().strip().removeprefix("{").removesuffix("}")
