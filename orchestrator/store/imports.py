"""Writing what another Mission Control had: all of it in one transaction, each ticket once.

A ticket that was taken has an event `imported` whose source is the other database and whose offset is
the number there: the index that keeps events single keeps tickets single too. Out of scope: what may be
taken (`taking.py`), and reading it (`older.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg2
import psycopg2.extras

from orchestrator.errors import Conflict, InvalidInput
from orchestrator.store import older
from orchestrator.store.db import Database

_LOCK_KEY = 0x6D63_696D_706F  # "mcimpo": one import at a time
KIND = "imported"


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketRow:
    """What goes into `tickets`; the rest of the columns have their defaults."""

    title: str
    prompt: str
    kind: str
    repo_path: str | None
    base_ref: str | None
    driver: str
    command: str | None  #: a JSON array
    status: str  #: open or closed
    use_tmux: bool
    session_id: str
    cost_usd: Decimal
    input_tokens: int
    output_tokens: int
    created_at: datetime  #: aware
    updated_at: datetime
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class EventRow:
    """What goes into `ticket_events`."""

    at: datetime
    kind: str
    data: str  #: a JSON object


@dataclass(frozen=True, slots=True)
class MessageRow:
    """What goes into `queued_messages`: nothing that would still be sent."""

    body: str
    author: str
    created_at: datetime
    sent_at: datetime | None
    confirmed_at: datetime | None
    outcome: str  #: confirmed, unconfirmed or refused
    reason: str


@dataclass(frozen=True, slots=True)
class CommentRow:
    """What goes into `comments`."""

    author: str
    body: str
    created_at: datetime


_TABLES: dict[type, str] = {
    EventRow: "ticket_events",
    MessageRow: "queued_messages",
    CommentRow: "comments",
}
_TICKET = ", ".join(f.name for f in fields(TicketRow))
_MARKS = ", ".join(f"%({f.name})s" for f in fields(TicketRow))


class Intake:
    """An import in progress; the transaction around it commits it, or nothing."""

    def __init__(self, cursor: Any, source: str) -> None:
        self._cursor = cursor
        self._source = f"import:{source}"
        cursor.execute(
            "SELECT source_offset, ticket_id FROM ticket_events WHERE source = %s AND kind = %s",
            (self._source, KIND),
        )
        #: numbers there, of what was taken before, with the numbers here
        self.before = {int(r["source_offset"]): int(r["ticket_id"]) for r in cursor.fetchall()}
        cursor.execute("SELECT session_id::text AS id, id AS ticket FROM tickets")
        #: whose conversation is whose
        self.conversations = {str(row["id"]): int(row["ticket"]) for row in cursor.fetchall()}

    def next_number(self) -> int:
        """The first that no ticket has or had."""
        self._cursor.execute("SELECT COALESCE(max(id), 0) + 1 AS number FROM tickets")
        return int(self._cursor.fetchone()["number"])

    def add_ticket(self, number: int, row: TicketRow) -> bool:
        """False: a ticket of ours has that number."""
        values = {name.name: getattr(row, name.name) for name in fields(TicketRow)}
        self._cursor.execute(
            f"INSERT INTO tickets (id, turn_state, {_TICKET}) VALUES (%(id)s, 'gone', {_MARKS})"
            " ON CONFLICT (id) DO NOTHING RETURNING id",
            {**values, "id": number},
        )
        if self._cursor.fetchone() is None:
            return False
        self.conversations[row.session_id] = number
        return True

    def add_mark(self, number: int, theirs: int, data: dict[str, Any]) -> None:
        """That a ticket was taken, and what its row was there."""
        self._cursor.execute(
            "INSERT INTO ticket_events (ticket_id, kind, data, source, source_generation, source_offset)"
            " VALUES (%s, %s, %s, %s, 0, %s)",
            (number, KIND, json.dumps(data), self._source, theirs),
        )

    def add(self, rows: Sequence[tuple[int, EventRow | MessageRow | CommentRow]]) -> None:
        """Rows of one kind, each with its ticket."""
        if not rows:
            return
        names = [f.name for f in fields(rows[0][1])]
        psycopg2.extras.execute_values(
            self._cursor,
            f"INSERT INTO {_TABLES[type(rows[0][1])]} (ticket_id, {', '.join(names)}) VALUES %s",
            [(number, *(getattr(row, name) for name in names)) for number, row in rows],
        )

    def undo(self) -> None:
        """As if nothing had been done: for a dry run."""
        self._cursor.connection.rollback()


@contextmanager
def intake(database: Database, source: str) -> Iterator[Intake]:
    """An import of what `source` names; at the end of the block all is there, or nothing.

    Raises:
        InvalidInput: it would read from where it writes to.
        Conflict: another import runs, or a row does not fit into the database.
    """
    try:
        with database.transaction() as cursor:
            cursor.execute("SET LOCAL statement_timeout = 0")
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s) AS got", (_LOCK_KEY,))
            if not cursor.fetchone()["got"]:
                raise Conflict("Another import runs.", hint="Wait until it is done.")
            if older.identity(cursor) == source:
                raise InvalidInput(
                    "That is the database of this Mission Control itself.",
                    hint="An older one in its place is adopted by: ticketctl setup",
                )
            yield Intake(cursor, source)
    except (psycopg2.IntegrityError, psycopg2.DataError, psycopg2.ProgrammingError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise Conflict(f"Nothing was imported, for a row does not fit: {first}.") from None
