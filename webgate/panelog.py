"""A pane log, as a reader sees it: which file it is, how far it goes, and pieces of it as events.

Between PANE LOG and WEBGATE. Opens, measures and reads; waiting for growth is watch.py's business
and sending is stream.py's.

Generation: which file an offset belongs to. Inode and time of birth of the file, so that a log that
was rotated away and made again has another one, even where the file system hands the inode out
again at once. A file cut shorter keeps its generation; an offset past the end tells, or the bytes
before it, which are no longer those that were there.
"""

from __future__ import annotations

import binascii
import ctypes
import os
import re
import stat
import struct
from pathlib import Path
from typing import Self

CHUNK_BYTES = 96 * 1024  # of the log in one event; a multiple of 3, base64 makes it 128 KiB
BOUNDARY_BYTES = 4096  # how far a replay may begin later to begin at a good place
MAX_ROTATED = 32  # files of earlier days that are looked at
KEPT_FRAMES = 8  # pieces encoded once for all viewers that stand at the same place
TAIL_BYTES = 64  # of the end as it was seen, by which a cut file that grew again is noticed
GLANCE_BYTES = 16 * 1024  # what a log mostly grows by at once: read together with the end before it
_EVENT_ID = re.compile(r"([0-9a-f]+-[0-9a-f]+):([0-9]{1,18})", re.ASCII)


def parse_event_id(text: str) -> tuple[str, int] | None:
    """Generation and offset out of a Last-Event-ID; None for what we never sent."""
    match = _EVENT_ID.fullmatch(text)
    return (match[1], int(match[2])) if match else None


class PaneLog:
    """One open file. It stays readable when it is renamed or removed; dropped, it is closed."""

    def __init__(self, fd: int) -> None:
        self._file = os.fdopen(fd, "rb", buffering=0)  # closes it
        self._fd = fd
        status = os.fstat(fd)
        self._identity = (status.st_dev, status.st_ino)
        self.born_ns = _born_ns(fd)
        self.generation = f"{status.st_ino:x}-{self.born_ns:x}"
        self._name = self.generation.encode()
        self.size = status.st_size  #: bytes; as of the last `measure`
        self.cuts = 0  #: how often it was found to have been cut
        self._tail = self._end()
        self._fresh = b""  # what it grew by last, where one glance saw all of it
        self._frames: dict[int, tuple[int, bytes]] = {}

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """The log at `path`; None while there is none."""
        try:
            # A FIFO or a link in its place is not followed and does not block.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            return None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return None
        return cls(fd)

    @classmethod
    def rotated(cls, path: Path) -> list[Self]:
        """What once was at `path` and still lies beside it (`pane.log.1`), oldest first."""
        try:
            names = sorted(n for n in os.listdir(path.parent) if n.startswith(f"{path.name}."))
        except OSError:
            return []
        found = [log for name in names[:MAX_ROTATED] if (log := cls.open(path.with_name(name)))]
        return sorted(found, key=lambda log: log.born_ns)

    def measure(self) -> int:
        """How far it goes now, in bytes. `cuts` counts on when it is not the file it was."""
        # One system call for what mostly happens: the end as it was, and a little more behind it.
        known, tail = self.size, self._tail
        seen = os.pread(self._fd, len(tail) + GLANCE_BYTES, known - len(tail))
        grown = len(seen) - len(tail)
        if seen.startswith(tail) and 0 < grown < GLANCE_BYTES:
            self.size, self._tail = known + grown, seen[-TAIL_BYTES:]
            self._fresh = seen[len(tail) :]
            return self.size
        size = os.fstat(self._fd).st_size
        if size == known:
            return size
        if size < known or not seen.startswith(tail):
            self.cuts += 1
            self._frames.clear()
        self.size, self._fresh = size, b""
        self._tail = self._end()
        return size

    def _end(self) -> bytes:
        start = max(0, self.size - TAIL_BYTES)
        return os.pread(self._fd, self.size - start, start)

    def is_at(self, path: Path) -> bool:
        """Whether the path still leads to this file, or to nothing new."""
        try:
            status = os.stat(path, follow_symlinks=False)
        except OSError:
            return True
        return (status.st_dev, status.st_ino) == self._identity

    def tail(self, replay_bytes: int) -> int:
        """The offset from which about the last `replay_bytes` bytes can be shown.

        After a newline, at the beginning of an escape sequence, or at least not inside a character.
        """
        start = self.size - replay_bytes
        if start <= 0:
            return 0
        head = os.pread(self._fd, min(BOUNDARY_BYTES, replay_bytes), start)
        newline, escape = head.find(b"\n"), head.find(b"\x1b")
        if newline >= 0:
            return start + newline + 1
        if escape >= 0:
            return start + escape
        inside = 0
        while inside < min(3, len(head)) and head[inside] & 0xC0 == 0x80:
            inside += 1
        return start + inside

    def frame(self, offset: int) -> tuple[int, bytes] | None:
        """The `pane` event of what follows `offset`, and the offset after it; None at the end."""
        end = min(self.size, offset + CHUNK_BYTES)
        if end <= offset:
            return None
        kept = self._frames.get(offset)
        if kept is not None and kept[0] == end:
            return kept
        data = self._fresh
        if len(data) != end - offset or end != self.size:
            data = os.pread(self._fd, end - offset, offset)
        if not data:
            return None
        end = offset + len(data)
        event = b"id: %s:%d\nevent: pane\ndata: %s\n\n" % (
            self._name,
            end,
            binascii.b2a_base64(data, newline=False),
        )
        if len(self._frames) >= KEPT_FRAMES:
            self._frames.clear()
        self._frames[offset] = (end, event)
        return end, event


_AT_EMPTY_PATH, _STATX_BTIME, _STATX_BYTES, _BTIME_OFFSET = 0x1000, 0x800, 256, 80  # statx(2)


def _born_ns(fd: int) -> int:
    # Python has no statx before 3.15. A file system that keeps no birth times gives 0.
    statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    if statx is None or statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, buffer) != 0:
        return 0
    mask = struct.unpack_from("=I", buffer)[0]
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, _BTIME_OFFSET)
    return int(seconds) * 1_000_000_000 + int(nanoseconds) if mask & _STATX_BTIME else 0
