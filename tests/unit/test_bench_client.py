"""What a bench's client makes of what each kind of system sends it."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.connections import KINDS, PING, PONG

REPOSITORY = Path(__file__).resolve().parents[2]
WAIT_S = 20.0


class Looker:
    """A client's process that has connected, and the system's end of its connection."""

    def __init__(self, process: subprocess.Popen[bytes], peer: socket.socket) -> None:
        self._process = process
        self.peer = peer

    def begin(self, command: str) -> None:
        """One command."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next answer."""
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found


@contextmanager
def looking(kind: str, log: Path) -> Iterator[Looker]:
    """A client of a system that only this test speaks for; where it reads the log, nobody does."""
    argv = [sys.executable, "-m", "benchmarks.client"]
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        subprocess.Popen(
            argv, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process,
    ):
        try:
            server.settimeout(WAIT_S)
            port = server.getsockname()[1]
            looker = Looker(process, server)
            looker.begin(json.dumps({"kind": kind, "port": port, "path": "/", "log": str(log)}))
            if kind != "log":
                looker.peer, _ = server.accept()
                looker.peer.settimeout(WAIT_S)
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += looker.peer.recv(4096)
                status = b"101 Switching Protocols" if b"Upgrade:" in asked else b"200 OK"
                looker.peer.sendall(b"HTTP/1.1 " + status + b"\r\n\r\n")
            assert looker.answer() == {"connected": True}
            with looker.peer:
                yield looker
        finally:
            process.kill()


def frame(opcode: int, body: bytes) -> bytes:
    """One frame of a server."""
    return bytes([0x80 | opcode, len(body)]) + body


def printed(kind: str, text: bytes) -> bytes:
    """How a system of that kind says that the pane printed this."""
    if kind == "events":
        return b"event: pane\ndata: " + base64.b64encode(text) + b"\n\n"
    if kind == "websocket":
        return frame(1, json.dumps(["stdout", text.decode()]).encode())
    return frame(2, b"0" + text) if kind == "ttyd" else text


@pytest.mark.parametrize("kind", KINDS)
def test_each_stamp_is_seen_once(kind: str, tmp_path: Path) -> None:
    """Whoever speaks; not a second time where the screen is drawn again."""
    log = tmp_path / "pane.log"
    log.touch()
    with looking(kind, log) as looker:
        # of a later hour: those from before a look are none of it
        later_ns = time.monotonic_ns() + 3_600_000_000_000
        one, two = b"@%d@\r\n" % later_ns, b"@%d@\r\n" % (later_ns + 1)
        said = [one, one + two]
        if kind == "log":
            with log.open("ab") as file:
                file.write(b"".join(said))
        else:
            looker.peer.sendall(b"".join(printed(kind, text) for text in said))
        looker.begin("watch 0.2")
        assert len(looker.answer()["ms"]) == 2


def pong(looker: Looker, body: bytes) -> bool:
    """Whether this one came; a system waits for it, so anything else there is wrong."""
    wanted = bytes([0x80 | PONG, 0x80 | len(body), 0, 0, 0, 0]) + body  # masked with zeros
    try:
        found = looker.peer.recv(len(wanted))
    except TimeoutError:
        return False
    assert found == wanted
    return True


def test_a_ping_is_answered_in_mid_look(tmp_path: Path) -> None:
    """Or a system that waits for it hangs up: in a quiet pane, within a frame, and between stamps."""
    with looking("websocket", tmp_path) as looker:
        looker.begin("watch 4")
        looker.peer.sendall(frame(PING, b"begun"))  # between commands nobody reads
        assert pong(looker, b"begun")
        one, two = (b"@%d@" % time.monotonic_ns() for _ in range(2))
        first, rest = printed("websocket", one + two[:9]), printed("websocket", two[9:])
        looker.peer.sendall(first + frame(PING, b"half a stamp") + rest[:9])
        assert pong(looker, b"half a stamp")
        looker.peer.sendall(rest[9:] + frame(PING, b"stamps"))
        looker.peer.settimeout(0.05)  # as agent.py prints them
        stamps, answered = 2, False
        while not answered:  # the last stamp comes after the pong, and the look must not be over
            answered = pong(looker, b"stamps")
            stamps += 1
            looker.peer.sendall(printed("websocket", b"@%d@" % time.monotonic_ns()))
        assert len(looker.answer()["ms"]) == stamps
