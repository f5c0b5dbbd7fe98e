"""Where the gateway listens, and by what name it is known there. Each against the running process."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.store import logins, messages, tickets
from tests.unit.gateway import Gateway
from tests.unit.postgres import Cluster

ORIGIN = "https://mc.example.org"
NAME = "mc.example.org"


@pytest.fixture(scope="module")
def proxied(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway behind a proxy that ends TLS, played by the test."""
    folder = tmp_path_factory.mktemp("proxied")
    with Gateway(folder, cluster.create_database(), {"MC_GATEWAY_ORIGIN": ORIGIN}) as running:
        yield running


def by_path(path: Path, host: str) -> bytes:
    """The answer to a request for /healthz over a Unix socket."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(str(path))
        peer.sendall(f"GET /healthz HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        found = b""
        while part := peer.recv(65536):
            found += part
    return found


def test_a_unix_socket(cluster: Cluster, tmp_path: Path) -> None:
    """For its owner alone; known as localhost; there again after a kill left the old one behind."""
    path = tmp_path / "sockets" / "mc.sock"
    environ = {"MC_GATEWAY_LISTEN": str(path), "LISTEN_FDS": "0"}
    before = os.umask(0)
    try:
        with Gateway(tmp_path, cluster.create_database(), environ) as running:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            for host in ("localhost", "127.0.0.1:3001", "localhost:3001"):
                assert b" 200 " in by_path(path, host)
            for host in ("evil.example", "127.0.0.1:80", ""):
                assert b" 403 " in by_path(path, host)
            running.process.kill()
            running.process.wait(10)
            assert path.exists()
            running.start()
            assert b" 200 " in by_path(path, "localhost")
    finally:
        os.umask(before)


def test_behind_a_proxy_the_cookie_is_for_tls_alone(proxied: Gateway) -> None:
    """`__Host-`, Secure; a cookie that was set without TLS is nobody there."""
    answer = proxied.ask(
        "GET", f"/login?code={logins.create_link(proxied.database)}", {"Host": NAME}
    )
    cookie, *flags = answer.headers["set-cookie"].split("; ")
    assert cookie.startswith("__Host-mc_session=")
    assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= set(flags)
    assert proxied.ask("GET", "/api/tickets", {"Host": NAME, "Cookie": cookie}).status == 200
    plain = cookie.removeprefix("__Host-")
    assert proxied.ask("GET", "/api/tickets", {"Host": NAME, "Cookie": plain}).status == 401
    assert proxied.ask("GET", "/api/tickets", {"Cookie": cookie}).status == 401
    assert proxied.get("/api/tickets").status == 200


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        (NAME, ORIGIN, 202),
        (NAME, f"http://{NAME}", 403),
        (NAME, "http://{loopback}", 403),
        ("{loopback}", ORIGIN, 403),
        ("{loopback}", "http://{loopback}", 202),
        (f"{NAME}:443", f"{ORIGIN}:443", 403),
    ],
)
def test_behind_a_proxy_a_change_comes_from_its_pages(
    proxied: Gateway, host: str, origin: str, status: int
) -> None:
    """Host and origin go together, each exactly as configured."""
    ticket = tickets.create(proxied.database, title="changed from somewhere")
    name = "__Host-mc_session" if host.startswith(NAME) else "mc_session"
    answer = proxied.post(
        f"/api/ticket/{ticket.id}/input",
        {"text": "hello"},
        {
            "Host": host.format(loopback=proxied.host),
            "Origin": origin.format(loopback=proxied.host),
            "Cookie": f"{name}={proxied.secret}",
        },
    )
    assert answer.status == status
    assert len(messages.of_ticket(proxied.database, ticket.id)) == (1 if status == 202 else 0)


@pytest.mark.parametrize("origin", ["", ORIGIN])
def test_a_socket_others_reach_is_refused(cluster: Cluster, tmp_path: Path, origin: str) -> None:
    """EX_CONFIG with a sentence, whoever opened it; unless a proxy that ends TLS is declared."""
    with Gateway(tmp_path, cluster.create_database()) as running:
        running.stop()
        loopback, running.listener = running.listener, socket.create_server(("0.0.0.0", 0))  # noqa: S104
        running.environ["MC_GATEWAY_ORIGIN"] = origin
        if origin:
            running.start()
            running.stop()
        else:
            with pytest.raises(TimeoutError):
                running.start(timeout_s=5)
            assert running.process.wait(10) == 78
            assert "which others reach without TLS" in running.said()
        running.listener.close()
        running.listener = loopback
        running.environ.clear()
        running.start()
