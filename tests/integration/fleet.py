"""A broker, agents and a listener for tests: real Mosquitto over TLS, real agents, no Slurm."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiomqtt

from slurm_gov.health import topics
from slurm_gov.health.arrival import Rejected, receive
from slurm_gov.health.messages import FromNode, Heartbeat, Presence, Status
from slurm_gov.sandbox import agents, broker, ports
from slurm_gov.sandbox.governor import program
from slurm_gov.sandbox.layout import Layout

OFF = dict.fromkeys(["gpu", "infiniband", "clock", "tasks", "mounts", "memory", "slurmd"], "off")


def until(check: Callable[[], object], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, f"not so after {timeout:.0f} s: {what}"
        time.sleep(0.05)


class Fleet:
    """A broker and agents in a folder."""

    def __init__(self, folder: Path, nodes: list[str]) -> None:
        self.layout = Layout(folder)
        self.ports = ports.reserve(0)
        self.files = broker.prepare(folder / "mqtt", self.ports.mqtt, nodes)
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self._broker: subprocess.Popen[bytes] | None = None
        self.start_broker()

    def start_broker(self) -> None:
        with (self.layout.dir / "mosquitto.log").open("ab") as log:
            self._broker = subprocess.Popen(self.files.argv(), stdout=log, stderr=log)
        until(lambda: ports.is_listening(self.files.port), "the broker listens")

    def reload_broker(self) -> None:
        """Have it read its access rules again, which it does before it serves its next connection."""
        assert self._broker
        self._broker.send_signal(signal.SIGHUP)

    def kill_broker(self) -> None:
        assert self._broker
        self._broker.kill()
        self._broker.wait()

    def start(self, node: str, *options: str, **changes: Any) -> subprocess.Popen[bytes]:
        """An agent with few checks; ``changes`` replace top-level settings."""
        checks = {**OFF, "disk": {"every": "1s", "paths": [str(self.layout.dir)], "warn_free": 0, "fail_free": 0}}
        changes = {"checks": checks} | changes
        file = agents.prepare(self.layout, node, self.files, 0, changes)
        with (self.layout.dir / f"agent-{node}.log").open("ab") as log:
            command = [program("slurm-gov-agent"), "-c", file, "run", *options]
            self.agents[node] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        return self.agents[node]

    def run(self, node: str, *arguments: str) -> str:
        """A command of slurm-gov-agent on a node."""
        file = agents.config_file(self.layout, node)
        command = [program("slurm-gov-agent"), "-c", file, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def kernel_says(self, node: str, text: str) -> None:
        agents.kernel_says(self.layout, node, text)

    def end(self, node: str, sig: signal.Signals = signal.SIGTERM) -> int:
        agent = self.agents.pop(node)
        agent.send_signal(sig)
        if agent.stdout:
            agent.stdout.close()
        return agent.wait(60)

    def client(self, name: str, identifier: str | None = None, timeout: float = 20) -> aiomqtt.Client:
        """A connection with a name's credential."""
        return aiomqtt.Client(
            broker.ADDRESS, self.files.port, tls_context=self.tls(name), identifier=identifier, timeout=timeout
        )

    def tls(self, name: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.files.ca)
        if name:
            context.load_cert_chain(*self.files.credential(name))
        return context

    def close(self) -> None:
        for node in list(self.agents):
            self.agents[node].send_signal(signal.SIGCONT)
            self.end(node)
        if self._broker:
            self._broker.kill()
            self._broker.wait()
        self.ports.release()


class Listener:
    """Hears all that agents say, as the monitor does: every message goes through ``receive``.

    Not under the governor's name: there is one connection under each, and what a test says as the governor would end
    the listener's, and be ended by it when it comes back.
    """

    def __init__(self, fleet: Fleet, name: str = "watcher") -> None:
        self._fleet, self._name = fleet, name
        self.seen: dict[tuple[str, str], int] = {}
        self.status: dict[str, Status] = {}
        self.presence: dict[str, str] = {}
        self.beats: dict[str, int] = {}
        self.rejected: list[Rejected] = []
        self.connected = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self.connected.wait(60)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._task = self._loop.create_task(self._listen())
            self._loop.run_until_complete(self._task)

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(aiomqtt.MqttError, OSError):
                async with self._fleet.client(self._name) as client:
                    for name in topics.monitored():
                        await client.subscribe(name, qos=1)
                    self.connected.set()
                    async for message in client.messages:
                        self._take(message)
            self.connected.clear()
            await asyncio.sleep(0.2)

    def _take(self, message: aiomqtt.Message) -> None:
        payload = message.payload if isinstance(message.payload, bytes) else b""
        got = receive(str(message.topic), payload, now=time.time(), seen=self.seen, retained=message.retain)
        if isinstance(got, Rejected):
            self.rejected.append(got)
            return
        if isinstance(got, FromNode):
            self.seen[got.node, got.kind] = got.sequence
        if isinstance(got, Status):
            self.status[got.node] = got
        elif isinstance(got, Presence):
            self.presence[got.node] = got.state
        elif isinstance(got, Heartbeat):
            self.beats[got.node] = self.beats.get(got.node, 0) + 1

    def state(self, node: str, check: str) -> str | None:
        """The worst that a node's status says of a check."""
        status = self.status.get(node)
        return next((str(one.state) for one in status.results if one.check == check), None) if status else None

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(20)


async def say(fleet: Fleet, name: str, messages: Mapping[str, bytes | str], **how: Any) -> None:
    """Publish with a name's credential, each message with QoS 1; ``how`` goes to ``Fleet.client``."""
    async with fleet.client(name, **how) as client:
        for topic, payload in messages.items():
            await client.publish(topic, payload, qos=1)


def fleet_in(folder: Path, nodes: list[str]) -> Iterator[Fleet]:
    made = Fleet(folder, nodes)
    try:
        yield made
    finally:
        made.close()
