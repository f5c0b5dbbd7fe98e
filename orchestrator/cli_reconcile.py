"""ticketctl reconcile, for people and for mc-reconcile.service.

An entry point's command, like cli.py's, which registers it.
"""

from __future__ import annotations

import sys

import click

from orchestrator.cli_common import open_database, print_json, print_table, reports_errors


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="One object: steps, orphans.")
@reports_errors
def reconcile(dry_run: bool, as_json: bool) -> None:
    """Bring what runs in line with what should: tickets in progress run, the others do not.

    It runs at boot and each minute by itself. A ticket whose worker cannot be brought back needs
    input from then on; units and sessions that belong to no ticket are named and left alone.
    """
    from orchestrator.doctor_services import leave_copy
    from orchestrator.reconcile import reconciler

    config, database = open_database()
    leave_copy(config)
    with reconciler(config, database) as ours:
        outcome = ours.look() if dry_run else ours.bring_about()
    if as_json:
        print_json(outcome.as_json())
        return
    rows = [[str(step.ticket), step.act, step.why] for step in outcome.steps]
    rows += [["-", "leave alone", f"{orphan} belongs to no ticket"] for orphan in outcome.orphans]
    if rows:
        print_table(["TICKET", "ACT", "WHY"], rows)
    elif sys.stdout.isatty():
        click.echo("What should run, runs; what should not, does not.")


COMMANDS: tuple[click.Command, ...] = (reconcile,)
