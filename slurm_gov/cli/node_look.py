"""What the commands about nodes look at: the policy, Slurm's nodes, and the journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slurm_gov.cli.common import Failure
from slurm_gov.cli.database import place

if TYPE_CHECKING:
    from slurm_gov.core.health import Health
    from slurm_gov.core.policy import Policy
    from slurm_gov.core.snapshot import Node
    from slurm_gov.database import Where
    from slurm_gov.health.journal import Journal
    from slurm_gov.health.lifecycle import Record
    from slurm_gov.slurm.commands import CommandClient

journal_file = place(
    "--node-journal",
    "journal_path",
    "SLURM_GOV_NODE_JOURNAL",
    "/var/lib/slurm-gov/nodes.db",
    "What slurm-govd remembers of nodes.",
)


@dataclass(frozen=True)
class Look:
    """One look: policy, Slurm's nodes with the jobs on each (id and QOS), and the journal."""

    policy: Policy
    health: Health
    nodes: dict[str, Node]
    jobs: dict[str, list[tuple[str, str]]]
    pools: dict[str, str]
    records: dict[str, Record]
    journal: Journal

    def record(self, name: str) -> Record:
        """What is remembered of a node; one never seen is healthy. Raises ``Failure`` if it is not in a pool."""
        from slurm_gov.health.lifecycle import Record
        from slurm_gov.policy.problems import did_you_mean, shown

        if name not in self.pools:
            if name in self.nodes:
                raise Failure(f"node {shown(name)} is in no pool of the policy: it is not looked after")
            raise Failure(f"Slurm knows no node {shown(name)}; {did_you_mean(name, self.nodes, 'node')}")
        return self.records.get(name) or Record(name, self.pools[name])


def take_a_look(policy_path: str, journal_path: Where) -> Look:
    """Raises ``Failure`` if something cannot be read."""
    import asyncio

    from slurm_gov.cli.look import TIMEOUT, failure, read_policy
    from slurm_gov.core.snapshot import Snapshot
    from slurm_gov.health.journal import Journal, JournalError
    from slurm_gov.health.sights import pools_of
    from slurm_gov.slurm.client import SlurmError
    from slurm_gov.slurm.commands import CommandClient

    policy = read_policy(policy_path)
    if policy.health is None:
        raise Failure(f"{policy_path} has no health: section, so nothing is done to nodes; docs/policy.md says how")
    try:
        found, jobs = asyncio.run(_nodes_and_jobs(CommandClient(TIMEOUT), TIMEOUT))
        journal = Journal(journal_path, create=False)
        records = journal.records()
    except SlurmError as error:
        raise failure(error) from None
    except JournalError as error:
        raise Failure(str(error)) from None
    pools = pools_of(policy, Snapshot(0.0, found, (), ()))
    return Look(policy, policy.health, {one.name: one for one in found}, jobs, pools, records, journal)


async def _nodes_and_jobs(
    client: CommandClient, timeout: float
) -> tuple[tuple[Node, ...], dict[str, list[tuple[str, str]]]]:
    from slurm_gov.slurm import parse
    from slurm_gov.slurm.run import run

    found = await client.nodes()
    jobs: dict[str, list[tuple[str, str]]] = {}
    for line in (await run(["squeue", "-h", "-a", "-t", "R,S,CG,CF", "-o", "%i %q %N"], timeout)).splitlines():
        job, qos, nodes = line.split()
        for name in parse.nodes(nodes):
            jobs.setdefault(name, []).append((job, qos))
    return found, jobs
