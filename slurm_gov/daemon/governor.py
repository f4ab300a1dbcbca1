"""The loop: look at Slurm, decide, act. It can be killed at any point: all it needs to know, Slurm knows."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from slurm_gov.admission.view import make_view
from slurm_gov.core.actions import Actions, actions
from slurm_gov.core.cluster import Cluster
from slurm_gov.core.decision import News, Plan, Reason
from slurm_gov.core.plan import Planner, plan
from slurm_gov.core.policy import Mode, Policy
from slurm_gov.core.snapshot import Snapshot, Unstarted, WaitingJob
from slurm_gov.core.unstarted import Patience, noted
from slurm_gov.daemon.act import act
from slurm_gov.daemon.admission import Admission
from slurm_gov.daemon.cycle import Cycle, Watcher
from slurm_gov.daemon.deeds import Deeds
from slurm_gov.daemon.intents import intents
from slurm_gov.daemon.leadership import Leadership
from slurm_gov.daemon.lease import Leases
from slurm_gov.daemon.log import log
from slurm_gov.daemon.memory import tidy
from slurm_gov.daemon.past import Past
from slurm_gov.daemon.systemd import notify, watchdog_interval
from slurm_gov.ledger import Event, Kind
from slurm_gov.ledger.event import GOVERNOR
from slurm_gov.policy.compare import differences
from slurm_gov.policy.load import load
from slurm_gov.policy.problems import PolicyError
from slurm_gov.slurm.before import Before
from slurm_gov.slurm.checkpoints import CheckpointFiles, with_files
from slurm_gov.slurm.client import SlurmClient, SlurmError, SlurmUnavailable
from slurm_gov.slurm.permit import NotLeading

SETTLE = 0.03
"""Seconds from a submission's question to the look at Slurm: the job exists only after the answer."""
FOLLOW_UPS = (0.25, 0.5, 1.0, 2.0)
"""Seconds between cycles after something happened: jobs take a moment to end, start and be seen."""
SHARE = 0.1
"""The part of the time that looking at Slurm may take: it costs slurmctld too."""
LONGEST_REST = 10.0
"""Seconds: a look that took as long as Slurm's start must not blind us for a minute and a half."""
REST = (0.4, 1.0)
"""Seconds between two looks when submissions come one after another: at least and at most."""
ASK_AGAIN = 10.0
"""Seconds between two questions when Slurm looked at the jobs that it does not start."""
USERS_REFRESH = 60.0
"""Seconds between two looks at users and accounts."""


