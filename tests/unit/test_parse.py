"""Slurm's text to numbers and names: what Slurm really prints, and any text at all."""

from __future__ import annotations

import contextlib
from itertools import combinations

import hostlist
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from slurm_gov.slurm import parse

# No surrogates but those that stand for bytes that are no UTF-8, as Slurm's output is decoded.
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\udc80\udcff\n|@,"))


# -- tables --------------------------------------------------------------------------------------------

WORD = "@0123456789abcdef@"


def printed(rows: list[list[str]], word: str = WORD) -> str:
    """What squeue -O prints: every field with the word after it, every row with a line break."""
    return "".join("".join(value + word for value in row) + "\n" for row in rows)


def test_a_table_has_a_row_for_each_line() -> None:
    text = printed([["7", "RUNNING", "n[1-2]"], ["8", "PENDING", ""]])
    assert parse.table(text, ("id", "state", "nodes"), WORD) == [
        {"id": "7", "state": "RUNNING", "nodes": "n[1-2]"},
        {"id": "8", "state": "PENDING", "nodes": ""},
    ]
    assert parse.table("", ("id",), WORD) == []


@given(st.lists(st.tuples(st.integers(1), ANY_TEXT, ANY_TEXT)))
@example([(1, "\n", "\n7@"), (2, "a\nb", "")])
def test_values_may_be_anything_even_line_breaks(rows: list[tuple[int, str, str]]) -> None:
    """Only the random word is not in them; the first field is a number, as in all our tables."""
    wanted = [{"id": str(id), "name": name, "comment": comment} for id, name, comment in rows]
    text = printed([list(row.values()) for row in wanted])
    assert parse.table(text, ("id", "name", "comment"), WORD) == wanted


@pytest.mark.parametrize("text", [f"1{WORD}2{WORD}3{WORD}\n", "slurm_load_jobs error: x\n", f"1{WORD}2{WORD}\nrest"])
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not rows of 2"):
        parse.table(text, ("a", "b"), WORD)


# -- TRES and GRES -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cpu=2,mem=8000M,node=2,gres/gpu=16", {"cpu": 2, "mem": 8000, "node": 2, "gres/gpu": 16}),
        ("cpu=64,mem=250G", {"cpu": 64, "mem": 256_000}),
        ("mem=1.50T", {"mem": 1_572_864}),
        ("mem=2048K", {"mem": 2}),
        ("mem=4000", {"mem": 4000}),
        ("gres/gpu:H100=4", {"gres/gpu:h100": 4}),
        ("gres/gpu:h100=0", {"gres/gpu:h100": 0}),
        ("", {}),
        ("N/A", {}),
        ("(null)", {}),
    ],
)
def test_tres(text: str, expected: dict[str, float]) -> None:
    assert parse.tres(text) == expected


@pytest.mark.parametrize("text", ["gres/gpu=N", "cpu=-1", "mem=1X", "cpu=1=2", "cpu=1.2.3", "cpu=٣"])
def test_an_amount_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no amount"):
        parse.tres(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpu:h100:8(S:0-1)", {"gres/gpu:h100": 8}),
        ("gpu:h100:8(S:0,2),gpu:a100:4(S:1)", {"gres/gpu:h100": 8, "gres/gpu:a100": 4}),
        ("gpu:8", {"gres/gpu": 8}),
        ("gpu", {"gres/gpu": 1}),
        ("gpu:h100", {"gres/gpu:h100": 1}),
        ("gres:gpu:h100:2", {"gres/gpu:h100": 2}),
        ("gres:gpu:2", {"gres/gpu": 2}),
        ("gres/gpu:h100=2", {"gres/gpu:h100": 2}),
        ("gpu:h100:4(IDX:0-1,5,7)", {"gres/gpu:h100": 4}),
        ("gpu:nvidia_a100-sxm4-40gb:8", {"gres/gpu:nvidia_a100-sxm4-40gb": 8}),
        ("gpu:1g.10gb:7", {"gres/gpu:1g.10gb": 7}),
        ("gpu:H100:8", {"gres/gpu:H100": 8}),
        ("gpu:h100:4,gpu:h100:4", {"gres/gpu:h100": 8}),
        ("mps:1K,shard:32", {"gres/mps": 1024, "gres/shard": 32}),
        ("(null)", {}),
        ("N/A", {}),
        ("", {}),
    ],
)
def test_gres(text: str, expected: dict[str, int]) -> None:
    assert parse.gres(text) == expected


def test_gpus_are_counted_as_tres_and_nothing_else_is() -> None:
    assert parse.gpus("gpu:H100:8(S:0-1),shard:32,mps:100") == {"gres/gpu:h100": 8}
    assert parse.gpu_count("gres:gpu:h100:3,gres:gpu:a100:1") == 4
    assert parse.gpu_count("N/A") == 0
    assert not parse.is_gpu("gres/gpumem")


def test_gpus_of_a_job_are_typed_where_slurm_names_a_type() -> None:
    assert parse.gpus_of(parse.tres("cpu=1,gres/gpu=2,gres/gpu:h100=2")) == {"gres/gpu:h100": 2}
    assert parse.gpus_of(parse.tres("cpu=1,gres/gpu=2")) == {"gres/gpu": 2}
    assert parse.gpus_of(parse.tres("cpu=1,gres/gpu=0,gres/gpumem=80G,gres/gpuutil=3")) == {}


