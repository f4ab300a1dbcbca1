"""The node lifecycle on a real Slurm and a real Mosquitto (TLS): every arrow of the drawing, and what forbids it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from node_cluster import NODES, WHOLE_NODE, Nodes

from slurm_gov.sandbox.governor import program

SLURM_CONF = ("ReturnToService=0",)
"""As Slurm is shipped: a node that is DOWN stays so until somebody resumes it. The other files have 2."""
DRAWING = Path(__file__).parents[2] / "docs" / "node-lifecycle.md"


# -- the ways through the drawing -----------------------------------------------------------------------------------


def test_a_draining_node_waits_for_its_jobs(nodes: Nodes) -> None:
    """emptied: a fault that does not fail the node; if it goes away while jobs finish, no repair is needed."""
    job = nodes.sbatch("research", "-N1", "-w", "n3", *WHOLE_NODE)
    nodes.running(job)
    since = nodes.fault("n3", "flaky")
    nodes.gets("n3", "draining")
    nodes.agrees("n3")
    nodes.stays(lambda: nodes.states().get(job) == "R", "its job goes on", 2)
    assert "its 1 job must leave, then rebooted" in nodes.listed()["n3"]["next"]
    nodes.well("n3")
    nodes.sandbox.run(["scancel", str(job)])
    nodes.goes("n3", since, "doubted", "condemned", "emptied", "passed")
    assert nodes.calls() == []


def test_a_suspect_node_takes_no_work_and_recovers(nodes: Nodes) -> None:
    """doubted, recovered: its job goes on, nobody repairs it."""
    job = nodes.sbatch("research", "-N1", "-w", "n3", *WHOLE_NODE)
    nodes.running(job)
    since = nodes.fault("n3", "odd")
    nodes.gets("n3", "suspect")
    nodes.agrees("n3")
    other = nodes.sbatch("research", "-N1", "-w", "n3", "--gpus-per-node=1")
    nodes.stays(lambda: nodes.states()[job] == "R" and nodes.states()[other] == "PD", "no new work", 2)
    nodes.well("n3")
    nodes.goes("n3", since, "doubted", "recovered")
    assert nodes.states()[job] == "R" and nodes.restarts(job) == 0 and nodes.calls() == []


def test_two_reboots_that_do_not_help_make_a_replacement(nodes: Nodes) -> None:
    """rebooted, rebooted again, escalated: the fault survives reboots, and a new machine has it no more."""
    nodes.rules(reboots=2)
    since = nodes.fault("n4", "broken", survives=True)
    again = ["rebooted", "returned"] * 2
    nodes.goes("n4", since, "doubted", "condemned", *again, "escalated", "returned", "passed")
    assert nodes.calls() == ["reboot n4", "reboot n4", "replace n4"]


def test_a_reboot_that_fails_makes_a_replacement_and_that_failing_a_person(nodes: Nodes) -> None:
    """escalated, given_up after the tries that the policy allows; then a person orders."""
    (nodes.work / "fail-reboot").touch()
    (nodes.work / "fail-replace").touch()
    since = nodes.fault("n5", "broken")
    nodes.goes("n5", since, "doubted", "condemned", "rebooted", "escalated", "given_up")
    assert nodes.calls() == ["reboot n5"] * 2 + ["replace n5"] * 2
    assert "the BMC of n5 does not answer" in nodes.in_slurm("n5")[1]
    nodes.stays(lambda: nodes.state("n5") == "failed", "it waits for a person", 1)
    (nodes.work / "fail-replace").unlink()
    later = time.time()
    said = nodes.order("replace", "n5")
    nodes.goes("n5", later, "ordered", "replaced", "returned", "passed")
    assert "draining → replacing" in said and "verifying → healthy" in said
    assert "replace attempt 1: the BMC is asked" in said, "what the provider says is progress"


def test_where_nobody_replaces_nodes_a_person_does_what_a_reboot_does_not_cure(nodes: Nodes) -> None:
    """given_up from rebooting, and from verifying after two reboots: operations: reboot."""
    nodes.rules(provider="reboots", reboots=2)
    (nodes.work / "fail-reboot").touch()
    since = nodes.fault("n6", "broken")
    nodes.goes("n6", since, "doubted", "condemned", "rebooted", "given_up")
    (nodes.work / "fail-reboot").unlink()
    assert "to reboot it failed: the BMC of n6 does not answer" in nodes.in_slurm("n6")[1]
    assert "its provider cannot replace nodes" in nodes.order("replace", "n6", check=False)
    assert "refuse for n6" in nodes.order("replace", "n6", "--dry-run")
    assert nodes.path("n6", since)[-1] == "given_up"
    since = nodes.fault("n7", "broken", survives=True)
    nodes.goes("n7", since, "doubted", "condemned", *["rebooted", "returned"] * 2, "given_up")
    assert "2 reboots did not cure it; its provider cannot replace nodes" in nodes.in_slurm("n7")[1]
    assert nodes.calls() == ["reboot n6"] * 2 + ["reboot n7"] * 2


def test_some_faults_are_for_people(nodes: Nodes) -> None:
    """given_up from draining, and cleared: what is reported now is forgotten."""
    since = nodes.fault("n5", "smoke")
    nodes.goes("n5", since, "doubted", "condemned", "given_up")
    nodes.order("clear", "n5")
    nodes.goes("n5", since, "doubted", "condemned", "given_up", "cleared", "recovered")


def test_a_replacement_that_is_no_better_is_given_up(nodes: Nodes) -> None:
    """replaced, then given_up by verification."""
    nodes.rules("breaker: 40%\nverify: [{name: burn-in, command: /bin/false}]")
    since = nodes.fault("n6", "gone")
    nodes.goes("n6", since, "doubted", "condemned", "replaced", "returned", "given_up")
    assert "burn-in" in nodes.in_slurm("n6")[1]


@pytest.mark.parametrize("how", ["cleared", "taken_over"])
def test_people_stop_it_at_any_state(nodes: Nodes, how: str) -> None:
    """``slurm-gov node clear``, and an administrator's drain over ours, while a node is on its way."""
    where = {"n2": "draining", "n3": "rebooting", "n4": "replacing", "n5": "verifying", "n6": "failed"}
    nodes.rules(f"breaker: 60%\nmax_away: 6\nverify: [{{name: slow, command: {nodes.slow}}}]")
    job = nodes.sbatch("research", "-N1", "-w", "n2", *WHOLE_NODE)
    nodes.running(job)
    for name in ("n3", "n4", "verify"):
        (nodes.work / f"hang-{name}").touch()
    since = time.time()
    for node, fault in zip(where, ("flaky", "broken", "gone", "broken", "smoke"), strict=True):
        nodes.fault(node, fault)
    for node, state in where.items():
        nodes.gets(node, state)
        nodes.agrees(node)
    for node in where:
        if how == "cleared":
            nodes.order("clear", node, "--no-wait")
        else:
            nodes.update(node, "drain", "mine")
    for node in where:
        nodes.until(lambda node=node: how in nodes.path(node, since), f"{node} is let go")
        if how == "cleared":
            nodes.healed(node)
        else:
            assert nodes.in_slurm(node)[1] == "mine" and nodes.state(node) in ("suspect", "healthy")
    assert nodes.states()[job] == "R", "and nobody's job was touched"


