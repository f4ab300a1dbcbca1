"""A Docker Engine for tests and images: the one that runs, or one of our own for as long as somebody needs it.

Our own lives in /var/lib/slurm-gov/docker (SLURM_GOV_DOCKER_DIR), with a socket, images and containers of its own.
It is shared: who uses it holds a lock, and the last user stops it, unless containers still run in it. An engine
that was not started here is used as it is, and never stopped. Ours has no
default network, so that docker0 stays as another engine made it.

    python -m slurm_gov.sandbox.docker_engine run make test-matrix
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from slurm_gov.sandbox.errors import SandboxError

START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0
_PATH = f"/usr/sbin:/sbin:{os.environ.get('PATH', '/usr/bin:/bin')}"


def folder() -> Path:
    """Where our own engine keeps its images, its socket and its log."""
    return Path(os.environ.get("SLURM_GOV_DOCKER_DIR", "/var/lib/slurm-gov/docker")).absolute()


@contextlib.contextmanager
def engine() -> Iterator[str]:
    """A Docker Engine while the block runs: its address, as DOCKER_HOST has it.

    Raises ``SandboxError`` if there is none and none can be started.
    """
    address = running()
    if address and address != _address():
        yield address
        return
    base = folder()
    _make(base)
    with (base / "users.lock").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield _start(base)
        finally:
            fcntl.flock(users, fcntl.LOCK_UN)
            _stop_if_unused(base)


def start() -> str:
    """Start our own engine if no engine runs, and leave it running; its address."""
    address = running()
    if address and address != _address():
        return address
    _make(folder())
    return _start(folder())


def stop() -> bool:
    """Stop our own engine if it runs and nobody uses it; whether none of ours runs now."""
    return not folder().exists() or _stop_if_unused(folder())


def running() -> str | None:
    """The address of an engine that answers: DOCKER_HOST's, the machine's, or our own."""
    for address in dict.fromkeys((os.environ.get("DOCKER_HOST"), "unix:///var/run/docker.sock", _address())):
        if address and _answers(address):
            return address
    return None


def _address() -> str:
    return f"unix://{folder()}/docker.sock"


def _answers(address: str) -> bool:
    socket = address.removeprefix("unix://")
    if not shutil.which("docker", path=_PATH) or (socket != address and not Path(socket).exists()):
        return False
    try:
        done = subprocess.run(
            ["docker", "-H", address, "version"], capture_output=True, timeout=20, env=os.environ | {"PATH": _PATH}
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _make(base: Path) -> None:
    if os.geteuid() != 0:
        raise SandboxError("no Docker Engine answers (DOCKER_HOST, /var/run/docker.sock); only root can start one")
    for program in ("dockerd", "docker"):
        if not shutil.which(program, path=_PATH):
            raise SandboxError(f"no Docker Engine answers, and {program} is not installed (package docker.io)")
    base.mkdir(parents=True, exist_ok=True)


def _start(base: Path) -> str:
    with _alone(base):
        if _answers(_address()):
            return _address()
        with (base / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    "dockerd",
                    f"--data-root={base}/data",
                    f"--exec-root={base}/run",
                    f"--host={_address()}",
                    f"--pidfile={base}/pid",
                    "--bridge=none",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"PATH": _PATH},
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not _answers(_address()):
            if process.poll() is not None or time.monotonic() > deadline:
                _end(base)
                words = (base / "log").read_text(errors="replace").strip().splitlines()[-5:]
                raise SandboxError("dockerd did not start:\n" + "\n".join(f"  {line}" for line in words))
            time.sleep(0.1)
    return _address()


def _stop_if_unused(base: Path) -> bool:
    """Stop our engine unless somebody holds the users' lock or a container runs; whether it is stopped."""
    with (base / "users.lock").open("a") as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        with _alone(base):
            if _answers(_address()):
                listed = subprocess.run(
                    ["docker", "-H", _address(), "ps", "-q"], capture_output=True, env=os.environ | {"PATH": _PATH}
                )
                if listed.stdout.strip():
                    return False
            _end(base)
            return True


def _end(base: Path) -> None:
    """End our dockerd (and with it its containerd), by the id that it wrote down itself."""
    try:
        pid = int((base / "pid").read_text())
        if b"dockerd" not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
            return
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT
        while _alive(pid):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                deadline = float("inf")
            time.sleep(0.1)


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[None]:
    """One start or stop at a time."""
    with (base / "start.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(args: Sequence[str]) -> int:
    """``run COMMAND...`` with DOCKER_HOST set; ``start`` prints the address; ``stop``."""
    try:
        if args[:1] == ["run"] and args[1:]:
            with engine() as address:
                return subprocess.run(args[1:], env=os.environ | {"DOCKER_HOST": address}).returncode
        if list(args) == ["start"]:
            print(start())
            return 0
        if list(args) == ["stop"]:
            if not stop():
                print("docker_engine: somebody uses it, or containers run in it; it stays", file=sys.stderr)
            return 0
    except SandboxError as error:
        print(f"docker_engine: {error}", file=sys.stderr)
        return 1
    print("usage: python -m slurm_gov.sandbox.docker_engine run COMMAND... | start | stop", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
