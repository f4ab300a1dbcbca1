"""How long a job stands still when a node of it dies: with slurm-gov, and with Slurm alone."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import sqlite3
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import report
from bench.stats import summary
from slurm_gov.sandbox import Sandbox, SandboxConfig
from slurm_gov.sandbox.agents import config_file
from slurm_gov.sandbox.config import Pool
from slurm_gov.sandbox.governor import program

POLICY = """\
pools:
  h100: {{partition: gpu, gres: "gpu:h100"}}
teams:
  research: {{quota: {{h100: 48}}, fair_share_weight: 50}}
health:
  provider: power
  providers:
    power: {{kind: command, command: {base}/bench-recovery/etc/power, time_limit: 1m}}
  recover: 1s
  reboots: 1000
"""
NODES = 6
TIMEOUTS = {"Slurm alone, SlurmdTimeout=300 (as shipped)": 300, "Slurm alone, SlurmdTimeout=30": 30}
"""Below 30 s a busy node, or a slurmctld that is restarted, counts as dead."""
MOMENTS = ("drained or down", "requeued", "running again")

Say = Callable[[str], None]
Times = tuple[float | None, float | None, float | None]


def measure(runs: int, command: str, say: Say) -> str:
    """Run everything; returns the section for RESULTS.md."""
    base = SandboxConfig().base
    base.mkdir(parents=True, exist_ok=True)
    policy = base / "bench-recovery.yaml"
    policy.write_text(POLICY.format(base=base))
    found: dict[str, list[Times]] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(policy.unlink)
        # Slurm alone takes minutes of mere waiting: it begins first, and is asked last.
        alone = {
            name: stack.enter_context(_alone(index, seconds, runs))
            for index, (name, seconds) in enumerate(TIMEOUTS.items())
        }
        hurt = {name: _hurt_all(cluster, runs) for name, cluster in alone.items()}
        say(f"Slurm alone: {runs} nodes of each cluster are dead")
        config = SandboxConfig(name="bench-recovery", pools=(Pool(nodes=NODES),), policy=policy, broker=True)
        cluster = stack.enter_context(Sandbox.up(config))
        where = report.circumstances(cluster, command)
        for node in cluster.config.all_nodes():
            cluster.start_agent(node)
        _until(lambda: len(_rows(cluster, "SELECT node FROM report")) == NODES, "all agents have reported", 120)
        for name, hurt_one in (("slurm-gov, XID 79", _xid), ("slurm-gov, power gone", _power)):
            found[name] = []
            for number in range(runs):
                found[name].append(_governed(cluster, hurt_one))
                say(f"{name}: run {number + 1} of {runs}: {_shown(found[name][-1])}")
        for name in sorted(alone, key=lambda one: TIMEOUTS[one]):
            found[name] = _wait_all(alone[name], hurt[name], TIMEOUTS[name], say)
    return _text(found, where)


def _governed(cluster: Sandbox, hurt: Callable[[Sandbox, str], float]) -> Times:
    """One two-node job, one of whose nodes is hurt."""
    healthy = lambda: set(cluster.nodes().values()) == {"idle"}  # noqa: E731
    _until(healthy, "all nodes are idle", 120)
    job = cluster.submit("sleep 600", "--account=research", "-N2", "--gpus-per-node=8", "--requeue")
    cluster.wait_job(job, "RUNNING")
    time.sleep(random.uniform(1, 3))  # at any moment of anybody's interval
    bad = _nodes_of(cluster, job)[0]
    log = cluster.log("slurmctld")
    position = log.stat().st_size
    began = hurt(cluster, bad)
    _until(lambda: None not in _times(log, position, job, bad, began), f"job {job} runs again", 120)
    times = _times(log, position, job, bad, began)
    cluster.run(["scancel", str(job)])
    return times


def _xid(cluster: Sandbox, node: str) -> float:
    """When the fault was there: as the agent, which saw it, tells."""
    before = time.time()
    config = config_file(cluster.layout, node)
    cluster.run([program("slurm-gov-agent"), "--config", config, "inject", "xid", "79", "--gpu", "3"])
    query = "SELECT time FROM history WHERE event = 'fault' AND node = ? AND time >= ?"
    _until(lambda: _rows(cluster, query, node, before), "the fault is known", 60)
    return float(_rows(cluster, query, node, before)[0][0])


def _power(cluster: Sandbox, node: str) -> float:
    began = time.time()
    cluster.stop_agent(node, signal.SIGKILL)
    cluster.stop_node(node)
    return began


def _alone(index: int, seconds: int, runs: int) -> Sandbox:
    """A cluster without us, with room for every job to run again."""
    lines = (f"SlurmdTimeout={seconds}",)
    config = SandboxConfig(
        name=f"bench-alone{index}",
        pools=(Pool(nodes=3 * runs),),
        governor=False,
        accounts=("research",),
        slurm_conf=lines,
    )
    return Sandbox.up(config)


def _hurt_all(cluster: Sandbox, runs: int) -> dict[int, tuple[str, float]]:
    """As many two-node jobs, one node of each dies, at random moments: each is a run of its own."""
    options = ("--account=research", "-N2", "--gpus-per-node=8", "--requeue")
    jobs = [cluster.submit("sleep 3000", *options) for _ in range(runs)]
    for job in jobs:
        cluster.wait_job(job, "RUNNING", 60)
    hurt = {}
    for job in jobs:
        bad = _nodes_of(cluster, job)[0]
        hurt[job] = bad, time.time()
        cluster.stop_node(bad)
        time.sleep(random.uniform(0, 1))
    return hurt


def _wait_all(cluster: Sandbox, hurt: dict[int, tuple[str, float]], limit: int, say: Say) -> list[Times]:
    log = cluster.log("slurmctld")

    def done() -> int:
        return sum(None not in _times(log, 0, job, bad, began) for job, (bad, began) in hurt.items())

    _until(lambda: done() == len(hurt), f"all jobs run again on {cluster.config.name}", 2 * limit + 400)
    say(f"{cluster.config.name}: all run again")
    return [_times(log, 0, job, bad, began) for job, (bad, began) in hurt.items()]


def _times(log: Path, position: int, job: int, node: str, began: float) -> Times:
    """Seconds from the fault to each moment, from slurmctld's log; None: not yet."""
    with log.open(errors="replace") as file:
        file.seek(position)
        text = file.read()
    gone = rf"node {node} state set to D|error: Nodes \S*\b{node}\b\S* not responding, setting DOWN"
    gone += rf"|error: Nodes .*{node.rstrip('0123456789')}\[.* not responding, setting DOWN"
    patterns = (gone, rf"requeue job JobId={job} due to failure of node", rf"(?:Allocate|Started) JobId={job} ")
    found: list[float | None] = []
    after = began
    for pattern in patterns:
        moments = [
            when
            for stamp in re.findall(rf"^\[([\d\-T:.]+)\] .*(?:{pattern})", text, re.MULTILINE)
            if (when := datetime.fromisoformat(stamp).timestamp()) >= after - 0.005
        ]
        found.append(moments[0] - began if moments else None)
        after = moments[0] if moments else after
    return found[0], found[1], found[2]


