"""XIDs: lines as drivers wrote them, the table, and what is said about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slurm_gov.health import kernel_log
from slurm_gov.health.checks import xid
from slurm_gov.health.checks.xid import Known, Settings, Xid, judge, parse, remember, rules, table
from slurm_gov.health.messages import Advice, Fault, State

NOW = 1_000_000.0
GPUS = {"0000:65:00": Known(3, "GPU-3"), "0000:9b:00": Known(5, "GPU-5")}
FELL = "NVRM: Xid (PCI:0000:65:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


def advice(to: str, pci: str = "0000:65:00") -> str:
    return f"NVRM: Xid (PCI:{pci}): 154, GPU recovery action changed from 0x0 (None) to {to}"


def say(*lines: str, now: float = NOW, overrides: Any = None, at: float = NOW) -> list[tuple[Any, ...]]:
    kept: list[Xid] = []
    for line in lines:
        found = parse(line, at)
        assert found, line
        kept = remember(kept, found)
    results = judge(kept, rules(overrides or {}), GPUS, now, Settings())
    return [(r.code, r.gpu_index, r.state, r.fault, r.advice) for r in results]


@pytest.mark.parametrize(
    ("line", "code", "pci", "switch"),
    [
        (FELL, 79, "0000:65:00", False),
        ("NVRM: Xid (PCI:0000:9b:00): 31, pid=2410, name=python3, Ch 00000008, MMU Fault", 31, "0000:9b:00", False),
        ("NVRM: Xid (PCI:0000:3b:00.0): 94, pid=1, Contained: DRAM (0x0,0x0). RST: No", 94, "0000:3b:00", False),
        ("NVRM: Xid (0000:03:00): 59, 0082(2e8c) 00000000 00000000", 59, "0000:03:00", False),
        ("[ 12.5] NVRM: Xid (PCI:00000001:C1:00): 48, pid=99, An uncorrectable error", 48, "0001:c1:00", False),
        ("nvidia-nvswitch3: SXid (PCI:0000:c4:00.0): 12028, Non-fatal, Link 32", 12028, "0000:c4:00", True),
    ],
)  # fmt: skip
def test_lines(line: str, code: int, pci: str, switch: bool) -> None:
    found = parse(line, NOW)
    assert found
    assert (found.code, found.pci, found.switch) == (code, pci, switch)


@pytest.mark.parametrize(
    "line",
    ["", "NVRM: loading NVIDIA UNIX x86_64 Kernel Module", "Xid (PCI:0000:65:00): 79", "NVRM: Xid (PCI:evil): 79, x",
     "NVRM: GPU at PCI:0000:65:00: GPU-8d2a4d2a-0000-1111-2222-333344445555"],
)  # fmt: skip
def test_lines_that_are_none(line: str) -> None:
    assert parse(line, NOW) is None


def test_the_table_is_whole_and_speaks_our_words() -> None:
    assert set(table()) == set(range(1, 174))
    for code, rule in table().items():
        assert rule.state in set(State) - {State.UNKNOWN}, code
        assert rule.fault in set(Fault), code
        assert rule.advice in set(Advice), code
        assert rule.state != "fail" or rule.advice != "none", code


@pytest.mark.parametrize(
    ("code", "state", "fault", "what"),
    [(79, "fail", "gpu_lost", "reboot"), (74, "fail", "gpu_link", "replace"), (64, "fail", "gpu_memory", "replace"),
     (48, "fail", "gpu_memory", "reset_gpu"), (95, "fail", "gpu_memory", "reset_gpu"),
     (73, "fail", "gpu_reset", "reboot"), (119, "fail", "gpu_driver", "reset_gpu"),
     (13, "warn", "gpu_app", "restart_app"), (31, "warn", "gpu_app", "restart_app"),
     (63, "warn", "gpu_reset", "drain"), (94, "warn", "gpu_memory", "drain")],
)  # fmt: skip
def test_the_ones_that_everybody_meets(code: int, state: str, fault: str, what: str) -> None:
    line = f"NVRM: Xid (PCI:0000:65:00): {code}, pid=1, text"
    assert say(line) == [(code, 3, state, fault, what)]


@pytest.mark.parametrize("code", [45, 106, 66])
def test_what_needs_nothing_is_not_said(code: int) -> None:
    assert say(f"NVRM: Xid (PCI:0000:65:00): {code}, pid=1, text") == []


def test_unknown_numbers_warn() -> None:
    assert say("NVRM: Xid (PCI:0000:65:00): 999, new") == [(999, 3, "warn", "other", "person")]


def test_a_gpu_that_nobody_knows_is_named_by_its_address() -> None:
    kept = [Xid(79, "0000:01:00", "", NOW)]
    (result,) = judge(kept, rules({}), {}, NOW, Settings())
    assert (result.subject, result.gpu_index) == ("pci 0000:01:00 xid 79", None)


def test_a_site_knows_better() -> None:
    assert say(FELL, overrides={"79": {"advice": "replace", "state": None, "fault": None}}) == [
        (79, 3, "fail", "gpu_lost", "replace")
    ]
    assert say(FELL, overrides={"79": {"state": "ok"}}) == []
    assert say("NVRM: Xid (PCI:0000:65:00): 999, new", overrides={"999": {"state": "fail", "advice": "reboot"}}) == [
        (999, 3, "fail", "other", "reboot")
    ]


class Test154:
    """XID 154 carries NVIDIA's own advice and wins."""

    @pytest.mark.parametrize(
        ("to", "state", "what"),
        [("0x1 (GPU Reset Required)", "fail", "reset_gpu"), ("0x2 (Node Reboot Required)", "fail", "reboot"),
         ("0x3 (Drain P2P)", "warn", "drain"), ("0x4 (Drain and Reset)", "warn", "drain")],
    )  # fmt: skip
    def test_it_says_what_to_do(self, to: str, state: str, what: str) -> None:
        gsp = "NVRM: Xid (PCI:0000:65:00): 119, Timeout after 6s of waiting for RPC response from GPU0 GSP!"
        app = "NVRM: Xid (PCI:0000:65:00): 31, pid=1, MMU Fault"
        said = {(119, 3, state, "gpu_driver", what), (154, 3, state, "gpu_reset", what)}
        assert set(say(gsp, advice(to))) == set(say(advice(to), gsp)) == said
        # What a job did itself is no more than that, whatever the GPU needs.
        assert (31, 3, "warn", "gpu_app", "restart_app") in say(app, advice(to))

    def test_it_is_about_its_own_gpu(self) -> None:
        other = "NVRM: Xid (PCI:0000:9b:00): 79, fell"
        assert (79, 5, "fail", "gpu_lost", "reboot") in say(other, advice("0x4 (Drain and Reset)"))

    def test_it_fades_not_and_the_last_one_counts(self) -> None:
        lines = [advice("0x4 (Drain and Reset)"), advice("0x2 (Node Reboot Required)")]
        assert say(*lines, now=NOW + 1e6) == [(154, 3, "fail", "gpu_reset", "reboot")]

    def test_none_ends_what_was_said_of_the_gpu(self) -> None:
        healed = (
            "NVRM: Xid (PCI:0000:65:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"
        )
        assert say(FELL, advice("0x1 (GPU Reset Required)"), healed) == []
        assert say(healed, FELL) == [(79, 3, "fail", "gpu_lost", "reboot")]

    def test_words_that_nobody_knows_need_a_person(self) -> None:
        assert say(advice("0x63 (Something New)")) == [(154, 3, "fail", "gpu_reset", "person")]
        assert say("NVRM: Xid (PCI:0000:65:00): 154, other words") == [(154, 3, "warn", "gpu_reset", "person")]


