"""How much panes printed: a count kept in the process, fed with how their logs grew since the last look.

Like `turns.py` it begins with the gateway, and a look costs one stat(2) a ticket. One number for all:
a label for each ticket would be a series for each that ever was. Out of scope: what is in the logs
(`panelog.py`).
"""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

LOG, ROTATED = "pane.log", "pane.log.1"


class Piped:
    """Bytes that came into the logs of panes since the first look."""

    def __init__(self, tickets: Path) -> None:
        self._folder = tickets
        self._lock = threading.Lock()  # two scrapes at once
        self._seen: dict[str, tuple[int, int]] | None = None
        self.bytes = 0

    def look(self) -> None:
        """Takes in what was written since the last look; the first one only finds out where to begin.

        Logs that are rotated twice between two looks lose what only the earlier rotation had.
        """
        with self._lock:
            try:
                names = [name for name in os.listdir(self._folder) if name.isdigit()]
            except OSError:  # nothing was ever started, or the disk is away
                names = []
            before, now = self._seen, {}
            for name in names:
                if (found := _regular(self._folder / name / LOG)) is None:
                    continue
                now[name] = found
                if before is not None:
                    self.bytes += self._growth(name, before.get(name), found)
            self._seen = now

    def _growth(self, name: str, last: tuple[int, int] | None, found: tuple[int, int]) -> int:
        if last is None:
            return found[1]
        if last[0] == found[0]:
            # cut shorter, it was written anew
            return found[1] - last[1] if found[1] >= last[1] else found[1]
        rotated = _regular(self._folder / name / ROTATED)
        rest = rotated[1] - last[1] if rotated is not None and rotated[0] == last[0] else 0
        return found[1] + max(0, rest)


def _regular(path: Path) -> tuple[int, int] | None:
    """Inode and size; None where there is no such file."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return (status.st_ino, status.st_size) if stat.S_ISREG(status.st_mode) else None
