"""Several controllers on one machine: each is a host by its name, its /etc/hosts and its folder in run/.

A UTS namespace gives a process a host name of its own, a mount namespace the rest. Root may make them, and others in
a user namespace, where the system lets them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from slurm_gov.sandbox.daemons import SYSTEM_PATH
from slurm_gov.sandbox.errors import SandboxError
from slurm_gov.sandbox.layout import Layout

DATABASE = "slurm_gov"
_BECOME = 'mount --bind "$1" /etc/hosts && mount --bind "$2" "$3" && hostname "$0" && shift 3 && exec "$@"'


def address(number: int) -> str:
    """Where the slurmctld of a controller listens: the primary is number 0."""
    return f"127.0.0.{number + 1}"


def database(layout: Layout) -> str:
    """The URL of the database that the governors share."""
    return f"mariadb://root@localhost/{DATABASE}?unix_socket={layout.db_socket}"


def inside(layout: Layout, controller: str, argv: Sequence[str]) -> list[str]:
    """A command line that runs argv on a controller."""
    become = ["sh", "-c", _BECOME, controller, str(layout.hosts), str(layout.host_of(controller)), str(layout.host)]
    return [*_namespaces(), *become, *argv]


def _namespaces() -> list[str]:
    own = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    return ["unshare", *own, "--uts", "--mount", "--"]


def prepare(layout: Layout, names: Sequence[str]) -> None:
    """The files of several controllers."""
    known = Path("/etc/hosts").read_text() if Path("/etc/hosts").exists() else ""
    lines = [f"{address(number)} {name}" for number, name in enumerate(names)]
    layout.hosts.write_text(known.rstrip("\n") + "\n" + "\n".join(lines) + "\n")
    layout.hosts.chmod(0o644)
    for folder in (layout.host, *map(layout.host_of, names)):
        folder.mkdir()
        folder.chmod(0o755)


def make_database(layout: Layout) -> None:
    """The database that the governors share, in the MariaDB of the sandbox."""
    argv = ["mariadb", "--no-defaults", f"--socket={layout.db_socket}", "--user=root"]
    argv += [f"--execute=CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4"]
    done = subprocess.run(argv, env={"PATH": SYSTEM_PATH}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SandboxError(f"the database of the governors cannot be made: {done.stderr.strip()}")


def check_possible() -> None:
    """Refuse early where a process cannot be given a host name of its own."""
    argv = [*_namespaces(), "sh", "-c", 'mount --bind /etc/hosts /etc/hosts && hostname "$0"', "ctl1"]
    done = subprocess.run(argv, env={"PATH": SYSTEM_PATH}, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise SandboxError(
            "several controllers need a host name each, in namespaces of their own; this user may not make those "
            f"here, root may: {said[0]}"
        )
