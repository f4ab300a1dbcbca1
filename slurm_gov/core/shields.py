"""What keeps a running job from being preempted, whoever asks: rules of the policy about the job itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from slurm_gov.core.policy import Policy
from slurm_gov.core.snapshot import RunningJob
from slurm_gov.core.words import span


class Rule(StrEnum):
    """Which setting it is; ``JUST_SPARED`` is none: one signal in one grace period is enough."""

    NOT_REQUEUEABLE = "if_not_requeueable"
    PROTECTED_CLASS = "protected"
    MIN_RUNTIME = "min_runtime"
    MAX_PREEMPTIONS = "max_preemptions"
    JUST_SPARED = "just_spared"


@dataclass(frozen=True, slots=True)
class Shield:
    """Why a job may not be preempted now. ``until`` is when that ends; ``None``: not before the job does."""

    rule: Rule
    until: float | None
    why: str


def shield(policy: Policy, team: str, job: RunningJob, now: float) -> Shield | None:
    """What keeps this job of a team from being preempted now, if anything does.

    A job whose grace period has begun is not saved by its run time or its past: it was right when it began.
    """
    rules = policy.preemption
    if not (job.requeueable or rules.cancel_unrequeueable):
        return Shield(Rule.NOT_REQUEUEABLE, None, "it cannot be requeued (if_not_requeueable: never)")
    of_class = rules.classes.get(job.qos)
    if of_class is not None and of_class.protected:
        return Shield(Rule.PROTECTED_CLASS, None, f"class {job.qos} is protected")
    if job.being_preempted:
        return None
    if job.was_spared and job.mark is not None and job.mark.deadline > now:
        return Shield(Rule.JUST_SPARED, job.mark.deadline, "it has just been told to leave, and that it may stay")
    least = min_runtime(policy, team, job.qos)
    if least and max(0.0, now - job.start) < least:
        return Shield(Rule.MIN_RUNTIME, job.start + least, f"it has not run for {span(least)} yet (min_runtime)")
    most = rules.max_preemptions
    if most is not None and len(job.preempted) >= most.count:
        until = sorted(one.at for one in job.preempted)[-most.count] + most.per
        if until > now:
            times = "once" if most.count == 1 else f"{most.count} times"
            why = f"it was preempted {times} in the last {span(most.per)} (max_preemptions)"
            return Shield(Rule.MAX_PREEMPTIONS, until, why)
    return None


def may_have_shield(policy: Policy, team: str, job: RunningJob) -> bool:
    """Whether anything may ever keep this job from being preempted, whatever the time."""
    rules = policy.preemption
    of_class = rules.classes.get(job.qos)
    return (
        not (job.requeueable or rules.cancel_unrequeueable)
        or (of_class is not None and of_class.protected)
        or job.mark is not None
        or min_runtime(policy, team, job.qos) > 0
        or (rules.max_preemptions is not None and len(job.preempted) > 0)
    )


def min_runtime(policy: Policy, team: str, qos: str) -> float:
    """How long a job of this team and class runs before it may be preempted, in seconds: the longer one of what
    its team and its class have, or else what holds for all.
    """
    of_class = policy.preemption.classes.get(qos)
    own = policy.teams[team].min_runtime
    theirs = of_class.min_runtime if of_class is not None else None
    if own is None and theirs is None:
        return policy.preemption.min_runtime
    return max(own or 0.0, theirs or 0.0)
