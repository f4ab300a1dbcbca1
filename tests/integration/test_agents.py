"""Node agents on a real Mosquitto with TLS: what is said, by whom, and what happens when something dies."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiomqtt
import pytest
from fleet import OFF, Fleet, Listener, fleet_in, say, until

from slurm_gov.health import topics
from slurm_gov.health.arrival import FUTURE
from slurm_gov.health.messages import MAX_BYTES, Command, Event, Heartbeat, Presence, Request, Status
from slurm_gov.sandbox import agents, broker

FELL = "NVRM: Xid (PCI:0000:65:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    yield from fleet_in(tmp_path_factory.mktemp("fleet"), ["n1", "n2", "n3"])


@pytest.fixture
def listener(fleet: Fleet) -> Iterator[Listener]:
    made = Listener(fleet)
    yield made
    made.close()


@pytest.fixture
def agent(fleet: Fleet, listener: Listener) -> Iterator[str]:
    """n1 with a running agent that has said that all is well."""
    listener.status.clear()
    fleet.start("n1")
    until(lambda: listener.state("n1", "disk") == "ok" and listener.presence.get("n1") == "online", "n1 is well")
    yield "n1"
    if "n1" in fleet.agents:
        fleet.agents["n1"].send_signal(signal.SIGCONT)
        fleet.run("n1", "clear")
        fleet.end("n1")


def test_a_fault_is_said_and_forgotten_on_command(fleet: Fleet, listener: Listener, agent: str) -> None:
    fleet.kernel_says(agent, FELL)
    until(lambda: listener.state(agent, "xid") == "fail", "the XID is said")
    (result,) = [one for one in listener.status[agent].results if one.check == "xid"]
    assert (result.code, result.fault, result.advice, result.injected) == (79, "gpu_lost", "reboot", False)
    command = Command(node=agent, id="c-1", time=time.time(), command="clear")
    asyncio.run(say(fleet, "governor", {topics.topic(Command, agent): command.model_dump_json()}))
    until(lambda: listener.status[agent].command == "c-1", "the command is answered")
    assert listener.state(agent, "xid") == "ok"
    assert all(one.checked >= command.time for one in listener.status[agent].results)


def test_a_drill_is_marked_all_the_way(fleet: Fleet, listener: Listener, agent: str) -> None:
    fleet.run(agent, "inject", "xid", "79", "--gpu", "3")
    until(lambda: listener.state(agent, "xid") == "fail", "the injected XID is said")
    (result,) = [one for one in listener.status[agent].results if one.check == "xid"]
    assert result.injected and result.gpu and result.gpu.index == 3
    fleet.run(agent, "clear")
    until(lambda: listener.state(agent, "xid") == "ok", "the drill is over")


def test_an_agent_that_restarts_goes_on_where_it_was(fleet: Fleet, listener: Listener, agent: str) -> None:
    fleet.kernel_says(agent, FELL)
    until(lambda: listener.state(agent, "xid") == "fail", "the XID is said")
    before = listener.status[agent]
    assert fleet.end(agent) == 0
    until(lambda: listener.presence[agent] == "stopping", "it says that it stops")
    agents.folder(fleet.layout, agent).joinpath("kmsg").write_text("")  # the kernel's buffer was overwritten
    fleet.start(agent)
    until(lambda: listener.status[agent].sequence > before.sequence, "it speaks again")
    assert listener.state(agent, "xid") == "fail"
    assert listener.presence[agent] == "online"
    fleet.end(agent)
    agents.new_boot(fleet.layout, agent)
    fleet.start(agent)
    until(lambda: listener.status[agent].boot_id != before.boot_id, "the node has booted")
    assert listener.state(agent, "xid") == "ok"


def test_an_agent_is_killed(fleet: Fleet, listener: Listener, agent: str) -> None:
    fleet.end(agent, signal.SIGKILL)
    until(lambda: listener.presence[agent] == "offline", "the broker publishes the last will")
    late = Listener(fleet, "governor")
    try:
        until(lambda: late.presence.get(agent) == "offline", "whoever comes later hears of it, too")
        assert late.state(agent, "disk") == "ok", "and what was last known"
    finally:
        late.close()


def test_an_agent_hangs(fleet: Fleet, listener: Listener, agent: str) -> None:
    until(lambda: listener.beats.get(agent, 0) >= 2, "its heart beats")
    fleet.agents[agent].send_signal(signal.SIGSTOP)
    until(lambda: listener.presence[agent] == "offline", "the broker hears nothing for 1.5 times the keep-alive")
    beats = listener.beats[agent]
    fleet.agents[agent].send_signal(signal.SIGCONT)
    until(lambda: listener.presence[agent] == "online" and listener.beats[agent] > beats, "it comes back by itself")


def test_the_broker_dies_and_the_latest_state_is_said_again(fleet: Fleet, listener: Listener, agent: str) -> None:
    before = listener.status[agent].sequence
    fleet.kill_broker()  # with SIGKILL: what it retained is gone
    fleet.run(agent, "inject", "check", "disk", "--state", "warn")
    until(lambda: not listener.connected.is_set(), "the listener has lost it, too")
    fleet.start_broker()
    until(lambda: listener.status[agent].sequence > before, "the agent speaks again")
    until(lambda: listener.state(agent, "disk") == "warn", "and says what happened meanwhile")
    until(lambda: listener.presence[agent] == "online", "n1 is online")


def test_a_check_that_hangs_does_not_hang_the_agent(fleet: Fleet, listener: Listener) -> None:
    hangs = {"command": ["/bin/sh", "-c", "trap '' TERM; sleep 600"], "limit": "1s", "every": "1s"}
    fleet.start("n3", checks=OFF, site_checks={"hangs": hangs, "fine": {"command": ["/bin/true"]}})
    until(lambda: listener.state("n3", "hangs") == "unknown", "the check has no result")
    assert listener.state("n3", "fine") == "ok"
    beats = listener.beats.get("n3", 0)
    until(lambda: listener.beats.get("n3", 0) >= beats + 3, "its heart beats on")
    assert fleet.end("n3") == 0


def test_deep_checks_run_only_when_they_are_asked_for(fleet: Fleet, listener: Listener) -> None:
    fleet.start("n3", checks=OFF, site_checks={"deep": {"command": ["/bin/false"], "deep": True}})
    until(lambda: listener.presence.get("n3") == "online" and "n3" in listener.status, "n3 speaks")
    assert listener.state("n3", "deep") is None
    for number, deep in (("1", False), ("2", True)):
        command = Command(node="n3", id=number, time=time.time(), command="check", deep=deep)
        asyncio.run(say(fleet, "governor", {topics.topic(Command, "n3"): command.model_dump_json()}))
        until(lambda number=number: listener.status["n3"].command == number, "the command is answered")
        assert listener.state("n3", "deep") == ("warn" if deep else None)
    assert fleet.end("n3") == 0


# -- who may say what -----------------------------------------------------------------------------------


def status(node: str, **changes: object) -> dict[str, object]:
    now = time.time()
    head = {"version": 1, "node": node, "boot_id": "b", "sequence": int(now * 1000) + 10**6, "time": now}
    return head | {"agent_version": "x", "results": []} | changes


def test_a_node_speaks_for_no_other(fleet: Fleet, listener: Listener, agent: str) -> None:
    before, beats = listener.status[agent], listener.beats.get(agent, 0)
    forged = {
        topics.topic(Status, agent): json.dumps(status(agent)),
        topics.topic(Presence, agent): json.dumps(status(agent, state="offline")),
        topics.topic(Command, "n3"): Command(node="n3", id="x", time=time.time(), command="clear").model_dump_json(),
        topics.topic(Event, agent): b"{}",
        topics.topic(Request, agent): b"{}",
        # Its own topic, but another's name in it.
        topics.topic(Status, "n2"): json.dumps(status(agent)),
    }
    listener.rejected.clear()
    asyncio.run(say(fleet, "n2", forged))
    # Under the other's client id it would push the other off the broker, and its last will would be published.
    asyncio.run(say(fleet, "n2", {topics.topic(Status, "n2"): json.dumps(status("n2"))}, identifier=agent))
    until(lambda: "n2" in listener.status, "what n2 says of itself arrives")
    assert [(one.node, one.reason) for one in listener.rejected] == [("n2", "wrong_node")]
    assert listener.status[agent] == before
    assert listener.presence[agent] == "online"
    until(lambda: listener.beats.get(agent, 0) > beats + 1, "n1 was not disturbed")


def test_a_node_hears_of_no_other(fleet: Fleet, agent: str) -> None:
    async def hear() -> list[str]:
        heard = []
        async with fleet.client("n2") as client:
            await client.subscribe("#", qos=1)
            command = Command(node="n2", id="x", time=time.time(), command="check")
            await say(fleet, "governor", {topics.topic(Command, "n2"): command.model_dump_json()})
            async for message in client.messages:
                heard.append(str(message.topic))
                if heard[-1] == topics.topic(Command, "n2"):
                    return heard
        return heard

    assert asyncio.run(asyncio.wait_for(hear(), 60)) == [topics.topic(Command, "n2")]


def test_a_node_is_shut_out_at_once(fleet: Fleet, listener: Listener) -> None:
    rules = fleet.files.dir / "acl"
    text, name = rules.read_text(), topics.topic(Status, "n3")
    listener.status.pop("n3", None)
    try:
        rules.write_text(text + "\nuser n3\ntopic deny #\n")
        fleet.reload_broker()

        def shut_out() -> bool:
            listener.status.pop("n3", None)
            asyncio.run(say(fleet, "n3", {name: json.dumps(status("n3"))}))
            asyncio.run(say(fleet, "n2", {topics.topic(Status, "n2"): json.dumps(fresh := status("n2"))}))
            until(lambda: "n2" in listener.status, "n2 has spoken")
            until(lambda: listener.status["n2"].sequence == fresh["sequence"], "n2 still speaks")
            return "n3" not in listener.status

        until(shut_out, "n3 is shut out, as soon as Mosquitto has read the rules")
    finally:
        rules.write_text(text)
        fleet.reload_broker()


def test_nobody_speaks_without_a_credential_of_ours(fleet: Fleet, tmp_path: Path) -> None:
    other = broker.prepare(tmp_path / "other", 1, ["n1"])
    stranger = fleet.tls(None)
    stranger.load_cert_chain(*other.credential("n1"))

    async def connect(context: ssl.SSLContext | None) -> None:
        async with aiomqtt.Client(broker.ADDRESS, fleet.files.port, tls_context=context, timeout=4) as client:
            await client.subscribe("#")

    for context in (None, fleet.tls(None), stranger):
        with pytest.raises((aiomqtt.MqttError, OSError)):
            asyncio.run(connect(context))


def test_an_agent_does_not_speak_to_a_broker_of_somebody_else(
    fleet: Fleet, listener: Listener, tmp_path: Path
) -> None:
    other = broker.prepare(tmp_path / "other", fleet.files.port, ["n3"])
    certificate, key = fleet.files.credential("n3")
    wrong = {"host": broker.ADDRESS, "port": fleet.files.port, "ca": str(other.ca), "cert": str(certificate)}
    agent = fleet.start("n3", broker=wrong | {"key": str(key), "longest_wait": "1s"})
    log = fleet.layout.dir / "agent-n3.log"
    until(lambda: "certificate verify failed" in log.read_text(), "the agent says why it does not connect")
    assert agent.poll() is None, "and goes on checking"
    assert listener.presence.get("n3") != "online"
    fleet.end("n3")


def test_what_a_busy_governor_has_not_taken_yet_is_not_dropped(fleet: Fleet) -> None:
    count, name = 3000, topics.topic(Status, "n2")
    subscribed, sent = threading.Event(), threading.Event()

    async def busy() -> int:
        async with fleet.client("governor") as client:
            await client.subscribe(name, qos=1)
            subscribed.set()
            sent.wait(120)  # holds its loop: nothing is taken meanwhile
            taken = 0
            async for message in client.messages:
                taken += not message.retain
                if message.payload == b"last":
                    return taken
        return 0

    async def storm() -> None:
        async with fleet.client("n2") as client:
            for _ in range(count - 1):
                await client.publish(name, b"x" * 500, qos=1)
            await client.publish(name, b"last", qos=1)

    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(lambda: asyncio.run(asyncio.wait_for(busy(), 120)))
        assert subscribed.wait(60)
        try:
            asyncio.run(storm())
        finally:
            sent.set()
        assert taken.result() == count


# -- what is wrong changes nothing ----------------------------------------------------------------------


def test_malformed_huge_future_and_replayed_messages_change_nothing(fleet: Fleet, listener: Listener) -> None:
    name = topics.topic(Status, "n2")
    asyncio.run(say(fleet, "n2", {name: json.dumps(status("n2"))}))
    until(lambda: "n2" in listener.status, "n2 is known")
    before = listener.status["n2"]
    listener.rejected.clear()
    # Each on a connection of its own: a node can only repeat itself.
    big = status("n2", sequence=before.sequence + 1, agent_version="x", padding="x" * (MAX_BYTES - 200))
    bad: list[tuple[str, bytes]] = [
        ("malformed", b"\x00\xff not json"),
        ("malformed", b"[" * 60_000),
        ("malformed", json.dumps(status("n2", results=[{"check": "x"}])).encode()),
        ("malformed", json.dumps(status("n2", version=2)).encode()),
        ("malformed", json.dumps(status("n2", agent_version="\x1b[2J")).encode()),
        ("too_large", json.dumps(big | {"padding": "x" * MAX_BYTES}).encode()),
        ("future", json.dumps(status("n2", time=time.time() + FUTURE + 600)).encode()),
        ("replayed", json.dumps(status("n2", sequence=before.sequence - 1)).encode()),
        ("duplicate", json.dumps(status("n2", sequence=before.sequence)).encode()),
    ]
    for reason, payload in bad:
        count = len(listener.rejected)
        asyncio.run(say(fleet, "n2", {name: payload}))
        until(lambda count=count: len(listener.rejected) > count, f"{reason} is refused")
        assert listener.rejected[-1].reason == reason
        assert listener.status["n2"] == before
    # What is too large even for the broker never arrives: it ends the connection.
    with pytest.raises(aiomqtt.MqttError):
        asyncio.run(say(fleet, "n2", {name: b"x" * 4 * MAX_BYTES}, timeout=5))
    old = json.dumps(status("n2", time=time.time() - 3600)).encode()
    asyncio.run(say(fleet, "n2", {topics.topic(Heartbeat, "n2"): old}))
    until(lambda: listener.rejected[-1].reason == "stale", "an old heartbeat is refused")
    assert listener.status["n2"] == before
    assert listener.beats.get("n2", 0) == 0


def test_commands_that_are_wrong_are_refused_by_the_agent(fleet: Fleet, listener: Listener, agent: str) -> None:
    name = topics.topic(Command, agent)
    wrong = Command(node="n2", id="wrong", time=time.time(), command="clear").model_dump_json()
    late = Command(node=agent, id="late", time=time.time() - 3600, command="clear").model_dump_json()
    right = Command(node=agent, id="right", time=time.time(), command="check").model_dump_json()
    for payload in (b"{", wrong, late, right):
        asyncio.run(say(fleet, "governor", {name: payload}))
    until(lambda: listener.status[agent].command is not None, "a command is answered")
    assert listener.status[agent].command == "right"
    log = (fleet.layout.dir / "agent-n1.log").read_text()
    for reason in ("malformed", "wrong_node", "stale"):
        assert f"a command is refused: {reason}" in log


def test_dry_run_connects_to_nobody(fleet: Fleet, listener: Listener) -> None:
    agent = fleet.start("n3", "--dry-run")
    assert agent.stdout
    said = Status.model_validate_json(agent.stdout.readline())
    assert said.node == "n3" and said.results
    assert fleet.end("n3") == 0
    assert listener.presence.get("n3") != "online"
