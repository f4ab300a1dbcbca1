"""Two slurmctlds with a slurm-govd beside each: whatever dies, the other takes over, and nothing is done twice."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator

import pytest
from conftest import NewSandbox
from governed import Cluster

from slurm_gov.daemon.lease import Lease, Leases
from slurm_gov.database import locate
from slurm_gov.health.journal import Journal
from slurm_gov.ledger import Event, Kind, events
from slurm_gov.sandbox import Pool, SandboxError
from slurm_gov.sandbox.controllers import check_possible, database
from slurm_gov.sandbox.governor import program

try:
    check_possible()
    POSSIBLE = ""
except SandboxError as error:
    POSSIBLE = str(error)
pytestmark = pytest.mark.skipif(bool(POSSIBLE), reason=POSSIBLE)

NODE = ("-N1", "--gpus-per-node=h100:8", "--requeue")
STAYS = "trap '' USR1; sleep 600"
LONG = 90.0
"""Seconds for a takeover; it takes about ten, on a machine that does nothing else."""
POLICY = """\
pools:
  h100: {{partition: gpu, gres: "gpu:h100"}}
teams:
  research: {{quota: {{h100: 16}}, lend: all, borrow: unlimited}}
  product: {{quota: {{h100: 16}}, lend: all, borrow: unlimited}}
preemption: {{grace: {grace}, signal: "B:USR1"}}
health:
  provider: site
  providers:
    site: {{kind: command, command: ["{site}"], time_limit: 300s, attempts: 1}}
  confirm: 1s
  recover: 1s
"""
# As a cloud's command is: it asks for a machine once, whoever asks and how often, and waits until that is there.
SITE = """\
#!/bin/sh
dir=$(dirname "$0")
request=$(cat)
id=$(echo "$request" | sed -E 's/.*"id": ?"([^"]*)".*/\\1/')
echo "$1 $2 $id" >> "$dir/calls"
if mkdir "$dir/asked-$id" 2>/dev/null; then
    echo "$1 $2" >> "$dir/done"
    setsid sh -c 'while [ -e "$1/hang" ]; do sleep 0.1; done; "$2" "$3" "$4"; touch "$1/asked-$5/there"' \\
        sh "$dir" {power} "$1" "$2" "$id" >/dev/null 2>&1 &
