"""What the governor shows of itself on a loaded cluster: the log and the usage report."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
import select
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from conftest import NewSandbox
from governed import Cluster
from prometheus import running

from slurm_gov.ledger import Kind, LedgerError, events, spans
from slurm_gov.sandbox import Pool
from slurm_gov.sandbox.governor import program

ROOT = Path(__file__).parents[2]
NEEDS_HEALTH = {"Steps", "Time to recovery", "Agents"}
"""Panels that have data only where node agents run."""
INTERVAL = 0.5
CYCLE = 3.0
"""Seconds that a cycle may take on a busy machine, all in all."""
POLICY = """\
pools: {h100: {partition: gpu, gres: "gpu:h100", price: 2.5}}
priority_classes: {inference: 100, training: 50, experiment: 10}
teams:
  research: {quota: {h100: 8}, lend: all, borrow: unlimited, fair_share_weight: 50}
  product: {quota: {h100: 24}, lend: all, borrow: unlimited, fair_share_weight: 50}
preemption: {grace: 2s, signal: "B:USR1"}
"""


@pytest.fixture(scope="module")
def cluster(module_sandbox: NewSandbox, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Four nodes on which research borrowed, product took back, and somebody was refused."""
    policy = tmp_path_factory.mktemp("policy") / "policy.yaml"
    policy.write_text(POLICY)
    made = Cluster(
        module_sandbox(pools=(Pool("h100", 4, 8),), policy=policy, governor_args=("--interval", str(INTERVAL)))
    )
    jobs = [made.sbatch("research", "-N1", "--gpus-per-node=8", "--qos=training") for _ in range(4)]
    made.running(*jobs)
    time.sleep(3)  # longer than the grace period, so that the first run of who must leave takes some seconds
    made.sbatch("product", "-N4", "--gpus-per-node=8")  # more than its quota: it waits, and is not preempted for
    made.refused("sbatch", "--account=product", "--gpus=99", "--wrap", "true")
    owner = made.sbatch("product", "-N1", "--gpus-per-node=8", "--qos=inference")
    made.running(owner)
    made.restarted(*jobs, times=1)
    made.sandbox.run(["scancel", str(owner)])
    made.running(*jobs)
    return made


def gov(cluster: Cluster, *arguments: str) -> str:
    return cluster.sandbox.run([program("slurm-gov"), *arguments]).stdout


# -- the log ---------------------------------------------------------------------------------------------


def test_the_log_tells_what_slurm_says_happened(cluster: Cluster) -> None:
    def told(*arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in gov(cluster, "log", "--json", "--since", "1h", *arguments).splitlines()]

    cluster.until(lambda: told("--kind", "release"), "the release is in the ledger")
    restarted = [job for job in cluster.states() if cluster.restarts(job)]
    assert [one["job"] for one in told("--kind", "preempt")] == [str(job) for job in restarted]
    (requeue,) = told("--kind", "requeue")
    assert (requeue["team"], requeue["for_team"], requeue["gpus"]) == ("research", "product", 8)
    assert requeue["lost"] > 0
    (refusal,) = told("--kind", "refuse")
    assert (refusal["who"], refusal["team"], refusal["after"]) == ("root", "product", "tres")
    assert "99 h100" in refusal["why"]
    # The caps of the ledger, followed from the first to the last, are those that stand in Slurm.
    for team in ("research", "product"):
        steps = [(one["before"], one["after"]) for one in told("--kind", "cap", "--team", team)]
        assert all(earlier[1] == later[0] for earlier, later in itertools.pairwise(steps)), steps
        if steps:
            assert cluster.caps(team)["gres/gpu:h100"] == int(steps[-1][1])


def test_the_log_for_people(cluster: Cluster) -> None:
    said = gov(cluster, "log", "--since", "1h")
    assert re.search(r"preempt +research +job \d+ \(root, 8 h100\) for job \d+ \(product\)", said), said
    assert re.search(r"refuse +product +root's job \(tres\): the job asks for 99 h100", said), said
    assert gov(cluster, "log", "--since", "1h", "--team", "nobody") == ""


