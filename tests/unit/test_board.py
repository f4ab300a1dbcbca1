"""What the agent knows: since when, what makes a change, what fits into a message, what is injected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slurm_gov.health import injection
from slurm_gov.health.board import Board
from slurm_gov.health.checks.base import Result
from slurm_gov.health.checks.xid import Known, rules
from slurm_gov.health.injection import Injected
from slurm_gov.health.messages import MAX_BYTES, MAX_RESULTS, State, Status

HEAD: dict[str, Any] = {"node": "n1", "boot_id": "b", "sequence": 1, "time": 100.0, "agent_version": "0.1"}
HOT = Result("warn", "GPU 3: 88 °C", "gpu 3", "gpu_thermal", gpu_index=3)


def told(board: Board) -> list[tuple[str, str, str, float]]:
    return [(one.check, one.subject, str(one.state), one.since) for one in board.status(**HEAD).results]


def test_well_and_sick_and_well_again() -> None:
    board = Board()
    board.put("gpu_thermal", [], 1.0)
    assert told(board) == [("gpu_thermal", "", "ok", 1.0)]
    board.put("gpu_thermal", [HOT], 2.0)
    board.put("gpu_thermal", [HOT], 3.0)
    assert told(board) == [("gpu_thermal", "gpu 3", "warn", 2.0)]
    board.put("gpu_thermal", [], 4.0)
    assert told(board) == [("gpu_thermal", "", "ok", 4.0)]


def test_a_figure_in_a_message_is_no_change() -> None:
    board = Board()
    board.put("gpu_thermal", [HOT], 1.0)
    board.changed = False
    board.put("gpu_thermal", [Result("warn", "GPU 3: 89 °C", "gpu 3", "gpu_thermal", gpu_index=3)], 2.0)
    assert not board.changed
    assert board.status(**HEAD).results[0].message == "GPU 3: 89 °C"
    board.put("gpu_thermal", [Result("fail", "GPU 3: 99 °C", "gpu 3", "gpu_thermal", gpu_index=3)], 3.0)
    assert board.changed


def test_the_worst_comes_first() -> None:
    board = Board()
    for check, state in (("disk", "ok"), ("clock", "warn"), ("gpu_count", "unknown"), ("xid", "fail")):
        board.put(check, [Result(state)], 1.0)
    assert [one[2] for one in told(board)] == ["fail", "unknown", "warn", "ok"]


def test_what_does_not_fit_is_counted() -> None:
    board = Board()
    bad = [Result("fail", "x" * 400, f"gpu {i}") for i in range(10)]
    board.put("gpu_memory", [*bad, *(Result("warn", "é" * 400, f"w {i}") for i in range(400))], 1.0)
    status = board.status(**HEAD)
    assert len(status.results) + status.left_out == 410
    assert len(status.results) <= MAX_RESULTS
    assert len(status.model_dump_json().encode()) <= MAX_BYTES
    assert [one.state for one in status.results[:11]] == [State.FAIL] * 10 + [State.WARN]


def test_nothing_that_a_check_says_can_make_a_message_that_is_refused() -> None:
    board = Board()
    board.put("site", [Result("fail", "a\x1b[2J\nb" + "x" * 900, "s\x00" * 200, "storage", code=-9)], 1.0)
    status = board.status(**HEAD)
    assert Status.model_validate_json(status.model_dump_json()) == status
    assert status.results[0].message.startswith("a [2J b")
    assert status.results[0].code is None


def test_since_when_survives_the_agent() -> None:
    first = Board()
    first.put("gpu_thermal", [HOT], 2.0)
    first.put("disk", [], 2.0)
    second = Board()
    second.recall(first.to_json())
    assert told(second) == [], "every check must speak for itself"
    second.put("gpu_thermal", [HOT], 50.0)
    second.put("disk", [Result("fail", "full", "/")], 50.0)
    assert told(second) == [("disk", "/", "fail", 50.0), ("gpu_thermal", "gpu 3", "warn", 2.0)]


def fault(**changes: Any) -> Injected:
    return Injected(**({"number": 1, "time": 5.0, "boot_id": "b", "check": "xid", "code": 79, "gpu": 3} | changes))


def shown(*faults: Injected) -> dict[str, list[tuple[Result, float]]]:
    return injection.results(faults, rules({}), {"0000:65:00": Known(3, "GPU-3")})


def test_injected_faults_stand_beside_real_ones() -> None:
    board = Board()
    board.put("xid", [], 1.0)
    board.put("disk", [Result("warn", "/tmp: 4 % free", "/tmp")], 1.0)
    board.changed = False
    board.inject(shown(fault(), fault(number=2, check="disk", code=None, gpu=None, message="full")))
    assert board.changed
    results = {(one.check, one.subject): one for one in board.status(**HEAD).results}
    assert set(results) == {("xid", "gpu 3 xid 79"), ("disk", ""), ("disk", "/tmp")}
    drill = results["xid", "gpu 3 xid 79"]
    assert (drill.injected, drill.state, drill.fault, drill.advice, drill.code) == (
        True, State.FAIL, "gpu_lost", "reboot", 79,
    )  # fmt: skip
    assert drill.gpu and (drill.gpu.index, drill.gpu.uuid) == (3, "GPU-3")
    assert drill.since == 5.0
    assert results["disk", ""].injected and not results["disk", "/tmp"].injected
    board.inject({})
    assert told(board) == [("disk", "/tmp", "warn", 1.0), ("xid", "", "ok", 1.0)]


def test_a_real_result_does_not_end_a_drill() -> None:
    board = Board()
    board.inject(shown(fault()))
    board.put("xid", [], 9.0)
    assert told(board) == [("xid", "gpu 3 xid 79", "fail", 5.0)]


def test_injections_end_with_their_boot(tmp_path: Path) -> None:
    injection.save(tmp_path / "new", [fault(), fault(number=2, survives=True)])
    assert [one.number for one in injection.load(tmp_path / "new", "b")] == [1, 2]
    assert [one.number for one in injection.load(tmp_path / "new", "later")] == [2]
    assert injection.load(tmp_path, "b") == []
    for bad in ("", "{", "{}", '[{"number": 1}]', "[1]"):
        (tmp_path / "new" / "injected.json").write_text(bad)
        assert injection.load(tmp_path / "new", "b") == []
