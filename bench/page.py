"""What the live page and the read API cost: bytes a second, time per cycle, at 1,000 nodes and 5,000 waiting jobs.

A cluster in memory plays on by the real core's plans: jobs end, others start, others come, nodes fail and return.
What is served is served by the daemon's own code. ``python -m bench.page`` measures; with ``--serve`` it stays up,
to be looked at.
"""

from __future__ import annotations

import argparse
import http.client
import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from bench import report
from slurm_gov.core.actions import actions
from slurm_gov.core.decision import Reason
from slurm_gov.core.plan import plan
from slurm_gov.core.policy import Policy, Pool, Quota, Team, frozen
from slurm_gov.core.rows import Look
from slurm_gov.core.snapshot import Held, Mark, Node, Request, RunningJob, Snapshot, WaitingJob
from slurm_gov.daemon.http import HttpServer
from slurm_gov.web.app import make_app
from slurm_gov.web.board import Board, Happening, Took
from slurm_gov.web.document import document
from slurm_gov.web.history import STEP
from slurm_gov.web.view import View

POOLS = {"h100": 0.8, "a100": 0.2}
TEAMS = ("vision", "language", "speech", "robotics", "product", "safety", "recsys", "biology", "climate", "interns")
CLASSES = {"inference": 100, "training": 50, "experiment": 10}
NAMES = ("pretrain-7b", "finetune", "eval-suite", "sweep", "tokenise", "rlhf-stage2", "distill", "ablation", "serve")
FAULTS = ("slurm-gov: XID 79: GPU has fallen off the bus", "Not responding", "slurm-gov: reboot after ECC errors",
          "bad DIMM, ticket 4711")  # fmt: skip


