"""Programs that bench/agents.py starts: a swarm of simulated agents, and a monitor that counts.

A simulated agent is what an agent is to the broker: a TLS connection of its own with its own credential, a last
will, a retained status of twenty results, heartbeats. It runs no checks.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import aiomqtt

from slurm_gov import __version__
from slurm_gov.health import topics
from slurm_gov.health.agent_config import Broker as BrokerConfig
from slurm_gov.health.agent_config import known_checks
from slurm_gov.health.board import Board
from slurm_gov.health.checks.base import FAIL, Result
from slurm_gov.health.messages import Heartbeat, Presence, Status
from slurm_gov.health.monitor import Broker, Monitor
from slurm_gov.health.uplink import tls_context
from slurm_gov.sandbox.broker import ADDRESS, BrokerFiles


class Simulated:
    """One agent."""

    def __init__(self, files: BrokerFiles, node: str, heartbeat: float) -> None:
        self.node, self.heartbeat = node, heartbeat
        certificate, key = files.credential(node)
        self.broker = BrokerConfig(host=ADDRESS, port=files.port, ca=files.ca, cert=certificate, key=key)
        self.board = Board()
        for check in known_checks():
            self.board.put(check, [], time.time())
        self.sequence = int(time.time() * 1000)
        self.report = asyncio.Event()
        self.client: aiomqtt.Client | None = None

    def head(self) -> dict[str, Any]:
        self.sequence += 1
        return {"node": self.node, "boot_id": "simulated", "sequence": self.sequence, "time": time.time()}

    async def run(self) -> None:
        wait = 1.0
        while True:
            try:
                await self._connected()
            except (aiomqtt.MqttError, OSError):
                await asyncio.sleep(random.uniform(0.2, 1.0) * wait)
                wait = min(wait * 2, self.broker.longest_wait)

    async def _connected(self) -> None:
        online = Presence(**self.head(), state="online")
        will = online.model_copy(update={"state": "offline"}).model_dump_json()
        presence = topics.topic(Presence, self.node)
        client = aiomqtt.Client(
            ADDRESS, self.broker.port, tls_context=tls_context(self.broker), keepalive=60, timeout=60,
            will=aiomqtt.Will(presence, will, qos=1, retain=True),
        )  # fmt: skip
        async with client:
            await client.publish(presence, online.model_dump_json(), qos=1, retain=True)
            self.report.set()
            while True:
                if self.report.is_set():
                    self.report.clear()
                    status = self.board.status(**self.head(), agent_version=__version__)
                    name = topics.topic(Status, self.node)
                    await client.publish(name, status.model_dump_json(), qos=1, retain=True)
                try:
                    await asyncio.wait_for(self.report.wait(), self.heartbeat * random.uniform(0.8, 1.2))
                except TimeoutError:
                    beat = Heartbeat(**self.head())
                    await client.publish(topics.topic(Heartbeat, self.node), beat.model_dump_json(), qos=0)

    def fails(self) -> None:
        self.board.put("xid", [Result(FAIL, "XID 79", f"gpu 3 {time.time()}", "gpu_lost", 79)], time.time())
        self.report.set()


async def swarm(files: BrokerFiles, nodes: list[str], heartbeat: float) -> None:
    """Obeys lines on standard input: a number, of agents that shall report a fault now."""
    agents = [Simulated(files, node, heartbeat) for node in nodes]
    running = []
    for agent in agents:
        running.append(asyncio.create_task(agent.run()))
        await asyncio.sleep(0.02)  # a cluster boots over some time
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        for agent in random.sample(agents, int(line)):
            agent.fails()


async def monitor(files: BrokerFiles) -> None:
    """The governor's monitor. Each line on standard input is answered with what came since the last."""
    certificate, key = files.credential("governor")
    delays: list[float] = []

    def changed(node: str) -> None:
        delays.append(time.time() - one.reports[node].status.time)

    one = Monitor(Broker(ADDRESS, files.port, files.ca, certificate, key), changed)
    running = asyncio.create_task(one.run())
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        online = sum(report.online for report in one.reports.values())
        known = {"known": len(one.reports), "online": online, "connected": one.counts.connected}
        counts = {"accepted": dict(one.counts.accepted), "refused": dict(one.counts.refused)}
        print(json.dumps({"delays": delays, **known, **counts}), flush=True)
        delays.clear()
    running.cancel()


if __name__ == "__main__":
    what, folder, port = sys.argv[1:4]
    here = BrokerFiles(Path(folder), int(port))
    if what == "monitor":
        asyncio.run(monitor(here))
    else:
        asyncio.run(swarm(here, sys.argv[5:], float(sys.argv[4])))
