"""What a policy needs in Slurm: the changes, sacctmgr's lines for them, and what stands in the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from slurm_gov.core.policy import Policy
from slurm_gov.policy import loads
from slurm_gov.slurm import accounts
from slurm_gov.slurm import accounts_commands as reading
from slurm_gov.slurm.accounts import Account, Partition, State, What

GPU, H100, A100 = "gres/gpu", "gres/gpu:h100", "gres/gpu:a100"
NORMAL = frozenset({"normal"})
ALL = frozenset({"normal", "training", "inference"})
CONFIG = {
    "ClusterName": "c",
    "AccountingStorageType": "accounting_storage/slurmdbd",
    "AccountingStorageEnforce": "associations,limits,qos,safe",
    "AccountingStorageTRES": "cpu,mem,gres/gpu,gres/gpu:h100,gres/gpu:a100",
    "PriorityType": "priority/multifactor",
    "PriorityWeightQOS": "1000",
    "JobRequeue": "1",
    "PreemptType": "preempt/none",
}
POLICY = loads(
    """
pools:
  h100: {partition: gpu, gres: "gpu:h100"}
  a100: {partition: [old, older], gres: "gpu:a100"}
priority_classes: {inference: 100, training: 50}
teams:
  research: {quota: {h100: 8, a100: 4}, fair_share_weight: 1}
  product: {quota: {h100: 8}}
