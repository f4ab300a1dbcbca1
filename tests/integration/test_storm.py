"""A storm of mixed real jobs with policy changes in between, watched every second.

SLURM_GOV_STORM is its length in seconds: 40 by default, and as much again until all jobs have ended; ``make storm``
takes ten minutes and 500 jobs. SLURM_GOV_STORM_SEED chooses other jobs.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import NewSandbox
from governed import Cluster
from invariants import Invariants, Job, Observation, Run

from slurm_gov.policy import loads
from slurm_gov.sandbox import Pool

LENGTH = float(os.environ.get("SLURM_GOV_STORM", "40"))
SEED = int(os.environ.get("SLURM_GOV_STORM_SEED", "1"))
JOBS = max(80, round(500 * LENGTH / 600))
SUBMITTING = 0.75 * LENGTH
LOAD = 1.2
"""How much more work than the cluster can do while it comes in: so that teams borrow and owners take back."""
NODES = {"h100": (20, 8), "a100": (12, 4)}
CAPACITY = {pool: nodes * gpus for pool, (nodes, gpus) in NODES.items()}
TEAMS = ("vision", "speech", "product")
pytestmark = pytest.mark.timeout(3 * LENGTH + 400)

POLICY = """\
pools:
  h100: {{partition: [h100, long], gres: "gpu:h100"}}
  a100: {{partition: a100, gres: "gpu:a100"}}
priority_classes: {{inference: 100, training: 50, experiment: 10}}
teams:
  vision: {{quota: {{h100: {0}, a100: 16}}, cohort: lab, {1}, fair_share_weight: 50}}
  speech: {{quota: {{h100: 32, a100: 8}}, cohort: lab, {2}, fair_share_weight: 25}}
  product: {{quota: {{h100: {3}, a100: 16}}, cohort: company, {4}, fair_share_weight: 25}}
cohorts:
  company: {{}}
  lab: {{parent: company, {5}}}
