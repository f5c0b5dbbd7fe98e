"""ticketctl, the working part: diff, merge, pr, close, reopen, gc, archive.

An entry point's commands, like cli.py's, which registers them.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator import terminal
from orchestrator.cli_common import NUMBER, open_database, print_json, print_table, reports_errors
from orchestrator.config import Config
from orchestrator.errors import Conflict, InvalidInput
from orchestrator.naming import unit_name

if TYPE_CHECKING:
    from orchestrator.close import Tree
    from orchestrator.store.db import Database
    from orchestrator.store.tickets import Ticket


def _tree(config: Config, database: Database, ticket: Ticket) -> Tree:
    from orchestrator.close import tree_of

    tree = tree_of(config, database, ticket)
    if tree is None:
        hint = f"ticketctl {'reopen' if ticket.status == 'closed' else 'start'} {ticket.id}"
        raise Conflict(f"Ticket {ticket.id} has no worktree.", hint=hint)
    return tree


def _stop(number: int) -> None:
    from orchestrator.systemd import UserManager

    with UserManager() as manager:
        manager.stop(unit_name(number))


def _retire(config: Config, number: int) -> None:
    """Drop-ins of ours and the timer of a ticket that is closed now: it would start in vain."""
    from orchestrator.apply import retire
    from orchestrator.errors import TicketError
    from orchestrator.systemd import UserManager

    try:
        with UserManager() as manager:
            retire(config, manager, number)
    except TicketError as error:  # it is closed all the same
        click.echo(f"note: {error}", err=True)


def _start(number: int) -> None:
    from orchestrator.systemd import UserManager

    with UserManager() as manager:
        if manager.unit(unit_name(number)).active == "failed":
            manager.reset_failed(unit_name(number))
        try:
            manager.start(unit_name(number))
        except Conflict as error:
            status = manager.service(unit_name(number)).status_text
            raise Conflict(status or error.message, hint=error.hint) from None


def _running_pids(number: int) -> Collection[int]:
    """The processes of a ticket's unit: those a stop will end."""
    from orchestrator.cgroup import cgroup_pids
    from orchestrator.systemd import UserManager

    with UserManager() as manager:
        pid = manager.service(unit_name(number)).main_pid
    return cgroup_pids(pid) if pid else ()


@click.command()
@click.argument("number", metavar="TICKET", type=NUMBER)
@click.option("--stat", is_flag=True, help="One line a file.")
@click.option("--patch", "as_patch", is_flag=True, help="What git apply takes.  [default]")
@click.option("--json", "as_json", is_flag=True, help="Files, hunks, counts.")
@reports_errors
def diff(number: int, stat: bool, as_patch: bool, as_json: bool) -> None:
    """Show what a ticket has changed: committed or not, and new files, against its base."""
    from orchestrator import diff as differences
    from orchestrator.store import tickets

    if stat + as_patch + as_json > 1:
        raise InvalidInput("Give one of --stat, --patch and --json.")
    config, database = open_database()
    ticket = tickets.get(database, number)
    tree = _tree(config, database, ticket)
    if ticket.base_sha is None:
        raise Conflict(f"Ticket {number} has not run yet.", hint=f"ticketctl start {number}")
    if not stat and not as_json:
        sys.stdout.buffer.write(differences.patch(tree.repo, tree.path, ticket.base_sha))
        return
    found = differences.diff(tree.repo, tree.path, ticket.base_sha)
    if as_json:
        print_json(asdict(found))
        return
    rows = [
        [f.status, "-" if f.added is None else f"+{f.added}", "-" if f.removed is None else f"-{f.removed}",
         f.omitted or ("binary" if f.binary else ""), f.path]
        for f in found.files
    ]  # fmt: skip
    print_table(["STATUS", "ADDED", "REMOVED", "NOTE", "PATH"], rows)
    if sys.stdout.isatty():
        summary = differences.summary(tree.repo, tree.path, ticket.base_ref or ticket.base_sha)
        click.echo(
            f"{len(found.files)} files, +{found.added} -{found.removed}; {summary.ahead} commits ahead,"
            f" {summary.behind} behind, {summary.dirty} files not committed"
        )
        if summary.conflicts:
            click.echo(f"conflicts with the base: {', '.join(summary.conflicts[:5])}")
    if found.truncated:
        click.echo("Some of it is left out; see the notes.", err=True)


