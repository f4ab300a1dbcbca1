"""What keeps a sacctmgr before Slurm 24.05 from waiting for a third of a second: see plugin_c/nodelay.c."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from slurm_gov.slurm.parse import version

LIBRARY = "slurm_gov_nodelay.so"
NEEDED_BEFORE = (24, 5, 0)
"""From this version on Slurm needs no help."""


def environment(config: Mapping[str, str]) -> dict[str, str]:
    """What to add to sacctmgr's environment; ``config`` is slurm.conf as slurmctld has it. Nothing where the library
    is not installed (``slurm-gov install`` puts it beside the plugin), or not needed.
    """
    running = version(config.get("SLURM_VERSION", ""))
    if running is not None and running < NEEDED_BEFORE:
        for folder in config.get("PluginDir", "").strip().split(":"):
            if folder and (Path(folder) / LIBRARY).is_file():
                return {"LD_PRELOAD": str(Path(folder) / LIBRARY)}
    return {}
