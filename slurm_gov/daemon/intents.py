"""What is to be done, in words: for ``--dry-run``, and for the mode ``observe``, which only says it."""

from __future__ import annotations

from slurm_gov.core.actions import Actions


def intents(todo: Actions, will: str) -> list[str]:
    """A line for each action, in the order of acting; ``will`` is the verb before it, such as "would"."""
    lines = [
        f"{will} {verb} the cap of {team}: {tres}={amount}"
        for verb, caps in (("lower", todo.lower), ("raise", todo.raise_))
        for team, limits in caps.items()
        for tres, amount in limits.items()
    ]
    for one in todo.warn:
        lines.append(f"{will} preempt job {one.job.display_id} ({one.preempt.team}): {one.preempt.reason}")
    for one in todo.renote:
        whom = one.preempt.beneficiary_display_id
        lines.append(f"{will} note on job {one.job.display_id} that it leaves for job {whom}: {one.preempt.reason}")
    for one in (*todo.requeue, *todo.cancel):
        verb = "requeue" if one.job.requeueable else "cancel"
        lines.append(f"{will} {verb} job {one.job.display_id} ({one.preempt.team}): its grace period is over")
    lines += [f"{will} spare job {job.display_id}: nobody needs its place any more" for job in todo.spare]
    lines += [f"{will} requeue job {job.display_id}: it ended in its grace period" for job in todo.requeue_ended]
    for waiting, delay in todo.release:
        lines.append(f"{will} let job {waiting.display_id} start again {f'in {delay:.0f} s' if delay else 'now'}")
    for waiting, mark in todo.wait_on:
        lines.append(
            f"{will} let job {waiting.display_id} wait on: job {mark.beneficiary}, for which it left, has not started"
        )
    for waiting, behind in todo.step_back:
        lines.append(f"{will} have job {waiting.display_id} wait behind job {behind.job} of its team")
    lines += [f"{will} let job {job.display_id} go: nobody of its team is ahead any more" for job in todo.let_go]
    return lines
