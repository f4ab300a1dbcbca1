"""How long a plan takes and how much memory, from 1/100 of the largest cluster to the whole of it (see cluster.py).

No Slurm is needed: the planner is a function. Where the time goes: ``python -m bench.plan 1 storm profile``.
"""

from __future__ import annotations

import cProfile
import json
import math
import pstats
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace

from bench import report
from bench.cluster import carry_out, change, cluster, warn
from slurm_gov.core.decision import News, Plan
from slurm_gov.core.plan import Planner, plan
from slurm_gov.daemon.memory import tidy, tune

PARTS = (100, 10, 1)
FROM_NOTHING = 2.0
"""To reach: seconds for a plan from nothing."""
AFTER_A_CHANGE = 0.2
"""To reach: seconds for a cycle after 1 % of the jobs changed."""
MEMORY = 1024.0
"""To reach: MiB."""
KUEUE = 43.0
"""Workloads per second that Kueue decides in its own performance test."""

Figures = dict[str, float]


def measure(command: str, say: Callable[[str], None]) -> str:
    """Everything, as the text of its section; ``say`` is told how far it is."""
    where = report.circumstances(None, command)
    found: dict[tuple[int, str], Figures] = {}
    for part in PARTS:
        for weather in ("calm", "storm"):
            say(f"plan: 1/{part} of the whole, {weather}")
            found[part, weather] = _apart(part, weather)
    head = ["", "nodes", "teams", "running", "waiting", "preempted"]
    head += ["from nothing", "1 % changed", "most", "in grace", "told", "news", "all", "tidied", "MiB"]
    rows = [
        [
            f"1/{part} {weather}" if part > 1 else weather,
            *(f"{one[name]:,.0f}" for name in ("nodes", "teams", "running", "waiting", "preempted")),
            *(f"{one[name] * 1000:,.0f}" for name in ("nothing", "changed", "changed_most", "in_grace")),
            f"{one['warned']:,.0f}",
            *(f"{one[name] * 1000:,.0f}" for name in ("news", "all", "tidied_most")),
            f"{one['peak']:.0f}",
        ]
        for (part, weather), one in found.items()
    ]
    calm, storm = found[1, "calm"], found[1, "storm"]
    jobs = storm["running"] + storm["waiting"]
    return "\n".join(
        [
            where,
            "",
            "Milliseconds, medians of 3 plans from nothing and of 5 cycles each after 1 % of all jobs ended or were "
            "replaced, and the longest of these; the same while so many as were told to leave are in a grace period "
            "of 30 s, with a cycle each 5 s; what slurm-govd reads of such a plan then (news: who waits for another "
            "reason now), and what it takes to write out all decisions, which the page and the API ask for; "
            "the longest look for garbage, which comes after acting; peak memory of the whole process:",
            "",
            report.table(head, rows),
            "",
            *(_growth(found, weather) for weather in ("calm", "storm")),
            f"- decided from nothing in the storm: {jobs / storm['nothing']:,.0f} jobs a second; Kueue's own "
            f"performance test: about {KUEUE:.0f} workloads a second (it admits them, too)",
            "",
            report.verdict("plan from nothing, calm", calm["nothing"], FROM_NOTHING, " s"),
            report.verdict("plan from nothing, storm", storm["nothing"], FROM_NOTHING, " s"),
            report.verdict("cycle after 1 % changed, calm", calm["changed"], AFTER_A_CHANGE, " s"),
            report.verdict("cycle after 1 % changed, storm", storm["changed"], AFTER_A_CHANGE, " s"),
            report.verdict("memory", max(calm["peak"], storm["peak"]), MEMORY, " MiB"),
        ]
    )


def _growth(found: dict[tuple[int, str], Figures], weather: str) -> str:
    """How time grows with the number of jobs, between the smallest and the largest size."""
    small, large = found[max(PARTS), weather], found[1, weather]
    many, few = (one["running"] + one["waiting"] for one in (large, small))
    times = math.log(large["nothing"] / small["nothing"]) / math.log(many / few)
    fair = math.log(many * math.log(many) / (few * math.log(few))) / math.log(many / few)
    return f"- growth, {weather}: time grows with n^{times:.2f} from nothing; n log n would be n^{fair:.2f} here"


