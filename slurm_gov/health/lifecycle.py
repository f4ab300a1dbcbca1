"""The node lifecycle: the state machine of docs/node-lifecycle.md, in code. Pure.

One step takes what is known of one node (its record, and what is seen of it now) and gives the record after, the
arrow that was taken if any, and what shall be so in Slurm and at the provider. What shall be so is derived anew in
every step, never remembered: so a step may be lost, or done twice, at any point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from slurm_gov.core.health import Effect, Health, Repair
from slurm_gov.health.faults import Fault, worst

PREFIX = "slurm-gov:"
"""How every reason begins that we give Slurm for a node. What begins otherwise is not ours."""


class State(StrEnum):
    """Where a node is in its lifecycle."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    DRAINING = "draining"
    REBOOTING = "rebooting"
    REPLACING = "replacing"
    VERIFYING = "verifying"
    FAILED = "failed"


class Arrow(StrEnum):
    """How a node gets from one state to the next."""

    DOUBTED = "doubted"
    RECOVERED = "recovered"
    CONDEMNED = "condemned"
    ORDERED = "ordered"
    EMPTIED = "emptied"
    REBOOTED = "rebooted"
    REPLACED = "replaced"
    RETURNED = "returned"
    ESCALATED = "escalated"
    GIVEN_UP = "given_up"
    PASSED = "passed"
    CLEARED = "cleared"
    TAKEN_OVER = "taken_over"


AWAY = frozenset({State.DRAINING, State.REBOOTING, State.REPLACING, State.VERIFYING})
"""The states that ``max_away`` limits: on the way to being repaired."""
OPERATING = frozenset({State.REBOOTING, State.REPLACING})
_LET_GO = {
    (state, State.SUSPECT, arrow)
    for state in (*AWAY, State.FAILED)
    for arrow in (Arrow.CLEARED, Arrow.TAKEN_OVER)
}  # fmt: skip
ARROWS = frozenset(
    {
        (State.HEALTHY, State.SUSPECT, Arrow.DOUBTED),
        (State.HEALTHY, State.DRAINING, Arrow.ORDERED),
        (State.SUSPECT, State.HEALTHY, Arrow.RECOVERED),
        (State.SUSPECT, State.DRAINING, Arrow.CONDEMNED),
        (State.SUSPECT, State.DRAINING, Arrow.ORDERED),
        (State.DRAINING, State.REBOOTING, Arrow.REBOOTED),
        (State.DRAINING, State.REPLACING, Arrow.REPLACED),
        (State.DRAINING, State.VERIFYING, Arrow.EMPTIED),
        (State.DRAINING, State.FAILED, Arrow.GIVEN_UP),
        (State.REBOOTING, State.VERIFYING, Arrow.RETURNED),
        (State.REBOOTING, State.REPLACING, Arrow.ESCALATED),
        (State.REBOOTING, State.FAILED, Arrow.GIVEN_UP),
        (State.REPLACING, State.VERIFYING, Arrow.RETURNED),
        (State.REPLACING, State.FAILED, Arrow.GIVEN_UP),
        (State.VERIFYING, State.HEALTHY, Arrow.PASSED),
        (State.VERIFYING, State.REBOOTING, Arrow.REBOOTED),
        (State.VERIFYING, State.REPLACING, Arrow.ESCALATED),
        (State.VERIFYING, State.FAILED, Arrow.GIVEN_UP),
        (State.FAILED, State.DRAINING, Arrow.ORDERED),
        *_LET_GO,
    }
)


class Hand(StrEnum):
    """Whose drain stands on a node in Slurm."""

    NOBODY = "nobody"
    OURS = "ours"
    ADMINISTRATOR = "administrator"


class Want(StrEnum):
    """What a person orders: ``drain`` keeps the node out until ``clear``."""

    DRAIN = "drain"
    CLEAR = "clear"
    REBOOT = "reboot"
    REPLACE = "replace"
    VERIFY = "verify"


