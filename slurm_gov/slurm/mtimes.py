"""python -m slurm_gov.slurm.mtimes SECONDS: when files last changed. A program of its own, because a look at a file
on a dead network filesystem hangs and cannot be stopped.

It reads paths from standard input, each ended by a NUL, and prints "NUMBER SECONDS-SINCE-THE-EPOCH" for each one that
is there, as it finds them, and "end" after the last one or when the time is over.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic

THREADS = 32
"""So many files may hang before the others do."""


def mtimes(paths: Sequence[str], limit: float, tell: Callable[[int, float], None]) -> None:
    """Call ``tell`` with the number and mtime of each path that is there, for at most ``limit`` seconds."""
    todo: SimpleQueue[tuple[int, str]] = SimpleQueue()
    found: SimpleQueue[tuple[int, float | None]] = SimpleQueue()
    for item in enumerate(paths):
        todo.put(item)

    def work() -> None:
        while True:
            try:
                number, path = todo.get_nowait()
            except Empty:
                return
            try:
                found.put((number, os.stat(path).st_mtime))  # noqa: PTH116 (any bytes may stand in a path)
            except (OSError, ValueError):
                found.put((number, None))

    for _ in range(min(THREADS, len(paths))):
        Thread(target=work, daemon=True).start()
    end = monotonic() + limit
    for _ in paths:
        try:
            number, mtime = found.get(timeout=max(0.0, end - monotonic()))
        except Empty:
            return
        if mtime is not None:
            tell(number, mtime)


def main() -> None:
    paths = sys.stdin.buffer.read().split(b"\0")[:-1]
    mtimes(list(map(os.fsdecode, paths)), float(sys.argv[1]), lambda number, mtime: print(number, mtime, flush=True))
    print("end", flush=True)
    os._exit(0)  # threads that hang are not waited for


if __name__ == "__main__":
    main()
