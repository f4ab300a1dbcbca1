"""Ledger, node journal, lease and what was there before us: the same on SQLite, MariaDB and PostgreSQL."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import servers
from sqlalchemy import create_engine, text

from slurm_gov.core.health import Effect, Repair
from slurm_gov.daemon.lease import Leases, fence
from slurm_gov.daemon.shared_before import SharedBefore
from slurm_gov.database import DatabaseError, Where, WhereError, locate, shown
from slurm_gov.health import journal as journals
from slurm_gov.health.journal import Journal, JournalError, Operation, Reported
from slurm_gov.health.lifecycle import Order, Record, State, Want
from slurm_gov.ledger import Event, Kind, Ledger, Span, events, note, spans
from slurm_gov.ledger.read import balances
from slurm_gov.ledger.store import MIGRATIONS, Words, forget, open_to_write, write
from slurm_gov.slurm.accounts import Change, What
from slurm_gov.slurm.before import Before

PREEMPT = Event(
    Kind.PREEMPT, "team research holds 24 of 16 h100; job 4711 of product needs 040 nodes", 1000.0, team="research",
    pool="h100", job="24_3", user="ann", gpus=8, for_team="product", for_job="4711",
)  # fmt: skip
CAP = Event(Kind.CAP, at=1001.5, team="research", pool="h100", before="24", after="16")
REFUSE = Event(Kind.REFUSE, "naïve 中文 \U0001f600 '; DROP", at=1002.0, who="bob ", team="product", user="Bob")
NODE = Event(Kind.NODE, "XID 79 on GPU 3", at=1003.0, node="n1", before="healthy", after="suspect")
ALL = [PREEMPT, CAP, REFUSE, NODE]
SPAN = Span("research", "h100", 900.0, 1000.5, 16, 24, 24, 8, 0, 0, 0)


@pytest.fixture(scope="module")
def mariadb() -> Iterator[str]:
    if servers.MARIADB is None:
        pytest.skip("no MariaDB is installed: scripts/setup dev")
    with servers.mariadb() as url:
        yield url


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    if servers.POSTGRESQL is None:
        pytest.skip("no PostgreSQL is installed: scripts/setup dev")
    with servers.postgresql() as url:
        yield url


def emptied(url: str) -> Where:
    where = locate(url)
    assert not isinstance(where, Path)
    engine = create_engine(where)
    with engine.begin() as connection:
        for name in ("words", "events", "spans", "node", "history", "operation", "orders", "report", "lease",
                     "before_us", "slurm_gov_version"):  # fmt: skip
            connection.execute(text(f"DROP TABLE IF EXISTS {name}"))
    engine.dispose()
    return where


@pytest.fixture(params=["mariadb", "postgresql"])
def shared(request: pytest.FixtureRequest) -> Where:
    return emptied(request.getfixturevalue(request.param))


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    if request.param == "sqlite":
        return tmp_path / "one.db"
    return emptied(request.getfixturevalue(request.param))


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "no URL"),
        ("sqlite:////var/lib/x.db", "cannot be shared"),
        ("oracle://u:secret-word@h/d", "oracle: no kind"),
        ("mariadb://u:secret-word@h", "name of the database is missing"),
        ("mariadb://u:secret-word@h:port/d", "no URL"),
    ],
)
def test_a_url_that_will_not_do(url: str, said: str) -> None:
    with pytest.raises(WhereError, match=said) as caught:
        locate(url)
    assert "secret-word" not in str(caught.value)


def test_a_url_is_shown_without_its_password() -> None:
    assert shown(locate("postgres://gov:secret-word@db:5433/gov?sslmode=x")) == "postgresql://gov:***@db:5433/gov"
    assert locate("mysql://h/d").drivername == "mariadb+pymysql"
    assert shown(Path("/var/lib/slurm-gov/ledger.db")) == "/var/lib/slurm-gov/ledger.db"


@pytest.mark.parametrize(
    "url", ["mariadb://gov:secret-word@127.0.0.1:1/gov", "postgresql://gov:secret-word@127.0.0.1:1/g"]
)
def test_one_that_does_not_answer(url: str) -> None:
    with pytest.raises(DatabaseError, match="cannot be opened: ") as caught:
        open_to_write(locate(url))
    assert "secret-word" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_wrong_password(postgresql: str) -> None:
    with pytest.raises(DatabaseError, match="password authentication failed") as caught:
        open_to_write(locate(postgresql.replace("secret-word", "other-word")))
    assert "other-word" not in str(caught.value)


# -- the ledger ----------------------------------------------------------------------------------------------------


def test_what_is_recorded_is_read_again(where: Where) -> None:
    ledger = Ledger(where)
    ledger.start()
    for event in ALL:
        ledger.record(event)
    ledger.record_spans([SPAN])
    ledger.close()
    assert ledger.health.error == "" and ledger.health.written == 4
    assert [one.event for one in events(where)] == ALL
    assert spans(where, 0, 2000) == [SPAN]
    assert list(balances(where, 0, 2000)) == [("research", "h100", 900.0, 1000.5, 8)]
    again = Ledger(where)
    again.start()
    assert list(again.recent) == ALL
    again.close()


def test_what_is_asked_is_found(where: Where) -> None:
    db = open_to_write(where)
    write(db, Words(), ALL, [SPAN])
    db.close()
    found = lambda **asked: [one.event for one in events(where, **asked)]  # noqa: E731
    assert found(team="product") == [PREEMPT, REFUSE]
    assert found(job="24") == found(job="24_3") == found(job="4711") == [PREEMPT]
    assert found(job="2") == found(job="%") == found(team="nobody") == []
    assert found(user="bob ") == [REFUSE] and found(user="bob") == []  # its blank and its case count
    assert found(node="n1") == [NODE] and found(pool="h100") == [PREEMPT, CAP]
    assert found(kinds=(Kind.CAP, Kind.NODE)) == [CAP, NODE]
    assert found(since=1001.5, until=1003.0) == [CAP, REFUSE]
    assert found(limit=2) == ALL[:2] and found(limit=2, newest=True) == ALL[2:]
    last = events(where)[-1].id
    note(where, [CAP])
    assert found(after=last) == [CAP]


def test_a_span_is_only_made_longer(where: Where) -> None:
    db = open_to_write(where)
    for until in (1000.5, 1200.0, 1100.0):
        write(db, Words(), (), [Span("research", "h100", 900.0, until, 16, 24, 24, 8, 0, 0, 0)])
    db.close()
    assert [one.until for one in spans(where, 0, 2000)] == [1200.0]


def test_what_is_too_old_goes(where: Where) -> None:
    db = open_to_write(where)
    write(db, Words(), ALL, [SPAN])
    assert forget(db, 1001.5, chunk=1) == 1
    write(db, Words(), [PREEMPT], ())
    db.close()
    assert [one.event for one in events(where)] == [*ALL[1:], PREEMPT]
    assert spans(where, 0, 2000) == []


def test_a_long_sentence_is_cut_in_a_shared_database_and_kept_in_a_file(where: Where) -> None:
    why = "job 17 is refused: " + "é" * 5000
    db = open_to_write(where)
    write(db, Words(), [Event(Kind.REFUSE, why, at=1.0, before="x" * 5000)], ())
    db.close()
    (one,) = events(where)
    assert one.event.before == "x" * 5000
    assert one.event.why == (why if isinstance(where, Path) else why[:599] + "…")


def test_many_write_at_once_and_ids_only_grow(shared: Where) -> None:
    """A reader that follows by the last id misses nothing, whoever wrote it."""
    seen: list[int] = []
    done = threading.Event()

    def follow() -> None:
        last = 0
        while not done.is_set():
            found = events(shared, after=last)
            seen.extend(one.id for one in found)
            last = seen[-1] if seen else 0
        seen.extend(one.id for one in events(shared, after=last))

    def fill(number: int) -> None:
        db = open_to_write(shared)
        for turn in range(15):
            write(db, Words(), [Event(Kind.CAP, f"writer {number} says word{turn % 5}", at=1.0)] * 3, ())
        db.close()

    open_to_write(shared).close()
    with ThreadPoolExecutor(5) as pool:
        following = pool.submit(follow)
        for one in [pool.submit(fill, number) for number in range(4)]:
            one.result()
        done.set()
        following.result()
    assert len(seen) == len(set(seen)) == 4 * 15 * 3


def test_a_word_that_another_governor_deleted_is_written_again(shared: Where) -> None:
    """Each deletes what is old and the words that only that had."""
    ledger = Ledger(shared)
    ledger.start()
    deadline = time.monotonic() + 60
    for number in (1, 2):
        ledger.record(CAP)
        while ledger.health.written < number and time.monotonic() < deadline:
            time.sleep(0.02)
        if number == 1:
            other = open_to_write(shared)
            assert forget(other, 2000.0) == 1
            other.close()
    ledger.close()
    assert [one.event for one in events(shared)] == [CAP]


def test_a_newer_one_is_refused(shared: Where) -> None:
    with open_to_write(shared).writing() as connection:
        connection.execute(text("UPDATE slurm_gov_version SET version = 99"))
    with pytest.raises(DatabaseError, match=r"newer slurm-gov \(its version is 99"):
        open_to_write(shared)
    with pytest.raises(DatabaseError, match="its version is 99"):
        events(shared)


def test_it_connects_again_after_the_server_was_away() -> None:
    if servers.MARIADB is None:
        pytest.skip("no MariaDB is installed: scripts/setup dev")
    with servers.mariadb() as url:
        ledger = Ledger(locate(url))
        ledger.start()
        ledger.record(CAP)
        deadline = time.monotonic() + 60
        while ledger.health.written < 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ledger.health.written == 1
    ledger.record(NODE)
    while not ledger.health.error and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "cannot be written" in ledger.health.error and ledger.health.pending == 1
    ledger.close()


# -- files of before -----------------------------------------------------------------------------------------------


def test_files_that_are_there_open(tmp_path: Path) -> None:
    """As slurm-gov made them before it knew of shared databases."""
    ledger, nodes = tmp_path / "ledger.db", tmp_path / "nodes.db"
    for path, script in ((ledger, MIGRATIONS[0]), (nodes, journals._SCHEMA)):
        with sqlite3.connect(path) as db:
            db.executescript(script + "PRAGMA user_version = 1;")
    with sqlite3.connect(ledger) as db:
        db.execute("INSERT INTO words VALUES (1, 'research')")
        db.execute("INSERT INTO events (at, kind, team, job) VALUES (1000, 2, 1, 77)")
    note(ledger, [CAP])
    assert [one.event.job for one in events(ledger, job="77")] == ["77"]
    journal = Journal(nodes, create=False)
    journal.keep([Record("n1", "h100", since=1.0)])
    assert list(journal.records()) == ["n1"]
    journal.close()


# -- the journal ---------------------------------------------------------------------------------------------------


def test_the_journal_gives_back_what_it_was_given(where: Where) -> None:
    journal = Journal(where)
    record = Record("n1", "h100", State.REPLACING, 5.0, "xid 79", Effect.FAIL, Repair.REPLACE, "gone")
    told = [journals.Event(5.0, "n1", "replaced", "gone", "draining", "replacing", "xid 79", jobs=("1", "2_3"))]
    for _ in range(2):  # written again it is replaced
        journal.keep([record])
    journal.keep([], told)
    one = Operation("n1.5", "n1", Repair.REPLACE, 1, 5.0, 5.0, "running", "x" * 100_000)
    journal.keep_operation(one)
    id = journal.order("n1", Order(Want.CLEAR, "root", reason="r"), 5.0)
    reported = Reported("n1", 5.0, 6.0, None, "p" * 100_000)
    journal.keep_reports([reported, Reported("n2", 5.0, 6.0, "online", "")])
    journal.close()
    again = Journal(where, create=False)
    assert again.records() == {"n1": record} and again.history("n1", 5.0) == told
    assert again.operations() == {"n1.5": one} and again.operation("n1.5") == one
    assert [(name, order.id) for name, order in again.orders()] == [("n1", id)]
    again.answer(id, "no", 7.0)
    assert again.orders() == [] and again.answered(id) == "no"
    assert again.reports()["n1"] == reported
    again.keep(
        [],
        [journals.Event(8.0, "n1", "fault", "x", fault="d"), journals.Event(8.0, "n1", "fault", "x", injected=True)],
    )
    assert again.fault_counts(1.0) == {"n1": 1}
    again.forget(9.0)
    assert again.history() == [] and again.operations() == {"n1.5": one}
    again.close()


def test_there_is_no_journal_yet(shared: Where) -> None:
    with pytest.raises(JournalError, match="there is no journal in it"):
        Journal(shared, create=False)


# -- the lease -----------------------------------------------------------------------------------------------------


def test_one_has_the_lease(shared: Where) -> None:
    one, two = Leases(shared), Leases(shared)
    assert one.read() is None
    mine = one.take("a", "ctl1", 30)
    assert mine is not None and mine.term == 1 and mine.held
    assert two.take("b", "ctl2", 30) is None
    seen = two.read()
    assert seen is not None and (seen.host, seen.term, seen.held) == ("ctl1", 1, True)
    assert 0 <= seen.age < 29 and 0 < seen.left <= 30
    assert one.renew("a", 1, 30) and not two.renew("b", 1, 30) and not two.renew("a", 2, 30)
    two.release("b", 1)  # not its to give back
    assert two.take("b", "ctl2", 30) is None
    one.release("a", 1)
    theirs = two.take("b", "ctl2", 30)
    assert theirs is not None and theirs.term == 2
    assert not one.renew("a", 1, 30)
    for leases in (one, two):
        leases.close()


def test_a_lease_ends_by_the_database_clock(shared: Where) -> None:
    one = Leases(shared)
    assert one.take("a", "ctl1", 0.2)
    deadline = time.monotonic() + 30
    while (theirs := one.take("b", "ctl2", 30)) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert theirs is not None and theirs.term == 2 and not one.renew("a", 1, 30)
    one.close()


def test_of_many_that_want_it_one_gets_it(shared: Where) -> None:
    Leases(shared).read()
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda n: Leases(shared).take(f"p{n}", "h", 30), range(8)))
    assert [one.term for one in got if one] == [1]


def test_who_lost_the_lease_writes_nothing_into_the_journal(shared: Where) -> None:
    leases = Leases(shared)
    assert leases.take("a", "ctl1", 30)
    journal = Journal(shared, fence=lambda connection: fence(connection, "a", 1))
    journal.keep([Record("n1", "h100", since=1.0)])
    leases.release("a", 1)
    assert leases.take("b", "ctl2", 30)
    with pytest.raises(JournalError, match="another governor leads"):
        journal.keep_operation(Operation("n1.5", "n1", Repair.REPLACE, 1, 5.0, 5.0, "running"))
    assert journal.operations() == {} and list(journal.records()) == ["n1"]
    journal.close()
    leases.close()


# -- what was there before us --------------------------------------------------------------------------------------


def test_what_was_there_before_us_is_known_to_all_controllers(shared: Where, tmp_path: Path) -> None:
    one, two = SharedBefore(shared, tmp_path), SharedBefore(shared, tmp_path)
    one.remember([Change(What.CAP, "research", "none", "16", "gres/gpu")])
    two.remember(
        [Change(What.CAP, "research", "16", "24", "gres/gpu"), Change(What.CAP, "product", "4", "8", "gres/gpu")]
    )
    assert SharedBefore(shared, tmp_path).known == {
        (What.CAP, "research", "gres/gpu"): "none",
        (What.CAP, "product", "gres/gpu"): "4",
    }
    two.forget()
    assert SharedBefore(shared, tmp_path).known == {}


def test_what_a_governor_that_was_alone_kept_is_taken_over(shared: Where, tmp_path: Path) -> None:
    Before(tmp_path).remember([Change(What.CAP, "research", "4", "16", "gres/gpu")])
    SharedBefore(shared, tmp_path)
    other = SharedBefore(shared, tmp_path / "another host")
    other.remember([Change(What.CAP, "research", "16", "24", "gres/gpu")])
    assert other.known == {(What.CAP, "research", "gres/gpu"): "4"}
