"""What was put away of closed tickets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from orchestrator.store.db import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A row of `archives`."""

    id: int
    ticket_id: int
    path: str
    made_at: datetime  #: aware, UTC
    size_bytes: int
    sha256: str  #: of the whole file
    facts: Mapping[str, Any]  #: branch, head, worktree


_COLUMNS = ", ".join(f.name for f in fields(Archive))


def add(
    database: Database,
    ticket: int,
    *,
    path: str,
    size_bytes: int,
    sha256: str,
    facts: Mapping[str, Any],
) -> None:
    """Remembers an archive."""
    database.query(
        "INSERT INTO archives (ticket_id, path, size_bytes, sha256, facts)"
        " VALUES (%s, %s, %s, %s, %s)",
        (ticket, path, size_bytes, sha256, json.dumps(facts)),
    )


def newest(database: Database, ticket: int) -> Archive | None:
    """The last archive of a ticket."""
    found = of_ticket(database, ticket)
    return found[-1] if found else None


def of_ticket(database: Database, ticket: int | None = None) -> list[Archive]:
    """The archives of a ticket, or of all of them, oldest first."""
    rows = database.query(
        f"SELECT {_COLUMNS} FROM archives WHERE %(ticket)s::integer IS NULL"
        " OR ticket_id = %(ticket)s ORDER BY id",
        {"ticket": ticket},
    )
    return [Archive(**row) for row in rows]


def with_worktree(database: Database, ticket: int) -> Archive | None:
    """The newest archive that knows of the ticket's present worktree.

    Not always the newest of all: after a close that was cut off comes one without a worktree.
    """
    rows = database.query(
        f"SELECT {_COLUMNS} FROM archives a WHERE ticket_id = %s AND facts ? 'worktree' AND made_at >="
        " (SELECT claimed_at FROM worktrees w WHERE w.ticket_id = a.ticket_id)"
        " ORDER BY id DESC LIMIT 1",
        (ticket,),
    )
    return Archive(**rows[0]) if rows else None


def summary_of(database: Database, ticket: int) -> dict[str, Any]:
    """What a ticket came to, in numbers: turns, tools, messages, when it began and ended."""
    rows = database.query(
        "SELECT t.title, t.kind, t.driver, t.repo_path, t.base_ref, t.base_sha, t.cost_usd::text,"
        " t.input_tokens, t.output_tokens, t.created_at::text, t.closed_at::text,"
        " t.session_id::text, t.worktree_path,"
        " (SELECT count(*) FROM ticket_events e WHERE e.ticket_id = t.id AND kind = 'turn_end') AS turns,"
        " (SELECT count(*) FROM ticket_events e WHERE e.ticket_id = t.id AND kind = 'tool_use') AS tools,"
        " (SELECT count(*) FROM ticket_events e WHERE e.ticket_id = t.id) AS events,"
        " (SELECT min(at)::text FROM ticket_events e WHERE e.ticket_id = t.id) AS first_event_at,"
        " (SELECT max(at)::text FROM ticket_events e WHERE e.ticket_id = t.id) AS last_event_at,"
        " (SELECT count(*) FROM queued_messages m WHERE m.ticket_id = t.id) AS messages"
        " FROM tickets t WHERE t.id = %s",
        (ticket,),
    )
    return dict(rows[0])


def unread(database: Database, ticket: int) -> int:
    """How far the ticket's sidecar has been read, in bytes of its present generation."""
    rows = database.query(
        'SELECT "offset" FROM ingest_positions WHERE source = %s', (f"sidecar:{ticket}",)
    )
    return int(rows[0]["offset"]) if rows else 0
