"""A real Prometheus, Debian's, that scrapes one governor: in a folder of its own, on a port of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RULES = Path(__file__).parents[2] / "etc" / "prometheus" / "slurm-gov.rules.yml"


class Prometheus:
    """What is asked of it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def api(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[float]:
        """The values that an expression has now."""
        return [float(one["value"][1]) for one in self.api("query", query=expression)["result"]]


@contextmanager
def running(folder: Path, target: str, interval: str = "1s") -> Iterator[Prometheus]:
    """Started and ready, with our rules, reading ``target`` (host:port)."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    rules = RULES.read_text()
    assert "interval: 30s" in rules
    (folder / RULES.name).write_text(rules.replace("interval: 30s", f"interval: {interval}"))
    (folder / "prometheus.yml").write_text(
        f"global: {{scrape_interval: {interval}, scrape_timeout: {interval}, evaluation_interval: {interval}}}\n"
        f"rule_files: [{RULES.name}]\n"
        f'scrape_configs: [{{job_name: slurm-gov, static_configs: [{{targets: ["{target}"]}}]}}]\n'
    )
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"],
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            made = Prometheus(f"http://127.0.0.1:{port}")
            _wait(made, process, folder)
            yield made
        finally:
            process.terminate()
            process.wait(30)


def _wait(made: Prometheus, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if made.query("up"):
                return
        except OSError:
            pass
        said = (folder / "prometheus.log").read_text()
        assert process.poll() is None, f"prometheus ended: {said}"
        assert time.monotonic() < deadline, f"prometheus does not answer: {said}"
        time.sleep(0.2)
