"""slurm-gov node drain, clear, reboot, replace, verify: orders by hand, and following what becomes of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from slurm_gov.cli.common import Failure, as_json, print_json
from slurm_gov.cli.look import policy_file
from slurm_gov.cli.node_look import Look, journal_file, take_a_look
from slurm_gov.cli.node_views import rows

if TYPE_CHECKING:
    from slurm_gov.database import Where
    from slurm_gov.health.journal import Journal
    from slurm_gov.health.lifecycle import Record

F = TypeVar("F", bound=Callable[..., Any])
ANSWER = 15.0
"""Seconds that an order waits for the daemon's answer."""
QUIET = 10.0
"""Seconds without news after which it is said what a node waits for."""


def _order(want: str, at_once: bool) -> Callable[[F], F]:
    """The options that all orders have."""

    def decorate(function: F) -> F:
        decorators = [
            click.argument("names", metavar="NODE...", nargs=-1, required=True),
            policy_file,
            journal_file,
            click.option("--reason", default="", metavar="TEXT", help="Why; it is shown wherever the node is."),
            click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
            click.option("--no-wait", is_flag=True, help="Do not wait to see it done."),
            as_json,
        ]
        if at_once:
            decorators.insert(3, click.option("--now", is_flag=True, help="Requeue its jobs at once, do not wait."))
        for one in reversed(decorators):
            function = one(function)
        return function

    return decorate


@click.command()
@_order("drain", at_once=True)
def drain(**options: Any) -> None:
    """Take nodes out of service until `slurm-gov node clear`.

    Their jobs finish first, or leave as the policy says (health.jobs); with --now they are requeued at once.

    \b
    Examples:
      slurm-gov node drain n3 --reason 'new cables'
      slurm-gov node drain n3 n4 --now --dry-run

    \b
    Exit codes:
      0  done (with --no-wait: ordered)
      1  refused, or something cannot be read
      2  wrong usage
    """
    _give("drain", **options)


@click.command()
@_order("clear", at_once=False)
def clear(**options: Any) -> None:
    """Let go of nodes: forget what is reported against them now, and lift our drain.

    A fault that is reported anew counts again. An administrator's own drain stays: it is not ours to lift.

    \b
    Example:
      slurm-gov node clear n3

    \b
    Exit codes:
      0  done (with --no-wait: ordered)
      1  refused, or something cannot be read
      2  wrong usage
    """
    _give("clear", **options)


@click.command()
@_order("reboot", at_once=True)
def reboot(**options: Any) -> None:
    """Drain nodes, reboot them, verify them, and bring them back.

    With --now its jobs are requeued at once; else they finish first. The command shows each step until the node is
    back in service; Ctrl-C stops the showing, not the reboot.

    \b
    Examples:
      slurm-gov node reboot n3 --dry-run
      slurm-gov node reboot n3 --now --reason 'driver hangs'

    \b
    Exit codes:
      0  done: back in service (with --no-wait: ordered)
      1  refused, it failed, or something cannot be read
      2  wrong usage
    """
    _give("reboot", **options)


@click.command()
@_order("replace", at_once=True)
def replace(**options: Any) -> None:
    """Drain nodes, have their provider replace them, verify them, and bring them back.

    What a replacement is, the pool's provider knows (health.provider): another machine under the same name, a new
    container, a power cycle.

    \b
    Example:
      slurm-gov node replace n3 --no-wait

    \b
    Exit codes:
      0  done: back in service (with --no-wait: ordered)
      1  refused, it failed, or something cannot be read
      2  wrong usage
    """
    _give("replace", **options)


@click.command()
@_order("verify", at_once=True)
def verify(**options: Any) -> None:
    """Drain nodes, run the policy's verification checks on them, and bring them back if they pass.

    The checks are those of health.verify. A node that does not pass is repaired as for any other fault.

    \b
    Example:
      slurm-gov node verify n3

    \b
    Exit codes:
      0  done: back in service (with --no-wait: ordered)
      1  refused, it failed, or something cannot be read
      2  wrong usage
    """
    _give("verify", **options)


