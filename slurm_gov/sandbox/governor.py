"""The governor in a sandbox: its plugin built for this Slurm, a policy, and slurm-govd itself."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

import slurm_gov
from slurm_gov.sandbox.config import SandboxConfig
from slurm_gov.sandbox.daemons import SYSTEM_PATH
from slurm_gov.sandbox.errors import SandboxError
from slurm_gov.sandbox.layout import Layout

_PLUGIN = ("job_submit_gov.so", "slurm_gov_nodelay.so")
OWN_ADDRESS = "slurm_gov_own_address.so"
"""Preloaded into each of several slurmctlds."""


def program(name: str) -> Path:
    """One of our own commands: from the environment that runs us, else from PATH."""
    beside = Path(sys.executable).parent / name
    if beside.exists():
        return beside
    found = shutil.which(name)
    if not found:
        raise SandboxError(f"{name} is neither beside {sys.executable} nor in PATH; `make setup` installs it")
    return Path(found)


def install_plugin(layout: Layout) -> None:
    """Build job_submit_gov.so and put a copy into the sandbox, so that a later build changes nothing here."""
    _install(layout, _PLUGIN)


def install_own_address(layout: Layout) -> None:
    """The same for what several slurmctlds need."""
    _install(layout, (OWN_ADDRESS,))


def _install(layout: Layout, names: tuple[str, ...]) -> None:
    built = [Path("build") / name for name in names]
    source = _plugin_source()
    if not os.access(source, os.W_OK):  # somebody else's installation: build in the sandbox
        ignored = shutil.ignore_patterns("build")
        source = Path(shutil.copytree(source, layout.dir / "plugin_c", ignore=ignored, dirs_exist_ok=True))
    with _one_at_a_time(source / "Makefile"):
        path = os.environ.get("PATH", SYSTEM_PATH)
        make = subprocess.run(
            ["make", "-C", source, *built], env={"PATH": path}, capture_output=True, text=True, check=False
        )
        if make.returncode:
            raise SandboxError(f"the plugin did not build:\n{make.stderr.strip()}")
        for one in built:
            shutil.copy2(source / one, layout.plugins)


def plugin_dirs(layout: Layout) -> str:
    """Slurm's PluginDir: the sandbox's own before the system's."""
    return f"{layout.plugins}:{_system_plugins()}"


def socket_path(config: SandboxConfig, layout: Layout) -> Path:
    """Where the plugin asks: each of several controllers asks its own slurm-govd."""
    return layout.host / layout.govd_socket.name if config.controller_names else layout.govd_socket


def plugin_conf(config: SandboxConfig, layout: Layout) -> str:
    """job_submit_gov.conf."""
    return f"socket={socket_path(config, layout)}\ndeadline_ms=100\nfail=open\n"


def write_policy(config: SandboxConfig, layout: Layout) -> list[str]:
    """Put the policy into the sandbox (a sample, if none was given); returns its teams."""
    text = config.policy.read_text() if config.policy else sample_policy(config)
    layout.policy.write_text(text)
    layout.policy.chmod(0o644)
    try:
        teams = YAML(typ="safe").load(text)["teams"]
        return [str(team) for team in teams]
    except (YAMLError, KeyError, TypeError) as error:
        raise SandboxError(f"{config.policy}: no teams can be read from it: {error}") from error


def sample_policy(config: SandboxConfig) -> str:
    """Two teams that share all pools evenly and lend everything to each other."""
    gpu_pools = [pool for pool in config.pools if pool.gpus]
    if not gpu_pools:
        raise SandboxError("without a GPU there is nothing to govern: give a policy, or --no-governor")
    lines = ["pools:"]
    for pool in gpu_pools:
        lines.append(f'  {pool.name}: {{partition: {config.partition(pool)}, gres: "gpu:{pool.gpu_type}"}}')
    lines += ["priority_classes: {inference: 100, training: 50, experiment: 10}", "teams:"]
    for team, part in (("research", 1), ("product", 0)):
        quota = ", ".join(f"{pool.name}: {(pool.nodes * pool.gpus + part) // 2}" for pool in gpu_pools)
        lines.append(f"  {team}: {{quota: {{{quota}}}, fair_share_weight: 50, lend: all, borrow: unlimited}}")
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def ready_socket(layout: Layout) -> Iterator[socket.socket]:
    """A socket as systemd would give in NOTIFY_SOCKET."""
    path = layout.notify_socket
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(path))
        notify.setblocking(False)
        try:
            yield notify
        finally:
            path.unlink(missing_ok=True)


def is_ready(notify: socket.socket) -> bool:
    """Whether READY=1 has come."""
    with contextlib.suppress(BlockingIOError):
        while message := notify.recv(4096):
            if b"READY=1" in message.split(b"\n"):
                return True
    return False


def _plugin_source() -> Path:
    package = Path(slurm_gov.__file__).parent
    for folder in (package.parent / "plugin_c", package / "plugin_c"):  # a checkout, an installation
        if (folder / "Makefile").exists():
            return folder
    raise SandboxError("the source of the plugin (plugin_c) is not there; use --no-governor")


def _system_plugins() -> Path:
    """Where Slurm's own plugins are: the folder beside its library that holds auth_munge.so."""
    for pattern in ("/usr/lib/*/slurm-wlm", "/usr/lib*/slurm", "/usr/lib/*/slurm", "/usr/local/lib/slurm"):
        for folder in sorted(Path("/").glob(pattern.lstrip("/"))):
            if (folder / "auth_munge.so").exists():
                return folder
    raise SandboxError("cannot find the folder of Slurm's plugins (auth_munge.so)")


@contextlib.contextmanager
def _one_at_a_time(file: Path) -> Iterator[None]:
    """Two sandboxes must not build the same file at once."""
    with file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
