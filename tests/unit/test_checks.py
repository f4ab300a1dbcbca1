"""The checks beside GPUs: what each reads from real layouts, and how it judges."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from slurm_gov.health.checks import clock, disk, expected, infiniband, memory, mounts, registry, site, slurmd, tasks
from slurm_gov.health.checks.base import Look, Outcome, Result

NOW = 1_000_000.0
GB = 2**30


def states(results: list[Result]) -> list[tuple[str, str]]:
    return [(one.state, one.subject) for one in results]


# -- disk -----------------------------------------------------------------------------------------------


def space(free: float = 50, total: int = 1000 * GB, inodes: float = 50, read_only: bool = False) -> disk.Space:
    return disk.Space("/x", total, int(total * free / 100), 10_000, int(100 * inodes), read_only)


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (space(), None),
        (space(free=4), "warn"),
        (space(free=0.5), "warn"),  # 5 GB of a large disk
        (space(free=0.5, total=10 * GB), "fail"),
        (space(free=0), "fail"),
        (space(inodes=0.4), "fail"),
        (space(read_only=True), "fail"),
        (disk.Space("/x", 100 * GB, 50 * GB, 0, 0, False), None),  # btrfs counts no inodes
        (disk.Space("/x", 0, 0, 0, 0, False), None),
    ],
)
def test_disk(seen: disk.Space, state: str | None) -> None:
    assert states(disk.judge([seen], disk.Settings())) == ([(state, "/x")] if state else [])


def test_disk_looks_at_what_is_there(tmp_path: Path) -> None:
    settings = disk.Settings(paths=(str(tmp_path), "/proc", "/not/there", f"{__file__}/below"))
    outcome = disk.run(Look("n1", NOW), {"disk": settings})
    assert [one.subject for one in outcome.results["disk"] or []] in ([], [str(tmp_path)])


MOUNTINFO = """\
22 1 8:1 / / {} shared:1 - ext4 /dev/sda1 {}
23 22 0:5 / /proc rw,nosuid shared:2 - proc proc rw
24 22 8:2 / /my\\040data rw,relatime shared:3 - xfs /dev/sdb1 ro,attr2
25 22 7:0 / /opt ro,nodev shared:4 - squashfs /dev/loop0 ro
26 22 0:9 / /tmp rw,nosuid shared:5 - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("mount", "whole", "path", "so"),
    [("rw", "rw", "/", False), ("rw", "ro,errors=remount-ro", "/var", True), ("rw", "ro", "/tmp/x", False),
     ("ro,relatime", "rw", "/var", False), ("rw", "rw", "/my data/x", True), ("rw", "rw", "/opt", False)],
)  # fmt: skip
def test_read_only_is_said_of_the_file_system_not_of_the_mount(mount: str, whole: str, path: str, so: bool) -> None:
    assert disk.read_only(MOUNTINFO.format(mount, whole), path) is so


# -- mounts ---------------------------------------------------------------------------------------------

MOUNTS = """\
/dev/sda1 / ext4 rw,relatime,errors=remount-ro 0 0
proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0
10.0.0.5:/export/home /home nfs4 rw,vers=4.2,hard,proto=tcp 0 0
10.0.0.6@o2ib:10.0.0.7@o2ib:/scratch /scratch lustre rw,flock 0 0
s3fs /buckets/my\\040data fuse.s3fs rw,nosuid,nodev 0 0
lxcfs /var/lib/lxcfs fuse.lxcfs rw,nosuid,nodev 0 0
portal /run/user/0/doc fuse.portal rw 0 0
tmpfs /gone tmpfs rw 0 0
server:/old /covered nfs rw 0 0
tmpfs /covered tmpfs rw 0 0
"""


def test_network_mounts() -> None:
    assert mounts.network_mounts(MOUNTS) == ["/home", "/scratch", "/buckets/my data"]


def test_missing_mounts() -> None:
    assert states(mounts.missing(MOUNTS, ["/home", "/scratch/", "/data"])) == [("fail", "/data")]


