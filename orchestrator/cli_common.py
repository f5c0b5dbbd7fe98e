"""What the commands of ticketctl share: numbers, errors, tables, JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from orchestrator import config as configuration
from orchestrator.config import Config, ticket_id
from orchestrator.errors import InvalidInput, TicketError

if TYPE_CHECKING:
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


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """For people; tab-separated without a head when piped."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row))
        return
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head) - 1)]
    room = max(20, os.get_terminal_size().columns - sum(widths) - 2 * len(widths))
    for number, row in enumerate([head, *rows]):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        last = row[-1] if len(row[-1]) <= room else row[-1][: room - 1] + "…"
        click.echo(click.style("  ".join([*cells, last]), bold=number == 0))
