"""ticketctl, the declarative part: apply, diff-state, set.

An entry point's commands, like cli.py's, which registers them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli_common import NUMBER, open_database, print_json, reports_errors
from orchestrator.errors import Conflict

if TYPE_CHECKING:
    from orchestrator.apply import Prepared
    from orchestrator.config import Config
    from orchestrator.plan import Plan
    from orchestrator.store.db import Database
    from orchestrator.systemd import UserManager

_COLOURS = {"+": "green", "~": "yellow", "-": "red", "!": "red"}
_files = click.option(
    "-f", "--file", "files", multiple=True, required=True, metavar="PATH",
    help="A file, a folder of *.toml, or - for stdin; may be given again.",
)  # fmt: skip
_prune = click.option(
    "--prune", is_flag=True,
    help="Close what these files declared earlier and do not any more, as ticketctl close would.",
)  # fmt: skip


def _prepare(
    config: Config, database: Database, manager: UserManager, files: Sequence[str], *, prune: bool
) -> Prepared:
    from orchestrator import apply as applying
    from orchestrator import board

    sources = board.read_sources(files, lambda: sys.stdin.buffer.read(board.MAX_BOARD_BYTES + 1))
    looked_up = board.look_up(database, manager, sources, files)
    return applying.prepare(config, database, manager, looked_up, prune=prune)


def _print(plan: Plan) -> None:
    from orchestrator.plan import show

    for line in show(plan):
        colour = _COLOURS.get(line[0])
        click.echo(click.style(line, fg=colour) if colour else line)


def _counted(plan: Plan) -> str:
    signs = [step.sign for step in plan.steps]
    return (
        f"{signs.count('+')} to make, {signs.count('~')} to change, {signs.count('-')} to close,"
        f" {plan.unchanged} as declared."
    )


def _as_json(plan: Plan) -> dict[str, Any]:
    return {
        "steps": [asdict(step) for step in plan.steps],
        "unchanged": plan.unchanged,
        "notes": list(plan.notes),
        "drifts": list(plan.drifts),
    }


@click.command()
@_files
@_prune
@click.option("--dry-run", is_flag=True, help="Only print the plan.")
@click.option("--json", "as_json", is_flag=True, help="One object: the plan, and what came of it.")
@reports_errors
def apply(files: tuple[str, ...], prune: bool, dry_run: bool, as_json: bool) -> None:
    """Make tickets what files declare, after printing what that changes.

    A file holds one [tickets.NAME] table a ticket:

    \b
      [tickets.build]
      prompt   = "Make the tests pass"
      repo     = "~/src/demo"
      state    = "running"
      MemoryMax = "2G"

    \b
      [tickets.nightly]
      prompt_file = "nightly.md"
      schedule = "Mon..Fri 07:00"
      after    = ["build"]
      on_failure = "alert@.service"

    The whole of it is checked before the first change, and refused as a whole. Applied again, it
    changes nothing. All keys: docs/declare.md.
    """  # noqa: D301  # click reads the character
    from orchestrator import apply as applying
    from orchestrator.systemd import UserManager

    config, database = open_database()
    lock = nullcontext() if dry_run else applying.alone(database)
    with lock, UserManager() as manager:
        prepared = _prepare(config, database, manager, files, prune=prune)
        if not as_json:
            _print(prepared.plan)
        if dry_run:
            if as_json:
                print_json(_as_json(prepared.plan) | {"applied": False})
            else:
                click.echo(f"{_counted(prepared.plan)} Nothing was done.")
            return
        outcome = applying.carry_out(config, database, manager, prepared)
        applying.tell(prepared, outcome)
    if as_json:
        result = {"applied": True, "tickets": outcome.numbers, "failed": list(outcome.failed)}
        print_json(_as_json(prepared.plan) | result)
    elif prepared.plan.is_empty:
        click.echo(f"Nothing to change: {prepared.plan.unchanged} as declared.")
    else:
        made = [s.name for s in prepared.plan.steps if s.sign == "+"]
        click.echo("Applied." + "".join(f" {n} is ticket {outcome.numbers[n]}." for n in made))
    for sentence in outcome.failed:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {sentence}", err=True)
    if outcome.failed:
        sys.exit(Conflict.exit_status)


@click.command("diff-state")
@_files
@_prune
@click.option("--json", "as_json", is_flag=True, help="One object: the plan.")
@reports_errors
def diff_state(files: tuple[str, ...], prune: bool, as_json: bool) -> None:
    """Compare what files declare with what the database and systemd have.

    Exit status 0: the same; 1: it differs. Nothing is changed; lines with ! name what
    ticketctl apply would not mend, such as a limit that ticketctl set chose.
    """
    from orchestrator.systemd import UserManager

    config, database = open_database()
    with UserManager() as manager:
        plan = _prepare(config, database, manager, files, prune=prune).plan
    differs = bool(plan.steps or plan.drifts)
    if as_json:
        print_json(_as_json(plan) | {"differs": differs})
    else:
        _print(plan)
        also = f" {len(plan.drifts)} set elsewhere." if plan.drifts else ""
        same = f"The same: {plan.unchanged} as declared."
        click.echo(_counted(plan) + also if differs else same)
    sys.exit(1 if differs else 0)


@click.command("set")
@click.argument("number", metavar="TICKET", type=NUMBER)
@click.argument("assignments", metavar="KEY=VALUE...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="One object: what is in force.")
@reports_errors
def set_(number: int, assignments: tuple[str, ...], as_json: bool) -> None:
    """Limit or order a ticket's unit, at once and for good. KEY= removes.

    \b
      ticketctl set 42 MemoryMax=2G CPUQuota=150%
      ticketctl set 42 After="41 build" OnFailure=alert@.service
      ticketctl set 42 MemoryMax=
      ticketctl set 42

    Keys are systemd's: MemoryMax, MemoryHigh, MemorySwapMax, CPUQuota, CPUWeight, IOWeight,
    TasksMax, RuntimeMaxSec; After, Requires, OnFailure. What is set wins over what a file
    declares, and systemctl --user edit wins over both. Without KEY=VALUE it shows what is in force.
    """  # noqa: D301  # click reads the character
    from orchestrator import apply as applying
    from orchestrator.adjust import adjust, in_force
    from orchestrator.store import tickets
    from orchestrator.systemd import UserManager

    config, database = open_database()
    tickets.get(database, number)
    with UserManager() as manager:
        if assignments:
            with applying.alone(database):
                adjust(config, database, manager, number, assignments)
        found = in_force(config, manager, number)
    if as_json:
        print_json({"ticket": number, **asdict(found)})
        return
    click.echo(f"in force: {found.in_words() or '-'}")
    for by, settings in (("declared", found.declared), ("set", found.set)):
        for name, value in settings.items():
            click.echo(f"{by:>8}: {name}={value}")


COMMANDS: tuple[click.Command, ...] = (apply, diff_state, set_)
