"""What keeps slurm-gov from working in a cluster, and what helps. Pure: facts in, findings out.

The facts are read by ``slurm_gov.cli.doctor_facts``. What the accounts lack is said by ``slurm_gov.slurm.accounts``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from slurm_gov.core.health import Repair
from slurm_gov.core.policy import Mode, Policy
from slurm_gov.slurm import accounts
from slurm_gov.slurm.accounts import Finding, State
from slurm_gov.slurm.parse import version

MIN_JOB_AGE = 60
"""Seconds that slurmctld must remember an ended job, so that one that died of our signal is requeued, not lost."""
SKEW_WARNING = 2.0
SKEW_ERROR = 60.0
"""Seconds between two clocks; munge refuses credentials that are 300 s old."""

_BUILT = re.compile(rb"slurm-gov job_submit_gov (\S+) for Slurm (0x[0-9a-fA-F]+|\d+) wire (\d+)\0")
_SETTINGS = {"deadline_ms": (1, 10000), "breaker_failures": (0, 1000), "breaker_seconds": (1, 3600)}
_POWER = ("RebootProgram", "SuspendProgram", "ResumeProgram")
DEFAULT_SOCKET = "/run/slurm-gov/admission.sock"


@dataclass(frozen=True, slots=True)
class Built:
    """What a job_submit_gov.so says of itself. ``slurm`` is as 22.05.8 with its numbers unpadded: (22, 5, 8)."""

    version: str
    slurm: tuple[int, int, int]
    wire: int


@dataclass(frozen=True, slots=True)
class Access:
    """A file or folder that SlurmUser must ``need`` ("read", "write" or "reach"); ``trouble`` says why it cannot."""

    path: str
    what: str
    need: str
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found. An empty string, ``None`` or an empty mapping is what is not there or could not be read.

    ``skew`` is seconds that our clock is ahead of slurmctld's. ``plugin`` is the path of job_submit_gov.so, empty
    if no folder of PluginDir has it; ``built`` is ``None`` if it says nothing about itself. ``daemon_hangs`` is what
    of the daemon takes connections and answers nothing.
    ``database`` is the shared one, without its password; without one the ledger is the file ``ledger``.
    """

    policy_path: str
    slurmctld_error: str = ""
    slurmdbd_error: str = ""
    state: State | None = None
    policy: Policy | None = None
    policy_errors: tuple[str, ...] = ()
    plugin: str = ""
    built: Built | None = None
    wire: int = 1
    conf_path: str = ""
    conf: str | None = None
    socket: str = DEFAULT_SOCKET
    daemon_error: str = ""
    daemon_hangs: str = ""
    access: tuple[Access, ...] = ()
    skew: float | None = None
    mqtt: str = ""
    mqtt_error: str = ""
    ledger: str = ""
    database: str = ""
    database_error: str = ""


def built_for(content: bytes) -> Built | None:
    """What the bytes of a job_submit_gov.so say it was built for."""
    found = _BUILT.search(content)
    if not found:
        return None
    number = int(found[2], 0)
    return Built(found[1].decode(), (number >> 16, number >> 8 & 255, number & 255), int(found[3]))


def read_conf(text: str) -> tuple[dict[str, str], list[str]]:
    """job_submit_gov.conf as the plugin reads it: its settings, and what is wrong in it, with the line."""
    settings: dict[str, str] = {}
    wrong: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            trouble = "a line is NAME=VALUE"
        elif name == "socket":
            right = value.startswith("/") and len(value.encode()) <= 107
            trouble = "" if right else "socket wants an absolute path of at most 107 bytes"
        elif name == "fail":
            trouble = "" if value in ("open", "closed") else "fail wants open or closed"
        elif name in _SETTINGS:
            low, high = _SETTINGS[name]
            right = value.isascii() and value.isdigit() and low <= int(value) <= high
            trouble = "" if right else f"{name} wants a number from {low} to {high}"
        else:
            trouble = f"unknown option {name}; known are socket, fail, {', '.join(_SETTINGS)}"
        if trouble:
            wrong.append(f"line {number}: {trouble}")
        else:
            settings[name] = value
    return settings, wrong


