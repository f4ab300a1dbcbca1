"""Fixtures for tests on a real Slurm."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from node_cluster import Nodes, bring_up, fixture

from slurm_gov.sandbox import Sandbox, SandboxConfig

# pytest-xdist sets it, and our commands would fold what they print.
os.environ.pop("COLUMNS", None)

_numbers = itertools.count(1)
_alive: dict[str, Sandbox] = {}

NewSandbox = Callable[..., Sandbox]


def unique_name() -> str:
    """A sandbox name that no other test, nor another run of the tests, uses."""
    return f"t{os.getpid()}-{next(_numbers)}"


def _factory() -> Iterator[NewSandbox]:
    made: list[Sandbox] = []

    def new(**config: Any) -> Sandbox:
        cluster = Sandbox.up(SandboxConfig(**{"name": unique_name()} | config))
        made.append(cluster)
        _alive[cluster.config.name] = cluster
        return cluster

    yield new
    for cluster in made:
        _alive.pop(cluster.config.name)
        cluster.down()


@pytest.fixture(scope="module")
def module_sandbox() -> Iterator[NewSandbox]:
    """`module_sandbox(pools=..., policy=..., ...)` brings one up; it is down after the module's tests."""
    yield from _factory()


@pytest.fixture
def new_sandbox() -> Iterator[NewSandbox]:
    """`new_sandbox(pools=..., policy=..., ...)` brings a sandbox up; it is down after the test."""
    yield from _factory()


@pytest.fixture(scope="module")
def node_cluster(
    module_sandbox: NewSandbox, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Nodes:
    """A cluster whose nodes are looked after; its slurm.conf has the lines that the module names as SLURM_CONF."""
    policy = tmp_path_factory.mktemp("policy") / "policy.yaml"
    return bring_up(module_sandbox, unique_name(), policy, getattr(request.module, "SLURM_CONF", ()))


@pytest.fixture
def nodes(node_cluster: Nodes) -> Iterator[Nodes]:
    """The same, all nodes healthy before and after each test."""
    yield from fixture(node_cluster)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show the ends of the logs of all sandboxes with a test that failed."""
    report: Any = yield
    if report.failed:
        for name, cluster in _alive.items():
            for log in sorted(cluster.layout.log.glob("*")):
                if log.suffix == ".log" and not log.name.startswith("slurmd-"):
                    lines = log.read_text(errors="replace").splitlines()[-40:]
                    report.sections.append((f"{name}: {log.name}", "\n".join(lines)))
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all of this folder, so that `-m 'not integration'` leaves it out."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("integration")