# -- what forbids action --------------------------------------------------------------------------------------------


def test_forty_percent_sick_at_once(nodes: Nodes) -> None:
    """The breaker holds: nothing is drained beyond the limit, an alert says so; by hand it still goes."""
    nodes.rules("breaker: 20%")
    sick = NODES[2:6]
    since = time.time()
    nodes.sandbox.stop_governor()
    for node in sick:
        nodes.fault(node, "broken")
    nodes.sandbox.start_governor()
    nodes.until(lambda: all(nodes.state(node) == "suspect" for node in sick), "all four are suspect")
    nodes.stays(lambda: not any(map(nodes.drained, sick)), "none is drained", 3)
    assert nodes.calls() == []
    assert "4 of 10 nodes of h100 are bad at once" in nodes.sandbox.log("slurm-govd").read_text()
    assert [name for name, one in nodes.listed().items() if "circuit breaker" in one["next"]] == sick
    assert 'slurm_gov_node_alerts{kind="breaker"} 1.0' in nodes.metrics()
    nodes.order("reboot", sick[0])
    nodes.goes(sick[0], since, "doubted", "ordered", "rebooted", "returned", "passed")
    # With fewer sick nodes the breaker would close, and those that are left be repaired.
    nodes.rules("breaker: 20%\nrecovery: none")
    for node in sick:
        nodes.well(node)
    for node in sick[1:]:
        nodes.goes(node, since, "doubted", "recovered")


