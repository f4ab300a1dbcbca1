"""The wire format in Python: round trips, malformed packets, and agreement with the plugin's C."""

import dataclasses
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_gov.admission import wire
from slurm_gov.admission.wire import Answer, Cause, Kind, Request, Verdict, WireError

PLUGIN = Path(__file__).parents[2] / "plugin_c"

NUMBER = st.none() | st.integers(0, 2**64 - 1)
TEXT = st.none() | st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
REQUESTS = st.builds(
    Request,
    kind=st.sampled_from([Kind.SUBMIT, Kind.MODIFY]),
    request_id=st.integers(0, 2**64 - 1),
    partial=st.booleans(),
    **{name: NUMBER for name in wire.NUMBERS if name not in ("submit_uid", "nice")},
    **dict.fromkeys(wire.STRINGS, TEXT),
    submit_uid=st.integers(0, 2**32 - 1),
    nice=st.none() | st.integers(-(2**31), 2**31),
)
ANSWERS = st.builds(
    Answer,
    verdict=st.sampled_from(Verdict),
    request_id=st.integers(0, 2**64 - 1),
    cause=st.sampled_from(Cause),
    requeue=st.none() | st.integers(0, 1),
    **dict.fromkeys(wire.ANSWER_STRINGS, TEXT),
)


def encode(answer: Answer) -> bytes:
    fields = {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}
    return wire.encode_answer(**fields)


def packet(fields: bytes, kind: int = Kind.SUBMIT, version: int = wire.VERSION) -> bytes:
    return struct.pack("<IHHIIQ", wire.MAGIC, version, kind, 24 + len(fields), 0, 7) + fields


def number(tag: int, value: int) -> bytes:
    return struct.pack("<HIQ", tag, 8, value)


def string(tag: int, value: bytes) -> bytes:
    return struct.pack("<HI", tag, len(value)) + value


UID = number(1, 1000)


@given(REQUESTS)
def test_a_request_survives_the_round_trip(request):
    assert wire.decode_request(wire.encode_request(request)) == request


@given(ANSWERS)
def test_an_answer_survives_the_round_trip(answer):
    assert wire.decode_answer(encode(answer)) == answer


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_wire_error(data):
    for read in (wire.decode_request, wire.decode_answer):
        with pytest.raises(WireError):
            read(data)


