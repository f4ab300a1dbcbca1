"""Every rule of slurm_gov/core, broken: (name, file, exact text, replacement).

A text must be found exactly once in its file; where a rule is rewritten, its mutation is to be rewritten with it.
A name says what the core would do then.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One broken rule."""

    file: str
    name: str
    old: str
    new: str


def _in(file: str, *broken: tuple[str, str, str]) -> list[Mutation]:
    return [Mutation(f"slurm_gov/core/{file}.py", *one) for one in broken]


SHARES = _in(
    "shares",
    (
        "lend limits are ignored",
        "0 if lend is None else max(0, amount - lend)",
        "0",
    ),
    (
        "borrow limits are ignored",
        "            if quota is not None and quota.borrow is not None:\n                most",
        "            if False:\n                most",
    ),
    (
        "borrow limits are ignored where somebody keeps something for itself",
        "        if quota is not None and quota.borrow is not None:\n            most",
        "        if False:\n            most",
    ),
    (
        "what would be used less is not counted",
        "used = self.usage.get(resource, 0) - less",
        "used = self.usage.get(resource, 0)",
    ),
    (
        "what would be used less is not counted against a team's limit",
        " - holder.usage.get(resource, 0) + less\n",
        " - holder.usage.get(resource, 0)\n",
    ),
    (
        "what a cohort keeps for itself is given back to the others",
        "            less = max(0, used + less - kept) - max(0, used - kept)\n",
        "            pass\n",
    ),
    (
        "what was available is so for ever",
        "        self._spare.clear()\n        self._log.append",
        "        self._log.append",
    ),
    (
        "what was available in a trial is so after it",
        "        self._spare.clear()\n        for holders",
        "        for holders",
    ),
    (
        "what is kept is not looked at",
        "while holder.parent is not None and not holder.keeps_any:",
        "while holder.parent is not None:",
    ),
    (
        "a borrow limit does not count what is used",
        "self.subtree.get(resource, 0) + quota.borrow - (used if used > kept else kept)",
        "self.subtree.get(resource, 0) + quota.borrow - kept",
    ),
    (
        "what is kept is lost while others hold too much",
        "return kept - used + above if above > 0 else kept - used",
        "return kept - used + above",
    ),
    (
        "a team at its quota counts as over it",
        "if usage.get(resource, 0) > subtree.get(resource, 0):",
        "if usage.get(resource, 0) >= subtree.get(resource, 0):",
    ),
    (
        "a borrow limit does not bound what a team could ever hold",
        "return most if borrow is None else min(most, subtree + borrow)",
        "return most",
    ),
    (
        "weights are ignored",
        "else (False, ratio / self.weight)",
        "else (False, ratio)",
    ),
    (
        "weight 0 is not last",
        "(ratio > 0, ratio) if self.weight == 0",
        "(False, ratio) if self.weight == 0",
    ),
    (
        "unallocated capacity is always lent",
        "if policy.lend_unallocated else 0",
        "if True else 0",
    ),
    (
        "cohorts without a parent lend to one another",
        "replace(quota, lend=0)",
        "quota",
    ),
    (
        "the quotas of cohorts are not counted",
        "(*_quotas_of(policy.teams), *_quotas_of(policy.cohorts))",
        "(*_quotas_of(policy.teams),)",
    ),
    (
        "for what a team is only given its jobs must leave",
        "        if not given:\n            return self.is_over(resources)\n",
        "        if True:\n            return self.is_over(resources)\n",
    ),
    (
        "what a team was given in one plan is given for ever",
        "                team.given.clear()\n",
        "                pass\n",
    ),
    (
        "the last GPU of a quota is not the team's",
        "holder.usage.get(resource, 0) + amount > holder.quota(resource).nominal",
        "holder.usage.get(resource, 0) + amount >= holder.quota(resource).nominal",
    ),
    (
        "the last GPU that is idle is not lent",
        "amount > self.available(team, resource)",
        "amount >= self.available(team, resource)",
    ),
    (
        "what a team keeps for itself is taken from its cohort",
        "more -= kept_free",
        "pass",
    ),
    (
        "what a team keeps for itself is given back to its cohort",
        "less = above_kept",
        "pass",
    ),
    (
        "what was borrowed lately does not count",
        "one.past = gpus * 1000.0 / lendable / (one.weight or 1)",
        "pass",
    ),
    (
        "what cohorts borrowed lately does not count",
        "((self._teams, teams), (self._holders, cohorts))",
        "((self._teams, teams),)",
    ),
    (
        "what was borrowed lately is not divided by the weight",
        "gpus * 1000.0 / lendable / (one.weight or 1)",
        "gpus * 1000.0 / lendable",
    ),
    (
        "a team or cohort that takes what is its own waits for having borrowed",
        "return _NOT_BORROWING",
        "return self.past, False",
    ),
    (
        "what a team keeps for itself counts as its cohort's",
        "if holder.keeps_any and parent.parent is not None:",
        "if False:",
    ),
    (
        "a cohort that takes what is its own waits for having borrowed",
        "return share + self.past if share else share, without_weight",
        "return share + self.past, without_weight",
    ),
    (
        "what was borrowed lately is never forgotten",
        "            holder.past = 0.0\n",
        "            pass\n",
    ),
    (
        "a team is said to lend more than its limit",
        "unused if quota.lend is None else min(unused, quota.lend)",
        "unused",
    ),
    (
        "only the outermost cohort's share counts",
        "shares.reverse()",
        "del shares[:-1]",
    ),
    (
        "the team's share counts before its cohort's",
        "shares.reverse()",
        "pass",
    ),
    (
        "a trial leaves traces in the shares",
        "            for holder in holders:\n                holder.usage[resource] -= amount\n        del",
        "            pass\n        del",
    ),
)
CAPACITY = _in(
    "capacity",
    (
        "nodes of other partitions count as the pool's",
        "pool.tres in node.gpus and not set(pool.partitions).isdisjoint(node.partitions)",
        "pool.tres in node.gpus",
    ),
    (
        "what was borrowed lately counts too much",
        "seconds * log(2) / policy.half_life",
        "seconds / policy.half_life",
    ),
    (
        "sick nodes count as capacity",
        "[node for node in here if all_usable or node.usable]",
        "here",
    ),
)
CAPS = _in(
    "caps",
    (
        "a parent account's cap does not cover its children's",
        "caps[higher][tres] += amount",
        "pass",
    ),
    (
        "GPUs of no pool are capped",
        "            mine[tres] += amount",
        "            pass",
    ),
    (
        "the untyped cap is of one pool alone",
        "own[team].get(pool.untyped_tres, 0) + held[pool.name]",
        "held[pool.name]",
    ),
) + _in(
    "standings",
    (
        "a cap falls below the quota",
        "max(quotas[resource].nominal if resource in quotas else 0, will_hold(team, resource))",
        "will_hold(team, resource)",
    ),
    (
        "a cap is the quota, whatever is lent",
        "max(quotas[resource].nominal if resource in quotas else 0, will_hold(team, resource))",
        "quotas[resource].nominal if resource in quotas else 0",
    ),
    (
        "quotas above the capacity are not reported",
        "if quotas > capacity:",
        "if False:",
    ),
)
VICTIMS = _in(
    "victims",
    (
        "jobs that are ending already are preempted",
        "                if victim.ending:\n",
        "                if False:\n",
    ),
    (
        "who comes to be above its quota is the last to be preempted",
        "    insort(line, victim, key=_order)\n",
        "    line.append(victim)\n",
    ),
    (
        "nothing keeps a job from being preempted",
        "is not None:\n                    self.shielded",
        "is False:\n                    self.shielded",
    ),
    (
        "the highest priority goes first",
        "(*self.part, priority, -job.start, job.id)",
        "(*self.part, -priority, -job.start, job.id)",
    ),
    (
        "the longest running goes first",
        "(*self.part, priority, -job.start, job.id)",
        "(*self.part, priority, job.start, job.id)",
    ),
    (
        "of equal ones the lower id goes first",
        "(*self.part, priority, -job.start, job.id)",
        "(*self.part, priority, -job.start, -job.id)",
    ),
    (
        "jobs already leaving are not taken first",
        "self.part = (not self.leaving, not job.requeueable)",
        "self.part = (False, not job.requeueable)",
    ),
    (
        "jobs that cannot be requeued are not taken last",
        "self.part = (not self.leaving, not job.requeueable)",
        "self.part = (not self.leaving, False)",
    ),
    (
        "equal priority within the team is taken",
        "if victim.priority < preemptor.priority:",
        "if victim.priority <= preemptor.priority:",
    ),
    (
        "older jobs of equal priority are taken",
        "victim.job.submit > preemptor.submit",
        "victim.job.submit < preemptor.submit",
    ),
    (
        "preempt_within_team: never is ignored",
        "if rule is WithinTeam.NEVER:\n        return []",
        "if False:\n        return []",
    ),
    (
        "reclaim: lower_priority takes equal ones",
        "(lower_only and victim.priority >= preemptor.priority)",
        "(lower_only and victim.priority > preemptor.priority)",
    ),
    (
        "reclaim: never takes back all the same",
        "here.above() if own.reclaim is not Reclaim.NEVER else ()",
        "here.above()",
    ),
    (
        "a team is taken from until nothing is left",
        "if not _still_over_quota(working.shares, candidate, preemptor):",
        "if False:",
    ),
    (
        "only the victim's team must be over its quota, not its cohorts",
        "            return False\n        holder = holder.parent\n    return True",
        "            return False\n        holder = None\n    return True",
    ),
    (
        "whoever turned out not to be needed leaves too",
        "        if not fits():\n            working.remove(candidate.victim)\n            needed.append",
        "        if True:\n            working.remove(candidate.victim)\n            needed.append",
    ),
    (
        "a search leaves those away whom it found",
        "                    working.put_back(one.victim)\n                as_it_was()",
        "                    pass\n                as_it_was()",
    ),
    (
        "the first victims are never put back",
        "for candidate in reversed(taken[:-1]):",
        "for candidate in reversed(taken[1:-1]):",
    ),
    (
        "borrowing is tried before staying within quota",
        "return (False, True)",
        "return (True, False)",
    ),
    (
        "borrow_preempts has no highest priority",
        "victim.priority > rule.max_priority:",
        "False:",
    ),
    (
        "borrow_preempts leaves out the highest priority",
        "victim.priority > rule.max_priority:",
        "victim.priority >= rule.max_priority:",
    ),
    (
        "borrow_preempts takes equal priority",
        "if rule is None or victim.priority >= preemptor.priority:",
        "if rule is None or victim.priority > preemptor.priority:",
    ),
    (
        "priority is no cost",
        "priority = max(priority, victim.priority)",
        "pass",
    ),
    (
        "a checkpoint is no gain",
        "now - job.kept)",
        "now - job.start)",
    ),
    (
        "GPUs are no cost",
        "work += victim.gpus * max(0.0,",
        "work += max(0.0,",
    ),
    (
        "those who leave already cost something",
        "        if not victim.leaving:\n            kept",
        "        if True:\n            kept",
    ),
    (
        "what is lent is not cheaper than one's own",
        "            own += candidate.claim is Claim.WITHIN_TEAM\n",
        "",
    ),
    (
        "victims: cheapest is in_order",
        "return by_node if by_node is not None and cost(by_node, now) < least else by_order",
        "return by_order",
    ),
    (
        "victims: in_order is cheapest",
        "by_order is None or policy.preemption.victims is Victims.IN_ORDER or not",
        "by_order is None or not",
    ),
    (
        "a team at its quota takes what it has no advantage for",
        "if holder.usage.get(resource, 0) >= holder.quota(resource).nominal:\n"
        "            return False\n    return True",
        "if holder.usage.get(resource, 0) > holder.quota(resource).nominal:\n"
        "            return False\n    return True",
    ),
    (
        "a cohort's quota gives no advantage",
        "advantage = advantage or fits",
        "pass",
    ),
    (
        "what is a cohort's is not worth a search",
        "        else:\n            return True\n        if cohort.parent is None",
        "        if cohort.parent is None",
    ),
    (
        "what a cohort keeps for itself is asked of the one above it",
        "        if here.keeps_any:\n            amounts",
        "        if False:\n            amounts",
    ),
    (
        "who has left for a job is asked to leave for it again",
        "    return at is not None and (at >= preemptor.submit or at <= preemptor.left)",
        "    return False",
    ),
    (
        "who left for a job is not asked by it when it waits anew",
        "at is not None and (at >= preemptor.submit or at <= preemptor.left)",
        "at is not None",
    ),
    (
        "who left for a job leaves for it again when that has left itself",
        " or at <= preemptor.left)",
        ")",
    ),
    (
        "jobs with candidates of their own count as the same",
        "or self._some_left or not self._same_for_others()",
        "or not self._same_for_others()",
    ),
)
FAIRNESS = _in(
    "fairness",
    (
        "final_share leaves equal shares alone",
        "return mine <= after",
        "return mine < after",
    ),
    (
        "final_share looks at the share before the loss",
        "return mine <= after",
        "return mine <= before",
    ),
    (
        "initial_share takes from equal shares",
        "return mine < before",
        "return mine <= before",
    ),
    (
        "the smallest share is taken from",
        "share > largest or",
        "share < largest or",
    ),
    (
        "within its quota a team goes by shares",
        "if target is self.own or self.within_quota:",
        "if target is self.own:",
    ),
    (
        "a team is taken from on and on",
        "break  # the shares have changed: another team's may be the largest now",
        "pass",
    ),
    (
        "the second rule is never tried",
        "hunt.run(first) or (second is not None and hunt.run_again(second))",
        "hunt.run(first)",
    ),
    (
        "whoever borrows nothing is taken from",
        "or not (child.holds_too_much(self.contested) or child in self.own_side)",
        "or False",
    ),
    (
        "whoever borrows anything is taken from",
        "or not (child.holds_too_much(self.contested) or child in self.own_side)",
        "or not (child.holds_too_much(child.usage) or child in self.own_side)",
    ),
    (
        "of equal shares a team goes before a cohort",
        "if not child.is_team:\n            return True",
        "if not child.is_team:\n            return False",
    ),
    (
        "its own job does not count in the share",
        "self.shares.add(preemptor.team, preemptor.amounts)",
        "pass",
    ),
)
ROOM = _in(
    "room",
    (
        "nodes that are not usable are room",
        "    return node.usable if not request.reservations else",
        "    return True if not request.reservations else",
    ),
    (
        "exclusive jobs share their nodes",
        " and not (exclusive and free.jobs > 0):\n                chosen",
        ":\n                chosen",
    ),
    (
        "exclusive jobs that are spread share their nodes",
        "if request.exclusive and free.jobs > 0:",
        "if False:",
    ),
    (
        "exclusive jobs take only what they ask for",
        "    if request.exclusive:\n        return Held(",
        "    if False:\n        return Held(",
    ),
    (
        "who needs certain nodes needs no GPUs there",
        "        if any(free.gpus.get(tres, 0) < each for free in first):\n            return None\n",
        "",
    ),
    (
        "CPUs do not count",
        "if free.cpus >= cpus and ",
        "if ",
    ),
    (
        "memory does not count",
        " and free.memory >= memory and",
        " and",
    ),
    (
        "memory of a spread job does not count",
        "cpus if free.memory >= request.memory_per_node else 0",
        "cpus",
    ),
    (
        "memory per CPU does not count",
        "cpus = min(cpus, free.memory // request.memory_per_cpu)",
        "pass",
    ),
    (
        "CPUs of a spread job do not count",
        "most = min(most, max(0, cpus) * total // request.cpus)",
        "pass",
    ),
    (
        "a task's GPUs may be torn apart",
        "return most - most % max(1, request.gpus_per_task)",
        "return most",
    ),
    (
        "a spread job has fewer nodes than it asks for",
        "missing - unit * max(0, count - len(chosen) - 1)",
        "missing",
    ),
    (
        "excluded nodes are used",
        "apart = request.excluded_nodes | request.required_nodes",
        "apart = request.required_nodes",
    ),
    (
        "features do not count",
        "(partition in node.partitions and request.may_use(node) and",
        "(partition in node.partitions and",
    ),
    (
        "required nodes are not needed",
        "first = [self._free[name] for name in sorted(request.required_nodes)]",
        "first = []",
    ),
    (
        "required nodes that are full are left out",
        "            elif len(chosen) < len(first):\n                return None\n",
        "",
    ),
    (
        "required nodes replace no others",
        "count = max(request.min_nodes, len(request.required_nodes))",
        "count = request.min_nodes + len(request.required_nodes)",
    ),
    (
        "what is promised later counts as free now",
        "{tres: amount for tres, amount in gpus.items() if amount > 0},",
        "{},",
    ),
    (
        "a trial leaves traces in the room",
        "self._free[held.node].change(held, -sign, -jobs)",
        "pass",
    ),
    (
        "any number of nodes will do",
        "if chosen is not None and 0 < request.max_nodes < len(chosen):",
        "if False:",
    ),
    (
        "the fewest nodes are those with the most free GPUs",
        "(-_most(request, tres, self._all[one]), one)",
        "(-self._all[one].free(tres), one)",
    ),
    (
        "a node gives more than its tasks may have",
        "request.most_per_node or total",
        "total",
    ),
    (
        "a job of a reservation may use other nodes",
        " else not node.reserved.isdisjoint(request.reservations)",
        " else node.usable or not node.reserved.isdisjoint(request.reservations)",
    ),
    (
        "required nodes may be another's reservation",
        " and self._open(request, free.node) for free in first",
        " for free in first",
    ),
    (
        "reserved nodes are not there for their own jobs",
        "all_usable or node.usable or node.reserved)",
        "all_usable or node.usable)",
    ),
    (
        "requests of several reservations are the same",
        "request.features, request.any_features, request.reservations)",
        "request.features, request.any_features)",
    ),
    (
        "a request with other features is no harder",
        "(not request.any_features or request.any_features == other.any_features)",
        "True",
    ),
    (
        "what a request of CPUs takes is still free",
        "            levels.move(number, self.cpus, cpus)\n",
        "            pass\n",
    ),
    (
        "a job of CPUs holds GPUs",
        "{} if tres == CPU else {tres: gpus}",
        "{tres: gpus}",
    ),
)
OWED = _in(
    "owed",
    (
        "something is owed for who was spared",
        " for job in left if job.mark is not None and not job.mark.spared]",
        " for job in left if job.mark is not None]",
    ),
    (
        "what was given up is owed to who was requeued meanwhile",
        "        if job is None or job.comes_last or mark.since < job.submit - MARGIN:\n",
        "        if job is None or job.comes_last:\n",
    ),
    (
        "who may start again waits for an array",
        "        if id(mark) in free and (job.tasks > 1 or _array(job.display_id) != job.display_id):\n",
        "        if False:\n",
    ),
    (
        "who may start again waits for nobody",
        "        if id(mark) in free and (job.tasks > 1 or _array(job.display_id) != job.display_id):\n",
        "        if id(mark) in free:\n",
    ),
    (
        "the last task of an array is no task",
        "        if id(mark) in free and (job.tasks > 1 or _array(job.display_id) != job.display_id):\n",
        "        if id(mark) in free and job.tasks > 1:\n",
    ),
    (
        "who stands behind another waits to begin",
        '    return job.slurm_reason == "BeginTime" and job.behind is None\n',
        '    return job.slurm_reason == "BeginTime"\n',
    ),
    (
        "an array is owed until all its tasks have started",
        "        if starts:\n            starts.pop(0)\n        else:\n            found.append(mark)\n",
        "        found.append(mark)\n",
    ),
    (
        "one task that has started settles all that is owed to its array",
        "        if starts:\n            starts.pop(0)\n        else:\n",
        "        if not starts:\n",
    ),
    (
        "a task that ran before settles what is owed to its array",
        "        while starts and starts[0] <= mark.since + MARGIN:\n            starts.pop(0)\n",
        "",
    ),
    (
        "what was given up last is settled first",
        "    for mark in sorted(marks, key=lambda mark: mark.since):\n",
        "    for mark in sorted(marks, key=lambda mark: -mark.since):\n",
    ),
    (
        "a job of the array's number is a task of it",
        "        if array in arrays and array != one.display_id:\n",
        "        if array in arrays:\n",
    ),
    (
        "who left waits for one that Slurm does not start",
        "if job is None or job.comes_last or",
        "if job is None or",
    ),
)
AHEAD = _in(
    "ahead",
    (
        "a large want is one for ever",
        "    if known is None or known[0] is not wants:",
        "    if known is None:",
    ),
    (
        "an array of which a task has its place steps back",
        "            next_one = batch.index if batch.first.outcome is None else batch.index + 1\n",
        "            next_one = batch.index\n",
    ),
    (
        "who cannot run now whatever ends is waited for",
        "wish.place < head.place) and held.could_run(batch.form):",
        "wish.place < head.place):",
    ),
    (
        "who has waited for long is not found",
        "if batch.oldest > since or",
        "if batch.oldest <= since or",
    ),
    (
        "nobody may go before who waits for its quota",
        "start = _earliest(first.room, first.amounts, running) if first.room is not None else 0.0",
        "start = 0.0",
    ),
    (
        "jobs step back behind one that its quota could never hold",
        "if any(amount > quotas[resource] for resource, amount in amounts.items()):",
        "if False:",
    ),
    (
        "jobs step back behind one for what it asks no more of than those that run hold",
        "> quotas[resource] for resource in more):",
        "> quotas[resource] for resource in amounts):",
    ),
    (
        "jobs step back behind one that is no larger than those that run",
        "if amount > largest.get(resource, 0)]",
        "if amount > 0]",
    ),
    (
        "jobs step back behind one for which there is room",
        "elif any(usage.get(resource, 0) + amounts[resource] > quotas[resource] for resource in more):",
        "else:",
    ),
    (
        "jobs step back behind one that has not waited long",
        "wish = next(one for one in batch.wishes if one.job.submit <= since)",
        "wish = batch.wishes[0]",
    ),
    (
        "the head of the line is not the first that waited long",
        "if (head is None or wish.place < head.place) and",
        "if",
    ),
    (
        "who is gone in time steps back too",
        "    return limit is None or now + limit > time",
        "    return True",
    ),
    (
        "who runs without a limit will be gone in time",
        "    return limit is None or now + limit > time",
        "    return limit is not None and now + limit > time",
    ),
    (
        "the earliest start is that of the first job's end",
        "if all(amount <= 0 for amount in left.values()):",
        "if True:",
    ),
    (
        "jobs without a time limit end at once",
        "if one.job.time_limit else inf",
        "if one.job.time_limit else 0",
    ),
    (
        "jobs step back though the cap is in nobody's way",
        "    if not blocked:\n        return {}\n",
        "",
    ),
    (
        "who could not start anyway steps back",
        "if batch.failed and all(n <= soon.get(r, n) for r, n in batch.amounts.items()):",
        "if batch.failed:",
    ),
    (
        "only what is free now is kept for who waited long",
        "    soon = {} if first is head else",
        "    soon = {} if False else",
    ),
    (
        "only what is free now is kept for whom others leave",
        "n + leaves.get(resource, 0) for resource, n in free.items()",
        "n for resource, n in free.items()",
    ),
    (
        "earlier jobs step back",
        "bisect_right(batch.wishes, first.place, next_one, key=_place)",
        "batch.index",
    ),
    (
        "too many step back behind one",
        "            if len(later) + len(batch.wishes) - begin > MOST_BEHIND:\n                return {}\n",
        "",
    ),
    (
        "a job larger than the quota is overtaken",
        "            if want not in large:\n",
        "            if want not in large:\n                continue\n            if False:\n",
    ),
    (
        "jobs step back behind one that waits for other teams",
        "if all(n <= alone[r] for r, n in want.amounts.items()) and",
        "if",
    ),
    (
        "a team's own jobs are not what is in the way",
        "max(shares.available(team, r, holder.usage.get(r, 0)), ",
        "max(shares.available(team, r), ",
    ),
    (
        "jobs within the quota step back where the cap helps",
        " and any(n > beside[r] for r, n in want.amounts.items())",
        "",
    ),
    (
        "what is large is so whatever else comes to wait",
        "if known is not None and known[0].keys() == wants.keys():",
        "if known is not None:",
    ),
    (
        "jobs step back behind one that other teams' jobs keep from its nodes",
        "elif room is not None and _fits_alone(held, team, batch.form, fits):",
        "elif room is not None:",
    ),
    (
        "the nodes of its own team's jobs are not free for it",
        "                held.later.give(one.job.held)\n",
        "                pass\n",
    ),
    (
        "what ends already makes room at its time limit",
        "stays = [one for one in running if not one.ending]",
        "stays = list(running)",
    ),
)
PLAN = _in(
    "plan",
    (
        "owners are not served first",
        "                self._serve_owner(batch)\n            # What",
        "                pass\n            # What",
    ),
    (
        "nobody borrows",
        "        self._serve_borrowers()\n",
        "",
    ),
    (
        "the line is not updated after a start",
        "self.line.update(batch.team)",
        "pass",
    ),
    (
        "who is preempted already is still in line",
        "self.line.leave(victim)",
        "pass",
    ),
    (
        "who comes within its quota when others have left borrows",
        "        return batch.team in self.lost and self._within(batch)\n",
        "        return False\n",
    ),
    (
        "who comes within its quota has no turn",
        "                or (batch.team in lost and self._comes_within(batch))\n",
        "",
    ),
    (
        "what leaves frees nothing",
        "        self.freed += 1\n",
        "        pass\n",
    ),
    (
        "room that was found full is full for ever",
        "if self.full_later.get(form) == self.freed:",
        "if form in self.full_later:",
    ),
    (
        "a start counts for nobody",
        "self.shares.give(batch.team, batch.amounts)",
        "pass",
    ),
    (
        "nodes are promised twice",
        "        self.later.take(held)\n        if outcome",
        "        if outcome",
    ),
    (
        "nodes are given twice",
        "            self.now.take(held)\n            if batch.first",
        "            if batch.first",
    ),
    (
        "a start leaves the rest of what is free alone",
        "self.now.no_more_than(self.later, held)",
        "pass",
    ),
    (
        "jobs that are ending are waited for, for ever",
        "        for job in held.ending():\n",
        "        for job in ():\n",
    ),
    (
        "what one's own victims leave goes to another that the quota covers",
        "                if covers and self.shares.within_quota(other.team, other.amounts):\n",
        "                if False:\n",
    ),
    (
        "all of an array are within the quota if one is",
        " or not (may_borrow or self.shares.within_quota(other.team, other.amounts)):",
        ":",
    ),
    (
        "the place of others' victims goes to who is ahead",
        "            if not own and not borrows:\n",
        "            if not own:\n",
    ),
    (
        "what others leave for a quota must be for one job of it",
        "            if not own and not borrows:\n",
        "            if False:\n",
    ),
    (
        "the place of one's own victims goes to who is ahead",
        "if chosen is None or self._others_would_take_it(batch, chosen):",
        "if chosen is None:",
    ),
    (
        "borrowed places go on to the next team although shares changed",
        "            if changes == self.changes:\n                self._serve_borrower(first)",
        "            if True:\n                self._serve_borrower(first)",
    ),
    (
        "shares of a place in line are not looked at again",
        "        if ask.changes != self.changes:\n            ask.forget(self.changes)\n        return ask\n",
        "        return ask\n",
    ),
    (
        "first_come is fair_share",
        "if self.policy.idle is Idle.FIRST_COME:",
        "if False:",
    ),
    (
        "protection begins at once",
        "if not ask.allowed and batch.since <= self.long_ago:",
        "if not ask.allowed and self.policy.protect_after is not None:",
    ),
    (
        "jobs are protected that could never borrow so much",
        "if all(borrow is None or n <= borrow for borrow, n in borrowed) and",
        "if",
    ),
    (
        "nobody is spared again",
        "                for job in self.holdings.being_preempted()\n",
        "                for job in ()\n",
    ),
    (
        "people are preempted for what nobody can judge",
        "        if kind.takes_nobody:\n            return None",
        "        if False:\n            return None",
    ),
    (
        "a job preempts where its limits forbid it to run",
        "allowed or self.shares.within_quota(batch.team, amounts) or self.shares.fits(batch.team, amounts)",
        "True",
    ),
    (
        "a job preempts where no nodes come of it",
        "lacks_nodes = not batch.form.fits(self.later)",
        "lacks_nodes = False",
    ),
    (
        "whom one waits for is said of nodes that another has taken since",
        "if before is not held:",
        "if not names:",
    ),
    (
        "a team's standing in its quota is not looked at again",
        "ask.holder is not holder or ask.version != holder.version:",
        "ask.holder is not holder:",
    ),
    (
        "a team that lost a job is no owner again in this cycle",
        "            self.losers.add(victim.team)\n",
        "            pass\n",
    ),
    (
        "what is not there yet is lent",
        "        elif (held := self._place_later(ask.form)) is not None:\n            # Only",
        "        elif (held := None) is not None:\n            # Only",
    ),
    (
        "what is at hand now is looked up once",
        "        if changes != self.changes and held is not None:",
        "        if changes < 0:",
    ),
    (
        "what a team may still take is looked up once",
        "        self.available.clear()\n",
        "",
    ),
    (
        "who may have no victims has none for ever",
        "if freed == self.freed and _at_least(",
        "if freed >= 0 and _at_least(",
    ),
    (
        "who has none for little may have none for less",
        "if freed == self.freed and _at_least(amounts, least):",
        "if freed == self.freed:",
    ),
    (
        "why a team may hold no more is said once and for all",
        "        if version != holder.version:\n",
        "        if version < 0:\n",
    ),
    (
        "what fits now is looked at once and for all",
        "        if ask.changes != self.changes:\n            ask.forget(self.changes)\n        if ask.outcome",
        "        if ask.outcome",
    ),
    (
        "own jobs of a lower class are not worth a search",
        "        if self._own_that_may_leave(batch) and not",
        "        if False and not",
    ),
    (
        "own jobs are worth a search only if they are enough for the limits",
        "        return allowed or within\n",
        "        return allowed\n",
    ),
    (
        "others are not worth a search at one's turn",
        "        if self._may_take_others(batch):\n            return True\n        own, holder",
        "        own, holder",
    ),
    (
        "what an ask gets is not looked at again before its turn",
        "            if ask.changes != changes:\n                ask.forget(changes)\n",
        "",
    ),
    (
        "who asks for another pool is behind the job of this one",
        "            if batch.line != line:\n",
        "            if False:\n",
    ),
    (
        "who has started stands in line where it stood",
        "            if batch.place is not place:",
        "            if False:",
    ),
    (
        "what leaves changes nothing",
        "        self.freed += 1\n        self.changes = next(self._changed)\n",
        "        self.freed += 1\n",
    ),
    (
        "what will be free is looked at once and for all",
        "        if changes != self.changes:\n            held = form.place(self.later)",
        "        if changes < 0:\n            held = form.place(self.later)",
    ),
    (
        "cycles take one another's changes for their own",
        "        self.changes = next(self._changed)\n        self.available:",
        "        self.changes = 0\n        self.available:",
    ),
    (
        "where teams stand is told of how it will be",
        "        self.shares.undo(0)  # who",
        "        # who",
    ),
    (
        "own jobs are taken for a job behind an easier one",
        "take_own = not self._an_easier_one_waits(batch)",
        "take_own = True",
    ),
    (
        "owners beyond their quota are served first",
        "while wish.tasks and self._within(batch):",
        "while wish.tasks:",
    ),
    (
        "what is promised is in the cap already",
        "        return self.shares_now.usage(team, resource) - self.leaves.get((team, resource), 0)",
        "        return self.shares.usage(team, resource)",
    ),
    (
        "a cap counts those who must leave",
        "self.shares_now.usage(team, resource) - self.leaves.get((team, resource), 0)",
        "self.shares_now.usage(team, resource)",
    ),
    (
        "borrowers start on the credit of those who have yet to leave",
        "        return not self.preempt or self.shares_now.fits(batch.team, batch.amounts)",
        "        return True",
    ),
    (
        "who is owed a place stands in line with the others",
        "        for batch in owed:\n            if self._is_owed(batch)",
        "        for batch in ():\n            if self._is_owed(batch)",
    ),
    (
        "others borrow ahead of one for which somebody has just left",
        "            if batch.first.job.id in self.left_for:\n",
        "            if False:\n",
    ),
    (
        "nobody borrows while one for which somebody has just left has not started",
        "            if batch.place < place and any(self._may_use(",
        "            if any(self._may_use(",
    ),
    (
        "nobody borrows ahead of it, wherever its nodes are",
        " and any(self._may_use(batch.form, one.node) for one in held):",
        ":",
    ),
    (
        "nobody borrows ahead of one for which somebody left, for ever",
        " if self.snapshot.now - mark.deadline < SETTLING}",
        "}",
    ),
    (
        "who is owed a place waits for another that is",
        "        if self._is_owed(batch):\n            return None\n",
        "",
    ),
    (
        "what was owed to one is owed to the next of its kind",
        "            if self._is_owed(batch) and not self._waits_behind(batch):\n",
        "            if not batch.done and not self._waits_behind(batch):\n",
    ),
    (
        "later jobs of the team within the quota go before who is owed a place",
        "        for batch in filter(self._will_be_within_quota, owed):\n",
        "        for batch in ():\n",
    ),
    (
        "all of the team within the quota go behind who is owed a place",
        "if self._is_owed(one) and one.place < place and not self._waits_behind(one):",
        "if self._is_owed(one) and not self._waits_behind(one):",
    ),
    (
        "who is owed a place goes before its team's quota though it will still borrow",
        "        return all(holder.usage.get(one, 0) + n <= holder.quota(one).nominal for one, n in more.items())\n",
        "        return True\n",
    ),
    (
        "who is owed a place is within the quota only when all is there",
        "                    more[resource] -= victim.use.get(resource, 0)\n",
        "                    pass\n",
    ),
    (
        "nothing is kept for who is owed a place",
        "        if not ask.allowed or ask.held is not None or (held := self._place_later(batch.form)) is None:\n",
        "        if (held := self._place_later(batch.form)) or True:\n",
    ),
    (
        "others would take the place of one's own victims though there is room for both",
        "                    if self._would_start(batch) is None:\n",
        "                    if True:\n",
    ),
    (
        "only one task of others is thought of",
        "                while tasks:\n                    held = self._would_start(other)",
        "                if tasks:\n                    held = self._would_start(other)",
    ),
    (
        "others behind it would take the place of one's own victims",
        "                    before = bisect_left(other.wishes, batch.place, key=_place)\n",
        "                    before = len(other.wishes)\n",
    ),
    (
        "others are not thought of in line",
        "for may_borrow, _, wish, other in sorted(first, key=lambda one: one[:2]):\n",
        "for may_borrow, _, wish, other in first:\n",
    ),
    (
        "who waits in one pool is waited for in all",
        "        head = self.protected.get(batch.line)\n",
        "        head = next((one for (team, _), one in self.protected.items() if team == batch.team), None)\n",
    ),
    (
        "those of other pools step back as well",
        "            batches = [one for one in self.queue.of_team.get(team, {}).values() if one.line[1] == pool]\n",
        "            batches = list(self.queue.of_team.get(team, {}).values())\n",
    ),
    (
        "who borrows and whose nodes are away is waited for",
        "for borrow, n in borrowed) and self.holdings.could_run(batch.form):",
        "for borrow, n in borrowed):",
    ),
    (
        "others would take the place of one's own victims beyond all limits",
        "or self.shares.fits(batch.team, batch.amounts):\n            return batch.form.place(self.later)",
        "or True:\n            return batch.form.place(self.later)",
    ),
    (
        "those that are leaving are not owed to anybody",
        "            left += [job for job in jobs if job.being_preempted]",
        "            pass",
    ),
    (
        "who is ahead of who is owed a place is owed it as well",
        "return not batch.done and batch.first.job.id in self.owed",
        "return not batch.done and any(job.id in self.owed for job in batch.jobs)",
    ),
    (
        "who was spared has left, and is not left for again",
        "left = -inf if job.mark is None or job.mark.spared else job.mark.since",
        "left = -inf if job.mark is None else job.mark.since",
    ),
    (
        "who left for a job before that left itself leaves for it when it waits anew",
        "left = -inf if job.mark is None or job.mark.spared else job.mark.since",
        "left = -inf",
    ),
    (
        "for a task of an array that was requeued a job may leave twice",
        'job.tasks > 1 or (job.mark is None and job.display_id.startswith(f"{job.id}_"))',
        'job.tasks > 1 or (job.mark is None and "_" in job.display_id)',
    ),
    (
        "for the last task of an array that was requeued a job may leave twice",
        'job.tasks > 1 or (job.mark is None and job.display_id.startswith(f"{job.id}_"))',
        'job.tasks > 1 or job.display_id.startswith(f"{job.id}_")',
    ),
    (
        "one job of an array had its victims, so none has any more",
        "started = self._last_start_of(job) if many and job.id in self.line.left_for else -inf",
        "started = -inf",
    ),
    (
        "for an array a job leaves again and again",
        "started = self._last_start_of(job) if many and job.id in self.line.left_for else -inf",
        "started = inf if many else -inf",
    ),
    (
        "for an array a job leaves again when one of another has started",
        "if one.job.display_id.startswith(tasks))",
        "if one.job.display_id)",
    ),
    (
        "jobs that waited long are overtaken within the quota",
        "            if not self._waits_behind(batch):\n                self._serve_owner",
        "            if True:\n                self._serve_owner",
    ),
    (
        "earlier jobs wait behind a later one",
        "if head is None or batch.place <= head.place:",
        "if head is None:",
    ),
    (
        "who others leave for may be overtaken by its own team",
        "            self.promised.setdefault(batch.line, []).append(promise)",
        "            pass",
    ),
    (
        "too many step back in all teams together",
        "            if len(found) + len(more) > ahead.MOST_IN_ALL:\n                break\n",
        "",
    ),
    (
        "who waited longest does not come first when few may step back",
        "sorted(waits, key=lambda place: (waits[place], place))",
        "sorted(waits)",
    ),
    (
        "what Slurm does not start is never tried",
        "        self._serve_last()\n",
        "        for batch in self.queue.last_in_line():\n"
        '            self._fail(batch, (Reason.NOT_STARTED, "", ()))\n',
    ),
    (
        "what comes last is under no limit",
        "if held is not None and (within or (self._allowed(batch) and self._allowed_now(batch))):",
        "if held is not None:",
    ),
    (
        "what comes last is not within its quota",
        "(within or (self._allowed(batch)",
        "((self._allowed(batch)",
    ),
    (
        "only the nodes of one component are looked at",
        "for one in form.parts for partition in one.partitions)",
        "for one in form.parts[:1] for partition in one.partitions)",
    ),
    (
        "nothing is owed for who has ended",
        "for jobs in (self.snapshot.ended, self.holdings.being_preempted()):",
        "for jobs in (self.holdings.being_preempted(),):",
    ),
)
DEMAND = _in(
    "demand",
    (
        "exclusive jobs count for what they ask",
        "        if form.request.exclusive:\n",
        "        if False:\n",
    ),
    (
        "what a team could just hold is refused",
        "            if amount > most:\n",
        "            if amount >= most:\n",
    ),
    (
        "what no node could give is waited for",
        "if not form.fits_empty:",
        "if False:",
    ),
    (
        "partitions of no pool are used",
        "mine = tuple(one for one in partitions if one in pool.partitions)",
        "mine = partitions",
    ),
    (
        "jobs of two classes are one kind",
        "            job.qos,\n",
        "",
    ),
) + _in(
    "shields",
    (
        "protected classes are preempted",
        "if of_class is not None and of_class.protected:",
        "if False:",
    ),
    (
        "min_runtime is ignored",
        "if least and max(0.0, now - job.start) < least:",
        "if False:",
    ),
    (
        "min_runtime is a moment too long",
        "max(0.0, now - job.start) < least",
        "max(0.0, now - job.start) <= least",
    ),
    (
        "max_preemptions allows one more",
        "len(job.preempted) >= most.count",
        "len(job.preempted) > most.count",
    ),
    (
        "max_preemptions holds for ever",
        "        if until > now:\n",
        "        if True:\n",
    ),
    (
        "the shorter of two minimum run times holds",
        "return max(own or 0.0, theirs or 0.0)",
        "return min(own or 0.0, theirs or 0.0)",
    ),
    (
        "jobs that cannot be requeued are preempted",
        "if not (job.requeueable or rules.cancel_unrequeueable):",
        "if False:",
    ),
    (
        "a grace period is broken off by min_runtime",
        "    if job.being_preempted:\n        return None\n",
        "",
    ),
    (
        "a class that is protected is not asked about",
        "        or (of_class is not None and of_class.protected)\n",
        "",
    ),
    (
        "jobs that were told to leave are not asked about",
        "        or job.mark is not None\n",
        "",
    ),
    (
        "how long a job runs is not asked about",
        "        or min_runtime(policy, team, job.qos) > 0\n",
        "",
    ),
    (
        "how often a job was preempted is not asked about",
        "        or (rules.max_preemptions is not None and len(job.preempted) > 0)\n",
        "",
    ),
    (
        "jobs that cannot be requeued are not asked about",
        "        not (job.requeueable or rules.cancel_unrequeueable)\n        or",
        "        False\n        or",
    ),
    (
        "who was spared is told to leave again at once",
        "if job.was_spared and job.mark is not None and job.mark.deadline > now:",
        "if False:",
    ),
)
QUEUE = _in(
    "queue",
    (
        "jobs that are no demand are served",
        '            self.outcome = (Reason.NOT_READY, "{}", (job.held_back,))\n',
        "            pass\n",
    ),
    (
        "the lowest priority is served first",
        "return -job.priority, job.id",
        "return job.priority, job.id",
    ),
    (
        "of equal priorities the last job is served first",
        "return -job.priority, job.id",
        "return -job.priority, -job.id",
    ),
    (
        "an array has one task",
        "        wish.tasks -= 1\n",
        "        wish.tasks = 0\n",
    ),
    (
        "who started in an earlier cycle is not looked at anew",
        "                self._begun.append(batch)\n",
        "",
    ),
    (
        "what started in an earlier cycle has started",
        "            wish.tasks, wish.outcome = wish.job.tasks, None\n",
        "            pass\n",
    ),
    (
        "what failed in an earlier cycle fails for ever",
        "            batch.done = False\n            if batch.begun:",
        "            if batch.begun:",
    ),
    (
        "what failed as in the cycle before fails for ever",
        "                    batch.done = False\n",
        "                    pass\n",
    ),
    (
        "jobs that are gone wait on",
        "            done = here + 1\n",
        "            done = here\n",
    ),
    (
        "jobs that are gone are served",
        "[wish for wish in batch.wishes if not wish.gone]",
        "batch.wishes",
    ),
    (
        "who waits is not in Slurm's order",
        "for wish in sorted([*gone, *came], key=_place):",
        "for wish in [*gone, *came]:",
    ),
    (
        "who comes stands at the head of the line",
        "                line.append(wish.job)\n",
        "                line.insert(0, wish.job)\n",
    ),
    (
        "jobs of a kind are not in Slurm's order",
        "        self.wishes.sort(key=_place)\n",
        "        pass\n",
    ),
    (
        "what waits is counted once and for all",
        "in {batch.team for batch in changed}:",
        "in {batch.team for batch in changed} - self.tasks.keys():",
    ),
    (
        "who starts in one cycle is told so for ever",
        "if said is None or batch.told is not outcome:",
        "if said is None:",
    ),
    (
        "newcomers are told nothing",
        "        self.said = None\n        self._look_at(0)",
        "        self._look_at(0)",
    ),
    (
        "who left for others and waits no longer is remembered",
        "            self.marked.discard(wish)\n",
        "",
    ),
    (
        "what a team wants at least is the most",
        "min([amounts[resource] for amounts in smallest])",
        "max([amounts[resource] for amounts in smallest])",
    ),
    (
        "the last in line are served first",
        "key=itemgetter(0), reverse=True)",
        "key=itemgetter(0))",
    ),
    (
        "who has started is put before the others in line",
        "    return -place, -id\n",
        "    return place, id\n",
    ),
    (
        "who is far off in line is put near by",
        "if near < len(old) and _place_of(old[near]) > wish.place",
        "if near < len(old)",
    ),
    (
        "what is no demand and waits no longer is told on",
        "                del self._apart[wish]\n",
        "                pass\n",
    ),
    (
        "what comes last is not asked for",
        "        last = [(batch.want, batch.tasks) for batch in self.last.get(team, {}).values()]\n",
        "        last: list[tuple[Want, int]] = []\n",
    ),
    (
        "a het job's components are not told how it is decided",
        "_verdict(wish.kind, whole.outcome or of_all, [wish.job])",
        "_verdict(wish.kind, of_all, [wish.job])",
    ),
)
MEMORY = _in(
    "memory",
    (
        "what a team's large wants are is remembered when its jobs change",
        "        self.large.pop(team, None)\n",
        "",
    ),
    (
        "own jobs of lower classes hold nothing",
        "                if weight < priority or (equal and weight == priority):",
        "                if equal and weight == priority:",
    ),
    (
        "who was told to leave and is gone is asked about",
        "            self._marked.pop(job.id, None)\n",
        "            pass\n",
    ),
    (
        "who was told to leave is not known",
        "            if job.mark is not None:\n                self._marked",
        "            if False:\n                self._marked",
    ),
    (
        "what jobs are to an old policy is remembered",
        "            policy is self._policy\n",
        "            True\n",
    ),
    (
        "what jobs are to old accounts is remembered",
        "            and snapshot.parents == self._parents\n",
        "",
    ),
    (
        "what jobs are to old nodes is remembered",
        "            and _same(_what, snapshot.nodes, self._nodes)\n",
        "",
    ),
    (
        "a running job that changed is as it was",
        "left, new = differences(self._running, snapshot.running, known)",
        "left, new = differences(self._running[:-1], snapshot.running, known)",
    ),
    (
        "nodes with other GPUs are the same",
        '_what = attrgetter("name", "partitions", "gpus", "cpus"',
        '_what = attrgetter("name", "partitions", "cpus"',
    ),
    (
        "capacity that is gone is still there",
        '"features", "usable", "reserved")',
        '"features", "reserved")',
    ),
    (
        "who left still holds its share",
        "                    self.shares.remove(one.team, one.use)\n",
        "                    pass\n",
    ),
    (
        "who left still holds its nodes",
        "            self.now.give(job.held)\n",
        "            pass\n",
    ),
    (
        "who left is waited for",
        "                self.later.give(job.held)\n",
        "                pass\n",
    ),
    (
        "jobs that are ending hold nothing now",
        "            self.now.take(job.held)\n",
        "            pass\n",
    ),
    (
        "jobs that are ending hold their nodes for ever",
        "                self._ending[job.id] = job\n            else:\n",
        "                self._ending[job.id] = job\n            if True:\n",
    ),
    (
        "who has ended is still ending",
        "                del self._ending[job.id]\n",
        "                pass\n",
    ),
    (
        "who left is still counted",
        "del self.of_team[one.team][job.id]\n                self._forget(one.team)\n",
        "del self.of_team[one.team][job.id]\n",
    ),
    (
        "who came is not counted",
        "self.of_team[one.team][job.id] = one\n                self._forget(one.team)\n",
        "self.of_team[one.team][job.id] = one\n",
    ),
    (
        "who left may still be preempted",
        "[victim for victim in self.in_line if victim not in left]",
        "self.in_line",
    ),
    (
        "what a job held on a node is held for ever",
        "            self._hold(job, -1)\n",
        "            pass\n",
    ),
    (
        "what a cycle did is there in the next",
        "        for working in (self.now, self.later, self.shares, self.shares_now):\n            working.undo(0)\n",
        "        pass\n",
    ),
    (
        "a reservation that ends is still there",
        '"features", "usable", "reserved")',
        '"features", "usable")',
    ),
)
MARKS = _in(
    "marks",
    (
        "a reason may end the note",
        '.translate(str.maketrans("[]", "()"))',
        "",
    ),
    (
        "a mark of an earlier run holds for this one",
        "if mark and mark.run != run and not mark.spared else ()",
        "if mark and not mark.spared else ()",
    ),
    (
        "a run that was spared counts as preempted",
        "if mark and mark.run != run and not mark.spared else ()",
        "if mark and mark.run != run else ()",
    ),
    (
        "what others wrote is lost",
        'return f"{rest} {note}".strip()',
        "return note",
    ),
    (
        "earlier preemptions are forgotten",
        "if earlier := read_preempted(comment, mark.run)[:REMEMBERED]:",
        "if earlier := ():",
    ),
    (
        "a note may have several lines",
        're.sub(r"\\s+", " ", reason)',
        "reason",
    ),
    (
        "for whom a job left before is forgotten",
        '",".join(f"{at:.0f}:{job}" for at, job in earlier)',
        '",".join(f"{at:.0f}" for at, job in earlier)',
    ),
    (
        "until when we made a job wait is forgotten",
        "{f' held={mark.held:.0f}' if mark.held else ''}",
        "",
    ),
    (
        "that a job was spared is forgotten",
        "{' spared' if mark.spared else ''}",
        "",
    ),
) + _in(
    "snapshot",
    (
        "an earlier run's mark is this one's",
        "return self.mark is not None and self.mark.run == self.start and not self.mark.spared",
        "return self.mark is not None and not self.mark.spared",
    ),
    (
        "who was spared still leaves",
        " and not self.mark.spared",
        "",
    ),
)
ACTIONS = _in(
    "actions",
    (
        "whom a job leaves for is never noted anew",
        "            if final and mark.beneficiary not in beneficiaries:\n",
        "            if False:\n",
    ),
    (
        "whom a job leaves for is noted anew wherever two have changed",
        "            if final and mark.beneficiary not in beneficiaries:\n",
        "            if final and mark.beneficiary != preempt.beneficiary:\n",
    ),
    (
        "whom a job leaves for is noted anew whenever the plan changes",
        "            if final and mark.beneficiary not in beneficiaries:\n",
        "            if mark.beneficiary not in beneficiaries:\n",
    ),
    (
        "whom a job leaves for is noted anew only when it goes",
        "final = mark.deadline <= snapshot.now or mark.beneficiary not in waits",
        "final = mark.deadline <= snapshot.now",
    ),
    (
        "who is owed a place from now on was owed it before it waited",
        "team=team, since=snapshot.now, reason=preempt.reason)",
        "team=team, reason=preempt.reason)",
    ),
    (
        "who left for an array waits until all its tasks have started",
        "reasons.get(mark.beneficiary) if mark in still else None",
        "plan.decisions.reasons({mark.beneficiary}).get(mark.beneficiary)",
    ),
    (
        "who was preempted since a fault comes back as if by the fault",
        "or (mark is not None and mark.since > fault.at)",
        "",
    ),
    (
        "a fault of long ago brings a job back",
        "or submit < fault.at - 1 or",
        "or",
    ),
    (
        "after a fault a user's own begin time is Slurm's",
        "begin is not None and begin - submit <= REQUEUE_WAIT",
        "begin is not None",
    ),
    (
        "where there is no cap none is written",
        "if tres not in have or want < have[tres]:",
        "if tres in have and want < have[tres]:",
    ),
    (
        "caps are never lowered",
        "if tres not in have or want < have[tres]:",
        "if tres not in have:",
    ),
    (
        "caps are never raised",
        "elif want > have[tres]:",
        "elif False:",
    ),
    (
        "the grace period never ends",
        "if mark.deadline <= snapshot.now:",
        "if False:",
    ),
    (
        "the grace period ends at once",
        "if mark.deadline <= snapshot.now:",
        "if True:",
    ),
    (
        "without grace a job stays",
        "        if grace > 0:\n",
        "        if True:\n",
    ),
    (
        "jobs that cannot be requeued are requeued",
        "requeue=tuple(one for one in go if one.job.requeueable)",
        "requeue=tuple(go)",
    ),
    (
        "jobs that can be requeued are cancelled",
        "cancel=tuple(one for one in go if not one.job.requeueable)",
        "cancel=tuple(go)",
    ),
    (
        "who ended in its grace period is not requeued",
        "tuple(job for job in snapshot.ended if job.requeueable)",
        "()",
    ),
    (
        "a run that left although it was spared does not count",
        "return replace(job.mark, spared=False) if job.mark is not None and",
        "return None if job.mark is not None and",
    ),
    (
        "what a fault stops counts as preempted, if it was spared before",
        " and job.was_spared and not by_fault else None",
        " and job.was_spared else None",
    ),
    (
        "what a fault once stopped is never preempted",
        "job.fault is not None and job.fault.run == job.start and job.fault.until > 0",
        "job.fault is not None",
    ),
    (
        "a user's own begin time is undone",
        "    return begin - submit <= REQUEUE_WAIT or begin <= mark.held + HELD_MARGIN",
        "    return True",
    ),
    (
        "a job of no requeue of ours is let go",
        "begin is None or submit < mark.since - 1:",
        "begin is None:",
    ),
    (
        "a job starts in the second of its requeue",
        "max(CREDENTIAL_MARGIN, policy.preemption.requeue_delay)",
        "policy.preemption.requeue_delay",
    ),
    (
        "requeue_delay is ignored",
        "max(CREDENTIAL_MARGIN, policy.preemption.requeue_delay)",
        "CREDENTIAL_MARGIN",
    ),
    (
        "a begin time is a fraction too early",
        "float(ceil(start - snapshot.now))",
        "float(int(start - snapshot.now))",
    ),
    (
        "the next look is not at the end of the grace period",
        "next_deadline=min(deadlines, default=None)",
        "next_deadline=None",
    ),
    (
        "what has just started gets the whole grace period",
        "min(policy.preemption.grace, max(0.0, snapshot.now - job.start))",
        "policy.preemption.grace",
    ),
    (
        "who left starts before the job that it left for",
        "        if reason in _PROMISED:\n",
        "        if False:\n",
    ),
    (
        "who left waits on although nobody needs its place",
        "        elif reason is None:\n",
        "        elif False:\n",
    ),
    (
        "who left waits for one that will not start",
        "None if reason in _WILL_NOT_START else reason",
        "reason",
    ),
    (
        "any begin time is the wait that Slurm makes after a requeue",
        " and job.begin - job.submit == SLURMS_WAIT",
        "",
    ),
    (
        "who left is told to wait on again and again",
        "            if begin - snapshot.now < WAIT_ON_WITHIN:\n",
        "            if True:\n",
    ),
    (
        "what we made a job wait is taken for its user's wish",
        "<= REQUEUE_WAIT or begin <= mark.held + HELD_MARGIN",
        "<= REQUEUE_WAIT",
    ),
    (
        "who stepped back is told so in every cycle",
        "job.behind.until - snapshot.now < wait / 3",
        "True",
    ),
    (
        "who stepped back is not let go",
        "        and id not in plan.behind\n        and job.behind.until",
        "        and False\n        and job.behind.until",
    ),
    (
        "who stepped back is let go while the one ahead is about to start",
        "        and job.behind.job not in starting\n",
        "",
    ),
    (
        "who may go is let go again",
        "        and job.behind.until > snapshot.now\n",
        "",
    ),
    (
        "all step back at once",
        "tuple(step_back[:AT_A_TIME])",
        "tuple(step_back)",
    ),
    (
        "all are let go at once",
        "tuple(let_go[:AT_A_TIME])",
        "tuple(let_go)",
    ),
    (
        "many step back for a minute only",
        "wait = WAIT_ON if len(plan.behind) <= AT_A_TIME else 10 * WAIT_ON",
        "wait = WAIT_ON",
    ),
    (
        "who was spared and is requeued by somebody waits for us",
        "if mark is None or mark.spared or begin",
        "if mark is None or begin",
    ),
    (
        "nobody who stands behind is let go",
        "    let_go = [\n",
        "    let_go: list[WaitingJob] = [] and [\n",
    ),
    (
        "only one is kept waiting for whom it left",
        "                wait_on.append((job, replace(mark, held=snapshot.now + WAIT_ON)))\n",
        "                wait_on = wait_on or [(job, replace(mark, held=snapshot.now + WAIT_ON))]\n",
    ),
)

