"""What the policy file's ``health:`` section can contradict."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from slurm_gov.policy.health import CLASSES, KINDS
from slurm_gov.policy.problems import did_you_mean, shown
from slurm_gov.policy.text import Path

_NEEDS = {"command": "command"}
_BELONGS = {"command": "command", "container": "docker", "socket": "docker"}


def find(data: Any) -> Iterator[tuple[Path, bool, str, str]]:
    """All contradictions in the plain data of the section, as in ``checks``."""
    health = data.get("health") if isinstance(data, dict) else None
    if not isinstance(health, dict):
        return
    pools = data.get("pools")
    pools = pools if isinstance(pools, dict) else {}
    providers = health.get("providers")
    providers = providers if isinstance(providers, dict) else {}
    for setting in ("recovery", "provider", "spares"):
        value = health.get(setting)
        for pool in value if isinstance(value, dict) else ():
            if pool not in pools:
                yield ("health", setting, pool), True, "is no pool of this file", did_you_mean(pool, pools, "pool")
    named = health.get("provider")
    for path, name in (
        [(("health", "provider", pool), one) for pool, one in named.items()]
        if isinstance(named, dict)
        else [(("health", "provider"), named)]
    ):
        if isinstance(name, str) and name not in {*providers, "slurm"}:
            yield (
                path,
                False,
                f"there is no provider {shown(name)}",
                did_you_mean(name, [*providers, "slurm"], "provider"),
            )
    for name, one in providers.items():
        kind = one.get("kind") if isinstance(one, dict) else None
        if kind in _NEEDS and _NEEDS[kind] not in one:
            yield (
                ("health", "providers", name),
                True,
                f"a provider of kind {kind} needs {_NEEDS[kind]}",
                ("write command: [/usr/local/sbin/node-power]"),
            )
        for setting, owner in _BELONGS.items():
            if kind in KINDS and setting in one and kind != owner:
                yield (
                    ("health", "providers", name, setting),
                    True,
                    f"is for kind {owner}",
                    f"remove it, or kind: {owner}",
                )
    classes = data.get("priority_classes")
    classes = classes if isinstance(classes, dict) else {}
    jobs = health.get("jobs")
    of_classes = jobs.get("classes") if isinstance(jobs, dict) else None
    for name in of_classes if isinstance(of_classes, dict) else ():
        if name not in classes:
            said = did_you_mean(name, classes, "priority class")
            yield ("health", "jobs", "classes", name), True, "is no priority class of this file", said
    faults = health.get("faults")
    for name in faults if isinstance(faults, dict) else ():
        if name not in CLASSES and not re.fullmatch(r"xid [0-9]{1,5}|[a-z][a-z0-9_-]{0,39}( [a-z]+)?", name):
            yield ("health", "faults", name), True, "is no fault", 'write a fault class, a check, or "xid 79"'
        elif re.fullmatch(r"(xid|XID)[-_:]?[0-9]+", name):
            yield ("health", "faults", name), True, "is no fault", f'write "xid {re.sub("[^0-9]", "", name)}"'
