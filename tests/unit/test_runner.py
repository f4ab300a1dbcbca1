"""The process that runs checks: time limits, what is killed, what cannot be, and a runner that dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm_gov.health import runner
from slurm_gov.health.runner_client import RunnerClient


def site(*argv: str, limit: float = 30, name: str = "x") -> dict[str, Any]:
    return {"name": name, "argv": list(argv), "limit": limit}


def answers(*requests: dict[str, Any]) -> list[dict[str, Any]]:
    """What a real runner says to requests that are sent together."""

    async def ask() -> list[dict[str, Any]]:
        client = RunnerClient()
        try:
            return await asyncio.gather(*(client.run(request) for request in requests))
        finally:
            await client.close()

    return asyncio.run(ask())


def until(so: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_a_probe() -> None:
    look = {"node": "n1", "now": 1.0, "proc": "/proc", "sys": "/sys"}
    request = {"name": "disk", "probe": "disk", "limit": 30, "settings": {"disk": {"paths": ["/proc"]}}, "look": look}
    assert answers(request) == [{"results": {"disk": []}, "memory": {}}]


def test_a_probe_that_breaks() -> None:
    look = {"node": "n1", "now": 1.0, "proc": "/proc", "sys": "/sys"}
    (answer,) = answers({"name": "a", "probe": "disk", "limit": 30, "settings": {"disk": {"x": 1}}, "look": look})
    assert "unexpected keyword argument" in answer["error"]


def test_executables() -> None:
    said = answers(
        site("/bin/sh", "-c", "echo fine; exit 0"),
        site("/bin/sh", "-c", "echo to stderr >&2; exit 2"),
        site("/bin/sh", "-c", "kill -9 $$"),
        site("/no/such/thing"),
        site("/etc/passwd"),
        site("/bin/sh", "-c", "head -c 900000 /dev/zero | tr '\\0' x; exit 1"),
    )
    assert [(one["code"], one["output"].strip()[:40]) for one in said] == [
        (0, "fine"),
        (2, "to stderr"),
        (-9, ""),
        (127, "/no/such/thing: No such file or directory"[:40]),
        (126, "/etc/passwd: Permission denied"),
        (1, "x" * 40),
    ]


def test_what_hangs_is_killed_with_all_it_started_and_hangs_nobody(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/self; wait"
    slow, quick = answers(site("/bin/sh", "-c", script, limit=1, name="slow"), site("/bin/true", name="quick"))
    assert quick["code"] == 0
    assert slow["hung"] and not slow["unkillable"]
    for name in ("self", "child"):
        until(lambda name=name: gone(int((tmp_path / name).read_text())))


def test_what_a_check_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    (answer,) = answers(site("/bin/sh", "-c", f"sleep 600 & echo $! > {tmp_path}/child; exit 1"))
    assert answer["code"] == 1
    until(lambda: gone(int((tmp_path / "child").read_text())))


def test_a_check_has_nothing_of_the_agent_open() -> None:
    (answer,) = answers(site("/bin/sh", "-c", "ls -l /proc/self/fd | grep -c socket; exit 0"))
    assert answer["output"].strip() == "0"


def test_a_runner_that_died_is_started_again() -> None:
    async def ask() -> tuple[dict[str, Any], dict[str, Any]]:
        client = RunnerClient()
        try:
            await client.run(site("/bin/true"))
            assert client._process
            pending = asyncio.create_task(client.run(site("/bin/sleep", "5", limit=60)))
            await asyncio.sleep(0.2)
            os.kill(client._process.pid, signal.SIGKILL)
            return await pending, await client.run(site("/bin/true"))
        finally:
            await client.close()

    lost, again = asyncio.run(ask())
    assert lost == {"error": "the process that runs the checks ended"}
    assert again["code"] == 0


def test_the_runner_ends_with_the_agent() -> None:
    async def ask() -> int:
        client = RunnerClient()
        await client.run(site("/bin/true"))
        assert client._process and client._writer
        pid = client._process.pid
        client._writer.transport.abort()  # as when the agent is killed
        await asyncio.to_thread(client._process.wait, 20)
        return pid

    assert gone(asyncio.run(ask()))


class InThread:
    """A runner in a thread of the test, so that it can be given a kernel that does not kill."""

    def __init__(self) -> None:
        requests, self.into = os.pipe()
        self.out, answers = os.pipe()
        self.thread = threading.Thread(target=runner.Runner(requests, answers).run, daemon=True)
        self.thread.start()
        self.file = os.fdopen(self.out)

    def ask(self, number: int, request: dict[str, Any]) -> dict[str, Any]:
        os.write(self.into, json.dumps(request | {"id": number}).encode() + b"\n")
        answer: dict[str, Any] = json.loads(self.file.readline())
        assert answer.pop("id") == number
        return answer

    def close(self) -> None:
        os.close(self.into)
        self.thread.join(20)


@pytest.fixture
def in_thread() -> Iterator[InThread]:
    made = InThread()
    yield made
    made.close()


def test_what_cannot_be_killed_is_left_behind_and_not_started_again(
    in_thread: InThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = runner._kill_group
    monkeypatch.setattr(runner, "_kill_group", lambda pid: None)  # as in state D
    monkeypatch.setattr(runner, "_PATIENCE", 0.1)
    first = in_thread.ask(1, site("/bin/sleep", "600", limit=0.2))
    assert first["hung"] and first["unkillable"]
    again = in_thread.ask(2, site("/bin/sleep", "600", limit=0.2))
    assert again["unkillable"] and again["pid"] == first["pid"], "no second one beside it"
    other = in_thread.ask(3, site("/bin/true", name="other"))
    assert other["code"] == 0
    kill(first["pid"])
    until(lambda: gone(first["pid"]))
    assert in_thread.ask(4, site("/bin/true"))["code"] == 0
