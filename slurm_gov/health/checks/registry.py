"""All probes that come with the agent, each imported when it is first needed."""

from __future__ import annotations

from importlib import import_module

from slurm_gov.health.checks.base import Probe

NAMES = ("gpu", "infiniband", "disk", "mounts", "tasks", "memory", "clock", "slurmd")
# Not a probe: the kernel log is read as it comes, by the agent itself.
XID = "xid"


def probe(name: str) -> Probe:
    """The probe of a name in ``NAMES``."""
    found: Probe = import_module(f"slurm_gov.health.checks.{name}").PROBE
    return found


def fault_of(check: str) -> str:
    """What is most likely broken when a check gets no answer."""
    if check.startswith("gpu"):
        return "gpu_driver"
    words = {"infiniband": "network", "disk": "storage", "mounts": "storage", "memory": "memory", "clock": "clock"}
    return words.get(check, {"slurmd": "slurmd", "site": "site"}.get(check, "kernel"))
