"""Running commands: their output, and every way in which they can fail."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path

import pytest

from slurm_gov.slurm.client import SlurmError, SlurmUnavailable
from slurm_gov.slurm.run import environment, failure, run, run_raw


def sh(script: str, timeout: float = 10, input: str | None = None) -> str:
    return asyncio.run(run(["sh", "-c", script], timeout, input))


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_what_a_command_prints_is_returned() -> None:
    assert sh("echo one; echo two; echo warning >&2") == "one\ntwo\n"


def test_what_it_is_given_it_reads() -> None:
    assert sh("cat", input="modify account\nü\n") == "modify account\nü\n"
    assert sh("cat") == ""


def test_much_output_is_no_trouble() -> None:
    assert len(sh("head -c 3000000 /dev/zero")) == 3_000_000


def test_bytes_that_are_no_text_come_through() -> None:
    out = sh(r"printf '\377\033[31m\n'")
    assert out.encode(errors="surrogateescape") == b"\xff\x1b[31m\n"


def test_a_command_that_is_not_installed() -> None:
    with pytest.raises(SlurmUnavailable, match=r"^no-such-command is not installed, or not in PATH$"):
        asyncio.run(run(["no-such-command"], 1))


def test_a_command_that_may_not_be_run(tmp_path: Path) -> None:
    file = tmp_path / "squeue"
    file.write_text("not a program")
    with pytest.raises(SlurmUnavailable, match=r"cannot be run: Permission denied$"):
        asyncio.run(run([str(file)], 1))


def test_a_failure_has_the_commands_own_words_in_one_line() -> None:
    with pytest.raises(SlurmError) as raised:
        sh("echo ignored; echo 'Invalid job id' >&2; echo specified >&2; exit 3")
    assert str(raised.value).endswith(": Invalid job id specified")
    assert not isinstance(raised.value, SlurmUnavailable)


def test_a_failure_in_silence_has_its_exit_code() -> None:
    with pytest.raises(SlurmError, match=r"exit code 3$"):
        sh("exit 3")
    with pytest.raises(SlurmError, match=r"what it printed$"):
        sh("echo what it printed; exit 1")


def test_raw_never_judges() -> None:
    assert asyncio.run(run_raw(["sh", "-c", "echo out; echo err >&2; exit 7"], 5)) == (7, "out\n", "err\n")


def test_a_command_that_does_not_end_is_killed(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(SlurmUnavailable, match=r"^sh .* did not answer within 0\.5 s$"):
        sh(f"trap '' TERM; echo $$ > {tmp_path}/pid; exec sleep 60", 0.5)
    assert time.monotonic() - began < 5
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_command_that_does_not_read_is_killed_too(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SlurmUnavailable, match="did not answer"):
        sh("exec sleep 60", 0.2, "x" * 1_000_000)
    gc.collect()
    assert not caplog.records


def test_nothing_is_left_behind_when_the_caller_goes(tmp_path: Path) -> None:
    async def cancelled() -> None:
        task = asyncio.create_task(run(["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60"], 60))
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_who_is_told_to_stop_twice_leaves_nothing_behind_either(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As asyncio.run does it when one of several commands has failed."""

    async def cancelled() -> None:
        script = f"echo $$ > {tmp_path}/pid; exec sleep 60"
        task = asyncio.create_task(run(["sh", "-c", script], 60))
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.01)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)

    asyncio.run(cancelled())
    deadline = time.monotonic() + 10  # it is killed, but on a busy machine not dead at once
    while not gone(int((tmp_path / "pid").read_text())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gone(int((tmp_path / "pid").read_text()))
    time.sleep(0.2)
    gc.collect()
    assert not caplog.records


@pytest.mark.parametrize(
    "said",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "scancel: error: slurm_persist_conn_open_without_init: failed to open persistent connection to host",
        "sacctmgr: error: Problem talking to the database: Connection refused",
        " Problem getting cluster(s) from database. ",
        "slurm_load_jobs error: Socket timed out on send/recv operation",
        "slurm_update error: Zero Bytes were transmitted or received",
        "sinfo: fatal: Could not establish a configuration source",
        "slurm_load_node: Unable to contact slurm controller (connect failure)",
        "squeue: error: If munged is up, restart with --num-threads=10",
        "slurm_load_jobs error: Protocol authentication error",
        "slurm_load_jobs error: Slurm backup controller in standby mode",
        "scontrol show config: slurm_load_ctl_conf error:Connection reset by peer",
    ],
)
def test_a_slurm_that_cannot_be_reached_is_known_by_its_words(said: str) -> None:
    assert type(failure(["squeue"], said)) is SlurmUnavailable


@pytest.mark.parametrize(
    "said",
    [
        "Invalid job id specified for job 999",
        "scancel: error: Kill job error on job id 999: Invalid job id specified",
        "Job is pending execution for job 33",
        "slurm_update error: Access/permission denied",
        "sacctmgr: error: slurmdb_format_tres_str: no TRES known by type gres/gpu",
        "Not heterogeneous job leader for job 30",
    ],
)
def test_a_refusal_is_no_silence(said: str) -> None:
    assert type(failure(["scontrol"], said)) is SlurmError


def test_the_error_names_the_command_and_not_its_options() -> None:
    assert str(failure(["scontrol", "-o", "show", "assoc_mgr"], "no")) == "scontrol show: no"
    assert str(failure(["squeue", "-h", "-O", "jobid:0"], "no")) == "squeue: no"


def test_the_environment_is_ours_without_what_changes_slurms_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", "/somewhere/slurm.conf")
    for name in ("SLURM_TIME_FORMAT", "SLURM_CLUSTERS", "SQUEUE_STATES", "SINFO_ALL", "SCANCEL_STATE"):
        monkeypatch.setenv(name, "foreign")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    found = environment()
    assert found["SLURM_CONF"] == "/somewhere/slurm.conf"
    assert found["SLURM_TIME_FORMAT"] == "%s"
    assert found["SOMETHING_ELSE"] == "kept"
    assert not {"SLURM_CLUSTERS", "SQUEUE_STATES", "SINFO_ALL", "SCANCEL_STATE"} & set(found)
