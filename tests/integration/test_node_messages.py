"""What agents say, what is said about nodes, and what nobody may say: over a real Mosquitto (TLS), and by Slurm."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from node_cluster import NODES, Nodes
from prometheus import running
from test_seen import NEEDS_HEALTH, dashboard

from slurm_gov.health.arrival import FUTURE
from slurm_gov.health.messages import MAX_BYTES, Event


class Voice:
    """A connection to the broker with somebody's credential."""

    def __init__(self, nodes: Nodes, name: str, client_id: str = "") -> None:
        certificate, key = nodes.sandbox.broker.credential(name)
        self.heard: list[tuple[str, bytes]] = []
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id or f"{name}-test")
        self.client.tls_set(str(nodes.sandbox.broker.ca), str(certificate), str(key))
        self.client.on_message = lambda _, __, message: self.heard.append((message.topic, message.payload))
        self.client.connect("127.0.0.1", nodes.sandbox.broker.port)
        self.client.loop_start()

    def says(self, topic: str, payload: bytes | str) -> None:
        """With QoS 1, until the broker has it: it does not say whether it passes it on."""
        self.client.publish(f"slurm-gov/v1/{topic}", payload, qos=1).wait_for_publish(30)

    def close(self) -> None:
        self.client.loop_stop()
        self.client.disconnect()


@pytest.fixture
def voice(nodes: Nodes) -> Iterator[Any]:
    """``voice(name)`` connects with a name's credential."""
    made: list[Voice] = []

    def connect(name: str) -> Voice:
        made.append(Voice(nodes, name))
        return made[-1]

    yield connect
    for one in made:
        one.close()


def status(node: str, **changes: object) -> dict[str, Any]:
    """A status in which GPU 3 has fallen off the bus: a node of which this is believed is drained at once."""
    now = time.time()
    result = {
        "check": "xid", "state": "fail", "subject": "gpu 3", "fault": "gpu_lost", "code": 79, "advice": "reboot",
        "message": "forged", "since": now - 9, "checked": now,
    }  # fmt: skip
    head = {"version": 1, "node": node, "boot_id": "b", "sequence": int(now * 1000), "time": now}
    return head | {"agent_version": "x", "results": [result]} | changes


