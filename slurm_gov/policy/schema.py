"""The shape of the policy file, as pydantic models. Their descriptions become the JSON Schema for editors."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    WithJsonSchema,
)

from slurm_gov.policy import values
from slurm_gov.policy.health import HealthRules
from slurm_gov.policy.parts import AMOUNT as _AMOUNT
from slurm_gov.policy.parts import DURATION as _DURATION
from slurm_gov.policy.parts import ONE, PER_POOL, Duration, Flag, Section
from slurm_gov.policy.parts import default as _default
from slurm_gov.policy.parts import empty_is_default as _empty_is_default
from slurm_gov.policy.parts import per_pool as _per_pool

TEAM_BORROW = values.Limit(percent=50)
_WEIGHT = {"type": "integer", "minimum": 0, "maximum": 100}
_NAME = r"^[a-z0-9_][a-z0-9_.-]*$"


def _limit_schema(everything: str, percent: str) -> dict[str, Any]:
    words = {"enum": [everything, "none"]}
    return {"anyOf": [words, {"type": "string", "pattern": percent}, _AMOUNT], "examples": ["50%", 16]}


_QUOTA = {
    "anyOf": [
        _AMOUNT,
        {"type": "object", "properties": {"nodes": _AMOUNT}, "required": ["nodes"], "additionalProperties": False},
        {"type": "string", "pattern": "^[0-9]+ ?[MGTPmgtp]$"},
    ],
    "examples": [64, {"nodes": 8}, "4T"],
}
Amount = Annotated[int | values.Nodes | values.Memory, PlainValidator(values.quota), WithJsonSchema(_QUOTA)]
NodeGpus = Annotated[int, PlainValidator(values.node_gpus), WithJsonSchema(_AMOUNT | {"minimum": 1, "maximum": 1024})]
Weight = Annotated[int, PlainValidator(values.weight), WithJsonSchema(_WEIGHT)]
Price = Annotated[
    float,
    PlainValidator(values.price),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": values.MAX_AMOUNT, "examples": [2.5]}),
]
Delay = Annotated[
    float,
    PlainValidator(values.delay),
    WithJsonSchema({"anyOf": [{"const": "none"}, *_DURATION["anyOf"]], "examples": ["none", "2m"]}),
]
Patience = Annotated[
    float | None,
    PlainValidator(values.patience),
    WithJsonSchema({"anyOf": [{"const": "none"}, *_DURATION["anyOf"]], "examples": ["none", "1d"]}),
]
CheckpointFile = Annotated[
    str,
    PlainValidator(values.checkpoint_file),
    WithJsonSchema({"type": "string", "pattern": "^/", "examples": ["/scratch/%u/%j/checkpoint"]}),
]
HalfLife = Annotated[
    float,
    PlainValidator(values.half_life),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, *_DURATION["anyOf"][1:]], "examples": ["7d"]}
    ),
]
Count = Annotated[
    int,
    PlainValidator(values.preemptions),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": values.MAX_PREEMPTIONS}),
]
Signal = Annotated[
    str,
    PlainValidator(values.signal_name),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": f"^(B:)?(SIG)?({'|'.join(values.SIGNALS)})$"},
                {"type": "string", "pattern": "^B:[0-9]+$"},
                {"type": "integer", "minimum": 1, "maximum": 64},
            ],
            "examples": ["USR1", "B:USR1", "TERM"],
        }
    ),
]
Gres = Annotated[
    str,
    PlainValidator(values.gres),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": "^[A-Za-z][A-Za-z0-9_]*:(?![0-9]+$)[A-Za-z0-9_][A-Za-z0-9_.-]*$",
            "examples": ["gpu:h100"],
        }
    ),
]
_PARTITION = {"type": "string", "pattern": r"^[^\s,]+$"}
Partitions = Annotated[
    tuple[str, ...],
    PlainValidator(values.partitions),
    WithJsonSchema(
        {"anyOf": [_PARTITION, {"type": "array", "items": _PARTITION, "minItems": 1, "uniqueItems": True}]}
    ),
]
_Lend = Annotated[
    values.Limit,
    PlainValidator(values.lend),
    WithJsonSchema(_limit_schema("all", r"^([1-9][0-9]?|100)%$")),
]
_Borrow = Annotated[
    values.Limit,
    PlainValidator(values.borrow),
    WithJsonSchema(_limit_schema("unlimited", r"^([1-9][0-9]?|[1-4][0-9][0-9]|500)%$")),
]
Lend = Annotated[Annotated[_Lend, Tag(ONE)] | Annotated[dict[str, _Lend], Tag(PER_POOL)], Discriminator(_per_pool)]
Borrow = Annotated[
    Annotated[_Borrow, Tag(ONE)] | Annotated[dict[str, _Borrow], Tag(PER_POOL)], Discriminator(_per_pool)
]


_WITHIN = ("lower_priority", "never", "lower_or_newer_equal_priority")
_RECLAIM = ("any", "lower_priority", "never")
_BORROW_PREEMPTS = {"anyOf": [{"enum": ["none", "lower_priority"]}, _WEIGHT], "examples": ["none", 10]}
_REBALANCE = ("never", "final_share", "initial_share", "final_then_initial_share")
_VICTIMS = ("cheapest", "in_order")
_IDLE = ("fair_share", "first_come")
_ELSE = ("never", "cancel")
_MODE = ("observe", "caps", "enforce")
Within = Annotated[str, PlainValidator(values.choice(*_WITHIN)), WithJsonSchema({"enum": list(_WITHIN)})]
Reclaim = Annotated[str, PlainValidator(values.choice(*_RECLAIM)), WithJsonSchema({"enum": list(_RECLAIM)})]
BorrowPreempts = Annotated[str | int, PlainValidator(values.borrow_preempts), WithJsonSchema(_BORROW_PREEMPTS)]
Rebalance = Annotated[str, PlainValidator(values.choice(*_REBALANCE)), WithJsonSchema({"enum": list(_REBALANCE)})]
Victims = Annotated[str, PlainValidator(values.choice(*_VICTIMS)), WithJsonSchema({"enum": list(_VICTIMS)})]
Idle = Annotated[str, PlainValidator(values.choice(*_IDLE)), WithJsonSchema({"enum": list(_IDLE)})]
Mode = Annotated[str, PlainValidator(values.choice(*_MODE)), WithJsonSchema({"enum": list(_MODE)})]
Else = Annotated[str, PlainValidator(values.choice(*_ELSE)), WithJsonSchema({"enum": list(_ELSE)})]


class Pool(Section):
    """Nodes with one kind of accelerator."""

    partition: Partitions = Field(description="The Slurm partition, or list of partitions, whose nodes are the pool.")
    gres: Gres = Field(
        description="The accelerator in Slurm's notation with its type, such as gpu:h100. One pool per type: "
        "Slurm counts it, and caps it, per type."
    )
    gpus_per_node: NodeGpus | None = Field(
        default=None, description="How many of them a node has; needed for quotas in whole nodes: {nodes: 4}."
    )
    price: Price | None = Field(
        default=None,
        description="What one accelerator costs for an hour, in a currency of your choice; slurm-gov usage then "
        "reports costs.",
    )


class Team(Section):
    """A Slurm account, with all accounts below it."""

    quota: dict[str, Amount] = Field(
        min_length=1,
        description="What the team is guaranteed in each pool, in accelerators, or in whole nodes ({nodes: 4}). "
        "Pools that are not named here are closed to the team; name one with 0 to let the team only borrow there. "
        "POOL/cpu and POOL/mem (such as 4T) are quotas of CPUs and memory there.",
    )
    cohort: str | None = Field(
        default=None,
        description="The cohort the team lends in and borrows from. Teams that name none form one cohort together.",
    )
    fair_share_weight: Weight = Field(
        default=0,
        description="The team's part of idle capacity when several teams want it, 0 to 100. "
        "0: only what nobody else wants.",
    )
    lend: Lend = Field(
        default=values.ALL,
        description="How much of its unused quota others may use: all, none, a percentage of the quota, a "
        "number of accelerators, or a mapping from pool to one of these.",
        json_schema_extra=_default("all"),
    )
    borrow: Borrow = Field(
        default=TEAM_BORROW,
        description="How far above its quota the team may go: unlimited, none, a percentage of the quota (1% "
        "to 500%), a number of accelerators, or a mapping from pool to one of these.",
        json_schema_extra=_default("50%"),
    )
    preempt_within_team: Within = Field(
        default="lower_priority",
        description="Which of the team's own jobs may be preempted when a job of the team needs room.",
    )
    reclaim: Reclaim = Field(
        default="any",
        description="Which borrowers' jobs may be preempted when the team wants its quota back.",
    )
    borrow_preempts: BorrowPreempts = Field(
        default="none",
        description="Whether a job of the team that borrows may preempt other borrowers' jobs of lower priority: "
        "none, lower_priority, or only up to a weight from 0 to 100.",
    )
    min_runtime: Duration | None = Field(
        default=None,
        description="A job of the team that started less than this ago is not preempted; without it "
        "preemption.min_runtime holds. Where the job's class has one too, the longer one holds.",
    )


class Cohort(Section):
    """Teams that lend to one another."""

    parent: str | None = Field(
        default=None,
        description="The cohort above this one, which it lends to and borrows from. Without it the cohort "
        "shares only the capacity that no quota covers.",
    )
    quota: dict[str, Amount] = Field(
        default={},
        description="Capacity per pool that belongs to the cohort as a whole, for its members to borrow.",
    )
    lend: Lend = Field(
        default=values.ALL,
        description="How much of what is unused in the cohort those outside may use; percentages are of the "
        "quotas of the cohort and all its members together.",
        json_schema_extra=_default("all"),
    )
    borrow: Borrow = Field(
        default=values.ALL,
        description="How far above their quotas all members together may go; percentages as for lend.",
        json_schema_extra=_default("unlimited"),
    )
    fair_share_weight: Weight = Field(
        default=0, description="The cohort's part of what is idle in the cohort above it, 0 to 100."
    )


class Sharing(Section):
    """How idle capacity is divided."""

    idle: Idle = Field(
        default="fair_share",
        description="fair_share: idle capacity is divided by weight. first_come: in Slurm's order of jobs.",
    )
    lend_unallocated: Flag = Field(default=True, description="Whether capacity that no quota covers is lent too.")
    protect_after: Patience = Field(
        default=86400.0,
        description="How long a job waits for more than its team's quota leaves before later jobs of the team no "
        "longer overtake it; none: they always may.",
        json_schema_extra=_default("1d"),
    )
    half_life: HalfLife | None = Field(
        default=None,
        description="Who borrowed much lately waits behind who did not: after so long what a team or cohort borrowed "
        "counts half. Without it only what they borrow now counts.",
    )
    rebalance: Rebalance = Field(
        default="never",
        description="Whether a team that waits may take from teams that hold a larger share of what is lent. "
        "final_share: while its share stays at or below theirs after the loss; initial_share: while it stays below "
        "theirs before the loss; final_then_initial_share: by the second where the first does not suffice.",
    )


class ClassRules(Section):
    """What holds for the running jobs of one priority class."""

    min_runtime: Duration | None = Field(
        default=None,
        description="A job of this class that started less than this ago is not preempted; without it "
        "preemption.min_runtime holds. Where the job's team has one too, the longer one holds.",
    )
    protected: Flag = Field(default=False, description="Whether its jobs are never preempted.")


class MaxPreemptions(Section):
    """How often one job may be preempted."""

    count: Count = Field(description="So many times at most.")
    per: Duration = Field(description="In any time as long as this.", json_schema_extra={"examples": ["24h"]})


class Preemption(Section):
    """How a job is made to leave."""

    grace: Duration = Field(
        default=30.0,
        description="How long a preempted job has from the signal until it is requeued; one that has run for less "
        "gets no more than that.",
        json_schema_extra=_default("30s"),
    )
    signal: Signal = Field(
        default="USR1",
        description="The signal it gets first, as in sbatch --signal: USR1 to the job's steps, B:USR1 to its "
        "batch script only.",
    )
    min_runtime: Duration = Field(
        default=0.0,
        description="A job that started less than this ago is not preempted. Teams and classes may have their own.",
        json_schema_extra=_default("0s"),
    )
    classes: Annotated[dict[str, ClassRules], BeforeValidator(_empty_is_default)] = Field(
        default={}, description="What holds for running jobs by their priority class."
    )
    max_preemptions: MaxPreemptions | None = Field(
        default=None, description="How often one job may be preempted; without it as often as it must."
    )
    checkpoint_file: CheckpointFile | None = Field(
        default=None,
        description="A file that jobs write at each checkpoint, as %j (job id), %A and %a (array and task) and %u "
        "(user) name it: what a job would lose counts from its last change. A job may also say it in its comment.",
    )
    requeue_delay: Delay = Field(
        default=0.0,
        description="How long a preempted job waits before it may start again; none: as soon as there is room.",
        json_schema_extra=_default("none"),
    )
    if_not_requeueable: Else = Field(
        default="never",
        description="What may happen to jobs that cannot be requeued (interactive, --no-requeue): never "
        "preempted, or cancelled when there is no other choice.",
    )
    victims: Victims = Field(
        default="cheapest",
        description="cheapest: of the sets of jobs that make room, the one that loses the least work. in_order: the "
        "lowest priority and then the most recently started, whatever it costs.",
    )


class PolicyFile(Section):
    """Quotas of teams, and how what is idle is lent, borrowed and taken back."""

    mode: Mode = Field(
        default="enforce",
        description="How much slurm-govd does. observe: it decides and reports, and acts on nothing. caps: it sets "
        "caps and judges submissions, and preempts nobody. enforce: everything.",
    )
    pools: dict[str, Pool] = Field(min_length=1, description="The cluster's accelerators, by a name of your choice.")
    priority_classes: Annotated[dict[str, Weight], BeforeValidator(_empty_is_default)] = Field(
        default={},
        description="Weights 0 to 100 by name. Each becomes a Slurm QOS of that name; a job names one with --qos.",
    )
    teams: dict[str, Team] = Field(min_length=1, description="Teams by the name of their Slurm account.")
    cohorts: Annotated[dict[str, Cohort], BeforeValidator(_empty_is_default)] = Field(
        default={},
        description="Groups of teams that lend to one another. Only needed for more than one group.",
    )
    sharing: Annotated[Sharing, BeforeValidator(_empty_is_default)] = Field(
        default=Sharing(), description="How idle capacity is divided.", json_schema_extra=_default({})
    )
    preemption: Annotated[Preemption, BeforeValidator(_empty_is_default)] = Field(
        default=Preemption(), description="How a job is made to leave.", json_schema_extra=_default({})
    )
    health: Annotated[HealthRules, BeforeValidator(_empty_is_default)] | None = Field(
        default=None,
        description="How sick nodes are found, repaired and brought back; without it nothing is done to nodes.",
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the policy file, for editors (etc/policy.schema.json)."""
    schema = PolicyFile.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "slurm-gov policy"
    for section in ("teams", "priority_classes"):
        schema["properties"][section]["propertyNames"] = {"pattern": _NAME}
    return schema
