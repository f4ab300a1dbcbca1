"""slurm-gov status: pools and teams at a glance."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from slurm_gov.cli.common import as_json, print_json
from slurm_gov.cli.look import look as take_a_look
from slurm_gov.cli.look import policy_file

if TYPE_CHECKING:
    from rich.console import Console

    from slurm_gov.core.policy import Policy
    from slurm_gov.core.rows import Look, OtherRow, PoolRow, ShareRow, TeamRow


@click.command()
@policy_file
@click.option("--shares", is_flag=True, help="Also show who is served first of those that want what is idle.")
@as_json
def status(policy_path: str, shares: bool, as_json: bool) -> None:
    """Show every pool and team: quota, used, borrowed, lent, cap, running and waiting.

    \b
    quota     what the team is guaranteed
    used      what its running jobs hold
    borrowed  the part of it above the quota
    lent      how much of its unused quota others hold now
    cap       what Slurm lets it hold now (its account's GrpTRES);
              "16 > 24" if the next cycle changes it
    waiting   jobs that wait, and the GPUs they ask for; not those that are
              held, depend on other jobs, or are not ready otherwise

    Below them: jobs being preempted, with what is left of their grace period, with several controllers
    which governor leads (SLURM_GOV_DATABASE names the database that they share), and warnings. It is
    computed here from Slurm's state; slurm-govd need not run.

    With --shares also each cohort and team with its share of what is lent: the smallest is served first, of cohorts
    that nest the outermost are compared first.

    \b
    weight    its fair-share weight
    borrows   GPUs beyond its quota now; a cohort's own are lent among its
              teams first
    share     that per thousand of what could be lent to it, divided by its
              weight; "last" if it borrows and has no weight
    lately    GPUs that it borrowed on average, the policy's half_life
              forgetting, and what they add to its share if it borrows

    \b
    Examples:
      slurm-gov status
      slurm-gov status --shares
      slurm-gov status --json | jq '.teams[] | select(.borrowed > 0) | .team'

    \b
    Exit codes:
      0  shown
      1  Slurm does not answer, or the policy is wrong
      2  wrong usage
    """
    from slurm_gov.cli.database import leader
    from slurm_gov.core import rows

    look = take_a_look(policy_path)
    leads = leader()
    if as_json:
        print_json(
            {
                "time": look.snapshot.now,
                "leader": leads or None,
                "pools": [asdict(row) for row in rows.pools(look)],
                "teams": [asdict(row) for row in rows.teams(look)],
                "without_team": [asdict(row) for row in rows.without_team(look)],
                **({"shares": [asdict(row) for row in rows.shares(look)]} if shares else {}),
                "preemptions": [asdict(row) for row in rows.preemptions(look)],
                "short": [asdict(row) for row in rows.shortages(look)],
                "warnings": rows.warnings(look),
            }
        )
    else:
        _show(look, leads, shares)


def _show(look: Look, leads: str, shares: bool) -> None:
    from slurm_gov.cli import words
    from slurm_gov.cli.common import plain
    from slurm_gov.core import rows

    out = words.output()
    others = {row.pool: row for row in rows.without_team(look)}
    teams = rows.teams(look)
    for pool in rows.pools(look):
        _pool(out, pool)
        _teams(out, [row for row in teams if row.pool == pool.pool], others[pool.pool])
        out.print()
    if shares:
        _shares(out, rows.shares(look), look.policy)
        out.print()
    preemptions = rows.preemptions(look)
    if preemptions:
        out.print(plain("being preempted", "bold"))
        words.preemption_table(out, preemptions, look.snapshot.now)
        out.print()
    for short in rows.shortages(look):
        sick = f"; not healthy: {', '.join(short.sick_nodes)}" if short.sick_nodes else ""
        text = f"{short.team} is short of {short.short} of its {short.quota} {short.pool}{sick}"
        out.print(plain(text, "red"))
    if leads:
        out.print(plain(f"of several governors, {leads}"))
    words.warn(out, rows.warnings(look))


def _pool(out: Console, row: PoolRow) -> None:
    from slurm_gov.cli import words
    from slurm_gov.cli.common import plain

    sick = row.total - row.healthy
    name = plain(row.pool, "bold")
    name.append(
        f"   {words.count(row.nodes, 'node')}, {row.total} GPUs: {row.healthy} healthy, {row.used} used, "
        f"{row.free} free; quotas {row.quota}",
        style="not bold",
    )
    out.print(name)
    within = max(0, row.used - row.borrowed - row.without_team)
    parts = [
        (within, "█", "green", "within quota"),
        (row.borrowed, "▓", "yellow", "borrowed"),
        (row.without_team, "▒", "magenta", "no team"),
        (row.free, "·", "dim", "free"),
        (max(0, sick), "×", "red", "not healthy"),
    ]
    if row.total <= 0:
        return
    out.print(words.bar([part[:3] for part in parts], min(out.width, 80) - 1))
    legend = plain("")
    for amount, character, style, meaning in parts:
        if amount > 0:
            legend.append(character, style=style)
            legend.append(f" {meaning} {amount}   ")
    out.print(legend)


def _teams(out: Console, teams: list[TeamRow], others: OtherRow) -> None:
    from slurm_gov.cli import words
    from slurm_gov.cli.common import add, plain, table

    wide = out.width >= words.WIDE_ENOUGH
    columns = ["team", "quota", "used", "borrowed", "lent", "cap", "running", "waiting", *(["use"] if wide else [])]
    made = table(*columns, right=("quota", "used", "borrowed", "lent", "cap", "running"))
    largest = max((max(row.quota, row.used) for row in teams), default=0)
    for row in teams:
        if not (row.quota or row.used or row.waiting_jobs):
            continue
        cells: list[object] = [
            row.team,
            row.quota,
            row.used,
            plain(row.borrowed or "", "yellow"),
            plain(row.lent or "", "cyan"),
            plain(_cap(row), "yellow" if row.cap != row.planned_cap else ""),
            words.count(row.running_jobs, "job") if row.running_jobs else "",
            _waiting(row.waiting_jobs, row.waiting_gpus),
        ]
        if wide:
            within = min(row.used, row.quota)
            parts = [
                (within, "█", "green"),
                (row.borrowed, "▓", "yellow"),
                (max(0, row.quota - row.used), "·", "dim"),
            ]
            cells.append(words.bar(parts, max(1, round(20 * max(row.quota, row.used) / max(1, largest)))))
        add(made, *cells)
    if others.used or others.waiting_jobs:
        running = words.count(others.running_jobs, "job") if others.running_jobs else ""
        cells = [words.NO_TEAM, "", others.used, "", "", "", running]
        cells.append(_waiting(others.waiting_jobs, others.waiting_gpus))
        add(made, *cells, *([""] if wide else []), style="dim")
    if made.row_count:
        out.print(words.narrow(made))


def _shares(out: Console, rows: list[ShareRow], policy: Policy) -> None:
    from slurm_gov.cli import words
    from slurm_gov.cli.common import add, plain, table
    from slurm_gov.core.policy import Idle
    from slurm_gov.core.shares import SHARED
    from slurm_gov.core.words import span

    title = plain("shares of what is lent", "bold")
    if policy.idle is Idle.FIRST_COME:
        title.append("   without effect: the policy's sharing is first_come", style="not bold")
    elif policy.half_life is not None:
        title.append(f"   what was borrowed {span(policy.half_life)} ago counts half", style="not bold")
    out.print(title)
    columns = ["cohort or team", "weight", "borrows", "share", *(["lately"] if policy.half_life is not None else [])]
    made = table(*columns, right=columns[1:])
    depth: dict[str | None, int] = {None: 0}
    for row in rows:
        depth[row.name if not row.is_team else ""] = depth[row.cohort] + 1
        name = "(no cohort)" if row.name == SHARED else row.name
        last = row.borrowed and not row.weight
        cells: list[object] = [
            plain("  " * depth[row.cohort] + name, "" if row.is_team else "bold"),
            f"{row.weight:g}",
            plain(row.borrowed or "", "yellow"),
            "last" if last else f"{row.share:.0f}" if row.borrowed else "",
        ]
        if row.borrowed_lately is not None and row.share_lately is not None:
            lately = f"{row.borrowed_lately:.1f} (+{row.share_lately:.0f})"
            cells.append(lately if row.borrowed_lately >= 0.05 else "")
        add(made, *cells)
    out.print(words.narrow(made))


def _cap(row: TeamRow) -> str:
    now = "none" if row.cap is None else str(row.cap)
    return now if row.cap == row.planned_cap else f"{now} > {row.planned_cap}"


def _waiting(jobs: int, gpus: int) -> str:
    from slurm_gov.cli import words

    return f"{words.count(jobs, 'job')}, {words.count(gpus, 'GPU')}" if jobs else ""
