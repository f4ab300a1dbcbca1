"""slurm-gov-agent: the command line of the node agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from slurm_gov import __version__

if TYPE_CHECKING:
    from slurm_gov.health.agent import Agent
    from slurm_gov.health.agent_config import Config
    from slurm_gov.health.board import Entry

_CODES = {"ok": 0, "warn": 1, "fail": 2, "unknown": 3}


class Failure(click.ClickException):
    """One line on standard error."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.exit_code: int = code  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        for line in self.message.splitlines():
            click.echo(f"slurm-gov-agent: {line}", file=file, err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "SLURM_GOV_AGENT"})
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SLURM_GOV_AGENT_CONFIG",
    default="/etc/slurm-gov/agent.yaml",
    show_default=True,
    help="The configuration file.",
)
@click.version_option(__version__, prog_name="slurm-gov-agent")
@click.pass_context
def cli(context: click.Context, path: Path) -> None:
    """Watches the health of a node and says over MQTT how it is.

    One runs on every node. It runs checks on a schedule, each in a process of its own with a time limit, and
    publishes the results as a retained message, with heartbeats, and a last will that the broker publishes when the
    agent dies. It drains nothing and repairs nothing: slurm-govd decides. docs/agent.md has the checks and their
    thresholds, docs/mqtt.md the messages.

    \b
    Exit codes:
      0  done (check: all is well)
      1  an error, in one line (check: a warning)
      2  the configuration or the command line is wrong (check: a check failed)
      3  check: something could not be found out

    \b
    Examples:
      slurm-gov-agent run                        as the systemd unit runs it
      slurm-gov-agent check                      how is this node?
      slurm-gov-agent inject xid 79 --gpu 3      a drill; ends with `clear`, or with the next boot
    """
    context.obj = path


