"""One connection of HTTP: its limits, the stream that takes it over, and the same request again.

gevent's handler, with what of ours comes before a request is one. A person's keys come one by one,
each a request of its own over a connection that stays, and differ from the one before in their body
alone. So a head that says the same byte for byte is not read again: what can have changed since is
looked at, whether the login is still good and the page still has control, and the rest is known.

Such a key is typed by the loop's own callback, where nobody has to wait for anything. The greenlet of the
connection has its turn with the answer, when the echo has mostly been seen: until then a switch to it
would take the time of those the echo comes from.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from typing import Any, cast

from gevent import Timeout, get_hub, socket
from gevent.hub import Waiter
from gevent.pywsgi import WSGIHandler

from orchestrator.tmux_control import ECHO_S
from webgate import wire
from webgate.base import AGAIN, TAKEOVER, Again
from webgate.headers import Headers

MAX_HEADER_BYTES = 8 * 1024  # request line and headers
MAX_AGAIN = 8  # heads that a connection remembers: those of keys differ in their length
IDLE_S = 65.0  # a connection that neither asks nor reads for so long is closed
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class _Known:
    """A head that was read, let through and answered, and how its next body is."""

    again: Again
    environ: dict[str, Any]
    length: int  #: of head and body
    answer: tuple[bytes, bytes]  #: before and after the date


class _Unacceptable(ValueError):
    """What is refused before it is a request."""

    def __init__(self, status: str, code: str, message: str) -> None:
        super().__init__(message)
        body = json.dumps({"problem": code, "message": message, "hint": ""})
        self.answer = (
            status,
            f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"X-Content-Type-Options: nosniff\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode(),
        )


class Handler(WSGIHandler):
    """One connection."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        if sock.family != socket.AF_UNIX:
            # Else a second small request on a connection waits 40 ms for the first one's ACK.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(IDLE_S)
        self._again: dict[bytes, _Known] = {}
        self._head = b""
        self._is_read = False  # all that came was read: the next request has not begun
        self._ready: Any = None
        self._later: Any = None
        self._begun: tuple[_Known, Callable[[], None]] | None = None  # by the loop, and not ended
        super().__init__(sock, *args, **kwargs)

    def handle(self) -> None:
        """All requests of the connection."""
        try:
            super().handle()
        finally:
            for each in (self._ready, self._later):
                if each is not None:
                    each.close()

    def handle_one_request(self) -> Any:
        """The next one: as one before it, where it begins with the same head."""
        if self._is_read:
            try:
                self._wait()
            except OSError:
                return None
            if self._begun is not None:
                return self._end(*self._begun)
        self._is_read = False
        try:
            came = self.rfile.peek()
        except (OSError, ValueError):  # the peer has gone, or a stream has the connection
            return None
        self._head, end, _ = came.partition(_END)
        if not end:
            self._head = b""  # none yet, or a long one: nothing to remember it by
        elif known := self._again.get(self._head):
            self._is_read = len(came) == known.length
            return self._repeat(known)
        return super().handle_one_request()

    def _wait(self) -> None:
        """Until the next request comes; `_begun` is then what the loop did of it, if anything.

        Raises:
            TimeoutError: none came.
        """
        if self._ready is None:
            loop = get_hub().loop
            self._ready = loop.io(self.socket.fileno(), 1)
            self._later = loop.timer(ECHO_S, ECHO_S)
        waiter: Any = Waiter()
        self._begun = None
        idle = Timeout.start_new(IDLE_S, TimeoutError)
        self._ready.start(self._begin, waiter, idle)
        try:
            waiter.get()
        except BaseException:
            if self._begun is not None:  # ended from outside: the rest is to be done all the same
                with suppress(Exception):
                    self._begun[1]()
            raise
        finally:
            idle.close()
            self._ready.stop()
            self._later.stop()

    def _begin(self, waiter: Any, idle: Timeout) -> None:
        """In the loop. What is not done here is done by the greenlet, which finds out why."""
        self._ready.stop()
        idle.close()
        sock, gate = cast("Any", self.socket), cast("Any", self.server.application)
        try:
            data = sock._sock.recv(MAX_HEADER_BYTES, socket.MSG_PEEK)  # noqa: SLF001  # the plain one
            head, _, body = data.partition(_END)
            known = self._again.get(head)
            if known and len(data) == known.length and gate.still_at_once(known.environ):
                left = known.again.at_once(body)
                self._begun = (known, left) if left is not None else None
        except Exception:  # noqa: BLE001  # nothing was done
            self._begun = None
        if self._begun is None:
            waiter.switch(None)
        else:
            self._later.again(waiter.switch, None)

    def _end(self, known: _Known, left: Callable[[], None]) -> Any:
        """The rest of what the loop began, and the answer."""
        taken, sock = b"", cast("Any", self.socket)
        with suppress(OSError):  # it has gone meanwhile: what is left is done all the same
            taken = sock._sock.recv(known.length)  # noqa: SLF001  # which was only looked at
        done = self._answered(known, left)
        return done if len(taken) == known.length else None  # never the same once more

    def _repeat(self, known: _Known) -> Any:
        """As handle_one_request, of a head that is known."""
        try:
            data = self.rfile.read(known.length)
        except OSError:
            return None
        if len(data) < known.length:
            return None
        return self._answered(known, partial(self._act, known, data[len(self._head) + len(_END) :]))

    def _act(self, known: _Known, body: bytes) -> None:
        gate: Any = self.server.application
        gate.still(known.environ)  # asked now: the body may have come long after the head
        known.again.act(body)

    def _answered(self, known: _Known, act: Callable[[], None]) -> Any:
        try:
            act()
        except Exception as error:  # noqa: BLE001  # told as any other
            gate: Any = self.server.application
            self.environ = dict(known.environ)
            self.application = partial(gate.refuse, error)
            self.handle_one_response()
            return None if self.close_connection else True
        before, after = known.answer
        try:
            self.socket.sendall(before + formatdate(usegmt=True).encode() + after)
        except OSError:
            return None
        return True

    def MessageClass(self, *args: Any) -> Any:  # noqa: N802  # gevent's name
        """Reads the headers, within their limit."""
        rfile = args[0]
        left = MAX_HEADER_BYTES - len(self.requestline or "")
        lines = []
        while True:
            line = rfile.readline(left + 1)
            left -= len(line)
            if left < 0:
                raise _Unacceptable(
                    "431 Request Header Fields Too Large", "too-large", "The headers are too long."
                )
            if line in {b"\r\n", b"\n", b""}:
                break
            lines.append(line)
        headers = Headers(lines)
        if headers.get("Transfer-Encoding") is not None:
            raise _Unacceptable("411 Length Required", "invalid-input", "Send a Content-Length.")
        return headers

    def read_request(self, raw_requestline: Any) -> Any:
        """Refuses bodies nobody takes, before they are sent."""
        read = super().read_request(raw_requestline)
        if (self.content_length or 0) > wire.MAX_MESSAGE_BODY_BYTES:
            raise _Unacceptable("413 Content Too Large", "too-large", "The body is too long.")
        return read

    def _handle_client_error(self, ex: Exception) -> Any:
        if isinstance(ex, _Unacceptable):
            return ex.answer
        return _Unacceptable("400 Bad Request", "invalid-input", "That is no HTTP request.").answer

    def process_result(self) -> None:
        """Sends the answer; or the headers alone, and leaves the connection to a stream."""
        environ: dict[str, Any] = self.environ or {}
        take_over = environ.pop(TAKEOVER, None)
        if take_over is None or self.command != "GET" or self.code != 200:
            super().process_result()
            self._remember(environ)
            return
        self.close_connection = self.headers_sent = True
        # gevent keeps status and headers as bytes here, whatever its type information says.
        status: Any = self.status
        headers: Any = self.response_headers
        head = [b"HTTP/1.1 " + status, b"Connection: close"]
        head += [b"%s: %s" % each for each in headers if each[0].lower() != b"content-length"]
        self.socket.sendall(b"\r\n".join(head) + b"\r\n\r\n")
        # A stream lasts for hours: what is left of its request is a third of what a viewer costs.
        del environ, status, headers, head
        self.rfile.close()
        for name in ("environ", "headers", "requestline", "response_headers", "result"):
            setattr(self, name, None)
        take_over(self.socket)

    def _remember(self, environ: dict[str, Any]) -> None:
        again, said, head = environ.pop(AGAIN, None), self.result, self._head
        if again is None or self.code != 200 or self.close_connection or not isinstance(said, list):
            return
        # A line may end with LF alone: then the head may have ended before. And who expects something
        # wants to hear it before the body is sent.
        if not head or head.count(b"\n") != head.count(b"\r\n") or "HTTP_EXPECT" in environ:
            return
        headers: Any = self.response_headers
        lines = [b"%s: %s" % each for each in headers if each[0] != b"Date"]
        before = b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"Date: "])
        length = len(head) + len(_END) + int(self.content_length or 0)
        if len(self._again) >= MAX_AGAIN:
            self._again.clear()
        kept = {name: each for name, each in environ.items() if isinstance(each, str | bool)}
        self._again[head] = _Known(again, kept, length, (before, _END + b"".join(said)))
