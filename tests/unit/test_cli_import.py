"""slurm-gov policy import: files in, a policy file out, and never half of one."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from test_import_kueue import ALL, GOOD

from slurm_gov.cli.main import main
from slurm_gov.policy import load, loads

QUOTA = """{"ComputeQuotaTarget": {"TeamName": "research"}, "ComputeQuotaConfig":
 {"ComputeQuotaResources": [{"InstanceType": "ml.p5.48xlarge", "Count": 2}]}}
"""


@pytest.fixture
def quotas(tmp_path: Path) -> str:
    (tmp_path / "quotas.json").write_text(QUOTA)
    return str(tmp_path / "quotas.json")


def test_the_policy_goes_to_standard_output_and_the_rest_to_standard_error(
    quotas: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "import", "hyperpod", quotas]) == 0
    said = capsys.readouterr()
    assert loads(said.out).teams["research"].quotas["h100"].nominal == 16
    assert said.err.splitlines()[0].startswith("note: no cluster policy is in the files: ")
    assert all(line.startswith("note: ") for line in said.err.splitlines())


def test_kueue_from_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(ALL.encode())))
    assert main(["policy", "import", "kueue", "-", "--pool", "spot=a100:spot,long"]) == 0
    policy = loads(capsys.readouterr().out)
    assert policy.pools["a100"].partitions == ("spot", "long")
    assert set(policy.teams) == {"team-a", "team-b", "alone"}


def test_to_a_file_and_never_over_one(quotas: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "policy.yaml"
    command = ["policy", "import", "hyperpod", quotas, "-o", str(out)]
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1] == f"written: {out}; next: slurm-gov policy diff {out}"
    assert load(out).teams["research"].quotas["h100"].nominal == 16
    assert main(command) == 1
    assert capsys.readouterr().err == (
        f"slurm-gov: {out} is there already, and nothing was written; --force replaces it\n"
    )
    out.write_text("mine")
    assert main([*command, "--force"]) == 0
    assert load(out).teams["research"].quotas["h100"].nominal == 16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy.yaml", "quotas.json"]


def test_nothing_is_written_when_a_file_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, out = tmp_path / "bad.yaml", tmp_path / "policy.yaml"
    bad.write_text(GOOD.replace("nominalQuota: 8", "nominalQuota: x"))
    out.write_text("mine")
    assert main(["policy", "import", "kueue", str(bad), "-o", str(out), "--force"]) == 1
    said = capsys.readouterr()
    assert (said.out, out.read_text()) == ("", "mine")
    assert said.err.startswith(f"slurm-gov: {bad}:11:46: spec.resourceGroups.0.flavors.0.resources.0.nominalQuota: ")
    assert said.err.endswith("; nothing was written\n")


def test_several_mistakes_are_a_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(QUOTA.replace("Count", "Cuont").replace("research", "x").replace("TeamName", "TeamNam"))
    assert main(["policy", "import", "hyperpod", str(bad)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith(f"{bad}:") for line in lines[:-1])
    assert lines[-1] == f"slurm-gov: {len(lines) - 1} mistakes, nothing was written"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["hyperpod"], "Missing argument 'FILE...'"),
        (["hyperpod", "x", "--pool", "h100"], "--pool h100: write NAME=GPU:PARTITION"),
        (["hyperpod", "x", "--pool", "a=8"], '--pool a: "8": 8 is a number, not a GPU type'),
        (["hyperpod", "x", "--pool", "a=b", "--pool", "a=c"], "--pool a is given twice"),
        (["hyperpod", "x", "--gpus-per-instance", "a=b"], "--gpus-per-instance a=b: write INSTANCE_TYPE=NUMBER"),
        (["kueue", "x", "--cluster", "y"], "No such option"),
    ],
    ids=range(6),
)
def test_wrong_usage(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "import", *arguments]) == 2
    assert expected in capsys.readouterr().err


def test_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "latin").write_bytes(b"a: 1\nb: \xe9\n")
    for name, why in (
        ("missing", "cannot be read: No such file or directory"),
        (".", "cannot be read: Is a directory"),
        ("latin", "line 2: the byte 0xe9 is not UTF-8; save the file as UTF-8"),
    ):
        assert main(["policy", "import", "kueue", str(tmp_path / name)]) == 1
        assert f": {why}; nothing was written\n" in capsys.readouterr().err


def test_an_output_that_cannot_be_written(quotas: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "import", "hyperpod", quotas, "-o", "/nonexistent/policy.yaml"]) == 1
    assert "could not be written: No such file or directory" in capsys.readouterr().err
