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


def restarts_within(database: Database, minutes: int) -> list[dict[str, int]]:
    """What heartbeats counted of each ticket's restarts, by its number, oldest first."""
    rows = database.query(
        "SELECT data->'restarts' AS restarts FROM heartbeats"
        " WHERE at > now() - make_interval(mins => %s) AND data ? 'restarts' ORDER BY id",
        (minutes,),
    )
    return [row["restarts"] for row in rows]


def crashing(database: Database) -> dict[int, int]:
    """Tickets whose worker crashes again and again: times within the hour before the last heartbeat."""
    rows = database.query(
        "SELECT data->'crashing' AS found FROM heartbeats WHERE at > now() - interval '5 minutes'"
        " ORDER BY id DESC LIMIT 1"
    )
    return {int(n): times for n, times in (rows[0]["found"] or {}).items()} if rows else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The store in numbers."""

    tickets: Mapping[tuple[str, str], int]  #: by status and turn state
    messages: Mapping[str, int]  #: by outcome
    cost_usd: float
    oldest_queued_s: float  #: 0 when nothing waits
    worktrees: int
    worktree_bytes: int
    events: int  #: the newest one's number: at least as many as there ever were
    recoveries: int  #: times that what runs was brought in line with what should
    gaps: int  #: pieces of panes that are in no log


def counts(database: Database) -> Counts:
    """How many of what there is now, as of one moment."""
    with database.transaction() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cursor.execute(
            "SELECT status, turn_state, count(*) AS n, sum(cost_usd) AS cost FROM tickets"
            " GROUP BY status, turn_state ORDER BY status, turn_state"
        )
        tickets = cursor.fetchall()
        cursor.execute(
            "SELECT outcome, count(*) AS n, extract(epoch FROM now() - min(created_at)) AS age_s"
            " FROM queued_messages GROUP BY outcome ORDER BY outcome"
        )
        messages = cursor.fetchall()
        cursor.execute(
            "SELECT count(*) AS n, COALESCE(sum(disk_bytes), 0) AS bytes FROM worktrees"
            " WHERE removed_at IS NULL"
        )
        places: Any = cursor.fetchone()
        # a subquery a ticket, never flattened into a join: each reads its own few entries of
        # ticket_events_by_kind, however many events of other kinds there are
        cursor.execute(
            "SELECT COALESCE((SELECT max(id) FROM ticket_events), 0) AS events,"
            " COALESCE(sum((SELECT count(*) FROM ticket_events AS e"
            " WHERE e.ticket_id = t.id AND e.kind = 'reconciled')), 0) AS recoveries,"
            " COALESCE(sum((SELECT count(*) FROM ticket_events AS e"
            " WHERE e.ticket_id = t.id AND e.kind = 'gap')), 0) AS gaps FROM tickets AS t"
        )
        happened: Any = cursor.fetchone()
    ages = {row["outcome"]: float(row["age_s"]) for row in messages}
    return Counts(
        tickets={(row["status"], row["turn_state"]): row["n"] for row in tickets},
        messages={row["outcome"]: row["n"] for row in messages},
        cost_usd=float(sum(row["cost"] for row in tickets)),
        oldest_queued_s=ages.get("queued", 0.0),
        worktrees=places["n"],
        worktree_bytes=int(places["bytes"]),
        events=happened["events"],
        recoveries=int(happened["recoveries"]),
        gaps=int(happened["gaps"]),
    )


def event_kinds(database: Database) -> dict[str, int]:
    """How many events there are of each kind."""
    rows = database.query(
        "SELECT kind, count(*) AS n FROM ticket_events GROUP BY kind ORDER BY kind"
    )
    return {row["kind"]: row["n"] for row in rows}


def private_texts(database: Database, *, limit: int = 2000) -> list[str]:
    """Titles, prompts, messages and comments, the newest: what a bug report must not hold."""
    rows = database.query(
        "(SELECT title AS text FROM tickets ORDER BY id DESC LIMIT %(n)s)"
        " UNION ALL (SELECT left(prompt, 4000) FROM tickets ORDER BY id DESC LIMIT %(n)s)"
        " UNION ALL (SELECT left(body, 4000) FROM queued_messages ORDER BY id DESC LIMIT %(n)s)"
        " UNION ALL (SELECT left(body, 4000) FROM comments ORDER BY id DESC LIMIT %(n)s)",
        {"n": limit},
    )
    return [row["text"] for row in rows]
