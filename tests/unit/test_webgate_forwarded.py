"""What a proxy says of a request is believed from those that are trusted, and from nobody else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from orchestrator import config_checks
from orchestrator.errors import ConfigError
from orchestrator.store import logins, messages, tickets
from tests.unit.gateway import Gateway
from tests.unit.postgres import Cluster
from webgate.forwarded import MAX_HOPS, Asked, Proxies, counted_as

ORIGIN = "https://mc.example.org"
NAME = "mc.example.org"
TRUSTED = Proxies(("127.0.0.1", "10.0.0.0/8", "fd00::/8", "unix"))


def asked(proxies: Proxies, peer: str, **headers: str) -> Asked:
    """What is made of a request."""
    environ = {"REMOTE_ADDR": peer, "HTTP_HOST": "box:3001"}
    return proxies.read(environ | {f"HTTP_X_FORWARDED_{k.upper()}": v for k, v in headers.items()})


@pytest.mark.parametrize(
    ("peer", "said", "client"),
    [
        ("127.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("192.0.2.9", "192.0.2.7", "192.0.2.9"),
        ("127.0.0.1", "203.0.113.1, 192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "192.0.2.7, 10.1.2.3, 10.0.0.1", "192.0.2.7"),
        ("::ffff:127.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
        ("", "192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "192.0.2.7, ;rm -rf", "127.0.0.1"),
        ("127.0.0.1", "192.0.2.7," + "10.0.0.1," * MAX_HOPS + "10.0.0.2", "10.0.0.1"),
        ("127.0.0.1", "127.0.0.1\x1b[2J", "127.0.0.1"),
    ],
)
def test_the_client_is_the_first_that_is_no_proxy_of_ours(
    peer: str, said: str, client: str
) -> None:
    """Read from the near end; what is farther than somebody untrusted is his own word."""
    assert asked(TRUSTED, peer, **{"for": said}).client == client


def test_by_default_nobody_is_believed() -> None:
    """Neither loopback nor the socket."""
    for peer in ("127.0.0.1", ""):
        found = asked(Proxies(()), peer, host=NAME, proto="https", **{"for": "192.0.2.7"})
        assert found == Asked(peer or "unix", "box:3001", "")


def test_an_ipv6_network_is_one_client() -> None:
    """Who has 2^64 addresses has not as many tries."""
    assert counted_as("2001:db8::1") == counted_as("2001:db8::ffff:1")
    assert counted_as("192.0.2.7") != counted_as("192.0.2.8")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (("10.0.0.1/8",), "host bits"),
        (("localhost",), "localhost"),
        (("0.0.0.0/0",), "everybody"),
        (("::/0",), "everybody"),
        (("",), "IPv4"),
    ],
)
def test_what_is_no_proxy_is_an_error(value: tuple[str, ...], says: str) -> None:
    """With the key, and what to write."""
    with pytest.raises(ConfigError, match=says) as raised:
        for text in value:
            config_checks._check_proxy(text)
    assert "gateway.trusted_proxies" in raised.value.message


@pytest.fixture(scope="module", params=["127.0.0.1", ""], ids=["trusted", "not"])
def running(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[Gateway, bool]]:
    """A gateway behind a proxy, played by the test, that it trusts or not."""
    environ = {"MC_GATEWAY_ORIGIN": ORIGIN}
    if request.param:
        environ["MC_GATEWAY_TRUSTED_PROXIES"] = request.param
    folder = tmp_path_factory.mktemp("forwarded")
    with Gateway(folder, cluster.create_database(), environ) as gateway:
        yield gateway, bool(request.param)


def test_a_change_and_a_cookie_go_by_the_name_that_was_asked_for(
    running: tuple[Gateway, bool],
) -> None:
    """With a trusted -Host the page's origin is the proxy's and cookies are for TLS; else it is a forgery."""
    gateway, trusted = running
    ticket = tickets.create(gateway.database, title="changed from somewhere")
    headers: Mapping[str, str | None] = {
        "Origin": ORIGIN,
        "X-Forwarded-Host": NAME,
        "X-Forwarded-Proto": "https",
        "Cookie": f"__Host-mc_session={gateway.secret}; mc_session={gateway.secret}",
    }
    answer = gateway.post(f"/api/ticket/{ticket.id}/input", {"text": "hello"}, dict(headers))
    assert answer.status == (202 if trusted else 403)
    assert len(messages.of_ticket(gateway.database, ticket.id)) == int(trusted)
    link = f"/login?code={logins.create_link(gateway.database)}"
    cookie = gateway.ask(
        "GET", link, {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.77"}
    ).headers["set-cookie"]
    assert cookie.startswith("__Host-") is trusted
    assert ("; Secure" in cookie) is trusted


def test_no_name_and_no_tls_that_are_not_known(running: tuple[Gateway, bool]) -> None:
    """A trusted -Host is checked as a Host is; what came to the proxy in the clear is refused."""
    gateway, trusted = running
    refused = 403 if trusted else 200
    for host in ("evil.example", f"{NAME}, evil.example"):
        assert gateway.ask("GET", "/healthz", {"X-Forwarded-Host": host}).status == refused
    clear = {"Host": NAME, "X-Forwarded-Proto": "http"}
    assert gateway.ask("GET", "/healthz", dict(clear)).status == refused


def test_failed_logins_are_counted_by_client(running: tuple[Gateway, bool]) -> None:
    """One who guesses does not lock the others out, where they can be told apart; the journal has who."""
    gateway, trusted = running
    wrong = [
        gateway.ask("GET", "/login?code=wrong", {"X-Forwarded-For": client}).status
        for client in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2")
    ]
    assert wrong == [403, 403, 429, 403 if trusted else 429]
    assert ("from 192.0.2.2" in gateway.said()) is trusted
    assert ("from 127.0.0.1" in gateway.said()) is not trusted
