"""What Prometheus reads of nodes: their lifecycle, their agents, and the MQTT broker."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client import Counter as Total
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from slurm_gov.core.capacity import in_pool
from slurm_gov.daemon.cycle import Cycle
from slurm_gov.daemon.healing import Healing
from slurm_gov.health.permits import BREAKERS
from slurm_gov.ledger import Event, Kind

HEALTHY = "healthy"
AWAY = "away"
"""A node that Slurm would start no job on, and that no lifecycle knows about."""
STATES = (HEALTHY, "suspect", "draining", "rebooting", "replacing", "verifying", "failed", AWAY)
RECOVERY = (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 21_600.0, 86_400.0)
SILENT = 120.0
"""Seconds without a sign of life after which an agent counts as silent, though nobody announced its death."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of nodes beside what Slurm says.

    ``states``: node to its state in the lifecycle and since when. ``agents``: node to whether its agent is online
    and when it was last heard. ``connected`` is ``None`` without a broker. ``accepted`` and ``refused``: messages by
    kind, and by reason. ``alerts``: what a person should know, by node, or by pool or rack (circuit breakers).
    """

    states: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    agents: Mapping[str, tuple[bool, float]] = field(default_factory=dict)
    connected: bool | None = None
    accepted: Mapping[str, int] = field(default_factory=Counter)
    refused: Mapping[str, int] = field(default_factory=Counter)
    alerts: Mapping[str, str] = field(default_factory=dict)


def known_of(healing: Healing) -> Known:
    """What the healing of nodes knows now."""
    states = {name: (str(one.state), one.since) for name, one in healing.records.items()}
    monitor, alerts = healing.monitor, healing.alerts
    if monitor is None:
        return Known(states, alerts=alerts)
    agents = {name: (one.online, one.heard) for name, one in list(monitor.reports.items())}
    connected = monitor.counts.connected if monitor.can_publish else None
    return Known(states, agents, connected, dict(monitor.counts.accepted), dict(monitor.counts.refused), alerts)


class NodeMetrics(Collector):
    """Told of cycles and events by ``Metrics``; ``known`` is asked at each scrape."""

    def __init__(self, registry: CollectorRegistry, last: Callable[[], Cycle | None]) -> None:
        self.known: Callable[[], Known] = Known
        self._last = last
        self._left: dict[str, float] = {}
        self._steps = Total(
            "slurm_gov_node_steps", "Steps of the node lifecycle.", ["before", "after"], registry=registry
        )
        self._recovery = Histogram(
            "slurm_gov_node_recovery_seconds",
            "How long nodes were gone, from when they left capacity until they were healthy again.",
            buckets=RECOVERY,
            registry=registry,
        )
        registry.register(self)

    def event(self, event: Event) -> None:
        """A node's step."""
        if event.kind is not Kind.NODE or not event.after:
            return
        self._steps.labels(_word(event.before), _word(event.after)).inc()
        if event.after == HEALTHY:
            left = self._left.pop(event.node, None)
            if left is not None:
                self._recovery.observe(max(0.0, event.at - left))
        elif event.after != "suspect":
            self._left.setdefault(event.node, event.at)

    def collect(self) -> Iterator[Metric]:
        known, cycle, now = self.known(), self._last(), time.time()
        if cycle is not None:
            yield from _states(cycle, known, now)
        breakers = sum(name.startswith(BREAKERS) for name in known.alerts)
        alerts = GaugeMetricFamily(
            "slurm_gov_node_alerts", "Open circuit breakers, and nodes that a person should look at.", labels=["kind"]
        )
        alerts.add_metric(["breaker"], breakers)
        alerts.add_metric(["node"], len(known.alerts) - breakers)
        yield alerts
        if known.agents or known.connected is not None:
            yield from _agents(known, now)


def _word(state: str) -> str:
    return state if state in STATES else "other"


def _states(cycle: Cycle, known: Known, now: float) -> Iterator[Metric]:
    counts: Counter[tuple[str, str]] = Counter()
    longest: dict[tuple[str, str], float] = {}
    for pool in cycle.policy.pools.values():
        for state in STATES:
            counts[pool.name, state] = 0
        for node in cycle.snapshot.nodes:
            if in_pool(node, pool):
                state, since = known.states.get(node.name, (HEALTHY, now))
                if state == HEALTHY and not node.usable:
                    state, since = AWAY, now
                key = (pool.name, _word(state))
                counts[key] += 1
                longest[key] = max(longest.get(key, 0.0), now - since)
    nodes = GaugeMetricFamily("slurm_gov_nodes", "Nodes by state of their lifecycle.", labels=["pool", "state"])
    in_state = GaugeMetricFamily(
        "slurm_gov_node_in_state_seconds",
        "How long nodes have been in a state: the longest.",
        labels=["pool", "state"],
    )
    for key, count in counts.items():
        nodes.add_metric(list(key), count)
        if key[1] not in (HEALTHY, AWAY):
            in_state.add_metric(list(key), longest.get(key, 0.0))
    yield nodes
    yield in_state


def _agents(known: Known, now: float) -> Iterator[Metric]:
    agents = GaugeMetricFamily("slurm_gov_agents", "Node agents by what is heard of them.", labels=["state"])
    states = Counter(
        ("online" if now - heard <= SILENT else "silent") if online else "offline"
        for online, heard in known.agents.values()
    )
    for state in ("online", "silent", "offline"):
        agents.add_metric([state], states[state])
    yield agents
    times = [heard for _, heard in known.agents.values()]
    for name, value, help in (
        ("oldest", min(times, default=0.0), "When the agent was heard that has been silent the longest."),
        ("latest", max(times, default=0.0), "When any agent was last heard."),
    ):
        yield GaugeMetricFamily(f"slurm_gov_agent_{name}_message_timestamp_seconds", help, value=value)
    if known.connected is not None:
        up = "Whether slurm-govd is connected to the MQTT broker."
        yield GaugeMetricFamily("slurm_gov_mqtt_connected", up, value=known.connected)
    for name, label, amounts, help in (
        ("messages", "kind", known.accepted, "Messages of agents that were accepted."),
        ("refused_messages", "reason", known.refused, "Messages that were refused."),
    ):
        family = CounterMetricFamily(f"slurm_gov_mqtt_{name}", help, labels=[label])
        for word, count in list(amounts.items()):
            family.add_metric([word], count)
        yield family