DIFFERENCES = _in(
    "differences",
    (
        "who waited last is here for ever",
        "return (gone if one is None else [*gone, one, *rest]), new",
        "return gone, new",
    ),
    (
        "who is gone from the middle is still here",
        "                gone.append(one)\n",
        "                pass\n",
    ),
    (
        "who has changed places is gone",
        "            if one is None:\n                break\n",
        "            if one is None:\n                continue\n",
    ),
    (
        "where the order is another nobody is gone",
        "[record for record in before if id(record) not in here]",
        "[]",
    ),
)
HET = _in(
    "demand",
    (
        "a het job is its first component",
        "whole = replace(forms[0], others=tuple(forms[1:]))",
        "whole = forms[0]",
    ),
    (
        "components may share what is free",
        "                    room.take(more)\n",
        "",
    ),
    (
        "each component goes first but once",
        "for number in range(len(parts)):",
        "for number in range(1):",
    ),
    (
        "only one component counts",
        "        for one in form.parts:\n",
        "        for one in form.parts[:1]:\n",
    ),
    (
        "others leave for a job of which a component cannot be judged",
        "return all(one.request.plain for one in self.parts)",
        "return self.request.plain",
    ),
    (
        "one het job is as easy as another",
        "self.partitions == other.partitions and not self.others",
        "self.partitions == other.partitions",
    ),
    (
        "components are jobs of their own",
        "        if job.part_of:\n            return Kind(team, pool, priority)\n",
        "",
    ),
    (
        "what comes last is in line",
        "form, None, job.comes_last, takes_nobody)",
        "form, None, False, takes_nobody)",
    ),
    (
        "others leave for what Slurm finds no nodes for",
        "takes_nobody = job.takes_nobody or not form.plain",
        "takes_nobody = not form.plain",
    ),
    (
        "a job without GPUs is no demand",
        "            forms = self._form_of_cpus(team, job)\n",
        "            pass\n",
    ),
    (
        "a job without GPUs is demand of a team without a quota of CPUs",
        '        if self.policy.teams[team].quotas.keys().isdisjoint({f"{name}/cpu", f"{name}/mem"}):\n'
        "            return []\n",
        "",
    ),
    (
        "only the first pool is looked at",
        "for one in zip(forms, asked, strict=True) if one[1][1] is None)",
        "for one in [(forms[0], asked[0])])",
    ),
)
UNSTARTED = _in(
    "unstarted",
    (
        "what is not started at once is late",
        "if snapshot.now - known.since >= patience:",
        "if True:",
    ),
    (
        "a task that starts changes nothing",
        "known[:2] != (job.tasks, job.submit):",
        "False:",
    ),
    (
        "who may not start any more is late",
        "        self._seen = seen\n",
        "        self._seen |= seen\n",
    ),
    (
        "what is noted already is noted again",
        "    if job.part_of or job.comes_last:\n",
        "    if job.part_of:\n",
    ),
    (
        "it does not matter whether Slurm has looked",
        "looked_at.get(job.id, 0.0) > late[job.id] + 1",
        "True",
    ),
    (
        "it comes last for as long each time",
        "min(2 * (before.until - before.since), LONGEST)",
        "FIRST",
    ),
    (
        "it comes last for longer and longer",
        "min(2 * (before.until - before.since), LONGEST)",
        "2 * (before.until - before.since)",
    ),
    (
        "somebody leaves for it as soon as it does not come last",
        "note.until > now or (note.reason == IN_VAIN and note.since + TAKES_NOBODY > now)",
        "note.until > now",
    ),
    (
        "nobody leaves for what a job ahead keeps from its nodes",
        "(note.reason == IN_VAIN and note.since",
        "(note.since",
    ),
    (
        "another request is the same in short",
        "_sorted(request)) for partitions, request in asked]",
        "[]) for partitions, request in asked]",
    ),
)

MUTATIONS = [
    *SHARES,
    *CAPACITY,
    *CAPS,
    *VICTIMS,
    *FAIRNESS,
    *ROOM,
    *OWED,
    *AHEAD,
    *PLAN,
    *DEMAND,
    *QUEUE,
    *MEMORY,
    *DIFFERENCES,
    *MARKS,
    *ACTIONS,
    *HET,
    *UNSTARTED,
]
