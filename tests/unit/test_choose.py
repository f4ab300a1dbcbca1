"""Which client slurm-govd uses."""

from __future__ import annotations

import asyncio
from importlib import metadata
from types import SimpleNamespace

import pytest

from slurm_gov.slurm.choose import choose
from slurm_gov.slurm.client import SlurmError
from slurm_gov.slurm.commands import CommandClient
from slurm_gov.slurm.pyslurm_client import PyslurmClient


def ask(kind: str, monkeypatch: pytest.MonkeyPatch, built: str | None, runs: str = "26.05.5") -> CommandClient:
    def distribution(name: str) -> object:
        if built is None:
            raise metadata.PackageNotFoundError(name)
        marker, _, version = built.rpartition(" ")
        return SimpleNamespace(version=version, read_text=lambda _: marker or None)

    async def config(client: CommandClient) -> dict[str, str]:
        return {"SLURM_VERSION": runs}

    monkeypatch.setattr(metadata, "distribution", distribution)
    monkeypatch.setattr(CommandClient, "_config", config)
    return asyncio.run(choose(kind, 1.0))


def test_the_commands_unless_pyslurm_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("auto", "commands"):
        assert type(ask(kind, monkeypatch, "26.05.5 25.11.2")) is CommandClient


def test_pyslurm_that_was_built_for_the_slurm_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(ask("pyslurm", monkeypatch, "26.05.5\n 25.11.2"), PyslurmClient)
    assert isinstance(ask("pyslurm", monkeypatch, "25.11.2", runs="25.11.4"), PyslurmClient)


@pytest.mark.parametrize(("built", "said"), [(None, "not installed"), ("25.11.2", "made for Slurm 25.11.2")])
def test_another_pyslurm_is_refused(monkeypatch: pytest.MonkeyPatch, built: str | None, said: str) -> None:
    with pytest.raises(SlurmError, match=said):
        ask("pyslurm", monkeypatch, built)