@cli.command()
@click.option("--dry-run", is_flag=True, help="Connect to no broker: print every status that would be published.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The least that is logged, to standard error.",
)
@click.pass_obj
def run(path: Path, dry_run: bool, log_level: str) -> None:
    """Run the agent until SIGTERM.

    It needs to read /dev/kmsg (root, or CAP_SYSLOG with kernel.dmesg_restrict=1), and its credential. Where the
    broker does not answer it goes on checking, and says the latest state when the broker is back.

    \b
    Signals:
      SIGTERM, SIGINT  say "stopping", end cleanly

    \b
    Examples:
      slurm-gov-agent run --dry-run              what would it say?
      slurm-gov-agent --config test.yaml run

    \b
    Exit codes:
      0  ended as told
      1  the kernel's log or a file cannot be had
      2  the configuration or the command line is wrong
    """
    config = _load(path)
    # To standard error, as systemd wants it; the journal adds the time.
    logging.basicConfig(level=log_level.upper(), format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("mqtt").setLevel(logging.ERROR)
    try:
        asyncio.run(_run(config, dry_run))
    except OSError as error:
        raise Failure(str(error)) from None


async def _run(config: Config, dry_run: bool) -> None:
    from slurm_gov.health.agent import Agent

    agent, stop = Agent(config, lambda: _notify("WATCHDOG=1")), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    looking = asyncio.create_task(agent.run())
    if dry_run:
        saying = asyncio.create_task(_print(agent, stop))
    else:
        from slurm_gov.health.uplink import Uplink

        saying = asyncio.create_task(Uplink(agent).run(stop))
    _notify("READY=1")
    await asyncio.wait([looking, saying], return_when=asyncio.FIRST_COMPLETED)
    _notify("STOPPING=1")
    stop.set()
    if not looking.done():
        looking.cancel()
    done, _ = await asyncio.wait([looking, saying], timeout=20)
    for task in done:
        if not task.cancelled():
            task.result()


async def _print(agent: Agent, stop: asyncio.Event) -> None:
    while not stop.is_set():
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(agent.wake.wait(), 0.5)
            agent.wake.clear()
            agent.board.changed = False
            click.echo(agent.status().model_dump_json())


@cli.command(short_help="Run the checks once and print what they find.")
@click.argument("names", nargs=-1, metavar="[CHECK]...")
@click.option("--json", "as_json", is_flag=True, help="Print the status message that the agent would publish.")
@click.option("--quiet", is_flag=True, help="Print only what is not well.")
@click.option("--drain", is_flag=True, help="If a check fails, drain this node in Slurm, with what failed as reason.")
@click.option(
    "--health-check-program",
    is_flag=True,
    help="As HealthCheckProgram of slurm.conf: leaves out the check slurmd, prints only what is not well, and ends "
    "with 0 whatever it finds: nothing that Slurm makes of the exit code shall keep a node from registering.",
)
@click.pass_obj
def check(
    path: Path, names: tuple[str, ...], as_json: bool, quiet: bool, drain: bool, health_check_program: bool
) -> None:
    """Run the checks once, print what they find, and end with a code as Nagios plugins do.

    CHECK is one of the checks of the configuration, such as gpu, disk or a site's own; without any, all but deep
    ones are run. What takes several looks (flapping links, tasks stuck for minutes) is not seen in one.

    In sites that have no slurm-govd, Slurm can run it:

    \b
      HealthCheckProgram=/usr/local/sbin/slurm-gov-health
      HealthCheckInterval=300
      HealthCheckNodeState=ANY

    with `exec slurm-gov-agent check --health-check-program --drain` in that script: Slurm gives it no arguments and
    no PATH, so write paths out, and export PATH if scontrol is not in /usr/bin.
    With slurm-govd leave --drain out: a drain without its mark counts as an administrator's, and it never lifts it.

    \b
    Examples:
      slurm-gov-agent check
      slurm-gov-agent check gpu disk --quiet
      slurm-gov-agent check --json | jq '.results[] | select(.state != "ok")'

    \b
    Exit codes:
      0  all is well; with --health-check-program always
      1  a warning, or the node could not be drained
      2  a check failed, or the configuration or the command line is wrong
      3  something could not be found out
    """
    from slurm_gov.health.agent_config import known_checks
    from slurm_gov.health.checks import registry

    config = _load(path)
    known = known_checks() | {name: name for name in config.site_checks}
    for name in names:
        if name not in known:
            raise Failure(f'there is no check "{name}"; known checks: {", ".join(known)}', 2)
    wanted = {known[name] for name in names} if names else None
    if health_check_program:
        deep = {name for name, one in config.site_checks.items() if one.deep}
        wanted = (wanted or {*registry.NAMES, registry.XID, *config.site_checks} - deep) - {"slurmd"}
    agent, found = asyncio.run(_once(config, wanted))
    if names:  # `gpu_link` runs all of gpu, and is shown alone
        shown = set(names) | {check for check, _ in found if known.get(check) in names}
        found = [(check, entry) for check, entry in found if check in shown]
    if as_json:
        click.echo(agent.status().model_dump_json(indent=2))
    else:
        for name, entry in found:
            if entry.result.state != "ok" or not (quiet or health_check_program):
                click.echo(_line(name, entry))
    if drain:
        _drain(config, found)
    sys.exit(0 if health_check_program else _exit_code(found))


async def _once(config: Config, wanted: set[str] | None) -> tuple[Agent, list[tuple[str, Entry]]]:
    from slurm_gov.health.agent import Agent

    agent = Agent(config)
    await agent.once(wanted)
    return agent, agent.board.entries()


def _line(name: str, entry: Entry) -> str:
    from slurm_gov.health.board import line

    one = entry.result
    text = f"{one.state.upper():<8}{name:<14}{line(one.message, 300)}".rstrip()
    return text + " [injected]" if entry.injected and "(injected)" not in text else text


def _exit_code(found: list[tuple[str, Entry]]) -> int:
    states = {entry.result.state for _, entry in found}
    return next((_CODES[state] for state in ("fail", "unknown", "warn") if state in states), 0)


def _drain(config: Config, found: list[tuple[str, Entry]]) -> None:
    failed = [f"{name}: {entry.result.message}" for name, entry in found if entry.result.state == "fail"]
    if not failed:
        return
    from slurm_gov.health.board import line

    try:
        told = subprocess.run(
            ["scontrol", "show", "node", "--", config.name], capture_output=True, text=True, timeout=20, check=False
        )
        if "DRAIN" in told.stdout.partition("State=")[2].partition(" ")[0]:
            return  # whoever drained it had a reason
        reason = line(f"slurm-gov-agent: {'; '.join(failed)}", 200)
        done = subprocess.run(
            ["scontrol", "update", f"nodename={config.name}", "state=drain", f"reason={reason}"],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"the node is not drained: {error}") from None
    if done.returncode:
        raise Failure(f"the node is not drained: {done.stderr.strip() or 'scontrol failed'}")


@cli.group()
def inject() -> None:
    """Pretend a fault, for tests and drills. It is marked as injected in every message, event and reason.

    The running agent takes it up within a second. It lasts until `clear`, or until the node boots.

    \b
    Examples:
      slurm-gov-agent inject xid 79 --gpu 3
      slurm-gov-agent inject check disk --state warn

    \b
    Exit codes:
      0  injected
      1  it cannot be written down: this needs the agent's own rights
      2  there is no such check or class, or the command line is wrong
    """


_gpu = click.option("--gpu", type=click.IntRange(0, 1023), metavar="NUMBER", help="Which GPU, by its index.")
_survives = click.option("--survives", is_flag=True, help="Holds over reboots, too: for drills of replacement.")


@inject.command("xid")
@click.argument("code", type=click.IntRange(0, 99_999))
@_gpu
@_survives
@click.pass_obj
def inject_xid(path: Path, code: int, gpu: int | None, survives: bool) -> None:
    """Pretend that the NVIDIA driver reported XID CODE.

    \b
    Example:
      slurm-gov-agent inject xid 79 --gpu 3      GPU 3 has fallen off the bus

    \b
    Exit codes:
      0  injected
      1  it cannot be written down: this needs the agent's own rights
      2  the configuration or the command line is wrong
    """
    _inject(path, check="xid", code=code, gpu=gpu, survives=survives)


@inject.command("check")
@click.argument("name")
@click.option(
    "--state", type=click.Choice(["warn", "fail", "unknown"]), default="fail", show_default=True, help="What it says."
)
@click.option("--fault", metavar="CLASS", help="The class of the fault; by default what fits the check.")
@click.option("--message", default="", metavar="TEXT", help="What it says beside.")
@_gpu
@_survives
@click.pass_obj
def inject_check(
    path: Path, name: str, state: str, fault: str | None, message: str, gpu: int | None, survives: bool
) -> None:
    """Pretend that the check NAME found something.

    \b
    Example:
      slurm-gov-agent inject check disk --state warn --message "/scratch: 3 % free"

    \b
    Exit codes:
      0  injected
      1  it cannot be written down: this needs the agent's own rights
      2  there is no such check or class, or the command line is wrong
    """
    from slurm_gov.health.agent_config import known_checks
    from slurm_gov.health.messages import Fault

    known = sorted({*known_checks(), *_load(path).site_checks})
    if name not in known:
        raise Failure(f'there is no check "{name}"; known checks: {", ".join(known)}', 2)
    if fault is not None and fault not in set(Fault):
        raise Failure(f'there is no class "{fault}"; known classes: {", ".join(Fault)}', 2)
    _inject(path, check=name, gpu=gpu, state=state, fault=fault, message=message, survives=survives)


def _inject(path: Path, **fault: Any) -> None:
    from slurm_gov.health import injection
    from slurm_gov.health.agent import read_boot_id

    config = _load(path)
    boot_id = read_boot_id(config)
    known = injection.load(config.roots.state, boot_id)
    number = max((one.number for one in known), default=0) + 1
    new = injection.Injected(number=number, time=time.time(), boot_id=boot_id, **fault)
    _save(config, [*known, new])
    click.echo(f"injected {new}")


@cli.command("injected")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_obj
def injected(path: Path, as_json: bool) -> None:
    """List what is injected now.

    \b
    Example:
      slurm-gov-agent injected

    \b
    Exit codes:
      0  shown, also if there is nothing
      2  the configuration or the command line is wrong
    """
    from dataclasses import asdict

    from slurm_gov.health import injection
    from slurm_gov.health.agent import read_boot_id

    config = _load(path)
    known = injection.load(config.roots.state, read_boot_id(config))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in known], indent=2))
    else:
        for one in known:
            click.echo(str(one))


