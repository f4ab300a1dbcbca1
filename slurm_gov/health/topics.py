"""The MQTT topics, and what each carries. All stand below a prefix, one per cluster: ``slurm-gov`` by default."""

from __future__ import annotations

import re
from dataclasses import dataclass

from slurm_gov.health.messages import VERSION, Acknowledgement, Command, Event, Heartbeat, Message, Presence, Request
from slurm_gov.health.messages import Status as StatusMessage

DEFAULT_PREFIX = "slurm-gov"

_MODELS: dict[tuple[str, str], type[Message]] = {
    ("node", "status"): StatusMessage,
    ("node", "heartbeat"): Heartbeat,
    ("node", "presence"): Presence,
    ("node", "command"): Command,
    ("provider", "request"): Request,
    ("provider", "acknowledgement"): Acknowledgement,
}
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PREFIX = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")


@dataclass(frozen=True, slots=True)
class Address:
    """What a topic says: which model its payload must be, and which node it is about (None: the cluster)."""

    model: type[Message]
    node: str | None


def check_prefix(prefix: str) -> str:
    """The prefix itself; ValueError if it cannot be one."""
    if not _PREFIX.fullmatch(prefix) or len(prefix) > 200:
        raise ValueError(
            f'"{prefix[:60]}" is no topic prefix: levels of letters, digits, ".", "_" and "-", such as "gov/c1"'
        )
    return prefix


def topic(model: type[Message], node: str | None, prefix: str = DEFAULT_PREFIX) -> str:
    """Where a message is published. ``node="+"`` makes the filter that subscribes to all nodes."""
    root = f"{prefix}/v{VERSION}"
    if model is Event:
        return f"{root}/event/node/{node}" if node else f"{root}/event/cluster"
    for (group, kind), known in _MODELS.items():
        if known is model:
            return f"{root}/{group}/{node}/{kind}"
    raise ValueError(f"{model.__name__} has no topic")


def monitored(prefix: str = DEFAULT_PREFIX) -> list[str]:
    """What the monitor subscribes to: everything from agents and provisioners."""
    return [topic(model, "+", prefix) for model in (StatusMessage, Heartbeat, Presence, Acknowledgement)]


def parse(name: str, prefix: str = DEFAULT_PREFIX) -> Address | None:
    """What a topic is, None if it is none of ours."""
    root = f"{prefix}/v{VERSION}/"
    if not name.startswith(root):
        return None
    levels = name[len(root) :].split("/")
    if levels == ["event", "cluster"]:
        return Address(Event, None)
    if len(levels) != 3:
        return None
    if levels[:2] == ["event", "node"]:
        return Address(Event, levels[2]) if _NODE.fullmatch(levels[2]) else None
    model = _MODELS.get((levels[0], levels[2]))
    return Address(model, levels[1]) if model and _NODE.fullmatch(levels[1]) else None
