"""ticketctl import: the tickets of another Mission Control's database.

An entry point's command, like cli.py's, which registers it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from orchestrator import terminal
from orchestrator.cli_common import open_database, print_json, print_table, reports_errors

if TYPE_CHECKING:
    from orchestrator.takeover import Outcome


@click.command("import")
@click.option(
    "--from", "dsn", metavar="DSN", required=True, help="postgresql://… or 'host=… dbname=…'."
)
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be taken, and what not.")
@click.option(
    "--renumber", is_flag=True, help="A number that is taken here becomes the next free one."
)
@click.option("-q", "--quiet", is_flag=True, help="Only errors.")
@click.option("--json", "as_json", is_flag=True, help="One object.")
@reports_errors
def import_(dsn: str, dry_run: bool, renumber: bool, quiet: bool, as_json: bool) -> None:
    """Copy the tickets of another Mission Control's database, of any make, into this one.

    The other one is only read. All of it is taken in one go or nothing, each ticket once however
    often this runs, with its events, messages and comments. Nothing runs or is sent that did or
    waited there; what is left is named with the reason. A password is better in ~/.pgpass than in
    DSN, which other users of this machine can see.
    """
    from orchestrator import progress, takeover
    from orchestrator.drivers import driver_names
    from orchestrator.store import older

    config, database = open_database()
    with older.opened(dsn) as theirs:
        label = f"reading {theirs.name}"
        with progress.shown(label, theirs.count(), quiet=quiet or as_json) as advance:
            outcome = takeover.run(
                database, theirs, drivers=frozenset(driver_names(config)), renumber=renumber,
                dry_run=dry_run, advance=advance,
            )  # fmt: skip
    if as_json:
        print_json({**asdict(outcome), "dry_run": dry_run})
    elif not quiet:
        _tell(outcome, dry_run=dry_run)


def _tell(outcome: Outcome, *, dry_run: bool) -> None:
    rows = [
        [str(t.number), str(t.theirs), t.status, t.title, "; ".join(t.notes)]
        for t in outcome.tickets
    ]
    if rows:
        print_table(["TICKET", "THERE", "STATUS", "TITLE", "NOTE"], rows)
    events, messages, comments = (
        outcome.rows[table] for table in ("ticket_events", "queued_messages", "comments")
    )
    did = "would take" if dry_run else "took"
    click.echo(
        f"{did} {len(outcome.tickets)} tickets, {events} events, {messages} messages and"
        f" {comments} comments from {terminal.plain(outcome.source)}",
        err=True,
    )
    for left in outcome.left:
        name = f"ticket {left.theirs}" if left.theirs else f"{left.count} {left.what}"
        click.echo(terminal.plain(f"left {name}: {left.why}"), err=True)
    if outcome.columns:
        said = ", ".join(outcome.columns)
        click.echo(terminal.plain(f"no column here, kept in the imported events: {said}"), err=True)
    if outcome.tables:
        click.echo(terminal.plain(f"not looked at: {', '.join(outcome.tables)}"), err=True)


COMMANDS: tuple[click.Command, ...] = (import_,)
