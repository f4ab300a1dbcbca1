"""Imports go one way: what decides knows nothing of what looks and acts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import slurm_gov

ROOT = Path(slurm_gov.__file__).parent

# Package to the packages of ours that it may import, beside itself.
MAY_IMPORT = {
    "core": set(),
    "database": set(),
    "policy": {"core"},
    "slurm": {"core"},
    "admission": {"core"},
    "health": {"core", "database"},
    "ledger": {"core", "database"},
    "web": {"core"},
    "simulate": {"core", "policy"},
    "sandbox": {"policy", "health"},  # it runs the other programs, as an administrator would
    "daemon": {"core", "database", "policy", "slurm", "admission", "health", "ledger", "web"},
    "cli": {
        "core",
        "database",
        "policy",
        "slurm",
        "admission",
        "health",
        "ledger",
        "web",
        "daemon",
        "sandbox",
        "simulate",
    },
}
# What decides has no clock, no files, no network and no other program.
NOT_IN_CORE = {
    "time",
    "datetime",
    "os",
    "sys",
    "pathlib",
    "io",
    "socket",
    "asyncio",
    "subprocess",
    "random",
    "logging",
}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(file: Path) -> Iterator[str]:
    """The full names of all modules that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            if node.module == "slurm_gov":
                yield from (f"slurm_gov.{alias.name}" for alias in node.names)
            elif node.module:
                yield node.module


def ours(file: Path) -> set[str]:
    """The packages of ours that a file imports."""
    parts = (name.split(".") for name in imported(file))
    return {part[1] for part in parts if part[0] == "slurm_gov" and len(part) > 1 and not part[1].startswith("__")}


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_imports_go_one_way(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    wrong = {str(file.relative_to(ROOT)): ours(file) - allowed for file in modules(package)}
    assert {file: names for file, names in wrong.items() if names} == {}


def test_every_package_has_its_place() -> None:
    """A package that is new gets its line above, and its arrow in the design."""
    packages = {file.parent.relative_to(ROOT).parts[0] for file in ROOT.rglob("*.py") if file.parent != ROOT}
    assert packages <= set(MAY_IMPORT)


def test_what_decides_is_pure() -> None:
    wrong = {file.name: {name.split(".")[0] for name in imported(file)} & NOT_IN_CORE for file in modules("core")}
    assert {file: names for file, names in wrong.items() if names} == {}


def test_the_core_stands_on_the_standard_library_alone() -> None:
    import sys

    for file in modules("core"):
        top = {name.split(".")[0] for name in imported(file)} - {"slurm_gov"}
        assert top <= sys.stdlib_module_names, file.name
