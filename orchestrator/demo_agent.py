"""A small scripted agent for the pane: behaves like Claude Code there, and needs no account.

In the place of SESSION's agent, for `install.sh --demo` and for tests:

    python -m orchestrator.demo_agent (--session-id UUID | --resume UUID) --sidecar PATH
        [--requests DIR] [PROMPT]

It draws, types, asks and leaves as the real one does, writes the same lines to the sidecar that the
real one's hooks would, keeps its conversation in `demo-UUID.jsonl` beside the sidecar, and says in
`demo-state.json` whether it is idle, busy or waiting. What it asks leave for is answered in the pane
or by way of DIR (`asking.py`). What it answers is `demo_answers.py`, how it looks `demo_screen.py`,
what it leaves in files `demo_log.py`. It is no driver: which arguments it gets is `drivers/demo.py`'s
business.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.asking import Asking
from orchestrator.demo_answers import Leave, Say, Show, Step, UseTool, answer
from orchestrator.demo_log import MODEL, Conversation, Log, Refused
from orchestrator.demo_screen import ACCENT, BOLD, DIM, GOOD, Key, Keys, Row, Screen, brief, plain
from orchestrator.naming import ensure_agent_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CHOSEN = "\u276f"  # marks the choice that Enter takes, as the real one does
MAX_QUEUED = 50  # messages typed while it is busy; more are dropped, and that is said
ESC_WAIT_S = 0.05  # for the rest of an escape sequence
TICK_S = 0.5  # of the clock beside "Thinking"
AGAIN_S = 2.0  # Ctrl-C twice within this leaves
READ_BYTES = 65536
_FAREWELLS = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 0}


class Turn:
    """One answer on its way."""

    def __init__(self, steps: Iterator[Step], now: float) -> None:
        self._steps = steps
        self.step: Step | None = next(steps, None)
        self.started = now
        self.due = now + _pause(self.step)
        self.said = ""
        self.asked = False  # the dialog of the current step is open
        self.tools = 0

    def advance(self, now: float) -> None:
        """The current step is done."""
        self.step = next(self._steps, None)
        self.due = now + _pause(self.step)


def _pause(step: Step | None) -> float:
    return step.pause_s if isinstance(step, Say) else 0.0


class Agent:
    """The loop: keys, time and signals in; screen, sidecar and state out."""

    def __init__(
        self, screen: Screen, log: Log, conversation: Conversation, requests: str = ""
    ) -> None:
        self._screen, self._log, self._conversation = screen, log, conversation
        self._requests = requests  # empty: only the pane can answer
        self._asking: Asking | None = None
        self._keys = Keys()
        self._turn: Turn | None = None
        self._queued: list[str] = []
        self._exit: int | None = None
        self._reason = "other"  # of the SessionEnd; empty: there is none
        self._leave_until = 0.0  # a Ctrl-C before this leaves
        self._on_key: dict[str, Callable[[], None]] = {
            "enter": self._enter,
            "escape": self._interrupt,
            "ctrl-c": self._ctrl_c,
            "ctrl-d": self._ctrl_c,
            "ctrl-u": self._clear,
            "ctrl-l": screen.redraw,
            "backspace": lambda: self._type(None),
            "newline": lambda: self._type("\n"),
        }

    def run(self, prompt: str, wake_fd: int, signals: list[int]) -> int:
        """Runs until it is left, killed or asked to crash; gives the exit status.

        Args:
            prompt: submitted at once, unless it is empty.
            wake_fd: becomes readable when a signal came.
            signals: those that came and are not dealt with yet.
        """
        self._welcome()
        self._log.state("busy" if prompt else "idle")
        self._log.status_line()
        source = "resume" if self._conversation.messages else "startup"
        self._log.hook("SessionStart", source=source, model=MODEL["id"])
        if prompt:
            self._submit([prompt])
        while self._exit is None:
            self._show()
            asked = [self._asking.fd] if self._asking else []
            ready, _, _ = select.select([0, wake_fd, *asked], [], [], self._timeout())
            if wake_fd in ready:
                os.read(wake_fd, 512)
            while signals:
                self._on_signal(signals.pop(0))
            if 0 in ready:
                self._read()
            elif not ready and self._keys.unfinished:
                self._press(self._keys.flush())
            if self._asking and self._asking.fd in ready and (given := self._asking.read()):
                self._answer_from_elsewhere(given)
            self._log.say_again()
            if self._exit is None:
                self._advance()
        self._stop_asking("PermissionGone")
        if self._reason:
            self._log.hook("SessionEnd", reason=self._reason)
            self._log.gone()
        return self._exit

    def _timeout(self) -> float | None:
        waits = [ESC_WAIT_S] if self._keys.unfinished else []
        if self._turn and not self._turn.asked:
            waits.append(min(TICK_S, max(0.0, self._turn.due - time.monotonic())))
        if self._log.unsaid:
            waits.append(TICK_S)
        if self._leave_until:
            waits.append(max(0.0, self._leave_until - time.monotonic()))
        return min(waits, default=None)

    def _read(self) -> None:
        try:
            data = os.read(0, READ_BYTES)
        except OSError:
            data = b""
        if data:
            self._press(self._keys.feed(data))
        else:
            self._exit = 129  # the terminal is gone

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGWINCH:
            self._screen.redraw()
        elif self._exit is None:
            self._exit = _FAREWELLS[signal.Signals(number)]

    # Keys

    def _press(self, keys: list[Key]) -> None:
        for key in keys:
            if self._exit is not None:
                return
            if self._turn and self._turn.asked:
                self._answer_dialog(key)
            elif key.name in {"text", "paste"}:
                self._type(key.text)
            elif key.name in self._on_key:
                self._on_key[key.name]()
            if key.name not in {"ctrl-c", "ctrl-d"}:
                self._leave_until = 0.0

    def _type(self, text: str | None) -> None:
        box = self._screen.box
        self._screen.box = box[:-1] if text is None else box + text

    def _clear(self) -> None:
        self._screen.box = ""

    def _enter(self) -> None:
        text, self._screen.box = self._screen.box, ""
        if text.strip() == "/exit":
            self._exit, self._reason = 0, "prompt_input_exit"
        elif not text.strip():
            pass
        elif self._turn is None:
            self._submit([text])
        elif len(self._queued) < MAX_QUEUED:
            self._queued.append(text)
        else:
            self._screen.add(Row(f"{MAX_QUEUED} messages wait already; this one was dropped.", DIM))

    def _ctrl_c(self) -> None:
        if self._turn:
            self._interrupt()
        elif self._screen.box:
            self._clear()
        elif time.monotonic() < self._leave_until:
            self._exit, self._reason = 0, "prompt_input_exit"
        else:
            self._leave_until = time.monotonic() + AGAIN_S

    def _answer_dialog(self, key: Key) -> None:
        allows = key.name == "enter" or (key.name == "text" and key.text == "1")
        denies = key.name in {"escape", "ctrl-c"} or (key.name == "text" and key.text == "2")
        if not allows and not denies:
            return
        if self._asking and (given := self._asking.withdraw()):
            self._answer_from_elsewhere(given)  # somebody was quicker
        elif allows:
            self._use_tool()
        else:
            self._interrupt()

    # Turns

    def _submit(self, texts: list[str]) -> None:
        self._log.state("busy")
        for text in texts:
            first, *more = brief(text).split("\n")
            self._screen.add(Row(), Row(first, BOLD, "> "), *(Row(line, "", "  ") for line in more))
            self._log.prompt(text)
        self._screen.add(Row())
        self._turn = Turn(answer("\n".join(texts), Path.cwd()), time.monotonic())

    def _advance(self) -> None:
        now = time.monotonic()
        if self._leave_until and now >= self._leave_until:
            self._leave_until = 0.0
        turn = self._turn
        if turn is None or turn.asked or now < turn.due:
            return
        match turn.step:
            case Say(text=text):
                turn.said += text
                self._screen.stream(text)
            case Show(lines=lines):
                self._screen.add(*(Row(line, DIM) for line in lines))
            case UseTool() as tool:
                self._begin_tool(turn, tool)
                return
            case Leave(status=status):
                self._screen.end_stream()
                self._exit, self._reason = status, ""
                return
            case None:
                self._end_turn(turn)
                return
        turn.advance(now)

    def _begin_tool(self, turn: Turn, tool: UseTool) -> None:
        self._screen.end_stream()
        turn.said = ""
        turn.tools += 1
        self._log.hook("PreToolUse", **self._tool_data(tool), tool_use_id=_tool_id(turn))
        command = plain(str(tool.arguments["command"]))
        self._screen.add(Row(f"{tool.name}({command})", GOOD, "● "))
        if not tool.asks:
            self._use_tool()
            return
        turn.asked = True
        self._log.state("waiting")
        data = {**self._tool_data(tool), "permission_suggestions": []}
        if self._requests:
            with contextlib.suppress(OSError):  # then only the pane can answer
                self._asking = Asking(self._requests, tool.name, tool.arguments)
                data["request_id"] = self._asking.request_id
        self._log.hook("PermissionRequest", **data)
        rule = Row("─" * (self._screen.size[0] - 1), ACCENT)
        self._screen.dialog = (
            rule,
            Row(f" {tool.name} command", BOLD),
            Row(f"   {command}"),
            Row(f" Do you want to run {tool.arguments['description'].lower()!r}?"),
            Row(" 1. Yes", ACCENT, f" {CHOSEN}"),
            Row("   2. No"),
            Row(" Enter or 1 to allow · 2 or Esc to cancel", DIM),
        )

    def _answer_from_elsewhere(self, given: Mapping[str, object]) -> None:
        behavior = str(given["behavior"])
        self._stop_asking("PermissionAnswer", behavior=behavior, by=str(given.get("by") or ""))
        turn = self._turn
        if behavior == "allow" or turn is None:
            self._use_tool()
            return
        self._close_dialog()
        message = plain(str(given.get("message") or "The operator refused."))
        self._screen.add(Row(message, DIM, "  ⎿ "))
        turn.said = f"I may not do that: {message}"
        self._screen.stream(turn.said)
        self._end_turn(turn)

    def _stop_asking(self, hook: str, **more: str) -> None:
        """Nobody else can answer any more, and the sidecar knows why."""
        asking, self._asking = self._asking, None
        if asking:
            asking.close()
            self._log.hook(hook, request_id=asking.request_id, **more)

    def _use_tool(self) -> None:
        turn = self._turn
        if turn is None or not isinstance(turn.step, UseTool):
            return
        tool, data = turn.step, {**self._tool_data(turn.step), "tool_use_id": _tool_id(turn)}
        self._close_dialog()
        started = time.monotonic()
        try:
            output = tool.run()
        except OSError as error:
            output = f"{error.strerror}"
            self._log.hook("PostToolUseFailure", **data, error=output, is_interrupt=False)
        else:
            response = {"stdout": output, "stderr": "", "interrupted": False}
            ms = int((time.monotonic() - started) * 1000)
            self._log.hook("PostToolUse", **data, tool_response=response, duration_ms=ms)
        lines = plain(output).split("\n") if output else ["(no output)"]
        self._screen.add(*(Row(x, DIM, "    " if n else "  ⎿ ") for n, x in enumerate(lines)))
        turn.advance(time.monotonic())

    @staticmethod
    def _tool_data(tool: UseTool) -> dict[str, Any]:
        return {
            "permission_mode": "default",
            "tool_name": tool.name,
            "tool_input": tool.arguments,
        }

    def _close_dialog(self) -> None:
        if self._turn and self._turn.asked:
            self._stop_asking("PermissionGone")
            self._turn.asked = False
            self._screen.dialog = ()
            self._log.state("busy")

    def _interrupt(self) -> None:
        """Ends the turn without a word to the hooks, as the real one does."""
        if self._turn is None:
            return
        for_tool = " for tool use" if self._turn.asked else ""
        self._close_dialog()
        self._screen.end_stream()
        self._screen.add(Row("Interrupted. What should I do instead?", DIM, "  ⎿ "))
        self._conversation.add("user", f"[Request interrupted by user{for_tool}]")
        self._turn = None
        self._next()

    def _end_turn(self, turn: Turn) -> None:
        self._screen.end_stream()
        self._turn = None
        self._log.stop(turn.said.strip())
        self._next()

    def _next(self) -> None:
        queued, self._queued = self._queued, []
        if queued:
            self._submit(queued)
        else:
            self._log.state("idle")

    # The look

    def _welcome(self) -> None:
        resumed = self._conversation.messages
        inner = min(64, self._screen.size[0] - 5)
        folder = str(Path.cwd())
        lines = [
            "✻ Mission Control demo agent",
            "",
            f"conversation {self._conversation.session}",
            plain(folder if len(folder) <= inner else f"…{folder[1 - inner :]}"),
            *([f"(resumed, {resumed} messages)"] if resumed else []),
        ]
        self._screen.add(
            Row("╭" + "─" * (inner + 2) + "╮", ACCENT),
            *(Row(f" {line[:inner].ljust(inner)} │", ACCENT, "│") for line in lines),
            Row("╰" + "─" * (inner + 2) + "╯", ACCENT),
            Row(
                " Ask for a sum, or say permission, tool, slow 5, flood 10, crash; /exit leaves.",
                DIM,
            ),
        )

    def _show(self) -> None:
        screen, turn = self._screen, self._turn
        screen.waiting = self._queued
        screen.status = ""
        if turn:
            seconds = int(time.monotonic() - turn.started)
            screen.status = f"✻ Thinking… ({seconds} s · esc to interrupt)"
        screen.foot = f"{MODEL['display_name']} · ${self._log.cost_usd:.4f}"
        if self._leave_until:
            screen.foot = "Press Ctrl-C again to exit"
        screen.draw()


def _tool_id(turn: Turn) -> str:
    return f"demo_{int(turn.started * 1000)}_{turn.tools}"


def main() -> int:
    """Runs in the terminal of stdin and stdout; gives the exit status."""
    parser = argparse.ArgumentParser(prog="demo-agent", description="A scripted agent.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--session-id", metavar="UUID", help="begin this conversation")
    which.add_argument("--resume", metavar="UUID", help="go on with it")
    parser.add_argument("--sidecar", metavar="PATH", type=Path, required=True)
    parser.add_argument("--requests", metavar="DIR", default="", help="for answers from elsewhere")
    parser.add_argument("prompt", nargs="?", default="")
    options = parser.parse_args()
    session = options.resume or options.session_id
    try:
        conversation = Conversation(
            ensure_agent_folder(options.sidecar), session, resume=bool(options.resume)
        )
    except Refused as refusal:
        print(refusal, file=sys.stderr)  # noqa: T201 - this is a program of its own
        return 1
    if not (os.isatty(0) and os.isatty(1)):
        print("Error: the demo agent needs a terminal.", file=sys.stderr)  # noqa: T201
        return 1
    wake_fd, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_fd, False)
    signals: list[int] = []
    for number in (signal.SIGWINCH, *_FAREWELLS):
        signal.signal(number, lambda number, _: signals.append(number))
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    with Screen(0, 1) as screen:
        log = Log(options.sidecar, conversation)
        agent = Agent(screen, log, conversation, options.requests)
        return agent.run(options.prompt, wake_fd, signals)


if __name__ == "__main__":
    sys.exit(main())
