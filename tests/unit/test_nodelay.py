"""Which sacctmgr gets the library that keeps it from waiting."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm_gov.slurm.nodelay import LIBRARY, environment


@pytest.mark.parametrize(
    ("running", "helped"),
    [("22.05.8", True), ("23.11.10", True), ("24.05.0", False), ("25.11.0-0rc1", False), ("", False)],
)
def test_it_is_for_slurm_before_24_05(tmp_path: Path, running: str, helped: bool) -> None:
    (tmp_path / LIBRARY).touch()
    config = {"SLURM_VERSION": running, "PluginDir": f"/nowhere:{tmp_path}"}
    assert environment(config) == ({"LD_PRELOAD": str(tmp_path / LIBRARY)} if helped else {})


def test_where_it_is_not_installed_nothing_is_preloaded(tmp_path: Path) -> None:
    assert environment({"SLURM_VERSION": "22.05.8", "PluginDir": str(tmp_path)}) == {}
    assert environment({"SLURM_VERSION": "22.05.8"}) == {}
