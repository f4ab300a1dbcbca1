"""docs/installing.md, typed as it stands there, on a cluster of Debian's own units under a real systemd.

The tests are steps of one story and run in this order: installed, from observing to enforcing, the units, an upgrade
while a job runs, removed. What the terminal showed is left in build/installation.txt.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import plain
import pytest
from plain import cap, job, run, sbatch, until
from terminal import Book, Terminal

from slurm_gov import __version__

CHECKOUT = Path(__file__).parents[2]
RECORD = CHECKOUT / "build" / "installation.txt"
WHEELS = Path("/opt/wheels")
POLICY = Path("/etc/slurm-gov/policy.yaml")
SOCKET = Path("/run/slurm-gov/admission.sock")
SITE = """\
mode: observe
pools:
  h100: {partition: gpu, gres: "gpu:h100"}
priority_classes: {training: 50, experiment: 10}
teams:
  research: {quota: {h100: 4}, fair_share_weight: 50, borrow: unlimited}
  product: {quota: {h100: 4}}
preemption: {grace: 5s}
"""
SECURITY = 2.5  # of systemd-analyze: 0 is best, 10 worst


class Site:
    """The cluster, the terminal on it, and what there was before."""

    def __init__(self) -> None:
        plain.start()
        self.terminal = Terminal()
        self.book = Book(CHECKOUT / "docs" / "installing.md", self.terminal)
        self.before = plain.as_it_is()

    def mode(self, mode: str) -> None:
        """The one line in the policy."""
        self.type(f"sed -i 's/^mode: .*/mode: {mode}/' {POLICY}")

    def type(self, command: str) -> str:
        """Type something that the page does not have."""
        code, shown = self.terminal.type(command)
        assert code == 0, f"{command}: exit status {code}\n{shown}"
        return shown


def wheel(version: str) -> None:
    """A wheel of this source, as of that version, where pip looks for it. Fetches nothing."""
    for old in WHEELS.glob("slurm_gov-*.whl"):
        old.unlink()
    init = CHECKOUT / "slurm_gov" / "__init__.py"
    text = init.read_text()
    try:
        init.write_text(text.replace(f'"{__version__}"', f'"{version}"'))
        pip = [sys.executable, "-m", "pip", "-q", "wheel", "--no-deps", "--no-build-isolation"]
        subprocess.run([*pip, "-w", WHEELS, CHECKOUT], check=True)
    finally:
        init.write_text(text)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """The cluster with slurm-gov installed, by sections 1 and 2 of the page."""
    assert Path("/run/systemd/system").is_dir(), "needs a machine that systemd has booted: make test-matrix"
    wheel(__version__)
    made = Site()
    try:
        yield made
    finally:
        made.terminal.close()
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(made.terminal.shown)


@pytest.fixture(scope="module")
def installed(site: Site) -> Site:
    follow = site.book.follow
    follow("python3 -m venv /opt/slurm-gov")
    follow("/opt/slurm-gov/bin/pip install slurm-gov")
    follow("export PATH=/opt/slurm-gov/bin:$PATH")
    lacking = follow("slurm-gov doctor", code=1)
    for what in ("there is no policy", "job_submit_gov.so is not in PluginDir", "slurm-govd does not answer",
                 "AccountingStorageEnforce lacks qos"):  # fmt: skip
        assert what in lacking
    now = plain.as_it_is()
    assert now == site.before, "doctor changes nothing"

    shown = follow("slurm-gov install --dry-run")
    assert "create: /etc/systemd/system/slurm-govd.service" in shown
    assert plain.as_it_is() == site.before, "a dry run changes nothing"
    done = follow("slurm-gov install")
    assert done.startswith(shown[: shown.index("create: /etc")]) and "Do this? [y/N]: y" in done
    lines = re.findall(r"^  (\w+=\S+)$", done, re.MULTILINE)
    assert lines == ["JobSubmitPlugins=gov", "AccountingStorageEnforce=associations,limits,qos"]

    site.type(f"cat > {POLICY} <<END\n{SITE}END")
    follow("slurm-gov policy check")
    for line in lines:
        name = line.partition("=")[0]
        site.type(f"sed -i '/^{name}=/d' /etc/slurm/slurm.conf; echo {line} >> /etc/slurm/slurm.conf")
    follow("systemctl restart slurmctld")
    until(lambda: run("sinfo", "-h", "-o", "%T").split() == ["idle"], "the node is idle")
    follow("slurm-gov policy diff", code=3)
    follow("slurm-gov policy apply")
    follow("systemctl daemon-reload")
    follow("systemctl enable --now slurm-govd")
    until(lambda: "h100" in site.terminal.type("slurm-gov status")[1], "slurm-govd has looked at Slurm")
    return site


def unit(name: str, *fields: str) -> list[str]:
    """Properties of a unit."""
    said = dict(line.split("=", 1) for line in run("systemctl", "show", name).splitlines() if "=" in line)
    return [said[field] for field in fields]


def pid(name: str = "slurm-govd") -> int:
    return int(unit(name, "MainPID")[0])


def journal(name: str = "slurm-govd") -> str:
    return run("journalctl", "-u", name, "-o", "cat", "--no-pager")


def drop_in(text: str) -> None:
    """Settings of slurm-govd's unit, as systemctl edit makes them; empty: as shipped."""
    file = Path("/run/systemd/system/slurm-govd.service.d/test.conf")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    run("systemctl", "daemon-reload")


