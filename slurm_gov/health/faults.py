"""What is wrong with a node, and what it means: from an agent's report, or from Slurm itself, to faults. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from slurm_gov.core.health import Effect, FaultRule, Health, Repair
from slurm_gov.health.messages import Advice, CheckResult, State
from slurm_gov.health.messages import Fault as Kind

LOST = "node lost"
"""The fault that Slurm itself tells: the node does not answer. Its class is ``slurmd``."""
SILENT = "agent silent"
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. ``name`` says what (``xid 79``, ``disk``), ``subject`` of which part.

    Two faults with the same name are "the same fault" to whoever counts reboots. ``since``: wrong since then, seconds
    since the epoch; it counts after ``confirm`` seconds, and is over when absent for ``recover`` seconds.
    """

    name: str
    subject: str
    kind: str
    effect: Effect
    repair: Repair
    since: float
    message: str = ""
    confirm: float = 0.0
    recover: float = 0.0
    injected: bool = False
    code: int | None = None

    @property
    def key(self) -> str:
        """What and of which part, as people say it: ``xid 79 gpu 3``, ``disk /scratch``."""
        return self.subject if self.name in self.subject else f"{self.name} {self.subject}".strip()

    @property
    def words(self) -> str:
        """A sentence about it; that it is a drill is said in it."""
        text = self.message or self.key
        return f"{text} (injected)" if self.injected and "injected" not in text else text

    def counts(self, now: float) -> bool:
        """Whether it has lasted long enough."""
        return now >= self.since + self.confirm


# Effect and first repair by class. Where the hardware is lost under the job, the job cannot go on: fail.
_CLASSES: dict[Kind, tuple[Effect, Repair]] = {
    Kind.GPU_LOST: (Effect.FAIL, Repair.REBOOT),
    Kind.GPU_MEMORY: (Effect.FAIL, Repair.REBOOT),
    Kind.GPU_RESET: (Effect.DRAIN, Repair.REBOOT),
    Kind.GPU_DRIVER: (Effect.FAIL, Repair.REBOOT),
    Kind.GPU_THERMAL: (Effect.SUSPECT, Repair.NONE),  # a cooling problem of many nodes is not cured by reboots
    Kind.GPU_POWER: (Effect.DRAIN, Repair.PERSON),
    Kind.GPU_LINK: (Effect.FAIL, Repair.REPLACE),  # HyperPod replaces at XID 74
    Kind.GPU_PCIE: (Effect.DRAIN, Repair.REBOOT),
    Kind.GPU_APP: (Effect.IGNORE, Repair.NONE),  # most likely the job's own doing
    Kind.NETWORK: (Effect.DRAIN, Repair.REBOOT),
    Kind.STORAGE: (Effect.DRAIN, Repair.REBOOT),
    Kind.MEMORY: (Effect.DRAIN, Repair.REBOOT),
    Kind.KERNEL: (Effect.DRAIN, Repair.REBOOT),
    Kind.CLOCK: (Effect.SUSPECT, Repair.NONE),
    Kind.SLURMD: (Effect.FAIL, Repair.REBOOT),
    Kind.SITE: (Effect.DRAIN, Repair.REBOOT),
    Kind.OTHER: (Effect.SUSPECT, Repair.NONE),
}
_ADVICE = {
    Advice.REBOOT: Repair.REBOOT,
    Advice.RESET_GPU: Repair.REBOOT,  # nobody resets one GPU of a node under Slurm's eyes: the node is rebooted
    Advice.DRAIN: Repair.REBOOT,
    Advice.REPLACE: Repair.REPLACE,
    Advice.PERSON: Repair.PERSON,
}
_AT_ONCE = frozenset({Kind.GPU_LOST, Kind.GPU_MEMORY, Kind.GPU_DRIVER, Kind.GPU_LINK})
"""Classes that need no confirmation when they come from an XID: the kernel does not err there."""


def from_result(result: CheckResult, health: Health) -> Fault | None:
    """What one result of an agent's checks means; None if it is well."""
    if result.state is State.OK:
        return None
    name = f"xid {result.code}" if result.check == "xid" and result.code is not None else result.check
    kind = result.fault or Kind.OTHER
    effect, repair = _CLASSES[kind]
    if result.advice in _ADVICE and kind is not Kind.GPU_APP:
        repair = _ADVICE[result.advice]
        effect = Effect.DRAIN if result.advice is Advice.DRAIN else max(effect, Effect.DRAIN, key=_rank)
    if result.state is State.WARN:
        effect = min(effect, Effect.SUSPECT, key=_rank)
    elif result.state is State.UNKNOWN:
        # A hung check is not a healthy node, but neither is it a known fault.
        effect, repair = Effect.SUSPECT, Repair.NONE
    confirm = 0.0 if result.check == "xid" and kind in _AT_ONCE else health.confirm
    rule = _rule(health, name, result.check, str(kind))
    # An XID has one meaning, whatever its agent makes of it; of a check or a class a mere warning stays one.
    decides = result.state is State.FAIL or (name in health.faults and name != result.check)
    return Fault(
        name=name,
        subject=result.subject,
        kind=str(kind),
        effect=rule.effect if rule.effect is not None and decides else effect,
        repair=rule.repair if rule.repair is not None else repair,
        since=result.since,
        message=result.message,
        confirm=rule.confirm if rule.confirm is not None else confirm,
        recover=rule.recover if rule.recover is not None else health.recover,
        injected=result.injected,
        code=result.code,
    )


def lost(since: float, message: str, health: Health) -> Fault:
    """The node does not answer Slurm."""
    rule = _rule(health, LOST, LOST, str(Kind.SLURMD))
    return Fault(
        name=LOST,
        subject="",
        kind=str(Kind.SLURMD),
        effect=rule.effect or Effect.FAIL,
        repair=rule.repair or Repair.REBOOT,
        since=since,
        message=message,
        confirm=rule.confirm if rule.confirm is not None else health.lost_after,
        recover=rule.recover if rule.recover is not None else health.recover,
    )


def silent(since: float, health: Health) -> Fault:
    """Slurm hears the node, MQTT does not, and the policy says that this matters."""
    return Fault(
        name=SILENT,
        subject="",
        kind=str(Kind.OTHER),
        effect=Effect.SUSPECT,
        repair=Repair.NONE,
        since=since,
        message="the node agent is silent",
        confirm=health.silence_after or 0.0,
    )


def worst(faults: Iterable[Fault], now: float) -> Fault | None:
    """The fault that decides: the gravest that counts, else the gravest; of equals the oldest."""
    return min(
        (one for one in faults if one.effect is not Effect.IGNORE),
        key=lambda one: (not one.counts(now), -one.effect.rank, one.repair is not Repair.REPLACE, one.since, one.key),
        default=None,
    )


def _rule(health: Health, *names: str) -> FaultRule:
    return next((health.faults[name] for name in names if name in health.faults), FaultRule())


def _rank(effect: Effect) -> int:
    return effect.rank
