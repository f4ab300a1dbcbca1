"""The node agent: runs the checks on their schedule and keeps the board. What is said of it over MQTT: uplink.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from slurm_gov import __version__
from slurm_gov.health import injection, textfile
from slurm_gov.health.agent_config import Config, Scheduled, SiteCheck, scheduled, xid_rules, xid_settings
from slurm_gov.health.board import Board
from slurm_gov.health.checks import registry, site, xid
from slurm_gov.health.checks.base import FAIL, UNKNOWN, Result
from slurm_gov.health.kernel_log import KernelLog, wall_clock
from slurm_gov.health.messages import MAX_RESULTS, Command, Status
from slurm_gov.health.runner_client import RunnerClient

log = logging.getLogger("slurm-gov-agent")


class Agent:
    """Everything about one node. ``board`` is what is known; ``wake`` is set when somebody should be told."""

    def __init__(self, config: Config, alive: Callable[[], None] = lambda: None) -> None:
        self.config = config
        self._alive = alive  # called every few seconds while checks are scheduled
        self.node = config.name
        self.boot_id = read_boot_id(config)
        self.board = Board()
        self.wake = asyncio.Event()
        self.ready = asyncio.Event()  # every check has spoken once
        self.answered: str | None = None  # the last command that was carried out
        self._probes = {one.name: one for one in scheduled(config)}
        self._rules, self._xid_settings = xid_rules(config), xid_settings(config)
        self._gpus: dict[str, xid.Known] = {}
        self._xids: list[xid.Xid] = []
        self._kernel: KernelLog | None = None
        self._kernel_problem = ""
        self._unexposed = False
        self._memory: dict[str, Any] = {}
        self._runner = RunnerClient()
        self._names = (*self._probes, *config.site_checks)
        self._spoke: set[str] = set()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._injections: tuple[int, int] | None = None
        self._sequence = int(time.time() * 1000)
        self._recall()

    # -- what the uplink needs ----------------------------------------------------------------------

    def head(self) -> dict[str, Any]:
        """The fields that every message has; each call takes a new sequence number."""
        self._sequence += 1
        return {"node": self.node, "boot_id": self.boot_id, "sequence": self._sequence, "time": time.time()}

    def status(self) -> Status:
        """All that is known, as a message."""
        return self.board.status(
            **self.head(), agent_version=__version__, heartbeat=self.config.heartbeat, command=self.answered
        )

    async def obey(self, command: Command) -> None:
        """Carry out a command; its answer is the next status."""
        log.info("command %s: %s%s", command.id, command.command, ", deep" if command.deep else "")
        if command.command == "clear":
            self.forget()
        names = [*self._probes, *(n for n, one in self.config.site_checks.items() if command.deep or not one.deep)]
        await asyncio.gather(*(self._look(name) for name in names))
        self.answered = command.id
        self.board.changed = True
        self._tell()

    def forget(self) -> None:
        """Faults that stay until somebody says so are over: XIDs, and what was injected for this boot."""
        self._xids.clear()
        self._cleared = time.clock_gettime(time.CLOCK_MONOTONIC)
        faults = injection.load(self.config.roots.state, self.boot_id)
        if faults:
            self._write(lambda: injection.save(self.config.roots.state, [one for one in faults if one.survives]))
        self._memory.clear()
        self._watch(again=True)
        self._save()

    # -- the schedule -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look until cancelled. An error here is a mistake of ours and ends the agent; systemd starts it again."""
        self._open_kernel_log()
        self._watch()
        tasks = [
            asyncio.create_task(self._repeat(name), name=name) for name in self._names if not self._is_deep(name)
        ]
        tasks += [asyncio.create_task(self._every_second()), asyncio.create_task(self._first())]
        try:
            done, _ = await asyncio.wait(tasks[:-1], return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in (*tasks, *self._running.values()):
                task.cancel()
            await asyncio.wait(tasks)
            await self._runner.close()
            self._save()
            if self._kernel:
                self._kernel.close()

    async def once(self, names: Iterable[str] | None = None) -> None:
        """Run every check once, or those named, and end; nothing is scheduled."""
        wanted = set(names) if names is not None else None
        self._open_kernel_log()
        if wanted is not None and registry.XID not in wanted:
            self.board.drop(registry.XID)
        self._watch()
        chosen = (
            [n for n in self._names if n in wanted]
            if wanted is not None
            else [n for n in self._names if not self._is_deep(n)]
        )
        await asyncio.gather(*(self._look(name) for name in chosen))
        await self._runner.close()
        if self._kernel:
            self._kernel.close()

    def _is_deep(self, name: str) -> bool:
        return name in self.config.site_checks and self.config.site_checks[name].deep

    async def _repeat(self, name: str) -> None:
        every = self._probes[name].every if name in self._probes else self.config.site_checks[name].every
        while True:
            started = time.monotonic()
            await self._look(name)
            # Nodes of a cluster boot together; they need not all ask slurmctld or a file server together.
            pause = every * random.uniform(0.9, 1.1) - (time.monotonic() - started)
            await asyncio.sleep(max(pause, 0.1))

    async def _first(self) -> None:
        limits = [one.limit for one in self._probes.values()]
        limits += [one.limit for one in self.config.site_checks.values() if not one.deep]
        end = time.monotonic() + max(limits, default=0) + 2
        names = {name for name in self._names if not self._is_deep(name)}
        while not names <= self._spoke and time.monotonic() < end:
            await asyncio.sleep(0.1)
        self.ready.set()
        self.board.changed = True
        self._tell()

    async def _look(self, name: str) -> None:
        """Run one probe or site check; whoever comes while it runs waits for one that starts afterwards."""
        while (running := self._running.get(name)) and not running.done():
            await asyncio.wait([running])
        task = self._running[name] = asyncio.create_task(
            self._probe(self._probes[name])
            if name in self._probes
            else self._site(name, self.config.site_checks[name])
        )
        await asyncio.shield(task)
        self._spoke.add(name)

    async def _probe(self, one: Scheduled) -> None:
        roots = self.config.roots
        look = {"node": self.node, "now": time.time(), "proc": str(roots.proc), "sys": str(roots.sys)}
        request = {"name": one.name, "probe": one.name, "limit": one.limit, "settings": one.settings}
        answer = await self._runner.run(request | {"look": look | {"memory": self._memory.get(one.name)}})
        now = time.time()
        checks = [check for check in registry.probe(one.name).settings if check not in one.off]
        if "results" in answer:
            self._memory[one.name] = answer["memory"]
            for check in checks:
                found = answer["results"].get(check)
                if found is None:
                    self.board.drop(check)
                else:
                    self.board.put(check, [Result(**one) for one in found[:MAX_RESULTS]], now)
        else:
            for check in checks:
                self.board.put(check, [_no_answer(answer, one.limit, registry.fault_of(one.name))], now)
        self._tell()

    async def _site(self, name: str, one: SiteCheck) -> None:
        env = {"SLURMD_NODENAME": self.node} | one.env
        request = {"name": f"site {name}", "argv": list(one.command), "limit": one.limit, "env": env}
        answer = await self._runner.run(request)
        if "code" in answer:
            result = site.judge(
                name, answer["code"], answer["output"], fault=one.fault, advice=one.advice, nonzero=one.nonzero
            )
        else:
            result = _no_answer(answer, one.limit, one.fault)
        self.board.put(name, [result], time.time())
        self._tell()

    # -- what needs no process of its own -----------------------------------------------------------

    async def _every_second(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(1)
            ticks += 1
            if ticks % 5 == 0:
                self._alive()
            self._watch(again=ticks % 60 == 0)
            if ticks % textfile.EVERY == 0:
                self._expose()
            if ticks % 60 == 0:
                self._save()

    def _watch(self, again: bool = False) -> None:
        """New lines in the kernel's log, new injections; ``again``: judge XIDs anew, since some fade."""
        if self._xid_settings:
            new = self._read_kernel_log()
            if new or again or registry.XID not in self.board.checks():
                self._judge_xids()
        mark = _mark_of(self.config.roots.state / "injected.json")
        if mark != self._injections:
            self._injections = mark
            faults = injection.load(self.config.roots.state, self.boot_id)
            for one in faults:
                log.warning("injected %s", one)
            self.board.inject(injection.results(faults, self._rules, self._known_gpus()))
        self._tell()

    def _open_kernel_log(self) -> None:
        if not self._xid_settings:
            return
        source = self.config.roots.kernel_log
        try:
            self._kernel = KernelLog(source)
        except OSError as error:
            self._kernel_problem = f"{source}: {error.strerror}: no XIDs are seen"
            return
        # A file that is no device or pipe cannot be waited for; it is read every second.
        with contextlib.suppress(PermissionError):
            asyncio.get_running_loop().add_reader(self._kernel.fd, self._watch)

    def _read_kernel_log(self) -> bool:
        new = False
        if self._kernel:
            try:
                for line in self._kernel.read():
                    found = xid.parse(line.text, wall_clock(line.uptime))
                    if found and line.uptime > self._cleared:
                        self._xids, new = xid.remember(self._xids, found), True
            except OSError as error:
                self._kernel_problem = f"{self.config.roots.kernel_log}: {error.strerror}: no XIDs are seen"
                asyncio.get_running_loop().remove_reader(self._kernel.fd)
                self._kernel.close()
                self._kernel, new = None, True
        return new

    def _judge_xids(self) -> None:
        assert self._xid_settings
        results = xid.judge(self._xids, self._rules, self._known_gpus(), time.time(), self._xid_settings)
        if self._kernel_problem:
            results.append(Result(UNKNOWN, self._kernel_problem, "", "gpu_driver"))
        self.board.put(registry.XID, results, time.time())

    def _known_gpus(self) -> dict[str, xid.Known]:
        if not self._gpus:
            self._gpus = xid.gpus_of_driver(self.config.roots.proc)
        return self._gpus

    def _tell(self) -> None:
        if self.board.changed and self.ready.is_set():
            self.wake.set()

    # -- over a restart of the agent ----------------------------------------------------------------

    def _recall(self) -> None:
        self._cleared = 0.0  # when faults were last forgotten, in seconds since boot
        try:
            data = json.loads((self.config.roots.state / "state.json").read_text())
            if data["boot_id"] != self.boot_id:
                return
            self._xids = [xid.Xid(**one) for one in data["xids"]]
            self._cleared, self._memory = float(data["cleared"]), dict(data["memory"])
            self.board.recall(data["since"])
        except (OSError, ValueError, KeyError, TypeError):
            return

    def _save(self) -> None:
        data = {
            "boot_id": self.boot_id,
            "xids": [asdict(one) for one in self._xids],
            "cleared": self._cleared,
            "memory": self._memory,
            "since": self.board.to_json(),
        }

        def write() -> None:
            folder = self.config.roots.state
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            (folder / "state.new").write_text(json.dumps(data))
            (folder / "state.new").replace(folder / "state.json")

        self._write(write)

    def _expose(self) -> None:
        """Write the metrics for node-exporter, where that is wished for; trouble is logged when it begins."""
        if self.config.textfile is None:
            return
        try:
            textfile.write(self.config.textfile, textfile.exposition(self.board.entries(), __version__, time.time()))
        except OSError as error:
            if not self._unexposed:
                log.error("cannot write %s: %s", self.config.textfile, error.strerror)
            self._unexposed = True
        else:
            self._unexposed = False

    def _write(self, write: Any) -> None:
        try:
            write()
        except OSError as error:  # a full or broken disk must not silence the agent that reports it
            log.error("cannot write below %s: %s", self.config.roots.state, error.strerror)


def read_boot_id(config: Config) -> str:
    """The kernel's id of this boot; ``unknown`` where it cannot be read."""
    try:
        text = config.roots.boot_id.read_text().strip()
    except OSError:
        return "unknown"
    return "".join(c for c in text if c.isascii() and (c.isalnum() or c == "-"))[:80] or "unknown"


def _no_answer(answer: dict[str, Any], limit: float, fault: str) -> Result:
    """What is said of a check that gave no result: it could not be found out, which is not the same as well."""
    if not answer.get("hung"):
        return Result(UNKNOWN, f"the check failed: {answer.get('error', 'no answer')}", "", fault)
    if answer["unkillable"]:
        where = f" in {answer['where']}" if answer["where"] else ""
        return Result(FAIL, f"hangs in the kernel{where} (process {answer['pid']})", "", fault, advice="reboot")
    return Result(UNKNOWN, f"no answer within {limit:g} s", "", fault)


def _mark_of(file: Any) -> tuple[int, int] | None:
    try:
        told = file.stat()
    except OSError:
        return None
    return told.st_mtime_ns, told.st_ino
