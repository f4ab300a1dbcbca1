"""A private, real Mosquitto: TLS on, a credential per node, the access rules that etc/mosquitto has."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from slurm_gov.health.credentials import CredentialError, broker_config, create_all
from slurm_gov.sandbox.errors import SandboxError

ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class BrokerFiles:
    """The broker's folder: configuration, the authority and every credential it issued."""

    dir: Path
    port: int

    @property
    def config(self) -> Path:
        return self.dir / "mosquitto.conf"

    @property
    def ca(self) -> Path:
        return self.dir / "ca.pem"

    def credential(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of a node, or of ``governor``, ``provisioner``, ``watcher``."""
        return self.dir / f"{name}.pem", self.dir / f"{name}.key"

    def argv(self) -> list[str]:
        """The command that runs it in the foreground."""
        return ["mosquitto", "-c", str(self.config)]


def version() -> str:
    """Mosquitto's, as ``mosquitto 2.0.11``."""
    said = subprocess.run(["mosquitto", "-h"], capture_output=True, text=True, check=False).stdout
    return " ".join(said.partition("\n")[0].replace("version", "").split())


def prepare(folder: Path, port: int, nodes: Iterable[str]) -> BrokerFiles:
    """Make authority, credentials and configuration in a new folder."""
    files = BrokerFiles(folder, port)
    try:
        create_all(folder, [ADDRESS, "localhost"], nodes)
    except CredentialError as error:
        raise SandboxError(str(error)) from error
    data = folder / "data"
    data.mkdir()
    text = broker_config(folder, port, address=ADDRESS, data=data)
    # In a sandbox it stays who started it, and reads that user's keys.
    files.config.write_text(text + "user root\n")
    return files
