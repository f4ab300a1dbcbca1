"""slurm-govd: the command line of the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path

import click

from slurm_gov import __version__
from slurm_gov.core.actions import Actions
from slurm_gov.core.decision import Plan
from slurm_gov.core.policy import Mode, Policy
from slurm_gov.daemon.act import act
from slurm_gov.daemon.bookkeeper import Bookkeeper, say_trouble
from slurm_gov.daemon.deeds import Deeds
from slurm_gov.daemon.governor import Governor, look
from slurm_gov.daemon.healing import Healing
from slurm_gov.daemon.http import DEFAULT_LISTEN, HttpError, HttpServer, read_token
from slurm_gov.daemon.intents import intents
from slurm_gov.daemon.lease import Leases
from slurm_gov.daemon.log import log, set_up
from slurm_gov.daemon.memory import tune
from slurm_gov.daemon.metrics import Metrics
from slurm_gov.daemon.node_metrics import known_of
from slurm_gov.daemon.past import Past
from slurm_gov.daemon.shared_before import SharedBefore
from slurm_gov.daemon.shown import Shown
from slurm_gov.database import DatabaseError, Where, WhereError, locate, shown
from slurm_gov.health.monitor import Broker, BrokerError
from slurm_gov.health.topics import DEFAULT_PREFIX
from slurm_gov.ledger import DEFAULT_LEDGER, Ledger
from slurm_gov.policy.load import load
from slurm_gov.policy.problems import PolicyError
from slurm_gov.slurm.before import Before
from slurm_gov.slurm.choose import CLIENTS, choose
from slurm_gov.slurm.client import SlurmError
from slurm_gov.slurm.commands import CommandClient
from slurm_gov.slurm.nodes_commands import CommandNodes
from slurm_gov.web.app import add_page, make_app
from slurm_gov.web.board import Board


@click.command(context_settings={"auto_envvar_prefix": "SLURM_GOV", "help_option_names": ["-h", "--help"]})
@click.option(
    "--policy",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SLURM_GOV_POLICY",
    default="/etc/slurm-gov/policy.yaml",
    show_default=True,
    help="The policy file. Read again on SIGHUP.",
)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    default="/run/slurm-gov/admission.sock",
    show_default=True,
    help="Where job_submit_gov.so asks: the socket= line of its job_submit_gov.conf.",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="The time between two cycles when nothing is submitted; more on a cluster so large that looking at it "
    "takes long. A submission starts a cycle at once.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long one of Slurm's commands may take before Slurm counts as not answering.",
)
@click.option(
    "--client",
    "client_kind",
    type=click.Choice(list(CLIENTS)),
    envvar="SLURM_GOV_CLIENT",
    default="auto",
    show_default=True,
    help="How Slurm is read: by its own commands, or by pyslurm (`make pyslurm`), which must be built for the Slurm "
    "that runs. auto takes the faster, the commands.",
)
@click.option(
    "--listen",
    default=DEFAULT_LISTEN,
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Where the live page, the read API and /metrics are served; none: nowhere.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Serve only those who name the word in this file, as bearer token or as password. Needed to listen on "
    "more than the loopback.",
)
@click.option(
    "--ledger",
    "ledger_path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SLURM_GOV_LEDGER",
    default=DEFAULT_LEDGER,
    show_default=True,
    help="Where every decision is written down, for slurm-gov log and slurm-gov usage. If it cannot be written, "
    "that is logged and counted, and scheduling goes on.",
)
@click.option(
    "--database",
    "database_url",
    envvar="SLURM_GOV_DATABASE",
    metavar="URL",
    help="A database that the governors of several controllers share, as mariadb://USER:PASSWORD@HOST/NAME or "
    "postgresql://...: ledger and node journal are in it, instead of those files, and of the governors one acts. "
    "Where others can list processes, set SLURM_GOV_DATABASE instead.",
)
@click.option(
    "--ledger-days",
    type=click.FloatRange(min=0),
    default=400.0,
    show_default=True,
    metavar="DAYS",
    help="How long it is kept there; 0: for ever.",
)
@click.option(
    "--node-journal",
    type=click.Path(path_type=Path, dir_okay=False),
    default="/var/lib/slurm-gov/nodes.db",
    show_default=True,
    help="What is remembered of nodes; used when the policy has a health: section.",
)
@click.option(
    "--mqtt", metavar="HOST[:PORT]", help="The MQTT broker that node agents report to; port 8883 if not said."
)
@click.option("--mqtt-ca", type=click.Path(path_type=Path), metavar="FILE", help="The authority of its certificate.")
@click.option("--mqtt-cert", type=click.Path(path_type=Path), metavar="FILE", help="The certificate of slurm-govd.")
@click.option("--mqtt-key", type=click.Path(path_type=Path), metavar="FILE", help="The key of it.")
@click.option(
    "--mqtt-prefix", default=DEFAULT_PREFIX, show_default=True, metavar="TOPIC", help="What all topics begin with."
)
@click.option("--once", is_flag=True, help="Run one cycle, say what was done, and end. The plugin is not answered.")
@click.option("--dry-run", is_flag=True, help="Run one cycle, say what would be done, do nothing, and end.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Lines for people, or one JSON object a line. The log goes to standard error.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The least that is logged.",
)
@click.version_option(__version__, prog_name="slurm-govd")
def cli(
    path: Path,
    socket: Path,
    interval: float,
    timeout: float,
    client_kind: str,
    listen: str,
    token_file: Path | None,
    ledger_path: Path,
    database_url: str | None,
    ledger_days: float,
    node_journal: Path,
    mqtt: str | None,
    mqtt_ca: Path | None,
    mqtt_cert: Path | None,
    mqtt_key: Path | None,
    mqtt_prefix: str,
    once: bool,
    dry_run: bool,
    log_format: str,
    log_level: str,
) -> None:
    """Governs the GPUs of a Slurm cluster by a policy.

    It runs beside slurmctld, as SlurmUser, and needs slurmdbd. In each cycle it looks at Slurm, decides, and
    acts: it sets the GrpTRES of the teams' accounts and, when an owner's GPUs must come back, signals and
    requeues borrowers' jobs. It may be killed at any moment; the caps that stand then go on holding.

    \b
    Signals:
      SIGHUP   read the policy again; a broken one is reported and the old one stays
      SIGTERM  end cleanly

    \b
    Exit codes:
      0  ended as told
      1  Slurm does not answer (--once, --dry-run), the socket or the port cannot be had, or the driver of the
         database is missing
      2  the policy or the command line is wrong

    Every option can be set in the environment: SLURM_GOV_INTERVAL=5 and so on; the unit reads
    /etc/default/slurm-govd. Slurm is found as its own commands find it (SLURM_CONF, /etc/slurm).

    \b
    Examples:
      slurm-govd --policy /etc/slurm-gov/policy.yaml
      slurm-govd --dry-run        what would it do now?
    """
    set_up(log_format, log_level)
    try:
        policy = load(path)
    except PolicyError as error:
        click.echo(f"slurm-govd: {error}", err=True)
        sys.exit(2)
    try:
        shared = locate(database_url) if database_url else None
    except WhereError as error:
        click.echo(f"slurm-govd: --database: {error}", err=True)
        sys.exit(2)
    try:
        ledger = Ledger(shared or ledger_path, ledger_days * 86_400 or None, say_trouble)
        client = asyncio.run(choose(client_kind, timeout))
        if once or dry_run:
            if shared and not dry_run:
                _refuse_beside_a_leader(Leases(shared))
            asyncio.run(_one_cycle(client, policy, ledger, dry_run))
        else:
            tune()
            governor = Governor(client, policy, path, socket, interval)
            governor.before = _before(shared, ledger_path.parent)
            if shared:
                governor.lead_by(Leases(shared), timeout)
                log.info("several controllers: one governor acts", database=shown(shared))
            nodes = CommandNodes(timeout, client.permit)
            broker = Broker.at(mqtt, mqtt_ca, mqtt_cert, mqtt_key, mqtt_prefix) if mqtt else None
            healing = Healing(
                client, nodes, shared or node_journal, broker, governor.wake, governor.record, governor.leadership
            )
            governor.watchers.append(healing)
            governor.beside.append(healing.run)
            governor.past = Past(shared or ledger_path)
            _govern(governor, ledger, healing, listen, token_file)
    except DatabaseError as error:
        click.echo(f"slurm-govd: {error}", err=True)
        sys.exit(1)
    except SlurmError as error:
        click.echo(f"slurm-govd: {error}", err=True)
        sys.exit(1)
    except (OSError, HttpError, BrokerError) as error:
        click.echo(f"slurm-govd: {error}", err=True)
        sys.exit(1)


def _refuse_beside_a_leader(leases: Leases) -> None:
    """One cycle beside a governor that leads would act twice. Raises ``DatabaseError``."""
    lease = leases.read()
    leases.close()
    if lease is not None and lease.held:
        raise DatabaseError(f"--once: the governor on {lease.host} leads; stop it first, or use --dry-run")


def _before(shared: Where | None, folder: Path) -> Before | None:
    """What was there before us; without it the caps of today cannot be undone, but governing goes on."""
    try:
        return SharedBefore(shared, folder) if shared else Before(folder)
    except (OSError, ValueError) as error:
        log.error("what was there before slurm-gov is not kept", error=str(error))
        return None


def _govern(governor: Governor, ledger: Ledger, healing: Healing, listen: str, token_file: Path | None) -> None:
    """Run the governor, with its ledger and its HTTP server beside it."""
    with contextlib.ExitStack() as beside:
        gap = max(60.0, 10 * governor.interval)
        books = Bookkeeper(ledger, gap)
        metrics = Metrics(ledger, gap, governor.leadership)
        metrics.nodes.known = lambda: known_of(healing)
        governor.watchers += [books, metrics]
        ledger.start()
        beside.callback(books.close)
        if listen != "none":
            board = Board(governor.interval)
            token = read_token(token_file) if token_file else ""
            app = make_app(board, bool(token))
            add_page(app, "/metrics", metrics.page)
            server = HttpServer(app, listen, token)
            beside.callback(server.stop)
            beside.callback(board.close)
            governor.watchers.append(page := Shown(board))
            for event in ledger.recent:
                page.event(event)
            server.start()
            log.info("serving", address=server.url, token=bool(token))
        asyncio.run(governor.run())


async def _one_cycle(client: CommandClient, policy: Policy, ledger: Ledger, dry_run: bool) -> None:
    snapshot, decided, todo = await look(client, policy, Past(ledger.path))
    for text in decided.warnings:
        log.warning(text)
    watching = dry_run or policy.mode is Mode.OBSERVE
    _say(decided, todo, "would" if watching else "will")
    if not watching:
        ledger.start()
        try:
            await act(client, policy, todo, time.time(), Deeds(policy, snapshot, decided, ledger.record))
        finally:
            ledger.close()


def _say(decided: Plan, todo: Actions, will: str) -> None:
    """Every decision of a plan, on standard output."""
    for line in intents(todo, will):
        click.echo(line)
    for decision in decided.decisions:
        click.echo(f"job {decision.display_id} ({decision.team or 'no team'}): {decision.reason}: {decision.why}")


def main() -> None:
    """Console script ``slurm-govd``."""
    cli(prog_name="slurm-govd")
