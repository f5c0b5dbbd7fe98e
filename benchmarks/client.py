"""One kind of client for every system: reads what a pane prints, types into it, and keeps the time.

Runs on the machine itself, as a process of its own. What it connects to is JSON on the first line of
stdin; then a command a line, each answered by a line of JSON:

    watch SECONDS    milliseconds from print to sight, of every stamp each watched connection saw
    echo COUNT       milliseconds from a key to its echo
    flood LINES      what came of that many numbered lines, and how fast
    say TEXT         seconds (CLOCK_REALTIME) when it was typed, and when that was acknowledged
    back             seconds (CLOCK_MONOTONIC) when stamps are seen again after a hang-up

    python3 -m benchmarks.client        (by measure.Client)
"""

from __future__ import annotations

import base64
import binascii
import gc
import json
import os
import re
import resource
import select
import socket
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

READ_BYTES = 256 * 1024
STAMP = re.compile(rb"@(\d{10,})@")  # what agent.py prints: CLOCK_MONOTONIC in nanoseconds
LETTERS = "abcdefghijklmnopqrstuvwxyz"
GIVE_UP_S = 120.0
DRAIN_S = 0.25  # what comes meanwhile is far less than the kernel keeps for a connection
TEXT, BINARY, PING, PONG = 1, 2, 9, 10  # of WebSocket frames (RFC 6455, 5.2)
QUIET_S = 10.0  # after which nothing more comes of a flood
PAUSE_S = 0.5  # of agent.py between THE-BEGIN and the flood


class Connection:
    """One look at a pane. `take` gives what the pane printed out of what came."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.rest = b""
        self.socket = socket.create_connection(("127.0.0.1", spec["port"]), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.greet()
        self.socket.setblocking(False)

    def fileno(self) -> int:
        """For epoll."""
        return self.socket.fileno()

    def read(self) -> bytes:
        """What came; raises when hung up on."""
        with suppress(BlockingIOError):
            if data := self.socket.recv(READ_BYTES):
                return data
            raise ConnectionError("hung up on")
        return b""

    def greet(self) -> None:
        """The request, up to the end of the answer's headers."""
        lines = [f"GET {self.spec['path']} HTTP/1.1", f"Host: 127.0.0.1:{self.spec['port']}"]
        lines += [f"{name}: {value}" for name, value in self.spec.get("headers", {}).items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self.rest:
            self.rest += self.socket.recv(4096)
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        if head.split(b" ")[1] not in {b"200", b"101"}:
            raise ConnectionError(head.decode(errors="replace"))

    def take(self, data: bytes) -> bytes:
        """The pane's bytes."""
        raise NotImplementedError

    def keys(self, text: str) -> tuple[socket.socket, bytes]:
        """What types them: what to send, and where."""
        raise NotImplementedError

    def type(self, text: str) -> None:
        """Keys."""
        peer, data = self.keys(text)
        peer.sendall(data)

    def typed(self) -> None:
        """Waits until the keys were taken; not part of an echo's time."""


class Events(Connection):
    """Server-sent events, and keys by POST on a second connection that stays."""

    _keys: socket.socket | None = None

    def take(self, data: bytes) -> bytes:
        """Of `pane` events in base64, or of asciinema's lines."""
        data = self.rest + data if self.rest else data
        found, at = [], 0
        while (end := data.find(b"\n\n", at)) >= 0:
            text = data.find(b"data: ", at, end) + len(b"data: ")
            if self.spec.get("asciinema"):
                with suppress(ValueError, IndexError, KeyError):
                    said = json.loads(data[text:end])
                    found += [said[2].encode()] if said[1] == "o" else []
            elif data.find(b"event: pane", at, text) >= 0:
                found.append(binascii.a2b_base64(memoryview(data)[text:end]))
            at = end + 2
        self.rest = data[at:]
        return b"".join(found)

    def keys(self, text: str) -> tuple[socket.socket, bytes]:
        """One POST."""
        if self._keys is None:
            self._keys = socket.create_connection(("127.0.0.1", self.spec["port"]))
            self._keys.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if before := self.spec.get("before"):
                self._keys.sendall(self._post(*before))
                self.typed()
        path, body = self.spec["keys"]
        return self._keys, self._post(path, {**body, self.spec["key_name"]: text})

    def _post(self, path: str, body: dict[str, Any]) -> bytes:
        text = json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{self.spec['port']}",
                 "Content-Type: application/json", f"Content-Length: {len(text)}"]  # fmt: skip
        lines += [f"{name}: {value}" for name, value in self.spec.get("headers", {}).items()]
        return "\r\n".join([*lines, "", ""]).encode() + text

    def typed(self) -> None:
        """The answer of the POST."""
        assert self._keys is not None  # noqa: S101  # `keys` made it
        said = b""
        while b"\r\n\r\n" not in said:
            said += self._keys.recv(65_536)
        head, _, body = said.partition(b"\r\n\r\n")
        if not head.split(b" ")[1].startswith(b"2"):
            raise ConnectionError(said.decode(errors="replace"))
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        while length and len(body) < int(length[1]):
            body += self._keys.recv(65_536)


