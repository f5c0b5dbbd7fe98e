"""One process of `claude -p` for each message, without a terminal: the main process of such a unit.

In the place of SESSION's agent, run by `drivers/oneshot.py`, its stdout being the pane log:

    python -m orchestrator.oneshot_agent --session UUID --sidecar PATH --runtime DIR
        [--prompt-file PATH] -- claude -p …

It waits on `control.sock` for a message, starts the CLI on the conversation, gives it that message,
and writes what it streams to the sidecar and, readably, to stdout; then it waits for the next. A
message that comes meanwhile is refused: dispatch holds it. A turn that fails is told and ends
nothing. It is the measure of what `stream_agent.py` saves, and works where tmux does not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.demo_screen import GOOD, Row, plain
from orchestrator.drivers.claude_home import ClaudeHome
from orchestrator.stream_agent import ENVIRON, FAREWELLS, LEAVE_S, MAX_STRAY_BYTES, wake_up
from orchestrator.stream_child import Child, parse, user_message
from orchestrator.stream_control import NAME, Caller, Control, message_of, refusal
from orchestrator.stream_log import Log
from orchestrator.stream_view import BAD, View


class Paper:
    """A transcript that only ever grows, for a file that a terminal will show."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._streaming = False

    def add(self, *rows: Row) -> None:
        """See Transcript."""
        self._write("".join(f"{row}\n" for row in rows))

    def stream(self, text: str) -> None:
        """See Transcript."""
        self._write(("" if self._streaming else str(Row("", GOOD, "● "))) + plain(text))
        self._streaming = True

    def end_stream(self) -> None:
        """See Transcript."""
        if self._streaming:
            self._write("\n")
        self._streaming = False

    def _write(self, text: str) -> None:
        data = text.replace("\n", "\r\n").encode("utf-8", "replace")
        with contextlib.suppress(OSError):  # a full disk; the sidecar will say so
            while data:
                data = data[os.write(self._fd, data) :]


