"""Records as the API shows them, and bodies as it takes them.

The edge where JSON comes in and goes out. What is not listed here does not leave the gateway.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from orchestrator.diff import Diff
from orchestrator.errors import InvalidInput
from orchestrator.permits import Request
from orchestrator.store.comments import Comment
from orchestrator.store.events import StoredEvent
from orchestrator.store.messages import Message
from orchestrator.store.tickets import Ticket
from webgate.problems import TooLarge

MAX_BODY_BYTES = 64 * 1024
MAX_MESSAGE_BODY_BYTES = 1024 * 1024  # of the route that takes messages
MAX_DIGITS = 15  # of a number in a query
MAX_DEPTH, MAX_ITEMS = 6, 50  # of what a tool is given, as a page shows it
SHOWN_CHARS = 2000  # of a message's text in the stream, which repeats it on every change


def _at(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def ticket(record: Ticket) -> dict[str, Any]:
    """A ticket. Times are ISO 8601 in UTC, money in US dollars."""
    return {
        "id": record.id,
        "title": record.title,
        "prompt": record.prompt,
        "kind": record.kind,
        "repo_path": record.repo_path,
        "base_ref": record.base_ref,
        "base_sha": record.base_sha,
        "driver": record.driver,
        "status": record.status,
        "turn_state": record.turn_state,
        "session_id": record.session_id,
        "worktree_path": record.worktree_path,
        "cost_usd": float(record.cost_usd),
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "disk_bytes": record.disk_bytes,
        "git": git(record),
        "created_at": _at(record.created_at),
        "updated_at": _at(record.updated_at),
        "last_sign_at": _at(record.last_sign_at),
        "closed_at": _at(record.closed_at),
    }


def git(record: Ticket) -> dict[str, Any] | None:
    """The state of its worktree as of the last heartbeat; None where there is none, or git failed."""
    names = ("ahead", "behind", "dirty", "untracked", "conflicts", "text")
    found = record.git_state or {}
    return {name: found[name] for name in names} if "ahead" in found else None


def state(record: Ticket) -> dict[str, Any]:
    """What of a ticket changes while somebody looks at it."""
    names = ("id", "title", "status", "turn_state", "cost_usd", "updated_at", "last_sign_at")
    shown = ticket(record)
    return {name: shown[name] for name in names}


def cost(record: Ticket) -> dict[str, Any]:
    """What a ticket has cost so far."""
    names = ("cost_usd", "input_tokens", "output_tokens")
    shown = ticket(record)
    return {name: shown[name] for name in names}


def request(record: Request) -> dict[str, Any]:
    """Something a worker asks leave for; long arguments are cut."""
    return {
        "request": record.request_id,
        "tool": record.tool,
        "is_question": record.is_question,
        "input": _short(dict(record.input)),
        "at": _at(record.at),
    }


def comment(record: Comment) -> dict[str, Any]:
    """A comment."""
    return {
        "id": record.id,
        "author": record.author,
        "text": record.body,
        "created_at": _at(record.created_at),
    }


def diff(record: Diff) -> dict[str, Any]:
    """A worktree against its base, file by file."""
    return asdict(record)


def _short(value: Any, depth: int = 0) -> Any:
    """JSON of bounded size, for people to read."""
    if isinstance(value, str):
        return value if len(value) <= SHOWN_CHARS else value[:SHOWN_CHARS] + "…"
    if depth > MAX_DEPTH:
        return "…"
    if isinstance(value, dict):
        return {str(k)[:100]: _short(v, depth + 1) for k, v in list(value.items())[:MAX_ITEMS]}
    if isinstance(value, list):
        return [_short(v, depth + 1) for v in value[:MAX_ITEMS]]
    return value


def message(record: Message, *, max_chars: int | None = None) -> dict[str, Any]:
    """A message and what became of it; its text cut to `max_chars`, if given."""
    return {
        "id": record.id,
        "text": record.body[:max_chars],
        "author": record.author,
        "outcome": record.outcome,
        "reason": record.reason,
        "created_at": _at(record.created_at),
        "sent_at": _at(record.sent_at),
        "confirmed_at": _at(record.confirmed_at),
    }


def event(record: StoredEvent) -> dict[str, Any]:
    """Something that happened."""
    return {"id": record.id, "at": _at(record.at), "kind": record.kind, "data": record.data}


def read_json(environ: dict[str, Any], *, max_bytes: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """The body of a change.

    Raises:
        TooLarge: longer than `max_bytes`.
        InvalidInput: no JSON object.
    """
    length = int(environ.get("CONTENT_LENGTH") or 0)  # digits: the server checked
    if length > max_bytes:
        raise TooLarge(f"The body has {length} bytes; at most {max_bytes} are taken here.")
    return json_object(environ["wsgi.input"].read(length))


def json_object(data: bytes) -> dict[str, Any]:
    """A JSON object out of bytes.

    Raises:
        InvalidInput: it is none.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidInput("The body is no JSON.") from None
    if not isinstance(body, dict):
        raise InvalidInput("The body is no JSON object.", hint='Send {"key": value}.')
    return body


def fields_of(
    body: dict[str, Any], needed: dict[str, type], optional: dict[str, type] | None = None
) -> dict[str, Any]:
    """What a body holds, each of its type; nothing beside it.

    Raises:
        InvalidInput: something is missing, of another type, no text, or not known.
    """
    known = {**needed, **(optional or {})}
    for key, value in body.items():
        if key not in known:
            raise InvalidInput(
                f"{key!r:.60} is not known here.", hint=f"Known: {', '.join(known)}."
            )
        if type(value) is not known[key]:
            raise InvalidInput(f"{key!r} is no {_NAMES[known[key]]}.")
        if isinstance(value, str) and not _is_text(value):
            raise InvalidInput(f"{key!r} is not valid Unicode text.")
    for key in needed:
        if key not in body:
            raise InvalidInput(f"{key!r} is missing.", hint=f'Send {{"{key}": …}}.')
    return body


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True


def text_of(body: dict[str, Any], key: str) -> str:
    """A string out of a body, and nothing beside it."""
    return str(fields_of(body, {key: str})[key])


_NAMES = {str: "string", int: "whole number", bool: "true or false", dict: "object", list: "list"}


def whole_number(name: str, text: str) -> int:
    """A number out of a query."""
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise InvalidInput(f"{name} is a whole number of at most {MAX_DIGITS} digits.")
    return int(text)
