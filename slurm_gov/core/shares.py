"""Who may hold how much: the tree of teams and cohorts with quotas, use, lending and borrowing limits.

The arithmetic is Kueue's (ClusterQueue and Cohort resource nodes): each node keeps back what it does not
lend, passes the rest up, and may take from above what its borrowing limit allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from slurm_gov.core.policy import Cohort, Policy, Quota, Resource, Team

CLUSTER = "(cluster)"
"""The root above all cohorts; it holds the capacity that no team was given."""
SHARED = "(shared)"
"""The cohort of the teams that name none."""

Amounts = Mapping[Resource, int]


@dataclass(frozen=True, slots=True, order=True)
class Share:
    """How much a team or cohort holds beyond its quota: Kueue's dominant resource share.

    ``weighted`` is the largest over resources of use above quota x 1000 / what could be lent to it, divided by
    the fair-share weight. Whoever borrows with weight 0 has a larger share than all who have a weight.
    """

    without_weight: bool = False
    weighted: float = 0.0
    resource: str = field(default="", compare=False)


@dataclass(slots=True, eq=False)
class Holder:
    """A team or cohort in the tree. All amounts are per resource, in its units.

    ``subtree``: its quota and what those below lend; ``usage``: what it uses, or for a cohort what those below
    use beyond what they keep for themselves; ``keeps``: the part of ``subtree`` that it does not lend, and
    ``keeps_any`` whether that is something; ``limited``: it borrows up to a limit. ``given`` is the part of a team's
    ``usage`` that it is only given in the plan that is being made. ``past`` is what it borrowed lately, as a share.
    ``version`` of a team is another one whenever its use may have changed.
    """

    name: str
    parent: Holder | None
    quotas: Mapping[Resource, Quota]
    weight: float = 0
    is_team: bool = False
    children: list[Holder] = field(default_factory=list)
    subtree: dict[Resource, int] = field(default_factory=dict)
    keeps: dict[Resource, int] = field(default_factory=dict)
    usage: dict[Resource, int] = field(default_factory=dict)
    given: dict[Resource, int] = field(default_factory=dict)
    version: int = 0
    past: float = 0
    keeps_any: bool = False
    limited: bool = False
    _lendable: dict[str, int] | None = None
    _lent: dict[Resource, int] = field(default_factory=dict)

    def quota(self, resource: Resource) -> Quota:
        return self.quotas.get(resource, _NOTHING)

    def above(self) -> Iterator[Holder]:
        """The cohorts it is in, the nearest first; the cluster is the last."""
        holder = self.parent
        while holder is not None:
            yield holder
            holder = holder.parent

    def sum_up(self) -> None:
        """Compute ``subtree`` and ``keeps``, here and below."""
        self.subtree = {resource: quota.nominal for resource, quota in self.quotas.items()}
        for child in self.children:
            child.sum_up()
            for resource, amount in child.subtree.items():
                self.subtree[resource] = self.subtree.get(resource, 0) + amount - child.keeps[resource]
        for resource, amount in self.subtree.items():
            lend = self.quota(resource).lend
            self.keeps[resource] = 0 if lend is None else max(0, amount - lend)
        self.keeps_any = any(self.keeps.values())
        self.limited = any(quota.borrow is not None for quota in self.quotas.values())

    def kept_free(self, resource: Resource) -> int:
        """What is left of what it keeps for itself."""
        return max(0, self.keeps.get(resource, 0) - self.usage.get(resource, 0))

    def beyond_kept(self, amounts: Amounts) -> Amounts:
        """Of these amounts more what the cohort above it would have to give: what it has not kept for itself."""
        if not self.keeps_any:
            return amounts
        return {resource: max(0, amount - self.kept_free(resource)) for resource, amount in amounts.items()}

    def available(self, resource: Resource, less: int = 0) -> int:
        """What may still be used here without anyone leaving; negative if more is used than allowed. As if ``less``
        of what is used were not.
        """
        used = self.usage.get(resource, 0) - less
        if self.parent is None:
            return self.subtree.get(resource, 0) - used
        kept = self.keeps.get(resource, 0)
        if less:
            less = max(0, used + less - kept) - max(0, used - kept)
        above = self.parent.available(resource, less)
        quota = self.quotas.get(resource)
        if quota is not None and quota.borrow is not None:
            most = self.subtree.get(resource, 0) + quota.borrow - (used if used > kept else kept)
            if most < above:
                above = most
        # What it keeps for itself is its own, even while others above hold more than they should.
        if kept > used:
            return kept - used + above if above > 0 else kept - used
        return above

    def potential(self, resource: Resource) -> int:
        """What could be used here if nobody used anything."""
        subtree = self.subtree.get(resource, 0)
        if self.parent is None:
            return subtree
        most = self.keeps.get(resource, 0) + self.parent.potential(resource)
        borrow = self.quota(resource).borrow
        return most if borrow is None else min(most, subtree + borrow)

    def is_over(self, resources: Iterable[Resource]) -> bool:
        """Whether more than its quota and what those below lend is used of any of these."""
        usage, subtree = self.usage, self.subtree
        for resource in resources:  # noqa: SIM110 (a plain loop: nothing is asked more often)
            if usage.get(resource, 0) > subtree.get(resource, 0):
                return True
        return False

    def holds_too_much(self, resources: Iterable[Resource]) -> bool:
        """The same without what a team is only given now: for that none of its running jobs has to leave."""
        given = self.given
        if not given:
            return self.is_over(resources)
        return any(self.usage.get(r, 0) - given.get(r, 0) > self.subtree.get(r, 0) for r in resources)

    def share(self) -> Share:
        """Its share now; none for the cluster, which borrows from nobody."""
        ratio, dominant = self._ratio({})
        return Share(*self._weighted(ratio), dominant)

    def share_with(self, more: Amounts) -> tuple[float, bool]:
        """Its share with these amounts more, and with what it borrowed lately if it would borrow; and whether it
        borrows without a weight.
        """
        usage = self.usage
        if len(more) == 1 and len(usage) < 2 and self.parent is not None:
            # Mostly there is one resource, and nothing is asked more often.
            ((resource, amount),) = more.items()
            if not usage or resource in usage:
                above = usage.get(resource, 0) + amount - self.subtree.get(resource, 0)
                if above <= 0:
                    return _NOT_BORROWING
                lendable = self._lent.get(resource)
                if lendable is None:
                    lendable = self._lent[resource] = self.parent.lendable(kind_of(resource))
                if self.weight and lendable > 0:
                    return above * 1000.0 / lendable / self.weight + self.past, False
        without_weight, share = self._weighted(self._ratio(more)[0])
        return share + self.past if share else share, without_weight

    def _weighted(self, ratio: float) -> tuple[bool, float]:
        return (ratio > 0, ratio) if self.weight == 0 else (False, ratio / self.weight)

    def _ratio(self, more: Amounts) -> tuple[float, str]:
        """The largest use above quota of what could be lent, in thousandths, and of what."""
        if self.parent is None:
            return 0.0, ""
        borrowed: dict[str, int] = {}
        for resource in self.usage.keys() | more.keys() if more else self.usage:
            above = self.usage.get(resource, 0) + more.get(resource, 0) - self.subtree.get(resource, 0)
            if above > 0:
                kind = kind_of(resource)
                borrowed[kind] = borrowed.get(kind, 0) + above
        ratio, dominant = 0.0, ""
        for kind, amount in sorted(borrowed.items()):
            lendable = self.parent.lendable(kind)
            if lendable > 0 and amount * 1000.0 / lendable > ratio:
                ratio, dominant = amount * 1000.0 / lendable, kind
        return ratio, dominant

    def lendable(self, kind: str) -> int:
        """What could be lent here of all resources of a kind; only quotas decide it, so it is computed once."""
        if self._lendable is None:
            self._lendable = {}
            for resource in [self, *self.above()][-1].subtree:
                kind_here = kind_of(resource)
                self._lendable[kind_here] = self._lendable.get(kind_here, 0) + self.potential(resource)
        return self._lendable.get(kind, 0)


def kind_of(resource: Resource) -> str:
    """What is compared with one another across pools: accelerators, or what stands behind the slash."""
    return "gpu" if "/" not in resource else resource.partition("/")[2]


_NOTHING = Quota()
_NOT_BORROWING = (0.0, False)


class Shares:
    """The tree with what everyone uses. A working copy: ``trial()`` takes back what was done in it."""

    def __init__(self, policy: Policy, healthy: Amounts) -> None:
        """Build the tree with nothing used.

        ``healthy`` is each pool's healthy capacity; where the policy lends unallocated capacity, what exceeds the sum
        of all quotas belongs to the root and may be borrowed by any team.
        """
        self._holders: dict[str, Holder] = {}
        self._teams: dict[str, Holder] = {}
        self._with_past: list[Holder] = []
        self._given: list[Holder] = []  # the teams to which something was
        self._spare: dict[tuple[Holder, Resource, int], int] = {}  # what is available there, until anything changes
        self._log: list[tuple[Sequence[Holder], Resource, int]] = []
        quotas: dict[Resource, int] = dict.fromkeys(healthy, 0)
        for owned in (*_quotas_of(policy.teams), *_quotas_of(policy.cohorts)):
            for resource, quota in owned.items():
                quotas[resource] = quotas.get(resource, 0) + quota.nominal
        unallocated = {
            resource: Quota(max(0, capacity - quotas[resource]) if policy.lend_unallocated else 0)
            for resource, capacity in healthy.items()
        }
        root = self._holders[CLUSTER] = Holder(CLUSTER, None, unallocated)
        # Cohorts without a common parent do not lend to one another; they only share what nobody was given.
        lends_nothing = {resource: Quota(lend=0) for resource in quotas}
        self._holders[SHARED] = Holder(SHARED, root, lends_nothing)
        for name in policy.cohorts:
            self._add_cohort(policy, name, root)
        for team in policy.teams.values():
            parent = self._holders[team.cohort if team.cohort is not None else SHARED]
            self._teams[team.name] = Holder(team.name, parent, dict(team.quotas), team.fair_share_weight, True)
        for _, holder in sorted([*self._holders.items(), *self._teams.items()], key=lambda item: item[0]):
            if holder.parent is not None:
                holder.parent.children.append(holder)
        root.sum_up()
        # Each team with those above it, up to the first that keeps something for itself: all of them count the same.
        self._lines = {name: self._line(holder) for name, holder in self._teams.items()}
        self._related = {name: [holder, *holder.above()][-2].name for name, holder in self._teams.items()}
        self._limited = {name: [one for one in line if one.limited] for name, (*line, _) in self._lines.items()}

    def _line(self, holder: Holder) -> Sequence[Holder]:
        line = [holder]
        while holder.parent is not None and not holder.keeps_any:
            holder = holder.parent
            line.append(holder)
        return tuple(line)

    def _add_cohort(self, policy: Policy, name: str, root: Holder) -> Holder:
        if name in self._holders:
            return self._holders[name]
        cohort = policy.cohorts[name]
        if cohort.parent is not None:
            parent, quotas = self._add_cohort(policy, cohort.parent, root), cohort.quotas
        else:
            parent = root
            every = root.quotas.keys() | cohort.quotas.keys()
            mine = {resource: cohort.quotas.get(resource, _NOTHING) for resource in every}
            quotas = {resource: replace(quota, lend=0) for resource, quota in mine.items()}
        self._holders[name] = Holder(name, parent, dict(quotas), cohort.fair_share_weight)
        return self._holders[name]

    @property
    def cluster(self) -> Holder:
        """The root of the tree."""
        return self._holders[CLUSTER]

    def holder(self, team: str) -> Holder:
        """A team in the tree."""
        return self._teams[team]

    def cohort(self, name: str) -> Holder:
        """A cohort in the tree."""
        return self._holders[name]

    def tree(self) -> Iterator[tuple[int, Holder]]:
        """All cohorts and teams, each cohort before those in it, by name; and how many cohorts each is in."""
        below = [(0, one) for one in reversed(self.cluster.children)]
        while below:
            depth, holder = below.pop()
            yield depth, holder
            below += [(depth + 1, one) for one in reversed(holder.children)]

    def quota(self, team: str, resource: Resource) -> Quota:
        """A team's quota of a resource; nothing where the policy gives none."""
        return self.holder(team).quota(resource)

    def usage(self, team: str, resource: Resource) -> int:
        """What a team uses of a resource."""
        return self.holder(team).usage.get(resource, 0)

    def available(self, team: str, resource: Resource, less: int = 0) -> int:
        """What a team may still take: its own and what others can spare; negative if it holds too much. As if it used
        so much ``less``.
        """
        key = self._lines[team][-1], resource, less
        least = self._spare.get(key)
        if least is None:
            least = self._spare[key] = key[0].available(resource, less)
        for holder in self._limited[team]:
            quota = holder.quotas.get(resource)
            if quota is not None and quota.borrow is not None:
                most = holder.subtree.get(resource, 0) + quota.borrow - holder.usage.get(resource, 0) + less
                if most < least:
                    least = most
        return least

    def over_quota(self, team: str, amounts: Amounts) -> bool:
        """Whether a team uses more than its quota of any of the resources given."""
        return any(self.usage(team, r) > self.quota(team, r).nominal for r, n in amounts.items() if n > 0)

    def within_quota(self, team: str, amounts: Amounts) -> bool:
        """Whether a team stays within its quota with these amounts more."""
        holder = self._teams[team]
        for resource, amount in amounts.items():
            if amount > 0 and holder.usage.get(resource, 0) + amount > holder.quota(resource).nominal:
                return False
        return True

    def fits(self, team: str, amounts: Amounts) -> bool:
        """Whether quotas, lending and borrowing limits allow a team these amounts more."""
        for resource, amount in amounts.items():
            if amount > 0 and amount > self.available(team, resource):
                return False
        return True

    def remember(self, teams: Mapping[str, float], cohorts: Mapping[str, float]) -> None:
        """From now on this is what they borrowed lately: how many GPUs, on average."""
        for holder in self._with_past:
            holder.past = 0.0
        self._with_past.clear()
        for holders, lately in ((self._teams, teams), (self._holders, cohorts)):
            for name, gpus in lately.items():
                one = holders.get(name)
                if one is None or one.parent is None or (lendable := one.parent.lendable("gpu")) <= 0:
                    continue
                one.past = gpus * 1000.0 / lendable / (one.weight or 1)
                self._with_past.append(one)

    def shares_with(self, team: str, amounts: Amounts) -> tuple[float, ...]:
        """The shares that a team and the cohorts it is in would have with these amounts more, the outermost
        cohort's first: who is served first among those that wait for idle capacity. Of each, whether it borrows
        without a weight, and how large it is.
        What one that would borrow borrowed lately counts as if it borrowed it now. The cluster has no share.
        """
        holder, more = self._teams[team], amounts
        shares: list[float] = []
        while (parent := holder.parent) is not None:
            # Within its quotas it takes what is its own: it need not wait for having borrowed.
            shares += holder.share_with(more)
            if holder.keeps_any and parent.parent is not None:
                more = holder.beyond_kept(more)
            holder = parent
        shares.reverse()
        return tuple(shares)

    def related(self, team: str) -> str:
        """The top-level cohort a team belongs to: the teams in it lend to one another."""
        return self._related[team]

    def unallocated(self, resource: Resource) -> int:
        """What no team was given and any may borrow."""
        return self._holders[CLUSTER].quota(resource).nominal

    def add(self, team: str, amounts: Amounts) -> None:
        """Count these amounts as used by a team, and above it what exceeds what it keeps for itself."""
        for resource, more in amounts.items():
            holders = self._lines[team]
            while holders and more > 0:
                last = holders[-1]
                kept_free = last.keeps.get(resource, 0) - last.usage.get(resource, 0)
                self._change(holders, resource, more)
                if kept_free > 0:
                    more -= kept_free
                holders = (last.parent,) if last.parent is not None else ()

    def give(self, team: str, amounts: Amounts) -> None:
        """Count these amounts as used by a team whose waiting job gets them in the plan that is being made."""
        self.add(team, amounts)
        given = self._teams[team].given
        if not given:
            self._given.append(self._teams[team])
        for resource, amount in amounts.items():
            given[resource] = given.get(resource, 0) + amount

    def remove(self, team: str, amounts: Amounts) -> None:
        """Count these amounts as no longer used by a team."""
        for resource, less in amounts.items():
            holders = self._lines[team]
            while holders and less > 0:
                last = holders[-1]
                above_kept = last.usage.get(resource, 0) - last.keeps.get(resource, 0)
                self._change(holders, resource, -less)
                if above_kept < less:
                    less = above_kept
                holders = (last.parent,) if last.parent is not None else ()

    def _change(self, holders: Sequence[Holder], resource: Resource, amount: int) -> None:
        self._spare.clear()
        self._log.append((holders, resource, amount))
        holders[0].version += 1
        for holder in holders:
            usage = holder.usage
            usage[resource] = usage.get(resource, 0) + amount

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Whatever is added and removed inside is taken back at the end."""
        mark = self.mark()
        try:
            yield
        finally:
            self.undo(mark)

    def mark(self) -> int:
        """Where we are now, for ``undo``."""
        return len(self._log)

    def forget(self, mark: int) -> None:
        """What was done since stays: it is not to be undone."""
        del self._log[mark:]

    def settle(self) -> None:
        """What was added and removed so far stays: it is not to be undone."""
        self._log.clear()

    def undo(self, mark: int) -> None:
        """Take back what was done since; with all of it, what was given."""
        if not mark:
            for team in self._given:
                team.given.clear()
            self._given.clear()
        self._spare.clear()
        for holders, resource, amount in reversed(self._log[mark:]):
            holders[0].version += 1
            for holder in holders:
                holder.usage[resource] -= amount
        del self._log[mark:]


def _quotas_of(owners: Mapping[str, Team] | Mapping[str, Cohort]) -> Iterator[Mapping[Resource, Quota]]:
    return (owner.quotas for owner in owners.values())


class QuotaUse(tuple[object, ...]):
    """A team, and of each resource what it would hold with a job, its quota, and the resource's name; put into words
    when it is read: ``research's quota (with it 24 of 32 h100)``.
    """

    __slots__ = ()

    def __str__(self) -> str:
        team, figures = self[0], self[1:]
        each = zip(figures[::3], figures[1::3], figures[2::3], strict=True)
        return ", ".join(f"{team}'s quota (with it {used} of {quota} {resource})" for used, quota, resource in each)


def quota_use(holder: Holder, amounts: Amounts) -> QuotaUse:
    """The use of a team's quota with these amounts more."""
    figures: list[object] = [holder.name]
    for resource, amount in amounts.items():
        figures += (holder.usage.get(resource, 0) + amount, holder.quota(resource).nominal, resource)
    return QuotaUse(figures)


