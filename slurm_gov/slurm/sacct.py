"""What accounting knows of the past: runs of jobs, from slurmdbd."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from slurm_gov.core.policy import Pool
from slurm_gov.core.run import Run
from slurm_gov.slurm import parse, read
from slurm_gov.slurm.client import SlurmError
from slurm_gov.slurm.run import run

_FIELDS = (
    "JobID", "Account", "User", "QOS", "Partition", "State", "Eligible", "Start", "End", "ElapsedRaw", "AllocTRES",
    "ReqTRES",
)  # fmt: skip
_SEPARATOR = "\x1f"


async def runs(pools: Iterable[Pool], since: float, until: float, timeout: float) -> list[Run]:
    """Every run that waited or ran between two times, on the pools' GPUs; all users', requeued ones too.

    Raises ``SlurmUnavailable`` or ``SlurmError``.
    """
    said = await run(
        [
            "sacct", "--allusers", "--duplicates", "--allocations", "--parsable2", "--noheader", "--noconvert",
            f"--delimiter={_SEPARATOR}", f"--format={','.join(_FIELDS)}",
            f"--starttime=uts{math.floor(since)}", f"--endtime=uts{math.ceil(until)}",
        ],
        timeout,
    )  # fmt: skip
    return read_runs(said, tuple(pools))


async def parents(timeout: float) -> Mapping[str, str]:
    """Each account's parent account. Raises ``SlurmUnavailable`` or ``SlurmError``."""
    return read.associations(await run(["scontrol", "-o", "show", "assoc_mgr", "flags=assoc"], timeout))[0]


def read_runs(said: str, pools: Sequence[Pool]) -> list[Run]:
    """Runs from what sacct printed. Raises ``SlurmError`` for a line that cannot be read."""
    found: list[Run] = []
    for line in said.splitlines():
        cells = line.split(_SEPARATOR)
        if len(cells) != len(_FIELDS):
            raise SlurmError(f"sacct printed {len(cells)} fields, not {len(_FIELDS)}: {line[:200]!r}")
        try:
            found += _runs(dict(zip(_FIELDS, cells, strict=True)), pools)
        except ValueError as error:
            raise SlurmError(f"sacct printed what cannot be read ({error}): {line[:200]!r}") from None
    return found


def _runs(row: Mapping[str, str], pools: Sequence[Pool]) -> Iterable[Run]:
    start = parse.time(row["Start"])
    gpus = parse.gpus_of(parse.tres(row["AllocTRES"] if start is not None else row["ReqTRES"]))
    job, _, tasks = row["JobID"].partition("_[")
    for pool in pools:
        amount = gpus.get(pool.tres, 0)
        # A job that never named a type: its partition's pool.
        if not amount and row["Partition"] in pool.partitions:
            amount = gpus.get(pool.untyped_tres, 0)
        if amount:
            yield Run(
                job=job,
                account=row["Account"],
                user=row["User"],
                qos=row["QOS"],
                pool=pool.name,
                gpus=amount,
                eligible=parse.time(row["Eligible"]),
                start=start,
                end=parse.time(row["End"]),
                elapsed=float(row["ElapsedRaw"] or 0),
                state=row["State"].partition(" ")[0],
                tasks=parse.tasks(tasks.rstrip("]")) if tasks else 1,
            )