class World:
    """A cluster in memory."""

    def __init__(self, nodes: int, waiting: int, seed: int = 1) -> None:
        self.dice = random.Random(seed)
        self.now = time.time()
        self.waiting_wanted = waiting
        self.id = 100_000
        made = []
        for pool, part in POOLS.items():
            for number in range(round(nodes * part)):
                gpus = frozen({f"gres/gpu:{pool}": 8})
                made.append(Node(f"{pool}-{number:04}", (pool,), gpus, 128, 2_000_000))
        self.nodes = {node.name: node for node in made}
        shares = (18, 16, 12, 11, 10, 8, 7, 5, 4, 1)
        teams = {}
        for team, share in zip(TEAMS, shares, strict=True):
            quotas = {pool: Quota(int(nodes * part) * share // 100 * 8) for pool, part in POOLS.items()}
            teams[team] = Team(team, frozen(quotas), fair_share_weight=share)
        self.policy = Policy(
            frozen({pool: Pool(pool, (pool,), f"gpu:{pool}") for pool in POOLS}), frozen(teams),
            priority_classes=frozen(CLASSES), protect_after=None,
        )  # fmt: skip
        self.caps = {team: {f"gres/gpu:{p}": q.nominal for p, q in teams[team].quotas.items()} for team in TEAMS}
        self.running: dict[int, RunningJob] = {}
        self.waiting: dict[int, WaitingJob] = {}
        self.cycles = 0
        self.happened: list[dict[str, object]] = []
        while len(self.waiting) < waiting:
            self._submit()

    def _submit(self) -> None:
        self.id += 1
        dice = self.dice
        pool = "h100" if dice.random() < 0.8 else "a100"
        count = dice.choice((1, 1, 1, 2, 2, 4, 8, 16))
        team = dice.choices(TEAMS, (25, 25, 8, 6, 2, 4, 10, 8, 2, 10))[0]
        request = Request(frozen({f"gres/gpu:{pool}": count * 8}), min_nodes=count, gpus_per_node=8, cpus=count * 8)
        # The cycle's figures change, and with them the sentences: that is what a stream must carry.
        self.waiting[self.id] = WaitingJob(
            self.id, str(self.id), f"user{dice.randrange(60)}", team, (pool,), dice.choice(tuple(CLASSES)),
            priority=dice.randrange(1000, 9000), submit=self.now - dice.randrange(7200), request=request,
            slurm_reason="AssocGrpGRES", name=dice.choice(NAMES), time_limit=86400.0,
            expected=self.now + dice.randrange(20, 40_000) if dice.random() < 0.3 else None,
        )  # fmt: skip

    def look(self) -> Look:
        """Decide on what is there now."""
        self.now = time.time()
        snapshot = Snapshot(
            self.now, tuple(self.nodes.values()), tuple(self.running.values()),
            tuple(sorted(self.waiting.values(), key=lambda job: (-job.priority, job.id))),
            frozen(dict.fromkeys(TEAMS, "root")), frozen({t: frozen(c) for t, c in self.caps.items()}),
        )  # fmt: skip
        decided = plan(self.policy, snapshot)
        return Look(self.policy, snapshot, decided, actions(self.policy, snapshot, decided))

    def act(self, look: Look) -> None:
        """Slurm does what it was told, jobs end, others come, nodes fail and return."""
        self.happened = []
        for team, limits in look.plan.caps.items():
            for tres, amount in limits.items():
                if tres in self.caps[team] and self.caps[team][tres] != amount:
                    self._tell("cap", team=team, pool=tres.rpartition(":")[2], before=str(self.caps[team][tres]),
                               after=str(amount), why="idle GPUs are lent" if amount > self.caps[team][tres]
                               else "lent GPUs are wanted back")  # fmt: skip
                    self.caps[team][tres] = amount
        for leave in look.actions.warn:
            mark = replace(leave.mark, deadline=self.now + 30)
            self.running[leave.job.id] = replace(leave.job, mark=mark)
            self._tell("preempt", job=leave.job.display_id, team=leave.preempt.team, gpus=_size(leave.job),
                       for_job=leave.preempt.beneficiary_display_id, for_team=leave.preempt.beneficiary_team,
                       why=leave.preempt.reason)  # fmt: skip
        for leave in look.actions.requeue:
            gone = self.running.pop(leave.job.id, None)
            if gone is not None:
                self._requeued(gone, leave.mark)
        for decision in look.plan.decisions:
            if decision.reason is Reason.STARTS_NOW:
                self._start(decision.job)
        for id in self.dice.sample(sorted(self.running), min(len(self.running), self.dice.randrange(3, 12))):
            if not self.running[id].being_preempted:
                del self.running[id]
        if self.dice.random() < 0.15:
            name = self.dice.choice(list(self.nodes))
            node = self.nodes[name]
            reason = self.dice.choice(FAULTS)
            state = "IDLE+DRAIN" if "slurm-gov" in reason else "DOWN*+DRAIN"
            self.nodes[name] = replace(node, usable=False, state=state, reason=reason)
            self._tell("node", node=name, before="healthy", after="draining", why=reason)
        for name, node in list(self.nodes.items()):
            if not node.usable and self.dice.random() < 0.01:
                self.nodes[name] = replace(node, usable=True, state="IDLE", reason="")
        while len(self.waiting) < self.waiting_wanted:
            self._submit()

    def _requeued(self, job: RunningJob, mark: Mark) -> None:
        pool = job.partition
        gpus = _size(job)
        request = Request(frozen({f"gres/gpu:{pool}": gpus}), min_nodes=gpus // 8, gpus_per_node=8, cpus=gpus)
        self.waiting[job.id] = WaitingJob(
            job.id, job.display_id, job.user, job.account, (pool,), job.qos, 1000, self.now, request, mark=mark,
            slurm_reason="BeginTime", name=job.name,
        )  # fmt: skip
        self._tell("requeue", job=job.display_id, team=job.account, gpus=gpus, why=mark.reason)

    def _start(self, id: int) -> None:
        job = self.waiting.get(id)
        if job is None:
            return
        pool = job.partitions[0]
        busy = {held.node for one in self.running.values() for held in one.held}
        free = [n.name for n in self.nodes.values() if n.usable and n.partitions == (pool,) and n.name not in busy]
        if len(free) < job.request.min_nodes:
            return
        del self.waiting[id]
        held = tuple(Held(n, frozen({f"gres/gpu:{pool}": 8}), 8, 1000) for n in free[: job.request.min_nodes])
        self.running[id] = RunningJob(
            id, str(id), job.user, job.account, pool, job.qos, self.now, held, name=job.name,
            time_limit=86400.0, submit=job.submit,
        )  # fmt: skip

    def _tell(self, kind: str, **facts: object) -> None:
        self.happened.append({"kind": kind, "at": self.now, "who": "slurm-govd"} | facts)


def _size(job: RunningJob) -> int:
    return sum(sum(held.gpus.values()) for held in job.held)


def fill(world: World) -> None:
    """Until the cluster is as full as it gets."""
    before = -1
    while len(world.running) > before:
        before = len(world.running)
        world.act(world.look())


def put(board: Board, world: World, look: Look) -> float:
    """What the daemon does after a cycle; returns the seconds that it took the governor's thread."""
    began = time.perf_counter()
    for facts in world.happened:
        board.happened(lambda id, facts=facts: Happening(id, **facts))  # type: ignore[misc]
    board.put(look, Took(0.2, 0.1, 0.0))
    return time.perf_counter() - began


def invent_history(board: Board, world: World, look: Look) -> None:
    """The last hours, so that the chart has something to draw."""
    now = look.snapshot.now
    samples = int(5.5 * 3600 / STEP)
    plans = look.plan
    for step in range(samples):
        wave = world.dice.random() * 0.02 + 0.62 + 0.3 * abs(((step / 130) % 2) - 1)
        standings = tuple(replace(s, used=int(s.used * wave), borrowed=int(s.borrowed * wave**3),
                                  waiting=int(s.waiting * (0.4 + wave / 2))) for s in plans.standings)  # fmt: skip
        pools = tuple(replace(p, used=sum(s.used for s in standings if s.pool == p.pool)) for p in plans.pools)
        pools = tuple(replace(p, free=max(0, p.healthy - p.used)) for p in pools)
        then = replace(look, plan=replace(plans, standings=standings, pools=pools),
                       snapshot=replace(look.snapshot, now=now - (samples - step) * STEP))  # fmt: skip
        board._history.add(then)


def stream(server: HttpServer) -> Iterator[bytes]:
    """The lines of the stream as a browser gets them."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", "/api/v1/stream")
    response = connection.getresponse()
    while line := response.readline():
        yield line


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--nodes", type=int, default=1000)
    options.add_argument("--waiting", type=int, default=5000)
    options.add_argument("--seconds", type=float, default=60.0, help="how long to measure")
    options.add_argument("--interval", type=float, default=2.0, help="seconds between two cycles")
    options.add_argument("--serve", action="store_true", help="stay up")
    options.add_argument("--write", action="store_true", help="also write the results into bench/RESULTS.md")
    options.add_argument("--listen", default="127.0.0.1:0")
    given = options.parse_args()

    world = World(given.nodes, given.waiting)
    fill(world)
    board = Board(given.interval)
    look = world.look()
    invent_history(board, world, look)
    server = HttpServer(make_app(board), given.listen)
    server.start()
    put(board, world, look)
    counts = f"{len(world.nodes)} nodes, {len(world.running)} running, {len(world.waiting)} waiting"
    print(f"{server.url}  {counts}", flush=True)
    read: list[tuple[float, int]] = []

    def listen() -> None:
        for line in stream(server):
            read.append((time.perf_counter(), len(line)))

    if not given.serve:
        threading.Thread(target=listen, daemon=True).start()
    puts, documents, pages = [], [], []
    began = time.perf_counter()
    while given.serve or time.perf_counter() - began < given.seconds:
        turn = time.perf_counter()
        world.act(look)
        look = world.look()
        puts.append(put(board, world, look))
        if not given.serve:
            at = time.perf_counter()
            document(board, board.state, View(look))
            documents.append(time.perf_counter() - at)
            at = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            connection.request("GET", "/api/v1/jobs?limit=100&search=user7")
            connection.getresponse().read()
            pages.append(time.perf_counter() - at)
        time.sleep(max(0.0, given.interval - (time.perf_counter() - turn)))
    sent = sum(size for at, size in read if at > read[2][0]) / (read[-1][0] - read[2][0])
    head = ("", "median", "most")
    rows = [
        ("the governor's thread, for each cycle (ms)", *_ms(puts)),
        ("the page's document, for each cycle that somebody watches (ms)", *_ms(documents)),
        ("a search through all jobs by the read API, in a client (ms)", *_ms(pages)),
    ]
    text = "\n".join(
        (
            report.circumstances(None, " ".join(["python -m bench.page", *sys.argv[1:]])),
            "",
            f"{counts}; a cycle every {given.interval:g} s, {len(puts)} of them:",
            "",
            report.table(head, rows),
            "",
            f"The stream begins with {read[1][1] / 1e3:,.0f} KB.",
            "",
            report.verdict("the stream", sent / 1e3, 50, " KB/s"),
        )
    )
    print(text)
    if given.write:
        report.write("The live page", text)
    board.close()
    server.stop()


def _ms(values: list[float]) -> tuple[str, str]:
    return f"{statistics.median(values) * 1e3:.1f}", f"{max(values) * 1e3:.1f}"


if __name__ == "__main__":
    main()
