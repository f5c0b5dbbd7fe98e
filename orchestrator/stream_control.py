"""The Unix socket by which others speak to `stream_agent.py`: one JSON object a line, one answer each.

Between dispatch and SESSION. The socket is 0600 in the ticket's runtime folder. What is asked is

    {"type": "message", "id": UUID, "text": …}   -> {"ok": true, "uuid": UUID} once the agent has it all
    {"type": "interrupt"}                        -> {"ok": true}

and a refusal `{"ok": false, "reason": …, "taken": false}`: nothing of it reached the agent. The
server side never blocks; `call()` is the client's. What a request does is decided in the agent.
"""

from __future__ import annotations

import json
import os
import select
import socket
import stat
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_CONNECTIONS = 16  # at once; the next wait to be accepted
MAX_REQUEST_BYTES = 8 * 1024 * 1024  # a message of 1 MB in JSON's longest spelling
READ_BYTES = 65536
NAME = "control.sock"


class CallError(OSError):
    """It could not be asked. `sent`: it may have got the request all the same."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


def call(path: Path, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """Asks one thing.

    Raises:
        CallError: nobody answers.
    """
    line = json.dumps(request).encode() + b"\n"
    sent = False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s)
            # its folder is the agent's: a link would lead to another's socket
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise CallError(f"{path} is no socket", sent=False)
            sock.connect(str(path))
            sent = True  # from the first byte on nobody knows
            sock.sendall(line)
            got = b""
            while not got.endswith(b"\n") and (chunk := sock.recv(READ_BYTES)):
                got += chunk
        answer = json.loads(got or "it left without an answer")
    except (OSError, ValueError) as error:
        raise CallError(str(error), sent=sent) from None
    return answer if isinstance(answer, dict) else {}


def message_of(request: Mapping[str, Any]) -> tuple[str, str] | None:
    """Key and text of a request to take a message; None when it is not whole."""
    key, text = request.get("id"), request.get("text")
    try:
        key = str(uuid.UUID(key)) if isinstance(key, str) else ""
    except ValueError:
        key = ""
    return (key, text) if key and isinstance(text, str) and text.strip() else None


def refusal(reason: str) -> dict[str, Any]:
    """The answer to a request of which nothing reached the agent."""
    return {"ok": False, "reason": reason, "taken": False}


@dataclass(eq=False)
class Caller:
    """Somebody who is connected."""

    sock: socket.socket
    got: bytearray = field(default_factory=bytearray)
    unsent: bytearray = field(default_factory=bytearray)
    gone: bool = False

    def answer(self, value: Mapping[str, Any]) -> None:
        """Says it, now or when there is room."""
        self.unsent += json.dumps(value).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Writes what the socket takes."""
        while self.unsent and not self.gone:
            try:
                del self.unsent[: self.sock.send(self.unsent)]
            except BlockingIOError:
                return
            except OSError:
                self.gone = True


class Control:
    """The listening side.

    Raises:
        OSError: the socket cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)  # of a process that was killed
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            self._listener.bind(str(path))
        finally:
            os.umask(before)
        self._listener.listen(MAX_CONNECTIONS)
        self._listener.setblocking(False)
        self._callers: dict[int, Caller] = {}

    def watched(self) -> dict[int, int]:
        """File descriptors, with what to poll them for."""
        fds = {
            fd: select.POLLIN | (select.POLLOUT if caller.unsent else 0)
            for fd, caller in self._callers.items()
        }
        if len(fds) < MAX_CONNECTIONS:
            fds[self._listener.fileno()] = select.POLLIN
        return fds

    def handle(self, fd: int) -> list[tuple[Caller, dict[str, Any] | None]]:
        """What is asked over a descriptor that is ready; None for what is no request."""
        if fd == self._listener.fileno():
            try:
                sock, _ = self._listener.accept()
            except OSError:  # it left again
                return []
            sock.setblocking(False)
            fd = sock.fileno()  # who connects has something to ask: it is most likely there already
            self._callers[fd] = Caller(sock)
        caller = self._callers.get(fd)
        if caller is None:
            return []
        caller.flush()
        asked = self._read(caller)
        if caller.gone:
            del self._callers[fd]
            caller.sock.close()
        return asked

    @staticmethod
    def _read(caller: Caller) -> list[tuple[Caller, dict[str, Any] | None]]:
        try:
            data = caller.sock.recv(READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data or len(caller.got) > MAX_REQUEST_BYTES:
            caller.gone = True
            return []
        caller.got += data
        *lines, rest = caller.got.split(b"\n")
        caller.got = bytearray(rest)
        asked: list[tuple[Caller, dict[str, Any] | None]] = []
        for line in lines:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            asked.append((caller, value if isinstance(value, dict) else None))
        return asked

    def close(self) -> None:
        """Nobody can ask any more."""
        self._path.unlink(missing_ok=True)
        self._listener.close()
        for caller in self._callers.values():
            caller.sock.close()
        self._callers.clear()
