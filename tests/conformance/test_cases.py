"""Each case, decided by the same functions that ``plan`` decides by; only the nodes are left out."""

from __future__ import annotations

from typing import Any

from slurm_gov.core.fairness import fair_search
from slurm_gov.core.policy import (
    BorrowPreempts,
    Cohort,
    Policy,
    Preemption,
    Quota,
    Rebalance,
    Reclaim,
    Team,
    Victims,
    WithinTeam,
    frozen,
)
from slurm_gov.core.room import Room
from slurm_gov.core.shares import Holder, Shares
from slurm_gov.core.snapshot import Mark, RunningJob
from slurm_gov.core.victims import Candidates, Claim, Line, Preemptor, Victim, Working, search

NOW = 1_000_000.0
WITHIN = {
    "Never": WithinTeam.NEVER,
    "LowerPriority": WithinTeam.LOWER_PRIORITY,
    "LowerOrNewerEqualPriority": WithinTeam.LOWER_OR_NEWER_EQUAL_PRIORITY,
}
RECLAIM = {"Never": Reclaim.NEVER, "LowerPriority": Reclaim.LOWER_PRIORITY, "Any": Reclaim.ANY}
REBALANCE = {
    ("LessThanOrEqualToFinalShare",): Rebalance.FINAL_SHARE,
    ("LessThanInitialShare",): Rebalance.INITIAL_SHARE,
    ("LessThanOrEqualToFinalShare", "LessThanInitialShare"): Rebalance.FINAL_THEN_INITIAL_SHARE,
}
REASONS = {
    Claim.WITHIN_TEAM: "InClusterQueue",
    Claim.RECLAIM: "InCohortReclamation",
    Claim.RECLAIM_IF_WITHIN_QUOTA: "InCohortReclamation",
    Claim.WHILE_BORROWING: "InCohortReclaimWhileBorrowing",
    Claim.FAIR_SHARE: "InCohortFairSharing",
}

Case = dict[str, Any]


def quotas(entry: Case) -> dict[str, Quota]:
    found = {}
    for resource, amount in (entry.get("quota") or {}).items():
        nominal, borrow, lend = amount if isinstance(amount, list) else (amount, None, None)
        found[resource] = Quota(nominal, borrow, lend)
    return frozen(found)


def policy_of(case: Case) -> Policy:
    declared = {name: entry or {} for name, entry in (case.get("cohorts") or {}).items()}
    named = [entry.get("cohort") for entry in case["queues"].values()]
    named += [entry.get("parent") for entry in declared.values()]
    cohorts = {
        name: Cohort(name, entry.get("parent"), quotas(entry), entry.get("weight", 1))
        for name, entry in {**{name: {} for name in named if name}, **declared}.items()
    }
    teams = {}
    for name, entry in case["queues"].items():
        cohort = entry.get("cohort")
        if cohort is None:  # a queue of its own lends to nobody: a cohort of its own
            cohort = f"(only {name})"
            cohorts[cohort] = Cohort(cohort)
        within_cohort = entry.get("borrowWithin")
        teams[name] = Team(
            name,
            quotas(entry),
            cohort,
            entry.get("weight", 1),
            WITHIN[entry.get("within", "Never")],
            RECLAIM[entry.get("reclaim", "Never")],
            BorrowPreempts(within_cohort.get("maxPriority")) if within_cohort else None,
        )
    rebalance = Rebalance.NEVER
    if case.get("mode") == "fair":
        rebalance = REBALANCE[tuple(case.get("strategies", ["LessThanOrEqualToFinalShare", "LessThanInitialShare"]))]
    return Policy(
        frozen({}),
        frozen(teams),
        frozen(cohorts),
        rebalance=rebalance,
        preemption=Preemption(victims=Victims.IN_ORDER),
    )


def victim_of(id: int, name: str, entry: Case) -> Victim:
    start = NOW + entry.get("reserved", 0)
    mark = Mark(0, "", NOW, NOW, start) if entry.get("evicting") else None
    job = RunningJob(id, name, "", entry["q"], "", "", start, (), mark=mark, submit=NOW + entry.get("created", 0))
    return Victim(job, entry["q"], entry.get("p", 0), entry["use"])


def test_victims(victims_case: Case) -> None:
    case = victims_case
    policy = policy_of(case)
    shares = Shares(policy, {})
    # Equal candidates are taken in the order of their ids: of their names.
    running = [victim_of(id, name, entry) for id, (name, entry) in enumerate(sorted(case["running"].items()))]
    for victim in running:
        shares.add(victim.team, victim.use)
    incoming = case["incoming"]
    preemptor = Preemptor(
        incoming["q"],
        incoming.get("p", 0),
        NOW + incoming.get("created", 0),
        incoming["request"],
        frozenset(incoming["contested"]),
    )
    working = Working(shares, Room([]))
    before = [_state(shares, name) for name in policy.teams]

    def fits() -> bool:
        return shares.fits(preemptor.team, preemptor.amounts)

    line = Line(policy, shares, sorted(running, key=lambda one: one.order), NOW)
    ordered = Candidates(policy, shares, preemptor, line)
    if policy.rebalance is Rebalance.NEVER:
        found = search(policy, working, preemptor, ordered, fits, NOW)
    else:
        found = fair_search(policy, working, preemptor, list(ordered), fits)
    taken = {one.victim.job.display_id: REASONS[one.claim] for one in found or ()}
    assert taken == case["want"]["victims"]
    assert (found is not None) == case["want"]["fits"]
    if "newEvictionsIssued" in case["want"]:
        new = [one for one in found or () if not one.victim.job.being_preempted]
        assert len(new) == case["want"]["newEvictionsIssued"]
    assert [_state(shares, name) for name in policy.teams] == before, "the search left its traces"


def _state(shares: Shares, team: str) -> list[dict[str, int]]:
    holder = shares.holder(team)
    return [{r: n for r, n in one.usage.items() if n} for one in (holder, *holder.above())]


def test_share(share_case: Case) -> None:
    policy = policy_of(share_case)
    shares = Shares(policy, {})
    for use in (share_case["usage"], share_case.get("extra", {})):
        shares.add("cq", use)
    for name, (weighted, resource) in share_case["want"].items():
        holder: Holder = shares.holder(name) if name in policy.teams else shares.cohort(name)
        share = holder.share()
        assert (-(-share.weighted // 1), share.resource) == (weighted, resource)
