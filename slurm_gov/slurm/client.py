"""What the governor asks of Slurm and does to it: the one interface, whatever is behind it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from slurm_gov.core.cluster import Cluster
from slurm_gov.core.snapshot import Behind, FaultMark, Mark, Snapshot, Unstarted


class SlurmError(Exception):
    """Slurm refused, or said something we do not understand. The message says what, in one line."""


class SlurmUnavailable(SlurmError):
    """slurmctld or slurmdbd does not answer. Nothing is known then: never take it for "no jobs"."""


class SlurmClient(Protocol):
    """All of Slurm that the governor uses.

    Every call has a time limit and raises ``SlurmUnavailable`` if Slurm does not answer in it, ``SlurmError``
    if Slurm refuses. Reading changes nothing. Every change may be made twice without harm.

    ``permit`` is asked how long a change may take before it is made, and forbids it by raising (``permit.py``).
    """

    permit: Callable[[float], float]

    async def snapshot(self) -> Snapshot:
        """Nodes, jobs, accounts and the caps as slurmctld has them now.

        Raises ``SlurmUnavailable`` also when slurmdbd does not answer, since no cap could be written then.
        """
        ...

    async def cluster(self) -> Cluster:
        """Users, accounts and the default partition."""
        ...

    async def set_caps(self, caps: Mapping[str, Mapping[str, int]]) -> None:
        """Set GrpTRES of accounts: account to TRES to amount."""
        ...

    async def mark(self, job: int, mark: Mark | None) -> None:
        """Note on a job (in its AdminComment) that it is being preempted; ``None`` takes the note away."""
        ...

    async def note_fault(self, job: int, mark: FaultMark | None) -> None:
        """Note on a job (in its AdminComment) that a sick node made it leave, instead of an earlier such note; none:
        take that away.
        """
        ...

    async def keep_place(self, job: int, waited: float) -> None:
        """Give a requeued job the priority of one that has waited for so many seconds: Slurm counts its age from the
        requeue.
        """
        ...

    async def avoid(self, job: int, nodes: Iterable[str]) -> None:
        """Make these the nodes that a waiting job does not run on (its ExcNodeList); none: any node will do."""
        ...

    async def hold(self, job: int) -> None:
        """Hold a waiting job, so that its user may release it."""
        ...

    async def signal(self, job: int, signal: str) -> None:
        """Send a signal: ``USR1`` to the job's steps, ``B:USR1`` to its batch script."""
        ...

    async def requeue(self, jobs: Iterable[int]) -> None:
        """Stop jobs and put them back in the queue."""
        ...

    async def cancel(self, jobs: Iterable[int]) -> None:
        """Stop jobs for good; one that is not there any more is no error."""
        ...

    async def nudge(self, job: int) -> None:
        """Have Slurm look at its queue now: a raised cap alone does not make it, and its next own look may be
        half a minute away. ``job`` is a waiting job; nothing of it changes.
        """
        ...

    async def wait_on(self, job: int, mark: Mark, delay: float) -> None:
        """Have a requeued job wait for another ``delay`` seconds, with this note on it instead of the one there."""
        ...

    async def step_back(self, job: int, behind: Behind) -> None:
        """Have a waiting job wait until the time that is in this note, and put that on it."""
        ...

    async def let_go(self, job: int, waited: float) -> None:
        """End that, and take the note away. Slurm counts its age anew then: it gets the priority of one that has
        waited for so many seconds.
        """
        ...

    async def looked_at(self, jobs: Collection[int]) -> dict[int, float]:
        """When Slurm's schedulers last looked at these waiting jobs (seconds since the epoch); none for one at which
        they have not, or that waits no longer.
        """
        ...

    async def note_unstarted(self, job: int, note: Unstarted) -> None:
        """Note on a waiting job (in its AdminComment) that Slurm does not start it."""
        ...

    async def allow_start(self, job: int, delay: float = 0.0) -> None:
        """Let a requeued job start after ``delay`` seconds instead of after Slurm's two minutes."""
        ...


@dataclass(frozen=True, slots=True)
class NodeDetails:
    """What scontrol knows of a node; ``state`` as ``IDLE+DRAIN``. ``registered``, ``booted``: by the node's clock."""

    state: str
    reason: str
    registered: float | None
    booted: float | None
    address: str
    port: int


class NodeClient(Protocol):
    """What is done to nodes: the same rules as for ``SlurmClient``."""

    async def drain(self, node: str, reason: str) -> None:
        """No new work; running jobs go on."""
        ...

    async def down(self, node: str, reason: str) -> None:
        """End what runs there: jobs that can be are requeued. Drain first, or a live slurmd undoes it."""
        ...

    async def resume(self, node: str) -> None:
        """Lift drain and DOWN, with the reason."""
        ...

    async def reboot(self, node: str, reason: str) -> None:
        """Run RebootProgram there; the node comes back DOWN, with the reason."""
        ...

    async def power(self, node: str, up: bool, reason: str = "", force: bool = True) -> None:
        """Run ResumeProgram or SuspendProgram for a node, whatever runs there; without ``force`` when it is idle.

        Slurm powers no drained node up, and lifts the drain of one that it powers down.
        """
        ...

    async def details(self, nodes: Iterable[str]) -> dict[str, NodeDetails]:
        """These nodes as they are this moment; one that Slurm does not know is left out."""
        ...

    async def racks(self) -> dict[str, str]:
        """Node to leaf switch or block, from Slurm's topology; empty if it has none."""
        ...

    async def reserve(self, name: str, nodes: Iterable[str], seconds: float, maintenance: bool = False) -> None:
        """Let no other job start on nodes; what runs there goes on. No error if that reservation is there."""
        ...

    async def reservations(self) -> dict[str, tuple[str, ...]]:
        """Names of reservations, and their nodes."""
        ...

    async def unreserve(self, name: str) -> None:
        """Give it back; no error if it is not there."""
        ...
