"""The process: the socket it is given or binds, HTTP on it, and its end.

gevent's WSGIServer with the limits of ours that come before a request is one. Which request may do
what is auth.py's, what it does app.py's business.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
from gevent import socket
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from orchestrator import config
from orchestrator.config_checks import is_loopback
from orchestrator.errors import ConfigError, TicketError
from orchestrator.store.db import Database
from orchestrator.store.green import install_wait_callback
from orchestrator.tmux_control import Control
from webgate import auth, wire
from webgate.app import TAKEOVER, build
from webgate.base import Shared
from webgate.changes import Changes, Reader
from webgate.control import Controls
from webgate.forwarded import Proxies
from webgate.headers import Headers
from webgate.stream import MAX_STREAMS, Streams

USUAL_PORT = 3001
LISTEN_FD = 3  # sd_listen_fds(3)
BACKLOG = 4096  # what net.core.somaxconn allows; all pages come back at once after a restart
MAX_CONNECTIONS = MAX_STREAMS + 200  # past it the backlog waits
MAX_DATABASE_CONNECTIONS = 16  # PostgreSQL has a hundred, for all
MAX_HEADER_BYTES = 8 * 1024  # request line and headers
IDLE_S = 65.0  # a connection that neither asks nor reads for so long is closed
CLOSE_S = 1.0
HUNG_S = 3.0  # beyond that: we are stuck
STOP_S = 5.0  # for requests that run when we are asked to end


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
        super().__init__(sock, *args, **kwargs)

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


def notify(*lines: str) -> None:
    """Tells systemd; see sd_notify(3). Nothing happens where nobody asked, or asks any more."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as peer:
        peer.connect("\0" + address[1:] if address.startswith("@") else address)
        peer.sendall("\n".join(lines).encode())


def listening_socket(settings: config.Config) -> Any:
    """The socket systemd hands us, else one of our own at the configured address.

    Raises:
        ConfigError: systemd's is one that others reach, and nobody said that it is guarded.
    """
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        listener = socket.socket(fileno=LISTEN_FD)
        os.set_inheritable(LISTEN_FD, False)
        _refuse_open(listener, settings)
    else:
        listener = _own_socket(settings.listen_address)
    listener.setblocking(False)
    return listener


def _own_socket(address: tuple[str, int] | Path) -> Any:
    if isinstance(address, tuple):
        listener = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    else:
        address.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        address.unlink(missing_ok=True)  # what one that was killed left
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(address))
        address.chmod(0o600)
    listener.listen(BACKLOG)
    return listener


def _refuse_open(listener: Any, settings: config.Config) -> None:
    if listener.family == socket.AF_UNIX or settings.gateway.origin:
        return
    host = listener.getsockname()[0]
    if not is_loopback(host):
        raise ConfigError(
            f"mc-webgate.socket listens on {host}, which others reach without TLS.",
            hint="Mend ListenStream=, or say in gateway.origin where your proxy serves it over TLS.",
        )


def known_origins(listener: Any, origin: str) -> dict[str, str]:
    """The Host headers the gateway answers to, each with the origin of its pages.

    `origin` is what a proxy serves it as, or empty. Through ssh -L, a Unix socket is at the usual port.
    """
    by_path = listener.family == socket.AF_UNIX
    port = USUAL_PORT if by_path else listener.getsockname()[1]
    hosts = [f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")]
    hosts += ["localhost"] if by_path else []  # curl --unix-socket
    known = {host: f"http://{host}" for host in hosts}
    if origin:
        known[origin.removeprefix("https://")] = origin
    return known


def serve() -> None:
    """Answers until SIGTERM or SIGINT."""
    try:
        settings = config.load()
        auth.ensure_token(settings.token_path)
        listener = listening_socket(settings)
    except (TicketError, OSError) as error:
        print(f"<3>{error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_status if isinstance(error, TicketError) else 1)
    install_wait_callback()
    database = Database(
        settings.database_dsn, application="mc-webgate", max_open=MAX_DATABASE_CONNECTIONS
    )
    tmux = Control(settings.tmux.socket)
    streams, controls = Streams(tmux), Controls()
    reader = Reader(settings, database, controls)
    changes = Changes(database, streams, reader)
    gate = auth.Gate(
        build(Shared(settings, database, streams, tmux, controls, reader)),
        database=database,
        origins=known_origins(listener, settings.gateway.origin),
        token_path=settings.token_path,
        proxies=Proxies(settings.gateway.trusted_proxies),
    )
    server = WSGIServer(
        listener, gate, log=None, handler_class=Handler, spawn=Pool(MAX_CONNECTIONS)
    )
    stopping = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stopping.set)
    server.start()
    notify("READY=1", f"STATUS=Listening, {settings.gateway_url}")
    stopping.wait()
    notify("STOPPING=1")
    # What would hold us up for longer is told, with its place, and does not.
    faulthandler.dump_traceback_later(STOP_S + HUNG_S, exit=True)
    changes.close()
    streams.close()
    server.stop(timeout=STOP_S)
    # Its client ends with its socket anyway; a look at a pane may hold it for seconds yet.
    gevent.with_timeout(CLOSE_S, tmux.close, timeout_value=None)
    database.close()