class Do(StrEnum):
    """What shall be so; doing it twice does no harm."""

    DRAIN = "drain"  # drained in Slurm, with our reason
    LIFT = "lift"  # not drained
    EMPTY = "empty"  # jobs are requeued now: the node goes DOWN
    CHECKPOINT = "checkpoint"  # jobs whose class leaves such a node are signalled, and requeued after their grace
    OPERATE = "operate"  # the provider reboots or replaces it
    VERIFY = "verify"  # the verification checks run
    RELEASE = "release"  # nothing of the above goes on any more
    POWER_OFF = "power off"  # a spare in reserve, if the policy keeps spares so


@dataclass(frozen=True, slots=True)
class Order:
    """What a person wants. ``now``: jobs are requeued at once instead of finishing."""

    want: Want
    by: str
    now: bool = False
    reason: str = ""
    id: int | None = None


class Progress(StrEnum):
    """How far an operation or a verification is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an operation or a verification; ``message`` is for people."""

    progress: Progress
    message: str = ""


@dataclass(frozen=True, slots=True)
class Repaired:
    """One repair in a node's history."""

    time: float
    repair: Repair
    fault: str


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of a node: the journal keeps it. Times are seconds since the epoch.

    ``fault``, ``kind`` (its class), ``effect``, ``repair``: what decides. ``by``: who ordered it, empty if nobody.
    ``hold``: drained by order until cleared. ``held``: Slurm was seen to have our drain. ``muted``: faults, with
    their ``since``, that do not count. ``lingering``: faults, with when they were last seen and how long they must be
    absent. ``came_from``: the repair that verification is about. ``registered``: its slurmd's start before the
    operation.
    ``notice``: why nothing is done. ``turn`` counts states entered, and names operations.
    """

    node: str
    pool: str
    state: State = State.HEALTHY
    since: float = 0.0
    fault: str = ""
    effect: Effect = Effect.IGNORE
    repair: Repair = Repair.NONE
    reason: str = ""
    by: str = ""
    hold: bool = False
    held: bool = False
    injected: bool = False
    muted: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    lingering: Mapping[str, tuple[float, float]] = field(default_factory=lambda: MappingProxyType({}))
    repairs: tuple[Repaired, ...] = ()
    came_from: Repair = Repair.NONE
    registered: float | None = None
    notice: str = ""
    turn: int = 0
    kind: str = ""

    @property
    def operation(self) -> str:
        """The name of the operation or verification that belongs to this state; the same after a restart."""
        return f"{self.node}.{self.turn}.{self.since:.0f}"

    @property
    def slurm_reason(self) -> str:
        """The reason to give Slurm, from which `parse_reason` finds the state again."""
        return f"{PREFIX} {self.state}: {self.reason}"[:200].rstrip(": ")


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of a node now.

    ``drained``, ``down``, ``answers``: as Slurm says; ``hand``: whose drain it is. ``registered``: when its slurmd
    started, if known. ``late``: its operation's time is over. ``jobs``: how many hold it. ``reported``: when its
    agent's last report came, ``None`` if there is no agent. ``fresh``: that report answers the command of this very
    verification. ``forbidden``: why nothing may be done to it by itself; ``hands_off``: why it may not even be
    drained. ``blamed``: faults that are a job's doing. ``can``: what its provider can do. ``reserved``: it stands in
    a reservation of ours. ``spare``: it is to wait in reserve. ``powered``: its power is on.
    ``stale``: a report came after this look at Slurm, and what Slurm said may be over.
    """

    faults: tuple[Fault, ...] = ()
    drained: bool = False
    down: bool = False
    answers: bool = True
    hand: Hand = Hand.NOBODY
    registered: float | None = None
    jobs: int = 0
    reported: float | None = None
    fresh: bool = False
    operation: Outcome | None = None
    late: bool = False
    verification: Outcome | None = None
    forbidden: str = ""
    hands_off: str = ""
    blamed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    order: Order | None = None
    can: frozenset[Repair] = frozenset({Repair.REBOOT, Repair.REPLACE})
    reserved: bool = False
    spare: bool = False
    powered: bool = True
    lemon: str = ""
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What one step gives: the record after it, the arrow, what shall be so, and what a person should know.

    ``refused`` is why an order was not followed.
    """

    record: Record
    arrow: Arrow | None = None
    do: frozenset[Do] = frozenset()
    alert: str = ""
    refused: str = ""


def parse_reason(reason: str) -> tuple[State, str] | None:
    """The state and the words of a reason that we gave Slurm; None if it is not ours."""
    if not reason.startswith(PREFIX):
        return None
    word, _, rest = reason.removeprefix(PREFIX).strip().partition(":")
    if word.strip() not in set(State):
        return None
    return State(word.strip()), rest.split(" : reboot ")[0].strip()


def step(record: Record, sight: Sight, health: Health, now: float) -> Step:
    """One step of one node. Takes at most one arrow; call again with the record until there is none."""
    record = replace(_look(record, sight, health, now), notice="")
    if sight.order is not None and (moved := _obey(record, sight, sight.order, health, now)):
        return moved
    if moved := _administrators_win(record, sight, health, now):
        return moved
    moved = _NEXT[record.state](record, sight, health, now)
    return moved if moved.arrow else replace(moved, do=_wanted(moved.record, sight, health, now))


# -- what is seen ------------------------------------------------------------------------------------------


def standing(record: Record, sight: Sight) -> tuple[Fault, ...]:
    """The faults that are neither muted nor ignored."""
    return tuple(
        one
        for one in sight.faults
        if one.effect is not Effect.IGNORE and not (one.key in record.muted and one.since <= record.muted[one.key])
    )


def _look(record: Record, sight: Sight, health: Health, now: float) -> Record:
    """Take note of what is there and what is gone."""
    reported = {one.key for one in sight.faults}
    muted = {key: since for key, since in record.muted.items() if key in reported}
    muted |= {one.key: one.since for one in sight.faults if one.key in sight.blamed and one.key not in muted}
    record = replace(record, muted=MappingProxyType(muted))
    here = standing(record, sight)
    lingering = {key: seen for key, seen in record.lingering.items() if now < seen[0] + seen[1]}
    lingering = {key: seen for key, seen in lingering.items() if key not in muted}
    lingering |= {one.key: (now, one.recover) for one in here}
    repairs = tuple(one for one in record.repairs if one.time > now - health.history)
    # Of a healthy node it may be seen until the drain is lifted, and means nothing.
    held = record.state is not State.HEALTHY and (record.held or (sight.hand is Hand.OURS and sight.drained))
    return replace(record, lingering=MappingProxyType(lingering), repairs=repairs, held=held)


def _well(record: Record) -> bool:
    return not record.lingering


def _decide_by(record: Record, fault: Fault | None) -> Record:
    """Let this fault decide what is done."""
    if fault is None:
        return record
    return replace(
        record,
        fault=fault.name,
        kind=fault.kind,
        effect=fault.effect,
        repair=fault.repair,
        reason=fault.words,
        injected=fault.injected,
    )


# -- people go first -----------------------------------------------------------------------------------------


def _obey(record: Record, sight: Sight, order: Order, health: Health, now: float) -> Step | None:
    if order.want is Want.CLEAR:
        muted = {one.key: one.since for one in sight.faults}
        record = replace(record, muted=MappingProxyType(muted), lingering=MappingProxyType({}))
        if record.state in (State.HEALTHY, State.SUSPECT):
            return Step(record, do=_wanted(record, sight, health, now))
        return _go(record, State.SUSPECT, Arrow.CLEARED, now, reason=f"cleared by {order.by}", by=order.by)
    if sight.hand is Hand.ADMINISTRATOR:
        return Step(record, refused="an administrator has drained it: it is not ours to touch until that is lifted")
    if record.state in OPERATING or record.state is State.VERIFYING:
        return Step(record, refused=f"it is {record.state}: wait, or clear it first")
    repair = {Want.REBOOT: Repair.REBOOT, Want.REPLACE: Repair.REPLACE}.get(order.want, Repair.NONE)
    if repair is not Repair.NONE and repair not in sight.can:
        return Step(record, refused=f"its provider cannot {repair} nodes")
    ordered = replace(
        record,
        fault="",
        kind="",
        effect=Effect.FAIL if order.now else Effect.DRAIN,
        repair=repair,
        reason=order.reason or f"{order.want} ordered by {order.by}",
        by=order.by,
        hold=order.want is Want.DRAIN,
        injected=False,
    )
    if record.state is State.DRAINING:
        return Step(ordered, do=_wanted(ordered, sight, health, now))
    return _go(ordered, State.DRAINING, Arrow.ORDERED, now)


def _administrators_win(record: Record, sight: Sight, health: Health, now: float) -> Step | None:
    """Let go of a node that somebody else drained, or whose drain somebody else lifted."""
    if record.state is State.HEALTHY:
        return None
    if sight.hand is Hand.ADMINISTRATOR and record.state is not State.SUSPECT:
        return _go(record, State.SUSPECT, Arrow.TAKEN_OVER, now, reason="an administrator drained it")
    reserving = record.state is State.VERIFYING and any(one.in_reservation for one in health.verifications)
    lifted = record.held and not sight.drained and not sight.down and not reserving
    if not lifted or record.state in OPERATING or sight.hand is Hand.ADMINISTRATOR:
        return None
    muted = MappingProxyType({one.key: one.since for one in sight.faults})
    record = replace(record, muted=muted, lingering=MappingProxyType({}), held=False)
    if record.state is State.SUSPECT:
        return Step(record, do=_wanted(record, sight, health, now))
    return _go(record, State.SUSPECT, Arrow.TAKEN_OVER, now, reason="an administrator lifted our drain")


# -- one function per state ----------------------------------------------------------------------------------


def _healthy(record: Record, sight: Sight, health: Health, now: float) -> Step:
    fault = worst(standing(record, sight), now)
    if fault is None:
        return Step(record)
    return _go(_decide_by(replace(record, by="", hold=False), fault), State.SUSPECT, Arrow.DOUBTED, now)


def _suspect(record: Record, sight: Sight, health: Health, now: float) -> Step:
    fault = worst(standing(record, sight), now)
    if fault is None:
        if _well(record):
            return _go(record, State.HEALTHY, Arrow.RECOVERED, now, reason="nothing is said against it")
        return Step(record)
    record = _decide_by(record, fault)
    if sight.hand is Hand.ADMINISTRATOR or fault.effect.rank < Effect.DRAIN.rank or not fault.counts(now):
        return Step(record)
    forbidden = sight.hands_off or sight.forbidden
    if forbidden:
        return Step(replace(record, notice=forbidden), alert=f"{record.reason}; nothing is done: {forbidden}")
    return _go(record, State.DRAINING, Arrow.CONDEMNED, now)


def _draining(record: Record, sight: Sight, health: Health, now: float) -> Step:
    graver = worst(standing(record, sight), now)
    if graver is not None and not record.by and graver.counts(now) and graver.effect.rank > record.effect.rank:
        record = _decide_by(record, graver)
    if sight.stale or sight.jobs or record.hold or not (sight.drained or sight.down):
        return Step(record)
    if not record.by and graver is None:
        # Gone by itself, for good or for a moment: no reboot for what is not there.
        if not _well(record):
            return Step(record)
        return _go(replace(record, repair=Repair.NONE), State.VERIFYING, Arrow.EMPTIED, now)
    if record.repair is Repair.NONE:
        return _go(record, State.VERIFYING, Arrow.EMPTIED, now) if record.by else Step(record)
    return _repair(record, sight, health, now, {Repair.REBOOT: Arrow.REBOOTED, Repair.REPLACE: Arrow.REPLACED})


def _operating(record: Record, sight: Sight, health: Health, now: float) -> Step:
    """Rebooting or replacing."""
    outcome = sight.operation
    if outcome is None or outcome.progress is Progress.RUNNING:
        return Step(record)
    done = Repair.REBOOT if record.state is State.REBOOTING else Repair.REPLACE
    message = outcome.message
    if outcome.progress is Progress.DONE:
        if sight.answers and _registered(record, sight):
            past = Repaired(now, done, record.fault)
            record = replace(record, repairs=(*record.repairs, past), came_from=done)
            return _go(record, State.VERIFYING, Arrow.RETURNED, now)
        if not sight.late:
            return Step(record)
        message = "its slurmd did not come back in time"
    if done is Repair.REBOOT and Repair.REPLACE in sight.can:
        reason = f"{record.reason}; the reboot failed: {message}"
        return _go(replace(record, registered=sight.registered), State.REPLACING, Arrow.ESCALATED, now, reason=reason)
    reason = f"{record.reason}; to {done} it failed: {message}"
    return _go(record, State.FAILED, Arrow.GIVEN_UP, now, reason=reason)


def _registered(record: Record, sight: Sight) -> bool:
    """Whether slurmd started anew. By the node's clock, so what is compared is whether it changed."""
    if sight.registered is None:
        return False
    return sight.registered != record.registered if record.registered else sight.registered >= int(record.since)