def test_what_a_job_did_fades_and_what_hardware_did_stays() -> None:
    app = "NVRM: Xid (PCI:0000:65:00): 13, pid=1, Graphics Exception"
    assert say(app, now=NOW + 3599) != []
    assert say(app, now=NOW + 3601) == []
    assert say(FELL, now=NOW + 1e7) != []


def test_nvlink_5_says_in_its_text_whether_it_is_fatal() -> None:
    form = "NVRM: Xid (PCI:0000:65:00): 145, RLW_REMAP {} XC0 i0 Link 00 (0x0 0x0)"
    assert say(form.format("Nonfatal"))[0][2] == "warn"
    assert say(form.format("Fatal"))[0][2] == "fail"


def test_switches() -> None:
    form = "nvidia-nvswitch0: SXid (PCI:0000:c4:00.0): 20034, {}, Link 30 LTSSM Fault Up"
    assert say(form.format("Fatal")) == [(20034, None, "fail", "gpu_link", "reboot")]
    assert say(form.format("Non-fatal")) == [(20034, None, "warn", "gpu_link", "none")]


def test_a_flood_of_the_same_is_kept_once() -> None:
    kept: list[Xid] = []
    for second in range(1000):
        kept = remember(kept, Xid(31, "0000:65:00", "", NOW + second))
    assert [one.time for one in kept] == [NOW + 999]


