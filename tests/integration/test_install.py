"""slurm-gov install from a wheel, into a folder: all that a controller needs, twice, changed by the site, removed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import slurm_gov
from slurm_gov.cli.install import MANUALS
from slurm_gov.cli.manual.man import manual_pages
from slurm_gov.sandbox import Pool, Sandbox
from slurm_gov.slurm.doctor import built_for
from slurm_gov.slurm.nodelay import LIBRARY, NEEDED_BEFORE

CHECKOUT = Path(__file__).parents[2]
SLURM_CONF = """\
ClusterName=c
SlurmUser=games
JobSubmitPlugins=lua
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageEnforce=associations,safe
NodeName=n[1-4] Gres=gpu:h100:8
"""
Install = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, and none of the checkout; what slurm-gov depends on is this one's."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    made = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(CHECKOUT)]
    subprocess.run(made, check=True)  # fetches nothing
    (wheel,) = folder.glob("slurm_gov-*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    programs = folder / "venv" / "bin"
    subprocess.run([programs / "python", *pip[1:], "install", "--no-deps", "--no-index", str(wheel)], check=True)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = [programs / "python", "-c", "import slurm_gov; print(slurm_gov.__file__)"]
    imported = subprocess.run(where, cwd="/", capture_output=True, text=True, check=True).stdout
    assert imported.startswith(str(packages))
    return folder / "venv"


@pytest.fixture
def install(venv: Path, tmp_path: Path) -> Install:
    conf = tmp_path / "slurm.conf"
    conf.write_text(SLURM_CONF)

    def run(*options: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [
            venv / "bin" / "slurm-gov",
            "install",
            "--root",
            str(tmp_path / "root"),
            "--plugin-dir",
            "/plugins",
        ]
        command += ["--slurm-conf", str(conf), *options]
        done = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done

    return run


def files(root: Path) -> dict[str, bytes]:
    return {f"/{path.relative_to(root)}": path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_from_a_wheel_to_a_controller_and_back(venv: Path, install: Install, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shown = install("--dry-run").stdout
    assert "create: /plugins/job_submit_gov.so" in shown
    assert f"create: 20 manual pages in {MANUALS}\n" in shown
    assert "not changed" in install(code=1).stderr  # nobody to ask
    assert not root.exists()

    said = install("--yes").stdout
    for line in (
        "JobSubmitPlugins=lua,gov",
        "AccountingStorageEnforce=associations,safe,limits,qos",
        "AccountingStorageTRES=gres/gpu,gres/gpu:h100",
    ):
        assert f"  {line}\n" in said
    first = files(root)
    conf = f"{tmp_path}/job_submit_gov.conf"
    header = Path("/usr/include/slurm/slurm_version.h").read_text()
    number = int(re.search(r"SLURM_VERSION_NUMBER (0x\w+)", header)[1], 16)  # type: ignore[index]
    slurm = (number >> 16, number >> 8 & 255, number & 255)
    assert set(first) == {
        "/plugins/job_submit_gov.so",
        *([f"/plugins/{LIBRARY}"] if slurm < NEEDED_BEFORE else []),
        conf,
        "/etc/slurm-gov/policy.yaml",
        "/etc/slurm-gov/installed.json",
        "/etc/systemd/system/slurm-govd.service",
        *(f"{MANUALS}/{page}" for page in manual_pages("#")),
    }
    assert b"teams.TEAM.fair_share_weight" in first[f"{MANUALS}/man5/slurm-gov-policy.5"]
    built = built_for(first["/plugins/job_submit_gov.so"])
    assert built and built.version == slurm_gov.__version__
    assert built.slurm == slurm
    assert first[conf] == (CHECKOUT / "etc" / "job_submit_gov.conf").read_bytes()
    unit = first["/etc/systemd/system/slurm-govd.service"].decode()
    assert f"ExecStart={venv}/bin/slurm-govd\n" in unit and "\nUser=games\n" in unit
    assert (venv / "bin" / "slurm-govd").exists()
    check = [venv / "bin" / "slurm-gov", "policy", "check", root / "etc/slurm-gov/policy.yaml"]
    subprocess.run(check, cwd="/", check=True, capture_output=True)

    assert "nothing to do" in install("--yes").stdout
    assert files(root) == first

    policy = root / "etc/slurm-gov/policy.yaml"
    policy.write_text("pools: {}\n")
    (root / "etc/systemd/system/slurm-govd.service").unlink()
    said = install("--yes").stdout
    assert "changed by the site, kept: /etc/slurm-gov/policy.yaml" in said
    assert files(root) == first | {"/etc/slurm-gov/policy.yaml": b"pools: {}\n"}

    slurm_conf = tmp_path / "slurm.conf"
    slurm_conf.write_text(SLURM_CONF.replace("=lua", "=lua,gov"))
    assert "set JobSubmitPlugins=lua in slurm.conf" in install("--remove", "--yes", code=1).stderr
    assert "/plugins/job_submit_gov.so" in files(root)
    slurm_conf.write_text(SLURM_CONF)
    install("--remove", "--yes")
    assert set(files(root)) == {"/etc/slurm-gov/policy.yaml", "/etc/slurm-gov/installed.json"}  # the site's
    assert not list((root / MANUALS[1:]).iterdir())


def test_a_node(venv: Path, install: Install, tmp_path: Path) -> None:
    install("--node", "--yes")
    found = files(tmp_path / "root")
    names = {"agent.yaml", "installed.json", "slurm-gov-agent.service", "slurm-gov-agent.8"}
    assert {Path(path).name for path in found} == names
    unit = found["/etc/systemd/system/slurm-gov-agent.service"].decode()
    assert f"ExecStart={venv}/bin/slurm-gov-agent run\n" in unit


def test_without_headers_nothing_is_changed(install: Install, tmp_path: Path) -> None:
    assert "libslurm-dev" in install("--yes", "--include", str(tmp_path), code=1).stderr
    assert not (tmp_path / "root").exists()


def test_headers_of_another_version_are_refused(venv: Path, tmp_path: Path) -> None:
    """slurmctld would die at its next start. A dry run on this very machine: nothing is written in any case."""
    headers = tmp_path / "slurm"
    headers.mkdir()
    for file in Path("/usr/include/slurm").glob("*.h"):
        (headers / file.name).write_bytes(file.read_bytes())
    version = headers / "slurm_version.h"
    version.write_text(re.sub(r"(SLURM_VERSION_NUMBER) 0x\w+", r"\1 0x130507", version.read_text()))
    (tmp_path / "slurm.conf").write_text(SLURM_CONF)
    command = [venv / "bin" / "slurm-gov", "install", "--dry-run", "--slurm-conf", tmp_path / "slurm.conf"]
    done = subprocess.run([*command, "--include", tmp_path], cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the headers are of Slurm 19.5.7" in done.stderr


def test_a_running_slurmctld_takes_the_plugin(
    install: Install, new_sandbox: Callable[..., Sandbox], tmp_path: Path
) -> None:
    """The plugin and its configuration as installed, in a Slurm that had nothing of ours."""
    install("--yes")
    cluster = new_sandbox(pools=(Pool("h100", 1, 8),), governor=False)
    plugins = tmp_path / "root" / "plugins"
    shown = cluster.run(["scontrol", "show", "config"]).stdout
    system = re.search(r"^PluginDir\s*= (\S+)", shown, re.MULTILINE)[1]  # type: ignore[index]
    (conf,) = (tmp_path / "root").rglob("job_submit_gov.conf")
    (cluster.layout.etc / conf.name).write_bytes(conf.read_bytes())
    text = cluster.layout.slurm_conf.read_text()
    cluster.layout.slurm_conf.write_text(f"{text}PluginDir={plugins}:{system}\nJobSubmitPlugins=gov\n")
    cluster.restart_slurmctld()
    deadline = time.monotonic() + 60  # slurmctld answers before it has loaded it, from 24.11 on
    while "job_submit/gov: socket=/run/slurm-gov/admission.sock" not in cluster.log("slurmctld").read_text():
        assert time.monotonic() < deadline, cluster.log("slurmctld").read_text()
        time.sleep(0.2)
    doctor = [sys.executable, "-m", "slurm_gov.cli.main", "doctor", "--json", "--socket", str(tmp_path / "none")]
    said = json.loads(cluster.run([*doctor, "--policy", str(tmp_path / "none")], check=False).stdout)
    about = [one["message"] for one in said["errors"] + said["warnings"]]
    assert not [line for line in about if "job_submit_gov.so" in line or "JobSubmitPlugins" in line], about
    assert any("slurm-govd does not answer" in line for line in about)
    job = cluster.submit("true", "--gres=gpu:h100:1")  # nobody answers the plugin: accepted as it came
    assert job > 0
