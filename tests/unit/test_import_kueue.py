"""The policy of a Kueue installation as ours."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from slurm_gov.core.policy import BorrowPreempts, Idle, Quota, Rebalance, Reclaim, Victims, WithinTeam
from slurm_gov.policy import PolicyError
from slurm_gov.policy.import_kueue import import_kueue
from slurm_gov.policy.importing import Imported, PoolOption, Source
from slurm_gov.policy.quantity import quantity

TIB = 1024**2  # in MiB
FLAVORS = """\
apiVersion: kueue.x-k8s.io/v1beta1
kind: ResourceFlavor
metadata:
  name: reserved
spec:
  nodeLabels:
    nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata:
  name: spot
spec:
  nodeLabels:
    node.kubernetes.io/instance-type: p4d.24xlarge
  nodeTaints:
  - key: spot
    value: "true"
    effect: NoSchedule
"""
COHORTS = """\
apiVersion: kueue.x-k8s.io/v1beta2
kind: Cohort
metadata:
  name: lab
spec:
  parentName: company
  resourceGroups:
  - coveredResources: [nvidia.com/gpu]
    flavors:
    - name: reserved
      resources:
      - name: nvidia.com/gpu
        nominalQuota: 8
        borrowingLimit: 16
        lendingLimit: 0
  fairSharing:
    weight: "0.75"
"""
QUEUES = """\
apiVersion: kueue.x-k8s.io/v1beta1
kind: ClusterQueue
metadata:
  name: team-a
spec:
  cohort: lab
  namespaceSelector: {}
  queueingStrategy: BestEffortFIFO
  preemption:
    reclaimWithinCohort: Any
    withinClusterQueue: LowerOrNewerEqualPriority
    borrowWithinCohort:
      policy: LowerPriority
      maxPriorityThreshold: 100
  resourceGroups:
  - coveredResources: [cpu, memory, nvidia.com/gpu]
    flavors:
    - name: reserved
      resources:
      - {name: cpu, nominalQuota: 900}
      - {name: memory, nominalQuota: 4Ti}
      - {name: nvidia.com/gpu, nominalQuota: 32, borrowingLimit: 8, lendingLimit: 4}
    - name: spot
      resources:
      - {name: cpu, nominalQuota: 900}
      - {name: memory, nominalQuota: 4Ti}
      - {name: nvidia.com/gpu, nominalQuota: "16", borrowingLimit: 0}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata:
  name: team-b
spec:
  cohortName: company
  resourceGroups:
  - coveredResources: [nvidia.com/gpu]
    flavors:
    - name: reserved
      resources:
      - {name: nvidia.com/gpu, nominalQuota: 64}
status:
  pendingWorkloads: 3
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata:
  name: alone
spec:
  stopPolicy: Hold
  queueingStrategy: StrictFIFO
  namespaceSelector: {matchLabels: {team: x}}
  admissionChecksStrategy: {admissionChecks: [{name: prov}]}
  resourceGroups:
  - coveredResources: [nvidia.com/gpu]
    flavors:
    - name: spot
      resources:
      - {name: nvidia.com/gpu, nominalQuota: 8}
