"""When jobs last saved their work, from the files that they write: what the policy's ``checkpoint_file`` names.

Nobody waits for these files: what is known is used, and looked at again from time to time in the background.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from slurm_gov.core.snapshot import RunningJob, Snapshot
from slurm_gov.slurm.unchanged import Unchanged

EVERY = 30.0
"""Seconds between two looks at the files."""
LIMIT = 10.0
"""Seconds for one look. A file that hangs is as good as none."""
PROGRAM = (sys.executable, "-m", "slurm_gov.slurm.mtimes")


class CheckpointFiles:
    """What is known of the files. ``program`` is what looks at them: see ``slurm_gov.slurm.mtimes``."""

    def __init__(self, program: Sequence[str] = PROGRAM, limit: float = LIMIT, every: float = EVERY) -> None:
        self._program, self._limit, self._every = tuple(program), limit, every
        self._mtimes: dict[str, float] = {}
        self._looked, self._pattern = float("-inf"), ""
        self._task: asyncio.Task[None] | None = None
        self._unchanged = Unchanged()
        self._process: asyncio.subprocess.Process | None = None

    def filled_in(self, pattern: str, snapshot: Snapshot) -> Snapshot:
        """The snapshot with the checkpoints that are known, at once; begins another look if one is due."""
        if not pattern:
            return snapshot
        due = time.monotonic() - self._looked >= self._every or pattern != self._pattern
        if due and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self.look(pattern, snapshot))
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        filled = with_checkpoints(pattern, snapshot, self._mtimes, self._unchanged)
        self._unchanged.looked()
        return filled

    async def look(self, pattern: str, snapshot: Snapshot) -> None:
        """Look at the files of all running jobs, for as long as the limit allows."""
        if self._process is not None and self._process.returncode is None:
            return  # the last look still hangs, although it was killed: one is enough
        self._looked, self._pattern = time.monotonic(), pattern
        paths = sorted({path for job in snapshot.running if (path := path_of(pattern, job))})
        if not paths:
            self._mtimes = {}
            return
        self._process = process = await asyncio.create_subprocess_exec(
            *self._program, str(self._limit), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        # Paths that were not reached keep what is known of them.
        known = {path: self._mtimes[path] for path in paths if path in self._mtimes}
        reading = asyncio.ensure_future(_talk(process, paths, known))
        try:
            await asyncio.wait({reading}, timeout=self._limit + 5)
        finally:
            reading.cancel()
            self._mtimes = known
            ending = asyncio.ensure_future(process.wait())
            if not (await asyncio.wait({ending}, timeout=0.5))[0] and process.returncode is None:
                process.kill()
                await asyncio.wait({ending}, timeout=0.5)  # and no longer: it may hang in the kernel
            ending.cancel()


async def _talk(process: asyncio.subprocess.Process, paths: Sequence[str], found: dict[str, float]) -> None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"".join(path.encode(errors="surrogateescape") + b"\0" for path in paths))
    process.stdin.close()
    async for line in process.stdout:
        number, _, mtime = line.decode().partition(" ")
        if not mtime:
            return
        found[paths[int(number)]] = float(mtime)


async def with_files(pattern: str, snapshot: Snapshot, limit: float = 2.0) -> Snapshot:
    """The snapshot with the checkpoints that the files tell of in so many seconds: for a single look."""
    if not pattern:
        return snapshot
    files = CheckpointFiles(limit=limit)
    await files.look(pattern, snapshot)
    return with_checkpoints(pattern, snapshot, files._mtimes)


def path_of(pattern: str, job: RunningJob) -> str | None:
    """The file of a job; ``None`` if the pattern asks for a task's number and it has none."""
    array, _, task = job.display_id.partition("_")
    if "/" in job.user or job.user in ("", ".", ".."):
        return None
    values: Mapping[str, str] = {
        "%%": "%", "%j": str(job.id), "%A": array if task else str(job.id), "%a": task, "%u": job.user
    }  # fmt: skip
    wanted = set(re.findall("%.", pattern))
    return None if "%a" in wanted and not task else re.sub("%.", lambda found: values[found[0]], pattern)


def with_checkpoints(
    pattern: str, snapshot: Snapshot, mtimes: Mapping[str, float], unchanged: Unchanged | None = None
) -> Snapshot:
    """The snapshot with the later one of what a job's comment and its file say."""
    unchanged = unchanged or Unchanged()
    running = []
    for job in snapshot.running:
        mtime = mtimes.get(path_of(pattern, job) or "")
        if mtime is not None:
            at = mtime if job.checkpoint is None else max(mtime, job.checkpoint)
            job = unchanged.get(job.id, (job, at), partial(replace, job, checkpoint=at))
        running.append(job)
    return replace(snapshot, running=tuple(running))
