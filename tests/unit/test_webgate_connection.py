"""One connection, many requests: the same head is read once, and what can change is looked at each time."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store import logins
from tests.unit.gateway import Gateway
from tests.unit.test_webgate_screen import ME, OTHER, Pane, gateway  # noqa: F401  # a fixture


class Typist:
    """A page, or a program, that types over one connection."""

    def __init__(self, pane: Pane, *, token: str = "", secret: str = "") -> None:
        self.pane, self.gateway = pane, pane.gateway
        self.path = f"/api/ticket/{pane.ticket}/keys"
        self.connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=15)
        self.headers = {"Content-Type": "application/json"}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"
        else:
            self.headers |= {
                "Cookie": f"mc_session={secret or self.gateway.secret}",
                "Origin": f"http://{self.gateway.host}",
                "X-CSRF-Token": self.gateway.csrf,
                "Sec-Fetch-Site": "same-origin",
            }

    def ask(
        self, body: Any, method: str = "POST", path: str = ""
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers but for the date, and what is in the body."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.connection.request(method, path or self.path, data, self.headers)
        answer = self.connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        assert headers.pop("date", "")
        return answer.status, headers, json.loads(answer.read())

    def key(self, key: str, viewer: str = ME) -> tuple[int, dict[str, str], Any]:
        """One key."""
        return self.ask({"viewer": viewer, "keys": key})

    def bytes_of(self, key: str, *more: str) -> bytes:
        """The request as it is sent."""
        body = json.dumps({"viewer": ME, "keys": key})
        fields = {"Host": self.gateway.host, **self.headers, "Content-Length": str(len(body))}
        lines = [f"POST {self.path} HTTP/1.1", *(f"{n}: {v}" for n, v in fields.items()), *more]
        return "\r\n".join([*lines, "", body]).encode()


@pytest.fixture
def got(tmp_path: Path) -> Path:
    """What arrived in the pane."""
    return tmp_path / "got"


@pytest.fixture
def pane(gateway: Gateway, got: Path) -> Pane:  # noqa: F811  # the fixture above
    """One that writes down what is typed; ME has control."""
    made = Pane(gateway, f"stty raw -echo; echo ready; cat > {got}")
    made.wait_screen("ready")
    made.take()
    return made


def arrived(pane: Pane, got: Path, wanted: str) -> None:
    """That, and nothing else."""
    pane.until(lambda: len(got.read_bytes()) >= len(wanted), wanted)
    assert got.read_bytes() == wanted.encode()


def read_answer(peer: socket.socket) -> bytes:
    """One answer, of a known body."""
    said = b""
    while not said.endswith(b"}"):
        part = peer.recv(4096)
        assert part, said
        said += part
    return said


def test_each_key_arrives_once_and_is_answered_alike(pane: Pane, got: Path) -> None:
    """The answer to a head seen before says what the first one said, with a date of its own."""
    typist, letters = Typist(pane), "abcdefghijklmnopqrstuvwxyz" * 4
    first = typist.key("!")
    assert first[0] == 200
    assert first[1]["content-security-policy"].startswith("default-src 'none'")
    assert [typist.key(letter) for letter in letters] == [first] * len(letters)
    assert typist.ask({"viewer": ME, "paste": "x"})[2] == {"done": True}
    arrived(pane, got, "!" + letters + "x")


def test_a_longer_key_is_another_head(pane: Pane, got: Path) -> None:
    """More lengths than are remembered, twice over."""
    typist = Typist(pane)
    keys = ["x" * length for length in range(1, 13)] * 2
    assert {typist.key(key)[0] for key in keys} == {200}
    arrived(pane, got, "".join(keys))


def test_other_requests_in_between(pane: Pane, got: Path) -> None:
    """What is remembered is of those keys' head alone."""
    typist = Typist(pane)
    for number in range(3):
        assert typist.key(str(number))[0] == 200
        status, _, body = typist.ask({}, "GET", f"/api/ticket/{pane.ticket}")
        assert (status, body["id"]) == (200, pane.ticket)
        assert typist.ask({}, "POST", "/api/nowhere")[0] == 404
    arrived(pane, got, "012")


def test_who_lost_control_does_not_type(pane: Pane, got: Path) -> None:
    """Though the same request went through a moment before; and does again, with control."""
    typist = Typist(pane)
    assert [typist.key(key)[0] for key in "ab"] == [200, 200]
    pane.take(OTHER)
    status, headers, body = typist.key("c")
    assert (status, body["problem"]) == (409, "not-in-control")
    assert headers["cache-control"] == "no-store"
    assert "content-security-policy" in headers
    pane.take(ME)
    assert typist.key("d")[0] == 200
    assert typist.key("e", viewer=ME[::-1])[0] == 409  # the same head, another viewer
    arrived(pane, got, "abd")


