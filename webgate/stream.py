"""Fan panes and the board out to browsers, as server-sent events.

Between PANE LOG, EVENTS and browser: every open stream of the process, and the one watcher and the
one clock they share. What a viewer is sent is pane.py's and changes.py's business.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event

from orchestrator.errors import TicketError
from webgate.pane import SWEEP_S, News, Pane, PaneViewer, Place, Screens
from webgate.problems import Full
from webgate.viewer import Viewer
from webgate.watch import Watcher

MAX_STREAMS = 2200  # past it 503 and Retry-After; measured with 2,000 of one pane


class Streams:
    """All viewers of all panes; and those of the board, which only count here."""

    def __init__(self, screens: Screens) -> None:
        self._screens = screens
        self._watcher = Watcher()
        self._panes: dict[int, Pane] = {}
        self._board: set[Viewer] = set()
        self._count = 0
        self._occupied = Event()
        self._sweeper = gevent.spawn(self._sweep)

    def __len__(self) -> int:
        return self._count

    @property
    def tickets(self) -> list[int]:
        """Those somebody looks at."""
        return list(self._panes)

    @property
    def has_board(self) -> bool:
        """Whether somebody looks at the board."""
        return bool(self._board)

    def check_room(self) -> None:
        """Raises Full when no more viewers are taken."""
        if self._count >= MAX_STREAMS:
            raise Full(f"{MAX_STREAMS} streams are open.", retry_after_s=5, hint="Close some tabs.")

    def serve(
        self, connection: Any, ticket: int, path: Path, place: Place, news: Callable[[], News]
    ) -> None:
        """Takes a connection over, its headers being sent, until it ends.

        Args:
            connection: gevent's socket.
            ticket: its number.
            path: of its pane log, which need not exist yet.
            place: where to begin.
            news: what is known of the ticket right now.
        """
        pane = self._panes.get(ticket)
        if pane is None:
            pane = self._panes[ticket] = Pane(ticket, path, self._watcher, self._screens)
        viewer = PaneViewer(pane, connection, place)
        pane.viewers.add(viewer)
        self._enter()
        try:
            # Asked for after joining, so that no change falls between the two. Without a database
            # there are no news now, but the pane's bytes all the same.
            with suppress(TicketError):
                viewer.tell(news())
            pane.wake()
            viewer.run()
        finally:
            pane.viewers.discard(viewer)
            if not pane.viewers and self._panes.get(ticket) is pane:
                del self._panes[ticket]
                pane.close()
            self._leave()

    def serve_board(self, connection: Any, news: Callable[[], News]) -> None:
        """The same for one who looks at the board."""
        viewer = Viewer(connection)
        self._board.add(viewer)
        self._enter()
        try:
            with suppress(TicketError):
                viewer.tell(news())
            viewer.run()
        finally:
            self._board.discard(viewer)
            self._leave()

    def tell(self, ticket: int, news: News) -> None:
        """Passes news on to those who look at the ticket."""
        pane = self._panes.get(ticket)
        for viewer in tuple(pane.viewers) if pane is not None else ():
            viewer.tell(news)

    def tell_board(self, news: News) -> None:
        """Passes news on to those who look at the board."""
        for viewer in tuple(self._board):
            viewer.tell(news)

    def look(self, ticket: int) -> None:
        """The pane has another size now."""
        if (pane := self._panes.get(ticket)) is not None:
            pane.look()

    def close(self) -> None:
        """Hangs up on everybody; they come back to whoever listens next."""
        self._sweeper.kill(block=False)
        for viewer in (*self._board, *(v for p in self._panes.values() for v in p.viewers)):
            viewer.done.set()

    def _enter(self) -> None:
        self._count += 1
        self._occupied.set()

    def _leave(self) -> None:
        self._count -= 1
        if not self._count:
            self._occupied.clear()

    def _sweep(self) -> None:
        while True:
            self._occupied.wait()
            # The slow look behind inotify, and the clock of heartbeats and of stalled sockets.
            gevent.sleep(SWEEP_S)
            now = time.monotonic()
            for pane in tuple(self._panes.values()):
                pane.sweep(now)
            for viewer in tuple(self._board):
                viewer.sweep(now)
