"""What was done, as events for the ledger; and what differs between two policies."""

from __future__ import annotations

from dataclasses import replace

from clusters import H100, NOW, TWO, decisions, policy, running, snapshot, team, waiting

from slurm_gov.core.actions import Leave
from slurm_gov.core.decision import Decision, Plan, Preempt, Reason
from slurm_gov.core.policy import frozen
from slurm_gov.core.snapshot import Mark
from slurm_gov.daemon.deeds import Deeds
from slurm_gov.ledger import Event, Kind
from slurm_gov.policy.compare import Difference, differences

GPU = "gres/gpu"
PREEMPT = Preempt(7, "7_3", "research", 9, "9", "product", "takes back 8 of h100")
PARENTS = frozen({"research": "root", "product": "root", "lab": "research"})


def deeds(*decided: Decision, preempt: tuple[Preempt, ...] = (), caps: int | None = 40) -> tuple[Deeds, list[Event]]:
    told: list[Event] = []
    have = frozen({"research": frozen({} if caps is None else {H100: caps, GPU: caps})})
    seen = snapshot(8, parents=PARENTS, caps=have)
    return Deeds(TWO, seen, Plan({}, preempt, decisions=decisions(*decided)), told.append), told


def starts(job: int, team: str = "research") -> Decision:
    return Decision(job, str(job), team, "h100", Reason.STARTS_NOW, "")


def test_a_raised_cap_names_who_may_start() -> None:
    done, told = deeds(starts(4), starts(5), starts(6), starts(3, "product"))
    done.caps("cap raised", {"research": {H100: 64, GPU: 64}})
    why = "so that job 4 and 2 others can start"
    assert told == [Event(Kind.CAP, why, team="research", pool="h100", gpus=24, before="40", after="64")]


def test_a_lowered_cap_says_for_whom() -> None:
    done, told = deeds(preempt=(PREEMPT,))
    done.caps("cap lowered", {"research": {H100: 32, GPU: 32}})
    assert [(one.before, one.after, one.why) for one in told] == [
        ("40", "32", "what job 7_3 will leave is for product")
    ]
    done, told = deeds()
    done.caps("cap lowered", {"research": {H100: 32, GPU: 32}})
    assert [one.why for one in told] == ["nothing more is lent to it"]


def test_a_first_cap_and_an_untyped_one_alone() -> None:
    done, told = deeds(caps=None)
    done.caps("cap lowered", {"research": {H100: 32, GPU: 32}})
    assert [(one.pool, one.before, one.after) for one in told] == [("h100", "none", "32")]
    done, told = deeds()
    done.caps("cap raised", {"research": {GPU: 48}})
    assert [(one.pool, one.before, one.after) for one in told] == [("", "40", "48")]


def test_a_preempted_job_and_its_end() -> None:
    done, told = deeds()
    job = replace(running(7, "lab", "n1 n2"), display_id="7_3", user="ann")
    leave = Leave(job, PREEMPT, Mark(9, "product", NOW, NOW + 30, job.start, "why it"))
    about = {"team": "research", "pool": "h100", "gpus": 16, "job": "7_3", "user": "ann"}
    done.preempting(leave)
    done.left(leave)
    done.left(replace(leave, job=replace(job, requeueable=False)))
    done.requeued_ended(replace(job, mark=leave.mark))
    done.spared(job)
    sake = {"for_team": "product", "for_job": "9"}
    assert told == [
        Event(Kind.PREEMPT, "takes back 8 of h100", **about, **sake, after="grace 30 s"),
        Event(Kind.REQUEUE, "why it", **about, **sake, lost=1600),
        Event(Kind.CANCEL, "why it", **about, **sake, lost=1600),
        Event(Kind.REQUEUE, "it ended in its grace period, after our signal", **about, for_team="product", lost=1600),
        Event(Kind.SPARE, "nobody needs its place any more", **about),
    ]


def test_a_released_job() -> None:
    done, told = deeds()
    done.released(waiting(7, "lab"), 2.0)
    assert [(one.kind, one.job, one.team, one.user, one.after) for one in told] == [
        (Kind.RELEASE, "7", "research", "bob", "in 2 s")
    ]


def test_what_differs_between_two_policies() -> None:
    before = policy(team("research", 32), team("product", 32))
    after = policy(team("research", 40, fair_share_weight=5), team("lab", 8))
    found = {one.setting: one for one in differences(before, after)}
    assert found["teams.research.quota.h100"] == Difference("teams.research.quota.h100", "32", "40", "research")
    assert found["teams.research.fair_share_weight"].after == "5"
    assert found["teams.product"].after == ""
    assert '"quota": {"h100": 8}' in found["teams.lab"].after
    assert len(found) == 4
    assert differences(before, before) == []
