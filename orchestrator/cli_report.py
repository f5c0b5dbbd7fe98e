"""ticketctl report: cost and turns, by day, ticket and model.

An entry point's command, like cli.py's, which registers it.
"""

from __future__ import annotations

import sys
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import click

from orchestrator.cli_common import open_database, print_json, print_table, reports_errors
from orchestrator.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.spending import By, Row

MAX_DAYS = 36_500


@click.command()
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(["day", "ticket", "model"]),
    help="May be repeated.  [default: day]",
)
@click.option(
    "--since", metavar="DATE|DAYS", help="From that day on, 2026-11-25, or so many days back."
)
@click.option("--csv", "as_csv", is_flag=True, help="With a head, for a spreadsheet.")
@click.option("--json", "as_json", is_flag=True, help="An array of rows.")
@reports_errors
def report(by: Sequence[By], since: str | None, *, as_csv: bool, as_json: bool) -> None:
    """Report cost, turns and tokens by day, by ticket, by model.

    Days are of this machine's time zone. Cost is what the agents' own count says; a model is the one
    that the worker named last, - where it names none; tokens are known where the worker tells them.
    """
    from orchestrator import spending
    from orchestrator.store import events, tickets

    if as_csv and as_json:
        raise InvalidInput("Give one of --csv and --json.")
    first = _since(since)
    by = by or ("day",)
    _, database = open_database()
    zone = datetime.now().astimezone().tzinfo
    assert zone is not None  # noqa: S101  # for mypy: astimezone() sets it
    rows = spending.report(
        events.spending(database, spending.KINDS, spending.REPEATED), by, since=first, zone=zone
    )
    names = [name for name in ("day", "ticket", "model") if name in by]
    if as_json:
        print_json([_plain(row, names) for row in rows])
        return
    if as_csv:
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([*names, "turns", "cost_usd", "input_tokens", "output_tokens"])
        writer.writerows(_plain(row, names).values() for row in rows)
        return
    titles = (
        {t.id: t.title for t in tickets.list_all(database, closed=True)} if "ticket" in by else {}
    )
    head = [*(name.upper() for name in names), "TURNS", "COST", "TOKENS IN", "TOKENS OUT"]
    shown = [[str(value) for value in _plain(row, names).values()] for row in rows]
    for cells, row in zip(shown, rows, strict=True):
        cells[len(names) + 1] = f"{row.spent.cost_usd:.4f}"
        if titles and row.ticket is not None:
            cells.append(titles.get(row.ticket, ""))
    if titles:
        head.append("TITLE")
    print_table(head, shown)
    if sys.stdout.isatty():
        summed = spending.total(rows)
        click.echo(f"{summed.turns} turns, ${summed.cost_usd:.4f}")


def _plain(row: Row, names: list[str]) -> dict[str, object]:
    keys = {name: getattr(row, name) for name in names}
    if "day" in keys:
        keys["day"] = str(row.day)
    spent = row.spent
    return {
        **keys, "turns": spent.turns, "cost_usd": float(spent.cost_usd),
        "input_tokens": spent.input_tokens, "output_tokens": spent.output_tokens,
    }  # fmt: skip


def _since(text: str | None) -> date | None:
    if text is None:
        return None
    today = datetime.now().astimezone().date()
    if text.isascii() and text.isdigit() and int(text[:9]) <= MAX_DAYS and len(text) < 9:
        return today - timedelta(days=int(text))
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"{text!r:.50} is no day.", hint="Write 2026-11-25, or 7 for the last seven days."
        ) from None


COMMANDS: tuple[click.Command, ...] = (report,)
