"""The admission process as the plugin meets it: a real process, real sockets."""

from __future__ import annotations

import json
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm_gov.admission.server import LENGTH, listen
from slurm_gov.admission.view import PoolFacts, UserFacts, View
from slurm_gov.admission.wire import Request, Verdict, decode_answer, encode_request

VIEW = View(
    default_partition="gpu",
    teams={"research": "research"},
    users={1000: UserFacts("alice", "research", {}, False)},
    pools={"gpu": (PoolFacts("h100", "gpu:h100", (8, 8)),)},
    most={("research", "h100"): (16, "quota 16, borrow none")},
)


class Running:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "admission.sock"
        listening = listen(self.path)
        self.parent, theirs = socket.socketpair()
        numbers = (listening.fileno(), theirs.fileno())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "slurm_gov.admission.server", *map(str, numbers)], pass_fds=numbers
        )
        listening.close()
        theirs.close()
        self.events = self.parent.makefile("rb")

    def show(self, view: View) -> None:
        data = pickle.dumps(view)
        self.parent.sendall(LENGTH.pack(len(data)) + data)

    def connect(self) -> socket.socket:
        one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        one.settimeout(10)
        one.connect(str(self.path))
        return one

    def event(self) -> dict:
        return json.loads(self.events.readline())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.parent.close()
    running.events.close()
    assert running.process.wait(10) == 0, "it ends when its parent goes away"


def ask(one: socket.socket, id: int = 7, **fields) -> object:
    one.send(encode_request(Request(submit_uid=0, user_id=1000, request_id=id, **fields)))
    return decode_answer(one.recv(65536))


def test_before_the_first_view_every_job_is_accepted_as_it_came(server: Running) -> None:
    answer = ask(server.connect(), tres_per_node="gres:gpu:1000")
    assert (answer.verdict, answer.request_id, answer.tres_per_node) == (Verdict.ACCEPT, 7, None)
    assert server.event() == {"event": "submit", "unknown_uid": 1000}


def test_a_view_is_followed_at_once_on_every_connection(server: Running) -> None:
    first, second = server.connect(), server.connect()
    ask(first)
    server.event()
    server.show(VIEW)
    while (answer := ask(first, tres_per_node="gres:gpu:4")).tres_per_node is None:
        server.event()
    assert answer.tres_per_node == "gres:gpu:h100:4"
    assert server.event() == {"event": "submit"}
    refused = ask(second, id=8, tres_per_job="gres:gpu:17", name="evil\nname", last_round_trip_us=55)
    assert (refused.verdict, refused.request_id) == (Verdict.REFUSE, 8)
    event = server.event()
    assert event["team"] == "research"
    assert event["name"] == "evil\nname"
    assert event["round_trip_us"] == 55


@pytest.mark.parametrize("packet", [b"x", b"\0" * 24, b"SGOV" + b"\xff" * 100, b"\0" * 65536])
def test_garbage_is_answered_with_an_error_and_hurts_nobody_else(server: Running, packet: bytes) -> None:
    one, other = server.connect(), server.connect()
    one.send(packet)
    assert decode_answer(one.recv(65536)).verdict is Verdict.ERROR
    assert server.event()["event"] == "malformed"
    assert ask(other).verdict is Verdict.ACCEPT


def test_a_connection_that_closes_in_mid_question_hurts_nobody(server: Running) -> None:
    for _ in range(50):
        one = server.connect()
        one.send(encode_request(Request(submit_uid=0)))
        one.close()
    assert ask(server.connect()).verdict is Verdict.ACCEPT


def test_a_refusal_that_nobody_waits_for_any_more_is_none(server: Running) -> None:
    server.show(VIEW)
    one = server.connect()
    while ask(one, tres_per_node="gres:gpu:4").tres_per_node is None:  # type: ignore[attr-defined]
        pass
    server.process.send_signal(signal.SIGSTOP)
    too_much = {"account": "research", "partition": "gpu", "tres_per_job": "gres:gpu:h100:99"}
    one.send(encode_request(Request(submit_uid=0, user_id=1000, request_id=8, **too_much)))
    one.close()
    server.process.send_signal(signal.SIGCONT)
    while "too_late" not in (event := server.event()):
        assert "refused" not in event
    assert "99" in event["too_late"]


def test_signals_meant_for_the_daemon_do_not_end_it(server: Running) -> None:
    one = server.connect()
    ask(one)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        server.process.send_signal(number)
    assert ask(one).verdict is Verdict.ACCEPT


def test_a_parent_that_does_not_listen_delays_no_answer(server: Running) -> None:
    one = server.connect()
    for number in range(5000):
        assert ask(one, id=number).request_id == number


def test_only_the_owner_may_connect(server: Running) -> None:
    assert server.path.stat().st_mode & 0o777 == 0o600


def test_a_second_server_does_not_take_over(server: Running) -> None:
    with pytest.raises(OSError, match="another slurm-govd"):
        listen(server.path)
    ask(server.connect())


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"there is no folder {tmp_path}/none; make it"):
        listen(tmp_path / "none" / "sock")


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    listen(path).close()
    listen(path).close()
