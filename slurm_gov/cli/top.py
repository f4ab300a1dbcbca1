"""slurm-gov top: pools, teams, waiting jobs and decisions, live in a terminal."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from slurm_gov.cli.common import Failure
from slurm_gov.cli.look import policy_file


@click.command()
@policy_file
@click.option(
    "--server",
    envvar="SLURM_GOV_SERVER",
    default="http://127.0.0.1:6824/",
    show_default=True,
    show_envvar=True,
    metavar="URL",
    help="Where slurm-govd serves its page.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    envvar="SLURM_GOV_TOKEN_FILE",
    show_envvar=True,
    metavar="FILE",
    help="The token, where slurm-govd wants one.",
)
@click.option(
    "--interval", type=click.FloatRange(min=0.5), default=2.0, show_default=True, metavar="SECONDS",
    help="The time between two looks.",
)  # fmt: skip
def top(policy_path: str, server: str, token_file: Path | None, interval: float) -> None:
    """Watch pools, teams, waiting jobs and decisions.

    It asks slurm-govd; where that does not answer it looks at Slurm itself, as slurm-gov status does, and has no
    decisions to show.

    \b
    t w l d      teams, waiting jobs, jobs that leave, decisions
    s r          sort by the next column, turn the order around
    /            only rows with these words; Esc takes that back
    arrows       choose a row: the sentence below says why
    space        stop and go on
    q            end

    \b
    Examples:
      slurm-gov top
      slurm-gov top --server http://controller:6824/ --token-file ~/.slurm-gov-token

    \b
    Exit codes:
      0  ended by q or Ctrl-C
      1  neither slurm-govd nor Slurm answers at the start, or there is no terminal
      2  wrong usage
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Failure("top needs a terminal; slurm-gov status prints the same once")
    if not server.startswith(("http://", "https://")):
        raise Failure(f"--server must be a URL such as http://127.0.0.1:6824/, not {server!r}")
    from slurm_gov.cli.frame import frame
    from slurm_gov.cli.screen import Top

    token = _token(token_file) if token_file else ""
    first = frame(server, token, policy_path)
    Top(lambda: frame(server, token, policy_path), first, interval).run()


def _token(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"the token file {path} cannot be read: {getattr(error, 'strerror', error)}") from None
