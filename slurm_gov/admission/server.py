"""The admission process: answers the plugin, and does nothing else.

A process of its own, so that an answer never waits for the planner (which may hold Python's interpreter for
a second). It is started and ended by slurm-govd and speaks to it over one socket pair: views come in, events
go out. Until the first view has come every job is accepted as it came: the caps hold.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pickle
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slurm_gov.admission.judge import Judgement, judge
from slurm_gov.admission.view import View
from slurm_gov.admission.wire import (
    MAX_PACKET,
    Kind,
    Request,
    Verdict,
    WireError,
    decode_request,
    encode_answer,
)

LENGTH = struct.Struct("<Q")
"""Before each view on the parent's socket: how many bytes of pickle follow."""
_CREDENTIALS = struct.Struct("3i")
_BACKLOG = 128
_UNTOLD = 1 << 20
"""Bytes of events that wait for a busy parent; what is more is forgotten."""
_COUNTERS = ("requests", "failures", "not_asked", "breaker_openings")


def listen(path: Path) -> socket.socket:
    """The socket that the plugin asks on. A stale file is replaced; only its owner and root may connect.

    Raises ``OSError`` when another process answers there already, or the folder is missing or not writable.
    """
    if not path.parent.is_dir():
        raise OSError(f"{path}: there is no folder {path.parent}; make it, and give it to SlurmUser")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with probe, contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        probe.connect(str(path))
        raise OSError(f"{path}: another slurm-govd answers there already")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    # Renamed into place when it is ready, so that no connection finds it half made.
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        server.bind(str(fresh))
    finally:
        os.umask(before)
    server.listen(_BACKLOG)
    fresh.rename(path)
    return server


class Server:
    """The event loop of the admission process."""

    def __init__(self, server: socket.socket, parent: socket.socket) -> None:
        self.view = View()
        self._server = server
        self._parent = parent
        self._own_uid = os.getuid()
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._incoming = bytearray()
        self._connections: dict[int, socket.socket] = {}
        self._untold = bytearray()
        self._watch(server.fileno(), self._accept)
        self._watch(parent.fileno(), self._from_parent)

    def serve(self) -> None:
        """Answer until the parent goes away."""
        while True:
            for number, _ in self._poll.poll():
                self._handlers[number]()
            self._tell_parent()

    def _watch(self, number: int, handler: Callable[[], None]) -> None:
        self._handlers[number] = handler
        self._poll.register(number, select.EPOLLIN)

    def _accept(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError:
            return
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(credentials)
        if uid not in (0, self._own_uid, self.view.slurm_uid):
            self._tell({"event": "stranger", "uid": uid})
            connection.close()
            return
        connection.setblocking(False)
        number = connection.fileno()
        self._connections[number] = connection
        self._watch(number, lambda: self._answer(number))

    def _answer(self, number: int) -> None:
        connection = self._connections[number]
        try:
            packet = connection.recv(MAX_PACKET + 1)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._close(number)
            return
        event: dict[str, Any] | None
        try:
            request = decode_request(packet)
            judgement = judge(request, self.view)
            answer = encode_answer(
                request.request_id,
                judgement.verdict,
                cause=judgement.cause,
                message=judgement.message,
                tres_per_job=judgement.tres_per_job,
                tres_per_node=judgement.tres_per_node,
                tres_per_socket=judgement.tres_per_socket,
                tres_per_task=judgement.tres_per_task,
                admin_comment=judgement.admin_comment,
            )
            event = _event(request, judgement, self.view)
        except WireError as error:
            answer = encode_answer(error.request_id or 0, Verdict.ERROR, message=str(error)[:200])
            event = {"event": "malformed", "error": str(error)}
        except Exception as error:  # A fault of ours must not cost a user's submission.
            answer = encode_answer(request.request_id, Verdict.ACCEPT)
            event = {"event": "fault", "error": repr(error)}
        try:
            connection.send(answer)
        except OSError:
            # The plugin has given up waiting, and done what its configuration says: nobody was refused by this.
            self._close(number)
            if "refused" in event:
                event["too_late"] = event.pop("refused")
        self._tell(event)

    def _close(self, number: int) -> None:
        self._poll.unregister(number)
        del self._handlers[number]
        self._connections.pop(number).close()

    def _from_parent(self) -> None:
        try:
            data = self._parent.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            sys.exit(0)
        self._incoming += data
        while len(self._incoming) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._incoming)
            if len(self._incoming) < LENGTH.size + length:
                return
            self.view = pickle.loads(memoryview(self._incoming)[LENGTH.size : LENGTH.size + length])
            del self._incoming[: LENGTH.size + length]

    def _tell(self, event: dict[str, Any]) -> None:
        if len(self._untold) < _UNTOLD:
            self._untold += json.dumps(event).encode() + b"\n"

    def _tell_parent(self) -> None:
        """Tell the parent what came, unless it is too busy to listen: the answers are what matters.

        Of all that came together at once: waking the parent takes a processor from slurmctld.
        """
        if self._untold:
            with contextlib.suppress(OSError):
                del self._untold[: self._parent.send(self._untold, socket.MSG_DONTWAIT)]


def _event(request: Request, judgement: Judgement, view: View) -> dict[str, Any]:
    event: dict[str, Any] = {"event": "modify" if request.kind is Kind.MODIFY else "submit"}
    uid = request.user_id if request.user_id is not None else request.submit_uid
    if uid not in view.users:
        event["unknown_uid"] = uid
    if request.last_round_trip_us is not None:
        event["round_trip_us"] = request.last_round_trip_us
    # What the plugin counted since slurmctld loaded it; a plugin of another make may not count.
    event |= {name: value for name in _COUNTERS if (value := getattr(request, name)) is not None}
    if judgement.would_refuse is not None:
        event |= {"would_refuse": judgement.would_refuse, "team": judgement.team, "uid": uid, "name": request.name}
    if judgement.verdict is Verdict.REFUSE:
        event |= {
            "refused": judgement.message,
            "cause": judgement.cause.name.lower(),
            "team": judgement.team,
            "account": request.account,
            "uid": uid,
            "name": request.name,
        }
    return event


def main() -> None:
    """``python -m slurm_gov.admission.server LISTENING_FD PARENT_FD``, as slurm-govd starts it."""
    # The parent decides when we end: signals meant for both must not end us in mid-answer.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    server = socket.socket(fileno=int(sys.argv[1]))
    parent = socket.socket(fileno=int(sys.argv[2]))
    parent.setblocking(False)
    # Woken at once, whatever else runs: on a busy machine the scheduler would let us wait for some milliseconds, and
    # slurmctld with us. Needs root or RLIMIT_RTPRIO; each answer takes some 20 us of a processor.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    # Nothing here makes reference cycles; a collection would only delay an answer.
    gc.collect()
    gc.freeze()
    gc.disable()
    Server(server, parent).serve()


if __name__ == "__main__":
    main()