@pytest.mark.parametrize("rack", ["topology", '"(n)(?=9$|10$)"'], ids=["topology", "pattern"])
def test_a_whole_rack_is_not_the_nodes_fault(nodes: Nodes, rack: str) -> None:
    """A rack by Slurm's switches, or by name: n9 and n10. A node of another is repaired all the same."""
    nodes.rules(f"breaker: 60%\nmax_away: 6\nrack: {rack}")
    log = nodes.sandbox.log("slurm-govd")
    told = len(log.read_text())
    since = time.time()
    nodes.sandbox.stop_governor()
    for node in ("n2", "n9", "n10"):
        nodes.fault(node, "broken")
    nodes.sandbox.start_governor()
    nodes.goes("n2", since, "doubted", "condemned", "rebooted", "returned", "passed")
    nodes.gets("n9", "suspect")
    nodes.gets("n10", "suspect")
    nodes.stays(lambda: not nodes.drained("n9") and not nodes.drained("n10"), "the rack is left alone", 2)
    name = "s3" if rack == "topology" else "n"
    assert f"circuit breaker: all 2 nodes of rack {name} are bad at once" in log.read_text()[told:]
    assert nodes.calls() == ["reboot n2"]
    # One that is well again: then it is the other's own fault.
    nodes.well("n10")
    nodes.goes("n9", since, "doubted", "condemned", "rebooted", "returned", "passed")


def test_no_more_nodes_are_away_than_may_be(nodes: Nodes) -> None:
    """max_away: the second waits its turn, drained; recovery: none lets it wait for good."""
    nodes.rules("breaker: 40%\nmax_away: 1")
    (nodes.work / "hang").touch()
    since = nodes.fault("n2", "broken")
    nodes.gets("n2", "rebooting")
    nodes.fault("n3", "broken")
    nodes.gets("n3", "suspect")
    nodes.agrees("n3")
    assert "1 nodes of h100 are away already, 1 may be" in nodes.listed()["n3"]["next"]
    (nodes.work / "hang").unlink()
    nodes.goes("n2", since, "doubted", "condemned", "rebooted", "returned", "passed")
    nodes.goes("n3", since, "doubted", "condemned", "rebooted", "returned", "passed")
    assert nodes.calls() == ["reboot n2", "reboot n3"]
    nodes.rules("breaker: 40%\nrecovery: none")
    job = nodes.sbatch("research", "-N1", "-w", "n4", *WHOLE_NODE)
    nodes.running(job)
    since = nodes.fault("n4", "broken")
    nodes.gets("n4", "suspect")
    nodes.agrees("n4")
    nodes.stays(lambda: nodes.path("n4", since) == ["doubted"] and nodes.states()[job] == "R", "only marked", 2)
    assert "recovery is none for h100" in nodes.listed()["n4"]["next"] and len(nodes.calls()) == 2


