"""ticketctl top: what runs now, and what it takes, again and again.

An entry point's command, like cli.py's, which registers it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import click

from orchestrator import terminal
from orchestrator.cli_common import open_database, print_json, reports_errors, tabbed
from orchestrator.cli_look import STATES, age
from orchestrator.errors import TicketError, Unavailable
from orchestrator.naming import unit_name

if TYPE_CHECKING:
    from orchestrator.store.db import Database
    from orchestrator.systemd import ServiceFacts

FIRST_S = 0.5  # between the two looks that the first share of the CPU comes from
TURN_KINDS = ("user_prompt", "message_taken")
_WORKING = frozenset({"busy", "waiting_permission", "waiting_answer"})
_HEAD = ["ID", "STATE", "FOR", "TURN", "COST", "MEMORY", "CPU", "TASKS", "TITLE"]
_FIRST_TO_GO = ("TASKS", "CPU", "COST", "TURN", "MEMORY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A ticket that runs, or waits, as it is at one moment."""

    id: int
    title: str
    status: str
    turn_state: str
    state_since: datetime | None  #: aware, UTC
    turn_since: datetime | None  #: when the turn it is in began; None: it is in none
    cost_usd: float
    memory_bytes: int | None
    cpu_s: float | None  #: since it was started
    cpu_percent: float | None  #: of one CPU, since the look before
    tasks: int | None


@click.command()
@click.option("-d", "--delay", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True,
              help="Seconds between two looks.")  # fmt: skip
@click.option("-n", "--times", type=click.IntRange(1), help="Leave after so many.  [piped: 1]")
@click.option("--json", "as_json", is_flag=True, help="An array a look, in one line.")
@reports_errors
def top(delay: float, times: int | None, as_json: bool) -> None:
    """Watch the tickets that run: state, age of the turn, cost, memory, CPU. q leaves.

    FOR is how long the state holds, TURN how long ago the turn began, CPU the share of one CPU since
    the look before. The busiest come first.
    """
    _, database = open_database()
    looks = Looks(database)
    looks.take()
    if sys.stdout.isatty() and not as_json:
        with suppress(KeyboardInterrupt):
            _live(looks, delay, times)
        return
    for number in range(times or 1):
        time.sleep(delay if number else FIRST_S)  # a share of the CPU is one of some time
        found = looks.take()
        if as_json:
            print_json([_plain(line) for line in found], compact=True)
        else:
            click.echo("".join(f"{tabbed(cells(line))}\n" for line in found), nl=False)
        sys.stdout.flush()


def _live(looks: Looks, delay: float, times: int | None) -> None:
    shown, wait_s = 0, FIRST_S
    with terminal.Screen() as screen:
        screen.draw(["…"])
        while times is None or shown < times:
            if screen.wait(wait_s) in {"q", "Q"}:
                return
            wait_s = delay
            try:
                found, trouble = looks.take(), ""
            except TicketError as error:  # the database is away: it comes back
                found, trouble = [], str(error)
            screen.draw(page(found, trouble or looks.trouble, terminal.columns()))
            shown += 1


def page(found: Sequence[Line], trouble: str, columns: int) -> list[str]:
    """What is on the screen."""
    busy = sum(line.turn_state in _WORKING for line in found)
    waiting = sum(line.turn_state.startswith("waiting") for line in found)
    cost = sum(line.cost_usd for line in found)
    memory = sum(line.memory_bytes or 0 for line in found) / 2**20
    cpu = sum(line.cpu_percent or 0 for line in found)
    said = (
        f"{len(found)} tickets, {busy} in a turn, {waiting} wait for you; ${cost:.2f},"
        f" {memory:.0f} MiB, CPU {cpu:.0f}%"
    )
    head, *rows = terminal.table(
        _HEAD, [cells(line) for line in found], columns, first_to_go=_FIRST_TO_GO
    )
    coloured = [
        click.style(row, fg="yellow") if line.turn_state.startswith("waiting") else row
        for line, row in zip(found, rows, strict=True)
    ]
    notes = (
        [click.style(terminal.fit(terminal.plain(trouble), columns), fg="red")] if trouble else []
    )
    return [terminal.fit(said, columns), *notes, "", click.style(head, reverse=True), *coloured]


def cells(line: Line) -> list[str]:
    """A row of the table."""
    return [
        str(line.id),
        f"{STATES.get(line.turn_state, '?')} {line.turn_state}",
        age(line.state_since) if line.state_since else "-",
        age(line.turn_since) if line.turn_since else "-",
        f"{line.cost_usd:.2f}",
        "-" if line.memory_bytes is None else f"{line.memory_bytes / 2**20:.0f} MiB",
        "-" if line.cpu_percent is None else f"{line.cpu_percent:.0f}%",
        "-" if line.tasks is None else str(line.tasks),
        line.title,
    ]


def _plain(line: Line) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(line)


class Looks:
    """One look after the other; each knows the one before, for what the CPU did between them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cpu: dict[int, tuple[float, float]] = {}
        self.trouble = ""  #: why there is no memory and no CPU

    def take(self) -> list[Line]:
        """What runs, or is wanted to run; the busiest first.

        Raises:
            Unavailable: the database does not answer.
        """
        from orchestrator.store import events, tickets

        running = [
            t for t in tickets.list_all(self._database)
            if t.worker_pid is not None or t.status in {"in_progress", "needs_input"}
        ]  # fmt: skip
        numbers = [t.id for t in running]
        since = events.newest_of_each(self._database, numbers, ["state"])
        turns = events.newest_of_each(
            self._database, [t.id for t in running if t.turn_state in _WORKING], TURN_KINDS
        )
        facts = self._facts(numbers)
        found = []
        for ticket in running:
            fact = facts.get(ticket.id)
            cpu_s = fact.cpu_s if fact else None
            found.append(
                Line(
                    id=ticket.id, title=ticket.title, status=ticket.status, turn_state=ticket.turn_state,
                    state_since=since[ticket.id].at if ticket.id in since else None,
                    turn_since=turns[ticket.id].at if ticket.id in turns else None,
                    cost_usd=float(ticket.cost_usd), memory_bytes=fact.memory_bytes if fact else None,
                    cpu_s=cpu_s, cpu_percent=self._share(ticket.id, cpu_s),
                    tasks=fact.tasks if fact else None,
                )
            )  # fmt: skip
        return sorted(found, key=lambda line: (-(line.cpu_percent or 0), line.id))

    def _facts(self, numbers: Sequence[int]) -> dict[int, ServiceFacts]:
        from orchestrator.systemd import UserManager

        self.trouble = ""
        try:
            with UserManager() as manager:
                return {number: manager.service(unit_name(number)) for number in numbers}
        except Unavailable as error:
            self.trouble = error.message
            return {}

    def _share(self, ticket: int, cpu_s: float | None) -> float | None:
        now = time.monotonic()
        before = self._cpu.get(ticket)
        if cpu_s is None:
            self._cpu.pop(ticket, None)
            return None
        self._cpu[ticket] = (now, cpu_s)
        if before is None or cpu_s < before[1]:  # another process now
            return None
        return 100 * (cpu_s - before[1]) / max(now - before[0], 1e-3)


COMMANDS: tuple[click.Command, ...] = (top,)
