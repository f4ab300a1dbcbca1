"""How nodes are repaired on a real Slurm: providers, verification, spares. None takes work before it is verified."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from node_cluster import WHOLE_NODE, Nodes


@pytest.mark.parametrize(("fault", "arrow"), [("broken", "rebooted"), ("gone", "replaced")])
def test_slurms_own_means(nodes: Nodes, fault: str, arrow: str) -> None:
    """Provider slurm: RebootProgram; SuspendProgram and ResumeProgram. A job that waits for just that node does not
    get it on the way: to power a node up Slurm must not have it drained.
    """
    nodes.rules(f"breaker: 40%\nverify: [{{name: slow, command: {nodes.slow}}}]", provider="slurms")
    (nodes.work / "hang-verify").touch()
    since = nodes.fault("n2", fault)
    nodes.until(lambda: nodes.path("n2", since) != [], "it is noticed")
    job = nodes.sbatch("research", "-N1", "-w", "n2", *WHOLE_NODE)
    nodes.gets("n2", "verifying", 90)
    nodes.agrees("n2")
    nodes.stays(lambda: nodes.states()[job] == "PD" and nodes.restarts(job) == 0, "it waits", 2)
    (nodes.work / "hang-verify").unlink()
    nodes.goes("n2", since, "doubted", "condemned", arrow, "returned", "passed")
    nodes.running(job)
    assert nodes.calls() == [] and nodes.restarts(job) == 0
    kept = nodes.sandbox.run(["scontrol", "show", "reservation"], check=False).stdout
    assert "slurm-gov" not in kept


def test_a_provider_that_hangs_is_tried_again_and_then_given_up(nodes: Nodes) -> None:
    """Its time limit, two attempts and the wait between them; then replaced, which is another operation."""
    text = nodes.sandbox.layout.policy.read_text()
    assert "power: {kind: command" in text and "time_limit: 60s" in text
    does = f'case $1 in replace) exec {nodes.site} "$@";; status) echo power on;; *) sleep 600;; esac'
    hangs = nodes.script("hangs", f"#!/bin/sh\n{does}\n")
    patient = text.replace(str(nodes.site), str(hangs))
    nodes.sandbox.layout.policy.write_text(patient.replace("60s", "6s"))
    nodes.reload()
    try:
        since = nodes.fault("n3", "broken")
        nodes.until(lambda: "escalated" in nodes.path("n3", since), "both attempts failed", 60)
        nodes.sandbox.layout.policy.write_text(patient)  # it may take its slurmd a while to be back
        nodes.reload()
        nodes.goes("n3", since, "doubted", "condemned", "rebooted", "escalated", "returned", "passed")
    finally:
        nodes.sandbox.layout.policy.write_text(text)
        nodes.reload()
    (operation,) = nodes.rows("SELECT attempt, progress, message, tried - began FROM operation "
                              "WHERE node = 'n3' AND repair = 'reboot' AND began >= ?", since)  # fmt: skip
    assert operation[:3] == (2, "failed", "not done within 6 s; its provider says: power on") and operation[3] >= 7


def test_verification_inside_a_reservation(nodes: Nodes) -> None:
    """Checks that run on the node itself: nobody else's job gets it meanwhile, and the drain is off only for ours."""
    trace = nodes.work / "deep"
    trace.unlink(missing_ok=True)
    check = nodes.script("deep-check", f'#!/bin/sh\necho "$SLURMD_NODENAME" > {trace}\nsleep 2\n')
    first = nodes.script("first-check", f"#!/bin/sh\ncat > {trace}.given\n[ $1 = n7 ]\n")
    nodes.rules(
        f"breaker: 40%\nverify:\n- {{name: first, command: {first}}}\n"
        f"- {{name: deep, command: {check}, where: node, time_limit: 60s}}"
    )
    since = nodes.fault("n7", "broken")
    nodes.until(trace.exists, "the check runs", 60)
    mine = nodes.sbatch("research", "-N1", "-w", "n7", *WHOLE_NODE)
    assert nodes.states()[mine] == "PD" and "an administrator" not in nodes.listed()["n7"]["next"]
    nodes.goes("n7", since, "doubted", "condemned", "rebooted", "returned", "passed")
    assert trace.read_text().strip() == "n7"
    given = json.loads(Path(f"{trace}.given").read_text())
    assert (given["node"], given["fault"], given["pool"]) == ("n7", "xid 79", "h100")
    steps = ["first runs (1 of 2)", "first passed", "deep runs (2 of 2)", "deep passed"]
    assert nodes.told("n7", "verification", since) == [f"verification {one}" for one in steps]
    nodes.running(mine)
    assert "slurm-gov-n7" not in nodes.sandbox.run(["scontrol", "show", "reservation"], check=False).stdout


