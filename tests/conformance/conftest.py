"""Decisions with known answers: ``pytest tests/conformance [--cases FILE]`` runs any file in this notation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

OWN_CASES = Path(__file__).with_name("preemption.yaml")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cases", type=Path, default=OWN_CASES, help="a file of cases in the notation of preemption.yaml"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for kind in ("victims", "share"):
        if f"{kind}_case" in metafunc.fixturenames:
            cases = [case for case in load(metafunc.config.getoption("--cases", OWN_CASES)) if case["kind"] == kind]
            names = [f"{case['id']} {case['title']}" for case in cases]
            metafunc.parametrize(f"{kind}_case", cases, ids=names)


def load(path: Path) -> list[dict[str, Any]]:
    cases = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    unknown = {case["kind"] for case in cases} - {"victims", "share"}
    if unknown:
        raise pytest.UsageError(f"{path}: unknown kind of case: {', '.join(sorted(unknown))}")
    return list(cases)
