"""The policy of SageMaker HyperPod Task Governance as ours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from slurm_gov.core.policy import Idle, Quota, WithinTeam
from slurm_gov.policy import PolicyError
from slurm_gov.policy.import_hyperpod import import_hyperpod
from slurm_gov.policy.importing import Imported, PoolOption, Source

ARN = "arn:aws:sagemaker:us-west-2:111122223333"


def quota(team: str, *resources: dict[str, Any], number: int = 1, **config: Any) -> dict[str, Any]:
    """A compute quota as describe-compute-quota prints it."""
    weight = config.pop("weight", None)
    target = {"TeamName": team} | ({} if weight is None else {"FairShareWeight": weight})
    top = {name: config.pop(name) for name in list(config) if name in ("ActivationState", "Status", "ClusterArn")}
    return {
        "ComputeQuotaArn": f"{ARN}:compute-quota/abcdefabcde{number}",
        "ComputeQuotaId": f"abcdefabcde{number}",
        "Name": f"{team}-quota",
        "Description": "for the — team",
        "ComputeQuotaVersion": 2,
        "Status": "Updated",
        "ClusterArn": f"{ARN}:cluster/s1qfvrrkpwpb",
        "ComputeQuotaConfig": {"ComputeQuotaResources": list(resources), **config},
        "ComputeQuotaTarget": target,
        "ActivationState": "Enabled",
        "CreationTime": "2026-03-01T10:00:00.123000-08:00",
        **top,
    }


def sharing(strategy: str, **more: Any) -> dict[str, Any]:
    return {"Strategy": strategy, **more}


CLUSTER = {
    "ClusterSchedulerConfigArn": f"{ARN}:cluster-scheduler-config/q1w2e3r4t5y6",
    "ClusterSchedulerConfigId": "q1w2e3r4t5y6",
    "Name": "policy",
    "ClusterSchedulerConfigVersion": 4,
    "Status": "Updated",
    "ClusterArn": f"{ARN}:cluster/s1qfvrrkpwpb",
    "SchedulerConfig": {
        "PriorityClasses": [
            {"Name": "inference", "Weight": 90},
            {"Name": "training", "Weight": 50},
            {"Name": "experimentation", "Weight": 10},
        ],
        "FairShare": "Disabled",
        "IdleResourceSharing": "Enabled",
    },
    "CreationTime": 1767225600.5,
}
P5 = {"InstanceType": "ml.p5.48xlarge", "Count": 8}


def imported(*objects: Any, **how: Any) -> Imported:
    return import_hyperpod([Source("quotas.json", json.dumps(list(objects), indent=1))], **how)


def mistakes(text: str, **how: Any) -> list[str]:
    with pytest.raises(PolicyError) as error:
        import_hyperpod([Source("q.json", text)], **how)
    return [str(problem) for problem in error.value.problems]


def refused(*objects: Any, **how: Any) -> str:
    found = mistakes(json.dumps(list(objects)), **how)
    assert len(found) == 1, found
    return found[0]


def test_a_whole_policy() -> None:
    listing = {
        "ComputeQuotaSummaries": [
            quota(
                "research",
                P5,
                {"InstanceType": "ml.g5.12xlarge", "Accelerators": 12, "VCpu": 100.0},
                weight=60,
                ResourceSharingConfig=sharing(
                    "LendAndBorrow",
                    BorrowLimit=100,
                    AbsoluteBorrowLimits=[{"InstanceType": "ml.g5.12xlarge", "Accelerators": 4}],
                ),
                PreemptTeamTasks="Never",
            ),
            quota("product", P5 | {"Count": 2}, number=2, ResourceSharingConfig=sharing("Lend")),
            quota("secret", P5 | {"Count": 1}, number=3, ResourceSharingConfig=sharing("DontLend")),
            quota("plain", P5 | {"Count": 3}, number=4),
        ]
    }
    found = imported(listing, CLUSTER)
    policy = found.checked.policy
    assert {name: (pool.gres, pool.partitions) for name, pool in policy.pools.items()} == {
        "a10g": ("gpu:a10g", ("gpu",)),
        "h100": ("gpu:h100", ("gpu",)),
    }
    assert policy.priority_classes == {"inference": 90, "training": 50, "experimentation": 10}
    assert (policy.idle, policy.lend_unallocated) == (Idle.FIRST_COME, True)
    research = policy.teams["research"]
    assert research.quotas == {
        "h100": Quota(64, borrow=64),
        "a10g": Quota(12, borrow=4),
        "a10g/cpu": Quota(100, borrow=33),
    }
    assert (research.fair_share_weight, research.preempt_within_team) == (60, WithinTeam.NEVER)
    assert policy.teams["product"].quotas["h100"] == Quota(16, borrow=0)
    assert policy.teams["secret"].quotas["h100"] == Quota(8, borrow=0, lend=0)
    assert policy.teams["plain"].quotas["h100"] == Quota(24, borrow=12)
    assert policy.teams["plain"].preempt_within_team is WithinTeam.LOWER_PRIORITY
    assert "# ComputeQuota research-quota\n" in found.text
    assert f"# {ARN}:cluster/s1qfvrrkpwpb\n" in found.text


def test_what_has_no_counterpart_is_said_once() -> None:
    notes = imported(
        quota(
            "a",
            {"InstanceType": "ml.p5.48xlarge", "Accelerators": 4, "VCpu": 96},
            {"InstanceType": "ml.m5.large", "Count": 2},
        ),
        quota("b", {"InstanceType": "ml.p5.48xlarge", "Accelerators": 4, "MemoryInGiB": 96.5}, number=2),
        CLUSTER,
    ).notes
    assert notes == (
        "instance types without accelerators (ml.m5.large): left out: ours are quotas of GPUs; such nodes are "
        "Slurm's alone",
        'the partition of ml.p5.48xlarge is not in the files: taken as "gpu", with the GPU type as Slurm\'s type; '
        "otherwise --pool ml.p5.48xlarge=h100:PARTITION (sinfo -o '%P %G' shows both)",
        "VCpu is not set, where others of pool h100 have it (b): not limited: HyperPod works it out in the ratio of "
        "the accelerators; what they do not use of it is not lent",
        "MemoryInGiB is not set, where others of pool h100 have it (a): not limited: HyperPod works it out in the "
        "ratio of the accelerators; what they do not use of it is not lent",
    )


def test_without_a_cluster_policy_hyperpods_defaults_are_taken() -> None:
    found = imported(quota("a", P5))
    assert found.checked.policy.idle is Idle.FAIR_SHARE
    assert not found.checked.policy.lend_unallocated
    assert any(note.startswith("no cluster policy is in the files: HyperPod's defaults") for note in found.notes)
    assert any(note.startswith("IdleResourceSharing is not set: taken as Disabled") for note in found.notes)


def test_pools_as_somebody_said() -> None:
    options = {
        "ml.p5.48xlarge": PoolOption.parse("H100:train,long"),
        "ml.trn1.32xlarge": PoolOption.parse("neuron:trn1:trn"),
    }
    found = imported(quota("a", P5, {"InstanceType": "ml.trn1.32xlarge", "Count": 2}), CLUSTER, pools=options)
    pools = found.checked.policy.pools
    assert (pools["H100"].gres, pools["H100"].partitions) == ("gpu:H100", ("train", "long"))
    assert (pools["trn1"].gres, pools["trn1"].partitions) == ("neuron:trn1", ("trn",))
    assert found.checked.policy.teams["a"].quotas["trn1"].nominal == 32
    assert found.notes == ()


def test_instance_types_of_one_gpu_type_are_one_pool() -> None:
    found = imported(
        quota(
            "a",
            P5,
            {"InstanceType": "ml.p5.4xlarge", "Count": 4},
            ResourceSharingConfig=sharing(
                "LendAndBorrow",
                AbsoluteBorrowLimits=[
                    {"InstanceType": "ml.p5.4xlarge", "Accelerators": 1},
                    {"InstanceType": "ml.p5.48xlarge", "Count": 1},
                ],
            ),
        ),
        CLUSTER,
    )
    assert found.checked.policy.teams["a"].quotas == {"h100": Quota(68, borrow=9)}
    said = "instance types ml.p5.48xlarge, ml.p5.4xlarge have the same GPU type: one pool, h100 (gpu:h100), with"
    assert any(note.startswith(said) for note in found.notes)


def test_a_mig_profile_is_a_pool_of_its_own() -> None:
    mig = {"InstanceType": "ml.p5.48xlarge", "AcceleratorPartition": {"Type": "mig-1g.10gb", "Count": 14}}
    found = imported(quota("a", P5 | {"Count": 1}, mig), CLUSTER)
    assert found.checked.policy.pools["1g.10gb"].gres == "gpu:1g.10gb"
    assert {pool: q.nominal for pool, q in found.checked.policy.teams["a"].quotas.items()} == {
        "h100": 8,
        "1g.10gb": 14,
    }


@pytest.mark.parametrize(
    ("percent", "borrow"), [(0, 0), (1, 0), (50, 4), (500, 40), (10_000, 800)], ids=lambda value: str(value)
)
def test_borrow_limits(percent: int, borrow: int) -> None:
    eight = P5 | {"Count": 1}
    found = imported(quota("a", eight, ResourceSharingConfig=sharing("LendAndBorrow", BorrowLimit=percent)), CLUSTER)
    assert found.checked.policy.teams["a"].quotas["h100"].borrow == borrow


GPUS = {"InstanceType": "ml.p5.48xlarge", "Accelerators": 4}


def quotas_of(*resources: dict[str, Any], **rules: Any) -> tuple[dict[str, Quota], str]:
    """What one team gets, and what is said of it."""
    found = imported(quota("a", *resources, ResourceSharingConfig=sharing(**rules)), CLUSTER)
    return dict(found.checked.policy.teams["a"].quotas), "\n".join(found.notes)


def test_cpus_and_memory_are_the_pools_of_the_accelerators_beside_them() -> None:
    both = GPUS | {"VCpu": 96, "MemoryInGiB": 1024}
    quotas, _ = quotas_of(both, strategy="LendAndBorrow")
    assert quotas == {
        "h100": Quota(4, borrow=2),
        "h100/cpu": Quota(96, borrow=48),
        "h100/mem": Quota(1024**2, borrow=512 * 1024),
    }
    quotas, _ = quotas_of(both, strategy="DontLend")
    assert {(one.borrow, one.lend) for one in quotas.values()} == {(0, 0)}
    mig = {"InstanceType": "ml.p5.48xlarge", "AcceleratorPartition": {"Type": "mig-1g.10gb", "Count": 4}, "VCpu": 8}
    quotas, _ = quotas_of(GPUS, mig, strategy="Lend")
    assert {one: q.nominal for one, q in quotas.items()} == {"h100": 4, "1g.10gb": 4, "1g.10gb/cpu": 8}


def test_a_quota_of_cpus_alone() -> None:
    """HyperPod sets its accelerators to 0."""
    quotas, _ = quotas_of({"InstanceType": "ml.p5.48xlarge", "VCpu": 8}, strategy="Lend")
    assert quotas == {"h100": Quota(0, borrow=0), "h100/cpu": Quota(8, borrow=0)}


def test_what_is_rounded_down_is_said() -> None:
    quotas, said = quotas_of(GPUS | {"VCpu": 1.5, "MemoryInGiB": 0.1}, strategy="Lend")
    assert (quotas["h100/cpu"], quotas["h100/mem"]) == (Quota(1, borrow=0), Quota(102, borrow=0))
    assert "amounts that are no whole CPUs (a): rounded down" in said
    assert "amounts that are no whole MiB of memory (a): rounded down" in said
    assert "rounded" not in quotas_of(GPUS | {"VCpu": 2.0, "MemoryInGiB": 96.5}, strategy="Lend")[1]


def test_borrow_limits_of_cpus() -> None:
    limits = [{"InstanceType": "ml.p5.48xlarge", "Accelerators": 2, "VCpu": 10.5}]
    quotas, _ = quotas_of(
        GPUS | {"VCpu": 96, "MemoryInGiB": 1}, strategy="LendAndBorrow", BorrowLimit=100, AbsoluteBorrowLimits=limits
    )
    assert quotas == {
        "h100": Quota(4, borrow=2),
        "h100/cpu": Quota(96, borrow=10),
        "h100/mem": Quota(1024, borrow=512),
    }
    quotas, said = quotas_of(GPUS, strategy="LendAndBorrow", AbsoluteBorrowLimits=limits)
    assert quotas == {"h100": Quota(4, borrow=2)}
    assert "VCpu in AbsoluteBorrowLimits, without a quota of it (a): not limited, as its quota is not" in said
    limits = [{"InstanceType": "ml.p4d.24xlarge", "Accelerators": 2, "VCpu": 24}]
    quotas, _ = quotas_of(GPUS, strategy="LendAndBorrow", AbsoluteBorrowLimits=limits)
    assert quotas["a100/cpu"] == Quota(0, borrow=24), "it may only borrow there"


def test_cpus_that_hyperpod_works_out_for_a_part_of_a_pool_are_not_limited() -> None:
    small = {"InstanceType": "ml.p5.4xlarge", "Count": 2}
    quotas, said = quotas_of(GPUS | {"VCpu": 96}, small, strategy="Lend")
    assert quotas == {"h100": Quota(6, borrow=0)}
    assert "VCpu is not set for ml.p5.4xlarge, which is in the same pool as others that have it (a): not" in said


def test_memory_above_what_the_file_takes_as_a_number() -> None:
    much = GPUS | {"MemoryInGiB": 999_999_999}
    quotas, said = quotas_of(much, strategy="LendAndBorrow", BorrowLimit=600)
    assert quotas["h100/mem"] == Quota(999_999_999 * 1024, borrow=10**9)
    assert "limits above 1000000000 (a): written as that, the most that the file takes" in said


def test_borrowing_where_it_has_no_quota() -> None:
    limits = [{"InstanceType": "ml.p4d.24xlarge", "Accelerators": 8}]
    rules = sharing("LendAndBorrow", AbsoluteBorrowLimits=limits)
    found = imported(quota("a", P5, ResourceSharingConfig=rules), CLUSTER)
    assert found.checked.policy.teams["a"].quotas["a100"] == Quota(0, borrow=8)


def test_disabled_and_deleted_quotas_are_left_out() -> None:
    found = imported(
        quota("a", P5),
        quota("b", P5, number=2, ActivationState="Disabled"),
        quota("c", P5, number=3, Status="Deleting"),
        CLUSTER,
    )
    assert list(found.checked.policy.teams) == ["a"]
    assert any(note.startswith("a disabled compute quota (b-quota of b): left out") for note in found.notes)
    assert any(
        note.startswith("compute quotas with status Deleting (c-quota of c): left out") for note in found.notes
    )


def test_the_same_quota_in_two_versions() -> None:
    old = quota("a", P5) | {"ComputeQuotaVersion": 1}
    found = imported(quota("a", P5 | {"Count": 1}), old, CLUSTER)
    assert found.checked.policy.teams["a"].quotas["h100"].nominal == 8


def test_a_name_that_slurm_would_not_take() -> None:
    found = imported(quota("root", P5), quota("a b", P5, number=2), quota("a-b", P5, number=3), CLUSTER)
    assert sorted(found.checked.policy.teams) == ["a-b", "a-b-2", "root-team"]
    assert 'team "root" cannot be the name of a Slurm account: it is root-team here' in found.notes
    assert 'team "a-b" cannot be the name of a Slurm account: it is a-b-2 here' in found.notes


@pytest.mark.parametrize("name", ["123", "true", "null", "1e3", "0x10"])
def test_names_that_yaml_would_read_as_something_else(name: str) -> None:
    assert list(imported(quota(name, P5), CLUSTER).checked.policy.teams) == [name]


def test_what_create_compute_quota_takes() -> None:
    found = imported(
        {
            "Name": "q",
            "ClusterArn": f"{ARN}:cluster/s1qfvrrkpwpb",
            "ComputeQuotaConfig": {"ComputeQuotaResources": [P5]},
            "ComputeQuotaTarget": {"TeamName": "a"},
            "Tags": [{"Key": "k", "Value": "v"}],
        }
    )
    assert found.checked.policy.teams["a"].quotas["h100"].nominal == 64


def test_one_cluster_of_several() -> None:
    other = f"{ARN}:cluster/zzzzzzzzzzzz"
    objects = [quota("a", P5), quota("b", P5, number=2, ClusterArn=other), CLUSTER]
    assert refused(*objects).endswith("import one: --cluster s1qfvrrkpwpb")
    assert list(imported(*objects, cluster="s1qfvrrkpwpb").checked.policy.teams) == ["a"]
    assert list(imported(*objects, cluster=other).checked.policy.teams) == ["b"]


def test_a_listing_that_goes_on_is_said() -> None:
    assert (
        "a listing has a NextToken: it goes on: give its other pages too"
        in imported({"ComputeQuotaSummaries": [quota("a", P5)], "NextToken": "abc"}, CLUSTER).notes
    )


def test_places_in_a_file_with_tabs() -> None:
    text = '{\n\t"ComputeQuotaTarget": {\n\t\t"TeamName": 7\n\t}\n}'
    assert mistakes(text) == [
        "q.json:3:15: ComputeQuotaTarget.TeamName: is the number 7 where text is wanted; write a name"
    ]


def test_all_mistakes_at_once() -> None:
    bad = quota("a", {"InstanceType": "ml.p5.48xlarge", "Cuont": 8}, ResourceSharingConfig={"BorrowLimit": -1})
    found = mistakes(json.dumps(bad))
    assert [one.partition(": ")[2] for one in found] == [
        "ComputeQuotaConfig.ComputeQuotaResources.0: names no amount; write Count, Accelerators, VCpu or MemoryInGiB",
        'ComputeQuotaConfig.ComputeQuotaResources.0.Cuont: there is no such field; did you mean "Count"?',
        "ComputeQuotaConfig.ResourceSharingConfig.Strategy: is missing; write LendAndBorrow, Lend or DontLend",
        "ComputeQuotaConfig.ResourceSharingConfig.BorrowLimit: -1 is out of range; write a whole number from 0 "
        "to 10000",
    ]


MISTAKES = [
    (quota("a", {"InstanceType": "ml.p9.48xlarge", "Accelerators": 8}), "its GPUs are not known here; say which"),
    (quota("a", {"InstanceType": "ml.p5.48xlarge", "Count": 1, "Accelerators": 9}), "9 does not agree with Count"),
    (quota("a", {"InstanceType": "ml.p5.48xlarge", "Count": 1.5}), "is the number 1.5; write a whole number"),
    (quota("a", {"InstanceType": "ml.p5.48xlarge", "Accelerators": True}), "is true; write a whole number"),
    (quota("a", {"Count": 1}), "InstanceType: is missing"),
    (quota("a", P5 | {"VCpu": 2e9}), "VCpu: 2e+09 is more than any cluster has; write what there is"),
    (quota("a", P5 | {"MemoryInGiB": -1}), "MemoryInGiB: is the number -1; write a number from 0"),
    (quota("a", P5, weight=101), "FairShareWeight: 101 is out of range; write a whole number from 0 to 100"),
    (quota("a", P5, PreemptTeamTasks="lowerPriority"), 'did you mean "LowerPriority"?'),
    (quota("a", P5, ActivationState="On"), "ActivationState: is \"On\"; write Enabled or Disabled"),
    (quota("a", P5, ResourceSharingConfig=[]), "ResourceSharingConfig: is a list where a mapping is wanted"),
    (quota("a", {"InstanceType": "ml.m5.large", "Count": 1}), "no compute quota in it has accelerators"),
    (quota("a", P5, ActivationState="Disabled"), "every compute quota in it is disabled or deleted: no team is left"),
    ({"ComputeQuotaId": "x", "ComputeQuotaTarget": {"TeamName": "a"}, "ComputeQuotaConfig": None}, "is missing: the"),
    ({"TrainingJobName": "x"}, "is no compute quota and no cluster policy; give what aws sagemaker"),
    (CLUSTER, "holds no compute quota; give what list-compute-quotas prints"),
    ("text", "is no JSON object"),
]  # fmt: skip


@pytest.mark.parametrize(("thing", "expected"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_says_what_would_be_right(thing: Any, expected: str) -> None:
    assert expected in refused(thing)


CLUSTER_MISTAKES = [
    ({"PriorityClasses": [{"Name": "a", "Weight": 200}]}, "200 is out of range; write a whole number from 0 to 100"),
    ({"PriorityClasses": [{"Name": "a"}]}, "Weight: is missing"),
    ({"PriorityClasses": [{"Name": "a", "Weight": 1}, {"Name": "a", "Weight": 2}]}, '"a" is given twice'),
    ({"FairShare": "enabled"}, 'FairShare: is "enabled"; did you mean "Enabled"?'),
    ({"Fairshare": "Enabled"}, 'Fairshare: there is no such field; did you mean "FairShare"?'),
    (None, "SchedulerConfig: is missing: the listing does not hold it; give what aws sagemaker describe-cluster"),
]


@pytest.mark.parametrize(("config", "expected"), CLUSTER_MISTAKES, ids=range(len(CLUSTER_MISTAKES)))
def test_mistakes_in_the_cluster_policy(config: Any, expected: str) -> None:
    assert expected in refused(quota("a", P5), CLUSTER | {"SchedulerConfig": config})


def test_two_quotas_of_one_team_and_two_cluster_policies() -> None:
    assert '"a" has a compute quota already, at quotas.json:' in refused_at(quota("a", P5), quota("a", P5, number=2))
    second = CLUSTER | {"ClusterSchedulerConfigId": "other"}
    assert "is a second cluster policy" in refused_at(quota("a", P5), CLUSTER, second)


def refused_at(*objects: Any) -> str:
    with pytest.raises(PolicyError) as error:
        imported(*objects)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": ', "q.json:1:7: is not valid JSON: Expecting value"),
        ('{\n"a" 1}', "q.json:2:5: is not valid JSON: Expecting ':' delimiter"),
        ("", "q.json:1:1: is not valid JSON: Expecting value"),
        ("7", "q.json: holds no JSON object"),
        ('{"ComputeQuotaId": "a", "ComputeQuotaId": "b"}', "is given twice, first in line 1"),
        ("[" * 100_000, "q.json: is nested too deeply"),
    ],
    ids=range(6),
)
def test_no_json(text: str, expected: str) -> None:
    assert expected in mistakes(text)[0]


def test_a_pool_option_for_nothing_is_refused() -> None:
    said = refused(quota("a", P5), pools={"ml.p4d.24xlarge": PoolOption.parse("a100")})
    assert said == "--pool ml.p4d.24xlarge: is no instance type of these files; there are: ml.p5.48xlarge"


@pytest.mark.parametrize("text", ["", "h100:", "8", "gpu:8:x", "a:b:c:d", "h100:a,,b", "h 100"])
def test_a_pool_option_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="such as h100:gpu"):
        PoolOption.parse(text)
