"""One decision that was carried out: who, when, what before, what after, why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What was decided: one of a fixed list, so that it can be counted and filtered."""

    CAP = "cap"
    """A team's cap in a pool was moved: ``before`` and ``after`` in GPUs."""
    PREEMPT = "preempt"
    """A job was told to leave; its grace period begins. ``for_team`` and ``for_job`` need its place."""
    SPARE = "spare"
    """A job that was told to leave may stay: nobody needs its place any more."""
    REQUEUE = "requeue"
    """A job was put back in the queue; ``node`` is set if because of that node."""
    CANCEL = "cancel"
    """A job that cannot be requeued was stopped."""
    RELEASE = "release"
    """A requeued job may start again."""
    REFUSE = "refuse"
    """A submission or a change of a job was refused; ``who`` asked."""
    NODE = "node"
    """A node took a step of its lifecycle: ``before`` and ``after`` are states."""
    POLICY = "policy"
    """The policy changed (``before``, ``after``: the settings that differ), or a broken one was not taken."""
    DAEMON = "daemon"
    """slurm-govd started or ended, or Slurm stopped or began to answer."""


GOVERNOR = "slurm-govd"


@dataclass(frozen=True, slots=True)
class Event:
    """One decision. ``at`` is in seconds since the epoch; 0: when it is recorded. What does not apply is empty.

    ``who`` decided or asked: ``slurm-govd``, or a user's name. ``job`` is the job's id as squeue shows it
    (``24_3``), ``user`` its owner. ``gpus`` is how many GPUs it is about, ``lost`` how many GPU-seconds of work
    a requeue undid: since the job's last checkpoint if it tells of them, else all of its run. ``why`` is a sentence.
    """

    kind: Kind
    why: str = ""
    at: float = 0.0
    who: str = GOVERNOR
    team: str = ""
    pool: str = ""
    job: str = ""
    user: str = ""
    node: str = ""
    gpus: int = 0
    lost: int = 0
    for_team: str = ""
    for_job: str = ""
    before: str = ""
    after: str = ""