def test_an_administrators_drain_is_never_touched(nodes: Nodes) -> None:
    """Neither before we act nor while we do (taken_over); nor is a drain made again that he lifted."""
    nodes.update("n8", "drain", "bad PSU")
    nodes.stays(lambda: nodes.in_slurm("n8")[1] == "bad PSU", "slurm-govd has seen it", 2)
    since = nodes.fault("n8", "broken")
    nodes.gets("n8", "suspect")
    nodes.stays(lambda: nodes.in_slurm("n8")[1] == "bad PSU", "his drain stands", 2)
    assert "refused" in nodes.order("reboot", "n8", check=False) and nodes.calls() == []
    nodes.well("n8")
    nodes.goes("n8", since, "doubted", "recovered", agrees=False)
    assert nodes.in_slurm("n8") == ("idle+drain", "bad PSU")
    # in the middle of a repair of ours
    (nodes.work / "hang").touch()
    since = nodes.fault("n9", "broken")
    nodes.gets("n9", "rebooting")
    nodes.until(lambda: "rebooting" in nodes.in_slurm("n9")[1], "Slurm has our reason, so his comes after it")
    nodes.update("n9", "drain", "ticket 4711")
    nodes.goes("n9", since, "doubted", "condemned", "rebooted", "taken_over", agrees=False)
    nodes.stays(lambda: nodes.in_slurm("n9")[1] == "ticket 4711", "his drain stands", 2)
    # our drain, lifted by him
    since = nodes.fault("n10", "smoke")
    nodes.gets("n10", "failed")
    nodes.agrees("n10")
    time.sleep(1)
    nodes.update("n10", "resume")
    nodes.goes("n10", since, "doubted", "condemned", "given_up", "taken_over", "recovered")
    nodes.stays(lambda: not nodes.drained("n10"), "it is not drained again", 2)
    nodes.well("n10")


def test_lemons_are_reported_and_excluded_by_policy(nodes: Nodes) -> None:
    """No drills: what its kernel says. The second fault makes it a lemon; reported always, kept out if so decided."""
    nodes.rules("breaker: 40%\nlemons: {faults: 2}")
    for _ in range(2):
        since = nodes.falls("n7")
        nodes.goes("n7", since, "doubted", "condemned", "rebooted", "returned", "passed")
    (lemon,) = json.loads(nodes.order("lemons", "--json"))["lemons"]
    assert (lemon["node"], lemon["faults"], lemon["repairs"]) == ("n7", 2, 2)
    assert "lemon" in nodes.order("show", "n7") and "n7" in nodes.order("lemons")
    nodes.rules("breaker: 40%\nlemons: {faults: 2, exclude: true}")
    since = nodes.falls("n7")
    nodes.goes("n7", since, "doubted", "condemned", "rebooted", "returned", "given_up")
    assert nodes.in_slurm("n7")[1] == "slurm-gov: failed: a lemon: 3 faults in 28 days"
    nodes.stays(lambda: nodes.state("n7") == "failed", "it stays out", 1)
    later = time.time()
    nodes.order("verify", "n7")  # a person says that it is well
    nodes.goes("n7", later, "ordered", "emptied", "passed")


# -- by hand --------------------------------------------------------------------------------------------------------


def test_hyperpods_signals_and_near_misses(nodes: Nodes) -> None:
    """state=fail: jobs finish first; state=down: at once. What is nearly a signal is said, and is not followed."""
    since = time.time()
    stays, goes = (nodes.sbatch("research", "-N1", "-w", node, *WHOLE_NODE) for node in ("n2", "n4"))
    nodes.running(stays, goes)
    misses = {
        "n3": ("fail", "action:reboot", "Action:Reboot"),
        "n5": ("fail", "Action: Replace", "Action:Replace"),
        "n6": ("fail", "Action:Replaced", "Action:Replace"),
        "n7": ("drain", "Action:Reboot", "Action:Reboot"),
    }
    nodes.update("n2", "fail", "Action:Replace")
    nodes.update("n4", "down", "Action:Reboot")
    for node, (state, reason, _) in misses.items():
        nodes.update(node, state, reason)
    nodes.goes("n4", since, "ordered", "rebooted", "returned", "passed")
    nodes.until(lambda: nodes.restarts(goes) == 1, "its job was requeued")
    nodes.gets("n2", "draining")
    nodes.agrees("n2")
    assert nodes.states()[stays] == "R" and nodes.restarts(stays) == 0
    nodes.sandbox.run(["scancel", str(stays)])
    nodes.goes("n2", since, "ordered", "replaced", "returned", "passed")
    listed = nodes.listed()
    for node, (_, reason, meant) in misses.items():
        right = f'scontrol update node={node} state=fail reason="{meant}"'
        assert right in listed[node]["next"] and nodes.path(node, since) == []
        assert nodes.in_slurm(node)[1] == reason, "it is his"
        (alert,) = nodes.told(node, "alert", since)
        assert right in alert
    nodes.update("n3", "fail", "Action:Reboot")
    nodes.goes("n3", since, "ordered", "rebooted", "returned", "passed")
    assert nodes.calls() == ["reboot n4", "replace n2", "reboot n3"]


