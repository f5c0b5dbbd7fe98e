"""events.py: what the lines of a sidecar mean. Pure, so any recorded sidecar will do."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.events import KINDS, Event, Memory, fold
from orchestrator.sidecar import HOOKS, Record

SESSION = "5a3885d6-6d86-44f5-b6ca-624a3c95b6cf"
AT = datetime(2026, 1, 1, tzinfo=UTC)


def record(hook: str, **data: Any) -> Record:
    """A line."""
    return Record(hook=hook, at=AT, data=data, offset=0, end=1)


def replay(*records: Record) -> tuple[Memory, list[Event]]:
    """Folds them all, with the memory stored and read back between, as restarts would."""
    memory, found = Memory(), []
    for each in records:
        memory, event = fold(Memory.from_json(json.loads(json.dumps(memory.as_json()))), each)
        found.append(event)
    return memory, found


def cost(usd: Any) -> Record:
    """What the status line says."""
    return record("statusLine", cost={"total_cost_usd": usd})


def start(*, resumed: bool) -> Record:
    """A process begins."""
    return record("WorkerStart", resumed=resumed, session_id=SESSION)


def test_every_hook_has_a_kind() -> None:
    """Each hook we ask for becomes an event of a documented kind, none of them `other`."""
    for hook in (
        *HOOKS,
        "statusLine",
        "WorkerStart",
        "PermissionAnswer",
        "PermissionGone",
        "MessageTaken",
    ):
        _, (event,) = replay(record(hook))
        assert event.kind in KINDS
        assert event.kind != "other", hook


def test_an_unknown_hook_is_kept() -> None:
    """A later version of the agent may say more: it is stored, and harms nothing."""
    memory, (event,) = replay(record("Brandnew", value=1))
    assert (event.kind, event.data) == ("other", {"hook": "Brandnew", "value": 1})
    assert memory == Memory()


@pytest.mark.parametrize(
    ("lines", "total"),
    [
        ([start(resumed=False), cost(0), cost(0.0075), cost(0.015)], "0.015"),
        # the first count of a new conversation may come after its first turn
        ([start(resumed=False), cost(0.0075)], "0.0075"),
        # left with /exit, resumed: the count goes on where it was saved
        (
            [
                start(resumed=False),
                cost(0),
                cost(0.015),
                start(resumed=True),
                cost(0.015),
                cost(0.0225),
            ],
            "0.0225",
        ),
        # killed before it saved anything: the count begins at 0 again
        (
            [
                start(resumed=False),
                cost(0),
                cost(0.015),
                start(resumed=True),
                cost(0),
                cost(0.0075),
            ],
            "0.0225",
        ),
        # killed: it begins at what was saved last, below what was seen
        (
            [start(resumed=False), cost(0.03), start(resumed=True), cost(0.0225), cost(0.03)],
            "0.0375",
        ),
        # the same count again and again
        ([start(resumed=False), cost(0.01), cost(0.01), cost(0.01)], "0.01"),
        # a process nobody told us of
        ([start(resumed=False), cost(0.05), cost(0), cost(0.01)], "0.06"),
        # what cannot be a count is none
        (
            [
                start(resumed=False),
                cost(0.01),
                cost(-1),
                cost("9"),
                cost(None),
                cost(True),
                cost(1e300),
            ],
            "0.01",
        ),
        ([cost(0.02)], "0"),
    ],
)
def test_cost_adds_up_over_processes(lines: list[Record], total: str) -> None:
    """The ticket's cost is what its processes added, however each of them counts."""
    assert replay(*lines)[0].cost_usd == Decimal(total)


@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 10_000), max_size=5)), max_size=6))
def test_cost_never_falls_and_is_exact(processes: list[tuple[bool, list[int]]]) -> None:
    """Whatever the processes count, each adds exactly what it grew by; no float creeps in."""
    lines, expected, last = [], Decimal(0), Decimal(0)
    for resumed, steps in processes:
        lines.append(start(resumed=resumed))
        count = base = 137 if resumed else 0
        for step in steps:
            if not (resumed and count == base and lines[-1].hook != "statusLine"):
                count += step
            lines.append(cost(count / 10_000))
        expected += Decimal(count - base) / 10_000
        total = replay(*lines)[0].cost_usd
        assert total >= last
        last = total
    assert last == expected


