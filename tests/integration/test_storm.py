"""A storm of mixed real jobs with policy changes in between, watched every second.

SLURM_GOV_STORM is its length in seconds: 40 by default, and as much again until all jobs have ended; ``make storm``
takes ten minutes and 500 jobs. SLURM_GOV_STORM_SEED chooses other jobs.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import NewSandbox
from governed import Cluster
from invariants import Invariants, Job, Observation, Run
from mix import CAPACITY, FEATURES, NODES, PARTITION, STRANGERS, Wish, storm

from slurm_gov.policy import loads
from slurm_gov.sandbox import Pool
from slurm_gov.slurm import parse

LENGTH = float(os.environ.get("SLURM_GOV_STORM", "40"))
SEED = int(os.environ.get("SLURM_GOV_STORM_SEED", "1"))
JOBS = max(80, round(500 * LENGTH / 600))
SUBMITTING = 0.75 * LENGTH
pytestmark = pytest.mark.timeout(3 * LENGTH + 400)

POLICY = """\
pools:
  h100: {{partition: [h100, h100-long], gres: "gpu:h100"}}
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
_ACCOUNTING = "JobIDRaw,JobID,State,Start,End,Account,AllocTRES"


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
        self.failed: list[str] = []
        self.invariants = Invariants(loads(POLICIES[0]), CAPACITY)
        self.began = time.monotonic()

    def submit(self, wishes: list[Wish]) -> None:
        """Submit each at its time, and release those that were held; runs in a thread of its own."""
        held: list[tuple[float, int]] = []
        job = None
        try:
            for wish in [*wishes, None]:
                while held and (wish is None or held[0][0] < wish.at):
                    self._sleep_until(held[0][0])
                    self.sandbox.run(["scontrol", "release", str(held.pop(0)[1])])
                if wish is None:
                    break
                self._sleep_until(wish.at)
                manner = "leaves" if wish.leaves else "stays"
                arguments = ["sbatch", "--parsable", *wish.arguments(job)]
                done = self.sandbox.run([*arguments, self.script, self.life, f"{wish.seconds:.1f}", manner])
                job = int(done.stdout)
                self._note(job, wish)
                if wish.held:
                    held = sorted([*held, (wish.at + wish.held, job)])
        except Exception as error:
            self.failed.append(f"submitting: {error}")

    def _sleep_until(self, at: float) -> None:
        time.sleep(max(0.0, self.began + at - time.monotonic()))

    def _note(self, job: int, wish: Wish) -> None:
        watch = self.invariants
        if wish.tasks > 1:
            watch.arrays.add(job)
        if not wish.requeue:
            watch.keep.add(job)
        if wish.kind == "exclusive":
            watch.exclusive[job] = NODES[wish.pool][1]
        if wish.account != STRANGERS:
            watch.demand[job] = (wish.account, wish.pool, wish.gpus)
            if wish.fits_everywhere:
                watch.small.add(job)
        self.submitted[job] = wish

    def observe(self) -> Observation:
        """What squeue, sinfo, sacctmgr and the governor say now."""
        fields = ("jobid", "arrayjobid", "hetjobid", "statecompact", "reason", "account", "tres-alloc", "nodelist",
                  "starttime", "restartcnt", "admin_comment")  # fmt: skip
        listed = self.sandbox.run(
            ["squeue", "-a", "-h", "-r", "-t", "PD,R,CG,CF,S", "-O", ",".join(f"{one}:0@@" for one in fields)],
            env={"SLURM_TIME_FORMAT": "%s"},
        ).stdout
        text = self.sandbox.run(["sacctmgr", "-nP", "show", "assoc", "user=", "format=account,grptres"]).stdout
        caps = {}
        for line in text.splitlines():
            account, _, limits = line.partition("|")
            caps[account] = {name: int(n) for name, _, n in (one.partition("=") for one in limits.split(",")) if n}
        jobs = {line.split("@@")[0]: _job(line.split("@@")) for line in listed.splitlines()}  # once each record
        return Observation(time.time(), tuple(jobs.values()), caps, self._free(), self._counted())

    def _free(self) -> dict[str, tuple[int, ...]]:
        """By pool, how many GPUs are free on each node."""
        text = self.sandbox.run(["sinfo", "-h", "-N", "-p", ",".join(NODES), "-O", "gresused:0"]).stdout
        used = re.findall(r"gpu:(\w+):(\d+)", text)
        return {pool: tuple(each - int(n) for name, n in used if name == pool) for pool, (_, each) in NODES.items()}

    def governor_looks(self) -> bool:
        """Whether it has seen the cluster."""
        try:
            return bool(self._counted())
        except urllib.error.HTTPError:
            return False

    def _counted(self) -> dict[tuple[str, str], int]:
        """By team and pool, what the governor says is held; by those that are no team's under no name."""
        with urllib.request.urlopen(f"{self.sandbox.page}api/v1/teams", timeout=30) as answer:
            said = json.load(answer)
        return {(one.get("team", ""), one["pool"]): one["used"] for one in (*said["teams"], *said["without_team"])}

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
            job, name, state, start, end, account, tres = line.split("|")
            gpus = re.search(r"gres/gpu:(\w+)=(\d+)", tres)
            held = (gpus[1], int(gpus[2])) if gpus else ("", 0)
            het = int(name.partition("+")[0]) if "+" in name else 0
            runs.append(Run(int(job), state.split()[0], _time(start), _time(end), account, *held, het))
        return runs