def judge(facts: Facts) -> list[Finding]:
    """All that is wrong or missing, errors first."""
    found = [
        *_policy(facts),
        *_slurm(facts),
        *_plugin(facts),
        *_conf(facts),
        *_daemon(facts),
        *_access(facts),
        *_several(facts),
    ]
    return sorted(dict.fromkeys(found), key=lambda finding: not finding.error)


def _policy(facts: Facts) -> Iterator[Finding]:
    for problem in facts.policy_errors:
        yield Finding(
            f"the policy is refused: {problem}", f"correct it and run: slurm-gov policy check {facts.policy_path}"
        )
    if facts.policy is None and not facts.policy_errors:
        yield Finding(
            f"there is no policy: {facts.policy_path}",
            f"slurm-gov install writes a sample; then: slurm-gov policy check {facts.policy_path}",
        )


def _slurm(facts: Facts) -> Iterator[Finding]:
    if facts.slurmctld_error:
        yield Finding(
            f"slurmctld does not answer: {facts.slurmctld_error}",
            "start it (systemctl status slurmctld), or run this where scontrol ping works",
        )
    if facts.slurmdbd_error:
        yield Finding(
            f"slurmdbd does not answer: {facts.slurmdbd_error}",
            "start it (systemctl status slurmdbd); without it no cap can be written",
        )
    state = facts.state
    if state is None:
        return
    policy = facts.policy or Policy({}, {})
    yield from accounts.check(policy, state)
    yield from _untyped(policy, state)
    yield from _scheduling(state)
    yield from _health(policy, state)
    yield from _clock(facts)
    if facts.policy and not facts.slurmdbd_error and state.accounts:
        todo = accounts.changes(facts.policy, state)
        if todo:
            yield Finding(
                f"the policy is not applied: {len(todo)} changes are missing in Slurm, first: {todo[0]}",
                f"run: slurm-gov policy apply {facts.policy_path}",
            )
        yield from _own_caps(facts.policy, state)


def _untyped(policy: Policy, state: State) -> Iterator[Finding]:
    nodes = sorted(name for name, (_, gres) in state.nodes.items() if gres.get("gres/gpu"))
    if nodes:
        more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
        yield Finding(
            f"GPUs without a type on {', '.join(nodes[:3])}{more}: no pool can hold them",
            "give Type= in gres.conf, and the type in Gres= in slurm.conf",
            error=False,
        )


def _own_caps(policy: Policy, state: State) -> Iterator[Finding]:
    """GrpTRES that the site has set, and that ours would replace or that hold beside ours."""
    capped = {pool.tres for pool in policy.pools.values()} | {pool.untyped_tres for pool in policy.pools.values()}
    for account in state.accounts.values():
        caps = ",".join(f"{tres}={amount}" for tres, amount in account.caps.items() if tres in capped)
        if not caps:
            continue
        if policy.mode is Mode.OBSERVE and account.name in policy.teams:
            yield Finding(
                f"team {account.name} has GrpTRES of its own: {caps}",
                "the modes caps and enforce replace it; it is kept, and slurm-gov policy remove restores it",
                error=False,
            )
        team = next((above.name for above in state.above(account.name) if above.name in policy.teams), "")
        if team and account.name not in policy.teams:
            yield Finding(
                f"account {account.name}, below team {team}, has a cap of its own: {caps}",
                f"its jobs wait for it whatever the team may borrow; to lift it: sacctmgr modify account where "
                f"name={account.name} cluster={state.cluster} set GrpTRES={re.sub(r'=[0-9]+', '=-1', caps)}",
                error=False,
            )


