"""The two C programs of the bench, built when they are needed."""

from __future__ import annotations

import subprocess
from pathlib import Path

_HERE = Path(__file__).parent
_PLUGIN = _HERE.parent / "plugin_c"
_CC = ["cc", "-std=c11", "-D_DEFAULT_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]


def submit(folder: Path) -> Path:
    """Submits jobs and tells what each cost slurmctld."""
    return _build(folder / "submit", [_HERE / "submit.c"], ["-lslurm"])


def ask(folder: Path) -> Path:
    """Asks slurm-govd with the plugin's own code."""
    sources = [_HERE / "ask.c", _PLUGIN / "client.c", _PLUGIN / "wire.c"]
    return _build(folder / "ask", sources, [f"-I{_PLUGIN}"])


def _build(program: Path, sources: list[Path], options: list[str]) -> Path:
    subprocess.run([*_CC, "-o", program, *sources, *options], check=True)
    return program
