"""The node lifecycle: the drawing in the documentation, and every arrow of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from slurm_gov.core.health import Effect, Health, Lemons, PoolHealth, Provider, Repair, Share
from slurm_gov.health.faults import Fault
from slurm_gov.health.fleet import Decided, decide, spares_out
from slurm_gov.health.lifecycle import (
    ARROWS,
    Arrow,
    Do,
    Hand,
    Order,
    Outcome,
    Progress,
    Record,
    Repaired,
    Sight,
    State,
    Step,
    Want,
    parse_reason,
    step,
)

DRAWING = Path(__file__).parents[2] / "docs" / "node-lifecycle.md"
NOW = 1_795_000_000.0
HEALTH = Health(
    pools={"h100": PoolHealth()}, providers={"slurm": Provider("slurm", "slurm")}, recover=60, reboots=2
)  # fmt: skip
XID = Fault(
    "xid 79", "gpu 3", "gpu_lost", Effect.FAIL, Repair.REBOOT, NOW - 1, "fallen off the bus", recover=60, code=79
)
SLOW = replace(XID, name="disk", subject="/", kind="storage", effect=Effect.DRAIN, confirm=20.0, code=None)
WARN = replace(SLOW, effect=Effect.SUSPECT, repair=Repair.NONE)
DONE, FAILED, RUNNING = Outcome(Progress.DONE), Outcome(Progress.FAILED, "no"), Outcome(Progress.RUNNING)
OURS = {"drained": True, "hand": Hand.OURS}


def node(state: State = State.HEALTHY, **known: object) -> Record:
    return replace(Record("n1", "h100", state, NOW - 10), **known)  # type: ignore[arg-type]


def sick(state: State, **known: object) -> Record:
    """A node that is there because of the XID."""
    about = {"fault": "xid 79", "effect": Effect.FAIL, "repair": Repair.REBOOT, "reason": "fallen off the bus"}
    return node(state, **about | {"lingering": MappingProxyType({"xid 79 gpu 3": (NOW - 1, 60.0)})} | known)


def drawn() -> set[tuple[str, str, str]]:
    return set(re.findall(r"^    (\w+) --> (\w+): (\w+)$", DRAWING.read_text(), re.MULTILINE))


def test_the_code_has_the_arrows_of_the_drawing() -> None:
    assert drawn() == {(str(before), str(after), str(arrow)) for before, after, arrow in ARROWS}


def test_every_state_and_arrow_is_explained() -> None:
    text = DRAWING.read_text()
    for word in (*State, *Arrow):
        assert re.search(rf"^\| {word} \|", text, re.MULTILINE), word


REBOOTS = tuple(Repaired(NOW - 3600 * hours, Repair.REBOOT, "xid 79") for hours in (5, 2))
ON_THE_WAY = [
    (node(), Sight((XID,)), State.SUSPECT, Arrow.DOUBTED),
    (node(), Sight(order=Order(Want.REBOOT, "root")), State.DRAINING, Arrow.ORDERED),
    (node(State.SUSPECT), Sight(), State.HEALTHY, Arrow.RECOVERED),
    (node(State.SUSPECT), Sight((XID,)), State.DRAINING, Arrow.CONDEMNED),
    (node(State.SUSPECT), Sight((WARN,), order=Order(Want.VERIFY, "root")), State.DRAINING, Arrow.ORDERED),
    (sick(State.DRAINING), Sight((XID,), **OURS), State.REBOOTING, Arrow.REBOOTED),
    (sick(State.DRAINING, repair=Repair.REPLACE), Sight((XID,), **OURS), State.REPLACING, Arrow.REPLACED),
    (sick(State.DRAINING, repairs=REBOOTS), Sight((XID,), **OURS), State.REPLACING, Arrow.REPLACED),
    (sick(State.DRAINING, lingering=MappingProxyType({})), Sight(**OURS), State.VERIFYING, Arrow.EMPTIED),
    (node(State.DRAINING, by="root"), Sight(**OURS), State.VERIFYING, Arrow.EMPTIED),
    (sick(State.DRAINING, repair=Repair.PERSON), Sight((XID,), **OURS), State.FAILED, Arrow.GIVEN_UP),
    (sick(State.REBOOTING), Sight(operation=DONE, registered=NOW, **OURS), State.VERIFYING, Arrow.RETURNED),
    (sick(State.REBOOTING), Sight(operation=FAILED, **OURS), State.REPLACING, Arrow.ESCALATED),
    (sick(State.REBOOTING), Sight(operation=DONE, late=True, **OURS), State.REPLACING, Arrow.ESCALATED),
    (sick(State.REBOOTING), Sight(operation=FAILED, can=frozenset({Repair.REBOOT}), **OURS), State.FAILED,
     Arrow.GIVEN_UP),
    (sick(State.REPLACING), Sight(operation=DONE, registered=NOW, **OURS), State.VERIFYING, Arrow.RETURNED),
    (sick(State.REPLACING), Sight(operation=FAILED, **OURS), State.FAILED, Arrow.GIVEN_UP),
    (sick(State.VERIFYING), Sight(verification=DONE, reported=NOW, fresh=True, **OURS), State.HEALTHY, Arrow.PASSED),
    (sick(State.VERIFYING), Sight(verification=DONE, **OURS), State.HEALTHY, Arrow.PASSED),
    (sick(State.VERIFYING), Sight((XID,), reported=NOW, fresh=True, **OURS), State.REBOOTING, Arrow.REBOOTED),
    (sick(State.VERIFYING), Sight(verification=FAILED, **OURS), State.REBOOTING, Arrow.REBOOTED),
    (sick(State.VERIFYING, repairs=REBOOTS), Sight((XID,), fresh=True, **OURS), State.REPLACING, Arrow.ESCALATED),
    (sick(State.VERIFYING, came_from=Repair.REPLACE), Sight(verification=FAILED, **OURS), State.FAILED,
     Arrow.GIVEN_UP),
    (node(State.FAILED), Sight(order=Order(Want.REPLACE, "root"), **OURS), State.DRAINING, Arrow.ORDERED),
    *(
        (sick(state), Sight((XID,), order=Order(Want.CLEAR, "root"), **OURS), State.SUSPECT, Arrow.CLEARED)
        for state in (State.DRAINING, State.REBOOTING, State.REPLACING, State.VERIFYING, State.FAILED)
    ),
    *(
        (sick(state), Sight((XID,), drained=True, hand=Hand.ADMINISTRATOR), State.SUSPECT, Arrow.TAKEN_OVER)
        for state in (State.DRAINING, State.REBOOTING, State.REPLACING, State.VERIFYING, State.FAILED)
    ),
]  # fmt: skip


@pytest.mark.parametrize(("record", "sight", "state", "arrow"), ON_THE_WAY)
def test_every_arrow(record: Record, sight: Sight, state: State, arrow: Arrow) -> None:
    done = step(record, sight, HEALTH, NOW)
    assert (done.arrow, done.record.state) == (arrow, state)
    assert done.record.since == NOW and done.record.turn == record.turn + 1


def test_no_arrow_is_left_out() -> None:
    taken = {(record.state, state, arrow) for record, _, state, arrow in ON_THE_WAY}
    assert taken == ARROWS


STAYS = {
    "a warning condemns nobody": (node(State.SUSPECT), Sight((WARN,))),
    "a fault that has not lasted": (node(State.SUSPECT), Sight((replace(SLOW, since=NOW - 19),))),
    "an ignored fault": (node(), Sight((replace(XID, effect=Effect.IGNORE),))),
    "recovery is none": (node(State.SUSPECT), Sight((XID,), forbidden="recovery is none for h100")),
    "the breaker is open": (node(State.SUSPECT), Sight((XID,), hands_off="circuit breaker")),
    "an administrator's drain": (node(State.SUSPECT), Sight((XID,), drained=True, hand=Hand.ADMINISTRATOR)),
    "gone, but not for long enough": (sick(State.SUSPECT), Sight()),
    "jobs still there": (sick(State.DRAINING), Sight((XID,), jobs=1, **OURS)),
    "gone for a moment": (sick(State.DRAINING), Sight(**OURS)),
    "an old look at Slurm": (sick(State.DRAINING), Sight((XID,), stale=True, **OURS)),
    "not drained yet": (sick(State.DRAINING), Sight((XID,))),
    "drained by order until cleared": (node(State.DRAINING, by="root", hold=True), Sight(**OURS)),
    "the operation runs": (sick(State.REBOOTING), Sight(operation=RUNNING, **OURS)),
    "done, but slurmd is not back": (sick(State.REBOOTING), Sight(operation=DONE, registered=NOW - 99, **OURS)),
    "the same slurmd as before": (
        sick(State.REBOOTING, registered=NOW - 5), Sight(operation=DONE, registered=NOW - 5, **OURS)),
    "no report since the return": (sick(State.VERIFYING), Sight(verification=DONE, reported=NOW, **OURS)),
    "the checks still run": (sick(State.VERIFYING), Sight(verification=RUNNING, reported=NOW, fresh=True, **OURS)),
    "it does not answer": (sick(State.VERIFYING), Sight(verification=DONE, answers=False, **OURS)),
    "a person is needed": (node(State.FAILED), Sight((XID,), **OURS)),
}  # fmt: skip


@pytest.mark.parametrize(("record", "sight"), STAYS.values(), ids=STAYS)
def test_stays(record: Record, sight: Sight) -> None:
    done = step(record, sight, HEALTH, NOW)
    assert done.arrow is None and done.record.state is record.state


def wants(record: Record, sight: Sight, health: Health = HEALTH) -> frozenset[Do]:
    return step(record, sight, health, NOW).do


def test_what_shall_be_so() -> None:
    gentle = sick(State.DRAINING, effect=Effect.DRAIN)
    assert Do.DRAIN in wants(node(State.SUSPECT), Sight((WARN,)))
    assert Do.DRAIN not in wants(node(State.SUSPECT), Sight((XID,), hands_off="circuit breaker"))
    assert Do.DRAIN in wants(node(State.SUSPECT), Sight((XID,), forbidden="recovery is none"))
    assert {Do.DRAIN, Do.EMPTY} <= wants(sick(State.DRAINING), Sight((XID,), jobs=2))
    slow = replace(SLOW, since=NOW - 60)
    assert wants(gentle, Sight((slow,))) == {Do.DRAIN}
    assert wants(gentle, Sight((slow,), jobs=2)) == {Do.DRAIN, Do.CHECKPOINT}
    assert Do.OPERATE in wants(sick(State.REBOOTING), Sight(**OURS))
    assert Do.LIFT in wants(node(), Sight(**OURS))
    assert Do.DRAIN in wants(node(), Sight(spare=True))
    for state in (State.HEALTHY, State.SUSPECT):
        done = wants(node(state), Sight((XID,), drained=True, hand=Hand.ADMINISTRATOR, spare=True, forbidden="x"))
        assert not done & {Do.DRAIN, Do.LIFT, Do.EMPTY, Do.OPERATE}, "never touched"


def test_jobs_leave_a_suspect_node_when_its_fault_is_sure_and_nothing_forbids_it() -> None:
    sure, unsure = replace(WARN, since=NOW - 20), replace(WARN, since=NOW - 19)
    assert Do.CHECKPOINT in wants(node(State.SUSPECT), Sight((sure,), jobs=1))
    assert Do.CHECKPOINT not in wants(node(State.SUSPECT), Sight((sure,)))
    assert Do.CHECKPOINT not in wants(node(State.SUSPECT), Sight((unsure,), jobs=1))
    assert Do.CHECKPOINT not in wants(node(State.SUSPECT), Sight((sure,), jobs=1, forbidden="recovery is none"))
    assert Do.CHECKPOINT not in wants(node(State.SUSPECT), Sight((sure,), jobs=1, hands_off="circuit breaker"))


def test_a_spare_is_powered_down_when_it_is_idle_and_the_policy_says_so() -> None:
    off = replace(HEALTH, pools={"h100": PoolHealth(spares=("n1",), spares_off=True)})
    idle = Sight(spare=True, **OURS)
    assert Do.POWER_OFF in wants(node(), idle, off) and Do.POWER_OFF not in wants(node(), idle)
    for not_now in (Sight(spare=True), replace(idle, jobs=1), replace(idle, powered=False), Sight(**OURS)):
        assert Do.POWER_OFF not in wants(node(), not_now, off)


def test_a_graver_fault_makes_jobs_leave_at_once() -> None:
    done = step(sick(State.DRAINING, effect=Effect.DRAIN, fault="disk"), Sight((XID,), jobs=1, **OURS), HEALTH, NOW)
    assert done.record.effect is Effect.FAIL and done.record.fault == "xid 79" and Do.EMPTY in done.do


def test_a_drain_that_an_administrator_lifts_is_not_made_again() -> None:
    for state in (State.SUSPECT, State.DRAINING, State.VERIFYING, State.FAILED):
        record = sick(state, held=True)
        seen = Sight((XID,))
        done = step(record, seen, HEALTH, NOW)
        assert done.record.state is State.SUSPECT or done.arrow is Arrow.RECOVERED
        assert not step(done.record, seen, HEALTH, NOW).do & {Do.DRAIN, Do.EMPTY}, state
    again = replace(XID, since=NOW + 10)
    record = step(sick(State.DRAINING, held=True), Sight((XID,)), HEALTH, NOW).record
    assert step(record, Sight((again,)), HEALTH, NOW + 11).arrow is Arrow.CONDEMNED, "a new one counts"


def test_a_drain_that_is_not_lifted_yet_is_nobodys_when_a_healthy_node_is_ordered_away() -> None:
    healthy = step(node(), Sight(**OURS), HEALTH, NOW).record  # the look was older than the lifting
    ordered = step(healthy, Sight(order=Order(Want.DRAIN, "root")), HEALTH, NOW).record
    assert ordered.state is State.DRAINING and step(ordered, Sight(), HEALTH, NOW).arrow is None


def test_cleared_faults_are_forgotten_until_they_come_anew() -> None:
    record = step(sick(State.FAILED), Sight((XID,), order=Order(Want.CLEAR, "root"), **OURS), HEALTH, NOW).record
    record = step(record, Sight((XID,), **OURS), HEALTH, NOW).record
    assert record.state is State.HEALTHY
    assert step(record, Sight((XID,)), HEALTH, NOW).arrow is None
    gone = step(record, Sight(), HEALTH, NOW).record
    assert step(gone, Sight((XID,)), HEALTH, NOW).arrow is Arrow.DOUBTED


def test_two_reboots_long_ago_do_not_count() -> None:
    old = tuple(replace(one, time=one.time - 4 * 86400) for one in REBOOTS)
    assert step(sick(State.DRAINING, repairs=old), Sight((XID,), **OURS), HEALTH, NOW).arrow is Arrow.REBOOTED
    other = tuple(replace(one, fault="disk") for one in REBOOTS)
    assert step(sick(State.DRAINING, repairs=other), Sight((XID,), **OURS), HEALTH, NOW).arrow is Arrow.REBOOTED


def test_orders_that_cannot_be_followed() -> None:
    busy = step(sick(State.REBOOTING), Sight(order=Order(Want.REPLACE, "root"), **OURS), HEALTH, NOW)
    theirs = step(node(), Sight(order=Order(Want.REBOOT, "root"), drained=True, hand=Hand.ADMINISTRATOR), HEALTH, NOW)
    cannot = step(node(), Sight(order=Order(Want.REPLACE, "root"), can=frozenset()), HEALTH, NOW)
    for done in (busy, theirs, cannot):
        assert done.refused and done.arrow is None


def test_an_order_acts_on_a_node_that_the_breaker_keeps() -> None:
    sight = Sight((XID,), hands_off="circuit breaker", order=Order(Want.REBOOT, "root", now=True))
    done = step(node(State.SUSPECT), sight, HEALTH, NOW)
    assert done.arrow is Arrow.ORDERED and done.record.effect is Effect.FAIL and done.record.by == "root"


def test_a_lemon_stays_out_if_the_policy_says_so() -> None:
    exclude = replace(HEALTH, lemons=Lemons(exclude=True))
    sight = Sight(verification=DONE, lemon="5 faults in 28 days", **OURS)
    assert step(sick(State.VERIFYING), sight, HEALTH, NOW).arrow is Arrow.PASSED
    assert step(sick(State.VERIFYING), sight, exclude, NOW).arrow is Arrow.GIVEN_UP
    assert step(sick(State.VERIFYING, by="root"), sight, exclude, NOW).arrow is Arrow.PASSED, "a person knows better"


@pytest.mark.parametrize("state", [state for state in State if state is not State.HEALTHY])
def test_slurms_reason_tells_the_state(state: State) -> None:
    record = sick(state)
    assert parse_reason(record.slurm_reason) == (state, "fallen off the bus")
    assert parse_reason(record.slurm_reason + " : reboot issued : reboot complete") == (state, "fallen off the bus")


@pytest.mark.parametrize(
    "reason", ["", "bad PSU", "slurm-gov was here", "slurm-gov: spare", "NHC: slurm-gov: failed"]
)
def test_other_reasons_tell_none(reason: str) -> None:
    assert parse_reason(reason) is None


# -- many nodes ------------------------------------------------------------------------------------------------


def fleet(sick_nodes: set[str], count: int = 10, health: Health = HEALTH, fault: Fault = XID,
          jobs: Mapping[str, frozenset[str]] | None = None) -> Decided:  # fmt: skip
    names = [f"r{n // 5}n{n}" for n in range(count)]
    records = {name: Record(name, "h100") for name in names}
    sights = {name: Sight((fault,) if name in sick_nodes else ()) for name in names}
    return decide(records, sights, jobs or {}, health, NOW)


def states(decided: Decided) -> dict[str, State]:
    return {name: one.state for name, one in decided.records.items() if one.state is not State.HEALTHY}


def test_one_sick_node_is_condemned_in_one_step() -> None:
    decided = fleet({"r0n1"})
    assert [one.arrow for one in decided.moved] == [Arrow.DOUBTED, Arrow.CONDEMNED]
    assert decided.do["r0n1"] == {Do.DRAIN} and not decided.alerts


def test_the_breaker_holds_when_too_many_are_sick() -> None:
    decided = fleet({"r0n1", "r0n2", "r1n6", "r1n7"})
    assert set(states(decided).values()) == {State.SUSPECT}
    assert not any(Do.DRAIN in do for do in decided.do.values())
    assert "4 of 10 nodes of h100 are bad at once" in decided.alerts["pool h100"]
    assert "circuit breaker" in decided.records["r0n1"].notice


def test_what_is_away_counts_for_the_breaker_and_what_failed_does_not() -> None:
    names = [f"n{n}" for n in range(10)]
    for state, held in ((State.REBOOTING, True), (State.FAILED, False)):
        records = {name: Record(name, "h100", state if name in ("n0", "n1") else State.HEALTHY) for name in names}
        sights = {
            name: Sight((XID,) if name == "n5" else (), **(OURS if name in ("n0", "n1") else {})) for name in names
        }
        decided = decide(records, sights, {}, replace(HEALTH, max_away=Share(number=9)), NOW)
        assert (decided.records["n5"].state is State.SUSPECT) is held


def test_no_more_than_so_many_are_away() -> None:
    health = replace(HEALTH, breaker=Share(percent=100), max_away=Share(number=2))
    decided = fleet({"r0n1", "r0n2", "r1n6", "r1n7"}, health=health)
    assert sorted(states(decided).values()) == [State.DRAINING] * 2 + [State.SUSPECT] * 2
    waiting = [name for name, state in states(decided).items() if state is State.SUSPECT]
    assert all(Do.DRAIN in decided.do[name] for name in waiting), "they wait their turn drained"


def test_a_whole_rack_is_not_the_nodes_fault() -> None:
    health = replace(HEALTH, breaker=Share(percent=60), max_away=Share(number=9), rack="(r[0-9]+)n")
    decided = fleet({f"r1n{n}" for n in range(5, 10)}, health=health)
    assert set(states(decided).values()) == {State.SUSPECT}
    assert "rack r1" in decided.alerts["rack r1"]
    assert set(states(fleet({f"r1n{n}" for n in range(5, 9)}, health=health)).values()) == {State.DRAINING}


def test_the_same_xid_on_many_nodes_of_one_job_is_the_jobs() -> None:
    where = frozenset({"r0n1", "r0n2", "r1n6"})
    health = replace(HEALTH, breaker=Share(percent=100))
    decided = fleet(set(where), health=health, jobs={"77": where})
    assert not states(decided) and set(decided.blamed) == where
    # without that job, a new one is the node's
    records = dict(decided.records)
    sights = {name: Sight((replace(XID, since=NOW + 5),) if name == "r0n1" else ()) for name in records}
    assert decide(records, sights, {}, health, NOW + 6).records["r0n1"].state is State.DRAINING
    assert states(fleet(set(where), health=health, jobs={"77": frozenset({"r0n1", "r0n2"})}))


def test_equal_inputs_give_equal_decisions() -> None:
    assert fleet({"r0n1", "r0n3"}) == fleet({"r0n3", "r0n1"})


def test_spares_step_in_and_step_back() -> None:
    health = replace(HEALTH, pools={"h100": PoolHealth(spares=("n8", "n9"))})
    names = [f"n{n}" for n in range(10)]
    records = {name: Record(name, "h100") for name in names}
    assert spares_out(records, health) == {"n8", "n9"}
    away = records | {"n1": Record("n1", "h100", State.REPLACING)}
    assert spares_out(away, health) == {"n9"}
    sick_spare = away | {"n8": Record("n8", "h100", State.FAILED)}
    assert spares_out(sick_spare, health) == frozenset()


def test_a_step_changes_nothing_it_was_given() -> None:
    record, sight = sick(State.DRAINING), Sight((XID,), **OURS)
    before = repr((record, sight))
    assert isinstance(step(record, sight, HEALTH, NOW), Step)
    assert repr((record, sight)) == before
