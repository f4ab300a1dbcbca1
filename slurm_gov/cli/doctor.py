"""slurm-gov doctor: what a cluster lacks, and what helps."""

from __future__ import annotations

import click

from slurm_gov.cli.common import as_json, clean, print_json
from slurm_gov.cli.policy import running_file


@click.command()
@as_json
@click.option(
    "--policy",
    type=click.Path(),
    metavar="FILE",
    help="The policy. Default: $SLURM_GOV_POLICY, or /etc/slurm-gov/policy.yaml.",
)
@click.option(
    "--socket",
    "socket_path",
    default="/run/slurm-gov/admission.sock",
    show_default=True,
    envvar="SLURM_GOV_SOCKET",
    metavar="PATH",
    help="Where slurm-govd listens for the plugin.",
)
@click.option(
    "--mqtt", metavar="HOST[:PORT]", help="The MQTT broker. Default: the one that the running slurm-govd uses."
)
def doctor(as_json: bool, policy: str | None, socket_path: str, mqtt: str | None) -> None:
    """Check this cluster, and say what is missing and what helps. Changes nothing.

    Run it on the controller, as root or SlurmUser: it looks at slurmctld, slurmdbd, slurm.conf, nodes and GRES,
    accounts and caps, the policy, the plugin (is it there, for this Slurm, for this slurm-govd), slurm-govd, the
    files that SlurmUser must read, clocks, and the MQTT broker. One line for each finding, errors first.

    \b
    Examples:
      slurm-gov doctor
      slurm-gov doctor --policy new.yaml
      slurm-gov doctor --json | jq -r '.errors[].remedy'

    \b
    Exit codes:
      0  no error; there may be warnings
      1  something is missing or wrong
      2  wrong usage
    """
    from slurm_gov.cli.doctor_facts import gather
    from slurm_gov.slurm.doctor import judge

    findings = judge(gather(policy or running_file(), socket_path, mqtt or ""))
    errors = [finding for finding in findings if finding.error]
    warnings = [finding for finding in findings if not finding.error]
    if as_json:
        print_json(
            {
                "errors": [{"message": one.message, "remedy": one.remedy} for one in errors],
                "warnings": [{"message": one.message, "remedy": one.remedy} for one in warnings],
            }
        )
    else:
        for finding in findings:
            click.echo(f"{'error' if finding.error else 'warning'}: {clean(finding)}")
        click.echo(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}" if findings else "nothing is missing")
    if errors:
        raise click.exceptions.Exit(1)


def _count(things: list, one: str) -> str:  # type: ignore[type-arg]
    return f"{len(things)} {one}{'' if len(things) == 1 else 's'}"
