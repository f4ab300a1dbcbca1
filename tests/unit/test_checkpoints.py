"""Checkpoints that jobs tell of, in a comment or by a file, and files that hang."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import running, snapshot

from slurm_gov.slurm import mtimes
from slurm_gov.slurm.checkpoints import CheckpointFiles, path_of, with_checkpoints
from slurm_gov.slurm.read import checkpoint


@pytest.mark.parametrize(
    ("comment", "at"),
    [
        ("checkpoint=1795445991", 1795445991.0),
        ("checkpoint=1795445991.25", 1795445991.25),
        ("my run; checkpoint=1795445991, all well", 1795445991.0),
        ("checkpoint=2026-11-23T10:00:00Z", 1795428000.0),
        ("checkpoint=2026-11-23T10:00:00+01:00", 1795424400.0),
        ("checkpoint=1 checkpoint=2", 2.0),  # the last one said
        ("", None),
        ("checkpoint=", None),
        ("checkpoint=yesterday", None),
        ("mycheckpoint=5", None),
        ("checkpoint=99999-01-01", None),
        ("checkpoint=999999999999999999999", None),
    ],
)
def test_a_comment(comment: str, at: float | None) -> None:
    assert checkpoint(comment) == at


def test_a_comment_without_a_time_zone_is_in_this_machines() -> None:
    assert checkpoint("checkpoint=1970-01-02T00:00:00") == 86400 - time.localtime(86400).tm_gmtoff


def test_the_path_of_a_job() -> None:
    job = running(7, "research", "n1")
    assert path_of("/ck/%u/%j/100%%", job) == "/ck/alice/7/100%"
    assert path_of("/ck/%A_%a", job) is None
    assert path_of("/ck/%A", job) == "/ck/7"
    assert path_of("/ck/%A_%a", replace(job, id=9, display_id="8_3")) == "/ck/8_3"
    assert path_of("/ck/%u", replace(job, user="../bob")) is None


def test_files_are_looked_at_in_the_background(tmp_path: Path) -> None:
    there, not_there = running(1, "research", "n1"), running(2, "research", "n2")
    (tmp_path / "1").write_text("")
    os.utime(tmp_path / "1", (50, 99_950))
    seen = snapshot(2, there, not_there)
    pattern = f"{tmp_path}/%j"

    async def look() -> list[float | None]:
        files = CheckpointFiles()
        first = files.filled_in(pattern, seen)
        assert [job.checkpoint for job in first.running] == [None, None]  # nobody waited
        await files._task
        return [job.checkpoint for job in files.filled_in(pattern, seen).running]

    assert asyncio.run(look()) == [99_950.0, None]


def test_the_later_of_comment_and_file_counts() -> None:
    jobs = [replace(running(id, "research", f"n{id}"), checkpoint=500.0) for id in (1, 2)]
    filled = with_checkpoints("/ck/%j", snapshot(2, *jobs), {"/ck/1": 400.0, "/ck/2": 600.0})
    assert [job.checkpoint for job in filled.running] == [500.0, 600.0]


def test_a_program_that_hangs_is_given_up_and_not_started_twice(tmp_path: Path) -> None:
    stuck = tmp_path / "stuck.py"
    # What it found before it hung is used. It cannot be asked to end, only be killed.
    stuck.write_text(
        "import signal,time\nsignal.signal(15, signal.SIG_IGN)\nprint('0 77.5', flush=True)\ntime.sleep(600)"
    )

    async def look() -> float | None:
        files = CheckpointFiles((sys.executable, str(stuck)), limit=-4.0)
        seen = snapshot(1, running(1, "research", "n1"))
        await files.look("/ck/%j", seen)
        process = files._process
        found = files.filled_in("/ck/%j", seen).running[0].checkpoint
        await process.wait()
        assert process.returncode == -9
        return found

    assert asyncio.run(look()) == 77.5


def test_one_file_that_hangs_does_not_keep_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    real = os.stat

    def stat(path: str) -> os.stat_result:
        if path == "/dead":
            release.wait(60)
        return real(path)

    monkeypatch.setattr(mtimes.os, "stat", stat)
    found: dict[int, float] = {}
    mtimes.mtimes(["/dead", "/", "/no/such", "/tmp"], 0.5, found.__setitem__)
    release.set()
    assert set(found) == {1, 3}
