"""The process: the socket it is given or binds, HTTP on it, and its end.

gevent's WSGIServer, with connections as connection.py has them. Which request may do what is auth.py's,
what it does app.py's business.
"""

from __future__ import annotations

import faulthandler
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
from gevent.pywsgi import WSGIServer

from orchestrator import config
from orchestrator.config_checks import is_loopback
from orchestrator.errors import ConfigError, TicketError
from orchestrator.store.db import Database
from orchestrator.store.green import install_wait_callback
from orchestrator.tmux_control import Control
from webgate import auth
from webgate.app import build
from webgate.base import Shared
from webgate.changes import Changes, Reader
from webgate.connection import Handler
from webgate.control import Controls
from webgate.forwarded import Proxies
from webgate.stream import MAX_STREAMS, Streams

USUAL_PORT = 3001
LISTEN_FD = 3  # sd_listen_fds(3)
BACKLOG = 4096  # what net.core.somaxconn allows; all pages come back at once after a restart
MAX_CONNECTIONS = MAX_STREAMS + 200  # past it the backlog waits
MAX_DATABASE_CONNECTIONS = 16  # PostgreSQL has a hundred, for all
CLOSE_S = 1.0
HUNG_S = 3.0  # beyond that: we are stuck
STOP_S = 5.0  # for requests that run when we are asked to end


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
