"""What of another Mission Control's rows can be taken, and in which shape.

Pure: a row's JSON in, a record or a reason out. Nothing that was running or waiting there does so here,
for whoever made it may still use it. What fits no column stays in the ticket's `imported` event.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from orchestrator import sidecar
from orchestrator.store.comments import MAX_COMMENT_CHARS
from orchestrator.store.imports import CommentRow, EventRow, MessageRow, TicketRow
from orchestrator.store.messages import MAX_BODY_BYTES
from orchestrator.store.tickets import MAX_PROMPT_BYTES, MAX_TITLE_CHARS

Row = dict[str, Any]
_CLOSED = frozenset(
    {"closed", "done", "resolved", "cancelled", "canceled", "archived", "merged", "wontfix"}
)
_SETTLED = frozenset({"confirmed", "unconfirmed", "refused"})
_RAN = frozenset({"in_progress", "needs_input", "running", "active"})
_MAX_COST = Decimal(99999999)
_MAX_TOKENS = 2**63 - 1
MAX_NAME_CHARS = 200  # of a driver, an author, the kind of an event


class CannotTakeError(ValueError):
    """Why a row is left where it is, in a few words."""


@dataclass(frozen=True, slots=True)
class TakenTicket:
    """A ticket's row, and what a person has to know of it."""

    row: TicketRow
    notes: tuple[str, ...]


def parsed(line: str | None) -> Row:
    """A row out of its JSON.

    Raises:
        CannotTakeError: too long, or not for PostgreSQL's jsonb.
    """
    if line is None:
        raise CannotTakeError("too long")
    try:
        return sidecar.load_object(line)
    except ValueError as error:
        raise CannotTakeError(str(error)) from None


def ticket(
    theirs: Row, *, drivers: frozenset[str], conversations: dict[str, int], now: datetime
) -> TakenTicket:
    """A ticket, open or closed.

    Args:
        theirs: its row.
        drivers: those that can run here.
        conversations: which ticket of ours has which one.
        now: for what has no time of its own.

    Raises:
        CannotTakeError: its command is none.
    """
    notes: list[str] = []
    status, closed_at = _status(theirs, notes)
    created = _time(theirs.get("created_at")) or now
    repo = _text(theirs, "repo_path")
    if repo and (not repo.startswith("/") or len(repo) > 4096):  # PATH_MAX
        notes.append(f"its repository is no absolute path: {repo:.200}")
        repo = ""
    driver = (_text(theirs, "driver") or "claude")[:MAX_NAME_CHARS]
    if driver not in drivers:
        notes.append(f"no driver here is called {driver}, and without one it does not start")
    command = theirs.get("command")
    words = isinstance(command, list) and all(isinstance(word, str) for word in command)
    if (command is not None and not words) or (driver == "command" and not command):
        raise CannotTakeError("its command is no list of words")
    title, prompt = _title(theirs, notes), _prompt(theirs, notes)
    row = TicketRow(
        title=title,
        prompt=prompt,
        kind="code" if repo else "chat",
        repo_path=repo or None,
        base_ref=_text(theirs, "base_ref")[:MAX_NAME_CHARS] or None,
        driver=driver,
        command=json.dumps(command) if command else None,
        status=status,
        use_tmux=theirs.get("use_tmux") is not False or driver != "oneshot",
        session_id=_conversation(theirs, conversations, notes),
        cost_usd=_cost(theirs, notes),
        input_tokens=_tokens(theirs, "input_tokens"),
        output_tokens=_tokens(theirs, "output_tokens"),
        created_at=created,
        updated_at=_time(theirs.get("updated_at")) or created,
        closed_at=(closed_at or now) if status == "closed" else None,
    )
    if worktree := _text(theirs, "worktree_path"):
        notes.append(f"its worktree there stays as it is: {worktree:.500}")
    return TakenTicket(row, tuple(notes))


def event(theirs: Row, now: datetime) -> EventRow:
    """An event; what is no object becomes one."""
    data = theirs.get("data")
    if data is None:
        data = {
            k: v for k, v in theirs.items() if k not in ("id", "ticket_id", "at", "kind", "data")
        }
    if not isinstance(data, dict):
        data = {"value": data}
    kind = _text(theirs, "kind")[:MAX_NAME_CHARS] or "other"
    at = _time(theirs.get("at")) or _time(theirs.get("created_at")) or now
    return EventRow(at, kind, json.dumps(data))