def test_gpus_as_the_driver_lists_them(tmp_path: Path) -> None:
    for bus, uuid in (("9b", "5" * 8), ("65", "3" * 8)):
        folder = tmp_path / f"driver/nvidia/gpus/0000:{bus}:00.0"
        folder.mkdir(parents=True)
        text = f"Model: \t\t NVIDIA H100 80GB HBM3\nGPU UUID: \t GPU-{uuid}-aaaa-bbbb-cccc-ddddeeeeffff\n"
        (folder / "information").write_text(text + "Video BIOS: \t 96.00.74.00.01\nDevice Minor: \t 3\n")
    assert xid.gpus_of_driver(tmp_path) == {
        "0000:65:00": Known(0, "GPU-33333333-aaaa-bbbb-cccc-ddddeeeeffff"),
        "0000:9b:00": Known(1, "GPU-55555555-aaaa-bbbb-cccc-ddddeeeeffff"),
    }
    assert xid.gpus_of_driver(tmp_path / "none") == {}


class TestKernelLog:
    def test_a_record(self) -> None:
        record = f"3,1234,98765432,-;{FELL}\n SUBSYSTEM=pci\n DEVICE=+pci:0000:65:00.0\n"
        assert kernel_log.parse_kmsg(record) == kernel_log.Line(98.765432, FELL)

    @pytest.mark.parametrize("record", ["", "x", f"12,1,1,-;{FELL}", "a,b,c;d", ";", f"11,7,5000,-;{FELL}"])
    def test_what_programs_wrote_there_is_left_out(self, record: str) -> None:
        assert kernel_log.parse_kmsg(record) is None

    def test_a_line_of_the_journal(self) -> None:
        origin = '"_TRANSPORT":"kernel","SYSLOG_FACILITY":"0"'
        line = f'{{{origin},"_SOURCE_MONOTONIC_TIMESTAMP":"98765432","MESSAGE":"{FELL}"}}'
        assert kernel_log.parse_journal(line) == kernel_log.Line(98.765432, FELL)
        for bad in (
            "",
            "{}",
            "[]",
            '{"MESSAGE":[78,86]}',
            line.replace("kernel", "syslog"),
            line.replace('"0"', '"1"'),
        ):
            assert kernel_log.parse_journal(bad) is None

    def test_a_file_is_read_as_it_grows(self, tmp_path: Path) -> None:
        file = tmp_path / "kmsg"
        file.write_text("6,1,1000000,-;one\n6,2,2000000,-;tw")
        log = kernel_log.KernelLog(str(file))
        try:
            assert [line.text for line in log.read()] == ["one"]
            with file.open("a") as more:
                more.write("o\n14,3,3000000,-;forged\n6,4,4000000,-;four\n")
            assert [line.text for line in log.read()] == ["two", "four"]
            assert list(log.read()) == []
        finally:
            log.close()

    def test_the_real_one_never_waits(self) -> None:
        try:
            log = kernel_log.KernelLog("/dev/kmsg")
        except OSError as error:
            pytest.skip(f"/dev/kmsg: {error.strerror}")
        try:
            lines = list(log.read(limit=100_000))
            assert all(line.uptime >= 0 for line in lines)
        finally:
            log.close()
