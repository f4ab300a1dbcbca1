"""Our notes in a job's AdminComment. They are how the governor remembers across a restart: Slurm keeps them.

A note stands in brackets, so that what an administrator wrote beside it stays::

    [slurm-gov preempt for=4711 team=product since=1795445991 until=1795446021 run=1795440000: why]
    [slurm-gov preempted=1795353600:4699,1795267200:4021]
    [slurm-gov signal=B:USR1]
    [slurm-gov nodes=2-4]
    [slurm-gov behind=4711 until=1795446081]
    [slurm-gov unstarted since=1795446021 until=1795446621 asked=5d41402a reason=Resources]
    [slurm-gov fault node=n3 at=1795445991.0 run=1795440000 count=1 waited=300 until=0.0 settled=0 avoids=-: why]

The second names the earlier preemptions, when and for which job, when the first has become another's. Only operators
may write an AdminComment, so no user can forge one.
"""

from __future__ import annotations

import re

from slurm_gov.core.snapshot import Behind, FaultMark, Mark, Preempted, Unstarted

PLACE = "slurm-gov-place-"
"""How the names of our reservations begin that keep a requeued job's nodes for it; its job id follows."""
_PREEMPT = re.compile(
    r"\[slurm-gov preempt for=(?P<beneficiary>\d+) team=(?P<team>[^\s\]:]+) since=(?P<since>\d+(?:\.\d+)?) "
    r"until=(?P<deadline>\d+(?:\.\d+)?) run=(?P<run>\d+)(?: held=(?P<held>\d+))?(?P<spared> spared)?"
    r": (?P<reason>[^\]]*)\]"
)
_EARLIER = re.compile(r"\[slurm-gov preempted=(?P<times>\d+(?::\d+)?(?:,\d+(?::\d+)?)*)\]")
REMEMBERED = 20
"""So many earlier preemptions at most: an AdminComment is no archive."""
_SIGNAL = re.compile(r"\[slurm-gov signal=(?P<signal>(?:B:)?[A-Z0-9+]+)\]")
_NODES = re.compile(r"\[slurm-gov nodes=(?P<least>\d+)(?:-(?P<most>\d+))?\]")
_BEHIND = re.compile(r"\[slurm-gov behind=(?P<job>\d+) until=(?P<until>\d+)\]")
_UNSTARTED = re.compile(
    r"\[slurm-gov unstarted since=(?P<since>\d+) until=(?P<until>\d+) asked=(?P<asked>[0-9a-f]{8}) "
    r"reason=(?P<reason>\w+)\]"
)
_FAULT = re.compile(
    r"\[slurm-gov fault node=(?P<node>[^\s\]:]+) at=(?P<at>\d+(?:\.\d+)?) run=(?P<run>\d+) count=(?P<count>\d+) "
    r"waited=(?P<waited>\d+) until=(?P<until>\d+(?:\.\d+)?) settled=(?P<settled>[01]) "
    r"avoids=(?P<avoids>[^\s\]:]+): (?P<reason>[^\]]*)\]"
)


def read_mark(comment: str) -> Mark | None:
    """The preemption noted in an AdminComment, if any."""
    found = _PREEMPT.search(comment)
    if found is None:
        return None
    return Mark(
        beneficiary=int(found["beneficiary"]),
        team=found["team"],
        since=float(found["since"]),
        deadline=float(found["deadline"]),
        run=float(found["run"]),
        reason=found["reason"],
        held=float(found["held"] or 0),
        spared=found["spared"] is not None,
    )


def read_preempted(comment: str, run: float) -> tuple[Preempted, ...]:
    """The preemptions of earlier runs of a job, the last one first; ``run`` is the start of the present one. That one
    was spared is none: what ended it later was not our doing.
    """
    mark, found = read_mark(comment), _EARLIER.search(comment)
    left = (Preempted(mark.since, mark.beneficiary),) if mark and mark.run != run and not mark.spared else ()
    earlier = (one.partition(":") for one in found["times"].split(",")) if found else ()
    return left + tuple(Preempted(float(at), int(job or 0)) for at, _, job in earlier)


def read_signal(comment: str) -> str:
    """The signal that a job asked for at submission (``sbatch --signal``), as ``B:USR1``; empty if none."""
    found = _SIGNAL.search(comment)
    return found["signal"] if found else ""