@click.command()
@click.argument("number", metavar="TICKET", type=NUMBER)
@click.option("--ff", "how", flag_value="ff", help="Only if the base did not move.")
@click.option("--merge", "how", flag_value="merge", default=True, help="A merge commit.  [default]")
@click.option("--squash", "how", flag_value="squash", help="One commit.")
@click.option("--into", help="A local branch.  [default: the one the ticket began at]")
@click.option("-m", "--message", help="Of the commit.  [default: the title]")
@click.option("--json", "as_json", is_flag=True, help="One object.")
@reports_errors
def merge(number: int, how: str, into: str | None, message: str | None, as_json: bool) -> None:
    """Merge a ticket's commits into its base. Refused, with names, where it conflicts."""
    from orchestrator import finish
    from orchestrator.store import events, tickets

    config, database = open_database()
    ticket = tickets.get(database, number)
    tree = _tree(config, database, ticket)
    into = into or finish.base_branch(tree.repo, ticket.base_ref)
    done = finish.merge(
        tree.repo,
        tree.path,
        into=into,
        how=how,
        message=message or f"{ticket.title}\n\nTicket {number}\n",
    )
    if done.how != "nothing":
        events.record(
            database, number, "merged", into=into, how=done.how, head=done.head, commit=done.commit
        )
    if as_json:
        print_json(asdict(done))
        return
    if done.how != "nothing":
        click.echo(f"{into} is now {done.commit[:12]} ({done.how} of {done.head[:12]})")
    for note in done.notes:
        click.echo(f"note: {note}", err=True)


@click.command()
@click.argument("number", metavar="TICKET", type=NUMBER)
@click.option("--into", help="The branch it should go to.  [default: the one the ticket began at]")
@click.option("--title", help="[default: the ticket's]")
@click.option("--body", help="[default: the ticket's prompt]")
@reports_errors
def pr(number: int, into: str | None, title: str | None, body: str | None) -> None:
    """Push a ticket's branch and open a pull request with gh; without gh, print where to open it."""
    from orchestrator import finish
    from orchestrator.store import events, tickets

    config, database = open_database()
    ticket = tickets.get(database, number)
    tree = _tree(config, database, ticket)
    into = into or finish.base_branch(tree.repo, ticket.base_ref)
    remote = finish.push(tree.repo, tree.branch, into)
    events.record(database, number, "pushed", remote=remote, branch=tree.branch)
    page, remark = finish.open_pull_request(
        tree.repo, remote, tree.branch, into, title=title or ticket.title,
        body=ticket.prompt if body is None else body,
    )  # fmt: skip
    if remark:
        click.echo(
            f"{tree.branch} is pushed to {remote}; {remark}. Open the pull request here:", err=True
        )
    click.echo(page)


@click.command()
@click.argument("number", metavar="TICKET", type=NUMBER)
@click.option("--force", is_flag=True, help="Remove the worktree although work is lost; says what.")
@click.option("--keep-worktree", is_flag=True, help="Leave the worktree where it is.")
@click.option("--dry-run", is_flag=True, help="Only say what would be lost.")
@click.option("--json", "as_json", is_flag=True, help="One object.")
@reports_errors
def close(number: int, force: bool, keep_worktree: bool, dry_run: bool, as_json: bool) -> None:
    """Stop a ticket, archive its logs, and remove its worktree when nothing would be lost.

    The branch stays. `ticketctl reopen` brings all of it back.
    """
    from orchestrator import close as closing
    from orchestrator import progress
    from orchestrator.store import tickets

    config, database = open_database()
    if dry_run:
        ticket = tickets.get(database, number)
        found, reasons = closing.look_at(
            config,
            database,
            ticket,
            _tree(config, database, ticket),
            but_pids=_running_pids(number),
        )
        if as_json:
            print_json({"would_lose": reasons, "archived": len(found.files)})
        else:
            click.echo("\n".join(reasons) or "Nothing would be lost.")
        sys.exit(Conflict.exit_status if reasons else 0)
    with progress.shown(f"closing ticket {number}", quiet=as_json) as meter:
        done = closing.close(
            config, database, number, stop=_stop, running_pids=_running_pids, force=force,
            keep_worktree=keep_worktree, meter=meter,
        )  # fmt: skip
    _retire(config, number)
    if as_json:
        print_json(
            asdict(done) | {"archive": str(done.archive), "worktree": str(done.worktree or "")}
        )
        return
    click.echo(f"Ticket {number} is closed; archive {done.archive}")
    if done.worktree:
        click.echo(
            f"worktree {done.worktree} {'removed' if done.removed else 'is left where it is'}"
        )
    for line in done.lost:
        click.echo(f"given up: {line}", err=True)
    for line in done.notes:
        click.echo(f"note: {line}", err=True)


