"""Real database servers, started for tests: private folders, Unix sockets or the loopback, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MARIADB = shutil.which("mariadbd", path="/usr/sbin:/usr/bin")
POSTGRESQL = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)), None)


@contextmanager
def mariadb() -> Iterator[str]:
    """The URL of an empty database of a MariaDB."""
    with tempfile.TemporaryDirectory(prefix="gov-my-") as name:
        folder = Path(name)
        own = ["--user=root"] if os.geteuid() == 0 else []
        options = ["--no-defaults", f"--datadir={folder}/data", *own, "--innodb-log-file-size=16M"]
        install = ["mariadb-install-db", *options, "--skip-test-db", "--auth-root-authentication-method=normal"]
        subprocess.run(install, check=True, capture_output=True)
        sock = folder / "sock"
        argv = [str(MARIADB), *options, "--skip-networking", f"--socket={sock}", f"--pid-file={folder}/pid"]
        with _running(argv, folder, sock.exists):
            make = ["mariadb", "--no-defaults", f"--socket={sock}", "--user=root", "--execute=CREATE DATABASE gov"]
            subprocess.run(make, check=True, capture_output=True)
            yield f"mariadb://root@localhost/gov?unix_socket={sock}"


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of an empty database of a PostgreSQL, which wants a password."""
    assert POSTGRESQL is not None
    with tempfile.TemporaryDirectory(prefix="gov-pg-") as name, socket.create_server(("127.0.0.1", 0)) as probe:
        folder, port = Path(name), probe.getsockname()[1]
        as_user: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            as_user = ["setpriv", "--reuid=nobody", f"--regid={nobody.pw_gid}", "--clear-groups", "--"]
        word = folder / "password"
        word.write_text("secret-word\n")
        word.chmod(0o644)
        initdb = [POSTGRESQL.with_name("initdb"), "-D", folder / "data", "-U", "gov", "-A", "scram-sha-256"]
        arguments = [*map(str, initdb), "--no-sync", f"--pwfile={word}", "--locale=C.UTF-8", "--encoding=UTF8"]
        subprocess.run([*as_user, *arguments], check=True, capture_output=True, cwd="/")
        probe.close()
        argv = [str(POSTGRESQL), "-D", f"{folder}/data", "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
        argv += ["-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        # To SIGTERM it waits until all who are connected have gone.
        with _running([*as_user, *argv], folder, lambda: _answers(port), end=signal.SIGINT):
            yield f"postgresql://gov:secret-word@127.0.0.1:{port}/postgres"


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def _running(
    argv: list[str], folder: Path, ready: Callable[[], bool], end: signal.Signals = signal.SIGTERM
) -> Iterator[None]:
    log = Path(tempfile.mkstemp(prefix="gov-db-", suffix=".log")[1])
    try:
        with log.open("wb") as output:
            server = subprocess.Popen(argv, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd="/")
        try:
            deadline = time.monotonic() + 120
            while not ready():
                assert server.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
                time.sleep(0.05)
            yield
        finally:
            server.send_signal(end)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        log.unlink()
