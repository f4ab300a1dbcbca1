"""A thousand node agents on one broker and one monitor, and what one real agent costs its node."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from bench import report
from bench.stats import percentile
from slurm_gov.sandbox import broker, ports
from slurm_gov.sandbox.governor import program

Say = Callable[[str], None]
SWARMS = 4  # processes that share the agents
HEARTBEAT = 10.0  # seconds, as shipped


@dataclass
class Use:
    """What processes took together in a while: of one core, and of memory in MB (what they share counts once)."""

    cpu: float
    memory: float


class Measured:
    """Processes, their children too, from one moment to another."""

    def __init__(self, *pids: int) -> None:
        self._all = [psutil.Process(pid) for pid in pids]
        self._began, self._cpu = time.monotonic(), self._seconds()

    def _seconds(self) -> float:
        total = 0.0
        for process in self._all:
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def use(self) -> Use:
        """Since it was made."""
        cpu = (self._seconds() - self._cpu) / (time.monotonic() - self._began)
        return Use(cpu, sum(process.memory_full_info().pss for process in self._all) / 1e6)


class Stage:
    """The broker, the monitor and the swarms."""

    def __init__(self, folder: Path, count: int, say: Say) -> None:
        self.ports = ports.reserve(0)
        self.nodes = [f"node{number:04}" for number in range(1, count + 1)]
        say(f"a credential for each of {count} nodes")
        self.files = broker.prepare(folder / "mqtt", self.ports.mqtt, self.nodes)
        self.log = (folder / "log").open("wb")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.start_broker()
        self.monitor = self._python("monitor")
        parts = [self.nodes[part::SWARMS] for part in range(SWARMS)]
        self.swarms = [self._python("swarm", str(HEARTBEAT), *part) for part in parts]

    def start_broker(self) -> None:
        self.broker = subprocess.Popen(self.files.argv(), stdout=self.log, stderr=self.log)
        self.processes.append(self.broker)
        while not ports.is_listening(self.files.port):
            time.sleep(0.05)

    def _python(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "bench.swarm", what, str(self.files.dir), str(self.files.port), *arguments]
        one = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)
        self.processes.append(one)
        return one

    def ask(self) -> dict[str, Any]:
        """What the monitor knows, and the delays of what changed since it was last asked."""
        assert self.monitor.stdin and self.monitor.stdout
        self.monitor.stdin.write(b"\n")
        self.monitor.stdin.flush()
        answer: dict[str, Any] = json.loads(self.monitor.stdout.readline())
        return answer

    def all_report(self, each: int) -> None:
        """So many agents of each swarm find a fault in the same moment."""
        for one in self.swarms:
            assert one.stdin
            one.stdin.write(b"%d\n" % each)
            one.stdin.flush()

    def until_online(self, limit: float = 300) -> float:
        """Seconds until the monitor knows every node as online."""
        began = time.monotonic()
        while self.ask()["online"] < len(self.nodes):
            if time.monotonic() - began > limit:
                raise RuntimeError(f"only {self.ask()['online']} of {len(self.nodes)} agents are online")
            time.sleep(0.2)
        return time.monotonic() - began

    def wait_delays(self, count: int, limit: float = 120) -> list[float]:
        """The delays of so many changed reports, in seconds from the agent's making it to the monitor's having it."""
        found: list[float] = []
        end = time.monotonic() + limit
        while len(found) < count and time.monotonic() < end:
            time.sleep(0.2)
            found += self.ask()["delays"]
        if len(found) < count:
            raise RuntimeError(f"{len(found)} of {count} reports arrived")
        return found

    def close(self) -> None:
        for one in self.processes:
            one.kill()
            one.wait()
        self.log.close()
        self.ports.release()


def measure(count: int, seconds: float, command: str, say: Say) -> str:
    """The section for RESULTS.md."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    where = report.circumstances(None, command)
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder), count, say)
        try:
            say("agents connect")
            connected = stage.until_online()
            time.sleep(5)
            stage.ask()
            say(f"{seconds:.0f} s of heartbeats, and a fault somewhere every second")
            watch_broker, watch_monitor = Measured(stage.broker.pid), Measured(stage.monitor.pid)
            quiet: list[float] = []
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                stage.all_report(1)
                time.sleep(SWARMS)
            quiet = stage.wait_delays(1)
            broker_use, monitor_use = watch_broker.use(), watch_monitor.use()
            say("all find a fault in the same moment")
            each = count // SWARMS
            watch_storm = Measured(stage.monitor.pid)
            stage.all_report(each)
            storm = stage.wait_delays(each * SWARMS)
            storm_use = watch_storm.use()
            say("the broker is killed and started again")
            before = stage.ask()["accepted"]["status"]
            stage.broker.send_signal(signal.SIGKILL)  # it forgets what it retained
            stage.broker.wait()
            time.sleep(2)
            again = _all_heard_again(stage, before)
            counts = stage.ask()
        finally:
            stage.close()
    say("one real agent with every check")
    agent = _real_agent(seconds)
    return "\n".join(
        [
            f"{where}; {broker.version()}\n",
            f"{count} simulated agents, each with its own TLS connection and credential, heartbeats every "
            f"{HEARTBEAT:.0f} s, all on this machine. Delay from the agent's making a report to the monitor's having "
            "checked it, in milliseconds:\n",
            report.table(
                ["", "reports", "median", "p99", "slowest"],
                [_row("one fault a second", quiet), _row(f"{each * SWARMS} faults in one moment", storm)],
            ),
            "",
            report.table(
                ["", "of one core", "memory, MB"],
                [
                    ["broker", f"{broker_use.cpu:.1%}", f"{broker_use.memory:.0f}"],
                    ["monitor", f"{monitor_use.cpu:.1%}", f"{monitor_use.memory:.0f}"],
                    ["monitor while all report", f"{storm_use.cpu:.1%}", f"{storm_use.memory:.0f}"],
                    ["one real agent, with all it starts", f"{agent.cpu:.2%}", f"{agent.memory:.0f}"],
                ],
            ),
            "",
            f"All agents connected {connected:.0f} s after the first; after the broker was killed and started again "
            f"the monitor had a new report of every node in {again:.0f} s. Messages refused: "
            f"{sum(n for reason, n in counts['refused'].items() if reason != 'duplicate')}.\n",
            report.verdict("a real agent: of one core, in percent", agent.cpu * 100, 1.0, " %"),
            report.verdict("a real agent: memory", agent.memory, 60, " MB"),
        ]
    )


