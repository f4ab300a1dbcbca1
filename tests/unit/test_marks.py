"""Our notes in an AdminComment."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from slurm_gov.core.marks import (
    REMEMBERED,
    read_behind,
    read_mark,
    read_most_nodes,
    read_preempted,
    read_signal,
    read_unstarted,
    write_behind,
    write_mark,
    write_most_nodes,
    write_signal,
    write_unstarted,
)
from slurm_gov.core.snapshot import Behind, Mark, Preempted, Unstarted

MARK = Mark(4711, "product", 1795445991.0, 1795446021.5, 1795440000.0, "takes back 8 of h100")
TEXT = st.text()
SECONDS = st.integers(1, 4_000_000_000).map(float)
MARKS = st.builds(
    Mark,
    beneficiary=st.integers(1, 2**32),
    team=st.from_regex(r"[a-z0-9][a-z0-9_.-]*", fullmatch=True),
    since=SECONDS,
    deadline=st.integers(1, 40_000_000_000).map(lambda n: n / 10),
    run=SECONDS,
    reason=TEXT,
)


def test_a_note_as_it_is_written() -> None:
    assert write_mark("", MARK) == (
        "[slurm-gov preempt for=4711 team=product since=1795445991 until=1795446021.5 run=1795440000: "
        "takes back 8 of h100]"
    )


def test_a_note_is_read_as_it_was_written() -> None:
    assert read_mark(write_mark("", MARK)) == MARK


def test_no_note() -> None:
    for comment in ("", "(null)", "[slurm-gov]", "[slurm-gov preempt for=x team=t since=1 until=2 run=3: r]"):
        assert read_mark(comment) is None
        assert read_signal(comment) == ""


def test_a_second_note_replaces_the_first() -> None:
    twice = write_mark(write_mark("before", Mark(1, "other", 1.0, 2.0, 3.0, "old")), MARK)
    assert twice == write_mark("before [slurm-gov preempted=1:1]", MARK)


def test_a_note_of_an_earlier_version_is_read() -> None:
    assert read_preempted("[slurm-gov preempted=250,150]", 1.0) == (Preempted(250), Preempted(150))


def times(comment: str, run: float) -> list[float]:
    return [one.at for one in read_preempted(comment, run)]


def test_earlier_preemptions_are_remembered_the_last_one_first() -> None:
    comment = "before"
    for run in (100, 200, 300):
        assert read_preempted(comment, run) == tuple(Preempted(at, 1) for at in (250, 150) if at < run)
        comment = write_mark(comment, Mark(1, "other", run + 50, run + 60, run, "old"))
    assert times(comment, 300) == [250, 150]  # the mark is this run's: it has not left yet
    assert times(comment, 400) == [350, 250, 150]
    spared = write_mark(comment, None)
    assert times(spared, 300) == [250, 150]
    assert write_mark(spared, Mark(1, "other", 370, 380, 300)).startswith("before [slurm-gov preempted=250:1,150:1] ")


def test_no_more_are_remembered_than_a_note_has_room_for() -> None:
    comment = ""
    for run in range(100):
        comment = write_mark(comment, Mark(1, "other", 1000.0 + run, 2000.0, float(run)))
    assert len(read_preempted(comment, 99.0)) == REMEMBERED
    assert read_preempted(comment, 99.0)[0] == (1098.0, 1)


def test_behind_whom_it_waits_is_noted_once_and_taken_away() -> None:
    noted = write_behind("see ticket 12", Behind(4711, 1795446081.4))
    assert noted == "see ticket 12 [slurm-gov behind=4711 until=1795446081]"
    assert read_behind(noted) == Behind(4711, 1795446081)
    again = write_behind(noted, Behind(12, 99))
    assert (read_behind(again), again.count("behind=")) == (Behind(12, 99), 1)
    assert write_behind(again, None) == "see ticket 12"
    assert read_behind("see ticket 12 [slurm-gov behind=x until=1]") is None


def test_a_run_that_was_spared_did_not_leave() -> None:
    earlier = write_mark("[slurm-gov preempted=150:1]", replace(MARK, run=300.0, since=350.0, spared=True))
    assert read_preempted(earlier, 300.0) == (Preempted(150.0, 1),)
    assert read_preempted(earlier, 500.0) == (Preempted(150.0, 1),)
    later = write_mark(earlier, replace(MARK, run=500.0, since=550.0))
    assert read_preempted(later, 600.0) == (Preempted(550.0, 4711), Preempted(150.0, 1))


def test_that_it_was_spared_is_noted() -> None:
    spared = replace(MARK, spared=True)
    noted = write_mark("", spared)
    assert " run=1795440000 spared: takes back" in noted
    assert read_mark(noted) == spared
    assert read_preempted(write_mark(noted, replace(MARK, beneficiary=12)), MARK.run) == ()


def test_a_run_that_was_spared_is_no_preemption() -> None:
    noted = write_mark(write_mark("", Mark(1, "other", 150, 160, 100)), Mark(2, "other", 250, 260, 200, spared=True))
    assert read_preempted(noted, 300) == (Preempted(150, 1),)
    again = write_mark(noted, Mark(3, "other", 350, 360, 300))
    assert read_preempted(again, 400) == (Preempted(350, 3), Preempted(150, 1))


def test_one_that_left_although_it_was_spared_is_one() -> None:
    noted = write_mark("", Mark(2, "other", 250, 260, 200, spared=True))
    mark = read_mark(noted)
    assert mark is not None
    assert read_preempted(write_mark(noted, replace(mark, spared=False)), 300) == (Preempted(250, 2),)


def test_until_when_it_was_made_to_wait_is_noted() -> None:
    mark = Mark(4711, "product", 1795445991.0, 1795446021.5, 1795440000.0, "why", held=1795446100.0)
    assert " run=1795440000 held=1795446100: why]" in write_mark("", mark)
    assert read_mark(write_mark("", mark)) == mark


def test_what_an_administrator_wrote_stays() -> None:
    assert write_mark("see ticket 12", MARK) == f"see ticket 12 {write_mark('', MARK)}"
    between = f"see {write_mark('', MARK)} ticket 12"
    assert write_mark(between, None) == "see ticket 12"
    assert read_mark(between) == MARK


def test_the_two_notes_do_not_touch_each_other() -> None:
    both = write_mark(write_signal("text", "B:USR1"), MARK)
    assert (read_signal(both), read_mark(both)) == ("B:USR1", MARK)
    assert read_signal(write_signal(both, "TERM")) == "TERM"
    assert read_mark(write_signal(both, "TERM")) == MARK
    assert write_mark(both, None) == write_signal("text", "B:USR1")
    assert write_signal("", "RTMIN+3") == "[slurm-gov signal=RTMIN+3]"


@given(MARKS, TEXT)
def test_any_note_beside_any_comment_is_read_again(mark: Mark, comment: str) -> None:
    written = write_mark(comment, mark)
    read = read_mark(written)
    assert read is not None
    assert (read.beneficiary, read.team, read.since, read.deadline, read.run) == (
        mark.beneficiary,
        mark.team,
        mark.since,
        mark.deadline,
        mark.run,
    )
    assert write_mark(written, None) == comment.strip()


@given(TEXT)
def test_a_reason_stays_one_printable_line_without_brackets(reason: str) -> None:
    read = read_mark(write_mark("", Mark(1, "t", 1.0, 2.0, 3.0, reason)))
    assert read is not None
    assert read.reason.isprintable()
    assert not set("[]\n") & set(read.reason)
    assert write_mark("", read) == write_mark("", Mark(1, "t", 1.0, 2.0, 3.0, reason))


def test_the_lines_of_a_reason_become_one() -> None:
    read = read_mark(write_mark("", Mark(1, "t", 1.0, 2.0, 3.0, "two\n  lines ")))
    assert read is not None
    assert read.reason == "two lines"


@given(st.from_regex(r"(B:)?[A-Z0-9+]+", fullmatch=True), TEXT)
def test_any_signal_beside_any_comment_is_read_again(signal: str, comment: str) -> None:
    written = write_signal(comment, signal)
    assert read_signal(written) == signal
    assert write_signal(written, signal) == written


def test_that_slurm_does_not_start_it_is_noted_beside_the_rest() -> None:
    note = Unstarted(1795446021.0, 1795446621.0, "5d41402a", "Resources")
    said = write_unstarted(write_signal("text", "B:USR1"), note)
    assert said == (
        "text [slurm-gov signal=B:USR1] "
        "[slurm-gov unstarted since=1795446021 until=1795446621 asked=5d41402a reason=Resources]"
    )
    assert (read_unstarted(said), read_unstarted("text")) == (note, None)
    again = replace(note, until=1795447221.0)
    assert read_unstarted(write_unstarted(said, again)) == again
    assert write_unstarted(said, again).count("unstarted") == 1


def test_how_many_nodes_it_may_have_is_noted_beside_the_rest() -> None:
    both = write_most_nodes(write_signal("text", "B:USR1"), 1, 1)
    assert both == "text [slurm-gov signal=B:USR1] [slurm-gov nodes=1]"
    assert (read_most_nodes(both), read_signal(both), read_most_nodes("text")) == ((1, 1), "B:USR1", (0, 0))
    assert write_most_nodes(both, 2, 4) == "text [slurm-gov signal=B:USR1] [slurm-gov nodes=2-4]"
    assert read_most_nodes(write_mark(write_most_nodes(both, 2, 4), MARK)) == (2, 4)
