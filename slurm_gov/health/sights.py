"""What Slurm says about a node: whose drain it is, whether it answers, what an administrator signals. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import SequenceMatcher

from slurm_gov.core.policy import Policy
from slurm_gov.core.snapshot import Node, Snapshot
from slurm_gov.health.lifecycle import PREFIX, Hand, Order, Want

RESERVATION = "slurm-gov-"
"""How the names of our reservations begin; the node's name follows."""
SPARE = f"{PREFIX} spare"
_SLURMS_OWN = ("Not responding", "Node unexpectedly rebooted", "ResumeTimeout reached", "Scheduled reboot timed out")
"""Reasons that slurmctld gives when it sets a node DOWN by itself, not as a judgement of anybody's."""
_ACTIONS = {"Action:Reboot": Want.REBOOT, "Action:Replace": Want.REPLACE}
_AWAY = ("POWERED_DOWN", "POWERING_DOWN", "POWERING_UP", "POWER_DOWN", "POWER_UP", "REBOOT", "FUTURE")
_OFF = ("POWERED_DOWN", "POWERING_DOWN", "POWERING_UP", "REBOOT_ISSUED")


def flags(node: Node) -> frozenset[str]:
    """Slurm's words for a node's state, as ``{"IDLE", "DRAIN"}``; ``*`` becomes NOT_RESPONDING."""
    words = {word.strip() for word in node.state.upper().split("+")}
    if any("*" in word for word in words):
        words = {word.replace("*", "") for word in words} | {"NOT_RESPONDING"}
    return frozenset(words)


def drained(node: Node) -> bool:
    """Whether it takes no new work because somebody said so."""
    return any(word.startswith(("DRAIN", "FAIL")) for word in flags(node))


def down(node: Node) -> bool:
    return "DOWN" in flags(node)


def answers(node: Node) -> bool:
    """Whether Slurm hears its slurmd."""
    words = flags(node)
    return not ("NOT_RESPONDING" in words or "UNKNOWN" in words or words & {"NO_RESPOND"})


def changing(node: Node) -> bool:
    """Whether it is on its way up or down by Slurm's own doing: its silence says nothing."""
    return not _never_came(node) and any(word.startswith(_AWAY) for word in flags(node))


def off(node: Node) -> bool:
    """Whether slurmd and agent cannot be there now, by Slurm's own doing."""
    return not _never_came(node) and any(word.startswith(_OFF) for word in flags(node))


def powered_down(node: Node) -> bool:
    """Whether its power is off, and Slurm would run ResumeProgram if it were wanted."""
    return "POWERED_DOWN" in flags(node)


def _never_came(node: Node) -> bool:
    """Whether it was powered up and did not come: Slurm goes on saying POWERED_DOWN of such a node, and DOWN."""
    return down(node) and "POWERED_DOWN" in flags(node)


def lost(node: Node) -> str:
    """Why Slurm itself thinks that it has lost the node; empty if it has not."""
    if changing(node):
        return ""
    if down(node) and node.reason.startswith(_SLURMS_OWN):
        return f"slurmctld set it DOWN: {node.reason}"
    if not answers(node):
        return "it does not answer slurmctld"
    return ""


def hand(node: Node) -> Hand:
    """Whose drain stands on it. Slurm's own drains (a failed prolog...) are a person's business: not ours."""
    if node.reason.startswith(PREFIX):
        return Hand.OURS
    words = flags(node)
    if any(word.startswith("MAINT") for word in words):
        return Hand.ADMINISTRATOR
    if signal(node) is not None:
        return Hand.NOBODY
    if not node.reason:  # nobody can drain a node without one; but Slurm forgets it when it powers a node up
        return Hand.NOBODY
    by_hand = down(node) and not node.reason.startswith(_SLURMS_OWN) and not changing(node)
    return Hand.ADMINISTRATOR if drained(node) or by_hand else Hand.NOBODY


def signal(node: Node) -> Order | None:
    """HyperPod's signal by hand: ``state=fail`` (or ``down``: at once) with exactly the right reason."""
    want = _ACTIONS.get(node.reason)
    words = flags(node)
    if want is None or not ({"FAIL", "FAILING", "FAILG"} & words or "DOWN" in words):
        return None
    return Order(want, "an administrator", now="DOWN" in words, reason=f'"{node.reason}" in Slurm')


def near_miss(node: Node) -> str:
    """What an administrator probably meant, if a reason is nearly a signal; empty if it is none, or exactly one."""
    if not node.reason or node.reason.startswith(PREFIX) or signal(node) is not None:
        return ""
    said = re.sub(r"[\s_-]+", "", node.reason.lower())
    for right in _ACTIONS:
        if node.reason == right:
            return (
                f'the reason "{right}" asks for an action only with state=fail: '
                f'scontrol update node={node.name} state=fail reason="{right}"'
            )
        if SequenceMatcher(None, said, right.lower()).ratio() >= 0.85:
            return (
                f'the reason "{node.reason}" is no signal; if one was meant: '
                f'scontrol update node={node.name} state=fail reason="{right}"'
            )
    return ""


def pools_of(policy: Policy, snapshot: Snapshot) -> dict[str, str]:
    """Each node's pool; nodes of no pool are not ours to heal."""
    found: dict[str, str] = {}
    for node in snapshot.nodes:
        for pool in policy.pools.values():
            if pool.tres in node.gpus and set(pool.partitions) & set(node.partitions):
                found.setdefault(node.name, pool.name)
    return found


def jobs_on(snapshot: Snapshot) -> dict[str, list[int]]:
    """The jobs that hold each node, by position in ``snapshot.running``."""
    found: dict[str, list[int]] = {}
    for index, job in enumerate(snapshot.running):
        for held in job.held:
            found.setdefault(held.node, []).append(index)
    return found


def job_nodes(snapshot: Snapshot) -> Mapping[str, frozenset[str]]:
    """The nodes of every running job."""
    return {job.display_id: frozenset(held.node for held in job.held) for job in snapshot.running}
