"""Hand a pane over from one log file to the next without losing a byte, and mend dead pipes.

tmux throws away what it has read from a pane and not yet written to the pipe when `pipe-pane`
replaces it (12 of 39 times under a flood, tmux 3.3a). So the ticket's processes are frozen for the
moment it takes: nothing is printed, tmux and the writer become idle, and then the pipe is replaced.
What was frozen is written down first: whoever dies in between leaves a note for the next one.

The writer of a log says by itself who it is, before it becomes `cat`: its mark, in the runtime folder, has
its pid with its time of start, and the inode it writes. None of them means another while it lives.
"""

from __future__ import annotations

import fcntl
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator import procfs, systemd, tmux
from orchestrator.config import Config
from orchestrator.errors import TicketError, Unavailable
from orchestrator.naming import TicketPaths, unit_name

DRAIN_S = 3.0  # past it the pipe is left as it is, and the old file goes on being written
LEAVE_S = 10.0  # for the old writer to write what it has and leave
MARK_S = 2.0  # for a new writer to say who it is; a disk without space keeps it from that
_STILL = 3  # looks in a row that see the same
_STILL_UNMARKED = 20  # where only the file can be looked at
_LOOK_S = 0.005
_MAX_MARK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Writer:
    """The process that writes a pane log."""

    pid: int
    started: str  #: as procfs.started says: with the pid, this process and no other
    inode: int  #: of the file it writes; 0: it could not say

    def log(self, paths: TicketPaths) -> Path | None:
        """The file it writes, whatever that is called now; None: it has no name any more."""
        log = paths.pane_log_path
        with suppress(OSError):
            if os.stat(log).st_ino == self.inode:
                return log
        for path in log.parent.glob(f"{log.name}*"):
            with suppress(OSError):
                if os.stat(path).st_ino == self.inode:
                    return path
        return None


def folder_of_notes(config: Config) -> Path:
    """Tickets that are frozen by us, one empty file each."""
    return config.runtime_dir / "frozen-for-rotation"


def writer_of(paths: TicketPaths) -> Writer | None:
    """The living writer of a ticket's pane log by its own mark; None: it has ended, or has no mark."""
    writer = _marked(paths)
    lives = writer and procfs.is_alive(writer.pid) and procfs.started(writer.pid) == writer.started
    return writer if lives else None


def is_unmarked(paths: TicketPaths) -> bool:
    """Nobody said that they write the log: not yet, or the pipe is an earlier version's."""
    return not paths.writer_path.exists()


def _marked(paths: TicketPaths) -> Writer | None:
    """As the mark says: `INODE /proc/PID/fd/1 PID (sh) STATE …`, the rest as in /proc/PID/stat."""
    try:
        with paths.writer_path.open("rb") as file:
            head, _, fields = file.read(_MAX_MARK_BYTES).rpartition(b")")
        inode, _, rest = head.partition(b" ")
        pid = rest.rpartition(b" (")[0].split()[-1]
        started = procfs.started_in(fields)
        return Writer(int(pid), started, int(inode) if inode.isdigit() else 0) if started else None
    except (OSError, ValueError, IndexError):
        return None  # there is none, or it is just being written


def hand_over(
    config: Config, server: tmux.Server, manager: systemd.UserManager, number: int
) -> bool:
    """Has a pane write to `pane.log` again after that was renamed; False: there was nothing to do.

    A pipe of an earlier version, whose writer says nothing of itself, is replaced in any case.

    Raises:
        Unavailable: it could not be done safely. The pane goes on writing to the renamed file.
    """
    paths = config.ticket_paths(number)
    with _alone(config):
        writer = writer_of(paths)
        if writer is None and not is_unmarked(paths):
            return False  # it has ended: for `mend`, and not without a word
        if writer is not None and writer.log(paths) == paths.pane_log_path:
            return False
        pane = server.pane(number)
        if pane is None or pane.dead or not pane.piped:
            return False
        leaving = _pidfd(writer, paths)
        try:
            with _frozen(config, manager, number):
                _drain(server, number, paths, writer)
                _pipe(server, number, paths)
            if leaving is not None and not select.select([leaving], [], [], LEAVE_S)[0]:
                raise Unavailable(
                    f"The old writer of ticket {number} ({writer and writer.pid}) does not leave."
                )
        finally:
            if leaving is not None:
                os.close(leaving)
    return True