def refused(nodes: Nodes) -> dict[str, int]:
    """Messages that the governor refused, by reason, as /metrics has them."""
    text = nodes.metrics()
    found = re.findall(r'^slurm_gov_mqtt_refused_messages_total\{reason="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return {reason: int(float(count)) for reason, count in found}


def test_nobody_speaks_for_another_node_nor_gets_one_drained_by_nonsense(nodes: Nodes, voice: Any) -> None:
    """Each message says that a GPU is lost; none is believed, and Slurm drains nothing. Then one that is."""
    since = time.time()
    log = nodes.sandbox.log("slurm-govd")
    before = refused(nodes)
    nodes.until(lambda: nodes.listed()["n2"]["heard"] is not None, "n2 was heard: else nothing is a replay", 60)
    nodes.sandbox.stop_agent("n2")  # there is one connection under each name
    n2 = voice("n2")
    for other in ("n1", "n3"):  # the broker lets none of these through
        n2.says(f"node/{other}/status", json.dumps(status(other)))
        n2.says(f"node/{other}/presence", json.dumps(status(other) | {"state": "offline"}))
        n2.says(f"provider/{other}/acknowledgement", b"{}")
        n2.says(f"event/node/{other}", b"{}")
    right = status("n2")
    big = json.dumps(right | {"padding": "x" * MAX_BYTES})
    bad = {
        "wrong_node": json.dumps(status("n1")),
        "malformed": json.dumps(right)[:-1],
        "too_large": big,
        "future": json.dumps(right | {"time": time.time() + FUTURE + 600}),
        "replayed": json.dumps(right | {"sequence": 1}),
    }
    for payload in bad.values():
        n2.says("node/n2/status", payload)
    n2.says("node/n2/status", b"[" * 60_000)
    n2.says("node/n2/status", b"\x00\xff")
    n2.says("node/n2/heartbeat", json.dumps(right | {"time": time.time() - 3600}))
    expected = {reason: before.get(reason, 0) + 1 for reason in bad} | {"stale": before.get("stale", 0) + 1}
    expected["malformed"] += 2
    nodes.until(lambda: expected.items() <= refused(nodes).items(), f"all are refused and counted: {expected}", 30)
    nodes.stays(lambda: set(nodes.sandbox.nodes().values()) == {"idle"}, "Slurm drains nothing", 2)
    assert all(nodes.path(node, since) == [] for node in NODES) and "forged" not in log.read_text()
    assert 'slurm_gov_agents{state="offline"} 1.0' in nodes.metrics(), "only n2's agent, which was stopped"
    # That it could be otherwise: the node itself, in its own name.
    n2.says("node/n2/status", json.dumps(right))
    nodes.until(lambda: nodes.drained("n2"), "what n2 says of itself is believed")
    n2.close()
    nodes.goes("n2", since, "doubted", "condemned", "rebooted", "returned", "passed")
    assert "forged" in log.read_text()


def test_events_tell_a_site_what_happens_to_its_nodes(nodes: Nodes, voice: Any) -> None:
    """Every arrow, the jobs that were made to leave, alerts: with the provisioner's own credential."""
    site = voice("provisioner")
    site.client.subscribe("slurm-gov/v1/event/#", qos=1)
    job = nodes.sbatch("research", "-N1", "-w", "n4", "--gpus-per-node=8")
    nodes.running(job)
    since = nodes.fault("n4", "gone")
    nodes.goes("n4", since, "doubted", "condemned", "replaced", "returned", "passed")
    nodes.update("n5", "fail", "action:replace")

    def events(node: str) -> list[Event]:
        found = [Event.model_validate_json(text) for topic, text in site.heard if topic.endswith(f"/node/{node}")]
        return [one for one in found if one.time >= since]

    nodes.until(lambda: events("n5") and events("n4") and events("n4")[-1].event == "passed", "all is told")
    told = events("n4")
    assert [one.event for one in told] == [
        "doubted", "condemned", "job", "replaced", "returned", "passed"
    ]  # fmt: skip
    assert [one.after for one in told if one.before] == ["suspect", "draining", "replacing", "verifying", "healthy"]
    replaced = told[3]
    assert (replaced.node, replaced.pool, replaced.fault, replaced.injected) == ("n4", "h100", "gpu_link", True)
    assert told[2].jobs == (str(job),)
    (alert,) = events("n5")
    assert alert.event == "alert" and 'reason="Action:Replace"' in alert.reason
    hostile = [topic for topic, _ in site.heard if "/event/" not in topic]
    assert hostile == []


def test_the_broker_away_changes_nothing(nodes: Nodes) -> None:
    """What was last known stays known; after its return agents say again what is."""
    since = time.time()
    nodes.sandbox.stop_broker(sig=signal.SIGKILL)
    nodes.stays(lambda: all(state == "idle" for state in nodes.sandbox.nodes().values()), "all nodes take work", 4)
    nodes.fault("n4", "odd")
    nodes.sandbox.start_broker()
    nodes.gets("n4", "suspect")
    nodes.well("n4")
    nodes.goes("n4", since, "doubted", "recovered")
    assert all(nodes.path(node, since) == [] for node in NODES if node != "n4")


def test_an_agent_that_is_killed_or_hangs_drains_nothing(nodes: Nodes, voice: Any) -> None:
    """The broker tells both; with slurmd alive Slurm's node takes work all the same, and the list says who is silent.
    When the policy asks for it, a silent node takes no more work, until it speaks again.
    """
    ear = voice("watcher")
    ear.client.subscribe("slurm-gov/v1/node/+/presence", qos=1)

    def presence(node: str) -> str:
        last = [text for topic, text in ear.heard if topic.endswith(f"/node/{node}/presence")]
        return str(json.loads(last[-1])["state"]) if last else ""

    nodes.until(lambda: presence("n8") == presence("n9") == "online", "both are there")
    since = time.time()
    nodes.sandbox.stop_agent("n9", sig=signal.SIGKILL)
    hung = nodes.sandbox.pids()["agent-n8"]
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)
    try:
        nodes.until(lambda: presence("n9") == "offline", "the last will of who was killed", 30)
        nodes.until(lambda: presence("n8") == "offline", "and of who hangs", 60)
        job = nodes.sbatch("research", "-N2", "-w", "n8,n9", "--gpus-per-node=8")
        nodes.running(job)
        nodes.stays(lambda: nodes.state("n8") == nodes.state("n9") == "healthy", "they are healthy", 5)
        assert nodes.path("n8", since) == nodes.path("n9", since) == []
        nodes.until(lambda: not nodes.listed()["n9"]["online"] and not nodes.listed()["n8"]["online"], "it is said")
        assert nodes.listed()["n9"]["heard"] > 5
        nodes.rules("breaker: 40%\nsilence_after: 10s")
        for node in ("n8", "n9"):
            nodes.gets(node, "suspect")
            nodes.agrees(node)
        assert (
            nodes.states()[job] == "R" and nodes.in_slurm("n9")[1] == "slurm-gov: suspect: the node agent is silent"
        )
    finally:
        os.kill(hung, signal.SIGCONT)
        nodes.sandbox.start_agent("n9")
    nodes.goes("n8", since, "doubted", "recovered")
    nodes.goes("n9", since, "doubted", "recovered")


def test_the_panels_about_nodes_have_data(nodes: Nodes, tmp_path: Path) -> None:
    """What the rest of the dashboard shows is in test_seen.py."""
    queries = {one for one in dashboard() if one[0] in NEEDS_HEALTH}
    assert {title for title, _ in queries} == NEEDS_HEALTH
    with running(tmp_path, nodes.sandbox.page.removeprefix("http://").rstrip("/")) as prometheus:
        nodes.until(lambda: prometheus.query("up") == [1], "it is scraped")
        since = nodes.fault("n7", "broken")
        nodes.goes("n7", since, "doubted", "condemned", "rebooted", "returned", "passed")
        for title, query in sorted(queries):
            nodes.until(lambda query=query: any(map(math.isfinite, prometheus.query(query))), f"{title}: {query}", 60)
