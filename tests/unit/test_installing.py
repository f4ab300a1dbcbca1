"""What slurm-gov install does about each file, and which lines it says slurm.conf lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm_gov.cli.installing import (
    Do,
    File,
    Refused,
    Site,
    controller_files,
    digest,
    gpu_tres_in,
    new_manifest,
    node_files,
    read_slurm_conf,
    removal,
    slurm_conf_lines,
    steps,
)
from slurm_gov.policy import loads

ROOT = Path(__file__).parents[2]
SOURCE = {file.name: file.read_bytes() for folder in ("etc", "systemd") for file in (ROOT / folder).glob("*.*")}
SITE = Site("/venv/bin", "slurmuser", "hpc", "/plugins", "/etc/slurm/slurm.conf", {})
FILE = File("/etc/x", b"new")
PLUGIN = File("/plugins/job_submit_gov.so", b"new")


@pytest.mark.parametrize(
    ("there", "manifest", "do"),
    [
        ({}, {}, Do.CREATE),
        ({}, {"/etc/x": digest(b"old")}, Do.CREATE),
        ({"/etc/x": b"new"}, {}, Do.SAME),
        ({"/etc/x": b"old"}, {"/etc/x": digest(b"old")}, Do.REPLACE),
        ({"/etc/x": b"site"}, {"/etc/x": digest(b"old")}, Do.KEEP),
        ({"/etc/x": b"site"}, {}, Do.KEEP),
    ],
)
def test_a_file_that_the_site_changed_is_kept(there: dict[str, bytes], manifest: dict[str, str], do: Do) -> None:
    assert [step.do for step in steps([FILE], there, manifest)] == [do]


def test_a_plugin_of_ours_is_replaced_however_it_came() -> None:
    ours, other = b"\x7fELF job_submit/gov\0", b"\x7fELF another\0"
    assert steps([PLUGIN], {PLUGIN.path: ours}, {})[0].do is Do.REPLACE
    assert steps([PLUGIN], {PLUGIN.path: other}, {})[0].do is Do.KEEP


def test_a_second_time_there_is_nothing_to_do_and_removal_takes_away_the_same() -> None:
    files = controller_files(SITE, b"plugin", SOURCE)
    first = steps(files, {}, {})
    manifest = new_manifest(first, {})
    there = {file.path: file.content for file in files}
    assert {step.do for step in steps(files, there, manifest)} == {Do.SAME}
    gone = removal(manifest, there, [{"JobSubmitPlugins": "lua"}])
    assert {step.file.path for step in gone if step.do is Do.DELETE} == set(there)
    assert new_manifest(gone, manifest) == {}


def test_what_was_there_before_does_not_become_ours() -> None:
    assert new_manifest(steps([FILE], {FILE.path: FILE.content}, {}), {}) == {}


def test_a_run_that_was_cut_off_before_it_wrote_the_manifest() -> None:
    manifest = {FILE.path: digest(b"old")}
    assert new_manifest(steps([FILE], {FILE.path: b"new"}, manifest), manifest) == {FILE.path: digest(b"new")}


def test_removal_leaves_what_the_site_changed() -> None:
    manifest = {"/etc/x": digest(b"new"), "/etc/y": digest(b"new"), "/etc/z": digest(b"new")}
    done = removal(manifest, {"/etc/x": b"site", "/etc/y": b"new"}, [])
    assert [step.do for step in done] == [Do.KEEP, Do.DELETE, Do.GONE]
    assert new_manifest(done, manifest) == {"/etc/x": digest(b"new")}


@pytest.mark.parametrize(
    ("named", "says"),
    [("gov", "take the line"), ("lua,gov", "JobSubmitPlugins=lua in"), ("job_submit/gov", "take the line")],
)
def test_the_plugin_is_not_removed_while_slurm_conf_names_it(named: str, says: str) -> None:
    manifest = {PLUGIN.path: digest(b"new")}
    with pytest.raises(Refused, match=says):
        removal(manifest, {PLUGIN.path: b"new"}, [{"ClusterName": "c"}, {"JobSubmitPlugins": named}])
    assert removal({FILE.path: digest(b"new")}, {}, [{"JobSubmitPlugins": named}])  # a node has no plugin


def test_the_plugin_is_not_removed_if_nobody_knows_whether_it_is_named() -> None:
    with pytest.raises(Refused, match="--slurm-conf"):
        removal({PLUGIN.path: digest(b"new")}, {PLUGIN.path: b"new"}, [{}, {}])


def test_the_units_name_these_programs_and_slurm_user() -> None:
    files = {file.path: file for file in [*controller_files(SITE, b"", SOURCE), *node_files(SITE, SOURCE)]}
    govd = files["/etc/systemd/system/slurm-govd.service"].content.decode()
    assert "ExecStart=/venv/bin/slurm-govd\n" in govd
    assert "\nUser=slurmuser\nGroup=hpc\n" in govd
    agent = files["/etc/systemd/system/slurm-gov-agent.service"].content.decode()
    assert "ExecStart=/venv/bin/slurm-gov-agent run\n" in agent
    assert "\nUser=root\n" in agent
    assert "/opt/slurm-gov" not in govd + agent
    assert files["/plugins/job_submit_gov.so"].mode == 0o755


def test_the_sample_policy_is_right_and_acts_on_nothing() -> None:
    sample = {file.path: file for file in controller_files(SITE, b"", SOURCE)}["/etc/slurm-gov/policy.yaml"]
    assert loads(sample.content.decode()).mode.value == "observe"


def lines(gpus: tuple[str, ...] = (), **config: str) -> list[str]:
    config = {"AccountingStorageType": "accounting_storage/slurmdbd"} | config
    return slurm_conf_lines(Site("/b", "s", "s", "/p", "/etc/slurm/slurm.conf", config, gpus))


def test_the_lines_for_slurm_conf_respect_what_is_there() -> None:
    gpus = ("gres/gpu", "gres/gpu:h100")
    assert lines(
        gpus,
        JobSubmitPlugins="lua",
        AccountingStorageEnforce="associations,limits,safe",
        AccountingStorageTRES="cpu,mem,energy,node,billing,fs/disk,vmem,pages,license/matlab,gres/gpu",
    ) == [
        "JobSubmitPlugins=lua,gov",
        "AccountingStorageEnforce=associations,limits,safe,qos",
        "AccountingStorageTRES=license/matlab,gres/gpu,gres/gpu:h100",
    ]
    assert lines(JobSubmitPlugins="(null)", AccountingStorageEnforce="none") == [
        "JobSubmitPlugins=gov",
        "AccountingStorageEnforce=associations,limits,qos",
    ]
    assert lines(JobSubmitPlugins="gov", AccountingStorageEnforce="qos,limits,associations") == []


def test_slurm_conf_is_read_where_slurmctld_does_not_answer() -> None:
    text = "# c\njobsubmitplugins = lua # x\nSlurmUser=slurm\nNodeName=n1 Gres=gpu:H100:8,gpu:a100:2(S:0)\n"
    assert read_slurm_conf(text) == {"JobSubmitPlugins": "lua", "SlurmUser": "slurm"}
    assert gpu_tres_in(text) == ("gres/gpu", "gres/gpu:a100", "gres/gpu:h100")
    assert gpu_tres_in("NodeName=n1 Gres=gpu:8") == ()
