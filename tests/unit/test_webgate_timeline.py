"""Events as turns: from recorded shapes of both drivers to what the page shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.store.events import StoredEvent
from webgate.timeline import MAX_TEXT_CHARS, MAX_TOOLS, turns_of

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def events(*given: tuple[float, str, dict[str, Any]]) -> list[StoredEvent]:
    """Events at so many seconds after the first."""
    return [
        StoredEvent(id=n, ticket_id=1, at=BEGAN + timedelta(seconds=at), kind=kind, data=data)
        for n, (at, kind, data) in enumerate(given)
    ]


def test_a_turn_with_tools() -> None:
    """Prompt, each tool with what it was used on and for how long, the answer, the cost."""
    found = turns_of(
        events(
            (0, "user_prompt", {"prompt": "count"}),
            (
                1,
                "tool_use",
                {"tool_name": "Bash", "tool_use_id": "a", "tool_input": {"command": "wc -l x"}},
            ),
            (
                2,
                "tool_use",
                {"tool_name": "Read", "tool_use_id": "b", "tool_input": {"file_path": "/x"}},
            ),
            (3.5, "tool_result", {"tool_name": "Bash", "tool_use_id": "a"}),
            (4, "tool_result", {"tool_name": "Read", "tool_use_id": "b", "error": "no such file"}),
            (5, "cost", {"cost": {"total_cost_usd": 0.25}}),
            (6, "turn_end", {"last_assistant_message": "three"}),
            (10, "user_prompt", {"prompt": "more"}),
            (11, "cost", {"cost": {"total_cost_usd": 0.35}}),
        )
    )
    first, second = found
    assert (first["prompt"], first["answer"], first["duration_s"]) == ("count", "three", 6.0)
    assert first["tools"] == [
        {"name": "Bash", "what": "wc -l x", "duration_s": 2.5, "failed": False},
        {"name": "Read", "what": "/x", "duration_s": 2.0, "failed": True},
    ]
    assert (first["cost_usd"], second["cost_usd"]) == (0.25, 0.1)
    assert (second["ended_at"], second["duration_s"]) == (None, None)


def test_lines_of_the_stream_driver() -> None:
    """Tools are blocks of messages there, and the account of a turn is its end."""
    use = {
        "message": {
            "content": [{"type": "tool_use", "id": "t", "name": "Edit", "input": {"path": "a"}}]
        }
    }
    came = {"message": {"content": [{"type": "tool_result", "tool_use_id": "t", "is_error": True}]}}
    (turn,) = turns_of(
        events(
            (0, "user_prompt", {"message": {"content": "go"}}),
            (1, "tool_use", use),
            (2, "tool_result", came),
            (3, "result", {"result": "done", "total_cost_usd": 0.5, "is_error": False}),
        )
    )
    assert (turn["prompt"], turn["answer"], turn["cost_usd"]) == ("go", "done", 0.5)
    assert turn["tools"] == [{"name": "Edit", "what": "a", "duration_s": 1.0, "failed": True}]


def test_what_went_wrong_is_said() -> None:
    """An API that failed, and a worker that died in the middle."""
    failed, died = turns_of(
        events(
            (0, "user_prompt", {"prompt": "a"}),
            (1, "api_error", {"error": "overloaded"}),
            (2, "user_prompt", {"prompt": "b"}),
            (3, "worker_start", {}),
        )
    )
    assert failed["error"] == "overloaded"
    assert died["error"] == "the worker was started anew"


def test_rubbish_is_survived_and_limited() -> None:
    """Whatever an agent's lines hold; long texts are cut, and too many tools counted."""
    many = [(1.0, "tool_use", {"tool_name": "T", "tool_input": None})] * (MAX_TOOLS + 5)
    (turn,) = turns_of(
        events(
            (0, "tool_use", {"tool_name": "before any turn"}),
            (0, "user_prompt", {"prompt": "x" * 10_000}),
            (0, "cost", {"cost": {"total_cost_usd": float("nan")}}),
            (0, "cost", {"cost": {"total_cost_usd": "1"}}),
            (0, "cost", {"cost": [1]}),
            (0, "tool_result", {"message": {"content": [None, {"type": "tool_result"}]}}),
            *many,
        )
    )
    assert len(turn["prompt"]) == MAX_TEXT_CHARS
    assert (len(turn["tools"]), turn["more_tools"], turn["cost_usd"]) == (MAX_TOOLS, 5, None)
