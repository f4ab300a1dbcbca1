"""Taking borrowed capacity from the teams that hold the largest share of it: Kueue's fair-sharing preemption.

The search goes down the tree of cohorts to the team with the largest share, takes one of its jobs where the
rule allows it, and looks anew, because every loss changes the shares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from slurm_gov.core.policy import Policy, Rebalance
from slurm_gov.core.shares import Holder, Share, Shares
from slurm_gov.core.victims import (
    Candidate,
    Claim,
    Preemptor,
    Working,
    candidate_order,
    put_back_the_spared,
)

Rule = Callable[[Share, Share, Share], bool]
"""May it be taken, by the preemptor's share with the job, and the other's before and after the loss?"""


def _final_share(mine: Share, before: Share, after: Share) -> bool:
    return mine <= after


def _initial_share(mine: Share, before: Share, after: Share) -> bool:
    return mine < before


_RULES: dict[Rebalance, tuple[Rule, Rule | None]] = {
    Rebalance.FINAL_SHARE: (_final_share, None),
    Rebalance.INITIAL_SHARE: (_initial_share, None),
    Rebalance.FINAL_THEN_INITIAL_SHARE: (_final_share, _initial_share),
}


def fair_search(
    policy: Policy,
    working: Working,
    preemptor: Preemptor,
    ordered: Sequence[Candidate],
    fits: Callable[[], bool],
) -> tuple[Candidate, ...] | None:
    """The candidates whose going lets ``fits()`` be true, or ``None``. Nothing in ``working`` is changed.

    A job within its team's quota may take from whoever is above its own, whatever the shares are.
    """
    first, second = _RULES[policy.rebalance]
    with working.trial():
        hunt = _Hunt(working, preemptor, ordered, fits)
        if hunt.run(first) or (second is not None and hunt.run_again(second)):
            working.shares.remove(preemptor.team, preemptor.amounts)
            return put_back_the_spared(working, hunt.taken, fits)
        return None


class _Hunt:
    """One search. The preemptor's job counts in its team's share all through."""

    def __init__(
        self, working: Working, preemptor: Preemptor, ordered: Sequence[Candidate], fits: Callable[[], bool]
    ) -> None:
        self.working = working
        self.shares = working.shares
        self.preemptor = preemptor
        self._fits = fits
        self.own = self.shares.holder(preemptor.team)
        self.taken: list[Candidate] = []
        self.left_over: list[Candidate] = []
        self.targets = _Targets(self.shares, preemptor, ordered)
        self.shares.add(preemptor.team, preemptor.amounts)
        self.within_quota = not self.own.is_over(preemptor.contested)

    def fits(self) -> bool:
        with self.shares.trial():
            self.shares.remove(self.preemptor.team, self.preemptor.amounts)
            return self._fits()

    def _take(self, candidate: Candidate, claim: Claim) -> bool:
        self.working.remove(candidate.victim)
        self.taken.append(Candidate(candidate.victim, claim, candidate.meet))
        return self.fits()

    def run(self, rule: Rule) -> bool:
        """Take from the largest share, as far as the rule allows; whether that suffices."""
        while (target := self.targets.next()) is not None:
            queue = self.targets.queues[target]
            if target is self.own or self.within_quota:
                claim = Claim.WITHIN_TEAM if target is self.own else Claim.RECLAIM
                if self._take(queue.pop(0), claim):
                    return True
                continue
            mine, theirs = self._below_their_cohort(target)
            my_share, before = mine.share(), theirs.share()
            while queue:
                candidate = queue.pop(0)
                if rule(my_share, before, self._share_without(theirs, candidate)):
                    if self._take(candidate, Claim.FAIR_SHARE):
                        return True
                    break  # the shares have changed: another team's may be the largest now
                self.left_over.append(candidate)
        return False

    def run_again(self, rule: Rule) -> bool:
        """Once more from the largest share, among those that the first rule did not allow."""
        self.targets = _Targets(self.shares, self.preemptor, self.left_over)
        while (target := self.targets.next()) is not None:
            candidate = self.targets.queues[target].pop(0)
            mine, theirs = self._below_their_cohort(target)
            before = theirs.share()
            if rule(mine.share(), before, before) and self._take(candidate, Claim.FAIR_SHARE):
                return True
        return False

    def _share_without(self, theirs: Holder, candidate: Candidate) -> Share:
        with self.shares.trial():
            self.shares.remove(candidate.victim.team, candidate.victim.use)
            return theirs.share()

    def _below_their_cohort(self, target: Holder) -> tuple[Holder, Holder]:
        """The two sides just below the nearest cohort that both are in: theirs are the shares compared."""
        mine = [self.own, *self.own.above()]
        theirs = target
        while theirs.parent is not None and theirs.parent not in mine:
            theirs = theirs.parent
        assert theirs.parent is not None
        return mine[mine.index(theirs.parent) - 1], theirs


class _Targets:
    """Who is to lose next: from the root down, always the child with the largest share that has candidates.

    Whoever borrows nothing of what is contested is left out for good, except on the preemptor's own side of the tree.
    """

    def __init__(self, shares: Shares, preemptor: Preemptor, ordered: Sequence[Candidate]) -> None:
        self.root = shares.cluster
        self.contested = preemptor.contested
        own = shares.holder(preemptor.team)
        self.own_side = {own, *own.above()}
        self.queues: dict[Holder, list[Candidate]] = {}
        for candidate in ordered:
            self.queues.setdefault(shares.holder(candidate.victim.team), []).append(candidate)
        self.out: set[Holder] = set()

    def next(self) -> Holder | None:
        """The team whose first candidate is to be looked at, if any is left."""
        while self.root not in self.out:
            team = self._below(self.root)
            if team is not None:
                return team
        return None

    def _below(self, cohort: Holder) -> Holder | None:
        best: Holder | None = None
        largest = Share()
        for child in sorted(cohort.children, key=lambda child: not child.is_team):
            if child in self.out:
                continue
            nobody = child.is_team and not self.queues.get(child)
            if nobody or not (child.holds_too_much(self.contested) or child in self.own_side):
                self.out.add(child)
                continue
            share = child.share()
            if best is None or share > largest or (share == largest and self._goes_before(child, best)):
                best, largest = child, share
        if best is None:
            self.out.add(cohort)
            return None
        return best if best.is_team else self._below(best)

    def _goes_before(self, child: Holder, other: Holder) -> bool:
        """Of equal shares: a cohort before a team; of two teams the one whose candidate would go first."""
        if not child.is_team:
            return True
        return candidate_order(self.queues[child][0]) < candidate_order(self.queues[other][0])
