"""A sick node, told step by step on a sandbox: found, out of capacity, its job elsewhere, repaired and back."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from slurm_gov.sandbox import agents
from slurm_gov.sandbox.cluster import Sandbox, take_down
from slurm_gov.sandbox.config import SandboxConfig
from slurm_gov.sandbox.demo import Demo
from slurm_gov.sandbox.errors import SandboxError

NAME = "demo-health"
POLICY = """\
# Sick nodes are rebooted by a command of the site; what two reboots do not cure is replaced.
pools:
  h100: {{partition: gpu, gres: "gpu:h100"}}
priority_classes: {{training: 50}}
teams:
  research: {{quota: {{h100: 56}}, lend: all, borrow: unlimited}}
  product: {{quota: {{h100: 8}}, lend: all, borrow: none}}
health:
  provider: site
  providers:
    site: {{kind: command, command: {base}/{name}/etc/power, time_limit: 2m}}
  verify:
    - {{name: burn-in, command: {base}/{name}/etc/burn-in, where: node, time_limit: 1m}}
  recover: 2s
"""
TRAINING = """\
#!/bin/bash
# A training job that saves a checkpoint every second: nobody warns it before a GPU is gone.
checkpoint=$SLURM_SUBMIT_DIR/checkpoint.$SLURM_JOB_ID
step=$(cat "$checkpoint" 2>/dev/null || echo 0)
echo "run $((${SLURM_RESTART_COUNT:-0} + 1)) on $SLURM_JOB_NODELIST begins at step $step"
while true; do sleep 0.1; step=$((step + 1)); [ $((step % 10)) != 0 ] || echo $step > "$checkpoint"; done
"""
BURN_IN = "#!/bin/sh\n# On the node itself, inside a reservation: here would be DCGM or NCCL.\nsleep 2\n"


def run(console: Console, keep: bool = False) -> None:
    """Play the demo; raises ``DemoError`` at the first thing that is not as promised."""
    with contextlib.suppress(SandboxError):
        take_down(NAME)  # what a demo that was killed left behind
    with tempfile.NamedTemporaryFile("w", prefix="slurm-gov-", suffix=".yaml") as policy:
        policy.write(POLICY.format(base=SandboxConfig().base, name=NAME))
        policy.flush()
        console.print(Text("Bringing up a private Slurm with 8 nodes, a Mosquitto, and a node agent on each\n"))
        began = time.monotonic()
        config = SandboxConfig(
            name=NAME, policy=Path(policy.name), broker=True, governor_args=("--log-format", "json")
        )
        sandbox = Sandbox.up(config, lambda step: console.print(Text(f"  {step}", style="dim")))
    try:
        for node in config.all_nodes():
            sandbox.start_agent(node)
        console.print(Text(f"\n8 nodes with 8 GPUs each are idle after {time.monotonic() - began:.1f} s"))
        HealthDemo(sandbox, console).play()
    except BaseException:
        sandbox.down()
        raise
    if keep:
        console.print(Text(f"\nIt is still up.  Look around:  slurm-gov sandbox shell {NAME}"))
        console.print(Text(f"                 End it:       slurm-gov sandbox down {NAME}"))
        return
    sandbox.down()
    console.print(Text("\nThe cluster is down again and nothing of it is left. More: docs/node-lifecycle.md"))


class HealthDemo(Demo):
    """The steps, and what happened when."""

    def __init__(self, sandbox: Sandbox, console: Console) -> None:
        super().__init__(sandbox, console)
        (self.work / "train.sh").write_text(TRAINING)
        burn_in = sandbox.layout.etc / "burn-in"
        burn_in.write_text(BURN_IN)
        burn_in.chmod(0o755)

    def play(self) -> None:
        job = self.train()
        bad = self.break_a_node(job)
        self.go_on(job, bad)
        self.come_back(bad)
        self.tell()

    # -- the steps ----------------------------------------------------------------------------------

    def train(self) -> int:
        self.title("1. A training job runs on two nodes; all agents have reported")
        job = self.sbatch("-A research -N2 --gpus-per-node=8 --requeue train.sh")
        self.until(lambda: self.state(job) == "RUNNING", f"job {job} runs")
        nodes = self.sandbox.config.all_nodes()
        self.until(lambda: len(self.reported()) == len(nodes), "all nodes have reported", 90)
        self.until(lambda: (self.work / f"checkpoint.{job}").exists(), "it has saved a checkpoint")
        self.show("squeue -o '%.6i %.9a %.10T %.12N'")
        return job

    def break_a_node(self, job: int) -> str:
        bad = sorted(self.nodes_of(job))[-1]
        self.title(f"2. On {bad} GPU 3 falls off the bus: XID 79, a drill")
        self.note("fault", f"XID 79 on GPU 3 of {bad}, injected")
        config = agents.config_file(self.sandbox.layout, bad)
        self.show(f"slurm-gov-agent --config {config} inject xid 79 --gpu 3")
        self.until(lambda: "drain" in self.slurm_state(bad), f"{bad} is drained")
        self.note("node", f"{bad} seen drained in Slurm")
        self.until(lambda: self.state(job) != "RUNNING" or bad not in self.nodes_of(job), f"job {job} has left it")
        self.note("job", f"{job} seen requeued in Slurm")
        return bad

    def go_on(self, job: int, bad: str) -> None:
        self.title("3. The job runs again elsewhere, from its checkpoint")
        self.until(lambda: self.state(job) == "RUNNING", f"job {job} runs")
        self.note("job", f"{job} seen running again")
        self.check(bad not in self.nodes_of(job) or self.lifecycle(bad) == "healthy", f"job {job} is not on {bad}")
        self.until(lambda: "run 2" in self.log(job), "and tells from where")
        self.output(job)
        comment = self.sandbox.run(["squeue", "-h", "-j", str(job), "-O", "admin_comment:300"]).stdout.strip()
        self.check("fault node=" in comment, "its comment says what happened")
        self.say(comment, "cyan")

    def come_back(self, bad: str) -> None:
        self.title(f"4. {bad} is rebooted, verified on the node itself, and takes work again")
        self.until(lambda: self.lifecycle(bad) == "healthy", f"{bad} is healthy", 120)
        self.until(lambda: self.slurm_state(bad) in ("idle", "mixed", "allocated"), f"{bad} takes work")
        self.note("node", f"{bad} seen back in service in Slurm")
        self.show(f"slurm-gov node show {bad}")

    def tell(self) -> None:
        self.title("What happened when")
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("seconds", "what", "", "source"):
            table.add_column(column, justify="right" if column == "seconds" else "left")
        start = min(when for when, what, _ in self.notes if what == "fault")
        events = [*((*one, "demo") for one in self.notes), *self.from_journal(), *self.deeds()]
        for when, what, text, source in sorted(events, key=lambda one: one[0]):
            if when >= start - 0.05:
                table.add_row(f"{when - start:.1f}", what, Text(text), source)
        self.console.print(table)

    # -- what was recorded ------------------------------------------------------------------------------

    def from_journal(self) -> Iterator[tuple[float, str, str, str]]:
        """Every arrow of the lifecycle."""
        query = "SELECT time, event, node, before, after, reason FROM history WHERE after IS NOT NULL ORDER BY id"
        for when, event, node, before, after, reason in self.rows(query):
            yield when, event, f"{node}: {before} → {after}: {reason}", "node journal"

    def deeds(self) -> Iterator[tuple[float, str, str, str]]:
        """What slurm-govd did in Slurm."""
        told = {"drained", "requeued at once", "drain lifted", "may start again", "operation"}
        for line in self.sandbox.log("slurm-govd").read_text().splitlines():
            try:
                entry: dict[str, Any] = json.loads(line)
            except ValueError:
                continue
            event = entry["event"]
            if event in told or event.startswith("verification"):
                when = datetime.fromisoformat(entry["timestamp"]).timestamp()
                words = [str(entry[key]) for key in ("node", "job", "repair", "progress") if entry.get(key)]
                yield when, event, " ".join(words), "slurm-govd"

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with sqlite3.connect(f"file:{self.sandbox.layout.node_journal}?mode=ro", uri=True, timeout=10) as db:
            return db.execute(query, values).fetchall()

    def lifecycle(self, node: str) -> str:
        rows = self.rows("SELECT data FROM node WHERE name = ?", node)
        return str(json.loads(rows[0][0])["state"]) if rows else "healthy"

    def reported(self) -> list[str]:
        """Nodes whose agents have reported, as the daemon wrote down."""
        if not self.sandbox.layout.node_journal.exists():
            return []
        try:
            return [row[0] for row in self.rows("SELECT node FROM report")]
        except sqlite3.OperationalError:
            return []  # the daemon is just making it

    def nodes_of(self, job: int) -> set[str]:
        listed = self.squeue("%N", job)
        return set(self.sandbox.run(["scontrol", "show", "hostnames", listed]).stdout.split()) if listed else set()

    def slurm_state(self, node: str) -> str:
        return self.sandbox.run(["sinfo", "-h", "-N", "-n", node, "-o", "%T"]).stdout.split()[0].rstrip("*")