def _verifying(record: Record, sight: Sight, health: Health, now: float) -> Step:
    late = now > record.since + health.report_within
    sick = worst((one for one in standing(record, sight) if one.effect.rank >= Effect.DRAIN.rank), now)
    outcome = sight.verification
    if sick is not None and sight.fresh and sick.counts(now):
        record = _decide_by(record, sick)
    elif outcome is not None and outcome.progress is Progress.FAILED:
        record = replace(
            record, reason=outcome.message, repair=_by_reboot(record), fault=record.fault or "verification"
        )
    elif not sight.answers and late:
        record = replace(record, reason="it does not answer Slurm", repair=_by_reboot(record))
    elif sight.reported is not None and not sight.fresh and late:
        record = replace(record, reason="its agent sent no report since it is back", repair=_by_reboot(record))
    else:
        spoke = sight.reported is None or sight.fresh
        done = outcome is not None and outcome.progress is Progress.DONE
        if not (sight.answers and spoke and done and sick is None):
            return Step(record)
        if sight.lemon and health.lemons.exclude and not record.by:
            return _go(record, State.FAILED, Arrow.GIVEN_UP, now, reason=f"a lemon: {sight.lemon}")
        return _go(record, State.HEALTHY, Arrow.PASSED, now, reason="verified")
    if record.came_from is Repair.REPLACE:
        reason = f"replaced, and not well: {record.reason}"
        return _go(record, State.FAILED, Arrow.GIVEN_UP, now, reason=reason)
    return _repair(record, sight, health, now, {Repair.REBOOT: Arrow.REBOOTED, Repair.REPLACE: Arrow.ESCALATED})


