"""The names messages are taken under, and those of which certainly nothing reached a worker.

Each take has a name of its own, as its rows' lease. Where its answer is lost, nobody knows whether the
database carried it out, or will yet; but nothing under that name ever left, and nothing ever will. So
its rows are queued again by that name, however late, and what was taken since has another one. Out of
scope: a take that got its answer, and what was sent of it.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from dataclasses import dataclass

from orchestrator.store import messages
from orchestrator.store.db import Database

LOOK_S = 1.0  # between two looks for the same names
# A statement may be carried out when its connection is long gone: TCP goes on delivering what was sent
# before, for minutes. Counted from the first time that the database answers again.
LATE_S = 300.0


@dataclass(frozen=True, slots=True)
class _Doubt:
    """When rows under a name are looked for, by the monotonic clock."""

    next_at: float = 0.0
    until: float = math.inf


class Leases:
    """Of one dispatcher; threads share it."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._unused: dict[str, _Doubt] = {}

    def name(self) -> str:
        """For one take, and never again."""
        return messages.lease_of(self._owner, next(self._numbers))

    def nothing_left(self, lease: str) -> None:
        """Certainly no byte of what was taken under that name, if anything was, went to a worker."""
        with self._lock:
            self._unused[lease] = _Doubt()

    def take_back(self) -> None:
        """Has queued again what turned up under such names.

        Raises:
            Unavailable: the next call tries again.
        """
        now = time.monotonic()
        with self._lock:
            due = {name: doubt for name, doubt in self._unused.items() if doubt.next_at <= now}
        if not due:
            return
        found = messages.take_back(self._database, list(due))
        now = time.monotonic()
        with self._lock:
            for name, doubt in due.items():
                # a statement is carried out once: what turned up does not do so again
                if name in found or doubt.until <= now:
                    self._unused.pop(name, None)
                elif name in self._unused:
                    self._unused[name] = _Doubt(now + LOOK_S, min(doubt.until, now + LATE_S))