class Agent:
    """The loop: messages and signals in, one CLI after the other."""

    def __init__(
        self, command: Sequence[str], session: str, log: Log, view: View, control: Control
    ) -> None:
        self._command, self._session = command, session
        self._log, self._view, self._control = log, view, control
        self._child: Child | None = None
        self._waiting: tuple[int, Caller | None, str] | None = None  # for the acknowledgement
        self._said = ""  # the key of a message whose turn has not begun
        self._farewell: int | None = None
        self._kill_at = 0.0

    def run(self, prompt: str, wake_fd: int, signals: list[int]) -> int:
        """Runs until a signal ends it; gives the exit status."""
        if prompt:
            self._begin(prompt, str(uuid.uuid4()), None)
        while self._farewell is None or self._child:
            self._log.state("busy" if self._child else "idle")
            ready = self._poll(wake_fd)
            while signals:
                self._on_signal(signals.pop(0))
            for fd in ready:
                self._on_ready(fd)
            if self._kill_at and time.monotonic() >= self._kill_at and self._child:
                self._child.signal(signal.SIGTERM)
                self._kill_at = 0.0
        self._control.close()
        self._log.gone()
        return self._farewell

    def _poll(self, wake_fd: int) -> list[int]:
        poller = select.poll()
        poller.register(wake_fd, select.POLLIN)
        for fd, events in self._control.watched().items():
            poller.register(fd, events)
        if child := self._child:
            for fd in (child.stdout, child.stderr, child.pidfd):
                poller.register(fd, select.POLLIN)
            if child.stdin is not None:
                poller.register(child.stdin, select.POLLOUT)
        wait_ms = max(0.0, self._kill_at - time.monotonic()) * 1000 + 1 if self._kill_at else None
        ready = [fd for fd, _ in poller.poll(wait_ms)]
        if wake_fd in ready:
            os.read(wake_fd, 512)
        return [fd for fd in ready if fd != wake_fd]

    def _on_ready(self, fd: int) -> None:
        child = self._child
        if child and fd in {child.stdout, child.stderr}:
            self._read(child, fd)
        elif child and fd == child.stdin:
            child.flush()
        elif child and fd == child.pidfd:
            self._end(child)
        else:
            for caller, request in self._control.handle(fd):
                self._on_request(caller, request)
        self._acknowledge()

    def _on_request(self, caller: Caller, request: dict[str, Any] | None) -> None:
        kind = request.get("type") if request else None
        message = message_of(request) if request and kind == "message" else None
        if message and (self._child or self._farewell is not None):
            caller.answer(refusal("it is busy"))
        elif message:
            self._begin(message[1], message[0], caller)
        elif kind == "interrupt":
            if self._child:
                self._child.signal(signal.SIGINT)
            caller.answer({"ok": True})
        else:
            caller.answer(refusal("that is no request"))

    def _begin(self, text: str, key: str, caller: Caller | None) -> None:
        options, _ = ClaudeHome.from_environ(os.environ).session_options(Path.cwd(), self._session)
        self._view.said(text)
        try:
            self._child = Child([*self._command, *options], {**os.environ, **ENVIRON})
        except OSError as error:
            self._view.note(f"It cannot be started: {error}", BAD)
            if caller:
                caller.answer(refusal(str(error)))
            return
        self._waiting = (self._child.send(user_message(text, key)), caller, key)
        self._said = key
        self._child.close()

    def _acknowledge(self) -> None:
        if self._waiting is None:
            return
        mark, caller, key = self._waiting
        written = self._child.written_bytes if self._child else 0
        if written >= mark or not self._child:
            self._waiting = None
            if caller:
                taken = {"ok": True, "uuid": key}
                caller.answer(taken if written >= mark else refusal("the agent has ended"))

    def _read(self, child: Child, fd: int) -> bool:
        lines = child.read(fd)
        for line in child.rest(fd) if lines is None else lines:
            value = parse(line) if fd == child.stdout else None
            if value is None:
                self._view.note(line[:MAX_STRAY_BYTES].decode("utf-8", "replace"), BAD)
            else:
                self._on_line(line, value)
        return lines is not None

    def _on_line(self, line: bytes, value: Mapping[str, Any]) -> None:
        self._log.stream(line, value)
        if value.get("type") == "system" and value.get("subtype") == "init" and self._said:
            self._log.taken(self._said, value.get("session_id"))
            self._said = ""
        self._view.show(value)

    def _end(self, child: Child) -> None:
        for fd in (child.stdout, child.stderr):
            while select.select([fd], [], [], 0)[0] and self._read(child, fd):
                pass
        if status := child.wait():
            self._view.note(f"The CLI ended with status {status}.", BAD)
        self._acknowledge()
        child.forget()
        self._child = None

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGWINCH or self._farewell is not None:
            return
        self._farewell = FAREWELLS[signal.Signals(number)]
        self._kill_at = time.monotonic() + LEAVE_S
        if self._child:
            self._child.signal(signal.SIGINT)  # it writes down what it has


def main() -> int:
    """Runs until a signal ends it; gives the exit status."""
    parser = argparse.ArgumentParser(prog="oneshot-agent", description="A CLI for each message.")
    parser.add_argument("--session", metavar="UUID", required=True)
    parser.add_argument("--sidecar", metavar="PATH", type=Path, required=True)
    parser.add_argument("--runtime", metavar="DIR", type=Path, required=True)
    parser.add_argument("--prompt-file", metavar="PATH", type=Path, help="read, and removed")
    parser.add_argument("command", nargs="+", metavar="CLI", help="with its arguments, after --")
    options = parser.parse_args()
    prompt = ""
    if options.prompt_file:
        prompt = options.prompt_file.read_text(encoding="utf-8")
        options.prompt_file.unlink()
    wake_fd, signals = wake_up()
    paper = Paper(1)
    view = View(paper)
    log = Log(options.sidecar, lambda text: view.note(text, BAD))
    control = Control(options.runtime / NAME)
    agent = Agent(options.command, options.session, log, view, control)
    return agent.run(prompt, wake_fd, signals)


if __name__ == "__main__":
    sys.exit(main())