def _text(found: dict[str, list[Times]], where: str) -> str:
    rows = []
    for name, runs in found.items():
        cells = []
        for index in range(len(MOMENTS)):
            figures = summary([one[index] for one in runs if one[index] is not None])  # type: ignore[misc]
            cells.append(f"{figures.median:.2f} / {figures.p95:.2f}")
        rows.append([name, str(len(runs)), *cells])
    head = ["", "runs", *(f"{moment}, s" for moment in MOMENTS)]
    return f"{where}\n\nFrom the fault, median / p95.\n\n{report.table(head, rows)}\n"


def _shown(times: Times) -> str:
    return ", ".join(f"{name} {at:.2f} s" for name, at in zip(MOMENTS, times, strict=True) if at is not None)


def _nodes_of(cluster: Sandbox, job: int) -> list[str]:
    listed = cluster.run(["squeue", "-h", "-j", str(job), "-o", "%N"]).stdout.strip()
    return cluster.run(["scontrol", "show", "hostnames", listed]).stdout.split()


def _rows(cluster: Sandbox, query: str, *values: object) -> list[tuple[Any, ...]]:
    if not cluster.layout.node_journal.exists():
        return []
    with sqlite3.connect(f"file:{cluster.layout.node_journal}?mode=ro", uri=True, timeout=10) as db:
        try:
            return db.execute(query, values).fetchall()
        except sqlite3.OperationalError:  # it is being made
            return []


def _until(so: Callable[[], object], what: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not so():
        if time.monotonic() > deadline:
            raise SystemExit(f"recovery: not so after {timeout:.0f} s: {what}")
        time.sleep(0.1)
