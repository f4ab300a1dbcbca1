"""Reading the ledger, in any process, while the daemon writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slurm_gov.ledger.event import Event, Kind
from slurm_gov.ledger.span import Span
from slurm_gov.ledger.store import KINDS, MIGRATIONS, LedgerError, sentence

_KINDS = {number: kind for kind, number in KINDS.items()}
_WORDS = ("who", "team", "pool", "user", "node", "for_team")
_EVENT = (
    "SELECT e.id, e.at, e.kind, who.text, team.text, pool.text, e.job, user.text, node.text, e.gpus, e.lost,"
    " for_team.text, e.for_job, e.before, e.after, why.text, e.numbers FROM events e "
    + " ".join(f"LEFT JOIN words {name} ON {name}.id = e.{name}" for name in (*_WORDS, "why"))
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event with its place in the ledger: ``id`` only ever grows."""

    id: int
    event: Event


def events(
    path: Path,
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
    where, values = ["e.id > ?"], [after]
    more: list[str | int] = []

    def add(condition: str, *given: str | int) -> None:
        where.append(condition)
        more.extend(given)

    if since is not None:
        add("e.at >= ?", round(since * 1000))
    if until is not None:
        add("e.at < ?", round(until * 1000))
    if kinds:
        add(f"e.kind IN ({', '.join('?' * len(kinds))})", *(KINDS[kind] for kind in kinds))
    word = "(SELECT id FROM words WHERE text = ?)"
    if team is not None:
        add(f"(e.team = {word} OR e.for_team = {word})", team, team)
    if user is not None:
        add(f"(e.user = {word} OR e.who = {word})", user, user)
    for name, value in (("pool", pool), ("node", node)):
        if value is not None:
            add(f"e.{name} = {word}", value)
    if job is not None:
        number = int(job) if job.isdecimal() and job.isascii() and len(job) < 16 else job
        tasks, components = f"{job}_*", f"{job}+*"
        one = "(e.{0} = ? OR e.{0} GLOB ? OR e.{0} GLOB ?)"
        add(f"({one.format('job')} OR {one.format('for_job')})", *(2 * [number, tasks, components]))
    order = f"ORDER BY e.id {'DESC' if newest else 'ASC'}"
    query = f"{_EVENT} WHERE {' AND '.join(where)} {order} LIMIT ?"
    with _open(path) as db:
        rows = db.execute(query, [*values, *more, -1 if limit is None else limit]).fetchall()
    # A kind that a newer slurm-gov added, and wrote before it was taken back, is left out.
    return [_recorded(row) for row in (reversed(rows) if newest else rows) if row[2] in _KINDS]


def _recorded(row: tuple) -> Recorded:  # type: ignore[type-arg]
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


def spans(path: Path, since: float, until: float) -> list[Span]:
    """What teams held at any time from ``since`` to ``until``, in order of time. Raises ``LedgerError``.

    The spans are whole: the first may begin earlier, and the last may end later.
    """
    with _open(path) as db:
        rows = db.execute(
            "SELECT team.text, pool.text, s.since / 1000.0, s.until / 1000.0, s.quota, s.cap, s.used, s.borrowed,"
            " s.lent, s.waiting, s.waiting_jobs FROM spans s JOIN words team ON team.id = s.team"
            " JOIN words pool ON pool.id = s.pool WHERE s.until > ? AND s.since < ? ORDER BY s.since",
            (round(since * 1000), round(until * 1000)),
        ).fetchall()
    return [Span(*row) for row in rows]


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.exists():
        raise LedgerError(f"{path}: there is no ledger; slurm-govd --ledger names its file")
    db = None
    try:
        db = _connect(path)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if not 0 < version <= len(MIGRATIONS):
            raise LedgerError(f"{path}: no ledger that this slurm-gov can read (its version is {version})")
        yield db
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: {error}") from None
    finally:
        if db is not None:
            db.close()


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
    try:
        db.execute("SELECT 1 FROM sqlite_schema LIMIT 1")
    except sqlite3.OperationalError:
        # Nobody writes now, and we may not make the files that readers share: read it as it lies there.
        if path.with_name(path.name + "-wal").exists():
            raise
        db.close()
        db = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
    return db
