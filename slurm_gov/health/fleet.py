"""One step of all nodes together: each node's own step, under what the others forbid. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from slurm_gov.core.health import Health
from slurm_gov.health.lifecycle import AWAY, Arrow, Do, Record, Sight, State, Step, step
from slurm_gov.health.permits import Permits, blame, permits


@dataclass(frozen=True, slots=True)
class Moved:
    """One arrow that a node took."""

    before: Record
    after: Record
    arrow: Arrow


@dataclass(frozen=True, slots=True)
class Decided:
    """What one step of the fleet gave. ``do``: what shall be so, per node. ``alerts``: what a person should know,
    by node, pool or rack. ``refused``: orders not followed, by node. ``blamed``: faults that are a job's doing.
    """

    records: Mapping[str, Record]
    moved: tuple[Moved, ...]
    do: Mapping[str, frozenset[Do]]
    alerts: Mapping[str, str]
    refused: Mapping[str, str]
    blamed: Mapping[str, Mapping[str, str]]


def decide(
    records: Mapping[str, Record],
    sights: Mapping[str, Sight],
    jobs: Mapping[str, Collection[str]],
    health: Health,
    now: float,
    racks: Mapping[str, str] | None = None,
) -> Decided:
    """Step every node that is seen until none takes an arrow. ``jobs``: the nodes of every running job."""
    after = {node: records[node] for node in sights}
    blamed = blame(sights, jobs, health)
    sights = {node: replace(sight, blamed=blamed.get(node, {})) for node, sight in sights.items()}
    allowed = permits(after, sights, health, racks)
    moved: list[Moved] = []
    do: dict[str, frozenset[Do]] = {}
    alerts = dict(allowed.breakers)
    refused: dict[str, str] = {}
    # Who is in the middle of something goes first; then the gravest and the longest sick, so that the limit of nodes
    # away goes to them. Names break ties: equal inputs give equal decisions.
    order = sorted(after, key=lambda node: (after[node].state is not State.SUSPECT, -after[node].effect.rank,
                                            after[node].since, node))  # fmt: skip
    for node in sorted(order, key=lambda node: after[node].state not in AWAY):
        sight = sights[node]
        while True:
            done = _one(after[node], sight, allowed, health, now)
            if done.refused:
                refused[node] = done.refused
            sight = replace(sight, order=None)
            if done.arrow is None:
                break
            moved.append(Moved(after[node], done.record, done.arrow))
            after[node] = done.record
            # What belongs to the state that was left says nothing about the one entered.
            sight = replace(sight, operation=None, verification=None, fresh=False, late=False)
            if done.record.state in AWAY or done.arrow in (Arrow.PASSED, Arrow.GIVEN_UP):
                allowed = permits(after, sights, health, racks)
        after[node] = done.record
        do[node] = done.do
        if done.alert:
            alerts[node] = done.alert
    return Decided(after, tuple(moved), do, alerts, refused, blamed)


def _one(record: Record, sight: Sight, allowed: Permits, health: Health, now: float) -> Step:
    node = record.node
    seen = replace(sight, forbidden=allowed.forbidden.get(node, ""), hands_off=allowed.hands_off.get(node, ""))
    done = step(record, seen, health, now)
    if not done.refused:
        return done
    # A refused order does not keep the node from what it would do without it.
    return replace(step(done.record, replace(seen, order=None), health, now), refused=done.refused)


def spares_out(records: Mapping[str, Record], health: Health) -> frozenset[str]:
    """The spares that stay in reserve: as many healthy ones step in as others of their pool are away or failed."""
    reserve: set[str] = set()
    for pool, rules in health.pools.items():
        missing = sum(
            record.pool == pool and node not in rules.spares and record.state not in (State.HEALTHY, State.SUSPECT)
            for node, record in records.items()
        )
        ready = [n for n in rules.spares if n in records and records[n].state in (State.HEALTHY, State.SUSPECT)]
        reserve |= set(ready[missing:])
    return frozenset(reserve)