def test_a_wrong_body_is_refused_and_the_next_one_taken(pane: Pane, got: Path) -> None:
    """Of the same length, so that its head is known."""
    typist = Typist(pane)
    good = json.dumps({"viewer": ME, "keys": "a"}).encode()
    assert [typist.ask(good)[0] for _ in range(2)] == [200, 200]
    for wrong in (good.replace(b"keys", b"kiys"), b"[" * len(good), good[:-1] + b"x"):
        status, _, body = typist.ask(wrong)
        assert (status, body["problem"]) == (400, "invalid-input")
    assert typist.ask(good)[0] == 200
    arrived(pane, got, "aaa")


def test_a_body_that_begins_with_a_byte_order_mark(pane: Pane, got: Path) -> None:
    """Is taken, the first time as later."""
    typist, body = Typist(pane), json.dumps({"viewer": ME, "keys": "a"}).encode("utf-8-sig")
    assert [typist.ask(body)[0] for _ in range(2)] == [200, 200]
    arrived(pane, got, "aa")


def test_a_login_that_ended_types_no_more(pane: Pane, got: Path) -> None:
    """Logged out on another connection; 401 as for anybody."""
    secret = pane.gateway.log_in()
    other = Typist(pane, secret=secret)
    session = logins.find_session(pane.gateway.database, secret)
    assert session is not None
    other.headers["X-CSRF-Token"] = session.csrf
    body = {"viewer": ME, "action": "take"}
    assert other.ask(body, path=f"/api/ticket/{pane.ticket}/control")[0] == 200
    assert [other.key(key)[0] for key in "ab"] == [200, 200]
    again = Typist(pane, secret=secret)
    again.headers["X-CSRF-Token"] = other.headers["X-CSRF-Token"]
    assert again.ask({}, path="/logout")[0] == 200
    status, _, said = other.key("c")
    assert (status, said["problem"]) == (401, "login-needed")
    arrived(pane, got, "ab")


def test_a_body_that_comes_after_the_login_ended(pane: Pane, got: Path) -> None:
    """Its head came before: nothing is typed all the same."""
    path, old = pane.gateway.state / "token", pane.gateway.token
    program = Typist(pane, token=old)
    take = {"viewer": ME, "action": "take"}
    assert program.ask(take, path=f"/api/ticket/{pane.ticket}/control")[0] == 200
    with socket.create_connection(("127.0.0.1", pane.gateway.port), timeout=10) as peer:
        for key in "ab":
            peer.sendall(program.bytes_of(key))
            assert read_answer(peer).startswith(b"HTTP/1.1 200")
        whole = program.bytes_of("c")
        peer.sendall(whole[:-3])
        time.sleep(0.2)
        try:
            path.write_text("another\n")
            peer.sendall(whole[-3:])
            assert read_answer(peer).startswith(b"HTTP/1.1 401")
        finally:
            path.write_text(f"{old}\n")
        peer.sendall(program.bytes_of("d"))
        assert read_answer(peer).startswith(b"HTTP/1.1 200")
    arrived(pane, got, "abd")


def test_a_token_that_is_another_now(pane: Pane, got: Path) -> None:
    """The old one types no more, from the next key on."""
    path, old = pane.gateway.state / "token", pane.gateway.token
    program = Typist(pane, token=old)
    take = {"viewer": ME, "action": "take"}
    assert program.ask(take, path=f"/api/ticket/{pane.ticket}/control")[0] == 200
    assert [program.key(key)[0] for key in "ab"] == [200, 200]
    try:
        path.write_text("another\n")
        assert program.key("c")[0] == 401
    finally:
        path.write_text(f"{old}\n")
    assert program.key("d")[0] == 200
    arrived(pane, got, "abd")