def test_what_people_see(nodes: Nodes) -> None:
    """list, show, lemons; dry runs of all orders change nothing; who waits is told on what."""
    job = nodes.sbatch("research", "-N1", "-w", "n6", *WHOLE_NODE)
    nodes.running(job)
    since = nodes.fault("n5", "smoke")
    nodes.gets("n5", "failed")
    assert "needs a person" in nodes.order("list") and "XID 64" in nodes.order("list")
    shown = nodes.order("show", "n5")
    assert "XID 64" in shown and "suspect → draining" in shown
    would = {
        "drain": ("n6", [f"wait for its jobs to finish: {job}", "keep it drained until slurm-gov node clear n6"]),
        "reboot": ("n5", ["drain n5", "reboot it by provider power", "verify it"]),
        "replace": ("n5", ["drain n5", "replace it by provider power", "lift the drain"]),
        "verify": ("n6", [f"wait for its jobs to finish: {job}", "verify it"]),
        "clear": ("n5", ["let go of n5", "lift our drain"]),
    }
    for order, (node, lines) in would.items():
        plan = nodes.order(order, node, "--dry-run")
        assert all(f"would {line}" in plan for line in lines), plan
    assert f"requeue its jobs at once: {job}" in nodes.order("reboot", "n6", "--now", "--dry-run")
    nodes.stays(lambda: nodes.path("n5", since) == ["doubted", "condemned", "given_up"], "nothing was done", 1)
    assert nodes.path("n6", since) == [] and nodes.in_slurm("n6")[0] in ("mixed", "allocated")
    assert json.loads(nodes.order("lemons", "--json"))["lemons"] == [], "drills make no lemons"
    assert "Slurm knows no node" in nodes.order("show", "n55", check=False)
    command = [str(program("slurm-gov")), "node", "reboot", "n6", "--reason", "new firmware"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=nodes.sandbox.env) as told:
        nodes.gets("n6", "draining")
        time.sleep(12)
        nodes.sandbox.run(["scancel", str(job)])
        out, _ = told.communicate(timeout=90)
    assert "ordered healthy → draining: reboot by root: new firmware" in out
    assert "still draining after" in out and "its 1 job must leave, then rebooted" in out
    assert "reboot attempt 1" in out and "passed verifying → healthy" in out
    assert nodes.order("drain", "n6", "--no-wait") == "n6: drain ordered\n"
    nodes.gets("n6", "draining")
    nodes.agrees("n6")
    nodes.order("clear", "n6")
    nodes.healed("n6")


# -- crashes --------------------------------------------------------------------------------------------------------

KILLED = ["suspect", "draining", "rebooting", "replacing", "verifying", "failed"]


