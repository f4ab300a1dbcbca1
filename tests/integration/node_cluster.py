"""A governed cluster whose nodes are looked after: what tests do to sick nodes, and ask Slurm about them."""

from __future__ import annotations

import json
import sqlite3
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from governed import Cluster

from slurm_gov.sandbox import Sandbox, SandboxConfig
from slurm_gov.sandbox.agents import config_file, kernel_says
from slurm_gov.sandbox.config import Pool
from slurm_gov.sandbox.governor import program

NODES = [f"n{number}" for number in range(1, 11)]
POLICY = """\
pools:
  h100: {{partition: gpu, gres: "gpu:h100"}}
priority_classes: {{inference: 100, training: 50, experiment: 10}}
teams:
  research: {{quota: {{h100: 40}}, fair_share_weight: 50, borrow: unlimited}}
  product: {{quota: {{h100: 40}}, fair_share_weight: 50, borrow: unlimited}}
preemption: {{grace: 2s, signal: "B:USR1"}}
health:
  provider: {provider}
  providers:
    power: {{kind: command, command: {power}, time_limit: 60s, attempts: 2, backoff: 1s}}
    reboots: {{kind: command, command: {power}, time_limit: 60s, attempts: 2, backoff: 1s, operations: reboot}}
    slurms: {{kind: slurm, time_limit: 60s}}
    asked: {{kind: mqtt, time_limit: 30s}}
  confirm: 1s
  recover: 1s
  report_within: 30s
  lost_after: 15s
  reboots: {reboots}
  faults:
    xid 79: {{effect: fail, repair: reboot, confirm: 0s}}
    xid 94: {{effect: drain, repair: reboot, confirm: 0s}}
    xid 74: {{effect: fail, repair: replace, confirm: 0s}}
    xid 63: {{effect: suspect, confirm: 0s}}
    xid 64: {{effect: fail, repair: person, confirm: 0s}}
  {more}
"""
# What the policy above makes of them.
FAULTS = {"broken": 79, "flaky": 94, "gone": 74, "odd": 63, "smoke": 64}
FELL = "NVRM: Xid (PCI:0000:65:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
WHOLE_NODE = ("--gpus-per-node=8", "--requeue")
TOPOLOGY = """\
SwitchName=s1 Nodes=n[1-4]
SwitchName=s2 Nodes=n[5-8]
SwitchName=s3 Nodes=n[9-10]
SwitchName=top Switches=s[1-3]
"""
# A site's provisioner that can be told to hang or to fail: by files beside it.
PROVISIONER = """\
#!/bin/sh
dir=$(dirname "$0")
echo "$1 $2" >> "$dir/calls"
cat >> "$dir/requests"; echo >> "$dir/requests"
echo "the BMC is asked"
while [ -e "$dir/hang" ] || [ -e "$dir/hang-$2" ]; do sleep 0.1; done
if [ -e "$dir/fail-$1" ]; then echo "the BMC of $2 does not answer"; exit 1; fi
exec {power} "$1" "$2"
"""
# A verification that takes as long as there is the file hang-verify.
SLOW_CHECK = '#!/bin/sh\nwhile [ -e "$(dirname "$0")/hang-verify" ]; do sleep 0.1; done\n'


