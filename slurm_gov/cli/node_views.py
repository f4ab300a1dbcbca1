"""slurm-gov node list, show, lemons: how nodes are. They change nothing."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from slurm_gov.cli.common import add, as_json, console, plain, print_json, table
from slurm_gov.cli.look import policy_file
from slurm_gov.cli.node_look import Look, journal_file, take_a_look

if TYPE_CHECKING:
    from slurm_gov.database import Where


@dataclass(frozen=True)
class Row:
    """One node, as ``--json`` shows it. ``heard`` is the age of its agent's last sign of life, in seconds; ``faults``
    counts those that make a lemon.
    """

    node: str
    pool: str
    state: str
    since: float | None
    reason: str
    fault: str
    next: str
    slurm_state: str
    slurm_reason: str
    drained_by: str
    heard: float | None
    online: bool | None
    injected: bool
    jobs: int
    faults: int


def rows(look: Look, now: float) -> list[Row]:
    """Every node of every pool."""
    from slurm_gov.health import sights
    from slurm_gov.health.lifecycle import Hand, State
    from slurm_gov.health.words import next_step

    reports = look.journal.reports()
    operations = {one.name: one for one in look.journal.operations().values()}
    counts = look.journal.fault_counts(now - look.health.lemons.days * 86400)
    found = []
    for name in sorted(look.pools, key=_natural):
        there, record = look.nodes[name], look.record(name)
        hand, jobs = sights.hand(there), len(look.jobs.get(name, ()))
        if record.state is State.VERIFYING and not sights.drained(there):
            hand = Hand.OURS  # it stands in a reservation of ours
        report = reports.get(name)
        miss = sights.near_miss(there)
        found.append(
            Row(
                node=name,
                pool=record.pool,
                state=str(record.state),
                since=record.since or None,
                reason=record.reason if record.state != "healthy" else "",
                fault=record.fault,
                next=miss
                or next_step(
                    record, hand, look.health, jobs, operations.get(record.operation), there.reason == sights.SPARE
                ),
                slurm_state=there.state.lower(),
                slurm_reason=there.reason,
                drained_by="" if hand is Hand.NOBODY else "slurm-gov" if hand is Hand.OURS else "an administrator",
                heard=round(now - report.heard, 1) if report else None,
                online=report.presence != "offline" if report else None,
                injected=record.injected,
                jobs=jobs,
                faults=counts.get(name, 0),
            )
        )
    return found


@click.command("list")
@policy_file
@journal_file
@click.option("--all", "everything", is_flag=True, help="Healthy nodes too, one line each.")
@as_json
def list_(policy_path: str, journal_path: Where, everything: bool, as_json: bool) -> None:
    """Nodes that are not healthy: state, since when, why, and what comes next.

    "heard" is how long ago the node's agent was last heard (as of the daemon's last note, every 15 s). "next" is
    what slurm-govd does next, or what forbids it.

    \b
    Examples:
      slurm-gov node list
      slurm-gov node list --all
      slurm-gov node list --json | jq -r '.nodes[] | select(.state == "failed") | .node'

    \b
    Exit codes:
      0  shown, also if all are healthy
      1  Slurm does not answer, the policy is wrong or has no health: section, or there is no journal
      2  wrong usage
    """
    look = take_a_look(policy_path, journal_path)
    now = time.time()
    found = rows(look, now)
    if as_json:
        print_json({"time": now, "nodes": [asdict(row) for row in found]})
        return
    shown = [row for row in found if everything or row.state != "healthy" or row.drained_by or row.next]
    out = console()
    if shown:
        made = table("node", "pool", "state", "for", "reason", "next", "in Slurm", "heard")
        for row in shown:
            style = {"healthy": "", "suspect": "yellow", "failed": "red"}.get(row.state, "cyan")
            add(
                made, row.node, row.pool, plain(row.state, style), _age(now - row.since) if row.since else "",
                row.reason or row.slurm_reason, row.next, row.slurm_state,
                _age(row.heard) if row.heard is not None else "never",
            )  # fmt: skip
        out.print(made)
    healthy = sum(row.state == "healthy" for row in found)
    out.print(plain(f"{healthy} of {len(found)} nodes are healthy"))


@click.command()
@click.argument("name", metavar="NODE")
@policy_file
@journal_file
@click.option(
    "--days", type=click.FloatRange(min=0), default=3.0, show_default=True, metavar="DAYS", help="How far back."
)
@as_json
def show(name: str, policy_path: str, journal_path: Where, days: float, as_json: bool) -> None:
    """One node: how it is, what its agent reports, and what happened to it.

    \b
    Examples:
      slurm-gov node show n3
      slurm-gov node show n3 --days 28

    \b
    Exit codes:
      0  shown
      1  there is no such node, or something cannot be read
      2  wrong usage
    """
    from slurm_gov.health.messages import Status

    look = take_a_look(policy_path, journal_path)
    record = look.record(name)
    now = time.time()
    row = next(one for one in rows(look, now) if one.node == name)
    history = look.journal.history(name, now - days * 86400)
    report = look.journal.reports().get(name)
    results = []
    if report:
        try:
            results = [one for one in Status.model_validate_json(report.payload).results if one.state != "ok"]
        except ValueError:
            results = []
    if as_json:
        print_json(
            asdict(row)
            | {
                "repair": str(record.repair), "by": record.by, "cleared": sorted(record.muted),
                "reported": [one.model_dump(mode="json") for one in results],
                "history": [asdict(one) for one in history],
            }
        )  # fmt: skip
        return
    out = console()
    out.print(plain(f"{name} ({record.pool}): {record.state}", "bold"))
    facts = {
        "since": f"{_when(record.since)} ({_age(now - record.since)})" if record.since else "",
        "reason": row.reason,
        "next": row.next,
        "ordered by": record.by,
        "in Slurm": f"{row.slurm_state}{f': {row.slurm_reason}' if row.slurm_reason else ''}",
        "agent": f"last heard {_age(row.heard)} ago{'' if row.online else ', offline'}"
        if row.heard is not None
        else "never heard",
        "cleared": ", ".join(sorted(record.muted)),
        "lemon": f"{row.faults} faults in {look.health.lemons.days:g} days"
        if row.faults >= look.health.lemons.faults
        else "",
    }
    for what, text in facts.items():
        if text:
            out.print(plain(f"  {what:<11}{text}"))
    if results:
        out.print()
        out.print(plain("What its agent reports", "bold"))
        made = table("check", "state", "what", "for")
        for one in results:
            add(made, f"{one.check} {one.subject}".strip(), one.state, one.message, _age(now - one.since))
        out.print(made)
    out.print()
    out.print(plain(f"The last {days:g} days", "bold"))
    if not history:
        out.print(plain("  nothing happened"))
        return
    made = table("when", "what", "", "why", "by", "jobs")
    for event in history:
        moved = f"{event.before} → {event.after}" if event.after else ""
        add(made, _when(event.time), event.event, moved, event.reason, event.by or "", ", ".join(event.jobs))
    out.print(made)


@click.command()
@policy_file
@journal_file
@as_json
def lemons(policy_path: str, journal_path: Where, as_json: bool) -> None:
    """Nodes with many faults: those that a person should look at, or send back.

    Drills do not count. The limits are the policy's (health.lemons).

    \b
    Example:
      slurm-gov node lemons --json | jq -r '.lemons[].node'

    \b
    Exit codes:
      0  shown, also if there are none
      1  something cannot be read
      2  wrong usage
    """
    look = take_a_look(policy_path, journal_path)
    rules = look.health.lemons
    since = time.time() - rules.days * 86400
    events = [one for one in look.journal.history(since=since) if not one.injected]
    found = []
    for name, count in sorted(look.journal.fault_counts(since).items(), key=lambda one: (-one[1], one[0])):
        mine = [one for one in events if one.node == name]
        kinds = sorted({one.fault or "" for one in mine if one.event == "fault"})
        repairs = sum(one.event == "returned" for one in mine)
        stopped = sum(len(one.jobs) for one in mine if one.event == "job")
        last = max(one.time for one in mine if one.event == "fault")
        if count >= rules.faults:
            found.append({"node": name, "faults": count, "kinds": kinds, "repairs": repairs, "jobs_stopped": stopped,
                          "last": last})  # fmt: skip
    if as_json:
        print_json({"days": rules.days, "faults": rules.faults, "lemons": found})
        return
    out = console()
    if not found:
        out.print(plain(f"no node had {rules.faults} faults within {rules.days:g} days"))
        return
    made = table(
        "node", "faults", "kinds", "repairs", "jobs stopped", "last", right=("faults", "repairs", "jobs stopped")
    )
    for one in found:
        add(made, one["node"], one["faults"], ", ".join(one["kinds"]), one["repairs"], one["jobs_stopped"],  # type: ignore[arg-type]
            _when(one["last"]))  # type: ignore[arg-type]  # fmt: skip
    out.print(made)


def _natural(name: str) -> list[tuple[int, int | str]]:
    import re

    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


COMMANDS = (list_, show, lemons)
