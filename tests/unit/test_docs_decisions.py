"""docs/decisions.md says what the core decides: its examples are decided here, its tables are of all there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from slurm_gov.core.decision import Reason
from slurm_gov.core.plan import plan
from slurm_gov.core.policy import Policy, frozen
from slurm_gov.core.shields import Rule
from slurm_gov.core.snapshot import Held, Node, Request, RunningJob, Snapshot, WaitingJob
from slurm_gov.policy import loads, schema

TEXT = (Path(__file__).parents[2] / "docs" / "decisions.md").read_text()
EXAMPLES = re.findall(r"### (Example [^\n]+)\n.*?```yaml\n(.*?)```\n.*?```\n(.*?)```\n", TEXT, re.DOTALL)
NOW = 1_800_000_000.0
DEFAULTS = """\
pools: {h100: {partition: gpu, gres: "gpu:h100"}}
priority_classes: {inference: 100, training: 50, experiment: 10}
"""


def decided(text: str) -> str:
    """What is decided of an example: caps, who leaves, and what is said of each waiting job."""
    data: dict[str, Any] = YAML(typ="safe").load(text)
    policy = loads(DEFAULTS + text.partition("\nnodes:")[0])
    found = plan(policy, _snapshot(data, policy))
    caps = ", ".join(f"{team} {cap['gres/gpu:h100']}" for team, cap in found.caps.items())
    lines = [f"caps: {caps}"]
    lines += [f"{one.display_id} of {one.team} leaves: {one.reason}" for one in found.preempt]
    lines += [f"{one.display_id} {one.reason}: {one.why}" for one in found.decisions]
    lines += [f"warning: {warning}" for warning in found.warnings]
    return "\n".join(lines) + "\n"


def _snapshot(data: dict[str, Any], policy: Policy) -> Snapshot:
    tres = policy.pools["h100"].tres
    nodes = [Node(f"n{n}", ("gpu",), frozen({tres: 8}), 64, 512_000) for n in range(1, data["nodes"] + 1)]
    running = [
        RunningJob(
            id=one["job"],
            display_id=str(one["job"]),
            user="user",
            account=one["team"],
            partition="gpu",
            qos=one.get("class", "training"),
            start=NOW - 60 * one["minutes"],
            held=tuple(Held(name, frozen({tres: one.get("gpus", 8)}), 8, 1000) for name in one["on"]),
            requeueable=one.get("requeue", True),
        )
        for one in data.get("running", ())
    ]
    waiting = [
        WaitingJob(
            id=one["job"],
            display_id=str(one["job"]),
            user="user",
            account=one["team"],
            partitions=("gpu",),
            qos=one.get("class", "training"),
            priority=1000 - number,
            submit=NOW - 60,
            request=Request(
                frozen({tres: one["nodes"] * one.get("gpus", 8)} if one["nodes"] else {}),
                min_nodes=one["nodes"] or 1,
                gpus_per_node=one.get("gpus", 8) if one["nodes"] else 0,
            ),
            held_back=one.get("held", ""),
            comes_last=one.get("noted", False),
        )
        for number, one in enumerate(data.get("waiting", ()))
    ]
    return Snapshot(NOW, tuple(nodes), tuple(running), tuple(waiting))


@pytest.mark.parametrize(("title", "example", "said"), EXAMPLES, ids=[title for title, _, _ in EXAMPLES])
def test_the_examples_are_what_is_decided(title: str, example: str, said: str) -> None:
    assert said == decided(example), f"\n{title}:\n{decided(example)}"


def test_there_are_examples_of_every_reason() -> None:
    assert len(EXAMPLES) >= 6
    shown = {word for _, _, said in EXAMPLES for word in re.findall(r"^\d+ (\w+): ", said, re.MULTILINE)}
    assert shown == set(Reason)


def test_the_tables_hold_all_reasons_and_all_that_shields() -> None:
    assert re.findall(r"^\| `(\w+)` \|", TEXT.partition("## Reasons")[2], re.MULTILINE) == list(Reason)
    shields = TEXT.partition("## What keeps a running job")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", shields, re.MULTILINE) == list(Rule)


def test_every_setting_that_decides_is_named() -> None:
    """A setting that the policy file has and this document does not know of is one that nobody can follow."""
    sections = (schema.Team, schema.Cohort, schema.Sharing, schema.Preemption)
    settings = {name for section in sections for name in section.model_fields}
    missing = [name for name in sorted(settings) if f"`{name}`" not in TEXT]
    assert not missing, f'docs/decisions.md, under "Which rule decides what", does not name {missing}'
