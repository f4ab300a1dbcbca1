"""The plan carried out again and again on a model of Slurm: nothing fights for ever, nobody starves."""

from __future__ import annotations

import random
from dataclasses import replace

from checker import Free, excess, pool_of, quota_of, team_of, use_of, wanted
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from slurm_model import CYCLE, Slurm
from test_one_cycle import RULES
from worlds import CLASSES, NOW, POOLS, World, nodes_of, pick, policies, waiting_of

from slurm_gov.core.decision import Reason
from slurm_gov.core.policy import Policy, Preemption, Quota, Rebalance, Reclaim, Team, WithinTeam, frozen
from slurm_gov.core.snapshot import Node, Request, RunState, WaitingJob

SETTLED = 3  # so many cycles without a change


class Storm:
    """A cluster and what arrives: in which cycle, what, and for how many cycles of work."""

    def __init__(self, slurm: Slurm, arrivals: list[tuple[int, WaitingJob, int]]) -> None:
        self.slurm = slurm
        self.arrivals = arrivals
        look = replace(slurm.look(), waiting=tuple(job for _, job, _ in arrivals))
        self.text = repr(World(slurm.policy, look))
        self.text += "".join(f"    {job.id} arrives at {at} for {work} cycles\n" for at, job, work in arrivals)

    def __repr__(self) -> str:
        return self.text


@st.composite
def storms(draw: st.DrawFn, grace: float, protect: bool = False) -> Storm:
    """``protect``: whether jobs that have waited long may keep later ones waiting: then GPUs are idle."""
    rules = draw(policies())
    rules = rules if protect else replace(rules, protect_after=None)
    rules = replace(rules, preemption=replace(rules.preemption, grace=grace, cancel_unrequeueable=False))
    nodes = nodes_of(draw, rules, healthy=True)
    accounts = list(rules.teams)
    jobs = [
        replace(job, held_back="", tasks=min(job.tasks, 5))
        for job in waiting_of(draw, rules, nodes, 101, accounts, 9)
    ]
    arrivals = []
    at = 0
    for job in jobs:
        at += draw(pick([0, 0, 1, 3]))
        arrivals.append((at, job, draw(pick([2, 1, 5, 20]))))
    parents = dict.fromkeys(rules.teams, "root")
    return Storm(Slurm(rules, nodes, parents, NOW), arrivals)


def step(slurm: Slurm) -> bool:
    before = World(slurm.policy, slurm.look())
    decided, changed = slurm.cycle()
    for rule in RULES:
        rule(before, decided)
    return changed


def settle(slurm: Slurm, cycles: int) -> None:
    """Nothing arrives and nothing ends: the plan must come to rest."""
    quiet = 0
    slurm.let_go()
    for _ in range(cycles):
        quiet = 0 if step(slurm) else quiet + 1
        if quiet == SETTLED:
            return
    raise AssertionError(f"no rest after {cycles} cycles; requeued so often: {slurm.requeues}")


def nothing_idle_that_somebody_may_have(slurm: Slurm) -> None:
    """At rest, every job that still waits has a limit or the nodes against it."""
    policy, look = slurm.policy, slurm.look()
    for job in slurm.waiting.values():
        pool = pool_of(policy, job)
        team = team_of(policy, look, job.account)
        if pool is None or team is None:
            continue
        free = Free(slurm.nodes, [run.job for run in slurm.runs.values()])
        request = replace(job.request, gpus={pool.tres: wanted(job)})
        if free.place(request, job.partitions[0], pool.tres) is None:
            continue
        use = use_of(policy, look, look.running)
        before = excess(policy, look, use)
        use[team, pool.name] += wanted(job)
        within = use[team, pool.name] <= quota_of(policy, team, pool.name).nominal
        allowed = all(n <= before[place] for place, n in excess(policy, look, use).items())
        assert not within and not allowed, f"job {job.id} waits although it fits and may start"


def run_storm(slurm: Slurm, arrivals: list[tuple[int, WaitingJob, int]]) -> int:
    at = 0
    for at, job, work in arrivals:
        while slurm.now < NOW + CYCLE * at:
            step(slurm)
            slurm.pass_time()
        slurm.submit(job, work)
    return at


