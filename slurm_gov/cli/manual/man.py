"""The manual pages: of the programs and their commands, of the policy file, of the plugin's configuration."""

from __future__ import annotations

from collections.abc import Iterable

from slurm_gov import __date__, __version__
from slurm_gov.cli.manual.commands import Block, Command, pairs
from slurm_gov.cli.manual.plugin_conf import read_sample
from slurm_gov.cli.manual.programs import programs
from slurm_gov.cli.manual.roff import Page
from slurm_gov.cli.manual.settings import settings

_SMALLEST = """\
pools:
  h100: {partition: gpu, gres: "gpu:h100"}
teams:
  research: {quota: {h100: 64}}
  product: {quota: {h100: 32}}"""
_FILES = (
    ("/etc/slurm-gov/policy.yaml", "The policy: slurm-gov-policy(5)."),
    ("/var/lib/slurm-gov/ledger.db", "The ledger: every decision, for slurm-gov log and usage."),
    ("/var/lib/slurm-gov/nodes.db", "What is remembered of nodes."),
    ("/var/lib/slurm-gov/before.json", "What stood in Slurm before slurm-gov, for slurm-gov policy remove."),
)
_DAEMON_FILES = (
    *_FILES,
    ("/run/slurm-gov/admission.sock", "Where the plugin asks."),
    ("/etc/default/slurm-govd", "Environment variables for the unit, one NAME=VALUE a line."),
)
_AGENT_FILES = (
    ("/etc/slurm-gov/agent.yaml", "The configuration; slurm-gov-agent config shows all of it."),
    ("/var/lib/slurm-gov-agent", "What was seen since boot, and injected faults."),
    ("/etc/default/slurm-gov-agent", "Environment variables for the unit, one NAME=VALUE a line."),
)


def manual_pages(plugin_conf: str) -> dict[str, str]:
    """All pages, by their path below a folder for manuals: ``man1/slurm-gov.1`` to its text.

    ``plugin_conf`` is the text of the sample job_submit_gov.conf.
    """
    root, daemon, agent = programs()
    names = [one.name.replace(" ", "-") for one in root.commands]
    below = [f"{name}(1)" for name in names]
    others = ["slurm-govd(8)", "slurm-gov-agent(8)", "slurm-gov-policy(5)", "job_submit_gov.conf(5)"]
    pages = {"man1/slurm-gov.1": _root_page(root, [*below, *others])}
    for one, name in zip(root.commands, names, strict=True):
        also = ["slurm-gov(1)", *(["slurm-gov-policy(5)"] if name == "slurm-gov-policy" else [])]
        pages[f"man1/{name}.1"] = _command_page(one, 1, also)
    pages["man8/slurm-govd.8"] = _command_page(daemon, 8, ["slurm-gov(1)", *others[1:]], _DAEMON_FILES)
    also = ["slurm-gov(1)", "slurm-gov-node(1)", "slurm-govd(8)"]
    pages["man8/slurm-gov-agent.8"] = _command_page(agent, 8, also, _AGENT_FILES)
    pages["man5/slurm-gov-policy.5"] = _policy_page()
    pages["man5/job_submit_gov.conf.5"] = _plugin_page(plugin_conf)
    return pages


def node_pages(pages: dict[str, str]) -> dict[str, str]:
    """Those that belong on a compute node."""
    return {path: text for path, text in pages.items() if path == "man8/slurm-gov-agent.8"}


def _page(name: str, section: int, summary: str) -> Page:
    return Page(name, section, __date__, f"slurm-gov {__version__}", summary)


def _command_page(command: Command, section: int, also: list[str], files: Iterable[tuple[str, str]] = ()) -> str:
    page = _page(command.name.replace(" ", "-"), section, _lower(command.summary))
    page.section("Synopsis")
    for one in command.walk():
        if not one.commands:
            page.synopsis(one.name, one.usage)
    page.section("Description")
    _blocks(page, command.description)
    if command.options:
        page.section("Options")
        page.items((one.names, one.help) for one in command.options)
    leaves = [one for one in command.walk() if one is not command and not one.commands]
    if leaves:
        page.section("Commands")
    for one in leaves:
        page.subsection(f"{one.name} {one.usage}")
        _blocks(page, one.description)
        page.items((option.names, option.help) for option in one.options)
        for title, text in one.sections.items():
            page.paragraph(f"`{title}:`")
            page.literal(text)
    _sections(page, command)
    _end(page, also, files)
    return page.text()


