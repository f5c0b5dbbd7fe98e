"""Claude Code without its TUI: its stream-json behind a plain pane of ours.

In the place of SESSION's agent, run by `drivers/claude_stream.py`:

    python -m orchestrator.stream_agent --sidecar PATH --runtime DIR [--prompt-file PATH] -- claude -p …

It runs the CLI as its child over pipes (`stream_child.py`), writes the stream's lines to the sidecar
(`stream_log.py`) and shows them readably (`stream_view.py`). Messages come from the pane's keys and
over `control.sock` (`stream_control.py`), one a turn: those typed while it is busy wait here and are
shown, those of others are refused until it is idle. Permission is asked in the pane and in the
requests folder (`stream_permissions.py`). It ends as the CLI ends, so that the unit's restart does
what it does for any agent. What the CLI is started with is the driver's business.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.demo_screen import ACCENT, DIM, Key, Keys, Row, Screen
from orchestrator.stream_child import Child, parse, user_message
from orchestrator.stream_control import NAME, Caller, Control, message_of, refusal
from orchestrator.stream_dialog import Dialog
from orchestrator.stream_log import Log
from orchestrator.stream_permissions import Permissions
from orchestrator.stream_view import BAD, View

MAX_QUEUED = 50  # messages typed while it is busy; more are dropped, and that is said
ESC_WAIT_S = 0.05  # for the rest of an escape sequence
TICK_S = 1.0  # of the clock while it works
AGAIN_S = 2.0  # Ctrl-C twice within this leaves
# Who is typing when a dialog opens goes on for a moment: those keys are not meant for it.
GUARD_S = 0.7
READY_WAIT_S = 20.0  # for a CLI that does not answer the first question
LEAVE_S = 3.0  # after a signal, for the CLI to write down what it has; below mc-stop's patience
MAX_STRAY_BYTES = 2000  # of a line that is none of the stream's, such as on stderr
READ_BYTES = 65536
FAREWELLS = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}
ENVIRON = {"CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS": "1"}


class Agent:
    """The loop: keys, the stream, requests and signals in; screen, sidecar and state out."""

    def __init__(self, screen: Screen, child: Child, log: Log, runtime: Path) -> None:
        self._screen, self._child, self._log = screen, child, log
        self._view = View(screen)
        self._control = Control(runtime / NAME)
        self._permissions = Permissions(child, log, self._view, runtime / "requests")
        self._keys = Keys()
        self._draft = ""  # what was in the box when the dialog opened
        self._asked: Dialog | None = None  # what the pane asks right now
        self._asked_before: Dialog | None = None
        self._guarded_until = 0.0
        self._hint = ""  # over the dialog's line
        self._queued: list[str] = []
        self._acks: list[tuple[int, Caller, str]] = []  # by the mark of their last byte
        self._ready = False  # the CLI has said that it is up
        self._ready_by = time.monotonic() + READY_WAIT_S
        self._tells_states = False
        self._said = ""  # the key of a message whose turn has not begun
        self._turn_since: float | None = None
        self._open = {child.stdout, child.stderr}
        self._leaving = False
        self._farewell: int | None = None  # the exit status that a signal asks for
        self._kill_at = 0.0
        self._leave_until = 0.0  # a Ctrl-C before this leaves
        self._on_key: dict[str, Callable[[], None]] = {
            "enter": self._enter,
            "escape": self._interrupt,
            "ctrl-c": self._ctrl_c,
            "ctrl-d": self._ctrl_d,
            "ctrl-u": lambda: setattr(screen, "box", ""),
            "ctrl-l": screen.redraw,
            "backspace": lambda: setattr(screen, "box", screen.box[:-1]),
            "newline": lambda: self._type("\n"),
        }

    # The loop

    def run(self, prompt: str, wake_fd: int, signals: list[int]) -> int:
        """Runs until the CLI has ended; gives the exit status.

        Args:
            prompt: the first message, unless it is empty.
            wake_fd: becomes readable when a signal came.
            signals: those that came and are not dealt with yet.
        """
        if prompt:
            self._queued.append(prompt)
        self._ask_child("initialize")
        try:
            while self._open:
                self._say_next()
                self._show()
                ready = self._poll(wake_fd)
                while signals:
                    self._on_signal(signals.pop(0))
                for fd in ready:
                    self._on_ready(fd)
                if not ready and self._keys.unfinished:
                    self._press(self._keys.flush())
                self._settle()
        finally:
            self._permissions.close()
            self._control.close()
        return self._ended()

    def _poll(self, wake_fd: int) -> list[int]:
        poller = select.poll()
        for fd in (wake_fd, self._child.pidfd, *self._open, *self._permissions.fds):
            poller.register(fd, select.POLLIN)
        if self._farewell is None:
            poller.register(0, select.POLLIN)
        if self._child.stdin is not None:
            poller.register(self._child.stdin, select.POLLOUT)
        for fd, events in self._control.watched().items():
            poller.register(fd, events)
        ready = [fd for fd, _ in poller.poll(self._timeout_ms())]
        if wake_fd in ready:
            os.read(wake_fd, 512)
            ready.remove(wake_fd)
        if self._child.pidfd in ready:
            # What it left in the pipes is still to be read; what its children hold open is not.
            while left := select.select(list(self._open), [], [], 0)[0]:
                for fd in left:
                    self._read_child(fd)
            self._open.clear()
            return []
        return ready

    def _timeout_ms(self) -> float | None:
        now = time.monotonic()
        waits = [ESC_WAIT_S] if self._keys.unfinished else []
        if self._turn_since is not None:
            waits.append(TICK_S)
        due = (self._leave_until, self._kill_at, 0.0 if self._ready else self._ready_by)
        waits += [max(0.0, at - now) for at in due if at]
        return min(waits) * 1000 + 1 if waits else None

    def _on_ready(self, fd: int) -> None:
        if fd == 0:
            self._read_keys()
        elif fd in self._open:
            self._read_child(fd)
        elif fd == self._child.stdin:
            self._child.flush()
        elif fd in self._permissions.fds:
            self._permissions.answered_elsewhere(fd)
            self._turn_to_dialog()
        else:
            for caller, request in self._control.handle(fd):
                self._on_request(caller, request)

    def _settle(self) -> None:
        """What is due by now."""
        now = time.monotonic()
        if self._leave_until and now >= self._leave_until:
            self._leave_until = 0.0
        if self._kill_at and now >= self._kill_at:
            self._child.signal(signal.SIGTERM)
            self._kill_at = 0.0
        self._ready = self._ready or now >= self._ready_by
        written = self._child.written_bytes
        for ack in self._acks[:]:
            mark, caller, key = ack
            if written >= mark:
                caller.answer({"ok": True, "uuid": key})
            elif not self._child.reads:
                caller.answer(refusal("the agent has ended"))
            else:
                continue
            self._acks.remove(ack)

    def _ended(self) -> int:
        status = self._child.wait()
        if self._farewell is not None:
            status = self._farewell
        elif self._leaving and status == 1:
            status = 0  # the CLI's word at its end for a last turn that went wrong
        if status:
            self._view.note(f"The agent ended with status {status}.", BAD)
        self._log.gone()
        return status

    # The stream

    def _read_child(self, fd: int) -> None:
        lines = self._child.read(fd)
        if lines is None:
            self._open.discard(fd)
            lines = self._child.rest(fd)
        for line in lines:
            if fd == self._child.stdout and (value := parse(line)) is not None:
                self._on_line(line, value)
            else:
                text = line[:MAX_STRAY_BYTES].decode("utf-8", "replace")
                self._view.note(text, DIM if fd == self._child.stdout else BAD)

    def _on_line(self, line: bytes, value: dict[str, Any]) -> None:
        kind = value.get("type")
        if kind == "control_request":
            self._permissions.ask(value)
            self._turn_to_dialog()
        elif kind == "control_cancel_request":
            self._permissions.cancelled(value.get("request_id"))
            self._turn_to_dialog()
        else:
            self._log.stream(line, value)
            self._follow(value)
            self._view.show(value)

    def _follow(self, value: Mapping[str, Any]) -> None:
        """What a line says about turns."""
        kind = value.get("type")
        if kind == "control_response":
            self._ready = True
        elif kind == "system" and value.get("subtype") == "session_state_changed":
            self._tells_states = True
            self._working(working=value.get("state") != "idle")
        elif kind == "system" and value.get("subtype") == "init" and self._said:
            self._log.taken(self._said, value.get("session_id"))
            self._said = ""
        elif kind == "result" and not self._tells_states:
            self._working(working=False)

    def _working(self, *, working: bool) -> None:
        if not working:
            self._turn_since = None
        elif self._turn_since is None:
            self._turn_since = time.monotonic()

    def _say_next(self) -> None:
        """What is queued, one message a turn; then the farewell, when that was wished."""
        if not self._ready or self._turn_since is not None:
            return
        if self._queued:
            self._say(self._queued.pop(0), str(uuid.uuid4()))
        elif self._leaving:
            self._child.close()

    def _say(self, text: str, key: str) -> int:
        mark = self._child.send(
            user_message(text, key)
        )  # first: the rest takes its time from the CLI
        self._view.said(text)
        self._said = key
        self._working(working=True)
        return mark

    def _ask_child(self, subtype: str) -> None:
        request_id = f"{subtype}-{uuid.uuid4().hex}"
        request = {"subtype": subtype}
        self._child.send({"type": "control_request", "request_id": request_id, "request": request})

    def _interrupt(self) -> None:
        if self._turn_since is not None and self._child.takes_more:
            self._ask_child("interrupt")

    # Requests from elsewhere

    def _on_request(self, caller: Caller, request: dict[str, Any] | None) -> None:
        kind = request.get("type") if request else None
        if request and kind == "message":
            message = message_of(request)
            if message is None:
                caller.answer(refusal("a message needs an id, a UUID, and a text"))
            elif why := self._why_not():
                caller.answer(refusal(why))
            else:
                key, text = message
                self._acks.append((self._say(text, key), caller, key))
        elif kind == "interrupt":
            self._interrupt()
            caller.answer({"ok": True})
        else:
            caller.answer(refusal("that is no request"))

    def _why_not(self) -> str:
        """Why a message cannot be taken now; empty when it can."""
        if not self._ready:
            return "it is still starting"
        if self._permissions.shown:
            return "a question is open"
        if self._turn_since is not None or self._queued:
            return "it is busy"
        return "" if not self._leaving and self._child.takes_more else "it is leaving"

    # Keys

    def _read_keys(self) -> None:
        try:
            data = os.read(0, READ_BYTES)
        except OSError:
            data = b""
        if data:
            self._press(self._keys.feed(data))
        else:
            self._on_signal(signal.SIGHUP)  # the terminal is gone

    def _press(self, keys: list[Key]) -> None:
        for key in keys:
            if key.name != "enter":
                self._hint = ""
            if key.name in {"text", "paste"}:
                self._type(key.text)
            elif key.name in self._on_key:
                self._on_key[key.name]()
            if key.name not in {"ctrl-c", "ctrl-d"}:
                self._leave_until = 0.0

    def _turn_to_dialog(self) -> None:
        """The box belongs to the dialog that is shown; what was typed before comes back after it."""
        shown, before = self._permissions.shown, self._asked
        if shown is before:
            return
        self._asked, self._asked_before = shown, before
        self._guarded_until = time.monotonic() + GUARD_S
        self._hint = ""
        if before is None:
            self._draft = self._screen.box
        # never what was typed for another question
        self._screen.box = "" if shown else self._draft

    @property
    def _guarded(self) -> bool:
        """The dialog opened, changed or closed in this moment: keys are meant for what was before."""
        return time.monotonic() < self._guarded_until

    def _type(self, text: str) -> None:
        if self._asked and self._guarded:
            self._draft += text
        else:
            self._screen.box += text

    def _enter(self) -> None:
        guarded = self._guarded
        if self._asked and guarded:
            text, self._draft = self._draft, ""
        else:
            text, self._screen.box = self._screen.box, ""
        meant = self._asked or (self._asked_before if guarded else None)
        if not text.strip() or meant is None or not meant.understands(text):
            self._submit(text)
        elif not self._asked:
            self._view.note("That was answered already, elsewhere.")
        elif guarded:
            self._hint = "This has only just opened; answer it once more."
        else:
            self._permissions.answered_here(text)
            self._turn_to_dialog()
            self._guarded_until = 0.0 if self._asked is None else self._guarded_until

    def _submit(self, text: str) -> None:
        if text.strip() == "/exit":
            self._leaving = True
            self._hint = "It leaves after this turn; this is still open."
        elif text.strip() and len(self._queued) < MAX_QUEUED:
            self._queued.append(text)
            self._hint = "That waits for the end of the turn; this is still open."
        elif text.strip():
            self._view.note(f"{MAX_QUEUED} messages wait already; this one was dropped.", BAD)

    def _ctrl_c(self) -> None:
        if self._turn_since is not None:
            self._interrupt()
        elif self._screen.box:
            self._screen.box = ""
        elif time.monotonic() < self._leave_until:
            self._leaving = True
        else:
            self._leave_until = time.monotonic() + AGAIN_S

    def _ctrl_d(self) -> None:
        if not self._screen.box:
            self._leaving = True

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGWINCH:
            self._screen.redraw()
        elif self._farewell is None:
            self._farewell = FAREWELLS[signal.Signals(number)]
            self._interrupt()
            self._child.close()
            self._kill_at = time.monotonic() + LEAVE_S

    # What others see

    def _state(self) -> str:
        if shown := self._permissions.shown:
            return "question" if shown.is_question else "waiting"
        if not self._ready:
            return "starting"
        return "busy" if self._turn_since is not None or self._queued else "idle"

    def _show(self) -> None:
        screen = self._screen
        self._log.state(self._state())
        screen.waiting, screen.dialog = self._queued, ()
        if self._asked:
            rule, *rows = self._asked.rows(screen.box, screen.size[0], self._permissions.hidden)
            hint = [Row(f" {self._hint}", ACCENT)] if self._hint else []
            screen.dialog = (rule, *hint, *rows)
        screen.status = "" if self._ready else "✻ Starting…"
        if self._turn_since is not None:
            seconds = int(time.monotonic() - self._turn_since)
            what = self._view.trouble or "Working"
            screen.status = f"✻ {what}… ({seconds} s · Ctrl-C interrupts)"
        screen.foot = f"{self._view.model} · ${self._view.cost_usd:.4f}".removeprefix(" · ")
        if self._leaving:
            screen.foot = "Leaving once this is done"
        elif self._leave_until:
            screen.foot = "Press Ctrl-C again to leave"
        screen.draw()


def wake_up() -> tuple[int, list[int]]:
    """Signals as something to poll for: a file descriptor, and the list they are put into."""
    wake_fd, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_fd, False)
    signals: list[int] = []
    for number in (signal.SIGWINCH, *FAREWELLS):
        signal.signal(number, lambda number, _: signals.append(number))
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    return wake_fd, signals


def main() -> int:
    """Runs in the terminal of stdin and stdout; gives the exit status."""
    parser = argparse.ArgumentParser(prog="stream-agent", description="The CLI in a plain pane.")
    parser.add_argument("--sidecar", metavar="PATH", type=Path, required=True)
    parser.add_argument("--runtime", metavar="DIR", type=Path, required=True)
    parser.add_argument("--prompt-file", metavar="PATH", type=Path, help="read, and removed")
    parser.add_argument("command", nargs="+", metavar="CLI", help="with its arguments, after --")
    options = parser.parse_args()
    if not (os.isatty(0) and os.isatty(1)):
        print("Error: the stream agent needs a terminal.", file=sys.stderr)  # noqa: T201
        return 1
    prompt = ""
    if options.prompt_file:
        prompt = options.prompt_file.read_text(encoding="utf-8")
        options.prompt_file.unlink()
    wake_fd, signals = wake_up()
    with Screen(0, 1) as screen:
        log = Log(options.sidecar, lambda text: screen.add(Row(text, BAD)))
        log.state("starting")
        try:
            child = Child(options.command, {**os.environ, **ENVIRON})
            agent = Agent(screen, child, log, options.runtime)
        except OSError as error:
            screen.add(Row(f"It cannot be started: {error}", BAD))
            return 1
        return agent.run(prompt, wake_fd, signals)


if __name__ == "__main__":
    sys.exit(main())
