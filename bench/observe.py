"""What watching costs: a scrape of /metrics with 200 teams in 4 pools, and a ledger of a million decisions.

No Slurm is needed: cycles and decisions are made up, what handles them is the daemon's own.
"""

from __future__ import annotations

import gzip
import random
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import report, stats
from slurm_gov.core.actions import actions
from slurm_gov.core.decision import Plan, PoolStanding, Standing
from slurm_gov.core.policy import Policy, Pool, Quota, Team, frozen
from slurm_gov.core.run import Run
from slurm_gov.core.snapshot import RunningJob, Snapshot
from slurm_gov.daemon.cycle import Cycle
from slurm_gov.daemon.http import HttpServer
from slurm_gov.daemon.metrics import Metrics
from slurm_gov.ledger import Event, Kind, Span, events, spans
from slurm_gov.ledger.report import By, Per, periods
from slurm_gov.ledger.report import report as usage_report
from slurm_gov.ledger.store import Words, open_to_write, write
from slurm_gov.ledger.usage import Books
from slurm_gov.web.app import add_page, make_app
from slurm_gov.web.board import Board

TEAMS, POOLS, CLASSES = 200, 4, ("inference", "training", "experiment")
DECISIONS = 1_000_000
DAYS = 365.0
RUNS = 100_000
SCRAPES = 200


def measure(command: str, say: Callable[[str], None]) -> str:
    """Everything, as the text of its section; ``say`` is told how far it is."""
    where = report.circumstances(None, command)
    say("observe: a scrape")
    times, wire, plain, lines, cycle = _scrape()
    say(f"observe: a ledger of {DECISIONS:,} decisions")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        written = _fill(path)
        size = sum(file.stat().st_size for file in path.parent.iterdir()) / 1e6
        say("observe: reports over it")
        reports = _reports(path)
    took = stats.summary(times)
    rows = [["/metrics", f"{took.median:.1f}", f"{took.p99:.1f}", f"{wire:.0f}", f"{plain:.0f}", f"{lines:,}"]]
    answers = [[name, f"{seconds:.2f}", f"{found:,}"] for name, (seconds, found) in reports.items()]
    return "\n".join(
        [
            where,
            "",
            f"{TEAMS} teams with quotas in each of {POOLS} pools, {len(CLASSES)} priority classes; a GET as "
            "Prometheus makes it (gzip), in milliseconds and KB:",
            "",
            report.table(["", "median", "p99", "KB sent", "KB unpacked", "lines"], rows),
            "",
            f"What the counting adds to a cycle: {cycle:.1f} ms. A ledger of {DECISIONS:,} decisions over "
            f"{DAYS:.0f} days: {size:.0f} MB, written in {written:.0f} s. Asked of it, in seconds (sacct's own time "
            "comes on top of usage):",
            "",
            report.table(["", "s", "found"], answers),
            "",
            report.verdict("a scrape, median", took.median, 20.0, " ms"),
            report.verdict("a scrape, p99", took.p99, 20.0, " ms"),
            report.verdict("a scrape, sent", wire, 200.0, " KB"),
            report.verdict(f"the ledger with {DECISIONS:,} decisions", size, 100.0, " MB"),
            report.verdict("the slowest report", max(seconds for seconds, _ in reports.values()), 2.0, " s"),
        ]
    )


def _policy() -> Policy:
    pools = {f"pool{n}": Pool(f"pool{n}", (f"part{n}",), f"gpu:type{n}", 2.0) for n in range(POOLS)}
    quotas = frozen({pool: Quota(8, None, None) for pool in pools})
    teams = {name: Team(name, quotas) for name in (f"team-{n:03d}" for n in range(TEAMS))}
    return Policy(frozen(pools), frozen(teams), priority_classes=frozen(dict.fromkeys(CLASSES, 50)))


