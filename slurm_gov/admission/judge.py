"""What a submission, or a change of a job, gets for an answer. Pure: a request and a view in, an answer out.

Slurm makes its own checks after ours and its words stand where they are good; here is only what Slurm
cannot know: which GPU type a pool means, and what a team can never have.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from functools import lru_cache

from slurm_gov.admission.view import PoolFacts, View
from slurm_gov.admission.wire import Cause, Kind, Request, Verdict
from slurm_gov.core.marks import write_most_nodes, write_signal

TRES_FIELDS = ("tres_per_job", "tres_per_node", "tres_per_socket", "tres_per_task")
KILL_JOB_BATCH = 1
"""slurm.h: the flag that ``sbatch --signal=B:...`` sets."""
EXCLUSIVE = 0
"""``shared`` of a job submitted with ``--exclusive``."""

_GPU = re.compile(
    r"(?P<prefix>(?:gres[:/])?)gpu(?::(?P<type>(?!\d+\w?$)[\w.-]+))?(?:(?P<sep>[:=])(?P<count>\d+)\w?)?$"
)


@dataclass(slots=True)
class Judgement:
    """The answer: accept, with these fields changed, or refuse, with a message for the user.

    ``would_refuse``: in the mode ``observe`` everything is accepted as it came; this is what it would have got.
    """

    verdict: Verdict = Verdict.ACCEPT
    cause: Cause = Cause.POLICY
    message: str | None = None
    tres_per_job: str | None = None
    tres_per_node: str | None = None
    tres_per_socket: str | None = None
    tres_per_task: str | None = None
    admin_comment: str | None = None
    team: str | None = None
    would_refuse: str | None = None


class Refused(Exception):
    """The request is refused; the text is for the user."""

    def __init__(self, message: str, cause: Cause = Cause.POLICY) -> None:
        super().__init__(message)
        self.cause = cause


def judge(request: Request, view: View) -> Judgement:
    """What a request gets."""
    judgement = Judgement()
    try:
        (_modify if request.kind is Kind.MODIFY else _submit)(request, view, judgement)
    except Refused as refused:
        judgement = Judgement(Verdict.REFUSE, refused.cause, f"slurm-gov: {refused}", team=judgement.team)
    if view.observe:
        return Judgement(team=judgement.team, would_refuse=judgement.message)
    return judgement


def _submit(request: Request, view: View, judgement: Judgement) -> None:
    user = view.users.get(request.user_id if request.user_id is not None else request.submit_uid)
    account = (request.account or (user.default_account if user else "")).lower()
    judgement.team = view.teams.get(account)
    judgement.admin_comment = _notes(request)
    partitions = (request.partition or view.default_partition).split(",")
    _judge_gpus(request, view, judgement, partitions, max(1, request.min_nodes or 1))


def _modify(request: Request, view: View, judgement: Judgement) -> None:
    submitter = view.users.get(request.submit_uid)
    if request.submit_uid in (0, view.slurm_uid) or (submitter is not None and submitter.admin):
        return
    changes_gpus = any(getattr(request, name) for name in TRES_FIELDS)
    if not (request.account or request.qos or request.partition or changes_gpus):
        return
    id = _job_id(request)
    job = view.jobs.get(id)
    if job is None:
        if request.account or request.qos:
            raise Refused(
                f"job {id} cannot be changed now: either it is not pending, or it is so new that it is not known "
                "here yet; try again in some seconds",
                Cause.ACCESS,
            )
        return
    judgement.team = team = view.teams.get(job.account)
    account = (request.account or job.account).lower()
    if view.teams.get(account) != team:
        raise Refused(
            f"job {id} belongs to {_of(team, job.account)} and cannot be moved to "
            f"{_of(view.teams.get(account), account)}: cancel it and submit it there",
            Cause.ACCOUNT,
        )
    if request.qos and submitter is not None:
        allowed = submitter.qos.get(account, frozenset())
        if allowed and request.qos.lstrip("+-") not in allowed:
            raise Refused(
                f"{submitter.name} may not use priority class {request.qos} in account {account}; "
                f"allowed: {', '.join(sorted(allowed, key=lambda qos: (-view.priority_classes.get(qos, 0), qos)))}",
                Cause.QOS,
            )
    if changes_gpus:
        partitions = request.partition.split(",") if request.partition else list(job.partitions)
        _judge_gpus(request, view, judgement, partitions, max(1, request.min_nodes or job.nodes))


def _of(team: str | None, account: str) -> str:
    return f"team {team}" if team else f"account {account}, which is no team's"


def _job_id(request: Request) -> int:
    if request.job_id:
        return request.job_id
    found = re.match(r"\d+", request.job_id_str or "")
    return int(found[0]) if found else 0


def _notes(request: Request) -> str | None:
    """What of a request must be kept where it is found later, for Slurm does not show it: the job's own --signal, and
    on how many nodes its GPUs may be at most (``-N1 --gpus=8``).
    """
    before = comment = request.admin_comment or ""
    if request.warn_signal:
        try:
            name = signal.Signals(request.warn_signal).name.removeprefix("SIG")
        except ValueError:
            name = str(request.warn_signal)
        batch = "B:" if (request.warn_flags or 0) & KILL_JOB_BATCH else ""
        comment = write_signal(comment, batch + name)
    if request.max_nodes and (request.tres_per_job or request.tres_per_task):
        comment = write_most_nodes(comment, max(1, request.min_nodes or 1), request.max_nodes)
    return comment if comment != before else None


def _judge_gpus(request: Request, view: View, judgement: Judgement, partitions: list[str], nodes: int) -> None:
    """Give untyped GPU requests their pool's type; refuse what could never run."""
    asked = [(name, value) for name in TRES_FIELDS if (value := getattr(request, name))]
    if not asked:
        return
    counts = {name: gpus(value) for name, value in asked}
    if not any(counts.values()):
        return
    pools = [pool for partition in partitions for pool in view.pools.get(partition, ())]
    if not pools:
        return
    if any(None in count for count in counts.values()):
        gres = sorted({pool.gres for pool in pools})
        if len(gres) > 1:
            raise Refused(
                f"partition {','.join(partitions)} has several kinds of GPU: say which, as in "
                + " or ".join(f"--gres={one}:{_first(counts)}" for one in gres),
                Cause.TRES,
            )
        for name, value in asked:
            if None in counts[name]:
                setattr(judgement, name, typed(value, gres[0].partition(":")[2]))
    types = {kind for count in counts.values() for kind in count if kind is not None}
    meant = [pool for pool in pools if not types or pool.gres.partition(":")[2] in types]
    if judgement.team is not None and meant:
        problems = [_never(request, view, judgement.team, pool, counts, nodes) for pool in meant]
        # A job for several partitions needs only one that can take it.
        if all(problems):
            raise Refused(str(problems[0]), Cause.TRES)


