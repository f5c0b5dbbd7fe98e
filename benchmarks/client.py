"""One kind of client for every system: reads what a pane prints, types into it, and keeps the time.

Runs on the machine itself, as a process of its own. What it connects to, as one of connections.KINDS, is
JSON on the first line of stdin; then a command a line, each answered by a line of JSON:

    watch SECONDS    milliseconds from print to sight, of every stamp each watched connection saw
    echo COUNT       milliseconds from a key to its echo
    flood LINES      what came of that many numbered lines, and how fast
    say TEXT         seconds (CLOCK_REALTIME) when it was typed, and when that was acknowledged
    back             seconds (CLOCK_MONOTONIC) when stamps are seen again after a hang-up

    python3 -m benchmarks.client        (by measure.Client)
"""

from __future__ import annotations

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
from typing import Any

from benchmarks.connections import KINDS, READ_BYTES, Connection, WebSocket

STAMP = re.compile(rb"@(\d{10,})@")  # what agent.py prints: CLOCK_MONOTONIC in nanoseconds
LETTERS = "abcdefghijklmnopqrstuvwxyz"
GIVE_UP_S = 120.0
PONG_S = 1.0  # a ping waits no longer for a lull to be answered in: ttyd hangs up after 10 s
LULL_S = 0.025  # the stamps of one print come within 20 ms, those of the next 50 ms after it
DRAIN_S = 0.25  # what comes meanwhile is far less than the kernel keeps for a connection
QUIET_S = 10.0  # after which nothing more comes of a flood
PAUSE_S = 0.5  # of agent.py between THE-BEGIN and the flood


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

    def _taken(self, came: list[tuple[int, bytes, int]]) -> list[tuple[int, bytes, int]]:
        """What of it the pane printed; pings in it are answered."""
        return [(fd, self._watched[fd].take(data), at) for fd, data, at in came]

    def _look(self, timeout_s: float) -> list[tuple[int, bytes, int]]:
        """What the pane printed, as it came."""
        return self._taken(self._read(timeout_s))

    def settle(self, quiet_s: float = 0.3, most_s: float = 5.0) -> None:
        """Reads away what was there before; a pane that goes on printing is never quiet."""
        until = time.monotonic() + most_s
        while self._look(quiet_s) and time.monotonic() < until:
            pass

    def watch(self, argument: str) -> dict[str, Any]:
        """See the module."""
        latencies: list[float] = []
        # taken apart in a lull, as one must not wait for another's stamp; and seldom, as who was awake
        # for that between two stamps saw the second one a fifth sooner
        came: list[tuple[int, bytes, int]] = []
        taken: list[tuple[int, bytes, int]] = []
        began_ns, deadline = time.monotonic_ns(), time.monotonic() + float(argument)
        ends: dict[int, bytes] = {}
        newest = dict.fromkeys(self._watched, began_ns)  # a screen drawn again is no second sight
        while time.monotonic() < deadline:
            due = came and time.monotonic_ns() - came[0][2] > PONG_S * 1e9
            if news := self._read(LULL_S if due else 0.1):
                came += news
            elif came:
                taken += self._taken(came)
                came = []
        for fd, piece, now_ns in [*taken, *self._taken(came)]:
            text = ends.get(fd, b"") + piece
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
