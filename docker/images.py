"""Build the image of each Debian release: its Slurm, and what our tests need.

The base image is pulled where there is a registry, and made with debootstrap where there is none.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASES = {"bookworm": "22.05", "trixie": "24.11", "forky": "26.05"}
PULL_TIMEOUT = 300
# What scripts/setup reads: a change of it makes the image anew.
INPUTS = (
    "scripts/setup",
    "scripts/pyslurm",
    "scripts/pyslurm-26.05.h",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "slurm_gov/__init__.py",
)
# What pyproject.toml packs beside the package must be there, if only as empty folders.
PACKED = ("plugin_c", "etc", "systemd")
CA_BUNDLE = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
# How apt reaches its mirrors; the rest of a machine's apt configuration is its own affair.
APT_KEYS = ("http", "https", "ftp", "check-", "retries", "forceipv4", "forceipv6", "proxy")


def main(args: Sequence[str]) -> int:
    unknown = set(args) - RELEASES.keys()
    if unknown:
        print(f"images: no release {', '.join(sorted(unknown))}; there are {', '.join(RELEASES)}", file=sys.stderr)
        return 2
    for release in args or RELEASES:
        print(build(release))
    return 0


def build(release: str) -> str:
    """Build a release's test image if anything changed; its name."""
    name = f"slurm-gov-test:{release}"
    with tempfile.TemporaryDirectory() as folder, host_secrets() as secrets:
        for path in INPUTS:
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, target)
            os.utime(target, (0, 0))  # only what is in a file counts
        for path in PACKED:
            Path(folder, path).mkdir()
        built = subprocess.run(
            [
                *docker(),
                "build",
                "-q",
                "--network=host",
                f"--build-arg=BASE={base(release)}",
                *secrets,
                f"--tag={name}",
                f"--file={ROOT}/docker/Dockerfile",
                folder,
            ],
            stdout=subprocess.DEVNULL,
            env=os.environ | {"DOCKER_BUILDKIT": "1"},
        )
    if built.returncode:
        sys.exit(f"images: the image of {release} did not build")
    return name


def base(release: str) -> str:
    """The base image of a release: ours if it was made before, else the registry's, else a new one."""
    for known in (f"slurm-gov-base:{release}", f"debian:{release}"):
        if subprocess.run([*docker(), "image", "inspect", known], capture_output=True).returncode == 0:
            return known
    try:
        pulled = subprocess.run(
            [*docker(), "pull", "-q", f"debian:{release}"], timeout=PULL_TIMEOUT, capture_output=True
        )
        if pulled.returncode == 0:
            return f"debian:{release}"
    except subprocess.TimeoutExpired:
        pass
    return _debootstrap(release)


def docker() -> list[str]:
    """The docker command, one that can build with secrets: the first in PATH may be a newer one without buildx."""
    for program in ("docker", "/usr/bin/docker"):
        found = shutil.which(program)
        if not found:
            continue
        version = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
        number = re.search(r"version (\d+)", version)
        old = number is not None and int(number[1]) < 23
        if old or subprocess.run([found, "buildx", "version"], capture_output=True).returncode == 0:
            return [found]
    sys.exit("images: needs docker with BuildKit: packages docker.io and, from Debian 13 on, docker-buildx")


def _debootstrap(release: str) -> str:
    name = f"slurm-gov-base:{release}"
    if not shutil.which("debootstrap"):
        sys.exit(f"images: debian:{release} cannot be pulled, and debootstrap is not installed")
    print(f"images: no registry has debian:{release}; making it with debootstrap", file=sys.stderr)
    scripts = Path("/usr/share/debootstrap/scripts")
    with tempfile.TemporaryDirectory(dir=os.environ.get("SLURM_GOV_TMP")) as folder:
        log = ROOT / "build" / f"debootstrap-{release}.log"
        log.parent.mkdir(exist_ok=True)
        # A release newer than this debootstrap is made as sid is.
        script = [] if (scripts / release).exists() else ["sid"]
        with log.open("wb") as out:
            done = subprocess.run(
                [
                    "debootstrap",
                    "--variant=minbase",
                    "--include=ca-certificates",
                    release,
                    f"{folder}/root",
                    mirror(),
                    *script,
                ],
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        if done.returncode:
            sys.exit(f"images: debootstrap failed; {log} says why")
        shutil.rmtree(f"{folder}/root/var/cache/apt/archives", ignore_errors=True)
        packed = subprocess.Popen(
            ["tar", "-C", f"{folder}/root", "--numeric-owner", "-c", "."], stdout=subprocess.PIPE
        )
        done = subprocess.run([*docker(), "import", "-", name], stdin=packed.stdout, stdout=subprocess.DEVNULL)
        assert packed.stdout is not None
        packed.stdout.close()  # tar ends if nobody read it to its end
        if packed.wait() or done.returncode:
            sys.exit(f"images: {name} could not be imported")
    return name


def mirror() -> str:
    """The mirror that this machine's own apt uses for Debian."""
    sites = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True).stdout
    found = [site for site in sites.split() if site.rstrip("/").endswith("/debian")]
    if not found:
        sys.exit("images: apt names no Debian mirror to debootstrap from (apt-get indextargets); run apt-get update")
    return found[0]


@contextmanager
def host_secrets() -> Iterator[list[str]]:
    """What this machine's apt and pip need to reach their mirrors, as arguments of ``docker build``."""
    with tempfile.TemporaryDirectory() as folder:
        files = {"apt": _apt_conf(), "auth": _apt_auth(), "pip": _pip_conf()}
        if Path(CA_BUNDLE).exists():
            files["ca"] = Path(CA_BUNDLE).read_text()
        for name, text in files.items():
            Path(folder, name).write_text(text)
        yield [f"--secret=id={name},src={folder}/{name}" for name in files]


def _apt_conf() -> str:
    said = subprocess.run(["apt-config", "dump"], capture_output=True, text=True).stdout
    wanted = tuple(f"acquire::{key}" for key in APT_KEYS)
    return "".join(f"{line}\n" for line in said.splitlines() if line.lower().startswith(wanted))


def _apt_auth() -> str:
    files = [Path("/etc/apt/auth.conf"), *sorted(Path("/etc/apt/auth.conf.d").glob("*.conf"))]
    return "".join(file.read_text() for file in files if file.is_file() and os.access(file, os.R_OK))


def _pip_conf() -> str:
    """pip's settings, less those that name files of this machine."""
    said = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    found = dict(re.findall(r"^(?:global|:env:|user|install)\.\.?([\w-]+)='(.*)'$", said, re.MULTILINE))
    kept = {
        key: " ".join(word for word in value.split() if not word.startswith(("/", "file:")))
        for key, value in found.items()
    }
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in kept.items() if value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