def test_a_mount_that_hangs_does_not_hang_the_check() -> None:
    def touch(point: str) -> None:
        if point == "/hangs":
            time.sleep(60)
        if point == "/stale":
            raise OSError(116, "Stale file handle")

    started = time.monotonic()
    found = mounts.touch_all(["/hangs", "/stale", "/well"], 1.0, touch)
    assert time.monotonic() - started < 30
    assert {(one.subject, one.state) for one in found} == {("/hangs", "fail"), ("/stale", "fail")}
    assert "no answer in 1 s" in next(one for one in found if one.subject == "/hangs").message
    assert "Stale file handle" in next(one for one in found if one.subject == "/stale").message


def test_mounts_from_proc(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text(f"server:/a {tmp_path} nfs rw 0 0\nserver:/b /not/there nfs rw 0 0\n")
    outcome = mounts.run(Look("n1", NOW, proc=tmp_path), {"mounts": mounts.Settings(required=("/must",))})
    assert states(outcome.results["mounts"] or []) == [("fail", "/must"), ("fail", "/not/there")]
    outcome = mounts.run(Look("n1", NOW, proc=tmp_path / "none"), {"mounts": mounts.Settings()})
    assert states(outcome.results["mounts"] or []) == [("unknown", "")]


# -- tasks ----------------------------------------------------------------------------------------------

STAT = "{} ({}) {} 1 812 812 0 -1 4194560 2048 0 3 0 12 7 0 0 20 0 1 0 {} 18432000 512 18446744073709551615 1 1 0"


def test_stat() -> None:
    assert tasks.parse(STAT.format(812, "nvidia-smi", "D", 5551)) == (tasks.Task(812, "nvidia-smi", 5551), "D")
    assert tasks.parse(STAT.format(9, "a) D (b", "S", 7)) == (tasks.Task(9, "a) D (b", 7), "S")
    for bad in ("", "812", "812 (x) D", "x (y) D " + "0 " * 30):
        assert tasks.parse(bad) is None


def test_tasks_count_only_while_they_are_the_same() -> None:
    stuck, settings = tasks.Task(812, "dd", 5), tasks.Settings()
    results, kept = tasks.judge([stuck], {}, NOW, settings)
    assert results == []
    results, kept = tasks.judge([stuck], kept, NOW + 200, settings)
    assert states(results) == [("warn", "")]
    assert "dd (812) in state D for 3 min" in results[0].message
    results, _ = tasks.judge([stuck, tasks.Task(9, "x", 1)], kept, NOW + 700, settings)
    assert states(results) == [("fail", "")]
    results, _ = tasks.judge([tasks.Task(812, "dd", 6)], kept, NOW + 700, settings)
    assert results == [], "another process with the same number"


def test_tasks_from_proc(tmp_path: Path) -> None:
    for pid, state in ((10, "D"), (11, "S"), (12, "D")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(STAT.format(pid, "cp", state, 100))
    (tmp_path / "13").mkdir()
    (tmp_path / "meminfo").write_text("")
    first = tasks.run(Look("n1", NOW, proc=tmp_path), {"tasks": tasks.Settings()})
    later = tasks.run(Look("n1", NOW + 1000, proc=tmp_path, memory=first.memory), {"tasks": tasks.Settings()})
    assert "and 1 more" in (later.results["tasks"] or [])[0].message


# -- memory ---------------------------------------------------------------------------------------------

MEMINFO = (
    "MemTotal:       {} kB\nMemFree:  1 kB\nMemAvailable:   {} kB\nHardwareCorrupted: {} kB\nHugePages_Total: 0\n"
)
TOTAL = 512_000 * 1024


def memory_of(available: int = TOTAL // 2, corrupted: int = 0, **more: Any) -> memory.Reading:
    return memory.Reading(memory.parse_meminfo(MEMINFO.format(TOTAL, available, corrupted)), **more)


@pytest.mark.parametrize(
    ("reading", "found"),
    [
        (memory_of(), []),
        (memory_of(available=TOTAL // 100), [("warn", "available")]),
        (memory_of(corrupted=8192), [("fail", "corrupted")]),
        (memory_of(uncorrected=1), [("fail", "uncorrected")]),
        (memory_of(expect_mb=512_000), []),
        (memory_of(expect_mb=515_000), []),  # less than 1 % is the kernel's
        (memory_of(expect_mb=1_024_000), [("fail", "size")]),
        (memory.Reading({}), [("unknown", "")]),
    ],
)
def test_memory(reading: memory.Reading, found: list[tuple[str, str]]) -> None:
    assert states(memory.judge(reading, {}, NOW, memory.Settings())[0]) == found


def test_corrected_errors_count_within_an_hour() -> None:
    settings = memory.Settings()
    _, kept = memory.judge(memory_of(corrected=5000), {}, NOW, settings)
    results, kept = memory.judge(memory_of(corrected=6000), kept, NOW + 1800, settings)
    assert states(results) == [("warn", "corrected")]
    results, kept = memory.judge(memory_of(corrected=6100), kept, NOW + 3700, settings)
    assert results == []


def test_memory_from_proc_and_sys(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO.format(TOTAL, TOTAL, 0))
    for controller, errors in (("mc0", 0), ("mc1", 2)):
        folder = tmp_path / "devices/system/edac/mc" / controller
        folder.mkdir(parents=True)
        (folder / "ue_count").write_text(f"{errors}\n")
        (folder / "ce_count").write_text("0\n")
    look = Look("n1", NOW, proc=tmp_path, sys=tmp_path)
    outcome = memory.run(look, {"memory": memory.Settings(expect_mb=0)})
    assert states(outcome.results["memory"] or []) == [("fail", "uncorrected")]


# -- clock ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reading", "found"),
    [
        (clock.Reading(True, 0.01, 100.0), []),
        (clock.Reading(True, 5.0, 100.0), [("warn", "error")]),
        (clock.Reading(True, 60.0, 100.0), [("fail", "error")]),
        (clock.Reading(False, 16.0, 100.0), [("warn", "synchronised")]),
        (clock.Reading(True, 0.01, 97.0), [("warn", "jump")]),
    ],
)
def test_clock(reading: clock.Reading, found: list[tuple[str, str]]) -> None:
    results, kept = clock.judge(reading, {"offset": 100.0}, clock.Settings())
    assert states(results) == found
    assert kept == {"offset": reading.offset}


def test_a_site_may_do_without_a_kept_clock() -> None:
    reading = clock.Reading(False, 16.0, 100.0)
    assert clock.judge(reading, {}, clock.Settings(synchronised=False))[0] == []


def test_the_kernel_is_asked() -> None:
    reading = clock.read_clock()
    assert reading.error >= 0
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    assert abs(reading.offset - boot) < 60


# -- slurmd ---------------------------------------------------------------------------------------------

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1AA2 00000000:0000 0A 00000000:{:08X} 00:00000000 00000000     0        0 20593 1 0 100 0 0 10 0
   1: 0100007F:1AA2 0100007F:9C40 01 00000000:00000009 00:00000000 00000000     0        0 20601 1 0 20 4 30 10 -1
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 18712 1 0 100 0 0 10 0
"""


def test_listening() -> None:
    assert slurmd.parse(TCP.format(0), 6818) == 0
    assert slurmd.parse(TCP.format(5), 6818) == 5
    assert slurmd.parse(TCP.format(0), 6819) is None


@pytest.mark.parametrize(("waiting", "state"), [(None, "fail"), (3, "fail"), (0, None)])
def test_slurmd_is_given_some_looks(waiting: int | None, state: str | None) -> None:
    kept: Any = {}
    for _ in range(2):
        results, kept = slurmd.judge(waiting, kept, slurmd.Settings())
        assert results == []
    results, kept = slurmd.judge(waiting, kept, slurmd.Settings())
    assert [one.state for one in results] == ([state] if state else [])
    assert slurmd.judge(0, kept, slurmd.Settings()) == ([], {"gone": 0, "stuck": 0})


def test_slurmd_from_proc(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text(TCP.format(0))
    settings = {"slurmd": slurmd.Settings(looks=1)}
    assert slurmd.run(Look("n1", NOW, proc=tmp_path), settings).results == {"slurmd": []}
    settings = {"slurmd": slurmd.Settings(port=1, looks=1)}
    assert states(slurmd.run(Look("n1", NOW, proc=tmp_path), settings).results["slurmd"] or []) == [("fail", "")]
    none = slurmd.run(Look("n1", NOW, proc=tmp_path / "x"), settings).results["slurmd"]
    assert states(none or []) == [("unknown", "")]


# -- infiniband -----------------------------------------------------------------------------------------


def hca(
    folder: Path, name: str, state: str = "4: ACTIVE", rate: str = "400 Gb/sec (4X NDR)", downed: int = 0
) -> None:
    """A port as the kernel's sysfs has it."""
    port = folder / "class/infiniband" / name / "ports/1"
    (port / "counters").mkdir(parents=True, exist_ok=True)
    physical = "5: LinkUp" if "ACTIVE" in state else "2: Polling"
    for file, text in {"state": state, "phys_state": physical, "rate": rate, "counters/link_downed": downed}.items():
        (port / file).write_text(f"{text}\n")


class TestInfiniband:
    @pytest.fixture
    def sys(self, tmp_path: Path) -> Path:
        for number in range(4):
            hca(tmp_path, f"mlx5_{number}")
        return tmp_path

    def look(self, sys: Path, last: Outcome | None = None, at: float = NOW, **settings: Any) -> Outcome:
        kept = json.loads(json.dumps(last.memory)) if last else {}
        return infiniband.run(Look("n1", at, sys=sys, memory=kept), {"infiniband": infiniband.Settings(**settings)})

    def said(self, outcome: Outcome) -> list[tuple[str, str]]:
        return states(outcome.results["infiniband"] or [])

    def test_reading(self, sys: Path) -> None:
        ports = infiniband.read_ports(sys / "class/infiniband")
        assert len(ports) == 4
        assert ports[0] == infiniband.Port("mlx5_0/1", True, "ACTIVE", "LinkUp", 400.0, 0)

    def test_no_hardware_is_no_fault(self, tmp_path: Path) -> None:
        assert self.said(self.look(tmp_path)) == []
        assert self.said(self.look(tmp_path, count=1, looks=1)) == [("fail", "count")]

    def test_a_port_that_was_never_active_is_unused(self, sys: Path) -> None:
        hca(sys, "mlx5_9", "1: DOWN")
        outcome = None
        for _ in range(5):
            outcome = self.look(sys, outcome)
            assert self.said(outcome) == []

    def test_a_link_that_stays_down(self, sys: Path) -> None:
        outcome = self.look(sys)
        hca(sys, "mlx5_2", "1: DOWN")
        for _ in range(2):
            outcome = self.look(sys, outcome)
            assert self.said(outcome) == []
        outcome = self.look(sys, outcome)
        assert self.said(outcome) == [("fail", "mlx5_2/1")]
        hca(sys, "mlx5_2")
        assert self.said(self.look(sys, outcome)) == []

    def test_a_card_that_is_gone(self, sys: Path) -> None:
        outcome = self.look(sys)
        (sys / "class/infiniband/mlx5_1").rename(sys / "gone")
        assert self.said(self.look(sys, outcome, looks=1)) == [("fail", "mlx5_1/1")]

    def test_a_slow_link(self, sys: Path) -> None:
        outcome = self.look(sys)
        hca(sys, "mlx5_3", rate="100 Gb/sec (2X HDR)")
        assert self.said(self.look(sys, outcome)) == [("fail", "mlx5_3/1")]
        assert self.said(self.look(sys, outcome, rate=100.0)) == []

    def test_flaps_between_two_looks(self, sys: Path) -> None:
        outcome = self.look(sys)
        hca(sys, "mlx5_0", downed=2)
        outcome = self.look(sys, outcome, NOW + 60)
        assert self.said(outcome) == [("warn", "mlx5_0/1")]
        hca(sys, "mlx5_0", downed=5)
        outcome = self.look(sys, outcome, NOW + 120)
        assert self.said(outcome) == [("fail", "mlx5_0/1")]
        outcome = self.look(sys, outcome, NOW + 4000)
        assert self.said(outcome) == []

    def test_what_flapped_before_we_came_is_not_counted(self, sys: Path) -> None:
        hca(sys, "mlx5_0", downed=900)
        assert self.said(self.look(sys, self.look(sys))) == []

    def test_what_is_ignored(self, sys: Path) -> None:
        hca(sys, "mlx5_2", "1: DOWN")
        assert self.said(self.look(sys, ports=("mlx5_2/1",), looks=1)) == [("fail", "mlx5_2/1")]
        assert self.said(self.look(sys, ports=("mlx5_2/1",), looks=1, ignore=("mlx5_2/1",))) == []


# -- site checks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "output", "state", "message"),
    [
        (0, "OK - all well | a=1", "ok", ""),
        (1, "\nDISK WARNING - 4 % free |/=96%;95\nmore\n", "warn", "nhc: DISK WARNING - 4 % free"),
        (2, "bad\x1b[2J thing", "fail", "nhc: bad [2J thing"),
        (3, "", "unknown", "nhc: exit code 3"),
        (77, "", "unknown", "nhc: exit code 77"),
        (127, "", "unknown", "nhc: not found"),
        (-9, "", "unknown", "nhc: ended by signal 9"),
    ],
)
def test_nagios(code: int, output: str, state: str, message: str) -> None:
    result = site.judge("nhc", code, output)
    assert (result.state, result.message) == (state, message)


def test_programs_that_know_only_good_and_bad() -> None:
    assert site.judge("nhc", 1, "ERROR: nhc: Health check failed", nonzero="fail").state == "fail"
    assert site.judge("nhc", 127, "", nonzero="fail").state == "unknown"
    assert site.judge("nhc", -9, "", nonzero="fail").state == "unknown"


# -- all of them ----------------------------------------------------------------------------------------


def test_slurm_is_asked_once_an_hour_and_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        f'[ -e {tmp_path}/down ] && {{ echo "Unable to contact slurm controller" >&2; exit 1; }}\n'
        'echo "NodeName=n1"; echo "   Gres=gpu:h100:8"; echo "   RealMemory=512000 AllocMem=0"\n'
    )
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    asked = lambda: (tmp_path / "asked").read_text().count("\n")  # noqa: E731

    def ask(kept: Any, at: float) -> tuple[expected.Expected, Any]:
        return expected.expected(Look("n1", at, memory={"slurm": kept}))

    told, kept = ask({}, NOW)
    assert told == expected.Expected(8, 512_000)
    told, kept = ask(kept, NOW + 3000)
    assert (told.gpus, asked()) == (8, 1)
    (tmp_path / "down").touch()
    told, kept = ask(kept, NOW + 4000)
    assert (told.gpus, asked()) == (8, 2), "what was known stays so while nobody answers"
    told, kept = ask(kept, NOW + 4100)
    assert asked() == 2, "and it is not asked again at once"
    told, kept = ask(kept, NOW + 4400)
    assert asked() == 3


def test_every_probe_is_whole() -> None:
    names = set()
    for name in registry.NAMES:
        probe = registry.probe(name)
        assert probe.name == name
        assert 0 < probe.limit <= 30 <= max(probe.every, 30)
        assert not names & set(probe.settings)
        names |= set(probe.settings)
        for made in probe.settings.values():
            assert made().__doc__, "a threshold says why"