def _cycle(policy: Policy, number: int, now: float) -> Cycle:
    """All teams hold something everywhere, half of them borrow, and 600 jobs have just started."""
    standings = []
    for place, team in enumerate(policy.teams):
        for pool in policy.pools:
            used = (place + number) % 17
            standings.append(Standing(team, pool, 8, 8, used, max(0, used - 8), max(0, 8 - used) // 2, 16, 2, 1))
    decided = Plan(
        caps=frozen({team: frozen({pool.tres: 16 for pool in policy.pools.values()}) for team in policy.teams}),
        standings=tuple(standings),
        pools=tuple(PoolStanding(pool, 200, 1600, 1590, 1400, 190, 1600) for pool in policy.pools),
    )
    running = tuple(
        RunningJob(
            number * 1000 + job, str(job), "ann", f"team-{job % TEAMS:03d}", "part0", CLASSES[job // TEAMS], now, (),
            submit=now - job,
        )
        for job in range(TEAMS * len(CLASSES))
    )  # fmt: skip
    taken = Snapshot(now, (), running, ())
    return Cycle(policy, taken, decided, actions(policy, taken, decided), 0.1, 0.1, 0.1)


def _scrape() -> tuple[list[float], float, float, int, float]:
    """Milliseconds of each GET, KB sent, KB unpacked, lines, and milliseconds that a cycle takes longer."""
    policy, metrics = _policy(), Metrics()
    now = time.time() + 1
    took = []
    for number in range(20):
        cycle = _cycle(policy, number, now + 2 * number)
        began = time.perf_counter()
        metrics.cycle(cycle)
        took.append(1000 * (time.perf_counter() - began))
    app = make_app(Board(), False)
    add_page(app, "/metrics", metrics.page)
    server = HttpServer(app, "127.0.0.1:0")
    server.start()
    try:
        request = urllib.request.Request(f"{server.url}metrics", headers={"accept-encoding": "gzip"})
        times, body = [], b""
        for _ in range(SCRAPES):
            began = time.perf_counter()
            with urllib.request.urlopen(request, timeout=10) as answer:
                body = answer.read()
            times.append(1000 * (time.perf_counter() - began))
    finally:
        server.stop()
    text = gzip.decompress(body)
    return times, len(body) / 1000, len(text) / 1000, text.count(b"\n"), stats.summary(took).median


def _decisions(now: float) -> Iterator[Event]:
    """As a year brings them: half of them caps, some preemptions with all that follows, some refusals and nodes."""
    chance = random.Random(1)
    step = DAYS * 86_400 / DECISIONS
    for number in range(DECISIONS):
        at = now - DAYS * 86_400 + number * step
        team, other = (f"team-{chance.randrange(TEAMS):03d}" for _ in range(2))
        pool = f"pool{chance.randrange(POOLS)}"
        job, beneficiary = str(1_000_000 + number), str(1_000_003 + number)
        held, quota = chance.randrange(9, 40), 8
        about = {"at": at, "team": team, "pool": pool}
        taking = {**about, "job": job, "user": f"user{chance.randrange(2000):04d}", "gpus": 8, "for_team": other,
                  "for_job": beneficiary}  # fmt: skip
        why = (
            f"team {other} takes back {pool} within its quota of {quota} for job {beneficiary}; "
            f"team {team} held {held} of its quota of {quota}"
        )
        kind = chance.random()
        if kind < 0.5:
            yield Event(
                Kind.CAP,
                f"so that jobs {job} and {beneficiary} can start",
                **about,
                before=str(held),
                after=str(held + 8),
            )
        elif kind < 0.65:
            yield Event(Kind.PREEMPT, why, **taking, after="grace 30 s")
        elif kind < 0.8:
            yield Event(Kind.REQUEUE, why, **taking, lost=8 * chance.randrange(86_400))
        elif kind < 0.9:
            yield Event(
                Kind.RELEASE, "Slurm would let it wait longer after its requeue", **about, job=job, after="now"
            )
        elif kind < 0.97:
            asked = chance.randrange(100)
            yield Event(
                Kind.REFUSE, f"the job asks for {asked} {pool}; team {team} can never hold more than {quota}",
                at=at, who=taking["user"], user=taking["user"], team=team, before="submit", after="tres",
            )  # fmt: skip
        else:
            node = f"node{chance.randrange(1000):04d}"
            yield Event(Kind.NODE, "XID 79 on GPU 3", at=at, node=node, before="healthy", after="suspect")


def _fill(path: Path) -> float:
    began, now = time.monotonic(), time.time()
    db = open_to_write(path)
    words, some = Words(), []
    for event in _decisions(now):
        some.append(event)
        if len(some) == 10_000:
            write(db, words, some, ())
            some.clear()
    write(db, words, some, _held(now))
    db.close()
    return time.monotonic() - began


def _held(now: float) -> Iterator[Span]:
    """Eight hours of each team's time in each pool, for the last month."""
    for place in range(TEAMS):
        for pool in range(POOLS):
            for part in range(90):
                since = now - (90 - part) * 28_800
                used = (place + part) % 17
                yield Span(f"team-{place:03d}", f"pool{pool}", since, since + 28_800, 8, 16, used, max(0, used - 8),
                           max(0, 8 - used) // 2, 0, 0)  # fmt: skip


def _reports(path: Path) -> dict[str, tuple[float, int]]:
    """What is asked: seconds, and how much was found."""
    now = time.time()
    month = now - 30 * 86_400
    policy = _policy()
    quotas = {(team, pool): 8 for team in policy.teams for pool in policy.pools}
    chance = random.Random(2)
    runs = []
    for number in range(RUNS):
        start = month + chance.random() * 30 * 86_400
        length = min(now - start, chance.expovariate(1 / 7200))
        runs.append(
            Run(
                str(number),
                f"team-{chance.randrange(TEAMS):03d}",
                "ann",
                "training",
                f"pool{chance.randrange(POOLS)}",
                8,
                start - 60,
                start,
                start + length,
                length,
                "COMPLETED",
            )
        )

    def usage() -> int:
        lost = [one.event for one in events(path, kinds=(Kind.REQUEUE, Kind.CANCEL), since=month, until=now)]
        books = Books(runs, spans(path, month, now), lost, quotas, {}, policy.priority_classes)
        return len(usage_report(books, policy, periods(month, now, Per.DAY), By.TEAM, now))

    asked: dict[str, Callable[[], int]] = {
        f"usage of 30 days by team and day, {RUNS:,} runs of jobs": usage,
        "log: the last 50": lambda: len(events(path, limit=50, newest=True)),
        "log --job, of all": lambda: len(events(path, job="1500000")),
        "log --since 24h --team": lambda: len(events(path, since=now - 86_400, team="team-007")),
        "log --kind refuse --user, of all": lambda: len(events(path, kinds=(Kind.REFUSE,), user="user0007")),
    }
    found = {}
    for name, ask in asked.items():
        began = time.perf_counter()
        count = ask()
        found[name] = time.perf_counter() - began, count
    return found
