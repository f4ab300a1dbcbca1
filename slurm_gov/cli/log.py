"""slurm-gov log: what the governor did, from the ledger."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from slurm_gov.cli.common import Failure, as_json, plain
from slurm_gov.cli.database import place
from slurm_gov.cli.times import Moment
from slurm_gov.ledger import DEFAULT_LEDGER
from slurm_gov.ledger.event import GOVERNOR, Event, Kind

if TYPE_CHECKING:
    from rich.text import Text

    from slurm_gov.database import Where
    from slurm_gov.ledger import Recorded

POLL = 0.5
"""Seconds between two looks with --follow."""
LINES = 50
STYLES = {
    Kind.PREEMPT: "yellow",
    Kind.REQUEUE: "yellow",
    Kind.CANCEL: "red",
    Kind.REFUSE: "magenta",
    Kind.POLICY: "cyan",
    Kind.DAEMON: "cyan",
    Kind.NODE: "blue",
}

ledger_file = place("--ledger", "path", "SLURM_GOV_LEDGER", DEFAULT_LEDGER, "The ledger that slurm-govd writes.")


@click.command()
@ledger_file
@click.option(
    "-k",
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice([one.value for one in Kind]),
    help="Only this kind; repeatable.",
)
@click.option("-t", "--team", metavar="TEAM", help="Only what a team did, suffered or caused.")
@click.option("-p", "--pool", metavar="POOL", help="Only this pool.")
@click.option("-j", "--job", metavar="JOBID", help="Only this job (an array with its tasks), or for its sake.")
@click.option("-u", "--user", metavar="USER", help="Only a user's jobs, and what the user did.")
@click.option("--node", metavar="NODE", help="Only this node.")
@click.option("--since", type=Moment(), help="Only what came at or after: 2h, today, 2026-11-23, '2026-11-23 14:00'.")
@click.option("--until", type=Moment(), help="Only what came before.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    metavar="NUMBER",
    help=f"Only the last so many.  [default: {LINES}; all with --since]",
)
@click.option("-f", "--follow", is_flag=True, help="Go on showing what comes, until interrupted.")
@as_json
def log(
    path: Where,
    kinds: tuple[str, ...],
    since: float | None,
    until: float | None,
    lines: int | None,
    follow: bool,
    as_json: bool,
    **wanted: str | None,
) -> None:
    """Show what the governor did, and why: the ledger, the oldest first.

    \b
    Kinds:
      cap      a team's cap moved          refuse   a submission or change was refused
      preempt  a job was told to leave     node     a node's lifecycle took a step
      spare    ... and may stay after all  policy   a setting changed, or was not taken
      requeue  it was requeued             daemon   slurm-govd started or ended, or Slurm
      cancel   it was cancelled                     stopped or began to answer
      release  it may start again

    Each line has the time, the kind, the team, what changed, and why. With --json each event is one line of
    JSON, with "id" growing from one to the next and "at" in seconds since the epoch. The ledger is read as it
    lies there: slurm-govd need not run.

    \b
    Examples:
      slurm-gov log --since today --team research
      slurm-gov log --job 4711              what happened to a job, or for its sake
      slurm-gov log -f -k preempt -k requeue
      slurm-gov log --since 7d --json | jq -r 'select(.kind == "refuse") | .who' | sort | uniq -c

    \b
    Exit codes:
      0  shown, also if there is nothing
      1  there is no ledger, or it cannot be read
      2  wrong usage
    """
    from slurm_gov.cli import words
    from slurm_gov.ledger import LedgerError, events

    out = words.output()
    chosen: dict[str, Any] = {"kinds": [Kind(kind) for kind in kinds], "since": since, "until": until, **wanted}
    if lines is None and since is None:
        lines = LINES

    def show(found: list[Recorded]) -> None:
        for one in found:
            if as_json:
                print_line(one)
            else:
                out.print(line(one.event, time.time()), soft_wrap=True)

    try:
        last = _last(path) if follow else 0
        found = events(path, **chosen, limit=lines, newest=True)
        show(found)
        last = max([last, *(one.id for one in found)])
        while follow:
            time.sleep(POLL)
            found = events(path, **chosen, after=last)
            show(found)
            last = max([last, *(one.id for one in found)])
    except LedgerError as error:
        raise Failure(str(error)) from None
    except KeyboardInterrupt:
        return


def _last(path: Where) -> int:
    from slurm_gov.ledger import events

    return max((one.id for one in events(path, limit=1, newest=True)), default=0)


def print_line(one: Recorded) -> None:
    """One event as one line of JSON."""
    import json

    click.echo(json.dumps({"id": one.id, **asdict(one.event)}, ensure_ascii=True))


def line(event: Event, now: float) -> Text:
    """One event as people read it."""
    from slurm_gov.cli import words

    made = plain(f"{words.clock(event.at, now):<8}  ", "dim")
    made.append_text(plain(f"{event.kind:<8}", STYLES.get(event.kind, "green")))
    made.append_text(plain(f"{event.team or '-':<12} ", "bold"))
    made.append_text(plain(what(event)))
    if event.why:
        made.append_text(plain(f": {event.why}", "dim"))
    return made


def what(event: Event) -> str:
    """What happened, without why: "h100 24 > 16", "job 7 (ann, 8 h100) for job 9 (product)"."""
    if event.kind is Kind.REFUSE:
        return f"{event.who}'s {'change of a job' if event.before == 'modify' else 'job'} ({event.after})"
    parts = []
    if event.job:
        details = [event.user, f"{event.gpus} {event.pool}" if event.gpus else ""]
        shown = ", ".join(part for part in details if part)
        parts.append(f"job {event.job}" + (f" ({shown})" if shown else ""))
    elif event.pool:
        parts.append(event.pool)
    if event.node:
        parts.append(f"node {event.node}")
    if event.for_team:
        parts.append(f"for job {event.for_job} ({event.for_team})" if event.for_job else f"for {event.for_team}")
    if event.before:
        parts.append(f"{event.before} > {event.after or 'nothing'}")
    elif event.after:
        parts.append(event.after)
    if event.who not in (GOVERNOR, ""):
        parts.append(f"by {event.who}")
    return " ".join(parts)
