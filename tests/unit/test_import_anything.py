"""Whatever is in a file to import: a policy that our loader takes, or mistakes in that file."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import test_import_hyperpod as hyperpod
import test_import_kueue as kueue

from slurm_gov.policy import PolicyError
from slurm_gov.policy.import_hyperpod import import_hyperpod
from slurm_gov.policy.import_kueue import import_kueue
from slurm_gov.policy.importing import Source
from slurm_gov.policy.text import parse_all

ODD: list[Any] = [None, True, [], {}, "", "x", -1, 0, 1.5, 10**30, [1], {"a": 1}, "8", [[]], "root"]
ODD += ["\ud83d\ude00", "\x1b[2J", "a" * 300, "#", "a: b", 'it\'s "so"', "\n"]
SHARING = hyperpod.sharing("LendAndBorrow", BorrowLimit=100, AbsoluteBorrowLimits=[hyperpod.P5])
MIG = {"InstanceType": "ml.p5.48xlarge", "AcceleratorPartition": {"Type": "mig-1g.10gb", "Count": 2}}
QUOTAS = [
    hyperpod.quota("a", hyperpod.P5, MIG, weight=4, PreemptTeamTasks="Never", ResourceSharingConfig=SHARING),
    hyperpod.quota("b", hyperpod.P5, number=2),
]
HYPERPOD: list[Any] = [{"ComputeQuotaSummaries": QUOTAS, "NextToken": "x"}, hyperpod.CLUSTER]
KUEUE = [document.data for document in parse_all(kueue.ALL + "---\n" + kueue.OFF, "k.yaml")[0]]


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
    assert taken
