"""How each system is spoken to: what asks for a pane, what of the answer the pane printed, what types into it.

What is looked for in there, and when, is client.py's business.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

READ_BYTES = 256 * 1024
TEXT, BINARY, PING, PONG = 1, 2, 9, 10  # of WebSocket frames (RFC 6455, 5.2)


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
