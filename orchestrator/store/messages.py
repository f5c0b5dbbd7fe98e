"""Messages: what an operator said, and what became of it.

A message is a row before it is acknowledged. It is taken with a lease, sent once, and then
confirmed by the worker's own evidence; one that was taken is never taken up again, for nobody can
know how much of it arrived.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from orchestrator.errors import Conflict, InvalidInput
from orchestrator.store.db import Database, Row

MAX_BODY_BYTES = 1_000_000
LEASE_S = 300
_TAKE_LOCK = 0x6D63636C  # "mccl": with a ticket, the advisory lock of whoever takes a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A row of `queued_messages`."""

    id: int
    ticket_id: int
    body: str
    author: str
    created_at: datetime  #: aware, UTC
    sent_at: datetime | None  #: when the paste began
    confirmed_at: datetime | None  #: when the worker showed that it has it
    outcome: str  #: queued, sent, confirmed, unconfirmed, refused
    reason: str  #: one sentence where the outcome needs one, or why it waits
    sent_after: int | None  #: the newest event of the ticket at that moment
    urgent: bool  #: sent with --now: goes before the others and breaks off the turn


_COLUMNS = ", ".join(f.name for f in fields(Message))


def _from_row(row: Row) -> Message:
    return Message(**row)


def enqueue(
    database: Database, ticket: int, body: str, *, author: str = "", urgent: bool = False
) -> Message:
    """Stores a message; once this returns it is not lost.

    Raises:
        InvalidInput: empty, too long, or with a NUL.
        Conflict: the ticket is closed or does not exist.
    """
    if not body.strip():
        raise InvalidInput("The message is empty.", hint="Write something.")
    control = next((c for c in body if c not in "\n\r\t" and unicodedata.category(c) == "Cc"), None)
    if control is not None:
        raise InvalidInput(
            f"The message holds the control character U+{ord(control):04X}, a key to a terminal.",
            hint="Remove it; newlines and tabs may stay.",
        )
    try:
        size = len(body.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidInput("The message is not valid Unicode text.") from None
    if size > MAX_BODY_BYTES:
        raise InvalidInput(
            f"The message has {size} bytes; at most {MAX_BODY_BYTES} can be sent.",
            hint="Put it into a file in the worktree and name the file.",
        )
    rows = database.query(
        "INSERT INTO queued_messages (ticket_id, body, author, urgent)"
        " SELECT id, %s, %s, %s FROM tickets WHERE id = %s AND status <> 'closed'"
        f" RETURNING {_COLUMNS}",
        (body, author, urgent, ticket),
    )
    if not rows:
        raise Conflict(f"Ticket {ticket} does not exist or is closed.", hint="ticketctl list --all")
    return _from_row(rows[0])


def get(database: Database, message: int) -> Message | None:
    """One message."""
    rows = database.query(f"SELECT {_COLUMNS} FROM queued_messages WHERE id = %s", (message,))
    return _from_row(rows[0]) if rows else None


def of_ticket(database: Database, ticket: int, *, limit: int = 100) -> list[Message]:
    """The newest messages of a ticket, oldest first."""
    rows = database.query(
        f"SELECT {_COLUMNS} FROM queued_messages WHERE ticket_id = %s ORDER BY id DESC LIMIT %s",
        (ticket, limit),
    )
    return [_from_row(row) for row in reversed(rows)]


def tickets_waiting(database: Database) -> list[int]:
    """Tickets that have a message to send."""
    rows = database.query(
        "SELECT DISTINCT ticket_id FROM queued_messages WHERE outcome = 'queued' ORDER BY 1"
    )
    return [int(row["ticket_id"]) for row in rows]


def lease_of(owner: str, number: int) -> str:
    """The name of a dispatcher's take."""
    return f"{owner}/{number}"


def take(database: Database, ticket: int, lease: str, *, joined: bool = False) -> list[Message]:
    """The next queued message of a ticket, leased and marked sent; all of them with `joined`.

    To be called right before the first byte leaves: whoever goes away after this leaves them
    unconfirmed. Urgent ones come first, then the oldest. Empty when there is none free, or one is in
    flight (sent, neither confirmed nor given up).

    Args:
        database: where they are.
        ticket: whose.
        lease: a name of this take alone (`lease_of`): by it `take_back` finds what it took when
            its answer was lost.
        joined: all of them.
    """
    # One at a time a ticket: FOR UPDATE alone would hand the second message to whoever waited for the
    # first. The second statement sees what was committed while the first one waited.
    rows = database.query(
        "SELECT pg_advisory_xact_lock(%(lock)s, %(ticket)s);"
        "UPDATE queued_messages m SET lease_owner = %(lease)s,"
        " lease_until = now() + make_interval(secs => %(secs)s),"
        " outcome = 'sent', sent_at = now(), reason = '', sent_after ="
        " (SELECT COALESCE(max(id), 0) FROM ticket_events e WHERE e.ticket_id = m.ticket_id)"
        " WHERE id IN (SELECT id FROM queued_messages WHERE ticket_id = %(ticket)s"
        "  AND outcome = 'queued' AND (lease_until IS NULL OR lease_until < now())"
        "  AND NOT EXISTS (SELECT 1 FROM queued_messages o WHERE o.ticket_id = %(ticket)s"
        "    AND o.lease_owner IS NOT NULL AND o.lease_until >= now())"
        "  ORDER BY urgent DESC, id LIMIT %(limit)s)"
        f" RETURNING {_COLUMNS}",
        {
            "lock": _TAKE_LOCK, "lease": lease, "secs": LEASE_S, "ticket": ticket,
            "limit": None if joined else 1,
        },
    )  # fmt: skip
    return sorted((_from_row(row) for row in rows), key=lambda m: (not m.urgent, m.id))


def take_back(database: Database, leases: Sequence[str]) -> set[str]:
    """Queues again what was taken under these names, of which certainly nothing reached a worker.

    By the names alone: this may be carried out late, when the same message was taken anew.

    Returns:
        The names under which there was something.
    """
    rows = database.query(
        "UPDATE queued_messages m SET outcome = 'queued', sent_at = NULL, lease_owner = NULL,"
        " lease_until = NULL FROM unnest(%s::text[]) AS unused(lease)"
        " WHERE m.lease_owner = unused.lease AND m.outcome = 'sent' RETURNING unused.lease",
        (list(leases),),
    )
    return {str(row["lease"]) for row in rows}


def is_urgent(database: Database, ticket: int) -> bool:
    """Whether a message waits that was sent with --now."""
    sql = "SELECT 1 FROM queued_messages WHERE ticket_id = %s AND outcome = 'queued' AND urgent LIMIT 1"
    return bool(database.query(sql, (ticket,)))


def is_queued(database: Database, ticket: int, author: str) -> bool:
    """Whether a message of that author waits."""
    sql = "SELECT 1 FROM queued_messages WHERE ticket_id = %s AND outcome = 'queued' AND author = %s LIMIT 1"
    return bool(database.query(sql, (ticket, author)))


def explain(database: Database, ticket: int, reason: str) -> None:
    """Why the queued messages of a ticket wait."""
    database.query(
        "UPDATE queued_messages SET reason = %s"
        " WHERE ticket_id = %s AND outcome = 'queued' AND reason <> %s",
        (reason, ticket, reason),
    )


def cancel(database: Database, message: int) -> bool:
    """Refuses a message that is still queued, at its author's word; False: it is on its way."""
    return bool(
        database.query(
            "UPDATE queued_messages SET outcome = 'refused', reason = 'cancelled before it was sent'"
            " WHERE id = %s AND outcome = 'queued' AND (lease_until IS NULL OR lease_until < now())"
            " RETURNING id",
            (message,),
        )
    )


def settle(database: Database, ids: Sequence[int], outcome: str, reason: str = "") -> None:
    """The end of it: confirmed, unconfirmed, refused, or sent to a worker that confirms nothing."""
    database.query(
        "UPDATE queued_messages SET outcome = %s, reason = %s, lease_owner = NULL,"
        " lease_until = NULL, confirmed_at = CASE WHEN %s = 'confirmed' THEN now() END"
        " WHERE id = ANY(%s) AND outcome IN ('queued', 'sent')",
        (outcome, reason, outcome, list(ids)),
    )


def give_up_stale(database: Database, owner: str) -> list[int]:
    """Sent by a dispatcher that is gone: unconfirmed, for what arrived cannot be known.

    What is leased and was not sent (by a dispatcher of an earlier version) is free at once: the lease
    need not run out, whatever the clock does. To be called by the one dispatcher there is.
    """
    database.query(
        "UPDATE queued_messages SET lease_owner = NULL, lease_until = NULL"
        " WHERE outcome = 'queued' AND split_part(lease_owner, '/', 1) <> %s",
        (owner,),
    )
    rows = database.query(
        "UPDATE queued_messages SET outcome = 'unconfirmed', lease_owner = NULL,"
        " lease_until = NULL, reason = 'the dispatcher was interrupted while sending it'"
        " WHERE outcome = 'sent' AND split_part(lease_owner, '/', 1) <> %s RETURNING id",
        (owner,),
    )
    return [int(row["id"]) for row in rows]
