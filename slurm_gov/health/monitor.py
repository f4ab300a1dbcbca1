"""What the node agents say, as the governor knows it: the subscriber, and the last report of every node.

The broker may be away for any time: what was last known stays known, with its age. Nothing here judges.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiomqtt

from slurm_gov.health.arrival import Rejected, receive
from slurm_gov.health.journal import Reported
from slurm_gov.health.messages import Acknowledgement, Event, FromNode, Heartbeat, Message, Presence, Status
from slurm_gov.health.topics import DEFAULT_PREFIX, check_prefix, monitored, topic

RETRY = (1.0, 15.0)
"""Seconds between two tries to reach the broker: at first and at most."""
SETTLE = 1.0
UNSENT = 1000
"""Messages that wait for the broker; of more the oldest are dropped."""


class BrokerError(Exception):
    """The broker cannot be what was said; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is, and who we are there. Without ``ca`` the connection is not encrypted."""

    host: str
    port: int = 8883
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    prefix: str = DEFAULT_PREFIX

    @classmethod
    def at(cls, address: str, ca: Path | None, certificate: Path | None, key: Path | None, prefix: str) -> Broker:
        """A broker at ``HOST`` or ``HOST:PORT``. Raises ``BrokerError`` if that, or a file, is no good."""
        host, colon, port = address.rpartition(":")
        if not colon:
            host, port = address, "8883"
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise BrokerError(f"--mqtt {address}: write HOST or HOST:PORT, such as broker.example.org:8883")
        try:
            broker = cls(host.strip("[]"), int(port), ca, certificate, key, check_prefix(prefix))
            broker.tls()
        except (OSError, ValueError) as error:
            named = ", ".join(str(file) for file in (ca, certificate, key) if file)
            raise BrokerError(f"--mqtt {address}: {error}" + (f" ({named})" if named else "")) from None
        return broker

    def tls(self) -> ssl.SSLContext | None:
        """Raises ``OSError`` if a file cannot be read."""
        if self.ca is None:
            return None
        context = ssl.create_default_context(cafile=str(self.ca))
        if self.certificate is not None:
            context.load_cert_chain(str(self.certificate), str(self.key) if self.key else None)
        return context


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of one node. ``received``: when its status came; ``heard``: its last sign of life, by our clock.

    ``online`` is False from the agent's last will, or its farewell, until its next message.
    """

    status: Status
    received: float
    heard: float
    online: bool = True


@dataclass
class Counts:
    """What came: accepted by kind, refused by reason, and whether the broker is there."""

    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    connected: bool = False


