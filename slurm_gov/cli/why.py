"""slurm-gov why: everything about one job's waiting, running, or having been preempted."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from slurm_gov.cli.common import Failure, as_json, print_json
from slurm_gov.cli.look import ended, policy_file
from slurm_gov.cli.look import look as take_a_look

if TYPE_CHECKING:
    from rich.console import Console

    from slurm_gov.core.rows import Look, RunningRow, TeamRow, WaitingRow

SHOWN = 5
"""Of an array's running tasks, at most so many are explained in full."""

SLURM_SAYS = {
    "AssocGrpGRES": "its team's cap (the account's GrpTRES) is reached",
    "Priority": "jobs with a higher priority wait before it",
    "Resources": "it is next, and waits for nodes to become free",
    "None": "Slurm has not looked at it yet",
    "BeginTime": "its earliest start has not come",
    "Dependency": "it waits for other jobs",
    "JobHeldUser": "its user holds it",
    "JobHeldAdmin": "an administrator holds it",
    "ReqNodeNotAvail": "a node that it needs is not available",
}


class JobId(click.ParamType):  # type: ignore[type-arg]
    """``123``, or ``123_4`` for one task of an array."""

    name = "job id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from slurm_gov.core.rows import JOB_ID

        if not JOB_ID.fullmatch(value, endpos=40) or not value.isascii():
            remedy = "write 123, 123_4 for a task of an array, or 123+1 for a component of a het job"
            self.fail(f"{value!r} is no job id: {remedy}", param, ctx)
        return value


@click.command()
@click.argument("ids", metavar="JOBID...", nargs=-1, required=True, type=JobId())
@policy_file
@as_json
def why(ids: tuple[str, ...], policy_path: str, as_json: bool) -> None:
    """Explain jobs: why one waits, what a running one counts as, by whom one was preempted.

    JOBID is a number, 123_4 for one task of an array (123 is then all of it), or 123+1 for a component of a
    het job.

    For a waiting job: what it asks for, its place in line, the reason with its figures, whose jobs leave for
    it, and what Slurm itself gives as reason. For a running job: whether it is within its team's quota or
    borrowed, and whether it is being preempted: for whom, why, and until when. For both: when the job was
    preempted before, and for whom.

    \b
    Examples:
      slurm-gov why 4711
      slurm-gov why 4711_3 4712
      slurm-gov why --json 4711 | jq -r '.jobs[0].job.why'

    \b
    Exit codes:
      0  every job explained
      1  a job is not in Slurm's queue (the others are still explained),
         Slurm does not answer, or the policy is wrong
      2  wrong usage
    """
    from slurm_gov.cli import words
    from slurm_gov.core import rows

    look = take_a_look(policy_path)
    every: list[RunningRow | WaitingRow] = [*rows.waiting(look), *rows.running(look)]
    found = {id: _estimated(look, rows.find(every, id)) for id in dict.fromkeys(ids)}
    unknown = [id for id, some in found.items() if not some]
    known = {row.id: row for some in found.values() for row in some}
    missing = _missing(unknown, look.snapshot.now)
    if as_json:
        print_json(
            {
                "time": look.snapshot.now,
                "jobs": [as_data(look, row) for row in known.values()],
                "unknown": [{"job": id, "message": text} for id, text in missing.items()],
            }
        )
    else:
        out = words.output()
        shown: set[int] = set()
        for id, some in found.items():
            # 123 and 123_4 on one command line may name the same task.
            if new := [row for row in some if row.id not in shown]:
                if shown:
                    out.print()
                _show(out, look, id, new)
                shown.update(row.id for row in new)
    if missing:
        *first, last = missing.values()
        raise Failure(last, [f"slurm-gov: {text}" for text in first])


def _estimated(look: Look, some: list[RunningRow | WaitingRow]) -> list[RunningRow | WaitingRow]:
    from slurm_gov.core import rows

    waiting = {row.id: row for row in rows.estimated(look, (row for row in some if isinstance(row, rows.WaitingRow)))}
    return [waiting.get(row.id, row) for row in some]


def as_data(look: Look, row: RunningRow | WaitingRow) -> dict[str, object]:
    """The JSON of one job: ``kind`` says which keys ``job`` has."""
    from slurm_gov.core import rows

    team = _team(look, row)
    for_it = rows.preempted_for(look, row) if isinstance(row, rows.WaitingRow) else []
    return {
        "kind": "waiting" if isinstance(row, rows.WaitingRow) else "running",
        "job": asdict(row),
        "team": asdict(team) if team else None,
        "preempted_for_it": [asdict(one) for one in for_it],
    }