def _failed(record: Record, sight: Sight, health: Health, now: float) -> Step:
    return Step(record)


def _by_reboot(record: Record) -> Repair:
    """What to do about a verification that failed for no known fault."""
    return Repair.REBOOT if record.repair is Repair.NONE else record.repair


def _repair(record: Record, sight: Sight, health: Health, now: float, arrows: Mapping[Repair, Arrow]) -> Step:
    """Reboot, replace, or give up."""
    record = replace(record, registered=sight.registered)
    repair, why = record.repair, record.reason
    past = [one for one in record.repairs if one.fault == record.fault]
    reboots = sum(one.repair is Repair.REBOOT for one in past)
    if repair is Repair.REBOOT and not record.by and reboots >= health.reboots:
        repair, why = Repair.REPLACE, f"{why}; {reboots} reboots did not cure it"
    if repair is Repair.REBOOT and Repair.REBOOT not in sight.can:
        repair = Repair.REPLACE
    replaced = sum(one.repair is Repair.REPLACE for one in past)
    if repair is Repair.REPLACE and not record.by and replaced >= health.reboots:
        repair, why = Repair.PERSON, f"{why}; {replaced} replacements did not cure it"
    if repair is Repair.REPLACE and Repair.REPLACE not in sight.can:
        repair, why = Repair.PERSON, f"{why}; its provider cannot replace nodes"
    if repair is Repair.REBOOT:
        return _go(replace(record, repair=repair), State.REBOOTING, arrows[repair], now, reason=why)
    if repair is Repair.REPLACE:
        return _go(replace(record, repair=repair), State.REPLACING, arrows[repair], now, reason=why)
    return _go(record, State.FAILED, Arrow.GIVEN_UP, now, reason=why)