def _scheduling(state: State) -> Iterator[Finding]:
    age = re.match(r"\d+", state.config.get("MinJobAge", ""))
    if age and 0 < int(age[0]) < MIN_JOB_AGE:
        yield Finding(
            f"MinJobAge is {age[0]} s: a job that ends at our signal may be forgotten before it is requeued",
            "set MinJobAge=300 (Slurm's default) in slurm.conf",
            error=int(age[0]) < 10,
        )
    given = state.config.get("SchedulerParameters", "").replace("(null)", "")
    parameters = dict(part.strip().partition("=")[::2] for part in given.split(",") if part.strip())
    if "assoc_limit_stop" in parameters:
        yield Finding(
            "SchedulerParameters has assoc_limit_stop: a job that waits at its team's cap stops all jobs behind it",
            "take assoc_limit_stop out of SchedulerParameters in slurm.conf",
        )
    interval = parameters.get("bf_interval", "")
    if interval.isdigit() and int(interval) < 5 and len(state.nodes) >= 100:
        yield Finding(
            f"SchedulerParameters has bf_interval={interval} with {len(state.nodes)} nodes: backfill holds the locks "
            "and submissions wait",
            "set bf_interval=30 (Slurm's default) in SchedulerParameters in slurm.conf",
            error=False,
        )
    depth = parameters.get("bf_max_job_test", "")
    if depth.isdigit() and int(depth) < 100:
        yield Finding(
            f"SchedulerParameters has bf_max_job_test={depth}: jobs that wait at a cap use it up, and later "
            "ones that could start are not looked at",
            "set bf_max_job_test=500 (Slurm's default) or more in SchedulerParameters in slurm.conf",
            error=False,
        )
    if state.config.get("SchedulerType") == "sched/builtin":
        yield Finding(
            "SchedulerType is sched/builtin: a job that cannot start stops all jobs behind it in its partition",
            "set SchedulerType=sched/backfill in slurm.conf and restart slurmctld",
        )


def _health(policy: Policy, state: State) -> Iterator[Finding]:
    """What Slurm lacks for what the policy says of sick nodes."""
    health = policy.health
    if health is None:
        return
    unset = {name for name in _POWER if state.config.get(name, "(null)") in ("", "(null)")}
    power = " and ".join(sorted(unset - {"RebootProgram"}))
    by_slurm = {
        pool: health.providers[one.provider]
        for pool, one in health.pools.items()
        if one.provider in health.providers and health.providers[one.provider].kind == "slurm"
    }
    for pool, provider in by_slurm.items():
        if "RebootProgram" in unset and Repair.REBOOT in provider.can:
            yield Finding(
                f"provider {provider.name} is to reboot nodes of {pool}, and RebootProgram is not set",
                "set RebootProgram in slurm.conf, or another health.provider",
            )
        if power and Repair.REPLACE in provider.can:
            yield Finding(
                f"provider {provider.name} is to replace nodes of {pool}, and {power} is not set",
                f"set it in slurm.conf, or operations: reboot for {provider.name} in health.providers",
                error=False,
            )
    if power and any(one.spares_off and one.spares for one in health.pools.values()):
        yield Finding(
            f"spares are to be kept powered down, and {power} is not set",
            "set it in slurm.conf, or health.spares_kept: drained",
        )
    plugin = state.config.get("TopologyPlugin", "").replace("(null)", "")
    if health.rack == "topology" and plugin.removeprefix("topology/") in ("", "none", "default", "flat"):
        yield Finding(
            f"health.rack is topology, and TopologyPlugin is {plugin or 'not set'}: the breaker knows no racks",
            'set TopologyPlugin=topology/tree and write topology.conf, or a pattern: health.rack: "(r[0-9]+)n"',
            error=False,
        )


def _clock(facts: Facts) -> Iterator[Finding]:
    if facts.skew is not None and abs(facts.skew) > SKEW_WARNING:
        way = "ahead of" if facts.skew > 0 else "behind"
        yield Finding(
            f"this machine's clock is {abs(facts.skew):.0f} s {way} the controller's",
            "let chrony or systemd-timesyncd keep both (timedatectl set-ntp true)",
            error=abs(facts.skew) > SKEW_ERROR,
        )


