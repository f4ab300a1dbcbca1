"""Doing what a plan asks for: lower caps, then preempt, then raise caps.

In that order what a preempted job leaves goes to whom it was taken for: its team's cap is down before it goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any

from slurm_gov.core.actions import WAIT_ON, Actions, Leave, left_after_all
from slurm_gov.core.policy import Policy
from slurm_gov.core.snapshot import Behind, Mark, RunningJob, Unstarted, WaitingJob
from slurm_gov.daemon.deeds import Deeds
from slurm_gov.daemon.log import log
from slurm_gov.slurm.client import SlurmClient, SlurmError, SlurmUnavailable


async def act(client: SlurmClient, policy: Policy, actions: Actions, now: float, done: Deeds) -> int:
    """Make Slurm so; returns how many actions failed. Each is retried by the next cycle, being still needed.

    Raises ``SlurmUnavailable``, with the rest left undone, when Slurm stops answering. If a cap cannot be
    lowered nobody is preempted: what they leave could go to the wrong team.
    """
    await _set_caps(client, "cap lowered", actions.lower, done)
    # Before anybody leaves: what one leaves early is not for these.
    failures = await _each(*(_step_back(client, job, behind, done) for job, behind in actions.step_back))
    failures += await _each(
        *(_spare(client, job, done) for job in actions.spare),
        *(_warn(client, policy, one, now, done) for one in actions.warn),
        *(_renote(client, one, done) for one in actions.renote),
    )
    failures += await _each(
        *(_leave(client, one, done) for one in (*actions.requeue, *actions.cancel)),
        *(_requeue_ended(client, job, done) for job in actions.requeue_ended),
    )
    await _set_caps(client, "cap raised", actions.raise_, done)
    if actions.nudge is not None:
        failures += await _each(client.nudge(actions.nudge))
    failures += await _each(
        *(_release(client, job, delay, done) for job, delay in actions.release),
        *(_wait_on(client, job, mark, done) for job, mark in actions.wait_on),
        *(_let_go(client, job, now, done) for job in actions.let_go),
        *(_note_unstarted(client, job, note, done) for job, note in actions.unstarted),
    )
    return failures


async def _set_caps(client: SlurmClient, event: str, caps: Mapping[str, Mapping[str, int]], done: Deeds) -> None:
    if caps:
        await client.set_caps(caps)
        done.caps(event, caps)


async def _warn(client: SlurmClient, policy: Policy, leave: Leave, now: float, done: Deeds) -> None:
    """Note on the job that it must leave, then signal it: after a crash in between, the note stands."""
    job = leave.job
    await client.mark(job.id, leave.mark)
    done.preempting(leave)
    if leave.mark.deadline > now:
        # What the job asked for with --signal goes before what the policy sends.
        await client.signal(job.id, job.signal or policy.preemption.signal)


async def _renote(client: SlurmClient, leave: Leave, done: Deeds) -> None:
    await client.mark(leave.job.id, leave.mark)
    done.leaves_for_another(leave)


async def _leave(client: SlurmClient, leave: Leave, done: Deeds) -> None:
    job = leave.job
    if job.requeueable:
        await client.requeue([job.id])
    else:
        await client.cancel([job.id])
    done.left(leave)


async def _requeue_ended(client: SlurmClient, job: RunningJob, done: Deeds) -> None:
    await client.requeue([job.id])
    done.requeued_ended(job)
    if (mark := left_after_all(job)) is not None:
        await client.mark(job.id, mark)  # not before: Slurm takes no note on a job that has ended


async def _spare(client: SlurmClient, job: RunningJob, done: Deeds) -> None:
    """Note that it may stay. That it was told to leave stays noted: it may be about to end because of that."""
    if job.mark is not None:
        await client.mark(job.id, replace(job.mark, spared=True))
    done.spared(job)


async def _release(client: SlurmClient, job: WaitingJob, delay: float, done: Deeds) -> None:
    await client.allow_start(job.id, delay)
    done.released(job, delay)


async def _wait_on(client: SlurmClient, job: WaitingJob, mark: Mark, done: Deeds) -> None:
    await client.wait_on(job.id, mark, WAIT_ON)
    done.waits_on(job, mark)


async def _step_back(client: SlurmClient, job: WaitingJob, behind: Behind, done: Deeds) -> None:
    await client.step_back(job.id, behind)
    done.stepped_back(job, behind)


async def _let_go(client: SlurmClient, job: WaitingJob, now: float, done: Deeds) -> None:
    await client.let_go(job.id, max(0.0, now - job.submit))
    done.let_go(job)


async def _note_unstarted(client: SlurmClient, job: WaitingJob, note: Unstarted, done: Deeds) -> None:
    await client.note_unstarted(job.id, note)
    done.unstarted(job, note)


async def _each(*calls: Coroutine[Any, Any, None]) -> int:
    """Run these side by side; returns how many Slurm refused (the job may have ended by itself)."""
    failures = 0
    unavailable: SlurmUnavailable | None = None
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, SlurmUnavailable):
            unavailable = result
        elif isinstance(result, SlurmError):
            failures += 1
            log.warning("action failed", error=str(result))
        elif isinstance(result, BaseException):
            raise result
    if unavailable:
        raise unavailable
    return failures