def _give(
    want: str,
    names: tuple[str, ...],
    policy_path: str,
    journal_path: Where,
    reason: str,
    dry_run: bool,
    no_wait: bool,
    as_json: bool,
    now: bool = False,
) -> None:
    """Leave orders for the daemon, and follow what becomes of them."""
    from slurm_gov.health.journal import JournalError
    from slurm_gov.health.lifecycle import Order, Want

    look = take_a_look(policy_path, journal_path)
    records = [look.record(name) for name in names]
    text = f"{want} by {_me()}{f': {reason}' if reason else ''}"
    order = Order(Want(want), _me(), now, text)
    plans = {record.node: _would(look, order, record) for record in records}
    if dry_run:
        if as_json:
            print_json({"dry_run": True, "would": plans})
            return
        for lines in plans.values():
            for line in lines:
                click.echo(f"would {line}")
        return
    began = time.time()
    try:
        ids = {record.node: look.journal.order(record.node, order, began) for record in records}
        answers = {name: _answered(look.journal, id) for name, id in ids.items()}
        refused = {name: answer for name, answer in answers.items() if answer}
        silent = [name for name, answer in answers.items() if answer is None]
        ends = {}
        if not no_wait and not silent:
            paths = None if as_json else (policy_path, journal_path)
            ends = {name: _follow(look.journal, name, want, began, paths) for name in names if name not in refused}
    except JournalError as error:
        raise Failure(f"{error}; orders are given as SlurmUser or root") from None
    if as_json:
        print_json({"ordered": list(names), "refused": refused, "unanswered": silent, "states": ends})
    elif no_wait:
        for name in names:
            if name not in refused:
                click.echo(f"{name}: {want} ordered")
    for name, why in refused.items():
        if name != list(refused)[-1]:
            click.echo(f"slurm-gov: {name}: {want} refused: {why}", err=True)
    if refused:
        name, why = list(refused.items())[-1]
        raise Failure(f"{name}: {want} refused: {why}")
    if silent:
        raise Failure(f"slurm-govd has not answered within {ANSWER:.0f} s; it will follow the order when it runs")
    failed = [name for name, state in ends.items() if state == "failed"]
    if failed:
        raise Failure(f"{', '.join(failed)}: it failed; slurm-gov node show {failed[0]} says why")


def _would(look: Look, order: Any, record: Record) -> list[str]:
    from slurm_gov.health import sights
    from slurm_gov.health.lifecycle import Sight, step
    from slurm_gov.health.providers.pools import PoolProviders
    from slurm_gov.health.words import plan_of

    there = look.nodes[record.node]
    sight = Sight(
        drained=sights.drained(there),
        down=sights.down(there),
        hand=sights.hand(there),
        order=order,
        can=PoolProviders.rules(look.health, record.pool).can,
    )
    done = step(record, sight, look.health, time.time())
    if done.refused:
        return [f"refuse for {record.node}: {done.refused}"]
    provider = look.health.pools[record.pool].provider
    return plan_of(order, record, look.jobs.get(record.node, ()), provider, look.health)


def _answered(journal: Journal, id: int) -> str | None:
    """What the daemon says to an order; empty: it follows it. None: nothing yet."""
    end = time.monotonic() + ANSWER
    while (answer := journal.answered(id)) is None and time.monotonic() < end:
        time.sleep(0.1)
    return answer


def _follow(journal: Journal, name: str, want: str, since: float, paths: tuple[str, Where] | None) -> str:
    """Tell every step of a node until it is where the order leads; returns its state. Where nothing is to be told for
    a while: what it waits for. ``paths`` of policy and journal; without them nothing is told.
    """
    told, last, spoke = 0, "", time.monotonic()
    goal = {"drain": ("draining",)}.get(want, ("healthy", "failed"))
    try:
        while True:
            record = journal.records().get(name)  # first: then its history has how it came there
            events = [one for one in journal.history(name, since) if one.event != "fault"]
            lines = []
            for event in events[told:]:
                moved = f" {event.before} → {event.after}" if event.after else ""
                lines.append(f"{_clock(event.time)} {name}: {event.event}{moved}: {event.reason}")
            told = len(events)
            operation = journal.operation(record.operation) if record else None
            said = f"attempt {operation.attempt}: {operation.message or operation.progress}" if operation else ""
            if operation and said != last:
                lines.append(f"{_clock(time.time())} {name}: {operation.repair} {said}")
            last = said
            if paths and not lines and time.monotonic() > spoke + QUIET:
                lines.append(_still(name, *paths))
            if paths and lines:
                click.echo("\n".join(lines))
                spoke = time.monotonic()
            if record is not None and str(record.state) in goal:
                return str(record.state)
            time.sleep(0.2)
    except KeyboardInterrupt:
        raise Failure(f"not watched any more; it goes on: slurm-gov node show {name}") from None


def _still(name: str, policy_path: str, journal_path: Where) -> str:
    """What a node waits for."""
    now = time.time()
    try:
        look = take_a_look(policy_path, journal_path)
    except Failure as error:  # Slurm may be restarted meanwhile
        return f"{_clock(now)} {name}: {error.message}"
    row = next(one for one in rows(look, now) if one.node == name)
    look.journal.close()
    return f"{_clock(now)} {name}: still {row.state} after {now - (row.since or now):.0f} s: {row.next}"


def _me() -> str:
    """Who gives orders."""
    import pwd

    try:
        me = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        me = str(os.geteuid())
    behind = os.environ.get("SUDO_USER", "")
    return f"{behind} (as {me})" if behind and behind != me else me


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


COMMANDS = (drain, clear, reboot, replace, verify)