@pytest.mark.parametrize("state", KILLED)
def test_killed_at_any_state_it_converges(nodes: Nodes, state: str) -> None:
    """kill -9 with the node in each state, the world goes on meanwhile, and the next daemon ends where it should."""
    nodes.rules(f"breaker: 40%\nverify: [{{name: slow, command: {nodes.slow}}}]")
    node = NODES[KILLED.index(state)]
    fault = {"suspect": "odd", "draining": "flaky", "replacing": "gone", "failed": "smoke"}.get(state, "broken")
    job = nodes.sbatch("research", "-N1", "-w", node, *WHOLE_NODE) if state in ("draining", "rebooting") else None
    if job:
        nodes.running(job)
    (nodes.work / ("hang-verify" if state == "verifying" else "hang")).touch()
    since = nodes.fault(node, fault)
    nodes.gets(node, state)
    nodes.sandbox.kill_governor()
    before = nodes.path(node, since)
    for file in nodes.work.glob("hang*"):
        file.unlink()
    if state == "suspect":
        nodes.well(node)
    if state == "draining":
        nodes.sandbox.run(["scancel", str(job)])
    nodes.sandbox.start_governor()
    if state == "failed":
        nodes.agrees(node)
        nodes.stays(lambda: nodes.state(node) == "failed", "it stays failed", 2)
        assert nodes.path(node, since) == before
        return
    after = {
        "suspect": ["doubted", "recovered"],
        "replacing": ["doubted", "condemned", "replaced", "returned", "passed"],
    }
    nodes.goes(node, since, *after.get(state, ["doubted", "condemned", "rebooted", "returned", "passed"]))
    if state == "rebooting":
        assert job and nodes.restarts(job) == 1
    repairs = {"rebooting": "reboot", "replacing": "replace"}
    if state in repairs:
        assert set(nodes.calls()) == {f"{repairs[state]} {node}"}


def test_slurmctld_restarted_in_mid_replacement(nodes: Nodes) -> None:
    (nodes.work / "hang").touch()
    since = nodes.fault("n7", "gone")
    nodes.gets("n7", "replacing")
    nodes.until(lambda: "replace n7" in nodes.calls(), "the provider was called")
    nodes.sandbox.stop_daemon("slurmctld")
    (nodes.work / "hang").unlink()
    time.sleep(2)  # it is done while nobody can ask Slurm
    nodes.sandbox.start_slurmctld()
    nodes.goes("n7", since, "doubted", "condemned", "replaced", "returned", "passed")
    nodes.healed("n7")
    assert nodes.calls() == ["replace n7"]


def test_a_lost_journal_is_made_up_for_by_slurms_reason(nodes: Nodes) -> None:
    since = nodes.fault("n8", "smoke")
    nodes.gets("n8", "failed")
    nodes.agrees("n8")
    nodes.note_arrows()
    nodes.sandbox.stop_governor()
    for file in nodes.sandbox.dir.glob("nodes.db*"):
        file.unlink()
    nodes.sandbox.start_governor()
    nodes.until(nodes.sandbox.layout.node_journal.exists, "a new journal")
    nodes.until(lambda: nodes.rows("SELECT 1 FROM node WHERE name = 'n8'"), "n8 is in it")
    assert nodes.state("n8") == "failed" and nodes.path("n8", since) == []
    nodes.agrees("n8")


def test_a_dead_node_is_lost_in_seconds(nodes: Nodes) -> None:
    """Power gone: last will, slurmd's port closed. SlurmdTimeout (60 s here) is not waited for."""
    job = nodes.sbatch("research", "-N2", *WHOLE_NODE)
    nodes.running(job)
    bad = sorted(nodes.nodes_of(job))[0]
    (nodes.work / "hang").touch()  # else it may be healthy again before the job starts again
    since = time.time()
    nodes.sandbox.stop_agent(bad, sig=signal.SIGKILL)
    nodes.sandbox.stop_node(bad)
    nodes.until(lambda: nodes.restarts(job) == 1, "the job was requeued", 40)
    nodes.running(job)
    assert bad not in nodes.nodes_of(job)
    (nodes.work / "hang").unlink()
    nodes.goes(bad, since, "doubted", "condemned", "rebooted", "returned", "passed")


def test_every_arrow_of_the_drawing_was_taken(node_cluster: Nodes, request: pytest.FixtureRequest) -> None:
    """By the tests above, on this Slurm."""
    here = {item.originalname for item in request.session.items if isinstance(item, pytest.Function)}
    left_out = {name for name in globals() if name.startswith("test_")} - here
    if left_out:
        pytest.skip(f"only some tests were chosen, not {', '.join(sorted(left_out))}")
    drawn = set(re.findall(r"^    (\w+) --> (\w+): (\w+)$", DRAWING.read_text(), re.MULTILINE))
    assert drawn - node_cluster.taken == set()
    assert node_cluster.taken <= drawn
