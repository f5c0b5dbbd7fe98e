"""Turn sidecar lines into events.

Between SIDECAR and EVENTS. Pure: no files, no clock, no database, so that any recorded sidecar
replays to the same events. Following a growing file is `follow.py`'s business, storing `ingest.py`'s.

One line is one event. What several lines mean together (the cost of a ticket over many processes,
which conversation it is on) is folded into a `Memory` that is stored with the position.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from orchestrator.sidecar import Record

#: Each kind of event there is, with what it says. docs/events.md is checked against this.
KINDS = {
    "worker_start": "the launcher is about to start a process; what that process counts begins anew",
    "session_start": "the agent opened a conversation: startup, resume, clear or compact",
    "session_end": "the agent closed the conversation in good order",
    "user_prompt": "the worker took a message, typed or sent",
    "message_taken": "the worker's program was given a message, by the name it has in the queue",
    "assistant_text": "the worker said something in the middle of a turn",
    "tool_use": "the worker is about to use a tool",
    "tool_result": "a tool came back, or failed",
    "permission_request": "the worker asks whether it may use a tool, or asks a question",
    "permission_answer": "that was answered, or has gone",
    "notification": "the worker wants somebody's attention",
    "turn_end": "the worker finished its turn",
    "api_error": "the turn ended because the API refused or failed",
    "result": "the stream's account of a turn",
    "subagent": "a subagent started or stopped",
    "compact": "the conversation is being, or was, compacted",
    "cost": "the process's own count of cost and context so far",
    "other": "a line of a kind this version does not know; its data is kept",
}
_KIND_OF_HOOK = {
    "WorkerStart": "worker_start",
    "SessionStart": "session_start",
    "SessionEnd": "session_end",
    "UserPromptSubmit": "user_prompt",
    "MessageTaken": "message_taken",
    "PreToolUse": "tool_use",
    "PostToolUse": "tool_result",
    "PostToolUseFailure": "tool_result",
    "PermissionRequest": "permission_request",
    "PermissionAnswer": "permission_answer",
    "PermissionGone": "permission_answer",
    "Notification": "notification",
    "Stop": "turn_end",
    "StopFailure": "api_error",
    "SubagentStart": "subagent",
    "SubagentStop": "subagent",
    "PreCompact": "compact",
    "PostCompact": "compact",
    "statusLine": "cost",
}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
MAX_COST_USD = Decimal(10_000_000)  # a count past it is a mistake, not a bill


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something a worker did, read from one line of its sidecar."""

    kind: str
    at: datetime  #: aware, UTC; as the line says it
    data: dict[str, Any]  #: what the line said
    offset: int  #: byte position of the line
    text: str  #: `data` as JSON, without making it anew where the line has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What has to be known to read the next line."""

    session_id: str = ""  #: the conversation the worker is on; changes with /clear
    earlier_usd: str = "0"  #: cost of the processes before this one; decimal text, exact
    base_usd: str = ""  #: this process's first count; empty until there is one
    seen_usd: str = "0"  #: this process's last count
    fresh: bool = True  #: this process opened a new conversation: its count began at 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def cost_usd(self) -> Decimal:
        """Of all processes so far."""
        return Decimal(self.earlier_usd) + self._of_this_process()

    def _of_this_process(self) -> Decimal:
        if not self.base_usd:
            return Decimal(0)
        return max(Decimal(0), Decimal(self.seen_usd) - Decimal(self.base_usd))

    def as_json(self) -> dict[str, Any]:
        """For the position's row."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Memory:
        """Back from there; keys of other versions are ignored."""
        return cls(**{name: value[name] for name in cls.__slots__ if name in value})

    def next_process(self, *, fresh: bool) -> Memory:
        """A process begins: it counts by itself, from 0 or from what it remembers of the last."""
        return replace(
            self,
            earlier_usd=str(self.cost_usd),
            base_usd="0" if fresh else "",
            seen_usd="0",
            fresh=fresh,
        )

    def counted(self, usd: Decimal) -> Memory:
        """The process says how much it has cost so far.

        A process that goes on with a conversation may begin its count where the last one saved it,
        so its first count is where it begins. A count that falls is a process nobody told us of.
        """
        if not self.base_usd:
            return replace(self, base_usd=str(usd), seen_usd=str(usd))
        if usd < Decimal(self.seen_usd):
            return replace(
                self, earlier_usd=str(self.cost_usd), base_usd=str(usd), seen_usd=str(usd)
            )
        return replace(self, seen_usd=str(usd))


def fold(memory: Memory, record: Record) -> tuple[Memory, Event]:
    """The event of a line, and what is known after it."""
    kind = (
        _stream_kind(record.data)
        if record.hook == "stream"
        else _KIND_OF_HOOK.get(record.hook, "other")
    )
    data, text = record.data, record.text or json.dumps(record.data)
    if record.hook not in _KIND_OF_HOOK:
        data = {"hook": record.hook, **data}
        # A "hook" of the line's own comes later, and wins here as there.
        text = f'{{"hook":"{record.hook}"' + (f",{text[1:]}" if record.data else "}")
    elif record.hook == "PermissionGone":
        data = {**data, "behavior": "gone"}
        text = json.dumps(data)
    event = Event(kind=kind, at=record.at, data=data, offset=record.offset, text=text)
    return _EFFECTS.get(kind, _no_effect)(memory, record.data), event


def flaw(record: Record) -> str:
    """Why a line cannot be used though it can be read, half a sentence; empty for a good one."""
    cost = record.data.get("cost")
    for place in (record.data, cost if isinstance(cost, dict) else {}):
        value = place.get("total_cost_usd")
        if type(value) in {int, float} and _usd(value) is None:
            return "a cost that is none"
    return ""


def _no_effect(memory: Memory, _: dict[str, Any]) -> Memory:
    return memory


def _on_worker_start(memory: Memory, data: dict[str, Any]) -> Memory:
    return memory.next_process(fresh=not data.get("resumed"))


def _on_session_start(memory: Memory, data: dict[str, Any]) -> Memory:
    session = data.get("session_id")
    if not isinstance(session, str) or not _UUID.fullmatch(session):
        return memory
    return replace(memory, session_id=session)


def _on_cost(memory: Memory, data: dict[str, Any]) -> Memory:
    cost = data.get("cost")
    usd = _usd(cost.get("total_cost_usd")) if isinstance(cost, dict) else None
    return memory if usd is None else memory.counted(usd)


def _on_result(memory: Memory, data: dict[str, Any]) -> Memory:
    usd = _usd(data.get("total_cost_usd"))
    memory = memory if usd is None else memory.counted(usd)
    usage = data.get("usage")
    if isinstance(usage, dict):
        spent = [usage.get(name) for name in ("input_tokens", "output_tokens")]
        tokens_in, tokens_out = (n if type(n) is int and 0 <= n < 10**12 else 0 for n in spent)
        memory = replace(
            memory,
            input_tokens=memory.input_tokens + tokens_in,
            output_tokens=memory.output_tokens + tokens_out,
        )
    return memory


_EFFECTS: dict[str, Callable[[Memory, dict[str, Any]], Memory]] = {
    "worker_start": _on_worker_start,
    "session_start": _on_session_start,
    "cost": _on_cost,
    "result": _on_result,
}


def _usd(value: object) -> Decimal | None:
    """A count of dollars; None for what is none (negative, not finite, absurd, no number)."""
    if type(value) not in {int, float}:
        return None
    try:
        usd = Decimal(str(value))
    except InvalidOperation:
        return None
    return usd if usd.is_finite() and 0 <= usd <= MAX_COST_USD else None


def _stream_kind(data: dict[str, Any]) -> str:
    """What a line of `--output-format stream-json` is."""
    kind, subtype = data.get("type"), data.get("subtype")
    if kind == "system":
        if subtype == "init":
            return "session_start"
        return "compact" if subtype == "compact_boundary" else "other"
    if kind == "result":
        return "result"
    if kind == "control_request":
        return (
            "permission_request" if _at(data, "request", "subtype") == "can_use_tool" else "other"
        )
    if kind == "control_cancel_request":
        return "permission_answer"
    blocks = _at(data, "message", "content")
    types = (
        {b.get("type") for b in blocks if isinstance(b, dict)}
        if isinstance(blocks, list)
        else {"text"}
    )
    if kind == "assistant":
        return "tool_use" if "tool_use" in types else "assistant_text"
    if kind == "user":
        return "tool_result" if "tool_result" in types else "user_prompt"
    return "other"


def _at(data: dict[str, Any], *path: str) -> Any:
    value: Any = data
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def counted(memory: Memory, kind: str, data: dict[str, Any]) -> Memory:
    """What is known after a stored event: the same count once more."""
    return _EFFECTS.get(kind, _no_effect)(memory, data)