def limits(shares: Shares, team: str, resource: Resource) -> str:
    """A team's quota and borrow limit in words: "quota 32, borrow 16"."""
    quota = shares.quota(team, resource)
    borrow = "unlimited" if quota.borrow is None else str(quota.borrow) if quota.borrow else "none"
    return f"quota {quota.nominal}, borrow {borrow}"


def lent_by(policy: Policy, shares: Shares, resource: Resource) -> dict[str, int]:
    """How much of each team's unused quota others hold now.

    What is used above quotas comes first from capacity that no team was given; the rest is attributed to
    the lenders of the same cohort in proportion to what they leave unused and lend, and adds up.
    """
    lent = dict.fromkeys(policy.teams, 0)
    borrowed: dict[str, int] = {}
    lendable: dict[str, dict[str, int]] = {}
    for team in sorted(policy.teams):
        cohort, quota = shares.related(team), shares.quota(team, resource)
        used = shares.usage(team, resource)
        borrowed[cohort] = borrowed.get(cohort, 0) + max(0, used - quota.nominal)
        unused = max(0, quota.nominal - used)
        lendable.setdefault(cohort, {})[team] = unused if quota.lend is None else min(unused, quota.lend)
    unallocated = shares.unallocated(resource)
    for cohort, amount in sorted(borrowed.items()):
        total = sum(lendable[cohort].values())
        missing = min(max(0, amount - unallocated), total)
        unallocated = max(0, unallocated - amount)
        given = so_far = 0
        for team, most in lendable[cohort].items():
            # Rounding the running sum, not each part, keeps the parts adding up to the whole.
            so_far += most
            lent[team] = missing * so_far // total - given if most else 0
            given += lent[team]
    return lent
