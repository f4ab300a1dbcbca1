"""slurm-gov policy: check a policy file, show what it means, and bring Slurm's accounts and QOS in line."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from slurm_gov.cli.common import Failure, add, as_json, clean, console, print_json, table
from slurm_gov.cli.import_policy import import_group

if TYPE_CHECKING:
    from slurm_gov.core.policy import Policy, Quota
    from slurm_gov.policy import Checked, Problem
    from slurm_gov.slurm.accounts import Change, Finding, State
    from slurm_gov.slurm.before import Before

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_FILE = "/etc/slurm-gov/policy.yaml"
CHANGES_NEEDED = 3


def running_file() -> str:
    """The file that the daemon reads: $SLURM_GOV_POLICY, or /etc/slurm-gov/policy.yaml."""
    return os.environ.get("SLURM_GOV_POLICY") or DEFAULT_FILE


def _file(command: F) -> F:
    return click.argument("file", default="running", type=click.Path(readable=False), metavar="[FILE]")(command)


@click.group()
def policy() -> None:
    """Check, show, compare and apply the policy: pools, teams, quotas, priority classes.

    FILE is by default the running policy: $SLURM_GOV_POLICY, or /etc/slurm-gov/policy.yaml. The word
    "running" means the same file.

    \b
    From a new file to a running policy:
      slurm-gov policy check policy.yaml       is the file right?
      slurm-gov policy diff policy.yaml        what would change in Slurm?
      slurm-gov policy apply policy.yaml       change it

    \b
    Exit codes:
      0  done; for diff: nothing to change
      1  the file is wrong, or Slurm does not answer or refuses
      2  wrong usage
      3  diff only: there is something to change
    """


policy.add_command(import_group)


@policy.command(short_help="Is a policy file right?")
@_file
@as_json
def check(file: str, as_json: bool) -> None:
    """Check whether FILE is right. Slurm is not needed.

    Every mistake is printed with its line and what would be right. Warnings are things that are allowed but
    probably not meant; they do not change the exit code.

    \b
    Examples:
      slurm-gov policy check policy.yaml
      slurm-gov policy check --json policy.yaml | jq '.problems[].message'

    \b
    Exit codes:
      0  the file is right
      1  it is wrong, or cannot be read
      2  wrong usage
    """
    from slurm_gov.policy import PolicyError
    from slurm_gov.policy import check as check_file

    name = _path(file)
    if not as_json:
        checked = _load(file)
        _warn(checked.warnings)
        counted = checked.policy
        click.echo(
            f"{clean(name)}: right: {_count(counted.pools, 'pool')}, {_count(counted.teams, 'team')}, "
            f"{_count(counted.priority_classes, 'priority class', 'priority classes')}"
        )
        return
    try:
        checked = check_file(name)
    except PolicyError as error:
        print_json({"file": name, "right": False, "problems": _problems(error.problems), "warnings": []})
        raise click.exceptions.Exit(1) from None
    print_json({"file": name, "right": True, "problems": [], "warnings": _problems(checked.warnings)})


@policy.command()
@_file
@as_json
@click.option("--yaml", "as_yaml", is_flag=True, help="Print it as a policy file, every default filled in.")
def show(file: str, as_json: bool, as_yaml: bool) -> None:
    """Show what FILE means: percentages as numbers, defaults filled in.

    \b
    Examples:
      slurm-gov policy show running
      slurm-gov policy show --yaml policy.yaml

    \b
    Exit codes:
      0  shown
      1  the file is wrong
      2  wrong usage
    """
    from slurm_gov.policy import as_data, dumps

    checked = _load(file)
    if as_json:
        print_json(as_data(checked.policy))
    elif as_yaml:
        click.echo(clean_lines(dumps(checked.policy)), nl=False)
    else:
        _show(checked.policy)


@policy.command(short_help="Show what must change in Slurm; change nothing.")
@_file
@as_json
def diff(file: str, as_json: bool) -> None:
    """Show what must change in Slurm so that FILE holds: accounts, QOS, caps. Changes nothing.

    Caps are only ever raised to a quota here. A cap above the quota is what the governor gave the team of the
    idle capacity, and is the governor's to move.

    \b
    Examples:
      slurm-gov policy diff policy.yaml
      slurm-gov policy diff --json running

    \b
    Exit codes:
      0  nothing to change
      1  the file is wrong, this cluster cannot hold it, or Slurm does not answer
      2  wrong usage
      3  there is something to change
    """
    checked = _load(file)
    state, todo, findings = _compare(checked.policy)
    if as_json:
        print_json(_diff_data(state, todo, findings))
    else:
        _warn(checked.warnings)
        _report(findings)
        _print_changes(todo)
    if any(finding.error for finding in findings):
        raise _hindered(findings)
    if todo:
        raise click.exceptions.Exit(CHANGES_NEEDED)


@policy.command(short_help="Make a policy hold in Slurm: accounts, QOS, caps.")
@_file
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("-n", "--dry-run", is_flag=True, help="Show what would change and stop.")
@click.option(
    "--policy",
    "target",
    type=click.Path(readable=False),
    metavar="FILE",
    help="Where the daemon reads its policy; FILE is copied there. Default: $SLURM_GOV_POLICY, if set.",
)
def apply(file: str, yes: bool, dry_run: bool, target: str | None) -> None:
    """Make FILE hold in Slurm: create accounts and QOS, write the caps that guarantee the quotas.

    What will change is shown first, and you are asked. Afterwards Slurm is read again: success means that Slurm
    says so. Applying a policy twice changes nothing the second time; after an error, apply again.

    If --policy or $SLURM_GOV_POLICY names another file, FILE is copied there at the end, in one step. A running
    slurm-govd reads it when told to: systemctl reload slurm-govd (SIGHUP).

    \b
    Examples:
      slurm-gov policy apply policy.yaml
      slurm-gov policy apply --dry-run policy.yaml
      slurm-gov policy apply --yes --policy /etc/slurm-gov/policy.yaml policy.yaml

    \b
    Exit codes:
      0  done, or nothing to do
      1  refused, failed, or not confirmed
      2  wrong usage
    """
    checked = _load(file)
    _warn(checked.warnings)
    state, todo, findings = _compare(checked.policy)
    _report(findings)
    if any(finding.error for finding in findings):
        raise _hindered(findings)
    target = target or os.environ.get("SLURM_GOV_POLICY")
    copy = bool(target) and not _same_content(_path(file), target or "")
    _print_changes(todo)
    if copy:
        click.echo(f"{clean(_path(file))} will be copied to {clean(target)}")
    if dry_run or not (todo or copy):
        return
    _confirm(yes)
    if todo:
        _remember(todo)
        _apply(todo, checked.policy, state)
        click.echo(f"done: {_count(todo, 'change')} made, and read again from Slurm")
        _say_who_is_missing(todo, state)
    if copy and target:
        _install(_path(file), target)
        click.echo(f"copied to {clean(target)}; a running slurm-govd reads it on: systemctl reload slurm-govd")


@policy.command(short_help="Make Slurm as it was before slurm-gov changed it.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("-n", "--dry-run", is_flag=True, help="Show what would change and stop.")
@click.option("--created", is_flag=True, help="Delete the accounts and QOS too that slurm-gov created.")
@click.option(
    "--socket",
    "socket_path",
    default="/run/slurm-gov/admission.sock",
    show_default=True,
    envvar="SLURM_GOV_SOCKET",
    metavar="PATH",
    help="Where slurm-govd would answer: while it runs nothing is removed.",
)
def remove(yes: bool, dry_run: bool, created: bool, socket_path: str) -> None:
    """Make Slurm's accounts, caps and QOS as they were before slurm-gov first changed them.

    slurm-govd and policy apply write down what they change, before they change it, in before.json beside the
    ledger. Stop slurm-govd first (systemctl disable --now slurm-govd): it would set the caps again. Accounts and QOS
    that policy apply created stay unless --created is given; their users' associations go with them, and Slurm
    refuses as long as they have jobs.

    The plugin and the units are removed by: slurm-gov install --remove

    \b
    Examples:
      slurm-gov policy remove --dry-run
      slurm-gov policy remove --created

    \b
    Exit codes:
      0  done, or nothing to do
      1  refused, failed, or not confirmed
      2  wrong usage
    """
    import asyncio

    from slurm_gov.slurm.accounts_commands import read_state, tell_sacctmgr
    from slurm_gov.slurm.before import undo, undo_commands
    from slurm_gov.slurm.client import SlurmError

    if _answers(socket_path) and not dry_run:
        raise Failure(
            f"slurm-govd answers on {socket_path} and would set the caps again; "
            "first stop it: systemctl disable --now slurm-govd"
        )
    before = _before()
    try:
        state = asyncio.run(read_state())
        back, made = undo(before.known, state)
        todo = [*back, *(made if created else ())]
        _print_changes(todo)
        if made and not created:
            names = ", ".join(f"{one.what.value.removeprefix('create ')} {one.name}" for one in made)
            click.echo(f"created by slurm-gov and left: {clean(names)}; --created deletes them")
        if dry_run:
            return
        if todo:
            _confirm(yes)
            said = asyncio.run(tell_sacctmgr(undo_commands(back, made if created else (), state.cluster)))
            back, made = undo(before.known, asyncio.run(read_state()))
            left = [*back, *(made if created else ())]
            if left:
                raise Failure(f"{len(left)} of {len(todo)} changes were not made, first: {left[0]}: {said}")
            click.echo(f"done: {_count(todo, 'change')} made, and read again from Slurm")
    except SlurmError as error:
        raise Failure(str(error)) from None
    if not made:
        before.forget()


@policy.command()
def schema() -> None:
    """Print the JSON Schema of the policy file, for editors.

    With the YAML language server, which most editors have, the first line of policy.yaml then is
    "# yaml-language-server: $schema=/etc/slurm-gov/policy.schema.json".

    \b
    Example:
      slurm-gov policy schema > /etc/slurm-gov/policy.schema.json

    \b
    Exit codes:
      0  printed
      2  wrong usage
    """
    from slurm_gov.policy.schema import json_schema

    print_json(json_schema())


# -- the file ----------------------------------------------------------------------------------------


def _path(file: str) -> str:
    return running_file() if file == "running" else file


def _load(file: str) -> Checked:
    from slurm_gov.policy import PolicyError
    from slurm_gov.policy import check as check_file

    try:
        return check_file(_path(file))
    except PolicyError as error:
        problems = error.problems
        if len(problems) == 1:
            raise Failure(str(problems[0])) from None
        mistakes = _count(problems, "mistake")
        raise Failure(f"{_path(file)} has {mistakes} and is refused", error.report().splitlines()) from None


def _warn(warnings: Sequence[Problem]) -> None:
    for warning in warnings:
        click.echo(f"warning: {clean(warning)}", err=True)


def _problems(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    return [
        {
            "file": p.file,
            "line": p.line,
            "column": p.column,
            "path": p.path,
            "message": p.message,
            "remedy": p.remedy,
        }
        for p in problems
    ]


def _same_content(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other) or Path(one).read_bytes() == Path(other).read_bytes()
    except OSError:
        return False


def _install(file: str, target: str) -> None:
    """Copy in one step: whoever reads the target sees the old policy or the new one, never a part."""
    to = Path(target)
    try:
        with tempfile.NamedTemporaryFile(dir=to.parent, prefix=f".{to.name}.", delete=False) as new:
            try:
                new.write(Path(file).read_bytes())
                new.flush()
                os.fsync(new.fileno())
                if to.exists():
                    shutil.copymode(to, new.name)
                else:
                    Path(new.name).chmod(0o644)
                Path(new.name).replace(to)
            except OSError:
                Path(new.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise Failure(f"Slurm is changed, but {target} could not be written: {error.strerror}") from None


# -- what it means -----------------------------------------------------------------------------------


def _count(things: Sequence[object] | Any, one: str, many: str = "") -> str:
    return f"{len(things)} {one if len(things) == 1 else many or one + 's'}"


def clean_lines(text: str) -> str:
    """Several lines with control characters other than the line ends made visible."""
    return "".join(f"{clean(line)}\n" for line in text.split("\n")[:-1])


def _show(shown: Policy) -> None:
    from slurm_gov.policy.show import seconds

    out = console()
    pools = table("POOL", "PARTITION", "GRES", "QUOTAS", right=["QUOTAS"])
    for pool in shown.pools.values():
        total = sum(team.quotas[pool.name].nominal for team in shown.teams.values())
        total += sum(cohort.quotas[pool.name].nominal for cohort in shown.cohorts.values())
        add(pools, pool.name, ",".join(pool.partitions), pool.gres, total)
    out.print(pools)
    out.print()

    columns = ["TEAM", "POOL", "QUOTA", "LEND", "BORROW", "WEIGHT", "WITHIN TEAM", "RECLAIM"]
    teams = table(*columns, *(["COHORT"] if shown.cohorts else []), right=["QUOTA", "LEND", "BORROW", "WEIGHT"])
    for team in shown.teams.values():
        words = [team.preempt_within_team.value, team.reclaim.value]
        own = [team.fair_share_weight, *(word.replace("_", " ") for word in words)]
        _quota_rows(teams, team.name, team.quotas, [*own, team.cohort] if shown.cohorts else own)
    out.print(teams)
    out.print()

    if shown.cohorts:
        cohorts = table("COHORT", "POOL", "QUOTA", "LEND", "BORROW", "WEIGHT", "PARENT",
                        right=["QUOTA", "LEND", "BORROW", "WEIGHT"])  # fmt: skip
        for cohort in shown.cohorts.values():
            _quota_rows(cohorts, cohort.name, cohort.quotas, (cohort.fair_share_weight, cohort.parent))
        out.print(cohorts)
        out.print()

    if shown.priority_classes:
        classes = table("PRIORITY CLASS", "WEIGHT", right=["WEIGHT"])
        for name, weight in sorted(shown.priority_classes.items(), key=lambda item: (-item[1], item[0])):
            add(classes, name, weight)
        out.print(classes)
        out.print()

    settings = table("SETTING", "VALUE")
    preemption = shown.preemption
    add(settings, "idle capacity", shown.idle.value)
    add(settings, "lend unallocated capacity", "yes" if shown.lend_unallocated else "no")
    add(settings, "preemption: signal", preemption.signal)
    add(settings, "preemption: grace", seconds(preemption.grace))
    add(settings, "preemption: min_runtime", seconds(preemption.min_runtime))
    add(settings, "preemption: requeue_delay", seconds(preemption.requeue_delay))
    add(settings, "preemption: if_not_requeueable", "cancel" if preemption.cancel_unrequeueable else "never")
    out.print(settings)


def _quota_rows(to: Any, name: str, quotas: Any, rest: Sequence[object]) -> None:
    from slurm_gov.policy.show import limit

    first = True
    for pool, quota in quotas.items():
        if _closed(quota) and len(quotas) > 1:
            continue
        limits = (quota.nominal, limit(quota.lend, "all"), limit(quota.borrow, "unlimited"))
        add(to, name if first else "", pool, *limits, *(rest if first else ["" for _ in rest]))
        first = False


def _closed(quota: Quota) -> bool:
    return quota.nominal == 0 and quota.borrow == 0 and quota.lend == 0


# -- Slurm -------------------------------------------------------------------------------------------


def _compare(wanted: Policy) -> tuple[State, list[Change], list[Finding]]:
    import asyncio

    from slurm_gov.slurm import accounts
    from slurm_gov.slurm.accounts_commands import read_state
    from slurm_gov.slurm.client import SlurmError

    try:
        state = asyncio.run(read_state())
    except SlurmError as error:
        raise Failure(str(error)) from None
    findings = accounts.check(wanted, state)
    return state, accounts.changes(wanted, state), findings


def _apply(todo: Sequence[Change], wanted: Policy, state: State) -> None:
    import asyncio

    from slurm_gov.slurm.accounts_commands import apply
    from slurm_gov.slurm.client import SlurmError

    try:
        asyncio.run(apply(todo, wanted, state.cluster))
    except SlurmError as error:
        raise Failure(str(error)) from None
    _note(todo)


def _note(done: Sequence[Change]) -> None:
    """Write into the ledger, if there is one here, who changed what in Slurm."""
    from slurm_gov.cli import database as where_is
    from slurm_gov.database import exists
    from slurm_gov.ledger import Event, Kind, LedgerError, note
    from slurm_gov.slurm.accounts import What

    path = where_is.ledger()
    if not exists(path):
        return
    who = os.environ.get("SUDO_USER") or getpass.getuser()
    try:
        note(
            path,
            [
                Event(
                    Kind.POLICY,
                    f"slurm-gov policy: {change}",
                    who=who,
                    team=change.name if change.what in (What.CREATE_ACCOUNT, What.ALLOW_QOS, What.CAP) else "",
                    before=change.before,
                    after=change.after,
                )
                for change in done
            ],
        )
    except LedgerError as error:
        click.echo(f"warning: done, but not written into the ledger: {clean(error)}", err=True)


def _report(findings: Sequence[Finding]) -> None:
    for finding in findings:
        click.echo(f"{'error' if finding.error else 'warning'}: {clean(finding)}", err=True)


def _hindered(findings: Sequence[Finding]) -> Failure:
    errors = [finding for finding in findings if finding.error]
    return Failure(f"this cluster cannot hold the policy yet: {_count(errors, 'error')}, nothing was changed")


def _print_changes(todo: Sequence[Change]) -> None:
    if not todo:
        click.echo("nothing to change in Slurm")
        return
    out = table("IN SLURM", "NAME", "BEFORE", "AFTER")
    for change in todo:
        what = f"GrpTRES {change.setting}" if change.setting else change.what.value
        add(out, what, change.name, _spaced(change.before), _spaced(change.after))
    console().print(out)


def _spaced(names: str) -> str:
    """A list that folds between its words in a narrow table."""
    return names.replace(",", ", ")


def _diff_data(state: State, todo: Sequence[Change], findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "cluster": state.cluster,
        "changes": [
            {
                "what": change.what.value,
                "name": change.name,
                "setting": change.setting,
                "before": change.before,
                "after": change.after,
                "text": str(change),
            }
            for change in todo
        ],
        "errors": [{"message": f.message, "remedy": f.remedy} for f in findings if f.error],
        "warnings": [{"message": f.message, "remedy": f.remedy} for f in findings if not f.error],
    }


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure("not changed: there is no terminal to ask on; add --yes")
    if not click.confirm("Make these changes?", default=False):
        raise Failure("not changed")


def _before() -> Before:
    """What was there before slurm-gov: beside the ledger."""
    from slurm_gov.cli import database as where_is

    try:
        return where_is.before()
    except (ValueError, OSError) as error:
        raise Failure(str(error)) from None


def _remember(todo: Sequence[Change]) -> None:
    try:
        _before().remember(todo)
    except OSError as error:
        raise Failure(f"nothing was changed, for what is there now cannot be written down: {error}") from None


def _answers(socket_path: str) -> bool:
    """Whether a slurm-govd answers there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(socket_path)
        except PermissionError:
            return True
        except OSError:
            return False
    return True


def _say_who_is_missing(todo: Sequence[Change], state: State) -> None:
    """A new account has no users yet, and only the administrator knows who they are."""
    from slurm_gov.slurm.accounts import What

    made = [change.name for change in todo if change.what is What.CREATE_ACCOUNT]
    if made:
        command = f"sacctmgr add user NAME account={made[0]} cluster={state.cluster}"
        click.echo(f"the new accounts have no users yet: {command}")