def _apart(part: int, weather: str) -> Figures:
    """One size in a process of its own, so that memory is this size's alone."""
    argv = [sys.executable, "-m", "bench.plan", str(part), weather]
    return json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout)


def figures(part: int, weather: str) -> Figures:
    """One size. The daemon's settings of the garbage collector are used."""
    policy, snapshot = cluster(part, calm=weather == "calm")
    tune()
    nothing, tidied = [], []
    for _ in range(3):
        start = time.perf_counter()
        decided = plan(policy, snapshot)
        nothing.append(time.perf_counter() - start)
        tidied.append(_tidied())
    first = snapshot
    preempted = len(decided.preempt)
    planner, dice, news = Planner(), random.Random(7), News()
    changed, new, everything, made = [], [], [], []
    for _ in range(4):  # what was asked for is given, and what comes of that
        snapshot = carry_out(snapshot, planner.plan(policy, snapshot))
        tidy()
    news.of(planner.plan(policy, snapshot).decisions)
    for _ in range(5):
        snapshot = change(snapshot, dice)
        start = time.perf_counter()
        decided = planner.plan(policy, snapshot)
        changed.append(time.perf_counter() - start)
        tidied.append(_tidied())
        start = time.perf_counter()
        news.of(decided.decisions)
        new.append(time.perf_counter() - start)
        start = time.perf_counter()
        assert len(tuple(decided.decisions)) == len(snapshot.waiting)
        everything.append(time.perf_counter() - start)
        made.append((snapshot, _digest(decided)))
        snapshot = carry_out(snapshot, decided)
        del decided  # or the next cycle's time would have in it the freeing of all that was written out of this one
        news.of(planner.plan(policy, snapshot).decisions)
        tidied.append(_tidied())
    in_grace = []
    for number in range(13):  # the first six fill the grace periods
        snapshot = change(snapshot, dice)
        start = time.perf_counter()
        decided = planner.plan(policy, snapshot)
        if number >= 8:
            in_grace.append(time.perf_counter() - start)
            warned = sum(job.being_preempted for job in snapshot.running)
        snapshot = warn(snapshot, decided)
        tidied.append(_tidied())
    # Not in between: slurm-govd makes no plan from nothing between its cycles.
    for seen, digest in made:
        assert _digest(plan(policy, seen)) == digest
        tidy()
    return {
        "nodes": len(first.nodes),
        "teams": len(policy.teams),
        "running": len(first.running),
        "waiting": len(first.waiting),
        "preempted": preempted,
        "nothing": statistics.median(nothing),
        "changed": statistics.median(changed),
        "changed_most": max(changed),
        "in_grace": statistics.median(in_grace),
        "warned": warned,
        "news": statistics.median(new),
        "all": statistics.median(everything),
        "tidied_most": max(tidied),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _digest(decided: Plan) -> int:
    """Equal for equal plans."""
    rest = {one.name: getattr(decided, one.name) for one in fields(decided) if one.name != "decisions"}
    return hash((tuple(decided.decisions), repr(rest)))


def _tidied() -> float:
    """Look for garbage, as the daemon does when it has acted: seconds."""
    start = time.perf_counter()
    tidy()
    return time.perf_counter() - start


def profile(part: int, weather: str) -> None:
    """Where the time of a plan from nothing goes, and that of a cycle after it."""
    policy, snapshot = cluster(part, calm=weather == "calm")
    planner = Planner()
    for text in ("from nothing", "after a change"):
        profiler = cProfile.Profile()
        profiler.runcall(planner.plan, policy, snapshot)
        print(f"== {text}")
        pstats.Stats(profiler).sort_stats("cumtime").print_stats(40)
        snapshot = replace(change(snapshot, random.Random(7)), now=snapshot.now + 5)


if __name__ == "__main__":
    if sys.argv[3:] == ["profile"]:
        profile(int(sys.argv[1]), sys.argv[2])
    else:
        print(json.dumps(figures(int(sys.argv[1]), sys.argv[2])))
