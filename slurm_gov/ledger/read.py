"""Reading the ledger, in any process, while the daemon writes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, or_, select, type_coerce
from sqlalchemy.types import NullType

from slurm_gov.database import Database, Where, exists
from slurm_gov.ledger.event import Event, Kind
from slurm_gov.ledger.span import Span
from slurm_gov.ledger.store import (
    KINDS,
    LedgerError,
    events_table,
    part,
    plain,
    sentence,
    spans_table,
    words_table,
)

_KINDS = {number: kind for kind, number in KINDS.items()}
_e = events_table.c
_WORDS = {
    name: words_table.alias(f"{name}_word") for name in ("who", "team", "pool", "user", "node", "for_team", "why")
}


def _events() -> Any:
    told: dict[str, Any] = {name: word.c.text for name, word in _WORDS.items()}
    columns = (
        _e.id, _e.at, _e.kind, told["who"], told["team"], told["pool"], _e.job, told["user"], told["node"], _e.gpus,
        _e.lost, told["for_team"], _e.for_job, _e.before, _e.after, told["why"], _e.numbers,
    )  # fmt: skip
    whole: Any = events_table
    for name, word in _WORDS.items():
        whole = whole.outerjoin(word, word.c.id == _e[name])
    return select(*columns).select_from(whole)


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event with its place in the ledger: ``id`` only ever grows."""

    id: int
    event: Event


def events(
    path: Where,
    *,
    since: float | None = None,
    until: float | None = None,
    after: int = 0,
    kinds: Collection[Kind] = (),
    team: str | None = None,
    pool: str | None = None,
    job: str | None = None,
    user: str | None = None,
    node: str | None = None,
    limit: int | None = None,
    newest: bool = False,
) -> list[Recorded]:
    """Events, the oldest first. Raises ``LedgerError``.

    ``since`` and ``until`` are seconds since the epoch (``until`` itself is not in it); ``after`` is an ``id``.
    ``team`` finds events of a team and those for its sake, ``job`` likewise, and all tasks of an array by its
    number; ``user`` finds jobs of a user and what the user did. ``limit`` is how many: the first, or with
    ``newest`` the last.
    """
    asked = _events().where(_e.id > after)
    if since is not None:
        asked = asked.where(_e.at >= round(since * 1000))
    if until is not None:
        asked = asked.where(_e.at < round(until * 1000))
    if kinds:
        asked = asked.where(_e.kind.in_([KINDS[kind] for kind in kinds]))
    if team is not None:
        asked = asked.where(or_(_e.team == _word(team), _e.for_team == _word(team)))
    if user is not None:
        asked = asked.where(or_(_e.user == _word(user), _e.who == _word(user)))
    for name, value in (("pool", pool), ("node", node)):
        if value is not None:
            asked = asked.where(_e[name] == _word(value))
    if job is not None:
        asked = asked.where(or_(*_is_job(_e.job, job, path), *_is_job(_e.for_job, job, path)))
    asked = asked.order_by(_e.id.desc() if newest else _e.id).limit(limit)
    with _open(path) as db:
        rows = db.execute(asked).fetchall()
    # A kind that a newer slurm-gov added, and wrote before it was taken back, is left out.
    return [_recorded(row) for row in (reversed(rows) if newest else rows) if row[2] in _KINDS]


def _word(text: str) -> Any:
    return select(words_table.c.id).where(words_table.c.text == text).scalar_subquery()


def _is_job(column: Any, job: str, where: Where) -> Iterator[Any]:
    """A job by its id, all tasks of an array and all components of a het job by its number."""
    if isinstance(where, Path):  # its columns have no type: a number is a number
        yield type_coerce(column, NullType()) == bindparam(None, plain(job), NullType(), unique=True)
        yield column.op("GLOB")(f"{job}_*")
        yield column.op("GLOB")(f"{job}+*")
    else:
        yield column == job
        yield column.startswith(f"{job}_", autoescape=True)
        yield column.startswith(f"{job}+", autoescape=True)


def _recorded(row: Any) -> Recorded:
    id, at, kind, who, team, pool, job, user, node, gpus, lost, for_team, for_job, before, after, why, numbers = row
    return Recorded(
        id,
        Event(
            kind=_KINDS[kind],
            at=at / 1000,
            why=sentence(why, numbers),
            who=who or "",
            team=team or "",
            pool=pool or "",
            job=_text(job),
            user=user or "",
            node=node or "",
            gpus=gpus or 0,
            lost=lost or 0,
            for_team=for_team or "",
            for_job=_text(for_job),
            before=_text(before),
            after=_text(after),
        ),
    )


def _text(value: str | int | None) -> str:
    return "" if value is None else str(value)


def spans(path: Where, since: float, until: float) -> list[Span]:
    """What teams held at any time from ``since`` to ``until``, in order of time. Raises ``LedgerError``.

    The spans are whole: the first may begin earlier, and the last may end later.
    """
    one = spans_table.c
    columns = one.quota, one.cap, one.used, one.borrowed, one.lent, one.waiting, one.waiting_jobs
    with _open(path) as db:
        rows = db.execute(_spans(since, until, *columns)).fetchall()
    return [Span(row[0], row[1], row[2] / 1000, row[3] / 1000, *row[4:]) for row in rows]


Balance = tuple[str, str, float, float, int]
"""Team, pool, from when and until when, and what the team used less its quota, in GPUs."""


def balances(path: Where, since: float, until: float) -> Iterator[Balance]:
    """Of the same spans no more than this, one after another: there may be millions. Raises ``LedgerError``."""
    one = spans_table.c
    with _open(path) as db:
        for row in db.execute(_spans(since, until, one.used - one.quota)):
            yield row[0], row[1], row[2] / 1000, row[3] / 1000, row[4]


def _spans(since: float, until: float, *columns: ColumnElement[int]) -> Select[Any]:
    one = spans_table.c
    team, pool = words_table.alias("team_word"), words_table.alias("pool_word")
    return (
        select(team.c.text, pool.c.text, one.since, one.until, *columns)
        .select_from(spans_table.join(team, team.c.id == one.team).join(pool, pool.c.id == one.pool))
        .where(one.until > round(since * 1000), one.since < round(until * 1000))
        .order_by(one.since)
    )


@contextmanager
def _open(where: Where) -> Iterator[Connection]:
    if not exists(where):
        raise LedgerError(f"{where}: there is no ledger; slurm-govd --ledger names its file")
    db = Database(where, part(), readonly=True)
    try:
        with db.reading() as connection:
            yield connection
    finally:
        db.close()