def test_observing_changes_nothing_in_slurm(installed: Site) -> None:
    said = installed.book.follow("slurm-gov doctor", code=0)
    # It is said that the site's cap will be replaced; nothing else is left.
    assert "0 errors, 1 warning" in said and "team research has GrpTRES of its own" in said
    assert "research" in installed.book.follow("slurm-gov status")
    # The site's own cap holds as before: 6 of 8.
    assert cap("research") == "gres/gpu:h100=6"
    held = sbatch("research", 8)
    until(lambda: job(held, "r") == "AssocGrpGRES", "the site's cap holds the job")
    installed.type("slurm-gov plan")
    run("scancel", str(held))
    assert cap("research") == "gres/gpu:h100=6"


def test_from_observing_to_enforcing(installed: Site) -> None:
    installed.type("sacctmgr -i add user root account=product")
    installed.mode("caps")
    installed.book.follow("slurm-gov policy apply")
    installed.book.follow("systemctl reload slurm-govd")
    borrower = sbatch("research", 8)
    until(lambda: job(borrower, "t") == "R", "what product leaves idle is lent")
    owner = sbatch("product", 4)
    until(lambda: "product" in installed.terminal.type(f"slurm-gov why {owner}")[1], "the owner's job is known")
    assert (job(borrower, "t"), job(owner, "t")) == ("R", "PD"), "nothing is preempted in the mode caps"
    installed.mode("enforce")
    installed.type("slurm-gov policy apply")
    installed.type("systemctl reload slurm-govd")
    until(lambda: job(owner, "t") == "R", "the owner has its GPUs back")
    assert job(borrower, "t") == "PD"
    installed.type("slurm-gov status")
    installed.type("slurm-gov log")
    run("scancel", str(borrower), str(owner))


def test_it_runs_as_slurm_user_with_no_power_of_root(installed: Site) -> None:
    for one in (pid(), *map(int, run("pgrep", "-P", str(pid())).split())):
        status = Path(f"/proc/{one}/status").read_text()
        owner = re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)
        assert owner and int(owner[1]) == int(run("id", "-u", "slurm"))
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)


def test_the_exposure_is_what_is_promised(installed: Site) -> None:
    said = run("systemd-analyze", "--no-pager", "security", "slurm-govd.service")
    found = re.search(r"Overall exposure level for slurm-govd.service: ([\d.]+)", said)
    assert found and float(found[1]) <= SECURITY, said


