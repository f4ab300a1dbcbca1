"""slurm-gov: the root command. Command groups are imported only when used, so every start is quick."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence

import click

from slurm_gov import __version__
from slurm_gov.cli.common import one_line

# command: (module, its click command, what --help says about it); shown only if the module exists.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "status": ("slurm_gov.cli.status", "status", "Pools and teams: quota, used, borrowed, lent, waiting."),
    "jobs": ("slurm_gov.cli.jobs", "jobs", "Jobs with their team, and why each waits."),
    "why": ("slurm_gov.cli.why", "why", "Why one job waits, or was preempted."),
    "plan": ("slurm_gov.cli.plan", "plan", "What the next cycle would do."),
    "top": ("slurm_gov.cli.top", "top", "Pools, teams, waiting jobs and decisions, live."),
    "log": ("slurm_gov.cli.log", "log", "What the governor did, and why."),
    "usage": ("slurm_gov.cli.usage", "usage", "GPU-hours by team, account, user, class or pool."),
    "node": ("slurm_gov.cli.node", "node", "Sick nodes: list, show, drain, clear, reboot, replace, verify, lemons."),
    "policy": ("slurm_gov.cli.policy", "policy", "Check, show, compare and apply the policy."),
    "mqtt": ("slurm_gov.cli.mqtt", "mqtt", "Credentials and configuration of the MQTT broker."),
    "install": ("slurm_gov.cli.install", "install", "The plugin, the unit and samples, on this controller."),
    "doctor": ("slurm_gov.cli.doctor", "doctor", "What this cluster lacks for slurm-gov, and what helps."),
    "demo": ("slurm_gov.cli.demo", "demo", "GPUs lent, taken back and given again, on a real Slurm."),
    "sandbox": ("slurm_gov.cli.sandbox", "sandbox", "A private, real Slurm cluster on this machine."),
    "completion": ("slurm_gov.cli.completion", "completion", "Print the shell completion script."),
}


class LazyGroup(click.Group):
    """A group whose subcommands live in modules that are imported when one is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, (module, _, _) in COMMANDS.items() if importlib.util.find_spec(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        if importlib.util.find_spec(module) is None:
            return None
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="slurm-gov")
def cli() -> None:
    """Guaranteed GPU quotas for Slurm: idle GPUs lent, and taken back when their owner asks.

    status, jobs, why, plan, top, log and usage look and change nothing, and slurm-govd need not run; log and usage
    read the ledger, which SlurmUser's group may. Each command explains itself: slurm-gov COMMAND --help, or
    man slurm-gov-COMMAND.

    \b
    Examples:
      slurm-gov status                  who holds what, and what is lent
      slurm-gov why 4711                why does my job wait?
      slurm-gov policy check FILE       is this policy right?
      slurm-gov sandbox up              a private Slurm to try it all in

    \b
    Environment:
      SLURM_GOV_POLICY   the policy file; else /etc/slurm-gov/policy.yaml
      SLURM_GOV_LEDGER   the ledger; else /var/lib/slurm-gov/ledger.db
      SLURM_GOV_DATABASE the database that several controllers share, instead
      SLURM_CONF         Slurm's configuration, as for Slurm's own commands

    \b
    Exit codes:
      0    done
      1    an error, said in one line on standard error
      2    wrong usage
      130  stopped with Ctrl-C
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run slurm-gov and return the exit code. Expected errors are one line on stderr, never a traceback."""
    try:
        result = cli.main(
            args=list(arguments) if arguments is not None else None,
            prog_name="slurm-gov",
            standalone_mode=False,
        )
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.UsageError as error:
        hint = f"; see {error.ctx.command_path} --help" if error.ctx else ""
        print(f"slurm-gov: {one_line(error.format_message()).rstrip('.')}{hint}", file=sys.stderr)
        return 2
    except click.Abort:
        print("slurm-gov: stopped", file=sys.stderr)
        return 130
    except click.ClickException as error:
        if type(error).show is click.ClickException.show:
            print(f"slurm-gov: {one_line(error.format_message())}", file=sys.stderr)
        else:
            error.show()
        return error.exit_code
    except BrokenPipeError:
        # the reader went away (as in "slurm-gov jobs | head"): keep Python from complaining at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        print(f"slurm-gov: {one_line(error)}", file=sys.stderr)
        return 1
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
