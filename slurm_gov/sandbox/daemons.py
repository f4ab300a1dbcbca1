"""The daemons of a sandbox: how each is started and when it is ready."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from slurm_gov.sandbox import sweep
from slurm_gov.sandbox.errors import SandboxError
from slurm_gov.sandbox.layout import Layout

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What is asked of MariaDB: to start quickly. Its data never outlives the sandbox. slurmdbd 26.05
# warns that it would end itself over snapshot isolation; older MariaDB does not know the setting.
_MARIADB = [
    "--skip-log-bin",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--sync-frm=OFF",
    "--innodb-doublewrite=0",
    "--innodb-log-file-size=16M",
    "--innodb-buffer-pool-size=128M",
    "--innodb-lock-wait-timeout=900",  # slurmdbd asks for it
    "--innodb-temp-data-file-path=ibtmp1:4M:autoextend",
    "--aria-log-file-size=8M",
    "--loose-innodb-snapshot-isolation=OFF",
]

_PACKAGE = {
    "prlimit": "util-linux",
    "munged": "munge",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "mosquitto": "mosquitto",
    "openssl": "openssl",
    "slurmdbd": "slurmdbd",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sacctmgr": "slurm-client",
}


class Daemons:
    """Starts the daemons of one sandbox, each in a session of its own, marked and written down."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path | None = None,
        pass_fds: Sequence[int] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start a process under a name; what it writes to its terminal goes to `log`, or log/NAME.out."""
        environment = {
            "PATH": SYSTEM_PATH,
            "HOME": str(self._layout.dir),
            "LANG": "C.UTF-8",
            "SLURM_CONF": str(self._layout.slurm_conf),
            "MYSQL_UNIX_PORT": str(self._layout.db_socket),
        } | dict(variables or {})
        with (log or self._layout.log / f"{name}.out").open("ab") as output:
            child = subprocess.Popen(
                sweep.marked(self._layout, argv),
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                umask=0o022,  # whatever the caller's: other users' jobs need to read some of it
                pass_fds=pass_fds,
            )
        sweep.record(self._layout, name, child.pid)
        self._children[name] = child

    def munged(self) -> None:
        """munged, with a key and a socket of our own."""
        key = self._layout.etc / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(64))
        run = self._layout.run
        argv = ["munged", "--foreground", "--num-threads=10", f"--key-file={key}"]
        argv += [f"--socket={self._layout.munge_socket}", f"--pid-file={run}/munged.munge-pid"]
        argv += [f"--seed-file={run}/munged.seed"]
        self.start("munged", argv)

    def mariadb_install(self) -> None:
        """Lay out an empty database."""
        argv = ["mariadb-install-db", *self._mariadb_options(), "--skip-test-db"]
        self.start("mariadb-install", [*argv, "--auth-root-authentication-method=normal"])

    def mariadbd(self, pass_fds: Sequence[int]) -> None:
        """The database server, reachable through its socket only."""
        argv = ["mariadbd", *self._mariadb_options(), "--skip-networking", "--skip-name-resolve"]
        argv += ["--performance-schema=OFF", f"--socket={self._layout.db_socket}"]
        argv += [f"--pid-file={self._layout.run}/mariadbd.mariadb-pid"]
        self.start("mariadbd", argv, pass_fds=pass_fds)

    def slurmdbd(self) -> None:
        self.start("slurmdbd", ["slurmdbd", "-D"])

    def slurmctld(
        self, name: str = "slurmctld", inside: Callable[[list[str]], list[str]] = lambda argv: argv
    ) -> None:
        """``inside`` makes of a command line one that runs on a controller of several."""
        self.start(name, inside(["slurmctld", "-D", "-L", str(self._layout.log_of(name))]))

    def slurmd(self, node: str, *options: str) -> None:
        # Its RebootProgram, a child of it, learns from this whom to reboot.
        variables = {"SLURM_GOV_SANDBOX_NODE": node}
        self.start(f"slurmd-{node}", ["slurmd", "-D", "-N", node, *options], variables=variables)

    def wait(self, what: str, ready: Callable[[], bool], timeout: float, *needs: str) -> None:
        """Wait until something is ready; at once an error if a daemon that it needs ends before."""
        deadline = time.monotonic() + timeout
        while not ready():
            for name in needs:
                child = self._children.get(name)
                if child and child.poll() is not None:
                    raise SandboxError(f"{name} ended at its start.\n{self.last_words(name)}")
            if time.monotonic() > deadline:
                told = "\n".join(self.last_words(name) for name in needs)
                raise SandboxError(f"{what} did not get ready within {timeout:.0f} s.\n{told}")
            time.sleep(0.02)

    def finished(self, name: str) -> bool:
        """Whether a process that ends by itself has ended well."""
        code = self._children[name].poll()
        if code:
            raise SandboxError(f"{name} failed.\n{self.last_words(name)}")
        if code == 0:
            (self._layout.run / f"{name}.pid").unlink(missing_ok=True)
        return code == 0

    def reap(self) -> None:
        """Notice the end of our children, so that none of them stays as a zombie."""
        for child in self._children.values():
            child.poll()

    def last_words(self, name: str, lines: int = 8) -> str:
        """The end of a daemon's log, its errors first of all."""
        for file in (self._layout.log_of(name), self._layout.log / f"{name}.out"):
            if file.exists() and (text := file.read_text(errors="replace").strip()):
                # Slurm tries every MPI plugin and complains of those whose library is not installed.
                all_lines = [line for line in text.splitlines() if "mpi/pmix" not in line]
                errors = [line for line in all_lines if "error" in line.lower() or "fatal" in line.lower()]
                return "\n".join(f"  {line}" for line in (errors or all_lines)[-lines:])
        return f"  {name} wrote nothing to its log"

    def _mariadb_options(self) -> list[str]:
        own = ["--user=root"] if os.geteuid() == 0 else []
        return [
            "--no-defaults",
            f"--datadir={self._layout.db}/data",
            f"--tmpdir={self._layout.db}",
            *own,
            *_MARIADB,
        ]


def check_installed() -> None:
    """Refuse early, and say what to install, when a program is missing."""
    missing = {package for tool, package in _PACKAGE.items() if not shutil.which(tool, path=SYSTEM_PATH)}
    if missing:
        raise SandboxError(f"these packages are needed and not installed: {' '.join(sorted(missing))}")