@settings(max_examples=250)
@given(storms(0.0))
def test_it_comes_to_rest_with_nothing_idle(storm):
    slurm = storm.slurm
    run_storm(slurm, storm.arrivals)
    settle(slurm, 200)
    nothing_idle_that_somebody_may_have(slurm)


def test_three_do_not_take_turns_for_ever():
    """Job 2 may take the place of job 3, of its team and a lower class; the array's second task that of job 2,
    for ant has the smaller share; and job 3 is within bee's quota.
    """
    newer = WithinTeam.LOWER_OR_NEWER_EQUAL_PRIORITY
    ant = Team("ant", frozen({"h100": Quota(8)}), fair_share_weight=1, preempt_within_team=newer)
    bee = Team("bee", frozen({"h100": Quota(4, borrow=4)}), preempt_within_team=newer)
    rules = Policy(
        frozen({"h100": POOLS["h100"]}),
        frozen({"ant": ant, "bee": bee, "cat": Team("cat", frozen({"h100": Quota(8)}))}),
        priority_classes=frozen(CLASSES),
        rebalance=Rebalance.INITIAL_SHARE,
        lend_unallocated=False,
        preemption=Preemption(grace=0.0),
    )
    partitions, tres = POOLS["h100"].partitions, POOLS["h100"].tres
    nodes = [Node(name, partitions, frozen({tres: 8}), 64, 1_000_000) for name in ("n1", "n2")]
    slurm = Slurm(rules, nodes, dict.fromkeys(rules.teams, "root"), NOW)
    asks = [("1_[1-2]", "ant", "inference", 8, 2), ("2", "bee", "inference", 8, 1), ("3", "bee", "training", 4, 1)]
    for id, (display_id, team, qos, gpus, tasks) in enumerate(asks, 1):
        request = Request(frozen({tres: gpus}), gpus_per_node=gpus)
        slurm.submit(WaitingJob(id, display_id, "bob", team, partitions, qos, 10, NOW, request, tasks), 10**6)
    settle(slurm, 50)
    assert slurm.requeues == {2: 1, 3: 1}


@settings(max_examples=250)
@given(storms(30.0, protect=True))
def test_everybody_runs_in_the_end(storm):
    """With no new arrivals every job that can ever run has run, within the time that all together need."""
    slurm = storm.slurm
    run_storm(slurm, storm.arrivals)
    decided = None
    for _ in range(30 + 3 * sum((work + 3) * job.tasks for _, job, work in storm.arrivals)):
        if not slurm.waiting:
            return
        decided, _ = slurm.cycle()
        slurm.pass_time()
        if not slurm.runs and all(one.reason is Reason.CAN_NEVER_RUN for one in decided.decisions):
            return
    stuck = {one.job: (one.reason, one.why) for one in decided.decisions if one.reason is not Reason.CAN_NEVER_RUN}
    assert not stuck, f"still waiting: {stuck}"


@settings(max_examples=150)
@given(storms(0.0))
def test_quotas_beyond_what_is_healthy_are_no_fight(storm):
    """Every team is promised more than there is: who runs keeps it, whoever it is, and what is free is used."""
    slurm = storm.slurm
    promised = {
        name: replace(
            team,
            quotas=frozen({pool: replace(quota, nominal=1000) for pool, quota in team.quotas.items()}),
            preempt_within_team=WithinTeam.NEVER,
        )
        for name, team in slurm.policy.teams.items()
    }
    slurm.policy = replace(slurm.policy, teams=frozen(promised))
    run_storm(slurm, storm.arrivals)
    settle(slurm, 200)
    nothing_idle_that_somebody_may_have(slurm)
    assert not slurm.requeues


AT_MOST = 8
"""Cycles until an owner has its place: two of grace, one each to decide and to start, and as much again where those
who left for one make room for another.
"""


