"""The agent's process behind `stream_agent.py`: JSON lines to it and from it, over pipes.

Beside the flow: used by `stream_agent.py` and `oneshot_agent.py`. Never blocks: what the pipe does
not take yet is kept, and what comes is given out line by line in bounded memory. What the lines
mean is not decided here; that only whole JSON lines are ever written is, for anything else ends the
agent.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

MAX_LINE_BYTES = 64 * 1024 * 1024  # of a longer one nothing is kept but that it was there
TOO_LONG = b"[a line of more than %d bytes was left out]" % MAX_LINE_BYTES
MAX_UNSENT_BYTES = 64 * 1024 * 1024  # what the agent does not read; past it nothing more is taken
READ_BYTES = 262_144


class Lines:
    """Bytes in whatever pieces, to whole lines."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete with these bytes, without their ends."""
        *whole, rest = data.split(b"\n")
        found = []
        for piece in whole:
            if not self._skipping:
                found.append(b"".join([*self._parts, piece]))
            self._parts, self._size, self._skipping = [], 0, False
        if rest and not self._skipping:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > MAX_LINE_BYTES:
                self._parts, self._size, self._skipping = [], 0, True
                found.append(TOO_LONG)
        return [line for line in found if line]

    def rest(self) -> list[bytes]:
        """What stands there at the end without a line's end."""
        rest, self._parts = b"".join(self._parts), []
        return [rest] if rest else []


class Child:
    """The running agent.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        # A session of its own: the terminal, its keys and its hang-up are not the agent's.
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environ),
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr  # noqa: S101, PT018
        self._stdin = self._process.stdin.fileno()
        self.stdout = self._process.stdout.fileno()
        self.stderr = self._process.stderr.fileno()
        self.pidfd = os.pidfd_open(self._process.pid)
        for fd in (self._stdin, self.stdout, self.stderr):
            os.set_blocking(fd, False)
        self._unsent = bytearray()
        self._closing = False
        self._queued_bytes = 0
        self._written_bytes = 0
        self._lines = {self.stdout: Lines(), self.stderr: Lines()}

    @property
    def takes_more(self) -> bool:
        """Whether something can still be said to it."""
        return self._stdin >= 0 and not self._closing and len(self._unsent) < MAX_UNSENT_BYTES

    @property
    def reads(self) -> bool:
        """Whether what was sent may still reach it."""
        return self._stdin >= 0

    @property
    def stdin(self) -> int | None:
        """To be watched for room; None while nothing waits for it."""
        return self._stdin if self._unsent and self._stdin >= 0 else None

    @property
    def written_bytes(self) -> int:
        """Of all that was sent, as `send` counts."""
        return self._written_bytes

    def send(self, value: Mapping[str, Any]) -> int:
        """Says one thing; gives the mark at which `written_bytes` has it all."""
        line = json.dumps(value, allow_nan=False).encode() + b"\n"
        self._unsent += line
        self._queued_bytes += len(line)
        self.flush()
        return self._queued_bytes

    def flush(self) -> None:
        """Writes what the pipe takes."""
        while self._unsent and self._stdin >= 0:
            try:
                count = os.write(self._stdin, self._unsent[:READ_BYTES])
            except BlockingIOError:
                return
            except OSError:  # it reads no more; its end will say why
                self._unsent.clear()
                self._close_stdin()
                return
            del self._unsent[:count]
            self._written_bytes += count
        if self._closing:
            self._close_stdin()

    def close(self) -> None:
        """Nothing more will be said: it finishes what it has and ends by itself."""
        self._closing = True
        self.flush()

    def _close_stdin(self) -> None:
        if self._stdin >= 0 and self._process.stdin:
            self._stdin = -1
            self._process.stdin.close()

    def read(self, fd: int) -> list[bytes] | None:
        """The lines that have come on `stdout` or `stderr`; None at its end."""
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return []
        return self._lines[fd].feed(data) if data else None

    def rest(self, fd: int) -> list[bytes]:
        """What came without a line's end."""
        return self._lines[fd].rest()

    def signal(self, number: signal.Signals) -> None:
        """To the agent alone; what it started is the unit's cgroup's business."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def forget(self) -> None:
        """After its end: what was open to it is closed."""
        self._close_stdin()
        for file in (self._process.stdout, self._process.stderr):
            if file:
                file.close()
        os.close(self.pidfd)

    def wait(self) -> int:
        """Its exit status, 128 + n for a signal, once it has ended."""
        code = self._process.wait()
        return 128 - code if code < 0 else code


def parse(line: bytes) -> dict[str, Any] | None:
    """A line of the stream; None for anything that is no JSON object."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def user_message(text: str, key: str) -> dict[str, Any]:
    """What the agent is sent for a message; `key`, a UUID, comes back when it took it.

    The CLI takes each key once, also in a later process on the same conversation: it then only says
    again that it has it.
    """
    return {
        "type": "user",
        "message": {"role": "user", "content": text},
        "parent_tool_use_id": None,
        "session_id": "",
        "uuid": key,
    }
