"""slurm-gov sandbox: a private, real Slurm cluster on this machine."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from slurm_gov.cli.common import Failure, add, as_json, console, print_json, table
from slurm_gov.sandbox import Pool, Sandbox, SandboxConfig, SandboxError
from slurm_gov.sandbox.cluster import take_down
from slurm_gov.sandbox.config import default_base

_base = click.option(
    "--dir",
    "base",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder in which sandboxes live; a short path.  [default: $SLURM_GOV_SANDBOX_DIR, else /tmp/slurm-gov-UID]",
)
_name = click.argument("name", default="default")
_name_option = click.option("--name", default="default", show_default=True, metavar="NAME", help="Which sandbox.")


@click.group()
def sandbox() -> None:
    """A private, real Slurm cluster on this machine.

    Slurm's own daemons (slurmctld, slurmdbd, slurmd per node), MariaDB and munge, from the machine's own
    packages, on private ports, sockets and folders. It touches no Slurm that may already run here, needs
    no root, and `down` leaves nothing. The GPUs are pretended; everything else is real.

    \b
    Examples:
      slurm-gov sandbox up                            8 nodes of 8 GPUs, two teams, the governor
      slurm-gov sandbox shell                         a shell in it: sinfo, sbatch, squeue ...
      slurm-gov sandbox run -- sbatch --gres=gpu:8 -A research --wrap 'sleep 60'
      slurm-gov sandbox down

    \b
    Exit codes:
      0  done
      1  an error, in one line; what the logs said stands before it
      2  wrong usage
    """


@sandbox.command(short_help="Start a sandbox; returns when its nodes are idle.")
@_name
@click.option(
    "--nodes", type=click.IntRange(1, 4096), metavar="NUMBER", default=8, show_default=True, help="Number of nodes."
)
@click.option(
    "--gpus", type=click.IntRange(0, 64), metavar="NUMBER", default=8, show_default=True, help="GPUs per node."
)
@click.option(
    "--gpu-type", default="h100", show_default=True, metavar="TYPE", help="Type of the GPUs, and name of the pool."
)
@click.option(
    "--pool",
    "pools",
    multiple=True,
    metavar="NAME=NODESxGPUS[:TYPE]",
    help="A pool of nodes, as h100=6x8; instead of the three options above. Several times for several pools.",
)
@click.option(
    "--policy",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, readable=True),
    help="Create the teams and priority classes of this policy.  [default: two teams that share evenly]",
)
@click.option(
    "--governor/--no-governor", default=True, show_default=True, help="Load the plugin and start slurm-govd."
)
@click.option(
    "--controllers",
    type=click.IntRange(1, 2),
    metavar="NUMBER",
    default=1,
    show_default=True,
    help="2: a backup slurmctld, and a slurm-govd beside each; needs root, or user namespaces.",
)
@click.option(
    "--account",
    "accounts",
    multiple=True,
    metavar="ACCOUNT",
    help="Create this account too; several times for several.",
)
@click.option(
    "--user", "users", multiple=True, metavar="USER", help="Let this user submit too; several times for several."
)
@click.option(
    "--slurm-conf",
    multiple=True,
    metavar="LINE",
    help="A line for slurm.conf, as MinJobAge=10; replaces the sandbox's own. Several times for several.",
)
@_base
def up(
    name: str,
    nodes: int,
    gpus: int,
    gpu_type: str,
    pools: tuple[str, ...],
    policy: Path | None,
    governor: bool,
    controllers: int,
    accounts: tuple[str, ...],
    users: tuple[str, ...],
    slurm_conf: tuple[str, ...],
    base: Path | None,
) -> None:
    """Start the sandbox NAME ("default" if not given); returns when all its nodes are idle.

    One pool's nodes are n1, n2, ... in the partition `gpu`. With several pools, each is a partition of its
    own name (the first is the default) and its nodes are POOL-1, POOL-2, ... You may submit for every team;
    run as root, so may the user games.

    \b
    Examples:
      slurm-gov sandbox up
      slurm-gov sandbox up --nodes 256
      slurm-gov sandbox up mine --pool h100=6x8 --pool a100=2x4 --policy policy.yaml
      slurm-gov sandbox up two --controllers 2
      slurm-gov sandbox up plain --no-governor --slurm-conf PreemptType=preempt/qos

    \b
    Exit codes:
      0  it is up
      1  it is not, and nothing of it is left; the line says why
      2  wrong usage
    """
    with _plain_errors(), _signals_interrupt():
        config = SandboxConfig(
            name=name,
            pools=tuple(map(Pool.parse, pools)) or (Pool(gpu_type, nodes, gpus),),
            governor=governor,
            policy=policy,
            accounts=accounts,
            users=users,
            controllers=controllers,
            slurm_conf=slurm_conf,
            base=base.absolute() if base else default_base(),
        )
        with _steps() as step:
            cluster = Sandbox.up(config, step)
    which = "" if name == "default" else f" {name}"
    total = len(config.all_nodes())
    click.echo(f"sandbox {name} is up in {time.time() - cluster.started:.1f} s: {total} nodes, {cluster.dir}")
    if governor:
        click.echo(f"see it:  {_pages(cluster)}")
    click.echo(f"use it:  slurm-gov sandbox shell{which}     end it:  slurm-gov sandbox down{which}")


@sandbox.command(short_help="End a sandbox: its daemons, its jobs, its folder.")
@_name
@_base
def down(name: str, base: Path | None) -> None:
    """End the sandbox NAME: its daemons, its jobs, its folder.

    Also after an `up` that failed or was killed. Nothing else is ended: a process counts as the sandbox's
    only if it was started by it, never by its name.

    \b
    Examples:
      slurm-gov sandbox down
      slurm-gov sandbox down mine

    \b
    Exit codes:
      0  it is down
      1  there is none of that name, or something of it could not be ended
      2  wrong usage
    """
    with _plain_errors():
        began = time.monotonic()
        ended = take_down(name, base.absolute() if base else None)
    seconds = time.monotonic() - began
    click.echo(f"sandbox {name} is down: {ended} processes ended in {seconds:.1f} s, folder removed")


@sandbox.command(short_help="Show a sandbox: daemons, nodes, ports, policy, folder.")
@_name
@_base
@as_json
def status(name: str, base: Path | None, as_json: bool) -> None:
    """Show the sandbox NAME: daemons, nodes, ports, policy, folder.

    \b
    Examples:
      slurm-gov sandbox status
      slurm-gov sandbox status --json | jq -r .logs

    \b
    Exit codes:
      0  shown
      1  there is none of that name
      2  wrong usage
    """
    with _plain_errors():
        cluster = Sandbox.attach(name, base)
        data = _status(cluster)
    if as_json:
        print_json(data)
        return
    out = console()
    for key, value in data["summary"].items():
        out.print(f"{key:<12} {value}")
    out.print()
    daemons = table("daemon", "pid", "state", right=("pid",))
    slurmds = [pid for daemon, pid in data["daemons"].items() if daemon.startswith("slurmd-")]
    for daemon, pid in data["daemons"].items():
        if not daemon.startswith("slurmd-"):
            add(daemons, daemon, pid, "running" if pid else "ended")
    add(daemons, "slurmd", None, f"{sum(map(bool, slurmds))} of {len(slurmds)} running")
    out.print(daemons)


@sandbox.command(short_help="Open a shell in a sandbox.")
@_name
@_base
def shell(name: str, base: Path | None) -> None:
    """Open a shell in which sbatch, squeue, sacctmgr and slurm-gov are the sandbox's.

    Leave it with exit; the sandbox stays up.

    \b
    Example:
      slurm-gov sandbox shell

    \b
    Exit codes:
      1  there is no sandbox of that name
      2  wrong usage
      otherwise the code that the shell ended with
    """
    with _plain_errors():
        cluster = Sandbox.attach(name, base)
    rc = cluster.layout.etc / "bashrc"
    rc.write_text(
        "[ -f ~/.bashrc ] && . ~/.bashrc\n"
        # after the user's own start-up file, which may set PATH and the prompt
        f"export PATH={shlex.quote(cluster.env['PATH'])}\n"
        f"export SLURM_CONF={shlex.quote(cluster.env['SLURM_CONF'])}\n"
        f'PS1="({cluster.config.cluster}) $PS1"\n'
    )
    click.echo(_banner(cluster))
    sys.exit(subprocess.call(["bash", "--rcfile", str(rc), "-i"], env=cluster.env))


@sandbox.command(
    short_help="Run one command in a sandbox.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@_name_option
@_base
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(name: str, base: Path | None, command: tuple[str, ...]) -> None:
    """Run one COMMAND in the sandbox; its exit code is ours.

    \b
    Examples:
      slurm-gov sandbox run squeue
      slurm-gov sandbox run -- sbatch --gres=gpu:h100:8 --wrap 'sleep 60'
      slurm-gov sandbox run --name mine -- bash -c 'sinfo; squeue'

    \b
    Exit codes:
      1  there is no sandbox of that name, or no such command
      2  wrong usage
      otherwise the code that COMMAND ended with
    """
    with _plain_errors():
        cluster = Sandbox.attach(name, base)
    try:
        sys.exit(subprocess.call(command, env=cluster.env))
    except FileNotFoundError:
        raise Failure(f"{command[0]}: command not found") from None


def _status(cluster: Sandbox) -> dict[str, Any]:
    config = cluster.config
    nodes = cluster.nodes()
    idle = sum(state == "idle" for state in nodes.values())
    last_port = cluster.ports.first_node + len(config.all_nodes()) - 1
    return {
        "summary": {
            "name": config.name,
            "dir": str(cluster.dir),
            "age": f"{time.time() - cluster.started:.0f} s",
            "ports": f"{cluster.ports.base}-{last_port}",
            "nodes": f"{idle} of {len(nodes)} idle" if nodes else "slurmctld does not answer",
            "policy": str(cluster.layout.policy) if cluster.layout.policy.exists() else "none",
            "page": _pages(cluster) if config.governor else "none: no governor",
            "environment": f"SLURM_CONF={cluster.env['SLURM_CONF']}",
        },
        "daemons": cluster.pids(),
        "nodes": nodes,
        "logs": str(cluster.layout.log),
    }


def _pages(cluster: Sandbox) -> str:
    return " ".join(cluster.page_of(number) for number in range(1, cluster.config.controllers + 1))


def _banner(cluster: Sandbox) -> str:
    count = len(cluster.config.all_nodes())
    lines = [f"A shell in the sandbox {cluster.config.name}: a private Slurm of {count} nodes."]
    lines.append("  try:   sinfo;  sbatch --gres=gpu:8 --wrap 'sleep 60';  squeue;  scontrol show node | less")
    if cluster.layout.policy.exists():
        lines.append(f"         slurm-gov status;  slurm-gov jobs    policy: {cluster.layout.policy}")
    if cluster.config.governor:
        lines.append(f"         slurm-gov top     the live page: {cluster.page}")
    lines.append(f"  logs:  {cluster.layout.log}    leave with exit; the sandbox stays up")
    return "\n".join(lines)


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """One line per step with the time it took."""
    last = time.monotonic()
    current = ""
    shown = sys.stderr.isatty()

    def finish() -> None:
        if current:
            click.echo(f"\r{time.monotonic() - last:6.1f} s  {current}", err=True)

    def step(text: str) -> None:
        nonlocal current, last
        finish()
        current, last = text, time.monotonic()
        if shown:
            click.echo(f"     ... {text}", nl=False, err=True)

    yield step
    finish()


@contextmanager
def _plain_errors() -> Iterator[None]:
    """A sandbox's error is its first line; what the logs said stands before it."""
    try:
        yield
    except SandboxError as error:
        message, *details = str(error).splitlines()
        raise Failure(message, details) from None


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP clean up as Ctrl-C does."""

    def interrupt(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {sig: signal.signal(sig, interrupt) for sig in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
