"""One look at Slurm for the views: policy, snapshot, plan, and what would be done. No daemon is needed."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from slurm_gov.cli.common import Failure

if TYPE_CHECKING:
    from slurm_gov.core.policy import Policy
    from slurm_gov.core.rows import Look
    from slurm_gov.core.snapshot import Snapshot
    from slurm_gov.ledger import Lately

F = TypeVar("F", bound=Callable[..., Any])

TIMEOUT = 20.0
"""Seconds that each of Slurm's commands may take: about as long as they try to reach slurmctld themselves."""
BRIEF = 5.0
"""Seconds for questions whose answer is nice to have."""

policy_file = click.option(
    "--policy",
    "policy_path",
    type=click.Path(dir_okay=False),
    envvar="SLURM_GOV_POLICY",
    default="/etc/slurm-gov/policy.yaml",
    show_default=True,
    show_envvar=True,
    metavar="FILE",
    help="Decide by this policy.",
)


def look(policy_path: str) -> Look:
    """Read the policy, look at Slurm and decide, changing nothing. Raises ``Failure``."""
    from slurm_gov.core.actions import actions
    from slurm_gov.core.plan import plan
    from slurm_gov.core.rows import Look
    from slurm_gov.slurm.client import SlurmError

    policy = read_policy(policy_path)
    try:
        snapshot, notes = asyncio.run(_look(policy))
    except SlurmError as error:
        raise failure(error) from None
    decided = plan(policy, snapshot)
    return Look(policy, snapshot, decided, actions(policy, snapshot, decided), notes=notes)


def failure(error: Exception) -> Failure:
    """What to say, and what to do, when Slurm does not answer or refuses."""
    from slurm_gov.slurm.client import SlurmUnavailable

    if not isinstance(error, SlurmUnavailable):
        return Failure(str(error))
    if "not installed" in str(error):
        return Failure(f"{error}; run this where Slurm's commands are")
    return Failure(
        f"Slurm does not answer ({error}); see that slurmctld runs (scontrol ping)"
        " and that SLURM_CONF names the right cluster"
    )


def ended(ids: list[str]) -> dict[str, tuple[str, float | None]]:
    """What accounting knows of jobs that the queue no longer has: id to state and end. Nothing if it is silent."""
    from slurm_gov.slurm import parse
    from slurm_gov.slurm.client import SlurmError
    from slurm_gov.slurm.run import run

    command = ["sacct", "-nPX", "-j", ",".join(ids), "--format=JobID,JobIDRaw,State,End"]
    try:
        said = asyncio.run(run(command, TIMEOUT))
    except SlurmError:
        return {}
    found: dict[str, tuple[str, float | None]] = {}
    for line in said.splitlines():
        id, raw, state, end = line.split("|")
        for name in (id, raw, id.partition("_")[0]):
            found[name] = (state, parse.time(end))
    return found


def read_policy(path: str) -> Policy:
    from slurm_gov.policy import PolicyError, load

    try:
        return load(path)
    except PolicyError as error:
        if len(error.problems) > 1:
            raise Failure(f"{path} is refused; see slurm-gov policy check", error.report().splitlines()) from None
        hint = "" if error.problems[0].line else "; name the policy with --policy FILE or $SLURM_GOV_POLICY"
        raise Failure(f"{error.problems[0]}{hint}") from None


async def _snapshot(policy: Policy) -> Snapshot:
    from slurm_gov.slurm.checkpoints import with_files
    from slurm_gov.slurm.commands import CommandClient

    client = CommandClient(TIMEOUT, accounting_check=None)
    return await with_files(policy.preemption.checkpoint_file, await client.snapshot())


async def _look(policy: Policy) -> tuple[Snapshot, tuple[str, ...]]:
    """A snapshot, and what to know about it. Whichever fails first is what went wrong."""
    snapshot, hidden, missing, _ = await asyncio.gather(_snapshot(policy), _hidden(), _accounting(), _ping())
    past, unknown = _past(policy, snapshot.now)
    snapshot = replace(snapshot, borrowed_lately=past.teams, cohorts_borrowed_lately=past.cohorts)
    return snapshot, hidden + missing + unknown


def _past(policy: Policy, now: float) -> tuple[Lately, tuple[str, ...]]:
    """What teams and cohorts borrowed lately, where the policy asks, as the daemon's ledger has it."""
    from slurm_gov.cli import database as where_is
    from slurm_gov.ledger import Lately, LedgerError, borrowed_lately

    if policy.half_life is None:
        return Lately({}, {}), ()
    try:
        return borrowed_lately(where_is.ledger(), policy, now), ()
    except LedgerError as error:
        return Lately({}, {}), (f"what was borrowed lately is not known, and half_life not followed here: {error}",)


async def _ping() -> None:
    """Slurm's own commands try for 19 s to reach a slurmctld that is down; scontrol ping knows at once."""
    from slurm_gov.slurm.client import SlurmUnavailable
    from slurm_gov.slurm.run import run_raw

    try:
        _, said, _ = await run_raw(["scontrol", "ping"], BRIEF)
    except SlurmUnavailable:
        return  # the others will say what is wrong
    controllers = [line for line in said.splitlines() if line.startswith("Slurmctld(")]
    if controllers and not any(line.rstrip().endswith(" UP") for line in controllers):
        raise SlurmUnavailable("; ".join(controllers))


async def _accounting() -> tuple[str, ...]:
    """A warning where slurmdbd does not answer: slurmctld goes on without it, and so do the views."""
    from slurm_gov.slurm.client import SlurmError
    from slurm_gov.slurm.run import run

    try:
        await run(["sacctmgr", "-nP", "show", "cluster", "format=cluster"], BRIEF)
    except SlurmError:
        return ("slurmdbd does not answer: no cap can be changed, so nothing is lent or taken back until it does",)
    return ()


async def _hidden() -> tuple[str, ...]:
    """A warning where Slurm may hide other users' jobs or accounts from whoever asks."""
    from slurm_gov.slurm.run import run

    settings = dict(re.findall(r"^(\w+)\s*= (.*)$", await run(["scontrol", "show", "config"], TIMEOUT), re.MULTILINE))
    private = settings.get("PrivateData", "none").strip()
    if private in ("", "none") or os.geteuid() == 0:
        return ()
    try:
        me = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        me = ""
    if settings.get("SlurmUser", "").startswith(f"{me}("):
        return ()
    return (f"Slurm may hide jobs and accounts from you (PrivateData={private}): the figures may be too low",)
