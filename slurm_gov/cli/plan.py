"""slurm-gov plan: what the next cycle would do."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from slurm_gov.cli.common import as_json, print_json
from slurm_gov.cli.look import look as take_a_look
from slurm_gov.cli.look import policy_file

if TYPE_CHECKING:
    from rich.console import Console

    from slurm_gov.core.rows import CapChange, Look, PreemptionRow, WaitingRow


@click.command()
@policy_file
@as_json
def plan(policy_path: str, as_json: bool) -> None:
    """Show what the next cycle of slurm-govd would do, and why. Changes nothing.

    Caps are lowered first, then jobs preempted, then caps raised; Slurm then starts what fits. While slurm-govd
    runs there is seldom anything left to do but what waits for a grace period to end. With --policy it shows
    what another policy would do to the jobs as they are now.

    \b
    Examples:
      slurm-gov plan
      slurm-gov plan --policy new-policy.yaml
      slurm-gov plan --json | jq '.preempt[] | {job, beneficiary, reason}'

    \b
    Exit codes:
      0  shown, whether there is something to do or not
      1  Slurm does not answer, or the policy is wrong
      2  wrong usage
    """
    look = take_a_look(policy_path)
    if as_json:
        print_json(as_data(look))
    else:
        _show(look)


def as_data(look: Look) -> dict[str, object]:
    """The JSON of the plan."""
    from slurm_gov.core import rows
    from slurm_gov.core.decision import Reason

    lower, raise_ = rows.cap_changes(look)
    by_phase = _by_phase(look)
    waiting = rows.waiting(look)
    return {
        "time": look.snapshot.now,
        "lower": [asdict(one) for one in lower],
        "raise": [asdict(one) for one in raise_],
        "preempt": [asdict(row) for row in by_phase[rows.Phase.NEXT_CYCLE]],
        "in_grace": [asdict(row) for row in by_phase[rows.Phase.GRACE]],
        "leave": [asdict(row) for row in by_phase[rows.Phase.LEAVING]],
        "spare": [asdict(row) for row in by_phase[rows.Phase.SPARED]],
        "release": [asdict(one) for one in rows.releases(look)],
        "starts": [asdict(row) for row in waiting if row.reason is Reason.STARTS_NOW],
        "waits": [asdict(row) for row in rows.estimated(look, _go_on(waiting))],
        "warnings": rows.warnings(look),
    }


def _go_on(waiting: list[WaitingRow]) -> list[WaitingRow]:
    from slurm_gov.core.decision import Reason

    return [row for row in waiting if row.reason is not Reason.STARTS_NOW]


def _by_phase(look: Look) -> dict[str, list[PreemptionRow]]:
    from slurm_gov.core import rows

    return {phase: [row for row in rows.preemptions(look) if row.phase is phase] for phase in rows.Phase}


def _show(look: Look) -> None:
    from slurm_gov.cli import words
    from slurm_gov.cli.common import plain
    from slurm_gov.core import rows
    from slurm_gov.core.decision import Reason

    out, now = words.output(), look.snapshot.now
    lower, raise_ = rows.cap_changes(look)
    by_phase = _by_phase(look)
    releases = rows.releases(look)
    waiting = rows.waiting(look)
    if not look.actions:
        out.print(plain("nothing to do: Slurm is as the policy wants it"))
    _caps(out, "lower caps", lower)
    for phase, title in (
        (rows.Phase.NEXT_CYCLE, "preempt: signal, then a grace period"),
        (rows.Phase.GRACE, "in their grace period already"),
        (rows.Phase.LEAVING, "stop and requeue: their grace period is over"),
        (rows.Phase.SPARED, "spare: nobody needs their place any more"),
    ):
        if by_phase[phase]:
            out.print()
            out.print(plain(title, "bold"))
            words.preemption_table(out, by_phase[phase], now)
    _caps(out, "raise caps", raise_)
    if releases:
        out.print()
        out.print(plain("let requeued jobs start again", "bold"))
        for one in releases:
            out.print(plain(f"  job {one.job} {f'in {words.span(one.delay)}' if one.delay else 'now'}"))
    for title, some in (
        ("jobs that can start", [row for row in waiting if row.reason is Reason.STARTS_NOW]),
        ("jobs that go on waiting", rows.estimated(look, _go_on(waiting))),
    ):
        if some:
            out.print()
            out.print(plain(title, "bold"))
            words.waiting_table(out, some, now)
    if warnings := rows.warnings(look):
        out.print()
        words.warn(out, warnings)


def _caps(out: Console, title: str, changes: list[CapChange]) -> None:
    from slurm_gov.cli import words
    from slurm_gov.cli.common import add, plain, table

    if not changes:
        return
    out.print()
    out.print(plain(title, "bold"))
    made = table("team", "TRES", "now", "next", right=("now", "next"))
    for one in changes:
        add(made, one.team, one.tres, "none" if one.before is None else one.before, one.after)
    out.print(words.narrow(made))
