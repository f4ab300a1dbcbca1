"""slurm-gov demo: the main job, shown on a real Slurm."""

from __future__ import annotations

import sys

import click

from slurm_gov.cli.common import Failure, console
from slurm_gov.sandbox import SandboxError
from slurm_gov.sandbox.demo import DemoError, run
from slurm_gov.sandbox.demo_health import run as run_health


@click.command()
@click.option("--keep", is_flag=True, help="Leave the cluster up at the end, to look around in it.")
@click.option("--health", is_flag=True, help="Show instead how a sick node is found, repaired and brought back.")
def demo(keep: bool, health: bool) -> None:
    """Show GPUs lent, taken back and given again, on a real private Slurm, in two minutes.

    It brings up a sandbox (8 nodes of 8 GPUs, two teams with half of them each) and drives it through real
    sbatch; every step is checked against what Slurm says, and the demo fails if Slurm says otherwise. At the
    end stands a table of what happened when, from sacct and the daemon's log.

    \b
    Examples:
      slurm-gov demo
      slurm-gov demo --health
      slurm-gov demo --keep     then: slurm-gov sandbox shell demo

    \b
    Exit codes:
      0  everything happened as it should
      1  something did not; the line says what
      2  wrong usage
    """
    try:
        (run_health if health else run)(console(), keep)
    except (DemoError, SandboxError) as error:
        raise Failure(str(error)) from None
    except KeyboardInterrupt:
        sys.exit(130)
