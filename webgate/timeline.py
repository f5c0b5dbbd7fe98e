"""A ticket's events as turns: what was asked, which tools ran for how long, what it cost.

Pure: stored events in, oldest first, what the page shows out. Times are seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orchestrator.store.events import StoredEvent

MAX_TEXT_CHARS = 400
MAX_TOOLS = 200  # of one turn; what is more is counted
_WHAT = ("command", "file_path", "path", "pattern", "url", "query", "description", "prompt")


@dataclass
class Tool:
    """One use of a tool."""

    id: str
    name: str
    what: str
    began: datetime
    duration_s: float | None = None  #: None while it runs
    failed: bool = False


@dataclass
class Turn:
    """From a message to the end of the answer."""

    began: datetime
    prompt: str = ""
    answer: str = ""
    ended: datetime | None = None
    error: str = ""
    cost_usd: float | None = None
    tools: list[Tool] = field(default_factory=list)
    more_tools: int = 0


def turns_of(events: Iterable[StoredEvent]) -> list[dict[str, Any]]:
    """The turns, oldest first."""
    turns: list[Turn] = []
    counted = told = 0.0
    for event in events:
        data = event.data if isinstance(event.data, dict) else {}
        turn = turns[-1] if turns and turns[-1].ended is None else None
        if event.kind == "user_prompt":
            turns.append(Turn(began=event.at, prompt=_cut(_prompt_of(data))))
        elif event.kind == "worker_start" and turn is not None:
            turn.ended, turn.error = event.at, "the worker was started anew"
        elif event.kind in {"cost", "result"}:
            counted, told = _count(turns, data, counted, told)
            if event.kind == "result" and turn is not None:
                _end(turn, event, data)
        elif turn is None:
            continue
        elif event.kind == "tool_use":
            _begin_tools(turn, event, data)
        elif event.kind == "tool_result":
            _end_tools(turn, event, data)
        elif event.kind in {"turn_end", "api_error"}:
            _end(turn, event, data)
    return [_shown(turn) for turn in turns]


def _end(turn: Turn, event: StoredEvent, data: dict[str, Any]) -> None:
    turn.ended = event.at
    turn.answer = _cut(str(data.get("last_assistant_message") or data.get("result") or ""))
    if event.kind == "api_error" or data.get("is_error") is True:
        turn.error = _cut(str(data.get("error") or data.get("subtype") or "the API failed"))
    for tool in turn.tools:
        if tool.duration_s is None:
            tool.duration_s = _seconds(tool.began, event.at)


def _count(
    turns: list[Turn], data: dict[str, Any], counted: float, told: float
) -> tuple[float, float]:
    """Adds what the process's own count rose by to the newest turn."""
    cost = data.get("cost")
    given = cost.get("total_cost_usd") if isinstance(cost, dict) else data.get("total_cost_usd")
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < 1e7:
        return counted, told
    rose = given - told if given >= told else given  # a count that falls is another process
    if turns and rose > 0:
        turns[-1].cost_usd = (turns[-1].cost_usd or 0.0) + rose
    return counted + rose, float(given)


def _begin_tools(turn: Turn, event: StoredEvent, data: dict[str, Any]) -> None:
    found = [(str(data.get("tool_use_id", "")), data.get("tool_name"), data.get("tool_input"))]
    if not data.get("tool_name"):  # a line of the stream: blocks of a message
        found = [
            (str(b.get("id", "")), b.get("name"), b.get("input")) for b in _blocks(data, "tool_use")
        ]
    for tool_id, name, given in found:
        if len(turn.tools) >= MAX_TOOLS:
            turn.more_tools += 1
            continue
        turn.tools.append(Tool(tool_id, _cut(str(name or "?"), 80), _what(given), event.at))


def _end_tools(turn: Turn, event: StoredEvent, data: dict[str, Any]) -> None:
    ended = {str(data["tool_use_id"])} if data.get("tool_use_id") else set()
    failed = {str(data.get("tool_use_id"))} if data.get("error") else set()
    for block in _blocks(data, "tool_result"):
        ended.add(str(block.get("tool_use_id", "")))
        if block.get("is_error") is True:
            failed.add(str(block.get("tool_use_id", "")))
    for tool in turn.tools:
        if tool.duration_s is None and (
            tool.id in ended or (not ended and tool.name == data.get("tool_name"))
        ):
            tool.duration_s, tool.failed = _seconds(tool.began, event.at), tool.id in failed


def _blocks(data: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    message = data.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    found = content if isinstance(content, list) else []
    return [block for block in found if isinstance(block, dict) and block.get("type") == kind]


def _prompt_of(data: dict[str, Any]) -> str:
    if isinstance(data.get("prompt"), str):
        return str(data["prompt"])
    message = data.get("message")
    content = message.get("content") if isinstance(message, dict) else ""
    if isinstance(content, str):
        return content
    return " ".join(str(block.get("text", "")) for block in _blocks(data, "text"))


def _what(given: Any) -> str:
    """The one argument that says most."""
    if not isinstance(given, dict):
        return ""
    for name in _WHAT:
        if isinstance(given.get(name), str):
            return _cut(given[name], 200)
    return _cut(json.dumps(given), 200) if given else ""


def _shown(turn: Turn) -> dict[str, Any]:
    return {
        "began_at": turn.began.isoformat(),
        "ended_at": turn.ended.isoformat() if turn.ended else None,
        "duration_s": _seconds(turn.began, turn.ended) if turn.ended else None,
        "prompt": turn.prompt,
        "answer": turn.answer,
        "error": turn.error,
        "cost_usd": None if turn.cost_usd is None else round(turn.cost_usd, 6),
        "more_tools": turn.more_tools,
        "tools": [
            {"name": t.name, "what": t.what, "duration_s": t.duration_s, "failed": t.failed}
            for t in turn.tools
        ],
    }


def _seconds(began: datetime, ended: datetime) -> float:
    return round(max(0.0, (ended - began).total_seconds()), 3)


def _cut(text: str, most: int = MAX_TEXT_CHARS) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
