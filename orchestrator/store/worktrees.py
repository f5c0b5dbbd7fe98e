"""Places for worktrees: claimed before the folder is made, so that the cap holds against races."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from orchestrator.errors import Conflict
from orchestrator.store.db import Database

_LOCK_KEY = 0x6D63_7774  # "mcwt": one claim at a time
_NAMED = 3  # of the oldest idle ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A row of `worktrees`."""

    ticket_id: int
    path: str
    repo_path: str
    branch: str
    base_sha: str
    claimed_at: datetime  #: aware, UTC
    removed_at: datetime | None  #: None: it holds one of the places
    disk_bytes: int | None  #: as of measured_at
    git_state: Mapping[str, Any] | None  #: ahead, behind, dirty, untracked, conflicts, text
    measured_at: datetime | None


_COLUMNS = ", ".join(f.name for f in fields(Place))


def claim(
    database: Database,
    ticket: int,
    *,
    path: str,
    repo_path: str,
    branch: str,
    base_sha: str,
    max_active: int,
) -> bool:
    """Takes one of the places; False: the ticket has one already.

    Raises:
        Conflict: all are taken, or another ticket's worktree is at that path; with what to do.
    """
    with database.transaction() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_KEY,))
        cursor.execute("SELECT ticket_id, path FROM worktrees WHERE removed_at IS NULL")
        taken = {row["ticket_id"]: row["path"] for row in cursor.fetchall()}
        if ticket in taken:
            return False
        other = next((number for number, there in taken.items() if there == path), None)
        if other is not None:
            raise Conflict(
                f"{path} is the worktree of ticket {other}.",
                hint="Put {id} into [worktree] path in config.toml.",
            )
        if len(taken) >= max_active:
            raise _full(cursor, len(taken), max_active)
        cursor.execute(
            "INSERT INTO worktrees (ticket_id, path, repo_path, branch, base_sha)"
            " VALUES (%(ticket)s, %(path)s, %(repo)s, %(branch)s, %(base)s)"
            " ON CONFLICT (ticket_id) DO UPDATE SET path = %(path)s, repo_path = %(repo)s,"
            " branch = %(branch)s, base_sha = %(base)s, claimed_at = now(), removed_at = NULL,"
            " disk_bytes = NULL, git_state = NULL, measured_at = NULL",
            {
                "ticket": ticket, "path": path, "repo": repo_path, "branch": branch,
                "base": base_sha,
            },
        )  # fmt: skip
    return True


def _full(cursor: Any, taken: int, max_active: int) -> Conflict:
    cursor.execute(
        "SELECT t.id, t.title, COALESCE(t.last_sign_at, t.worker_started, w.claimed_at) AS seen"
        " FROM worktrees w JOIN tickets t ON t.id = w.ticket_id"
        " WHERE w.removed_at IS NULL AND t.turn_state IN ('idle', 'gone', 'api_error')"
        " ORDER BY seen LIMIT %s",
        (_NAMED,),
    )
    idle = [
        f"ticket {row['id']} ({row['title'][:40]}, since {row['seen']:%Y-%m-%d %H:%M} UTC)"
        for row in cursor.fetchall()
    ]
    which = f" Idle the longest: {', '.join(idle)}." if idle else " All of them are busy."
    return Conflict(
        f"{taken} of {max_active} worktrees are in use.{which}",
        hint="Close one: ticketctl close TICKET; or raise [worktree] max_active in config.toml.",
    )


def release(database: Database, ticket: int) -> None:
    """Gives the place back."""
    database.query(
        "UPDATE worktrees SET removed_at = now() WHERE ticket_id = %s AND removed_at IS NULL",
        (ticket,),
    )


def of_ticket(database: Database, ticket: int) -> Place | None:
    """A ticket's place, also one that was given back."""
    rows = database.query(f"SELECT {_COLUMNS} FROM worktrees WHERE ticket_id = %s", (ticket,))
    return Place(**rows[0]) if rows else None


def active(database: Database) -> list[Place]:
    """All places that are taken, by ticket."""
    rows = database.query(
        f"SELECT {_COLUMNS} FROM worktrees WHERE removed_at IS NULL ORDER BY ticket_id"
    )
    return [Place(**row) for row in rows]


def measured(
    database: Database, ticket: int, *, disk_bytes: int | None, git_state: Mapping[str, Any]
) -> None:
    """Writes down what the heartbeat found."""
    database.query(
        "UPDATE worktrees SET disk_bytes = COALESCE(%s, disk_bytes), git_state = %s,"
        " measured_at = now() WHERE ticket_id = %s",
        (disk_bytes, json.dumps(git_state), ticket),
    )
