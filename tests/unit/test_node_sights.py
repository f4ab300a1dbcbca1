"""What Slurm's words say of a node, what reports mean, what becomes of jobs, and what the journal keeps. No Slurm."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from clusters import NOW, node, running, snapshot, waiting

from slurm_gov.core.health import Effect, FaultJobs, FaultRule, Health, Moves, PoolHealth, Repair
from slurm_gov.core.marks import read_fault, write_fault, write_mark
from slurm_gov.core.snapshot import FaultMark, Mark, RunState
from slurm_gov.health import faults, jobs, sights
from slurm_gov.health.journal import Event, Journal, JournalError
from slurm_gov.health.lifecycle import Hand, Order, Record, Repaired, State, Want
from slurm_gov.health.messages import Advice, CheckResult, Presence, Request, Status
from slurm_gov.health.messages import Fault as Kind
from slurm_gov.health.messages import State as Said
from slurm_gov.health.monitor import Broker, BrokerError, Monitor
from slurm_gov.health.probe import Probe, ask
from slurm_gov.health.providers.command import CommandProvider
from slurm_gov.health.providers.provider import ProviderError
from slurm_gov.slurm.client import NodeDetails

HEALTH = Health(pools={"h100": PoolHealth()}, providers={})
RULES = FaultJobs(Moves(draining=True, grace=60), restarts=2)


def there(state: str, reason: str = ""):
    return replace(node("n1", usable=False), state=state, reason=reason)


# -- Slurm's words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "reason", "hand"),
    [
        ("IDLE", "", Hand.NOBODY),
        ("IDLE+DRAIN", "bad PSU", Hand.ADMINISTRATOR),
        ("MIXED+DRAIN", "Kill task failed", Hand.ADMINISTRATOR),
        ("IDLE+DRAIN", "", Hand.NOBODY),
        ("DOWN+DRAIN+POWERED_DOWN", "slurm-gov: draining: it is gone", Hand.OURS),
        ("IDLE+DRAIN", "slurm-gov: draining: XID 79", Hand.OURS),
        ("DOWN", "slurm-gov: rebooting: XID 79 : reboot issued : reboot complete", Hand.OURS),
        ("DOWN*", "Not responding", Hand.NOBODY),
        ("DOWN", "out for repair", Hand.ADMINISTRATOR),
        ("IDLE+MAINT", "", Hand.ADMINISTRATOR),
        ("IDLE+FAIL", "Action:Replace", Hand.NOBODY),
        ("IDLE+FAIL", "action:replace", Hand.ADMINISTRATOR),
        ("IDLE+DRAIN", "not slurm-gov: draining", Hand.ADMINISTRATOR),
        ("IDLE+POWERED_DOWN", "", Hand.NOBODY),
    ],
)
def test_whose_drain_it_is(state: str, reason: str, hand: Hand) -> None:
    assert sights.hand(there(state, reason)) is hand


def test_hyperpods_signals() -> None:
    assert sights.signal(there("IDLE+FAIL", "Action:Reboot")) == Order(
        Want.REBOOT, "an administrator", False, '"Action:Reboot" in Slurm'
    )
    now = sights.signal(there("DOWN", "Action:Replace"))
    assert now is not None and now.want is Want.REPLACE and now.now
    assert sights.signal(there("IDLE+DRAIN", "Action:Reboot")) is None


@pytest.mark.parametrize(
    ("state", "reason", "meant"),
    [
        ("IDLE+FAIL", "action:replace", "Action:Replace"),
        ("IDLE+FAIL", "Action: Reboot", "Action:Reboot"),
        ("IDLE+FAIL", "Action:Replaced", "Action:Replace"),
        ("IDLE+FAIL", "Acton:Reboot", "Action:Reboot"),
        ("IDLE+DRAIN", "Action:Reboot", "Action:Reboot"),
    ],
)
def test_near_misses_are_told(state: str, reason: str, meant: str) -> None:
    assert f'state=fail reason="{meant}"' in sights.near_miss(there(state, reason))


@pytest.mark.parametrize(
    "reason", ["", "bad PSU", "reboot needed", "slurm-gov: failed: Action:Reboot", "action required"]
)
def test_what_is_no_near_miss(reason: str) -> None:
    assert sights.near_miss(there("IDLE+DRAIN", reason)) == ""
    assert sights.near_miss(there("IDLE+FAIL", "Action:Reboot")) == ""


def test_lost_is_what_nobody_did() -> None:
    assert sights.lost(there("IDLE*")) and sights.lost(there("DOWN*", "Not responding"))
    assert sights.lost(there("IDLE+NOT_RESPONDING"))
    for state in ("IDLE", "IDLE+DRAIN", "DOWN+REBOOT_ISSUED*", "IDLE+POWERED_DOWN*", "IDLE+POWERING_UP*"):
        assert sights.lost(there(state)) == ""
    for state in ("DOWN+REBOOT_ISSUED*", "IDLE+POWERED_DOWN", "IDLE+DRAIN+POWERING_UP", "IDLE+POWERING_DOWN"):
        assert sights.off(there(state)), "nobody is expected there"
    for state in ("IDLE", "IDLE+POWER_DOWN", "MIXED+REBOOT_REQUESTED"):
        assert not sights.off(there(state)), "it is still there"


def test_one_that_did_not_power_up_is_lost() -> None:
    never = there("DOWN+POWERED_DOWN+NOT_RESPONDING", "ResumeTimeout reached")
    assert "ResumeTimeout" in sights.lost(never) and not sights.off(never) and not sights.changing(never)
    assert sights.hand(never) is Hand.NOBODY
    ours = there("DOWN+DRAIN+POWERED_DOWN+NOT_RESPONDING", "slurm-gov: draining: it is gone")
    assert sights.lost(ours) and not sights.off(ours)


# -- reports ---------------------------------------------------------------------------------------------------


def result(**what: object) -> CheckResult:
    about = {"check": "xid", "state": Said.FAIL, "fault": Kind.GPU_LOST, "code": 79, "since": NOW, "checked": NOW}
    return CheckResult.model_validate(about | what, strict=False)


def test_what_reports_mean() -> None:
    lost = faults.from_result(result(subject="gpu 3 xid 79", message="gone", injected=True), HEALTH)
    assert lost is not None
    assert (lost.name, lost.effect, lost.repair, lost.confirm, lost.key) == (
        "xid 79", Effect.FAIL, Repair.REBOOT, 0.0, "gpu 3 xid 79")  # fmt: skip
    assert lost.words == "gone (injected)"
    assert faults.from_result(result(state=Said.OK), HEALTH) is None
    warn = faults.from_result(result(state=Said.WARN), HEALTH)
    assert warn is not None and warn.effect is Effect.SUSPECT
    hung = faults.from_result(result(state=Said.UNKNOWN, check="gpu", code=None), HEALTH)
    assert hung is not None and (hung.effect, hung.repair) == (Effect.SUSPECT, Repair.NONE)
    apps = faults.from_result(result(fault=Kind.GPU_APP, code=31, advice=Advice.RESTART_APP), HEALTH)
    assert apps is not None and apps.effect is Effect.IGNORE
    advised = faults.from_result(result(advice=Advice.REPLACE), HEALTH)
    assert advised is not None and advised.repair is Repair.REPLACE
    slow = faults.from_result(result(fault=Kind.STORAGE, check="disk", code=None), HEALTH)
    assert slow is not None and not slow.counts(NOW + 19) and slow.counts(NOW + 20)


def test_the_policy_goes_before_the_table() -> None:
    rules = {"gpu_lost": FaultRule(repair=Repair.PERSON), "xid 79": FaultRule(Effect.DRAIN, Repair.REPLACE, 5.0, 7.0)}
    fault = faults.from_result(result(advice=Advice.REBOOT), replace(HEALTH, faults=MappingProxyType(rules)))
    assert fault is not None
    assert (fault.effect, fault.repair, fault.confirm, fault.recover) == (Effect.DRAIN, Repair.REPLACE, 5.0, 7.0)
    other = faults.from_result(result(code=119), replace(HEALTH, faults=MappingProxyType(rules)))
    assert other is not None and (other.effect, other.repair) == (Effect.FAIL, Repair.PERSON)


def status(sequence: int, *results: CheckResult, at: float = NOW) -> bytes:
    return Status(
        node="n1", boot_id="b", sequence=sequence, time=at, agent_version="1", results=results
    ).model_dump_json().encode()  # fmt: skip


def test_the_monitor_keeps_what_was_last_known() -> None:
    changed: list[str] = []
    monitor = Monitor(None, changed.append)
    monitor.take("slurm-gov/v1/node/n1/status", status(1), NOW, False)
    monitor.take("slurm-gov/v1/node/n1/status", status(2), NOW, False)
    assert changed == ["n1"], "the same again is no change"
    monitor.take("slurm-gov/v1/node/n1/status", status(3, result()), NOW, False)
    assert changed == ["n1", "n1"] and len(monitor.reports["n1"].status.results) == 1
    before = monitor.reports["n1"]
    bad = {
        "replayed": status(2), "malformed": b"{", "too_large": b" " * 70000, "future": status(9, at=NOW + 4000),
        "wrong_node": status(9).replace(b'"n1"', b'"n2"'),
    }  # fmt: skip
    for payload in bad.values():
        monitor.take("slurm-gov/v1/node/n1/status", payload, NOW, False)
    assert monitor.reports["n1"] == before and set(monitor.counts.refused) == set(bad)
    will = Presence(node="n1", boot_id="b", sequence=1, time=NOW, state="offline").model_dump_json().encode()
    monitor.take("slurm-gov/v1/node/n1/presence", will, NOW + 9, False)
    assert not monitor.reports["n1"].online and monitor.reports["n1"].status == before.status
    again = Monitor(None, changed.append, monitor.kept())
    assert again.reports["n1"] == monitor.reports["n1"], "what was known outlives the daemon"


@pytest.mark.parametrize("address", ["", ":", "host:", "host:x", "host:99999"])
def test_a_broker_that_cannot_be(address: str) -> None:
    with pytest.raises(BrokerError, match="--mqtt"):
        Broker.at(address, None, None, None, "slurm-gov")


# -- jobs --------------------------------------------------------------------------------------------------------


def test_jobs_of_a_failing_node_are_noted_and_requeued_by_down() -> None:
    one, two = running(1, "research", "n1 n2"), running(2, "research", "n1")
    leaving = jobs.at_once("n1", [one, two], "XID 79", RULES, NOW)
    assert leaving.down and [job.id for job, _ in leaving.note] == [1, 2]
    noted = replace(one, fault=leaving.note[0][1])
    assert noted.fault is not None and (noted.fault.count, noted.fault.run) == (1, one.start)
    again = jobs.at_once("n1", [noted], "XID 79", RULES, NOW + 5)
    assert again.down and not again.note, "noted once"
    later = jobs.note(replace(noted, start=NOW + 100), "n5", "XID 63", NOW + 200)
    assert later.count == 2, "counted over runs"
    ending = replace(one, state=RunState.COMPLETING)
    assert not jobs.at_once("n1", [ending], "x", RULES, NOW).note


def test_a_job_that_cannot_come_back_is_waited_for_unless_the_policy_says_so() -> None:
    stuck, free = running(1, "research", "n1", requeueable=False), running(2, "research", "n1")
    leaving = jobs.at_once("n1", [stuck, free], "XID 79", RULES, NOW)
    assert not leaving.down and [job.id for job in leaving.requeue] == [2] and leaving.waits_for == (stuck,)
    assert jobs.at_once("n1", [stuck], "XID 79", replace(RULES, end_unrequeueable=True), NOW).down


def test_checkpoint_first() -> None:
    job = running(1, "research", "n1")
    first = jobs.to_checkpoint("n1", [job], "disk", RULES, NOW)
    assert first.signal == (job,) and not first.requeue
    noted = replace(job, fault=first.note[0][1])
    assert not jobs.to_checkpoint("n1", [noted], "disk", RULES, NOW + 59)
    over = jobs.to_checkpoint("n1", [noted], "disk", RULES, NOW + 60)
    assert over.requeue == over.going == (noted,)
    assert jobs.to_checkpoint("n2", [noted], "disk", RULES, NOW + 60).requeue == (noted,), "for all its nodes"
    assert not jobs.to_checkpoint("n1", [replace(job, requeueable=False)], "disk", RULES, NOW)


def test_which_jobs_leave_is_their_classs_affair() -> None:
    rules = FaultJobs(
        Moves(),
        MappingProxyType({"training": Moves(True, True, 90), "experiment": Moves(draining=True, grace=5)}),
    )
    there = [replace(running(n, "research", "n1"), qos=qos) for n, qos in enumerate(("training", "experiment", "x"))]
    told = jobs.to_checkpoint("n1", there, "disk", rules, NOW)
    assert [(job.id, mark.until - NOW) for job, mark in told.note] == [(0, 90), (1, 5)]
    told = jobs.to_checkpoint("n1", there, "disk", rules, NOW, suspect=True)
    assert [job.id for job in told.signal] == [0]


def test_a_job_that_was_told_and_stays_after_all() -> None:
    job = replace(running(1, "research", "n1 n2"), submit=NOW - 1000)
    told = replace(job, fault=jobs.note(job, "n1", "disk", NOW, NOW + 60))
    assert jobs.stays([job, told], ["n2"]) == [], "a node of it is still being emptied"
    assert jobs.stays([job, told], []) == [(told, None)]
    before = replace(MARK, settled=True)
    again = replace(job, fault=before)
    again = replace(again, fault=jobs.note(again, "n1", "disk", NOW, NOW + 60))
    ((_, mark),) = jobs.stays([again], [])
    assert mark is not None and (mark.count, mark.waited, mark.until) == (before.count, before.waited, 0.0)
    later = jobs.note(replace(job, fault=mark), "n1", "disk", NOW + 10)
    assert (later.count, later.waited) == (before.count + 1, before.waited + 1010)


def test_the_place_that_is_kept_for_a_job() -> None:
    job = running(1, "research", "n1 n2 n3")
    assert jobs.place_of(job, {"n1"}, {"n1", "n2", "n4"}) == {"n2"}
    told = replace(job, fault=jobs.note(job, "n1", "disk", NOW))
    back = replace(waiting(1, "research"), submit=NOW + 1, begin=NOW + 3, fault=told.fault, slurm_reason="BeginTime")

    def leaves(*there: object, at: float = NOW, run: float | None = None) -> bool:
        return jobs.still_leaves(replace(snapshot([node("n1")], *there), now=at), 1, run)

    assert leaves(told) and leaves(replace(told, start=NOW + 1, state=RunState.COMPLETING))
    assert leaves(back, at=NOW + 2) and not leaves(back, at=NOW + 3)
    assert not leaves(replace(back, held_back="its user holds it"), at=NOW + 2)
    assert not leaves(replace(told, start=NOW + 9), run=told.start), "it runs again"
    assert leaves(job, run=job.start) and not leaves(job), "its note is not seen yet"
    assert not leaves()


MARK = FaultMark("n1", NOW - 5, NOW - 500, count=1, waited=900.0, reason="XID 79")


def settled(
    fault: FaultMark, well: frozenset[str] = frozenset(), avoided: frozenset[str] = frozenset(), **more: object
):
    job = replace(
        waiting(1, "research", **more), submit=NOW - 4, fault=fault, slurm_reason="BeginTime", begin=NOW + 117
    )
    taken = snapshot([node(f"n{n}") for n in range(1, 5)], job)
    return jobs.settle(taken, {1: avoided}, well, RULES)


def test_a_job_that_a_fault_stopped_gets_its_place_back_and_avoids_the_node() -> None:
    (one,) = settled(MARK)
    assert (one.place, one.avoids, one.hold) == (900.0, frozenset({"n1"}), False)
    assert one.mark.settled and one.mark.avoids == "n1" and one.start is not None and one.start <= 2
    (lifted,) = settled(one.mark, well=frozenset({"n1"}), avoided=frozenset({"n1", "n9"}))
    assert lifted.avoids == {"n9"} and lifted.mark.avoids == "" and lifted.place is None


def test_one_that_was_preempted_since_is_not_let_go() -> None:
    preempted = Mark(7, "product", NOW - 4, NOW - 4, NOW - 500)
    (one,) = settled(replace(MARK, settled=True, avoids="n1"), well=frozenset({"n1"}), mark=preempted)
    assert one.start is None
    assert settled(replace(MARK, settled=True)) and not settled(replace(MARK, settled=True), mark=preempted)


def test_it_does_not_avoid_what_it_cannot_do_without() -> None:
    (one,) = settled(MARK, nodes=4)
    assert one.avoids is None and one.mark.avoids == ""


def test_one_that_faults_stopped_too_often_is_held() -> None:
    (one,) = settled(replace(MARK, count=3))
    assert one.hold and one.start is None and "3 times" in one.mark.reason
    assert settled(one.mark) and not settled(one.mark)[0].hold, "held once: its user may release it"


def test_the_note_on_a_job_is_read_as_it_was_written() -> None:
    comment = write_fault("ticket 4711", replace(MARK, reason="gpu 3: [gone]\nfor good", until=NOW + 1.5))
    comment = write_mark(comment, Mark(7, "product", NOW, NOW, NOW, "why"))
    assert read_fault(comment) == replace(MARK, reason="gpu 3: (gone) for good", until=NOW + 1.5)
    assert comment.startswith("ticket 4711 ") and read_fault("[slurm-gov fault node=n1]") is None
    assert write_fault(comment, MARK).count("slurm-gov fault") == 1


# -- the journal ---------------------------------------------------------------------------------------------------


def test_the_journal_gives_back_what_it_was_given(tmp_path: Path) -> None:
    record = Record(
        "n1", "h100", State.REBOOTING, NOW, "xid 79", Effect.FAIL, Repair.REBOOT, "gone",
        muted=MappingProxyType({"disk /": 1.0}), lingering=MappingProxyType({"xid 79": (NOW, 60.0)}),
        repairs=(Repaired(NOW, Repair.REBOOT, "xid 79"),), turn=3,
    )  # fmt: skip
    events = [Event(NOW, "n1", "rebooted", "gone", "draining", "rebooting", "xid 79", jobs=("1", "2_3"))]
    with_all = Journal(tmp_path / "sub" / "nodes.db")
    with_all.keep([record], events)
    id = with_all.order("n1", Order(Want.CLEAR, "root", reason="r"), NOW)
    with_all.close()
    again = Journal(tmp_path / "sub" / "nodes.db", create=False)
    assert again.records() == {"n1": record} and again.history("n1") == events
    ((name, order),) = again.orders()
    assert (name, order.want, order.id) == ("n1", Want.CLEAR, id)
    again.answer(id, "no", NOW)
    assert again.orders() == [] and again.answered(id) == "no"
    again.keep([], [Event(NOW, "n1", "fault", "x", fault="disk"), Event(NOW, "n1", "fault", "x", injected=True)])
    assert again.fault_counts(NOW - 1) == {"n1": 1}
    again.forget(NOW + 1)
    assert again.history() == []


def test_a_journal_that_is_not_there_or_not_ours(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="is not there"):
        Journal(tmp_path / "none.db", create=False)
    (tmp_path / "text").write_text("no database at all, " * 100)
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal(tmp_path / "text")


# -- a site's command ---------------------------------------------------------------------------------------------


def test_a_commands_exit_codes(tmp_path: Path) -> None:
    script = tmp_path / "power"
    request = Request(node="n1", id="n1.1", time=NOW, operation="reboot", deadline=NOW)
    heard: list[str] = []

    def said(body: str) -> str:
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        return asyncio.run(CommandProvider([str(script), "--rack", "7"]).operate(request, heard.append))

    assert said('cat; echo; echo "$@"') == "--rack 7 reboot n1"
    assert json.loads(heard[0]) == json.loads(request.model_dump_json()) and heard[1:] == ["--rack 7 reboot n1"]
    assert said("printf '10 %%\\n\\033[2J half\\n'; echo done; exec <&-") == "done"
    assert heard[2:] == ["10 %", "?[2J half", "done"]
    for code, final in ((1, False), (75, False), (64, True)):
        with pytest.raises(ProviderError, match="no power") as failed:
            said(f"echo no power; exit {code}")
        assert failed.value.final is final
    with pytest.raises(ProviderError, match="cannot be run"):
        asyncio.run(CommandProvider([str(tmp_path / "none")]).operate(request, heard.append))


def test_a_closed_port_is_no_silence() -> None:
    """Refused: the host is there, slurmd is not."""

    async def tried() -> tuple[str, str, bool, bool | None]:
        async with await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            open_ = await ask("127.0.0.1", port)
        closed = await ask("127.0.0.1", port)
        told = asyncio.Event()
        probe = Probe(lambda node: told.set())
        probe.watch("n1", NodeDetails("IDLE", "", None, None, "127.0.0.1", port), True)
        before = probe.gone("n1") is None
        await asyncio.wait_for(told.wait(), 20)
        gone = probe.gone("n1")
        probe.watch("n1", None, False)
        assert probe.gone("n1") is None
        return open_, closed, before, gone.refused if gone else None

    assert asyncio.run(tried()) == ("listens", "refused", True, True)
