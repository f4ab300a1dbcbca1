"""Run the test suites on every Slurm generation, each in the image of its Debian release, and print a table.

make test-matrix                                       all releases, all suites
docker/matrix.py trixie                                one release
docker/matrix.py forky --suite integration -- -k caps  with arguments for pytest
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import images

INTEGRATION = "python -m pytest -q -n 3 --dist loadfile"
ALONE = "python -m pytest -q --last-failed"
REST = "--ignore tests/integration/test_storm.py tests/integration"
# As make check and make test run them: the storm has the machine to itself, and what failed beside others is run once
# more, alone; the table then has both counts.
SUITES = {
    "plugin": "make -s -C plugin_c && make -s -C plugin_c check",
    "unit": "python -m pytest -q -n 2 tests/unit tests/conformance tests/property",
    "integration": f"{INTEGRATION} {REST}; c=$?; [ $c -ne 1 ] || exec {ALONE} {REST}; exit $c",
    "storm": "python -m pytest -q tests/integration/test_storm.py",
    "systemd": "python -m pytest -q tests/systemd",
}
LOGS = images.ROOT / "build/matrix"
# What the sandbox and its tests do as root on any machine: real-time priority, namespaces, looking at processes.
ALLOWED = (
    *("--cap-add=SYS_NICE", "--cap-add=SYS_PTRACE", "--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN"),
    *("--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"),
)
# The suite of that name boots its container: docker/boot, then the image's own systemd.
BOOTED = ("--security-opt=systempaths=unconfined", "--cgroupns=private", "--tmpfs=/run", "--tmpfs=/run/lock")
BOOT_TIMEOUT = 120
# A network that leads nowhere: what a suite needs is in the image. Not none: slurmdbd 24.11 and later do not start
# where the loopback is all there is.
NETWORK = "slurm-gov-matrix"


@dataclass
class Result:
    """How one suite went on one release."""

    passed: bool
    said: str
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "releases", nargs="*", metavar="RELEASE", help=f"of {', '.join(images.RELEASES)}; all if none"
    )
    parser.add_argument("--suite", action="append", choices=SUITES, help="only this one; may be given again")
    args, pytest_args = parser.parse_known_args(_before_dashes(sys.argv[1:]))
    if pytest_args or set(args.releases) - images.RELEASES.keys():
        parser.error(f"unknown: {' '.join([*pytest_args, *sorted(set(args.releases) - images.RELEASES.keys())])}")
    suites = args.suite or list(SUITES)
    table: dict[str, dict[str, Result]] = {}
    subprocess.run([*images.docker(), "network", "create", "--internal", NETWORK], capture_output=True)
    for release in args.releases or images.RELEASES:
        image = images.build(release)
        for booted in (False, True):
            mine = [suite for suite in suites if (suite == "systemd") is booted]
            if not mine:
                continue
            with Container(image, booted) as container:
                row = f"{container.slurm()} ({release})"
                for suite in mine:
                    print(f"matrix: {row}: {suite}", file=sys.stderr, flush=True)
                    result = container.suite(release, suite, _after_dashes(sys.argv[1:]))
                    table.setdefault(row, {})[suite] = result
                    print(f"matrix: {row}: {suite}: {result.said}", file=sys.stderr, flush=True)
    subprocess.run([*images.docker(), "network", "rm", NETWORK], capture_output=True)  # stays if another run uses it
    show(table, suites)
    return 0 if all(one.passed for row in table.values() for one in row.values()) else 1


class Container:
    """A container of an image with our source in it; it is gone afterwards."""

    def __init__(self, image: str, booted: bool = False) -> None:
        self._image = image
        self._booted = booted
        self._id = ""

    def __enter__(self) -> Container:
        options = (*ALLOWED, *(BOOTED if self._booted else ["--init"]))
        first = ["/src/docker/boot"] if self._booted else ["sleep", "infinity"]
        argv = [
            *images.docker(),
            "create",
            f"--network={NETWORK}",
            "--hostname=matrix",
            "--shm-size=1g",
            *options,
            self._image,
            *first,
        ]
        made = subprocess.run(argv, capture_output=True, text=True)
        if made.returncode:
            sys.exit(f"matrix: {made.stderr.strip()}")
        self._id = made.stdout.strip()
        try:
            subprocess.run([*images.docker(), "cp", "-", f"{self._id}:/src"], input=source(), check=True)
            subprocess.run([*images.docker(), "start", self._id], stdout=subprocess.DEVNULL, check=True)
            self.run("touch .venv/.installed")  # the image was made for this pyproject.toml
            # Names that nobody knows are unknown at once: asking a network that leads nowhere takes slurmctld 10 s.
            self.run(": > /etc/resolv.conf")
            if self._booted:
                self._wait_until_booted()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run([*images.docker(), "rm", "-f", "-v", self._id], capture_output=True)

    def _wait_until_booted(self) -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT
        while self.run("systemctl is-system-running")[1].strip() not in ("running", "degraded"):
            if time.monotonic() > deadline:
                said = subprocess.run([*images.docker(), "logs", self._id], capture_output=True, text=True)
                sys.exit(f"matrix: systemd did not boot:\n{said.stdout}{said.stderr}")
            time.sleep(0.5)

    def run(self, command: str, log: Path | None = None) -> tuple[int, str]:
        """Run a command in the source folder; its exit status and what it said, also written to ``log``."""
        argv = [*images.docker(), "exec", "-w", "/src", self._id]
        argv += ["sh", "-c", f"PATH=/src/.venv/bin:$PATH; export CI=true; {command}"]
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as done:
            assert done.stdout is not None
            lines = []
            with log.open("w") if log else Path("/dev/null").open("w") as file:
                for line in done.stdout:
                    lines.append(line)
                    file.write(line)
                    file.flush()
        return done.returncode, "".join(lines)

    def slurm(self) -> str:
        """The version of Slurm in it."""
        code, said = self.run("slurmctld -V")
        if code:
            sys.exit(f"matrix: slurmctld -V: {said.strip()}")
        return said.split()[-1]

    def suite(self, release: str, suite: str, more: list[str]) -> Result:
        """Run one suite."""
        LOGS.mkdir(parents=True, exist_ok=True)
        log = LOGS / f"{release}-{suite}.log"
        command = SUITES[suite]
        if suite in ("integration", "systemd") and more:
            start = INTEGRATION if suite == "integration" else "python -m pytest -q"
            paths = [] if any(arg.startswith("tests/") for arg in more) else [f"tests/{suite}"]
            command = shlex.join([*start.split(), *paths, *more])
        begun = time.monotonic()
        code, said = self.run(command, log)
        seconds = time.monotonic() - begun
        if suite == "systemd":  # what the terminal showed
            record = LOGS / f"{release}-installation.txt"
            subprocess.run([*images.docker(), "cp", f"{self._id}:/src/build/installation.txt", record])
        counted = re.findall(r"^=*\s*((?:\d+ \w+(?:, )?)+) in [\d.]+s", said, re.MULTILINE)
        words = "; alone: ".join(counted) if counted else ("ok" if code == 0 else f"failed (exit {code})")
        return Result(code == 0, words, seconds)


def source() -> bytes:
    """What git tracks or would track, as it stands in the working tree, as a tar file."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"],
        cwd=images.ROOT,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    there = b"\0".join(name for name in listed.split(b"\0") if name and (images.ROOT / name.decode()).exists())
    return subprocess.run(
        ["tar", "--null", "--no-recursion", "--owner=0", "--group=0", "-T", "-", "-c"],
        cwd=images.ROOT,
        input=there,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout


def show(table: dict[str, dict[str, Result]], suites: list[str]) -> None:
    """Version x suite."""
    rows = [["Slurm", *suites]]
    for version, results in table.items():
        cells = [results[suite] for suite in suites]
        rows.append([version, *(f"{'✓' if one.passed else '✗'} {one.said}, {one.seconds:.0f} s" for one in cells)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for index, row in enumerate(rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if index == 0:
            print("  ".join("-" * width for width in widths))


def _before_dashes(args: list[str]) -> list[str]:
    return args[: args.index("--")] if "--" in args else args


def _after_dashes(args: list[str]) -> list[str]:
    return args[args.index("--") + 1 :] if "--" in args else []


if __name__ == "__main__":
    sys.exit(main())