class Monitor:
    """Subscribes, and keeps what came. ``changed(node)`` is called when a node's report is another than before."""

    def __init__(
        self,
        broker: Broker | None,
        changed: Callable[[str], None],
        known: Iterable[Reported] = (),
        say: Callable[[str, str], None] = lambda level, text: None,
    ) -> None:
        self.reports: dict[str, Report] = {}
        self.counts = Counts()
        self._broker = broker
        self._changed = changed
        self._say = say
        self._seen: dict[tuple[str, str], int] = {}
        self._outbox: deque[tuple[str, str, bool]] = deque(maxlen=UNSENT)
        self._send = asyncio.Event()
        self._waiting: dict[str, asyncio.Queue[Acknowledgement]] = {}
        self._since = float("-inf")
        for one in known:
            with contextlib.suppress(ValueError):
                status = Status.model_validate_json(one.payload)
                self.reports[one.node] = Report(status, one.received, one.heard, one.presence != "offline")
                self._seen[one.node, Status.kind] = status.sequence - 1  # the broker's copy is as good

    @property
    def can_publish(self) -> bool:
        """Whether there is a broker at all."""
        return self._broker is not None

    @property
    def settling(self) -> float:
        """For how many seconds more it should be listened before anything is decided: after each connection all that
        is retained comes at once, and a fault of many nodes is to be seen whole.
        """
        return max(0.0, self._since + SETTLE - time.monotonic()) if self.counts.connected else 0.0

    async def run(self) -> None:
        """Stay connected until cancelled."""
        if self._broker is None:
            return
        wait = RETRY[0]
        while True:
            try:
                await self._connected(self._broker)
            except (aiomqtt.MqttError, OSError, ssl.SSLError) as error:
                if self.counts.connected or wait == RETRY[0]:
                    self._say("error", f"the MQTT broker does not answer, what was last known stays known: {error}")
                wait = RETRY[0] if self.counts.connected else wait
                self.counts.connected = False
            await asyncio.sleep(wait)
            wait = min(2 * wait, RETRY[1])

    async def _connected(self, broker: Broker) -> None:
        client = aiomqtt.Client(
            broker.host,
            broker.port,
            tls_context=broker.tls(),
            keepalive=20,
            timeout=10,
            max_queued_incoming_messages=0,
        )
        async with client:
            for name in monitored(broker.prefix):
                await client.subscribe(name, qos=1)
            self.counts.connected = True
            self._since = time.monotonic()
            self._say("info", f"MQTT broker {broker.host}:{broker.port} is there")
            sending = asyncio.create_task(self._sender(client, broker))
            try:
                async for message in client.messages:
                    payload = message.payload if isinstance(message.payload, bytes) else b""
                    self.take(str(message.topic), payload, time.time(), message.retain)
            finally:
                sending.cancel()
                with contextlib.suppress(asyncio.CancelledError, aiomqtt.MqttError):
                    await sending

    async def _sender(self, client: aiomqtt.Client, broker: Broker) -> None:
        while True:
            while self._outbox:
                name, payload, retain = self._outbox[0]
                await client.publish(name, payload, qos=1, retain=retain)
                with contextlib.suppress(IndexError):
                    self._outbox.popleft()
            self._send.clear()
            await self._send.wait()

    def publish(self, message: Message, retain: bool = False) -> None:
        """Send when the broker is there."""
        self._put(message, message.model_dump_json(), retain)

    def clear(self, message: Message) -> None:
        """Take a retained message away."""
        self._put(message, "", True)

    def _put(self, message: Message, payload: str, retain: bool) -> None:
        if self._broker is not None:
            self._outbox.append((topic(type(message), message.node, self._broker.prefix), payload, retain))
            self._send.set()

    @contextlib.contextmanager
    def acknowledgements(self, id: str) -> Iterator[asyncio.Queue[Acknowledgement]]:
        """The answers to one request, while the context is open."""
        queue: asyncio.Queue[Acknowledgement] = asyncio.Queue()
        self._waiting[id] = queue
        try:
            yield queue
        finally:
            self._waiting.pop(id, None)

    def take(self, name: str, payload: bytes, now: float, retained: bool) -> None:
        """One message that came."""
        prefix = self._broker.prefix if self._broker else DEFAULT_PREFIX
        message = receive(name, payload, now=now, seen=self._seen, retained=retained, prefix=prefix)
        if isinstance(message, Rejected):
            self.counts.refused[message.reason] += 1
            if not message.harmless:
                self._say("warning", f"message refused: {message.topic}: {message.reason}: {message.message}")
            return
        self.counts.accepted[message.kind] += 1
        if isinstance(message, Acknowledgement):
            if queue := self._waiting.get(message.id):
                queue.put_nowait(message)
            return
        if not isinstance(message, FromNode):
            return
        self._seen[message.node, message.kind] = message.sequence
        before = self.reports.get(message.node)
        if isinstance(message, Status):
            # A retained one was sent some time ago: its own time is the better guess.
            came = min(now, message.time) if retained else now
            online = before.online if before and retained else True
            self.reports[message.node] = Report(message, came, max(came, before.heard if before else came), online)
            if before is None or before.status.results != message.results or before.status.command != message.command:
                self._changed(message.node)
        elif before is not None and isinstance(message, Heartbeat):
            self.reports[message.node] = Report(before.status, before.received, now, True)
        elif before is not None and isinstance(message, Presence):
            online = message.state == "online"
            heard = now if online and not retained else before.heard
            self.reports[message.node] = Report(before.status, before.received, heard, online)
            if online != before.online:
                self._changed(message.node)

    def kept(self) -> list[Reported]:
        """Everything, to be written down."""
        return [
            Reported(
                node, one.received, one.heard, "online" if one.online else "offline", one.status.model_dump_json()
            )
            for node, one in self.reports.items()
        ]


__all__ = ["Broker", "Event", "Monitor", "Report"]
