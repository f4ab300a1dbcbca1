"""Random small clusters: a policy and one look at Slurm, as hypothesis strategies that shrink to readable ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from hypothesis import strategies as st

from slurm_gov.core.policy import (
    BorrowPreempts,
    ClassRules,
    Cohort,
    Idle,
    MaxPreemptions,
    Policy,
    Pool,
    Preemption,
    Quota,
    Rebalance,
    Reclaim,
    Team,
    Victims,
    WithinTeam,
    frozen,
)
from slurm_gov.core.shares import SHARED
from slurm_gov.core.snapshot import (
    Behind,
    Held,
    Mark,
    Node,
    Preempted,
    Request,
    RunningJob,
    RunState,
    Snapshot,
    WaitingJob,
)

NOW = 100_000.0
POOLS = {"h100": Pool("h100", ("gpu",), "gpu:h100"), "a100": Pool("a100", ("old", "mixed"), "gpu:a100")}
CLASSES = {"inference": 100, "training": 50, "experiment": 10}
GUESTS = "guests"  # an account without a policy

pick = st.sampled_from


def any_of(*ways: Iterable[Any]) -> st.SearchStrategy[Any]:
    """One of each, the simplest first: a single choice, which hypothesis makes much faster than many."""
    return pick(list(product(*ways)))


def some(draw: st.DrawFn, what: st.SearchStrategy[Any], least: int, most: int) -> list[Any]:
    """A list; unlike those of hypothesis as often long as short."""
    return [draw(what) for _ in range(draw(st.integers(least, most)))]


limits = [None, None, None, 0, 4, 8, 16]
quotas = pick([Quota(*one) for one in product([8, 4, 0, 2, 4, 1, 16], limits, limits)])


@dataclass(frozen=True)
class World:
    """What ``plan`` is given."""

    policy: Policy
    snapshot: Snapshot

    def __repr__(self) -> str:
        rules, seen = self.policy, self.snapshot
        lines = [f"idle={rules.idle} lend_unallocated={rules.lend_unallocated} {rules.preemption}"]
        lines += [f"rebalance={rules.rebalance} protect_after={rules.protect_after}"]
        past = f"{dict(seen.borrowed_lately)}, cohorts {dict(seen.cohorts_borrowed_lately)}"
        lines += [f"borrowed lately, half after {rules.half_life} s: {past}"]
        lines += [f"cohort {one.name} in {one.parent}: {dict(one.quotas)}" for one in rules.cohorts.values()]
        lines += [
            f"team {one.name} in {one.cohort}: {dict(one.quotas)} weight {one.fair_share_weight} "
            f"within {one.preempt_within_team} reclaim {one.reclaim}"
            f"{f' {one.borrow_preempts}' if one.borrow_preempts else ''}"
            f"{f' min_runtime {one.min_runtime}' if one.min_runtime is not None else ''}"
            for one in rules.teams.values()
        ]
        lines += [
            f"node {one.name} {'' if one.usable else 'SICK '}{dict(one.gpus)} {one.cpus} CPUs {one.memory} MiB "
            f"in {','.join(one.partitions)} {set(one.features) or ''}"
            for one in seen.nodes
        ]
        for what, jobs in (("running", seen.running), ("ended", seen.ended)):
            lines += [
                f"{what} {job.display_id} {job.account} {job.qos} {job.state} since {job.start - NOW:+.0f} on "
                f"{[(held.node, dict(held.gpus), held.cpus, held.memory) for held in job.held]}"
                f"{'' if job.requeueable else ' not requeueable'}{_told(job.mark, job.start)}"
                f"{f' preempted {job.preempted}' if job.preempted else ''}{' saved' if job.checkpoint else ''}"
                for job in jobs
            ]
        lines += [
            f"waiting {job.display_id} {job.account} {job.qos} priority {job.priority} in {job.partitions} "
            f"x{job.tasks} since {job.submit - NOW:+.0f} {job.request}{' NOT READY' if job.held_back else ''}"
            f"{f' until {job.begin - NOW:+.0f}' if job.begin else ''}"
            f"{f' behind {job.behind.job}' if job.behind else ''}{_told(job.mark)}"
            f"{' comes last' if job.comes_last else ''}{' takes nobody' if job.takes_nobody else ''}"
            for job in seen.waiting
        ]
        return "\n    " + "\n    ".join(lines) + "\n"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How hypothesis prints it; otherwise it would spell out every field."""
        printer.text(repr(self))


