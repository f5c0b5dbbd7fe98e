"""Tickets: intent, and what is known of each worker."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any

from orchestrator.errors import InvalidInput, NoSuchTicket
from orchestrator.store.db import Database, Row

#: turn states in which only a person can go on
WAITING = frozenset({"waiting_permission", "waiting_answer", "api_error"})
MAX_TITLE_CHARS = 500
MAX_PROMPT_BYTES = 100_000  # it travels as one argument, and Linux takes 128 KiB there


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A row of `tickets`."""

    id: int
    title: str
    prompt: str  #: what the worker is told first; may be empty
    kind: str  #: code (a worktree of repo_path) or chat (a folder of its own)
    repo_path: str | None  #: absolute
    base_ref: str | None  #: what the branch starts from; None is HEAD
    base_sha: str | None  #: what base_ref was when the worktree was made
    driver: str
    command: tuple[str, ...]  #: of the command driver; else empty
    status: str  #: open, in_progress, needs_input, closed
    turn_state: str
    use_tmux: bool  #: false: the worker is a plain process of its unit, without a pane
    session_id: str  #: the agent's conversation, a UUID
    isolation: str | None  #: workspace or off; None: as configured
    worktree_path: str | None
    pane_log_path: str | None
    sidecar_path: str | None
    worker_pid: int | None
    worker_started: datetime | None  #: aware, UTC
    last_sign_at: datetime | None  #: when the worker last gave a sign of life
    cost_usd: Decimal
    input_tokens: int
    output_tokens: int
    disk_bytes: int | None  #: worktree, logs and sidecar; as of the last heartbeat, like git_state
    git_state: Mapping[str, Any] | None  #: ahead, behind, dirty, untracked, conflicts, text
    created_at: datetime  #: aware, UTC
    updated_at: datetime
    closed_at: datetime | None
    name: str | None  #: by which a file declares it; unique
    declared_in: str | None  #: that file, absolute, or "-" for stdin; None: none does


_COLUMNS = ", ".join(f.name for f in fields(Ticket))


def _from_row(row: Row) -> Ticket:
    return Ticket(
        **{**row, "command": tuple(row["command"] or ()), "session_id": str(row["session_id"])}
    )


def create(
    database: Database,
    *,
    title: str,
    prompt: str = "",
    repo_path: str | None = None,
    base_ref: str | None = None,
    driver: str = "claude",
    command: Sequence[str] = (),
    kind: str | None = None,
    session_id: str | None = None,
    use_tmux: bool = True,
    isolation: str | None = None,
    ticket: int | None = None,
    name: str | None = None,
    declared_in: str | None = None,
) -> Ticket:
    """A new open ticket. `kind` defaults to code with a repository, chat without.

    Raises:
        InvalidInput: title, prompt or kind cannot be used.
    """
    title = title.strip()
    kind = kind or ("code" if repo_path else "chat")
    if not title or len(title) > MAX_TITLE_CHARS:
        raise InvalidInput(f"A title has 1 to {MAX_TITLE_CHARS} characters.")
    if "\0" in title + prompt:
        raise InvalidInput("Title and prompt hold no NUL characters.")
    if len(prompt.encode("utf-8", "surrogatepass")) > MAX_PROMPT_BYTES:
        raise InvalidInput(
            f"A prompt has at most {MAX_PROMPT_BYTES} bytes.",
            hint="Put the long part into a file and name it in the prompt.",
        )
    if kind == "code" and not repo_path:
        raise InvalidInput("A code ticket needs a repository.", hint="Give --repo PATH.")
    with database.transaction() as cursor:
        columns: dict[str, Any] = {
            "title": title,
            "prompt": prompt,
            "kind": kind,
            "repo_path": repo_path,
            "base_ref": base_ref,
            "driver": driver,
            "command": json.dumps(list(command)) if command else None,
            "use_tmux": use_tmux,
            "status": "open",  # said in so many words: a table that was adopted has defaults of its own
            "turn_state": "gone",
            "isolation": isolation,
            "session_id": session_id or str(uuid.uuid4()),
            "name": name,
            "declared_in": declared_in,
        }
        if ticket is not None:
            columns["id"] = ticket
        names = ", ".join(columns)
        marks = ", ".join(f"%({name})s" for name in columns)
        on_conflict = " ON CONFLICT (id) DO NOTHING"
        cursor.execute(
            f"INSERT INTO tickets ({names}) VALUES ({marks}){on_conflict} RETURNING {_COLUMNS}",
            columns,
        )
        row = cursor.fetchone()
        if row is None and ticket is None:
            # A ticket made with --id stands where the sequence just arrived: step past it.
            cursor.execute(
                "SELECT setval(pg_get_serial_sequence('tickets', 'id'), max(id)) FROM tickets"
            )
            cursor.execute(
                f"INSERT INTO tickets ({names}) VALUES ({marks}) RETURNING {_COLUMNS}", columns
            )
            row = cursor.fetchone()
        if row is None:
            raise InvalidInput(f"Ticket {ticket} exists already.")
        return _from_row(row)


def get(database: Database, ticket: int) -> Ticket:
    """One ticket.

    Raises:
        NoSuchTicket: there is none with that number.
    """
    rows = database.query(f"SELECT {_COLUMNS} FROM tickets WHERE id = %s", (ticket,))
    if not rows:
        raise NoSuchTicket(f"There is no ticket {ticket}.", hint="See: ticketctl list")
    return _from_row(rows[0])


def list_all(database: Database, *, closed: bool = False) -> list[Ticket]:
    """All tickets by number; the closed ones only when asked for."""
    rows = database.query(
        f"SELECT {_COLUMNS} FROM tickets WHERE %s OR status <> 'closed' ORDER BY id", (closed,)
    )
    return [_from_row(row) for row in rows]


def named(database: Database) -> list[Ticket]:
    """The tickets that have a name, closed ones too, by number."""
    rows = database.query(f"SELECT {_COLUMNS} FROM tickets WHERE name IS NOT NULL ORDER BY id")
    return [_from_row(row) for row in rows]


#: What `update` may set; anything else is a mistake in our own code.
UPDATABLE = frozenset(f.name for f in fields(Ticket)) - {"id", "created_at", "updated_at"}


def update(database: Database, ticket: int, **values: Any) -> None:
    """Sets columns of one ticket, and updated_at.

    Raises:
        NoSuchTicket: there is none with that number.
    """
    unknown = set(values) - UPDATABLE
    if unknown:
        raise AssertionError(f"not to be updated: {unknown}")
    if "command" in values:
        values["command"] = json.dumps(list(values["command"])) if values["command"] else None
    assignments = ", ".join(f"{name} = %({name})s" for name in values)
    rows = database.query(
        f"UPDATE tickets SET {assignments}, updated_at = now() WHERE id = %(_id)s RETURNING id",
        {**values, "_id": ticket},
    )
    if not rows:
        raise NoSuchTicket(f"There is no ticket {ticket}.", hint="See: ticketctl list")


def measured(
    database: Database, ticket: int, *, disk_bytes: int | None, git_state: Mapping[str, Any] | None
) -> None:
    """Writes down what the heartbeat found; nobody is told when it is as before."""
    state = None if git_state is None else json.dumps(git_state)
    database.query(
        "UPDATE tickets SET disk_bytes = %(disk)s, git_state = %(git)s WHERE id = %(ticket)s"
        " AND (disk_bytes, git_state) IS DISTINCT FROM (%(disk)s::bigint, %(git)s::jsonb)",
        {"ticket": ticket, "disk": disk_bytes, "git": state},
    )
