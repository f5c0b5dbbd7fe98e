"""The real gateway as a process of its own, on a socket handed to it as systemd does."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from orchestrator.store import logins
from orchestrator.store.db import Database

ROOT = Path(__file__).resolve().parents[2]
# Puts the socket at 3 and says so under its own process id, which only the child knows.
_ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "webgate.main"])
"""


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


@dataclass
class StreamEvent:
    """One server-sent event; a comment has the kind ''."""

    kind: str
    data: bytes
    id: str

    def json(self) -> Any:
        """The data of everything but `pane`."""
        return json.loads(self.data)


@dataclass
class Gateway:
    """A running mc-webgate with folders and a database of its own."""

    folder: Path
    dsn: str
    environ: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self.listener.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self.state = self.folder / "state" / "mission-control"
        self.database = Database(self.dsn, application="test")
        self.start()
        self.secret = self.log_in()
        session = logins.find_session(self.database, self.secret)
        assert session is not None
        self.csrf = session.csrf
        self.token = (self.state / "token").read_text().strip()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.listener.close()
        self.database.close()

    def start(self, timeout_s: float = 20) -> None:
        """Returns when it said READY=1."""
        ready_path = self.folder / "n"
        ready_path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(f"/proc/self/fd/{os.open(self.folder, os.O_PATH)}/n")
            ready.settimeout(timeout_s)
            environ = {
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "PYTHONPATH": str(ROOT),
                "XDG_STATE_HOME": str(self.folder / "state"),
                "XDG_RUNTIME_DIR": str(self.folder / "run"),
                "MC_DATABASE_URL": self.dsn,
                "TMUX_TMPDIR": str(self.folder),
                "NOTIFY_SOCKET": str(ready_path),
                "LISTEN_FDS": "1",
                **self.environ,
            }
            self.log = (self.folder / "stderr").open("ab")
            fd = self.listener.fileno()
            self.process = subprocess.Popen(
                [sys.executable, "-c", _ACTIVATE, str(fd)],
                env=environ,
                pass_fds=[fd],
                stderr=self.log,
                cwd=ROOT,
            )
            assert b"READY=1" in ready.recv(4096)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it; its exit status."""
        self.process.send_signal(number)
        status = self.process.wait(15)
        self.log.close()
        return status

    def said(self) -> str:
        """What is on its stderr."""
        return (self.folder / "stderr").read_text()

    def log_in(self) -> str:
        """A session's secret, by the store alone."""
        secret = logins.redeem_link(self.database, logins.create_link(self.database))
        assert secret is not None
        return secret

    def pane_log(self, ticket: int) -> Path:
        """Where a ticket's pane log is; its folder is made."""
        path = self.state / "tickets" / str(ticket) / "pane.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def raw(self, data: bytes) -> bytes:
        """Bytes as they are, and all that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as peer:
            peer.sendall(data)
            found = b""
            while part := peer.recv(65536):
                found += part
            return found

    def ask(
        self, method: str, path: str, headers: dict[str, str | None] | None = None, body: Any = None
    ) -> Answer:
        """A request with exactly these headers beside Host; None takes one away."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        given = {"Host": self.host, **(headers or {})}
        data = body if isinstance(body, bytes | type(None)) else json.dumps(body).encode()
        sent = {name: value for name, value in given.items() if value is not None}
        if data is not None:
            sent.setdefault("Content-Length", str(len(data)))
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders(data)
        answer = connection.getresponse()
        found = Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        connection.close()
        return found

    def get(self, path: str, headers: dict[str, str | None] | None = None) -> Answer:
        """As somebody who is logged in."""
        return self.ask("GET", path, {"Cookie": f"mc_session={self.secret}", **(headers or {})})

    def post(self, path: str, body: Any, headers: dict[str, str | None] | None = None) -> Answer:
        """As a page of ours would."""
        given: dict[str, str | None] = {
            "Cookie": f"mc_session={self.secret}",
            "Origin": f"http://{self.host}",
            "Content-Type": "application/json",
            "X-CSRF-Token": self.csrf,
            "Sec-Fetch-Site": "same-origin",
        }
        return self.ask("POST", path, {**given, **(headers or {})}, body)

    def stream(
        self,
        ticket: int,
        query: str = "",
        last_event_id: str = "",
        timeout_s: float = 10,
        path: str = "",
    ) -> Stream:
        """An open stream of a ticket, or of `path`."""
        path = path or f"/api/ticket/{ticket}/stream{query}"
        return Stream(self, path, last_event_id, timeout_s)


class Stream:
    """A viewer: `with gateway.stream(4) as viewer: viewer.next("state")`."""

    def __init__(self, gateway: Gateway, path: str, last_event_id: str, timeout_s: float) -> None:
        self._socket = socket.create_connection(("127.0.0.1", gateway.port), timeout=timeout_s)
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {gateway.host}",
            f"Cookie: mc_session={gateway.secret}",
        ]
        if last_event_id:
            lines.append(f"Last-Event-ID: {last_event_id}")
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._file = self._socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()
        self.last_id = ""
        self.seen: list[StreamEvent] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def __iter__(self) -> Iterator[StreamEvent]:
        fields: dict[str, str] = {}
        while line := self._file.readline():
            text = line.decode().rstrip("\n")
            if text:
                name, _, value = text.partition(":")
                fields[name] = value.strip()
                continue
            event = StreamEvent(fields.get("event", ""), b"", fields.get("id", ""))
            raw = fields.get("data", "")
            event.data = base64.b64decode(raw) if event.kind == "pane" else raw.encode()
            self.last_id = event.id or self.last_id
            self.seen.append(event)
            fields = {}
            yield event

    def next(self, kind: str) -> StreamEvent:
        """The next event of that kind; what comes between is in `seen`."""
        for event in self:
            if event.kind == kind:
                return event
        raise EOFError(f"the stream ended before {kind!r}; seen: {[e.kind for e in self.seen]}")

    def read_until(self, end: bytes) -> bytes:
        """Pane bytes, until they end so."""
        found = b""
        for event in self:
            if event.kind == "pane":
                found += event.data
                if found.endswith(end):
                    return found
        raise EOFError(f"the stream ended after {found[-200:]!r}")
