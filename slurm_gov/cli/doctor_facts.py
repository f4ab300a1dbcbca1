"""Reading what `slurm-gov doctor` judges. Nothing is changed, and whatever cannot be read is a fact too."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import pwd
import re
import socket
import struct
import time
from itertools import pairwise
from pathlib import Path

from slurm_gov.admission.wire import MAX_PACKET, VERSION, Kind, Request, encode_request
from slurm_gov.daemon.http import DEFAULT_LISTEN
from slurm_gov.daemon.lease import Leases
from slurm_gov.database import DatabaseError, WhereError, locate, shown
from slurm_gov.ledger import DEFAULT_LEDGER
from slurm_gov.policy import PolicyError
from slurm_gov.policy import load as load_policy
from slurm_gov.slurm.accounts import ROOT, Account, State
from slurm_gov.slurm.accounts_commands import READ_SECONDS, read_config, read_nodes, read_partitions, read_state
from slurm_gov.slurm.client import SlurmError
from slurm_gov.slurm.doctor import DEFAULT_SOCKET, Access, Built, Facts, built_for
from slurm_gov.slurm.run import run

CONNECT_SECONDS = 5.0
PLUGIN = "job_submit_gov.so"


def gather(policy_path: str, socket_path: str = DEFAULT_SOCKET, mqtt: str = "") -> Facts:
    """Look at everything. ``mqtt`` is HOST[:PORT]; empty: what the running daemon was started with."""
    policy = None
    errors: tuple[str, ...] = ()
    if Path(policy_path).exists():
        try:
            policy = load_policy(policy_path)
        except PolicyError as error:
            errors = tuple(str(problem) for problem in error.problems)
    ctld, dbd, state, skew = asyncio.run(_slurm())
    config = state.config if state else {}
    plugin, built = find_plugin(config.get("PluginDir", ""))
    conf_path = str(Path(config["SLURM_CONF"]).parent / "job_submit_gov.conf") if "SLURM_CONF" in config else ""
    daemon, hangs, arguments = _daemon(socket_path)
    mqtt = mqtt or _after("--mqtt", arguments)
    ledger = _after("--ledger", arguments) or os.environ.get("SLURM_GOV_LEDGER") or str(DEFAULT_LEDGER)
    ours = os.environ.get("SLURM_GOV_DATABASE", "")
    database, database_error = _database(_after("--database", arguments) or ours)
    user = config.get("SlurmUser", "").partition("(")[0]
    return Facts(
        policy_path=policy_path,
        slurmctld_error=ctld,
        slurmdbd_error=dbd,
        state=state,
        policy=policy,
        policy_errors=errors,
        plugin=plugin,
        built=built,
        wire=VERSION,
        conf_path=conf_path,
        conf=_text(conf_path),
        socket=socket_path,
        daemon_error=daemon,
        daemon_hangs=hangs,
        access=_accesses(user, policy_path, conf_path, socket_path, ledger),
        skew=skew,
        mqtt=mqtt,
        mqtt_error=_unreachable(mqtt) if mqtt else "",
        ledger=ledger,
        database=database,
        database_error=database_error,
    )


async def _slurm() -> tuple[str, str, State | None, float | None]:
    """Why slurmctld and slurmdbd do not answer, what Slurm has, and how far our clock is ahead of slurmctld's."""
    try:
        before = time.time()
        text = await run(["scontrol", "show", "config"], READ_SECONDS)
        after = time.time()
    except SlurmError as error:
        return str(error), "", None, None
    config = read_config(text)
    skew = None
    if told := re.search(r"as of (\d{9,})\s", text):
        # The time lies between our two looks at the clock, and is whole seconds.
        theirs = int(told[1])
        skew = before - theirs - 1 if theirs < before - 1 else min(0.0, after - theirs)
    try:
        return "", "", await read_state(), skew
    except SlurmError as error:
        dbd = str(error)
    try:
        partitions = read_partitions(await run(["scontrol", "-a", "-o", "show", "partition"], READ_SECONDS))
        nodes = read_nodes(await run(["sinfo", "-a", "-h", "-N", "-o", "%N|%R|%G"], READ_SECONDS))
    except SlurmError as error:
        return str(error), "", None, skew
    known = {ROOT: Account(ROOT, "")}  # there, but not to be asked for now
    return "", dbd, State(config.get("ClusterName", ""), config, known, {}, partitions, nodes), skew


def find_plugin(plugin_dir: str) -> tuple[str, Built | None]:
    """The job_submit_gov.so that slurmctld would load (PluginDir may be several folders), and what it says."""
    for folder in plugin_dir.split(":"):
        file = Path(folder) / PLUGIN
        if folder and file.is_file():
            try:
                return str(file), built_for(file.read_bytes())
            except OSError:
                return str(file), None
    return "", None


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace") if path else None
    except OSError:
        return None


