"""The sandbox comes up as asked for, and goes without a trace, whatever happens on the way."""

from __future__ import annotations

import json
import os
import pwd
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NewSandbox, unique_name

from slurm_gov.sandbox import Pool, Sandbox, SandboxConfig, SandboxError
from slurm_gov.sandbox.config import default_base

AS_ROOT = os.geteuid() == 0
GAMES = ["setpriv", "--reuid=games", "--regid=games", "--clear-groups"]
CLI = [sys.executable, "-m", "slurm_gov.cli.main", "sandbox"]


def traces(folder: Path) -> list[str]:
    """Processes that have anything to do with a folder; found in another way than `down` finds them."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            known = process.joinpath("cmdline").read_bytes() + process.joinpath("environ").read_bytes()
            links = [process / "cwd", *process.joinpath("fd").iterdir()]
            known += b"".join(os.fsencode(link.readlink()) for link in links)
        except OSError:
            continue
        if os.fsencode(folder) in known:
            found.append(process.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def assert_gone(folder: Path) -> None:
    """Nothing is left of a sandbox: no folder, no process, no mount."""
    assert not folder.exists()
    deadline = time.monotonic() + 20  # a command whose sandbox was pulled from under it ends by itself
    while traces(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert traces(folder) == []
    assert str(folder) not in Path("/proc/self/mounts").read_text()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def cluster(module_sandbox: NewSandbox) -> Sandbox:
    return module_sandbox(governor=False)


def test_comes_up_with_every_node_idle(cluster: Sandbox) -> None:
    assert cluster.nodes() == {f"n{i}": "idle" for i in range(1, 9)}
    total = cluster.run(["scontrol", "show", "node", "n1"]).stdout
    assert "gres/gpu:h100=8" in total
    assert set(cluster.pids()) == {"munged", "mariadbd", "slurmdbd", "slurmctld"} | {
        f"slurmd-n{i}" for i in range(1, 9)
    }


def test_a_job_sees_its_gpus(cluster: Sandbox, tmp_path: Path) -> None:
    output = tmp_path / "out"
    job = cluster.submit(f"echo $CUDA_VISIBLE_DEVICES > {output}", "--gres=gpu:h100:8")
    cluster.wait_job(job, "COMPLETED")
    assert output.read_text().strip() == "0,1,2,3,4,5,6,7"


def test_srun_reaches_several_nodes(cluster: Sandbox) -> None:
    done = cluster.run(["srun", "-N", "3", "printenv", "SLURMD_NODENAME"])
    assert len(set(done.stdout.split())) == 3


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
def test_an_ordinary_user_submits_and_one_without_account_is_refused(cluster: Sandbox) -> None:
    job = cluster.run([*GAMES, "sbatch", "--parsable", "-o/dev/null", "--wrap=true"], cwd=Path("/")).stdout
    cluster.wait_job(int(job), "COMPLETED")
    refused = cluster.run(
        ["setpriv", "--reuid=daemon", "--clear-groups", "sbatch", "--wrap=true"], cwd=Path("/"), check=False
    )
    assert refused.returncode == 1
    assert "Invalid account" in refused.stderr


def test_slurmctld_and_nodes_can_be_restarted(cluster: Sandbox) -> None:
    job = cluster.submit("sleep 300")
    cluster.wait_job(job, "RUNNING")
    cluster.restart_slurmctld()
    assert cluster.job_state(job) == "RUNNING"
    cluster.run(["scancel", str(job)])
    before = cluster.pids()["slurmd-n8"]
    cluster.stop_node("n8")
    assert cluster.pids()["slurmd-n8"] is None
    cluster.start_node("n8")
    assert cluster.pids()["slurmd-n8"] not in (None, before)


def test_an_up_of_the_same_name_is_refused_and_harmless(cluster: Sandbox) -> None:
    with pytest.raises(SandboxError, match="already up"):
        Sandbox.up(SandboxConfig(name=cluster.config.name, governor=False))
    assert len(cluster.nodes()) == 8


def test_status_as_json(cluster: Sandbox) -> None:
    done = subprocess.run([*CLI, "status", cluster.config.name, "--json"], capture_output=True, text=True, check=True)
    status = json.loads(done.stdout)
    assert status["daemons"]["slurmctld"] == cluster.pids()["slurmctld"]
    assert len(status["nodes"]) == 8


def test_two_at_once_with_pools_and_down_spares_the_users_shell(cluster: Sandbox, new_sandbox: NewSandbox) -> None:
    pools = (Pool("h100", 2, 8), Pool("a100", 1, 4), Pool("cpu", 1, 0))
    other = new_sandbox(pools=pools, governor=False, slurm_conf=("MinJobAge=17",))
    partitions = other.run(["sinfo", "-h", "-o", "%P %N %G"]).stdout.splitlines()
    assert partitions == ["h100* h100-[1-2] gpu:h100:8", "a100 a100-1 gpu:a100:4", "cpu cpu-1 (null)"]
    assert "MinJobAge               = 17 sec" in other.run(["scontrol", "show", "config"]).stdout

    # a job that hides what it started as well as it can
    pids = other.dir.parent / f"pids-{other.config.name}"
    hide = f"sleep 71 & echo $! > {pids}; env -i sleep 72 & echo $! >> {pids}"
    hide += f"; setsid -f env -i sh -c 'echo $$ >> {pids}; exec sleep 73'; trap '' TERM; sleep 74"
    job = other.submit(hide, "--gres=gpu:a100:4", "-p", "a100")
    other.wait_job(job, "RUNNING")
    while not pids.exists() or len(pids.read_text().split()) < 3:
        time.sleep(0.05)
    job_processes = [int(pid) for pid in pids.read_text().split()]
    pids.unlink()

    shell = subprocess.Popen(["sleep", "300"], env=other.env, cwd=other.layout.log)
    try:
        other.down()
        assert not any(map(is_running, job_processes))
        assert shell.poll() is None
    finally:
        shell.kill()
        shell.wait()
    assert_gone(other.dir)
    assert len(cluster.nodes()) == 8


def test_with_the_governor(new_sandbox: NewSandbox) -> None:
    governed = new_sandbox(pools=(Pool("h100", 2, 8),))
    assert "JobSubmitPlugins        = gov" in governed.run(["scontrol", "show", "config"]).stdout
    accounts = governed.run(["sacctmgr", "-n", "-P", "show", "account", "format=account"]).stdout.split()
    assert {"research", "product"} <= set(accounts)
    governed.wait_job(governed.submit("sleep 60", "--gres=gpu:8", "--account=product"), "RUNNING")
    governed.kill_governor()
    assert governed.pids()["slurm-govd"] is None
    governed.start_governor()
    assert governed.pids()["slurm-govd"]
    governed.stop_governor()
    governed.wait_job(governed.submit("true", "--account=product"), "COMPLETED")


def test_a_failed_up_says_why_and_leaves_nothing() -> None:
    config = SandboxConfig(name=unique_name(), governor=False, slurm_conf=("SchedulerType=sched/nonsense",))
    with pytest.raises(SandboxError, match="sched/nonsense"):
        Sandbox.up(config)
    assert_gone(config.dir)


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_cleans_up(sig: signal.Signals) -> None:
    name = unique_name()
    # A shell starts what it puts in the background with SIGINT ignored, and so these tests, too.
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    argv = [*CLI, "up", name, "--no-governor", "--nodes=2"]
    for longest in (3.0, 1.5, 0.8):  # it may be up in two seconds
        up = subprocess.Popen(argv, stderr=subprocess.DEVNULL, preexec_fn=heard)
        time.sleep(random.uniform(0.5, longest))
        if up.poll() is None:
            break
        subprocess.run([*CLI, "down", name], check=True)
    up.send_signal(sig)
    assert up.wait(20) == (130 if sig == signal.SIGINT else 143)
    assert_gone(default_base() / name)


@pytest.mark.parametrize("part", range(6))
def test_down_after_a_killed_up(part: int) -> None:
    name = unique_name()
    up = subprocess.Popen([*CLI, "up", name, "--no-governor", "--nodes=4"], stderr=subprocess.DEVNULL)
    time.sleep(random.uniform(0.2 + part * 0.6, 0.8 + part * 0.6))
    up.kill()
    up.wait()
    folder = default_base() / name
    existed = folder.exists()
    down = subprocess.run([*CLI, "down", name], capture_output=True, text=True, check=False)
    assert (down.returncode == 0) == existed, down.stderr
    assert_gone(folder)


def test_down_of_an_unknown_name_is_an_error() -> None:
    down = subprocess.run([*CLI, "down", "nobody-has-it"], capture_output=True, text=True, check=False)
    assert down.returncode == 1
    assert "no sandbox nobody-has-it" in down.stderr


def test_down_does_not_touch_a_folder_that_is_not_a_sandbox(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("important")
    down = subprocess.run([*CLI, "down", "mine", "--dir", tmp_path], capture_output=True, text=True, check=False)
    assert down.returncode == 1
    assert (tmp_path / "mine" / "thesis").exists()


def test_a_path_too_long_for_sockets_is_refused_at_once() -> None:
    with pytest.raises(SandboxError, match="too long"):
        SandboxConfig(base=Path("/tmp/" + "x" * 60))


@pytest.fixture
def anothers_python() -> Iterator[list[str]]:
    """A command line that runs our Python as another user, in a home of its own."""
    root = Path(__file__).parents[2]
    packages = next(p for p in sys.path if p.endswith("site-packages"))
    home = tempfile.mkdtemp(dir="/tmp")
    shutil.chown(home, "games", "games")
    environment = ["env", "-i", f"HOME={home}", f"PATH={os.environ['PATH']}", f"PYTHONPATH={root}:{packages}"]
    try:
        for python in (sys.executable, "/usr/bin/python3"):
            command = [*GAMES, *environment, python, "-m", "slurm_gov.cli.main", "sandbox"]
            if subprocess.run([*command, "--help"], capture_output=True, cwd="/", check=False).returncode == 0:
                yield command
                return
        pytest.skip("no Python here that another user may run with our packages")
    finally:
        shutil.rmtree(home)


@pytest.mark.skipif(not AS_ROOT, reason="every other test already runs as an ordinary user")
def test_as_an_ordinary_user(anothers_python: list[str]) -> None:
    def call(*args: str) -> str:
        done = subprocess.run(
            [*anothers_python, *args], cwd="/", capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    name, uid = unique_name(), pwd.getpwnam("games").pw_uid
    folder = Path(f"/tmp/slurm-gov-{uid}/{name}")
    try:
        call("up", name, "--no-governor", "--nodes=2")
        assert folder.stat().st_uid == uid
        done = call("run", "--name", name, "--", "srun", "--gres=gpu:h100:8", "bash", "-c", "id -un; env")
        assert done.startswith("games")
        assert "CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7" in done
    finally:
        call("down", name)
    assert_gone(folder)
    assert not folder.parent.exists()
