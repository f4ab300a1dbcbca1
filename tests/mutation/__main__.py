"""Break every rule of slurm_gov/core in turn and see which test says so: ``make mutation``.

Each mutation is made in a copy of the project, and the fast suites run there until the first failure. The report
says which test caught each; what survives is a rule that no test holds. The exit code is 1 if anything survived, 2 if
a mutation's text is not found exactly once (the rule was rewritten, so must the mutation), or if the suites fail
without any mutation.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
REPORT = Path(__file__).parent / "REPORT.md"
NEEDED = ("slurm_gov", "tests", "etc", "docs", "pyproject.toml", "README.md")
# The quickest first: most mutations end there. Property tests find what nobody thought of, and take longest.
QUICK = (
    "plan",
    "plan_rules",
    "ahead",
    "owed",
    "unstarted",
    "het_jobs",
    "beside",
    "planner",
    "differences",
    "decision",
    "victims",
    "room",
    "capacity",
    "shields",
    "actions",
    "caps",
    "marks",
    "lately",
    "estimates",
    "sharing",
    "docs_decisions",
)
SUITES = (("tests/conformance", *(f"tests/unit/test_{name}.py" for name in QUICK)), ("tests/property",))
LIMIT = 600
"""Seconds for one suite; a mutation that lets it run longer is caught."""


@dataclass(frozen=True)
class Result:
    """What came of one mutation; ``caught_by`` is empty if it survived."""

    mutation: Mutation
    caught_by: str
    seconds: float


def main() -> int:
    """Run the mutations and write the report."""
    parser = argparse.ArgumentParser(
        prog="make mutation", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="so many at once")
    parser.add_argument("-k", "--only", default="", help="only mutations with this in their name or file")
    parser.add_argument(
        "--report", type=Path, default=None, help=f"where to write it (default, for all: {REPORT.name})"
    )
    parser.add_argument("--again", type=Path, help="only those that survived in this report")
    parser.add_argument("--no-property", action="store_true", help="only the quick suites")
    options = parser.parse_args()
    chosen = [one for one in MUTATIONS if options.only in one.name or options.only in one.file]
    if options.again:
        survived = re.findall(r"^\| [^|]+ \| ([^|]+) \| \*\*nobody", options.again.read_text(), re.MULTILINE)
        chosen = [one for one in chosen if one.name in survived]
    wrong = problems(MUTATIONS)
    for problem in wrong:
        print(f"mutation: {problem}", file=sys.stderr)
    if wrong or not chosen:
        return 2
    suites = SUITES[:1] if options.no_property else SUITES
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        workers = [Worker(Path(folder) / str(number), suites) for number in range(options.jobs)]
        clean = workers[0].try_out(None)
        if clean.caught_by:
            print(f"mutation: the suites fail without any mutation: {clean.caught_by}", file=sys.stderr)
            return 2
        print(f"without any mutation the suites pass in {clean.seconds:.0f} s; {len(chosen)} mutations", flush=True)
        results = run(workers, chosen)
    survivors = [one for one in results if not one.caught_by]
    if options.report or len(results) == len(MUTATIONS):
        (options.report or REPORT).write_text(report(results, suites))
    print(f"{len(results)} mutations, {len(results) - len(survivors)} caught, {len(survivors)} survived")
    return 1 if survivors else 0


def problems(mutations: list[Mutation]) -> list[str]:
    """Mutations that cannot be made, and names that are there twice."""
    found = []
    for one in mutations:
        times = (ROOT / one.file).read_text().count(one.old)
        if times != 1:
            found.append(f'"{one.name}": its text is {times} times in {one.file}, not once: {one.old!r}')
        if sum(other.name == one.name for other in mutations) > 1:
            found.append(f'"{one.name}" is there twice')
    return found


class Worker:
    """A copy of the project to break."""

    def __init__(self, folder: Path, suites: tuple[tuple[str, ...], ...]) -> None:
        self.folder = folder
        self.suites = suites
        folder.mkdir()
        for name in NEEDED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
            else:
                shutil.copy2(source, folder / name)

    def try_out(self, mutation: Mutation | None) -> Result:
        """Make the mutation, run the suites, and undo it."""
        began = time.monotonic()
        if mutation is None:
            return Result(Mutation("", "", "", ""), self._first_failure(), time.monotonic() - began)
        file = self.folder / mutation.file
        text = file.read_text()
        try:
            file.write_text(text.replace(mutation.old, mutation.new))
            return Result(mutation, self._first_failure(), time.monotonic() - began)
        finally:
            file.write_text(text)

    def _first_failure(self) -> str:
        for suite in self.suites:
            there = [name for name in suite if (self.folder / name).exists()]
            command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *there]
            environment = os.environ | {
                "PYTHONPATH": str(self.folder),
                "PYTHONDONTWRITEBYTECODE": "1",
                "HYPOTHESIS_PROFILE": "quick",
            }
            try:
                done = subprocess.run(
                    command,
                    cwd=self.folder,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=LIMIT,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return f"{suite[0]} did not end"
            if done.returncode:
                said = done.stdout.strip().rpartition("\n")[2]
                failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
                return failed[1] if failed else said or f"exit code {done.returncode}"
        return ""


def run(workers: list[Worker], mutations: list[Mutation]) -> list[Result]:
    """Try all mutations, several at a time, and say what came of each."""
    free, lock = list(workers), threading.Lock()

    def try_out(mutation: Mutation) -> Result:
        with lock:
            worker = free.pop()
        result = worker.try_out(mutation)
        with lock:
            free.append(worker)
            said = f"caught by {result.caught_by}" if result.caught_by else "SURVIVED"
            print(f"{result.seconds:5.0f} s  {mutation.name}: {said}", flush=True)
        return result

    with ThreadPoolExecutor(len(workers)) as pool:
        return list(pool.map(try_out, mutations))


def report(results: list[Result], suites: tuple[tuple[str, ...], ...]) -> str:
    """The results as a document."""
    survivors = [one for one in results if not one.caught_by]
    with_property = "conformance, unit" + (" and property tests" if len(suites) > 1 else "; no property tests")
    lines = [
        "# Every rule broken in turn",
        "",
        "Written by `make mutation`: each rule of slurm_gov/core is broken as [mutations.py](mutations.py) says, and",
        f"the suites ({with_property}) run until the first failure.",
        "",
        f"{len(results)} mutations, {len(results) - len(survivors)} caught, {len(survivors)} survived.",
        "",
        "| rule | what the core then does | caught by |",
        "|---|---|---|",
    ]
    for one in results:
        where = Path(one.mutation.file).stem
        caught = f"`{one.caught_by.removeprefix('tests/')}`" if one.caught_by else "**nobody**"
        lines.append(f"| {where} | {one.mutation.name} | {caught} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