def test_the_log_follows(cluster: Cluster) -> None:
    following = subprocess.Popen(
        [program("slurm-gov"), "log", "-f", "-n0", "--kind", "policy"],
        env=cluster.sandbox.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert following.stdout is not None
        # There and back until it has begun to look.
        for price in itertools.cycle(("3.5", "2.5")):
            cluster.sandbox.layout.policy.write_text(POLICY.replace("price: 2.5", f"price: {price}"))
            cluster.reload()
            if select.select([following.stdout], [], [], 2)[0]:
                break
        line = following.stdout.readline()
        assert re.search(r"policy +- +(2.5 > 3.5|3.5 > 2.5) by root: pools.h100.price", line), line
    finally:
        following.terminate()
        cluster.sandbox.layout.policy.write_text(POLICY.replace("price: 2.5", "price: 3.5"))
        cluster.reload()
        following.wait()


# -- metrics ---------------------------------------------------------------------------------------------


def scraped(cluster: Cluster) -> str:
    with urllib.request.urlopen(f"{cluster.sandbox.page}metrics") as answer:
        return str(answer.read().decode())


def test_promtool_takes_what_a_real_governor_exposes(cluster: Cluster) -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=scraped(cluster), capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_metrics_say_what_slurm_says(cluster: Cluster) -> None:
    def of(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", scraped(cluster), re.MULTILINE)
        return float(found[1]) if found else -1

    research = '{team="research",pool="h100"}'
    for name, slurm in (
        (f"slurm_gov_team_used_gpus{research}", lambda: cluster.used("research")),
        (f"slurm_gov_team_cap_gpus{research}", lambda: cluster.caps("research")["gres/gpu:h100"]),
        ('slurm_gov_team_waiting_jobs{team="product",pool="h100"}', lambda: len(cluster.squeue("%A", "-t", "PD"))),
        ('slurm_gov_pool_capacity_gpus{pool="h100",state="healthy"}', lambda: 32),
        ('slurm_gov_preemptions_total{team="research",pool="h100",reason="reclaim"}', lambda: 1),
        ('slurm_gov_refusals_total{team="product",reason="tres"}', lambda: 1),
    ):
        cluster.until(lambda name=name, slurm=slurm: of(name) == slurm(), f"{name} is what Slurm says")
    # The plugin in slurmctld tells its own round trip with its next question.
    before = of("slurm_gov_hook_round_trip_seconds_count")
    for _ in range(2):
        cluster.refused("sbatch", "--account=product", "--gpus=99", "--wrap", "true")
    cluster.until(lambda: of("slurm_gov_hook_round_trip_seconds_count") > before, "the plugin told its round trip")
    assert of("slurm_gov_hook_round_trip_seconds_sum") > 0


def dashboard() -> list[tuple[str, str]]:
    """Every panel's queries: title and expression, as Grafana would ask them."""
    board = json.loads((ROOT / "etc" / "grafana" / "dashboards" / "slurm-gov.json").read_text())
    found = []
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in (("$__rate_interval", "30s"), ("$__range", "1m"), ("$instance", ".*"), ("$pool", ".*"),
                                ("$team", ".*")):  # fmt: skip
                expression = expression.replace(name, value)
            assert "$" not in expression, expression
            found.append((panel["title"], expression))
    return found


def test_every_panel_of_the_dashboard_has_data(cluster: Cluster, tmp_path: Path) -> None:
    """A real Prometheus reads a real governor of a loaded cluster, with our rules."""
    queries = {one for one in dashboard() if one[0] not in NEEDS_HEALTH}
    assert len(queries) > 40
    with running(tmp_path, cluster.sandbox.page.removeprefix("http://").rstrip("/")) as prometheus:
        assert not [group for group in prometheus.api("rules")["groups"] if not group["rules"]]
        missing = queries
        deadline = time.monotonic() + 90
        while missing := {one for one in missing if not any(map(math.isfinite, prometheus.query(one[1])))}:
            assert time.monotonic() < deadline, sorted(missing)
            # Something to see: a job that starts, waits for nobody and ends.
            cluster.sandbox.submit("true", "--account=research", "--ntasks=1", "--gpus=1", "--qos=inference")
            time.sleep(1)
        rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
        assert len(rules) > 20
        assert not [rule["name"] for rule in rules if rule["health"] == "err"]
        assert prometheus.query("up") == [1]
        borrowed = "slurm_gov:pool_borrowed:ratio > 0"
        cluster.until(lambda: prometheus.query(borrowed), "the recording rules were evaluated")


# -- usage -----------------------------------------------------------------------------------------------


def sacct_seconds(cluster: Cluster) -> dict[str, tuple[float, int]]:
    """GPU-seconds by account and how many runs, asked of sacct in another way than the report does."""
    text = cluster.sandbox.run(
        ["sacct", "-aDnPX", "-S", "now-2hours", "--format=Account,ElapsedRaw,AllocTRES,Start"]
    ).stdout
    sums: dict[str, tuple[float, int]] = {}
    for line in text.splitlines():
        account, elapsed, tres, start = line.split("|")
        found = re.search(r"gres/gpu:h100=(\d+)", tres)
        if found and start != "Unknown":
            seconds, runs = sums.get(account, (0.0, 0))
            sums[account] = seconds + int(elapsed) * int(found[1]), runs + (int(elapsed) > 0)
    return sums


def test_usage_equals_what_sacct_says(cluster: Cluster) -> None:
    # Four jobs, and the one that had to leave runs again.
    cluster.until(lambda: sacct_seconds(cluster)["research"][1] >= 5, "five runs have taken a while", 90)
    # Everything ends, so that no figure moves while it is asked.
    cluster.clear()
    ends = ["sacct", "-aDnPX", "-S", "now-2hours", "--format=End"]
    told = "DBD Agent queue size: 0\n"  # slurmctld has no more to tell: a job not yet there looks like none
    cluster.until(
        lambda: told in cluster.sandbox.run(["sdiag"]).stdout and "Unknown" not in cluster.sandbox.run(ends).stdout,
        "all have ended, also in accounting",
    )
    slurm = sacct_seconds(cluster)
    assert slurm["research"][1] >= 5

    report = json.loads(gov(cluster, "usage", "--from", "2h", "--json"))
    rows = {row["group"]: row for row in report["rows"]}
    price = float(re.findall(r"price: ([\d.]+)", cluster.sandbox.layout.policy.read_text())[0])
    for team in ("research", "product"):
        assert rows[team]["used"] * 3600 == pytest.approx(slurm[team][0], abs=1e-6)
        assert rows[team]["within_quota"] + rows[team]["borrowed"] == pytest.approx(rows[team]["used"])
        assert rows[team]["cost"] == pytest.approx(rows[team]["used"] * price)
        assert rows[team]["jobs"] == slurm[team][1]
    assert rows["research"]["borrowed"] > 0.0
    assert rows["research"]["lost_preemption"] > 0

    # However it is cut, it is the same.
    for by in ("account", "user", "class", "pool"):
        parts = json.loads(gov(cluster, "usage", "--from", "2h", "--by", by, "--json"))["rows"]
        for name in ("used", "within_quota", "borrowed", "waiting", "lost_preemption", "cost"):
            whole = sum(row[name] for row in rows.values())
            assert sum(row[name] for row in parts) == pytest.approx(whole), (by, name)
    days = list(csv.DictReader(io.StringIO(gov(cluster, "usage", "--from", "2d", "--per", "day", "--format", "csv"))))
    for team in ("research", "product"):
        assert sum(float(row["used"]) for row in days if row["team"] == team) == pytest.approx(
            rows[team]["used"], abs=1e-3
        )


def test_what_the_governor_saw_is_what_slurm_counted(cluster: Cluster) -> None:
    """The ledger's own measure, from looks at Slurm, within a cycle's length (and Slurm's whole seconds) per run."""
    cluster.clear()
    last = time.time()
    # What was before is written when something changes: when this one starts, and its own run when it has ended.
    job = cluster.sbatch("research", "-N1", "--gpus-per-node=8", script="sleep 5")
    cluster.until(lambda: not cluster.squeue("%A", "-j", str(job)), "it ended")
    path = cluster.sandbox.layout.ledger
    cluster.until(lambda: any(one.since > last and one.used for one in spans(path, last, last + 600)), "written")
    slurm = sacct_seconds(cluster)
    for team in ("research", "product"):
        mine = [one for one in spans(path, 0, last + 600) if one.team == team]
        measured = sum(one.used * (one.until - one.since) for one in mine)
        expected, runs = slurm[team]
        # One more, for those that accounting has with 0 seconds.
        assert abs(measured - expected) <= 8 * (CYCLE + 1) * (runs + 1), (team, measured, expected, runs)
        assert all(one.borrowed == max(0, one.used - one.quota) for one in mine)


def test_usage_for_people_and_for_browsers(cluster: Cluster) -> None:
    table = gov(cluster, "usage", "--from", "2h")
    assert re.search(r"^research +", table, re.MULTILINE) and "borrowed" in table and "total" in table
    page = cluster.work / "usage.html"
    gov(cluster, "usage", "--from", "2d", "--format", "html", "-o", str(page))
    text = page.read_text()
    assert "research" in text and "<svg" in text
    assert not re.search(r"(?:src|href)=|@import|url\(", text), "nothing is loaded from elsewhere"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["usage", "--from", "today", "--to", "yesterday"], "--from must be before --to"),
        (["usage", "--team", "reserch"], 'did you mean "research"'),
        (["usage", "--from", "soon"], "is no time"),
        (["log", "--ledger", "/nowhere/ledger.db"], "there is no ledger"),
    ],
)
def test_bad_input(cluster: Cluster, arguments: list[str], said: str) -> None:
    done = cluster.sandbox.run([program("slurm-gov"), *arguments], check=False)
    assert done.returncode in (1, 2)
    assert said in done.stderr and len(done.stderr.splitlines()) == 1


