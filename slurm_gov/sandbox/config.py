"""What a sandbox shall look like: its name, its pools of nodes, who may use it."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slurm_gov.sandbox.errors import SandboxError

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,19}")
_POOL = re.compile(r"(?P<name>[^=]+)=(?P<nodes>\d+)x(?P<gpus>\d+)(?::(?P<type>[a-z0-9_]+))?")
_SOCKET_PATH_MAX = 107  # bytes in sockaddr_un.sun_path, less the final NUL


@dataclass(frozen=True)
class Pool:
    """Nodes of one kind. `gpus` is per node; a pool of 0 GPUs has plain CPU nodes."""

    name: str = "h100"
    nodes: int = 8
    gpus: int = 8
    gpu_type: str = ""  # empty: the pool's name
    cpus: int = 64
    memory_mb: int = 512_000

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SandboxError(f"pool {self.name!r}: lower-case letters, digits, _ and - only, at most 20")
        if not 1 <= self.nodes <= 4096:
            raise SandboxError(f"pool {self.name}: {self.nodes} nodes; from 1 to 4096 are possible")
        if not 0 <= self.gpus <= 64:
            raise SandboxError(f"pool {self.name}: {self.gpus} GPUs per node; from 0 to 64 are possible")
        if not self.gpu_type:
            object.__setattr__(self, "gpu_type", self.name)
        if not re.fullmatch(r"[a-z0-9_]+", self.gpu_type):
            raise SandboxError(f"GPU type {self.gpu_type!r}: lower-case letters, digits and _ only")

    @classmethod
    def parse(cls, text: str) -> Pool:
        """`h100=6x8` is six nodes of eight h100; `old=2x4:a100` names the GPU type apart from the pool."""
        match = _POOL.fullmatch(text)
        if not match:
            raise SandboxError(f"pool {text!r}: write NAME=NODESxGPUS or NAME=NODESxGPUS:TYPE, as h100=6x8")
        return cls(match["name"], int(match["nodes"]), int(match["gpus"]), match["type"] or "")


@dataclass(frozen=True)
class SandboxConfig:
    """Everything `Sandbox.up` needs to know.

    One pool: its nodes are n1, n2, ... in the partition `gpu`. Several pools: each has a partition named
    like the pool (the first is the default) and nodes named pool-1, pool-2, ...
    """

    name: str = "default"
    pools: tuple[Pool, ...] = (Pool(),)
    governor: bool = True
    policy: Path | None = None
    accounts: tuple[str, ...] = ()  # created beside those of the policy
    users: tuple[str, ...] = ()  # get an association in every account, beside the caller
    governor_args: tuple[str, ...] = ()  # for slurm-govd, as ("--log-format", "json")
    broker: bool = False  # a Mosquitto with TLS and a credential per node, for node agents
    controllers: int = 1  # 2: a backup slurmctld, and a slurm-govd beside each, on one database
    slurm_conf: tuple[str, ...] = ()  # lines for slurm.conf; they replace ours of the same key
    base: Path = field(default_factory=lambda: default_base())

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SandboxError(f"sandbox {self.name!r}: lower-case letters, digits, _ and - only, at most 20")
        names = [pool.name for pool in self.pools]
        if not names or len(set(names)) != len(names):
            raise SandboxError("a sandbox needs at least one pool, and every pool a name of its own")
        if self.controllers not in (1, 2):
            raise SandboxError(f"{self.controllers} controllers; one, or two for a backup, are possible")
        longest = max(len(self.node_names(pool)[-1]) for pool in self.pools)
        # The longest socket is slurmstepd's: DIR/spool/NODE/NODE_JOBID.STEPID
        need = len(os.fsencode(self.dir)) + len("/spool/") + 2 * longest + 24
        if need > _SOCKET_PATH_MAX:
            raise SandboxError(
                f"{self.dir} is too long: the path of a Unix socket has at most {_SOCKET_PATH_MAX} bytes, "
                f"and Slurm's would have {need}; choose a shorter folder with --dir or SLURM_GOV_SANDBOX_DIR"
            )

    @property
    def dir(self) -> Path:
        """The folder that holds all of this sandbox."""
        return self.base / self.name

    @property
    def controller_names(self) -> tuple[str, ...]:
        """The host names of several controllers, the primary first; empty if there is one, on this host."""
        return tuple(f"ctl{number}" for number in range(1, self.controllers + 1)) if self.controllers > 1 else ()

    @property
    def cluster(self) -> str:
        """Slurm's ClusterName."""
        return "sandbox" if self.name == "default" else "sandbox_" + self.name.replace("-", "_")

    def partition(self, pool: Pool) -> str:
        """The partition of a pool."""
        return "gpu" if len(self.pools) == 1 else pool.name

    def node_prefix(self, pool: Pool) -> str:
        """What the node names of a pool begin with, before their number."""
        return "n" if len(self.pools) == 1 else f"{pool.name}-"

    def node_names(self, pool: Pool) -> list[str]:
        """The nodes of a pool."""
        return [f"{self.node_prefix(pool)}{i}" for i in range(1, pool.nodes + 1)]

    def all_nodes(self) -> list[str]:
        """The nodes of all pools, in the order of their ports."""
        return [name for pool in self.pools for name in self.node_names(pool)]

    def to_json(self) -> dict[str, Any]:
        """As plain data for the state file."""
        data = asdict(self)
        data["base"] = str(self.base)
        data["policy"] = str(self.policy) if self.policy else None
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SandboxConfig:
        """The inverse of `to_json`."""
        return cls(
            name=data["name"],
            pools=tuple(Pool(**pool) for pool in data["pools"]),
            governor=data["governor"],
            policy=Path(data["policy"]) if data["policy"] else None,
            accounts=tuple(data["accounts"]),
            users=tuple(data["users"]),
            governor_args=tuple(data["governor_args"]),
            broker=data["broker"],
            controllers=data["controllers"],
            slurm_conf=tuple(data["slurm_conf"]),
            base=Path(data["base"]),
        )


def default_base() -> Path:
    """Where sandboxes live: SLURM_GOV_SANDBOX_DIR, or a short folder of the user's own in /tmp."""
    chosen = os.environ.get("SLURM_GOV_SANDBOX_DIR")
    return Path(chosen).absolute() if chosen else builtin_base()


def builtin_base() -> Path:
    """The folder used when nobody chose one; ours alone, so removed when empty."""
    return Path(f"/tmp/slurm-gov-{os.geteuid()}")
