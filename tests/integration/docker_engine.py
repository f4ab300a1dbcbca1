"""A Docker Engine for tests: the one that runs, or a private one that is ended cleanly."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from docker.errors import APIError, DockerException

import docker

IMAGE = "slurm-gov-test-node:latest"
START = 60.0


@contextmanager
def engine() -> Iterator[tuple[str, docker.DockerClient]]:
    """Where an engine listens, and a client of it; skips the test, saying why, where there can be none.

    A private engine keeps everything in one folder, makes no network and touches no firewall.
    """
    here = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    try:
        client = docker.DockerClient(base_url=here)
        client.ping()
    except DockerException:
        with _folder() as folder, _private(folder) as address:
            client = docker.DockerClient(base_url=address)
            _try(client)
            yield address, client
            client.close()
    else:
        yield here, client
        client.close()


@contextmanager
def _folder() -> Iterator[Path]:
    """A short-lived folder; what dockerd leaves mounted in it is unmounted."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-gov-docker-"))
    try:
        yield folder
    finally:
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for path in sorted((one for one in mounted if one.startswith(f"{folder}/")), reverse=True):
            subprocess.run(["umount", "-l", path], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _private(folder: Path) -> Iterator[str]:
    if os.geteuid() != 0:
        pytest.skip("no Docker Engine answers, and only root can start one")
    if not shutil.which("dockerd"):
        pytest.skip("no Docker Engine answers, and dockerd is not installed (docker.io)")
    address = f"unix://{folder}/sock"
    log = folder / "log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            ["dockerd", f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid",
             f"--host={address}", "--iptables=false", "--bridge=none", "--storage-driver=vfs"],
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START
        while not _answers(address):
            if daemon.poll() is not None or time.monotonic() > deadline:
                last = log.read_text(errors="replace").strip().splitlines()[-1:]
                pytest.skip(f"no Docker Engine can run here: {last}")
            time.sleep(0.2)
        yield address
    finally:
        daemon.terminate()
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _try(client: docker.DockerClient) -> None:
    """Skip the test where an engine runs and its containers cannot: in a container without a cgroup of its own."""
    usr = {"/usr": {"bind": "/usr", "mode": "ro"}}
    try:
        client.containers.run(make_image(client), ["/bin/true"], remove=True, network_mode="host", volumes=usr)
    except APIError as error:
        if "cgroup" not in str(error):
            raise
        pytest.skip(f"no container can run in an engine started here: {error.explanation}")


def _answers(address: str) -> bool:
    try:
        client = docker.DockerClient(base_url=address)
        client.ping()
        client.close()
    except DockerException:
        return False
    return True


def make_image(client: docker.DockerClient) -> str:
    """An image of nothing but empty folders and links: the host's own programs are mounted into it. No registry."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in ("usr", "etc", "tmp", "proc", "dev", "sys", "run", "var", "root"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name in ("bin", "sbin", "lib", "lib64"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(entry)
    repository, _, tag = IMAGE.partition(":")
    client.api.import_image_from_data(data.getvalue(), repository=repository, tag=tag)
    return IMAGE
