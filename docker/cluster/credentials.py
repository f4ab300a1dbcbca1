"""Credentials and configuration for the cluster's Mosquitto: FOLDER HOST NODES."""

from __future__ import annotations

import sys
from pathlib import Path

from slurm_gov.health.credentials import broker_config, create_all


def main(folder: Path, host: str, nodes: int) -> None:
    create_all(folder, [host], [f"n{i}" for i in range(1, nodes + 1)])
    (folder / "mosquitto.conf").write_text(broker_config(folder) + "user root\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