"""
CLASSES = """\
apiVersion: kueue.x-k8s.io/v1beta2
kind: WorkloadPriorityClass
metadata: {name: prod}
value: 10000
description: what customers see
---
apiVersion: kueue.x-k8s.io/v1beta1
kind: WorkloadPriorityClass
metadata: {name: dev}
value: 100
"""
LOCAL = """\
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: main, namespace: ml}
spec: {clusterQueue: team-a}
"""
OFF = "apiVersion: config.kueue.x-k8s.io/v1beta1\nkind: Configuration\nfairSharing: {enable: false}\n"
ALL = "---\n".join((FLAVORS, COHORTS, QUEUES, CLASSES, LOCAL))


def imported(text: str, **how: Any) -> Imported:
    return import_kueue([Source("k.yaml", text)], **how)


def mistakes(text: str, **how: Any) -> list[str]:
    with pytest.raises(PolicyError) as error:
        imported(text, **how)
    return [str(problem) for problem in error.value.problems]


def queue(**resource: Any) -> str:
    """One ClusterQueue of flavor h100, with these settings of nvidia.com/gpu."""
    spec = resource.pop("spec", "")
    inner = ", ".join(f"{name}: {value}" for name, value in resource.items())
    return (
        f"apiVersion: kueue.x-k8s.io/v1beta2\nkind: ClusterQueue\nmetadata: {{name: q}}\nspec:\n{spec}"
        "  resourceGroups:\n  - coveredResources: [nvidia.com/gpu]\n    flavors:\n    - name: h100\n"
        f"      resources:\n      - {{name: nvidia.com/gpu, {inner}}}\n"
    )


def test_a_whole_policy() -> None:
    policy = imported(ALL).checked.policy
    assert {pool.gres for pool in policy.pools.values()} == {"gpu:h100", "gpu:a100"}
    a, b, alone = (policy.teams[name] for name in ("team-a", "team-b", "alone"))
    beside = {"h100/cpu": Quota(900), "h100/mem": Quota(4 * TIB), "a100/cpu": Quota(900), "a100/mem": Quota(4 * TIB)}
    assert a.quotas == {"h100": Quota(32, borrow=8, lend=4), "a100": Quota(16, borrow=0)} | beside
    assert (a.cohort, a.preempt_within_team) == ("lab", WithinTeam.LOWER_OR_NEWER_EQUAL_PRIORITY)
    assert (a.reclaim, a.borrow_preempts) == (Reclaim.ANY, BorrowPreempts(50))
    assert b.quotas == {"h100": Quota(64), "a100": Quota(0, borrow=0, lend=0)}
    assert (b.cohort, b.reclaim, b.preempt_within_team) == ("company", Reclaim.NEVER, WithinTeam.NEVER)
    assert b.borrow_preempts is None
    assert alone.quotas["a100"] == Quota(8, borrow=0, lend=0)
    assert alone.cohort is None
    assert policy.priority_classes == {"prod": 100, "dev": 50}
    # Of the pool that the Cohort does not name nothing is kept back: Kueue's default is without limit.
    lab = policy.cohorts["lab"]
    unlimited = dict.fromkeys(beside, Quota(0))
    assert lab.parent == "company"
    assert lab.quotas == {"h100": Quota(8, borrow=16, lend=0), "a100": Quota(0)} | unlimited
    assert policy.cohorts["company"].quotas == {"h100": Quota(0), "a100": Quota(0)} | unlimited
    assert [one.fair_share_weight for one in (a, b, alone, lab)] == [4, 4, 4, 3]
    assert (policy.idle, policy.lend_unallocated) == (Idle.FAIR_SHARE, False)
    assert policy.rebalance is Rebalance.FINAL_THEN_INITIAL_SHARE
    assert policy.preemption.victims is Victims.IN_ORDER


def test_what_has_no_counterpart() -> None:
    said = "\n".join(imported(ALL).notes)
    for start in (
        "stopPolicy: Hold (ClusterQueue alone): jobs start here",
        "queueingStrategy: StrictFIFO (ClusterQueue alone): the order within a team is Slurm's",
        "namespaceSelector (ClusterQueue alone): who may submit for a team are the users of its Slurm account",
        "admissionChecksStrategy (ClusterQueue alone): nothing is asked before a job starts",
        "nodeTaints (ResourceFlavor spot): which jobs may use a node is its partition's to say",
        "priorities that are not from 0 to 100: their order is kept: prod 10000 is 100, dev 100 is 50",
        "Kueue's Configuration is not in the files: fair sharing is taken as on",
        "fairSharing weights that are no whole numbers from 0 to 100: all are multiplied by 4 and rounded",
        "LocalQueues (ml/main: team-a): jobs name the team's account: sbatch -A",
    ):
        assert start in said
    assert len(imported(ALL).notes) == 10  # and which partition


def test_the_same_as_a_list_of_kubectl() -> None:
    import json

    from slurm_gov.policy.text import parse_all

    items = [document.data for document in parse_all(ALL, "k.yaml")[0]]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": items, "metadata": {"resourceVersion": ""}})
    assert imported(listed).checked.policy == imported(ALL).checked.policy
    queues = [one for one in items if one["kind"] == "ClusterQueue" and one["apiVersion"].endswith("v1beta2")]
    for one in queues:
        del one["apiVersion"], one["kind"]
    listed = json.dumps({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ClusterQueueList", "items": queues})
    assert sorted(imported(listed + "\n---\n" + FLAVORS).checked.policy.teams) == ["alone", "team-b"]


def test_kueues_configuration_says_whether_fair_sharing_is_on() -> None:
    off = imported(ALL + "---\n" + OFF).checked.policy
    assert (off.idle, off.rebalance, off.teams["team-a"].fair_share_weight) == (Idle.FIRST_COME, Rebalance.NEVER, 0)
    initial = "fairSharing: {preemptionStrategies: [LessThanInitialShare]}"
    on = OFF.replace("v1beta1", "v1beta2").replace("fairSharing: {enable: false}", initial)
    found = imported(queue(nominalQuota=8) + "---\n" + on).checked.policy
    assert (found.idle, found.rebalance) == (Idle.FAIR_SHARE, Rebalance.INITIAL_SHARE)
    assert found.teams["q"].fair_share_weight == 1


def test_a_bad_configuration() -> None:
    wrong = OFF.replace("{enable: false}", "{enable: true, preemptionStrategies: [LessThanInitialShare, x]}")
    assert "preemptionStrategies: is not one of the lists" in mistakes(queue(nominalQuota=8) + "---\n" + wrong)[0]


def test_flavors_of_one_gpu_type_are_one_pool_unless_told_otherwise() -> None:
    two = queue(nominalQuota=8, borrowingLimit=2, lendingLimit=3, spec="  cohortName: c\n") + (
        "    - name: h100-spot\n      resources:\n"
        "      - {name: nvidia.com/gpu, nominalQuota: 4, borrowingLimit: 1}\n"
    )
    assert imported(two).checked.policy.teams["q"].quotas == {"h100": Quota(12, borrow=3)}
    pools = {"h100-spot": PoolOption.parse("h100s:spot")}
    assert imported(two, pools=pools).checked.policy.teams["q"].quotas == {
        "h100": Quota(8, borrow=2, lend=3),
        "h100s": Quota(4, borrow=1),
    }


def beside(*resources: str, flavor: str = "h100", spec: str = "  cohortName: c\n") -> str:
    """One ClusterQueue with 8 GPUs of a flavor, and these quotas beside them."""
    lines = "".join(f"      - {{{one}}}\n" for one in resources)
    return queue(nominalQuota=8, spec=spec).replace("name: h100", f"name: {flavor}") + lines


def test_cpus_and_memory_are_the_pools_of_the_gpus_beside_them() -> None:
    found = imported(
        beside(
            "name: cpu, nominalQuota: 512, borrowingLimit: 64, lendingLimit: 0",
            "name: memory, nominalQuota: 1Ti, borrowingLimit: 512Gi, lendingLimit: 3Gi",
        )
    )
    assert found.checked.policy.teams["q"].quotas == {
        "h100": Quota(8),
        "h100/cpu": Quota(512, borrow=64, lend=0),
        "h100/mem": Quota(TIB, borrow=TIB // 2, lend=3072),
    }
    assert "    quota: {h100: 8, h100/cpu: 512, h100/mem: 1T}\n" in found.text
    assert not any("cpu" in note or "memory" in note or "rounded" in note for note in found.notes)


def test_without_a_cohort_cpus_are_neither_lent_nor_borrowed() -> None:
    alone = imported(beside("name: cpu, nominalQuota: 512", spec="")).checked.policy.teams["q"]
    assert alone.quotas["h100/cpu"] == Quota(512, borrow=0, lend=0)
    said = mistakes(beside("name: cpu, nominalQuota: 512, borrowingLimit: 1", spec=""))
    assert said[0].endswith("borrowingLimit: is set, and it is in no cohort to borrow from or lend to; remove it")


@pytest.mark.parametrize(
    ("resource", "quota"),
    [
        ("name: cpu, nominalQuota: 500m", {"h100/cpu": Quota(0)}),
        ("name: cpu, nominalQuota: 2, borrowingLimit: 1500m", {"h100/cpu": Quota(2, borrow=1)}),
        ("name: cpu, nominalQuota: 2, lendingLimit: 999m", {"h100/cpu": Quota(2, lend=0)}),
        ("name: memory, nominalQuota: 100G", {"h100/mem": Quota(95367)}),
        ("name: memory, nominalQuota: 1048575", {"h100/mem": Quota(0)}),
    ],
    ids=str,
)
def test_what_is_rounded_down_is_said(resource: str, quota: dict[str, Quota]) -> None:
    found = imported(beside(resource))
    assert found.checked.policy.teams["q"].quotas == {"h100": Quota(8)} | quota
    (pool,) = quota
    what = "CPUs" if pool.endswith("cpu") else "MiB of memory"
    assert f"amounts that are no whole {what} (ClusterQueue q): rounded down" in found.notes


def test_what_a_cluster_of_clusters_has() -> None:
    """Above what the file takes as a number: a quota of memory has a unit, a limit of it has none."""
    found = imported(beside("name: memory, nominalQuota: 2000001Gi, borrowingLimit: 2000000Gi"))
    assert found.checked.policy.teams["q"].quotas["h100/mem"] == Quota(2_000_001 * 1024, borrow=10**9)
    assert "limits above 1000000000 (q): written as that, the most that the file takes" in found.notes


def test_a_number_for_gpus_and_cpus_alike_is_not_one_number_for_all() -> None:
    found = imported(
        beside("name: cpu, nominalQuota: 80, borrowingLimit: 4").replace(
            "nominalQuota: 8}", "nominalQuota: 8, borrowingLimit: 4}"
        )
    )
    assert found.checked.policy.teams["q"].quotas == {"h100": Quota(8, borrow=4), "h100/cpu": Quota(80, borrow=4)}


def test_cpus_of_a_flavor_without_gpus_have_no_counterpart() -> None:
    cpus = "    - name: default\n      resources:\n      - {name: cpu, nominalQuota: 100}\n"
    note = (
        "quotas of cpu and memory of a flavor without GPUs beside them (ClusterQueue q: default): not limited: ours "
        "stand beside the GPUs of a pool; such nodes are Slurm's alone"
    )
    # In one group every flavor lists all resources: 0 GPUs are none.
    for text in (cpus, cpus + "      - {name: nvidia.com/gpu, nominalQuota: 0}\n"):
        found = imported(beside("name: cpu, nominalQuota: 64") + text)
        assert found.checked.policy.teams["q"].quotas == {"h100": Quota(8), "h100/cpu": Quota(64)}
        assert note in found.notes


def test_cpus_beside_several_kinds_of_gpus_are_those_of_which_it_has_any() -> None:
    both = ("name: nvidia.com/mig-1g.10gb, nominalQuota: 0", "name: cpu, nominalQuota: 64")
    for text, pool in (
        (beside(*both), "h100"),
        (
            beside(*both)
            .replace("nominalQuota: 8", "nominalQuota: 0")
            .replace("10gb, nominalQuota: 0", "10gb, nominalQuota: 7"),
            "1g.10gb",
        ),
    ):
        found = imported(text)
        assert {one: q.nominal for one, q in found.checked.policy.teams["q"].quotas.items() if "/" in one} == {
            f"{pool}/cpu": 64
        }
        assert any(
            note.endswith(f"taken as {pool}'s; jobs on the others are not limited in them") for note in found.notes
        )


def test_cpus_of_flavors_that_are_one_pool_are_added_up() -> None:
    spot = beside("name: cpu, nominalQuota: 1500m, borrowingLimit: 2", flavor="h100-spot").partition("    - name:")[2]
    found = imported(beside("name: cpu, nominalQuota: 8, borrowingLimit: 1") + "    - name:" + spot)
    assert found.checked.policy.teams["q"].quotas["h100/cpu"] == Quota(9, borrow=3)


def test_a_cohorts_cpus() -> None:
    cohort = (
        COHORTS.replace("lab", "c")
        .replace("name: reserved", "name: h100")
        .replace(
            "        lendingLimit: 0\n",
            "        lendingLimit: 0\n      - {name: cpu, nominalQuota: 96, lendingLimit: 32}\n",
        )
    )
    quotas = imported(beside("name: cpu, nominalQuota: 512") + "---\n" + cohort).checked.policy.cohorts["c"].quotas
    assert quotas == {"h100": Quota(8, borrow=16, lend=0), "h100/cpu": Quota(96, lend=32)}


def test_mig_and_other_gpu_resources() -> None:
    text = queue(nominalQuota=8).replace("nvidia.com/gpu", "nvidia.com/mig-1g.10gb")
    assert imported(text).checked.policy.pools["1g.10gb"].gres == "gpu:1g.10gb"
    other = queue(nominalQuota=8).replace("nvidia.com/gpu", "example.com/gpu")
    assert "others: --gpu-resource NAME" in mistakes(other)[0]
    assert imported(other, gpu_resources=["example.com/gpu"]).checked.policy.teams["q"].quotas["h100"].nominal == 8


def test_a_queue_without_gpus_may_use_none() -> None:
    cpus = queue(nominalQuota=8).replace("nvidia.com/gpu", "cpu").replace("name: q}", "name: cpus}")
    policy = imported(queue(nominalQuota=8) + "---\n" + cpus).checked.policy
    assert policy.teams["cpus"].quotas == {"h100": Quota(0, borrow=0, lend=0)}


@pytest.mark.parametrize(
    ("values", "weights"),
    [
        ([0, 50, 100], [0, 50, 100]),
        ([1000, 2000], [50, 100]),
        ([-10, 10], [0, 100]),
        ([-5, -4], [0, 50]),
        ([7, 7], [7, 7]),
        ([10**9, 10**9, 1], [100, 100, 50]),
    ],
    ids=str,
)
def test_priorities_keep_their_order(values: list[int], weights: list[int]) -> None:
    classes = "".join(
        "---\napiVersion: kueue.x-k8s.io/v1beta2\nkind: WorkloadPriorityClass\n"
        f"metadata: {{name: c{i}}}\nvalue: {value}\n"
        for i, value in enumerate(values)
    )
    found = imported(queue(nominalQuota=8) + classes)
    assert [found.checked.policy.priority_classes[f"c{i}"] for i in range(len(values))] == weights
    assert any(note.startswith("priorities below 0") for note in found.notes) is (min(values) < 0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["1", "2"], [1, 2]),
        (["500m", "2"], [1, 4]),
        (["1", "1000"], [1, 100]),
        (["0", "0.1"], [0, 1]),
        (["300", "600"], [1, 2]),
    ],
    ids=str,
)
def test_weights_keep_their_ratios(given: list[str], expected: list[int]) -> None:
    text = "---\n".join(
        queue(nominalQuota=8, spec=f"  fairSharing: {{weight: {weight}}}\n").replace("name: q}", f"name: q{i}}}")
        for i, weight in enumerate(given)
    )
    policy = imported(text).checked.policy
    assert [policy.teams[f"q{i}"].fair_share_weight for i in range(len(given))] == expected


def test_names_that_slurm_would_not_take() -> None:
    long = "a" * 200
    text = queue(nominalQuota=8).replace("name: q}", f"name: {long}}}")
    found = imported(text)
    (team,) = found.checked.policy.teams
    assert team == "a" * 60
    assert f"# ClusterQueue {'a' * 59}…\n" in found.text
    assert any("cannot be the name of a Slurm account: it is" in note for note in found.notes)


GOOD = queue(nominalQuota=8, spec="  cohortName: c\n")
MISTAKES = [
    (GOOD.replace("v1beta2", "v1alpha1"), "is not read here; write kueue.x-k8s.io/v1beta1 or kueue."),
    (GOOD.replace("kind: ClusterQueue\n", ""), "k.yaml:1:1: kind: is missing"),
    (GOOD.replace("{name: q}", "{}"), "metadata: names nothing; every ClusterQueue has metadata"),
    (queue(nominalQuota="1500m"), '"1500m" is no number of whole GPUs; write a whole number, such as 8'),
    (queue(nominalQuota=-1), '"-1" is no quantity'),
    (queue(nominalQuota="8 GPUs"), '"8 GPUs" is no quantity; write a number of GPUs, such as 8'),
    (queue(borrowingLimit="null"), "nominalQuota: is missing; write a number of GPUs"),
    (queue(nominalQuota=8, borrowingLimit=1), "borrowingLimit: is set, and it is in no cohort"),
    (queue(nominalQuota=8, lendingLimt=1), 'lendingLimt: there is no such field; did you mean "lendingLimit"?'),
    (GOOD.replace("cohortName", "cohortname"), 'did you mean "cohortName"?'),
    (GOOD.replace("name: h100", "name: default-flavor"), "say it: --pool default-flavor=TYPE:PARTITION"),
    (queue(nominalQuota=8, spec="  preemption: {reclaimWithinCohort: any}\n"), 'is "any"; did you mean "Any"?'),
    (queue(nominalQuota=8, spec="  preemption: {withinClusterQueue: Any}\n"), "write Never, LowerPriority or"),
    (queue(nominalQuota=8, spec="  fairSharing: {weight: -1}\n"), "fairSharing.weight: \"-1\" is no weight"),
    (queue(nominalQuota=8, spec="  fairSharing: {weight: x}\n"), "fairSharing.weight: \"x\" is no weight"),
    (GOOD + "---\n" + GOOD, 'ClusterQueue "q" is given twice, first at k.yaml:1; keep one'),
    (COHORTS.replace("company", "lab") + "---\n" + GOOD, 'Cohort "lab" is below itself'),
    (COHORTS, "holds no ClusterQueue; give what kubectl get clusterqueues -o yaml prints"),
    (GOOD + "---\n" + CLASSES.replace("value: 100\n", "value: high\n"), "value: is the text \"high\"; write a whole"),
    (beside("name: cpu, nominalQuota: -1"), '"-1" is no quantity; write a quantity, such as 512, or 4Ti of memory'),
    (beside("name: memory, borrowingLimit: 1Gi"), "nominalQuota: is missing; write a quantity, such as 512"),
    (beside("name: cpu, nominalQuota: 2G"), '"2G" is more than any cluster has; write what there is'),
    (beside("name: memory, nominalQuota: 1000Pi"), '"1000Pi" is more than any cluster has'),
    ("- a\n- b\n", "is no object; write kind: ClusterQueue"),
    (GOOD.replace("resourceGroups:", "resourceGroups: {}\n  x:"), "is a mapping where a list is wanted"),
    ("a: [", "k.yaml:1:"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_says_what_would_be_right(text: str, expected: str) -> None:
    found = mistakes(text)
    assert any(expected in one for one in found), found


def test_the_place_is_that_of_the_second_document() -> None:
    text = GOOD + "---\n" + GOOD.replace("name: q}", "name: r}").replace("nominalQuota: 8", "nominalQuota: x")
    assert mistakes(text)[0].startswith("k.yaml:23:46: spec.resourceGroups.0.flavors.0.resources.0.nominalQuota: ")


def test_a_pool_option_for_nothing_is_refused() -> None:
    said = mistakes(GOOD, pools={"spot": PoolOption.parse("a100")})
    assert said == ["--pool spot: is no flavor with GPUs in these files; there are: h100"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (8, 8),
        ("8", 8),
        ("1k", 1000),
        ("2Ki", 2048),
        ("500m", Fraction(1, 2)),
        ("0.5", Fraction(1, 2)),
        ("1e3", 1000),
        (1.5, Fraction(3, 2)),
        ("", None),
        ("8 ", None),
        ("8x", None),
        (True, None),
        (None, None),
        ("1e999", None),
        ("9" * 50, None),
    ],
    ids=str,
)
def test_quantities(text: Any, number: Fraction | None) -> None:
    assert quantity(text) == number
