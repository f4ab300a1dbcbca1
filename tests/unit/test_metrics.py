"""What Prometheus reads, from cycles and events; promtool judges its form."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import H100, NOW, TWO, full_of_research, node, policy, running, snapshot, team, waiting

from slurm_gov.core.actions import actions
from slurm_gov.core.plan import plan
from slurm_gov.core.policy import Policy, frozen
from slurm_gov.core.snapshot import Snapshot
from slurm_gov.daemon.cycle import Cycle
from slurm_gov.daemon.leadership import Seen
from slurm_gov.daemon.lease import Lease
from slurm_gov.daemon.metrics import Metrics
from slurm_gov.daemon.node_metrics import STATES, Known
from slurm_gov.ledger import Event, Kind, Ledger

PARENTS = frozen({"research": "root", "product": "root"})


def cycle(taken: Snapshot, rules: Policy = TWO, **more) -> Cycle:
    decided = plan(rules, taken)
    return Cycle(rules, taken, decided, actions(rules, taken, decided), 0.02, 0.003, 0.4, **more)


def read(metrics: Metrics) -> dict[str, float]:
    """Series to value."""
    lines = metrics.exposition().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def of(team: str, pool: str = "h100", **more: str) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in {"team": team, "pool": pool, **more}.items()) + "}"


def busy() -> Metrics:
    """Research borrowed all, product wants 16 back, two looks ten seconds apart."""
    metrics = Metrics(Ledger(Path("/nowhere/ledger.db")))  # never started
    metrics._began = NOW - 2000
    taken = snapshot(
        [*(node(f"n{index}") for index in range(1, 9)), node("n9", usable=False)],
        *full_of_research(),
        waiting(10, "product", 2),
        parents=PARENTS,
        caps=frozen({"research": frozen({H100: 64}), "product": frozen({H100: 32})}),
    )
    metrics.cycle(cycle(taken))
    metrics.cycle(cycle(replace(taken, now=NOW + 10), failures=2))
    metrics.blind("Slurm sleeps")
    metrics.event(Event(Kind.PREEMPT, team="research", pool="h100", job="7", for_team="product"))
    metrics.event(Event(Kind.PREEMPT, team="research", pool="h100", job="8", for_team="research"))
    metrics.event(Event(Kind.REQUEUE, team="research", pool="h100", job="7", lost=800))
    metrics.event(Event(Kind.REQUEUE, team="product", pool="h100", job="9", node="n1", lost=80))
    metrics.event(Event(Kind.REFUSE, 'no "markup" here', team="product", after="tres"))
    metrics.asked({"round_trip_us": 180, "requests": 7, "failures": 1, "not_asked": 2, "breaker_openings": 1})
    metrics.asked({"event": "submit"})
    return metrics


def test_teams_and_pools() -> None:
    found = read(busy())
    assert found["slurm_gov_team_quota_gpus" + of("research")] == 32
    assert found["slurm_gov_team_used_gpus" + of("research")] == 64
    assert found["slurm_gov_team_borrowed_gpus" + of("research")] == 32
    assert found["slurm_gov_team_lent_gpus" + of("product")] == 32
    assert found["slurm_gov_team_waiting_gpus" + of("product")] == 16
    assert found["slurm_gov_team_waiting_jobs" + of("product")] == 1
    assert found["slurm_gov_team_cap_gpus" + of("research")] == 48
    assert found["slurm_gov_team_owner_waiting_seconds" + of("product")] == 10
    assert found['slurm_gov_pool_capacity_gpus{pool="h100",state="healthy"}'] == 64
    assert found['slurm_gov_pool_capacity_gpus{pool="h100",state="away"}'] == 8
    assert found['slurm_gov_pool_borrowed_gpus{pool="h100"}'] == 32


def test_gpu_seconds() -> None:
    found = read(busy())
    assert found["slurm_gov_gpu_seconds_total" + of("research", kind="within_quota")] == 320
    assert found["slurm_gov_gpu_seconds_total" + of("research", kind="borrowed")] == 320
    assert found["slurm_gov_gpu_seconds_total" + of("product", kind="lent")] == 320
    assert found["slurm_gov_lost_gpu_seconds_total" + of("research", reason="preemption")] == 800
    assert found["slurm_gov_lost_gpu_seconds_total" + of("product", reason="node_failure")] == 80


def test_what_was_done() -> None:
    found = read(busy())
    assert found["slurm_gov_preemptions_total" + of("research", reason="reclaim")] == 1
    assert found["slurm_gov_preemptions_total" + of("research", reason="within_team")] == 1
    assert found["slurm_gov_requeues_total" + of("product", reason="node_failure")] == 1
    assert found['slurm_gov_refusals_total{team="product",reason="tres"}'] == 1
    assert found['slurm_gov_actions_total{kind="requeue"}'] == 2
    assert found["slurm_gov_action_failures_total"] == 2
    assert found['slurm_gov_cycles_total{result="done"}'] == 2
    assert found['slurm_gov_cycles_total{result="blind"}'] == 1
    assert found["slurm_gov_slurm_up"] == 0
    assert found["slurm_gov_last_cycle_duration_seconds"] == pytest.approx(0.423)


def test_the_hook_as_the_plugin_measured_it() -> None:
    found = read(busy())
    assert found['slurm_gov_hook_round_trip_seconds_bucket{le="0.0001"}'] == 0
    assert found['slurm_gov_hook_round_trip_seconds_bucket{le="0.00025"}'] == 1
    assert found["slurm_gov_hook_requests_total"] == 7
    assert found["slurm_gov_hook_breaker_openings_total"] == 1


def test_waiting_times_count_once_per_run_and_only_since_we_look() -> None:
    metrics = Metrics()
    metrics._began = NOW - 100
    before = running(1, "research", "n1", start=NOW - 500, submit=NOW - 600)
    after = running(2, "research", "n2", start=NOW - 50, submit=NOW - 90)
    odd = running(3, "research", "n3", start=NOW - 40, submit=NOW - 45, qos="normal")
    for _ in range(3):
        metrics.cycle(cycle(snapshot(8, before, after, odd)))
    found = read(metrics)
    training = 'team="research",priority_class="training"'
    assert found[f'slurm_gov_job_waiting_seconds_bucket{{{training},le="10"}}'] == 0
    assert found[f'slurm_gov_job_waiting_seconds_bucket{{{training},le="60"}}'] == 1
    assert found[f'slurm_gov_job_waiting_seconds_bucket{{{training},le="+Inf"}}'] == 1
    assert found[f"slurm_gov_job_waiting_seconds_sum{{{training}}}"] == 40
    assert found['slurm_gov_job_waiting_seconds_count{team="research",priority_class="(none)"}'] == 1


def test_the_policy_that_was_not_taken() -> None:
    metrics = Metrics()
    assert read(metrics)["slurm_gov_policy_last_reload_successful"] == 1
    metrics.event(Event(Kind.POLICY, "line 3: no", at=NOW, after="not taken"))
    assert read(metrics)["slurm_gov_policy_last_reload_successful"] == 0
    metrics.event(Event(Kind.POLICY, "teams.research.quota.h100", at=NOW, before="32", after="64"))
    assert read(metrics)["slurm_gov_policy_last_reload_successful"] == 1


def test_promtool_finds_nothing_wrong() -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=busy().exposition(), capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    empty = subprocess.run(["promtool", "check", "metrics"], input=Metrics().exposition(), capture_output=True)
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, b"", b"")


def test_labels_are_bounded_and_nothing_escapes() -> None:
    metrics = busy()
    metrics.event(Event(Kind.REFUSE, "x", team='evil"\n\\{}', job="4711", user="eve", after="tres"))
    text = metrics.exposition().decode()
    assert 'team="evil\\"\\n\\\\{}"' in text
    names = set(re.findall(r'[{,](\w+)="', text))
    assert names <= {"team", "pool", "kind", "reason", "result", "phase", "state", "le", "priority_class", "version",
                     "python"}  # fmt: skip
    assert all(line.startswith(("#", "slurm_gov_")) for line in text.splitlines())


def test_nodes_and_their_agents() -> None:
    metrics = busy()
    now = time.time()
    metrics.nodes.known = lambda: Known(
        {"n1": ("draining", now - 100), "n2": ("draining", now - 50), "n3": ("healthy", now - 500)},
        {"n1": (True, now - 5), "n2": (True, now - 500), "n3": (False, now - 50)},
        True,
        {"status": 7},
        {"too_large": 2},
        {"pool h100": "circuit breaker", "rack r1": "circuit breaker", "n7": "meant was Action:Reboot"},
    )
    for before, after, at in (("healthy", "suspect", 100.0), ("suspect", "draining", 150.0),
                              ("draining", "rebooting", 200.0), ("rebooting", "healthy", 550.0)):  # fmt: skip
        metrics.event(Event(Kind.NODE, node="n4", before=before, after=after, at=at))
    metrics.event(Event(Kind.NODE, node="n5", before="suspect", after="healthy", at=10.0))
    found = read(metrics)
    nodes = {state: found[f'slurm_gov_nodes{{pool="h100",state="{state}"}}'] for state in STATES}
    assert {state: count for state, count in nodes.items() if count} == {"healthy": 6, "draining": 2, "away": 1}
    assert found['slurm_gov_node_in_state_seconds{pool="h100",state="draining"}'] == pytest.approx(100, abs=5)
    assert found['slurm_gov_node_steps_total{after="draining",before="suspect"}'] == 1
    assert found["slurm_gov_node_recovery_seconds_sum"] == 400
    assert found["slurm_gov_node_recovery_seconds_count"] == 1
    assert {state: found[f'slurm_gov_agents{{state="{state}"}}'] for state in ("online", "silent", "offline")} == {
        "online": 1, "silent": 1, "offline": 1}  # fmt: skip
    assert [found[f'slurm_gov_node_alerts{{kind="{kind}"}}'] for kind in ("breaker", "node")] == [2, 1]
    assert found["slurm_gov_mqtt_connected"] == 1
    assert found['slurm_gov_mqtt_refused_messages_total{reason="too_large"}'] == 2
    done = subprocess.run(["promtool", "check", "metrics"], input=metrics.exposition(), capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_what_rules_and_dashboard_ask_for_exists() -> None:
    metrics = busy()
    metrics.nodes.known = lambda: Known({}, {"n1": (True, 5.0)}, True, {"status": 7}, {"too_large": 2})
    metrics.cycle(cycle(snapshot(8, running(2, "research", "n2", start=NOW - 50, submit=NOW - 90))))
    metrics.event(Event(Kind.NODE, node="n4", before="suspect", after="failed"))
    names = {line.split("{")[0].split(" ")[0] for line in metrics.exposition().decode().splitlines()}
    names |= {name.split("{")[0] for name in read(Metrics(leadership=Leading(True)))}  # type: ignore[arg-type]
    etc = Path(__file__).parents[2] / "etc"
    for file in ("prometheus/slurm-gov.rules.yml", "grafana/dashboards/slurm-gov.json"):
        asked = set(re.findall(r"\bslurm_gov_\w+", (etc / file).read_text()))
        assert asked - names - {"slurm_gov_team_owner_waiting_seconds"} == set(), file
        assert len(asked) > 10


def test_a_pool_that_is_closed_to_a_team_is_no_series() -> None:
    rules = policy(team("research", 32), team("guest", 0, borrow=0, lend=0), team("taker", 0))
    metrics = Metrics()
    metrics.cycle(cycle(snapshot(8), rules))
    found = read(metrics)
    assert "slurm_gov_team_quota_gpus" + of("guest") not in found
    assert found["slurm_gov_team_quota_gpus" + of("taker")] == 0


class Leading:
    """What the metrics ask of a ``Leadership``."""

    def __init__(self, leads: bool) -> None:
        self.leads = leads
        self.age = 1.5
        self.seen = Seen(Lease("a", "ctl1", 7, NOW, 1.5, 8.5))


@pytest.mark.parametrize("leads", [True, False])
def test_which_of_several_governors_leads(leads: bool) -> None:
    found = read(Metrics(leadership=Leading(leads)))  # type: ignore[arg-type]
    assert (found["slurm_gov_leader"], found["slurm_gov_lease_age_seconds"]) == (leads, 1.5)
    assert found["slurm_gov_lease_term"] == 7
    assert not [name for name in read(Metrics()) if "leader" in name or "lease" in name.replace("release", "")]


def test_what_is_held_counts_where_it_is_led_from() -> None:
    taken = snapshot([node("n1")], running(1, "research", "n1"), parents=PARENTS)
    for standby, counted in ((False, True), (True, False)):
        metrics = Metrics()
        for now in (NOW, NOW + 10):
            metrics.cycle(cycle(replace(taken, now=now), standby=standby))
        assert any("gpu_seconds" in name for name in read(metrics)) is counted