@given(REQUESTS | ANSWERS, st.data())
def test_a_damaged_packet_raises_nothing_but_wire_error(message, data):
    good = encode(message) if isinstance(message, Answer) else wire.encode_request(message)
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    bad = bad[: data.draw(st.integers(0, len(bad)))]
    for read in (wire.decode_request, wire.decode_answer):
        try:
            read(memoryview(bad))
        except WireError as error:
            assert str(error)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes are less than a header"),
        (bytes(65537), "65537 bytes are more than 65536"),
        (bytes(24), "the magic number is wrong"),
        (packet(UID, version=2), "wire format version 2 is not 1"),
        (packet(UID, kind=Kind.ANSWER), "kind 3 is not a request"),
        (packet(UID) + b"x", "the header says 38 bytes, the packet has 39"),
        (packet(b""), "submit_uid is missing"),
        (packet(UID + b"\1"), "a field is cut off"),
        (packet(UID[:-1]), "the field with tag 1 is cut off"),
        (packet(UID + UID), "submit_uid occurs twice"),
        (packet(string(1, b"abc")), "submit_uid has 3 bytes, not 8"),
        (packet(UID + string(65, b"")), "account does not end at its first NUL"),
        (packet(UID + string(65, b"abc")), "account does not end at its first NUL"),
        (packet(UID + string(65, b"a\0b\0")), "account does not end at its first NUL"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(data, message):
    with pytest.raises(WireError, match=f"^{re.escape(message)}$"):
        wire.decode_request(data)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (b"", "verdict is missing"),
        (number(192, 0), "0 is not a valid Verdict"),
        (number(192, 1) + number(19, 2), "requeue is 2, not 0 or 1"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(fields, message):
    with pytest.raises(WireError, match=f"^{re.escape(message)}$"):
        wire.decode_answer(packet(fields, Kind.ANSWER))


def test_an_error_knows_the_request_it_belongs_to():
    with pytest.raises(WireError) as caught:
        wire.decode_request(packet(UID, version=9))
    assert caught.value.request_id == 7
    with pytest.raises(WireError) as caught:
        wire.decode_request(b"rubbish")
    assert caught.value.request_id is None


def test_unknown_tags_are_skipped():
    data = packet(string(4000, b"from the future") + UID + number(4001, 1))
    assert wire.decode_request(data) == Request(1000, request_id=7)


def test_an_unknown_cause_is_policy():
    data = packet(number(192, 2) + number(193, 99), Kind.ANSWER)
    assert wire.decode_answer(data).cause is Cause.POLICY


@pytest.mark.parametrize("fields", [{"message": "a\0b"}, {"message": "x" * 65536}, {"account": "\ud800"}])
def test_what_does_not_fit_into_a_packet_is_refused(fields):
    with pytest.raises(WireError):
        wire.encode_answer(1, Verdict.ACCEPT, **fields)


def test_every_field_has_a_tag():
    header = {"kind", "request_id", "partial"}
    assert {f.name for f in dataclasses.fields(Request)} - header == {*wire.NUMBERS, *wire.STRINGS}
    answer = {f.name for f in dataclasses.fields(Answer)} - {"request_id"}
    assert answer == {*wire.ANSWER_NUMBERS, *wire.ANSWER_STRINGS}


def test_the_numbers_are_those_of_the_plugin():
    text = (PLUGIN / "wire.h").read_text()
    defined = {name: int(value, 0) for name, value in re.findall(r"#define GOV_WIRE_(\w+) (\w+)", text)}
    assert defined == {
        "MAGIC": wire.MAGIC,
        "VERSION": wire.VERSION,
        "MAX": wire.MAX_PACKET,
        "HEADER": 24,
        "FIELD": 6,
        "FLAG_PARTIAL": wire.FLAG_PARTIAL,
    }

    def numbers_of(prefix: str) -> dict[str, int]:
        return {name: int(value) for name, value in re.findall(rf"GOV_{prefix}_(\w+) = (\d+)", text)}

    tags = wire.NUMBERS | wire.STRINGS | wire.ANSWER_NUMBERS | wire.ANSWER_STRINGS
    assert numbers_of("TAG") == {name.upper(): tag for name, tag in tags.items()}
    for prefix, enum in (("KIND", Kind), ("VERDICT", Verdict), ("CAUSE", Cause)):
        assert numbers_of(prefix) == {member.name: member.value for member in enum}


@pytest.fixture(scope="module")
def tool(tmp_path_factory):
    """The plugin's own encoder and decoder, compiled into a command."""
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler")
    program = tmp_path_factory.mktemp("wire") / "wire_tool"
    sources = [PLUGIN / "wire.c", PLUGIN / "tests" / "wire_tool.c"]
    subprocess.run([compiler, "-std=c11", "-o", program, *sources], check=True)
    return program


def test_python_reads_what_the_plugin_writes(tool):
    data = subprocess.run([tool, "encode"], check=True, capture_output=True).stdout
    request = wire.decode_request(data)
    for name, tag in wire.NUMBERS.items():
        assert getattr(request, name) == (tag if tag >= 128 else tag * 100_000_000_000)
    for name, tag in wire.STRINGS.items():
        assert getattr(request, name) == f"tag\n{tag} \udcffü"
    assert (request.kind, request.request_id, request.partial) == (Kind.MODIFY, 2**64 - 1, False)
    assert len(wire.encode_request(request)) == len(data)


def plugin_reads(tool: Path, data: bytes, request_id: int) -> str:
    done = subprocess.run([tool, "decode", str(request_id)], input=data, capture_output=True)
    return done.stdout.decode("utf-8", "surrogateescape")


def test_the_plugin_reads_what_python_writes(tool):
    texts = {name: f"{name}\nü\udcff" for name in wire.ANSWER_STRINGS}
    data = wire.encode_answer(2**63, Verdict.REFUSE, cause=Cause.TRES, requeue=False, **texts)
    lines = ["verdict=2", "cause=4", "requeue=0", f"message={texts.pop('message')}"]
    lines += [f"{name}={text}" for name, text in texts.items()]
    assert plugin_reads(tool, data, 2**63) == "\n".join(lines) + "\n"

    data = wire.encode_answer(1, Verdict.ACCEPT)
    assert plugin_reads(tool, data, 1) == "verdict=1\ncause=-1\nrequeue=-1\n"
    assert plugin_reads(tool, data, 2) == "it answers another request\n"
    assert plugin_reads(tool, data[:-1], 1) == "its length is not what its header says\n"
