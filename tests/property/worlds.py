"""Random small clusters: a policy and one look at Slurm, as hypothesis strategies that shrink to readable ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from slurm_gov.core.policy import (
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
amounts = pick([8, 0, 4, 2, 16, 24])
limits = pick([None, 0, 4, 8, 16])


@dataclass(frozen=True)
class World:
    """What ``plan`` is given."""

    policy: Policy
    snapshot: Snapshot

    def __repr__(self) -> str:
        rules, seen = self.policy, self.snapshot
        lines = [f"idle={rules.idle} lend_unallocated={rules.lend_unallocated} {rules.preemption}"]
        past = f"{dict(seen.borrowed_lately)}, cohorts {dict(seen.cohorts_borrowed_lately)}"
        lines += [f"borrowed lately, half after {rules.half_life} s: {past}"]
        lines += [f"cohort {one.name} in {one.parent}: {dict(one.quotas)}" for one in rules.cohorts.values()]
        lines += [
            f"team {one.name} in {one.cohort}: {dict(one.quotas)} weight {one.fair_share_weight} "
            f"within {one.preempt_within_team} reclaim {one.reclaim}"
            for one in rules.teams.values()
        ]
        lines += [
            f"node {one.name} {'' if one.usable else 'SICK '}{dict(one.gpus)} {one.cpus} CPUs {one.memory} MiB "
            f"in {','.join(one.partitions)} {set(one.features) or ''}"
            for one in seen.nodes
        ]
        lines += [
            f"running {job.id} {job.account} {job.qos} {job.state} since {job.start - NOW:+.0f} on "
            f"{[(held.node, dict(held.gpus), held.cpus, held.memory) for held in job.held]}"
            f"{'' if job.requeueable else ' not requeueable'}"
            f"{f' being preempted for {job.mark.beneficiary}' if job.being_preempted else ''}"
            f"{' was spared' if job.was_spared else ''}"
            f"{f' preempted {job.preempted}' if job.preempted else ''}{' saved' if job.checkpoint else ''}"
            for job in seen.running
        ]
        lines += [
            f"waiting {job.id} {job.account} {job.qos} priority {job.priority} in {job.partitions} x{job.tasks} "
            f"{job.request}{' NOT READY' if job.held_back else ''}"
            f"{f' left for {job.mark.beneficiary}' if job.mark else ''}"
            f"{f' behind {job.behind.job}' if job.behind else ''}"
            f"{' comes last' if job.comes_last else ''}{' takes nobody' if job.takes_nobody else ''}"
            for job in seen.waiting
        ]
        lines += [f"ended {job.id} {job.account}, for {job.mark and job.mark.beneficiary}" for job in seen.ended]
        return "\n    " + "\n    ".join(lines) + "\n"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How hypothesis prints it; otherwise it would spell out every field."""
        printer.text(repr(self))


def _quotas(draw: st.DrawFn, pools: list[str]) -> dict[str, Quota]:
    return {pool: Quota(*draw(st.tuples(amounts, limits, limits))) for pool in pools}