@click.command()
@click.argument("number", metavar="TICKET", type=NUMBER)
@click.option("--start", "start_it", is_flag=True, help="Start it at once.")
@reports_errors
def reopen(number: int, start_it: bool) -> None:
    """Open a closed ticket: its worktree at the same path, its files, its conversation."""
    from orchestrator import progress
    from orchestrator import reopen as reopening

    config, database = open_database()
    with progress.shown(f"reopening ticket {number}") as meter:
        said = reopening.reopen(config, database, number, meter=meter)
    for line in said:
        click.echo(line)
    if start_it:
        _start(number)
    else:
        click.echo(f"Start it: ticketctl start {number}")


@click.command()
@click.option("--yes", "do_it", is_flag=True, help="Do it; without, only say what would be done.")
@click.option(
    "-n", "--dry-run", is_flag=True, help="Only say what would be done.  [default: unless --yes]"
)
@click.option("--idle-days", type=click.IntRange(0, 36500), help="[default: [archive] idle_days]")
@click.option("--json", "as_json", is_flag=True, help="An array.")
@reports_errors
def gc(do_it: bool, dry_run: bool, idle_days: int | None, as_json: bool) -> None:
    """Put away what is no longer used: quiet tickets, worktrees of closed ones.

    BYTES is what it takes on the disk before; of a ticket that is closed the archive stays.
    """
    from orchestrator import gc as collecting
    from orchestrator import progress
    from orchestrator.store import tickets

    if do_it and dry_run:
        raise InvalidInput("Give one of --yes and --dry-run.")
    config, database = open_database()
    found: list[collecting.Candidate] = []
    total = len(tickets.list_all(database, closed=True))
    with progress.shown("looking through the tickets", total, quiet=as_json) as advance:
        found += collecting.collect(
            config,
            database,
            stop=_stop,
            running_pids=_running_pids,
            do_it=do_it,
            idle_days=idle_days,
            advance=advance,
        )
    for candidate in found:
        if candidate.done and candidate.what == "close":
            _retire(config, candidate.ticket)
    if as_json:
        print_json([asdict(c) for c in found])
        return
    rows = [
        [str(c.ticket), c.what, "done" if c.done else "kept" if c.kept_because else "would be done",
         "-" if c.size_bytes is None else str(c.size_bytes), c.kept_because or c.why, c.title]
        for c in found
    ]  # fmt: skip
    print_table(["ID", "WHAT", "RESULT", "BYTES", "WHY", "TITLE"], rows)
    if not sys.stdout.isatty():
        return
    going = [c for c in found if not c.kept_because]
    size = terminal.size(sum(c.size_bytes or 0 for c in going))
    if not found:
        click.echo("Nothing to put away.")
    elif do_it:
        click.echo(f"{len(going)} of {len(found)} done, {size}.")
    else:
        click.echo(f"{len(going)} of {len(found)} would be done, {size}.")
        if going:
            click.echo("Do it: ticketctl gc --yes")


@click.command()
@click.argument("number", metavar="[TICKET]", type=NUMBER, required=False)
@click.option("--verify", is_flag=True, help="Read each to its end and compare with its manifest.")
@click.option("--json", "as_json", is_flag=True, help="An array.")
@reports_errors
def archive(number: int | None, verify: bool, as_json: bool) -> None:
    """List the archives of closed tickets."""
    from orchestrator import archive as packing
    from orchestrator import progress
    from orchestrator.store import archives, tickets

    _, database = open_database()
    if number is not None:
        tickets.get(database, number)
    found = archives.of_ticket(database, number)
    if verify:
        with progress.shown("reading archives", quiet=as_json) as meter:
            meter.expect(sum(kept.size_bytes for kept in found))
            for kept in found:
                packing.verify(Path(kept.path), meter=meter)
                meter(kept.size_bytes)
    if as_json:
        print_json([asdict(a) for a in found])
        return
    rows = [
        [str(a.ticket_id), a.made_at.isoformat(), str(a.size_bytes), a.sha256[:12], a.path]
        for a in found
    ]
    print_table(["ID", "MADE", "BYTES", "SHA256", "PATH"], rows)


COMMANDS: tuple[click.Command, ...] = (diff, merge, pr, close, reopen, gc, archive)