"""
)


def node(gres: Mapping[str, int], *partitions: str) -> tuple[frozenset[str], Mapping[str, int]]:
    return frozenset(partitions), gres


NODES = {
    "n1": node({H100: 8}, "gpu", "all"),
    "n2": node({H100: 8}, "gpu", "all"),
    "n3": node({A100: 4}, "old", "older"),
}
EMPTY = State(
    cluster="c",
    config=CONFIG,
    accounts={"root": Account("root", "", {}, NORMAL)},
    qos={"normal": 0},
    partitions={name: Partition(name) for name in ("gpu", "old", "older", "all")},
    nodes=NODES,
)
DONE = replace(
    EMPTY,
    accounts={
        **EMPTY.accounts,
        "research": Account("research", "root", {H100: 8, A100: 4, GPU: 12}, ALL),
        "product": Account("product", "root", {H100: 8, A100: 0, GPU: 8}, ALL),
    },
    qos={"normal": 0, "inference": 100, "training": 50},
)


def with_account(state: State, name: str, **settings: Any) -> State:
    return replace(state, accounts={**state.accounts, name: replace(state.accounts[name], **settings)})


def said(policy: Policy, state: State) -> list[str]:
    return [str(change) for change in accounts.changes(policy, state)]


def test_an_empty_cluster_needs_everything() -> None:
    assert said(POLICY, EMPTY) == [
        "QOS inference: create, priority 100",
        "QOS training: create, priority 50",
        "account research: create, below root",
        "account product: create, below root",
        "account research: GrpTRES gres/gpu:h100 none → 8",
        "account research: GrpTRES gres/gpu:a100 none → 4",
        "account research: GrpTRES gres/gpu none → 12",
        "account product: GrpTRES gres/gpu:h100 none → 8",
        "account product: GrpTRES gres/gpu:a100 none → 0",
        "account product: GrpTRES gres/gpu none → 8",
        "account research: QOS normal → inference,normal,training",
        "account product: QOS normal → inference,normal,training",
    ]


def test_few_lines_make_the_changes() -> None:
    assert accounts.commands(accounts.changes(POLICY, EMPTY), "c") == [
        "add qos name=inference priority=100",
        "add qos name=training priority=50",
        "add account name=research cluster=c parent=root GrpTRES=gres/gpu:h100=8,gres/gpu:a100=4,gres/gpu=12",
        "add account name=product cluster=c parent=root GrpTRES=gres/gpu:h100=8,gres/gpu:a100=0,gres/gpu=8",
        "modify account where name=research,product cluster=c set qos+=inference,training",
    ]


def test_nothing_to_do_when_all_is_there() -> None:
    assert accounts.changes(POLICY, DONE) == []
    assert accounts.commands([], "c") == []


@pytest.mark.parametrize(
    ("caps", "expected"),
    [
        ({H100: 8, A100: 4, GPU: 12}, ""),
        ({H100: 12, A100: 4, GPU: 16}, ""),  # lent to it by the governor: not ours to lower
        ({H100: 7, A100: 4, GPU: 12}, "gres/gpu:h100=8"),
        ({H100: 8, A100: 4, GPU: 11}, "gres/gpu=12"),
        ({H100: 8, A100: 4}, "gres/gpu=12"),
        ({A100: 4, GPU: 12, "cpu": 64}, "gres/gpu:h100=8"),
        ({}, "gres/gpu:h100=8,gres/gpu:a100=4,gres/gpu=12"),
    ],
)
def test_caps_are_raised_to_the_quota_and_never_lowered(caps: Mapping[str, int], expected: str) -> None:
    state = with_account(DONE, "research", caps=caps)
    line = f"modify account where name=research cluster=c set GrpTRES={expected}"
    assert accounts.commands(accounts.changes(POLICY, state), "c") == ([line] if expected else [])


def test_the_untyped_cap_leaves_room_for_the_gpus_of_no_pool() -> None:
    others = {"n4": node({"gres/gpu:l40": 2, "gres/gpu": 1, "gres/shard": 50}, "all"), "n5": node({H100: 8}, "all")}
    assert said(POLICY, replace(DONE, nodes={**NODES, **others})) == [
        "account research: GrpTRES gres/gpu 12 → 15",
        "account product: GrpTRES gres/gpu 8 → 11",
    ]


def test_priorities_and_missing_classes() -> None:
    state = replace(with_account(DONE, "product", qos=frozenset({"training"})), qos={**DONE.qos, "training": 3})
    assert said(POLICY, state) == [
        "QOS training: priority 3 → 50",
        "account product: QOS training → inference,training",
    ]
    assert accounts.commands(accounts.changes(POLICY, state), "c") == [
        "modify qos where name=training set priority=50",
        "modify account where name=product cluster=c set qos+=inference",
    ]


def test_accounts_with_the_same_caps_share_a_line() -> None:
    teams = "".join(f"  t{i}: {{quota: {{h100: 1}}}}\n" for i in range(120))
    policy = loads(f'pools: {{h100: {{partition: gpu, gres: "gpu:h100"}}}}\nteams:\n{teams}')
    lines = accounts.commands(accounts.changes(policy, EMPTY), "c")
    assert [line.partition(" cluster=")[0].count(",") for line in lines] == [49, 49, 19]


CAPITALS = loads('pools: {h: {partition: gpu, gres: "gpu:H100"}}\nteams: {product: {quota: {h: 8}}}\n')


def test_slurm_compares_tres_without_case_and_so_do_we() -> None:
    """A GRES type in capitals may be in AccountingStorageTRES, and so in accounts, in small letters."""
    capitals = {"n1": node({"gres/gpu:H100": 8}, "gpu")}
    state = replace(DONE, nodes=capitals, accounts={name: DONE.accounts[name] for name in ("root", "product")})
    assert accounts.changes(CAPITALS, state) == []
    assert accounts.check(CAPITALS, state) == []


def findings(state: State, policy: Policy = POLICY) -> list[str]:
    return [("error: " if f.error else "warning: ") + str(f) for f in accounts.check(policy, state)]


def test_a_cluster_that_is_set_up_right() -> None:
    assert findings(DONE) == []
    assert findings(EMPTY) == []


def config(**settings: str) -> State:
    return replace(DONE, config={**CONFIG, **settings})


def sub_account(parent: str, child: str, caps: Mapping[str, int]) -> State:
    """The finished cluster with an account put above or below a team."""
    state = replace(DONE, accounts={**DONE.accounts, parent: DONE.accounts.get(parent, Account(parent, "root"))})
    under = state.accounts.get(child, Account(child, parent, caps))
    return replace(state, accounts={**state.accounts, child: replace(under, parent=parent)})


FINDINGS = [
    (
        config(AccountingStorageType="(null)"),
        "error: AccountingStorageType is not set, and accounts and caps need slurmdbd; "
        "set up slurmdbd and AccountingStorageType=accounting_storage/slurmdbd in slurm.conf",
    ),
    (
        replace(DONE, accounts={}),
        "error: slurmdbd does not know the cluster c; run: sacctmgr add cluster c, and restart slurmctld",
    ),
    (
        config(AccountingStorageEnforce="none"),
        "error: AccountingStorageEnforce lacks associations, limits, qos, so Slurm holds no caps; "
        "set AccountingStorageEnforce=associations,limits,qos in slurm.conf and restart slurmctld",
    ),
    (
        config(AccountingStorageEnforce="associations,limits,safe"),
        "error: AccountingStorageEnforce lacks qos, so Slurm holds no caps; "
        "set AccountingStorageEnforce=associations,limits,qos,safe in slurm.conf and restart slurmctld",
    ),
    (
        config(AccountingStorageTRES="cpu,mem,gres/gpu,gres/gpu:a100"),
        "error: AccountingStorageTRES lacks gres/gpu:h100, so Slurm cannot cap it; "
        "add AccountingStorageTRES=gres/gpu,gres/gpu:h100 to slurm.conf and restart slurmctld",
    ),
    (
        replace(DONE, partitions={name: Partition(name) for name in ("gpus", "old", "older")}),
        "error: pool h100: this cluster has no partition gpu; did you mean gpus?",
    ),
    (
        replace(DONE, partitions={name: Partition(name) for name in ("main", "old", "older")}),
        "error: pool h100: this cluster has no partition gpu; its partitions: main, old, older",
    ),
    (
        config(AccountingStorageTRES="cpu,mem,gres/gpu:h100,gres/gpu:a100"),
        "error: AccountingStorageTRES lacks gres/gpu, so Slurm cannot cap it; "
        "add AccountingStorageTRES=gres/gpu to slurm.conf and restart slurmctld",
    ),
    (
        replace(DONE, nodes={**NODES, "n1": node({"gres/gpu:H100": 8}, "gpu"), "n2": node({}, "gpu")}),
        "error: pool h100: no node of partition gpu has gpu:h100; "
        "Slurm tells small letters from capitals there: write gpu:H100",
    ),
    (
        replace(DONE, nodes={**NODES, "n1": node({"gres/gpu:b200": 8}, "gpu"), "n2": node({}, "gpu")}),
        "error: pool h100: no node of partition gpu has gpu:h100; what is there: gpu:b200",
    ),
    (
        replace(DONE, nodes={**NODES, "n1": node({}, "gpu"), "n2": node({}, "gpu")}),
        "error: pool h100: no node of partition gpu has gpu:h100; what is there: no GRES at all",
    ),
    (
        replace(DONE, nodes={**NODES, "n3": node({"gres/gpu": 8}, "older")}),
        "error: pool a100: no node of partitions old, older has gpu:a100; "
        "its nodes have them without a type: give Type= in gres.conf, and the type in Gres= in slurm.conf",
    ),
    (
        replace(DONE, nodes={**NODES, "n2": node({}, "gpu")}),
        "warning: pool h100: the quotas add up to 16, but partition gpu has 8 gpu:h100; "
        "not every team can have its quota at the same time",
    ),
    (
        sub_account("research", "product", {}),
        "error: team product is below team research in Slurm, so the cap of research holds for both; teams must "
        "stand side by side: make only one of them a team, or move one: "
        "sacctmgr modify account where name=product cluster=c set parent=root",
    ),
    (
        with_account(sub_account("site", "product", {}), "site", caps={H100: 3}),
        "warning: account site, above team product, has a cap of its own: gres/gpu:h100=3; "
        "it limits the team whatever its quota; "
        "to lift it: sacctmgr modify account where name=site cluster=c set GrpTRES=gres/gpu:h100=-1",
    ),
    (
        sub_account("root", "former", {H100: 5, GPU: 5, "cpu": 9}),
        "warning: account former is no team of this policy but has a cap: gres/gpu:h100=5,gres/gpu=5; if it once was "
        "one, lift the cap: sacctmgr modify account where name=former cluster=c set "
        "GrpTRES=gres/gpu:h100=-1,gres/gpu=-1",
    ),
    (
        replace(DONE, partitions={**DONE.partitions, "gpu": Partition("gpu", frozenset({"product"}))}),
        "warning: pool h100: AllowAccounts of partition gpu keeps out research; change it in slurm.conf",
    ),
    (
        replace(DONE, partitions={**DONE.partitions, "gpu": Partition("gpu", deny_qos=frozenset({"training"}))}),
        "warning: pool h100: DenyQos of partition gpu keeps out training; change it in slurm.conf",
    ),
    (
        replace(DONE, own_qos=(("ann", "product", frozenset({"normal", "training"})),)),
        "warning: user ann of account product has a QOS list of its own without inference; "
        "run: sacctmgr modify user where name=ann account=product cluster=c set qos+=inference",
    ),
    (
        config(PriorityType="priority/basic"),
        "warning: PriorityType is priority/basic, so Slurm does not order jobs by priority class; "
        "set PriorityType=priority/multifactor and PriorityWeightQOS=1000000 in slurm.conf",
    ),
    (
        config(PriorityWeightQOS="0"),
        "warning: PriorityWeightQOS is 0, so Slurm does not order jobs by priority class; "
        "set PriorityWeightQOS=1000000 in slurm.conf",
    ),
    (
        config(JobRequeue="0"),
        "warning: JobRequeue is 0, so only jobs submitted with --requeue can be preempted; "
        "set JobRequeue=1 in slurm.conf",
    ),
    (
        config(PreemptType="preempt/qos"),
        "warning: PreemptType is preempt/qos, so Slurm preempts jobs by its own rules too; "
        "set PreemptType=preempt/none in slurm.conf",
    ),
]


@pytest.mark.parametrize(("state", "expected"), FINDINGS, ids=[text[:60] for _, text in FINDINGS])
def test_what_stands_in_the_way(state: State, expected: str) -> None:
    assert findings(state) == [expected]


def test_accounts_below_a_team_may_have_limits_of_their_own() -> None:
    assert findings(sub_account("research", "vision", {H100: 2})) == []


def test_users_below_a_team_are_looked_at_and_others_are_not() -> None:
    state = sub_account("research", "vision", {})
    lists = (("ann", "vision", ALL), ("bob", "vision", NORMAL), ("cyd", "elsewhere", NORMAL))
    assert [text.split(" has ")[0] for text in findings(replace(state, own_qos=lists))] == [
        "warning: user bob of account vision"
    ]


def test_nodes_in_several_partitions_of_a_pool_count_once() -> None:
    assert DONE.gres_in(["old", "older"]) == {A100: 4}
    assert DONE.gres_in(["gpu", "all"]) == {H100: 16}


# -- what the commands print ---------------------------------------------------------------------------


def test_reading_associations() -> None:
    text = (
        "root|||||normal\n"
        "root|root||||normal\n"
        "t1|||root|cpu=100000,gres/gpu:a100=0,gres/gpu:h100=17,mem=500G|inference,normal\n"
        "t1|nobody||||normal\n"
        "t1|ann|gpu|||inference,normal\n"
        "sub1|||t1||inference,normal\n"
        "\n"
    )
    found, own = reading.read_associations(text)
    assert found["t1"].parent == "root"
    assert (found["t1"].caps[H100], found["t1"].caps[A100]) == (17, 0)
    assert found["sub1"] == Account("sub1", "t1", {}, frozenset({"inference", "normal"}))
    assert own == (("nobody", "t1", NORMAL),)


def test_reading_nodes() -> None:
    text = "n1|gpu|gpu:h100:8(S:0-1)\nn1|all|gpu:h100:8(S:0-1)\nn2|old|gpu:a100:4,gpu:h100:2\nn3|old|(null)\n"
    assert reading.read_nodes(text) == {
        "n1": node({H100: 8}, "gpu", "all"),
        "n2": node({A100: 4, H100: 2}, "old"),
        "n3": node({}, "old"),
    }


def test_reading_partitions() -> None:
    text = (
        "PartitionName=gpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=YES QoS=N/A\n"
        "PartitionName=old AllowGroups=ALL DenyAccounts=a,B AllowQos=Normal,high Default=NO\n"
    )
    assert reading.read_partitions(text) == {
        "gpu": Partition("gpu"),
        "old": Partition("old", deny_accounts=frozenset("ab"), allow_qos=frozenset({"normal", "high"})),
    }


def test_reading_qos_and_configuration() -> None:
    assert reading.read_qos("normal|0\nhigh|100\nodd|\n") == {"normal": 0, "high": 100, "odd": 0}
    text = "Configuration data as of 2026\nClusterName             = c\nJobSubmitPlugins = (null)\n\nSlurmctld UP\n"
    assert reading.read_config(text) == {"ClusterName": "c", "JobSubmitPlugins": "(null)"}


def test_what_sacctmgr_complains_about() -> None:
    lines = ["add qos name=not-a priority=1"]
    text = (
        "sacctmgr: error: Your user doesn't have privilege to perform this action\n\n"
        "sacctmgr: add qos name=not-a priority=1\n Error with request: Access/permission denied\n Adding QOS(s)\n"
    )
    assert reading.complaints(text, lines) == (
        "error: Your user doesn't have privilege to perform this action; Error with request: Access/permission denied"
    )


def test_changes_come_in_the_order_in_which_they_can_be_made() -> None:
    order = [change.what for change in accounts.changes(POLICY, EMPTY)]
    assert order == sorted(order, key=list(What).index)
