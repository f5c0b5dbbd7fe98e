"""A crowd of viewers of one pane, in a process of its own beside the gateway.

Told what to do by lines on stdin, answers with a line of JSON each. Some of the crowd are watched:
when what they see was printed, and how much of it they got. The rest reads and throws away, one
kind slowly, one kind never.

    python3 -m tests.faults.viewers PORT TICKET --watched 10 --crowd 90 --slow 1 --dead 1   < commands

The token is the first line. Commands: `watch SECONDS`, `flood TEXT`, `dropped SECONDS`, `storm`.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
READ_BYTES = 256 * 1024
SLOW_BYTES_S = 1024
TAIL_CHARS = 64  # of an event's base64, to see how it ends
STAMP = re.compile(rb"@(\d{10,})@")  # what a pane prints: CLOCK_MONOTONIC in nanoseconds
#: Prints stamps, or a flood when it is told so.
STAMPS = """
import select, sys, time
block = "".join(f"{n:015d}\\n" for n in range(1000))
while True:
    if select.select([sys.stdin], [], [], 0.05)[0]:
        count = int(sys.stdin.readline())
        for n in range(0, count, 1000):
            sys.stdout.write(block)
        print(f"THE-END-{count}", flush=True)
    print(f"@{time.monotonic_ns()}@", flush=True)
