"""Choose what can be put away: tickets that were quiet for long, worktrees nobody needs, claims.

`ticketctl gc` first says what it would do and how much it would free, and does it with --yes; one
selection is behind both. Each thing goes the way of `close`, so that nothing is lost that a close by hand
would not lose.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from orchestrator import close, disk
from orchestrator.config import Config
from orchestrator.errors import TicketError
from orchestrator.progress import Advance
from orchestrator.store import events, tickets, worktrees
from orchestrator.store.db import Database
from orchestrator.store.tickets import Ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Something that could be put away."""

    ticket: int
    title: str
    what: str  #: close, remove-worktree, release-claim
    why: str
    kept_because: str  #: empty: it would be done, or was done
    size_bytes: int | None  #: what goes takes on the disk, before; None: it took too long to say
    done: bool = False


def collect(
    config: Config,
    database: Database,
    *,
    stop: Callable[[int], object],
    running_pids: Callable[[int], Collection[int]],
    do_it: bool = False,
    idle_days: int | None = None,
    advance: Advance = lambda _: None,
) -> Iterator[Candidate]:
    """What can go, one after the other; with `do_it` it has gone when it is told.

    `advance` is told of each ticket that was looked at, whether anything of it can go or not.
    """
    days = config.archive.idle_days if idle_days is None else idle_days
    before = datetime.now(UTC) - timedelta(days=days)
    places = {place.ticket_id for place in worktrees.active(database)}
    for ticket in tickets.list_all(database, closed=True):
        advance(1)
        alive = bool(running_pids(ticket.id))
        tree_error = ""
        try:
            tree = close.tree_of(config, database, ticket)
        except TicketError as error:
            tree, tree_error = None, error.message
        if ticket.status != "closed" and not alive and last_sign(database, ticket) < before:
            reasons = [tree_error] if tree_error else []
            if tree and not reasons:
                reasons = _reasons(config, database, ticket, tree)
            yield _carried_out(
                ticket, "close", f"quiet for {days} days", reasons, _size(config, ticket, tree),
                partial(close.close, config, database, ticket.id, stop=stop) if do_it else None,
            )  # fmt: skip
        elif ticket.status == "closed" and tree and ticket.id in places:
            reasons = _reasons(config, database, ticket, tree)
            yield _carried_out(
                ticket, "remove-worktree", "closed, and its worktree was left", reasons,
                disk.size_bytes([tree.path]),
                partial(close.remove_kept, config, database, ticket, tree) if do_it else None,
            )  # fmt: skip
        elif ticket.id in places and tree is None and not alive and not tree_error:
            yield _carried_out(
                ticket, "release-claim", "it holds a place and has no worktree", [], 0,
                partial(worktrees.release, database, ticket.id) if do_it else None,
            )  # fmt: skip


def last_sign(database: Database, ticket: Ticket) -> datetime:
    """When anything was last heard of a ticket."""
    newest = events.of_ticket(database, ticket.id, limit=1)
    return max([ticket.created_at, *(e.at for e in newest)])


def _reasons(config: Config, database: Database, ticket: Ticket, tree: close.Tree) -> list[str]:
    try:
        return close.look_at(config, database, ticket, tree)[1]
    except TicketError as error:
        return [error.message]


def _size(config: Config, ticket: Ticket, tree: close.Tree | None) -> int | None:
    """Of what a close removes; the archive it leaves is smaller, and nobody knows by how much."""
    paths = config.ticket_paths(ticket.id)
    own: Iterable[Path] = (
        *paths.folder.glob("pane.log*"), paths.sidecar_path, paths.cache_folder, paths.worker_path,
    )  # fmt: skip
    return disk.size_bytes([*own, *([tree.path] if tree else [])])


def _carried_out(
    ticket: Ticket,
    what: str,
    why: str,
    reasons: list[str],
    size_bytes: int | None,
    act: Callable[[], object] | None,
) -> Candidate:
    kept, done = "; ".join(reasons), False
    if act is not None and not reasons:
        try:
            act()
            done = True
        except TicketError as error:
            kept = error.message
    return Candidate(
        ticket=ticket.id, title=ticket.title, what=what, why=why, kept_because=kept,
        size_bytes=size_bytes, done=done,
    )  # fmt: skip
