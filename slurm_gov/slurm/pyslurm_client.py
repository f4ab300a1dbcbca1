"""The client on pyslurm: it reads jobs, nodes and reservations, and requeues, without running a command for it.

What pyslurm cannot do, or not safely, goes by Slurm's commands as in `CommandClient`:

* caps as slurmctld has them and setting them (pyslurm knows only slurmdbd's);
* AdminComment (``mark``, ``nudge``): it cannot be emptied, and bytes that are no UTF-8 would be lost;
* ``allow_start``, ``signal`` and ``cancel``: pyslurm judges a signal's success by an error number that an earlier
  call may have left;
* tasks of arrays and components of het jobs, which have no job id that means them alone;
* which nodes give how many GPUs to a job that has them unevenly;
* which jobs are of an expedited requeue.
"""

from __future__ import annotations

import asyncio
import pickle
import select
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

from slurm_gov.slurm import parse, read
from slurm_gov.slurm.client import SlurmError, SlurmUnavailable
from slurm_gov.slurm.commands import CommandClient, all_of
from slurm_gov.slurm.pyslurm_worker import LENGTH, send
from slurm_gov.slurm.run import environment, failure


class PyslurmClient(CommandClient):
    """`SlurmClient` on pyslurm, in a process of its own (`pyslurm_worker`)."""

    def __init__(self, timeout: float = 10.0, accounting_check: float = 10.0) -> None:
        super().__init__(timeout, accounting_check)
        self._worker = Worker()

    async def _look(
        self,
    ) -> tuple[
        Sequence[Mapping[str, str]], dict[int, frozenset[str]], list[dict[str, str]], tuple[read.Reservation, ...]
    ]:
        (kind, answer), expediting = await all_of(self._ask("look"), self._expediting())
        if kind == "unreadable":  # an odd byte in some job: the commands can read it
            return await super()._look()
        jobs, excluded, nodes, reservations = answer
        return (
            [row | {"state": "EXPEDITING"} if row["jobid"] in expediting else row for row in jobs],
            {job: frozenset(parse.nodes(names)) for job, names in excluded.items()},
            nodes,
            tuple(
                read.Reservation(name, float(start or 0), float(end or 0), frozenset(parse.nodes(names or "")))
                for name, start, end, names in reservations
            ),
        )

    async def _expediting(self) -> frozenset[str]:
        """Jobs of an expedited requeue, which Slurm has from 25.11 on; pyslurm calls them pending like others."""
        if "EXPEDITING" not in (await self._job_fields())[1]:
            return frozenset()
        return frozenset((await self._run("squeue", "-h", "-a", "-t", "EXPEDITING", "-o", "%A")).split())

    async def requeue(self, jobs: Iterable[int]) -> None:
        plain: list[int] = []
        other: list[int] = []
        for job in jobs:
            (plain if self._whole(job) == str(job) else other).append(job)
        if plain:
            self.permit(self._timeout)
            _, refused = await self._ask("requeue", plain)
            if refused:
                job, said = next(iter(refused.items()))
                raise failure(["requeue", str(job)], said)
        if other:
            await super().requeue(other)

    async def _ask(self, what: str, *args: object) -> tuple[str, Any]:
        kind, answer = await asyncio.to_thread(self._worker.ask, self._timeout, what, *args)
        if kind == "refused":
            raise failure(["pyslurm", what], answer)
        return kind, answer


class Worker:
    """The process that has pyslurm: started when it is asked, ended when it does not answer in time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.received = 0
        """Bytes of all answers."""

    def ask(self, timeout: float, what: str, *args: object) -> tuple[str, Any]:
        """Ask for a call of `pyslurm_worker.CALLS`; ``SlurmUnavailable`` if there is no answer in ``timeout`` s."""
        deadline = time.monotonic() + timeout
        if not self._lock.acquire(timeout=timeout):
            raise SlurmUnavailable(f"pyslurm {what} did not answer within {timeout:g} s")
        try:
            process = self._running()
            assert process.stdin is not None
            try:
                send(process.stdin, (what, *args))  # type: ignore[arg-type]
                size = LENGTH.unpack(self._read(process, LENGTH.size, deadline))[0]
                data = self._read(process, size, deadline)
            except TimeoutError:
                self._end()
                raise SlurmUnavailable(f"pyslurm {what} did not answer within {timeout:g} s") from None
            except (EOFError, BrokenPipeError):
                code = process.wait()
                self._end()
                self._errors.seek(0)
                said = self._errors.read().decode(errors="replace")[-500:] or f"ended with {code}"
                error = failure(["pyslurm", what], said)
                raise error if isinstance(error, SlurmUnavailable) else SlurmUnavailable(str(error)) from None
            self.received += len(data)
            answer: tuple[str, Any] = pickle.loads(data)
            return answer
        finally:
            self._lock.release()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._errors.seek(0)
            self._errors.truncate()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "slurm_gov.slurm.pyslurm_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment(),
                bufsize=0,
            )
            weakref.finalize(self, _end, self._process)
        return self._process

    def _read(self, process: subprocess.Popen[bytes], size: int, deadline: float) -> bytes:
        assert process.stdout is not None
        parts = []
        while size:
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            part = process.stdout.read(min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _end(self) -> None:
        if self._process is not None:
            _end(self._process)
            self._process = None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


async def usable(timeout: float = 10.0) -> str:
    """Why pyslurm cannot be used here; empty if it can: it is there, and made for the Slurm that runs."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        made = distribution("pyslurm")
    except PackageNotFoundError:
        return "pyslurm is not installed"
    client = CommandClient(timeout)
    try:
        slurm = (await client._config()).get("SLURM_VERSION", "")
    except SlurmError as error:
        return str(error)
    built = (made.read_text("SLURM_VERSION") or made.version).strip()
    if built.split(".")[:2] != slurm.split(".")[:2]:
        return f"pyslurm is made for Slurm {built}, and Slurm {slurm} runs"
    return ""
