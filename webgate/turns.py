"""How long turns take: a histogram that is kept in the process, fed with the events since the last look.

It begins empty when the gateway does, which Prometheus takes for what it is: a counter that began anew.
So a look reads what is new by its number and never the whole table. Out of scope: what turns cost
(`orchestrator/spending.py`).
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator
from datetime import datetime

from orchestrator.store import events
from orchestrator.store.db import Database

BOUNDS_S = (5, 15, 30, 60, 120, 300, 600, 1800, 3600)
BEGINS = ("user_prompt", "message_taken")
ENDS = ("turn_end", "result", "api_error")
BROKEN_OFF = ("worker_started", "worker_ended")
MAX_EVENTS = 50_000  # of one look; the next one goes on from there


class Turns:
    """Turns that ended since the gateway began, by how long they took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # two scrapes at once
        self._last: int | None = None
        self._began: dict[int, datetime] = {}
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0

    def look(self, database: Database) -> None:
        """Takes in what happened since the last look; the first one only finds out where to begin."""
        with self._lock:
            newest = events.newest_id(database)
            # a number that went back is another database: restored from a backup
            if self._last is None or newest < self._last:
                self._last = newest
                self._began.clear()
                return
            upto = min(newest, self._last + MAX_EVENTS)
            kinds = (*BEGINS, *ENDS, *BROKEN_OFF)
            for ticket, kind, at in events.marks(database, self._last, upto, kinds):
                self._take(ticket, kind, at)
            self._last = upto

    def _take(self, ticket: int, kind: str, at: datetime) -> None:
        if kind in BEGINS:
            self._began.setdefault(ticket, at)
            return
        began = self._began.pop(ticket, None)
        if began is not None and kind in ENDS:
            took_s = max(0.0, (at - began).total_seconds())  # the clock may have been set back
            self._counts[bisect_left(BOUNDS_S, took_s)] += 1
            self._sum_s += took_s

    def buckets(self) -> Iterator[tuple[str, int]]:
        """Each bound as Prometheus writes it, with how many turns took no longer."""
        total = 0
        for bound, count in zip(
            (*(f"{bound:.1f}" for bound in BOUNDS_S), "+Inf"), self._counts, strict=True
        ):
            total += count
            yield bound, total

    @property
    def sum_s(self) -> float:
        """Of all turns together."""
        return self._sum_s
