"""What the commands of ticketctl share: numbers, errors, tables, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from orchestrator import config as configuration
from orchestrator import terminal
from orchestrator.config import Config
from orchestrator.errors import InvalidInput, TicketError
from orchestrator.naming import ticket_id

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from orchestrator.store.db import Database

P = ParamSpec("P")
T = TypeVar("T")


class TicketNumber(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since 8.4
    """A ticket's number on the command line."""

    name = "ticket"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """1 to 999999999."""
        try:
            return ticket_id(str(value))
        except InvalidInput as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's signature
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Numbers of tickets with their titles; nothing where the database is away."""
        from click.shell_completion import CompletionItem

        from orchestrator.store import tickets

        try:
            found = tickets.list_all(open_database()[1], closed=True)
        except TicketError:
            return []
        return [
            CompletionItem(str(t.id), help=terminal.plain(t.title))
            for t in found
            if str(t.id).startswith(incomplete)
        ]


NUMBER = TicketNumber()


def reports_errors(command: Callable[P, T]) -> Callable[P, T]:
    """Prints a TicketError as a sentence and a hint, and exits with its status."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except TicketError as error:
            click.echo(f"{click.style('error:', fg='red', bold=True)} {error.message}", err=True)
            if error.hint:
                click.echo(f"       {error.hint}", err=True)
            sys.exit(error.exit_status)

    return wrapped


def open_database() -> tuple[Config, Database]:
    """The configuration and its database; nothing is connected yet."""
    from orchestrator.store.db import Database

    config = configuration.load()
    return config, Database(config.database_dsn, application="ticketctl")


def print_json(value: Any, *, compact: bool = False) -> None:
    """For programs; on a terminal indented."""

    def plain(other: object) -> object:
        if isinstance(other, datetime):
            return other.isoformat()
        if isinstance(other, Decimal):
            return float(other)
        raise TypeError(type(other).__name__)

    click.echo(
        json.dumps(
            value,
            default=plain,
            indent=2 if sys.stdout.isatty() and not compact else None,
            ensure_ascii=False,
        )
    )


def print_table(head: list[str], rows: list[list[str]], *, first_to_go: Sequence[str] = ()) -> None:
    """For people, as wide as the terminal; tab-separated without a head when piped, and all of it.

    Columns of `first_to_go` are left out where the terminal is too narrow.
    """
    if not sys.stdout.isatty():
        click.echo("".join(f"{tabbed(row)}\n" for row in rows), nl=False)
        return
    for number, line in enumerate(
        terminal.table(head, rows, terminal.columns(), first_to_go=first_to_go)
    ):
        click.echo(click.style(line, bold=True) if number == 0 else line)


def tabbed(row: list[str]) -> str:
    """A row for programs; a tab or a line break within a cell becomes a blank."""
    return "\t".join(" ".join(cell.replace("\t", " ").splitlines()) for cell in row)


def summary(data: dict[str, Any]) -> str:
    """The few words of an event that a person looks for, without what a terminal would obey."""
    return terminal.plain(_summary(data))


def _summary(data: dict[str, Any]) -> str:
    if "from" in data and "to" in data:
        return f"{data['from']} -> {data['to']} ({data.get('evidence', '')})"
    if "tool_name" in data:
        return f"{data['tool_name']} {json.dumps(data.get('tool_input', ''), ensure_ascii=False)[:120]}"
    cost = data.get("cost")
    if isinstance(cost, dict):
        return f"${cost.get('total_cost_usd', 0)}"
    for key in (
        "prompt",
        "last_assistant_message",
        "reason",
        "source",
        "message",
        "error",
        "behavior",
        "subtype",
    ):
        if isinstance(data.get(key), str):
            return " ".join(data[key].split())[:140]
    return " ".join(f"{k}={v}" for k, v in data.items() if isinstance(v, str | int | float | bool))[
        :140
    ]
