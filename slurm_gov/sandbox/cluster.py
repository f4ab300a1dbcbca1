"""The sandbox itself: bring it up, use it, take it down."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slurm_gov.sandbox import accounts, agents, broker, controllers, governor, ports, slurmconf, sweep
from slurm_gov.sandbox.config import SandboxConfig, builtin_base, default_base
from slurm_gov.sandbox.daemons import SYSTEM_PATH, Daemons, check_installed
from slurm_gov.sandbox.errors import SandboxError
from slurm_gov.sandbox.layout import Layout
from slurm_gov.sandbox.ports import Ports

Progress = Callable[[str], None]

# Variables with which a surrounding Slurm (or a user's habits) would change what our commands do.
_FOREIGN = ("SLURM", "SBATCH", "SALLOC", "SRUN", "SQUEUE", "SINFO", "SACCT", "SCONTROL", "SCANCEL", "SPRIO")


class Sandbox:
    """A private Slurm cluster. Made by `up` or `attach`, ended by `down`; also a context manager."""

    def __init__(self, config: SandboxConfig, port_range: Ports, started: float) -> None:
        self.config = config
        self.ports = port_range
        self.started = started
        self.layout = Layout(config.dir)
        self.dir = config.dir
        self._daemons = Daemons(self.layout)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    # -- from nothing to a cluster, and back ---------------------------------------------------------

    @classmethod
    def up(cls, config: SandboxConfig, progress: Progress = lambda step: None) -> Sandbox:
        """Start a cluster and return when all its nodes are idle. On failure nothing is left behind."""
        check_installed()
        if config.controller_names:
            controllers.check_possible()
        with _claimed(config):
            try:
                sandbox = cls(config, ports.reserve(len(config.all_nodes())), time.time())
                sandbox._bring_up(progress)
            except BaseException:
                with _signals_blocked():
                    sweep.end_all(Layout(config.dir))
                    _remove(config.dir)
                raise
            sandbox._write_state(ready=True)
            sandbox.ports.release()
            return sandbox

    @classmethod
    def attach(cls, name: str = "default", base: Path | None = None) -> Sandbox:
        """The sandbox of that name that is up."""
        folder = (base or default_base()) / name
        data = _read_state(folder)
        if data is None or not data["ready"]:
            raise SandboxError(_why_not_up(folder))
        return cls(SandboxConfig.from_json(data["config"]), Ports(data["port"]), data["started"])

    def down(self) -> int:
        """End the cluster and remove its folder; returns how many processes were ended. Harmless twice."""
        self.ports.release()
        ended = take_down(self.config.name, self.config.base) if self.dir.exists() else 0
        self._daemons.reap()
        return ended

    # -- using it ------------------------------------------------------------------------------------

    @property
    def page(self) -> str:
        """The address of the live page."""
        return self.page_of(1)

    def page_of(self, controller: int) -> str:
        """The address of the live page of one of several controllers: 1 is the primary."""
        return f"http://127.0.0.1:{self._governor_port(controller)}/"

    def _governor_port(self, controller: int) -> int:
        return self.ports.governor if controller == 1 else self.ports.backup_governor

    def daemon(self, program: str, controller: int = 1) -> str:
        """What slurmctld or slurm-govd of a controller is called here: that of the primary by its plain name."""
        return program if controller == 1 else f"{program}-{self.config.controller_names[controller - 1]}"

    def _inside(self, controller: int) -> Callable[[list[str]], list[str]]:
        """What makes of a command line one that runs on a controller."""
        if not (names := self.config.controller_names):
            return lambda argv: argv
        return lambda argv: controllers.inside(self.layout, names[controller - 1], argv)

    @property
    def env(self) -> dict[str, str]:
        """The environment in which Slurm's commands, and ours, speak to this cluster."""
        own = {
            "SLURM_CONF": str(self.layout.slurm_conf),
            "SLURM_GOV_SANDBOX": str(self.dir),
            "SLURM_GOV_SOCKET": str(self.layout.govd_socket),
            "SLURM_GOV_NODE_JOURNAL": str(self.layout.node_journal),
            "SLURM_GOV_LEDGER": str(self.layout.ledger),
        }
        if names := self.config.controller_names:
            own["SLURM_GOV_DATABASE"] = controllers.database(self.layout)
            own["SLURM_GOV_SOCKET"] = str(self.layout.host_of(names[0]) / self.layout.govd_socket.name)
        if self.layout.policy.exists():
            own["SLURM_GOV_POLICY"] = str(self.layout.policy)
        if self.config.governor:
            own["SLURM_GOV_SERVER"] = self.page
        return _clean_environment() | own

    def run(
        self,
        args: Sequence[str | Path],
        *,
        timeout: float = 60,
        check: bool = True,
        input: str | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, its output captured as text; a failure raises, with what it said.

        `env` adds variables to those of the sandbox.
        """
        try:
            done = subprocess.run(
                args,
                text=True,
                capture_output=True,
                timeout=timeout,
                check=False,
                input=input or "",
                cwd=cwd,
                env=self.env | dict(env or {}),
            )
        except subprocess.TimeoutExpired:
            raise SandboxError(f"{' '.join(map(str, args))} did not end within {timeout:.0f} s") from None
        if check and done.returncode:
            said = f"{done.stdout}{done.stderr}".strip()
            raise SandboxError(f"{' '.join(map(str, args))} ended with {done.returncode}: {said}")
        return done

    def sacctmgr(self, lines: Sequence[str]) -> None:
        """Have one sacctmgr do several things; each takes a third of a second as a process of its own."""
        if lines:
            done = self.run(["sacctmgr", "-i"], input="\n".join(lines) + "\n", check=False)
            said = f"{done.stdout}{done.stderr}"
            if done.returncode or "error" in said.lower():
                raise SandboxError(f"sacctmgr failed: {said.strip()}")

    def submit(self, script: str, *options: str, **how: Any) -> int:
        """Submit a batch job that runs `script` in a shell; returns its id. `how` goes to `run`."""
        argv = ["sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}"]
        return int(self.run(argv, **how).stdout.partition(";")[0])

    def job_state(self, job: int) -> str:
        """The state of a job as squeue tells it: PENDING, RUNNING, COMPLETED, ..."""
        return self.run(["squeue", "-h", "-t", "all", "-o", "%T", "-j", str(job)]).stdout.strip()

    def wait_job(self, job: int, state: str, timeout: float = 30) -> None:
        """Wait until a job has that state."""
        deadline = time.monotonic() + timeout
        while (now := self.job_state(job)) != state:
            if time.monotonic() > deadline:
                reason = self.run(["squeue", "-h", "-t", "all", "-o", "%r", "-j", str(job)]).stdout.strip()
                raise SandboxError(f"job {job} is {now} ({reason}), not {state}, after {timeout:.0f} s")
            time.sleep(0.1)

    def nodes(self) -> dict[str, str]:
        """Every node and its state, as Slurm tells it; empty when slurmctld does not answer."""
        done = self.run(["sinfo", "-h", "-N", "-o", "%N %T"], check=False, timeout=30)
        return dict(line.split() for line in done.stdout.splitlines()) if done.returncode == 0 else {}

    def pids(self) -> dict[str, int | None]:
        """Every daemon and its process id, None if it does not run."""
        return {name: p.pid if p else None for name, p in sweep.recorded(self.layout).items()}

    def log(self, daemon: str) -> Path:
        """The log of a daemon: munged, mariadbd, slurmdbd, slurmctld, slurmd-NODE or slurm-govd."""
        return self.layout.log_of(daemon)

    # -- single daemons ------------------------------------------------------------------------------

    def stop_daemon(self, name: str, sig: signal.Signals = signal.SIGTERM, timeout: float = 20) -> None:
        """End one daemon; after `timeout` with SIGKILL."""
        process = sweep.recorded(self.layout).get(name)
        if process and not sweep.stop(process, sig, timeout):
            sweep.stop(process, signal.SIGKILL, timeout)
        self._daemons.reap()

    def start_slurmdbd(self) -> None:
        """Start slurmdbd and wait until it answers."""
        self._daemons.slurmdbd()
        port = self.ports.slurmdbd
        self._daemons.wait("slurmdbd", lambda: ports.is_listening(port), 60, "slurmdbd", "mariadbd", "munged")

    def start_slurmctld(self, controller: int = 1) -> None:
        """Start slurmctld, that of the primary or of the backup, and wait until it answers."""
        name = self.daemon("slurmctld", controller)
        port, address, own = self.ports.slurmctld, "", []
        if self.config.controller_names:
            address = controllers.address(controller - 1)
            own = ["env", f"LD_PRELOAD={self.layout.plugins}/{governor.OWN_ADDRESS}"]
            own.append(f"SLURM_GOV_OWN_ADDRESS={address}")
        self._daemons.slurmctld(name, lambda argv: self._inside(controller)([*own, *argv]))
        self._daemons.wait(name, lambda: ports.is_listening(port, address), 60, name)
        if controller == 1:  # 26.05 listens before it answers, and resets who comes too early; a backup waits
            self._daemons.wait(name, self._answers, 60, name)

    def _answers(self) -> bool:
        return self.run(["scontrol", "show", "config"], check=False).returncode == 0

    def restart_slurmctld(self) -> None:
        """End slurmctld as an administrator would, and start it again."""
        self.stop_daemon("slurmctld")
        self.start_slurmctld()

    def start_node(self, node: str, *options: str) -> None:
        """Start the slurmd of a node; `-b` makes it report a reboot."""
        self._daemons.slurmd(node, *options)

    def stop_node(self, node: str, sig: signal.Signals = signal.SIGKILL) -> None:
        """End the slurmd of a node."""
        self.stop_daemon(f"slurmd-{node}", sig)

    def start_governor(self, *args: str, controller: int = 1) -> None:
        """Start slurm-govd, with more arguments if given, and wait until it says that it is ready. ``controller``:
        beside which slurmctld.
        """
        command, name = governor.program("slurm-govd"), self.daemon("slurm-govd", controller)
        socket = governor.socket_path(self.config, self.layout)
        argv = [str(command), "--policy", str(self.layout.policy), "--socket", str(socket)]
        argv += ["--listen", f"127.0.0.1:{self._governor_port(controller)}"]
        argv += ["--ledger", str(self.layout.ledger)]
        argv += ["--node-journal", str(self.layout.node_journal)]
        if self.config.broker:
            certificate, key = self.broker.credential("governor")
            argv += ["--mqtt", f"127.0.0.1:{self.broker.port}", "--mqtt-ca", str(self.broker.ca)]
            argv += ["--mqtt-cert", str(certificate), "--mqtt-key", str(key)]
        variables = {
            "PATH": f"{command.parent}:{SYSTEM_PATH}",
            "NOTIFY_SOCKET": str(self.layout.notify_socket),
        }
        if self.config.controller_names:
            variables["SLURM_GOV_DATABASE"] = controllers.database(self.layout)
        if "PYTHONPATH" in os.environ:
            variables["PYTHONPATH"] = os.environ["PYTHONPATH"]
        with governor.ready_socket(self.layout) as notify:
            self._daemons.start(
                name,
                self._inside(controller)([*argv, *self.config.governor_args, *args]),
                log=self.log(name),
                variables=variables,
            )
            self._daemons.wait(name, lambda: governor.is_ready(notify), 30, name)

    def stop_governor(self, controller: int = 1) -> None:
        """End slurm-govd as systemd would."""
        self.stop_daemon(self.daemon("slurm-govd", controller))

    def kill_governor(self, controller: int = 1) -> None:
        """End slurm-govd with SIGKILL."""
        self.stop_daemon(self.daemon("slurm-govd", controller), signal.SIGKILL)

    @property
    def broker(self) -> broker.BrokerFiles:
        """Where the broker listens, and the credentials of the nodes and of the governor."""
        return broker.BrokerFiles(self.layout.mqtt, self.ports.mqtt)

    def start_broker(self) -> None:
        """Start Mosquitto and wait until it listens; its authority and credentials are made the first time."""
        if not self.layout.mqtt.exists():
            broker.prepare(self.layout.mqtt, self.ports.mqtt, self.config.all_nodes())
        self._daemons.start("mosquitto", self.broker.argv(), log=self.log("mosquitto"))
        self._daemons.wait("mosquitto", lambda: ports.is_listening(self.ports.mqtt), 30, "mosquitto")

    def stop_broker(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """End Mosquitto: with SIGTERM it keeps what is retained, with SIGKILL it forgets what is not yet on disk."""
        self.stop_daemon("mosquitto", sig)

    def start_agent(self, node: str, **changes: Any) -> None:
        """Start a node's agent; ``changes`` replace top-level settings of its agent.yaml."""
        port = self.ports.first_node + self.config.all_nodes().index(node)
        file = agents.prepare(self.layout, node, self.broker, port, changes)
        command = governor.program("slurm-gov-agent")
        variables = {"PATH": f"{command.parent}:{SYSTEM_PATH}"}
        if "PYTHONPATH" in os.environ:
            variables["PYTHONPATH"] = os.environ["PYTHONPATH"]
        argv = [str(command), "--config", str(file), "run"]
        self._daemons.start(f"agent-{node}", argv, log=self.log(f"agent-{node}"), variables=variables)

    def stop_agent(self, node: str, sig: signal.Signals = signal.SIGTERM) -> None:
        """End a node's agent."""
        self.stop_daemon(f"agent-{node}", sig)

    # -- how it comes up -----------------------------------------------------------------------------

    def _bring_up(self, progress: Progress) -> None:
        config, layout, daemons = self.config, self.layout, self._daemons
        layout.make()
        self._write_state(ready=False)
        nodes = config.all_nodes()

        progress(f"configuration, ports from {self.ports.base}" + (", plugin" if config.governor else ""))
        daemons.mariadb_install()
        if config.governor:
            governor.install_plugin(layout)
        if config.controller_names:
            governor.install_own_address(layout)
        self._write_configuration()
        daemons.munged()
        daemons.wait("munged", layout.munge_socket.exists, 20, "munged")

        progress("database and slurmdbd")
        daemons.wait("the database", lambda: daemons.finished("mariadb-install"), 60)
        daemons.mariadbd(pass_fds=[lock.fileno() for lock in self.ports.locks])
        daemons.wait("MariaDB", layout.db_socket.exists, 60, "mariadbd")
        if config.controller_names:
            controllers.make_database(layout)
        self.start_slurmdbd()

        progress("accounts and users")
        governed = bool(config.governor or config.policy)
        names = list(config.accounts) or ([] if governed else ["default"])
        lines = accounts.create_cluster(config.cluster) + accounts.create_accounts(names)
        users = accounts.everybody(config.users)
        self.sacctmgr(lines if governed else lines + accounts.create_users(users, names))

        several = range(1, config.controllers + 1)
        progress(f"{'slurmctld' if config.controllers == 1 else '2 slurmctlds'} and {len(nodes)} slurmds")
        self.start_slurmctld()
        if config.controller_names:
            # One that ends saves what its backup must find: without assoc_usage, that of 26.05 does not start.
            self.restart_slurmctld()
            self.start_slurmctld(controller=2)
        for node in nodes:  # now, not before: a slurmd that finds no slurmctld waits before it asks again
            daemons.slurmd(node)

        if governed:
            progress("teams and priority classes of the policy")
            teams = governor.write_policy(config, layout)
            self.run([governor.program("slurm-gov"), "policy", "apply", "--yes", layout.policy])
            self.sacctmgr(accounts.create_users(users, [*teams, *names]))
        if config.broker:
            progress("mosquitto")
            self.start_broker()
        if config.governor:
            progress("slurm-govd")
            for controller in several:
                self.start_governor(controller=controller)

        progress("nodes idle")
        daemons.wait("the nodes", self._all_idle, 120, "slurmctld", *(f"slurmd-{node}" for node in nodes))

    def _all_idle(self) -> bool:
        done = self.run(["sinfo", "-h", "-o", "%D %T"], check=False, timeout=30)
        if done.stdout.strip() == f"{len(self.config.all_nodes())} idle":
            return True
        time.sleep(0.1)
        return False

    def _write_configuration(self) -> None:
        config, layout = self.config, self.layout
        for index in range(max(pool.gpus for pool in config.pools)):
            (layout.dev / f"nvidia{index}").symlink_to("/dev/null")
        plugins = governor.plugin_dirs(layout) if config.governor else None
        files = {
            "slurm.conf": slurmconf.slurm_conf(config, layout, self.ports, plugins),
            "gres.conf": slurmconf.gres_conf(config, layout),
            "cgroup.conf": slurmconf.cgroup_conf(),
            "slurmdbd.conf": slurmconf.slurmdbd_conf(layout, self.ports),
        }
        if config.governor:
            files["job_submit_gov.conf"] = governor.plugin_conf(config, layout)
        for name, text in files.items():
            (layout.etc / name).write_text(text)
            (layout.etc / name).chmod(0o600 if name == "slurmdbd.conf" else 0o644)
        for what, name in (("reboot", "reboot"), ("off", "suspend"), ("on", "resume"), ("", "power")):
            script = layout.etc / name
            script.write_text(slurmconf.power_script(layout, what))
            script.chmod(0o755)
        if config.controller_names:
            controllers.prepare(layout, config.controller_names)
        for node in config.all_nodes():
            (layout.spool / node).mkdir()
            (layout.spool / node).chmod(0o755)

    def _write_state(self, ready: bool) -> None:
        data = {
            "config": self.config.to_json(),
            "port": self.ports.base,
            "started": self.started,
            "ready": ready,
        }
        new = self.layout.state_file.with_suffix(".new")
        new.write_text(json.dumps(data, indent=1) + "\n")
        new.rename(self.layout.state_file)


def take_down(name: str, base: Path | None = None) -> int:
    """End all processes of a sandbox, whatever state it is in, and remove its folder."""
    folder = (base or default_base()) / name
    layout = Layout(folder)
    if not folder.is_dir():
        raise SandboxError(_why_not_up(folder))
    if folder.stat().st_uid != os.geteuid():
        raise SandboxError(f"{folder} belongs to another user")
    if not layout.lock_file.exists() and any(folder.iterdir()):
        raise SandboxError(f"{folder} is not a sandbox; nothing was touched")
    with _locked(layout), _signals_blocked():
        ended = sweep.end_all(layout)
        _remove(folder)
    return ended


def names(base: Path | None = None) -> list[str]:
    """The sandboxes of this user, also half-started ones."""
    folder = base or default_base()
    return sorted(d.name for d in folder.iterdir() if d.is_dir()) if folder.is_dir() else []


@contextlib.contextmanager
def _claimed(config: SandboxConfig) -> Iterator[None]:
    """Create the sandbox's folder, ours alone, and hold its lock."""
    base_is_new = not config.base.exists()
    config.base.mkdir(mode=0o755, parents=True, exist_ok=True)
    if config.base == builtin_base() and config.base.stat().st_uid != os.geteuid():
        raise SandboxError(f"{config.base} belongs to another user; choose another folder with --dir")
    try:
        config.dir.mkdir(mode=0o755)
    except FileExistsError:
        raise SandboxError(_why_not_free(config.dir)) from None
    layout = Layout(config.dir)
    layout.lock_file.touch(mode=0o600)
    with _locked(layout):
        if base_is_new:
            config.base.chmod(0o755)
            layout.base_mark.touch()
        yield


@contextlib.contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    with layout.lock_file.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise SandboxError(
                f"process {file.read().strip()} is bringing this sandbox up or down; wait for it or end it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """A second Ctrl-C must not interrupt the cleaning up that the first one began."""
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _remove(folder: Path) -> None:
    base_is_ours = folder.parent == builtin_base() or Layout(folder).base_mark.exists()
    shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # not empty: another sandbox lives there
        if base_is_ours:
            folder.parent.rmdir()


def _read_state(folder: Path) -> dict[str, Any] | None:
    try:
        data: dict[str, Any] = json.loads(Layout(folder).state_file.read_text())
    except FileNotFoundError:
        return None
    return data


def _why_not_up(folder: Path) -> str:
    if folder.is_dir():
        return f"sandbox {folder.name} is not complete (an interrupted up?); `sandbox down` removes it"
    others = names(folder.parent)
    known = f"; there are: {', '.join(others)}" if others else "; none is up"
    return f"no sandbox {folder.name} in {folder.parent}{known}"


def _why_not_free(folder: Path) -> str:
    state = _read_state(folder)
    if state and state["ready"]:
        return f"sandbox {folder.name} is already up in {folder}; take it down first, or choose another name"
    return (
        f"{folder} is there already: another up is at work, or was killed; "
        f"`slurm-gov sandbox down {folder.name}` removes what is left"
    )


def _clean_environment() -> dict[str, str]:
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(_FOREIGN) or key == "SLURM_GOV_SANDBOX_DIR"
    }
    path = [os.environ.get("PATH", ""), SYSTEM_PATH]
    with contextlib.suppress(SandboxError):  # our own commands first: those that belong to who runs us
        path.insert(0, str(governor.program("slurm-gov").parent))
    return kept | {"PATH": ":".join(filter(None, path))}