def _team(look: Look, row: RunningRow | WaitingRow) -> TeamRow | None:
    from slurm_gov.core import rows

    return next((one for one in rows.teams(look) if one.team == row.team and one.pool == row.pool), None)


def _missing(ids: list[str], now: float) -> dict[str, str]:
    """What to say of jobs that the queue does not have."""
    from slurm_gov.cli.words import clock

    known = ended(ids) if ids else {}
    texts = {}
    for id in ids:
        state, end = known.get(id, ("", None))
        if not state:
            texts[id] = f"there is no job {id} in Slurm's queue, nor in its accounting"
        elif end is None:
            texts[id] = f"job {id} is not in Slurm's queue; its accounting says {state}"
        else:
            texts[id] = f"job {id} has ended: {state} at {clock(end, now)}"
    return texts


def _show(out: Console, look: Look, id: str, some: list[RunningRow | WaitingRow]) -> None:
    from slurm_gov.cli import words
    from slurm_gov.cli.common import plain
    from slurm_gov.core import rows

    for number, row in enumerate(some[:SHOWN]):
        if number:
            out.print()
        if isinstance(row, rows.WaitingRow):
            _waiting(out, look, row)
        else:
            _running(out, look, row)
    if len(some) > SHOWN:
        out.print()
        rest = words.count(len(some) - SHOWN, "task")
        out.print(plain(f"and {rest} more of job {id}; slurm-gov why {some[SHOWN].job} explains one"))


def _waiting(out: Console, look: Look, row: WaitingRow) -> None:
    from slurm_gov.cli import words
    from slurm_gov.core import rows

    now = look.snapshot.now
    slurm = SLURM_SAYS.get(row.slurm_reason, "")
    lines = [
        ("asks for", words.ask(row)),
        ("", _limit(row.time_limit)),
        (_since(row), f"{words.clock(row.submitted, now)}, {words.span(now - row.submitted)} ago"),
        *_team_lines(look, row),
        ("decision", row.reason),
        ("because", row.why),
        *(
            ("preempts", f"job {one.job} of {one.team}, {one.gpus} GPUs: {words.phase(one, now)}")
            for one in rows.preempted_for(look, row)
        ),
        ("in line", _place(row)),
        ("stands back", _stands_back(row, now)),
        ("may start", _held(row, now)),
        ("earliest", words.earliest(row, now)),
        ("Slurm says", f"{row.slurm_reason}: {slurm}" if slurm else row.slurm_reason),
        *_history(row, now),
    ]
    _block(out, _title(row, "waiting"), "yellow", lines)


def _stands_back(row: WaitingRow, now: float) -> str:
    """That it was made to wait behind another of its team."""
    from slurm_gov.cli.words import clock

    if row.behind_until is None:
        return ""
    return (
        f"behind job {row.behind} of its team, which needs the room; until {clock(row.behind_until, now)}, or longer"
    )


def _held(row: WaitingRow, now: float) -> str:
    """Until when it waits for the job for which it left."""
    from slurm_gov.cli.words import clock

    if row.held_until is None:
        return ""
    return f"at {clock(row.held_until, now)} at the latest, unless job {row.left_for} is about to start then"


def _place(row: WaitingRow) -> str:
    from slurm_gov.cli import words

    if not row.place or not row.team_place:
        return "no place: it is not ready to run"
    pool = row.pool or "no pool"
    text = f"{words.ordinal(row.place)} of {row.in_line} that wait for {pool} (Slurm's priority {row.slurm_priority})"
    if row.team is None:
        return text
    text += f"; {words.ordinal(row.team_place)} of {row.team_in_line} of team {row.team}"
    return text if row.team_place == 1 else f"{text}, next in line is {row.next_in_line}"