@st.composite
def preemptions(draw: st.DrawFn) -> Preemption:
    """Every rule that keeps a job from being preempted, mostly none."""
    classes = {"inference": ClassRules(protected=draw(pick([False, False, True])))}
    classes["training"] = ClassRules(min_runtime=draw(pick([None, None, 1500.0])))
    return Preemption(
        min_runtime=draw(pick([0.0, 0.0, 300.0])),
        cancel_unrequeueable=draw(st.booleans()),
        classes=frozen(classes),
        max_preemptions=draw(pick([None, None, MaxPreemptions(1, 600.0), MaxPreemptions(2, 3000.0)])),
    )


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """One or two pools, up to four teams in up to three cohorts, every form of limit."""
    pools = ["h100", "a100"][: draw(pick([1, 1, 2]))]
    cohorts: dict[str, Cohort] = {}
    for name in ("red", "blue", "top")[: draw(st.integers(0, 3))]:
        own = draw(pick([False, False, True]))
        quotas = frozen(_quotas(draw, pools) if own else {})
        cohorts[name] = Cohort(name, draw(pick([None, *cohorts])), quotas, draw(pick([1, 0, 3])))
    teams = {}
    for name in ("ant", "bee", "cat", "dog")[: draw(st.integers(1, 4))]:
        teams[name] = Team(
            name,
            frozen(_quotas(draw, pools)),
            draw(pick([None, *cohorts])),
            draw(pick([1, 0, 3])),
            draw(pick(list(WithinTeam)[::-1])),
            draw(pick(list(Reclaim)[::-1])),
            min_runtime=draw(pick([None, None, None, 0.0, 2000.0])),
        )
    return Policy(
        pools=frozen({name: POOLS[name] for name in pools}),
        teams=frozen(teams),
        cohorts=frozen(cohorts),
        priority_classes=frozen(CLASSES),
        idle=draw(pick(list(Idle))),
        rebalance=draw(pick([Rebalance.NEVER, *Rebalance])),
        lend_unallocated=draw(st.booleans()),
        half_life=draw(pick([None, None, 1000.0])),
        protect_after=draw(pick([None, None, 30.0, 1000.0])),
        preemption=draw(preemptions()),
    )


def nodes_of(draw: st.DrawFn, rules: Policy, healthy: bool = False) -> list[Node]:
    """Up to six nodes of varied sizes, some of them sick."""
    nodes = []
    node = st.tuples(pick([8, 4, 2]), pick([64, 8]), pick([1_000_000, 8000]), pick([True, True, True, False]))
    for index, (gpus, cpus, memory, usable) in enumerate(draw(st.lists(node, min_size=1, max_size=6))):
        pool = list(rules.pools.values())[index % len(rules.pools)]
        features = frozenset({"nvlink"} if index % 3 == 0 else {"roce"} if index % 3 == 1 else ())
        partitions = pool.partitions
        nodes.append(
            Node(f"n{index}", partitions, frozen({pool.tres: gpus}), cpus, memory, features, usable or healthy)
        )
    return nodes


requests_kind = st.tuples(
    pick(["per node", "spread"]),
    pick([8, 4, 2, 1]),  # GPUs, per node or in all for each node
    pick([1, 2, 3]),  # nodes
    pick([1, 2, 12]),  # CPUs a GPU
    pick(
        [
            *("", "", "", "memory", "feature", "exclude", "require", "exclusive", "untyped", "unclear", "by task"),
            *("any feature", "few nodes", "few on each"),
        ]
    ),
)


def request_of(kind: tuple[str, int, int, int, str], rules: Policy, pool: Pool, nodes: list[Node]) -> Request:
    """A request in one of the forms that Slurm knows."""
    form, gpus, count, cpus, extra = kind
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


def waiting_of(
    draw: st.DrawFn, rules: Policy, nodes: list[Node], first_id: int, accounts: list[str], most: int
) -> list[WaitingJob]:
    """Up to ``most`` waiting jobs of these accounts."""
    job = st.tuples(
        pick(accounts), pick(list(CLASSES)), pick([1000, 10, 500]), pick([1, 1, 2, 300]), requests_kind, st.booleans()
    )
    jobs = []
    for index, (account, qos, priority, tasks, kind, ready) in enumerate(draw(st.lists(job, max_size=most))):
        pool = list(rules.pools.values())[index % len(rules.pools)]
        jobs.append(
            WaitingJob(
                first_id + index,
                str(first_id + index),
                "bob",
                account,
                pool.partitions,
                qos,
                priority,
                NOW - 60,
                request_of(kind, rules, pool, nodes),
                tasks,
                held_back="" if ready or index % 4 else "held by its user",
            )
        )
    return jobs


