"""What `slurm-gov top` shows at one moment: asked of slurm-govd's read API, else of Slurm itself."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import asdict, dataclass, field
from typing import Any

from slurm_gov.cli.common import Failure

PATIENCE = 4.0
"""Seconds for slurm-govd to answer one question."""
JOBS = 1000
"""Waiting jobs that are asked for, the first in line."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Frame:
    """Rows as the read API gives them. ``source`` says who was asked; ``trouble`` what is wrong with it, or nothing.

    Only slurm-govd knows ``decisions``; of Slurm's own answer there are none (``None``).
    """

    time: float
    source: str
    pools: list[Row]
    teams: list[Row]
    without_team: list[Row]
    waiting: list[Row]
    waiting_jobs: int
    running_jobs: int
    nodes: int
    preemptions: list[Row]
    decisions: list[Row] | None = None
    warnings: list[str] = field(default_factory=list)
    trouble: str = ""


class NoAnswer(Exception):
    """slurm-govd is not there, or does not know anything yet; the message says why."""


def ask(server: str, token: str) -> Frame:
    """What slurm-govd says. Raises ``NoAnswer``."""
    cluster = _get(server, token, "cluster")
    teams = _get(server, token, "teams")
    trouble = ""
    if not cluster["slurm_answers"]:
        trouble = f"Slurm does not answer, this is what it said last: {cluster['slurm_error']}"
    elif cluster["now"] - cluster["time"] > max(30.0, 10 * cluster["interval"]):
        trouble = f"slurm-govd has not looked at Slurm for {cluster['now'] - cluster['time']:.0f} s"
    elif cluster["cycle"]["error"]:
        trouble = f"not all that was decided could be done: {cluster['cycle']['error']}"
    return Frame(
        time=cluster["time"],
        source="slurm-govd",
        pools=_get(server, token, "pools")["pools"],
        teams=teams["teams"],
        without_team=teams["without_team"],
        waiting=_get(server, token, f"jobs?state=waiting&limit={JOBS}")["jobs"],
        waiting_jobs=cluster["waiting_jobs"],
        running_jobs=cluster["running_jobs"],
        nodes=cluster["nodes"],
        preemptions=_get(server, token, "preemptions")["preemptions"],
        decisions=_get(server, token, "decisions?limit=300")["decisions"],
        warnings=cluster["warnings"],
        trouble=trouble,
    )


def look(policy_path: str) -> Frame:
    """What Slurm says, decided by the policy file as slurm-govd would. Raises ``Failure``."""
    from slurm_gov.cli.look import look as take_a_look
    from slurm_gov.core import rows

    seen = take_a_look(policy_path)
    waiting = rows.waiting(seen, seen.plan.decisions[:JOBS])
    return Frame(
        time=seen.snapshot.now,
        source="Slurm itself: slurm-govd does not answer",
        pools=[asdict(row) for row in rows.pools(seen)],
        teams=[asdict(row) for row in rows.teams(seen)],
        without_team=[asdict(row) for row in rows.without_team(seen)],
        waiting=[asdict(row) for row in waiting],
        waiting_jobs=sum(job.tasks for job in seen.snapshot.waiting),
        running_jobs=len(seen.snapshot.running),
        nodes=len(seen.snapshot.nodes),
        preemptions=[asdict(row) for row in rows.preemptions(seen)],
        warnings=rows.warnings(seen),
    )


def frame(server: str, token: str, policy_path: str) -> Frame:
    """The one or the other. Raises ``Failure`` where neither answers."""
    try:
        return ask(server, token)
    except NoAnswer as error:
        try:
            return look(policy_path)
        except Failure as failure:
            raise Failure(f"{failure.message}; {error}") from None


def _get(server: str, token: str, path: str) -> Any:
    request = urllib.request.Request(urllib.parse.urljoin(server, f"/api/v1/{path}"))
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        # The governor is asked itself: a proxy for the world outside knows nothing of it.
        with _DIRECT.open(request, timeout=PATIENCE) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise NoAnswer(f"slurm-govd at {server} wants a token: --token-file") from None
        raise NoAnswer(f"slurm-govd at {server} answers {error.code}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise NoAnswer(f"slurm-govd at {server} does not answer ({reason})") from None


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