fi
while [ ! -e "$dir/asked-$id/there" ]; do sleep 0.1; done
echo "the machine is there"
"""


class Two(Cluster):
    """A governed cluster with two controllers."""

    def lease(self) -> Lease | None:
        leases = Leases(locate(database(self.sandbox.layout)), make=False)
        try:
            return leases.read()
        finally:
            leases.close()

    def leader(self) -> str:
        """The host of the governor that leads; empty: nobody does."""
        lease = self.lease()
        return lease.host if lease is not None and lease.held else ""

    def led_by(self, host: str) -> float:
        """Wait until a governor leads; returns how long that took, in seconds."""
        began = time.monotonic()
        self.until(lambda: self.leader() == host, f"{host} leads", LONG)
        return time.monotonic() - began

    def until(self, check, what, timeout=30):  # type: ignore[no-untyped-def]
        """As there; while no slurmctld is in control, Slurm's commands fail, and that is no answer."""

        def answered() -> object:
            try:
                return check()
            except SandboxError:
                return False

        super().until(answered, what, max(timeout, LONG))

    def whole(self) -> None:
        """Both slurmctlds and both governors run, and the primary's leads."""
        pids = self.sandbox.pids()
        # A backup of 22.05 that has been in control several times may hang the next time; and a primary of 26.05 that
        # starts while its backup still saves its state may find a file missing, and end.
        self.sandbox.stop_daemon("slurmctld-ctl2")
        if not pids.get("slurmctld"):
            self.sandbox.start_slurmctld()
        self.sandbox.start_slurmctld(2)
        self.until(lambda: self.sandbox.nodes(), "Slurm answers")
        for number in (1, 2):
            if not pids.get(self.sandbox.daemon("slurm-govd", number)):
                self.sandbox.start_governor(controller=number)
        self.led_by("ctl1")

    def kill(self, what: str, controller: int = 1, sig: signal.Signals = signal.SIGKILL) -> None:
        pid = self.sandbox.pids()[self.sandbox.daemon(what, controller)]
        assert pid is not None
        os.kill(pid, sig)

    def log(self, controller: int) -> str:
        return self.sandbox.log(self.sandbox.daemon("slurm-govd", controller)).read_text()

    def deeds(self, since: float) -> list[Event]:
        """What the ledger has, of both governors."""
        return [one.event for one in events(locate(database(self.sandbox.layout)), since=since)]

    def metric(self, controller: int, name: str) -> float:
        with urllib.request.urlopen(f"{self.sandbox.page_of(controller)}metrics", timeout=20) as page:
            lines = page.read().decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])

    def warnings(self, number: int) -> list[str]:
        """What the page of a controller's governor warns of."""
        with urllib.request.urlopen(f"{self.sandbox.page_of(number)}api/v1/cluster", timeout=20) as page:
            found: list[str] = json.load(page)["warnings"]
        return found

    def reclaim(self, grace: int) -> tuple[list[int], int]:
        """Research borrows two nodes, product asks for one back, and the victim is told; grace, in seconds, runs."""
        self.rules(f"{grace}s")
        borrowers = [self.sbatch("research", *NODE, script=STAYS) for _ in range(4)]
        self.running(*borrowers)
        time.sleep(grace)  # nobody has a longer grace than it ran
        owner = self.sbatch("product", *NODE)
        self.until(lambda: any("slurm-gov preempt" in self.squeue_comment(job) for job in borrowers), "one is told")
        # What slurmctld has not saved yet, which takes it up to five seconds, dies with it: that is Slurm's.
        told = time.time()
        self.until(lambda: (self.sandbox.layout.state / "job_state").stat().st_mtime > told, "the mark is saved")
        return borrowers, owner

    def ended_once(self, borrowers: list[int], owner: int, since: float) -> None:
        """The owner runs, and one borrower was preempted, once: so say Slurm, its accounting and the ledger."""
        self.until(lambda: self.states().get(owner) == "R", "the owner's job runs")
        self.until(lambda: Counter(self.states()[job] for job in borrowers) == {"R": 3, "PD": 1}, "one waits")
        self.stays(lambda: sum(map(self.restarts, borrowers)) == 1, "one restart in all", 6)
        (victim,) = (job for job in borrowers if self.restarts(job))
        jobs = ",".join(map(str, [*borrowers, owner]))
        runs = ["sacct", "-nPX", "--duplicates", "-j", jobs, "--format=JobIDRaw,State"]

        def runs_of() -> Counter[int]:
            lines = self.sandbox.run(runs).stdout.splitlines()
            return Counter(int(line.split("|")[0]) for line in lines)

        expected = Counter(dict.fromkeys([*borrowers, owner], 1)) + Counter([victim])
        # After a takeover Slurm 26.05 tells accounting of the run that waits only when it starts.
        known = (expected, expected - Counter([victim]))
        self.until(lambda: runs_of() in known, "accounting knows of one run more at most, the victim's")
        told = [
            (one.kind, one.job) for one in self.deeds(since) if one.kind in (Kind.PREEMPT, Kind.REQUEUE, Kind.SPARE)
        ]
        assert told == [(Kind.PREEMPT, str(victim)), (Kind.REQUEUE, str(victim))]

    def rules(self, grace: str = "2s") -> None:
        """Make this the policy of both."""
        text = POLICY.format(grace=grace, site=self.work / "site")
        if text != self.sandbox.layout.policy.read_text():
            self.sandbox.layout.policy.write_text(text)
            sizes = {number: len(self.log(number)) for number in (1, 2)}
            for number in sizes:
                self.kill("slurm-govd", number, signal.SIGHUP)
            for number, size in sizes.items():
                self.until(lambda n=number, s=size: "reloaded" in self.log(n)[s:], "both have read it")


@pytest.fixture(scope="module")
def governed(module_sandbox: NewSandbox) -> Two:
    two = Two(module_sandbox(pools=(Pool(nodes=4),), controllers=2))
    site = two.work / "site"
    site.write_text(SITE.format(power=two.sandbox.layout.etc / "power"))
    site.chmod(0o755)
    return two


@pytest.fixture
def two(governed: Two) -> Iterator[Two]:
    governed.whole()
    governed.clear()
    governed.rules()
    yield governed


def test_one_leads_and_the_other_says_so(two: Two) -> None:
    assert (two.metric(1, "slurm_gov_leader"), two.metric(2, "slurm_gov_leader")) == (1, 0)
    assert 0 <= two.metric(2, "slurm_gov_lease_age_seconds") < 10
    status = json.loads(two.sandbox.run([program("slurm-gov"), "status", "--json"]).stdout)
    assert status["leader"].startswith("ctl1 leads")
    two.until(lambda: any("standby: the governor on ctl1 leads" in one for one in two.warnings(2)), "the page too")
    once = two.sandbox.run(
        [program("slurm-govd"), "--policy", two.sandbox.layout.policy, "--once"], check=False, timeout=60
    )
    assert once.returncode == 1 and "the governor on ctl1 leads" in once.stderr


