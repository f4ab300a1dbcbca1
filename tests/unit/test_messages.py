"""The MQTT contract: what is taken on arrival, and what is refused with which reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_gov.health import messages, topics
from slurm_gov.health.arrival import FUTURE, STALE, Rejected, receive
from slurm_gov.health.messages import Acknowledgement, Command, Event, Heartbeat, Presence, Request, Status

NOW = 1_767_225_660.0
BASE = {"version": 1, "node": "n3", "boot_id": "b-1", "sequence": 7, "time": NOW}
RESULT = {"check": "xid", "state": "fail", "since": NOW, "checked": NOW}
STATUS = BASE | {"agent_version": "0.1", "results": [RESULT]}


def arrive(payload: object, model: type[messages.Message] = Status, seen: Any = None, **how: Any) -> Any:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return receive(topics.topic(model, "n3"), data, now=NOW, seen=seen or {}, **how)


def reason(answer: Any) -> str:
    assert isinstance(answer, Rejected), answer
    assert answer.message.isprintable()
    return answer.reason


def test_a_status_arrives() -> None:
    status = arrive(STATUS)
    assert isinstance(status, Status)
    assert status.results[0].state is messages.State.FAIL
    assert (status.node, status.sequence, status.kind) == ("n3", 7, "status")


def test_unknown_fields_are_for_those_who_know_them() -> None:
    assert isinstance(arrive(STATUS | {"color": "red"}), Status)


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 60_000,
        STATUS | {"version": 2},
        STATUS | {"sequence": "7"},
        STATUS | {"sequence": -1},
        STATUS | {"sequence": 2**53},
        STATUS | {"time": float("nan")},
        STATUS | {"node": "n3/../n4"},
        STATUS | {"results": [RESULT | {"state": "sick"}]},
        STATUS | {"results": [RESULT | {"message": "line\nline"}]},
        STATUS | {"results": [RESULT | {"message": "\x1b[2J"}]},
        STATUS | {"results": [RESULT | {"gpu": {"index": -1}}]},
        STATUS | {"results": [RESULT] * (messages.MAX_RESULTS + 1)},
        {key: STATUS[key] for key in STATUS if key != "boot_id"},
    ],
)
def test_malformed(payload: object) -> None:
    assert reason(arrive(payload)) == "malformed"


def test_too_large_is_not_even_read() -> None:
    assert reason(arrive(b" " * (messages.MAX_BYTES + 1))) == "too_large"


def test_a_node_speaks_for_itself() -> None:
    assert reason(arrive(STATUS | {"node": "n4"})) == "wrong_node"


def test_the_future() -> None:
    assert reason(arrive(STATUS | {"time": NOW + FUTURE + 1})) == "future"
    assert isinstance(arrive(STATUS | {"time": NOW + FUTURE - 1}), Status)


def test_old_heartbeats_are_stale_but_an_old_status_still_stands() -> None:
    old = {"time": NOW - STALE - 1}
    assert reason(arrive(BASE | old, Heartbeat)) == "stale"
    assert isinstance(arrive(STATUS | old), Status)
    assert isinstance(arrive(BASE | old | {"state": "offline"}, Presence), Presence)


def test_what_came_before_counts_per_node_and_kind() -> None:
    assert reason(arrive(STATUS, seen={("n3", "status"): 8})) == "replayed"
    assert reason(arrive(STATUS, seen={("n3", "status"): 7}, retained=True)) == "duplicate"
    assert isinstance(arrive(STATUS, seen={("n3", "status"): 6, ("n4", "status"): 9, ("n3", "heartbeat"): 9}), Status)


def test_a_last_will_ends_its_own_connection_only() -> None:
    will = BASE | {"state": "offline"}
    assert isinstance(arrive(will, Presence, {("n3", "presence"): 7}), Presence)
    assert isinstance(arrive(will, Presence, {("n3", "presence"): 7}, retained=True), Presence)
    assert reason(arrive(will, Presence, {("n3", "presence"): 8})) == "replayed"
    assert reason(arrive(BASE | {"state": "online"}, Presence, {("n3", "presence"): 7})) == "duplicate"


def test_a_retained_message_taken_away() -> None:
    answer = arrive(b"", retained=True)
    assert reason(answer) == "cleared"
    assert answer.harmless


@pytest.mark.parametrize(
    "topic",
    ["", "a/b", "slurm-gov/v2/node/n3/status", "slurm-gov/v1/node/n3/status/x", "slurm-gov/v1/node//status",
     "slurm-gov/v1/node/+/status", "slurm-gov/v1/provider/n3/status", "x/slurm-gov/v1/node/n3/status"],
)  # fmt: skip
def test_other_topics(topic: str) -> None:
    assert reason(receive(topic, json.dumps(STATUS).encode(), now=NOW, seen={})) == "unknown_topic"


@pytest.mark.parametrize("model", [Status, Heartbeat, Presence, Command, Request, Acknowledgement, Event])
@pytest.mark.parametrize("prefix", ["slurm-gov", "gov/c1"])
def test_topics_there_and_back(model: type[messages.Message], prefix: str) -> None:
    assert topics.parse(topics.topic(model, "n3", prefix), prefix) == topics.Address(model, "n3")


def test_events_of_the_cluster() -> None:
    assert topics.parse(topics.topic(Event, None)) == topics.Address(Event, None)


@pytest.mark.parametrize("prefix", ["", "/", "a/", "a//b", "a/#", "+", "$SYS", "a b"])
def test_prefixes_that_cannot_be(prefix: str) -> None:
    with pytest.raises(ValueError, match="no topic prefix"):
        topics.check_prefix(prefix)


def test_the_sample_in_the_documentation_is_true() -> None:
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs" / "mqtt.md").read_text()
    sample = text.split("```json\n")[1].split("```")[0]
    status = Status.model_validate_json(sample)
    assert status.results[0].injected
    for fault in messages.Fault:
        assert f"`{fault}`" in text
    for advice in messages.Advice:
        assert f"`{advice}`" in text


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(sorted(STATUS)), inner, max_size=8),
    max_leaves=20,
)


@given(st.binary(max_size=200) | _JSON.map(lambda data: json.dumps(data).encode()))
def test_nothing_that_arrives_raises(payload: bytes) -> None:
    for model in (Status, Heartbeat, Presence, Command, Request, Acknowledgement, Event):
        answer = arrive(payload, model)
        assert isinstance(answer, Rejected | model)


@given(st.dictionaries(st.sampled_from(sorted(STATUS)), _JSON, max_size=3))
def test_a_status_with_fields_that_are_off_is_refused_or_is_one(changes: dict[str, Any]) -> None:
    answer = arrive(STATUS | changes)
    if isinstance(answer, Status):
        assert answer.node == "n3" and answer.time <= NOW + FUTURE
        assert all(result.message.isprintable() for result in answer.results)
        assert Status.model_validate_json(answer.model_dump_json()) == answer
    else:
        reason(answer)
