"""slurm-gov mqtt: the broker's configuration, and a credential for everybody who speaks on it."""

from __future__ import annotations

from pathlib import Path

import click

from slurm_gov.cli.common import Failure
from slurm_gov.health.credentials import SERVICES, Authority, CredentialError, broker_config, create_all
from slurm_gov.health.topics import DEFAULT_PREFIX

_folder = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))


@click.group()
def mqtt() -> None:
    """Credentials and configuration of the MQTT broker.

    \b
    Examples:
      slurm-gov mqtt init /etc/slurm-gov/mqtt --broker mqtt.example
      slurm-gov mqtt issue /etc/slurm-gov/mqtt 'gpu[001-128]'

    \b
    Exit codes:
      0  done
      1  refused, or a file cannot be written
      2  wrong usage
    """


@mqtt.command(short_help="Make an authority, the broker's credential and configuration.")
@_folder
@click.option(
    "--broker",
    "hosts",
    multiple=True,
    required=True,
    metavar="HOST",
    help="A name or address under which agents reach the broker; may be given more than once.",
)
@click.option(
    "--prefix", default=DEFAULT_PREFIX, show_default=True, metavar="TOPIC", help="Of all topics: one per cluster."
)
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    metavar="PORT",
    default=8883,
    show_default=True,
    help="Of the broker, with TLS.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default="/var/lib/mosquitto",
    show_default=True,
    help="Where Mosquitto keeps what is retained.",
)
def init(folder: Path, hosts: tuple[str, ...], prefix: str, port: int, data: Path) -> None:
    """Make an authority, the broker's credential and its configuration in a new FOLDER.

    There are then credentials for the broker, the governor, a provisioner and a watcher (who may read everything);
    `issue` makes those of the nodes. FOLDER/ca.key makes credentials: keep it on the machine where you do that, and
    copy to the broker and to the nodes only what etc/mosquitto/README.md lists. Nothing that exists is overwritten.

    \b
    Example:
      slurm-gov mqtt init /etc/slurm-gov/mqtt --broker mqtt.example --broker 10.0.0.5

    \b
    Exit codes:
      0  made
      1  there is one already, or the folder cannot be written
      2  wrong usage
    """
    try:
        create_all(folder, hosts, (), prefix)
    except (CredentialError, ValueError) as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f"{error.filename or folder}: {error.strerror}") from None
    (folder / "mosquitto.conf").write_text(broker_config(folder.absolute(), port, data=data))
    click.echo(f"made in {folder}: authority, credentials of {', '.join(SERVICES)}, acl, mosquitto.conf")


@mqtt.command(short_help="Make credentials for nodes.")
@_folder
@click.argument("names")
@click.option(
    "--days",
    type=click.IntRange(1, 36_500),
    default=3650,
    show_default=True,
    metavar="DAYS",
    help="How long they are valid.",
)
def issue(folder: Path, names: str, days: int) -> None:
    """Make a credential for each of NAMES: nodes, as n1,n[2-8], or your own programs.

    A name that has one already keeps it. To renew one, remove its .pem and issue it again; a running agent takes the
    new one up with its next connection.

    \b
    Examples:
      slurm-gov mqtt issue /etc/slurm-gov/mqtt 'gpu[001-128]'
      slurm-gov mqtt issue /etc/slurm-gov/mqtt portal --days 365

    \b
    Exit codes:
      0  made, or they all have one
      1  there is no authority in FOLDER, or a name is wrong
      2  wrong usage
    """
    import hostlist

    made = []
    try:
        authority = Authority.open(folder)
        for name in hostlist.expand_hostlist(names):
            if not authority.files(name)[0].exists():
                authority.issue(name, days)
                made.append(name)
    except (CredentialError, hostlist.BadHostlist) as error:
        raise Failure(f"{error}; {len(made)} made" if made else str(error)) from None
    except OSError as error:
        raise Failure(f"{error.filename or folder}: {error.strerror}") from None
    click.echo(f"made {len(made)} credentials" + (f": {hostlist.collect_hostlist(made)}" if made else ""))
