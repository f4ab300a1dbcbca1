"""python -m bench [hook|plan|reclaim|recovery|clients|agents|observe|all]: measure what the project promises."""

from __future__ import annotations

import signal
import sys
import time

import click

from bench import report


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument(
    "what",
    type=click.Choice(["hook", "plan", "reclaim", "recovery", "clients", "agents", "observe", "all"]),
    default="all",
)
@click.option("--submissions", default=1000, show_default=True, help="hook: how many for each variant, in all rounds")
@click.option(
    "--rounds", default=10, show_default=True, help="hook: rounds, in each of which every variant runs once"
)
@click.option("--waiting", default=3000, show_default=True, help="hook: jobs that wait while plans are computed")
@click.option("--asks", default=5000, show_default=True, help="hook: questions to slurm-govd in each situation")
@click.option("--runs", default=20, show_default=True, help="reclaim, recovery: runs of each variant and case")
@click.option("--jobs", default=5000, show_default=True, help="clients: jobs in the queue")
@click.option("--snapshots", default=20, show_default=True, help="clients: snapshots by each client")
@click.option("--nodes", default=1000, show_default=True, help="agents: how many are simulated")
@click.option("--seconds", default=60.0, show_default=True, help="agents: how long each situation is watched")
@click.option("--write", is_flag=True, help="Also write the results into bench/RESULTS.md.")
def main(
    what: str,
    submissions: int,
    rounds: int,
    waiting: int,
    asks: int,
    runs: int,
    jobs: int,
    snapshots: int,
    nodes: int,
    seconds: float,
    write: bool,
) -> None:
    """Measure, all but plan, agents and observe on a real Slurm; the machine should do nothing else."""
    command = " ".join(["python -m bench", *sys.argv[1:]])
    began = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the sandboxes go, too

    def say(step: str) -> None:
        click.echo(f"{time.monotonic() - began:6.1f} s  {step}", err=True)

    sections = {}
    if what in ("hook", "all"):
        from bench import hook

        sections["Cost of the hook"] = hook.measure(submissions, rounds, waiting, asks, command, say)
    if what in ("plan", "all"):
        from bench import plan

        sections["Plan"] = plan.measure(command, say)
    if what in ("reclaim", "all"):
        from bench import reclaim

        sections["Reclaim"] = reclaim.measure(runs, command, say)
    if what in ("clients", "all"):
        from bench import clients

        sections["Reading Slurm"] = clients.measure(jobs, snapshots, command, say)
    if what in ("agents", "all"):
        from bench import agents

        sections["Node agents"] = agents.measure(nodes, seconds, command, say)
    if what in ("observe", "all"):
        from bench import observe

        sections["Watching"] = observe.measure(command, say)
    if what in ("recovery", "all"):
        from bench import recovery

        sections["Recovery"] = recovery.measure(runs, command, say)
    for title, text in sections.items():
        click.echo(f"\n## {title}\n{text}")
        if write:
            report.write(title, text)


if __name__ == "__main__":
    main(prog_name="python -m bench")
