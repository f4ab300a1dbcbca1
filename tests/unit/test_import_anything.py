"""Whatever is in a file to import: a policy that our loader takes, or mistakes in that file."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
import test_import_hyperpod as hyperpod
import test_import_kueue as kueue

from slurm_gov.core.policy import Quota
from slurm_gov.policy import PolicyError, loads
from slurm_gov.policy.import_hyperpod import import_hyperpod
from slurm_gov.policy.import_kueue import import_kueue
from slurm_gov.policy.importing import MOST, Source
from slurm_gov.policy.quantity import quantity
from slurm_gov.policy.text import parse_all

ODD: list[Any] = [None, True, [], {}, "", "x", -1, 0, 1.5, 10**30, [1], {"a": 1}, "8", [[]], "root"]
ODD += ["500m", "4Ti", "1e30", 0.1, 999_999_999_999, "999999999999Mi"]
ODD += ["\ud83d\ude00", "\x1b[2J", "a" * 300, "#", "a: b", 'it\'s "so"', "\n"]
BESIDE = {"VCpu": 96.5, "MemoryInGiB": 1024}
SHARING = hyperpod.sharing("LendAndBorrow", BorrowLimit=100, AbsoluteBorrowLimits=[hyperpod.P5 | BESIDE])
MIG = {"InstanceType": "ml.p5.48xlarge", "AcceleratorPartition": {"Type": "mig-1g.10gb", "Count": 2}, "VCpu": 8}
P5 = hyperpod.P5 | BESIDE
QUOTAS = [
    hyperpod.quota("a", P5, MIG, weight=4, PreemptTeamTasks="Never", ResourceSharingConfig=SHARING),
    hyperpod.quota("b", P5, number=2),
]
HYPERPOD: list[Any] = [{"ComputeQuotaSummaries": QUOTAS, "NextToken": "x"}, hyperpod.CLUSTER]
CPUS = kueue.beside(
    "name: cpu, nominalQuota: 512, borrowingLimit: 500m, lendingLimit: 8",
    "name: memory, nominalQuota: 1.5Ti, borrowingLimit: 1Gi, lendingLimit: 1G",
    spec="  cohortName: lab\n",
)
KUEUE = [document.data for document in parse_all(f"{kueue.ALL}---\n{CPUS}---\n{kueue.OFF}", "k.yaml")[0]]


def paths(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    below = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in below:
        yield from paths(value, (*path, key))


def spoiled(data: list[Any], dice: random.Random) -> list[Any]:
    """The data with something in it changed, missing or misspelt."""
    data = copy.deepcopy(data)
    for _ in range(dice.choice([1, 1, 2, 3])):
        *way, last = dice.choice(list(paths(data)))
        place: Any = data
        for part in way:
            place = place[part]
        what = dice.random()
        if what < 0.6:
            place[last] = dice.choice(ODD)
        elif what < 0.8:
            del place[last]
        elif isinstance(place, dict):
            place[last[:-1] or "q"] = place.pop(last)
    return data


@pytest.mark.parametrize("seed", range(8))
def test_a_policy_or_mistakes(seed: int) -> None:
    dice = random.Random(seed)
    taken = 0
    for _ in range(25):
        for read, text in (
            (import_hyperpod, json.dumps(spoiled(HYPERPOD, dice))),
            (import_kueue, "\n---\n".join(json.dumps(one) for one in spoiled(KUEUE, dice))),
        ):
            try:
                found = read([Source("file", text)])
            except PolicyError as error:
                assert all(one.file == "file" and one.message for one in error.problems), str(error)
            else:
                taken += 1
                assert found.checked.policy.teams
                assert loads(found.text) == found.checked.policy
    assert taken


Had = tuple[Fraction | None, Fraction | None, Fraction | None]


def assert_no_more(quota: Quota, had: Had) -> None:
    """Quota, borrow and lend are what they had, rounded down; limits at most what the file takes."""
    for ours, theirs, most in zip((quota.nominal, quota.borrow, quota.lend), had, (10**13, MOST, MOST), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert min(theirs, most) - 1 < ours <= theirs


@pytest.mark.parametrize("seed", range(8))
def test_kueues_cpus_and_memory_do_not_become_more(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(25):
        lines: list[str] = []
        all_had: dict[str, Had] = {}
        for name, unit, suffixes in (
            ("cpu", 1, ["", "m", "k"]),
            ("memory", 1024**2, ["", "k", "Mi", "G", "Gi", "Ti"]),
        ):
            number = dice.choice([10, 3000, 0.7, 900.123])
            said = [f"{round(dice.random() * number, 3)}{dice.choice(suffixes)}" for _ in range(3)]
            kept = [True, dice.random() < 0.7, dice.random() < 0.7]
            fields = ("nominalQuota", "borrowingLimit", "lendingLimit")
            given = [f"{field}: {text}" for field, text, there in zip(fields, said, kept, strict=True) if there]
            lines.append(", ".join([f"name: {name}", *given]))
            one, two, three = (
                found / unit if there and (found := quantity(text)) is not None else None
                for text, there in zip(said, kept, strict=True)
            )
            all_had[name] = one, two, three
        found = import_kueue([Source("k.yaml", kueue.beside(*lines))])
        quotas = found.checked.policy.teams["q"].quotas
        assert_no_more(quotas["h100/cpu"], all_had["cpu"])
        assert_no_more(quotas["h100/mem"], all_had["memory"])
        broken = [any(one and one.denominator > 1 for one in had) for had in all_had.values()]
        assert sum(note.endswith("rounded down") for note in found.notes) == sum(broken)


@pytest.mark.parametrize("seed", range(8))
def test_hyperpods_cpus_and_memory_do_not_become_more(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(25):
        cpus, gib = (dice.choice([dice.randrange(900), dice.uniform(0, 9000)]) for _ in range(2))
        resource = hyperpod.GPUS | {"VCpu": cpus, "MemoryInGiB": gib}
        found = hyperpod.imported(hyperpod.quota("a", resource), hyperpod.CLUSTER)
        quotas = found.checked.policy.teams["a"].quotas
        for name, amount in (("h100/cpu", Fraction(cpus)), ("h100/mem", Fraction(gib) * 1024)):
            assert_no_more(quotas[name], (amount, Fraction(quotas[name].nominal, 2), None))
        broken = [Fraction(cpus).denominator > 1, (Fraction(gib) * 1024).denominator > 1]
        assert sum(note.endswith("rounded down") for note in found.notes) == sum(broken)
