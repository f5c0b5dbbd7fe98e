"""What tickets cost, and how many turns they had: by day, by ticket, by model.

Out of the events, by the same count that ingest makes of them, so that the sum over all days is what a
ticket's row says. Out of scope: printing it (`cli_report.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, tzinfo
from decimal import Decimal
from typing import Any, Literal

from orchestrator.events import Memory, counted
from orchestrator.store.events import StoredEvent

By = Literal["day", "ticket", "model"]
UNKNOWN = "-"
COUNTED = ("worker_start", "session_start", "cost", "result")  #: what a cost may come out of
_BEGINS = ("user_prompt", "message_taken", "tool_use", "assistant_text")
_ENDS = ("turn_end", "result", "api_error")
KINDS = (
    *COUNTED,
    "user_prompt",
    "message_taken",
    "tool_use",
    "assistant_text",
    "turn_end",
    "api_error",
)
REPEATED = _BEGINS  #: a turn that has begun does not begin by the next one of these
MAX_MODEL = 100  # characters of what an agent calls its model


@dataclass(slots=True)
class Spent:
    """What came together in one row."""

    turns: int = 0
    cost_usd: Decimal = Decimal(0)
    input_tokens: int = 0
    output_tokens: int = 0

    def __bool__(self) -> bool:
        return bool(self.turns or self.cost_usd or self.input_tokens or self.output_tokens)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a report; what it does not go by is None."""

    day: date | None
    ticket: int | None
    model: str | None
    spent: Spent


@dataclass(slots=True)
class _Ticket:
    memory: Memory = field(default_factory=Memory)
    model: str = UNKNOWN
    in_turn: bool = False


def report(
    events: Iterable[StoredEvent],
    by: Sequence[By],
    *,
    since: date | None = None,
    zone: tzinfo = UTC,
) -> list[Row]:
    """The rows, in the order of what they go by.

    Args:
        events: of `KINDS`, all there are, each ticket's in their order.
        by: what makes a row; nothing: all in one.
        since: earlier days are not told; they are counted, for a process tells its sum so far.
        zone: whose days.
    """
    rows: dict[tuple[date | None, int | None, str | None], Spent] = {}
    for day, ticket, model, spent in _each(events, zone):
        if since is not None and day < since:
            continue
        key = (
            day if "day" in by else None,
            ticket if "ticket" in by else None,
            model if "model" in by else None,
        )
        row = rows.setdefault(key, Spent())
        row.turns += spent.turns
        row.cost_usd += spent.cost_usd
        row.input_tokens += spent.input_tokens
        row.output_tokens += spent.output_tokens
    order = sorted(
        rows, key=lambda key: tuple("" if part is None else _sortable(part) for part in key)
    )
    return [Row(*key, rows[key]) for key in order]


def total(rows: Iterable[Row]) -> Spent:
    """Of all rows together."""
    found = Spent()
    for row in rows:
        found.turns += row.spent.turns
        found.cost_usd += row.spent.cost_usd
        found.input_tokens += row.spent.input_tokens
        found.output_tokens += row.spent.output_tokens
    return found


def _each(events: Iterable[StoredEvent], zone: tzinfo) -> Iterator[tuple[date, int, str, Spent]]:
    tickets: dict[int, _Ticket] = {}
    for event in events:
        ticket = tickets.setdefault(event.ticket_id, _Ticket())
        ticket.model = _model(event.data) or ticket.model
        before = ticket.memory
        if event.kind in COUNTED:
            ticket.memory = counted(before, event.kind, event.data)
        ended = event.kind in _ENDS and ticket.in_turn
        ticket.in_turn = event.kind in _BEGINS or (ticket.in_turn and event.kind not in _ENDS)
        spent = Spent(
            int(ended),
            ticket.memory.cost_usd - before.cost_usd,
            ticket.memory.input_tokens - before.input_tokens,
            ticket.memory.output_tokens - before.output_tokens,
        )
        if spent:
            yield event.at.astimezone(zone).date(), event.ticket_id, ticket.model, spent


def _model(data: dict[str, Any]) -> str:
    """Where the worker says it: its status line, the stream's beginning, an answer."""
    message = data.get("message")
    found = data.get("model") or (message.get("model") if isinstance(message, dict) else None)
    if isinstance(found, dict):
        found = found.get("id")
    # an answer that the CLI made itself is <synthetic>
    return found[:MAX_MODEL] if isinstance(found, str) and not found.startswith("<") else ""


def _sortable(part: date | int | str) -> str:
    return f"{part:012}" if isinstance(part, int) else str(part)
