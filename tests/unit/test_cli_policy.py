"""slurm-gov and its policy commands, without Slurm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slurm_gov.cli.common import clean, one_line
from slurm_gov.cli.main import COMMANDS, cli, main
from slurm_gov.policy import load

SAMPLE = Path(__file__).parents[2] / "etc" / "policy.yaml"
RIGHT = 'pools: {h100: {partition: gpu, gres: "gpu:h100"}}\nteams: {research: {quota: {h100: 64}}}\n'

# Stand-ins for Slurm's commands: a cluster without any team, in which changes come to nothing.
COMMAND = """#!/bin/sh
case "$0 $*" in
*"show config") echo "ClusterName = c
AccountingStorageType = accounting_storage/slurmdbd
AccountingStorageEnforce = associations,limits,qos
AccountingStorageTRES = gres/gpu,gres/gpu:h100" ;;
*"show partition") echo "PartitionName=gpu AllowAccounts=ALL" ;;
*sinfo*) echo "n1|gpu|gpu:h100:64" ;;
*"show qos"*) echo "normal|0" ;;
*"show assoc"*) echo "root|||||normal" ;;
*"sacctmgr -i"*) cat > "$(dirname "$0")/input"; echo " Problem adding accounts: Access/permission denied"; exit 1 ;;
esac
"""


@pytest.fixture
def right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SLURM_GOV_POLICY", raising=False)
    file = tmp_path / "right.yaml"
    file.write_text(RIGHT)
    return file


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins for Slurm's commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("scontrol", "sacctmgr", "sinfo"):
        (folder / name).write_text(COMMAND)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115, PTH123
    return folder


def test_check_right(right: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", str(right)]) == 0
    assert capsys.readouterr().out == f"{right}: right: 1 pool, 1 team, 0 priority classes\n"


def test_check_one_mistake_is_one_line(right: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right.write_text(RIGHT.replace("64", "-64"))
    assert main(["policy", "check", str(right)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"slurm-gov: {right}:2:34: teams.research.quota.h100: -64 is negative; "
        "write a number of accelerators from 0 to 1000000000\n"
    )


def test_check_several_mistakes_are_a_line_each_and_a_last_one(
    right: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right.write_text(RIGHT.replace("64", "-64").replace("teams", "team"))
    assert main(["policy", "check", str(right)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"slurm-gov: {right} has 2 mistakes and is refused"
    assert len(lines) == 3


def test_check_json(right: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", "--json", str(right)]) == 0
    assert json.loads(capsys.readouterr().out)["right"] is True
    right.write_text(RIGHT.replace("partition", "partitoin"))
    assert main(["policy", "check", "--json", str(right)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [problem["path"] for problem in found["problems"]] == ["pools.h100.partition", "pools.h100.partitoin"]
    assert found["problems"][1]["line"] == 1
    assert found["problems"][1]["remedy"] == 'did you mean "partition"?'


def test_warnings_go_to_stderr(right: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right.write_text(RIGHT + "cohorts: {lab: {}}\n")
    assert main(["policy", "check", str(right)]) == 0
    said = capsys.readouterr()
    assert said.err.startswith(f"warning: {right}:3:11: cohorts.lab: no team")


def test_the_running_policy_is_the_default(
    right: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_GOV_POLICY", str(right))
    for arguments in (["policy", "check"], ["policy", "check", "running"]):
        assert main(arguments) == 0
        assert capsys.readouterr().out.startswith(str(right))
    monkeypatch.delenv("SLURM_GOV_POLICY")
    assert main(["policy", "check", "/nonexistent/policy.yaml"]) == 1
    assert capsys.readouterr().err == (
        "slurm-gov: /nonexistent/policy.yaml: cannot be read: No such file or directory\n"
    )


def test_a_file_that_may_not_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"slurm-gov: {tmp_path}: cannot be read: Is a directory\n"


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "show", str(SAMPLE)]) == 0
    shown = capsys.readouterr().out
    for name in load(SAMPLE).teams:
        assert name in shown
    assert main(["policy", "show", "--json", str(SAMPLE)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["teams"]["research"]["borrow"] == 32


def test_show_yaml_is_a_policy_file(right: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "show", "--yaml", str(right)]) == 0
    again = tmp_path / "again.yaml"
    again.write_text(capsys.readouterr().out)
    assert load(again) == load(right)


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "schema"]) == 0
    assert capsys.readouterr().out == (SAMPLE.parent / "policy.schema.json").read_text()


def test_diff(right: Path, slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "diff", str(right)]) == 3
    assert "GrpTRES gres/gpu:h100" in capsys.readouterr().out
    assert main(["policy", "diff", "--json", str(right)]) == 3
    texts = [change["text"] for change in json.loads(capsys.readouterr().out)["changes"]]
    assert texts == [
        "account research: create, below root",
        "account research: GrpTRES gres/gpu:h100 none → 64",
        "account research: GrpTRES gres/gpu none → 64",
    ]
    assert not (slurm / "input").exists()


def test_apply_without_a_terminal_wants_yes(right: Path, slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "apply", str(right)]) == 1
    assert capsys.readouterr().err == "slurm-gov: not changed: there is no terminal to ask on; add --yes\n"
    assert not (slurm / "input").exists()


def test_dry_run_changes_nothing(right: Path, slurm: Path) -> None:
    assert main(["policy", "apply", "--dry-run", "--yes", str(right)]) == 0
    assert not (slurm / "input").exists()


def test_apply_believes_slurm_and_not_sacctmgr(right: Path, slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "apply", "--yes", str(right)]) == 1
    assert capsys.readouterr().err == (
        "slurm-gov: 3 of 3 changes were not made, first: account research: create, below root: "
        "Problem adding accounts: Access/permission denied\n"
    )
    assert (slurm / "input").read_text() == (
        "add account name=research cluster=c parent=root GrpTRES=gres/gpu:h100=64,gres/gpu=64\n"
    )


def test_a_cluster_that_cannot_hold_the_policy(right: Path, slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right.write_text(RIGHT.replace("partition: gpu", "partition: gpus"))
    assert main(["policy", "apply", "--yes", str(right)]) == 1
    assert capsys.readouterr().err == (
        "error: pool h100: this cluster has no partition gpus; did you mean gpu?\n"
        "slurm-gov: this cluster cannot hold the policy yet: 1 error, nothing was changed\n"
    )


def test_slurm_does_not_answer(right: Path, slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (slurm / "scontrol").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    assert main(["policy", "diff", str(right)]) == 1
    assert capsys.readouterr().err == ("slurm-gov: scontrol show config: Unable to contact slurm controller\n")


def test_slurm_is_not_installed(
    right: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert main(["policy", "diff", str(right)]) == 1
    assert capsys.readouterr().err.startswith("slurm-gov: scontrol is not installed")


def test_apply_copies_the_file_to_where_the_daemon_reads_it(
    right: Path, slurm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    associations = "root|||||normal\nresearch|||root|gres/gpu=64,gres/gpu:h100=64|normal"
    text = COMMAND.replace("root|||||normal", associations)
    (slurm / "sacctmgr").write_text(text)
    target = tmp_path / "running.yaml"
    target.write_text("the old one")
    target.chmod(0o640)
    assert main(["policy", "apply", "--yes", "--policy", str(target), str(right)]) == 0
    assert target.read_text() == RIGHT
    assert target.stat().st_mode & 0o777 == 0o640
    assert "systemctl reload slurm-govd" in capsys.readouterr().out
    assert main(["policy", "apply", "--yes", "--policy", str(target), str(right)]) == 0
    assert capsys.readouterr().out == "nothing to change in Slurm\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bin", "right.yaml", "running.yaml"]


# -- the root command ----------------------------------------------------------------------------------


def test_no_command_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr()
    assert "policy" in said.out + said.err


@pytest.mark.parametrize("arguments", [["nonsense"], ["policy", "nonsense"], ["policy", "check", "--nonsense"]])
def test_wrong_usage_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("slurm-gov: No such ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_SLURM_GOV_COMPLETE" in capsys.readouterr().out


def test_completion_completes() -> None:
    env = os.environ | {"_SLURM_GOV_COMPLETE": "bash_complete", "COMP_WORDS": "slurm-gov policy ", "COMP_CWORD": "2"}
    command = [sys.executable, "-c", "from slurm_gov.cli.main import main; main()"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert "plain,apply" in done.stdout.splitlines()


def test_a_quick_start_imports_no_library_it_does_not_need() -> None:
    code = "import sys, slurm_gov.cli.main as m; m.main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"pydantic", "ruamel.yaml", "rich", "asyncio", "psutil"}


def test_a_closed_pipe_is_no_error() -> None:
    command = f'{sys.executable} -c \'from slurm_gov.cli.main import main; main(["policy", "schema"])\' | true'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""


def test_every_command_is_described() -> None:
    assert all(len(entry) == 3 and entry[2].endswith(".") for entry in COMMANDS.values())
    assert "policy" in cli.list_commands(None)  # type: ignore[arg-type]


def test_text_from_users_is_text() -> None:
    assert clean("\x1b[31mred\x07\r\n[bold]") == r"\x1b[31mred\x07\r\n[bold]"
    assert one_line("two\n  lines\x1b") == r"two lines\x1b"


def test_tables_show_markup_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    from slurm_gov.cli.common import add, console, table

    made = table("NAME")
    add(made, "[bold red]x[/] :smile: \x1b]0;title\x07")
    console().print(made)
    assert r"[bold red]x[/] :smile: \x1b]0;title\x07" in capsys.readouterr().out