def _plugin(facts: Facts) -> Iterator[Finding]:
    if facts.state is None:
        return
    config = facts.state.config
    named = [
        name.strip() for name in config.get("JobSubmitPlugins", "").replace("(null)", "").split(",") if name.strip()
    ]
    short = [name.removeprefix("job_submit/") for name in named]
    if "gov" not in short:
        yield Finding(
            f"JobSubmitPlugins is {','.join(named) or 'not set'}: slurmctld does not ask slurm-govd",
            f"set JobSubmitPlugins={','.join([*named, 'gov'])} in slurm.conf and restart slurmctld",
        )
    if not facts.plugin:
        yield Finding(
            f"job_submit_gov.so is not in PluginDir ({config.get('PluginDir', 'unknown')})",
            "run on the controller: slurm-gov install",
            # slurmctld would not have started: another PluginDir is in use, or this is not the controller
            error="gov" in short,
        )
        return
    if facts.built is None:
        yield Finding(
            f"{facts.plugin} does not say for what it was built", "build it anew: slurm-gov install", error=False
        )
        return
    running = version(config.get("SLURM_VERSION", ""))
    if running and facts.built.slurm != running:
        yield Finding(
            f"{facts.plugin} was built for Slurm {_dotted(facts.built.slurm)}, and {config['SLURM_VERSION']} runs: "
            "slurmctld will not start with it",
            "install the headers of the running version and run: slurm-gov install; then restart slurmctld",
        )
    if facts.built.wire != facts.wire:
        yield Finding(
            f"{facts.plugin} speaks wire format {facts.built.wire}, slurm-govd {facts.wire}: no job is answered",
            "run: slurm-gov install; then restart slurmctld",
        )


def _dotted(version: tuple[int, int, int]) -> str:
    return f"{version[0]}.{version[1]:02}.{version[2]}"


def _conf(facts: Facts) -> Iterator[Finding]:
    if not facts.conf_path:
        return
    if facts.conf is None:
        yield Finding(
            f"{facts.conf_path} is not there or cannot be read: the plugin uses its defaults",
            "slurm-gov install writes it",
            error=facts.socket != DEFAULT_SOCKET,
        )
        settings: dict[str, str] = {}
    else:
        settings, wrong = read_conf(facts.conf)
        for trouble in wrong:
            yield Finding(
                f"{facts.conf_path} {trouble}; the plugin skips it", "correct the line and restart slurmctld"
            )
    asked = settings.get("socket", DEFAULT_SOCKET)
    if asked != facts.socket:
        yield Finding(
            f"the plugin asks on {asked} ({facts.conf_path}), and slurm-govd listens on {facts.socket}",
            f"write socket={facts.socket} into {facts.conf_path} and restart slurmctld",
        )


def _daemon(facts: Facts) -> Iterator[Finding]:
    if facts.daemon_error:
        yield Finding(
            f"slurm-govd does not answer on {facts.socket}: {facts.daemon_error}",
            "start it: systemctl enable --now slurm-govd; then journalctl -u slurm-govd",
        )
    if facts.daemon_hangs:
        yield Finding(
            f"slurm-govd hangs: {facts.daemon_hangs}",
            "systemctl restart slurm-govd; as a unit it is restarted by its watchdog within two minutes",
        )
    if facts.mqtt_error:
        yield Finding(
            f"the MQTT broker {facts.mqtt} cannot be reached: {facts.mqtt_error}",
            "start the broker, or correct --mqtt of slurm-govd; without it no node agent is heard",
        )


def _access(facts: Facts) -> Iterator[Finding]:
    user = "SlurmUser"
    if facts.state:
        user = f"SlurmUser ({facts.state.config.get('SlurmUser', '').partition('(')[0] or 'unknown'})"
    remedies = {
        "read": "make it readable: chmod a+r, and a+x on the folders above",
        "write": "give it to SlurmUser: chown -R; where it is not there, the unit makes it at its start",
        "reach": "make it and the folders above accessible: chmod a+rx",
    }
    for access in facts.access:
        if access.trouble:
            yield Finding(
                f"{user} cannot {access.need} {access.what} {access.path}: {access.trouble}", remedies[access.need]
            )


def _several(facts: Facts) -> Iterator[Finding]:
    """Several controllers need one database."""
    config = facts.state.config if facts.state else {}
    hosts = [name for name in config if name.startswith("SlurmctldHost[")]
    if len(hosts) > 1 and not facts.database:
        yield Finding(
            f"slurm.conf has {len(hosts)} SlurmctldHosts, but the ledger is a local SQLite file: {facts.ledger}",
            "give the slurm-govd of every controller the same SLURM_GOV_DATABASE (docs/several-controllers.md), and "
            "run none on the others until then",
            error=False,
        )
    if facts.database_error:
        yield Finding(
            f"the shared database cannot be used: {facts.database_error}",
            "see that it runs, and that its URL, the user and the password are right",
        )
