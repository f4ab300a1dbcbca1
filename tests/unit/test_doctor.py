"""What doctor finds, and what it says helps: one case for each finding."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from slurm_gov.cli.doctor_facts import allowed
from slurm_gov.policy import loads
from slurm_gov.slurm.accounts import Account, Partition, State
from slurm_gov.slurm.doctor import Access, Built, Facts, built_for, judge, read_conf
from slurm_gov.slurm.parse import version

GPU, H100 = "gres/gpu", "gres/gpu:h100"
TEXT = """\
mode: {mode}
pools:
  h100: {{partition: gpu, gres: "gpu:h100"}}
teams:
  research: {{quota: {{h100: 8}}}}
"""
CONFIG = {
    "ClusterName": "c",
    "SLURM_VERSION": "22.05.8",
    "SLURM_CONF": "/etc/slurm/slurm.conf",
    "SlurmUser": "slurm(64030)",
    "PluginDir": "/plugins",
    "JobSubmitPlugins": "lua,gov",
    "AccountingStorageType": "accounting_storage/slurmdbd",
    "AccountingStorageEnforce": "associations,limits,qos",
    "AccountingStorageTRES": "cpu,gres/gpu,gres/gpu:h100",
    "MinJobAge": "300 sec",
    "SchedulerParameters": "(null)",
    "SchedulerType": "sched/backfill",
}
STATE = State(
    "c",
    CONFIG,
    {"root": Account("root", ""), "research": Account("research", "root", {H100: 8, GPU: 8})},
    {"normal": 0},
    {"gpu": Partition("gpu")},
    {"n1": (frozenset({"gpu"}), {H100: 8})},
)
GOOD = Facts(
    policy_path="/p.yaml",
    state=STATE,
    policy=loads(TEXT.format(mode="enforce")),
    plugin="/plugins/job_submit_gov.so",
    built=Built("0.1.0", (22, 5, 8), 1),
    conf_path="/etc/slurm/job_submit_gov.conf",
    conf="fail=open\n",
    access=(Access("/p.yaml", "the policy", "read"),),
    skew=0.5,
)


def config(**settings: str) -> Facts:
    return replace(GOOD, state=replace(STATE, config={**CONFIG, **settings}))


def account(**caps: Account) -> Facts:
    return replace(GOOD, state=replace(STATE, accounts={**STATE.accounts, **caps}))


def nodes(count: int, gres: dict[str, int], facts: Facts = GOOD) -> Facts:
    assert facts.state
    more = {f"n{number}": (frozenset({"gpu"}), gres) for number in range(2, count + 2)}
    return replace(facts, state=replace(facts.state, nodes={**STATE.nodes, **more}))


def health(section: str, **settings: str) -> Facts:
    """The policy has this health section, and Slurm these settings beside those that it wants."""
    power = {"RebootProgram": "/r", "SuspendProgram": "/s", "ResumeProgram": "/r"}
    policy = loads(TEXT.format(mode="enforce") + f"health: {section}\n")
    return replace(config(**power | settings), policy=policy)


SPARES = "{spares: {h100: [n1]}, spares_kept: powered_down}"
NOT_BY_SLURM = "{provider: p, providers: {p: {kind: mqtt}}}"
CASES = [
    ("error", health("{}", RebootProgram="(null)"), "RebootProgram is not set", "slurm.conf"),
    ("warning", health("{}", SuspendProgram="(null)"), "replace nodes of h100, and SuspendProgram", "operations"),
    ("error", health(SPARES, ResumeProgram="(null)"), "kept powered down, and ResumeProgram is not", "spares_kept"),
    ("warning", health("{rack: topology}", TopologyPlugin="topology/none"), "knows no racks", "topology.conf"),
    ("error", replace(GOOD, policy=None), "there is no policy: /p.yaml", "slurm-gov install"),
    ("error", replace(GOOD, policy=None, policy_errors=("3: bad",)), "refused: 3: bad", "slurm-gov policy check"),
    (
        "error",
        replace(GOOD, state=None, slurmctld_error="refused"),
        "slurmctld does not answer: refused",
        "slurmctld",
    ),
    (
        "error",
        replace(GOOD, slurmdbd_error="refused"),
        "slurmdbd does not answer: refused",
        "systemctl status slurmdbd",
    ),
    ("error", config(AccountingStorageType="(null)"), "caps need slurmdbd", "slurmdbd"),
    ("error", config(AccountingStorageEnforce="associations"), "lacks limits, qos", "associations,limits,qos"),
    ("error", config(AccountingStorageTRES="cpu"), "AccountingStorageTRES lacks", "gres/gpu:h100"),
    ("error", config(JobSubmitPlugins="lua"), "JobSubmitPlugins is lua", "JobSubmitPlugins=lua,gov"),
    ("error", config(JobSubmitPlugins="(null)"), "JobSubmitPlugins is not set", "JobSubmitPlugins=gov in"),
    ("error", replace(GOOD, plugin="", built=None), r"not in PluginDir \(/plugins\)", "slurm-gov install"),
    ("warning", replace(GOOD, built=None), "does not say for what", "slurm-gov install"),
    ("error", config(SLURM_VERSION="24.11.5"), "built for Slurm 22.05.8, and 24.11.5 runs", "headers"),
    ("error", replace(GOOD, wire=2), "speaks wire format 1, slurm-govd 2", "slurm-gov install"),
    ("warning", replace(GOOD, conf=None), "job_submit_gov.conf is not there", "slurm-gov install"),
    ("error", replace(GOOD, conf="deadline_ms=0"), "line 1: deadline_ms wants a number from 1", "correct the line"),
    ("error", replace(GOOD, conf="socket=/else"), "asks on /else", "socket=/run/slurm-gov/admission.sock"),
    (
        "error",
        replace(GOOD, daemon_error="refused"),
        "slurm-govd does not answer",
        "systemctl enable --now slurm-govd",
    ),
    ("error", replace(GOOD, daemon_hangs="no answer in 5 s"), "slurm-govd hangs: no answer", "systemctl restart"),
    (
        "error",
        replace(GOOD, access=(Access("/p", "the policy", "read", "mode 0600"),)),
        r"SlurmUser \(slurm\) cannot read",
        "chmod",
    ),
    ("error", replace(GOOD, access=(Access("/s", "the state", "write", "not there"),)), "cannot write", "chown"),
    ("error", config(MinJobAge="5 sec"), "MinJobAge is 5 s", "MinJobAge=300"),
    ("warning", config(MinJobAge="30 sec"), "MinJobAge is 30 s", "MinJobAge=300"),
    ("error", config(SchedulerParameters="defer,assoc_limit_stop"), "assoc_limit_stop", "take assoc_limit_stop out"),
    ("warning", config(SchedulerParameters="bf_max_job_test=10"), "bf_max_job_test=10", "bf_max_job_test=500"),
    (
        "warning",
        nodes(150, {H100: 8}, config(SchedulerParameters="bf_interval=1")),
        "bf_interval=1",
        "bf_interval=30",
    ),
    ("error", config(SchedulerType="sched/builtin"), "sched/builtin", "sched/backfill"),
    ("warning", replace(GOOD, skew=3.0), "3 s ahead of", "chrony"),
    ("error", replace(GOOD, skew=-90.0), "90 s behind", "chrony"),
    ("warning", nodes(4, {GPU: 8}), "without a type on n2, n3, n4 and 1 more", "Type= in gres.conf"),
    ("error", replace(GOOD, mqtt="b:8883", mqtt_error="refused"), "broker b:8883", "--mqtt"),
    ("error", account(research=Account("research", "root", {GPU: 8})), "policy is not applied: 1 ", "policy apply"),
    ("warning", account(root=Account("root", "", {H100: 4})), "account root, above team", "GrpTRES=gres/gpu:h100=-1"),
    ("warning", account(sub=Account("sub", "research", {H100: 4})), "sub, below team research", "gres/gpu:h100=-1"),
    (
        "warning",
        replace(GOOD, policy=loads(TEXT.format(mode="observe"))),
        "team research has GrpTRES of its own",
        "policy remove restores",
    ),
]


def test_a_good_cluster_has_nothing_wrong() -> None:
    assert judge(GOOD) == []


@pytest.mark.parametrize(("kind", "facts", "message", "remedy"), CASES, ids=[case[2] for case in CASES])
def test_each_finding_has_its_remedy(kind: str, facts: Facts, message: str, remedy: str) -> None:
    import re

    found = [one for one in judge(facts) if re.search(message, one.message) and remedy in one.remedy]
    assert len(found) == 1, judge(facts)
    assert found[0].error == (kind == "error")


def test_one_fault_is_one_finding() -> None:
    """What follows from another fault is not said again."""
    assert len(judge(config(JobSubmitPlugins="(null)"))) == 1
    assert len(judge(replace(GOOD, slurmdbd_error="refused"))) == 1
    assert len(judge(replace(GOOD, conf=None))) == 1


NO_POWER = {"SuspendProgram": "(null)", "ResumeProgram": "(null)"}


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        ("{}", {}),
        (SPARES, {}),
        (NOT_BY_SLURM, NO_POWER | {"RebootProgram": "(null)"}),
        ("{provider: p, providers: {p: {kind: slurm, operations: [reboot]}}}", NO_POWER),
        ('{rack: "(r[0-9]+)n"}', {"TopologyPlugin": "topology/none"}),
        ("{rack: topology}", {"TopologyPlugin": "topology/tree"}),
    ],
)
def test_what_the_health_section_asks_for_is_there(section: str, settings: dict[str, str]) -> None:
    assert judge(health(section, **settings)) == []


def test_errors_come_first() -> None:
    kinds = [one.error for one in judge(replace(GOOD, skew=3.0, daemon_error="refused"))]
    assert kinds == [True, False]


def test_what_a_plugin_says_of_itself() -> None:
    mark = b"slurm-gov job_submit_gov 0.1.0 for Slurm 0x1a0505 wire 1\0"
    assert built_for(b"\x7fELF\0" + mark + b"\0") == Built("0.1.0", (26, 5, 5), 1)
    assert built_for(b"\x7fELF\0job_submit/gov\0") is None
    assert version("25.11.0-0rc1") == (25, 11, 0)
    assert version("unknown") is None


def test_the_plugins_configuration_is_read_as_the_plugin_does() -> None:
    settings, wrong = read_conf("# c\n socket = /a # why\nfail=never\nno\nx=1\nbreaker_failures=0\n")
    assert settings == {"socket": "/a", "breaker_failures": "0"}
    assert [line.partition(":")[0] for line in wrong] == ["line 3", "line 4", "line 5"]


@pytest.mark.parametrize(
    ("mode", "owner", "group", "bits", "may"),
    [(0o600, 7, 1, 4, True), (0o600, 1, 7, 4, False), (0o640, 1, 7, 4, True), (0o604, 1, 1, 4, True),
     (0o077, 7, 7, 4, False), (0o700, 1, 1, 1, False), (0o755, 1, 1, 3, False), (0o755, 1, 1, 1, True)],
)  # fmt: skip
def test_mode_bits(mode: int, owner: int, group: int, bits: int, may: bool) -> None:
    status = os.stat_result((mode, 0, 0, 1, owner, group, 0, 0, 0, 0))
    assert allowed(status, bits, 7, frozenset({7})) is may
    assert allowed(status, bits, 0, frozenset({0}))


def test_several_controllers_need_one_database() -> None:
    two = replace(STATE, config=CONFIG | {"SlurmctldHost[0]": "ctl1(10.0.0.1)", "SlurmctldHost[1]": "ctl2"})
    (found,) = judge(replace(GOOD, state=two, ledger="/var/lib/slurm-gov/ledger.db"))
    assert not found.error and "2 SlurmctldHosts" in found.message and "/var/lib/slurm-gov/ledger.db" in found.message
    assert judge(replace(GOOD, state=two, database="mariadb://gov:***@db/gov")) == []
    one = replace(STATE, config=CONFIG | {"SlurmctldHost[0]": "ctl1"})
    assert judge(replace(GOOD, state=one, ledger="/var/lib/slurm-gov/ledger.db")) == []
    (found,) = judge(replace(GOOD, state=two, database="mariadb://gov:***@db/gov", database_error="it is away"))
    assert found.error and "it is away" in found.message
