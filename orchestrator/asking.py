"""One open permission request, on the side that waits for its answer.

Between SESSION and the operator. The folder holds two files for each request that is open:

    <request id>        a FIFO that the asking program reads; without a reader nobody waits any more
    <request id>.json   what is asked: tool_name, tool_input, at

Who moves the second one away has the word: an answering side before it writes its line into the
FIFO, the asking side when the question has gone. So each request is answered once or not at all.
`permits.py` is the answering side; what an answer means for the agent is told to it by
`permission_hook.py` (TUI) and `stream_agent.py`. Imports little: a hook's program uses it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time

MAX_ANSWER_BYTES = 4 * 1024 * 1024  # past it the asking side takes none of it
_ANSWER_WAIT_S = 2.0  # for the rest of an answer whose beginning has been promised
TAKEN = ".taken"
QUESTION = ".json"


class Asking:
    """A request that can be answered, from now on until `close()`.

    Args:
        folder: made if it is not there, 0700.
        tool: its name, as the agent calls it.
        arguments: of the tool; a JSON object.

    Raises:
        OSError: the files cannot be made; then none is left.
    """

    def __init__(self, folder: str, tool: str, arguments: object) -> None:
        self.request_id = os.urandom(16).hex()
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._path = os.path.join(folder, self.request_id)
        self._got = b""
        os.mkfifo(self._path, 0o600)
        try:
            # Its own writer too: a reader of a FIFO that others come to and leave sees no end.
            self.fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            question = {"tool_name": tool, "tool_input": arguments, "at": _now()}
            _write_private(self._path + ".draft", json.dumps(question).encode())
            os.rename(self._path + ".draft", self._path + QUESTION)  # all of it, or none
        except BaseException:
            self.close()
            raise

    def read(self) -> dict[str, object] | None:
        """The answer once it is complete: behavior, message, updated_input, by. Does not wait."""
        while b"\n" not in self._got:
            try:
                chunk = os.read(self.fd, 65536)
            except BlockingIOError:
                return None
            self._got += chunk
            if len(self._got) > MAX_ANSWER_BYTES:
                self._got = b""
                return None
        try:
            answer = json.loads(self._got.partition(b"\n")[0])
        except ValueError:
            answer = None
        self._got = b""
        known = isinstance(answer, dict) and answer.get("behavior") in {"allow", "deny"}
        return answer if known else None

    def withdraw(self) -> dict[str, object] | None:
        """Takes the question back; gives the answer instead where somebody was quicker."""
        try:
            os.rename(self._path + QUESTION, self._path + TAKEN)
        except FileNotFoundError:
            until = time.monotonic() + _ANSWER_WAIT_S
            while (answer := self.read()) is None and time.monotonic() < until:
                time.sleep(0.01)  # a moment at most: the other side holds the word and writes
            return answer
        return None

    def close(self) -> None:
        """Nobody waits any more; nothing of the request stays."""
        for name in (self._path + QUESTION, self._path + TAKEN, self._path + ".draft", self._path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        fd, self.fd = getattr(self, "fd", -1), -1
        if fd >= 0:
            os.close(fd)


def _now() -> str:
    ns = time.time_ns()
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 10**9))
    return f"{at}.{ns // 1000 % 10**6:06d}Z"


def _write_private(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