@st.composite
def crowds(draw: st.DrawFn) -> tuple[Slurm, int, list[int]]:
    """A cluster of whole nodes, enough for all quotas, and how busy each team is: one job in so many cycles. Quotas
    may be taken back from anybody.
    """
    rules = draw(policies())
    pools = list(rules.pools.values())
    teams = {}
    for name, team in rules.teams.items():
        quotas = {pool: replace(quota, nominal=quota.nominal // 8 * 8) for pool, quota in team.quotas.items()}
        within = draw(pick([WithinTeam.NEVER, WithinTeam.LOWER_PRIORITY]))
        teams[name] = replace(
            team, quotas=frozen(quotas), preempt_within_team=within, reclaim=Reclaim.ANY, min_runtime=None
        )
    cohorts = {name: replace(cohort, quotas=frozen({})) for name, cohort in rules.cohorts.items()}
    rules = replace(
        rules,
        teams=frozen(teams),
        cohorts=frozen(cohorts),
        protect_after=None,
        preemption=Preemption(grace=draw(pick([0.0, 30.0]))),
    )
    nodes = []
    for pool in pools:
        promised = sum(team.quotas[pool.name].nominal for team in teams.values()) // 8
        for number in range(max(1, promised) + draw(st.integers(0, 2))):
            nodes.append(Node(f"{pool.name}-{number}", pool.partitions, frozen({pool.tres: 8}), 64, 1_000_000))
    parents = dict.fromkeys(rules.teams, "root")
    often = [draw(pick([1, 2, 4, 8])) for _ in teams]
    return Slurm(rules, nodes, parents, NOW), draw(st.integers(0, 10**6)), often


# It would take minutes to shrink one of these.
@settings(max_examples=10, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(crowds())
def test_while_jobs_come_and_go_owners_get_their_place_and_nobody_leaves_in_vain(crowd):
    slurm, seed, often = crowd
    dice, pools = random.Random(seed), list(slurm.policy.pools.values())
    waits: dict[int, int] = {}  # first jobs within their quotas, and for how many cycles they have waited
    taken: dict[int, int] = {}  # for whom somebody left, and for how many cycles they have waited since
    for cycle in range(200):
        for number, team in enumerate(slurm.policy.teams):
            crowded = sum(job.account == team for job in slurm.waiting.values()) >= 6
            if not crowded and dice.randrange(often[number]) == 0:
                pool = dice.choice(pools)
                request = Request(frozen({pool.tres: 8}), gpus_per_node=8, cpus=8)
                job = WaitingJob(
                    1000 * (cycle + 1) + number, "", "bob", team, pool.partitions, "training", 10, 0, request
                )
                job = replace(job, display_id=str(job.id))  # of one priority: none that comes later is ahead in line
                slurm.submit(replace(job, qos=dice.choice(["training", "experiment"])), dice.randint(1, 6))
        before = World(slurm.policy, slurm.look())
        decided, changed = slurm.cycle()
        for rule in RULES:
            rule(before, decided)
        if not changed and not any(run.job.state is RunState.COMPLETING for run in slurm.runs.values()):
            nothing_idle_that_somebody_may_have(slurm)
        # Within a team jobs that come later may be ahead in line, and Slurm gives them the place; an owner may take
        # that of one that borrows.
        others = {one.beneficiary for one in decided.preempt if one.team != one.beneficiary_team}
        left_for = {job.id for job in before.snapshot.waiting if job.id in others and _within_quota(before, job)}
        # For whom one was spared after all, nobody has left.
        kept_for = {job.mark.beneficiary for job in before.snapshot.running if job.id in decided.spare} - left_for
        taken = {id: taken.get(id, 0) + 1 for id in taken.keys() | left_for if id in slurm.waiting.keys() - kept_for}
        assert max(taken.values(), default=0) <= AT_MOST, f"left for in vain: {taken}"
        waits = {id: waits.get(id, 0) + 1 for id in _first_within_quota(slurm)}
        assert max(waits.values(), default=0) <= AT_MOST, f"within their quotas: {waits}"
        slurm.pass_time()


def _first_within_quota(slurm: Slurm) -> set[int]:
    """Of each team and pool the first job in line, if its quota covers it and nothing else holds it."""
    now, found = World(slurm.policy, slurm.look()), {}
    for job in sorted(now.snapshot.waiting, key=lambda job: (-job.priority, job.id)):
        place = job.account, pool_of(slurm.policy, job).name
        if place not in found and not job.held_back:
            found[place] = job.id if _within_quota(now, job) else 0
    return set(found.values()) - {0}


def _within_quota(world: World, job: WaitingJob) -> bool:
    place = job.account, pool_of(world.policy, job).name
    use = use_of(world.policy, world.snapshot, world.snapshot.running)
    return use[place] + wanted(job) <= quota_of(world.policy, *place).nominal