def _job(parts: list[str]) -> Job:
    job, array, het, state, reason, account, tres, listed, start, restarts, comment, *_ = (
        one.strip() for one in parts
    )
    gpus = {name: int(n) for name, n in re.findall(r"(gres/gpu:\w+)=(\d+)", tres)}
    number, whole = (int(one) if one.isdigit() else 0 for one in (array, het))
    comment, nodes = "" if comment == "(null)" else comment, parse.nodes(listed)
    return Job(int(job), number, state, reason, account, gpus, nodes, start, comment, int(restarts or 0), whole)


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
    sandbox = new_sandbox(pools=pools, policy=policy, accounts=(STRANGERS,), slurm_conf=(PARTITION,))
    for names, nodes in FEATURES.items():
        features = [f"availablefeatures={names}", f"activefeatures={names}"]
        sandbox.run(["scontrol", "update", f"nodename={nodes}", *features])
    made = Storm(Cluster(sandbox))
    made.cluster.until(made.governor_looks, "the governor has seen the cluster")
    return made


def test_the_invariants_hold_in_a_storm(stormy: Storm, tmp_path: Path) -> None:
    wishes = storm(random.Random(SEED), JOBS, SUBMITTING)
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
        assert not stormy.failed, stormy.failed
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
    watch.judge_takings(stormy.runs())
    borrowed = {f"{team} {pool}": most for (team, pool), most in watch.most_borrowed.items() if most}
    kinds = Counter(wish.kind for wish in stormy.submitted.values())
    left = Counter(stormy.submitted[job].kind if job in stormy.submitted else "array" for job, _ in watch.preempted)
    print(
        f"\nstorm: {sum(w.tasks for w in wishes)} jobs in {took:.0f} s, {changed} policy changes, {watch.seen} "
        f"observations, {len(watch.preempted)} preemptions; borrowed at most: {borrowed}; broken: {len(watch.broken)}"
        f"\nsubmitted: {dict(kinds)}\npreempted: {dict(left)}"
    )
    if watch.broken:
        log = stormy.sandbox.log("slurm-govd")
        kept = shutil.copy2(log, tmp_path / log.name)
        raise AssertionError("\n".join([*watch.broken, f"what slurm-govd said: {kept}"]))
    _neither_lost_nor_doubled(stormy)
    assert changed == len(changes)
    assert watch.preempted, "nobody was preempted: this was no storm"
    assert len(borrowed) >= 3


def _neither_lost_nor_doubled(stormy: Storm) -> None:
    """Every job ended once, after as many runs as accounting knows, one after another."""
    lives = stormy.lives()
    wanted = sum(wish.tasks * len(wish.parts) for wish in stormy.submitted.values())
    stormy.cluster.until(lambda: _ended(stormy) >= wanted, f"accounting knows the end of {wanted} jobs", 60)
    records: dict[int, list[Run]] = {}
    for run in stormy.runs():
        # Slurm starts a het job's components one by one, and takes it back at once if one of them cannot.
        taken_back = run.het and run.state == "PENDING" and run.start == run.end
        if not taken_back:
            records.setdefault(run.job, []).append(run)
    assert len(records) == wanted
    for job, runs in records.items():
        # Who ends in its grace period, by our signal or not, is requeued: Slurm 26.05 still calls that run COMPLETED.
        life = lives.get(runs[0].het or job, ())  # the script of a het job runs on its first component
        ended = {restart for what, restart in life if what in ("signal", "end")}
        states = Counter(run.state for run in runs)
        assert 1 <= states["COMPLETED"] <= max(1, len(ended)), f"job {job}: {runs}"
        assert set(states) <= {"COMPLETED", "REQUEUED"}, f"job {job}: {runs}"
        assert max(runs, key=lambda run: run.start or 0).state == "COMPLETED", f"job {job}: {runs}"
        times = sorted((run.start, run.end) for run in runs if run.start)
        for (_, end), (start, _) in pairwise(times):
            assert start >= end - 1, f"job {job} ran twice at once: {runs}"
        starts = [restart for what, restart in life if what == "start"]
        assert starts, f"job {job} never ran: {runs}"
        assert len(starts) == len(set(starts)), f"job {job} started twice in one run: {life}"
        # Who left at our signal, and was not started again, would be lost.
        assert ("end", max(starts)) in life, f"job {job}: {life}"


def _ended(stormy: Storm) -> int:
    ended = ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT")
    return len({run.job for run in stormy.runs() if run.state in ended})