def _frame(body: bytes, opcode: int = TEXT) -> bytes:
    """One frame of a client, masked with zeros."""
    return bytes([0x80 | opcode, 0x80 | len(body), 0, 0, 0, 0]) + body


class WebSocket(Connection):
    """terminado's: a list of JSON in each frame."""

    protocol = ""

    def greet(self) -> None:
        """The upgrade."""
        key = base64.b64encode(os.urandom(16)).decode()
        self.spec["headers"] = {
            "Upgrade": "websocket", "Connection": "Upgrade",
            "Sec-WebSocket-Key": key, "Sec-WebSocket-Version": "13",
            **({"Sec-WebSocket-Protocol": self.protocol} if self.protocol else {}),
        }  # fmt: skip
        super().greet()

    def take(self, data: bytes) -> bytes:
        """Of whole frames; a server's are not masked."""
        self.rest += data
        at, found = 0, []
        while len(self.rest) - at >= 2:
            size, body = self.rest[at + 1] & 127, at + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                size, body = int.from_bytes(self.rest[body : body + width], "big"), body + width
            if len(self.rest) < body + size:
                break
            opcode, content = self.rest[at] & 15, self.rest[body : body + size]
            found.append(self.of(opcode, content))
            if opcode == PING:
                self.socket.sendall(_frame(content, PONG))
            at = body + size
        self.rest = self.rest[at:]
        return b"".join(found)

    def of(self, opcode: int, body: bytes) -> bytes:
        """What a frame says the pane printed."""
        if opcode != TEXT:
            return b""
        said: list[str] = json.loads(body)
        return said[1].encode() if said[0] == "stdout" else b""

    def keys(self, text: str) -> tuple[socket.socket, bytes]:
        """One frame."""
        return self.socket, _frame(json.dumps(["stdin", text]).encode())


class Ttyd(WebSocket):
    """ttyd's: a letter before the bytes; 0 is output, and input."""

    protocol = "tty"

    def greet(self) -> None:
        """The upgrade, and how large the terminal is."""
        super().greet()
        size = {"AuthToken": "", "columns": 80, "rows": 24}
        self.socket.sendall(_frame(json.dumps(size).encode()))

    def of(self, opcode: int, body: bytes) -> bytes:
        """See WebSocket."""
        return body[1:] if opcode == BINARY and body[:1] == b"0" else b""

    def keys(self, text: str) -> tuple[socket.socket, bytes]:
        """One frame."""
        return self.socket, _frame(b"0" + text.encode())


