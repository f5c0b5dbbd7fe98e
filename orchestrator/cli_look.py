"""ticketctl, the looking part: list, show, status.

An entry point's commands, like cli.py's, which registers them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from orchestrator import terminal
from orchestrator.cli_common import (
    NUMBER,
    open_database,
    print_json,
    print_table,
    reports_errors,
    summary,
    tabbed,
)  # fmt: skip
from orchestrator.config import Config
from orchestrator.naming import session_name, unit_name

if TYPE_CHECKING:
    from orchestrator.permits import Request
    from orchestrator.store.db import Database
    from orchestrator.store.events import StoredEvent
    from orchestrator.store.tickets import Ticket
    from orchestrator.systemd import ServiceFacts, UnitState

_NONE_YET = 'No tickets yet. Make one: ticketctl new "Say hello" --repo ~/src/demo --start'
STATES = {"idle": "●", "busy": "◐", "starting": "◌", "waiting_permission": "▲", "waiting_answer": "▲",
           "api_error": "✖", "gone": "○"}  # fmt: skip


_HEAD = ["ID", "STATUS", "STATE", "DRIVER", "COST", "GIT", "DISK", "SEEN", "TITLE"]
_FIRST_TO_GO = ("DISK", "DRIVER", "COST", "STATUS", "SEEN", "GIT")  # on a phone over ssh
WATCH_S = 5.0  # how long a lost notification delays a watcher
EVENTS_SHOWN = 10
NOT_RUNNING = 3  # as systemctl status


@click.command("list")
@click.option("--all", "closed", is_flag=True, help="Closed ones too.")
@click.option(
    "-w", "--watch", is_flag=True, help="Go on: the table anew, or what changes. q leaves."
)
@click.option("--json", "as_json", is_flag=True, help="An array; with --watch one object a line.")
@reports_errors
def list_(closed: bool, watch: bool, as_json: bool) -> None:
    """List tickets.

    GIT: +ahead and -behind of its base in commits, *files not committed, !files that conflict; = is
    none of these. As of the last heartbeat, like DISK: worktree and logs.
    """
    from orchestrator.store import tickets

    _, database = open_database()
    if watch:
        with suppress(KeyboardInterrupt):
            _watch(database, closed=closed, as_json=as_json)
        return
    found = tickets.list_all(database, closed=closed)
    if as_json:
        print_json([asdict(t) for t in found])
    elif sys.stdout.isatty() and not found:
        click.echo(_NONE_YET)
    else:
        print_table(_HEAD, [_row(t) for t in found], first_to_go=_FIRST_TO_GO)


def _row(ticket: Ticket) -> list[str]:
    people = sys.stdout.isatty()
    state = ticket.turn_state
    return [
        str(ticket.id), ticket.status, f"{STATES.get(state, '?')} {state}" if people else state,
        ticket.driver, f"{ticket.cost_usd:.2f}", _git(ticket), _size(ticket.disk_bytes),
        age(ticket.updated_at) if people else ticket.updated_at.isoformat(), ticket.title,
    ]  # fmt: skip


def _watch(database: Database, *, closed: bool, as_json: bool) -> None:
    """On a terminal the table, drawn anew; piped each ticket that changed, first all of them."""
    from orchestrator.store import tickets
    from orchestrator.store.db import Listener

    listener = Listener(database, ["mc_tickets", "mc_events"])
    if sys.stdout.isatty() and not as_json:
        with terminal.Screen() as screen:
            while True:
                rows = [_row(t) for t in tickets.list_all(database, closed=closed)]
                lines = terminal.table(_HEAD, rows, terminal.columns(), first_to_go=_FIRST_TO_GO)
                screen.draw([click.style(lines[0], bold=True), *lines[1:]] if rows else [_NONE_YET])
                if screen.wait(WATCH_S, listener.fileno()) == "q":
                    return
                listener.wait(0)
    seen: dict[int, Ticket] = {}
    while True:
        for ticket in tickets.list_all(database, closed=closed):
            if seen.get(ticket.id) != ticket:
                seen[ticket.id] = ticket
                if as_json:
                    print_json(asdict(ticket), compact=True)
                else:
                    click.echo(tabbed(_row(ticket)))
        sys.stdout.flush()
        listener.wait(WATCH_S)


@click.command()
@click.argument("number", metavar="TICKET", type=NUMBER)
@click.option("--json", "as_json", is_flag=True, help="One object.")
@reports_errors
def show(number: int, as_json: bool) -> None:
    """Show one ticket: intent, unit, files, last messages."""
    from orchestrator.adjust import in_force
    from orchestrator.store import messages, tickets
    from orchestrator.systemd import UserManager

    config, database = open_database()
    ticket = tickets.get(database, number)
    with UserManager() as manager:
        unit, facts = manager.unit(unit_name(number)), manager.service(unit_name(number))
        holds = in_force(config, manager, number)
    sent = messages.of_ticket(database, number, limit=5)
    contained = _isolation(config, ticket)
    if as_json:
        extra = {
            "unit": {**asdict(unit), **asdict(facts)},
            "messages": [asdict(m) for m in sent],
            "isolation": contained,
            **asdict(holds),
        }
        print_json(asdict(ticket) | extra)
        return
    click.echo(
        click.style(f"{STATES.get(ticket.turn_state, '?')} ticket {number}", bold=True)
        + f" - {ticket.title}"
    )
    lines = {
        "Status": f"{ticket.status}, {ticket.turn_state}",
        "Unit": f"{unit_name(number)}: {unit.active} ({unit.sub})"
        + (f", {facts.result}" if facts.result != "success" else ""),
        "Main PID": str(facts.main_pid) if facts.main_pid else "-",
        "Memory": _of_most(facts.memory_bytes, facts.memory_max_bytes, 2**20, " MiB")
        + (f", slowed from {facts.memory_high_bytes >> 20} MiB" if facts.memory_high_bytes else ""),
        "Tasks": _of_most(facts.tasks, facts.tasks_max),
        "CPU weight": str(facts.cpu_weight or "-"),
        "Isolation": contained["mode"]
        + (f" ({contained['reason']})" if contained["reason"] else ""),
        "Restarts": str(facts.restarts),
        "Limits": holds.in_words() or "-",
        **(
            {"Schedule": "; ".join(holds.schedule) + f", next {holds.next_start or 'never'}"}
            if holds.schedule
            else {}
        ),
        **(
            {"Declared": f"{ticket.name}, in {ticket.declared_in or 'no file'}"}
            if ticket.name
            else {}
        ),
        "Driver": ticket.driver + (f": {' '.join(ticket.command)}" if ticket.command else ""),
        "Session": f"{session_name(number)}, conversation {ticket.session_id}",
        "Worktree": ticket.worktree_path or "-",
        "Changes": f"{_git(ticket)} ({_size(ticket.disk_bytes)} on disk)",
        "Base": " ".join(filter(None, [ticket.base_ref, ticket.base_sha])) or "-",
        "Pane log": str(config.ticket_paths(number).pane_log_path),
        "Sidecar": str(config.ticket_paths(number).sidecar_path),
        "Cost": f"${ticket.cost_usd:.4f}",
    }
    for name, value in lines.items():
        click.echo(f"{name:>10}: {value}")
    for message in sent:
        first = message.body.splitlines()[0][:60] if message.body.splitlines() else ""
        why = f" ({message.reason})" if message.reason else ""
        click.echo(f"{'Message':>10}: {message.outcome:<11} {first}{why}")


def _of_most(now: int | None, most: int | None, unit: int = 1, name: str = "") -> str:
    """As in `12 of at most 4096`; a dash for what the kernel does not count."""
    shown = f"{now / unit:.0f}{name}" if now is not None else "-"
    return f"{shown} of at most {most // unit}{name}" if most is not None else shown


def _isolation(config: Config, ticket: Ticket) -> dict[str, str]:
    """What is in force for the worker that runs, else what would be."""
    from orchestrator.errors import ConfigError
    from orchestrator.isolation import decide
    from orchestrator.worker_record import WorkerRecord

    record = WorkerRecord.read(config.ticket_paths(ticket.id).worker_path)
    if record is not None and ticket.worker_pid is not None:
        return {"mode": record.isolation, "reason": record.reason, "network": record.network}
    network = config.isolation.network
    try:
        decision = decide(config.isolation, ticket.driver, ticket.isolation)
    except ConfigError as error:
        return {"mode": "workspace", "reason": error.message, "network": network}
    network = network if decision.isolated else "full"
    return {"mode": decision.mode, "reason": decision.reason, "network": network}


@click.command()
@click.argument("number", metavar="TICKET", type=NUMBER)
@click.option("-n", "--lines", default=EVENTS_SHOWN, show_default=True, help="How many events.")
@click.option("--json", "as_json", is_flag=True, help="One object.")
@reports_errors
def status(number: int, lines: int, as_json: bool) -> None:
    """Show how a ticket is doing, as systemctl status does: unit, state, what it waits for, events.

    Exit status 0: it runs; 3: it does not; 4: there is no such ticket.
    """
    from orchestrator import permits
    from orchestrator.errors import Unavailable
    from orchestrator.store import events, health, messages, tickets
    from orchestrator.systemd import UserManager

    config, database = open_database()
    ticket = tickets.get(database, number)
    unit = facts = None
    try:
        with UserManager() as manager:
            unit, facts = manager.unit(unit_name(number)), manager.service(unit_name(number))
    except Unavailable as error:
        click.echo(f"note: {error}", err=True)
    since = events.newest_of_each(database, [number], ["state"]).get(number)
    last = events.of_ticket(database, number, limit=max(0, lines))
    waiting = [m for m in messages.of_ticket(database, number) if m.outcome == "queued"]
    asked = permits.open_requests(config.ticket_paths(number))
    crashes = health.crashing(database).get(number, 0)
    if as_json:
        extra = {
            "unit": {**asdict(unit), **asdict(facts)} if unit and facts else None,
            "crashes_in_an_hour": crashes,
            "state_since": since.at if since else None,
            "asks": [asdict(r) for r in asked],
            "queued": len(waiting),
            "events": [asdict(e) for e in last],
        }
        print_json(asdict(ticket) | extra)
    else:
        for line in _status_lines(config, ticket, unit, facts, since, crashes):
            click.echo(line)
        if waiting:
            first = waiting[-1]
            why = f": {terminal.plain(first.reason)}" if first.reason else ""
            click.echo(
                f"      Queue: {len(waiting)} waiting, the oldest {age(first.created_at)}{why}"
            )
        for request in asked:
            click.echo(_asks(number, request))
        if last:
            click.echo()
        room = terminal.columns() if sys.stdout.isatty() else 0
        for event in last:
            line = f"{event.at:%b %d %H:%M:%S} {event.kind:<18} {summary(event.data)}".rstrip()
            click.echo(terminal.fit(line, room).rstrip() if room else line)
    if unit is None or unit.active not in {"active", "activating", "reloading"}:
        sys.exit(NOT_RUNNING)


def _asks(number: int, request: Request) -> str:
    """What a worker waits for an answer to, and how to give it."""
    import json

    what = terminal.plain(json.dumps(dict(request.input), ensure_ascii=False))[:200]
    how = "--choose ANSWER" if request.is_question else "allow|deny"
    text = f"{terminal.plain(request.tool)} {what}"
    return (
        click.style(f"       Asks: {text}", fg="yellow", bold=True)
        + f"\n             for {age(request.at)}; answer: ticketctl permit {number} {how}"
    )


def _status_lines(
    config: Config,
    ticket: Ticket,
    unit: UnitState | None,
    facts: ServiceFacts | None,
    since: StoredEvent | None,
    crashes: int,
) -> Iterator[str]:
    active = unit.active if unit else "unknown"
    colour = {"active": "green", "failed": "red"}.get(active)
    dot = click.style("●" if active != "inactive" else "○", fg=colour)
    name = f"{unit_name(ticket.id)} - {terminal.plain(ticket.title)}"
    if sys.stdout.isatty():
        name = terminal.fit(name, terminal.columns() - 2).rstrip()
    yield f"{dot} {name}"
    shown = f"{active} ({unit.sub})" if unit else "unknown"
    running = ticket.worker_pid is not None and ticket.worker_started is not None
    begun = ""
    if running and ticket.worker_started:
        begun = f" since {ticket.worker_started:%a %Y-%m-%d %H:%M:%S} UTC; {age(ticket.worker_started)} ago"
    result = f", {facts.result}" if facts and facts.result != "success" else ""
    yield f"     Active: {click.style(shown, fg=colour, bold=colour is not None)}{result}{begun}"
    held = f" for {age(since.at)}" if since else ""
    yield f"      State: {STATES.get(ticket.turn_state, '?')} {ticket.turn_state}{held}; ticket {ticket.status}"
    if facts and facts.status_text:
        yield f"     Status: {terminal.plain(facts.status_text)}"
    if facts and facts.main_pid:
        yield f"   Main PID: {facts.main_pid}"
        yield f"      Tasks: {_of_most(facts.tasks, facts.tasks_max)}"
        yield f"     Memory: {_of_most(facts.memory_bytes, facts.memory_max_bytes, 2**20, ' MiB')}"
        yield f"        CPU: {'-' if facts.cpu_s is None else f'{facts.cpu_s:.1f} s'}"
    if facts and facts.restarts:
        often = f", {crashes} of them within an hour" if crashes else ""
        text = f"   Restarts: {facts.restarts}{often}"
        yield click.style(text, fg="yellow", bold=True) if crashes else text
    tokens = f"{ticket.input_tokens} tokens in, {ticket.output_tokens} out"
    yield f"       Cost: ${ticket.cost_usd:.4f}" + (f"; {tokens}" if ticket.output_tokens else "")
    command = f": {' '.join(ticket.command)}" if ticket.command else ""
    yield f"     Driver: {ticket.driver}{terminal.plain(command)}"
    if ticket.worktree_path:
        git = {"-": "", "=": " (clean)"}.get(text := _git(ticket), f" ({text})")
        yield f"   Worktree: {ticket.worktree_path}{git}"
    if running and ticket.use_tmux:
        yield f"       Pane: tmux -L {config.tmux.socket} attach -t {session_name(ticket.id)}"


def _git(ticket: Ticket) -> str:
    return str(ticket.git_state["text"]) if ticket.git_state else "-"


def _size(count: int | None) -> str:
    if count is None:
        return "-"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{-(-count // 2**20)} MiB"


def age(then: datetime) -> str:
    """How long ago, in its largest unit."""
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


COMMANDS: tuple[click.Command, ...] = (list_, show, status)