sharing: {{idle: {6}, lend_unallocated: {7}}}
preemption: {{grace: 2s, signal: "B:USR1"}}
"""
# Quotas come and go, limits tighten and loosen, and the way of sharing changes.
POLICIES = [
    POLICY.format(
        64, "borrow: unlimited", "borrow: unlimited", 48, "borrow: none", "lend: all", "fair_share", "true"
    ),
    POLICY.format(64, "borrow: 16", "lend: none", 48, "borrow: unlimited", "borrow: 16", "fair_share", "true"),
    POLICY.format(32, "borrow: 200%", "borrow: unlimited", 80, "lend: 50%", "borrow: 64", "first_come", "true"),
    POLICY.format(32, "borrow: unlimited", "borrow: 100%", 48, "borrow: 50%", "lend: 16", "fair_share", "false"),
]

# Its life goes to a file: start, end, or the signal. One half saves and leaves at the signal, the other goes on.
SCRIPT = """\
#!/bin/bash
say() { echo "$1 $SLURM_JOB_ID ${SLURM_RESTART_COUNT:-0}" >> "$LIFE"; }
LIFE=$1
if [ "$3" = leaves ]; then trap 'say signal; exit 0' USR1; else trap '' USR1; fi
say start
sleep "$2" & wait $!
say end
"""
_ACCOUNTING = "JobIDRaw,State,Start,End,Account,AllocTRES"


CONF = ("PartitionName=long Nodes=h100-[1-10] MaxTime=INFINITE State=UP",)
FEATURES = {"h100-[1-10]": "ib", "h100-[11-20]": "roce", "a100-[1-6]": "ib", "a100-[7-12]": "roce"}
STRANGERS = "strangers"
"""An account without a policy: its jobs run, are counted, and are left alone."""


@dataclass
class Wish:
    """A job to be submitted. ``gpus`` is of one task, or of all components of a het job, of which there are so many
    ``parts``: ``options`` has theirs with a colon between. ``easy``: it fits wherever a part of a node is free.
    ``held``: its user holds it for so many seconds.
    """

    at: float
    team: str
    pool: str
    gpus: int
    options: tuple[str, ...]
    seconds: float
    tasks: int = 1
    leaves: bool = False
    parts: int = 1
    easy: bool = False
    held: float = 0.0


def storm(dice: random.Random) -> list[Wish]:
    """The jobs, in the order in which they come: bursts of one team, then of another."""
    wishes: list[Wish] = []
    while sum(wish.tasks for wish in wishes) < JOBS:
        burst = dice.uniform(0, SUBMITTING)
        team = dice.choice(TEAMS)
        for _ in range(dice.randint(2, 9)):
            wishes.append(_wish(dice, min(SUBMITTING, burst + dice.expovariate(0.5)), team))
    # Two teams have nothing to do at first: the third borrows what is theirs.
    for wish in wishes:
        if wish.at < SUBMITTING / 8:
            wish.team = "vision"
    for wish in wishes:
        if wish.tasks == wish.parts == 1 and dice.random() < 0.05:
            wish.team = STRANGERS
            wish.options = tuple(one for one in wish.options if not one.startswith("--qos"))
    work = sum(wish.gpus * wish.seconds * wish.tasks for wish in wishes)
    scale = LOAD * sum(CAPACITY.values()) * SUBMITTING / work
    for wish in wishes:
        # Tasks of an array may have to run one after another.
        wish.seconds = min(60.0 if wish.tasks == 1 else 20.0, max(2.0, wish.seconds * scale))
    return sorted(wishes, key=lambda wish: wish.at)


KINDS = {
    "part": 24, "node": 16, "nodes": 16, "spread": 8, "array": 8, "untyped": 6,
    "exclusive": 4, "features": 6, "named": 4, "tasks": 4, "one node": 4, "two nodes": 3, "tasks on nodes": 3,
    "het": 6, "no gpus": 3,
}  # fmt: skip
"""Kinds of jobs, and how many of each."""


def _wish(dice: random.Random, at: float, team: str) -> Wish:
    pool = dice.choices(["h100", "a100"], [4, 1])[0]
    each = NODES[pool][1]
    kind = dice.choices([*KINDS], [*KINDS.values()])[0]
    partition = f"--partition={pool if pool == 'a100' else dice.choice(['h100', 'h100', 'long', 'long,h100'])}"
    tasks, options, parts = 1, [], 1
    if kind in ("part", "features", "named"):
        gpus = dice.randint(1, each // 2)
        options += ["-N1", f"--gres=gpu:{pool}:{gpus}"]
        number = dice.randint(1, NODES[pool][0] // 2)
        if kind == "features":
            options.append(f"-C{dice.choice(['ib', 'ib|roce', 'ib&ib', 'ib&(ib|roce)'])}")
        elif kind == "named":
            options.append(f"{dice.choice(['-w', '-x'])}{pool}-{number}")
    elif kind in ("node", "nodes"):
        count = 1 if kind == "node" else dice.randint(2, 4)
        gpus = count * each
        options += [f"-N{count}", f"--gpus-per-node={pool}:{each}"]
    elif kind == "exclusive":
        gpus = each
        options += ["-N1", "--exclusive", f"--gres=gpu:{pool}:1"]
    elif kind == "spread":
        gpus = dice.randint(2, 2 * each)
        options += [f"--gpus={pool}:{gpus}"]
    elif kind == "one node":
        gpus = dice.randint(2, each)
        options += ["-N1", f"--gpus={pool}:{gpus}"]
    elif kind == "two nodes":
        gpus = dice.randint(2, 2 * each)
        options += ["-N2", f"--gpus={pool}:{gpus}"]
    elif kind in ("tasks", "tasks on nodes"):
        gpus, on = 4, ["-n2"] if kind == "tasks" else ["-N2", "--ntasks-per-node=1"]
        options += [*on, f"--gpus-per-task={pool}:2"]
    elif kind == "untyped":
        gpus = dice.randint(1, each)
        options += ["-N1", f"--gpus-per-node={gpus}"]
    elif kind == "het":
        gpus, parts = each + 2, dice.choice([2, 3])
        options += ["-N1", f"--gpus-per-node={pool}:{each}", ":", f"--account={team}", partition, "-N1"]
        options += [f"--gres=gpu:{pool}:2", *([":", f"--account={team}", partition, "-n1"] if parts == 3 else [])]
    elif kind == "no gpus":
        gpus = 0
        options += ["-n2"]
    else:
        gpus, tasks = dice.randint(1, each), dice.randint(3, 8)
        limit = dice.choice(["", "%2"])
        options += [f"--array=1-{tasks}{limit}", "-N1", f"--gpus-per-node={pool}:{gpus}"]
    first: list[str] = [partition]
    if parts == 1 and (priority := dice.choice(["", "experiment", "training", "inference"])):
        first.append(f"--qos={priority}")
    if kind in ("part", "node") and dice.random() < 0.08:
        first.append("--no-requeue")
    if parts == 1 and dice.random() < 0.05:
        first.append("--begin=now+5")
    if dice.random() < 0.2:
        first.append("--time=5")
    held = dice.uniform(2, 6) if kind == "part" and dice.random() < 0.05 else 0.0
    if held:
        first.append("--hold")
    easy = kind in ("part", "untyped", "array") and gpus <= each // 2 and "long" not in partition
    seconds, leaves = dice.uniform(4, 20), dice.random() < 0.5
    return Wish(at, team, pool, gpus, (*first, *options), seconds, tasks, leaves, parts, easy, held)


class Storm:
    """The cluster, the jobs that were submitted, and what is watched."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.sandbox = cluster.sandbox
        self.life = cluster.work / "life"
        self.life.touch()
        self.life.chmod(0o666)
        self.script = cluster.work / "storm.sh"
        self.script.write_text(SCRIPT)
        self.script.chmod(0o755)
        self.submitted: dict[int, Wish] = {}
        self.components: set[int] = set()  # of het jobs, but for the first of each
        self.refused = 0
        self.failed: list[str] = []
        self.invariants = Invariants(loads(POLICIES[0]), CAPACITY)
        self.began = time.monotonic()

    def submit(self, wishes: list[Wish]) -> None:
        """Submit each at its time; runs in a thread of its own."""
        try:
            held: list[tuple[float, int]] = []
            for number, wish in enumerate(wishes):
                time.sleep(max(0.0, self.began + wish.at - time.monotonic()))
                manner = "leaves" if wish.leaves else "stays"
                arguments = ["sbatch", "--parsable", "--output=/dev/null", f"--account={wish.team}", *wish.options]
                if number % 25 == 24 and self.submitted and wish.parts == 1:
                    arguments.insert(1, f"--dependency=afterany:{max(self.submitted)}")
                command = [*arguments, self.script, self.life, f"{wish.seconds:.1f}", manner]
                done = self.sandbox.run(command, check=False)
                if done.returncode and wish.parts > 1 and "Job violates accounting/QOS policy" in done.stderr:
                    self.refused += 1  # Slurm 26.05, of a het job beyond the cap of the moment
                    continue
                assert not done.returncode, f"{command}: {done.stderr}"
                self._note(int(done.stdout), wish)
                if wish.held:
                    held.append((time.monotonic() + wish.held, int(done.stdout)))
                held = self._release(held)
            while held:
                time.sleep(0.5)
                held = self._release(held)
        except Exception as error:
            self.failed.append(f"submitting: {error}")

    def _release(self, held: list[tuple[float, int]]) -> list[tuple[float, int]]:
        """Release those whose time has come; the others."""
        for at, job in held:
            if at <= time.monotonic():
                self.sandbox.run(["scontrol", "release", str(job)])
        return [one for one in held if one[0] > time.monotonic()]

    def _note(self, job: int, wish: Wish) -> None:
        watch = self.invariants
        self.components |= set(range(job + 1, job + wish.parts))
        if wish.tasks > 1:
            watch.arrays.add(job)
        if "--no-requeue" in wish.options:
            watch.keep.add(job)
        if wish.easy:
            watch.small.add(job)
        watch.demand[job] = (wish.team, wish.pool, wish.gpus)
        self.submitted[job] = wish

    def observe(self) -> Observation:
        """What squeue and sacctmgr say now."""
        fields = ("jobid", "arrayjobid", "statecompact", "reason", "account", "tres-alloc", "nodelist", "starttime",
                  "restartcnt", "admin_comment")  # fmt: skip
        listed = self.sandbox.run(
            ["squeue", "-h", "-r", "-t", "PD,R,CG,CF,S", "-O", ",".join(f"{one}:0@@" for one in fields)],
            env={"SLURM_TIME_FORMAT": "%s"},
        ).stdout
        text = self.sandbox.run(["sacctmgr", "-nP", "show", "assoc", "user=", "format=account,grptres"]).stdout
        caps = {}
        for line in text.splitlines():
            account, _, limits = line.partition("|")
            caps[account] = {name: int(n) for name, _, n in (one.partition("=") for one in limits.split(",")) if n}
        jobs = {line.split("@@")[0]: _job(line.split("@@")) for line in listed.splitlines()}  # once each record
        return Observation(time.time(), tuple(jobs.values()), caps)

    def change_policy(self, text: str) -> None:
        """As an administrator would: write the file, send SIGHUP."""
        self.sandbox.layout.policy.write_text(text)
        self.cluster.reload()
        self.invariants.change(loads(text), time.time())

    def lives(self) -> dict[int, list[tuple[str, int]]]:
        """By job id: what its runs wrote, with the number of restarts."""
        lives: dict[int, list[tuple[str, int]]] = {}
        for line in self.life.read_text().splitlines():
            what, job, restart = line.split()
            lives.setdefault(int(job), []).append((what, int(restart)))
        return lives

    def runs(self) -> list[Run]:
        """All runs of all jobs, as accounting has them."""
        text = self.sandbox.run(
            ["sacct", "-nPXD", "-S", "now-1day", "-o", _ACCOUNTING], env={"SLURM_TIME_FORMAT": "%s"}
        ).stdout
        runs = []
        for line in text.splitlines():
            job, state, start, end, account, tres = line.split("|")
            gpus = re.search(r"gres/gpu:(\w+)=(\d+)", tres)
            held = (gpus[1], int(gpus[2])) if gpus else ("", 0)
            runs.append(Run(int(job), state.split()[0], _time(start), _time(end), account, *held))
        return runs


