"""How long an owner waits for the GPUs that it lent: with slurm-gov, and with Slurm's own preempt/qos."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import random
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench import report
from bench.stats import summary
from slurm_gov.sandbox import Sandbox, SandboxConfig

POLICY = """\
pools:
  h100: {partition: gpu, gres: "gpu:h100"}
priority_classes: {inference: 100, training: 50, experiment: 10}
teams:
  research: {quota: {h100: 32}, fair_share_weight: 50, lend: all, borrow: unlimited}
  product: {quota: {h100: 32}, fair_share_weight: 50, lend: all, borrow: unlimited}
preemption: {grace: 0s}
"""
# The same with Slurm's own means: a job in the QOS owner takes the place of those in borrower.
OWN_CONF = ("PreemptType=preempt/qos", "PreemptMode=REQUEUE")
OWN_QOS = (
    "add qos borrower",
    "add qos owner set preempt=borrower gracetime=0",
    "modify account research set qos=normal,borrower,owner",
    "modify account product set qos=normal,borrower,owner",
)
NODES = 8
PAUSE = 2.0, 5.0  # seconds of quiet before the owner comes, at random: at any moment of anybody's interval

Say = Callable[[str], None]

# What is between two moments, in their order; each moment is looked up in a log.
STAGES = {
    "gov": (
        ("sbatch to slurmctld, hook included", "submitted"),
        ("settle, snapshot, plan", "decided"),
        ("lower the cap", "lowered"),
        ("note and requeue the victims", "requeued"),
        ("their nodes free, job allocated", "running"),
        ("launch to the job's first line", "line"),
    ),
    "own": (
        ("sbatch to slurmctld", "submitted"),
        ("scheduler requeues the victims", "requeued"),
        ("their nodes free, job allocated", "running"),
        ("launch to the job's first line", "line"),
    ),
}


@dataclass(frozen=True)
class Case:
    """How much the owner asks for."""

    name: str
    victims: int


CASES = (Case("1 victim on 1 node", 1), Case("4 victims on 4 nodes", 4))


@dataclass
class Run:
    """One reclaim: its moments in seconds after the moment just before sbatch."""

    moments: dict[str, float]
    victims: int
    by_backfill: bool


@dataclass
class Side:
    """One way to preempt, on its own cluster."""

    name: str
    kind: str
    cluster: Sandbox
    borrower: tuple[str, ...]
    owner: tuple[str, ...]
    runs: dict[Case, list[Run]] = field(default_factory=lambda: {case: [] for case in CASES})

    @property
    def work(self) -> Path:
        return self.cluster.dir / "work"


def measure(runs: int, command: str, say: Say) -> str:
    """Run everything; returns the section for RESULTS.md."""
    base = SandboxConfig().base
    base.mkdir(parents=True, exist_ok=True)
    policy = base / "bench-reclaim.yaml"
    policy.write_text(POLICY)
    with contextlib.ExitStack() as stack:
        stack.callback(policy.unlink)
        gov = stack.enter_context(Sandbox.up(SandboxConfig(name="bench-gov", policy=policy)))
        say("slurm-gov's cluster is up")
        config = SandboxConfig(
            name="bench-own", governor=False, accounts=("research", "product"), slurm_conf=OWN_CONF
        )
        own = stack.enter_context(Sandbox.up(config))
        for line in OWN_QOS:  # one process each: sacctmgr does not see a QOS that it has just added
            own.sacctmgr([line])
        say("Slurm's own cluster is up")
        gov.stop_governor()
        gov.start_governor("--log-format", "json", "--log-level", "debug")
        where = report.circumstances(gov, command)
        sides = (
            Side("slurm-gov", "gov", gov, ("--account=research",), ("--account=product",)),
            Side(
                "preempt/qos",
                "own",
                own,
                ("--account=research", "--qos=borrower"),
                ("--account=product", "--qos=owner"),
            ),
        )
        for side in sides:
            _prepare(side)
        chance = random.Random(1)
        for case in CASES:
            for number in range(runs):
                for side in sides if number % 2 == 0 else sides[::-1]:
                    run = _run(side, case, chance.uniform(*PAUSE))
                    side.runs[case].append(run)
                    say(f"{case.name}, {number + 1} of {runs}: {side.name}: {run.moments['line'] * 1000:.0f} ms")
        return _report(where, sides)


# -- one run -----------------------------------------------------------------------------------------------


def _prepare(side: Side) -> None:
    side.work.mkdir()
    # A borrower that ends at once when it is told to: how long jobs take to end is not what is measured.
    (side.work / "borrower.sh").write_text("#!/bin/bash\nexec sleep 3600\n")
    (side.work / "owner.sh").write_text(
        '#!/bin/bash\necho $EPOCHREALTIME > "$1.new"; mv "$1.new" "$1"\nexec sleep 60\n'
    )


def _run(side: Side, case: Case, pause: float) -> Run:
    cluster = side.cluster
    for _ in range(NODES):
        _sbatch(side, "borrower.sh", *side.borrower, "--nodes=1")
    _until(side, lambda: _states(side).count("RUNNING") == NODES, "every node has a borrower's job")
    time.sleep(pause)

    log, told = cluster.log("slurmctld"), cluster.log("slurm-govd")
    log_from, told_from = log.stat().st_size, told.stat().st_size if told.exists() else 0
    line = side.work / f"line-{time.monotonic_ns()}"
    began = time.time()
    job = _sbatch(side, "owner.sh", *side.owner, f"--nodes={case.victims}", argument=line)
    _until(side, line.exists, "the owner's job runs", every=0.02)
    time.sleep(0.5)  # what slurmctld and slurm-govd still have to write

    moments = {"line": float(line.read_text())}
    said = _since(log, log_from)
    moments |= _slurmctld_moments(said, job)
    if side.kind == "gov":
        moments |= _govd_moments(_since(told, told_from), job)
    restarts = cluster.run(["squeue", "-h", "-t", "PD", "-O", "restartcnt:10"]).stdout.split()
    run = Run(
        {name: moment - began for name, moment in moments.items()},
        victims=sum(count != "0" for count in restarts),
        by_backfill=bool(re.search(rf"backfill.* Started JobId={job} ", said)),
    )
    cluster.run(["scancel", "-u", str(os.getuid())])
    _until(side, lambda: not _states(side), "no job is left")
    return run


def _sbatch(side: Side, script: str, *options: str, argument: Path | None = None) -> int:
    argv = ["sbatch", "--parsable", "--output=/dev/null", "--gres=gpu:h100:8", *options, str(side.work / script)]
    return int(side.cluster.run([*argv, *([str(argument)] if argument else [])]).stdout)


def _states(side: Side) -> list[str]:
    return side.cluster.run(["squeue", "-h", "-o", "%T"]).stdout.split()


def _until(side: Side, check: Callable[[], bool], what: str, every: float = 0.2) -> None:
    deadline = time.monotonic() + 60
    while not check():
        if time.monotonic() > deadline:
            queue = side.cluster.run(["squeue"], check=False).stdout
            raise RuntimeError(f"{side.name}: not so after 60 s: {what}\n{queue}")
        time.sleep(every)


# -- the logs ----------------------------------------------------------------------------------------------


def _since(file: Path, start: int) -> str:
    if not file.exists():
        return ""
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read().decode(errors="replace")


def _slurmctld_moments(said: str, job: int) -> dict[str, float]:
    """slurmctld writes its time to the millisecond, in local time."""
    moments = {}
    patterns = {
        "submitted": rf"_slurm_rpc_submit_batch_job: JobId={job} ",
        "running": rf"(Allocate|Started) JobId={job} ",
        "requeued": rf"has been requeued to reclaim resources for JobId={job}$",
    }
    for text in said.splitlines():
        stamp, _, rest = text.partition("] ")
        for name, pattern in patterns.items():
            if re.search(pattern, rest):
                moments[name] = datetime.datetime.fromisoformat(stamp[1:]).timestamp()  # the last one counts
    return moments


def _govd_moments(said: str, job: int) -> dict[str, float]:
    moments = {}
    for text in said.splitlines():
        entry = json.loads(text)
        at = datetime.datetime.fromisoformat(entry["timestamp"]).timestamp()
        match entry["event"]:
            case "waits" if entry["job"] == str(job) and "decided" not in moments:
                moments["decided"] = at
            case "cap lowered" if "decided" in moments and "requeued" not in moments:
                moments["lowered"] = at
            case "requeued" if "lowered" in moments:
                moments["requeued"] = at
    return moments


# -- telling -----------------------------------------------------------------------------------------------


def _report(where: str, sides: tuple[Side, ...]) -> str:
    parts = [where, "", "From just before the owner's sbatch to the first line of its job, in milliseconds:", ""]
    rows, verdicts, stages = [], [], []
    for case in CASES:
        medians = {}
        for side in sides:
            runs = side.runs[case]
            one = summary([run.moments["line"] * 1000 for run in runs])
            running = statistics.median(run.moments["running"] * 1000 for run in runs)
            medians[side.kind] = one.median
            rows.append(
                [
                    f"{case.name}: {side.name}",
                    *(f"{value:.0f}" for value in (one.median, one.p95, one.least, one.most, running)),
                    f"{one.median / medians['gov']:.2f}",
                    "/".join(str(count) for count in sorted({run.victims for run in runs})),
                    str(sum(run.by_backfill for run in runs)),
                    str(one.count),
                ]
            )
            stages += [[f"{case.name}: {side.name}: {what}", *figures] for what, figures in _stages(side, case)]
        verdicts.append(
            report.verdict(f"{case.name}: median, times preempt/qos", medians["gov"] / medians["own"], 1.0)
        )
    parts += [
        report.table(
            ["", "median", "p95", "min", "max", "RUNNING", "x slurm-gov", "victims", "by backfill", "runs"], rows
        ),
        "",
        "RUNNING: the median until slurmctld allocated the nodes. Where the time goes, medians in milliseconds:",
        "",
        report.table(["", "takes", "done after"], stages),
        "",
        *verdicts,
    ]
    return "\n".join(parts)


def _stages(side: Side, case: Case) -> list[tuple[str, list[str]]]:
    lines = []
    for number, (what, moment) in enumerate(STAGES[side.kind]):
        previous = STAGES[side.kind][number - 1][1] if number else None
        complete = [
            run.moments
            for run in side.runs[case]
            if moment in run.moments and (not previous or previous in run.moments)
        ]
        if complete:
            takes = statistics.median(one[moment] - (one[previous] if previous else 0) for one in complete)
            after = statistics.median(one[moment] for one in complete)
            lines.append((what, [f"{takes * 1000:.0f}", f"{after * 1000:.0f}"]))
    return lines
