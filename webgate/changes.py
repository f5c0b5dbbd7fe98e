"""Hear of changes in the database, and pass them on to the streams.

Between EVENTS and WEBGATE. One connection that listens, for the whole process. It may go away as
often as it likes: streams go on with the bytes of their panes, and get what they missed once it is
back. News is always the whole of what is known of its kind, so that missing one loses nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import gevent

from orchestrator import config, permits
from orchestrator.errors import NoSuchTicket, TicketError, Unavailable
from orchestrator.naming import ticket_id
from orchestrator.store import comments, events, messages, tickets
from orchestrator.store.db import Database, Listener
from webgate import wire
from webgate.control import Controls
from webgate.pane import News
from webgate.stream import Streams
from webgate.together import Together
from webgate.viewer import encode

CHANNELS = ("mc_tickets", "mc_messages", "mc_events")
POLL_S = 30.0  # behind NOTIFY, which is a hint as well
CLOSE_S = 1.0  # it may be asking the database
GATHER_S = 0.05  # a burst of events is told once
RETRY_S = (0.5, 1.0, 2.0, 5.0)
QUEUE_SHOWN = 10  # messages in the stream; the API has all
TURN_KINDS = ("turn_end", "result", "api_error")


class Reader:
    """Reads what viewers should know now."""

    def __init__(self, settings: config.Config, database: Database, controls: Controls) -> None:
        self._settings = settings
        self._database = database
        self._controls = controls
        self._together = Together()

    def for_newcomer(self, ticket: int) -> News:
        """The same as `of_ticket`, read once for all who come at once."""
        return self._together.ask(ticket, lambda: self.of_ticket(ticket))

    def of_ticket(self, ticket: int) -> News:
        """For those who look at a ticket.

        Raises:
            NoSuchTicket: it was removed.
            Unavailable: the database is away.
        """
        record = tickets.get(self._database, ticket)
        queue = messages.of_ticket(self._database, ticket, limit=QUEUE_SHOWN)
        said = comments.of_ticket(self._database, ticket, limit=1)
        newest = events.of_ticket(self._database, ticket, limit=1)
        turn = events.newest(self._database, ticket, TURN_KINDS)
        open_requests = permits.open_requests(self._settings.ticket_paths(ticket))
        told: dict[str, dict[str, Any]] = {
            "state": wire.state(record),
            "queue": {"messages": [wire.message(m, max_chars=wire.SHOWN_CHARS) for m in queue]},
            "cost": wire.cost(record),
            "permission": {"requests": [wire.request(r) for r in open_requests]},
            "control": {"holder": self._controls.holder(ticket)},
            "activity": {"id": newest[0].id if newest else 0},
        }
        if turn is not None:
            told["turn_end"] = wire.event(turn)
        if said:
            told["comment"] = wire.comment(said[0])
        if record.status == "closed":
            told["end"] = {"reason": "closed"}
        return {kind: encode(kind, data) for kind, data in told.items()}

    def of_board(self) -> News:
        """For those who look at the board."""
        found = tickets.list_all(self._database)
        return {"tickets": encode("tickets", {"tickets": [wire.state(t) for t in found]})}


class Changes:
    """Follows the database for `streams`, in a greenlet of its own."""

    def __init__(self, database: Database, streams: Streams, reader: Reader) -> None:
        self._database = database
        self._streams = streams
        self._reader = reader
        self._told: dict[int, News] = {}
        self._greenlet = gevent.spawn(self._follow)

    def close(self) -> None:
        """Follows no longer."""
        self._greenlet.kill(timeout=CLOSE_S)

    def _follow(self) -> None:
        failures = 0
        while True:
            try:
                listener = Listener(self._database, CHANNELS)
            except TicketError as error:
                if failures == 0:
                    self._say(f"{error}; trying again, panes go on meanwhile")
                gevent.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1
                continue
            if failures:
                self._say("PostgreSQL is back")
            failures = 0
            try:
                # What changed while nobody listened is read now; what changes from here is heard.
                self._pass_on(self._streams.tickets)
                while True:
                    heard = listener.wait(POLL_S)
                    if heard:
                        gevent.sleep(GATHER_S)
                        heard += listener.wait(0)
                    self._pass_on(_tickets_of(heard) if heard else self._streams.tickets)
            except Unavailable:
                failures = max(failures, 0)
            except Exception as error:  # noqa: BLE001  # one bad row must not end all news
                self._say(f"news failed, going on: {error!r:.300}")
                gevent.sleep(RETRY_S[0])
            finally:
                listener.close()

    def _pass_on(self, numbers: Iterable[int]) -> None:
        watched = set(self._streams.tickets)
        self._told = {n: news for n, news in self._told.items() if n in watched}
        for ticket in numbers:
            if ticket in watched:
                try:
                    news = self._reader.of_ticket(ticket)
                except NoSuchTicket:
                    continue
                # What was told already is not told again: an event a line would flood a page.
                before = self._told.get(ticket, {})
                fresh = {k: e for k, e in news.items() if before.get(k) != e or k == "end"}
                self._told[ticket] = news
                self._streams.tell(ticket, fresh)
        if self._streams.has_board:
            self._streams.tell_board(self._reader.of_board())

    def _say(self, what: str) -> None:
        print(f"<4>{what}", file=sys.stderr, flush=True)  # noqa: T201


def _tickets_of(heard: list[tuple[str, str]]) -> list[int]:
    found = dict.fromkeys(payload for _, payload in heard)
    numbers = []
    for payload in found:
        try:
            numbers.append(ticket_id(payload))
        except TicketError:
            continue
    return numbers