def test_each_answers_its_own_slurmctld(two: Two) -> None:
    """The plugin of the one in control asks the governor beside it, whoever leads."""
    refused = two.refused("sbatch", "--account=product", "-N9", "--gpus-per-node=h100:8", "--wrap=true")
    assert "slurm-gov:" in refused
    two.sandbox.stop_daemon("slurmctld", signal.SIGKILL)
    two.led_by("ctl2")
    two.until(lambda: two.sandbox.nodes(), "Slurm answers")
    refused = two.refused("sbatch", "--account=product", "-N9", "--gpus-per-node=h100:8", "--wrap=true")
    assert "slurm-gov:" in refused


def test_the_primary_dies_in_the_middle_of_a_reclaim(two: Two) -> None:
    since = time.time()
    borrowers, owner = two.reclaim(25)
    two.sandbox.stop_daemon("slurmctld", signal.SIGKILL)
    print(f"takeover after {two.led_by('ctl2'):.1f} s")
    two.ended_once(borrowers, owner, since)
    lease = two.lease()
    assert lease is not None
    # The primary comes back, Slurm gives it control, and its governor leads again.
    two.sandbox.start_slurmctld()
    print(f"back after {two.led_by('ctl1'):.1f} s")
    assert "does not lead any more" in two.log(2)
    two.ended_once(borrowers, owner, since)


def test_the_whole_host_dies_in_the_middle_of_a_reclaim(two: Two) -> None:
    since = time.time()
    borrowers, owner = two.reclaim(25)
    two.sandbox.kill_governor()
    two.sandbox.stop_daemon("slurmctld", signal.SIGKILL)
    print(f"takeover after {two.led_by('ctl2'):.1f} s")
    two.ended_once(borrowers, owner, since)


def test_the_governor_that_leads_dies_and_is_started_again(two: Two) -> None:
    """As systemd does; nobody leads on the backup, for its slurmctld is not in control."""
    since = time.time()
    borrowers, owner = two.reclaim(15)
    before = two.lease()
    two.sandbox.kill_governor()
    two.sandbox.start_governor()
    two.until(lambda: (now := two.lease()) and now.held and now.term > before.term, "it leads again")  # type: ignore[union-attr]
    assert two.leader() == "ctl1"
    two.ended_once(borrowers, owner, since)


def test_one_that_was_frozen_does_nothing_when_it_wakes(two: Two) -> None:
    since = time.time()
    borrowers, owner = two.reclaim(20)
    two.kill("slurm-govd", 1, signal.SIGSTOP)
    try:
        two.sandbox.stop_daemon("slurmctld", signal.SIGKILL)
        print(f"takeover after {two.led_by('ctl2'):.1f} s")
        two.until(lambda: two.states().get(owner) == "R", "the owner's job runs")
    finally:
        two.kill("slurm-govd", 1, signal.SIGCONT)
    two.until(lambda: "the lease was not renewed in time" in two.log(1), "it notices")
    two.stays(lambda: two.leader() == "ctl2", "ctl2 leads", 5)
    two.ended_once(borrowers, owner, since)
    assert two.metric(1, "slurm_gov_leader") == 0


def test_a_clean_stop_hands_over_at_once(two: Two) -> None:
    two.sandbox.stop_governor()
    lease = two.lease()
    assert lease is not None and not lease.held  # given back, not left to end
    two.sandbox.stop_daemon("slurmctld")  # the host is shut down; its slurmctld hands over
    took = two.led_by("ctl2")
    print(f"handed over after {took:.1f} s")
    now = two.lease()
    assert now is not None and now.term == lease.term + 1


@pytest.mark.parametrize("whole_host", [False, True], ids=["slurmctld", "host"])
def test_a_replacement_is_made_once(two: Two, whole_host: bool) -> None:
    """The primary dies while a node is being replaced: the other goes on with that replacement."""
    since = time.time()
    for file in ("calls", "done"):
        (two.work / file).unlink(missing_ok=True)
    (two.work / "hang").touch()
    order = [program("slurm-gov"), "node", "replace", "n4", "--reason", "a test", "--no-wait"]
    two.sandbox.run(order)
    two.until(lambda: (two.work / "calls").exists(), "the provider is called")
    if whole_host:
        two.sandbox.kill_governor()
    two.sandbox.stop_daemon("slurmctld", signal.SIGKILL)
    two.led_by("ctl2")
    two.until(lambda: len((two.work / "calls").read_text().splitlines()) == 2, "the new leader follows it")
    (two.work / "hang").unlink()
    two.until(lambda: two.sandbox.nodes().get("n4") == "idle", "the node is back", 90)
    # One was made; who was asked again was asked for the same one.
    assert (two.work / "done").read_text() == "replace n4\n"
    assert len(set((two.work / "calls").read_text().splitlines())) == 1
    journal = Journal(locate(database(two.sandbox.layout)), create=False)
    steps = [one.after for one in journal.history("n4", since) if one.after]
    journal.close()
    assert steps == ["draining", "replacing", "verifying", "healthy"]
