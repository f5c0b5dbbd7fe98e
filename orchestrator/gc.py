"""Choose what can be put away: tickets that were quiet for long, worktrees nobody needs, claims.

`ticketctl gc` first says what it would do, and does it with --yes. Each thing goes the way of
`close`, so that nothing is lost that a close by hand would not lose.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from orchestrator import close
from orchestrator.config import Config
from orchestrator.errors import TicketError
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
    done: bool = False


def collect(
    config: Config,
    database: Database,
    *,
    stop: Callable[[int], object],
    running_pids: Callable[[int], Collection[int]],
    do_it: bool = False,
    idle_days: int | None = None,
) -> Iterator[Candidate]:
    """What can go, one after the other; with `do_it` it has gone when it is told."""
    days = config.archive.idle_days if idle_days is None else idle_days
    before = datetime.now(UTC) - timedelta(days=days)
    places = {place.ticket_id for place in worktrees.active(database)}
    for ticket in tickets.list_all(database, closed=True):
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
                ticket, "close", f"quiet for {days} days", reasons,
                partial(close.close, config, database, ticket.id, stop=stop) if do_it else None,
            )  # fmt: skip
        elif ticket.status == "closed" and tree and ticket.id in places:
            reasons = _reasons(config, database, ticket, tree)
            yield _carried_out(
                ticket, "remove-worktree", "closed, and its worktree was left", reasons,
                partial(close.remove_kept, config, database, ticket, tree) if do_it else None,
            )  # fmt: skip
        elif ticket.id in places and tree is None and not alive and not tree_error:
            yield _carried_out(
                ticket, "release-claim", "it holds a place and has no worktree", [],
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


def _carried_out(
    ticket: Ticket, what: str, why: str, reasons: list[str], act: Callable[[], object] | None
) -> Candidate:
    kept, done = "; ".join(reasons), False
    if act is not None and not reasons:
        try:
            act()
            done = True
        except TicketError as error:
            kept = error.message
    return Candidate(
        ticket=ticket.id, title=ticket.title, what=what, why=why, kept_because=kept, done=done
    )
