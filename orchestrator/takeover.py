"""Copying the tickets of another Mission Control's database: all that fits, once, or nothing.

It reads the other one in a read-only transaction and writes ours in one of its own: killed in between,
nothing has happened, and a second run takes what is new. Out of scope: a database that is taken over in
its place (`store/adopt.sql`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime

from orchestrator import taking
from orchestrator.naming import MAX_TICKET
from orchestrator.progress import Advance
from orchestrator.store import imports, older
from orchestrator.store.db import Database
from orchestrator.store.imports import CommentRow, EventRow, Intake, MessageRow
from orchestrator.taking import CannotTakeError, Row

_BATCH = 500  # rows in one INSERT
_AUTHOR = "import"
_Taken = EventRow | MessageRow | CommentRow
_TAKE: dict[str, Callable[[Row, datetime], _Taken]] = {
    "ticket_events": taking.event,
    "queued_messages": taking.message,
    "comments": taking.comment,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A ticket that is here now."""

    theirs: int
    number: int
    title: str
    status: str
    notes: tuple[str, ...]  #: what is another thing here than it was there


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What stayed there, and why."""

    what: str  #: ticket, ticket_events, queued_messages, comments
    theirs: str  #: a ticket's number there; empty: many rows
    count: int
    why: str


@dataclass(slots=True)
class Outcome:
    """What an import did, or would do."""

    source: str
    tickets: list[Taken] = field(default_factory=list)
    #: taken, by table, tickets aside
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(older.TABLES[1:], 0))
    left: list[Left] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)  #: that are kept in the imported events alone
    tables: list[str] = field(default_factory=list)  #: that were not looked at


def run(
    database: Database,
    theirs: older.Older,
    *,
    drivers: frozenset[str],
    renumber: bool,
    dry_run: bool,
    advance: Advance,
) -> Outcome:
    """Copies what fits.

    Args:
        database: ours.
        theirs: the other one, opened.
        drivers: those that can run here.
        renumber: a ticket whose number is taken gets the next free one, instead of being left.
        dry_run: it is done, and undone.
        advance: told of each row.

    Raises:
        InvalidInput: both are the same.
        Conflict: another import runs, or a row does not fit; nothing was taken.
    """
    outcome = Outcome(theirs.name, tables=theirs.others)
    ours = {f.name for f in fields(imports.TicketRow)} | {"id"}
    outcome.columns = [c for c in theirs.columns["tickets"] if c not in ours]
    with imports.intake(database, theirs.identity) as intake:
        numbers = _tickets(intake, theirs, outcome, drivers, advance, renumber=renumber)
        for table in theirs.tables[1:]:
            for batch in _batches(_rows(theirs, table, numbers, intake, outcome, advance)):
                intake.add(batch)
                outcome.rows[table] += len(batch)
        if dry_run:
            intake.undo()
    return outcome


def _tickets(
    intake: Intake, theirs: older.Older, outcome: Outcome, drivers: frozenset[str], advance: Advance,
    *, renumber: bool,
) -> dict[int, int]:  # fmt: skip
    """Numbers there with the numbers here, of what was taken now."""
    numbers: dict[int, int] = {}
    now = datetime.now(UTC)
    for name, line in theirs.rows("tickets"):
        advance(1)
        try:
            there = _new(name, intake, numbers)
            row = taking.parsed(line)
            found = taking.ticket(row, drivers=drivers, conversations=intake.conversations, now=now)
            number = _add(intake, there, found.row, renumber=renumber)
        except CannotTakeError as reason:
            outcome.left.append(Left(what="ticket", theirs=name[:30], count=1, why=str(reason)))
            continue
        notes = found.notes if number == there else (*found.notes, f"its number there was {there}")
        intake.add_mark(number, there, {"from": theirs.name, "notes": list(notes), "row": row})
        if notes:
            told = f"From {theirs.name}, ticket {there}: {'; '.join(notes)}."
            intake.add([(number, CommentRow(_AUTHOR, told, now))])
        numbers[there] = number
        outcome.tickets.append(
            Taken(theirs=there, number=number, title=found.row.title, status=found.row.status,
                  notes=notes)
        )  # fmt: skip
    return numbers


def _add(intake: Intake, there: int, row: imports.TicketRow, *, renumber: bool) -> int:
    if 1 <= there <= MAX_TICKET and intake.add_ticket(there, row):
        return there
    if not renumber:
        why = "is taken here" if 1 <= there <= MAX_TICKET else "is none here"
        raise CannotTakeError(f"the number {why}; --renumber gives it another")
    number = intake.next_number()
    if number > MAX_TICKET or not intake.add_ticket(number, row):
        raise CannotTakeError("there is no number left")
    return number


def _rows(
    theirs: older.Older, table: str, numbers: dict[int, int], intake: Intake, outcome: Outcome,
    advance: Advance,
) -> Iterator[tuple[int, _Taken]]:  # fmt: skip
    """What of a table goes with the tickets that were taken; the rest is counted, by reason."""
    reasons: Counter[str] = Counter()
    now = datetime.now(UTC)
    for name, line in theirs.rows(table):
        advance(1)
        try:
            yield _ours(name, intake, numbers), _TAKE[table](taking.parsed(line), now)
        except CannotTakeError as reason:
            reasons[str(reason)] += 1
    outcome.left += [Left(what=table, theirs="", count=n, why=why) for why, n in reasons.items()]


def _new(name: str, intake: Intake, numbers: dict[int, int]) -> int:
    """The number there of a ticket that is to be taken."""
    there = _number(name)
    if there in intake.before:
        raise CannotTakeError(f"was taken before, as ticket {intake.before[there]}")
    if there in numbers:
        raise CannotTakeError("another one there has that number")
    return there


def _ours(name: str, intake: Intake, numbers: dict[int, int]) -> int:
    """The number here of a row's ticket."""
    there = _number(name)
    if there in intake.before:
        raise CannotTakeError("of tickets that were taken before")
    if there not in numbers:
        raise CannotTakeError("of tickets that were left, or that there are not")
    return numbers[there]


def _number(text: str) -> int:
    if not (text.isascii() and text.lstrip("-").isdigit() and len(text) <= 18):  # bigint
        raise CannotTakeError("its number is none")
    return int(text)


def _batches(
    rows: Iterator[tuple[int, _Taken]],
) -> Iterator[list[tuple[int, _Taken]]]:
    batch: list[tuple[int, _Taken]] = []
    for row in rows:
        batch.append(row)
        if len(batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