# -- nodes and tasks -----------------------------------------------------------------------------------


def test_nodes() -> None:
    assert parse.nodes("n[1-3,7]") == ("n1", "n2", "n3", "n7")
    assert parse.nodes("n[08-10]") == ("n08", "n09", "n10")
    assert parse.nodes("h100-1,rack[1-2]n[1-2]") == ("h100-1", "rack1n1", "rack1n2", "rack2n1", "rack2n2")
    for nothing in ("", "(null)", "None"):
        assert parse.nodes(nothing) == ()


@given(st.sets(st.tuples(st.sampled_from(["n", "gpu-", "r1n"]), st.integers(0, 300)), min_size=1))
def test_a_list_of_nodes_read_and_written_is_the_same_nodes(nodes: set[tuple[str, int]]) -> None:
    names = {f"{prefix}{number}" for prefix, number in nodes}
    assert set(parse.nodes(",".join(names))) == names
    assert set(parse.nodes(hostlist.collect_hostlist(names))) == names


@pytest.mark.parametrize("text", ["n[1-", "n]1", "n[3-1]", "n[1-9999999999]"])
def test_what_is_no_list_of_nodes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no list of nodes"):
        parse.nodes(text)


@pytest.mark.parametrize(
    ("text", "tasks", "limit"),
    [
        ("N/A", 1, None),
        ("7", 1, None),
        ("4-20%3", 17, 3),
        ("8-40:4%2", 9, 2),
        ("1,3,5-7", 5, None),
        ("0-9:3", 4, None),
        ("1-5%0", 5, None),
        ("nonsense", 1, None),
    ],
)
def test_tasks_of_an_array(text: str, tasks: int, limit: int | None) -> None:
    assert parse.tasks(text) == tasks
    assert parse.task_limit(text) == limit


PARTS = st.one_of(
    st.integers(0, 500).map(lambda n: range(n, n + 1)),
    st.builds(
        lambda first, more, step: range(first, first + more + 1, step),
        st.integers(0, 500),
        st.integers(0, 500),
        st.integers(1, 9),
    ),
)


def as_slurm_writes(part: range) -> str:
    if len(part) == 1:
        return str(part[0])
    return f"{part[0]}-{part[-1]}" + (f":{part.step}" if part.step > 1 else "")


@given(st.lists(PARTS, min_size=1, max_size=20), st.none() | st.integers(1, 99))
def test_tasks_are_counted_as_they_are_listed(parts: list[range], limit: int | None) -> None:
    text = ",".join(map(as_slurm_writes, parts)) + (f"%{limit}" if limit else "")
    assert parse.tasks(text) == sum(map(len, parts))
    assert parse.task_limit(text) == limit


# -- times ---------------------------------------------------------------------------------------------


def test_times() -> None:
    assert parse.time("1795448551") == 1795448551
    for nothing in ("N/A", "0", "", "Unknown", "²"):
        assert parse.time(nothing) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30:00", 1800),
        ("1:00", 60),
        ("2:00:00", 7200),
        ("1-02:04:00", 93_840),
        ("UNLIMITED", None),
        ("INVALID", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert parse.duration(text) == seconds


@given(st.integers(0, 400 * 86_400))
def test_durations_as_slurm_writes_them(seconds: int) -> None:
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    text = f"{minute:02}:{second:02}"
    if days:
        text = f"{days}-{hour:02}:{text}"
    elif hour:
        text = f"{hour}:{text}"
    assert parse.duration(text) == seconds


def test_features() -> None:
    assert parse.features("(null)") == (set(), set())
    assert parse.features("ib") == ({"ib"}, set())
    assert parse.features("ib&nvme") == ({"ib", "nvme"}, set())
    for more in ("[a|b]", "ib*4", "!ib", "a|", "&a", "(a", "a)", "()", "a(b)", "(" * 2000, "&".join("ab" * 40)):
        assert parse.features(more) is None, more


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        ("a|b", {"a", "b"}),
        ("(a&b)|c", {"ab", "c"}),
        ("a&b|c", {"ab", "c"}),
        ("a|b&c", {"ac", "bc"}),  # from left to right
        ("a|(b&c)", {"a", "bc"}),
        ("a&(b|c)", {"ab", "ac"}),
        ("(a|b)&(c|d)", {"ac", "ad", "bc", "bd"}),
        ("a|(a&b)", {"a", "ab"}),
    ],
)
def test_features_of_which_some_will_do(text: str, ways: set[str]) -> None:
    needed, any_of = parse.features(text)
    for has in powerset("abcd"):
        meets = needed <= has and (not any_of or any(one <= has for one in any_of))
        assert meets == any(set(way) <= has for way in ways), has


def powerset(names: str) -> list[set[str]]:
    return [set(some) for count in range(len(names) + 1) for some in combinations(names, count)]


@given(ANY_TEXT)
def test_text_that_means_nothing_never_breaks_the_reading(text: str) -> None:
    """A name, a comment or a word of a later Slurm: read as nothing, or refused with ValueError."""
    parse.gres(text)
    parse.gpu_count(text)
    parse.tasks(text)
    parse.task_limit(text)
    parse.time(text)
    parse.duration(text)
    parse.features(text)
    for read in (parse.tres, parse.nodes):
        with contextlib.suppress(ValueError):
            read(text)