def message(theirs: Row, now: datetime) -> MessageRow:
    """A message, as something of the past: nothing of it is sent from here.

    Raises:
        CannotTakeError: there is no text, or too much.
    """
    body = _text(theirs, "body")
    if not body:
        raise CannotTakeError("without a text")
    if len(body.encode()) > MAX_BODY_BYTES:
        raise CannotTakeError("too long")
    sent_at = _time(theirs.get("sent_at"))
    outcome, reason = _text(theirs, "outcome"), _text(theirs, "reason")
    if outcome not in _SETTLED:
        sent = outcome == "sent" or sent_at is not None
        outcome = "unconfirmed" if sent else "refused"
        reason = "what came of it is not known here" if sent else "not sent before the import"
    return MessageRow(
        body, _text(theirs, "author")[:MAX_NAME_CHARS], _time(theirs.get("created_at")) or now,
        sent_at, _time(theirs.get("confirmed_at")), outcome, reason,
    )  # fmt: skip


def comment(theirs: Row, now: datetime) -> CommentRow:
    """What somebody noted.

    Raises:
        CannotTakeError: there is no text, or too much.
    """
    body = _text(theirs, "body")
    if not body.strip() or len(body) > MAX_COMMENT_CHARS:
        raise CannotTakeError("without a text" if not body.strip() else "too long")
    at = _time(theirs.get("created_at")) or now
    return CommentRow(_text(theirs, "author")[:MAX_NAME_CHARS], body, at)


def _status(theirs: Row, notes: list[str]) -> tuple[str, datetime | None]:
    there = _text(theirs, "status")
    closed_at = _time(theirs.get("closed_at"))
    if there.lower() in _CLOSED or (closed_at is not None and there.lower() not in _RAN):
        return "closed", closed_at or _time(theirs.get("updated_at"))
    if there.lower() in _RAN:
        notes.append(f"it was {there} there; here it does not run until you start it")
    elif there not in ("", "open"):
        notes.append(f"its status there was {there:.100}")
    return "open", None


def _title(theirs: Row, notes: list[str]) -> str:
    title = _text(theirs, "title").strip()
    if len(title) > MAX_TITLE_CHARS:
        notes.append("its title was cut; the whole one is in its imported event")
    return title[:MAX_TITLE_CHARS] or "untitled"


def _prompt(theirs: Row, notes: list[str]) -> str:
    prompt = _text(theirs, "prompt")
    if len(prompt.encode()) <= MAX_PROMPT_BYTES:
        return prompt
    notes.append("its prompt was too long for an argument, and is in its imported event alone")
    return ""


def _conversation(theirs: Row, conversations: dict[str, int], notes: list[str]) -> str:
    there = _text(theirs, "session_id")
    try:
        found = str(uuid.UUID(there))
    except ValueError:
        if there:
            notes.append("its conversation had no UUID, and it begins a new one")
        return str(uuid.uuid4())
    if found not in conversations:
        return found
    notes.append(f"ticket {conversations[found]} has its conversation, and it begins a new one")
    return str(uuid.uuid4())


def _cost(theirs: Row, notes: list[str]) -> Decimal:
    there = theirs.get("cost_usd")
    if there is None:
        return Decimal(0)
    try:
        cost = Decimal(str(there))
    except InvalidOperation:
        cost = Decimal("NaN")
    if not cost.is_finite() or not 0 <= cost <= _MAX_COST:
        notes.append(f"what it cost there is no amount: {there!s:.50}")
        return Decimal(0)
    return cost


def _tokens(theirs: Row, name: str) -> int:
    there = theirs.get(name)
    sane = isinstance(there, int) and not isinstance(there, bool) and 0 <= there <= _MAX_TOKENS
    return there if sane and isinstance(there, int) else 0


def _text(theirs: Row, name: str) -> str:
    value = theirs.get(name)
    return value if isinstance(value, str) else ""


def _time(value: object) -> datetime | None:
    """Without a zone it is UTC; a year that Python does not have is no time."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