def _all_heard_again(stage: Stage, before: int, limit: float = 300) -> float:
    """Start the broker; seconds until every agent has sent its status again. ``before``: how many had come."""
    began = time.monotonic()
    stage.start_broker()
    while stage.ask()["accepted"]["status"] < before + len(stage.nodes):
        if time.monotonic() - began > limit:
            raise RuntimeError("not all agents came back")
        time.sleep(0.2)
    return time.monotonic() - began


def _row(name: str, delays: Sequence[float]) -> list[str]:
    ms = [delay * 1000 for delay in delays]
    return [name, str(len(ms)), f"{percentile(ms, 50):.1f}", f"{percentile(ms, 99):.1f}", f"{max(ms):.1f}"]


def _real_agent(seconds: float) -> Use:
    """slurm-gov-agent as shipped, all checks on, connected: after its first minute."""
    with tempfile.TemporaryDirectory() as name:
        folder, held = Path(name), ports.reserve(0)
        files = broker.prepare(folder / "mqtt", held.mqtt, ["n1"])
        certificate, key = files.credential("n1")
        keys = {"ca": str(files.ca), "cert": str(certificate), "key": str(key)}
        config = {
            "node": "n1",
            "broker": {"host": broker.ADDRESS, "port": files.port, **keys},
            "roots": {"state": str(folder / "state")},
        }
        with (folder / "agent.yaml").open("w") as file:
            YAML(typ="safe").dump(config, file)
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(files.argv(), stdout=log, stderr=log)
            argv = [str(program("slurm-gov-agent")), "-c", str(folder / "agent.yaml"), "run"]
            agent = subprocess.Popen(argv, stdout=log, stderr=log)
            try:
                time.sleep(60)
                children = [child.pid for child in psutil.Process(agent.pid).children()]
                watched = Measured(agent.pid, *children)
                time.sleep(max(seconds, 60))
                return watched.use()
            finally:
                agent.terminate()
                agent.wait(30)
                server.kill()
                server.wait()
                held.release()
