"""What `slurm-gov install` puts where, and what it leaves alone. Pure: what is there in, steps out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from slurm_gov.slurm.nodelay import LIBRARY

PLUGIN = "job_submit_gov.so"
MANIFEST = "/etc/slurm-gov/installed.json"
"""Path to SHA-256 of what was installed. It belongs to root: what is in it, --remove removes."""
UNITS = "/etc/systemd/system"
# What Slurm tracks without being asked; `scontrol show config` shows it too.
_ALWAYS_TRACKED = {"cpu", "mem", "energy", "node", "billing", "fs/disk", "vmem", "pages"}


@dataclass(frozen=True, slots=True)
class Site:
    """The cluster it is installed on: absolute paths, names, and slurm.conf's settings by name."""

    programs: str
    user: str
    group: str
    plugin_dir: str
    slurm_conf: str
    config: Mapping[str, str]
    gpu_tres: tuple[str, ...] = ()

    @property
    def etc(self) -> str:
        """Where slurm.conf lies."""
        return self.slurm_conf.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class File:
    """A file that shall be there."""

    path: str
    content: bytes
    mode: int = 0o644


class Do(StrEnum):
    """What is done about a file."""

    CREATE = "create"
    REPLACE = "replace"
    SAME = "there already"
    KEEP = "changed by the site, kept"
    DELETE = "delete"
    GONE = "gone already"


@dataclass(frozen=True, slots=True)
class Step:
    """One file, and what is done about it. ``file`` has no content for a removal."""

    do: Do
    file: File

    def __str__(self) -> str:
        return f"{self.do.value}: {self.file.path}"


class Refused(Exception):
    """It would do harm; the message says why and what is to be done first."""


def digest(content: bytes) -> str:
    """How the manifest knows a file."""
    return hashlib.sha256(content).hexdigest()


def controller_files(
    site: Site, plugin: bytes, source: Mapping[str, bytes], preloaded: bytes | None = None
) -> list[File]:
    """What belongs on the controller. ``source`` is our own etc/ and systemd/ by file name; ``preloaded`` is what
    sacctmgr needs before Slurm 24.05, beside the plugin.
    """
    return [
        File(f"{site.plugin_dir}/{PLUGIN}", plugin, 0o755),
        *([File(f"{site.plugin_dir}/{LIBRARY}", preloaded, 0o755)] if preloaded is not None else []),
        File(f"{site.etc}/job_submit_gov.conf", source["job_submit_gov.conf"]),
        File("/etc/slurm-gov/policy.yaml", sample_policy(source["policy.yaml"])),
        File(f"{UNITS}/slurm-govd.service", unit(source["slurm-govd.service"], site)),
    ]


def node_files(site: Site, source: Mapping[str, bytes]) -> list[File]:
    """What belongs on a node."""
    return [
        File("/etc/slurm-gov/agent.yaml", source["agent.yaml"]),
        File(f"{UNITS}/slurm-gov-agent.service", unit(source["slurm-gov-agent.service"], site)),
    ]


def manual_files(folder: str, pages: Mapping[str, str]) -> list[File]:
    """The manual pages, by their path below a folder for manuals."""
    return [File(f"{folder}/{path}", text.encode()) for path, text in pages.items()]


def shown(steps: Iterable[Step], manuals: str) -> list[str]:
    """A line for each step; manual pages are one line, but for those that are kept."""
    lines: list[str] = []
    pages: dict[Do, list[Step]] = {}
    for step in steps:
        if step.file.path.startswith(f"{manuals}/") and step.do is not Do.KEEP:
            pages.setdefault(step.do, []).append(step)
        else:
            lines.append(str(step))
    for do, some in pages.items():
        lines.append(f"{do.value}: {len(some)} manual pages in {manuals}" if len(some) > 1 else str(some[0]))
    return lines


def sample_policy(text: bytes) -> bytes:
    """The sample, acting on nothing yet."""
    head = b"# Decides and reports, acts on nothing. Then caps, then enforce: docs/installing.md.\nmode: observe\n\n"
    return text.replace(b"# Pools:", head + b"# Pools:", 1)


def unit(text: bytes, site: Site) -> bytes:
    """A unit with this environment's programs, and SlurmUser where it is not root's (the agent is)."""
    text = text.replace(b"/opt/slurm-gov/bin/", f"{site.programs}/".encode())
    text = text.replace(b"User=slurm\n", f"User={site.user}\n".encode())
    return text.replace(b"Group=slurm\n", f"Group={site.group}\n".encode())


def steps(files: Iterable[File], there: Mapping[str, bytes], manifest: Mapping[str, str]) -> list[Step]:
    """What is to be done: ``there`` is what lies at those paths now. A file that the site changed is kept.

    A file that we installed and the site deleted comes back. A plugin that says it is ours is ours, however it came.
    """
    found = []
    for file in files:
        now = there.get(file.path)
        ours = now is not None and (
            digest(now) == manifest.get(file.path)
            or (file.path.endswith(f"/{PLUGIN}") and b"job_submit/gov\0" in now)
        )
        if now is None:
            do = Do.CREATE
        elif now == file.content:
            do = Do.SAME
        else:
            do = Do.REPLACE if ours else Do.KEEP
        found.append(Step(do, file))
    return found


