"""ticketctl, the talking part: send, queue, events, interrupt, permit.

An entry point's commands, like cli.py's, which registers them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli_common import (
    NUMBER,
    open_database,
    print_json,
    print_table,
    reports_errors,
    summary,
)  # fmt: skip
from orchestrator.errors import Conflict, InvalidInput, TicketError, Unavailable

if TYPE_CHECKING:
    from orchestrator.store.db import Database
    from orchestrator.store.events import StoredEvent
    from orchestrator.store.messages import Message

_BEGIN_KINDS = ("user_prompt", "message_taken")
_END_KINDS = ("turn_end", "result", "api_error")
MAX_TURN_EVENTS = 100  # of those kinds behind a message; its own are among the first
FOLLOW_WAIT_S = 5.0  # how long a lost notification delays a follower
SETTLE_S = 2.0  # an interrupted turn ends without an event: idle for so long is its end


class TurnFailed(TicketError):
    """The turn did not end well: an API error, an interrupt, a message that did not arrive."""

    code = "turn-failed"
    exit_status = 6


@click.command()
@click.argument("number", metavar="TICKET", type=NUMBER)
@click.argument("text", required=False)
@click.option("--now", is_flag=True, help="Before all others, and break off the turn for it.")
@click.option("--wait", is_flag=True, help="Wait for the turn's end and print the answer.")
@click.option(
    "--timeout", default=0.0, metavar="SECONDS", help="With --wait: give up then.  [default: never]"
)
@click.option(
    "--json", "as_json", is_flag=True, help="The stored message, and with --wait the answer."
)
@reports_errors
def send(
    number: int, text: str | None, now: bool, wait: bool, timeout: float, as_json: bool
) -> None:
    """Send a message; without TEXT it is read from stdin.

    It is stored first and sent when the agent is idle; `ticketctl queue` tells what became of it.
    A text that begins with a dash goes behind --. With --wait the exit status says how it ended: 0
    the turn ended well, 6 it did not or the message did not arrive, 75 no end within --timeout.
    """
    from orchestrator.store import messages, tickets

    if text is None:
        if sys.stdin.isatty():
            click.echo("Type the message, end with Ctrl-D:", err=True)
        try:
            text = sys.stdin.buffer.read(messages.MAX_BODY_BYTES + 1).decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidInput("The message is not UTF-8 text.") from None
    _, database = open_database()
    tickets.get(database, number)
    message = messages.enqueue(
        database, number, text, author=os.environ.get("USER", ""), urgent=now
    )
    if not wait:
        if as_json:
            print_json(asdict(message))
        else:
            click.echo(f"Message {message.id} queued." if sys.stdout.isatty() else str(message.id))
        return
    try:
        answer = _wait_for_answer(database, message, timeout)
    except KeyboardInterrupt:
        raise Conflict(
            f"Message {message.id} goes on without you.", hint=f"ticketctl queue {number}"
        ) from None
    click.echo(json.dumps({"message": message.id, "answer": answer}) if as_json else answer)


def _wait_for_answer(database: Database, message: Message, timeout: float) -> str:
    """What the worker said at the end of the turn that a message began."""
    from orchestrator.config import load
    from orchestrator.drivers import driver_named
    from orchestrator.store import messages, tickets
    from orchestrator.store.db import Listener

    name = tickets.get(database, message.ticket_id).driver
    by_screen = driver_named(name, load()).signs == "screen"
    listener = Listener(database, ["mc_messages", "mc_events", "mc_tickets"])
    deadline = time.monotonic() + timeout if timeout else float("inf")
    idle_since: float | None = None
    while time.monotonic() < deadline:
        sent = messages.get(database, message.id) or message
        if sent.outcome in {"unconfirmed", "refused"}:
            raise TurnFailed(f"Message {message.id} is {sent.outcome}: {sent.reason}.")
        if sent.outcome == "confirmed" and sent.sent_after is not None:
            end = _end_of_turn(database, message.ticket_id, sent.sent_after)
            if end is not None:
                return _answer(end.kind, end.data)
            state = tickets.get(database, message.ticket_id).turn_state
            if state in {"waiting_permission", "waiting_answer"} and not sys.stdout.isatty():
                click.echo(
                    f"The worker is {state.replace('_', ' ')}: ticketctl permit {message.ticket_id}",
                    err=True,
                )
                _wait_while(database, listener, message.ticket_id, state, deadline)
                continue
            if state in {"idle", "gone"}:
                idle_since = idle_since or time.monotonic()
                if time.monotonic() - idle_since > SETTLE_S:
                    if by_screen and state == "idle":
                        return ""  # it tells nobody what it said: that is in the pane
                    raise TurnFailed(
                        "The turn was broken off." if state == "idle" else "The worker has ended."
                    )
            else:
                idle_since = None
        listener.wait(
            min(FOLLOW_WAIT_S if idle_since is None else 0.2, max(0.0, deadline - time.monotonic()))
        )
    raise Unavailable(f"No answer within {timeout:g} s; message {message.id} goes on.")


def _end_of_turn(database: Database, ticket: int, event: int) -> StoredEvent | None:
    """The first end behind the first beginning after an event; the end of a turn before may be late."""
    from orchestrator.store import events

    kinds = (*_BEGIN_KINDS, *_END_KINDS)
    found = iter(events.of_kinds_after(database, ticket, event, kinds, limit=MAX_TURN_EVENTS))
    if not any(e.kind in _BEGIN_KINDS for e in found):
        return None
    return next((e for e in found if e.kind in _END_KINDS), None)


def _wait_while(
    database: Database, listener: Any, number: int, state: str, deadline: float
) -> None:
    from orchestrator.store import tickets

    while time.monotonic() < deadline and tickets.get(database, number).turn_state == state:
        listener.wait(FOLLOW_WAIT_S)


def _answer(kind: str, data: dict[str, Any]) -> str:
    if kind == "turn_end":
        return str(data.get("last_assistant_message") or "")
    if kind == "result" and not data.get("is_error"):
        return str(data.get("result") or "")
    error = data.get("error") or data.get("api_error_status") or data.get("subtype") or "an error"
    said = data.get("last_assistant_message") or data.get("result") or ""
    raise TurnFailed(f"The turn ended with {error}.", hint=str(said)[:500])


@click.command()
@click.argument("number", metavar="TICKET", type=NUMBER)
@click.option(
    "--cancel", metavar="MESSAGE", type=int, help="Refuse this message, if it was not sent yet."
)
@click.option("-n", "--lines", default=20, show_default=True, help="How many of the newest.")
@click.option("--json", "as_json", is_flag=True, help="An array of messages.")
@reports_errors
def queue(number: int, cancel: int | None, lines: int, as_json: bool) -> None:
    """List a ticket's messages and what became of each."""
    from orchestrator.store import messages, tickets

    _, database = open_database()
    tickets.get(database, number)
    if cancel is not None:
        found = messages.get(database, cancel)
        if found is None or found.ticket_id != number:
            raise InvalidInput(
                f"Ticket {number} has no message {cancel}.", hint=f"ticketctl queue {number}"
            )
        if not messages.cancel(database, cancel):
            raise Conflict(f"Message {cancel} is {found.outcome} and cannot be taken back.")
    found_all = messages.of_ticket(database, number, limit=lines)
    if as_json:
        print_json([asdict(m) for m in found_all])
        return
    rows = [
        [
            str(m.id),
            m.outcome,
            f"{m.created_at:%H:%M:%S}",
            m.author,
            m.reason,
            " ".join(m.body.split())[:200],
        ]
        for m in found_all
    ]
    print_table(["ID", "OUTCOME", "AT", "BY", "REASON", "TEXT"], rows)


