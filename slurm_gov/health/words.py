"""A node's lifecycle in words for people: what comes next, and what an order would do. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from slurm_gov.core.health import Effect, Health, Repair
from slurm_gov.health.journal import Operation
from slurm_gov.health.lifecycle import Hand, Order, Record, State, Want


def next_step(
    record: Record,
    hand: Hand,
    health: Health | None,
    jobs: int = 0,
    operation: Operation | None = None,
    spare: bool = False,
) -> str:
    """What happens to a node next, and on what that waits; empty for a healthy one that is no ``spare``."""
    if hand is Hand.ADMINISTRATOR:
        return "an administrator drained it: nothing is done until he lifts that"
    match record.state:
        case State.HEALTHY:
            return f"in reserve until another node of {record.pool} is away" if spare else ""
        case State.SUSPECT:
            if record.notice:
                return f"nothing is done: {record.notice}"
            if record.effect.rank >= Effect.DRAIN.rank:
                return "drained for repair if it lasts, in service again if it goes away"
            return "in service again when it has been well for a while"
        case State.DRAINING:
            waits = f"its {jobs} job{'s' if jobs > 1 else ''} must leave, then " if jobs else ""
            if record.hold:
                return f"{waits}stays drained until slurm-gov node clear {record.node}"
            return waits + _repair(record.repair)
        case State.REBOOTING | State.REPLACING:
            tries = f"attempt {operation.attempt}" if operation else "not begun"
            said = f": {operation.message}" if operation and operation.message else ""
            return f"{tries}{said}; then verified"
        case State.VERIFYING:
            names = ", ".join(one.name for one in health.verifications) if health else ""
            return f"a fresh report{f' and {names}' if names else ''}; then back in service"
        case State.FAILED:
            return f"needs a person; then slurm-gov node verify or clear {record.node}"


def _repair(repair: Repair) -> str:
    return {
        Repair.NONE: "verified when the fault is gone",
        Repair.REBOOT: "rebooted",
        Repair.REPLACE: "replaced",
        Repair.PERSON: "left to a person",
    }[repair]


def plan_of(
    order: Order, record: Record, jobs: Sequence[tuple[str, str]], provider: str, health: Health
) -> list[str]:
    """What an order would do, step by step. ``jobs``: those on the node, each with its priority class."""
    node = record.node
    if order.want is Want.CLEAR:
        if record.state is State.HEALTHY:
            return [f"{node} is healthy: what is reported against it now would be forgotten"]
        return [
            f"let go of {node} ({record.state}: {record.reason})",
            "forget what is reported against it now, until it comes anew",
            "lift our drain",
        ]
    steps = [f"drain {node}: no new work"]
    moves = {job: health.jobs.of(name) for job, name in jobs}
    told = [] if order.now else [job for job, one in moves.items() if one.draining]
    for grace in sorted({moves[job].grace for job in told}):
        listed = ", ".join(job for job in told if moves[job].grace == grace)
        steps.append(f"tell its jobs to save a checkpoint, and requeue them {grace:.0f} s later: {listed}")
    if left := [job for job in moves if job not in told]:
        listed = ", ".join(left)
        steps.append(f"requeue its jobs at once: {listed}" if order.now else f"wait for its jobs to finish: {listed}")
    checks = ", ".join(one.name for one in health.verifications)
    back = [f"verify it: a fresh report of its agent{f', {checks}' if checks else ''}", "lift the drain"]
    match order.want:
        case Want.DRAIN:
            return [*steps, f"keep it drained until slurm-gov node clear {node}"]
        case Want.VERIFY:
            return [*steps, *back]
        case _:
            return [*steps, f"{order.want} it by provider {provider}", *back]
