"""Reading and changing accounts and QOS with Slurm's own commands.

Only columns that hold names and numbers are read: an account's description is free text, and a line break or
a separator in it would be read as something else.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence

from slurm_gov.core.policy import Policy, frozen
from slurm_gov.slurm import accounts, nodelay, parse
from slurm_gov.slurm.accounts import Account, Change, Partition, State
from slurm_gov.slurm.client import SlurmError
from slurm_gov.slurm.run import run, run_raw

READ_SECONDS = 60.0  # scontrol alone waits 19 s for a slurmctld that is not there
FIRST_SECONDS = 30.0  # for sacctmgr to start and connect
LINE_SECONDS = 2.0  # for each line it is given; 0.3 s is usual on 22.05

_TROUBLE = re.compile(r"error|problem|denied|unknown|nothing|bad |invalid|not ", re.IGNORECASE)


async def read_state() -> State:
    """What this cluster has.

    Raises SlurmUnavailable if slurmctld or slurmdbd does not answer, SlurmError if they refuse.
    """
    config = read_config(await run(["scontrol", "show", "config"], READ_SECONDS))
    cluster = config.get("ClusterName", "")
    if not cluster:
        raise SlurmError("scontrol show config names no cluster")
    listed, nodes = await asyncio.gather(
        run(["scontrol", "-a", "-o", "show", "partition"], READ_SECONDS),
        run(["sinfo", "-a", "-h", "-N", "-o", "%N|%R|%G"], READ_SECONDS),
    )
    partitions, where = read_partitions(listed), read_nodes(nodes)
    if config.get("AccountingStorageType") != "accounting_storage/slurmdbd":
        return State(cluster, config, {}, {}, partitions, where)
    columns = "format=account,user,partition,parentname,grptres,qos"
    qos, associations = await asyncio.gather(
        run(["sacctmgr", "-nP", "show", "qos", "format=name,priority"], READ_SECONDS),
        run(["sacctmgr", "-nP", "show", "assoc", "where", f"cluster={cluster}", columns], READ_SECONDS),
    )
    found, own = read_associations(associations)
    return State(cluster, config, found, read_qos(qos), partitions, where, own)


async def apply(todo: Sequence[Change], policy: Policy, cluster: str) -> None:
    """Make the changes, and read Slurm again to see that they are made.

    sacctmgr goes on after a line that failed, and its exit code is the same for "failed" and "nothing new": so
    what Slurm has afterwards decides. Raises SlurmError with sacctmgr's own words if anything is left.
    """
    lines = accounts.commands(todo, cluster)
    if not lines:
        return
    said = await tell_sacctmgr(lines)
    left = accounts.changes(policy, await read_state())
    if left:
        why = f": {said}" if said else ""
        raise SlurmError(f"{len(left)} of {len(todo)} changes were not made, first: {left[0]}{why}")


async def tell_sacctmgr(lines: Sequence[str]) -> str:
    """Give sacctmgr these lines; returns what it complained about. It goes on after a line that failed."""
    limit = FIRST_SECONDS + LINE_SECONDS * len(lines)
    more = nodelay.environment(read_config(await run(["scontrol", "show", "config"], READ_SECONDS)))
    _, out, err = await run_raw(["sacctmgr", "-i"], limit, "\n".join(lines) + "\n", more)
    return complaints(f"{err}\n{out}", lines)


def complaints(said: str, lines: Sequence[str]) -> str:
    """What sacctmgr complained about, without its echo of the lines it was given."""
    told = [line.strip().removeprefix("sacctmgr:").strip() for line in said.splitlines()]
    return "; ".join(dict.fromkeys(t for t in told if t not in lines and _TROUBLE.search(t)))[:500]


def read_config(text: str) -> dict[str, str]:
    """``scontrol show config``: one ``Name = value`` a line."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def read_partitions(text: str) -> dict[str, Partition]:
    """``scontrol -o show partition``: one line each, ``Name=value`` between spaces."""
    found = {}
    for line in text.splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        name = fields.get("PartitionName")
        if name:
            found[name] = Partition(
                name,
                _names(fields.get("AllowAccounts", "ALL")),
                _names(fields.get("DenyAccounts", "")) or frozenset(),
                _names(fields.get("AllowQos", "ALL")),
                _names(fields.get("DenyQos", "")) or frozenset(),
            )
    return found


def _names(text: str) -> frozenset[str] | None:
    if text.upper() == "ALL":
        return None
    return frozenset(name.lower() for name in text.split(",") if name and name != "(null)")


def read_nodes(text: str) -> dict[str, tuple[frozenset[str], Mapping[str, int]]]:
    """``sinfo -N -o "%N|%R|%G"``: node, partition, GRES; a line for each partition of a node."""
    where: dict[str, set[str]] = {}
    gres: dict[str, Mapping[str, int]] = {}
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) == 3:
            where.setdefault(parts[0], set()).add(parts[1])
            gres[parts[0]] = frozen(parse.gres(parts[2]))
    return {node: (frozenset(where[node]), gres[node]) for node in where}


def read_qos(text: str) -> dict[str, int]:
    """``name|priority`` a line."""
    rows = (line.split("|") for line in text.splitlines())
    return {row[0]: int(row[1] or 0) for row in rows if len(row) >= 2 and row[0]}


def read_associations(text: str) -> tuple[dict[str, Account], tuple[tuple[str, str, frozenset[str]], ...]]:
    """``account|user|partition|parent|grptres|qos`` a line: accounts; users with QOS of their own."""
    found: dict[str, Account] = {}
    users: list[tuple[str, str, frozenset[str]]] = []
    for line in text.splitlines():
        row = line.split("|")
        if len(row) != 6 or not row[0]:
            continue
        account, user, _partition, parent, caps, qos = row
        names = frozenset(name for name in qos.split(",") if name)
        if user:
            users.append((user, account, names))
        else:
            amounts = {tres.lower(): int(amount) for tres, amount in parse.tres(caps).items()}
            found[account] = Account(account, parent, frozen(amounts), names)
    own = [row for row in users if row[1] in found and row[2] != found[row[1]].qos]
    return found, tuple(dict.fromkeys(own))
