"""What forbids acting on a sick node although its fault says so: looking at all nodes at once. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from slurm_gov.core.health import Health
from slurm_gov.health.lifecycle import AWAY, Record, Sight, State, standing

BREAKERS = ("pool ", "rack ")
"""How the keys of breakers begin; no node's name has a blank."""


@dataclass(frozen=True, slots=True)
class Permits:
    """Per node why it may not be repaired (``forbidden``) or not even drained (``hands_off``); per pool or rack what
    the circuit breaker says. A node that is in neither mapping may be.
    """

    forbidden: Mapping[str, str]
    hands_off: Mapping[str, str]
    breakers: Mapping[str, str]


def permits(
    records: Mapping[str, Record], sights: Mapping[str, Sight], health: Health, racks: Mapping[str, str] | None = None
) -> Permits:
    """What is forbidden now. ``racks`` is the rack of each node where Slurm's topology tells it."""
    pools: dict[str, list[str]] = defaultdict(list)
    grouped: dict[str, list[str]] = defaultdict(list)
    for node, record in records.items():
        pools[record.pool].append(node)
        rack = rack_of(node, health, racks or {})
        if rack:
            grouped[rack].append(node)
    bad = {node for node, record in records.items() if _bad(record, sights.get(node, Sight()))}
    forbidden: dict[str, str] = {}
    hands_off: dict[str, str] = {}
    breakers: dict[str, str] = {}
    if health.hands_off:
        hands_off = dict.fromkeys(records, health.hands_off)
    for pool, nodes in pools.items():
        sick = [node for node in nodes if node in bad]
        if len(sick) > health.breaker.of(len(nodes)):
            why = f"circuit breaker: {len(sick)} of {len(nodes)} nodes of {pool} are bad at once"
            breakers[f"pool {pool}"] = why
            hands_off |= dict.fromkeys(nodes, why)
    for rack, nodes in grouped.items():
        # A rack of one node is no rack, and one that is half a pool is what the share is for.
        if len(nodes) > 1 and all(node in bad for node in nodes):
            why = f"circuit breaker: all {len(nodes)} nodes of rack {rack} are bad at once"
            breakers[f"rack {rack}"] = why
            hands_off |= dict.fromkeys(nodes, why)
    for pool, nodes in pools.items():
        rules = health.pools.get(pool)
        if rules is None or not rules.automatic:
            forbidden |= dict.fromkeys(nodes, f"recovery is none for {pool}")
            continue
        away = sum(records[node].state in AWAY for node in nodes)
        limit = health.max_away.of(len(nodes))
        if away >= limit:
            forbidden |= dict.fromkeys(nodes, f"{away} nodes of {pool} are away already, {limit} may be")
    return Permits(forbidden, hands_off, breakers)


def rack_of(node: str, health: Health, racks: Mapping[str, str]) -> str:
    """A node's rack, empty if it has none."""
    if health.rack == "topology":
        return racks.get(node, "")
    found = re.match(health.rack, node) if health.rack else None
    return (found[1] if found.re.groups else found[0]) if found else ""


def blame(
    sights: Mapping[str, Sight], jobs: Mapping[str, Collection[str]], health: Health
) -> dict[str, dict[str, str]]:
    """Faults that are a job's doing: node to fault to job. ``jobs``: the nodes of every running job.

    The same XID on ``same_xid`` nodes of one job: nodes do not break together, programs do.
    """
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for job, nodes in sorted(jobs.items()):
        by_code: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for node in nodes:
            for fault in sights[node].faults if node in sights else ():
                if fault.code is not None and fault.name.startswith("xid "):
                    by_code[fault.code][node].append(fault.key)
        for where in by_code.values():
            if len(where) >= max(2, health.jobs.same_xid):
                for node, keys in where.items():
                    found[node] |= dict.fromkeys(keys, job)
    return dict(found)


def _bad(record: Record, sight: Sight) -> bool:
    if record.state in AWAY:
        return not record.by
    return record.state is not State.FAILED and bool(standing(record, sight)) and not sight.blamed