_NEXT = {
    State.HEALTHY: _healthy,
    State.SUSPECT: _suspect,
    State.DRAINING: _draining,
    State.REBOOTING: _operating,
    State.REPLACING: _operating,
    State.VERIFYING: _verifying,
    State.FAILED: _failed,
}


def _go(
    record: Record, to: State, arrow: Arrow, now: float, reason: str | None = None, by: str | None = None
) -> Step:
    """Take an arrow; it must be in the drawing."""
    if (record.state, to, arrow) not in ARROWS:
        raise AssertionError(f"no arrow {arrow} from {record.state} to {to}")
    after = replace(record, state=to, since=now, turn=record.turn + 1)
    if reason is not None:
        after = replace(after, reason=reason)
    if by is not None:
        after = replace(after, by=by)
    if to in (*OPERATING, State.VERIFYING, State.SUSPECT):
        after = replace(after, held=False)
    if to is State.DRAINING:
        after = replace(after, came_from=Repair.NONE)
    if to in (State.HEALTHY, State.SUSPECT):
        after = replace(after, hold=False)
    if to is State.HEALTHY:
        after = replace(
            after, fault="", kind="", effect=Effect.IGNORE, repair=Repair.NONE, by="", held=False, injected=False,
            lingering=MappingProxyType({}),
        )  # fmt: skip
    return Step(after, arrow)