def new_manifest(done: Iterable[Step], manifest: Mapping[str, str]) -> dict[str, str]:
    """The manifest after these steps. A file that was there already, and not from us, does not become ours."""
    after = dict(manifest)
    for step in done:
        known = step.do is Do.SAME and step.file.path in manifest  # a run was cut off between file and manifest
        if known or step.do in (Do.CREATE, Do.REPLACE):
            after[step.file.path] = digest(step.file.content)
        elif step.do in (Do.DELETE, Do.GONE):
            after.pop(step.file.path, None)
    return after


def removal(
    manifest: Mapping[str, str], there: Mapping[str, bytes], configs: Iterable[Mapping[str, str]]
) -> list[Step]:
    """What --remove does. Raises Refused while slurm.conf names the plugin: slurmctld would not start again.

    ``configs`` is what slurmctld runs with and what slurm.conf says now, as far as they could be read: either may be
    newer in what matters.
    """
    plugin = any(path.endswith(f"/{PLUGIN}") for path in manifest)
    configs = [config for config in configs if config]
    if plugin and not configs:
        raise Refused(
            "slurmctld does not answer and slurm.conf cannot be read, so nobody knows whether JobSubmitPlugins names "
            "the plugin; say --slurm-conf"
        )
    for config in configs if plugin else ():
        if "gov" not in _plugins(config):
            continue
        left = ",".join(name for name in _words(config["JobSubmitPlugins"]) if name not in ("gov", "job_submit/gov"))
        what = f"set JobSubmitPlugins={left}" if left else "take the line JobSubmitPlugins away"
        raise Refused(
            "JobSubmitPlugins names gov, and slurmctld would not start without the plugin; "
            f"first {what} in slurm.conf and restart slurmctld"
        )
    found = []
    for path, known in sorted(manifest.items()):
        now = there.get(path)
        do = Do.GONE if now is None else Do.DELETE if digest(now) == known else Do.KEEP
        found.append(Step(do, File(path, b"")))
    return found


def slurm_conf_lines(site: Site) -> list[str]:
    """The lines that slurm.conf lacks, with what the site has in them. They replace lines of the same name."""
    config, lines = site.config, []
    if "gov" not in _plugins(config):
        lines.append(f"JobSubmitPlugins={','.join([*_words(config.get('JobSubmitPlugins', '')), 'gov'])}")
    if config.get("AccountingStorageType", "") != "accounting_storage/slurmdbd":
        lines.append("AccountingStorageType=accounting_storage/slurmdbd")
    enforced = _words(config.get("AccountingStorageEnforce", ""))
    lacking = [word for word in ("associations", "limits", "qos") if word not in {e.lower() for e in enforced}]
    if lacking and "all" not in enforced:
        lines.append(f"AccountingStorageEnforce={','.join([*(e for e in enforced if e != 'none'), *lacking])}")
    tracked = [
        tres for tres in _words(config.get("AccountingStorageTRES", "")) if tres.lower() not in _ALWAYS_TRACKED
    ]
    untracked = [tres for tres in site.gpu_tres if tres not in {one.lower() for one in tracked}]
    if untracked:
        lines.append(f"AccountingStorageTRES={','.join([*tracked, *untracked])}")
    return lines


def read_slurm_conf(text: str) -> dict[str, str]:
    """The settings in a slurm.conf, for where slurmctld does not answer; nodes and partitions are left out.

    Names as Slurm writes them, whatever the case in the file, for those that matter here.
    """
    known = (
        "ClusterName",
        "JobSubmitPlugins",
        "AccountingStorageType",
        "AccountingStorageEnforce",
        "AccountingStorageTRES",
        "PluginDir",
        "SlurmUser",
    )
    found = {}
    for raw in text.splitlines():
        name, equals, value = (part.strip() for part in raw.partition("#")[0].partition("="))
        for one in known:
            if equals and name.lower() == one.lower():
                found[one] = value
    return found


def gpu_tres_in(text: str) -> tuple[str, ...]:
    """The TRES of the GPUs in slurm.conf's node lines: ``("gres/gpu", "gres/gpu:h100")``."""
    types = re.findall(r"gpu:([A-Za-z_][\w.-]*):\d+", text, re.IGNORECASE)
    return ("gres/gpu", *sorted({f"gres/gpu:{one.lower()}" for one in types})) if types else ()


def _plugins(config: Mapping[str, str]) -> set[str]:
    return {name.removeprefix("job_submit/") for name in _words(config.get("JobSubmitPlugins", ""))}


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.replace("(null)", "").split(",") if word.strip()]
