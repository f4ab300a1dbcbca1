"""The packets between ``job_submit_gov.so`` and ``slurm-govd``.

``docs/wire-format.md`` describes them and ``plugin_c/wire.h`` keeps their numbers. A packet that is malformed
in any way raises `WireError`; nothing else is ever raised for what a peer sent.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Any

MAGIC = 0x564F4753
"""The first four bytes of every packet, ``SGOV``, as a number."""
VERSION = 1
MAX_PACKET = 65536
FLAG_PARTIAL = 1

MEM_PER_CPU = 1 << 63
"""The bit of ``pn_min_memory`` that makes it a size per CPU instead of per node."""


class Kind(enum.IntEnum):
    """What a packet is."""

    SUBMIT = 1
    MODIFY = 2
    ANSWER = 3


class Verdict(enum.IntEnum):
    """What the governor says to a request."""

    ACCEPT = 1
    REFUSE = 2
    ERROR = 3


class Cause(enum.IntEnum):
    """Why a request is refused: chooses the error text of Slurm's own that follows our message."""

    POLICY = 0
    ACCESS = 1
    ACCOUNT = 2
    QOS = 3
    TRES = 4


NUMBERS: dict[str, int] = {
    "submit_uid": 1,
    "user_id": 2,
    "group_id": 3,
    "job_id": 4,
    "het_job_offset": 5,
    "batch": 6,
    "min_nodes": 7,
    "max_nodes": 8,
    "num_tasks": 9,
    "ntasks_per_node": 10,
    "ntasks_per_socket": 11,
    "ntasks_per_tres": 12,
    "cpus_per_task": 13,
    "min_cpus": 14,
    "max_cpus": 15,
    "pn_min_cpus": 16,
    "pn_min_memory": 17,
    "shared": 18,
    "requeue": 19,
    "time_limit": 20,
    "time_min": 21,
    "begin_time": 22,
    "deadline": 23,
    "priority": 24,
    "nice": 25,
    "warn_signal": 26,
    "warn_flags": 27,
    "warn_time": 28,
    "slurm_version": 128,
    "last_round_trip_us": 129,
    "requests": 130,
    "failures": 131,
    "not_asked": 132,
    "breaker_openings": 133,
}
"""Tags of the number fields of a request."""

STRINGS: dict[str, int] = {
    "job_id_str": 64,
    "account": 65,
    "qos": 66,
    "partition": 67,
    "tres_per_job": 68,
    "tres_per_node": 69,
    "tres_per_socket": 70,
    "tres_per_task": 71,
    "cpus_per_tres": 72,
    "mem_per_tres": 73,
    "reservation": 74,
    "array_inx": 75,
    "licenses": 76,
    "wckey": 77,
    "name": 78,
    "features": 79,
    "req_nodes": 80,
    "exc_nodes": 81,
    "dependency": 82,
    "comment": 83,
    "admin_comment": 84,
}
"""Tags of the string fields of a request."""

ANSWER_NUMBERS: dict[str, int] = {"requeue": 19, "verdict": 192, "cause": 193}
"""Tags of the number fields of an answer."""

ANSWER_STRINGS: dict[str, int] = {
    "account": 65,
    "qos": 66,
    "tres_per_job": 68,
    "tres_per_node": 69,
    "tres_per_socket": 70,
    "tres_per_task": 71,
    "comment": 83,
    "admin_comment": 84,
    "message": 194,
}
"""Tags of the string fields of an answer."""


