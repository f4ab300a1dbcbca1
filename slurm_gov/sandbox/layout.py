"""Where everything of a sandbox lies, all of it in one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The paths in a sandbox's folder."""

    dir: Path

    @property
    def etc(self) -> Path:
        """slurm.conf and its neighbours."""
        return self.dir / "etc"

    @property
    def log(self) -> Path:
        """One .log per daemon, and .out with what it wrote to its terminal."""
        return self.dir / "log"

    @property
    def run(self) -> Path:
        """Sockets, and NAME.pid with the process id and start time of each daemon."""
        return self.dir / "run"

    @property
    def dev(self) -> Path:
        """Empty files that stand for GPUs."""
        return self.dir / "dev"

    @property
    def db(self) -> Path:
        """MariaDB's data and socket, closed to others."""
        return self.dir / "db"

    @property
    def state(self) -> Path:
        """slurmctld's StateSaveLocation."""
        return self.dir / "state"

    @property
    def spool(self) -> Path:
        """The SlurmdSpoolDir of every node."""
        return self.dir / "spool"

    @property
    def plugins(self) -> Path:
        """job_submit_gov.so as it was built for this sandbox."""
        return self.dir / "plugins"

    @property
    def slurm_conf(self) -> Path:
        return self.etc / "slurm.conf"

    @property
    def policy(self) -> Path:
        """The governor's policy: a copy of what was given, or the sample."""
        return self.etc / "policy.yaml"

    @property
    def node_journal(self) -> Path:
        """What slurm-govd remembers of nodes."""
        return self.dir / "nodes.db"

    @property
    def munge_socket(self) -> Path:
        return self.run / "munge.sock"

    @property
    def db_socket(self) -> Path:
        return self.db / "mariadb.sock"

    @property
    def govd_socket(self) -> Path:
        return self.run / "govd.sock"

    @property
    def host(self) -> Path:
        """What each of several controllers has for itself, as hosts have /run: the plugin's socket, a pid file.
        Inside a controller its own ``host_of`` is here.
        """
        return self.run / "host"

    def host_of(self, controller: str) -> Path:
        """The same, seen from outside."""
        return self.run / controller

    @property
    def hosts(self) -> Path:
        """/etc/hosts of several controllers."""
        return self.etc / "hosts"

    @property
    def mqtt(self) -> Path:
        """Mosquitto's configuration, its authority and all credentials."""
        return self.dir / "mqtt"

    @property
    def agents(self) -> Path:
        """A folder for each node's agent."""
        return self.dir / "agents"

    @property
    def ledger(self) -> Path:
        """What slurm-govd decided."""
        return self.dir / "ledger" / "ledger.db"

    @property
    def notify_socket(self) -> Path:
        """Where slurm-govd says that it is ready."""
        return self.run / "notify.sock"

    @property
    def state_file(self) -> Path:
        """What `attach` reads."""
        return self.dir / "sandbox.json"

    @property
    def lock_file(self) -> Path:
        """Locked while `up` runs; its presence says that the folder is a sandbox."""
        return self.dir / "lock"

    @property
    def base_mark(self) -> Path:
        """Present if the folder around this one was made for it, and so goes with it."""
        return self.dir / "base-is-new"

    def log_of(self, daemon: str) -> Path:
        """The log of a daemon, such as `slurmctld` or `slurmd-n1`."""
        return self.log / f"{daemon}.log"

    def make(self) -> None:
        """Create the folders, with rights that let jobs of other users work and keep secrets closed."""
        for folder in (self.etc, self.log, self.run, self.dev, self.spool, self.plugins):
            folder.mkdir()
        for folder in (self.db, self.state):
            folder.mkdir(mode=0o700)
        # whatever the umask: other users' jobs read slurm.conf and reach munge's socket
        for folder in (self.dir, self.etc, self.log, self.run, self.dev, self.spool, self.plugins):
            folder.chmod(0o755)
