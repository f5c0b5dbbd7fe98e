"""What the heartbeat asks the database, and what it leaves there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.store.db import Database

KEPT_DAYS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Ailing:
    """A ticket with something that waits for too long."""

    ticket_id: int
    since: datetime  #: aware, UTC
    what: str


def stuck_turns(database: Database, minutes: int) -> list[Ailing]:
    """Workers that are busy, or starting, and gave no sign of life for as long."""
    rows = database.query(
        "SELECT id AS ticket_id, turn_state AS what, COALESCE(last_sign_at, worker_started) AS since"
        " FROM tickets WHERE turn_state IN ('busy', 'starting') AND status = 'in_progress'"
        " AND COALESCE(last_sign_at, worker_started) < now() - make_interval(mins => %s)"
        " ORDER BY since",
        (minutes,),
    )
    return [Ailing(**row) for row in rows]


def old_messages(database: Database, minutes: int) -> list[Ailing]:
    """The oldest message of each ticket that nobody took for as long."""
    rows = database.query(
        "SELECT ticket_id, min(created_at) AS since, count(*) || ' queued' AS what"
        " FROM queued_messages WHERE outcome = 'queued' GROUP BY ticket_id"
        " HAVING min(created_at) < now() - make_interval(mins => %s) ORDER BY since",
        (minutes,),
    )
    return [Ailing(**row) for row in rows]


def add_heartbeat(database: Database, data: Mapping[str, Any]) -> None:
    """Stores what was seen, and forgets what is old."""
    with database.transaction() as cursor:
        cursor.execute("INSERT INTO heartbeats (data) VALUES (%s)", (json.dumps(data),))
        cursor.execute(
            "DELETE FROM heartbeats WHERE at < now() - make_interval(days => %s)", (KEPT_DAYS,)
        )


def last_heartbeat(database: Database) -> tuple[datetime, dict[str, Any]] | None:
    """When the last one was, and what it saw."""
    rows = database.query("SELECT at, data FROM heartbeats ORDER BY id DESC LIMIT 1")
    return (rows[0]["at"], rows[0]["data"]) if rows else None
