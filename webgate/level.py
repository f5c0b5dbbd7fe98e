"""The viewers of a pane who stand at the same place of its log, served in one loop.

Between PANE LOG and browser. With thousands of them what counts is what each costs: one send, and next
to nothing of ours. Who cannot take all of it, or wants something of its own, is pane.py's business.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Protocol

from webgate.panelog import PaneLog
from webgate.viewer import BURST

TURN = 16  # viewers; so many are sent to before those on our own core may read it
DEAR_S = 0.0005  # giving way that took longer was to somebody with more to do than to read
KEEP_S = 0.1  # and then is not done for so long


class Follower(Protocol):
    """One of them: pane.PaneViewer."""

    send: Callable[[bytes], int]

    def stand(self, offset: int, now: float, rest: bytes = b"", /) -> None:
        """Has been sent all up to `offset`, but for `rest`."""


class Level:
    """Those who have all of the log so far. How far that is is known once; each is told when it leaves."""

    def __init__(self) -> None:
        self._sends: dict[Follower, Callable[[bytes], int]] = {}
        self._log: PaneLog | None = None
        self._offset = self._cuts = self._turn = 0
        self._sent_at = self._keep_until = 0.0

    def __contains__(self, viewer: Follower) -> bool:
        return viewer in self._sends

    def join(self, viewer: Follower, log: PaneLog, offset: int, cuts: int) -> None:
        """It stands there; where the others stand elsewhere it stays by itself until the next time."""
        if not self._sends:
            self._log, self._offset, self._cuts, self._sent_at = log, offset, cuts, 0.0
        elif log is not self._log or offset != self._offset or cuts != self._cuts:
            return
        self._sends[viewer] = viewer.send

    def discard(self, viewer: Follower) -> None:
        """This one is looked after by itself now."""
        if self._sends.pop(viewer, None) is not None:
            viewer.stand(self._offset, self._sent_at)

    def tell(self, viewer: Follower) -> None:
        """How far it is, and when it was sent something last."""
        if viewer in self._sends:
            viewer.stand(self._offset, self._sent_at)

    def lead(self, log: PaneLog) -> None:
        """Sends them what follows in `log`, which was just measured."""
        if log is not self._log or log.cuts != self._cuts or self._offset > log.size:
            self.dissolve()
        for _ in range(BURST):
            if not self._sends or (framed := log.frame(self._offset)) is None:
                return
            self._offset, event = framed
            self._send(event)
        if self._offset < log.size:  # more than a turn's worth: as each socket takes it
            self.dissolve()

    def dissolve(self) -> None:
        """Each is looked after by itself now."""
        self._log = None  # an open file
        for viewer in tuple(self._sends):
            self.discard(viewer)

    def _send(self, event: bytes) -> None:
        order, size = list(self._sends.items()), len(event)
        if (count := len(order)) > 1:  # somebody has to be last, but not always the same one
            self._turn = (self._turn + count // 3 + 1) % count
            order = order[self._turn :] + order[: self._turn]
        self._sent_at = time.monotonic()
        for number, (viewer, send) in enumerate(order, 1):
            if number % TURN == 0:
                self._give_way()
            try:
                if (sent := send(event)) == size:
                    continue
            except OSError:  # full, or gone: by itself it finds out
                sent = 0
            del self._sends[viewer]
            viewer.stand(self._offset, self._sent_at, event[sent:])
        self._give_way()

    def _give_way(self) -> None:
        """To who waits for it on this machine, a browser or the sshd of ssh -L.

        It is often woken on our own core, and would have to wait until we are through with everything.
        """
        before = time.monotonic()
        if before >= self._keep_until:
            os.sched_yield()
            if (now := time.monotonic()) - before > DEAR_S:  # to a compiler
                self._keep_until = now + KEEP_S
