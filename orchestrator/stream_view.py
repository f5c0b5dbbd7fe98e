"""How the agent's stream looks in the pane.

Beside the flow: used by `stream_agent.py` and `oneshot_agent.py`. Takes the stream's lines one by
one and adds rows to the screen: what the agent says as it says it, its tools and the first lines of
what came back, errors. It keeps nothing else and decides nothing; the sidecar has the whole of every
line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from orchestrator.demo_screen import BOLD, DIM, GOOD, Row, brief, plain
from orchestrator.stream_dialog import summary

MAX_RESULT_ROWS = 5
MAX_ROW_CHARS = 500
BAD = "31"
NOTHING_SAID = "(no content)"  # the CLI's own word for a command that answers nothing


class Transcript(Protocol):
    """Where it is shown."""

    def add(self, *rows: Row) -> None:
        """Rows, one below the other."""

    def stream(self, text: str) -> None:
        """More of the answer."""

    def end_stream(self) -> None:
        """The answer is complete, or broken off."""


class View:
    """The transcript in the pane."""

    def __init__(self, screen: Transcript) -> None:
        self._screen = screen
        self._streamed = ""  # the message whose text is on the screen already, as it came
        self._last_text = ""
        self._interrupted = False  # in this turn, which then ends with an error that is none
        self.model = ""
        self.session_id = ""
        self.cost_usd = 0.0
        self.trouble = ""  #: what the agent waits for, as in an API that fails; empty: nothing
        self._on: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "system": self._system,
            "stream_event": self._partial,
            "assistant": self._assistant,
            "user": self._user,
            "result": self._result,
        }

    def show(self, value: Mapping[str, Any]) -> None:
        """One line of the stream. What it does not know it does not show."""
        step = self._on.get(str(value.get("type")))
        if step is not None:
            step(value)

    def said(self, text: str) -> None:
        """A message to the agent."""
        self._screen.end_stream()
        first, *more = brief(text).split("\n")
        self._screen.add(
            Row(), Row(first, BOLD, "> "), *(Row(line, "", "  ") for line in more), Row()
        )

    def note(self, text: str, style: str = DIM) -> None:
        """Something of ours between the agent's."""
        self._screen.end_stream()
        self._screen.add(*(Row(line[:MAX_ROW_CHARS], style) for line in plain(text).split("\n")))

    def _system(self, value: Mapping[str, Any]) -> None:
        subtype = value.get("subtype")
        if subtype == "init":
            self.model = plain(str(value.get("model", "")))
            session = str(value.get("session_id", ""))
            if self.session_id and session != self.session_id:
                self.note(f"A new conversation begins: {plain(session)}")
            self.session_id = session
        elif subtype == "api_retry":
            delay = value.get("retry_delay_ms")
            seconds = f" in {delay / 1000:.0f} s" if isinstance(delay, int | float) else ""
            self.trouble = plain(
                f"API: {value.get('error_status') or value.get('error')}, try"
                f" {value.get('attempt')} of {value.get('max_retries')}{seconds}"
            )
        elif subtype == "compact_boundary":
            self.note("The conversation was compacted.")

    def _partial(self, value: Mapping[str, Any]) -> None:
        event = value.get("event")
        if value.get("parent_tool_use_id") or not isinstance(event, dict):
            return
        if event.get("type") == "message_start":
            self._screen.end_stream()
            self._streamed = str(_at(event, "message", "id") or "")
            self.trouble = ""
        elif _at(event, "delta", "type") == "text_delta":
            self._screen.stream(str(_at(event, "delta", "text") or ""))

    def _assistant(self, value: Mapping[str, Any]) -> None:
        inside = bool(value.get("parent_tool_use_id"))
        for block in _blocks(value):
            if block.get("type") == "text" and not inside and block.get("text") != NOTHING_SAID:
                self._last_text = str(block.get("text", ""))
                if _at(value, "message", "id") != self._streamed and self._last_text:
                    self._screen.stream(self._last_text)
                self._screen.end_stream()
            elif block.get("type") == "tool_use":
                self._screen.end_stream()
                given = block.get("input")
                text = summary(str(block.get("name", "")), given if isinstance(given, dict) else {})
                self._screen.add(Row(text, DIM if inside else GOOD, "    " if inside else "● "))

    def _user(self, value: Mapping[str, Any]) -> None:
        if value.get("parent_tool_use_id"):
            return
        content = _at(value, "message", "content")
        if isinstance(content, str):
            if content.startswith("<local-command"):
                self.note(content.partition(">")[2].rpartition("<")[0])
            return
        for block in _blocks(value):
            if block.get("type") == "tool_result":
                self._tool_result(block)
            elif str(block.get("text", "")).startswith("[Request interrupted"):
                self._interrupted = True
                self.note("  ⎿ Interrupted. What should it do instead?")

    def _tool_result(self, block: Mapping[str, Any]) -> None:
        content = block.get("content")
        if isinstance(content, list):
            parts = [
                str(p.get("text", f"[{p.get('type')}]")) for p in content if isinstance(p, dict)
            ]
            content = "\n".join(parts)
        lines = plain(str(content or "(nothing)")).rstrip("\n").split("\n")
        hidden = len(lines) - MAX_RESULT_ROWS
        if hidden > 0:
            lines = [*lines[:MAX_RESULT_ROWS], f"… {hidden} more lines"]
        style = BAD if block.get("is_error") else DIM
        rows = [f"{line[:MAX_ROW_CHARS]}" for line in lines]
        self._screen.end_stream()
        self._screen.add(*(Row(x, style, "    " if n else "  ⎿ ") for n, x in enumerate(rows)))

    def _result(self, value: Mapping[str, Any]) -> None:
        self._screen.end_stream()
        self.trouble = ""
        cost = value.get("total_cost_usd")
        if isinstance(cost, int | float):
            self.cost_usd = float(cost)
        text = value.get("result")
        if value.get("is_error") and value.get("subtype") == "success":
            if text != self._last_text:
                self.note(str(text), BAD)
            status = value.get("api_error_status") or value.get("terminal_reason") or "an error"
            self.note(f"The turn ended with {status}; it can be asked again.", BAD)
        elif value.get("subtype") != "success" and not self._interrupted:
            errors = value.get("errors")
            lines = [str(e) for e in errors] if isinstance(errors, list) else []
            self.note("\n".join([f"The turn ended: {value.get('subtype')}.", *lines]), BAD)
        elif not value.get("num_turns") and isinstance(text, str) and text != self._last_text:
            self.note(text or "Done.")
        self._last_text, self._interrupted = "", False


def _blocks(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = _at(value, "message", "content")
    return [b for b in content if isinstance(b, dict)] if isinstance(content, list) else []


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
