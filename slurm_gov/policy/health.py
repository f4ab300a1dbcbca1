"""The shape of the policy file's ``health:`` section."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, PlainValidator, Tag, WithJsonSchema

from slurm_gov.core.health import (
    Effect,
    Repair,
    Share,
)
from slurm_gov.policy import values
from slurm_gov.policy.parts import ONE, PER_POOL, Amount, Duration, Flag, Section, default, empty_is_default, per_pool
from slurm_gov.policy.problems import shown

# what a fault may be called: a class, an XID, or a check
CLASSES = (
    "gpu_lost", "gpu_memory", "gpu_reset", "gpu_driver", "gpu_thermal", "gpu_power", "gpu_link", "gpu_pcie",
    "gpu_app", "network", "storage", "memory", "kernel", "clock", "slurmd", "site", "other",
)  # fmt: skip
KINDS = ("slurm", "docker", "command", "mqtt")
OPERATIONS = ("reboot", "replace")
_SHARE = {"anyOf": [{"type": "string", "pattern": "^([1-9][0-9]?|100)%$"}, {"type": "integer", "minimum": 0}]}


def _share(value: Any) -> Share:
    if isinstance(value, str) and (found := re.fullmatch(r"([0-9]{1,3})\s*%", value)) and 1 <= int(found[1]) <= 100:
        return Share(percent=int(found[1]))
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= values.MAX_AMOUNT:
        return Share(number=value)
    raise values.wrong(
        f"is {shown(str(value))}", "write a number of nodes such as 4, or a percentage of them, 1% to 100%"
    )


def _text(what: str, example: str) -> Callable[[Any], str]:
    """A parser for a line of text."""

    def parse(value: Any) -> str:
        if isinstance(value, str) and value and value.isprintable():
            return value
        raise values.wrong(f"is no {what}", f"write {example}")

    return parse


def _argv(value: Any) -> tuple[str, ...]:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word for word in words):
        raise values.wrong(
            "is no command", "write its path, or a list such as [/usr/local/sbin/node-power, --rack, r1]"
        )
    if not words[0].startswith("/"):
        raise values.wrong(
            f"{shown(words[0])} is no absolute path", "the daemon has no PATH of yours: write all of it"
        )
    return tuple(words)


def _pattern(value: Any) -> str:
    example = 'write topology, or a pattern whose first group is the rack, such as "(r[0-9]+)n"'
    if not isinstance(value, str) or not value:
        raise values.wrong("is no pattern", example)
    try:
        re.compile(value)
    except re.error as error:
        raise values.wrong(f"{shown(value)} is no regular expression: {error}", example) from None
    return value


def _nodes(value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise values.wrong(
                f"{shown(str(name))} is no node name", "write a list of single nodes, such as [n63, n64]"
            )
    return tuple(names)


def _operations(value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    if not names or any(name not in OPERATIONS for name in names):
        raise values.wrong(f"is {shown(str(value))}", "write a list of reboot and replace, such as [reboot]")
    return tuple(name for name in OPERATIONS if name in names)


def _maybe(value: Any) -> float | None:
    return None if value == "none" else values.duration(value)


Command = Annotated[
    tuple[str, ...],
    PlainValidator(_argv),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
ShareOf = Annotated[Share, PlainValidator(_share), WithJsonSchema(_SHARE)]
Nodes = Annotated[
    tuple[str, ...], PlainValidator(_nodes), WithJsonSchema({"type": "array", "items": {"type": "string"}})
]
Rack = Annotated[str, PlainValidator(_pattern), WithJsonSchema({"type": "string", "format": "regex"})]
Maybe = Annotated[float | None, PlainValidator(_maybe), WithJsonSchema({"type": ["string", "number"]})]
_LINE = WithJsonSchema({"type": "string", "minLength": 1})
_EFFECTS, _REPAIRS = [str(one) for one in Effect], [str(one) for one in Repair]
_Recovery = Annotated[
    str, PlainValidator(values.choice("automatic", "none")), WithJsonSchema({"enum": ["automatic", "none"]})
]
_Name = Annotated[
    str, PlainValidator(_text("name of a provider", "the name of one under providers, or slurm")), _LINE
]
Kind = Annotated[str, PlainValidator(values.choice(*KINDS)), WithJsonSchema({"enum": list(KINDS)})]
EffectOf = Annotated[str, PlainValidator(values.choice(*_EFFECTS)), WithJsonSchema({"enum": _EFFECTS})]
RepairOf = Annotated[str, PlainValidator(values.choice(*_REPAIRS)), WithJsonSchema({"enum": _REPAIRS})]
Container = Annotated[str, PlainValidator(_text("container", '"{node}"')), _LINE]
Socket = Annotated[str, PlainValidator(_text("socket", "unix:///var/run/docker.sock")), _LINE]
CheckName = Annotated[str, PlainValidator(_text("name", "a short name such as nccl")), _LINE]
Finish = Annotated[
    str, PlainValidator(values.choice("finish", "checkpoint")), WithJsonSchema({"enum": ["finish", "checkpoint"]})
]
End = Annotated[str, PlainValidator(values.choice("finish", "end")), WithJsonSchema({"enum": ["finish", "end"]})]
Operations = Annotated[
    tuple[str, ...],
    PlainValidator(_operations),
    WithJsonSchema({"type": "array", "items": {"enum": list(OPERATIONS)}, "minItems": 1}),
]
Kept = Annotated[
    str,
    PlainValidator(values.choice("drained", "powered_down")),
    WithJsonSchema({"enum": ["drained", "powered_down"]}),
]
Where = Annotated[
    str, PlainValidator(values.choice("controller", "node")), WithJsonSchema({"enum": ["controller", "node"]})
]
Recovery = Annotated[
    Annotated[_Recovery, Tag(ONE)] | Annotated[dict[str, _Recovery], Tag(PER_POOL)], Discriminator(per_pool)
]
Named = Annotated[Annotated[_Name, Tag(ONE)] | Annotated[dict[str, _Name], Tag(PER_POOL)], Discriminator(per_pool)]


class ProviderRules(Section):
    """How nodes are rebooted and replaced."""

    kind: Kind = Field(
        description="slurm: scontrol reboot, POWER_DOWN and POWER_UP. docker: the node's container. command: an "
        "executable of the site. mqtt: a request that a provisioner answers."
    )
    command: Command | None = Field(default=None, description="For command: the executable and its first arguments.")
    container: Container | None = Field(
        default=None, description="For docker: the container's name; {node} stands for the node's. Default {node}."
    )
    socket: Socket | None = Field(
        default=None, description="For docker: the engine; without it what DOCKER_HOST says."
    )
    time_limit: Duration = Field(
        default=900.0,
        description="An operation that has not ended after this has failed, also if its slurmd is not back.",
        json_schema_extra=default("15m"),
    )
    attempts: Amount = Field(default=3, description="How often an operation is tried.")
    operations: Operations = Field(
        default=("reboot", "replace"),
        description="What it is asked for. Where it cannot replace nodes a person does what a reboot does not cure.",
    )
    backoff: Duration = Field(
        default=30.0,
        description="The wait before the second try; doubled before each further one.",
        json_schema_extra=default("30s"),
    )


class FaultRules(Section):
    """What one kind of fault means; what is left out is as in the built-in table."""

    effect: EffectOf | None = Field(
        default=None,
        description="ignore: nothing. suspect: no new work. drain: repaired when its jobs have left. fail: its jobs "
        "are "
        "requeued at once, then it is repaired.",
    )
    repair: RepairOf | None = Field(
        default=None, description="What is tried first: none (it is awaited), reboot, replace, or person."
    )
    confirm: Duration | None = Field(default=None, description="How long the fault must last before it counts.")
    recover: Duration | None = Field(default=None, description="How long it must be absent before it is over.")


class ClassJobRules(Section):
    """What holds for jobs of one priority class; what is left out is as for all."""

    draining: Finish | None = Field(default=None, description="As health.jobs.draining.")
    suspect: Finish | None = Field(default=None, description="As health.jobs.suspect.")
    grace: Duration | None = Field(default=None, description="As health.jobs.grace.")


class JobRules(Section):
    """What happens to jobs on sick nodes."""

    draining: Finish = Field(
        default="finish",
        description="On a node that is drained for repair: finish, or checkpoint: they are signalled "
        "(preemption.signal) and requeued.",
    )
    suspect: Finish = Field(
        default="finish",
        description="The same on a node that is only suspect, as soon as its fault is confirmed. With checkpoint "
        "they leave draining nodes too.",
    )
    grace: Duration = Field(
        default=120.0,
        description="With checkpoint: the time from the signal to the requeue.",
        json_schema_extra=default("2m"),
    )
    classes: Annotated[dict[str, ClassJobRules], BeforeValidator(empty_is_default)] = Field(
        default={}, description="What holds instead for jobs by their priority class."
    )
    max_restarts: Amount = Field(default=5, description="How often faults may restart one job before it is held.")
    if_not_requeueable: End = Field(
        default="finish",
        description="Jobs that cannot be requeued (interactive, --no-requeue) on a node that fails: the node waits "
        "for them, or they are ended.",
    )
    same_xid: Amount = Field(
        default=3, description="The same XID on so many nodes of one job is taken for the job's doing."
    )


class VerifyRules(Section):
    """A check that a repaired node must pass."""

    name: CheckName = Field(description="What to call it, in reasons and in the log.")
    command: Command = Field(description="The executable and its arguments; 0 is well.")
    where: Where = Field(
        default="controller",
        description="controller: beside slurm-govd, with the node still drained and its name as last argument. "
        "node: on "
        "the node itself, as a job inside a maintenance reservation.",
    )
    time_limit: Duration = Field(
        default=600.0, description="Not done by then: failed.", json_schema_extra=default("10m")
    )


class LemonRules(Section):
    """Which nodes are lemons."""

    faults: Amount = Field(default=4, description="So many faults make a lemon...")
    within: Duration = Field(
        default=28 * 86400.0, description="...within this time.", json_schema_extra=default("28d")
    )
    exclude: Flag = Field(
        default=False, description="Whether a lemon stays out after its next repair, instead of coming back."
    )


class HealthRules(Section):
    """How sick nodes are found, repaired and brought back. Without this section nothing is done to nodes."""

    recovery: Recovery = Field(
        default="automatic",
        description="automatic, none (sick nodes are only drained, a person does the rest), or a mapping from pool "
        "to "
        "one of these.",
    )
    provider: Named = Field(
        default="slurm", description="Which provider repairs nodes: slurm, a name under providers, or per pool."
    )
    providers: Annotated[dict[str, ProviderRules], BeforeValidator(empty_is_default)] = Field(
        default={}, description="Providers by a name of your choice."
    )
    spares: dict[str, Nodes] = Field(
        default={}, description="Per pool the nodes that are kept drained until another node is away."
    )
    spares_kept: Kept = Field(
        default="drained",
        description="drained: spares run, and step in at once. powered_down: by SuspendProgram, and up again by "
        "ResumeProgram when one steps in.",
    )
    faults: Annotated[dict[str, FaultRules], BeforeValidator(empty_is_default)] = Field(
        default={}, description='What faults mean, by "xid 79", by the name of a check, or by fault class.'
    )
    confirm: Duration = Field(
        default=20.0,
        description="How long a fault must last before it counts, where its rule does not say.",
        json_schema_extra=default("20s"),
    )
    recover: Duration = Field(
        default=60.0,
        description="How long it must be absent before it is over, where its rule does not say.",
        json_schema_extra=default("60s"),
    )
    breaker: ShareOf = Field(
        default=Share(percent=20),
        description="More bad nodes than this in a pool: nothing is done by itself, a person must look.",
        json_schema_extra=default("20%"),
    )
    rack: Rack | None = Field(
        default=None,
        description="What a rack is, for the circuit breaker: topology (Slurm's leaf switches or blocks), or a "
        "pattern for node names whose first group is the rack.",
    )
    max_away: ShareOf = Field(
        default=Share(percent=20),
        description="How many nodes of a pool may be draining or under repair at a time.",
        json_schema_extra=default("20%"),
    )
    jobs: Annotated[JobRules, BeforeValidator(empty_is_default)] = Field(
        default=JobRules(), description="What happens to jobs on sick nodes.", json_schema_extra=default({})
    )
    verify: list[VerifyRules] = Field(
        default=[], description="Checks that a repaired node must pass before it takes work, in this order."
    )
    report_within: Duration = Field(
        default=300.0,
        description="How long a repaired node has until it answers and its agent has reported.",
        json_schema_extra=default("5m"),
    )
    lost_after: Duration = Field(
        default=30.0,
        description="A node whose agent is gone and that cannot be reached, or that slurmctld has set DOWN, is lost "
        "after this. One that merely misses slurmctld's pings is not.",
        json_schema_extra=default("30s"),
    )
    silence_after: Maybe = Field(
        default=None,
        description="A node whose agent is silent for so long, though slurmd lives, is suspect; none: never.",
        json_schema_extra=default("none"),
    )
    reboots: Amount = Field(default=2, description="So many reboots for the same fault make a replacement.")
    history: Duration = Field(
        default=3 * 86400.0, description="How long a repair is remembered for that.", json_schema_extra=default("3d")
    )
    lemons: Annotated[LemonRules, BeforeValidator(empty_is_default)] = Field(
        default=LemonRules(), description="Which nodes are lemons.", json_schema_extra=default({})
    )