@cli.command(short_help="End injected faults.")
@click.argument("numbers", nargs=-1, type=int, metavar="[NUMBER]...")
@click.pass_obj
def clear(path: Path, numbers: tuple[int, ...]) -> None:
    """End injected faults: those with the NUMBERs that `injected` shows, or all.

    Real faults are not touched; `slurm-gov node clear` makes the agent forget XIDs that were dealt with.

    \b
    Examples:
      slurm-gov-agent clear        all of them
      slurm-gov-agent clear 2

    \b
    Exit codes:
      0  ended, or there was nothing to end
      1  nothing is injected under that number, or it cannot be written down
      2  the configuration or the command line is wrong
    """
    from slurm_gov.health import injection
    from slurm_gov.health.agent import read_boot_id

    config = _load(path)
    known = injection.load(config.roots.state, read_boot_id(config))
    unknown = set(numbers) - {one.number for one in known}
    if unknown:
        raise Failure(f"nothing is injected under {', '.join(map(str, sorted(unknown)))}")
    ended = [one for one in known if not numbers or one.number in numbers]
    if ended:
        _save(config, [one for one in known if one not in ended])
    for one in ended:
        click.echo(f"ended {one}")


@cli.command("config", short_help="Check the configuration, show it whole.")
@click.pass_obj
def show_config(path: Path) -> None:
    """Check the configuration and show it whole, with every default, as JSON.

    \b
    Example:
      slurm-gov-agent config | jq .checks.gpu_thermal

    \b
    Exit codes:
      0  it is right
      2  it is wrong; a line says where, and what would be right
    """
    from slurm_gov.health.agent_config import effective

    click.echo(json.dumps(effective(_load(path)), indent=2))


def _save(config: Config, faults: list[Any]) -> None:
    from slurm_gov.health import injection

    try:
        injection.save(config.roots.state, faults)
    except OSError as error:
        raise Failure(f"{config.roots.state}: {error.strerror}; this needs the agent's own rights (root)") from None


def _load(path: Path) -> Config:
    from slurm_gov.health.agent_config import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        raise Failure(str(error), 2) from None


def _notify(line: str) -> None:
    """sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one,
        ):
            one.sendto(line.encode(), "\0" + address[1:] if address.startswith("@") else address)


def main() -> None:
    """Console script ``slurm-gov-agent``."""
    cli(prog_name="slurm-gov-agent")
