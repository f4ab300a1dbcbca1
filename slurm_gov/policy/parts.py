"""The pieces that every section of the policy file is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainValidator, WithJsonSchema

from slurm_gov.policy import values

ONE, PER_POOL = "(one for all)", "(per pool)"  # union tags; taken out of the paths that people see

AMOUNT = {"type": "integer", "minimum": 0, "maximum": values.MAX_AMOUNT}
DURATION = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": values.MAX_SECONDS},
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?(s|m|h|d)?$"},
    ],
    "examples": ["30s", "5m", "2h", "1d"],
}

Amount = Annotated[int, PlainValidator(values.amount), WithJsonSchema(AMOUNT)]
Flag = Annotated[bool, PlainValidator(values.flag), WithJsonSchema({"type": "boolean"})]
Duration = Annotated[float, PlainValidator(values.duration), WithJsonSchema(DURATION)]


def per_pool(value: Any) -> str:
    """Which of a union's two forms a value has."""
    return PER_POOL if isinstance(value, dict) else ONE


def empty_is_default(value: Any) -> Any:
    """A section of which everything is commented out is as if it were not there."""
    return {} if value is None else value


def default(value: Any) -> dict[str, Any]:
    """A default as the file would say it, for the JSON Schema."""
    return {"default": value}


class Section(BaseModel):
    """What all sections have in common: an unknown setting is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)