class Nodes(Cluster):
    """A governed cluster whose nodes are looked after."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.site = self.script("provisioner", PROVISIONER.format(power=sandbox.layout.etc / "power"))
        self.slow = self.script("slow-check", SLOW_CHECK)
        self.taken: set[tuple[str, str, str]] = set()
        """Every arrow that any node took: before, after, arrow."""

    def script(self, name: str, text: str) -> Path:
        """An executable of the site's."""
        file = self.work / name
        file.write_text(text)
        file.chmod(0o755)
        return file

    def rules(self, more: str = "breaker: 40%", provider: str = "power", reboots: int = 9) -> None:
        """Make this the policy. ``reboots``: so many make a replacement; what earlier tests did to a node counts."""
        power = json.dumps([str(self.site)])
        text = POLICY.format(power=power, more=more.replace("\n", "\n  "), provider=provider, reboots=reboots)
        if text != self._policy:
            self.sandbox.layout.policy.write_text(text)
            if self.sandbox.pids().get("slurm-govd"):
                self.reload()
            self._policy = text

    # -- what is done to nodes --------------------------------------------------------------------------

    def inject(self, node: str, *what: str, survives: bool = False) -> float:
        """A drill on a node's agent; returns when."""
        when = time.time()
        keep = ["--survives"] if survives else []
        self.sandbox.run(
            [program("slurm-gov-agent"), "--config", config_file(self.sandbox.layout, node), "inject", *what, *keep]
        )
        return when

    def fault(self, node: str, name: str, survives: bool = False) -> float:
        """A drill that the policy takes as one of FAULTS."""
        return self.inject(node, "xid", str(FAULTS[name]), survives=survives)

    def falls(self, node: str) -> float:
        """No drill: the node's kernel says that a GPU fell off the bus. Returns when."""
        when = time.time()
        kernel_says(self.sandbox.layout, node, FELL)
        return when

    def well(self, node: str) -> None:
        """End all drills on a node."""
        self.sandbox.run([program("slurm-gov-agent"), "--config", config_file(self.sandbox.layout, node), "clear"])

    def order(self, *words: str, check: bool = True) -> str:
        """``slurm-gov node ...``"""
        done = self.sandbox.run([program("slurm-gov"), "node", *words], check=check, timeout=90)
        return done.stdout + done.stderr

    def update(self, node: str, state: str, reason: str = "") -> None:
        """``scontrol update``, as an administrator."""
        why = [f"reason={reason}"] if reason else []
        self.sandbox.run(["scontrol", "update", f"nodename={node}", f"state={state}", *why])

    # -- what is asked ------------------------------------------------------------------------------------

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """From the journal."""
        with sqlite3.connect(f"file:{self.sandbox.layout.node_journal}?mode=ro", uri=True, timeout=10) as db:
            try:
                return db.execute(query, values).fetchall()
            except sqlite3.OperationalError:  # it is being made
                return []

    def state(self, node: str) -> str:
        rows = self.rows("SELECT data FROM node WHERE name = ?", node)
        return json.loads(rows[0][0])["state"] if rows else "healthy"

    def path(self, node: str, since: float) -> list[str]:
        """The arrows that a node took since then, oldest first."""
        query = "SELECT event FROM history WHERE node = ? AND time >= ? AND after IS NOT NULL ORDER BY id"
        return [row[0] for row in self.rows(query, node, since)]

    def told(self, node: str, event: str, since: float) -> list[str]:
        """What the journal says of other events of a node."""
        query = "SELECT reason FROM history WHERE node = ? AND event = ? AND time >= ? ORDER BY id"
        return [row[0] for row in self.rows(query, node, event, since)]

    def note_arrows(self) -> None:
        """Remember which arrows were taken."""
        self.taken |= {
            (before, after, arrow)
            for before, after, arrow in self.rows("SELECT before, after, event FROM history WHERE after IS NOT NULL")
        }

    def in_slurm(self, node: str) -> tuple[str, str]:
        """State and reason, as Slurm has them."""
        said = self.sandbox.run(["sinfo", "-h", "-N", "-n", node, "-O", "statecomplete:60,reason:200"]).stdout
        state, _, reason = said.partition(" ")
        return state.strip().lower(), reason.strip()

    def drained(self, node: str) -> bool:
        return "drain" in self.in_slurm(node)[0]

    def metrics(self) -> str:
        """What Prometheus would read."""
        with urllib.request.urlopen(self.sandbox.page + "metrics", timeout=20) as page:
            return str(page.read().decode())

    def listed(self) -> dict[str, dict[str, Any]]:
        """``slurm-gov node list --all --json``, by node."""
        return {one["node"]: one for one in json.loads(self.order("list", "--all", "--json"))["nodes"]}

    def agrees(self, node: str) -> None:
        """Wait until Slurm says of a node what the lifecycle does."""

        def so() -> bool:
            state, (slurms, reason) = self.state(node), self.in_slurm(node)
            out = any(word in slurms for word in ("drain", "down"))
            if state == "healthy":
                return not out and "fail" not in slurms and not reason.startswith("slurm-gov")
            return out and reason.startswith(f"slurm-gov: {state}: ")

        self.until(so, f"Slurm says that {node} is {self.state(node)}, not {self.in_slurm(node)}", 45)

    def gets(self, node: str, state: str, timeout: float = 45) -> None:
        """Wait until a node's lifecycle is in that state."""
        self.until(lambda: self.state(node) == state, f"{node} is {state}, not {self.state(node)}", timeout)

    def goes(self, node: str, since: float, *arrows: str, timeout: float = 60, agrees: bool = True) -> None:
        """Wait until a node took these arrows, these and no others, and Slurm says so."""
        self.until(lambda: len(self.path(node, since)) >= len(arrows), f"{node}: {arrows}", timeout)
        took = self.path(node, since)
        assert took == list(arrows), f"{node} took {took}, not {arrows}"
        if agrees:
            self.agrees(node)

    def healed(self, node: str) -> None:
        """Wait until a node is healthy and takes work."""
        self.gets(node, "healthy")
        self.until(lambda: self.in_slurm(node)[0] in ("idle", "mixed", "allocated"), f"{node} takes work")

    def nodes_of(self, job: int) -> set[str]:
        listed = self.sandbox.run(["squeue", "-h", "-j", str(job), "-o", "%N"]).stdout.strip()
        return set(self.sandbox.run(["scontrol", "show", "hostnames", listed]).stdout.split()) if listed else set()

    def calls(self) -> list[str]:
        """What the provisioner was asked."""
        file = self.work / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def reported(self) -> set[str]:
        """Nodes whose agents are connected, as the broker's own log says."""
        log = self.sandbox.log("mosquitto").read_text(errors="replace")
        return {node for node in NODES if f"u'{node}'" in log}

    # -- between tests --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The ordinary policy, all agents there."""
        for pattern in ("hang*", "fail-*", "calls", "requests"):
            for file in self.work.glob(pattern):
                file.unlink()
        self.rules()
        self.until(lambda: len(self.reported()) == len(NODES), "all agents have reported", 60)

    def end(self) -> None:
        """No job, no fault, every node healthy."""
        for file in self.work.glob("hang*"):
            file.unlink()
        if not self.sandbox.pids().get("slurm-govd"):
            self.sandbox.start_governor()
        self.note_arrows()
        self.rules()
        self.sandbox.run(["scancel", "-u", "root"])
        for node in NODES:
            if self.state(node) != "healthy" or self.in_slurm(node)[0] != "idle":
                self.well(node)
                if not self.in_slurm(node)[1].startswith(("slurm-gov", "none")):
                    self.update(node, "resume")
                self.order("clear", node)
        for node in NODES:
            self.healed(node)


