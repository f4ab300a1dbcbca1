"""Node agents in a sandbox: one per node, each with its own boot, its own kernel log and its own credential.

The nodes share one machine: what would be the machine's own (its memory, its clock, its GPUs) is not checked. The
kernel log of a node is a file, so that a test can write into it what a driver would.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slurm_gov.sandbox.broker import ADDRESS, BrokerFiles
from slurm_gov.sandbox.layout import Layout


def folder(layout: Layout, node: str) -> Path:
    """Everything of a node's agent: agent.yaml, boot_id, kmsg, and state/ that a reboot does not empty."""
    return layout.agents / node


def config_file(layout: Layout, node: str) -> Path:
    return folder(layout, node) / "agent.yaml"


def prepare(layout: Layout, node: str, broker: BrokerFiles, port: int, changes: Mapping[str, Any]) -> Path:
    """Write the configuration of a node's agent; ``port`` is its slurmd's, ``changes`` replace top-level settings."""
    from ruamel.yaml import YAML

    home = folder(layout, node)
    home.mkdir(parents=True, exist_ok=True)
    certificate, key = broker.credential(node)
    config: dict[str, Any] = {
        "node": node,
        "broker": {
            "host": ADDRESS, "port": broker.port, "ca": str(broker.ca), "cert": str(certificate), "key": str(key),
            "keepalive": "5s", "longest_wait": "2s",
        },
        "heartbeat": "1s",
        "checks": {
            "gpu": "off", "infiniband": "off", "clock": "off", "tasks": "off", "mounts": "off",
            "memory": {"expect_mb": 0, "warn_available": 0},
            "disk": {"paths": [str(layout.dir)]},
            "slurmd": {"port": port, "every": "2s"},
        },
        "roots": {"kernel_log": str(home / "kmsg"), "boot_id": str(home / "boot_id"), "state": str(home / "state")},
    }  # fmt: skip
    with config_file(layout, node).open("w") as file:
        YAML(typ="safe").dump(config | dict(changes), file)
    if not (home / "boot_id").exists():
        new_boot(layout, node)
    return config_file(layout, node)


def new_boot(layout: Layout, node: str) -> None:
    """What a reboot leaves: another boot id and an empty kernel log."""
    home = folder(layout, node)
    (home / "boot_id").write_text(f"{uuid.uuid4()}\n")
    (home / "kmsg").write_text("")


def kernel_says(layout: Layout, node: str, text: str) -> None:
    """Write a line into a node's kernel log, as the kernel does (facility 0, priority 3)."""
    with Path("/proc/uptime").open() as uptime, (folder(layout, node) / "kmsg").open("a") as log:
        log.write(f"3,1,{int(float(uptime.read().split()[0]) * 1e6)},-;{text}\n")
