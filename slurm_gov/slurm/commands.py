"""The client on Slurm's own commands: squeue, sinfo, scontrol, sacctmgr, scancel, in formatted text.

Formatted text because it is fast: squeue takes 24 ms for 2,241 jobs where ``--json`` takes 2.4 s.
Fields are separated by a random word that changes with every call, so that no job name can look like one.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import shutil
import time
from collections.abc import Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from slurm_gov.core.cluster import Cluster
from slurm_gov.core.marks import PLACE, write_behind, write_fault, write_mark, write_unstarted
from slurm_gov.core.policy import frozen
from slurm_gov.core.snapshot import Behind, FaultMark, Held, Mark, Node, RunningJob, RunState, Snapshot, Unstarted
from slurm_gov.slurm import arrays, nodelay, parse, read
from slurm_gov.slurm.client import SlurmError, SlurmUnavailable
from slurm_gov.slurm.permit import Permit, alone
from slurm_gov.slurm.run import failure, run, run_raw
from slurm_gov.slurm.unchanged import Unchanged, whole

SIGNAL_TIMEOUT = 1.5
"""Seconds for scancel to deliver a signal."""
JOB_FIELDS = (
    "jobid", "arrayjobid", "arraytaskid", "statecompact", "reason", "username", "account", "qos", "partition",
    "prioritylong", "submittime", "starttime", "endtime", "eligibletime", "timelimit", "tres-alloc",
    "tres-per-job", "tres-per-node", "tres-per-task", "ntpernode", "nodelist", "feature", "reqnodes", "oversubscribe",
    "requeue", "batchflag", "dependency", "hetjobid", "hetjoboffset", "reservation", "admin_comment",
    "name", "comment", "licenses",
)  # fmt: skip
NODE_FIELDS = ("nodelist", "partitionname", "statecomplete", "gres", "cpus", "memory", "features_act", "reason")

# Ended jobs are asked for to find those that ended in their grace period: many a script saves its checkpoint and
# exits, with 0 or not, and one without a handler dies of the signal.
JOB_STATES = "PD,R,S,CG,CF,ST,SI,SO,RS,F,CD"


class CommandClient:
    """`SlurmClient` on the commands that every Slurm has."""

    def __init__(self, timeout: float = 10.0, accounting_check: float | None = 10.0, permit: Permit = alone) -> None:
        """``timeout`` is the limit of every command, in seconds; that slurmdbd answers is checked again
        when ``accounting_check`` seconds have gone by; ``None``: never, for those who only look. ``permit`` is asked
        before every command that changes something.
        """
        self._timeout = timeout
        self.permit = permit
        self._accounting_check = accounting_check
        self._accounting_seen = float("-inf")
        self._accounting_task: asyncio.Task[None] | None = None
        self._cluster_name = ""
        self._comments: dict[int, str] = {}
        self._names: dict[int, tuple[str, str]] = {}
        self._array_unique = True
        self._squeue: tuple[tuple[int, float], tuple[str, ...], str] = ((0, 0.0), (), "")
        self._age: tuple[int, float, bool] | None = None
        self._nodelay: Mapping[str, str] | None = None
        self._uneven: dict[tuple[int, float], tuple[Held, ...]] = {}
        self._unchanged = Unchanged()

    # -- reading -------------------------------------------------------------------------------------------

    async def snapshot(self) -> Snapshot:
        with _understood():
            return await self._snapshot()

    async def nodes(self) -> tuple[Node, ...]:
        """The nodes alone; slurmdbd is not asked."""
        with _understood():
            return read.nodes(await self._table("sinfo", NODE_FIELDS, "-N", "-a"))

    async def cluster(self) -> Cluster:
        with _understood():
            return await self._cluster()

    async def _snapshot(self) -> Snapshot:
        (jobs, excluded, nodes, reservations), caps, _ = await all_of(
            self._look(),
            self._run("scontrol", "-o", "show", "assoc_mgr", "flags=assoc"),
            self._check_accounting(),
        )
        for row in jobs:  # a task that stands apart excludes what its array does
            if row["arraytaskid"] not in parse.UNSET and (nodes_of := excluded.get(int(row["arrayjobid"]))):
                excluded.setdefault(int(row["jobid"]), nodes_of)
        # What we keep for jobs that come back is theirs to start on; nobody counts it as gone.
        places = frozenset(name for one in reservations if one.name.startswith(PLACE) for name in one.nodes)
        any_reserved = bool(reservations)
        reservations = tuple(one for one in reservations if not one.name.startswith(PLACE))
        running, ended = await self._running(jobs)
        self._comments = {int(row["jobid"]): read.text(row["admin_comment"]) for row in jobs}
        self._names = {int(row["jobid"]): read.names(row) for row in jobs}
        parents, account_caps = read.associations(caps)
        self._cluster_name = read.cluster_name(caps)
        wanted = any(read.text(row["licenses"]) for row in jobs if row["statecompact"] == "PD")
        licences = read.licences(await self._run("scontrol", "-o", "show", "licenses")) if wanted else {}
        now = time.time()
        snapshot = Snapshot(
            now=now,
            nodes=read.nodes(nodes, self._unchanged, places, read.by_node(reservations, now)),
            running=running,
            waiting=read.waiting(jobs, excluded, reservations, now, self._unchanged, licences, any_reserved),
            parents=frozen(parents),
            caps=frozen({account: frozen(limits) for account, limits in account_caps.items()}),
            ended=ended,
        )
        self._unchanged.looked()
        return snapshot

    async def _look(
        self,
    ) -> tuple[
        Sequence[Mapping[str, str]], dict[int, frozenset[str]], list[dict[str, str]], tuple[read.Reservation, ...]
    ]:
        """Jobs, the nodes that pending ones exclude, nodes and reservations, as they are now."""
        jobs, excluded, nodes, reservations = await all_of(
            self._jobs(),
            self._excluded_nodes(),
            self._table("sinfo", NODE_FIELDS, "-N", "-a"),
            self._run("scontrol", "-o", "show", "reservations"),
        )
        return jobs, excluded, nodes, read.reservations(reservations)

    async def _cluster(self) -> Cluster:
        config, associations, users, partitions = await all_of(
            self._config(),
            self._run("scontrol", "-o", "show", "assoc_mgr", "flags=assoc"),
            self._run("scontrol", "-o", "show", "assoc_mgr", "flags=users"),
            self._table("sinfo", ("partition",), "-a"),
        )
        allowed = await self._run(
            "sacctmgr", "-nP", "show", "assoc", "where", f"cluster={config['ClusterName']}",
            "format=user,account,qos",
        )  # fmt: skip
        parents, _ = read.associations(associations)
        marked = [row["partition"] for row in partitions if row["partition"].endswith("*")]
        return Cluster(
            users=frozen(read.users(users, allowed)),
            parents=frozen(parents),
            default_partition=marked[0].rstrip("*") if marked else "",
            slurm_uid=int(re.search(r"\((\d+)\)", config["SlurmUser"])[1]),  # type: ignore[index]
        )

    async def _config(self) -> dict[str, str]:
        """slurm.conf as slurmctld has it."""
        text = await self._run("scontrol", "show", "config")
        return dict(re.findall(r"^(\w+)\s*= (.*)$", text, re.MULTILINE))

    async def _running(
        self, jobs: Sequence[Mapping[str, str]]
    ) -> tuple[tuple[RunningJob, ...], tuple[RunningJob, ...]]:
        """The jobs that hold nodes, and those that ended while we were making them leave."""
        running: list[RunningJob] = []
        ended: list[RunningJob] = []
        uneven: dict[tuple[int, float], tuple[Held, ...]] = {}
        het: dict[int, list[RunningJob]] = {}
        for row in jobs:
            state = row["statecompact"]
            if state in ("F", "CD"):
                if "[slurm-gov preempt" in row["admin_comment"] or "[slurm-gov fault" in row["admin_comment"]:
                    job = read.running(row, RunState.COMPLETING)
                    if read.ended_by_us(job, parse.time(row["endtime"]) or 0.0):
                        ended.append(job)
            elif state in read.HOLDING:
                said = whole(row)
                make = partial(read.running, row, read.HOLDING[state])
                job = self._unchanged.get(("running", row["jobid"]), said, make)
                if read.may_be_uneven(row):
                    key = job.id, job.start
                    uneven[key] = self._uneven.get(key) or await self._held_in_detail(job)
                    make = partial(replace, job, held=uneven[key])
                    job = self._unchanged.get(("uneven", row["jobid"]), (said, uneven[key]), make)
                if whole_id := read.het_id(row):
                    het.setdefault(whole_id, []).append(job)
                else:
                    running.append(job)
        for id, parts in het.items():
            of_one = sorted(parts, key=lambda part: part.id)
            if of_one[0].id == id:
                make = partial(read.together, of_one)
                running.append(self._unchanged.get(("het", str(id)), tuple(of_one), make))
            else:
                running += of_one
        self._uneven = uneven
        return tuple(running), tuple(ended)

    async def _held_in_detail(self, job: RunningJob) -> tuple[Held, ...]:
        """What each node gives to a job whose GPUs may be spread unevenly; only scontrol tells."""
        code, text, _ = await run_raw(["scontrol", "-d", "show", "job", job.display_id], self._timeout)
        return read.detail(text, job) if code == 0 else job.held

    async def _jobs(self) -> Sequence[Mapping[str, str]]:
        """Every job record. squeue merges the waiting tasks of an array, and so loses a requeued task's reason and
        our note on it, unless it is told not to; newer versions cannot be told.
        """
        fields, states = await self._job_fields()
        if self._array_unique:
            try:
                return await self._table("squeue", fields, "-a", "--array-unique", "-t", states)
            except SlurmError as error:
                if "option '--array-unique'" not in str(error):
                    raise
                self._array_unique = False
        rows = await self._table("squeue", fields, "-a", "-t", states)
        if not (suspects := arrays.suspects(rows)):
            return rows
        one_by_one = ("-a", "-r", "-t", "PD", "-j")
        tasks = await self._table("squeue", arrays.TASK_FIELDS, *one_by_one, ",".join(suspects))
        if not (records := arrays.several(tasks)):
            return rows
        asked, *told = await all_of(
            self._table("squeue", fields, *one_by_one, ",".join(arrays.names(records))),
            *(run_raw(["scontrol", "-o", "show", "job", array], self._timeout) for array in records),
        )
        throttles = (re.search(r" ArrayTaskThrottle=(\d+) ", said) for _, said, _ in told)
        limits = {array: int(found[1]) for array, found in zip(records, throttles, strict=True) if found}
        return arrays.apart(rows, records, asked, limits)

    async def _job_fields(self) -> tuple[tuple[str, ...], str]:
        """JOB_FIELDS and JOB_STATES, with what newer versions of squeue have: looked up anew after an upgrade."""
        try:
            stat = Path(shutil.which("squeue") or "squeue").stat()
        except OSError:
            raise SlurmUnavailable("squeue is not installed, or not in PATH") from None
        known, fields, states = self._squeue
        if known != (stat.st_ino, stat.st_mtime):
            found = re.search(r" (\d+)\.(\d+)", await self._run("squeue", "--version"))
            version = (int(found[1]), int(found[2])) if found else (0, 0)
            fields, states = JOB_FIELDS, JOB_STATES
            if version >= (25, 11):  # jobs of --requeue=expedite after a failure are not among the pending ones
                fields, states = (*fields, "state"), f"{states},EXPEDITING"
            if version >= (26, 5):
                fields = (*fields, "exclusive")
            self._squeue = (stat.st_ino, stat.st_mtime), fields, states
        return fields, states

    async def _excluded_nodes(self) -> dict[int, frozenset[str]]:
        """Pending jobs' excluded nodes: the one field that only squeue's short format has."""
        text = await self._run("squeue", "-h", "-a", "-t", "PD", "-o", "%A %x")
        rows = (line.split(None, 1) for line in text.splitlines())
        return {int(row[0]): frozenset(parse.nodes(row[1].strip())) for row in rows if len(row) == 2}

    async def _check_accounting(self) -> None:
        """That slurmdbd answers. Asking takes 0.2 s on 22.05, so nobody waits for it if it answered lately."""
        if self._accounting_check is None:
            return
        age = time.monotonic() - self._accounting_seen
        if age < self._accounting_check:
            return
        if self._accounting_task is None or self._accounting_task.done():
            self._accounting_task = asyncio.create_task(self._ask_accounting())
            self._accounting_task.add_done_callback(lambda task: task.cancelled() or task.exception())
        if age >= 3 * self._accounting_check:
            await asyncio.shield(self._accounting_task)

    async def _ask_accounting(self) -> None:
        try:
            await self._run("sacctmgr", "-nP", "show", "cluster", "format=cluster")
        except SlurmError:
            self._accounting_seen = float("-inf")
            raise
        self._accounting_seen = time.monotonic()

    async def _table(self, command: str, fields: Sequence[str], *options: str) -> list[dict[str, str]]:
        """Rows of a command's ``-O`` output. A width of 0 means whole, uncut fields."""
        word = f"@{secrets.token_hex(8)}@"
        text = await self._run(command, "-h", *options, "-O", ",".join(f"{one}:0{word}" for one in fields))
        return parse.table(text, fields, word)

    # -- changing ------------------------------------------------------------------------------------------

    async def set_caps(self, caps: Mapping[str, Mapping[str, int]]) -> None:
        # Accounts with equal caps share a line: on 22.05 a line costs 0.3 s, however many accounts it names.
        accounts: dict[str, list[str]] = {}
        for account, limits in sorted(caps.items()):
            setting = ",".join(f"{tres}={n}" for tres, n in sorted(limits.items()))
            if setting:
                accounts.setdefault(setting, []).append(account)
        if not accounts:
            return
        # One slurmdbd may serve several clusters; the caps are this one's.
        cluster = self._cluster_name or (await self._config())["ClusterName"]
        lines = [
            f"modify account where name={','.join(names)} cluster={cluster} set GrpTRES={setting}"
            for setting, names in accounts.items()
        ]
        if self._nodelay is None:
            self._nodelay = nodelay.environment(await self._config())
        limit, text = self._timeout + len(lines), "\n".join(lines) + "\n"
        try:
            code, out, err = await run_raw(["sacctmgr", "-i"], self.permit(limit), text, self._nodelay)
        except SlurmUnavailable:
            self._accounting_seen = float("-inf")
            raise
        # sacctmgr goes on after a bad line and its exit code is the last one's: look at what it said.
        if code != 0 or "Nothing modified" in out or err.strip():
            self._accounting_seen = float("-inf")
            raise failure(["sacctmgr", "modify", "account"], f"{err} {out}")

    def _record(self, job: int) -> str:
        """What to call a job in a command that changes its record."""
        return self._names.get(job, (str(job), str(job)))[0]

    def _whole(self, job: int) -> str:
        """What to call a job in a command that signals or stops it."""
        return self._names.get(job, (str(job), str(job)))[1]

    async def mark(self, job: int, mark: Mark | None) -> None:
        comment = write_mark(self._comments.get(job, ""), mark)
        await self._change("scontrol", "update", f"JobId={self._record(job)}", f"AdminComment={comment}")
        self._comments[job] = comment

    async def note_fault(self, job: int, mark: FaultMark | None) -> None:
        comment = write_fault(self._comments.get(job, ""), mark)
        await self._change("scontrol", "update", f"JobId={self._record(job)}", f"AdminComment={comment}")
        self._comments[job] = comment

    async def keep_place(self, job: int, waited: float) -> None:
        weight, longest, _ = await self._ageing()
        # Slurm rounds priorities down, and of equal ones takes first who was submitted first: with one more than it
        # had, and one for the rounding, no job that came after it is before it.
        factor = int(weight * min(1.0, waited / longest)) + 2
        await self._change("scontrol", "update", f"JobId={self._record(job)}", f"SiteFactor={factor}")

    async def _ageing(self) -> tuple[int, float, bool]:
        """The weight of a job's age in its priority, the age in seconds that counts as a whole, and whether Slurm
        counts it from the submission whatever holds a job.
        """
        if self._age is None:
            config = await self._config()
            weight = int(config.get("PriorityWeightAge", "0").split()[0])
            longest = parse.duration(config.get("PriorityMaxAge", "").strip()) or 7 * 86400.0
            self._age = weight, longest, "ACCRUE_ALWAYS" in config.get("PriorityFlags", "")
        return self._age

    async def avoid(self, job: int, nodes: Iterable[str]) -> None:
        await self._change(
            "scontrol", "update", f"JobId={self._record(job)}", f"ExcNodeList={','.join(sorted(nodes))}"
        )

    async def hold(self, job: int) -> None:
        await self._change("scontrol", "uhold", self._record(job))

    async def signal(self, job: int, signal: str) -> None:
        batch, name = signal.startswith("B:"), signal.removeprefix("B:")
        if name == "KILL" and not batch:
            return  # Slurm would take it for a cancellation, and the job would not come back.
        command = ["scancel", f"--signal={name}", *(["--batch"] if batch else []), self._whole(job)]
        # For a task of an array with other tasks pending, slurmctld delivers the signal and yet answers "try again
        # later"; scancel would do so after 5 s and signal the job twice. So it gets less time than that, and its
        # silence says nothing of Slurm: the next snapshot will.
        limit = self.permit(SIGNAL_TIMEOUT)
        with contextlib.suppress(SlurmUnavailable):
            await run(command, limit)

    async def requeue(self, jobs: Iterable[int]) -> None:
        await all_of(*(self._change("scontrol", "requeue", self._whole(job)) for job in jobs))

    async def cancel(self, jobs: Iterable[int]) -> None:
        await self._change("scancel", *map(self._whole, jobs))

    async def nudge(self, job: int) -> None:
        # Any update of a job starts the scheduler; this one writes what already stands there.
        comment = self._comments.get(job, "")
        await self._change("scontrol", "update", f"JobId={self._record(job)}", f"AdminComment={comment}")

    async def wait_on(self, job: int, mark: Mark, delay: float) -> None:
        await self._begin(job, write_mark(self._comments.get(job, ""), mark), f"now+{delay:.0f}")

    async def step_back(self, job: int, behind: Behind) -> None:
        delay = max(1.0, behind.until - time.time())
        await self._begin(job, write_behind(self._comments.get(job, ""), behind), f"now+{delay:.0f}")

    async def let_go(self, job: int, waited: float) -> None:
        await self._begin(job, write_behind(self._comments.get(job, ""), None), "now")
        if not (await self._ageing())[2]:
            await self.keep_place(job, waited)

    async def _begin(self, job: int, comment: str, when: str) -> None:
        """Another begin time, and what is to be noted with it."""
        record = f"JobId={self._record(job)}"
        await self._change("scontrol", "update", record, f"AdminComment={comment}", f"StartTime={when}")
        self._comments[job] = comment

    async def looked_at(self, jobs: Collection[int]) -> dict[int, float]:
        fields = "jobid", "lastschedeval"
        try:
            rows = await self._table("squeue", fields, "-a", "-t", "PD", "-j", ",".join(map(str, sorted(jobs))))
        except SlurmUnavailable:
            raise
        except SlurmError:  # as it says of a single job that is gone
            return {}
        return {int(row["jobid"]): at for row in rows if (at := parse.time(row["lastschedeval"])) is not None}

    async def note_unstarted(self, job: int, note: Unstarted) -> None:
        comment = write_unstarted(self._comments.get(job, ""), note)
        await self._change("scontrol", "update", f"JobId={self._record(job)}", f"AdminComment={comment}")
        self._comments[job] = comment

    async def allow_start(self, job: int, delay: float = 0.0) -> None:
        when = "now" if delay <= 0 else f"now+{delay:.0f}"
        await self._change("scontrol", "update", f"JobId={self._record(job)}", f"StartTime={when}")

    async def _run(self, *args: str) -> str:
        return await run(args, self._timeout)

    async def _change(self, *args: str) -> None:
        """Run a command that changes something, if we may."""
        await run(args, self.permit(self._timeout))


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    """What cannot be read is Slurm's error, not a fault of ours: the daemon looks again."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise SlurmError(f"Slurm said something that cannot be read: {error}") from error


async def all_of(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run commands side by side; the first failure ends the others and is raised."""
    # Not a TaskGroup: on Python 3.11.2 it can leave its caller cancelled when several calls fail at once.
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