def _daemon(path: str) -> tuple[str, str, list[str]]:
    """Why nobody answers there (empty: somebody does), what of it hangs, and its arguments if they can be seen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            probe.connect(path)
            pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError as error:
            return error.strerror or str(error), "", []
        arguments = _arguments(pid)
        return "", _hangs(probe, _after("--listen", arguments) or DEFAULT_LISTEN), arguments


def _arguments(pid: int) -> list[str]:
    """What the daemon was started with: its command line, then its environment as options."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        found += Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
        for line in Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0"):
            name, _, value = line.partition("=")
            if name.startswith("SLURM_GOV_"):
                found += [f"--{name.removeprefix('SLURM_GOV_').lower().replace('_', '-')}", value]
    return found


def _hangs(probe: socket.socket, listen: str) -> str:
    """What of slurm-govd takes a connection and answers nothing: the admission process, or the daemon itself."""
    seconds = f"{CONNECT_SECONDS:.0f} s"
    try:
        # A change of no job to nothing: it is accepted, whatever the policy.
        probe.send(encode_request(Request(submit_uid=os.getuid(), kind=Kind.MODIFY)))
        probe.recv(MAX_PACKET)
    except TimeoutError:
        return f"the plugin's questions have no answer in {seconds}"
    except OSError:
        pass  # it ends just now
    if listen == "none":
        return ""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        with socket.create_connection((host, int(port)), CONNECT_SECONDS) as page:
            page.sendall(b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            page.recv(1)
    except TimeoutError:
        return f"{listen} has no answer in {seconds}"
    except (OSError, ValueError):
        pass  # another network namespace, or it ends just now
    return ""


def _after(option: str, arguments: list[str]) -> str:
    for one, following in pairwise([*arguments, ""]):
        if one == option:
            return following
        if one.startswith(f"{option}="):
            return one.partition("=")[2]
    return ""


def _database(url: str) -> tuple[str, str]:
    """The shared database, for people, and why it cannot be used."""
    if not url:
        return "", ""
    try:
        where = locate(url)
    except WhereError as error:
        return "set", str(error)
    leases = Leases(where, make=False)
    try:
        leases.read()
    except DatabaseError as error:
        return shown(where), "" if "there is no lease in it" in str(error) else str(error)
    finally:
        leases.close()
    return shown(where), ""


def _unreachable(mqtt: str) -> str:
    host, _, port = mqtt.rpartition(":") if re.search(r":\d+$", mqtt) else (mqtt, "", "8883")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS):
            return ""
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", "") or str(error)


def _accesses(user: str, policy: str, conf: str, socket_path: str, ledger: str) -> tuple[Access, ...]:
    try:
        known = pwd.getpwnam(user)
    except KeyError:
        return ()
    groups = frozenset(os.getgrouplist(user, known.pw_gid))
    wanted = [
        (policy, "the policy", "read"),
        (conf, "the configuration of the plugin", "read"),
        (str(Path(socket_path).parent), "the socket's folder", "reach"),
        (str(Path(ledger).parent), "the state directory", "write"),
    ]
    return tuple(
        Access(path, what, need, trouble)
        for path, what, need in wanted
        if path and (trouble := _trouble(Path(path), need, known.pw_uid, groups)) is not None
    )


def _trouble(path: Path, need: str, uid: int, groups: frozenset[int]) -> str | None:
    """Why a user cannot do this, by the mode bits; empty if he can, ``None`` if it is not there (another finding)."""
    try:
        path = path.resolve()
        for folder in reversed(path.parents):
            if not allowed(folder.stat(), 1, uid, groups):
                return f"no access to {folder}"
        status = path.stat()
    except FileNotFoundError:
        return "it is not there" if need == "write" else None
    except OSError as error:
        return error.strerror or str(error)
    bits = {"read": 4, "write": 3, "reach": 1}[need]
    if allowed(status, bits, uid, groups):
        return ""
    owner = f"{_name(status.st_uid)}:{_group(status.st_gid)}"
    return f"mode {status.st_mode & 0o7777:04o}, owner {owner}"


def allowed(status: os.stat_result, bits: int, uid: int, groups: frozenset[int]) -> bool:
    """Whether mode bits (4 read, 2 write, 1 enter) let a user; root may all."""
    if uid == 0:
        return True
    shift = 6 if status.st_uid == uid else 3 if status.st_gid in groups else 0
    return (status.st_mode >> shift) & bits == bits


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
