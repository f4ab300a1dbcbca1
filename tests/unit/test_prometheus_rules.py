"""The rules in etc/prometheus: promtool runs their tests; each has one, and its paragraph in the runbook."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "etc" / "prometheus"


def read(name: str) -> Any:
    return YAML(typ="safe").load((PROMETHEUS / name).read_text())


def rules(kind: str) -> dict[str, dict[str, Any]]:
    groups = read("slurm-gov.rules.yml")["groups"]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


def test_promtool_runs_the_tests_of_the_rules() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", "slurm-gov.tests.yml"], cwd=PROMETHEUS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_sample_configuration() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"], cwd=PROMETHEUS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_has_a_test_that_sees_it() -> None:
    fired, quiet, recorded = set(), set(), set()
    for test in read("slurm-gov.tests.yml")["tests"]:
        for one in test.get("alert_rule_test", ()):
            (fired if one.get("exp_alerts") else quiet).add(one["alertname"])
        recorded |= {one["expr"] for one in test.get("promql_expr_test", ()) if one["exp_samples"]}
    assert fired == quiet == set(rules("alert"))
    assert recorded == set(rules("record"))


def test_every_alert_has_its_paragraph() -> None:
    """Under a heading of its name, with what it means and what to do."""
    text = (ROOT / "docs" / "runbook.md").read_text()
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL))
    for name, rule in rules("alert").items():
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
        assert len(sections[name].split()) >= 30, name
    assert set(sections) == set(rules("alert"))