def _running(out: Console, look: Look, row: RunningRow) -> None:
    from slurm_gov.cli import words
    from slurm_gov.core import rows

    now = look.snapshot.now
    lines = [
        ("holds", f"{words.count(row.gpus, 'GPU')} on {_names(row.nodes)}"),
        ("since", f"{words.clock(row.since, now)}, {words.span(now - row.since)} ago"),
        ("", _limit(row.time_limit)),
        *_team_lines(look, row),
        ("quota", _quota(row)),
        ("checkpoint", f"{words.clock(row.checkpoint, now)}, as it says" if row.checkpoint else ""),
        ("stays", _stays(row, now)),
    ]
    one = row.preemption
    if one is not None:
        when = {
            rows.Phase.NEXT_CYCLE: "it will be preempted in the next cycle",
            rows.Phase.SPARED: "it was to be preempted, but nobody needs its place any more: it stays",
        }.get(one.phase, "it is being preempted")
        lines += [
            ("preempted", f"{when}, for job {one.beneficiary} of team {one.beneficiary_team}"),
            ("because", one.reason),
        ]
        if one.since is not None and one.deadline is not None and one.phase is not rows.Phase.SPARED:
            left = f"{words.span(one.seconds_left or 0)} left" if one.phase is rows.Phase.GRACE else "over"
            lines.append(
                (
                    "until",
                    f"{words.clock(one.deadline, now)}, then {one.then} (signalled "
                    f"{words.clock(one.since, now)}, grace period: {left})",
                )
            )
    lines += _history(row, now)
    _block(out, _title(row, row.state), "green", lines)


def _title(row: RunningRow | WaitingRow, state: str) -> str:
    team = f"team {row.team}" if row.team else "no team"
    account = f", account {row.account}" if row.account != row.team else ""
    return f"job {row.job}: {state}  ({team}{account}, user {row.user}, class {row.priority_class})"


def _team_lines(look: Look, row: RunningRow | WaitingRow) -> list[tuple[str, str]]:
    team = _team(look, row)
    if team is None:
        return []
    limit = "unlimited" if team.borrow_limit is None else str(team.borrow_limit)
    cap = "none" if team.cap is None else str(team.cap)
    if team.cap != team.planned_cap:
        cap += f", {team.planned_cap} after the next cycle"
    return [
        (
            "team",
            f"{team.team} holds {team.used} {team.pool} of its quota of {team.quota}: borrowed {team.borrowed} "
            f"(limit {limit}), lent {team.lent}; cap {cap}",
        )
    ]


def _quota(row: RunningRow) -> str:
    if row.team is None:
        return "none: its account belongs to no team, Slurm alone decides"
    if row.pool is None:
        return "it holds no GPUs of a pool"
    if not row.borrowed:
        return f"within the quota of {row.team}"
    part = "all of its GPUs are" if row.borrowed >= row.gpus else f"{row.borrowed} of its {row.gpus} GPUs are"
    back = "an owner may take them back" if row.requeueable else "it cannot be requeued"
    return f"borrowed: {part} above the quota of {row.team}; {back}"


def _stays(row: RunningRow, now: float) -> str:
    """What keeps it from being preempted."""
    from slurm_gov.cli.words import clock

    if not row.stays_because:
        return ""
    until = f" before {clock(row.stays_until, now)}" if row.stays_until else ""
    return f"it is not preempted{until}: {row.stays_because}"


def _history(row: RunningRow | WaitingRow, now: float) -> list[tuple[str, str]]:
    from slurm_gov.cli.words import clock, ordinal

    found: list[tuple[float, str, str]] = []
    if (past := row.preempted_before) is not None:
        text = f"preempted at {clock(past.at, now)} for job {past.beneficiary} of team {past.beneficiary_team}"
        found.append((past.at, text, past.reason))
    if (fault := row.fault) is not None:
        text = f"stopped at {clock(fault.at, now)} by a fault of node {fault.node}"
        if fault.until:
            text = f"told to save its work, node {fault.node} is sick: requeued at {clock(fault.until, now)}"
        text += f", the {ordinal(fault.count)} time" if fault.count > 1 else ""
        found.append((fault.at, text, fault.reason))
    return [("before", f"{text}: {why}" if why else text) for _, text, why in sorted(found, reverse=True)]


def _since(row: WaitingRow) -> str:
    """Slurm's submit time of a requeued job is the time of its requeue."""
    stops = [one.at for one in (row.preempted_before, row.fault) if one is not None]
    return "requeued" if any(row.submitted >= at - 1 for at in stops) else "submitted"


def _limit(seconds: float | None) -> str:
    from slurm_gov.cli.words import span

    return f"time limit {span(seconds)}" if seconds else ""


def _names(nodes: tuple[str, ...]) -> str:
    import hostlist

    return hostlist.collect_hostlist(nodes) if nodes else "no node"


def _block(out: Console, title: str, style: str, lines: list[tuple[str, str]]) -> None:
    from rich.table import Table

    from slurm_gov.cli.common import plain

    out.print(plain(title, f"bold {style}"))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(min_width=12)
    grid.add_column(overflow="fold")
    for name, text in lines:
        if text:
            grid.add_row(plain(f"  {name}", "dim"), plain(text))
    out.print(grid)