def test_in_pieces_and_two_at_once(pane: Pane, got: Path) -> None:
    """However the bytes of a request come."""
    typist = Typist(pane)
    with socket.create_connection(("127.0.0.1", pane.gateway.port), timeout=10) as peer:
        for key in "ab":
            peer.sendall(typist.bytes_of(key))
            assert read_answer(peer).startswith(b"HTTP/1.1 200")
        whole = typist.bytes_of("c")
        for cut in (1, len(whole) - 50, len(whole) - 3):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.sendall(whole[:cut])
            with pytest.raises(TimeoutError):
                peer.settimeout(0.1)
                peer.recv(1)
            peer.settimeout(10)
            peer.sendall(whole[cut:])
            assert read_answer(peer).startswith(b"HTTP/1.1 200")
        peer.sendall(typist.bytes_of("d") + typist.bytes_of("e"))
        said = read_answer(peer)
        while said.count(b"HTTP/1.1 200") < 2:
            said += read_answer(peer)
        peer.sendall(whole[:-5])  # and goes away
    arrived(pane, got, "abcccde")


def test_who_goes_away_with_a_key_holds_nobody_up(pane: Pane, got: Path) -> None:
    """Reset before it was answered: it was typed, and the next one types."""
    typist, other = Typist(pane), Typist(pane)
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", pane.gateway.port), timeout=10) as peer:
            for key in "ab":
                peer.sendall(typist.bytes_of(key))
                assert read_answer(peer).startswith(b"HTTP/1.1 200")
            peer.sendall(typist.bytes_of("c"))
            time.sleep(0.001)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        arrived_since = time.monotonic()
        assert other.key("d")[0] == 200
        assert time.monotonic() - arrived_since < 5
    pane.until(lambda: got.read_bytes().count(b"d") == 5, "the others")
    assert got.read_bytes().replace(b"c", b"") == b"abd" * 5
    assert got.read_bytes().count(b"c") <= 5


def test_two_who_type_at_the_same_time(pane: Pane, got: Path) -> None:
    """Each key once, and each page's in its order."""

    def types(letters: str) -> None:
        typist = Typist(pane)
        assert [typist.key(letter)[0] for letter in letters] == [200] * len(letters)

    both = ("abcdefghijklm" * 8, "nopqrstuvwxyz" * 8)
    threads = [threading.Thread(target=types, args=(letters,)) for letters in both]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    pane.until(lambda: len(got.read_bytes()) >= 208, "all of them")
    said = got.read_text()
    assert tuple("".join(c for c in said if c in letters) for letters in both) == both


def test_lines_that_end_with_a_newline_alone(pane: Pane, got: Path) -> None:
    """Such a head ends at the first empty line, wherever CR LF CR LF comes after it."""
    typist = Typist(pane)
    with socket.create_connection(("127.0.0.1", pane.gateway.port), timeout=10) as peer:
        for _ in range(2):
            data = typist.bytes_of("a").replace(b"\r\n", b"\n")
            # the next one in the same piece; it is no part of the head before it
            peer.sendall(data + typist.bytes_of("A"))
            said = read_answer(peer)
            while said.count(b"HTTP/1.1 200") < 2:
                said += read_answer(peer)
            assert said.count(b"HTTP/1.1") == 2
    arrived(pane, got, "aAaA")


def test_who_waits_to_be_asked_for_the_body_is_asked(pane: Pane, got: Path) -> None:
    """Each time: Expect (RFC 9110, 10.1.1)."""
    typist = Typist(pane)
    with socket.create_connection(("127.0.0.1", pane.gateway.port), timeout=10) as peer:
        for key in "ab":
            head, _, body = typist.bytes_of(key, "Expect: 100-continue").partition(b"\r\n\r\n")
            peer.sendall(head + b"\r\n\r\n")
            assert peer.recv(4096).startswith(b"HTTP/1.1 100")
            peer.sendall(body)
            assert b"HTTP/1.1 200" in read_answer(peer)
    arrived(pane, got, "ab")


def test_a_pane_that_has_gone(pane: Pane) -> None:
    """409 with what to do, by the quick way too."""
    typist = Typist(pane)
    assert [typist.key(key)[0] for key in "ab"] == [200, 200]
    pane.tmux("kill-session", "-t", pane.target.rstrip(":"))
    status, _, body = typist.key("c")
    assert (status, body["hint"]) == (409, f"ticketctl start {pane.ticket}")


@pytest.mark.parametrize("mode", ["copy-mode", "choose-tree", "clock-mode"])
def test_keys_leave_what_would_swallow_them(pane: Pane, got: Path, mode: str) -> None:
    """Somebody scrolled back at the desk, and left it so."""
    pane.tmux(mode, "-t", pane.target)
    typist = Typist(pane)
    assert [typist.key(key)[0] for key in "ab"] == [200, 200]
    pane.tmux(mode, "-t", pane.target)
    assert typist.ask({"viewer": ME, "paste": "pasted"})[0] == 200
    arrived(pane, got, "abpasted")
