"""Every mistake in a policy file: where it is, what is wrong, what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_gov.policy import PolicyError, dumps, load, loads

RIGHT = """\
pools:
  h100: {partition: gpu, gres: "gpu:h100"}
priority_classes: {training: 50}
teams:
  research:
    quota: {h100: 64}
    lend: all
    borrow: 50%
cohorts: {lab: {}}
"""


def refused(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        loads(text, "p")
    return [str(problem) for problem in caught.value.problems]


def with_line(number: int, line: str) -> str:
    """The right file with one line replaced."""
    lines = RIGHT.splitlines()
    lines[number - 1] = line
    return "\n".join(lines) + "\n"


def test_the_file_without_mistakes_is_right() -> None:
    assert loads(RIGHT)


LIMIT = "a percentage of the quota such as 50%, or a number such as 16"
DURATION = "write a duration such as 30s, 5m, 2h or 1d"
NAMES = "use lower-case letters, digits, _ - . (not - or . first)"
SINGLE = [
    # names that are not known
    (7, "    lent: all", 'p:7:5: teams.research.lent: there is no such setting; did you mean "lend"?'),
    (7, "    zzz: 1", "p:7:5: teams.research.zzz: there is no such setting; known settings: borrow, "
        "borrow_preempts, cohort, fair_share_weight, lend, min_runtime, preempt_within_team, quota, reclaim"),
    (9, "cohort: {lab: {}}", 'p:9:1: cohort: there is no such setting; did you mean "cohorts"?'),
    (9, "preemption: {signals: USR1}",
        'p:9:14: preemption.signals: there is no such setting; did you mean "signal"?'),
    (6, "    quota: {h10: 64}", 'p:6:13: teams.research.quota.h10: is no pool of this file; did you mean "h100"?'),
    (6, "    quota: {gpu: 64}", "p:6:13: teams.research.quota.gpu: is no pool of this file; known pools: h100"),
    (7, "    lend: {b200: 3}", "p:7:12: teams.research.lend.b200: is no pool of this file; known pools: h100"),
    (7, "    cohort: lap", 'p:7:13: teams.research.cohort: there is no cohort "lap"; did you mean "lab"?'),
    (9, "cohorts: {lab: {parent: labs}}",
        'p:9:25: cohorts.lab.parent: there is no cohort "labs"; did you mean "lab"?'),
    # what keeps a job from being preempted
    (9, "preemption: {classes: {trainin: {protected: true}}}", "p:9:24: preemption.classes.trainin: is no priority "
        'class of this file; did you mean "training"?'),
    (9, "preemption: {classes: {training: {protect: true}}}",
        'p:9:35: preemption.classes.training.protect: there is no such setting; did you mean "protected"?'),
    (9, "preemption: {max_preemptions: {count: 0, per: 1d}}", "p:9:39: preemption.max_preemptions.count: 0 would be "
        "never; write 1 to 20, or protect classes: classes: {NAME: {protected: true}}"),
    (9, "preemption: {max_preemptions: {count: 2}}", "p:9:14: preemption.max_preemptions.per: is missing; "
        "write a duration such as 24h"),
    (9, "preemption: {max_preemptions: 2}", "p:9:31: preemption.max_preemptions: is the number 2 where a mapping is "
        "wanted; write max_preemptions: {count: 2, per: 24h}"),
    (9, "preemption: {checkpoint_file: ck/%j}", 'p:9:31: preemption.checkpoint_file: "ck/%j" is no absolute path; '
        "write an absolute path such as /scratch/%u/%j/checkpoint"),
    (9, "preemption: {checkpoint_file: /ck/%u}", 'p:9:31: preemption.checkpoint_file: "/ck/%u" is the same file '
        "for all jobs of a user; name the job in it: %j"),
    (9, "preemption: {checkpoint_file: /ck/%x/%j}", "p:9:31: preemption.checkpoint_file: %x is not known here; "
        "known: %j (job id), %A (array), %a (task), %u (user), %%"),
    (9, "sharing: {half_life: 0}", "p:9:22: sharing.half_life: 0 would forget at once; "
        "write a duration such as 7d, or leave it out"),
    # quotas
    (6, "    quota: {h100: -1}",
        "p:6:19: teams.research.quota.h100: -1 is negative; write a number of accelerators from 0 to 1000000000"),
    (6, "    quota: {h100: 1000000001}", "p:6:19: teams.research.quota.h100: 1000000001 is too large; "
        "write a number of accelerators from 0 to 1000000000"),
    (6, "    quota: {h100: '64'}",
        'p:6:19: teams.research.quota.h100: is the text "64"; write the number without quotes'),
    (6, "    quota: {h100: 50%}", 'p:6:19: teams.research.quota.h100: is the text "50%"; '
        "write a number of accelerators from 0 to 1000000000, such as 8"),
    (6, "    quota: {h100: true}", "p:6:19: teams.research.quota.h100: is true; "
        "write a number of accelerators from 0 to 1000000000, such as 8"),
    (6, "    quota: {h100: 1.5}", "p:6:19: teams.research.quota.h100: is the number 1.5; "
        "write a number of accelerators from 0 to 1000000000, such as 8"),
    (6, "    quota: {h100: }", "p:6:13: teams.research.quota.h100: is empty; "
        "write a number of accelerators from 0 to 1000000000, such as 8"),
    (6, "    quota: {}", "p:6:12: teams.research.quota: names nothing; "
        "write quota: {POOL: NUMBER}, such as quota: {h100: 64}"),
    (6, "    quota: 64", "p:6:12: teams.research.quota: is the number 64 where a mapping is wanted; "
        "write quota: {POOL: NUMBER}, such as quota: {h100: 64}"),
    (6, "    quota:", "p:6:5: teams.research.quota: is empty where a mapping is wanted; "
        "write quota: {POOL: NUMBER}, such as quota: {h100: 64}"),
    (6, "", "p:5:3: teams.research.quota: is missing; write quota: {POOL: NUMBER}, such as quota: {h100: 64}"),
    # lend and borrow
    (7, "    lend: 0%", "p:7:11: teams.research.lend: 0% is out of range; 1% to 100%, or none"),
    (7, "    lend: 101%", "p:7:11: teams.research.lend: 101% is out of range; 1% to 100%, or all"),
    (7, "    lend: unlimited", 'p:7:11: teams.research.lend: "unlimited" is not known here; did you mean all?'),
    (7, "    lend: '16'", 'p:7:11: teams.research.lend: is the text "16"; write the number without quotes, or 16%'),
    (7, "    lend: -3", f"p:7:11: teams.research.lend: -3 is negative; write all, none, {LIMIT}"),
    (7, "    lend: 0.5", "p:7:11: teams.research.lend: is the number 0.5; "
        "write a whole number, or a percentage such as 50%"),
    (7, "    lend: [all]", f"p:7:11: teams.research.lend: is a list; write all, none, {LIMIT}"),
    (7, "    lend: yes", f'p:7:11: teams.research.lend: is the text "yes"; write all, none, {LIMIT}'),
    (7, "    lend: {h100: 200%}", "p:7:18: teams.research.lend.h100: 200% is out of range; 1% to 100%, or all"),
    (8, "    borrow: 501%", "p:8:13: teams.research.borrow: 501% is out of range; 1% to 500%, or unlimited"),
    (8, "    borrow: all", 'p:8:13: teams.research.borrow: "all" is not known here; did you mean unlimited?'),
    (8, "    borrow: None", 'p:8:13: teams.research.borrow: "None" is not known here; did you mean none?'),
    (8, "    borrow:", f"p:8:5: teams.research.borrow: is empty; write unlimited, none, {LIMIT}"),
    (8, "    borrow: 9999999999",
        "p:8:13: teams.research.borrow: 9999999999 is more than any cluster has; write unlimited"),
    # words
    (7, "    reclaim: all", 'p:7:14: teams.research.reclaim: is "all"; write any, lower_priority or never'),
    (7, "    reclaim: lower-priority",
        'p:7:14: teams.research.reclaim: "lower-priority" is not known here; did you mean "lower_priority"?'),
    (7, "    preempt_within_team: false", "p:7:26: teams.research.preempt_within_team: is false; "
        "write lower_priority, never or lower_or_newer_equal_priority"),
    (7, "    fair_share_weight: 101",
        "p:7:24: teams.research.fair_share_weight: 101 is too large; write a weight from 0 to 100"),
    (7, "    cohort: 3", "p:7:13: teams.research.cohort: is the number 3 where a name is wanted; put it in quotes"),
    (9, "sharing: {idle: fairshare}",
        'p:9:17: sharing.idle: "fairshare" is not known here; did you mean "fair_share"?'),
    (9, "sharing: {lend_unallocated: yes}",
        'p:9:29: sharing.lend_unallocated: is the text "yes"; write true or false'),
    # durations and signals
    (9, "preemption: {grace: 30sec}", f'p:9:21: preemption.grace: is the text "30sec"; {DURATION}'),
    (9, "preemption: {grace: -1}", f"p:9:21: preemption.grace: -1 is negative; {DURATION}"),
    (9, "preemption: {grace: 400d}", f"p:9:21: preemption.grace: is longer than a year; {DURATION}"),
    (9, "preemption: {grace: 1e999}", f"p:9:21: preemption.grace: is longer than a year; {DURATION}"),
    (9, "preemption: {min_runtime: none}", f'p:9:27: preemption.min_runtime: is the text "none"; {DURATION}'),
    (9, "preemption: {requeue_delay: false}", f"p:9:29: preemption.requeue_delay: is false; {DURATION}"),
    (9, "preemption: {signal: USR3}",
        'p:9:22: preemption.signal: Slurm knows no signal "USR3"; did you mean USR2?'),
    (9, "preemption: {signal: R:USR1}", 'p:9:22: preemption.signal: "R:USR1": only B: may stand before the signal; '
        "write a name such as USR1, or B:USR1 for the batch script only"),
    (9, "preemption: {signal: USR1@60}", 'p:9:22: preemption.signal: "USR1@60": no @time here; '
        "the time is preemption.grace; write the signal alone"),
    (9, "preemption: {signal: 99}", "p:9:22: preemption.signal: there is no signal 99; "
        "write a name such as USR1, or B:USR1 for the batch script only"),
    (9, "preemption: [grace]", "p:9:13: preemption: is a list where a mapping is wanted; "
        "write preemption: {grace: 30s}"),
    # pools
    (2, "  h100: {partition: gpu, gres: gpu}", 'p:2:32: pools.h100.gres: "gpu" has no type, and a pool is '
        'counted and capped by its type; write "gpu:TYPE" with the Type= of gres.conf, such as "gpu:h100"'),
    (2, "  h100: {partition: gpu, gres: 'gpu:8'}", 'p:2:32: pools.h100.gres: "gpu:8" is a count of gpu, not a type, '
        "and a pool is counted and capped by its type; "
        'write "gpu:TYPE" with the Type= of gres.conf, such as "gpu:h100"'),
    (2, "  h100: {partition: gpu, gres: 'gpu:h100:8'}",
        'p:2:32: pools.h100.gres: "gpu:h100:8" has a count; leave it out: "gpu:h100"'),
    (2, "  h100: {partition: gpu, gres: gres/gpu:h100}",
        'p:2:32: pools.h100.gres: "gres/gpu:h100" is a TRES; leave out gres/: "gpu:h100"'),
    (2, "  h100: {partition: gpu, gres: 'gpu:h 1'}", 'p:2:32: pools.h100.gres: "gpu:h 1" is no typed GRES; '
        'write name:type as in gres.conf, such as "gpu:h100"'),
    (2, "  h100: {partition: gpu}", 'p:2:3: pools.h100.gres: is missing; write gres: "gpu:h100"'),
    (2, "  h100: {gres: 'gpu:h100'}", "p:2:3: pools.h100.partition: is missing; write partition: gpu"),
    (2, "  h100: {partition: [], gres: 'gpu:h100'}", "p:2:21: pools.h100.partition: is an empty list; "
        "write a partition's name, or a list such as [gpu, gpu-long]"),
    (2, "  h100: {partition: 'a,b', gres: 'gpu:h100'}",
        'p:2:21: pools.h100.partition: "a,b" is no partition name; write a list: [a, b]'),
    (2, "  h100: {partition: [a, a], gres: 'gpu:h100'}",
        'p:2:21: pools.h100.partition: "a" is in the list twice; keep one of them'),
    (2, "  h100: {partition: 7, gres: 'gpu:h100'}",
        'p:2:21: pools.h100.partition: is the number 7; put the name in quotes: "7"'),
    (2, "  h100: gpu", 'p:2:9: pools.h100: is the text "gpu" where a mapping is wanted; '
        'write NAME: {partition: gpu, gres: "gpu:h100"}'),
    # names
    (3, "priority_classes: {High: 1}", "p:3:20: priority_classes.High: a priority class is a Slurm QOS, and Slurm "
        "writes QOS names in lower case; write high"),
    (3, "priority_classes: {'a b': 1}",
        f'p:3:20: priority_classes."a b": is no name for a priority class; {NAMES}, such as a-b'),
    (3, "priority_classes: {training: 200}",
        "p:3:30: priority_classes.training: 200 is too large; write a weight from 0 to 100"),
    (3, "priority_classes: [training]", "p:3:19: priority_classes: is a list where a mapping is wanted; "
        "write priority_classes: {training: 50}"),
    (9, "cohorts: {'a/b': {}}",
        'p:9:11: cohorts."a/b": is no name for a cohort; use letters, digits, _ - . (at most 100)'),
    (9, "cohorts: {lab: {parent: lab}}",
        "p:9:25: cohorts.lab.parent: is its own parent; one of them must have no parent"),
    (9, "cohorts: {a: {parent: b}, b: {parent: c}, c: {parent: a}}",
        "p:9:23: cohorts.a.parent: parents go in a circle: a → b → c → a; one of them must have no parent"),
    # the text itself
    (7, "    borrow: none", "p:8:5: teams.research.borrow: is given twice, first in line 7; keep one"),
    (7, "\tlend: all", "p:7:1: a tab, which YAML does not allow as indentation; use spaces"),
    (7, "    lend: @all", "p:7:11: not valid YAML: found character '@' that cannot start any token; "
        "put the value in quotes"),
    (7, "   lend: all", "p:7:4: not valid YAML: expected <block end>, but found '<block mapping start>'; "
        "indent it like the lines above it"),
    (7, "    lend: a: b", "p:7:12: not valid YAML: mapping values are not allowed here; "
        "check the indentation, and put a value with a colon in quotes"),
    (7, "    lend: *other", "p:7:11: *other refers to no anchor above; write &other there"),
    (7, "    lend: &x [*x]", "p:7:15: *x contains itself"),
    (7, "    lend: !!python/object:os.system x",
        'p:7:11: the tag "tag:yaml.org,2002:python/object:os.system" has no meaning here; remove it'),
    (7, "    ? [lend]\n    : all", 'p:7:7: a name is wanted before the colon; write "name: value"'),
    (7, "    lend: al\x07l", "p:7:13: the character U+0007 is not allowed in YAML; remove it"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "line", "expected"), SINGLE, ids=[line.strip() or "-" for _, line, _ in SINGLE])
def test_one_mistake(number: int, line: str, expected: str) -> None:
    assert expected in refused(with_line(number, line))


TEAM = [
    ("Research", "a team is a Slurm account, and Slurm writes account names in lower case; write research"),
    ("root", "is Slurm's account above all others and cannot be a team; name the accounts below it"),
    ("my team", f"is no name for a team; {NAMES}, such as my-team"),
    ("-x", f"is no name for a team; {NAMES}, such as x"),
    ("a" * 101, "team name has 101 characters; at most 100"),
    ("größe", f"is no name for a team; {NAMES}, such as gr-e"),
]


@pytest.mark.parametrize(("name", "expected"), TEAM)
def test_team_names(name: str, expected: str) -> None:
    problems = refused(with_line(5, f"  {name}:"))
    assert len(problems) == 1
    assert problems[0].startswith("p:5:3: teams.")
    assert problems[0].endswith(f": {expected}")


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    text = with_line(2, "  h100: {partition: gpu, gres: gpu}")
    text = text.replace("h100: 64", "h10: 64").replace("50%", "half").replace("{lab: {}}", "{lab: {parent: x}}")
    assert [problem.split(": ")[0] for problem in refused(text)] == ["p:2:32", "p:6:13", "p:8:13", "p:9:25"]


def test_two_pools_of_one_gres() -> None:
    text = RIGHT.replace("priority_classes", '  other: {partition: long, gres: "gpu:H100"}\npriority_classes')
    assert refused(text) == [
        'p:3:34: pools.other.gres: "gpu:H100" is pool h100\'s already, and Slurm holds one cap per account for it; '
        "make them one pool with a list of partitions, or give the nodes another type in gres.conf"
    ]


def test_a_limit_for_a_pool_that_is_closed_to_the_team() -> None:
    text = RIGHT.replace("priority_classes", '  a100: {partition: a, gres: "gpu:a100"}\npriority_classes')
    assert refused(text.replace("lend: all", "lend: {a100: 3}")) == [
        "p:8:12: teams.research.lend.a100: is a pool that the team's quota does not name, so it is closed to the "
        "team; add a100: 0 to its quota, or remove this"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 'p: is empty; a policy has at least "pools" and "teams"'),
        ("# nothing yet\n", 'p: is empty; a policy has at least "pools" and "teams"'),
        ("---\n", 'p: is empty; a policy has at least "pools" and "teams"'),
        ("pools", 'p:1:1: is the text "pools", not a mapping; start with "pools:"'),
        ("- pools", 'p:1:1: is a list, not a mapping; start with "pools:"'),
        ("a: 1\n---\nb: 2\n", 'p:2:1: a second document starts here; remove the "---" before it'),
        ("[" * 1000, "p:1:22: is nested more than 20 levels deep"),
        ("a: " + "x" * 5_000_000, "p: is larger than 4 MiB; a policy is far smaller"),
        (
            "pools: {}\nteams:\n",
            'p:1:8: pools: names nothing; write pools: {h100: {partition: gpu, gres: "gpu:h100"}}',
        ),
        (
            "pools: {}\nteams:\n",
            "p:2:1: teams: is empty where a mapping is wanted; write teams: {research: {quota: {h100: 64}}}",
        ),
        ("pools: {}\n", "p:1:1: teams: is missing; write teams: {research: {quota: {h100: 64}}}"),
    ],
    ids=range(11),
)
def test_the_whole_file(text: str, expected: str) -> None:
    assert expected in refused(text)


def test_an_alias_bomb_ends_at_once() -> None:
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert refused("\n".join(lines))[0].endswith("holds more than 200000 values; a policy is far smaller")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"pools:\n  h\xff100: 1\n", ":2:4: the byte 0xff is not UTF-8; save the file as UTF-8"),
        (None, ": cannot be read: No such file or directory"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: bytes | None, expected: str) -> None:
    file = tmp_path / "policy.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(PolicyError) as caught:
        load(file)
    assert str(caught.value) == f"{file}{expected}"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_long_report_is_cut_but_the_problems_are_all_there() -> None:
    with pytest.raises(PolicyError) as caught:
        loads(RIGHT + "".join(f"unknown{i}: 1\n" for i in range(60)), "p")
    assert len(caught.value.problems) == 60
    assert str(caught.value).splitlines()[-1] == "p: and 10 more"


def test_no_control_character_of_a_file_reaches_the_report() -> None:
    report = "\n".join(refused(with_line(7, r'    "\e[31mred": 1')))
    assert "\x1b" not in report
    assert r"\x1b[31mred" in report


TOKENS = ["{", "}", "[", "]", ":", " ", "\n", "-1", "null", "50%", "all", "&a ", "*a", "<<: ", "!x ", "true", "3.5"]
TOKENS += [
    "'",
    '"',
    "#",
    "?",
    "\t",
    "|",
    ">",
    "none",
    "root",
    "h100",
    "1e400",
    "%YAML 1.1\n",
    "---\n",
    "\x00",
    "\ud800",
]
EDIT = st.tuples(st.integers(0, len(RIGHT)), st.integers(0, 8), st.sampled_from(TOKENS))


def accepted_or_refused(text: str) -> None:
    """Nothing but PolicyError comes out; what is accepted can be shown and read again."""
    try:
        policy = loads(text, "p")
    except PolicyError as error:
        assert error.problems
        assert str(error).isprintable() or "\n" in str(error)
    else:
        assert loads(dumps(policy)) == policy


@settings(max_examples=300)
@given(st.text(max_size=80) | st.text(alphabet="ab:-[]{}&*!|>'\"%@`#,? \n\t~0<.\\", max_size=60))
def test_garbage_is_refused_and_nothing_else(text: str) -> None:
    accepted_or_refused(text)


@settings(max_examples=300)
@given(st.lists(EDIT, min_size=1, max_size=4))
def test_a_damaged_policy_is_refused_or_right(edits: list[tuple[int, int, str]]) -> None:
    text = RIGHT
    for start, length, token in edits:
        text = text[:start] + token + text[start + length :]
    accepted_or_refused(text)