@pytest.mark.parametrize(
    ("hook", "data"),
    [
        ("Stop", {"a": [1, "x"]}),
        ("NeverHeardOf", {}),
        ("NeverHeardOf", {"a": 1}),
        ("NeverHeardOf", {"hook": "of its own"}),
        ("stream", {"type": "result", "result": "y"}),
        ("PermissionGone", {"request_id": "1"}),
    ],
)
def test_the_text_of_an_event_is_its_data(hook: str, data: dict[str, Any]) -> None:
    """What goes to the database is what the event says, whether its line kept the text or not."""
    for text in (json.dumps(data), ""):
        line = Record(hook=hook, at=AT, data=data, offset=0, end=1, text=text)
        _, event = fold(Memory(), line)
        assert json.loads(event.text) == event.data


def test_the_conversation_is_followed() -> None:
    """/clear opens another conversation: the next resume has to name that one."""
    other = SESSION.replace("5", "6")
    memory, _ = replay(
        record("SessionStart", session_id=SESSION, source="startup"),
        record("SessionStart", session_id=other, source="clear"),
    )
    assert memory.session_id == other
    memory, _ = replay(
        record("SessionStart", session_id="'; DROP TABLE tickets"),
        record("SessionStart", session_id=5),
    )
    assert memory.session_id == ""


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"type": "system", "subtype": "init", "session_id": SESSION}, "session_start"),
        ({"type": "system", "subtype": "compact_boundary"}, "compact"),
        ({"type": "system", "subtype": "api_retry"}, "other"),
        (
            {"type": "assistant", "message": {"content": [{"type": "text", "text": "hi"}]}},
            "assistant_text",
        ),
        (
            {"type": "assistant", "message": {"content": [{"type": "text"}, {"type": "tool_use"}]}},
            "tool_use",
        ),
        ({"type": "user", "message": {"content": [{"type": "tool_result"}]}}, "tool_result"),
        ({"type": "user", "message": {"content": "hello"}}, "user_prompt"),
        ({"type": "user", "message": {"content": [{"type": "text", "text": "x"}]}}, "user_prompt"),
        ({"type": "result", "subtype": "success"}, "result"),
        ({"type": "control_request", "request": {"subtype": "can_use_tool"}}, "permission_request"),
        ({"type": "control_request", "request": {"subtype": "interrupt"}}, "other"),
        ({"type": "control_cancel_request"}, "permission_answer"),
        ({"type": "assistant", "message": None}, "assistant_text"),
        ({"type": ["x"]}, "other"),
        ({}, "other"),
    ],
)
def test_the_lines_of_a_stream(data: dict[str, Any], kind: str) -> None:
    """What --output-format stream-json says, whatever shape it has."""
    assert replay(record("stream", **data))[1][0].kind == kind


def test_a_result_counts_cost_and_tokens() -> None:
    """Cost is cumulative per process, usage is per turn."""

    def result(usd: float, tokens: int) -> Record:
        return record(
            "stream",
            type="result",
            total_cost_usd=usd,
            usage={"input_tokens": tokens, "output_tokens": 1},
        )

    memory, _ = replay(
        start(resumed=False),
        result(0.01, 100),
        result(0.03, 50),
        start(resumed=True),
        result(0.0, 0),
        result(0.02, 7),
    )
    assert (memory.cost_usd, memory.input_tokens, memory.output_tokens) == (Decimal("0.05"), 157, 4)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=8),
       st.sampled_from([*HOOKS, "statusLine", "stream", "WorkerStart", "Else"]))  # fmt: skip
def test_no_shape_of_data_breaks_it(value: Any, hook: str) -> None:
    """Whatever a hook says, there is one event, and the memory can be stored."""
    keys = (
        "cost",
        "session_id",
        "type",
        "message",
        "usage",
        "total_cost_usd",
        "request",
        "resumed",
    )
    memory, found = replay(record(hook, **dict.fromkeys(keys, value)))
    assert len(found) == 1
    assert Memory.from_json(memory.as_json()) == memory