def test_a_provisioner_over_mqtt(nodes: Nodes) -> None:
    """Provider mqtt: a retained request, acknowledged; refused ones are not tried again."""
    nodes.rules(provider="asked")
    broker = nodes.sandbox.broker
    certificate, key = broker.credential("provisioner")
    asked: list[dict[str, Any]] = []
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.tls_set(str(broker.ca), str(certificate), str(key))

    def on_message(_: Any, __: Any, message: Any) -> None:
        if not message.payload:
            return
        request = json.loads(message.payload)
        asked.append(request)
        refuse = request["operation"] == "reboot"
        answers = ["refused"] if refuse else ["accepted", "done"]
        for state in answers:
            if state == "done":
                nodes.sandbox.run([nodes.sandbox.layout.etc / "power", request["operation"], request["node"]])
            about = {"version": 1, "node": request["node"], "id": request["id"], "time": time.time()}
            topic = message.topic.replace("/request", "/acknowledgement")
            client.publish(
                topic, json.dumps(about | {"state": state, "message": "no reboots here" if refuse else ""}), 1
            )

    client.on_message = on_message
    client.on_connect = lambda *_: client.subscribe("slurm-gov/v1/provider/+/request", 1)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        since = nodes.fault("n3", "broken")
        nodes.goes("n3", since, "doubted", "condemned", "rebooted", "escalated", "returned", "passed")
    finally:
        client.loop_stop()
        client.disconnect()
    assert [one["operation"] for one in asked] == ["reboot", "replace"] and asked[0]["injected"]
    assert [one["fault"] for one in asked] == ["gpu_lost"] * 2 and asked[0]["pool"] == "h100"


def test_a_spare_steps_in_and_back(nodes: Nodes) -> None:
    nodes.rules("breaker: 40%\nspares: {h100: [n10]}")
    nodes.until(lambda: nodes.in_slurm("n10") == ("idle+drain", "slurm-gov: spare"), "n10 waits in reserve")
    assert "in reserve" in nodes.listed()["n10"]["next"]
    (nodes.work / "hang").touch()
    since = nodes.fault("n2", "broken")
    nodes.until(lambda: nodes.in_slurm("n10") == ("idle", "none"), "it steps in")
    (nodes.work / "hang").unlink()
    nodes.goes("n2", since, "doubted", "condemned", "rebooted", "returned", "passed")
    nodes.until(lambda: nodes.drained("n10"), "it steps back")


def test_a_spare_that_is_powered_down_is_powered_up_to_step_in(nodes: Nodes) -> None:
    """By the site's SuspendProgram and ResumeProgram. Off, it is neither lost nor given any job."""
    power = nodes.sandbox.layout.log / "power.log"

    def runs(program: str) -> int:
        return power.read_text().count(f"{program}: done") if power.exists() else 0

    nodes.rules("breaker: 40%\nspares: {h100: [n10]}\nspares_kept: powered_down")
    nodes.until(lambda: nodes.in_slurm("n10") == ("idle+drain+powered_down", "slurm-gov: spare"), "it is off", 60)
    assert nodes.sandbox.pids()["slurmd-n10"] is None and nodes.sandbox.pids()["agent-n10"] is None
    job = nodes.sbatch("research", "-N1", "-w", "n10", "--gpus-per-node=8")
    on, off = runs("on"), runs("off")
    nodes.stays(lambda: nodes.state("n10") == "healthy" and nodes.states()[job] == "PD", "it stays off", 5)
    (nodes.work / "hang").touch()
    since = nodes.fault("n2", "broken")
    nodes.until(lambda: not nodes.drained("n10"), "it steps in")
    nodes.running(job, timeout=60)
    assert runs("on") == on + 1 and nodes.sandbox.pids()["slurmd-n10"]
    (nodes.work / "hang").unlink()
    nodes.goes("n2", since, "doubted", "condemned", "rebooted", "returned", "passed")
    nodes.until(lambda: nodes.in_slurm("n10")[1] == "slurm-gov: spare", "it is to step back")
    nodes.stays(lambda: nodes.states()[job] == "R", "when its job has ended", 2)
    nodes.sandbox.run(["scancel", str(job)])
    nodes.until(lambda: nodes.in_slurm("n10")[0] == "idle+drain+powered_down", "it is off again", 60)
    assert runs("off") == off + 1 and nodes.path("n10", since) == []
    # And when it does not come: Slurm gives it up after ResumeTimeout, and it is repaired as one that is lost.
    resume = nodes.sandbox.layout.etc / "resume"
    works = resume.read_text()
    resume.write_text("#!/bin/sh\nexit 0\n")
    try:
        (nodes.work / "hang-n3").touch()
        since = nodes.fault("n3", "broken")
        nodes.goes("n10", since, "doubted", "condemned", "rebooted", "returned", "passed", timeout=90)
    finally:
        resume.write_text(works)
    assert "reboot n10" in nodes.calls()
