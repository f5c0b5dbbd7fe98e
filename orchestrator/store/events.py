"""What happened, row by row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.store.db import Database

#: kinds that come out of no sidecar, with what they say; the others are orchestrator.events.KINDS
OWN_KINDS = {
    "worker_started": "the worker runs, with its pid",
    "worker_ended": "the worker is gone, with the reason",
    "reconciled": "what runs was brought in line with what should, with the reason",
    "state": "the turn state changed, with what that rests on",
    "crashing": "the worker crashes again and again, with how often in the last hour",
    "gap": "what the pane printed is in no log for a while, with the reason and what the screen showed",
    "merged": "its commits were merged into a branch",
    "pushed": "its branch was pushed",
    "closed": "it was closed, with its archive and what was given up",
    "reopened": "it was opened again",
    "imported": "it came from another Mission Control's database, with its row there",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """A row of `ticket_events`."""

    id: int
    ticket_id: int
    at: datetime  #: aware, UTC
    kind: str
    data: dict[str, Any]


def record(database: Database, ticket: int, kind: str, **data: Any) -> None:
    """Adds an event that came out of no file."""
    database.query(
        "INSERT INTO ticket_events (ticket_id, kind, data) VALUES (%s, %s, %s)",
        (ticket, kind, json.dumps(data)),
    )


def of_ticket(database: Database, ticket: int, *, limit: int = 200) -> list[StoredEvent]:
    """The newest events of a ticket, oldest first."""
    rows = database.query(
        "SELECT id, ticket_id, at, kind, data FROM ticket_events WHERE ticket_id = %s"
        " ORDER BY id DESC LIMIT %s",
        (ticket, limit),
    )
    return [StoredEvent(**row) for row in reversed(rows)]


def newest(database: Database, ticket: int, kinds: Sequence[str]) -> StoredEvent | None:
    """The newest event of some kinds."""
    found = of_kinds(database, ticket, kinds, limit=1)
    return found[0] if found else None


def of_kinds(
    database: Database, ticket: int, kinds: Sequence[str], *, limit: int
) -> list[StoredEvent]:
    """The newest events of some kinds, oldest first."""
    rows = database.query(
        "SELECT id, ticket_id, at, kind, data FROM ticket_events WHERE ticket_id = %s"
        " AND kind = ANY(%s) ORDER BY id DESC LIMIT %s",
        (ticket, list(kinds), limit),
    )
    return [StoredEvent(**row) for row in reversed(rows)]


def newest_of_each(
    database: Database, tickets: Sequence[int], kinds: Sequence[str]
) -> dict[int, StoredEvent]:
    """The newest event of some kinds, for each of some tickets that has one."""
    rows = database.query(
        "SELECT e.* FROM unnest(%s::integer[]) AS asked(ticket_id) CROSS JOIN LATERAL"
        " (SELECT id, ticket_id, at, kind, data FROM ticket_events"
        " WHERE ticket_id = asked.ticket_id AND kind = ANY(%s) ORDER BY id DESC LIMIT 1) e",
        (list(tickets), list(kinds)),
    )
    return {row["ticket_id"]: StoredEvent(**row) for row in rows}


def after(database: Database, ticket: int, event: int, *, limit: int) -> list[StoredEvent]:
    """The first events after one, oldest first."""
    rows = database.query(
        "SELECT id, ticket_id, at, kind, data FROM ticket_events WHERE ticket_id = %s AND id > %s"
        " ORDER BY id LIMIT %s",
        (ticket, event, limit),
    )
    return [StoredEvent(**row) for row in rows]


def of_kinds_after(
    database: Database, ticket: int, event: int, kinds: Sequence[str], *, limit: int
) -> list[StoredEvent]:
    """The first events of some kinds after one, oldest first."""
    rows = database.query(
        "SELECT id, ticket_id, at, kind, data FROM ticket_events WHERE ticket_id = %s"
        " AND kind = ANY(%s) AND id > %s ORDER BY id LIMIT %s",
        (ticket, list(kinds), event, limit),
    )
    return [StoredEvent(**row) for row in rows]


def newest_id(database: Database) -> int:
    """The number of the newest event of all; 0 when there is none."""
    return int(database.query("SELECT COALESCE(max(id), 0) AS id FROM ticket_events")[0]["id"])


def writers(database: Database) -> frozenset[str]:
    """The transactions that may be adding events just now.

    A number is given out before its event commits, and by a transaction that has this lock: once those
    have gone that were seen after `newest_id`, no event comes any more with a number up to that one.
    """
    rows = database.query(
        "SELECT DISTINCT virtualtransaction AS name FROM pg_locks WHERE locktype = 'relation'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND relation = 'ticket_events'::regclass AND mode = 'RowExclusiveLock' AND granted"
    )
    return frozenset(str(row["name"]) for row in rows)


def marks(
    database: Database, after: int, upto: int, kinds: Sequence[str]
) -> list[tuple[int, str, datetime]]:
    """Ticket, kind and time of the events of some kinds in a range of numbers, oldest first."""
    rows = database.query(
        "SELECT ticket_id, kind, at FROM ticket_events"
        " WHERE id > %s AND id <= %s AND kind = ANY(%s) ORDER BY id",
        (after, upto, list(kinds)),
    )
    return [(row["ticket_id"], row["kind"], row["at"]) for row in rows]


def spending(
    database: Database, kinds: Sequence[str], repeated: Sequence[str], *, page: int = 10_000
) -> Iterator[StoredEvent]:
    """Events of some kinds, oldest first, with what tells of cost and model alone.

    Args:
        database: where they are.
        kinds: all that are asked for.
        repeated: those of `kinds` that say nothing new right after one another, unless a model is named
            that the one before did not name. Most events are such; the server leaves them out.
        page: events looked at by one statement.
    """
    last = 0
    while True:
        # by number of events, not by a range of ids: an adopted database may begin anywhere
        upto = database.query(
            "SELECT max(id) AS id FROM (SELECT id FROM ticket_events WHERE id > %s"
            " ORDER BY id LIMIT %s) AS page",
            (last, page),
        )[0]["id"]
        if upto is None:
            return
        rows = database.query(
            "SELECT id, ticket_id, at, kind, jsonb_strip_nulls(jsonb_build_object("
            "'cost', jsonb_build_object('total_cost_usd', usd), 'total_cost_usd', total,"
            " 'usage', usage, 'resumed', resumed, 'model', model,"
            " 'message', jsonb_build_object('model', said))) AS data"
            " FROM (SELECT *, lag(kind) OVER past AS kind_before, lag(model) OVER past AS model_before,"
            " lag(said) OVER past AS said_before FROM (SELECT id, ticket_id, at, kind,"
            " data #> '{cost,total_cost_usd}' AS usd, data -> 'total_cost_usd' AS total,"
            " data -> 'usage' AS usage, data -> 'resumed' AS resumed, data -> 'model' AS model,"
            " data #> '{message,model}' AS said FROM ticket_events"
            " WHERE id > %(last)s AND id <= %(upto)s AND kind = ANY(%(kinds)s) OFFSET 0) AS slim"
            " WINDOW past AS (PARTITION BY ticket_id ORDER BY id)) AS seen"
            " WHERE NOT (kind = ANY(%(repeated)s) AND kind_before = ANY(%(repeated)s)"
            " AND model IS NOT DISTINCT FROM model_before AND said IS NOT DISTINCT FROM said_before)"
            " IS TRUE ORDER BY id",
            {"last": last, "upto": upto, "kinds": list(kinds), "repeated": list(repeated)},
        )
        for row in rows:
            yield StoredEvent(**row)
        last = upto
