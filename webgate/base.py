"""What all routes share, and how a route finds its ticket, its body and its caller."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import bottle

from orchestrator import config
from orchestrator.errors import TicketError, Unavailable
from orchestrator.naming import ticket_id
from orchestrator.store import tickets
from orchestrator.store.db import Database
from orchestrator.store.tickets import Ticket
from orchestrator.tmux_control import Control
from webgate import auth, wire
from webgate.changes import Reader
from webgate.control import Controls
from webgate.piped import Piped
from webgate.stream import Streams
from webgate.together import Together
from webgate.turns import Turns

#: In the environment: who goes on with the connection, a GET's, once the headers are sent.
TAKEOVER = "webgate.takeover"
#: The same, of a POST's route: an `Again`, what does the same with the body of a later request.
AGAIN = "webgate.again"
MAX_REMEMBERED = 200  # tickets whose page can be shown while the database is away


class Again(Protocol):
    """Its answer is the one to the first request too, or it raises."""

    def act(self, data: bytes) -> None:
        """Does it."""

    def at_once(self, data: bytes) -> Callable[[], None] | None:
        """The same from the loop's callback, as far as nobody has to wait.

        Returns:
            What is left; it has to be called, a moment later. None: nothing was done, as where it raises.
        """


@dataclass
class Shared:
    """The parts of a running gateway."""

    settings: config.Config
    database: Database
    streams: Streams
    tmux: Control
    controls: Controls
    reader: Reader
    login_limit: auth.LoginLimit = field(default_factory=auth.LoginLimit)
    remembered: OrderedDict[int, Ticket] = field(default_factory=OrderedDict)
    together: Together = field(default_factory=Together)
    turns: Turns = field(default_factory=Turns)
    piped: Piped = field(init=False)

    def __post_init__(self) -> None:
        self.piped = Piped(self.settings.state_dir / "tickets")

    def ticket(self, text: str, *, stale: bool = False) -> Ticket:
        """The ticket a path names; with `stale`, as it last was while the database is away.

        Raises:
            InvalidInput: that is no number.
            NoSuchTicket: there is none.
        """
        number = ticket_id(text)
        try:
            record = self.together.ask(number, lambda: tickets.get(self.database, number))
        except Unavailable:
            if stale and number in self.remembered:
                return self.remembered[number]
            raise
        except TicketError:
            self.remembered.pop(number, None)
            raise
        self.remembered[number] = record
        self.remembered.move_to_end(number)
        while len(self.remembered) > MAX_REMEMBERED:
            self.remembered.popitem(last=False)
        return record


def caller() -> str:
    """The login a request came with; "token" for programs."""
    return str(bottle.request.environ["webgate.session"] or "token")


def author() -> str:
    """Who did it, for the record: a person at a page, or a program."""
    return "web" if bottle.request.environ["webgate.session"] else "api"


def body(*, max_bytes: int = wire.MAX_BODY_BYTES) -> dict[str, Any]:
    """The request's JSON object."""
    return wire.read_json(bottle.request.environ, max_bytes=max_bytes)


def number_asked(name: str, default: int, most: int) -> int:
    """A whole number out of the query, at most `most`."""
    text = bottle.request.query.get(name, str(default))
    return min(wire.whole_number(name, text), most)
