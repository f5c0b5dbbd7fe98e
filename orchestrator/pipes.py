"""Hand a pane over from one log file to the next without losing a byte, and mend dead pipes.

tmux throws away what it has read from a pane and not yet written to the pipe when `pipe-pane`
replaces it (12 of 39 times under a flood, tmux 3.3a). So the ticket's processes are frozen for the
moment it takes: nothing is printed, tmux and the writer become idle, and then the pipe is replaced.
What was frozen is written down first: whoever dies in between leaves a note for the next one.
"""

from __future__ import annotations

import fcntl
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator import systemd, tmux
from orchestrator.config import Config, unit_name
from orchestrator.errors import TicketError, Unavailable

DRAIN_S = 3.0  # past it the pipe is left as it is, and the old file goes on being written
LEAVE_S = 10.0  # for the old writer to write what it has and leave
_STILL = 3  # looks in a row that see the same
_LOOK_S = 0.005


def folder_of_notes(config: Config) -> Path:
    """Tickets that are frozen by us, one empty file each."""
    return config.runtime_dir / "frozen-for-rotation"


def writers(config: Config) -> dict[int, tuple[int, Path]]:
    """The processes that write pane logs, with the file each writes; one walk for all tickets."""
    folder, found = config.state_dir / "tickets", dict[int, tuple[int, Path]]()
    for pid, path in _writers():
        if path.parent.parent == folder and path.parent.name.isdigit():
            found[int(path.parent.name)] = pid, path
    return found


def writer_of(log_folder: Path) -> tuple[int, Path] | None:
    """The process that writes a pane log, and the file it writes; None when there is none."""
    return next((found for found in _writers() if found[1].parent == log_folder), None)


def _writers() -> Iterator[tuple[int, Path]]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                path = Path(os.readlink(process / "fd/1"))
                ours = path.name.startswith("pane.log")
                if ours and (process / "comm").read_text().strip() in {"cat", "sh"}:
                    yield int(process.name), path


def hand_over(
    config: Config, server: tmux.Server, manager: systemd.UserManager, number: int
) -> bool:
    """Has a pane write to `pane.log` again after that was renamed; False: there was nothing to do.

    Raises:
        Unavailable: it could not be done safely. The pane goes on writing to the renamed file.
    """
    log = config.ticket_paths(number).pane_log_path
    found = writer_of(log.parent)
    pane = server.pane(number)
    if found is None or pane is None or pane.dead:
        return False
    writer, path = found
    if path == log:
        return False
    leaving = os.pidfd_open(writer)
    try:
        with _frozen(config, manager, number):
            _drain(server, number, writer)
            server.pipe(number, log)
        if not select.select([leaving], [], [], LEAVE_S)[0]:
            raise Unavailable(
                f"The old writer of ticket {number} ({writer}) does not leave {path}."
            )
    finally:
        os.close(leaving)
    return True


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


def _drain(server: tmux.Server, number: int, writer: int) -> None:
    """Waits until tmux has handed on all it read, and the writer waits for more."""
    deadline = time.monotonic() + DRAIN_S
    still, before = 0, -1
    while still < _STILL:
        if time.monotonic() > deadline:
            raise Unavailable(f"The pane of ticket {number} does not become still.")
        server.pane(
            number
        )  # an answer means a round of tmux's loop: what it had has been passed on
        try:
            size = os.stat(f"/proc/{writer}/fd/1").st_size
            state = Path(f"/proc/{writer}/stat").read_bytes().rpartition(b")")[2].split()[0]
        except OSError:
            return  # it left: there is nothing to lose any more
        still = still + 1 if state == b"S" and size == before else 0
        before = size
        time.sleep(_LOOK_S)  # the kernel has no event for a process that begins to wait


def mend(
    config: Config, server: tmux.Server, number: int, *, writer_ended: bool = False
) -> str | None:
    """Pipes a living pane again whose writer died; what is on its screen, or None: it was well.

    What was printed meanwhile is in no log: the caller records the gap.

    Args:
        config: for the log's path.
        server: where the pane is.
        number: whose.
        writer_ended: the caller saw it end; tmux itself notices only when the pane prints.
    """
    log = config.ticket_paths(number).pane_log_path
    with _alone(config):
        pane = server.pane(number)
        if pane is None or pane.dead:
            return None
        if pane.piped and (not writer_ended or writer_of(log.parent) is not None):
            return None
        screen = server.capture(number)
        server.pipe(number, log)
        return screen


@contextmanager
def _alone(config: Config) -> Iterator[None]:
    """The heartbeat and the watch beside the dispatcher mend one after the other."""
    config.runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(config.runtime_dir / "pipes.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
