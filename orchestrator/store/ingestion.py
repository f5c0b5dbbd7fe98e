"""Events with the position they were read at, in one transaction: neither lost nor doubled.

Whoever ingests says from where it read; when the stored position is another one, somebody else was
faster, nothing is written, and the caller reads on from what it is told.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import chain, islice
from typing import Any

import psycopg2.errors
import psycopg2.extras

from orchestrator.store.db import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a source has been read."""

    generation: int = 0
    offset: int = 0  #: bytes; where the next line begins
    identity: str = ""  #: which file the generation is; empty before the first read
    state: Mapping[str, Any] = field(default_factory=dict)  #: what the parser knew there


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """What goes into ticket_events."""

    kind: str
    at: datetime
    text: str  #: `data`: a JSON object
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisonRow:
    """What goes into quarantine."""

    offset: int
    end: int
    hook: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketFacts:
    """What the batch says of the ticket as a whole."""

    cost_usd: Decimal
    input_tokens: int
    output_tokens: int
    session_id: str  #: empty: not known
    last_sign_at: datetime | None


COPY_FROM = 20  # events; with fewer, the savepoint costs more than COPY saves
COPY_BYTES = 65_536  # sent at once: the server stores them while the next are read
_EVENT_COLUMNS = "ticket_id, source, source_generation, at, kind, source_offset, data"
_COPY = f"COPY ticket_events ({_EVENT_COLUMNS}) FROM STDIN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """What is known once a batch was read to its end."""

    after: Position
    poisons: Sequence[PoisonRow]
    facts: TicketFacts


_READ = 'SELECT generation, "offset", identity, state FROM ingest_positions WHERE source = %s'


def position(database: Database, source: str) -> Position:
    """Where to read on."""
    rows = database.query(_READ, (source,))
    return Position(**rows[0]) if rows else Position()


def positions_of_open(database: Database) -> dict[int, Position]:
    """How far each ticket's sidecar has been read, of those that are not closed."""
    rows = database.query(
        'SELECT t.id, COALESCE(p."offset", 0) AS "offset", COALESCE(p.identity, \'\') AS identity'
        " FROM tickets AS t LEFT JOIN ingest_positions AS p ON p.source = 'sidecar:' || t.id"
        " WHERE t.status <> 'closed'"
    )
    return {row["id"]: Position(offset=row["offset"], identity=row["identity"]) for row in rows}


def store_batch(
    database: Database,
    *,
    ticket: int,
    source: str,
    before: Position,
    generation: int,
    events: Iterable[EventRow],
    finish: Callable[[], Finish],
) -> bool:
    """Writes all of it, or nothing; False: the stored position is not `before`.

    `events` are asked for one by one while the server stores those before; `finish` once they are
    read.
    """
    with database.transaction() as cursor:
        cursor.execute(_READ + " FOR UPDATE", (source,))
        if (row := cursor.fetchone()) is None:
            cursor.execute(
                'INSERT INTO ingest_positions (source, generation, "offset") VALUES (%s, 0, 0)'
                " ON CONFLICT (source) DO NOTHING",
                (source,),
            )
            cursor.execute(_READ + " FOR UPDATE", (source,))
            row = cursor.fetchone()
        if (row["generation"], row["offset"]) != (before.generation, before.offset):
            return False
        _add_events(cursor, ticket, source, generation, iter(events))
        end = finish()
        after, facts = end.after, end.facts
        psycopg2.extras.execute_values(
            cursor,
            'INSERT INTO quarantine (ticket_id, source, generation, "offset", "end", hook, reason)'
            ' VALUES %s ON CONFLICT (source, generation, "offset") DO NOTHING',
            [
                (ticket, source, after.generation, p.offset, p.end, p.hook, p.reason)
                for p in end.poisons
            ],
        )
        cursor.execute(
            'UPDATE ingest_positions SET generation = %s, "offset" = %s, identity = %s, state = %s,'
            " updated_at = now() WHERE source = %s;"
            "UPDATE tickets SET cost_usd = %s, input_tokens = %s, output_tokens = %s,"
            " session_id = COALESCE(NULLIF(%s, '')::uuid, session_id),"
            " last_sign_at = COALESCE(%s, last_sign_at), updated_at = now() WHERE id = %s",
            (
                after.generation, after.offset, after.identity, json.dumps(dict(after.state)), source,
                facts.cost_usd, facts.input_tokens, facts.output_tokens, facts.session_id,
                facts.last_sign_at, ticket,
            ),
        )  # fmt: skip
    return True


