"""What keeps a running job from being preempted, and that plans keep to it."""

from __future__ import annotations

from dataclasses import replace

from clusters import NOW, being_preempted, policy, running, snapshot, team, waiting

from slurm_gov.core.plan import plan
from slurm_gov.core.policy import ClassRules, MaxPreemptions, Policy, Preemption, frozen
from slurm_gov.core.shields import Rule, shield
from slurm_gov.core.snapshot import Mark, Preempted, RunningJob

DAY = 86400.0


def rules(min_runtime: float | None = None, **preemption) -> Policy:
    """Two teams; research's jobs have this minimum run time."""
    preemption["classes"] = frozen(preemption.get("classes", {}))
    return policy(
        team("research", 32, min_runtime=min_runtime), team("product", 32), preemption=Preemption(**preemption)
    )


def at(*times: float) -> tuple[Preempted, ...]:
    """Earlier preemptions at these times."""
    return tuple(map(Preempted, times))


def victims(policy: Policy, *jobs: RunningJob) -> list[int]:
    """Whom product preempts for a node, where research holds all with these jobs on eight nodes."""
    decided = plan(policy, snapshot(8, *jobs, waiting(99, "product")))
    return [one.job for one in decided.preempt]


def on(node: int, **more) -> RunningJob:
    return running(node, "research", f"n{node}", **more)


def eight(**by_node: dict) -> list[RunningJob]:
    """Research on all nodes, the last one started 100 s ago, each other one 1000 s before the next."""
    return [
        on(n, **({"start": NOW - 100 - 1000 * (8 - n)} | by_node.get(f"n{n}", {}))) for n in range(1, 9)
    ]  # fmt: skip


def test_the_most_recently_started_goes_first_if_nothing_keeps_it() -> None:
    assert victims(rules(), *eight()) == [8]


def test_a_minimum_runtime_of_the_team_goes_before_the_general_one() -> None:
    assert victims(rules(min_runtime=2000.0), *eight()) == [6]
    general = Preemption(min_runtime=5000.0)
    assert victims(replace(rules(), preemption=general), *eight()) == [3]
    assert victims(replace(rules(min_runtime=0.0), preemption=general), *eight()) == [8]


def test_of_team_and_class_the_longer_minimum_holds() -> None:
    classes = {"training": ClassRules(min_runtime=3000.0)}
    assert victims(rules(2000.0, classes=classes), *eight()) == [5]
    assert victims(rules(4000.0, classes=classes), *eight()) == [4]
    assert victims(rules(2000.0, classes=classes), *eight(n8={"qos": "experiment"})) == [5]
    assert victims(rules(50.0, classes=classes), *eight(n8={"qos": "experiment"})) == [8]


def test_a_job_in_its_grace_period_leaves_although_it_ran_too_short() -> None:
    jobs = eight()
    jobs[7] = being_preempted(jobs[7], 99)
    assert victims(rules(min_runtime=2000.0), *jobs) == [8]


def test_a_job_that_was_just_spared_is_left_alone_until_its_grace_period_would_have_ended() -> None:
    jobs = eight()
    mark = Mark(99, "product", NOW - 5, NOW + 25, jobs[7].start, spared=True)
    jobs[7] = replace(jobs[7], mark=mark)
    found = shield(rules(), "research", jobs[7], NOW)
    assert found is not None and (found.rule, found.until) == (Rule.JUST_SPARED, NOW + 25)
    assert victims(rules(), *jobs) == [7]
    for later in (replace(mark, deadline=NOW), replace(mark, run=NOW - 5000)):
        jobs[7] = replace(jobs[7], mark=later)
        assert victims(rules(), *jobs) == [8]


def test_protected_classes_are_never_preempted() -> None:
    classes = {"inference": ClassRules(protected=True)}
    jobs = eight(n8={"qos": "inference"}, n7={"qos": "inference"})
    assert victims(rules(classes=classes), *jobs) == [6]
    assert victims(rules(classes=classes), *eight(**{f"n{n}": {"qos": "inference"} for n in range(1, 9)})) == []


def test_a_class_that_a_new_policy_protects_is_spared_in_its_grace_period() -> None:
    jobs = eight(n8={"qos": "inference"})
    jobs[7] = being_preempted(jobs[7], 99)
    seen = snapshot(8, *jobs, waiting(99, "product"))
    decided = plan(rules(classes={"inference": ClassRules(protected=True)}), seen)
    assert ([one.job for one in decided.preempt], decided.spare) == ([7], (8,))


def test_within_a_team_too() -> None:
    classes = {"experiment": ClassRules(protected=True)}
    jobs = [on(n, qos="experiment" if n < 4 else "training") for n in range(1, 5)]
    full = policy(team("research", 32, borrow=0), preemption=Preemption(classes=frozen(classes)))
    decided = plan(full, snapshot(8, *jobs, waiting(99, "research", qos="inference")))
    assert [one.job for one in decided.preempt] == [4]


def test_a_job_that_was_preempted_often_is_left_alone_for_a_while() -> None:
    twice = MaxPreemptions(2, DAY)
    often = {"preempted": at(NOW - 100, NOW - 5000, NOW - 3 * DAY)}
    assert victims(rules(max_preemptions=twice), *eight(n8=often)) == [7]
    just_so_often = {"preempted": at(NOW - 100, NOW - 5000)}
    assert victims(rules(max_preemptions=twice), *eight(n8=just_so_often)) == [7]
    once_of_late = {"preempted": at(NOW - 100, NOW - DAY, NOW - 3 * DAY)}
    assert victims(rules(max_preemptions=twice), *eight(n8=once_of_late)) == [8]
    assert victims(rules(), *eight(n8=often)) == [8]


def test_a_shield_says_which_rule_it_is_and_when_it_ends() -> None:
    strict = rules(3600.0, max_preemptions=MaxPreemptions(2, DAY))
    young = shield(strict, "research", on(1, start=NOW - 600), NOW)
    assert young is not None
    assert (young.rule, young.until, young.why) == (
        Rule.MIN_RUNTIME,
        NOW + 3000,
        "it has not run for 1 h yet (min_runtime)",
    )
    often = on(1, start=NOW - DAY, preempted=at(NOW - 70, NOW - 5000, NOW - 6000))
    found = shield(strict, "research", often, NOW)
    assert found is not None
    assert (found.rule, found.until, found.why) == (
        Rule.MAX_PREEMPTIONS,
        NOW - 5000 + DAY,
        "it was preempted 2 times in the last 1 d (max_preemptions)",
    )
    loose = shield(strict, "research", on(1, requeueable=False), NOW)
    assert loose is not None
    assert (loose.rule, loose.until) == (Rule.NOT_REQUEUEABLE, None)
    assert shield(strict, "research", on(1, start=NOW - 3600), NOW) is None


def test_what_was_saved_at_a_checkpoint_is_not_lost() -> None:
    """Each of research's jobs fills a node; the one that would lose least goes."""
    jobs = eight(n3={"checkpoint": NOW - 10})
    assert victims(rules(), *jobs) == [3]
    assert victims(rules(), *eight(n3={"checkpoint": NOW - 101})) == [8]
    # What an earlier run saved does not count; a checkpoint in the future is one made now.
    assert victims(rules(), *eight(n8={"checkpoint": NOW - DAY})) == [8]
    assert victims(rules(), *eight(n3={"checkpoint": NOW}, n5={"checkpoint": NOW + DAY})) == [3]
