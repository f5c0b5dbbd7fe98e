"""How long turns take: a histogram that is kept in the process, fed with the events since the last look.

It begins empty when the gateway does, which Prometheus takes for what it is: a counter that began anew.
So a look reads what is new by its number and never the whole table. Out of scope: what turns cost
(`orchestrator/spending.py`).

An event may commit after one with a larger number. A look goes only as far as an earlier one saw the
newest number, when nobody who was adding events then still does: by the locks, for a time to wait
would have to be longer than any transaction, and a horizon of transaction ids does not hold what has
a number and no id yet.
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
        self._last = 0  # taken in up to this number
        self._final = 0  # nothing more comes up to this one
        # the next such number, and who has to be gone first
        self._pending: tuple[int, frozenset[str]] | None = None
        self._began: dict[int, datetime] = {}
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0

    def look(self, database: Database) -> None:
        """Takes in what had happened at the last look; the first one only finds out where to begin."""
        with self._lock:
            newest = events.newest_id(database)
            writers = events.writers(database)  # in this order: what is still to come is of these
            # a number that went back is another database: restored from a backup
            if self._pending is None or newest < self._pending[0]:
                self._last = self._final = newest
                self._pending = newest, writers
                self._began.clear()
                return
            number, before = self._pending
            if still := before & writers:
                self._pending = number, still
            else:
                self._final = number
                self._pending = newest, writers
            upto = min(self._final, self._last + MAX_EVENTS)
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
