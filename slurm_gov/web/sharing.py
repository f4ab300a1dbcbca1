"""Who owns a pool's capacity and who uses it, as one row of segments: what the bar of the live page draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from slurm_gov.core.policy import Policy
from slurm_gov.core.rows import Look


class Use(StrEnum):
    """What a part of the capacity is doing."""

    WITHIN = "within"
    """Its owner uses it."""
    LENT = "lent"
    """Somebody else uses it: another team borrows it, or jobs without a team hold it."""
    FREE = "free"
    """Nobody uses it."""
    AWAY = "away"
    """It is on nodes that are not healthy, and nobody uses it."""
    MISSING = "missing"
    """The quotas promise it, and the pool has no such capacity."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of one pool's capacity, in GPUs. ``owner`` is the team whose quota it is, ``None``: no team's.
    ``user`` is the team that holds it, where another than its owner does; ``None``: jobs without a team.
    """

    use: Use
    owner: str | None
    user: str | None
    gpus: int


def segments(look: Look, pool: str) -> list[Segment]:
    """All of a pool: the teams in their order with what they own, then what no team was given.

    GPUs carry no names: which lender's GPUs a borrower holds is a way of counting. A borrower is counted with the
    lenders of its own cohort first, then with what no team was given, then with the other lenders.
    """
    capacity = next(one for one in look.plan.pools if one.pool == pool)
    teams = [one for one in look.plan.standings if one.pool == pool]
    quotas = sum(one.quota for one in teams)
    owners: list[str | None] = [*(one.team for one in teams), None]
    empty: dict[str | None, int] = {one.team: one.quota - min(one.used, one.quota) for one in teams}
    empty[None] = max(0, capacity.total - quotas)
    lendable: dict[str | None, int] = {one.team: min(one.lent, empty[one.team]) for one in teams}
    lendable[None] = empty[None]

    lent: dict[tuple[str | None, str | None], int] = {}
    borrowers: list[tuple[str | None, int]] = [(one.team, one.borrowed) for one in teams]
    borrowers.append((None, max(0, capacity.used - sum(one.used for one in teams))))
    for borrower, amount in borrowers:
        for lender, most in _lenders(look.policy, borrower, owners, lendable, empty):
            taken = min(amount, most, empty[lender])
            if taken > 0:
                lent[lender, borrower] = lent.get((lender, borrower), 0) + taken
                empty[lender] -= taken
                lendable[lender] = max(0, lendable[lender] - taken)
                amount -= taken

    # What is not there is missing where it hurts least: from what no team was given, then where most is unused.
    away = max(0, capacity.total - capacity.used - capacity.free)
    missing = max(0, quotas - capacity.total)
    found = []
    absent: dict[str | None, dict[Use, int]] = {}
    for use, amount in ((Use.MISSING, missing), (Use.AWAY, away)):
        for owner in sorted(owners, key=lambda one: (one is not None, -empty[one])):
            taken = min(amount, empty[owner])
            absent.setdefault(owner, {})[use] = taken
            empty[owner] -= taken
            amount -= taken
    within = {one.team: min(one.used, one.quota) for one in teams}
    for owner in owners:
        found.append(Segment(Use.WITHIN, owner, owner, within.get(owner or "", 0)))
        found += [Segment(Use.LENT, owner, user, gpus) for (lender, user), gpus in lent.items() if lender == owner]
        found.append(Segment(Use.FREE, owner, None, empty[owner]))
        found += [Segment(use, owner, None, gpus) for use, gpus in sorted(absent[owner].items())]
    return [one for one in found if one.gpus > 0]


def _lenders(
    policy: Policy,
    borrower: str | None,
    owners: list[str | None],
    lendable: dict[str | None, int],
    empty: dict[str | None, int],
) -> Iterator[tuple[str | None, int]]:
    """Whose GPUs a borrower is counted with, in order, and how many of them at most."""
    if borrower is not None:
        cohort = policy.teams[borrower].cohort
        near = [one for one in owners if one not in (None, borrower) and policy.teams[one or ""].cohort == cohort]
        yield from ((one, lendable[one]) for one in near)
    yield None, empty[None]
    yield from ((one, lendable[one]) for one in owners if one not in (None, borrower))
    # Between two looks at Slurm, or with nodes away, more may be held than is lent.
    yield from ((one, empty[one]) for one in owners if one != borrower)
