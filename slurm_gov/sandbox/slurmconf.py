"""The configuration files of a sandbox's Slurm, as text."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import slurm_gov
from slurm_gov.sandbox import controllers
from slurm_gov.sandbox.config import Pool, SandboxConfig
from slurm_gov.sandbox.daemons import SYSTEM_PATH
from slurm_gov.sandbox.layout import Layout
from slurm_gov.sandbox.ports import Ports


def slurm_conf(config: SandboxConfig, layout: Layout, ports: Ports, plugin_dirs: str | None) -> str:
    """slurm.conf; `plugin_dirs` is set when the governor's plugin is to be loaded."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    types = sorted({pool.gpu_type for pool in config.pools if pool.gpus})
    settings = {
        "ClusterName": config.cluster,
        "SlurmctldHost": f"{_hostname()}(127.0.0.1)",
        "SlurmctldPort": str(ports.slurmctld),
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={layout.munge_socket}",
        "StateSaveLocation": str(layout.state),
        "SlurmctldPidFile": f"{layout.run}/slurmctld.slurm-pid",
        "SlurmctldLogFile": str(layout.log_of("slurmctld")),
        "SlurmdSpoolDir": f"{layout.spool}/%n",
        "SlurmdPidFile": f"{layout.run}/slurmd-%n.slurm-pid",
        "SlurmdLogFile": str(layout.log_of("slurmd-%n")),
        "SlurmdParameters": "config_overrides",  # the nodes are larger than this machine
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "MpiDefault": "none",
        "ReturnToService": "2",
        "MailProg": "/bin/true",
        "RebootProgram": f"{layout.etc}/reboot",  # restarts that one slurmd, see power.py
        # limits: the lever of the governor
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": "127.0.0.1",
        "AccountingStoragePort": str(ports.slurmdbd),
        "AccountingStoragePass": str(layout.munge_socket),
        "AccountingStorageEnforce": "associations,limits,qos",
        # which node a job gets
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "DefMemPerCPU": "4000",  # without it, a job would take all memory of its nodes
        # when it gets it
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "bf_interval=5,bf_max_job_test=1000,sched_interval=10,batch_sched_delay=0",
        "PriorityType": "priority/multifactor",
        "PriorityCalcPeriod": "1",
        "PriorityWeightQOS": "1000000",
        "PriorityWeightFairshare": "10000",
        "PriorityWeightAge": "1000",
        "PreemptType": "preempt/none",
        "JobRequeue": "1",
        # timing
        "KillWait": "5",
        "MinJobAge": "300",
        "MessageTimeout": "20",
        "SlurmctldTimeout": "60",
        "SlurmdTimeout": "60",
        "TreeWidth": "4096",  # slurmctld talks to every slurmd itself
    }
    if types:
        settings["GresTypes"] = "gpu"
        settings["AccountingStorageTRES"] = ",".join(["gres/gpu", *(f"gres/gpu:{t}" for t in types)])
    if plugin_dirs:
        settings["PluginDir"] = plugin_dirs
        settings["JobSubmitPlugins"] = "gov"

    added = []
    if names := config.controller_names:
        settings["SlurmctldHost"] = f"{names[0]}({controllers.address(0)})"
        added = [f"SlurmctldHost={name}({controllers.address(n)})" for n, name in enumerate(names) if n]
        settings["CommunicationParameters"] = "NoCtldInAddrAny"  # each on its own address
        settings["SlurmctldPidFile"] = f"{layout.host}/slurmctld.slurm-pid"
        settings["SlurmctldTimeout"] = "5"
    keys = {key.lower(): key for key in settings}
    for line in config.slurm_conf:
        key, _, value = line.partition("=")
        if key.lower() in keys:
            settings[keys[key.lower()]] = value
        else:
            added.append(line)

    lines = [f"{key}={value}" for key, value in settings.items()]
    port = ports.first_node
    for pool in config.pools:
        lines.append(_node_line(config, pool, port))
        port += pool.nodes
    for index, pool in enumerate(config.pools):
        default = "YES" if index == 0 else "NO"
        lines.append(
            f"PartitionName={config.partition(pool)} Nodes={_node_list(config, pool)} Default={default} "
            "DefaultTime=1-00:00:00 MaxTime=INFINITE State=UP"
        )
    return "\n".join([*lines, *added]) + "\n"


def gres_conf(config: SandboxConfig, layout: Layout) -> str:
    """gres.conf: the GPUs of a node are empty files; Slurm only wants them to exist."""
    lines = ["AutoDetect=off"]
    for pool in config.pools:
        if pool.gpus:
            files = f"{layout.dev}/nvidia{_range(pool.gpus, first=0)}"
            lines.append(f"NodeName={_node_list(config, pool)} Name=gpu Type={pool.gpu_type} File={files}")
    return "\n".join(lines) + "\n"


def cgroup_conf() -> str:
    """cgroup.conf: no cgroups, so that a container without them will do.

    "disabled" exists from 24.05 on. Before, cgroup/v1 is the one that a slurmd starts with even if no cgroup is
    mounted; with proctrack/linuxproc it is not used for anything.
    """
    slurmctld = shutil.which("slurmctld", path=SYSTEM_PATH) or "slurmctld"
    version = subprocess.run([slurmctld, "-V"], capture_output=True, text=True, check=True).stdout
    year, month = map(int, re.findall(r"\d+", version)[:2])
    return f"CgroupPlugin={'disabled' if (year, month) >= (24, 5) else 'cgroup/v1'}\n"


def slurmdbd_conf(layout: Layout, ports: Ports) -> str:
    """slurmdbd.conf."""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={layout.munge_socket}
DbdHost={_hostname()}
DbdAddr=127.0.0.1
DbdPort={ports.slurmdbd}
SlurmUser={pwd.getpwuid(os.geteuid()).pw_name}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
LogFile={layout.log_of("slurmdbd")}
PidFile={layout.run}/slurmdbd.slurm-pid
"""


def _node_line(config: SandboxConfig, pool: Pool, port: int) -> str:
    ports = str(port) if pool.nodes == 1 else f"[{port}-{port + pool.nodes - 1}]"
    gres = f" Gres=gpu:{pool.gpu_type}:{pool.gpus}" if pool.gpus else ""
    return (
        f"NodeName={_node_list(config, pool)} NodeHostname={_hostname()} NodeAddr=127.0.0.1 Port={ports} "
        f"CPUs={pool.cpus} RealMemory={pool.memory_mb}{gres} State=UNKNOWN"
    )


def _node_list(config: SandboxConfig, pool: Pool) -> str:
    return config.node_prefix(pool) + _range(pool.nodes, first=1)


def _range(count: int, first: int) -> str:
    return str(first) if count == 1 else f"[{first}-{first + count - 1}]"


def _hostname() -> str:
    return socket.gethostname().partition(".")[0]


def power_script(layout: Layout, what: str) -> str:
    """A script for RebootProgram, SuspendProgram, ResumeProgram, or (``what`` empty) for a ``command`` provider."""
    package = Path(slurm_gov.__file__).parent.parent
    return f"""\
#!/bin/sh
export SLURM_CONF={layout.slurm_conf} PYTHONPATH={package}
exec {sys.executable} -m slurm_gov.sandbox.power {what} "$@" >> {layout.log}/power.log 2>&1
"""