class Log(Connection):
    """The floor: whoever reads the pane log when inotify says that it grew."""

    def __init__(self, spec: dict[str, Any]) -> None:
        from watchdog.observers import inotify_c  # noqa: PLC0415  # only on machines with the product

        self.spec = spec
        self._watch = inotify_c.inotify_init()
        inotify_c.inotify_add_watch(
            self._watch, os.fsencode(spec["log"]), inotify_c.InotifyConstants.IN_MODIFY
        )
        os.set_blocking(self._watch, False)
        self._file = Path(spec["log"]).open("rb", buffering=0)  # noqa: SIM115
        self._file.seek(0, os.SEEK_END)

    def fileno(self) -> int:
        """inotify's."""
        return int(self._watch)

    def read(self) -> bytes:
        """All that is new."""
        with suppress(BlockingIOError):
            os.read(self._watch, 65_536)
        return self._file.read()

    def take(self, data: bytes) -> bytes:
        """As it is."""
        return data


KINDS = {"events": Events, "websocket": WebSocket, "ttyd": Ttyd, "log": Log}


def _drain(others: list[Connection]) -> None:
    """A process that throws away what comes for them, until its parent has gone."""
    parent = os.getpid()
    if os.fork():
        return
    os.close(0)
    os.close(1)
    sockets, room = [one.socket for one in others], bytearray(READ_BYTES)
    while os.getppid() == parent:
        time.sleep(DRAIN_S)
        for each in sockets:
            with suppress(OSError):  # MSG_TRUNC: the kernel drops it, nothing is copied
                each.recv_into(room, READ_BYTES, socket.MSG_TRUNC | socket.MSG_DONTWAIT)
    os._exit(0)


