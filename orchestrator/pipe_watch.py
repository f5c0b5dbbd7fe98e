"""Every pane log has a living writer: noticed within a second or two when one has not, and mended.

Beside dispatch, in its once-a-second look. tmux says that a pipe is dead only when the pane prints
the next time, and then what it prints is lost already; so the end of a writer is heard from the
kernel (a pidfd each), and nobody is woken for it. A writer that was stopped would have tmux keep all
that the pane prints in memory. The heartbeat stands behind this, each minute.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from orchestrator import pipes, procfs, systemd, tmux
from orchestrator.config import Config
from orchestrator.errors import TicketError, Unavailable
from orchestrator.store import events, tickets
from orchestrator.store.db import Database

SUSPECT_S = 0.5  # a rotation ends one writer and starts another
AGAIN_S = (1.0, 2.0, *[5.0] * 20, 60.0)  # between tries, while the next writer ends as well
NO_SPACE_S = 5.0
LIVED_S = 30.0  # then the one before is forgotten
STOPPED_AGAIN_S = 10.0  # one that is stopped again so soon is replaced
MAX_SCREEN_CHARS = 20_000


@dataclass(slots=True)
class Watched:
    """One running ticket's pane log."""

    writer: pipes.Writer | None = None  #: None while none is known
    pidfd: int = -1
    since: float = 0.0  #: when this writer was found, or when it was missed; monotonic
    tries: int = 0  #: to start another one, in a row
    next_try: float = 0.0
    ended: bool = False  #: it had a writer, and that has ended
    continued: float = float("-inf")  #: when its writer was last told to go on
    busy: bool = False  #: it is being mended
    said: str = ""  #: why that did not go well, once


class PipeWatch:
    """The writers of all pane logs."""

    def __init__(self, config: Config, database: Database) -> None:
        self._config = config
        self._database = database
        self._server = tmux.Server(config.tmux.socket)
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}
        self._untold: list[tuple[int, dict[str, Any]]] = []
        self._telling = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pipes")

    def fileno(self) -> int:
        """Readable when a writer has ended."""
        return self._epoll.fileno()

    def refresh(self) -> None:
        """Follows the tickets that run now.

        Raises:
            Unavailable: the database is away.
        """
        running = {
            t.id
            for t in tickets.list_all(self._database)
            if t.use_tmux and t.worker_pid is not None
        }
        for number in self._watched.keys() - running:
            self._drop(self._watched.pop(number))
        now = time.monotonic()
        for number in running:
            found = self._watched.setdefault(number, Watched(since=now, next_try=now + SUSPECT_S))
            if not found.writer and not found.ended:  # perhaps it was started again just now
                found.tries, found.next_try = 0, now + SUSPECT_S

    def look(self) -> None:
        """Once a second, and when a writer has ended: what is wrong is mended on another thread."""
        ended = {fd for fd, _ in self._epoll.poll(0)}
        now = time.monotonic()
        for found in self._watched.values():
            if found.pidfd in ended:
                self._drop(found)
                if now - found.since > LIVED_S:
                    found.tries = 0
                found.ended, found.since = True, now
                found.next_try = max(found.next_try, now + SUSPECT_S)
        for number, found in self._watched.items():
            if not found.writer and now >= found.next_try:
                self._find(number, found, now)
            if not found.busy and (wrong := self._wrong(number, found, now)):
                found.busy = True
                self._pool.submit(self._mend, number, found, wrong)
        self._tell_again()

    def _find(self, number: int, found: Watched, now: float) -> None:
        paths = self._config.ticket_paths(number)
        if writer := pipes.writer_of(paths):
            with suppress(OSError):  # it has ended meanwhile
                found.pidfd = pipes.open_writer(writer, paths)
                found.writer, found.since, found.ended = writer, now, False
                self._epoll.register(found.pidfd, select.EPOLLIN)

    def _wrong(self, number: int, found: Watched, now: float) -> str:
        if not found.writer:
            return "ended" if now >= found.next_try else ""
        if procfs.state(found.writer.pid) == "T":
            return "stopped"
        if found.writer.inode and found.writer.log(self._config.ticket_paths(number)) is None:
            return "deleted"
        return ""

    def _drop(self, found: Watched) -> None:
        if found.pidfd >= 0:
            os.close(found.pidfd)  # and epoll forgets it
        found.writer, found.pidfd = None, -1

    def _mend(self, number: int, found: Watched, wrong: str) -> None:
        try:
            {"ended": self._ended, "stopped": self._stopped, "deleted": self._deleted}[wrong](
                number, found
            )
            found.said = ""
        except TicketError as error:
            found.next_try = time.monotonic() + NO_SPACE_S
            if error.message != found.said:
                found.said = error.message
                systemd.log(
                    f"Ticket {number}: its pane is not logged: {error.message}",
                    ticket=number, event="gap", priority=3,
                )  # fmt: skip
        except Exception as error:  # noqa: BLE001  # one ticket's surprise must not end the others' watch
            found.next_try = time.monotonic() + AGAIN_S[-1]
            print(f"ticket {number}: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        finally:
            found.busy = False

    def _ended(self, number: int, found: Watched) -> None:
        log = self._config.ticket_paths(number).pane_log_path
        free = os.statvfs(log.parent)
        if found.ended and not (free.f_bavail and free.f_favail):
            raise Unavailable(f"there is no space in {log.parent}.")
        found.next_try = time.monotonic() + AGAIN_S[min(found.tries, len(AGAIN_S) - 1)]
        found.tries += 1
        screen = pipes.mend(self._config, self._server, number)
        if screen is not None:
            self._gap(number, "the writer of the pane log died", screen)

    def _stopped(self, number: int, found: Watched) -> None:
        now = time.monotonic()
        again = now - found.continued < STOPPED_AGAIN_S
        found.continued = now
        pid = found.writer.pid if found.writer else 0
        what = "it is replaced" if again else "it was told to go on, and nothing is lost"
        systemd.log(
            f"Ticket {number}: the writer of its pane log (pid {pid}) was stopped: {what}.",
            ticket=number, event="pipe_stopped", priority=4,
        )  # fmt: skip
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(found.pidfd, signal.SIGKILL if again else signal.SIGCONT)

    def _deleted(self, number: int, _: Watched) -> None:
        screen = self._server.capture(number)
        try:
            with systemd.UserManager() as manager:
                pipes.hand_over(self._config, self._server, manager, number)
        except Unavailable:  # it cannot be frozen: what is on its way is lost, and the gap says so
            paths = self._config.ticket_paths(number)
            self._server.pipe(number, paths.pane_log_path, paths.writer_path)
        self._gap(number, "the pane log was deleted", screen)

    def _gap(self, number: int, reason: str, screen: str) -> None:
        log = self._config.ticket_paths(number).pane_log_path
        size = log.stat().st_size if log.exists() else 0
        said = {"reason": reason, "offset": size, "screen": screen[-MAX_SCREEN_CHARS:]}
        systemd.log(
            f"Ticket {number}: {reason}; it goes on, and what was printed meanwhile is in no log.",
            ticket=number, event="gap", priority=4,
        )  # fmt: skip
        self._untold.append((number, said))
        self._tell_again()

    def _tell_again(self) -> None:
        """Gaps become events; those that a database's outage kept back, later."""
        with self._telling:
            while self._untold:
                number, said = self._untold[0]
                try:
                    events.record(self._database, number, "gap", **said)
                except TicketError:
                    return
                self._untold.pop(0)


__all__ = ["PipeWatch"]
