"""slurm-gov completion: the script that a shell loads to complete slurm-gov's commands and options."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    Examples:
      slurm-gov completion bash > /etc/bash_completion.d/slurm-gov
      source <(slurm-gov completion zsh)
      slurm-gov completion fish > ~/.config/fish/completions/slurm-gov.fish

    \b
    Exit codes:
      0  printed
      2  wrong usage
    """
    from click.shell_completion import get_completion_class

    from slurm_gov.cli.main import cli

    made = get_completion_class(shell)
    if made is None:
        raise click.ClickException(f"no completion for {shell}")
    click.echo(made(cli, {}, "slurm-gov", "_SLURM_GOV_COMPLETE").source())
