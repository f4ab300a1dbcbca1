"""Why a job waits, or must leave, and not another: the sentences with their figures."""

from __future__ import annotations

from collections.abc import Sequence

from slurm_gov.core.policy import Resource
from slurm_gov.core.shares import Shares
from slurm_gov.core.shields import Shield
from slurm_gov.core.victims import Candidate, Victim, cost
from slurm_gov.core.words import span


def holds(shares: Shares, team: str, resource: Resource) -> str:
    """``team research holds 32 of 32 quota and 16 of 16 borrow of h100``."""
    used, quota = shares.usage(team, resource), shares.quota(team, resource)
    above = max(0, used - quota.nominal)
    borrowed = f"{above} borrowed" if quota.borrow is None else f"{above} of {quota.borrow} borrow"
    return f"team {team} holds {min(used, quota.nominal)} of {quota.nominal} quota and {borrowed} of {resource}"


def who_stays(shielded: Sequence[tuple[Victim, Shield]], now: float) -> str:
    """What keeps these jobs, none of which may go for a job that waits: the one first that does so soonest."""
    if not shielded:
        return ""
    victim, shield = min(shielded, key=lambda one: (one[1].until is None, one[1].until or 0.0, one[0].job.id))
    how_long = "" if shield.until is None else f" for another {span(shield.until - now)}"
    name = victim.job.display_id
    if len(shielded) == 1:
        return f" (the borrower's job {name} stays{how_long}: {shield.why})"
    return f" ({len(shielded)} borrowers' jobs stay, {name}{how_long}: {shield.why})"


def why_it(candidate: Candidate, chosen: Sequence[Candidate], looked_at: Sequence[Candidate], now: float) -> str:
    """Why this job and not another; ``looked_at`` are the first of those that policy lets go, in order: one
    more than were chosen, if there are as many.
    """
    job = candidate.victim.job
    hours = candidate.victim.gpus * max(0.0, now - job.kept) / 3600
    since = "checkpoint" if job.kept > job.start else "start"
    loses = f"it loses {hours:.1f} GPU-hours since its {since}"
    going = {one.victim.job.id for one in chosen}
    number = next((n for n, one in enumerate(looked_at) if one.victim.job.id not in going), None)
    if number is None:
        return f"{loses}; no other job may go"
    other = looked_at[number].victim
    if number >= len(chosen):
        return (
            f"{loses}, class weight {candidate.victim.priority}; the lowest class and then the last started goes "
            f"first, next would be {other.job.display_id}"
        )
    if cost((looked_at[number],), now) >= cost(chosen, now):
        more = other.gpus * max(0.0, now - other.job.kept) / 3600
        return f"{loses}; {other.job.display_id}, class weight {other.priority}, would lose {more:.1f}"
    return f"{loses}; {other.job.display_id} would be next, but makes no room where it is needed"
