"""Quotas of CPUs beside those of GPUs: limits hold, and nobody within all its quotas loses a job to another team."""

from __future__ import annotations

from dataclasses import replace

from checker import pool_of, team_of, use_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_one_cycle import (
    caps_cover_quotas,
    every_waiting_job_has_one_reason,
    lent_is_idle_and_given_once,
    limits_hold,
    victims_may_be_preempted,
)
from worlds import World, pick, worlds

from slurm_gov.core.decision import Reason
from slurm_gov.core.plan import plan
from slurm_gov.core.policy import Quota, frozen
from slurm_gov.core.snapshot import RunningJob, RunState


@st.composite
def with_cpus(draw: st.DrawFn) -> World:
    """Some teams have a quota of CPUs in some pool."""
    world = draw(worlds())
    teams = {}
    for team in world.policy.teams.values():
        mine = {
            f"{pool}/cpu": Quota(draw(pick([16, 0, 4, 64])), draw(pick([None, 0, 8])), draw(pick([None, 0, 8])))
            for pool in world.policy.pools
            if draw(st.booleans())
        }
        teams[team.name] = replace(team, quotas=frozen({**team.quotas, **mine}))
    return World(replace(world.policy, teams=frozen(teams)), world.snapshot)


def cpus(world: World, job: RunningJob, pool: str) -> int:
    here = job.partition in world.policy.pools[pool].partitions
    return sum(held.cpus for held in job.held) if here else 0


@settings(max_examples=700)
@given(with_cpus())
def test_limits_of_cpus_hold(world):
    policy, snapshot = world.policy, world.snapshot
    decided = plan(policy, snapshot)
    for rule in (
        caps_cover_quotas,
        limits_hold,
        lent_is_idle_and_given_once,
        victims_may_be_preempted,
        every_waiting_job_has_one_reason,
    ):
        rule(world, decided)
    leaving = {one.job for one in decided.preempt}
    starts = {one.job for one in decided.decisions if one.reason is Reason.STARTS_NOW}
    for team in policy.teams.values():
        for resource, quota in team.quotas.items():
            pool, _, kind = resource.partition("/")
            if not kind:
                continue
            mine = [job for job in snapshot.running if team_of(policy, snapshot, job.account) == team.name]
            mine = [job for job in mine if job.state is not RunState.COMPLETING]
            before = sum(cpus(world, job, pool) for job in mine)
            after = sum(cpus(world, job, pool) for job in mine if job.id not in leaving)
            started = sum(
                job.request.cpus
                for job in snapshot.waiting
                if job.id in starts
                and team_of(policy, snapshot, job.account) == team.name
                and (found := pool_of(policy, job)) is not None
                and found.name == pool
            )
            assert decided.caps[team.name]["cpu"] >= quota.nominal
            if quota.borrow is not None and started:
                assert after + started <= max(before, quota.nominal + quota.borrow)


@settings(max_examples=500)
@given(with_cpus())
def test_nobody_within_all_its_quotas_loses_a_job_to_another_team(world):
    policy, snapshot = world.policy, world.snapshot
    decided = plan(policy, snapshot)
    gpus = use_of(policy, snapshot, snapshot.running)
    used = {
        team: {
            resource: gpus[team, resource]
            if resource in policy.pools
            else sum(
                cpus(world, job, resource.partition("/")[0])
                for job in snapshot.running
                if team_of(policy, snapshot, job.account) == team
            )
            for resource in policy.teams[team].quotas
        }
        for team in policy.teams
    }
    for one in decided.preempt:
        if one.team != one.beneficiary_team:
            quotas = policy.teams[one.team].quotas
            assert any(amount > quotas[resource].nominal for resource, amount in used[one.team].items())