def read_most_nodes(comment: str) -> tuple[int, int]:
    """On how many nodes at least and at most a job was to run at its submission; (0, 0) if there was no limit. Slurm
    tells only some versions' users (docs/slurm-facts.md).
    """
    found = _NODES.search(comment)
    return (int(found["least"]), int(found["most"] or found["least"])) if found else (0, 0)


def write_mark(comment: str, mark: Mark | None) -> str:
    """The AdminComment with this preemption noted, or (``None``) with none; other text is kept, and so are the
    times of earlier preemptions.
    """
    rest = _without(_PREEMPT, comment)
    if mark is None:
        return rest
    if earlier := read_preempted(comment, mark.run)[:REMEMBERED]:
        times = ",".join(f"{at:.0f}:{job}" for at, job in earlier)
        rest = f"{_without(_EARLIER, rest)} [slurm-gov preempted={times}]".strip()
    note = (
        f"[slurm-gov preempt for={mark.beneficiary} team={mark.team} since={mark.since:.0f} "
        f"until={mark.deadline:.1f} run={mark.run:.0f}{f' held={mark.held:.0f}' if mark.held else ''}"
        f"{' spared' if mark.spared else ''}: "
        f"{_one_line(mark.reason)}]"
    )
    return f"{rest} {note}".strip()


def read_fault(comment: str) -> FaultMark | None:
    """The fault noted in an AdminComment, if any."""
    found = _FAULT.search(comment)
    if found is None:
        return None
    return FaultMark(
        node=found["node"],
        at=float(found["at"]),
        run=float(found["run"]),
        count=int(found["count"]),
        waited=float(found["waited"]),
        until=float(found["until"]),
        settled=found["settled"] == "1",
        avoids="" if found["avoids"] == "-" else found["avoids"],
        reason=found["reason"],
    )


def write_fault(comment: str, mark: FaultMark | None) -> str:
    """The AdminComment with this fault noted instead of an earlier one, or (``None``) none; other text is kept."""
    if mark is None:
        return _without(_FAULT, comment)
    note = (
        f"[slurm-gov fault node={mark.node} at={mark.at:.1f} run={mark.run:.0f} count={mark.count} "
        f"waited={mark.waited:.0f} until={mark.until:.1f} settled={mark.settled:d} "
        f"avoids={mark.avoids or '-'}: {_one_line(mark.reason)}]"
    )
    return f"{_without(_FAULT, comment)} {note}".strip()


def read_behind(comment: str) -> Behind | None:
    """Behind which job of its team it was last made to wait, if behind any."""
    found = _BEHIND.search(comment)
    return Behind(int(found["job"]), float(found["until"])) if found else None


def write_behind(comment: str, behind: Behind | None) -> str:
    """The AdminComment with this noted, or with nothing of the kind; other text is kept."""
    rest = _without(_BEHIND, comment)
    return rest if behind is None else f"{rest} [slurm-gov behind={behind.job} until={behind.until:.0f}]".strip()


def read_unstarted(comment: str) -> Unstarted | None:
    """That Slurm has not started it where there seemed to be room, if that is noted."""
    found = _UNSTARTED.search(comment)
    return Unstarted(float(found["since"]), float(found["until"]), found["asked"], found["reason"]) if found else None


def write_unstarted(comment: str, note: Unstarted) -> str:
    """The AdminComment with this noted instead of an earlier one; other text is kept."""
    said = (
        f"[slurm-gov unstarted since={note.since:.0f} until={note.until:.0f} asked={note.asked} reason={note.reason}]"
    )
    return f"{_without(_UNSTARTED, comment)} {said}".strip()


def write_signal(comment: str, signal: str) -> str:
    """The AdminComment with the job's own signal noted."""
    return f"{_without(_SIGNAL, comment)} [slurm-gov signal={signal}]".strip()


def write_most_nodes(comment: str, least: int, most: int) -> str:
    """The AdminComment with this noted."""
    nodes = f"{least}-{most}" if least < most else str(most)
    return f"{_without(_NODES, comment)} [slurm-gov nodes={nodes}]".strip()


def _one_line(reason: str) -> str:
    """Slurm's own comment syntax reserves nothing, but the brackets are ours, and it shall stay one line."""
    reason = re.sub(r"\s+", " ", reason).strip().translate(str.maketrans("[]", "()"))
    return "".join(one if one.isprintable() else "?" for one in reason)


def _without(note: re.Pattern[str], comment: str) -> str:
    return re.sub(f" ?{note.pattern}", "", comment).strip()
