"""A cluster that already runs, of Debian's own packages and units, on this machine; nothing of slurm-gov in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

ETC = Path("/etc/slurm")
# What a site may have: limits of its own, and no preemption.
SLURM_CONF = """\
ClusterName=plain
SlurmctldHost=matrix
SlurmUser=slurm
AuthType=auth/munge
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=matrix
AccountingStorageEnforce=associations,limits
AccountingStorageTRES=gres/gpu,gres/gpu:h100
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
SchedulerParameters=batch_sched_delay=0,sched_interval=10,bf_interval=5
PriorityType=priority/multifactor
PriorityWeightQOS=1000000
PriorityWeightFairshare=10000
JobRequeue=1
NodeName=matrix CPUs=64 RealMemory=64000 Gres=gpu:h100:8 State=UNKNOWN
PartitionName=gpu Nodes=matrix Default=YES DefaultTime=1-00:00:00 MaxTime=INFINITE State=UP
"""
SLURMDBD_CONF = """\
AuthType=auth/munge
DbdHost=matrix
SlurmUser=slurm
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StorageLoc=slurm_acct_db
LogFile=/var/log/slurm/slurmdbd.log
PidFile=/run/slurmdbd.pid
"""
DATABASE = """\
create database slurm_acct_db;
create user slurm@localhost identified via unix_socket;
grant all on slurm_acct_db.* to slurm@localhost;
"""
UNITS = ("munge", "mariadb", "slurmdbd", "slurmctld", "slurmd")


def start() -> None:
    """Bring it up: one node of eight GPUs, two accounts, a cap of the site's own on one of them."""
    for folder, user in (("/dev/pretended", "root"), ("/var/log/slurm", "slurm")):
        Path(folder).mkdir(exist_ok=True)
        shutil.chown(folder, user)
    for number in range(8):
        Path(f"/dev/pretended/nvidia{number}").symlink_to("/dev/null")
    ETC.mkdir(exist_ok=True)
    (ETC / "slurm.conf").write_text(SLURM_CONF)
    (ETC / "gres.conf").write_text("AutoDetect=off\nName=gpu Type=h100 File=/dev/pretended/nvidia[0-7]\n")
    version = run("slurmctld", "-V").split()[-1]
    known = tuple(map(int, version.split(".")[:2])) >= (24, 5)
    (ETC / "cgroup.conf").write_text(f"CgroupPlugin={'disabled' if known else 'cgroup/v1'}\n")
    dbd = ETC / "slurmdbd.conf"
    dbd.touch(0o600)
    dbd.write_text(SLURMDBD_CONF)
    shutil.chown(dbd, "slurm", "slurm")
    run("systemctl", "start", "munge", "mariadb")
    run("mariadb", stdin=DATABASE)
    run("systemctl", "start", "slurmdbd")
    until(lambda: ok("sacctmgr", "-n", "show", "cluster"), "slurmdbd answers")
    sacctmgr("add cluster plain")
    run("systemctl", "start", "slurmctld", "slurmd")
    until(lambda: ok("scontrol", "ping"), "slurmctld answers")
    sacctmgr("add account physics,research")
    sacctmgr("add user root account=research,physics defaultaccount=research")
    sacctmgr("modify account where name=research set grptres=gres/gpu:h100=6")
    until(lambda: run("sinfo", "-h", "-o", "%T").split() == ["idle"], "the node is idle")


def as_it_is() -> dict[str, str]:
    """What must be the same before and after slurm-gov: configuration, accounts, caps, QOS, units, plugins."""
    plugins = Path(run("sh", "-c", "scontrol show config | sed -n 's/^PluginDir *= //p'").strip())
    listed = (ETC, plugins, Path("/etc/systemd/system"), Path("/usr/local/share/man"))
    return {
        "slurm.conf": (ETC / "slurm.conf").read_text(),
        "accounts": sacctmgr("-nP show assoc format=account,user,parentname,grptres,qos,defaultqos,fairshare"),
        "QOS": sacctmgr("-nP show qos format=name,priority,preempt,grptres,flags"),
        **{str(folder): "\n".join(sorted(map(str, folder.rglob("*")))) for folder in listed},
    }


def sacctmgr(line: str) -> str:
    """One command of sacctmgr."""
    return run("sacctmgr", "-i", *line.split())


def sbatch(account: str, gpus: int, *options: str) -> int:
    """Submit a job that runs until it is stopped."""
    argv = ["sbatch", "--parsable", "-o", "/dev/null", "-A", account, f"--gpus=h100:{gpus}", *options]
    return int(run(*argv, "--wrap=exec sleep 86400"))


def job(number: int, field: str) -> str:
    """A column of squeue (its letter)."""
    return run("squeue", "-h", "-j", str(number), "-o", f"%{field}").strip()


def cap(account: str) -> str:
    """An account's GrpTRES."""
    return sacctmgr(f"-nP show assoc where account={account} user= format=grptres").strip()


def run(*argv: str, stdin: str | None = None) -> str:
    """What a command says. An error is the test's."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, env=_env(), cwd="/")
    assert done.returncode == 0, f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def ok(*argv: str) -> bool:
    """Whether a command succeeds."""
    return subprocess.run(argv, capture_output=True, env=_env(), cwd="/").returncode == 0


def until(check: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not so after {seconds:.0f} s: {what}"
        time.sleep(0.2)


def _env() -> dict[str, str]:
    """Debian's programs, not those of the environment that the tests run in."""
    return os.environ | {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_PAGER": ""}
