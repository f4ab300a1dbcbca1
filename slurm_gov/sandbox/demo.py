"""The main job, told step by step on a sandbox. Every step waits for Slurm to say that it is so."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from slurm_gov.sandbox.cluster import Sandbox, take_down
from slurm_gov.sandbox.config import SandboxConfig
from slurm_gov.sandbox.errors import SandboxError
from slurm_gov.sandbox.governor import program

NAME = "demo"
POLICY = """\
# Two teams with half of the cluster each; what one does not use the other may have.
pools:
  h100: {partition: gpu, gres: "gpu:h100"}
priority_classes: {inference: 100, training: 50, experiment: 10}
teams:
  research: {quota: {h100: 32}, lend: all, borrow: 100%}
  product:  {quota: {h100: 32}, lend: all, borrow: none}
preemption: {grace: 5s, signal: "B:USR1"}
"""
TRAINING = """\
#!/bin/bash
# A training job as it should be: it saves a checkpoint when told to leave, and goes on from it.
checkpoint=$SLURM_SUBMIT_DIR/checkpoint.$SLURM_JOB_ID
step=$(cat "$checkpoint" 2>/dev/null || echo 0)
echo "run $((${SLURM_RESTART_COUNT:-0} + 1)) begins at step $step"
trap 'echo $step > "$checkpoint"; echo "USR1: checkpoint saved at step $step"' USR1
while true; do sleep 0.1 & wait $!; step=$((step + 1)); done
"""


class DemoError(Exception):
    """Slurm did not do what the demo promised."""


def run(console: Console, keep: bool = False) -> None:
    """Play the demo; raises ``DemoError`` at the first thing that is not as promised."""
    with contextlib.suppress(SandboxError):
        take_down(NAME)  # what a demo that was killed left behind
    with tempfile.NamedTemporaryFile("w", prefix="slurm-gov-", suffix=".yaml") as policy:
        policy.write(POLICY)
        policy.flush()
        console.print(Text("Bringing up a private Slurm: slurmctld, slurmdbd, MariaDB, munge, 8 slurmds\n"))
        began = time.monotonic()
        config = SandboxConfig(name=NAME, policy=Path(policy.name), governor_args=("--log-format", "json"))
        sandbox = Sandbox.up(config, lambda step: console.print(Text(f"  {step}", style="dim")))
    console.print(Text(f"\n8 nodes with 8 GPUs each are idle after {time.monotonic() - began:.1f} s"))
    console.print(Text(f"Watch it in a browser:  {sandbox.page}"))
    try:
        Demo(sandbox, console).play()
    except BaseException:
        sandbox.down()
        raise
    if not keep and sys.stdin.isatty() and console.is_terminal:
        console.print(Text(f"\nThe cluster is still up, and its live page: {sandbox.page}"))
        console.print(Text("Press Enter to end it."))
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.readline()
    if keep:
        console.print(Text(f"\nIt is still up.  See it:       {sandbox.page}"))
        console.print(Text(f"                 Look around:  slurm-gov sandbox shell {NAME}"))
        console.print(Text(f"                 End it:       slurm-gov sandbox down {NAME}"))
        return
    sandbox.down()
    console.print(Text("\nThe cluster is down again and nothing of it is left. To explore one yourself:"))
    for line in (
        "slurm-gov sandbox up       a cluster like this one",
        "slurm-gov sandbox shell    then: sbatch -A research -N2 --gpus-per-node=8 --wrap 'sleep 600'",
        "slurm-gov sandbox down",
    ):
        console.print(Text(f"  {line}"))


class Demo:
    """The steps, and what happened when."""

    def __init__(self, sandbox: Sandbox, console: Console) -> None:
        self.sandbox = sandbox
        self.console = console
        self.work = sandbox.dir / "work"
        self.work.mkdir()
        (self.work / "train.sh").write_text(TRAINING)
        self.began = float(int(time.time()))  # sacct knows whole seconds
        self.notes: list[tuple[float, str, str]] = []

    def play(self) -> None:
        borrowers = self.lend()
        owner, victims = self.reclaim(borrowers)
        self.give_again(owner, victims)
        self.refuse()
        self.die_and_come_back()
        self.tell()

    # -- the steps ----------------------------------------------------------------------------------

    def lend(self) -> list[int]:
        self.title("1. product is idle: research uses all 64 GPUs, 32 of them borrowed")
        jobs = [self.sbatch("-A research -N1 --gpus-per-node=8 train.sh", show=n == 0) for n in range(8)]
        self.say(f"... eight times: jobs {jobs[0]} to {jobs[-1]}")
        self.until(lambda: self.held("research") == 64, "research holds 64 GPUs")
        self.until(lambda: self.cap("research") == 64, "research's cap in Slurm is 64")
        self.show("slurm-gov status")
        return jobs

    def reclaim(self, borrowers: list[int]) -> tuple[int, list[int]]:
        self.title("2. product wants 16 of its 32: two of research's borrowed jobs are signalled, then requeued")
        time.sleep(1.5)  # so that there is something to checkpoint
        owner = self.sbatch("-A product -N2 --gpus-per-node=8 train.sh")
        self.until(lambda: self.marked(borrowers), "borrowed jobs are told to leave")
        self.show(f"slurm-gov why {owner}")
        self.until(lambda: self.state(owner) == "RUNNING", f"product's job {owner} runs")
        victims = [job for job in borrowers if self.state(job) != "RUNNING"]
        self.check(len(victims) == 2, f"two jobs were taken, not {victims}")
        self.check(self.held("research") == 48, "research keeps 48 GPUs")
        self.until(
            lambda: all(self.squeue("%r", victim) == "AssocGrpGRES" for victim in victims),
            "the requeued jobs wait with Slurm's own reason, AssocGrpGRES",
        )
        self.show("squeue -o '%.6i %.9a %.10T %.13r %.9N'")
        for victim in victims:
            self.output(victim)
        return owner, victims

    def give_again(self, owner: int, victims: list[int]) -> None:
        self.title("3. product's job ends: the requeued jobs run again, from their checkpoints")
        self.shell(f"scancel {owner}")
        self.until(lambda: all(self.state(job) == "RUNNING" for job in victims), "both run again")
        self.until(lambda: all("run 2" in self.log(job) for job in victims), "and tell from where")
        for victim in victims:
            saved = self.log(victim).rpartition("saved at step ")[2].split()[0]
            self.check(f"run 2 begins at step {saved}" in self.log(victim), f"job {victim} kept its checkpoint")
            self.output(victim)

    def refuse(self) -> None:
        self.title("4. A job that could never run is refused at once, with the reason on the terminal")
        for options in ("-N9 --gpus-per-node=8", "-N5 --gpus-per-node=8"):
            command = f"sbatch -A product {options} train.sh"
            self.say(f"$ {command}", "bold")
            done = self.sandbox.run(shlex.split(command), check=False, cwd=self.work)
            self.check(done.returncode != 0 and "slurm-gov:" in done.stderr, f"it is refused: {done.stderr}")
            self.say(done.stderr.strip())
        self.note("refused", "two jobs that could never run")

    def die_and_come_back(self) -> None:
        self.title("5. The daemon is killed with -9: submissions go on, quotas hold")
        self.sandbox.kill_governor()
        self.note("daemon", "killed with -9")
        extra = self.sbatch("-A research -N1 --gpus-per-node=8 train.sh")
        owner = self.sbatch("-A product -N1 --gpus-per-node=8 train.sh")
        self.say("Both were accepted. What research holds stays at its cap, 64; nobody can take more:")
        self.stays(lambda: self.state(extra) == "PENDING" and self.held("research") == 64, "the caps hold", 3)
        self.show("squeue -t PD -o '%.6i %.9a %.10T %.13r'")
        self.title("6. It comes back and goes on: product gets its GPUs")
        self.sandbox.start_governor()
        self.note("daemon", "started again")
        self.until(lambda: self.state(owner) == "RUNNING", f"product's job {owner} runs")
        self.check(self.held("product") == 8 and self.held("research") == 56, "research gave back 8")
        self.show("slurm-gov status")

    def tell(self) -> None:
        self.title("What happened when")
        events = [*self.notes, *self.from_sacct(), *self.from_log()]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("seconds", "what", "", "source"):
            table.add_column(column, justify="right" if column == "seconds" else "left")
        source = {"refused": "sbatch", "daemon": "demo"}
        for when, what, text in sorted(events):
            where = source.get(what, "sacct" if what.startswith("job") else "slurm-govd")
            table.add_row(f"{when - self.began:.1f}", what, Text(text), where)
        self.console.print(table)

    # -- what Slurm and the daemon recorded -----------------------------------------------------------

    def from_sacct(self) -> Iterator[tuple[float, str, str]]:
        """Every run of every job: sacct -D also shows the runs that ended in a requeue."""
        fields = "jobid,account,start,end,state,allocnodes"
        done = self.sandbox.run(
            ["sacct", "-DXnP", "-S", "now-1hour", f"--format={fields}"], env={"SLURM_TIME_FORMAT": "%s"}
        )
        for line in done.stdout.splitlines():
            job, account, start, end, state, nodes = line.split("|")
            gpus = f"{account} {8 * int(nodes)} GPUs"
            if start.isdigit():
                yield float(start), "job started", f"{job} ({gpus})"
            if end.isdigit() and start.isdigit():
                yield float(end), "job " + state.split()[0].lower(), f"{job} ({gpus})"

    def from_log(self) -> Iterator[tuple[float, str, str]]:
        """The governor's decisions, with job, team and reason."""
        for line in self.sandbox.log("slurm-govd").read_text().splitlines():
            try:
                entry: dict[str, Any] = json.loads(line)
            except ValueError:
                continue
            when = datetime.fromisoformat(entry["timestamp"]).timestamp()
            event, team = entry["event"], entry.get("team", "")
            if when < self.began:
                continue
            if event.startswith("cap "):
                yield when, event, f"{team}: {entry['gpu:h100']} GPUs" if "gpu:h100" in entry else team
            elif event == "preempting":
                yield when, event, f"{entry['job']} ({team}) for {entry['beneficiary']} ({entry['beneficiary_team']})"
            elif event == "may start again":
                yield when, event, f"{entry['job']}, as soon as there is room"

    # -- telling and checking -------------------------------------------------------------------------

    def title(self, text: str) -> None:
        self.console.print()
        self.console.print(Text(text, style="bold green"))

    def say(self, text: str, style: str = "") -> None:
        self.console.print(Text("  " + text.replace("\n", "\n  "), style=style))

    def note(self, what: str, text: str) -> None:
        self.notes.append((time.time(), what, text))

    def show(self, command: str) -> None:
        """Run a command as a user would see it."""
        self.say(f"$ {command}", "bold")
        self.say(self.shell(command, quiet=True))

    def shell(self, command: str, quiet: bool = False) -> str:
        if not quiet:
            self.say(f"$ {command}", "bold")
        first, *rest = shlex.split(command)
        argv = [str(program(first)) if first.startswith("slurm-gov") else first, *rest]
        width = {"COLUMNS": str(self.console.width - 2)}
        return self.sandbox.run(argv, cwd=self.work, env=width).stdout.rstrip()

    def sbatch(self, options: str, show: bool = True) -> int:
        said = self.shell(f"sbatch -o job-%j.log --open-mode=append {options}", quiet=True)
        if show:
            self.say(f"$ sbatch {options}", "bold")
            self.say(said)
        return int(said.split()[-1])

    def output(self, job: int) -> None:
        """What a job printed so far."""
        for line in self.log(job).splitlines():
            self.say(f"job {job}: {line}", "cyan")

    def log(self, job: int) -> str:
        path = self.work / f"job-{job}.log"
        return path.read_text() if path.exists() else ""

    def squeue(self, form: str, job: int) -> str:
        return self.sandbox.run(["squeue", "-h", "-t", "all", "-o", form, "-j", str(job)]).stdout.strip()

    def state(self, job: int) -> str:
        return self.squeue("%T", job)

    def held(self, account: str) -> int:
        """GPUs that an account's running jobs hold, as Slurm says."""
        done = self.sandbox.run(["squeue", "-h", "-t", "R", "-A", account, "-o", "%D"])
        return 8 * sum(int(nodes) for nodes in done.stdout.split())

    def cap(self, account: str) -> int:
        text = self.sandbox.run(
            ["sacctmgr", "-nP", "show", "assoc", f"account={account}", "user=", "format=grptres"]
        ).stdout
        return int(text.partition("gres/gpu:h100=")[2].partition(",")[0] or 0)

    def marked(self, jobs: list[int]) -> bool:
        done = self.sandbox.run(
            ["squeue", "-h", "-j", ",".join(map(str, jobs)), "-O", "admin_comment:300"], env=dict(os.environ)
        )
        return "slurm-gov preempt" in done.stdout

    def until(self, check: Callable[[], object], what: str, timeout: float = 60) -> None:
        began = time.monotonic()
        while not check():
            if time.monotonic() - began > timeout:
                queue = self.sandbox.run(["squeue"]).stdout
                raise DemoError(f"not so after {timeout:.0f} s: {what}\n{queue}")
            time.sleep(0.1)
        self.say(f"✓ {what} ({time.monotonic() - began:.1f} s)", "green")

    def stays(self, check: Callable[[], object], what: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check(check(), what)
            time.sleep(0.3)
        self.say(f"✓ {what} (for {seconds:.0f} s)", "green")

    def check(self, so: object, what: str) -> None:
        if not so:
            raise DemoError(f"not so: {what}")
