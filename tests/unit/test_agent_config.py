"""agent.yaml: what is refused, with line and remedy, and what the commands say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from slurm_gov.health import agent_config
from slurm_gov.health.agent_config import ConfigError, load, scheduled, seconds
from slurm_gov.health.agent_main import cli

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "value"), [("30s", 30), (5, 5), ("5m", 300), ("1.5h", 5400), ("250ms", 0.25), ("2d", 172800)]
)
def test_times(text: object, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "x", "-5s", "5 weeks", None, True, [1]])
def test_no_times(text: object) -> None:
    with pytest.raises(ValueError, match="write a time"):
        seconds(text)


def refused(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "agent.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(file)
    return [line.removeprefix(f"{file}") for line in str(error.value).splitlines()]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nod: n1", ':1: nod: no such setting; did you mean "node"?'),
        ("node: a/b", ":1: node"),
        ("\nprefix: 'a/#'", ':2: prefix: "a/#" is no topic prefix'),
        ("broker: {host: x,\n  prot: 1}", ':2: broker.prot: no such setting; did you mean "port"?'),
        ("broker: {keepalive: 1s}", ":1: broker.keepalive: Input should be greater than or equal to 5"),
        ("broker: {host: far, ca: null}", ":1: broker.ca: without it nothing is encrypted"),
        ("broker: {user: x}", ":1: broker: user and password_file belong together"),
        ("broker: {key: null}", ":1: broker: cert and key belong together"),
        ("checks:\n  gpu_thermall: off", ':2: checks: there is no check "gpu_thermall"; did you mean "gpu_thermal"?'),
        ("checks:\n  disk: 5", ":2: checks.disk: write off, or settings"),
        ("checks:\n  disk:\n    every: soon", ":3: checks.disk.every: write a time as 30s, 5m or 1h"),
        ("checks: {disk: {path: [/]}}", ':1: checks.disk.path: no such setting; did you mean "paths"?'),
        ("checks: {disk: {warn_free: lots}}", ":1: checks.disk.warn_free: Input should be a valid number"),
        ("checks: {gpu_link: {every: 3s}}", "write checks.gpu.every"),
        ("checks: {gpu: {margin: 3}}", "is set per check: gpu_count"),
        ("site_checks: {Bad: {command: [x]}}", ":1: site_checks.Bad"),
        ("site_checks: {disk: {command: [x]}}", "is the name of a check of ours"),
        ("site_checks: {a: {command: x}}", ":1: site_checks.a.command"),
        ("xids: {79: {advice: destroy}}", ":1: xids.79.advice: Input should be 'none'"),
        ("a: [", ":1:5: "),
        ("- 1", ": must be settings"),
    ],
)
def test_refused(tmp_path: Path, text: str, said: str) -> None:
    lines = refused(tmp_path, text)
    assert any(said in line for line in lines), lines


def test_every_mistake_at_once(tmp_path: Path) -> None:
    assert len(refused(tmp_path, "nod: 1\nchecks: {x: off, disk: {path: 1}}\nbroker: {prot: 2}\n")) == 4


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml")


def test_nothing_is_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text("")
    config = load(tmp_path / "agent.yaml")
    assert config.name
    assert [one.name for one in scheduled(config)] == list(agent_config.registry.NAMES)


def test_checks_off_and_changed(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(
        "checks: {infiniband: off, tasks: false, gpu: {every: 1m}, gpu_link: off, gpu_thermal: {margin: 5}, xid: off}"
    )
    config = load(tmp_path / "agent.yaml")
    probes = {one.name: one for one in scheduled(config)}
    assert "infiniband" not in probes and "tasks" not in probes
    assert probes["gpu"].every == 60 and probes["gpu"].limit == 25
    assert probes["gpu"].off == {"gpu_link"}
    assert probes["gpu"].settings == {"gpu_thermal": {"margin": 5}}
    assert agent_config.xid_settings(config) is None


def test_the_sample_is_right_and_says_every_default() -> None:
    config = load(ROOT / "etc" / "agent.yaml")
    effective = agent_config.effective(config)
    assert json.dumps(effective)
    assert effective["broker"]["host"] == "mqtt.example"


def run(*arguments: str, config: Path) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["-c", str(config), *arguments])
    return done.exit_code, done.output


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "agent.yaml"
    (tmp_path / "kmsg").write_text("")
    (tmp_path / "boot_id").write_text("boot-1\n")
    off = ", ".join(f"{name}: off" for name in agent_config.registry.NAMES)
    file.write_text(
        f"node: n1\nchecks: {{{off}}}\n"
        f"site_checks:\n  good: {{command: [/bin/true]}}\n  bad: {{command: [/bin/sh, -c, 'echo broken; exit 2']}}\n"
        f"  later: {{command: [/bin/false], deep: true}}\n"
        f"roots: {{kernel_log: {tmp_path}/kmsg, boot_id: {tmp_path}/boot_id, state: {tmp_path}/state}}\n"
    )
    return file


def test_check(config: Path) -> None:
    code, text = run("check", config=config)
    assert code == 2
    assert [line.split() for line in text.splitlines()] == [
        ["FAIL", "bad", "bad:", "broken"],
        ["OK", "good"],
        ["OK", "xid"],
    ]
    assert run("check", "good", config=config) == (0, "OK      good\n")
    assert run("check", "--quiet", "good", config=config) == (0, "")
    assert run("check", "later", config=config)[0] == 1
    code, text = run("check", "--json", "bad", config=config)
    assert (code, json.loads(text)["results"][0]["state"]) == (2, "fail")
    assert run("check", "nothing", config=config)[0] == 2


def test_as_health_check_program_it_never_keeps_slurmd_from_registering(config: Path) -> None:
    assert run("check", "--health-check-program", config=config) == (0, "FAIL    bad           bad: broken\n")


def test_drain(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\n[ "$1" = show ] && cat {tmp_path}/state.txt || echo "$@" >> {tmp_path}/done\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "state.txt").write_text("   State=IDLE+DRAIN ThreadsPerCore=1\n")
    run("check", "--drain", config=config)
    assert not (tmp_path / "done").exists(), "somebody's drain is left alone"
    (tmp_path / "state.txt").write_text("   State=MIXED ThreadsPerCore=1\n")
    run("check", "--drain", "good", config=config)
    assert not (tmp_path / "done").exists()
    run("check", "--drain", config=config)
    said = "update nodename=n1 state=drain reason=slurm-gov-agent: bad: bad: broken\n"
    assert (tmp_path / "done").read_text() == said


def test_inject_list_clear(config: Path, tmp_path: Path) -> None:
    assert run("inject", "xid", "79", "--gpu", "3", config=config) == (0, "injected 1: xid 79 on GPU 3\n")
    assert run("inject", "check", "bad", "--survives", config=config)[0] == 0
    assert run("injected", config=config) == (0, "1: xid 79 on GPU 3\n2: check bad fail, survives reboots\n")
    _, text = run("check", "--quiet", "xid", config=config)
    assert "gpu 3: XID 79: GPU has fallen off the bus (injected)" in text
    (tmp_path / "boot_id").write_text("boot-2\n")
    assert [one["number"] for one in json.loads(run("injected", "--json", config=config)[1])] == [2]
    assert run("clear", "1", config=config)[0] == 1
    assert run("clear", config=config) == (0, "ended 2: check bad fail, survives reboots\n")
    assert run("inject", "check", "nothing", config=config)[0] == 2
    assert run("inject", "check", "bad", "--fault", "nothing", config=config)[0] == 2


def test_an_xid_in_the_kernel_log(config: Path, tmp_path: Path) -> None:
    (tmp_path / "kmsg").write_text("3,1,1000000,-;NVRM: Xid (PCI:0000:65:00): 79, GPU has fallen off the bus.\n")
    assert "XID 79" in run("check", "--quiet", "xid", config=config)[1]
    (tmp_path / "kmsg").unlink()
    code, text = run("check", "xid", config=config)
    assert code == 3 and "no XIDs are seen" in text


def test_the_commands_start_without_what_they_do_not_need() -> None:
    program = "import sys, slurm_gov.health.runner; print(*sorted(sys.modules))"
    loaded = set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"pydantic", "pynvml", "aiomqtt", "asyncio", "click", "ruamel.yaml"}