def _add_events(
    cursor: Any, ticket: int, source: str, generation: int, events: Iterator[EventRow]
) -> None:
    """COPY for many, an INSERT for a few, which needs fewer words with the server.

    COPY knows no ON CONFLICT, and where the stored position is right there is none. Somebody may have
    set it back by hand: then what is there already is passed over.
    """
    rows = list(islice(events, COPY_FROM))
    if len(rows) == COPY_FROM:
        copying = _Copying(f"{ticket}\t{source}\t{generation}\t", chain(rows, events))
        cursor.execute("SAVEPOINT copying")
        try:
            cursor.copy_expert(_COPY, copying, size=COPY_BYTES)
        except psycopg2.errors.UniqueViolation:
            cursor.execute("ROLLBACK TO SAVEPOINT copying")
            rows = [*copying.read_so_far, *events]
        else:
            return
    psycopg2.extras.execute_values(
        cursor,
        f"INSERT INTO ticket_events ({_EVENT_COLUMNS}) VALUES %s"
        " ON CONFLICT (source, source_generation, source_offset) DO NOTHING",
        [(ticket, source, generation, e.at, e.kind, e.offset, e.text) for e in rows],
        page_size=500,
    )


class _Copying:
    """Rows in COPY's text format, made while it sends them."""

    def __init__(self, head: str, events: Iterator[EventRow]) -> None:
        self._head = head
        self._events = events
        self.read_so_far: list[EventRow] = []

    def read(self, size: int) -> str:
        """About `size` characters of whole rows; empty at the end."""
        lines: list[str] = []
        while size > 0 and (event := next(self._events, None)) is not None:
            self.read_so_far.append(event)
            text = event.text.replace("\\", "\\\\")
            for blank in "\t\r\n":  # JSON has them between its words alone
                if blank in text:
                    text = text.replace(blank, " ")
            lines.append(
                f"{self._head}{event.at.isoformat()}\t{event.kind}\t{event.offset}\t{text}\n"
            )
            size -= len(lines[-1])
        return "".join(lines)


def set_turn_state(database: Database, ticket: int, state: str, evidence: str) -> str | None:
    """Records a transition with what it rests on; the state before, or None when it was that one."""
    # Most often it has not changed, and then nothing is locked and nothing has to reach the disk.
    found = database.query("SELECT turn_state FROM tickets WHERE id = %s", (ticket,))
    if not found or found[0]["turn_state"] == state:
        return None
    with database.transaction() as cursor:
        cursor.execute("SELECT turn_state FROM tickets WHERE id = %s FOR UPDATE", (ticket,))
        row = cursor.fetchone()
        if row is None or row["turn_state"] == state:
            return None
        before = str(row["turn_state"])
        cursor.execute(
            "UPDATE tickets SET turn_state = %s, state_evidence = %s, updated_at = now() WHERE id = %s",
            (state, evidence, ticket),
        )
        cursor.execute(
            "INSERT INTO ticket_events (ticket_id, kind, data) VALUES (%s, 'state', %s)",
            (ticket, json.dumps({"from": before, "to": state, "evidence": evidence})),
        )
    return before


def last_event(
    database: Database, ticket: int, kinds: Sequence[str]
) -> tuple[str, dict[str, Any]] | None:
    """The newest event of some kinds, and what it said."""
    rows = database.query(
        "SELECT kind, data FROM ticket_events WHERE ticket_id = %s AND kind = ANY(%s)"
        " ORDER BY id DESC LIMIT 1",
        (ticket, list(kinds)),
    )
    return (rows[0]["kind"], rows[0]["data"]) if rows else None
