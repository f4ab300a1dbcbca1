"""The ledger: what is recorded is read again, nothing of it can be changed, and no trouble of the disk stops us."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm_gov.ledger import Event, Kind, Ledger, LedgerError, Span, events, spans
from slurm_gov.ledger import ledger as writing
from slurm_gov.ledger.store import MIGRATIONS, Words, forget, open_to_write, sentence, write

PREEMPT = Event(
    kind=Kind.PREEMPT,
    why="team research holds 24 of 16 h100; job 4711 of product needs 2 nodes with 8 h100 each",
    at=1000.0,
    team="research",
    pool="h100",
    job="24_3",
    user="ann",
    gpus=8,
    for_team="product",
    for_job="4711",
)
CAP = Event(kind=Kind.CAP, at=1001.5, team="research", pool="h100", before="24", after="16")
REFUSE = Event(kind=Kind.REFUSE, why="it asks for 040 h100", at=1002.0, who="bob", team="product", user="bob")
NODE = Event(kind=Kind.NODE, at=1003.0, node="n1", before="healthy", after="suspect", why="XID 79 on GPU 3")


def until(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "ledger.db"


@pytest.fixture
def ledger(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setattr(writing, "PATIENCE", 0.01)
    monkeypatch.setattr(writing, "RETRY", (0.05, 0.05))
    one = Ledger(path)
    one.start()
    yield one
    one.close()


def fill(path: Path, *what: Event, held: tuple[Span, ...] = ()) -> None:
    db = open_to_write(path)
    write(db, Words(), what, held)
    db.close()


def test_what_is_recorded_is_read_again(ledger: Ledger, path: Path) -> None:
    for event in (PREEMPT, CAP, REFUSE, NODE):
        ledger.record(event)
    ledger.close()
    assert [one.event for one in events(path)] == [PREEMPT, CAP, REFUSE, NODE]
    assert [one.id for one in events(path)] == [1, 2, 3, 4]


def test_an_event_without_a_time_gets_the_present(ledger: Ledger, path: Path) -> None:
    before = time.time()
    ledger.record(Event(kind=Kind.DAEMON, after="started"))
    ledger.close()
    (one,) = events(path)
    assert before - 0.001 <= one.event.at <= time.time()


def test_it_is_read_while_it_is_written(ledger: Ledger, path: Path) -> None:
    ledger.record(CAP)
    until(lambda: path.exists() and ledger.health.written == 1)
    assert [one.event for one in events(path)] == [CAP]
    ledger.record(NODE)
    until(lambda: ledger.health.written == 2)
    assert [one.event for one in events(path, after=1)] == [NODE]


def test_the_next_life_goes_on_where_the_last_ended(ledger: Ledger, path: Path) -> None:
    ledger.record(CAP)
    ledger.close()
    second = Ledger(path)
    second.start()
    assert list(second.recent) == [CAP]
    second.record(NODE)
    second.close()
    assert [one.event for one in events(path)] == [CAP, NODE]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"kinds": [Kind.CAP, Kind.NODE]}, [CAP, NODE]),
        ({"team": "product"}, [PREEMPT, REFUSE]),
        ({"team": "nobody"}, []),
        ({"pool": "h100"}, [PREEMPT, CAP]),
        ({"job": "24_3"}, [PREEMPT]),
        ({"job": "24"}, [PREEMPT]),
        ({"job": "2"}, []),
        ({"job": "4711"}, [PREEMPT]),
        ({"user": "bob"}, [REFUSE]),
        ({"user": "ann"}, [PREEMPT]),
        ({"node": "n1"}, [NODE]),
        ({"since": 1001.5, "until": 1003.0}, [CAP, REFUSE]),
        ({"limit": 1}, [PREEMPT]),
        ({"limit": 2, "newest": True}, [REFUSE, NODE]),
        ({"kinds": [Kind.PREEMPT], "team": "research", "job": "24", "since": 0.0}, [PREEMPT]),
    ],
)
def test_filters(path: Path, wanted: dict[str, object], found: list[Event]) -> None:
    fill(path, PREEMPT, CAP, REFUSE, NODE)
    assert [one.event for one in events(path, **wanted)] == found  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "7", "no number", "1 and 22, 333", "007", "²", "a\x1ab 1", "\ud800 5", "12\x1a34", "ends with 9"]
)
def test_any_sentence_comes_back(path: Path, text: str) -> None:
    fill(path, Event(kind=Kind.REFUSE, at=1.0, why=text, before=text, user=text))
    (one,) = events(path)
    expected = text.replace("\x1a", "?").encode("utf-8", "backslashreplace").decode()
    assert (one.event.why, one.event.before, one.event.user) == (expected, expected, expected)


def test_a_sentence_that_says_the_same_is_kept_once(path: Path) -> None:
    fill(path, *(Event(kind=Kind.CAP, at=float(n), why=f"job {n} needs {n} h100") for n in range(50)))
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM words").fetchone()[0] == 2  # the sentence, slurm-govd
    assert events(path)[7].event.why == "job 7 needs 7 h100"
    assert sentence(None, None) == ""


def test_nothing_recorded_can_be_changed(path: Path) -> None:
    fill(path, PREEMPT)
    with sqlite3.connect(path) as db:
        for statement in ("UPDATE events SET at = 1", "DELETE FROM events"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(statement)
    assert len(events(path)) == 1


def test_a_kind_of_the_future_is_left_out(path: Path) -> None:
    fill(path, CAP)
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO events (at, kind) VALUES (1, 99)")
    assert [one.event for one in events(path)] == [CAP]


def test_what_is_too_old_goes(path: Path) -> None:
    old = Span("research", "h100", 900.0, 1000.5, 16, 24, 24, 8, 0, 0, 0)
    new = Span("research", "h100", 1000.5, 1500.0, 16, 16, 16, 0, 0, 0, 0)
    fill(path, PREEMPT, CAP, REFUSE, NODE, held=(old, new))
    db = open_to_write(path)
    assert forget(db, 1001.5, chunk=1) == 1
    db.close()
    assert [one.event for one in events(path)] == [CAP, REFUSE, NODE]
    assert spans(path, 0, 2000) == [new]
    with sqlite3.connect(path) as db:
        words = {row[0] for row in db.execute("SELECT text FROM words")}
    assert "ann" not in words
    assert {"research", "h100", "bob", "n1"} <= words
    # What comes after them gets new ids.
    fill(path, CAP)
    assert events(path)[-1].id == 5


def test_the_daemon_keeps_what_it_is_told_to_keep(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path, CAP)
    ledger = Ledger(path, keep=60)
    ledger.start()
    ledger.record(Event(kind=Kind.DAEMON, after="started"))
    ledger.close()
    assert [one.event.kind for one in events(path)] == [Kind.DAEMON]


def test_spans_grow_and_are_found(ledger: Ledger, path: Path) -> None:
    span = Span("research", "h100", 100.0, 110.0, 16, 24, 24, 8, 0, 4, 1)
    longer = Span("research", "h100", 100.0, 120.0, 16, 24, 24, 8, 0, 4, 1)
    other = Span("product", "h100", 100.0, 105.0, 16, 16, 0, 0, 8, 0, 0)
    ledger.record_spans([span, other])
    until(lambda: ledger.health.pending == 0)
    ledger.record_spans([longer])
    ledger.close()
    assert spans(path, 0, 1000) == [longer, other] or spans(path, 0, 1000) == [other, longer]
    assert spans(path, 105, 110) == [longer]
    assert spans(path, 120, 130) == []


def test_listeners_hear_it_at_once(ledger: Ledger) -> None:
    heard: list[Event] = []
    ledger.listeners.append(heard.append)
    ledger.record(CAP)
    assert heard == [CAP]
    assert list(ledger.recent) == [CAP]


# -- trouble ---------------------------------------------------------------------------------------------


def test_a_full_disk_stops_nobody_and_loses_nothing_that_fits_in_memory(path: Path) -> None:
    """In a process of its own: RLIMIT_FSIZE is a disk that is full after so many bytes."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = _fill_the_disk(path)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def _fill_the_disk(path: Path) -> int:
    import resource
    import signal

    writing.PATIENCE, writing.RETRY, writing.PENDING = 0.01, (0.05, 0.05), 1000
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    told: list[str] = []
    ledger = Ledger(path, on_trouble=lambda health: told.append(health.error))
    ledger.start()
    ledger.record(CAP)
    until(lambda: ledger.health.written == 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    long = Event(kind=Kind.POLICY, before="x" * 2000)
    slowest = 0.0
    for _ in range(2500):
        began = time.monotonic()
        ledger.record(long)
        slowest = max(slowest, time.monotonic() - began)
    until(lambda: ledger.health.failures >= 2)
    health = ledger.health
    assert told and told[0], told
    assert health.lost >= 2500 - 1000 - health.written, health
    assert slowest < 1.0, slowest  # it never waited for the disk: SQLite's own wait would be 5 s
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    until(lambda: ledger.health.pending == 0)
    assert ledger.health.error == told[-1] == ""
    kept = 1 + 2500 - ledger.health.lost
    ledger.close()
    assert len(events(path)) == kept == ledger.health.written, (len(events(path)), kept, ledger.health)
    return 0


def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "RETRY", (0.05, 0.05))
    blocker = tmp_path / "var"
    blocker.write_text("")
    ledger = Ledger(blocker / "ledger.db")
    ledger.start()
    ledger.record(CAP)
    until(lambda: ledger.health.failures)
    blocker.unlink()
    until(lambda: ledger.health.written == 1)
    ledger.close()
    assert [one.event for one in events(blocker / "ledger.db")] == [CAP]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "there is no ledger"),
        (lambda path: path.write_text("hello"), "not a database"),
        (lambda path: sqlite3.connect(path).execute("CREATE TABLE x (y)").connection.close(), "can read"),
        (lambda path: sqlite3.connect(path).execute("PRAGMA user_version = 99").connection.close(), "is 99"),
    ],
)
def test_what_is_no_ledger_is_refused_and_left_alone(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    path = tmp_path / "x.db"
    make(path)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(LedgerError, match=said):
        events(path)
    if before is not None:
        with pytest.raises(LedgerError, match=r"x\.db"):
            open_to_write(path)
        assert path.read_bytes()[100:] == before[100:]


def test_an_interrupted_migration_leaves_nothing_half_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import slurm_gov.ledger.store as store

    fill(path, CAP)
    monkeypatch.setattr(store, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE more (x);\nCREATE TABLE more (x);\n"))
    with pytest.raises(LedgerError, match="already exists"):
        open_to_write(path)
    monkeypatch.setattr(store, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE more (x);\n"))
    open_to_write(path).close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS) + 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_others_read_it_also_when_no_daemon_runs(path: Path) -> None:
    fill(path, CAP)
    for folder in (path.parent, *path.parent.parents):
        if folder.stat().st_uid == 0 and "pytest" in str(folder):
            folder.chmod(0o755)
    path.chmod(0o644)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setuid(65534)
            code = 0 if [one.event for one in events(path)] == [CAP] else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