def _root_page(root: Command, also: list[str]) -> str:
    page = _page(root.name, 1, _lower(root.summary))
    page.section("Synopsis")
    page.synopsis(root.name, root.usage)
    page.section("Description")
    _blocks(page, root.description)
    page.section("Options")
    page.items((one.names, one.help) for one in root.options)
    page.section("Commands")
    page.items((f"{one.name.replace(' ', '-')}(1)", f"{one.summary}.") for one in root.commands)
    _sections(page, root)
    _end(page, also, _FILES)
    return page.text()


def _policy_page() -> str:
    page = _page("slurm-gov-policy", 5, "the policy file of slurm-gov")
    page.section("Description")
    page.paragraph(
        "One YAML file says who is guaranteed what, and how what is idle is lent, borrowed and taken back. "
        "slurm-govd reads it from /etc/slurm-gov/policy.yaml, or from the file that $SLURM_GOV_POLICY names, and "
        "again on SIGHUP. A wrong file is refused whole, and the running policy stays. The smallest policy:"
    )
    page.literal(_SMALLEST)
    page.paragraph("`slurm-gov policy check FILE` says what is wrong in a file, and what would be right.")
    page.section("Settings")
    for one in settings():
        if one.depth == 1:
            page.subsection(one.path)
            page.paragraph(f"{one.meaning} {_kind(one.type, one.default)}")
            if one.example:
                page.literal(one.example)
        else:
            example = f" Example: `{one.example}`" if one.example else ""
            page.items([(one.path, f"{one.meaning} {_kind(one.type, one.default)}{example}")])
    page.section("Notation")
    page.paragraph(
        "What is in capitals is a name of the site's own: of a pool, a team (its Slurm account), a class (its QOS). "
        'Text in quotes is text: "64" is no number. A key given twice is an error. Anchors, aliases and << merges '
        "work, tags do not. yes and no are words, not true and false (YAML 1.2)."
    )
    _end(page, ["slurm-gov-policy(1)", "slurm-govd(8)"], [_FILES[0]])
    return page.text()


def _plugin_page(sample: str) -> str:
    head, options = read_sample(sample)
    page = _page("job_submit_gov.conf", 5, "how slurmctld asks slurm-govd about jobs")
    page.section("Description")
    page.paragraph("The configuration of the job_submit plugin job_submit_gov.so, one NAME=VALUE a line.")
    page.paragraph(head.partition("about jobs.")[2].strip().replace("Every line below", "Each option below"))
    page.section("Options")
    for one in options:
        page.items([(", ".join(one.lines), one.meaning[0].text)])
        _blocks(page, one.meaning[1:])
    _end(page, ["slurm-govd(8)", "slurm-gov-install(1)", "slurm.conf(5)"], [])
    return page.text()


def _kind(type: str, default: str) -> str:
    return (
        f"({type[0].upper() + type[1:]}; {default if default in ('required', 'not set') else f'default: {default}'})"
    )


def _sections(page: Page, command: Command) -> None:
    for title, text in command.sections.items():
        page.section("Exit status" if title == "Exit codes" else title)
        if title != "Examples":
            page.items(pairs(text))
        else:
            page.literal(text)


def _end(page: Page, also: list[str], files: Iterable[tuple[str, str]]) -> None:
    if files:
        page.section("Files")
        page.items(files)
    page.section("See also")
    page.references(also)


def _blocks(page: Page, blocks: Iterable[Block]) -> None:
    for block in blocks:
        if block.literal:
            page.literal(block.text)
        else:
            page.paragraph(block.text)


def _lower(text: str) -> str:
    """A sentence as the summary of a NAME line: begun in lower case, unless with a name."""
    first = text.split()[0]
    return text if first.isupper() and len(first) > 1 else text[0].lower() + text[1:]
