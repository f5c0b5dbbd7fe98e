"""Comments: what people note on a ticket. The worker never sees them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime

from orchestrator.errors import InvalidInput, NoSuchTicket
from orchestrator.store.db import Database

MAX_COMMENT_CHARS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A row of `comments`."""

    id: int
    ticket_id: int
    author: str
    body: str
    created_at: datetime  #: aware, UTC


_COLUMNS = ", ".join(f.name for f in fields(Comment))


def add(database: Database, ticket: int, body: str, *, author: str = "") -> Comment:
    """Stores a comment, and tells whoever listens.

    Raises:
        InvalidInput: empty, too long, or no text.
        NoSuchTicket: there is none with that number.
    """
    if not body.strip() or len(body) > MAX_COMMENT_CHARS:
        raise InvalidInput(f"A comment has 1 to {MAX_COMMENT_CHARS} characters.")
    if "\0" in body or any("\ud800" <= char <= "\udfff" for char in body):
        raise InvalidInput("The comment is not valid Unicode text.")
    rows = database.query(
        "WITH new AS (INSERT INTO comments (ticket_id, body, author)"
        " SELECT id, %s, %s FROM tickets WHERE id = %s RETURNING *)"
        f" SELECT {_COLUMNS}, pg_notify('mc_events', ticket_id::text) FROM new",
        (body, author, ticket),
    )
    if not rows:
        raise NoSuchTicket(f"There is no ticket {ticket}.", hint="See: ticketctl list")
    rows[0].pop("pg_notify")
    return Comment(**rows[0])


def of_ticket(database: Database, ticket: int, *, limit: int = 200) -> list[Comment]:
    """The newest comments of a ticket, oldest first."""
    rows = database.query(
        f"SELECT {_COLUMNS} FROM comments WHERE ticket_id = %s ORDER BY id DESC LIMIT %s",
        (ticket, limit),
    )
    return [Comment(**row) for row in reversed(rows)]