def _job(parts: list[str]) -> Job:
    job, array, state, reason, account, tres, nodes, start, restarts, comment, *_ = (part.strip() for part in parts)
    gpus = {name: int(n) for name, n in re.findall(r"(gres/gpu:\w+)=(\d+)", tres)}
    number = int(array) if array.isdigit() else 0
    comment = "" if comment == "(null)" else comment
    return Job(int(job), number, state, reason, account, gpus, nodes, start, comment, int(restarts or 0))


def _time(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text).timestamp() if text[:1].isdigit() else 0.0


@pytest.fixture
def stormy(new_sandbox: NewSandbox, tmp_path: Path) -> Storm:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICIES[0])
    pools = tuple(Pool(name, nodes=nodes, gpus=gpus) for name, (nodes, gpus) in NODES.items())
    cluster = Cluster(new_sandbox(pools=pools, policy=policy, slurm_conf=CONF, accounts=(STRANGERS,)))
    for nodes, feature in FEATURES.items():
        features = f"availablefeatures={feature}", f"activefeatures={feature}"
        cluster.sandbox.run(["scontrol", "update", f"nodename={nodes}", *features])
    return Storm(cluster)


def test_the_invariants_hold_in_a_storm(stormy: Storm, tmp_path: Path) -> None:
    wishes = storm(random.Random(SEED))
    changes = [LENGTH * number / 7 for number in range(1, 7)]
    watch = stormy.invariants
    stormy.began = time.monotonic()
    submitting = threading.Thread(target=stormy.submit, args=(wishes,))
    submitting.start()
    changed, lost_since = 0, {}
    left: set[int] = set()
    while True:
        began = time.monotonic()
        expected = dict(stormy.submitted)
        coming = submitting.is_alive()
        seen = stormy.observe()
        watch.watch(seen)
        left = {job.id for job in seen.jobs} | {job.array for job in seen.jobs}
        gone = [job for job in expected if job not in left]
        lives = stormy.lives() if gone else {}
        for job in gone:
            if expected[job].tasks == 1 and not any(what in ("end", "signal") for what, _ in lives.get(job, ())):
                since = lost_since.setdefault(job, began)
                assert began - since < 30, f"job {job} is neither in the queue nor did it end"
        if changed < len(changes) and began - stormy.began > changes[changed]:
            changed += 1
            stormy.change_policy(POLICIES[changed % len(POLICIES)])
        if not coming and not left - {0}:
            break
        assert began - stormy.began < 2 * LENGTH + 240, f"{len(left)} jobs have not ended: {sorted(left)[:20]}"
        time.sleep(max(0.0, began + 1 - time.monotonic()))
    submitting.join()
    took = time.monotonic() - stormy.began
    assert not stormy.failed, stormy.failed
    _neither_lost_nor_doubled(stormy)
    watch.judge_takings(stormy.runs())
    borrowed = {f"{team} {pool}": most for (team, pool), most in watch.most_borrowed.items() if most}
    jobs = sum(wish.tasks for wish in wishes) - stormy.refused
    print(
        f"\nstorm: {jobs} jobs in {took:.0f} s, {changed} policy changes, {watch.seen} "
        f"observations, {len(watch.preempted)} preemptions; borrowed at most: {borrowed}; broken: {len(watch.broken)}"
    )
    if watch.broken:
        log = stormy.sandbox.log("slurm-govd")
        kept = shutil.copy2(log, tmp_path / log.name)
        raise AssertionError("\n".join([*watch.broken, f"what slurm-govd said: {kept}"]))
    assert changed == len(changes)
    assert watch.preempted, "nobody was preempted: this was no storm"
    assert len(borrowed) >= 2