def test_it_is_active_only_when_it_answers(installed: Site) -> None:
    run("systemctl", "stop", "slurm-govd")
    good = POLICY.read_text()
    try:
        POLICY.write_text("pools: {}\n")
        assert not plain.ok("systemctl", "start", "slurm-govd"), "a daemon that cannot start is not started"
        assert unit("slurm-govd", "ActiveState")[0] in ("activating", "failed")
    finally:
        POLICY.write_text(good)
    run("systemctl", "stop", "slurm-govd")
    # Held before its first line of Python: systemctl start has not returned as long as it is not ready.
    with subprocess.Popen(["systemctl", "start", "slurm-govd"]) as starting:
        until(pid, "it has a process")
        os.kill(held := pid(), signal.SIGSTOP)
        if not SOCKET.exists():  # it was not ready before it was stopped
            time.sleep(2)
            assert starting.poll() is None
            assert unit("slurm-govd", "ActiveState") == ["activating"]
        os.kill(held, signal.SIGCONT)
        assert starting.wait(60) == 0
    assert SOCKET.is_socket()
    assert unit("slurm-govd", "Type", "ActiveState", "SubState") == ["notify", "active", "running"]


def test_a_reload_takes_a_right_policy_and_leaves_a_broken_one(installed: Site) -> None:
    before, good = pid(), POLICY.read_text()
    try:
        POLICY.write_text(good.replace("gpu:h100", "gpu"))
        said = len(journal())
        run("systemctl", "reload", "slurm-govd")
        until(lambda: "policy.yaml" in journal()[said:], "the broken policy is reported")
        assert "error" in journal()[said:]
        POLICY.write_text(good.replace("research: {quota: {h100: 4}", "research: {quota: {h100: 3}"))
        assert cap("research") != "gres/gpu:h100=3"
        said = len(journal())
        run("systemctl", "reload", "slurm-govd")
        until(lambda: "reloaded" in journal()[said:], "the right policy is taken")
    finally:
        POLICY.write_text(good)
    run("systemctl", "reload", "slurm-govd")
    assert pid() == before


def test_a_daemon_that_hangs_is_started_again(installed: Site) -> None:
    """As shipped it has a minute; a quarter of one here."""
    drop_in("[Service]\nWatchdogSec=15\n")
    try:
        run("systemctl", "restart", "slurm-govd")
        caps, hung = cap("research"), pid()
        os.kill(hung, signal.SIGSTOP)
        code, said = installed.terminal.type("slurm-gov doctor")
        assert code == 1 and "hangs" in said
        until(lambda: pid() not in (0, hung) and unit("slurm-govd", "ActiveState") == ["active"], "another runs")
        assert "watchdog" in journal().lower()
        assert cap("research") == caps
    finally:
        drop_in("")
        run("systemctl", "restart", "slurm-govd")
    assert installed.terminal.type("slurm-gov doctor")[0] == 0


def test_it_stops_clean_and_the_caps_hold(installed: Site) -> None:
    caps, said = (cap("research"), cap("product")), len(journal())
    try:
        run("systemctl", "stop", "slurm-govd")
        assert unit("slurm-govd", "ActiveState", "Result", "ExecMainStatus") == ["inactive", "success", "0"]
        until(lambda: re.search(r"\bstopped\b", journal()[said:]), "it says so itself")
        assert not SOCKET.exists()
        assert (cap("research"), cap("product")) == caps
        number = sbatch("research", 1)  # nobody answers the plugin: the job goes in as it came
        run("scancel", str(number))
    finally:
        run("systemctl", "start", "slurm-govd")


def test_a_second_installation_has_nothing_to_do(installed: Site) -> None:
    assert "nothing to do" in installed.type("slurm-gov install")


def test_the_agents_unit(installed: Site) -> None:
    """On the node, which is the same machine here, with a broker that is not there."""
    installed.type("pip install 'slurm-gov[agent]'")
    assert "create: /etc/systemd/system/slurm-gov-agent.service" in installed.type("slurm-gov install --node")
    folder = Path("/etc/slurm-gov/mqtt")
    installed.type(f"slurm-gov mqtt init {folder} --broker matrix")
    installed.type(f"slurm-gov mqtt issue {folder} matrix")
    for end in ("pem", "key"):
        (folder / f"matrix.{end}").rename(folder / f"node.{end}")
    installed.type("sed -i 's/mqtt.example/matrix/' /etc/slurm-gov/agent.yaml")
    installed.type("systemctl daemon-reload; systemctl enable --now slurm-gov-agent")
    assert unit("slurm-gov-agent", "Type", "ActiveState") == ["notify", "active"]
    status = Path(f"/proc/{pid('slurm-gov-agent')}/status").read_text()
    found = re.search(r"^CapEff:\s+(\w+)$", status, re.MULTILINE)
    # CAP_DAC_READ_SEARCH, CAP_KILL, CAP_SYSLOG
    assert found and int(found[1], 16) & ~(1 << 2 | 1 << 5 | 1 << 34) == 0
    run("systemctl", "restart", "slurm-gov-agent")
    run("systemctl", "disable", "--now", "slurm-gov-agent")
    assert unit("slurm-gov-agent", "ActiveState", "Result") == ["inactive", "success"]