class Governor:
    """The daemon's state: the policy, and what is remembered between cycles for speed and for the log's sake only."""

    def __init__(self, client: SlurmClient, policy: Policy, path: Path, socket: Path, interval: float) -> None:
        self.client = client
        self.policy = policy
        self._planner = Planner()
        self._patience = Patience()
        self._patience_asked = float("-inf")
        self.interval = interval
        self.watchers: list[Watcher] = []
        self.before: Before | None = None
        self.beside: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.past: Past | None = None
        self.leadership: Leadership | None = None
        self._who = GOVERNOR
        self._path = path
        self._admission = Admission(socket, self._on_event)
        self._checkpoints = CheckpointFiles()
        self._cluster: Cluster | None = None
        self._cluster_seen = float("-inf")
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._news = News()
        self._told_once: set[str] = set()
        self._strangers: set[int] = set()
        self._intents: set[str] = set()
        self._answering = True
        self._look_took = 0.0
        self._cluster_task: asyncio.Task[None] | None = None

    def lead_by(self, leases: Leases, timeout: float) -> None:
        """Act only with the lease. ``timeout``: seconds that a look at Slurm may take."""
        self.leadership = Leadership(leases, timeout, self._leadership_changed)
        self._who = f"{GOVERNOR} on {self.leadership.host}"
        self.client.permit = self.leadership.permit

    def _leadership_changed(self, why: str) -> None:
        led, leads = ("leads", "standby") if why else ("standby", "leads")
        self.record(Event(Kind.DAEMON, why, before=led, after=leads))
        self._news = News()
        self._wake.set()

    async def run(self) -> None:
        """Answer the plugin and run cycles until told to stop. Raises ``OSError`` if the socket cannot be had."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, signal.Signals(number).name)
        await self._admission.start()
        log.info("started", policy=str(self._path), socket=str(self._admission.path), teams=len(self.policy.teams))
        self.record(Event(Kind.DAEMON, f"policy {self._path}, {len(self.policy.teams)} teams", after="started"))
        notify("READY=1", "STATUS=waiting for Slurm")
        leading = asyncio.create_task(_guarded(self.leadership.run())) if self.leadership else None
        tasks = [asyncio.create_task(_pat_watchdog()), *(asyncio.create_task(_guarded(one())) for one in self.beside)]
        try:
            await self._cycles()
        finally:
            notify("STOPPING=1")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if leading is not None:  # last: nothing is done any more, and another may begin
                leading.cancel()
                await asyncio.gather(leading, return_exceptions=True)
            await self._admission.stop()
            self.record(Event(Kind.DAEMON, before="started", after="stopped"))
            log.info("stopped")

    def wake(self) -> None:
        """Start a cycle now: something that matters has changed."""
        self._wake.set()

    async def _cycles(self) -> None:
        follow_ups: list[float] = []
        while not self._stop.is_set():
            did_something, deadline = await self.cycle()
            tidy()
            rest = min(self._look_took * (1 / SHARE - 1), LONGEST_REST)
            rest_until = time.monotonic() + min(max(REST[0], rest), REST[1])
            if did_something:
                follow_ups = list(FOLLOW_UPS)
            wait = max(rest, follow_ups.pop(0) if follow_ups else self.interval)
            if deadline is not None:
                wait = min(wait, max(0.05, deadline - time.time()))
            if await self._woken_within(wait):
                follow_ups = list(FOLLOW_UPS)
                # After a quiet time at once; in a storm many submissions are looked at together.
                await self._stopped_within(max(SETTLE, rest_until - time.monotonic()))
                self._wake.clear()

    async def _woken_within(self, seconds: float) -> bool:
        return await _set_within(self._wake, seconds)

    async def _stopped_within(self, seconds: float) -> None:
        await _set_within(self._stop, seconds)

    async def cycle(self) -> tuple[bool, float | None]:
        """One cycle: whether anything was done, and when the next grace period ends (seconds since the epoch).

        When Slurm does not answer nothing is decided and nothing done.
        """
        began = time.monotonic()
        standby = self.leadership is not None and not self.leadership.begin()
        leader = self.leadership.about if self.leadership is not None else ""
        try:
            snapshot = await self.client.snapshot()
            snapshot = self._checkpoints.filled_in(self.policy.preemption.checkpoint_file, snapshot)
            if self.past is not None:
                snapshot = await self.past.filled_in(self.policy, snapshot)
            await self._refresh_cluster()
            if not self._answering:
                log.info("Slurm answers again")
                self._answering = True
                self.record(Event(Kind.DAEMON, before="Slurm does not answer", after="Slurm answers"))
            self._look_took = time.monotonic() - began
            policy = self.policy
            decided = await asyncio.to_thread(self._planner.plan, policy, snapshot)
            todo = actions(policy, snapshot, decided)
            if not standby and policy.mode is not Mode.OBSERVE:
                todo = replace(todo, unstarted=await self._unstarted(snapshot, decided))
            decide_took = time.monotonic() - began - self._look_took
            if self._cluster is not None:
                self._admission.show(make_view(policy, snapshot, self._cluster))
            if not standby:
                self._tell(decided, todo)
            failures, broken_off = 0, ""
            acting = time.monotonic()
            try:
                if standby:
                    pass  # another governor does it
                elif policy.mode is Mode.OBSERVE:
                    self._tell_intents(todo)
                else:
                    self._remember_before(snapshot, todo)
                    done = Deeds(policy, snapshot, decided, self.record)
                    failures = await act(self.client, policy, todo, time.time(), done)
            except SlurmError as error:
                broken_off = str(error)
                raise
            finally:
                self._watched(
                    "cycle",
                    Cycle(
                        policy=policy,
                        snapshot=snapshot,
                        plan=decided,
                        actions=todo,
                        look_seconds=self._look_took,
                        decide_seconds=decide_took,
                        act_seconds=time.monotonic() - acting,
                        failures=failures,
                        error=broken_off,
                        standby=standby,
                        leader=leader,
                    ),
                )
        except NotLeading as error:
            log.warning("acting was broken off", why=str(error))
            return True, None
        except SlurmUnavailable as error:
            if self._answering:
                log.error("Slurm does not answer: nothing is decided until it does", error=str(error))
                self._answering = False
                self.record(Event(Kind.DAEMON, str(error), before="Slurm answers", after="Slurm does not answer"))
            notify("STATUS=Slurm does not answer")
            self._watched("blind", str(error))
            return False, None
        except SlurmError as error:
            log.error("cycle failed", error=str(error))
            return True, None
        took = time.monotonic() - began
        if todo:
            log.debug("cycle", seconds=round(took, 3), failures=failures)
        state = "standby; " if standby else ""
        counts = f"{len(snapshot.running)} running, {len(snapshot.waiting)} waiting"
        notify(f"STATUS={state}{counts}; cycle took {took:.2f} s")
        return (False, None) if standby else (bool(todo), todo.next_deadline)

    async def _unstarted(self, snapshot: Snapshot, decided: Plan) -> tuple[tuple[WaitingJob, Unstarted], ...]:
        """The jobs that Slurm does not start although they may. It is asked about those alone, and now and then."""
        late = self._patience.overdue(snapshot, decided)
        if not late or time.monotonic() < self._patience_asked + ASK_AGAIN:
            return ()
        self._patience_asked = time.monotonic()
        return tuple(noted(snapshot, late, await self.client.looked_at(late)))

    async def _refresh_cluster(self) -> None:
        """Know users and accounts; after the first time in the background, since no reclaim must wait for it."""
        if self._cluster is None:
            await self._look_at_cluster()
        elif time.monotonic() - self._cluster_seen > USERS_REFRESH and (
            self._cluster_task is None or self._cluster_task.done()
        ):
            self._cluster_task = asyncio.create_task(self._look_at_cluster())
            self._cluster_task.add_done_callback(lambda task: task.exception())  # said by the next cycle, if it lasts

    async def _look_at_cluster(self) -> None:
        self._cluster = await self.client.cluster()
        self._cluster_seen = time.monotonic()
        self._strangers -= self._cluster.users.keys()

    def _remember_before(self, snapshot: Snapshot, todo: Actions) -> None:
        """Write down the caps that stood before us. If that fails governing goes on: it matters more."""
        if self.before is None or not (todo.lower or todo.raise_):
            return
        try:
            self.before.remember_caps(snapshot.caps, (todo.lower, todo.raise_))
        except (OSError, ValueError) as error:
            log.error("the caps that stood before are not written down", file=self.before.name, error=str(error))
            self.before = None

    def _tell_intents(self, todo: Actions) -> None:
        """Log what would be done if this were not the mode ``observe``: each of it once, as long as it stays so."""
        lines = intents(todo, "would")
        for line in lines:
            if line not in self._intents:
                log.info(line, mode=str(Mode.OBSERVE))
        self._intents = set(lines)

    def record(self, event: Event) -> None:
        """Tell everybody who watches what was done or happened: the ledger is one of them."""
        if event.kind is Kind.DAEMON:
            event = replace(event, who=self._who)
        self._watched("event", event if event.at else replace(event, at=time.time()))

    def _watched(self, what: str, *told: Any) -> None:
        """Tell everybody who watches; what goes wrong there is logged and changes nothing here."""
        for watcher in self.watchers:
            try:
                getattr(watcher, what)(*told)
            except Exception:
                log.exception("a watcher failed", watcher=type(watcher).__name__, told=what)

    def reload(self) -> None:
        """Read the policy again (SIGHUP); a broken one is reported and the old one stays."""
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            policy = load(self._path)
        except PolicyError as error:
            log.error("policy not reloaded, the old one stays", problems=str(error).splitlines())
            self.record(Event(Kind.POLICY, str(error.problems[0]), who=_owner(self._path), after="not taken"))
        else:
            changed = differences(self.policy, policy)
            self.policy = policy
            self._told_once.clear()
            log.info("policy reloaded", policy=str(self._path), teams=len(policy.teams))
            for one in changed:
                self.record(
                    Event(
                        Kind.POLICY,
                        one.setting,
                        who=_owner(self._path),
                        team=one.team,
                        before=one.before,
                        after=one.after,
                    )
                )
        self._cluster_seen = float("-inf")
        notify("READY=1")
        self._wake.set()

    def _end(self, name: str) -> None:
        log.info("stopping", signal=name)
        self._stop.set()
        self._wake.set()

    def _on_event(self, event: dict[str, Any]) -> None:
        """Something came to the admission process."""
        kind = event["event"]
        if kind in ("submit", "modify"):
            self._watched("asked", event)
        if "would_refuse" in event:
            log.info(
                "would refuse",
                team=event["team"],
                uid=event["uid"],
                name=event["name"],
                reason=event["would_refuse"],
                mode=str(Mode.OBSERVE),
            )
        if "too_late" in event:
            log.warning(
                "answered too late",
                team=event["team"],
                account=event["account"],
                uid=event["uid"],
                name=event["name"],
                reason=event["too_late"],
            )
        if "refused" in event:
            log.info(
                "refused",
                team=event["team"],
                account=event["account"],
                uid=event["uid"],
                name=event["name"],
                reason=event["refused"],
            )
            who = self._name(event["uid"])
            self.record(
                Event(
                    Kind.REFUSE,
                    event["refused"].removeprefix("slurm-gov: "),
                    who=who,
                    user=who,
                    team=event["team"] or "",
                    before=kind,
                    after=event["cause"],
                )
            )
        elif kind in ("submit", "modify"):
            self._wake.set()
            uid = event.get("unknown_uid")
            if uid is not None and uid not in self._strangers:
                # Somebody new: look at users and accounts again, but not for each job of one who has none.
                self._strangers.add(uid)
                self._cluster_seen = float("-inf")
        elif kind == "stranger":
            log.warning("a process of another user tried to ask", uid=event["uid"])
        else:
            log.error("a question could not be answered", kind=kind, error=event["error"])

    def _name(self, uid: int) -> str:
        user = self._cluster.users.get(uid) if self._cluster is not None else None
        return user.name if user is not None else f"uid {uid}"

    def _tell(self, decided: Plan, todo: Actions) -> None:
        """Log what is new: each waiting job's reason when it changes, each warning once."""
        for one in self._news.of(decided.decisions):
            log.info(
                "waits" if one.reason is not Reason.STARTS_NOW else "may start",
                job=one.display_id,
                team=one.team,
                pool=one.pool,
                reason=str(one.reason),
                why=one.why,
            )
        warnings = [*decided.warnings, *(f"team {team} has no account in Slurm" for team in todo.missing)]
        for text in warnings:
            if text not in self._told_once:
                log.warning(text)
        self._told_once = set(warnings)


