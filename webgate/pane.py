"""A pane and those who look at it.

Between PANE LOG and browser. A viewer has an offset in the file, and whatever its socket takes is
sent from there, straight from the loop's callbacks: a slow viewer costs one piece of the log and
holds nobody up. One that comes first, or is too slow for what the pane prints, gets the screen as
tmux has it (`repaint`) and goes on from there. Which panes there are, stream.py knows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import gevent

from orchestrator.errors import Conflict, TicketError
from orchestrator.tmux_control import Screen
from webgate.level import Level
from webgate.panelog import PaneLog, parse_event_id
from webgate.screen import repaint_event
from webgate.viewer import Viewer, encode
from webgate.watch import Watcher

REPLAY_BYTES = 10 * 1024
MAX_REPLAY_BYTES = 64 * 1024
MAX_BEHIND_BYTES = 1024 * 1024  # who is further behind, and not about to catch up, is moved forward
CATCH_UP_S = 20.0
SWEEP_S = 1.0  # behind inotify, which is a hint
SETTLE_S = 0.02  # tmux shows what it read at once; `cat` writes it a moment later
SETTLE_TRIES = 5
ROTATED_S = 0.5  # the last bytes of a log that was rotated away may still come

News = Mapping[str, bytes]


class Screens(Protocol):
    """Who knows what a pane shows: tmux_control.Control."""

    def state(self, ticket: int) -> Screen:
        """Size, cursor and modes."""

    def screen(self, ticket: int) -> Screen:
        """The same with the text."""


class Place:
    """Where a viewer wants to begin.

    Args:
        last_event_id: of the browser, may be empty; what we never sent counts as empty.
        replay_bytes: how much of the past to show to one who comes for the first time; None for
            a repaint of the screen.
    """

    def __init__(self, last_event_id: str = "", replay_bytes: int | None = None) -> None:
        self.after = parse_event_id(last_event_id)
        self.replay_bytes = replay_bytes


class PaneViewer(Viewer):
    """One who looks at a pane."""

    def __init__(self, pane: Pane, connection: Any, place: Place) -> None:
        super().__init__(connection)
        self._pane = pane
        self._place = place
        self._log: PaneLog | None = None
        self._offset = self._cuts = self._swept_at_offset = 0
        self._was_early = pane.log is None  # then all of the log is new to it
        self._waits = False  # for a repaint
        self._late = False  # far behind, at the last look
        self._painted = b""
        self._ending = b""
        self._ended = False
        self.jumps = False  #: is to be moved forward, once what is half sent is sent

    def forget(self) -> None:
        """Lets files go."""
        self._log = None
        self._pane.waiting.discard(self)
        self._pane.level.discard(self)

    def pump(self) -> None:
        """Sends what there is for this one alone."""
        self._pane.level.discard(self)
        super().pump()

    def rest(self) -> None:
        """Has everything: from here on it gets what all get, in one loop."""
        log = self._log
        if log is not None and not (self._waits or self._ending or self.done.is_set()):
            self._pane.level.join(self, log, self._offset, self._cuts)

    def stand(self, offset: int, now: float, rest: bytes = b"") -> None:
        """Has been sent all up to `offset`, but for `rest`."""
        self._offset = offset
        self._moved_at = self._sent_at = max(now, self._sent_at)
        if rest:
            self._pending = memoryview(rest)
            self.pump()

    def tell(self, news: News) -> None:
        """Passes news on. A closed ticket prints nothing more: the rest, `end`, and good-bye."""
        self._ending = news.get("end", b"")
        super().tell({kind: event for kind, event in news.items() if kind != "end"})

    def sweep(self, now: float) -> None:
        """Once a second."""
        self._pane.level.tell(self)
        log = self._log
        late = False
        if log is not None and self._full and not self._waits:
            behind, taken = log.size - self._offset, self._offset - self._swept_at_offset
            late = behind > MAX_BEHIND_BYTES
            # Twice in a row: a flood that began a moment ago says nothing of how fast it is.
            self.jumps = late and self._late and taken * CATCH_UP_S < behind * SWEEP_S
        self._late = late
        self._swept_at_offset = self._offset
        super().sweep(now)

    def paint(self, log: PaneLog | None, offset: int, event: bytes) -> None:
        """Goes on at `offset` with `event` before it; without an event there is no screen."""
        self._waits = self.jumps = False
        if log is not None and event:
            self._log, self._offset, self._cuts, self._painted = log, offset, log.cuts, event
        elif (own := self._log) is not None:
            self._offset = own.tail(self._place.replay_bytes or REPLAY_BYTES)
        self._swept_at_offset = self._offset
        self.wake()

    def _next(self) -> bytes:
        if news := super()._next():
            return news
        if self._painted:
            painted, self._painted = self._painted, b""
            return painted
        if piece := self._next_of_log():
            return piece
        if self._ended:
            self.done.set()
        elif self._ending and not self._waits:
            self._ended = True
            return self._ending
        return b""

    def _next_of_log(self) -> bytes:
        newest, log = self._pane.log, self._log
        if newest is None or self._waits:
            return b""
        if log is None:
            log = self._log = newest
            self._cuts = log.cuts
            if gap := self._begin(log):
                return gap
            if self._waits:
                return b""
            log = self._log
        if log is not newest:
            log.measure()
        if self._cuts != log.cuts or self._offset > log.size:
            self._cuts = log.cuts
            return self._gap(log, "truncated", 0)
        if self.jumps and log.size - self._offset > MAX_BEHIND_BYTES:
            skipped = log.size - self._offset
            self._want_repaint()
            return encode("gap", {"reason": "behind", "bytes": skipped})
        if framed := log.frame(self._offset):
            self._offset = framed[0]
            return framed[1]
        if log is not newest and time.monotonic() - self._pane.changed_at > ROTATED_S:
            # Nothing is missing: the old one was read to its end, the new one begins there.
            self._log = self._pane.after(log) or newest
            self._offset, self._cuts = 0, self._log.cuts
            return self._next_of_log()
        return b""

    def _begin(self, log: PaneLog) -> bytes:
        """Finds the place to begin; the gap to tell of first, if there is one."""
        place = self._place
        if place.after is None:
            if self._was_early:
                self._offset = 0
            elif place.replay_bytes is None:
                self._want_repaint()
            else:
                self._offset = log.tail(place.replay_bytes)
            return b""
        generation, offset = place.after
        for known in (log, *self._pane.rotated):
            if generation == known.generation and offset <= known.size:
                self._log, self._offset, self._cuts = known, offset, known.cuts
                return b""
        if log.size <= MAX_BEHIND_BYTES:
            return self._gap(log, "replaced", 0)
        self._want_repaint()
        return encode("gap", {"reason": "replaced"})

    def _want_repaint(self) -> None:
        self._waits = True
        self._pane.ask_for_repaint(self)

    def _gap(self, log: PaneLog, reason: str, start: int) -> bytes:
        self._offset = start
        return encode("gap", {"reason": reason}, f"{log.generation}:{start}")


class Pane:
    """One ticket's pane and those who look at it."""

    def __init__(self, ticket: int, path: Path, watcher: Watcher, screens: Screens) -> None:
        self.ticket = ticket
        self.path = path
        self.log = PaneLog.open(path)
        self.rotated = PaneLog.rotated(path)
        self.changed_at = 0.0  #: when another log took the place of the one before
        self.viewers: set[PaneViewer] = set()
        self.level = Level()
        self.waiting: set[PaneViewer] = set()  # for a repaint
        self._unsettled: set[PaneViewer] = set()  # painted while the pane printed
        self._screens = screens
        self._looked = False
        self._shown: tuple[int, int, int] | None = None  #: process, columns, rows; None: no pane
        self._swept_size = -1
        self._painter: gevent.Greenlet[..., None] | None = None
        self._looker: gevent.Greenlet[..., None] | None = None
        self._watcher = watcher
        self._watch = watcher.add(path, self.wake, self.glance)

    def glance(self) -> int:
        """Should the log have grown, those who have all of it so far get the rest; by how many bytes."""
        if self.log is None:
            return 0
        before = self.log.size
        grown = self.log.measure() - before
        self.level.lead(self.log)
        return max(0, grown)

    def wake(self) -> None:
        """The log grew, or is another one: everybody who can take more gets it."""
        self.glance()
        if self.log is None or not self.log.is_at(self.path):
            old, fresh = self.log, PaneLog.open(self.path)
            if fresh is not None:
                self.log = fresh
                if old is not None:
                    old.measure()
                    self.rotated.append(old)
                    self.changed_at = time.monotonic()
                self.level.lead(fresh)  # nobody stands there yet: each finds its way on its own
        for viewer in tuple(self.viewers):
            if viewer not in self.level:
                viewer.wake()

    def after(self, log: PaneLog) -> PaneLog | None:
        """The log that followed on `log`."""
        later = [each for each in self.rotated if each.born_ns > log.born_ns]
        return min(later, key=lambda each: each.born_ns, default=None)

    def sweep(self, now: float) -> None:
        """Once a second, for what inotify did not tell."""
        if not self._watcher.is_live(self._watch):
            self._watch = self._watcher.add(self.path, self.wake, self.glance)
        self.wake()
        for viewer in tuple(self.viewers):
            viewer.sweep(now)
        size = self.log.size if self.log is not None else -1
        if self._unsettled and size == self._swept_size:
            again, self._unsettled = self._unsettled & self.viewers, set()
            for viewer in again:
                self.ask_for_repaint(viewer)
        self._swept_size = size
        self.look()

    def look(self) -> None:
        """Is it another pane, or has it another size? Then all get the picture anew."""
        if self._looker is None or self._looker.ready():
            self._looker = gevent.spawn(self._look)

    def ask_for_repaint(self, viewer: PaneViewer) -> None:
        """`viewer.paint` is called, soon; one look at the pane does for all who wait."""
        self.waiting.add(viewer)
        if self._painter is None or self._painter.ready():
            self._painter = gevent.spawn(self._paint)

    def close(self) -> None:
        """Nobody looks any more."""
        for greenlet in (self._painter, self._looker):
            if greenlet is not None:
                greenlet.kill(block=False)
        self.log = None
        self.rotated = []
        self.level.dissolve()
        self._watcher.remove(self._watch, self.path)

    def _look(self) -> None:
        try:
            state = self._screens.state(self.ticket)
        except Conflict:  # the worker has gone; the next one begins on an empty screen
            self._looked, self._shown = True, None
            return
        except TicketError:
            return
        shown = (state.pid, state.columns, state.rows)
        if self._looked and shown != self._shown:
            for viewer in tuple(self.viewers):
                self.ask_for_repaint(viewer)
        self._looked, self._shown = True, shown

    def _paint(self) -> None:
        while self.waiting:
            try:
                log, offset, screen, exact = self._capture()
            except TicketError as error:
                log, offset, event, exact = None, 0, b"", True
                if isinstance(error, Conflict):  # none now: the next one is another
                    self._looked, self._shown = True, None
            else:
                self._looked, self._shown = True, (screen.pid, screen.columns, screen.rows)
                event = repaint_event(screen, f"{log.generation}:{offset}") if log else b""
            served, self.waiting = self.waiting, set()
            if not exact:
                self._unsettled |= served
            for viewer in served:
                viewer.paint(log, offset, event)

    def _capture(self) -> tuple[PaneLog | None, int, Screen, bool]:
        """The screen, and the offset it stands at; whether that is certain.

        The log is written by another process than the screen, a moment later. When it stood still
        before and after, the two agree. Else the screen is told again once the pane is quiet.
        """
        before = self._measure()
        for _ in range(SETTLE_TRIES):
            screen = self._screens.screen(self.ticket)
            now = self._measure()
            gevent.sleep(SETTLE_S)
            after = self._measure()
            if before == after:
                return self.log, after, screen, True
            before = after
        return self.log, now, screen, False

    def _measure(self) -> int:
        return self.log.measure() if self.log is not None else 0
