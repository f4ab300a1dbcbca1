"""slurm-gov jobs: running and waiting jobs with their team."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from slurm_gov.cli.common import Failure, as_json, print_json
from slurm_gov.cli.look import look as take_a_look
from slurm_gov.cli.look import policy_file

if TYPE_CHECKING:
    from slurm_gov.core.policy import Policy


@click.command()
@policy_file
@click.option("-t", "--team", metavar="TEAM", help="Only this team's jobs.")
@click.option("-u", "--user", metavar="USER", help="Only this user's jobs.")
@click.option("-s", "--state", type=click.Choice(["running", "waiting"]), help="Only running or only waiting jobs.")
@as_json
def jobs(policy_path: str, team: str | None, user: str | None, state: str | None, as_json: bool) -> None:
    """List running and waiting jobs with their team, and why each waits.

    A running job's "quota" is "within" its team's quota or "borrowed". A quota covers its team's jobs in the
    order in which an owner would leave them alone: those that cannot be requeued, then by priority class, then
    the longest-running. What is above the quota then is borrowed. "none": no team, or no GPUs of a pool. A line
    below a job says for whom it is being preempted, and how long it has.

    Waiting jobs are in Slurm's order. "line" is a job's place among those that wait for the same pool; it is
    empty if the job is not ready to run. "8 x 100" GPUs are 100 tasks of an array with 8 each. The line below a
    job says why it waits; slurm-gov why JOBID tells more.

    \b
    Examples:
      slurm-gov jobs --team research
      slurm-gov jobs --state waiting --user $USER
      slurm-gov jobs --json | jq '.running[] | select(.borrowed > 0) | .job'

    \b
    Exit codes:
      0  shown, also if there are none
      1  Slurm does not answer, the policy is wrong, or it has no such team
      2  wrong usage
    """
    from slurm_gov.cli import words
    from slurm_gov.cli.common import plain
    from slurm_gov.core import rows

    look = take_a_look(policy_path)
    if team is not None:
        _known(look.policy, team)

    def wanted(row: rows.RunningRow | rows.WaitingRow) -> bool:
        return team in (None, row.team) and user in (None, row.user)

    running = [row for row in rows.running(look) if wanted(row)] if state != "waiting" else []
    waiting = [row for row in rows.waiting(look) if wanted(row)] if state != "running" else []
    if as_json:
        print_json(
            {
                "time": look.snapshot.now,
                "running": [asdict(row) for row in running],
                "waiting": [asdict(row) for row in waiting],
            }
        )
        return
    out = words.output()
    if running:
        out.print(plain(f"{words.count(len(running), 'running job')}", "bold"))
        words.running_table(out, running, look.snapshot.now)
    if running and waiting:
        out.print()
    if waiting:
        out.print(plain(f"{words.count(sum(row.tasks for row in waiting), 'waiting job')}", "bold"))
        words.waiting_table(out, waiting, look.snapshot.now)
    if not running and not waiting:
        out.print(plain("no such jobs" if team or user or state else "no jobs"))


def _known(policy: Policy, team: str) -> None:
    from slurm_gov.policy.problems import did_you_mean, shown

    if team not in policy.teams:
        raise Failure(f"the policy has no team {shown(team)}; {did_you_mean(team, policy.teams, 'team')}")