class WireError(ValueError):
    """A packet is malformed, or a value cannot be put into one.

    ``request_id`` is the id in the packet's header when that much could be read: then the peer can be told,
    with ``encode_answer(error.request_id, Verdict.ERROR, message=str(error))``.
    """

    def __init__(self, message: str, request_id: int | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id


@dataclass(slots=True)
class Request:
    """One question of the plugin: may this job be submitted, may this job be modified so.

    The fields from ``user_id`` on have the names and units of Slurm's ``job_desc_msg_t``; None is "not set".
    Strings are decoded as UTF-8 with ``surrogateescape``, since Slurm takes any byte from its users.
    """

    submit_uid: int
    kind: Kind = Kind.SUBMIT
    request_id: int = 0
    partial: bool = False
    """Some fields did not fit into the packet and were left out."""

    user_id: int | None = None
    group_id: int | None = None
    job_id: int | None = None
    het_job_offset: int | None = None
    batch: int | None = None
    """1: it has a script; 0: it has none, an interactive job; None in a modify."""
    min_nodes: int | None = None
    max_nodes: int | None = None
    num_tasks: int | None = None
    ntasks_per_node: int | None = None
    ntasks_per_socket: int | None = None
    ntasks_per_tres: int | None = None
    cpus_per_task: int | None = None
    min_cpus: int | None = None
    max_cpus: int | None = None
    pn_min_cpus: int | None = None
    pn_min_memory: int | None = None
    """MiB; per CPU if the bit `MEM_PER_CPU` is set, else per node."""
    shared: int | None = None
    requeue: int | None = None
    time_limit: int | None = None
    time_min: int | None = None
    begin_time: int | None = None
    deadline: int | None = None
    priority: int | None = None
    """0 is a job submitted held."""
    nice: int | None = None
    warn_signal: int | None = None
    warn_flags: int | None = None
    warn_time: int | None = None

    job_id_str: str | None = None
    account: str | None = None
    qos: str | None = None
    partition: str | None = None
    tres_per_job: str | None = None
    tres_per_node: str | None = None
    tres_per_socket: str | None = None
    tres_per_task: str | None = None
    cpus_per_tres: str | None = None
    mem_per_tres: str | None = None
    reservation: str | None = None
    array_inx: str | None = None
    licenses: str | None = None
    wckey: str | None = None
    name: str | None = None
    features: str | None = None
    req_nodes: str | None = None
    exc_nodes: str | None = None
    dependency: str | None = None
    comment: str | None = None
    admin_comment: str | None = None

    slurm_version: int | None = None
    """``SLURM_VERSION_NUMBER`` of the asking slurmctld."""
    last_round_trip_us: int | None = None
    """Microseconds of the plugin's exchange before this one; each exchange is told once."""
    requests: int | None = None
    """Exchanges since slurmctld loaded the plugin; the next three count since then too."""
    failures: int | None = None
    not_asked: int | None = None
    breaker_openings: int | None = None


@dataclass(slots=True)
class Answer:
    """What the governor answered; None leaves the job's field alone, the empty string clears it."""

    verdict: Verdict
    request_id: int = 0
    cause: Cause = Cause.POLICY
    message: str | None = None
    account: str | None = None
    qos: str | None = None
    tres_per_job: str | None = None
    tres_per_node: str | None = None
    tres_per_socket: str | None = None
    tres_per_task: str | None = None
    requeue: int | None = None
    comment: str | None = None
    admin_comment: str | None = None


_HEADER = struct.Struct("<IHHIIQ")
_FIELD = struct.Struct("<HI")
_NUMBER_FIELD = struct.Struct("<HIQ")

_Tags = dict[int, tuple[str, bool]]


def _tags(numbers: dict[str, int], strings: dict[str, int]) -> _Tags:
    """The name of each tag, and whether its value is a string."""
    return {tag: (name, False) for name, tag in numbers.items()} | {
        tag: (name, True) for name, tag in strings.items()
    }


_REQUEST_TAGS = _tags(NUMBERS, STRINGS)
_ANSWER_TAGS = _tags(ANSWER_NUMBERS, ANSWER_STRINGS)


def decode_request(data: bytes | memoryview) -> Request:
    """Read a request of the plugin."""
    kind, flags, request_id, fields = _decode(data, _REQUEST_TAGS)
    if kind != Kind.SUBMIT and kind != Kind.MODIFY:
        raise WireError(f"kind {kind} is not a request", request_id)
    if "submit_uid" not in fields:
        raise WireError("submit_uid is missing", request_id)
    nice = fields.get("nice")
    if nice is not None and nice >> 63:
        fields["nice"] = nice - (1 << 64)
    return Request(kind=Kind(kind), request_id=request_id, partial=bool(flags & FLAG_PARTIAL), **fields)


def decode_answer(data: bytes | memoryview) -> Answer:
    """Read an answer of the governor, as the plugin does."""
    kind, _, request_id, fields = _decode(data, _ANSWER_TAGS)
    if kind != Kind.ANSWER:
        raise WireError(f"kind {kind} is not an answer", request_id)
    if fields.get("requeue", 0) > 1:
        raise WireError(f"requeue is {fields['requeue']}, not 0 or 1", request_id)
    try:
        verdict = Verdict(fields.pop("verdict"))
    except KeyError:
        raise WireError("verdict is missing", request_id) from None
    except ValueError as error:
        raise WireError(str(error), request_id) from None
    cause = fields.pop("cause", 0)
    return Answer(
        verdict,
        request_id=request_id,
        cause=Cause(cause) if cause in _CAUSES else Cause.POLICY,
        **fields,
    )


def encode_request(request: Request) -> bytes:
    """Write a request as the plugin does, for tests and tools."""
    parts = [b""]
    for name, tag in NUMBERS.items():
        number = getattr(request, name)
        if number is not None:
            parts.append(_number_field(tag, number & _ALL_BITS if name == "nice" else number))
    for name, tag in STRINGS.items():
        text = getattr(request, name)
        if text is not None:
            parts.append(_string_field(tag, text))
    return _packet(parts, request.kind, request.request_id, FLAG_PARTIAL if request.partial else 0)


def encode_answer(
    request_id: int,
    verdict: Verdict,
    *,
    cause: Cause = Cause.POLICY,
    message: str | None = None,
    account: str | None = None,
    qos: str | None = None,
    tres_per_job: str | None = None,
    tres_per_node: str | None = None,
    tres_per_socket: str | None = None,
    tres_per_task: str | None = None,
    requeue: bool | None = None,
    comment: str | None = None,
    admin_comment: str | None = None,
) -> bytes:
    """Write the answer to the request with this id; see `Answer` for the fields."""
    parts = [b"", _number_field(192, verdict)]
    if cause:
        parts.append(_number_field(193, cause))
    if message is not None:
        parts.append(_string_field(194, message))
    if account is not None:
        parts.append(_string_field(65, account))
    if qos is not None:
        parts.append(_string_field(66, qos))
    if tres_per_job is not None:
        parts.append(_string_field(68, tres_per_job))
    if tres_per_node is not None:
        parts.append(_string_field(69, tres_per_node))
    if tres_per_socket is not None:
        parts.append(_string_field(70, tres_per_socket))
    if tres_per_task is not None:
        parts.append(_string_field(71, tres_per_task))
    if requeue is not None:
        parts.append(_number_field(19, requeue))
    if comment is not None:
        parts.append(_string_field(83, comment))
    if admin_comment is not None:
        parts.append(_string_field(84, admin_comment))
    return _packet(parts, Kind.ANSWER, request_id, 0)


_CAUSES = frozenset(Cause)
_ALL_BITS = (1 << 64) - 1


def _decode(data: bytes | memoryview, tags: _Tags) -> tuple[int, int, int, dict[str, Any]]:
    """Check a packet and return its kind, flags, id and fields."""
    packet = data if isinstance(data, bytes) else bytes(data)
    size = len(packet)
    if size < _HEADER.size:
        raise WireError(f"{size} bytes are less than a header")
    if size > MAX_PACKET:
        raise WireError(f"{size} bytes are more than {MAX_PACKET}")
    magic, version, kind, length, flags, request_id = _HEADER.unpack_from(packet)
    if magic != MAGIC:
        raise WireError("the magic number is wrong")
    if version != VERSION:
        raise WireError(f"wire format version {version} is not {VERSION}", request_id)
    if length != size:
        raise WireError(f"the header says {length} bytes, the packet has {size}", request_id)

    fields: dict[str, Any] = {}
    next_field = _FIELD.unpack_from
    position = _HEADER.size
    while position < size:
        if size - position < _FIELD.size:
            raise WireError("a field is cut off", request_id)
        tag, length = next_field(packet, position)
        position += 6
        end = position + length
        if end > size:
            raise WireError(f"the field with tag {tag} is cut off", request_id)
        if tag in tags:
            name, is_string = tags[tag]
            if name in fields:
                raise WireError(f"{name} occurs twice", request_id)
            if is_string:
                if not length or packet.find(0, position, end) != end - 1:
                    raise WireError(f"{name} does not end at its first NUL", request_id)
                fields[name] = packet[position : end - 1].decode("utf-8", "surrogateescape")
            else:
                if length != 8:
                    raise WireError(f"{name} has {length} bytes, not 8", request_id)
                fields[name] = int.from_bytes(packet[position:end], "little")
        position = end
    return kind, flags, request_id, fields


def _number_field(tag: int, number: int) -> bytes:
    try:
        return _NUMBER_FIELD.pack(tag, 8, number)
    except struct.error:
        raise WireError(f"{number} does not fit into the field with tag {tag}") from None


def _string_field(tag: int, text: str) -> bytes:
    try:
        value = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise WireError(f"the field with tag {tag}: {error}") from None
    if b"\0" in value:
        raise WireError(f"the field with tag {tag} holds a NUL")
    return _FIELD.pack(tag, len(value) + 1) + value + b"\0"


def _packet(parts: list[bytes], kind: Kind, request_id: int, flags: int) -> bytes:
    """Put the header into parts[0] and join."""
    size = _HEADER.size + sum(map(len, parts))
    if size > MAX_PACKET:
        raise WireError(f"{size} bytes are more than {MAX_PACKET}")
    parts[0] = _HEADER.pack(MAGIC, VERSION, kind, size, flags, request_id)
    return b"".join(parts)