"""


def request(port: int, ticket: int, token: str) -> bytes:
    """For the stream, from now on."""
    path = f"/api/ticket/{ticket}/stream?replay=0"
    lines = (f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode()


class Viewer:
    """One connection."""

    def __init__(self, port: int, ticket: int, token: str, receive_bytes: int = 0) -> None:
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(request(port, ticket, token))
        head = self.socket.recv(64)
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(head.decode(errors="replace"))
        self.socket.setblocking(False)
        self.rest = b""
        self.received = 0

    def take(self, data: bytes) -> list[bytes]:
        """How each whole `pane` event ends that came with `data`."""
        self.received += len(data)
        *whole, self.rest = (self.rest + data).split(b"\n\n")
        ends = []
        for event in whole:
            head, found, text = event.rpartition(b"data: ")
            if found and b"event: pane" in head:
                with suppress(ValueError):
                    ends.append(base64.b64decode(text[-TAIL_CHARS:]))
        return ends


class Crowd:
    """All of them, and one loop."""

    def __init__(self, port: int, ticket: int, token: str, counts: dict[str, int]) -> None:
        self._port, self._request = port, request(port, ticket, token)
        self._poll = select.epoll()
        self._buffer = bytearray(READ_BYTES)
        self._watched: dict[int, Viewer] = {}
        self._crowd: dict[int, Viewer] = {}
        self._slow: list[Viewer] = []
        self._dead: dict[int, Viewer] = {}
        self._back: list[socket.socket] = []
        self.dropped = 0
        for kind, kept in (("watched", self._watched), ("crowd", self._crowd)):
            for _ in range(counts[kind]):
                viewer = Viewer(port, ticket, token)
                kept[viewer.socket.fileno()] = viewer
                self._poll.register(viewer.socket, select.EPOLLIN)
        self._slow = [Viewer(port, ticket, token, 4096) for _ in range(counts["slow"])]
        for _ in range(counts["dead"]):
            viewer = Viewer(port, ticket, token, 4096)
            self._dead[viewer.socket.fileno()] = viewer
            self._poll.register(viewer.socket, 0)  # only that it was hung up
        self._slow_at = time.monotonic()

    def watch(self, seconds: float) -> dict[str, Any]:
        """Milliseconds from print to sight, of every stamp each watched one saw."""
        latencies: list[float] = []
        began_ns, deadline = time.monotonic_ns(), time.monotonic() + seconds
        while time.monotonic() < deadline:
            for _, ends, now_ns in self._look(0.1):
                stamps = [int(stamp) for end in ends for stamp in STAMP.findall(end)[-1:]]
                # what came while nobody read is no latency
                latencies += [(now_ns - stamp) / 1e6 for stamp in stamps if stamp > began_ns]
        return {"latencies_ms": [round(each, 3) for each in latencies]}

    def flood(self, text: str) -> dict[str, Any]:
        """Seconds until every watched one has seen `text`, and the bytes each received."""
        wanted, began = text.encode(), time.monotonic()
        before = {fd: viewer.received for fd, viewer in self._watched.items()}
        waiting = set(self._watched)
        while waiting:
            for fd, ends, _ in self._look(1):
                if any(wanted in end for end in ends):
                    waiting.discard(fd)
        took = time.monotonic() - began
        return {
            "seconds": took,
            "received": [v.received - before[fd] for fd, v in self._watched.items()],
        }

    def wait_dropped(self, seconds: float) -> dict[str, Any]:
        """Seconds until all the dead ones were hung up on; -1 when they were not."""
        began = time.monotonic()
        while self._dead and time.monotonic() < began + seconds:
            self._look(0.2)
        return {
            "seconds": -1 if self._dead else time.monotonic() - began,
            "others_dropped": self.dropped,
        }

    def storm(self) -> dict[str, Any]:
        """The crowd hangs up and comes back at once; seconds until each sees the pane again."""
        count, began, refused = len(self._crowd), time.monotonic(), 0
        for fd in list(self._crowd):
            self._forget(self._crowd, fd)
        coming: dict[int, tuple[socket.socket, bytes]] = {}
        for _ in range(count):
            self._come(coming)
        took: list[float] = []
        while len(took) < count:
            for fd, event in self._poll.poll(1):
                if fd not in coming:
                    continue
                peer, said = coming[fd]
                try:
                    if event & select.EPOLLOUT:
                        peer.sendall(self._request)
                        self._poll.modify(fd, select.EPOLLIN)
                        continue
                    data = peer.recv(READ_BYTES)
                except OSError:
                    data = b""
                coming[fd] = (peer, said + data)
                if b"event: pane" in said + data:
                    took.append(time.monotonic() - began)
                    self._poll.unregister(fd)  # who is back only has to be there
                    self._back.append(coming.pop(fd)[0])
                elif not data:  # not let in: once more
                    refused += 1
                    self._poll.unregister(fd)
                    coming.pop(fd)[0].close()
                    self._come(coming)
        return {"seconds": max(took), "median": sorted(took)[count // 2], "refused": refused}

    def _come(self, coming: dict[int, tuple[socket.socket, bytes]]) -> None:
        peer = socket.socket()
        peer.setblocking(False)
        peer.connect_ex(("127.0.0.1", self._port))
        coming[peer.fileno()] = (peer, b"")
        self._poll.register(peer, select.EPOLLOUT)

    def _look(self, timeout_s: float) -> list[tuple[int, list[bytes], int]]:
        """What the watched ones saw: who, how its events end, and when."""
        seen = []
        for fd, _ in self._poll.poll(timeout_s):
            if fd in self._dead:
                self._forget(self._dead, fd)
                continue
            kept = self._watched if fd in self._watched else self._crowd
            try:
                size = kept[fd].socket.recv_into(self._buffer)
            except BlockingIOError:
                continue
            except ConnectionError:
                size = 0
            now_ns = time.monotonic_ns()
            if not size:
                self.dropped += 1
                self._forget(kept, fd)
            elif kept is self._watched:
                seen.append((fd, kept[fd].take(bytes(self._buffer[:size])), now_ns))
        if time.monotonic() > self._slow_at + 1:
            self._slow_at = time.monotonic()
            for viewer in self._slow:
                with suppress(BlockingIOError, ConnectionError):
                    viewer.socket.recv(SLOW_BYTES_S)
        return seen

    def _forget(self, kept: dict[int, Viewer], fd: int) -> None:
        self._poll.unregister(fd)
        kept.pop(fd).socket.close()


class Audience:
    """The same from the outside: the process, in a machine's network when `prefix` leads there."""

    def __init__(
        self, prefix: Sequence[str], port: int, ticket: int, token: str, **counts: int
    ) -> None:
        argv = [*prefix, sys.executable, "-m", "tests.faults.viewers", str(port), str(ticket)]
        argv += [word for kind, count in counts.items() for word in (f"--{kind}", str(count))]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, bufsize=1
        )
        self._say(token)
        self.answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, command: str) -> dict[str, Any]:
        """One command and its answer."""
        self._say(command)
        return self.answer()

    def begin(self, command: str) -> None:
        """One command, whose answer is asked for later."""
        self._say(command)

    def answer(self) -> dict[str, Any]:
        """The next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the viewers' process ended"
        found: dict[str, Any] = json.loads(line)
        return found

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")


def main() -> None:
    """Connects, says so, and does what it is told."""
    parser = argparse.ArgumentParser("tests.faults.viewers")
    parser.add_argument("port", type=int)
    parser.add_argument("ticket", type=int)
    for kind in ("watched", "crowd", "slow", "dead"):
        parser.add_argument(f"--{kind}", type=int, default=0)
    options = vars(parser.parse_args())
    crowd = Crowd(options["port"], options["ticket"], sys.stdin.readline().strip(), options)
    print(json.dumps({"connected": True}), flush=True)
    for line in sys.stdin:
        verb, _, argument = line.strip().partition(" ")
        if verb == "watch":
            answer = crowd.watch(float(argument))
        elif verb == "flood":
            answer = crowd.flood(argument)
        elif verb == "storm":
            answer = crowd.storm()
        else:
            answer = crowd.wait_dropped(float(argument))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
