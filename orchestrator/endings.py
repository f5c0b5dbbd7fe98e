"""How a worker ended, written down: in the database, or beside the ticket's files until that answers.

A stop by hand while the database is away is intent like any other: `launch` leaves a note, and
`reconcile` makes up for it before it would start the ticket again.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

from orchestrator.errors import TicketError
from orchestrator.naming import TicketPaths
from orchestrator.store import events, tickets
from orchestrator.store.db import Database

MAX_NOTE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The end of a worker."""

    reason: str
    crashed: bool
    at_rest: bool  #: nothing is to run until somebody starts it: stopped by hand, or left by itself


def record(database: Database, paths: TicketPaths, ticket: int, ending: Ending) -> None:
    """Writes an ending down; where the database is away, into a note that `unrecorded` finds.

    Raises:
        TicketError: as the store; the note is there by then.
    """
    values: dict[str, object] = {"turn_state": "gone", "worker_pid": None}
    if ending.at_rest:
        values["status"] = "open"
    try:
        tickets.update(database, ticket, **values)
        events.record(
            database, ticket, "worker_ended", reason=ending.reason, crashed=ending.crashed
        )
    except TicketError:
        _note(paths, ending)
        raise
    forget(paths)


def unrecorded(paths: TicketPaths) -> Ending | None:
    """What a note says; None where there is none, or nothing that can be read."""
    try:
        with paths.ending_path.open(encoding="utf-8") as file:
            raw = json.loads(file.read(MAX_NOTE_BYTES))
        return Ending(
            reason=str(raw["reason"]),
            crashed=raw["crashed"] is True,
            at_rest=raw["at_rest"] is True,
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def forget(paths: TicketPaths) -> None:
    """Removes the note: it was made up for, or the ticket was started since."""
    paths.ending_path.unlink(missing_ok=True)


def _note(paths: TicketPaths, ending: Ending) -> None:
    if not paths.folder.is_dir():
        return
    fresh = paths.ending_path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(asdict(ending), file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(paths.ending_path)
