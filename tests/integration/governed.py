"""Helpers for tests of the governor on a real Slurm: everything asked is asked of Slurm, not of the governor."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from slurm_gov.sandbox import Sandbox, SandboxError

GAMES = ["setpriv", "--reuid=games", "--regid=games", "--clear-groups"]
AS_ROOT = os.geteuid() == 0

POLICY = """\
pools:
  h100: {{partition: gpu, gres: "gpu:h100"}}
priority_classes: {{inference: 100, training: 50, experiment: 10}}
teams:
  research: {research}
  product: {product}
sharing: {{idle: fair_share, lend_unallocated: true}}
preemption: {{grace: {grace}, signal: "B:USR1"}}
"""

# Counts seconds, keeps a checkpoint at the signal, goes on from it after a requeue.
TRAINING = """\
#!/bin/bash
checkpoint=$1
n=$(cat "$checkpoint" 2>/dev/null || echo 0)
echo "start $n restart ${SLURM_RESTART_COUNT:-0}" >> "$checkpoint.log"
trap 'echo $n > "$checkpoint"; echo "signal $n" >> "$checkpoint.log"' USR1
while [ $n -lt 6000 ]; do sleep 0.1 & wait $!; n=$((n + 1)); done
"""


class Cluster:
    """A governed sandbox, and what tests do to it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.work = sandbox.dir / "work"
        self.work.mkdir(exist_ok=True)
        self.work.chmod(0o777)
        self.training = self.work / "training.sh"
        self.training.write_text(TRAINING)
        self.training.chmod(0o755)
        self._policy = ""

    # -- what is there ------------------------------------------------------------------------------

    def policy(self, research: str, product: str, grace: str = "2s") -> None:
        """Make this the running policy, as an administrator would: write the file, send SIGHUP."""
        text = POLICY.format(research=research, product=product, grace=grace)
        if text != self._policy:
            self.sandbox.layout.policy.write_text(text)
            self.reload()
            self._policy = text
        if not self.states():
            # What an earlier test's jobs had been given is taken away within a cycle.
            quotas = [int(rules.partition("h100: ")[2].partition("}")[0]) for rules in (research, product)]
            caps = lambda: [self.caps(team).get("gres/gpu") for team in ("research", "product")]  # noqa: E731
            self.until(lambda: caps() == quotas, f"the caps are the quotas, {quotas}")

    def reload(self) -> str:
        """SIGHUP; returns what the daemon logged about it."""
        log = self.sandbox.log("slurm-govd")
        before = log.stat().st_size
        os.kill(self.governor(), signal.SIGHUP)
        self.until(lambda: "reloaded" in log.read_text()[before:], "policy reloaded")
        return log.read_text()[before:]

    def governor(self) -> int:
        """The pid of slurm-govd."""
        pid = self.sandbox.pids()["slurm-govd"]
        assert pid is not None
        return pid

    def admission(self) -> int:
        """The pid of its admission process."""
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.governor())], capture_output=True, text=True, check=True
        )
        return int(children.stdout.split()[0])

    def clear(self) -> None:
        """No job left, caps back at the quotas."""
        # Twice in a row: a job that died of our signal comes back when the governor has seen it.
        quiet = 0
        deadline = time.monotonic() + 120
        while quiet < 2:
            assert time.monotonic() < deadline, "jobs come back again and again"
            self.until(self._cancelled, "no job is left", 60)
            time.sleep(0.8)
            quiet = 0 if self.squeue("%A") else quiet + 1

    def _cancelled(self) -> bool:
        """Cancel what there is, again and again: a job that is just being launched may not hear of it."""
        if self.squeue("%A"):
            for user in ("root", "games"):
                self.sandbox.run(["scancel", "-u", user], check=False)
            time.sleep(0.4)
        return not self.squeue("%A")

    def squeue(self, form: str, *options: str) -> list[str]:
        """Lines of ``squeue -h -o FORM``."""
        return self.sandbox.run(["squeue", "-h", "-o", form, *options]).stdout.splitlines()

    def states(self) -> dict[int, str]:
        """Job to state (``R``, ``PD``...) of all jobs that have not ended."""
        return {int(line.split()[0]): line.split()[1] for line in self.squeue("%A %t")}

    def reason(self, job: int) -> str:
        """Why Slurm says that a job waits."""
        return " ".join(self.squeue("%r", "-j", str(job)))

    def show(self, job: int, field: str) -> str:
        """A field of ``scontrol show job``."""
        text = self.sandbox.run(["scontrol", "show", "job", str(job)]).stdout
        found = re.search(rf"(?:^|\s){re.escape(field)}=(.*?)(?:$| \w+=)", text, re.MULTILINE)
        assert found, f"{field} not in {text}"
        return found[1]

    def squeue_comment(self, job: int) -> str:
        """A job's AdminComment, empty if it has ended."""
        done = self.sandbox.run(["squeue", "-h", "-j", str(job), "-O", "admin_comment:0"], check=False)
        return done.stdout.strip().replace("(null)", "")

    def restarts(self, job: int) -> int:
        return int(self.show(job, "Restarts"))

    def caps(self, account: str) -> dict[str, int]:
        """An account's GrpTRES as slurmdbd has it."""
        text = self.sandbox.run(
            ["sacctmgr", "-nP", "show", "assoc", f"account={account}", "user=", "format=grptres"]
        ).stdout.strip()
        return {name: int(n) for name, _, n in (part.partition("=") for part in text.split(",")) if n}

    def used(self, account: str) -> int:
        """GPUs that Slurm says an account holds now."""
        lines = self.sandbox.run(["squeue", "-h", "-t", "R", "-O", "account:0|,tres-alloc:0"]).stdout.splitlines()
        held = [re.search(r"gres/gpu=(\d+)", line) for line in lines if line.split("|")[0] == account]
        return sum(int(found[1]) for found in held if found)

    # -- what is done -------------------------------------------------------------------------------

    def sbatch(self, account: str, *options: str, script: str = "sleep 600", **how: object) -> int:
        """Submit a job that runs until it is stopped."""
        return self.sandbox.submit(script, f"--account={account}", *options, **how)

    def train(self, account: str, *options: str) -> tuple[int, Path]:
        """Submit a job that keeps a checkpoint; returns its id and the checkpoint's path."""
        checkpoint = self.work / f"ck{time.monotonic_ns()}"
        arguments = ["sbatch", "--parsable", "--output=/dev/null", f"--account={account}", *options]
        job = int(self.sandbox.run([*arguments, self.training, checkpoint]).stdout)
        return job, checkpoint

    def refused(self, *arguments: str) -> str:
        """What sbatch (or another command) says on the terminal when it fails."""
        done = self.sandbox.run(arguments, check=False)
        assert done.returncode != 0, f"{arguments} was accepted: {done.stdout}"
        return done.stderr

    def restarted(self, *jobs: int, times: int) -> None:
        """Wait until these jobs together were requeued so many times; more is an error at once."""
        self.until(lambda: sum(map(self.restarts, jobs)) >= times, f"{times} restarts among {jobs}")
        assert sum(map(self.restarts, jobs)) == times

    def running(self, *jobs: int, timeout: float = 30) -> None:
        """Wait until these jobs run."""
        self.until(lambda: all(self.states().get(job) == "R" for job in jobs), f"jobs {jobs} run", timeout)

    def until(self, check: Callable[[], object], what: str, timeout: float = 30) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + timeout
        while not check():
            if time.monotonic() > deadline:
                queue = self.sandbox.run(["squeue", "-o", "%i %a %q %t %r %b %N"], check=False).stdout
                raise AssertionError(f"not so after {timeout:.0f} s: {what}\n{queue}")
            time.sleep(0.1)

    def stays(self, check: Callable[[], object], what: str, seconds: float) -> None:
        """Something is so and remains so for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert check(), f"no longer so: {what}"
            time.sleep(0.2)


__all__ = ["AS_ROOT", "GAMES", "Cluster", "SandboxError"]
