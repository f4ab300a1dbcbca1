"""Is a message that arrived to be believed? A pure function: the caller keeps the clock and what came before.

The broker's access rules keep one node from writing another's topics; this keeps what does come through from doing
harm: broken, huge, misdirected, dated in the future, or played again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from slurm_gov.health.messages import MAX_BYTES, FromNode, Message, Presence, Status
from slurm_gov.health.topics import DEFAULT_PREFIX, parse

# Clocks differ, and munge's own tolerance is five minutes; a node beyond one minute is itself a fault (check clock).
FUTURE = 60.0
# What is not retained is read when it is sent. Longer than a broker's queue for a client that was away.
STALE = 300.0

Seen = Mapping[tuple[str, str], int]
"""The last accepted sequence number by ``(node, kind)``, of status, heartbeat and presence."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that changes nothing, and why.

    ``reason``: ``unknown_topic``, ``too_large``, ``malformed``, ``wrong_node``, ``future``, ``stale``, ``replayed``;
    ``duplicate`` and ``cleared`` are ordinary: a retained message read again, and one that was taken away.
    """

    topic: str
    reason: str
    message: str
    node: str | None = None

    @property
    def harmless(self) -> bool:
        return self.reason in ("duplicate", "cleared")


def receive(
    topic: str,
    payload: bytes,
    *,
    now: float,
    seen: Seen,
    retained: bool = False,
    prefix: str = DEFAULT_PREFIX,
) -> Message | Rejected:
    """The message, or why it is not one. ``retained``: the broker kept it from before we subscribed.

    ``now`` is the reader's clock. After accepting a message from a node the caller notes
    ``seen[message.node, message.kind] = message.sequence``.
    """
    address = parse(topic, prefix)
    if address is None:
        return Rejected(topic[:200], "unknown_topic", "not a topic of this version")

    def reject(reason: str, message: str) -> Rejected:
        return Rejected(topic, reason, message, address.node)

    if len(payload) > MAX_BYTES:
        return reject("too_large", f"{len(payload)} bytes, at most {MAX_BYTES} are read")
    if not payload:
        return reject("cleared", "the retained message was taken away")
    try:
        message = address.model.model_validate_json(payload)
    except ValidationError as error:
        return reject("malformed", _first(error))
    if message.node != address.node:
        return reject("wrong_node", f"says it is about {message.node}")
    if message.time > now + FUTURE:
        return reject("future", f"dated {message.time - now:.0f} s in the future, at most {FUTURE:.0f} s are taken")
    keeps = isinstance(message, Status | Presence) or retained  # these stay true while nothing newer comes
    if not keeps and message.time < now - STALE:
        return reject("stale", f"{now - message.time:.0f} s old")
    if isinstance(message, FromNode):
        last = seen.get((message.node, message.kind), -1)
        # A last will has the number of its own "online"; an older connection's will says nothing about this one.
        ends = isinstance(message, Presence) and message.state != "online"
        if message.sequence < last:
            return reject("replayed", f"number {message.sequence} after {last}")
        if message.sequence == last and not ends:
            return reject("duplicate", f"number {message.sequence} again")
    return message


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, in one printable line."""
    one = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in one["loc"])
    text = f"{place}: {one['msg']}" if place else one["msg"]
    return "".join(c if c.isprintable() else "?" for c in text)[:200]
