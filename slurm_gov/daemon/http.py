"""The daemon's HTTP server: read-only, in a thread and event loop of its own, so that no reader is waited for.

What is served is an ASGI application (`slurm_gov.web.app`); here is what protects the daemon from those who read:
who may ask at all, how many at once, and for how long a client may dawdle.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import logging
import os
import re
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from slurm_gov.daemon.log import log

DEFAULT_LISTEN = "127.0.0.1:6824"
CONNECTIONS = 250
"""Connections at once; whoever comes then is told so (503) and sent away."""
LINGER = 10.0
"""Seconds that a client has to send a request, and twice that to take what it was sent."""
SHORTEST_TOKEN = 16
_CLOSING = 1.0  # seconds for answers under way when the daemon ends

App = Callable[[Any, Any, Any], Any]

# The page is ours alone: nothing from elsewhere, no inline code, in nobody's frame.
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


class HttpError(Exception):
    """The server cannot be had as asked for; the message says why and what would help."""


def read_token(path: Path) -> str:
    """The token in a file, without surrounding white space. Raises ``HttpError``."""
    try:
        token = path.read_text(encoding="ascii").strip()
        mode = stat.S_IMODE(path.stat().st_mode)
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "not ASCII text"
        raise HttpError(f"the token file {path} cannot be read: {said}") from None
    if mode & 0o007:
        raise HttpError(f"the token file {path} is open to everybody (mode {mode:04o}): chmod 0600 it")
    if len(token) < SHORTEST_TOKEN or not token.isprintable() or " " in token:
        raise HttpError(
            f"the token file {path} must hold one word of {SHORTEST_TOKEN} or more characters; "
            "make one with: openssl rand -hex 24"
        )
    return token


def parse_listen(text: str) -> tuple[str, int]:
    """``ADDRESS:PORT``, ``[ADDRESS]:PORT`` or ``PORT`` to both. Raises ``HttpError``."""
    found = re.fullmatch(r"(?:(?P<host>\[[^\]]+\]|[^:\[\]]*):)?(?P<port>\d{1,5})", text)
    if not found or not int(found["port"]) < 65536:
        raise HttpError(f"cannot listen on {text!r}: it must be ADDRESS:PORT, as {DEFAULT_LISTEN} or [::1]:6824")
    return (found["host"] or "127.0.0.1").strip("[]"), int(found["port"])


class HttpServer:
    """Serves an application from ``start`` to ``stop``."""

    def __init__(self, app: App, listen: str = DEFAULT_LISTEN, token: str = "") -> None:
        """Take the port at once. Raises ``HttpError`` if it cannot be had, or needs a token and has none."""
        host, port = parse_listen(listen)
        self._socket = _listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"
        if not token and not _is_private(self._socket.getsockname()[0]):
            self._socket.close()
            raise HttpError(
                f"listening on {host} shows every job to the whole network: give a --token-file, "
                "or listen on 127.0.0.1 behind a proxy that asks who it is"
            )
        config = uvicorn.Config(
            Guard(app, token),
            http=_Connection,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=int(LINGER),
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)
        self._started = False

    def start(self) -> None:
        """Answer from now on."""
        _log_as_we_do()
        self._thread.start()
        self._started = True

    def stop(self) -> None:
        """Stop answering; those who still read are cut off after a second."""
        self._server.should_exit = True
        if self._started:
            self._thread.join(_CLOSING + 5)
        self._socket.close()

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._server.server_state.connections)

    def _serve(self) -> None:
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        except Exception:
            log.exception("the HTTP server ended; governing goes on without it")


class Guard:
    """In front of the application: only reading, only with the token where there is one, headers on every answer."""

    def __init__(self, app: App, token: str = "") -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        headers = dict(scope["headers"])
        if self._token and not self._knows_token(headers.get(b"authorization", b"")):
            challenges = [(b"www-authenticate", b'Bearer realm="slurm-gov"'), _BASIC]
            await _refuse(send_with_headers, 401, "a token is needed: as bearer token, or as password", challenges)
        elif not self._token and not _is_address(headers.get(b"host", b"")):
            # A page elsewhere could have its name point to us and read with its visitor's browser.
            await _refuse(send_with_headers, 421, "without a token, ask for localhost or for an address, not a name")
        elif scope["method"] not in ("GET", "HEAD"):
            await _refuse(send_with_headers, 405, "everything here is for reading", [(b"allow", b"GET, HEAD")])
        else:
            await self._app(scope, receive, send_with_headers)

    def _knows_token(self, authorization: bytes) -> bool:
        kind, _, given = authorization.partition(b" ")
        if kind.lower() == b"basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif kind.lower() != b"bearer":
            return False
        return hmac.compare_digest(given, self._token)


_BASIC = (b"www-authenticate", b'Basic realm="slurm-gov: any user name, the token as password", charset="UTF-8"')


async def _refuse(send: Any, status: int, detail: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    body = f'{{"detail":"{detail}"}}'.encode()
    length = (b"content-length", str(len(body)).encode())
    start = {"type": "http.response.start", "status": status}
    await send(start | {"headers": [(b"content-type", b"application/json"), length, *(headers or ())]})
    await send({"type": "http.response.body", "body": body})


class _Connection(H11Protocol):
    """A connection that is cut when its client sends no whole request, or does not take its answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._seen: object = self  # neither a request nor none
        self._full = 0
        self._check = self.loop.call_later(LINGER, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._check.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        self._full = self._full + 1 if self.flow.write_paused else 0
        if (idle and self.cycle is self._seen) or self._full > 2:
            self.transport.abort()  # not close(): that would wait for the client to take what lies there
            return
        self._seen = self.cycle if idle else self
        self._check = self.loop.call_later(LINGER, self._look)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.create_server((host, port), family=family, backlog=64)
    except (OSError, OverflowError) as error:
        said = os.strerror(number) if (number := getattr(error, "errno", None) or 0) > 0 else str(error)
        raise HttpError(
            f"cannot listen on {host}:{port}: {said}; choose another with --listen ADDRESS:PORT, or --listen none"
        ) from None
    made.setblocking(False)
    return made


def _is_private(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _is_address(host: bytes) -> bool:
    """Whether a Host header is localhost or an address, whatever the port."""
    name = re.sub(r":\d*$", "", host.decode("latin-1")).strip("[]")
    if name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class _ToOurLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log.warning("http", said=record.getMessage(), exc_info=record.exc_info or None)


def _log_as_we_do() -> None:
    said = logging.getLogger("uvicorn.error")
    if not said.handlers:
        said.addHandler(_ToOurLog(logging.WARNING))
        said.propagate = False