def _never(
    request: Request, view: View, team: str, pool: PoolFacts, counts: dict[str, dict[str | None, int]], nodes: int
) -> str | None:
    """Why a request could not run in this pool even if it were empty and healthy, or ``None``."""
    kind = pool.gres.partition(":")[2]
    per = {name: count.get(kind, 0) + count.get(None, 0) for name, count in counts.items()}
    per_node = per.get("tres_per_node", 0)
    largest = pool.nodes[0] if pool.nodes else 0
    if per_node > largest:
        return (
            f"the job asks for {per_node} {pool.name} on a node; the largest node of pool {pool.name} has {largest}"
        )
    enough = sum(size >= max(1, per_node) for size in pool.nodes)
    if per_node and nodes > enough:
        return f"the job asks for {nodes} nodes with {per_node} {pool.name} each; the pool has {enough} such nodes"
    tasks = request.num_tasks or (request.ntasks_per_node or 1) * nodes
    # What it needs at the least: a job may well get more.
    total = max(per.get("tres_per_job", 0), per_node * nodes, per.get("tres_per_task", 0) * tasks)
    if request.shared == EXCLUSIVE and total:
        # Slurm gives an exclusive job all GPUs of its nodes, whatever it asked for.
        total = max(total, sum(sorted(size for size in pool.nodes if size >= per_node)[:nodes]))
    if total > pool.total:
        return f"the job asks for {total} {pool.name}; pool {pool.name} has {pool.total} in all"
    most, limit = view.most.get((team, pool.name), (0, "quota 0"))
    if total > most:
        return f"the job asks for {total} {pool.name}; team {team} can never hold more than {most} ({limit})"
    return None


@lru_cache(maxsize=4096)
def gpus(text: str) -> dict[str | None, int]:
    """The GPUs that a ``tres_per_*`` string asks for, by type; ``None`` stands for no type."""
    counts: dict[str | None, int] = {}
    for part in text.split(","):
        if found := _GPU.fullmatch(part.strip()):
            counts[found["type"]] = counts.get(found["type"], 0) + int(found["count"] or 1)
    return counts


@lru_cache(maxsize=4096)
def typed(text: str, kind: str) -> str:
    """The same ``tres_per_*`` string with every untyped GPU given a type: ``gres:gpu:8`` → ``gres:gpu:h100:8``."""
    parts = []
    for part in text.split(","):
        found = _GPU.fullmatch(part.strip())
        if found and not found["type"]:
            count = f"{found['sep']}{found['count']}" if found["count"] else ":1"
            part = f"{found['prefix']}gpu:{kind}{count}"
        parts.append(part)
    return ",".join(parts)


def _first(counts: dict[str, dict[str | None, int]]) -> int:
    return next(count[None] for count in counts.values() if None in count)