def test_an_upgrade_while_jobs_run(installed: Site) -> None:
    """Plugin, programs and slurmctld are new; the jobs, the caps, the marks and the ledger are the old ones."""
    borrower = sbatch("research", 8)
    until(lambda: job(borrower, "t") == "R", "what is idle is lent")
    owner = sbatch("product", 2)
    until(lambda: job(owner, "t") == "R", "the owner has its GPUs back")
    until(lambda: job(borrower, "t") == "PD", "the borrower waits")
    running = sbatch("research", 4)
    until(lambda: job(running, "t") == "R" or job(borrower, "t") == "R", "one of research's jobs runs")
    before = {one: (job(one, "t"), job(one, "S"), comment(one)) for one in (owner, borrower, running)}
    requeued = requeues()
    assert requeued
    newer = f"{__version__}.post1"
    wheel(newer)
    follow = installed.book.follow
    follow("pip install -U slurm-gov")
    assert "replace: " in follow("slurm-gov install")
    follow("systemctl daemon-reload")
    follow("systemctl restart slurm-govd")
    follow("systemctl restart slurmctld")
    until(lambda: plain.ok("scontrol", "ping"), "slurmctld answers")
    until(lambda: installed.terminal.type("slurm-gov doctor")[0] == 0, "nothing is missing")
    assert newer in run("/opt/slurm-gov/bin/slurm-govd", "--version")
    after = {one: (job(one, "t"), job(one, "S"), comment(one)) for one in (owner, borrower, running)}
    assert {one: state for one, state in after.items() if state[0] == "R"} == {
        one: state for one, state in before.items() if state[0] == "R"
    }
    assert {one: state[2] for one, state in after.items()} == {one: state[2] for one, state in before.items()}
    assert requeues() == requeued, "the ledger is the old one"
    fresh = sbatch("product", 1)
    until(lambda: job(fresh, "t") == "R", "a new job goes through the new plugin")
    run("scancel", *map(str, (owner, borrower, running, fresh)))


def requeues() -> list[str]:
    """What the ledger has of jobs that were requeued."""
    said = run("/opt/slurm-gov/bin/slurm-gov", "log").splitlines()
    return [line for line in said if " requeue " in line]


def comment(number: int) -> str:
    """A job's AdminComment: our marks."""
    return run("squeue", "-h", "-j", str(number), "-O", "admin_comment:200").strip()


def test_removed_slurm_is_as_before(installed: Site) -> None:
    until(lambda: not run("squeue", "-h").strip(), "no job is left")
    follow = installed.book.follow
    follow("systemctl disable --now slurm-govd")
    follow("slurm-gov policy remove --created")
    code, refused = installed.terminal.type("slurm-gov install --remove")
    assert code == 1 and "JobSubmitPlugins" in refused, "slurmctld would not start without the plugin"
    conf = plain.ETC / "slurm.conf"
    conf.write_text(installed.before["slurm.conf"])
    site_says = "systemctl restart slurmctld"
    installed.type(site_says)
    until(lambda: plain.ok("scontrol", "ping"), "slurmctld answers")
    follow("slurm-gov install --remove")
    follow("rm -r /opt/slurm-gov")
    installed.type("systemctl daemon-reload")
    assert plain.as_it_is() == installed.before
    assert not installed.book.left, "all of the page was typed"
    number = sbatch("research", 8)
    until(lambda: job(number, "r") == "AssocGrpGRES", "the site's own cap holds again")
    run("scancel", str(number))
