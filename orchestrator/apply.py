"""Carry out what files declare: look, plan, and do it, each step so that doing it again does nothing.

Between the pure parts (`declare`, `plan`) and the world. Everything is read and checked before the
first change; killed anywhere after that, the next apply does the rest. What an operator sees of it
is `cli_declare`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator import close, limits, plan, systemd, unit_files
from orchestrator.board import Board
from orchestrator.cgroup import cgroup_pids
from orchestrator.config import Config
from orchestrator.declare import Declared
from orchestrator.errors import Conflict, InvalidInput, TicketError, Unavailable
from orchestrator.naming import unit_name
from orchestrator.plan import Actual, Plan
from orchestrator.store import tickets
from orchestrator.store.db import Database, Listener
from orchestrator.store.tickets import Ticket
from orchestrator.systemd import UserManager

_LOCK_KEY = 0x6D63_6465_636C  # "mcdecl": one at a time changes what is declared


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan, and what it was made of."""

    board: Board
    plan: Plan
    actual: Mapping[str, Actual]
    gone: tuple[Actual, ...]  #: declared by these files earlier, and open
    done: tuple[int, ...]  #: the same, and closed
    direct: bool  #: systemd knows limits.DIRECT


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it."""

    numbers: Mapping[str, int]  #: of every declared ticket
    failed: tuple[str, ...]  #: sentences; the rest was done


def prepare(
    config: Config, database: Database, manager: UserManager, board: Board, *, prune: bool
) -> Prepared:
    """Looks at what there is and plans.

    Raises:
        InvalidInput: what is declared cannot be brought about.
        Conflict: a file that is not ours is where one of ours would be.
    """
    named = {t.name: t for t in tickets.named(database) if t.name}
    wanted = {item.name for item in board.items}
    actual = {name: observe(config, manager, t) for name, t in named.items() if name in wanted}
    left_out = [
        t for name, t in named.items()
        if name not in wanted and in_scope(t.declared_in, board.scopes)
    ]  # fmt: skip
    gone = [t for t in left_out if t.status != "closed"]
    if prune and gone and not wanted:
        raise InvalidInput(
            f"Nothing is declared any more: --prune would close all {len(gone)} tickets of it.",
            hint=f"If that is meant: ticketctl close {' '.join(str(t.id) for t in gone)}",
        )
    left = tuple(observe(config, manager, t) for t in gone)
    direct = knows_direct(manager)
    made = plan.make(
        board.items, actual, left,
        others=edges(config, but={there.ticket.id for there in actual.values()}),
        closed=_closed(database, board.items, actual), prune=prune, direct=direct,
    )  # fmt: skip
    done = tuple(t.id for t in left_out if t.status == "closed") if prune else ()
    return Prepared(board, made, actual, left, done, direct)


def knows_direct(manager: UserManager) -> bool:
    """Whether systemd knows `limits.DIRECT`; it would complain of it otherwise."""
    release = re.match(r"[0-9]{1,6}", manager.version())
    return release is not None and int(release[0]) >= limits.DIRECT_SINCE


def observe(config: Config, manager: UserManager, ticket: Ticket) -> Actual:
    """What there is of one ticket."""
    unit, timer = unit_name(ticket.id), unit_files.timer_name(ticket.id)
    manager.hold(unit)
    has_timer = unit_files.read(unit_files.timer(config, ticket.id, ()).path)
    return Actual(
        ticket=ticket,
        drop_in=unit_files.read(unit_files.drop_in(config, ticket.id, "apply", {}).path),
        timer=has_timer,
        timer_is_on=unit_files.is_enabled(config, ticket.id)
        and manager.unit(timer).active == "active",
        active=manager.unit(unit).active,
        in_force=manager.numbers(unit, [key.on_bus for key in limits.LIMITS]),
        is_stale=manager.needs_reload(unit)
        or (has_timer is not None and manager.needs_reload(timer)),
    )


def edges(config: Config, *, but: Collection[int]) -> dict[str, set[str]]:
    """What tickets are ordered after by files of ours; of those in `but`, by `ticketctl set` alone."""
    found: dict[str, set[str]] = {}
    for number in unit_files.tickets_with_files(config):
        after: set[str] = set()
        written_by: tuple[unit_files.By, ...] = ("set",) if number in but else ("set", "apply")
        for by in written_by:
            with suppress(Conflict):  # a file in that place that is not ours
                settings = unit_files.settings_of(config, number, by)
                after |= {u for k in ("After", "Requires") for u in settings.get(k, "").split()}
        if after:
            found[unit_name(number)] = after
    return found


def _closed(
    database: Database, items: Sequence[Declared], actual: Mapping[str, Actual]
) -> set[int]:
    by_number = {ref for item in items for ref in item.requires if isinstance(ref, int)}
    found = {n for n in by_number if tickets.get(database, n).status == "closed"}
    return found | {a.ticket.id for a in actual.values() if a.ticket.status == "closed"}


def in_scope(declared_in: str | None, scopes: Collection[str]) -> bool:
    """Whether a ticket was declared by one of the files or folders given."""
    if declared_in is None:
        return False
    return declared_in in scopes or (declared_in != "-" and str(Path(declared_in).parent) in scopes)


@contextmanager
def alone(database: Database) -> Iterator[None]:
    """Nobody else changes what is declared meanwhile.

    Raises:
        Unavailable: somebody does already.
    """
    lock = Listener(database, [])
    try:
        if not lock.try_lock(_LOCK_KEY):
            raise Unavailable("Another ticketctl apply or set is at work.", hint="Try again.")
        yield
    finally:
        lock.close()


def carry_out(
    config: Config, database: Database, manager: UserManager, prepared: Prepared
) -> Outcome:
    """Does what the plan says."""
    numbers = _rows(database, prepared)
    open_ = [
        item for item in prepared.board.items
        if item.name not in prepared.actual
        or prepared.actual[item.name].ticket.status != "closed"
    ]  # fmt: skip
    pruned = [s.ticket for s in prepared.plan.steps if s.sign == "-" and s.ticket is not None]
    _files(config, manager, prepared, open_, numbers, pruned)
    for number in prepared.done:
        tickets.update(database, number, name=None, declared_in=None)
    failed: list[str] = []
    for name in prepared.plan.stops:
        _try(failed, name, numbers[name], lambda n: manager.stop(unit_name(n)))
    for name in prepared.plan.starts:
        _try(failed, name, numbers[name], lambda n: start(manager, n))
    for number in pruned:
        name = tickets.get(database, number).name or ""
        _try(failed, name, number, lambda n: _prune(config, database, manager, n))
    return Outcome(numbers, tuple(failed))


def _rows(database: Database, prepared: Prepared) -> dict[str, int]:
    numbers = {name: there.ticket.id for name, there in prepared.actual.items()}
    changed = {step.name for step in prepared.plan.steps if step.sign == "~"}
    for item in prepared.board.items:
        columns = plan.columns_of(item)
        if item.name not in numbers:
            numbers[item.name] = tickets.create(
                database, title=item.title, prompt=item.prompt or "", repo_path=item.repo,
                base_ref=item.base, driver=item.driver, command=item.command, kind=item.kind,
                name=item.name, declared_in=item.source,
            ).id  # fmt: skip
        elif item.name in changed:
            has = prepared.actual[item.name].ticket
            values = {name: v for name, v in columns.items() if getattr(has, name) != v}
            if values:
                tickets.update(database, has.id, **values)
    return numbers


def _files(
    config: Config,
    manager: UserManager,
    prepared: Prepared,
    open_: Sequence[Declared],
    numbers: Mapping[str, int],
    pruned: Sequence[int],
) -> None:
    """Drop-ins and timers, and one daemon-reload when something changed."""
    files = [
        unit_files.drop_in(
            config, own, "apply", plan.wanted_settings(i, own, numbers, direct=prepared.direct)
        )
        for i in open_
        if (own := numbers[i.name])
    ]
    calendars = {numbers[i.name]: i.schedule for i in open_} | dict.fromkeys(pruned, ())
    timers = {n: unit_files.timer(config, n, said) for n, said in calendars.items()}
    anew = [n for n, file in timers.items() if not file.is_right]
    for number in anew:
        _silence(config, manager, number)
    files += [unit_files.drop_in(config, n, "apply", {}) for n in pruned]
    changed = [file.put() for file in (*files, *timers.values())]
    changed += [
        unit_files.enable_timer(config, n, wanted=bool(said)) for n, said in calendars.items()
    ]
    if any(changed) or any(there.is_stale for there in prepared.actual.values()):
        manager.reload()
    for number, said in calendars.items():
        timer = unit_files.timer_name(number)
        if said and manager.unit(timer).active != "active":
            if number in anew:  # of an earlier life of this number, perhaps
                manager.forget_elapses(timer)
            manager.start(timer)


def _silence(config: Config, manager: UserManager, number: int) -> None:
    """Stops a timer, and has it forget what it missed: another schedule begins now, not in the past."""
    timer = unit_files.timer_name(number)
    if unit_files.read(unit_files.timer(config, number, ()).path) is None:
        return
    if manager.unit(timer).load != "loaded":  # killed before systemd was told of it
        return
    manager.stop(timer)
    manager.forget_elapses(timer)


def retire(config: Config, manager: UserManager, number: int) -> bool:
    """Takes away every file of ours that a closed ticket has; whether there were any."""
    _silence(config, manager, number)
    changed = [file.put() for file in unit_files.present(config, number)]
    changed.append(unit_files.enable_timer(config, number, wanted=False))
    if any(changed):
        manager.reload()
    return any(changed)


def start(manager: UserManager, number: int) -> None:
    """Starts a ticket, also one that failed; in the launcher's words where it cannot be."""
    unit = unit_name(number)
    if manager.unit(unit).active == "failed":
        manager.reset_failed(unit)
    try:
        manager.start(unit)
    except Conflict as error:
        status = manager.service(unit).status_text
        raise Conflict(status or error.message, hint=error.hint) from None


def _prune(config: Config, database: Database, manager: UserManager, number: int) -> None:
    """Stops and closes what is declared no longer. Its name is free again once it is closed."""

    def running(ticket: int) -> Collection[int]:
        pid = manager.service(unit_name(ticket)).main_pid
        return cgroup_pids(pid) if pid else ()

    manager.stop(unit_name(number))
    close.close(
        config, database, number, stop=lambda n: manager.stop(unit_name(n)), running_pids=running
    )
    tickets.update(database, number, name=None, declared_in=None)


def _try(failed: list[str], name: str, number: int, act: Callable[[int], object]) -> None:
    try:
        act(number)
    except TicketError as error:
        failed.append(f"{name} (ticket {number}): {error}")


def tell(prepared: Prepared, outcome: Outcome) -> None:
    """Says in the journal of each ticket what changed."""
    for step in prepared.plan.steps:
        number = outcome.numbers.get(step.name, step.ticket or 0)
        what = ", ".join(change.what for change in step.changes)
        systemd.log(
            f"Ticket {number}: applied ({step.sign}) {what}.", ticket=number, event="applied"
        )
