"""What Prometheus reads of the governor: a watcher that counts, and ``exposition()``.

Labels are of bounded size: teams, pools, priority classes of the policy, and words of fixed lists; never a job,
a user or a sentence.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from slurm_gov import __version__
from slurm_gov.core.decision import Reason, Standing
from slurm_gov.core.policy import Policy
from slurm_gov.daemon.bookkeeper import planned_caps
from slurm_gov.daemon.cycle import Cycle
from slurm_gov.daemon.exposition import Durations, Totals, gauge
from slurm_gov.daemon.leadership import Leadership
from slurm_gov.daemon.node_metrics import NodeMetrics
from slurm_gov.ledger import Event, Kind, Ledger
from slurm_gov.ledger.meter import Meter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
WAITING = (10.0, 60.0, 300.0, 1800.0, 7200.0, 28_800.0, 86_400.0)
HOOK = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1)
CYCLE = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
OTHER_CLASS = "(none)"

_WITHIN_QUOTA = (Reason.RECLAIMING, Reason.PREEMPTING_WITHIN_TEAM, Reason.WAITS_FOR_NODES)
_TEAM: tuple[tuple[str, str, Callable[[Standing], float]], ...] = (
    ("quota_gpus", "GPUs that the team is guaranteed.", lambda one: one.quota),
    ("used_gpus", "GPUs that the team's running jobs hold.", lambda one: one.used),
    ("borrowed_gpus", "The part of used above the quota.", lambda one: one.borrowed),
    ("lent_gpus", "How much of the team's unused quota others hold.", lambda one: one.lent),
    ("waiting_gpus", "GPUs that the team's waiting jobs ask for.", lambda one: one.waiting),
    ("waiting_jobs", "The team's waiting jobs, each task of an array counted.", lambda one: one.waiting_jobs),
)
_OWNER = ("team", "pool")


class Metrics:
    """A watcher. ``registry`` is for whoever has more to tell."""

    def __init__(self, ledger: Ledger | None = None, gap: float = 60.0, leadership: Leadership | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # half of all lines, and Prometheus has no use for them
        self.registry = CollectorRegistry()
        self._last: Cycle | None = None
        self._began = time.time()
        self._meter = Meter(gap)
        self._seen_runs: set[tuple[int, float]] = set()
        self._within: dict[int, float] = {}
        self._owners: dict[tuple[str, str], float] = {}
        self._gpu_seconds = Totals(
            "slurm_gov_gpu_seconds_total",
            "GPU-seconds held within quota and borrowed, and lent to others, between looks at Slurm.",
            ("team", "pool", "kind"),
        )
        self._lost = Totals(
            "slurm_gov_lost_gpu_seconds_total",
            "GPU-seconds of work undone by requeues, since the last checkpoint of jobs that tell of them.",
            ("team", "pool", "reason"),
        )
        self._preemptions = Totals("slurm_gov_preemptions_total", "Jobs told to leave.", ("team", "pool", "reason"))
        self._requeues = Totals("slurm_gov_requeues_total", "Jobs requeued.", ("team", "pool", "reason"))
        self._refusals = Totals(
            "slurm_gov_refusals_total", "Submissions and changes of jobs refused.", ("team", "reason")
        )
        self._waited = Durations(
            "slurm_gov_job_waiting_seconds",
            "How long jobs waited before they started, from their submission or last requeue.",
            ("team", "priority_class"),
            WAITING,
        )
        self._families = (
            self._gpu_seconds,
            self._lost,
            self._preemptions,
            self._requeues,
            self._refusals,
            self._waited,
        )
        self._cycles = Counter(
            "slurm_gov_cycles",
            "Cycles: done, failed (acting was broken off), blind (Slurm silent).",
            ["result"],
            registry=self.registry,
        )
        for result in ("done", "failed", "blind"):
            self._cycles.labels(result)
        self._cycle_seconds = Histogram(
            "slurm_gov_cycle_seconds",
            "How long a cycle took, by phase.",
            ["phase"],
            buckets=CYCLE,
            registry=self.registry,
        )
        self._last_at = Gauge(
            "slurm_gov_last_cycle_timestamp_seconds", "When the last cycle ended.", registry=self.registry
        )
        self._last_took = Gauge(
            "slurm_gov_last_cycle_duration_seconds", "How long the last cycle took.", registry=self.registry
        )
        self._slurm_up = Gauge(
            "slurm_gov_slurm_up", "Whether Slurm answered in the last cycle.", registry=self.registry
        )
        self._actions = Counter("slurm_gov_actions", "What was done, by kind.", ["kind"], registry=self.registry)
        for kind in Kind:
            self._actions.labels(kind.value)
        self._failures = Counter("slurm_gov_action_failures", "Actions that Slurm refused.", registry=self.registry)
        self._policy_at = Gauge(
            "slurm_gov_policy_timestamp_seconds", "When the policy was last read.", registry=self.registry
        )
        self._policy_good = Gauge(
            "slurm_gov_policy_last_reload_successful",
            "Whether the policy file was right when last read.",
            registry=self.registry,
        )
        self._policy_at.set(self._began)
        self._policy_good.set(1)
        self._round_trips = Histogram(
            "slurm_gov_hook_round_trip_seconds",
            "Round trips of the submit hook, as the plugin in slurmctld measured them.",
            buckets=HOOK,
            registry=self.registry,
        )
        self._plugin: dict[str, float] = {}
        build = Gauge(
            "slurm_gov_build_info",
            "Always 1; the labels say what runs.",
            ["version", "python"],
            registry=self.registry,
        )
        build.labels(__version__, platform.python_version()).set(1)
        ProcessCollector(namespace="slurm_gov", registry=self.registry)
        self.registry.register(_Plugin(self._plugin))
        self.nodes = NodeMetrics(self.registry, lambda: self._last)
        if ledger is not None:
            self.registry.register(_OfLedger(ledger))
        if leadership is not None:
            self.registry.register(_OfLeadership(leadership))

    # -- watching -------------------------------------------------------------------------------------------

    def cycle(self, cycle: Cycle) -> None:
        took = (cycle.look_seconds, cycle.decide_seconds, cycle.act_seconds)
        for phase, seconds in zip(("look", "decide", "act"), took, strict=True):
            self._cycle_seconds.labels(phase).observe(seconds)
        self._cycles.labels("failed" if cycle.error else "done").inc()
        self._failures.inc(cycle.failures)
        self._last_at.set(time.time())
        self._last_took.set(sum(took))
        self._slurm_up.set(1)
        caps = planned_caps(cycle.policy, cycle.plan.caps)
        if not cycle.standby:  # who leads counts it
            self._meter.look(cycle.snapshot.now, cycle.plan.standings, caps)
            self._started(cycle)
        self._owners_wait(cycle)
        self._last = cycle

    def blind(self, error: str) -> None:
        self._cycles.labels("blind").inc()
        self._slurm_up.set(0)

    def event(self, event: Event) -> None:
        self._actions.labels(event.kind.value).inc()
        self.nodes.event(event)
        if event.kind is Kind.PREEMPT:
            reason = "within_team" if event.for_team == event.team else "reclaim"
            self._preemptions.add(1, event.team, event.pool, reason)
        elif event.kind in (Kind.REQUEUE, Kind.CANCEL):
            reason = "node_failure" if event.node else "preemption"
            if event.kind is Kind.REQUEUE:
                self._requeues.add(1, event.team, event.pool, reason)
            self._lost.add(event.lost, event.team, event.pool, reason)
        elif event.kind is Kind.REFUSE:
            self._refusals.add(1, event.team, event.after)
        elif event.kind is Kind.POLICY:
            self._policy_good.set(event.after != "not taken")
            self._policy_at.set(event.at)

    def asked(self, facts: Mapping[str, Any]) -> None:
        if "round_trip_us" in facts:
            self._round_trips.observe(facts["round_trip_us"] / 1e6)
        for name in _Plugin.COUNTERS:
            if name in facts:
                self._plugin[name] = facts[name]

    def _started(self, cycle: Cycle) -> None:
        """Note how long those waited that started since the last look."""
        policy, runs = cycle.policy, set()
        for job in cycle.snapshot.running:
            run = (job.id, job.start)
            runs.add(run)
            if run not in self._seen_runs and job.submit is not None and job.start >= self._began:
                team = cycle.snapshot.team_of(policy, job.account) or ""
                its_class = job.qos if job.qos in policy.priority_classes else OTHER_CLASS
                self._waited.observe(max(0.0, job.start - job.submit), team, its_class)
        self._seen_runs = runs

    def _owners_wait(self, cycle: Cycle) -> None:
        """Since when jobs wait although they are within their team's quota."""
        now = cycle.snapshot.now
        room = {(one.team, one.pool): one.quota > one.used for one in cycle.plan.standings}
        within: dict[int, float] = {}
        owners: dict[tuple[str, str], float] = {}
        for one in cycle.plan.decisions.having({*_WITHIN_QUOTA, Reason.STARTS_NOW}):
            if one.team is None or one.pool is None:
                continue
            key = (one.team, one.pool)
            if one.reason in _WITHIN_QUOTA or (one.reason is Reason.STARTS_NOW and room.get(key)):
                within[one.job] = self._within.get(one.job, now)
                owners[key] = max(owners.get(key, 0.0), now - within[one.job])
        self._within, self._owners = within, owners

    # -- telling --------------------------------------------------------------------------------------------

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format; may be called in any thread."""
        last = self._last
        lines = [] if last is None else [*self._teams(last), *_pools(last)]
        for family in self._families:
            lines += family.lines()
        return generate_latest(self.registry) + "\n".join([*lines, ""]).encode()

    def page(self) -> tuple[str, bytes]:
        """Content type and body."""
        return CONTENT_TYPE, self.exposition()

    def _teams(self, cycle: Cycle) -> Iterator[str]:
        caps = planned_caps(cycle.policy, cycle.plan.caps)
        # A team for which a pool is closed, and which holds nothing there, is no series.
        rows = [
            ((one.team, one.pool), one)
            for one in cycle.plan.standings
            if one.used or one.waiting_jobs or _open(cycle.policy, one)
        ]
        for name, help, value in _TEAM:
            yield from gauge(f"slurm_gov_team_{name}", help, _OWNER, ((key, value(one)) for key, one in rows))
        cap = ((key, caps.get(key, one.cap)) for key, one in rows)
        yield from gauge("slurm_gov_team_cap_gpus", "GPUs that the team may hold now.", _OWNER, cap)
        help = "How long a job has waited that is within its team's quota: the longest."
        yield from gauge("slurm_gov_team_owner_waiting_seconds", help, _OWNER, list(self._owners.items()))
        totals: dict[tuple[str, ...], float] = {}
        for (team, pool), held in list(self._meter.totals.items()):
            for kind, seconds in (
                ("within_quota", held.within_quota),
                ("borrowed", held.borrowed),
                ("lent", held.lent),
            ):
                if seconds:
                    totals[team, pool, kind] = seconds
        self._gpu_seconds.set(totals)


def _open(policy: Policy, one: Standing) -> bool:
    quota = policy.teams[one.team].quotas.get(one.pool) if one.team in policy.teams else None
    return quota is not None and (quota.nominal > 0 or quota.borrow != 0)


def _pools(cycle: Cycle) -> Iterator[str]:
    pools = cycle.plan.pools
    states = [
        sample
        for one in pools
        for sample in (((one.pool, "healthy"), one.healthy), ((one.pool, "away"), one.total - one.healthy))
    ]
    yield from gauge(
        "slurm_gov_pool_capacity_gpus",
        "GPUs of the pool's nodes: healthy, and away (down, drained, failing).",
        ("pool", "state"),
        states,
    )
    borrowed: dict[str, int] = {}
    for standing in cycle.plan.standings:
        borrowed[standing.pool] = borrowed.get(standing.pool, 0) + standing.borrowed
    for name, help, value in (
        ("nodes", "The pool's nodes.", lambda one: one.nodes),
        ("used_gpus", "GPUs that jobs hold, also those of no team.", lambda one: one.used),
        ("free_gpus", "Healthy GPUs that no job holds.", lambda one: one.free),
        ("quota_gpus", "The sum of all quotas.", lambda one: one.quota),
        ("borrowed_gpus", "GPUs held above quotas.", lambda one: borrowed.get(one.pool, 0)),
    ):
        samples = (((one.pool,), value(one)) for one in pools)
        yield from gauge(f"slurm_gov_pool_{name}", help, ("pool",), samples)


class _Plugin(Collector):
    """What the plugin counted since slurmctld loaded it."""

    COUNTERS: Mapping[str, str] = {
        "requests": "Questions of the submit hook.",
        "failures": "Questions of the submit hook that got no answer in time.",
        "not_asked": "Jobs about which the submit hook did not ask: its breaker was open.",
        "breaker_openings": "How often the submit hook gave up asking for a while.",
    }

    def __init__(self, counters: Mapping[str, float]) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        for name, help in self.COUNTERS.items():
            yield CounterMetricFamily(f"slurm_gov_hook_{name}", help, value=self._counters.get(name, 0))


class _OfLedger(Collector):
    """How the writing of the ledger goes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def collect(self) -> Iterator[Metric]:
        health = self._ledger.health
        up = "Whether the ledger could be written when last tried."
        yield GaugeMetricFamily("slurm_gov_ledger_up", up, value=not health.error)
        pending = "What waits to be written into the ledger."
        yield GaugeMetricFamily("slurm_gov_ledger_pending", pending, value=health.pending)
        for name, help, value in (
            ("events", "Events written into the ledger.", health.written),
            ("lost", "What the ledger lost since it could not be written.", health.lost),
            ("write_failures", "Attempts to write the ledger that failed.", health.failures),
        ):
            yield CounterMetricFamily(f"slurm_gov_ledger_{name}", help, value=value)


class _OfLeadership(Collector):
    """Which of several governors leads, as this one sees it."""

    def __init__(self, leadership: Leadership) -> None:
        self._leadership = leadership

    def collect(self) -> Iterator[Metric]:
        one = self._leadership
        yield GaugeMetricFamily("slurm_gov_leader", "Whether this governor leads, and so acts.", value=one.leads)
        age = "Seconds since the lease was renewed, by whoever has it, as this governor last saw it."
        yield GaugeMetricFamily("slurm_gov_lease_age_seconds", age, value=one.age)
        term = "How often the lease has changed hands."
        yield GaugeMetricFamily("slurm_gov_lease_term", term, value=one.seen.lease.term if one.seen.lease else 0)