@click.command()
@click.argument("number", metavar="TICKET", type=NUMBER)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on.")
@click.option("-n", "--lines", default=20, show_default=True, help="How many of the newest.")
@click.option("--kind", "kinds", multiple=True, help="Only this kind; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@reports_errors
def events(number: int, follow: bool, lines: int, kinds: tuple[str, ...], as_json: bool) -> None:
    """Show what a ticket's worker did: prompts, tools, turns, cost, states."""
    from orchestrator.events import KINDS
    from orchestrator.store import events as stored
    from orchestrator.store import tickets
    from orchestrator.store.db import Listener

    known = {*KINDS, *stored.OWN_KINDS}
    for kind in kinds:
        if kind not in known:
            raise InvalidInput(
                f"There is no kind of event {kind!r}.", hint=f"Known: {', '.join(sorted(known))}."
            )
    _, database = open_database()
    tickets.get(database, number)
    listener = Listener(database, ["mc_events"]) if follow else None
    last = 0
    found = (
        stored.of_kinds(database, number, kinds, limit=lines)
        if kinds
        else stored.of_ticket(database, number, limit=lines)
    )
    while True:
        for event in found:
            last = event.id
            if kinds and event.kind not in kinds:
                continue
            if as_json:
                print_json(asdict(event), compact=True)
            else:
                click.echo(f"{event.at:%H:%M:%S}  {event.kind:<18}  {summary(event.data)}")
        if listener is None:
            return
        listener.wait(FOLLOW_WAIT_S)
        found = stored.after(database, number, last, limit=1000)


@click.command()
@click.argument("number", metavar="TICKET", type=NUMBER)
@reports_errors
def interrupt(number: int) -> None:
    """Break off the worker's turn, as Esc does; what it asks for is answered with no."""
    from orchestrator.delivery import Delivery
    from orchestrator.seat import Seat
    from orchestrator.store import tickets
    from orchestrator.workers import worker_of

    config, database = open_database()
    worker = worker_of(config, tickets.get(database, number))
    if worker is None:
        raise Conflict(f"Ticket {number} is not running.", hint=f"ticketctl start {number}")
    if worker.state() == "idle":
        raise Conflict(f"Ticket {number} is idle: there is nothing to break off.")
    with Seat(config.tmux.socket) as seat:
        Delivery(seat).interrupt(worker)


@click.command()
@click.argument("number", metavar="TICKET", type=NUMBER)
@click.argument("answer", type=click.Choice(["allow", "deny"]), required=False)
@click.option("--request", "request_id", help="Which request, when there are several.")
@click.option("--message", default="", help="With deny: what the worker is told.")
@click.option("--choose", multiple=True, help="The answer to a question; once for each question.")
@click.option("--json", "as_json", is_flag=True, help="The open requests as an array.")
@reports_errors
def permit(
    number: int, answer: str | None, request_id: str | None, message: str, choose: tuple[str, ...],
    as_json: bool,
) -> None:  # fmt: skip
    """Answer what a worker asks; without an answer, list what it asks.

    The answer goes to the request it names, never as a key into the pane: a request that has gone
    is refused.
    """
    from orchestrator import permits
    from orchestrator.store import tickets

    config, database = open_database()
    tickets.get(database, number)
    paths = config.ticket_paths(number)
    requests = permits.open_requests(paths)
    if answer is None and not choose:
        if as_json:
            print_json([asdict(r) for r in requests])
        else:
            rows = [
                [
                    r.request_id,
                    f"{r.at:%H:%M:%S}",
                    r.tool,
                    json.dumps(dict(r.input), ensure_ascii=False),
                ]
                for r in requests
            ]
            print_table(["REQUEST", "AT", "TOOL", "INPUT"], rows)
        return
    if request_id is None:
        if len(requests) != 1:
            what = "nothing" if not requests else f"{len(requests)} things"
            raise Conflict(f"Ticket {number} asks for {what}.", hint=f"ticketctl permit {number}")
        request_id = requests[0].request_id
    updated = None
    if choose:
        asked = next((r for r in requests if r.request_id == request_id), None)
        questions = list((asked.input if asked else {}).get("questions") or [])
        if asked is None or len(questions) != len(choose):
            raise InvalidInput(
                f"That request asks {len(questions)} questions.", hint="One --choose for each."
            )
        updated = asked.with_answers(
            {q["question"]: c for q, c in zip(questions, choose, strict=True)}
        )
    permits.answer(
        paths, request_id, "deny" if answer == "deny" else "allow", message=message, updated_input=updated,
        by=os.environ.get("USER", ""),
    )  # fmt: skip


COMMANDS: tuple[click.Command, ...] = (send, queue, events, interrupt, permit)
