"""Nodes as the views show them: what Slurm's many states come down to, and who holds what there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from slurm_gov.core.rows import Look
from slurm_gov.core.snapshot import Node


class Condition(StrEnum):
    """What a node is good for now."""

    FREE = "free"
    """It takes jobs and holds none."""
    PARTLY = "partly"
    """It takes jobs and has GPUs, or processors, left."""
    FULL = "full"
    """All of its GPUs are held; one without GPUs: it is allocated."""
    DRAINING = "draining"
    """It takes no new jobs; those that it has go on."""
    DRAINED = "drained"
    """It takes no jobs and holds none."""
    DOWN = "down"
    """Slurm cannot use it: it is down, fails, or does not answer."""
    STARTING = "starting"
    """It reboots, or is being powered up."""
    RESERVED = "reserved"
    """It is kept for a reservation or for maintenance."""
    OFF = "off"
    """It is powered down, or does not exist yet."""


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node. ``state`` and ``reason`` are Slurm's; ``used`` of its ``gpus`` are held by so many ``jobs`` of these
    ``teams`` (a job without a team counts with the empty name).
    """

    node: str
    condition: Condition
    state: str
    reason: str
    partitions: tuple[str, ...]
    pools: tuple[str, ...]
    gpus: int
    used: int
    jobs: int
    teams: dict[str, int]


def nodes(look: Look) -> list[NodeRow]:
    """All nodes, in Slurm's order."""
    held: dict[str, dict[str, int]] = {}
    jobs: dict[str, int] = {}
    for job in look.snapshot.running:
        team = look.snapshot.team_of(look.policy, job.account) or ""
        for one in job.held:
            on_node = held.setdefault(one.node, {})
            on_node[team] = on_node.get(team, 0) + sum(one.gpus.values())
            jobs[one.node] = jobs.get(one.node, 0) + 1
    pools_of: dict[str, list[tuple[str, str]]] = {}
    for pool in look.policy.pools.values():
        for partition in pool.partitions:
            pools_of.setdefault(partition, []).append((pool.name, pool.tres))
    rows = []
    for node in look.snapshot.nodes:
        gpus = sum(node.gpus.values())
        used = sum(held.get(node.name, {}).values())
        mine = dict.fromkeys(
            name for part in node.partitions for name, tres in pools_of.get(part, ()) if node.gpus.get(tres)
        )
        rows.append(
            NodeRow(
                node=node.name,
                condition=condition(node, gpus, used, jobs.get(node.name, 0)),
                state=node.state,
                reason=node.reason,
                partitions=node.partitions,
                pools=tuple(mine),
                gpus=gpus,
                used=used,
                jobs=jobs.get(node.name, 0),
                teams=held.get(node.name, {}),
            )
        )
    return rows


def condition(node: Node, gpus: int, used: int, jobs: int) -> Condition:
    """What a node's state, such as ``MIXED+DRAIN`` or ``DOWN*``, and its use come down to."""
    said = _said(node.state)
    if said is Condition.DRAINED and jobs:
        return Condition.DRAINING
    if said is not None:
        return said
    if not node.usable:
        return Condition.DOWN
    if gpus:
        return Condition.FREE if not jobs else Condition.FULL if used >= gpus else Condition.PARTLY
    base = node.state.partition("+")[0]
    return {"ALLOCATED": Condition.FULL, "MIXED": Condition.PARTLY}.get(base, Condition.FREE)


@lru_cache(maxsize=1000)
def _said(state: str) -> Condition | None:
    """What a state says whatever runs on the node; ``None``: that it takes jobs."""
    words = set(re.split(r"\W+", state))

    def has(*starts: str) -> bool:
        return any(word.startswith(starts) for word in words)

    if has("REBOOT", "POWERING_UP", "POWER_UP"):
        return Condition.STARTING
    if has("DOWN", "FAIL", "ERROR", "INVAL", "NOT_RESPONDING", "NO_RESPOND", "UNKNOWN") or "*" in state:
        return Condition.DOWN
    if has("POWERED_DOWN", "POWERING_DOWN", "POWER_DOWN", "FUTURE"):
        return Condition.OFF
    if has("DRAIN"):
        return Condition.DRAINED
    return Condition.RESERVED if has("MAINT", "RESERVED", "BLOCKED") else None
