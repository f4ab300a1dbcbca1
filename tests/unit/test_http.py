"""The HTTP server on a real socket: who is answered, who is refused, who is cut off."""

from __future__ import annotations

import base64
import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slurm_gov.daemon import http as server_module
from slurm_gov.daemon.http import HttpError, HttpServer, parse_listen, read_token
from slurm_gov.web.app import add_page, make_app
from slurm_gov.web.board import Board

TOKEN = "a-token-of-some-length"


@contextmanager
def served(token: str = "", listen: str = "127.0.0.1:0", size: int = 10) -> Iterator[HttpServer]:
    app = make_app(Board())
    add_page(app, "/metrics", lambda: ("text/plain; version=0.0.4", b"x" * size))
    server = HttpServer(app, listen, token)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def ask(server: HttpServer, path: str = "/metrics", method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    response.read()
    return response


def test_a_page_is_served_with_headers_that_let_nothing_else_in() -> None:
    with served() as server:
        response = ask(server)
    assert response.status == 200
    assert response.getheader("content-type") == "text/plain; version=0.0.4"
    policy = response.getheader("content-security-policy") or ""
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert response.getheader("x-content-type-options") == "nosniff"
    assert response.getheader("server") is None


@pytest.mark.parametrize("path", ["/metrics", "/", "/api/v1/openapi.json", "/no/such/page"])
def test_without_the_token_nothing_is_told(path: str) -> None:
    with served(TOKEN) as server:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"bearer {TOKEN}x"},
                      {"Authorization": "Basic !!"}, {"Authorization": f"Digest {TOKEN}"}):  # fmt: skip
            response = ask(server, path, **given)
            assert response.status == 401
            assert "Bearer" in (response.getheader("www-authenticate") or "")


def test_the_token_comes_as_bearer_or_as_password() -> None:
    word = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    with served(TOKEN) as server:
        assert ask(server, Authorization=f"Bearer {TOKEN}").status == 200
        assert ask(server, Authorization=f"Basic {word}", Host="gov.example.org").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_everything_is_for_reading(method: str) -> None:
    with served() as server:
        response = ask(server, method=method)
    assert response.status == 405
    assert response.getheader("allow") == "GET, HEAD"


def test_a_name_that_was_made_to_point_to_us_is_not_answered() -> None:
    with served() as server:
        assert ask(server, Host="evil.example").status == 421
        assert ask(server, Host="localhost:6824").status == 200
        assert ask(server, Host="[::1]:6824").status == 200


def test_a_port_in_use_is_a_clear_error() -> None:
    with (
        served() as server,
        pytest.raises(HttpError, match=r"cannot listen on 127.0.0.1:\d+: Address already in use"),
    ):
        HttpServer(make_app(Board()), f"127.0.0.1:{server.port}")


def test_the_network_is_served_only_with_a_token() -> None:
    with pytest.raises(HttpError, match="give a --token-file"):
        HttpServer(make_app(Board()), "0.0.0.0:0")
    with served(TOKEN, "0.0.0.0:0") as server:
        assert ask(server).status == 401


@pytest.mark.parametrize("text", ["", "x", "localhost", "127.0.0.1:99999", "::1:80", "a:b:1", "http://x:80/"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(HttpError, match="must be ADDRESS:PORT"):
        parse_listen(text)


def test_addresses() -> None:
    assert parse_listen("8080") == ("127.0.0.1", 8080)
    assert parse_listen("[::1]:80") == ("::1", 80)
    assert parse_listen("0.0.0.0:80") == ("0.0.0.0", 80)


def test_a_token_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with pytest.raises(HttpError, match="No such file"):
        read_token(file)
    file.write_text(TOKEN + "\n")
    file.chmod(0o644)
    with pytest.raises(HttpError, match="open to everybody"):
        read_token(file)
    file.chmod(0o640)
    assert read_token(file) == TOKEN
    for bad in ("", "short", "two words that are long enough", "€" * 20):
        file.write_text(bad)
        with pytest.raises(HttpError):
            read_token(file)


def test_who_sends_no_whole_request_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LINGER", 0.2)
    with served() as server:
        for said in (b"", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-", b"\0\0"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
                client.sendall(said)
                try:
                    while client.recv(4096):
                        pass
                except ConnectionResetError:
                    pass


def test_who_does_not_take_the_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LINGER", 0.1)
    with served(size=50_000_000) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            deadline = time.monotonic() + 20
            while server.connections and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not server.connections
        assert ask(server, "/no/such/page").status == 404  # and others are served


def test_more_than_so_many_at_once_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "CONNECTIONS", 5)
    with served() as server:
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
        deadline = time.monotonic() + 20
        while server.connections < 5 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert ask(server).status == 503
        for one in held:
            one.close()
        while server.connections and time.monotonic() < deadline:
            time.sleep(0.02)
        assert ask(server).status == 200


def test_stopping_gives_the_port_back() -> None:
    with served() as server:
        port = server.port
    again = HttpServer(make_app(Board()), f"127.0.0.1:{port}")
    again.stop()
