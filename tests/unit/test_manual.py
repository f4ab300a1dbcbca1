"""Manual pages and reference pages: made from the commands and the schema, and lacking nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from slurm_gov.cli.manual.commands import Command
from slurm_gov.cli.manual.man import manual_pages, node_pages
from slurm_gov.cli.manual.markdown import reference_pages
from slurm_gov.cli.manual.plugin_conf import read_sample
from slurm_gov.cli.manual.programs import programs
from slurm_gov.cli.manual.roff import Page, escape
from slurm_gov.cli.manual.settings import EXAMPLE, settings
from slurm_gov.policy import check

ROOT = Path(__file__).parents[2]
SAMPLE = (ROOT / "etc" / "job_submit_gov.conf").read_text()
COMMANDS = [one for program in programs() for one in program.walk()]


@pytest.mark.parametrize("name", reference_pages())
def test_the_reference_pages_are_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == reference_pages()[name], "run: make reference"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one.name)
def test_a_command_says_what_it_does_with_examples_and_exit_codes(command: Command) -> None:
    assert command.summary and "..." not in command.summary
    assert {"Examples", "Exit codes"} <= set(command.sections) | ({"Examples"} if command.commands else set())
    assert f"{command.name} " in command.sections.get("Examples", f"{command.name} ") + " "
    for option in command.options:
        assert option.help, f"{option.names} says nothing"
        assert not re.search(r"\b(TEXT|INTEGER|FLOAT|DIRECTORY|PATH)\b", option.names) or option.names.split()[0] in (
            *("--reason", "--message", "--socket", "--dir", "--data"),
        ), f"{option.names}: say what it is"


def test_the_examples_name_options_that_there_are() -> None:
    known = {one.name: one for one in COMMANDS}
    for command in COMMANDS:
        for line in command.sections.get("Examples", "").split("\n"):
            words = re.split(r"\s{2,}|\s[|>]\s", line.strip())[0].split(" -- ")[0].split()
            names = [name for name in known if words[: len(name.split())] == name.split()]
            if not names:
                continue
            called = known[max(names, key=len)]
            above = {option for name in names for option in _flags(known[name])}
            asked = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            assert asked <= _flags(called) | above, line


def _flags(command: Command) -> set[str]:
    found = {"--help", "-h"}
    for option in command.options:
        found |= set(re.findall(r"(?:^|[\s/,])(--?[a-z][a-z-]*)", option.names))
    return found


def test_the_example_policy_is_right_and_has_every_setting() -> None:
    assert check(EXAMPLE).warnings == ()
    lacking = [
        one.path for one in settings() if not one.example and not one.type.startswith(("a section", "a list of s"))
    ]
    assert not lacking, f"{EXAMPLE} has no {lacking}"


def test_there_is_a_page_for_every_command_and_file() -> None:
    pages = manual_pages(SAMPLE)
    assert set(pages) >= {f"man1/{one.name.replace(' ', '-')}.1" for one in programs()[0].commands}
    assert {"man8/slurm-govd.8", "man8/slurm-gov-agent.8", "man5/slurm-gov-policy.5"} <= set(pages)
    for one in settings():
        assert escape(one.path) in pages["man5/slurm-gov-policy.5"]
    assert list(node_pages(pages)) == ["man8/slurm-gov-agent.8"]


def test_the_units_name_pages_that_there_are() -> None:
    for unit in (ROOT / "systemd").glob("*.service"):
        for name, section in re.findall(r"man:([\w-]+)\((\d)\)", unit.read_text()):
            assert f"man{section}/{name}.{section}" in manual_pages(SAMPLE)


def test_the_page_of_the_plugins_configuration_has_what_the_plugin_reads() -> None:
    table = (ROOT / "plugin_c" / "conf.c").read_text().partition("options[] = {")[2].partition("};")[0]
    known = set(re.findall(r'\{ "(\w+)",', table))
    _, options = read_sample(SAMPLE)
    lines = [line for option in options for line in option.lines]
    assert {line.partition("=")[0] for line in lines} == known
    assert all(option.meaning for option in options)


def test_nothing_in_a_text_is_a_macro() -> None:
    page = Page("x", 1, "2026-01-01", "x", "y")
    page.paragraph(".SH no heading \\fBnot bold\\fR 'quoted'")
    page.literal(".nf\n'br")
    macros = [line for line in page.text().splitlines() if line.startswith((".", "'"))]
    assert macros[2:] == [".SH NAME", ".PP", ".PP", ".nf", ".RS 4", ".RE", ".fi"]
    assert r"\efBnot" in page.text()


def test_made_twice_it_is_the_same() -> None:
    """`slurm-gov install` must find nothing to do the second time."""
    made = [sys.executable, "-c", "from slurm_gov.cli.manual.man import manual_pages as m; print(m('#'))"]
    texts = {subprocess.run(made, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(texts) == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_knows_every_command(shell: str) -> None:
    script = [sys.executable, "-m", "slurm_gov.cli.main", "completion", shell]
    said = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert "_SLURM_GOV_COMPLETE" in said
    asked = {"_SLURM_GOV_COMPLETE": f"{shell}_complete", "COMP_WORDS": "slurm-gov po", "COMP_CWORD": "1"}
    if shell == "fish":
        asked |= {"COMP_WORDS": "slurm-gov ", "COMP_CWORD": "po"}
    program = "import sys; sys.argv[0] = 'slurm-gov'; from slurm_gov.cli.main import cli; cli(prog_name='slurm-gov')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=asked, check=False)
    assert "policy" in done.stdout