def _wanted(record: Record, sight: Sight, health: Health, now: float) -> frozenset[Do]:
    """What shall be so while a node is in its state."""
    if sight.hand is Hand.ADMINISTRATOR:
        return frozenset({Do.RELEASE})
    match record.state:
        case State.HEALTHY:
            if sight.spare:
                idle = sight.powered and sight.drained and sight.answers and not sight.jobs
                off = {Do.POWER_OFF} if idle and health.pools[record.pool].spares_off else set()
                return frozenset({Do.DRAIN, Do.RELEASE} | off)
            return frozenset({Do.LIFT, Do.RELEASE})
        case State.SUSPECT:
            if sight.hands_off or not (standing(record, sight) or record.lingering):
                return frozenset({Do.RELEASE})
            sure = any(one.counts(now) for one in standing(record, sight))
            leave = {Do.CHECKPOINT} if sight.jobs and sure and not sight.forbidden else set()
            return frozenset({Do.DRAIN, Do.RELEASE} | leave)
        case State.DRAINING:
            out = {Do.DRAIN}
            if sight.jobs and record.effect is Effect.FAIL:
                out.add(Do.EMPTY)
            elif sight.jobs:
                out.add(Do.CHECKPOINT)
            return frozenset(out)
        case State.REBOOTING | State.REPLACING:
            return frozenset({Do.DRAIN, Do.OPERATE})
        case State.VERIFYING:
            return frozenset({Do.VERIFY} if sight.reserved else {Do.DRAIN, Do.VERIFY})
        case State.FAILED:
            return frozenset({Do.DRAIN, Do.RELEASE})
