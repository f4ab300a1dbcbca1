"""The agent's metrics as a file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from slurm_gov.health import textfile
from slurm_gov.health.board import Board
from slurm_gov.health.checks.base import FAIL, OK, UNKNOWN, WARN, Result


def board() -> Board:
    made = Board()
    made.put("gpu_count", [], 100.0)
    made.put("gpu_memory", [Result(WARN, 'row "remap"\n', "gpu 1"), Result(FAIL, "ecc", "gpu 3")], 110.0)
    made.put("clock", [Result(UNKNOWN, "no answer")], 120.0)
    made.inject({"xid": [(Result(FAIL, "79", "gpu 3"), 90.0)]})
    return made


def test_the_worst_of_each_check_and_no_text_of_anybody() -> None:
    said = textfile.exposition(board().entries(), "1.2", 130.0)
    values = dict(line.rsplit(" ", 1) for line in said.splitlines() if not line.startswith("#"))
    state = 'slurm_gov_agent_check_state{{check="{}"}}'.format
    assert [values[state(c)] for c in ("gpu_count", "gpu_memory", "clock", "xid")] == ["0", "3", "2", "3"]
    assert values['slurm_gov_agent_check_troubles{check="gpu_memory"}'] == "2"
    assert values['slurm_gov_agent_check_timestamp_seconds{check="clock"}'] == "120.0"
    assert (values["slurm_gov_agent_injected"], values["slurm_gov_agent_timestamp_seconds"]) == ("1", "130.000")
    assert "remap" not in said
    assert set(textfile.STATES) == {OK, WARN, UNKNOWN, FAIL}


def test_promtool_finds_nothing_wrong() -> None:
    for entries in (board().entries(), []):
        text = textfile.exposition(entries, "1.2", 130.0)
        done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "slurm_gov_agent.prom"
    for text in ("one\n", "two\n"):
        textfile.write(file, text)
        assert [one.name for one in tmp_path.iterdir()] == [file.name]
        assert file.read_text() == text
    with pytest.raises(OSError):
        textfile.write(tmp_path / "nowhere" / "x.prom", "")
