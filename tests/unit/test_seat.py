"""seat.py: what the dispatcher sees of a pane and types into it; against a real tmux."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import Unavailable
from orchestrator.seat import MAX_TYPED_BYTES, Seat

TICKET = 4
TARGET = f"=ticket-{TICKET}:"


class Desk:
    """A tmux server with the session of one ticket, whose program writes what it reads to a file."""

    def __init__(self, folder: Path) -> None:
        self.typed = folder / "typed"
        self.tmux("-f", "/dev/null", "new-session", "-d", "-s", "ticket-40", "sleep 600")
        program = f"stty raw -echo; printf '\\033[31mready\\033[0m'; exec cat > {self.typed}"
        self.tmux("new-session", "-d", "-s", f"ticket-{TICKET}", program)
        self.seat = Seat("seat-test")
        self.until("ready")

    def tmux(self, *argv: str) -> str:
        """Runs tmux on the server."""
        environ = {k: v for k, v in os.environ.items() if k != "TMUX"}
        done = subprocess.run(
            ["tmux", "-L", "seat-test", *argv], env=environ, capture_output=True, text=True,
            check=True, timeout=20,
        )  # fmt: skip
        return done.stdout

    def until(self, text: str) -> None:
        """Until the pane shows it."""
        deadline = time.monotonic() + 20
        while text not in self.seat.capture(TICKET):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def got(self, count: int) -> bytes:
        """What was typed, once it is so many bytes; a moment later, for more might come."""
        deadline = time.monotonic() + 20
        while self.typed.stat().st_size < count and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
        return self.typed.read_bytes()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A server of its own."""
    monkeypatch.setenv("TMUX_TMPDIR", str(tmp_path))
    made = Desk(tmp_path)
    with made.seat:
        yield made
    made.tmux("kill-server")


def test_it_sees_the_pane_as_it_is(desk: Desk) -> None:
    """Pid, colours, copy mode, its end; a session whose name only begins alike is another's."""
    pid = int(desk.tmux("list-panes", "-t", TARGET, "-F", "#{pane_pid}"))
    pane = desk.seat.pane(TICKET)
    assert pane is not None
    assert (pane.pid, pane.dead, pane.in_mode) == (pid, False, False)
    assert "\x1b[31mready" in desk.seat.capture(TICKET)
    desk.tmux("copy-mode", "-t", TARGET)
    assert desk.seat.pane(TICKET).in_mode  # type: ignore[union-attr]
    assert desk.seat.last_key_s(TICKET) == float("inf")
    desk.tmux("kill-session", "-t", TARGET)
    assert desk.seat.pane(TICKET) is None
    assert desk.seat.last_key_s(TICKET) == float("inf")
    for act in (
        desk.seat.capture,
        lambda n: desk.seat.keys(n, b"\r"),
        lambda n: desk.seat.paste(n, "x"),
    ):
        with pytest.raises(Unavailable):
            act(TICKET)


@pytest.mark.parametrize("size", [1, 2, MAX_TYPED_BYTES, MAX_TYPED_BYTES + 1])
def test_what_it_types_arrives_as_it_is(desk: Desk, size: int) -> None:
    """Short or long, hostile to shells and tmux, also out of copy mode."""
    hostile = "-R;\t'\"$(#{pid})\\ -R Enter 漢\n"
    text = (hostile * (size // len(hostile) + 1))[:size]
    desk.tmux("copy-mode", "-t", TARGET)
    desk.seat.paste(TICKET, text)
    desk.seat.keys(TICKET, b"\r\x03\x1b")
    sent = text.encode() + b"\r\x03\x1b"
    assert desk.got(len(sent)) == sent


@pytest.mark.parametrize("way", ["paste", "keys"])
def test_nothing_is_typed_twice(desk: Desk, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """The client goes away before it has answered: whether it typed nobody knows, and that is said."""
    desk.seat.pane(TICKET)  # there is a client
    peer = desk.seat._control._peer
    assert peer is not None

    class GoesAway:
        """Sends, and hears no more."""

        def sendall(self, data: bytes) -> None:
            """As the real one."""
            peer.sendall(data)

        def recv(self, _: int) -> bytes:
            """It has ended."""
            return b""

        close = peer.close

    monkeypatch.setattr(desk.seat._control, "_peer", GoesAway())
    with pytest.raises(Unavailable):
        desk.seat.paste(TICKET, "once") if way == "paste" else desk.seat.keys(TICKET, b"once")
    assert desk.got(4) in {b"once", b""}
    before = desk.got(0)
    assert desk.seat.pane(TICKET) is not None  # what only looks goes on with another client
    assert desk.got(0) == before


def test_a_server_that_came_back_is_seen_again(desk: Desk) -> None:
    """A new client for a new server, without an error in between."""
    assert desk.seat.pane(TICKET) is not None
    desk.tmux("kill-server")
    with pytest.raises(Unavailable):
        desk.seat.capture(TICKET)
    assert desk.seat.pane(TICKET) is None
    desk.tmux("-f", "/dev/null", "new-session", "-d", "-s", f"ticket-{TICKET}", "sleep 600")
    assert desk.seat.pane(TICKET) is not None
