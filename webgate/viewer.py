"""One browser with an open stream: what its socket takes, and when it is dropped.

No queue stands behind a viewer: news has one slot a kind, in which newer replaces older, and what
else there is to send is asked for piece by piece, when the socket takes one. What that is, stream.py
and board.py say.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import sys
import termios
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import gevent
from gevent.event import Event

HEARTBEAT_S = 15.0
STALLED_S = 30.0  # a client that takes nothing for so long is dropped
BURST = 8  # pieces for one viewer before the others have their turn
SEND_BUFFER_BYTES = 128 * 1024  # of the kernel for one viewer; it takes twice that
HEARTBEAT = b":\n\n"
RETRY = b"retry: 1000\n\n"


def encode(kind: str, data: Mapping[str, Any], event_id: str = "") -> bytes:
    """One event."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


class Viewer:
    """From the moment the headers are sent."""

    def __init__(self, connection: Any) -> None:
        self._socket: socket.socket = connection._sock  # the plain, non-blocking one  # noqa: SLF001
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.send = self._socket.send  #: for whoever sends the same to many
        self._pending = memoryview(RETRY)
        self._news: dict[str, bytes] = {}
        self._full = False
        self._held_bytes = 0
        self._moved_at = self._sent_at = time.monotonic()
        loop = gevent.get_hub().loop
        self._writable = loop.io(self._socket.fileno(), 2)
        self._readable = loop.io(self._socket.fileno(), 1)
        self.done = Event()

    def run(self) -> None:
        """Serves until either side hangs up. The greenlet only waits; callbacks do the work."""
        self._readable.start(self._hear)
        try:
            self.pump()
            self.done.wait()
        finally:
            for watcher in (self._writable, self._readable):
                watcher.stop()
                watcher.close()
            # Callbacks refer back to us: what we hold is to be let go now.
            self._pending = memoryview(b"")
            self.forget()

    def forget(self) -> None:
        """Lets files go."""

    def tell(self, news: Mapping[str, bytes]) -> None:
        """Passes news on; unsent older news of the same kind is dropped."""
        self._news.update(news)
        self.wake()

    def wake(self) -> None:
        """There may be something to send."""
        if not self._full and not self.done.is_set():
            self.pump()

    def sweep(self, now: float) -> None:
        """Once a second: a sign of life, or the end for somebody who does not read."""
        held = self._held()
        if held != self._held_bytes:  # a slow one may take it from the kernel for a long time
            self._held_bytes, self._moved_at = held, now
        if self._pending and now - self._moved_at > STALLED_S:
            # Reset instead of closed: else the kernel would keep what it holds for minutes.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.done.set()
        elif not self._pending and now - self._sent_at > HEARTBEAT_S:
            self._pending = memoryview(HEARTBEAT)
            self.wake()

    def pump(self) -> None:
        """Sends until the socket is full, there is nothing to send, or the others have a turn."""
        try:
            for _ in range(BURST):
                if not self._pending:
                    self._pending = memoryview(self._next())
                if not self._pending:
                    self._writable.stop()
                    self._full = False
                    self.rest()
                    return
                sent = self._socket.send(self._pending)
                self._pending = self._pending[sent:]
                self._moved_at = self._sent_at = time.monotonic()
        except BlockingIOError:
            pass
        except OSError:
            self.done.set()
            return
        except Exception as error:  # noqa: BLE001  # in the loop nobody else would hang up
            print(f"<3>a stream failed: {error!r:.300}", file=sys.stderr)  # noqa: T201
            self.done.set()
            return
        self._full = True
        self._writable.start(self.pump)

    def rest(self) -> None:
        """Nothing is left to send, for now."""

    def _next(self) -> bytes:
        """What to send now; nothing when there is nothing."""
        return self._news.pop(next(iter(self._news))) if self._news else b""

    def _held(self) -> int:
        """Bytes the kernel has of ours and the client has not taken."""
        try:
            (held,) = struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, b"\0" * 4))
        except OSError:
            return 0
        return int(held)

    def _hear(self) -> None:
        # An event stream's client has nothing more to say: it hung up, or it is none.
        with suppress(BlockingIOError):
            with suppress(ConnectionError):
                self._socket.recv(1)
            self.done.set()