def _pidfd(writer: Writer | None, paths: TicketPaths) -> int | None:
    if writer is not None:
        with suppress(OSError):  # it has just ended
            return open_writer(writer, paths)
    return None


def open_writer(writer: Writer, paths: TicketPaths) -> int:
    """A pidfd of that very process.

    Raises:
        ProcessLookupError: it has ended.
    """
    pidfd = os.pidfd_open(writer.pid)
    if writer_of(paths) != writer:  # looked at behind the opening: not somebody else's by now
        os.close(pidfd)
        raise ProcessLookupError
    return pidfd


def _pipe(server: tmux.Server, number: int, paths: TicketPaths) -> None:
    """Pipes anew, and waits until the new writer has said who it is."""
    before = _marked(paths)
    server.pipe(number, paths.pane_log_path, paths.writer_path)
    deadline = time.monotonic() + MARK_S
    while _marked(paths) in {None, before} and time.monotonic() < deadline:
        # it takes a few milliseconds; a watch of the folder would take as long to set up
        time.sleep(_LOOK_S)


@contextmanager
def _frozen(config: Config, manager: systemd.UserManager, number: int) -> Iterator[None]:
    note = folder_of_notes(config) / str(number)
    note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    note.touch(mode=0o600)
    ours = False
    try:
        ours = manager.freeze(unit_name(number))
        yield
    finally:
        if ours:
            manager.thaw(unit_name(number))
        note.unlink(missing_ok=True)


def thaw_forgotten(config: Config, manager: systemd.UserManager) -> list[int]:
    """Lets go on what a hand-over that was killed left frozen; their numbers."""
    found: list[int] = []
    folder = folder_of_notes(config)
    for note in sorted(folder.iterdir()) if folder.is_dir() else ():
        if note.name.isdigit():
            with suppress(TicketError):
                manager.thaw(unit_name(int(note.name)))
                found.append(int(note.name))
            note.unlink(missing_ok=True)
    return found


def _drain(server: tmux.Server, number: int, paths: TicketPaths, writer: Writer | None) -> None:
    """Waits until tmux has handed on all it read, and the writer waits for more."""
    deadline = time.monotonic() + DRAIN_S
    log = writer.log(paths) if writer else None
    files = (
        [log] if log else [paths.pane_log_path.with_name(f"pane.log{end}") for end in ("", ".1")]
    )
    still, before = 0, -1
    while still < (_STILL if writer else _STILL_UNMARKED):
        if time.monotonic() > deadline:
            raise Unavailable(f"The pane of ticket {number} does not become still.")
        server.pane(
            number
        )  # an answer means a round of tmux's loop: what it had has been passed on
        size = 0
        for path in files:
            with suppress(OSError):
                size += path.stat().st_size
        state = procfs.state(writer.pid) if writer else "S"
        if not state:
            return  # it left: there is nothing to lose any more
        still = still + 1 if state == "S" and size == before else 0
        before = size
        time.sleep(_LOOK_S)  # the kernel has no event for a process that begins to wait


def mend(config: Config, server: tmux.Server, number: int) -> str | None:
    """Pipes a living pane again whose writer died; what is on its screen, or None: it was well.

    What was printed meanwhile is in no log: the caller records the gap. That tmux still takes a pipe for
    well means little, for it notices only when the pane prints.
    """
    paths = config.ticket_paths(number)
    with _alone(config):
        pane = server.pane(number)
        if pane is None or pane.dead:
            return None
        if pane.piped and (is_unmarked(paths) or writer_of(paths) is not None):
            return None
        screen = server.capture(number)
        _pipe(server, number, paths)
        return screen


@contextmanager
def _alone(config: Config) -> Iterator[None]:
    """The heartbeat, a rotation and the watch beside the dispatcher act one after the other."""
    config.runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(config.runtime_dir / "pipes.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