# -- a full disk -----------------------------------------------------------------------------------------


def _readable(ledger: Path) -> list[Any]:
    """Its events; none as long as it is only a file."""
    try:
        return events(ledger)
    except LedgerError:
        return []


def test_a_full_disk_stops_no_scheduling(cluster: Cluster) -> None:
    """The ledger on a disk of 1 MB that something else has filled."""
    cluster.clear()
    disk = cluster.sandbox.dir / "small"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs")
    try:
        cluster.sandbox.stop_governor()
        ledger = disk / "ledger.db"
        cluster.sandbox.start_governor("--ledger", str(ledger))
        cluster.until(lambda: ledger.exists() and _readable(ledger), "the ledger is written")
        with (disk / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"x" * 4096)
            except OSError:
                pass
        log = cluster.sandbox.log("slurm-govd")
        jobs = [cluster.sbatch("research", "-N1", "--gpus-per-node=8", "--qos=training") for _ in range(4)]
        cluster.running(*jobs)  # three of them borrow: caps were moved
        cluster.until(lambda: "the ledger cannot be written" in log.read_text(), "it is said")
        (disk / "filler").unlink()
        cluster.until(lambda: "the ledger is written again" in log.read_text(), "it is written again", 60)
        caps = [one.event for one in events(ledger, kinds=[Kind.CAP], team="research")]
        assert int(caps[-1].after) >= 32
        cluster.clear()
    finally:
        cluster.sandbox.stop_governor()
        subprocess.run(["umount", disk], check=True)
        cluster.sandbox.start_governor()