def bring_up(new: Callable[..., Sandbox], name: str, policy: Path, lines: tuple[str, ...] = ()) -> Nodes:
    """Ten nodes on three switches with power saving, an agent on each, a broker, and slurm-govd. ``lines`` are for
    slurm.conf.
    """
    policy.write_text(POLICY.format(power='["/bin/true"]', provider="power", more="breaker: 40%", reboots=9))
    etc = SandboxConfig(name=name).dir / "etc"
    conf = (
        f"SuspendProgram={etc}/suspend", f"ResumeProgram={etc}/resume", "SuspendTime=86400", "SuspendTimeout=2",
        "ResumeTimeout=15", "SlurmctldParameters=power_save_interval=1", "DebugFlags=NO_CONF_HASH",
    )  # fmt: skip
    sandbox = new(
        name=name,
        pools=(Pool(nodes=len(NODES)),),
        broker=True,
        policy=policy,
        governor_args=("--interval", "0.5"),
        slurm_conf=(*conf, *lines),
    )
    (sandbox.layout.etc / "topology.conf").write_text(TOPOLOGY)
    with sandbox.layout.slurm_conf.open("a") as file:
        file.write("TopologyPlugin=topology/tree\n")
    sandbox.restart_slurmctld()
    for node in NODES:
        sandbox.start_agent(node)
    made = Nodes(sandbox)
    made.until(lambda: set(sandbox.nodes().values()) == {"idle"}, "all nodes are idle", 60)
    return made


def fixture(made: Nodes) -> Iterator[Nodes]:
    """The cluster as a test wants it, and left so."""
    made.begin()
    yield made
    made.end()