def running_of(draw: st.DrawFn, rules: Policy, nodes: list[Node], accounts: list[str]) -> list[RunningJob]:
    """Up to ten running jobs that really fit on their nodes."""
    free = {node.name: [sum(node.gpus.values()), node.cpus, node.memory] for node in nodes}
    job = st.tuples(
        pick(accounts),
        pick(list(CLASSES)),
        st.integers(0, len(nodes) - 1),
        pick([8, 4, 1]),
        pick([1, 2]),
        pick([10, 1000, 100, 5000]),
        pick(["", "", "", "", "completing", "no requeue", "preempted", "preempted before", "suspended", "saved"]),
    )
    jobs: list[RunningJob] = []
    for id, (account, qos, first, gpus, count, age, more) in enumerate(draw(st.lists(job, max_size=10)), 1):
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
        mark = None
        if more.startswith("preempted"):
            run = start if more == "preempted" else start - 500
            mark = Mark(101 + id % 8, "ant", NOW - 5, NOW + 25, run, spared=id % 3 == 2)
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
                mark=mark,
                submit=start - 30,
                preempted=(Preempted(start - 20, 101), Preempted(start - 1000)) if more == "preempted before" else (),
                checkpoint=NOW - 5 if more == "saved" else None,
            )
        )
    return jobs


notes = pick(
    ["", "", "", "", "left", "left", "left, kept", "left, spared", "behind", "comes last", "takes nobody", "long ago"]
)


def _noted(job: WaitingJob, note: str, other: int) -> WaitingJob:
    """A waiting job with what we may have noted on it: that it left for another, that it stands behind it..."""
    if note.startswith("left"):
        kept = note == "left, kept"
        mark = Mark(other, "ant", NOW - 40, NOW - 30, NOW - 900, held=NOW + 30 if kept else 0.0)
        back = replace(job, mark=replace(mark, spared=note == "left, spared"), submit=NOW - 30, tasks=1)
        return replace(back, held_back="it left", slurm_reason="BeginTime", begin=NOW + 30) if kept else back
    if note == "behind":
        return replace(job, behind=Behind(other, NOW + 20), slurm_reason="BeginTime", begin=NOW + 20)
    if note == "long ago":
        return replace(job, submit=NOW - 5000)
    return replace(job, comes_last=note == "comes last", takes_nobody=bool(note))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A cluster in any state, also one that the policy would never have let come about."""
    rules = draw(policies())
    nodes = nodes_of(draw, rules)
    accounts = [*rules.teams, GUESTS, "lab"]
    parents = {**dict.fromkeys(rules.teams, "root"), GUESTS: "root", "lab": "ant"}
    running = running_of(draw, rules, nodes, accounts)
    waiting = [
        _noted(job, note, other)
        for job, (note, other) in zip(
            waiting_of(draw, rules, nodes, 101, accounts, 8),
            draw(st.lists(st.tuples(notes, pick([101, 102, 103, 1, 2, 999])), min_size=8, max_size=8)),
            strict=False,
        )
    ]
    gone = running_of(draw, rules, nodes, accounts)[:1] if draw(pick([False, False, True])) else []
    mark = Mark(draw(pick([101, 102])), "ant", NOW - 5, NOW + 25, 0.0)
    ended = [
        replace(job, id=50, state=RunState.COMPLETING, requeueable=True, mark=replace(mark, run=job.start))
        for job in gone
    ]
    seen = Snapshot(NOW, tuple(nodes), tuple(running), tuple(waiting), frozen(parents), ended=tuple(ended))
    return World(rules, with_past(draw, rules, seen) if rules.half_life else seen)


def with_past(draw: st.DrawFn, rules: Policy, seen: Snapshot) -> Snapshot:
    """The same, where teams and cohorts borrowed something lately."""
    lately = pick([0.0, 1000.0, 50_000.0])
    return replace(
        seen,
        borrowed_lately=frozen({team: draw(lately) for team in rules.teams}),
        cohorts_borrowed_lately=frozen({cohort: draw(lately) for cohort in (*rules.cohorts, SHARED)}),
    )
