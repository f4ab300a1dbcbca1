"""The agent's connection to the broker: says what the board knows, hears commands, comes back when it breaks."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from pathlib import Path

import aiomqtt

from slurm_gov.health.agent import Agent
from slurm_gov.health.agent_config import Broker
from slurm_gov.health.arrival import Rejected, receive
from slurm_gov.health.messages import Command, FromNode, Heartbeat, Presence, Status
from slurm_gov.health.topics import topic

log = logging.getLogger("slurm-gov-agent")
_ANSWER = 10.0  # seconds that the broker may take for anything
_APART = 1.0  # seconds between two statuses: something that flaps must not flood the broker


class Uplink:
    """Speaks for one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._config = agent.config
        self._said = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``: connect, talk, and when that breaks wait and connect again."""
        wait = 1.0
        while not stop.is_set():
            started = time.monotonic()
            try:
                await self._connection(stop)
            except (aiomqtt.MqttError, OSError, ssl.SSLError, ValueError) as error:
                self._say(str(error) or type(error).__name__)
            if stop.is_set():
                return
            if time.monotonic() - started > 60:
                wait = 1.0
            # A random part of it: a thousand agents lost their broker in the same moment.
            await _either(stop, random.uniform(0.2, 1.0) * wait)
            wait = min(wait * 2, self._config.broker.longest_wait)

    async def _connection(self, stop: asyncio.Event) -> None:
        broker, agent = self._config.broker, self._agent
        online = Presence(**agent.head(), state="online")
        will = online.model_copy(update={"state": "offline"})
        password = broker.password_file.read_text().strip() if broker.password_file else None
        client = aiomqtt.Client(
            broker.host,
            broker.port,
            username=broker.user,
            password=password,
            identifier=agent.node,
            tls_context=tls_context(broker),
            keepalive=int(broker.keepalive),
            timeout=_ANSWER,
            will=aiomqtt.Will(self._topic(Presence), will.model_dump_json(), qos=1, retain=True),
        )
        async with client:
            log.info("connected to %s:%d", broker.host, broker.port)
            self._said = ""
            await client.subscribe(self._topic(Command), qos=1)
            await self._publish(client, online, retain=True)  # who is online hears commands
            listening = asyncio.create_task(self._listen(client))
            try:
                await self._talk(client, stop, listening)
            finally:
                listening.cancel()
                await asyncio.wait([listening])
            if stop.is_set():
                await self._publish(client, Presence(**agent.head(), state="stopping"), retain=True)

    async def _talk(self, client: aiomqtt.Client, stop: asyncio.Event, listening: asyncio.Task[None]) -> None:
        agent, told = self._agent, float("-inf")
        beat = time.monotonic()
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                now = time.monotonic()
                if now >= beat:
                    await self._publish(client, Heartbeat(**agent.head()), qos=0)
                    beat = now + self._config.heartbeat
                if agent.ready.is_set() and (agent.wake.is_set() or now - told > self._config.status):
                    if now - told >= _APART:
                        agent.wake.clear()
                        agent.board.changed = False
                        await self._publish(client, agent.status(), retain=True)
                        told = now
                        continue
                    until = min(beat, told + _APART)
                else:
                    until = min(beat, told + self._config.status) if told > 0 else beat
                waking = asyncio.create_task(agent.wake.wait()) if not agent.wake.is_set() else None
                waited = [task for task in (stopping, listening, waking) if task]
                await asyncio.wait(waited, timeout=max(until - now, 0.01), return_when=asyncio.FIRST_COMPLETED)
                if waking:
                    waking.cancel()
                if listening.done():
                    listening.result()
                    raise aiomqtt.MqttError("the broker closed the connection")
        finally:
            stopping.cancel()

    async def _listen(self, client: aiomqtt.Client) -> None:
        doing: set[asyncio.Task[None]] = set()
        try:
            async for message in client.messages:
                payload = message.payload if isinstance(message.payload, bytes) else b""
                got = receive(
                    str(message.topic),
                    payload,
                    now=time.time(),
                    seen={},
                    retained=message.retain,
                    prefix=self._config.prefix,
                )
                if isinstance(got, Rejected):
                    log.warning("a command is refused: %s: %s", got.reason, got.message)
                elif isinstance(got, Command) and got.node == self._agent.node:
                    task = asyncio.create_task(self._agent.obey(got))
                    doing.add(task)
                    task.add_done_callback(doing.discard)
        finally:
            for task in doing:
                task.cancel()

    async def _publish(
        self, client: aiomqtt.Client, message: FromNode, *, qos: int = 1, retain: bool = False
    ) -> None:
        await client.publish(self._topic(type(message)), message.model_dump_json(), qos=qos, retain=retain)

    def _topic(self, model: type[Status | Heartbeat | Presence | Command | FromNode]) -> str:
        return topic(model, self._agent.node, self._config.prefix)  # type: ignore[arg-type]

    def _say(self, problem: str) -> None:
        """Once per problem, however often it comes again."""
        if problem != self._said:
            log.warning("no connection to %s:%d: %s", self._config.broker.host, self._config.broker.port, problem)
            self._said = problem


def tls_context(broker: Broker) -> ssl.SSLContext | None:
    """How the connection is encrypted; made anew for each, so that a renewed credential is taken up."""
    if broker.ca is None:
        return None
    context = ssl.create_default_context(cafile=_there(broker.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if broker.cert and broker.key:
        context.load_cert_chain(_there(broker.cert), _there(broker.key))
    return context


def _there(file: Path) -> Path:
    with file.open():  # ssl does not name the file that it cannot read
        return file


async def _either(stop: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until ``stop``."""
    task = asyncio.create_task(stop.wait())
    await asyncio.wait([task], timeout=seconds)
    task.cancel()