def _neither_lost_nor_doubled(stormy: Storm) -> None:
    """Every job ended once, after as many runs as accounting knows, one after another."""
    lives = stormy.lives()
    wanted = sum(wish.tasks for wish in stormy.submitted.values())
    stormy.cluster.until(lambda: _ended(stormy) >= wanted, f"accounting knows the end of {wanted} jobs", 60)
    records: dict[int, list[Run]] = {}
    for run in stormy.runs():
        if run.job not in stormy.components:
            records.setdefault(run.job, []).append(run)
    assert len(records) == wanted
    for job, runs in records.items():
        # Who ends in its grace period, by our signal or not, is requeued: Slurm 26.05 still calls that run COMPLETED.
        ended = {restart for what, restart in lives.get(job, ()) if what in ("signal", "end")}
        states = Counter(run.state for run in runs)
        assert 1 <= states["COMPLETED"] <= max(1, len(ended)), f"job {job}: {runs}"
        assert set(states) <= {"COMPLETED", "REQUEUED"}, f"job {job}: {runs}"
        assert max(runs, key=lambda run: run.start or 0).state == "COMPLETED", f"job {job}: {runs}"
        times = sorted((run.start, run.end) for run in runs if run.start)
        for (_, end), (start, _) in pairwise(times):
            assert start >= end - 1, f"job {job} ran twice at once: {runs}"
        starts = [restart for what, restart in lives.get(job, ()) if what == "start"]
        assert starts, f"job {job} never ran: {runs}"
        assert len(starts) == len(set(starts)), f"job {job} started twice in one run: {lives[job]}"
        # Who left at our signal, and was not started again, would be lost.
        assert ("end", max(starts)) in lives[job], f"job {job}: {lives[job]}"


def _ended(stormy: Storm) -> int:
    ended = ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT")
    return len({run.job for run in stormy.runs() if run.state in ended} - stormy.components)
