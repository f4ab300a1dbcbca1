"""What was done, told at once in two ways: a line in the log, and an event for the ledger and all who watch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slurm_gov.core.actions import Leave
from slurm_gov.core.capacity import pool_use
from slurm_gov.core.decision import Plan, Reason
from slurm_gov.core.policy import Policy
from slurm_gov.core.snapshot import Behind, Mark, RunningJob, Snapshot, Unstarted, WaitingJob
from slurm_gov.daemon.log import log
from slurm_gov.ledger import Event, Kind

Record = Callable[[Event], None]
_Starting = dict[tuple[str | None, str | None], list[str]]
_STARTS = frozenset({Reason.STARTS_NOW, Reason.RECLAIMING, Reason.PREEMPTING_WITHIN_TEAM})


@dataclass(frozen=True, slots=True)
class Deeds:
    """Tells what was done of one plan. Every method is called after Slurm has done it."""

    policy: Policy
    snapshot: Snapshot
    plan: Plan
    record: Record

    def caps(self, event: str, caps: Mapping[str, Mapping[str, int]]) -> None:
        """Caps that were set: team to TRES to amount."""
        starting: _Starting = {}
        for job in self.plan.decisions.having(_STARTS):
            starting.setdefault((job.team, job.pool), []).append(job.display_id)
        for team, limits in caps.items():
            log.info(event, team=team, **{tres.removeprefix("gres/"): amount for tres, amount in limits.items()})
            for one in self._caps(team, limits, starting):
                self.record(one)

    def _caps(self, team: str, limits: Mapping[str, int], starting: _Starting) -> Iterator[Event]:
        have = self.snapshot.caps.get(team, {})
        pools = {pool.tres: pool.name for pool in self.policy.pools.values()}
        # The untyped TRES is the sum of the typed ones: it is told only when it alone moved.
        typed = [tres for tres in limits if tres in pools]
        for tres in typed or limits:
            before, after = have.get(tres), limits[tres]
            yield Event(
                Kind.CAP,
                self._why_cap(team, pools.get(tres), before, after, starting),
                team=team,
                pool=pools.get(tres, ""),
                gpus=abs(after - (before or 0)),
                before="none" if before is None else str(before),
                after=str(after),
            )

    def _why_cap(self, team: str, pool: str | None, before: int | None, after: int, starting: _Starting) -> str:
        if before is None:
            return "it had no cap"
        if after > before:
            jobs = starting.get((team, pool))
            return f"so that {_jobs(jobs)} can start" if jobs else "its quota, and what it holds"
        ours = [one for one in self.plan.preempt if one.team == team]
        if ours:
            teams = ", ".join(sorted({one.beneficiary_team for one in ours}))
            return f"what {_jobs([one.display_id for one in ours])} will leave is for {teams}"
        return "nothing more is lent to it"

    def preempting(self, leave: Leave) -> None:
        """A job was told to leave."""
        job, preempt = leave.job, leave.preempt
        grace = round(max(0.0, leave.mark.deadline - leave.mark.since), 1)
        log.info(
            "preempting",
            job=job.display_id,
            team=preempt.team,
            user=job.user,
            beneficiary=preempt.beneficiary_display_id,
            beneficiary_team=preempt.beneficiary_team,
            grace=grace,
            reason=preempt.reason,
        )
        self.record(Event(Kind.PREEMPT, preempt.reason, **self._of(leave), after=f"grace {grace:g} s"))

    def leaves_for_another(self, leave: Leave) -> None:
        """The one that a job was told to leave for needs its place no more, and another does."""
        log.info(
            "leaves for another",
            job=leave.job.display_id,
            team=leave.preempt.team,
            beneficiary=leave.preempt.beneficiary_display_id,
            beneficiary_team=leave.preempt.beneficiary_team,
            reason=leave.mark.reason,
        )

    def left(self, leave: Leave) -> None:
        """A job was stopped at the end of its grace period."""
        job = leave.job
        log.info(
            "requeued" if job.requeueable else "cancelled",
            job=job.display_id,
            team=leave.preempt.team,
            beneficiary=leave.preempt.beneficiary_display_id,
            beneficiary_team=leave.preempt.beneficiary_team,
            reason=leave.mark.reason,
        )
        kind = Kind.REQUEUE if job.requeueable else Kind.CANCEL
        self.record(Event(kind, leave.mark.reason, **self._of(leave), lost=self._lost(job)))

    def requeued_ended(self, job: RunningJob) -> None:
        """A job that our signal had stopped was requeued."""
        why = "it ended in its grace period, after our signal"
        log.info("requeued", job=job.display_id, account=job.account, reason=why)
        for_team = job.mark.team if job.mark else ""
        self.record(Event(Kind.REQUEUE, why, **self._held(job), for_team=for_team, lost=self._lost(job)))

    def spared(self, job: RunningJob) -> None:
        """A job that was told to leave may stay."""
        why = "nobody needs its place any more"
        log.info("spared", job=job.display_id, account=job.account, reason=why)
        self.record(Event(Kind.SPARE, why, **self._held(job)))

    def released(self, job: WaitingJob, delay: float) -> None:
        """A requeued job may start again, after so many seconds."""
        log.info("may start again", job=job.display_id, account=job.account, delay=delay)
        team = self.snapshot.team_of(self.policy, job.account) or ""
        after = f"in {delay:g} s" if delay else "now"
        self.record(
            Event(
                Kind.RELEASE,
                "Slurm would let it wait longer after its requeue",
                team=team,
                job=job.display_id,
                user=job.user,
                after=after,
            )
        )

    def waits_on(self, job: WaitingJob, mark: Mark) -> None:
        """A requeued job was made to wait until that for which it left has started."""
        log.info("waits on", job=job.display_id, account=job.account, beneficiary=mark.beneficiary, until=mark.held)

    def stepped_back(self, job: WaitingJob, behind: Behind) -> None:
        """A waiting job was made to wait behind another of its team."""
        if job.behind is None:
            log.info("steps back", job=job.display_id, account=job.account, behind=behind.job)

    def let_go(self, job: WaitingJob) -> None:
        """It may start again."""
        log.info("no longer behind", job=job.display_id, account=job.account, behind=job.behind and job.behind.job)

    def unstarted(self, job: WaitingJob, note: Unstarted) -> None:
        """Slurm has not started a job for which there seemed to be room: nothing is kept for it for a while."""
        log.warning(
            "Slurm does not start it",
            job=job.display_id,
            account=job.account,
            reason=job.slurm_reason,
            comes_last_for=f"{note.until - note.since:.0f} s",
        )

    def _of(self, leave: Leave) -> dict[str, Any]:
        preempt = leave.preempt
        return {
            **self._held(leave.job),
            "for_team": preempt.beneficiary_team,
            "for_job": preempt.beneficiary_display_id,
        }

    def _lost(self, job: RunningJob) -> int:
        gpus = sum(pool_use(self.policy, job).values())
        return round(gpus * max(0.0, self.snapshot.now - job.kept))

    def _held(self, job: RunningJob) -> dict[str, Any]:
        use = pool_use(self.policy, job)
        return {
            "team": self.snapshot.team_of(self.policy, job.account) or "",
            "pool": next(iter(use), ""),
            "gpus": sum(use.values()),
            "job": job.display_id,
            "user": job.user,
        }


def _jobs(ids: list[str]) -> str:
    """ "job 7", "jobs 7 and 8", "job 7 and 4 others": short, however many there are."""
    if len(ids) <= 2:
        return f"job{'s' if len(ids) > 1 else ''} {' and '.join(ids)}"
    return f"job {ids[0]} and {len(ids) - 1} others"
