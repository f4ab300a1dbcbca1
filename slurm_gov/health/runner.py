"""Runs checks, each in a process of its own with a time limit; started by the agent as ``python -m``, to stay small.

Requests come as lines of JSON on standard input, answers go as lines to standard output. A check that does not end
in time is killed with all it started; one that SIGKILL does not end (a driver call that hangs in the kernel) is left
behind and reported, and is not started again until it is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slurm_gov.health.checks import registry, site
from slurm_gov.health.checks.base import Look

_MOST = 262_144  # bytes of one check's output
_PATIENCE = 1.0  # seconds that SIGKILL may take


@dataclass
class _Child:
    request: dict[str, Any]
    pid: int
    pidfd: int
    pipe: int
    ends: float
    output: bytearray = field(default_factory=bytearray)
    killed: bool = False
    over: bool = False


class Runner:
    """The loop. ``stuck`` keeps children that no signal ends, by what they ran."""

    def __init__(self, requests: int, answers: int) -> None:
        self._requests, self._answers = requests, answers
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, _Child] = {}  # by pidfd
        self._stuck: dict[str, _Child] = {}
        self._rest = b""

    def run(self) -> None:
        """Until the agent closes its end."""
        self._selector.register(self._requests, selectors.EVENT_READ)
        while True:
            ends = [child.ends for child in self._children.values()]
            wait = max(0.0, min(ends) - time.monotonic()) if ends else None
            for key, _ in self._selector.select(wait):
                if key.fd == self._requests:
                    data = os.read(self._requests, 65_536)
                    if not data:
                        self._end()
                        return
                    *lines, self._rest = (self._rest + data).split(b"\n")
                    for line in lines:
                        self._start(json.loads(line))
                    continue
                child: _Child = key.data
                if child.over:  # its files were closed a moment ago, in this very round
                    continue
                if key.fd == child.pidfd:
                    self._ended(child)
                else:
                    self._collect(child)
            for child in [c for c in self._children.values() if c.ends <= time.monotonic()]:
                self._late(child)

    def _start(self, request: dict[str, Any]) -> None:
        name = request["name"]
        if stuck := self._stuck.get(name):
            if os.waitpid(stuck.pid, os.WNOHANG) == (0, 0):
                self._answer(request, hung=True, pid=stuck.pid, where=_where(stuck.pid), unkillable=True)
                return
            os.close(stuck.pidfd)
            del self._stuck[name]
        out, into = os.pipe()
        pid = os.fork()
        if pid == 0:
            _be_child(request, into)
        os.close(into)
        os.set_blocking(out, False)
        child = _Child(request, pid, os.pidfd_open(pid), out, time.monotonic() + request["limit"])
        self._children[child.pidfd] = child
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)
        self._selector.register(out, selectors.EVENT_READ, child)

    def _collect(self, child: _Child) -> bool:
        """Take what a child wrote; False when nothing more will come now."""
        try:
            data = os.read(child.pipe, 65_536)
        except BlockingIOError:
            return False
        if not data:  # a closed pipe would wake us again and again
            self._selector.unregister(child.pipe)
            return False
        if len(child.output) < _MOST:
            child.output += data
        return True

    def _ended(self, child: _Child) -> None:
        _kill_group(child.pid)  # what it left behind; before it is reaped, so that the number is still its own
        code = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
        while child.pipe in self._selector.get_map() and self._collect(child):
            pass
        self._forget(child)
        os.close(child.pidfd)
        text = child.output[:_MOST].decode(errors="replace")
        if child.killed:
            self._answer(child.request, hung=True, pid=child.pid, where="", unkillable=False)
        elif "argv" in child.request:
            self._answer(child.request, code=code, output=text[:4000])
        elif code == 0:
            with contextlib.suppress(ValueError):
                self._answer(child.request, **json.loads(text))
                return
            self._answer(child.request, error="wrote no result")
        else:
            said = text.strip().rpartition("\n")[2][-300:] if code == 1 else ""
            self._answer(child.request, error=said or site.how_it_ended(code))

    def _late(self, child: _Child) -> None:
        if not child.killed:
            child.killed, child.ends = True, time.monotonic() + _PATIENCE
            _kill_group(child.pid)
            return
        self._forget(child)
        self._stuck[child.request["name"]] = child
        self._answer(child.request, hung=True, pid=child.pid, where=_where(child.pid), unkillable=True)

    def _forget(self, child: _Child) -> None:
        child.over = True
        del self._children[child.pidfd]
        self._selector.unregister(child.pidfd)
        if child.pipe in self._selector.get_map():
            self._selector.unregister(child.pipe)
        os.close(child.pipe)

    def _answer(self, request: dict[str, Any], **answer: Any) -> None:
        line = json.dumps({"id": request["id"], **answer}).encode() + b"\n"
        while line:
            line = line[os.write(self._answers, line) :]

    def _end(self) -> None:
        for child in (*self._children.values(), *self._stuck.values()):
            _kill_group(child.pid)


def run_probe(request: dict[str, Any]) -> dict[str, Any]:
    """Run one probe here and now: its results and what it wants to remember, as plain data."""
    probe = registry.probe(request["probe"])
    given = request["settings"]
    settings = {check: made(**given.get(check, {})) for check, made in probe.settings.items()}
    where = request["look"]
    look = Look(
        where["node"], where["now"], Path(where["proc"]), Path(where["sys"]), memory=where.get("memory") or {}
    )
    outcome = probe.run(look, settings)
    results = {
        check: [asdict(result) for result in found] if found is not None else None
        for check, found in outcome.results.items()
    }
    return {"results": results, "memory": outcome.memory}


def _be_child(request: dict[str, Any], into: int) -> None:
    """In the new process: run, write the answer, end. Never returns."""
    code = 1
    try:
        os.setsid()  # whatever it starts can be ended with it
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(into, 1)
        os.dup2(into if "argv" in request else nothing, 2)
        os.closerange(3, 4096)
        if "argv" in request:
            try:
                os.execvpe(request["argv"][0], request["argv"], {**os.environ, **request.get("env", {})})
            except OSError as error:
                os.write(1, f"{request['argv'][0]}: {error.strerror}\n".encode())
                code = 127 if isinstance(error, FileNotFoundError) else 126
                return
        answer = json.dumps(run_probe(request)).encode()
        while answer:
            answer = answer[os.write(1, answer) :]
        code = 0
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(1, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # it may not have got to setsid()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _where(pid: int) -> str:
    """The function of the kernel in which a process waits, if it may be known."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/wchan").read_text().strip()
        return text if text not in ("", "0") else ""
    return ""


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the agent's business; our input ends with it
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        Runner(0, os.dup(1)).run()


if __name__ == "__main__":
    main()
