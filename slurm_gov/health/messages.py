"""What travels over MQTT: one model per message, version 1. docs/mqtt.md is the same for readers of other programs.

Every message is a JSON object. Fields that a reader does not know are ignored, so that agents and governors may be
upgraded in any order; a change that an old reader would misread gets a new version number, in the topic too.
Times are seconds since 1970 (UTC) by the sender's clock.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

VERSION: Final = 1
MAX_BYTES = 65_536  # of one payload; the agent keeps below it, the broker and the arrival check refuse more
MAX_RESULTS = 256  # in one status


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    return text


# What people read in terminals and in Slurm's node reasons: one printable line.
Line = Annotated[str, Field(max_length=400), AfterValidator(_one_line)]
Word = Annotated[str, Field(max_length=120, min_length=1), AfterValidator(_one_line)]
NodeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,80}$")]
Time = Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]
Sequence = Annotated[int, Field(ge=0, lt=2**53)]


class State(StrEnum):
    """What a check found. ``unknown``: it could not be found out (the check hung, a file was not readable)."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


class Fault(StrEnum):
    """What kind of thing is broken: policies say by it whether to reboot or to replace first."""

    GPU_LOST = "gpu_lost"  # fallen off the bus, fewer than Slurm expects
    GPU_MEMORY = "gpu_memory"  # uncorrectable errors, rows that cannot be remapped
    GPU_RESET = "gpu_reset"  # works again after a reset or a reboot: row remapping pending, engine hung
    GPU_DRIVER = "gpu_driver"  # missing or hanging driver, GSP, firmware
    GPU_THERMAL = "gpu_thermal"
    GPU_POWER = "gpu_power"
    GPU_LINK = "gpu_link"  # NVLink, NVSwitch
    GPU_PCIE = "gpu_pcie"
    GPU_APP = "gpu_app"  # most likely the job's own doing
    NETWORK = "network"
    STORAGE = "storage"
    MEMORY = "memory"
    KERNEL = "kernel"  # tasks stuck in the kernel
    CLOCK = "clock"
    SLURMD = "slurmd"
    SITE = "site"  # a site's own check
    OTHER = "other"


class Advice(StrEnum):
    """What whoever made the hardware says to do about it; a hint, the policy decides."""

    NONE = "none"
    RESTART_APP = "restart_app"
    DRAIN = "drain"  # let the jobs finish, then reset or reboot: row remapping pending, XID 154 "Drain and Reset"
    RESET_GPU = "reset_gpu"
    REBOOT = "reboot"
    REPLACE = "replace"
    PERSON = "person"  # mechanics, firmware, support: needs somebody


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class Gpu(_Message):
    """Which GPU: its index on the node as Slurm and NVML count, and its UUID if known."""

    index: Annotated[int, Field(ge=0, lt=1024)] | None = None
    uuid: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,80}$")] | None = None


class CheckResult(_Message):
    """What one check says about one subject. ``(check, subject)`` names it; at most one result each.

    A check whose subjects are all well sends one ``ok`` with the empty subject.
    """

    check: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
    state: State
    subject: Annotated[str, Field(max_length=120), AfterValidator(_one_line)] = ""  # "gpu 3", "/scratch", "mlx5_0/1"
    fault: Fault | None = None  # None if ok
    code: Annotated[int, Field(ge=0, lt=100_000)] | None = None  # the XID, a site check's exit code
    advice: Advice = Advice.NONE
    gpu: Gpu | None = None
    message: Line = ""
    since: Time  # in this state since
    checked: Time  # the last time that it was looked at
    injected: bool = False  # a drill: `slurm-gov-agent inject`


class FromNode(_Message):
    """What every message of an agent has."""

    kind: ClassVar[str]
    version: Literal[1] = VERSION
    node: NodeName
    boot_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,80}$")]  # changes with every boot
    sequence: Sequence
    time: Time


class Status(FromNode):
    """Everything that an agent knows, retained: sent on every change, after every connect, and now and then."""

    kind: ClassVar[str] = "status"
    agent_version: Word
    results: Annotated[tuple[CheckResult, ...], Field(max_length=MAX_RESULTS)]
    left_out: Annotated[int, Field(ge=0)] = 0  # results that did not fit, the least bad ones
    heartbeat: Annotated[float, Field(gt=0, le=86_400)] = 10.0  # seconds between this agent's heartbeats
    command: Id | None = None  # the last command that this status answers: all results are younger


class Heartbeat(FromNode):
    """The agent lives and its loop turns. Not retained, QoS 0."""

    kind: ClassVar[str] = "heartbeat"


class Presence(FromNode):
    """Retained: ``online`` after each connect, and as last will ``offline``, published by the broker.

    The will is made at the connect: its sequence and time are those of the connect, equal to its ``online``.
    ``stopping``: the agent ended as told (a shutdown, an upgrade), and says so itself.
    """

    kind: ClassVar[str] = "presence"
    state: Literal["online", "offline", "stopping"]


class Command(_Message):
    """The governor asks an agent. QoS 1, not retained; the answer is a status with ``command`` set to ``id``.

    ``check``: run all checks now; with ``deep`` also those that the node's agent.yaml marks so.
    ``clear``: forget XIDs and other faults that stay until somebody says so, then check.
    """

    kind: ClassVar[str] = "command"
    version: Literal[1] = VERSION
    node: NodeName
    id: Id
    time: Time
    command: Literal["check", "clear"]
    deep: bool = False


class Request(_Message):
    """The governor asks a provisioner to do something to a node. Retained, QoS 1, cleared when it is over.

    The same ``id`` is the same request, however often it comes. Not answered as ``done`` by ``deadline``: failed.
    """

    kind: ClassVar[str] = "request"
    version: Literal[1] = VERSION
    node: NodeName
    id: Id
    time: Time
    operation: Literal["reboot", "replace", "status"]
    deadline: Time
    attempt: Annotated[int, Field(ge=1)] = 1
    pool: Word | None = None
    fault: Fault | None = None
    reason: Line = ""
    injected: bool = False


class Acknowledgement(_Message):
    """A provisioner answers: first ``accepted`` or ``refused``, then ``done`` or ``failed``. QoS 1."""

    kind: ClassVar[str] = "acknowledgement"
    version: Literal[1] = VERSION
    node: NodeName
    id: Id  # of the request
    time: Time
    state: Literal["accepted", "refused", "done", "failed"]
    message: Line = ""


class Event(_Message):
    """Something that the governor saw or did, for whoever wants to know. QoS 1, not retained."""

    kind: ClassVar[str] = "event"
    version: Literal[1] = VERSION
    node: NodeName | None  # None: the cluster, a pool, the circuit breaker
    time: Time
    event: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
    pool: Word | None = None
    before: Word | None = None  # states of the node lifecycle
    after: Word | None = None
    fault: Fault | None = None
    reason: Line = ""
    jobs: Annotated[tuple[Word, ...], Field(max_length=1000)] = ()
    injected: bool = False


Message = Status | Heartbeat | Presence | Command | Request | Acknowledgement | Event
