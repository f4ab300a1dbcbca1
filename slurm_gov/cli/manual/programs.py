"""The three programs and all their commands, described."""

from __future__ import annotations

from functools import cache

from slurm_gov.cli.main import COMMANDS
from slurm_gov.cli.main import cli as slurm_gov
from slurm_gov.cli.manual.commands import Command, describe


@cache
def programs() -> tuple[Command, Command, Command]:
    """slurm-gov, with its commands in the order of its help; slurm-govd; slurm-gov-agent."""
    from slurm_gov.daemon.main import cli as slurm_govd
    from slurm_gov.health.agent_main import cli as slurm_gov_agent

    first = describe(slurm_gov, "slurm-gov")
    assert [one.name.split()[-1] for one in first.commands] == list(COMMANDS)
    return first, describe(slurm_govd, "slurm-govd"), describe(slurm_gov_agent, "slurm-gov-agent")
