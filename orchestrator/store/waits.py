"""Tickets that wait for a person, and who was told of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from orchestrator.store.db import Database
from orchestrator.store.tickets import WAITING


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A ticket in which only a person can go on."""

    ticket_id: int
    title: str
    driver: str
    status: str
    turn_state: str
    event_id: int  #: the `state` event it began with; 0 where there is none
    since: datetime  #: aware, UTC


def claim_untold(database: Database, *, after_s: int) -> list[Wait]:
    """The waits of at least `after_s` seconds that nobody was told of; from now on they count as told.

    Told before it is done: who dies in between leaves a wait untold, and never tells of one twice.
    """
    rows = database.query(
        "WITH untold AS ("
        "  SELECT t.id AS ticket_id, t.title, t.driver, t.status, t.turn_state,"
        "    COALESCE(e.id, 0) AS event_id, COALESCE(e.at, t.updated_at) AS since"
        "  FROM tickets t"
        "  LEFT JOIN LATERAL (SELECT id, at FROM ticket_events"
        "    WHERE ticket_id = t.id AND kind = 'state' ORDER BY id DESC LIMIT 1) e ON true"
        "  LEFT JOIN told_waits w ON w.ticket_id = t.id"
        "  WHERE (t.status = 'needs_input'"
        "      OR (t.status = 'in_progress' AND t.turn_state = ANY(%(waiting)s)))"
        "    AND COALESCE(e.id, 0) IS DISTINCT FROM w.event_id"
        "    AND COALESCE(e.at, t.updated_at) <= now() - make_interval(secs => %(after)s)"
        "), claimed AS ("
        "  INSERT INTO told_waits (ticket_id, event_id) SELECT ticket_id, event_id FROM untold"
        "  ON CONFLICT (ticket_id) DO UPDATE SET event_id = EXCLUDED.event_id, told_at = now()"
        "    WHERE told_waits.event_id <> EXCLUDED.event_id"
        "  RETURNING ticket_id"
        ") SELECT untold.* FROM untold JOIN claimed USING (ticket_id) ORDER BY since",
        {"waiting": sorted(WAITING), "after": after_s},
    )
    return [Wait(**row) for row in rows]