class Crowd:
    """All connections; `watched` of them, evenly spread over the order they came in, are looked at.

    Viewers are elsewhere: on this machine they share its cores with what they look at. So those who
    are not watched are read by a process of their own, now and then, as cheaply as it can be done, and
    do not stand before those who are.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        made = [KINDS[spec["kind"]](dict(spec)) for _ in range(spec.get("viewers", 1))]
        apart = max(1, len(made) // spec.get("watched", 1))
        watched = made[apart // 2 :: apart]
        if others := [one for one in made if one not in watched]:
            _drain(others)
        self._watched = {one.fileno(): one for one in watched}
        self._one = watched[0]
        self._poll = select.epoll()
        for fd in self._watched:
            self._poll.register(fd, select.EPOLLIN)

    def _read(self, timeout_s: float) -> list[tuple[int, bytes, int]]:
        """What came, as it came: connection, bytes, and when."""
        seen = []
        for fd, _ in self._poll.poll(timeout_s):
            data = self._watched[fd].read()
            now_ns = time.monotonic_ns()
            if data:
                seen.append((fd, data, now_ns))
        return seen

    def _look(self, timeout_s: float) -> list[tuple[int, bytes, int]]:
        """The same, and what of it the pane printed."""
        return [(fd, self._watched[fd].take(data), at) for fd, data, at in self._read(timeout_s)]

    def settle(self, quiet_s: float = 0.3, most_s: float = 5.0) -> None:
        """Reads away what was there before; a pane that goes on printing is never quiet."""
        until = time.monotonic() + most_s
        while self._look(quiet_s) and time.monotonic() < until:
            pass

    def watch(self, argument: str) -> dict[str, Any]:
        """See the module."""
        latencies: list[float] = []
        came: list[tuple[int, bytes, int]] = []  # read later: one must not wait for another's stamp
        began_ns, deadline = time.monotonic_ns(), time.monotonic() + float(argument)
        ends: dict[int, bytes] = {}
        newest = dict.fromkeys(self._watched, began_ns)  # a screen drawn again is no second sight
        while time.monotonic() < deadline:
            came += self._read(0.1)
        for fd, data, now_ns in came:
            text = ends.get(fd, b"") + self._watched[fd].take(data)
            last = 0
            for found in STAMP.finditer(text):
                last = found.end()
                if (printed_ns := int(found[1])) > newest[fd]:
                    newest[fd] = printed_ns
                    latencies.append((now_ns - printed_ns) / 1e6)
            ends[fd] = text[last:][-24:]  # a stamp in two pieces
        return {"ms": latencies}

    def echo(self, argument: str) -> dict[str, Any]:
        """See the module."""
        self._one.type(LETTERS[-1])  # the first one also makes the connection
        self.settle()
        self._one.typed()
        found = []
        for number in range(int(argument)):
            letter = LETTERS[number % (len(LETTERS) - 1)]
            peer, data = self._one.keys(letter)
            begun_ns = time.monotonic_ns()
            peer.sendall(data)
            seen: list[int] = []
            while not seen:
                seen = [at for _, text, at in self._look(1) if letter.encode() in text]
                if time.monotonic_ns() > begun_ns + GIVE_UP_S * 1e9:
                    raise SystemExit(f"no echo of {letter}")
            found.append((seen[0] - begun_ns) / 1e6)
            self._one.typed()
            time.sleep(0.02)  # a key at a time, as typed
        return {"ms": found}

    def flood(self, argument: str) -> dict[str, Any]:
        """See the module."""
        lines, typed = int(argument), time.monotonic()
        types = "keys" in self._one.spec or isinstance(self._one, WebSocket)
        if types and not self._one.spec.get("read_only"):
            self._one.type(f"flood {lines}\r")
            self._one.typed()
        else:
            print(json.dumps({"go": True}), flush=True)
        fd, begun, rest, crc, seen = self._one.fileno(), 0.0, b"", 0, 0
        last = deadline = time.monotonic() + GIVE_UP_S
        while time.monotonic() < min(deadline, last + QUIET_S):
            for which, piece, now_ns in self._look(1):
                if which != fd:
                    continue
                last = now_ns / 1e9 if piece else last  # a ping is none
                rest += piece
                if not begun:
                    _, there, after = rest.partition(b"THE-BEGIN\r\n")
                    if not there:
                        continue
                    rest, begun = after, now_ns / 1e9
                end = rest.find(b"THE-END")
                body = rest[:end] if end >= 0 else rest[:-16]
                crc, seen = zlib.crc32(body, crc), seen + body.count(b"\n")
                if end >= 0:
                    exact = crc == crc_of(lines)
                    share = 1.0 if exact else min(seen / lines, 0.999)
                    now = now_ns / 1e9
                    # one that holds the beginning back until there is more is timed from the key
                    since = begun if now - begun > PAUSE_S else typed
                    return {"seconds": now - since - PAUSE_S, "share": share}
                rest = rest[-16:]
        # the end was lost: until what came last
        return {
            "seconds": max(last - (begun or typed) - PAUSE_S, 0.1),
            "share": min(seen / lines, 0.999),
        }

    def say(self, argument: str) -> dict[str, Any]:
        """See the module."""
        begun = time.time()
        self._one.type(argument)
        self._one.typed()
        return {"at": begun, "acknowledged": time.time()}

    def back(self, _: str) -> dict[str, Any]:
        """See the module."""
        one, deadline = self._one, time.monotonic() + GIVE_UP_S
        while True:
            try:
                select.select([one], [], [], 1)
                seen = one.take(one.read())
            except OSError:
                seen = b""
                with suppress(OSError):
                    one = KINDS[one.spec["kind"]](one.spec)
            if one is not self._one and STAMP.search(seen):
                return {"at": time.monotonic()}
            if time.monotonic() > deadline:
                raise SystemExit("the pane was not seen again")


def crc_of(lines: int) -> int:
    """Of what a terminal makes of the numbered lines of agent.py."""
    crc = 0
    for start in range(0, lines, 10_000):
        block = "".join(f"{n:015d}\r\n" for n in range(start, min(lines, start + 10_000)))
        crc = zlib.crc32(block.encode(), crc)
    return crc


def main() -> None:
    """Connects, says so, and does what it is told."""
    gc.disable()  # a walk of its collector would be 3 ms of some stamp's, always the same one
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd(json.loads(sys.stdin.readline()))
    crowd.settle(0.1, most_s=0.5)
    print(json.dumps({"connected": True}), flush=True)
    for line in sys.stdin:
        verb, _, argument = line.strip().partition(" ")
        does = {"watch": crowd.watch, "echo": crowd.echo, "flood": crowd.flood,
                "say": crowd.say, "back": crowd.back}  # fmt: skip
        print(json.dumps(does[verb](argument)), flush=True)


if __name__ == "__main__":
    main()