def _told(mark: Mark | None, run: float | None = None) -> str:
    """What a mark says, and whether of the run that began then."""
    if mark is None:
        return ""
    what = "spared after it was to leave" if mark.spared else "told to leave"
    before = " in an earlier run" if run is not None and mark.run != run else ""
    held = f", held until {mark.held - NOW:+.0f}" if mark.held else ""
    return f" {what}{before} at {mark.since - NOW:+.0f} for {mark.beneficiary} by {mark.deadline - NOW:+.0f}{held}"


def _quotas(draw: st.DrawFn, pools: list[str]) -> dict[str, Quota]:
    return {pool: draw(quotas) for pool in pools}


preemptions = pick(
    [
        Preemption(
            min_runtime=least,
            cancel_unrequeueable=cancel,
            victims=victims,
            classes=frozen({"inference": ClassRules(protected=protected), "training": ClassRules(min_runtime=own)}),
            max_preemptions=most,
        )
        for most, own, protected, least, victims, cancel in product(
            [*[None] * 4, MaxPreemptions(1, 600.0), MaxPreemptions(2, 3000.0)],
            [None, None, None, 1500.0],
            [False, False, False, True],
            [0.0, 0.0, 0.0, 300.0],
            [Victims.CHEAPEST, Victims.CHEAPEST, Victims.IN_ORDER],
            [False, True],
        )
    ]
)
"""Every rule that keeps a job from being preempted, mostly none."""
sharing = any_of(
    [None, None, 30.0, 1000.0],
    [Rebalance.NEVER, *Rebalance],
    [None, None, 1000.0],
    Idle,
    [False, True],
)
team_rules = any_of(
    [1, 0, 3],
    [*WithinTeam][::-1],
    [Reclaim.ANY, Reclaim.ANY, Reclaim.LOWER_PRIORITY, Reclaim.NEVER],
    [None, None, None, BorrowPreempts(), BorrowPreempts(10)],
    [*[None] * 6, 0.0, 2000.0],
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """One or two pools, up to four teams in up to three cohorts, every form of limit."""
    pools = ["h100", "a100"][: draw(pick([1, 1, 2]))]
    cohorts: dict[str, Cohort] = {}
    for name in ("red", "blue", "top")[: draw(pick([0, 0, 1, 1, 2, 3]))]:
        parent, weight, own = draw(any_of([None, *cohorts], [1, 0, 3], [False, False, True]))
        cohorts[name] = Cohort(name, parent, frozen(_quotas(draw, pools) if own else {}), weight)
    teams = {}
    for name in ("ant", "bee", "cat", "dog")[: draw(pick([1, 2, 2, 3, 3, 4]))]:
        cohort, (weight, within, reclaim, borrows, least) = draw(pick([None, *cohorts])), draw(team_rules)
        mine = frozen(_quotas(draw, pools))
        teams[name] = Team(name, mine, cohort, weight, within, reclaim, borrows, least)
    protect_after, rebalance, half_life, idle, lend_unallocated = draw(sharing)
    return Policy(
        pools=frozen({name: POOLS[name] for name in pools}),
        teams=frozen(teams),
        cohorts=frozen(cohorts),
        priority_classes=frozen(CLASSES),
        idle=idle,
        rebalance=rebalance,
        lend_unallocated=lend_unallocated,
        half_life=half_life,
        protect_after=protect_after,
        preemption=draw(preemptions),
    )


a_node = any_of([True] * 5 + [False], [64, 64, 8], [1_000_000, 1_000_000, 8000], [8, 8, 4, 2])


def nodes_of(draw: st.DrawFn, rules: Policy, healthy: bool = False) -> list[Node]:
    """Up to six nodes of varied sizes, some of them sick."""
    nodes = []
    for index, (usable, cpus, memory, gpus) in enumerate(some(draw, a_node, 1, 6)):
        pool = list(rules.pools.values())[index % len(rules.pools)]
        features = frozenset({"nvlink"} if index % 3 == 0 else {"roce"} if index % 3 == 1 else ())
        partitions = pool.partitions
        nodes.append(
            Node(f"n{index}", partitions, frozen({pool.tres: gpus}), cpus, memory, features, usable or healthy)
        )
    return nodes


requests_kind = any_of(
    ["per node", "spread"],
    [8, 4, 2, 1, 2, 1],  # GPUs, per node or in all for each node
    [1, 1, 1, 2, 2, 3],  # nodes
    [1, 1, 1, 2, 12],  # CPUs a GPU
    [
        *[""] * 14,
        *("memory", "feature", "exclude", "require", "exclusive", "untyped", "unclear", "by task"),
        *("any feature", "few nodes", "few on each"),
    ],
)


def request_of(kind: tuple[str, int, int, int, str], rules: Policy, pool: Pool, nodes: list[Node]) -> Request:
    """A request in one of the forms that Slurm knows."""
    form, gpus, count, cpus, extra = kind
    if extra == "":  # else it may be more than there is
        sizes = sorted((node.gpus[pool.tres] for node in nodes if pool.tres in node.gpus), reverse=True) or [8]
        count = min(count, len(sizes))
        gpus = min(gpus, sizes[count - 1])
    total = gpus * count
    tres = pool.untyped_tres if extra == "untyped" else pool.tres
    names = [node.name for node in nodes if pool.tres in node.gpus]
    request = Request(
        frozen({tres: total}),
        min_nodes=count,
        gpus_per_node=gpus if form == "per node" else 0,
        cpus=cpus * total,
    )
    if extra == "memory":
        request = replace(request, memory_per_node=5000)
    elif extra == "feature":
        request = replace(request, features=frozenset({"nvlink"}))
    elif extra == "exclude":
        request = replace(request, excluded_nodes=frozenset(names[:1]))
    elif extra == "require":
        request = replace(request, required_nodes=frozenset(names[-1:]))
    elif extra == "exclusive":
        # Whole nodes of the largest kind: what it holds is what it asked for, whichever it gets.
        request = replace(request, exclusive=True, gpus=frozen({tres: 8 * count}), gpus_per_node=8)
    elif extra == "unclear":
        request = replace(request, plain=False)
    elif extra == "any feature":
        request = replace(request, any_features=frozenset({frozenset({"nvlink"}), frozenset({"roce"})}))
    elif extra == "few nodes" and form == "spread":
        request = replace(request, max_nodes=count)
    elif extra == "few on each" and form == "spread":
        request = replace(request, most_per_node=gpus)
    elif extra == "by task" and form == "spread":
        request = replace(request, gpus_per_task=gpus)
    return request


a_job = any_of([*[True] * 12, False], [1, 1, 2, 5], [1000, 10, 500], CLASSES)


def waiting_of(
    draw: st.DrawFn, rules: Policy, nodes: list[Node], first_id: int, accounts: list[str], most: int
) -> list[WaitingJob]:
    """Up to ``most`` waiting jobs of these accounts."""
    job = st.tuples(pick(accounts), a_job, requests_kind)
    jobs = []
    for index, (account, (ready, tasks, priority, qos), kind) in enumerate(some(draw, job, 0, most)):
        pool = list(rules.pools.values())[index % len(rules.pools)]
        id = first_id + index
        jobs.append(
            WaitingJob(
                id,
                f"{id}_[1-{tasks}]" if tasks > 1 else str(id),
                "bob",
                account,
                pool.partitions,
                qos,
                priority,
                NOW - 60,
                request_of(kind, rules, pool, nodes),
                tasks,
                held_back="" if ready else "held by its user",
            )
        )
    return jobs


a_run = any_of(
    ["", "", "", "", "completing", "no requeue", "leaves", "left before", "suspended", "saved"],
    [8, 4, 4, 1],  # GPUs
    [1, 2],  # nodes
    [1000, 10, 5000, 1000],  # seconds since its start
    CLASSES,
)


def running_of(draw: st.DrawFn, rules: Policy, nodes: list[Node], accounts: list[str]) -> list[RunningJob]:
    """Up to ten running jobs that really fit on their nodes."""
    free = {node.name: [sum(node.gpus.values()), node.cpus, node.memory] for node in nodes}
    job = st.tuples(pick(accounts), st.integers(0, len(nodes) - 1), a_run)
    jobs: list[RunningJob] = []
    for id, (account, first, (more, gpus, count, age, qos)) in enumerate(some(draw, job, 0, 10), 1):
        tres = next(iter(nodes[first].gpus))
        same = [node for node in nodes[first:] if tres in node.gpus]
        on = [node for node in same if free[node.name][0] and free[node.name][1]][:count]
        held = []
        for node in on:
            room = free[node.name]
            took = min(gpus, room[0])
            cpus, memory = min(took, room[1]), min(100 * took, room[2])
            held.append(Held(node.name, frozen({tres: took}), cpus, memory))
            free[node.name] = [room[0] - took, room[1] - cpus, room[2] - memory]
        if not held:
            continue
        start = NOW - age
        state = {"completing": RunState.COMPLETING, "suspended": RunState.SUSPENDED}.get(more, RunState.RUNNING)
        jobs.append(
            RunningJob(
                id,
                str(id),
                "alice",
                account,
                on[0].partitions[0],
                qos,
                start,
                tuple(held),
                state,
                requeueable=more != "no requeue",
                mark=Mark(101, "ant", NOW - 5, NOW + 25, start) if more == "leaves" else None,
                submit=start - 30,
                preempted=(Preempted(start - 20, 101), Preempted(start - 1000)) if more == "left before" else (),
                checkpoint=NOW - 5 if more == "saved" else None,
            )
        )
    return jobs


# -- what happened before -----------------------------------------------------------------------------------------

a_past_of_a_run = any_of(
    ["", "", "leaves", "leaves", "spared", "before", "task"],
    [5, 40, 2000],  # seconds since it was told to leave
    [25, -1],  # seconds of its grace period that are left
)
a_past_of_a_wait = any_of(
    [
        *[""] * 6,
        "requeued",
        "requeued",
        "not ours",
        "let go",
        "user's own",
        "steps back",
        "array",
        "comes last",
        "takes nobody",
    ],
    [140, 40, 2000],  # seconds since it was told to leave, or since it was submitted
    [11, 50, -1],  # seconds until it may start
)
an_end = any_of([False, False, True], [140, 40], [True, True, False])


def with_past(draw: st.DrawFn, seen: Snapshot, accounts: list[str]) -> Snapshot:
    """The same after the governor has been at work: jobs under their grace period, spared and ended ones, requeued
    ones that wait for whom they left for, ones behind others, and arrays whose tasks run.
    """
    waiting, running, ended = list(seen.waiting), list(seen.running), []
    whom = pick([*(job.id for job in (*waiting, *running)), 999])

    def mark(since: float, deadline: float, run: float, **more: Any) -> Mark:
        return Mark(draw(whom), "ant", since, deadline, run, **more)

    for index, job in enumerate(waiting):
        how, since, until = draw(a_past_of_a_wait)
        told, begin = NOW - since, NOW + until
        if how == "array":
            waiting[index] = replace(job, display_id=f"{job.id}_[1-300]", tasks=300, submit=told)
        elif how in ("comes last", "takes nobody"):
            waiting[index] = replace(job, submit=told, comes_last=how == "comes last", takes_nobody=True)
        elif how == "steps back":
            note = Behind(draw(whom), begin)
            waiting[index] = replace(job, behind=note, begin=begin, slurm_reason="BeginTime", held_back="")
        elif how:
            left = mark(told, told + 30, told - 500, held=begin if until == 50 else 0.0, spared=how == "not ours")
            one = job if job.tasks == 1 else replace(job, display_id=f"{job.id}_1", tasks=1)
            one = replace(one, mark=left, submit=told + 30, begin=begin + 9000 * (how == "user's own"))
            if how != "let go":
                one = replace(one, slurm_reason="BeginTime", held_back="its begin time has not come")
            waiting[index] = one
        else:
            waiting[index] = replace(job, submit=told)
    arrays = [job for job in waiting if "_" in job.display_id]
    for index, job in enumerate(running):
        how, since, left = draw(a_past_of_a_run)
        if how == "task" and arrays:
            array = draw(pick(arrays))
            running[index] = replace(job, display_id=f"{array.id}_{job.id}", account=array.account)
        elif how in ("leaves", "spared", "before"):
            told = max(NOW - since, job.start)
            run = job.start - 500 if how == "before" else job.start
            noted = mark(told, NOW + left, run, spared=how == "spared")
            running[index] = replace(job, mark=noted)
    for id, (spared, since, requeueable) in enumerate(draw(st.lists(an_end, max_size=2)), 51):
        start, told = NOW - 1000, NOW - since
        noted = mark(told, told + 30, start, spared=spared)
        account, partition = draw(pick(accounts)), seen.nodes[0].partitions[0]
        job = RunningJob(id, str(id), "alice", account, partition, "training", start, (), RunState.COMPLETING)
        ended.append(replace(job, requeueable=requeueable, mark=noted, submit=start - 30))
    return replace(seen, waiting=tuple(waiting), running=tuple(running), ended=tuple(ended))


def with_loans(draw: st.DrawFn, rules: Policy, seen: Snapshot) -> Snapshot:
    """The same, where teams and cohorts borrowed something lately."""
    lately = pick([0.0, 1000.0, 50_000.0])
    return replace(
        seen,
        borrowed_lately=frozen({team: draw(lately) for team in rules.teams}),
        cohorts_borrowed_lately=frozen({cohort: draw(lately) for cohort in (*rules.cohorts, SHARED)}),
    )


def contested(rules: Policy, seen: Snapshot) -> World:
    """The same full, mostly of the first team's jobs, where the others may have it back."""
    teams = {
        name: replace(
            team,
            quotas=frozen({pool: Quota(quota.nominal) for pool, quota in team.quotas.items()}),
            cohort=None,
            reclaim=Reclaim.ANY,
        )
        for name, team in rules.teams.items()
    }
    rules = replace(rules, teams=frozen(teams), cohorts=frozen({}), preemption=Preemption())
    nodes = [replace(node, usable=True) for node in seen.nodes]
    running = list(seen.running)
    for id, node in enumerate(nodes, 201):
        ((tres, gpus),) = node.gpus.items()
        held = [one for job in running for one in job.held if one.node == node.name]
        gpus -= sum(one.gpus[tres] for one in held)
        cpus = min(gpus, node.cpus - sum(one.cpus for one in held))
        if gpus:
            more = Held(node.name, frozen({tres: gpus}), cpus)
            qos, start = [*CLASSES][id % 3], NOW - id
            running.append(RunningJob(id, str(id), "eve", "ant", node.partitions[0], qos, start, (more,)))
    return World(rules, replace(seen, nodes=tuple(nodes), running=tuple(running)))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A cluster in any state, also one that the policy would never have let come about."""
    rules = draw(policies())
    nodes = nodes_of(draw, rules)
    teams = [*rules.teams] * 2
    parents = {**dict.fromkeys(rules.teams, "root"), GUESTS: "root", "lab": "ant"}
    # One holds more than the others and another asks for more: else there would seldom be anything to take back.
    running = running_of(draw, rules, nodes, [*teams[:1] * 5, *teams, "lab", GUESTS])
    waiting = waiting_of(draw, rules, nodes, 101, [*teams[-1:] * 5, *teams, "lab", GUESTS], 8)
    seen = Snapshot(NOW, tuple(nodes), tuple(running), tuple(waiting), frozen(parents))
    if rules.half_life:
        seen = with_loans(draw, rules, seen)
    if draw(st.booleans()):
        seen = with_past(draw, seen, teams)
    return contested(rules, seen) if draw(st.booleans()) else World(rules, seen)