def _owner(path: Path) -> str:
    """Who answers for a file: its owner. SIGHUP does not say who sent it."""
    try:
        return path.owner()
    except (OSError, KeyError):
        return ""


async def _guarded(work: Coroutine[Any, Any, None]) -> None:
    """What runs beside the loop must never stop governing."""
    try:
        await work
    except Exception:
        log.exception("a part of the daemon ended")


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether an event is set in this time. Not asyncio.timeout(): it may cancel us if both happen at once."""
    waiting = asyncio.ensure_future(event.wait())
    done, _ = await asyncio.wait({waiting}, timeout=seconds)
    waiting.cancel()
    return bool(done)


async def look(client: SlurmClient, policy: Policy, past: Past) -> tuple[Snapshot, Plan, Actions]:
    """A snapshot, what would be decided of it, and what would be done, without doing it."""
    snapshot = await with_files(policy.preemption.checkpoint_file, await client.snapshot())
    snapshot = await past.filled_in(policy, snapshot)
    decided = plan(policy, snapshot)
    return snapshot, decided, actions(policy, snapshot, decided)


async def _pat_watchdog() -> None:
    """Tell systemd that the loop turns; a hung loop is silent, and systemd restarts us."""
    interval = watchdog_interval()
    with contextlib.suppress(asyncio.CancelledError):
        while interval:
            notify("WATCHDOG=1")
            await asyncio.sleep(interval)
