"""What the submit hook costs slurmctld, and how long slurm-govd lets the plugin wait."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from bench import programs, report
from bench.stats import Summary, summary
from slurm_gov.core.plan import plan
from slurm_gov.policy.load import load
from slurm_gov.sandbox import Sandbox, SandboxConfig
from slurm_gov.slurm.commands import CommandClient

POLICY = """\
pools:
  h100: {partition: gpu, gres: "gpu:h100"}
priority_classes: {inference: 100, training: 50, experiment: 10}
teams:
  research: {quota: {h100: 32}, fair_share_weight: 50, lend: all, borrow: unlimited}
  product: {quota: {h100: 32}, fair_share_weight: 50, lend: all, borrow: unlimited}
"""
GRES = "gres:gpu:8,gres:gpu:h100:4"  # every other request needs its type filled in
NAME = "bench"
WARM_UP = 5  # submissions of each round that do not count
SETTLE = 0.5  # seconds for what a reconfiguration sets off

Say = Callable[[str], None]


@dataclass(frozen=True)
class Variant:
    """What is compared: JobSubmitPlugins, and whether slurm-govd runs its cycles (questions it answers always)."""

    name: str
    plugin: str
    governor: bool


NONE = Variant("no plugin", "", False)
BESIDE = Variant("no plugin, slurm-govd runs", "", True)
LUA = Variant("job_submit/lua", "lua", False)
GOV = Variant("slurm-gov", "gov", True)
HOOK_ALONE = Variant("slurm-gov, its cycles held", "gov", False)
VARIANTS = (NONE, BESIDE, LUA, GOV, HOOK_ALONE)


@dataclass
class Series:
    """What was measured of one variant, in microseconds, and the mean of each round."""

    server: list[int] = field(default_factory=list)
    client: list[int] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)


@dataclass
class Asked:
    """Round trips of one situation, and how busy slurm-govd was meanwhile."""

    name: str
    trips: list[int]
    busy: float  # of one core: the daemon itself, which looks, plans and acts
    commands: float  # of one core: Slurm's commands that it runs


def measure(submissions: int, rounds: int, waiting: int, asks: int, command: str, say: Say) -> str:
    """Run everything; returns the section for RESULTS.md."""
    base = SandboxConfig()
    policy = base.base / "bench-policy.yaml"
    base.base.mkdir(parents=True, exist_ok=True)
    policy.write_text(POLICY)
    try:
        config = SandboxConfig(name="bench-hook", policy=policy)
        with Sandbox.up(config, lambda step: say(f"sandbox: {step}")) as cluster:
            return _Hook(cluster, say).run(submissions, rounds, waiting, asks, command)
    finally:
        policy.unlink()


class _Hook:
    def __init__(self, cluster: Sandbox, say: Say) -> None:
        self.cluster = cluster
        self.say = say
        self.submit = programs.submit(cluster.dir)
        self.ask = programs.ask(cluster.dir)
        self.governor = psutil.Process(cluster.pids()["slurm-govd"])
        script = Path(__file__).with_name("job_submit.lua")
        (cluster.layout.etc / script.name).write_text(script.read_text())

    def run(self, submissions: int, rounds: int, waiting: int, asks: int, command: str) -> str:
        where = report.circumstances(self.cluster, command)
        series = {variant: Series() for variant in VARIANTS}
        trips: list[int] = []
        chance = random.Random(1)
        for number in range(rounds):
            # Few submissions at a time, in another order each time: the machine is the same for all variants.
            for variant in chance.sample(VARIANTS, len(VARIANTS)):
                self._switch(variant)
                self._submit(WARM_UP)
                rows = self._submit(max(1, submissions // rounds))
                self._check_typed(variant)
                one = series[variant]
                one.server += [row[0] for row in rows]
                one.client += [row[1] for row in rows]
                one.rounds.append(statistics.fmean(row[0] for row in rows))
                if variant is GOV:
                    trips += self._trips_in_slurmctld(max(1, submissions // rounds))
            self.cluster.run(["scancel", "-u", str(os.getuid())])
            means = ", ".join(f"{one.name} {series[one].rounds[-1]:.0f}" for one in VARIANTS)
            self.say(f"round {number + 1} of {rounds}, mean us: {means}")
        asked = [Asked("in slurmctld, one submission after another", trips, math.nan, math.nan)]
        self._switch(GOV)
        asked.append(self._asked("asked every 2 ms, nothing waits", asks))
        self._fill(waiting)
        looked, planned = self._cycle_times()
        asked.append(self._asked(f"the same, {waiting} jobs wait", asks))
        with self._planner():
            asked.append(self._asked("the same, and a planner that never pauses", asks))
        return self._report(where, series, asked, waiting, looked, planned)

    # -- switching -----------------------------------------------------------------------------------------

    def _switch(self, variant: Variant) -> None:
        """Make slurmctld load another plugin; without the governor, slurm-govd is stopped by a signal."""
        cluster = self.cluster
        conf = cluster.layout.slurm_conf
        lines = [line for line in conf.read_text().splitlines() if not line.startswith("JobSubmitPlugins=")]
        if variant.plugin:
            lines.append(f"JobSubmitPlugins={variant.plugin}")
        conf.write_text("\n".join(lines) + "\n")
        if variant.governor:
            self.governor.resume()
        else:
            self.governor.suspend()
        cluster.run(["scontrol", "reconfigure"])
        _until(lambda: self._loaded() == variant.plugin, f"slurmctld has {variant.name}", 30)
        time.sleep(SETTLE)

    def _loaded(self) -> str:
        """The plugin that refuses a job for 9 GPUs on nodes of 8."""
        argv = ["sbatch", "--hold", "--account=research", "--gres=gpu:9", "--wrap=true"]
        said = self.cluster.run(argv, check=False).stderr
        if "the job asks for 9 h100 on a node" not in said:
            return ""
        return "gov" if "slurm-gov: " in said else "lua"

    def _check_typed(self, variant: Variant) -> None:
        """Every other job asked for untyped GPUs: with a plugin none is left untyped."""
        asked = self.cluster.run(["squeue", "-h", "-n", NAME, "-O", "tres-per-node:40"]).stdout
        untyped = len(re.findall(r"gpu:8\b", asked))
        if bool(untyped) == bool(variant.plugin) or "gpu" not in asked:
            raise RuntimeError(f"{variant.name}: {untyped} jobs with untyped GPUs")
        self.cluster.run(["scancel", "-n", NAME])

    # -- measuring -----------------------------------------------------------------------------------------

    def _submit(self, count: int, hold: bool = True, account: str = "research") -> list[list[int]]:
        argv: list[str | Path] = [self.submit, NAME, str(count), str(int(hold)), account, GRES]
        out = self.cluster.run(argv, timeout=600).stdout
        return [[int(word) for word in line.split()] for line in out.splitlines()]

    def _trips_in_slurmctld(self, count: int) -> list[int]:
        """Round trips as the plugin in slurmctld logs them, at a level of logging that costs time elsewhere."""
        log = self.cluster.log("slurmctld")
        self.cluster.run(["scontrol", "setdebug", "debug"])
        before = log.stat().st_size
        self._submit(count)
        self.cluster.run(["scontrol", "setdebug", "info"])
        with log.open("rb") as file:
            file.seek(before)
            return [int(us) for us in re.findall(rb"job_submit/gov: verdict \d+ in (\d+) us", file.read())]

    def _asked(self, name: str, count: int) -> Asked:
        self.say(f"{count} questions: {name}")
        before, began = self.governor.cpu_times(), time.monotonic()
        argv: list[str | Path] = [self.ask, self.cluster.layout.govd_socket, str(count), "2000"]
        argv += ["research", "gpu", "gres:gpu:8"]
        out = self.cluster.run(argv, timeout=600).stdout
        after, took = self.governor.cpu_times(), time.monotonic() - began
        own = after.user + after.system - before.user - before.system
        theirs = after.children_user + after.children_system - before.children_user - before.children_system
        return Asked(name, [int(line) for line in out.split()], own / took, theirs / took)

    def _fill(self, waiting: int) -> None:
        """A long queue: both teams hold all they can, everything else waits and is planned for."""
        self.say(f"{waiting} jobs that wait")
        for account in ("research", "product"):
            self._submit(waiting // 2, hold=False, account=account)

    @contextlib.contextmanager
    def _planner(self) -> Iterator[None]:
        """A second process that plans all the time, for slurm-govd itself spaces its cycles."""
        argv: list[str | Path] = [sys.executable, "-m", "bench.planner", self.cluster.layout.policy]
        root = Path(__file__).parent.parent
        with subprocess.Popen(argv, env=self.cluster.env, cwd=root, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout and process.stdout.readline() == b"planning\n"
                yield
            finally:
                process.terminate()

    def _cycle_times(self) -> tuple[float, float]:
        """Seconds for one look at this Slurm, and for one plan."""
        policy = load(self.cluster.layout.policy)
        with _environment(self.cluster.env):
            began = time.monotonic()
            snapshot = asyncio.run(CommandClient().snapshot())
            looked = time.monotonic()
        plan(policy, snapshot)
        return looked - began, time.monotonic() - looked

    # -- telling -------------------------------------------------------------------------------------------

    def _report(
        self,
        where: str,
        series: dict[Variant, Series],
        asked: list[Asked],
        waiting: int,
        looked: float,
        planned: float,
    ) -> str:
        mean = {variant: summary(one.server).mean for variant, one in series.items()}
        rows = []
        for variant, one in series.items():
            server, client = summary(one.server), summary(one.client)
            rows.append(
                [
                    variant.name,
                    *_figures(server),
                    f"{server.mean / mean[NONE]:.2f}",
                    f"{_paired(one, series[NONE]):.2f}",
                    f"{client.mean:.0f}",
                ]
            )
        trips = []
        for situation in asked:
            good = [trip for trip in situation.trips if trip >= 0]
            trips.append(
                [
                    situation.name,
                    *_figures(summary(good)),
                    str(len(situation.trips) - len(good)),
                    _share(situation.busy),
                    _share(situation.commands),
                ]
            )
        submissions = len(series[NONE].server)
        p99 = max(summary(one.trips).p99 for one in asked) / 1000
        return "\n".join(
            [
                where,
                "",
                f"Server time of a submission in microseconds, {submissions} held jobs each, one after another; by "
                "round: the median of the rounds' ratios; client: mean time until the submitter had its answer:",
                "",
                report.table(
                    ["", "mean", "p50", "p99", "max", "x no plugin", "by round", "client"],
                    rows,
                ),
                "",
                "Round trip between plugin and slurm-govd in microseconds; busy: of one core, the daemon itself, and "
                "the commands it runs:",
                "",
                report.table(["", "mean", "p50", "p99", "max", "failed", "busy", "commands"], trips),
                "",
                f"One cycle with {waiting} waiting jobs: {looked * 1000:.0f} ms to look, "
                f"{planned * 1000:.0f} ms to plan.",
                "",
                report.verdict("mean server time, times no plugin", mean[GOV] / mean[NONE], 1.10),
                report.verdict(
                    "mean server time of the hook alone, times no plugin", mean[HOOK_ALONE] / mean[NONE], 1.10
                ),
                report.verdict("mean server time, times job_submit/lua", mean[GOV] / mean[LUA], 1.0),
                report.verdict("p99 of the round trip, the worst of the situations", p99, 1.0, " ms"),
            ]
        )


def _paired(one: Series, other: Series) -> float:
    """The median of the rounds' ratios of means: one bad moment of the machine does not move it."""
    return statistics.median(a / b for a, b in zip(one.rounds, other.rounds, strict=True))


def _figures(one: Summary) -> list[str]:
    return [f"{one.mean:.0f}", f"{one.median:.0f}", f"{one.p99:.0f}", f"{one.most:.0f}"]


def _share(value: float) -> str:
    return "" if value != value else f"{value:.0%}"


def _until(check: Callable[[], Any], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not check():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not so after {timeout:.0f} s: {what}")
        time.sleep(0.1)


class _environment:
    """Our own environment, as a sandbox's commands need it."""

    def __init__(self, variables: dict[str, str]) -> None:
        self._variables = variables

    def __enter__(self) -> None:
        self._before = dict(os.environ)
        os.environ.clear()
        os.environ.update(self._variables)

    def __exit__(self, *_: object) -> None:
        os.environ.clear()
        os.environ.update(self._before)
