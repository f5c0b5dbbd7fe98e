"""Be told when a file grows: one inotify instance for all sidecars.

Only watchdog's bindings of the three system calls are used: its observers are threads with queues
between, and watch folders, where every byte of a pane log would wake a reader of sidecars. Events
are hints (the kernel drops them when its queue is full, and a user's instances may be used up):
whoever watches also looks at the files by the clock. Which file it is, `FileIdentity` says.
"""

from __future__ import annotations

import ctypes
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from watchdog.observers import inotify_c
from watchdog.observers.inotify_c import InotifyConstants as In

READ_BYTES = 65_536
HEAD_BYTES = 4096  # of the first line; each begins with the time it was written
_HEAD = struct.Struct("iIII")  # wd, mask, cookie, length of the name; inotify(7)
_MASK = In.IN_MODIFY | In.IN_MOVE_SELF | In.IN_DELETE_SELF | In.IN_ATTRIB


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Which file is at a path, and how long it is."""

    #: inode, time of birth (ext4 gives a removed file's inode to the next one at once) and a sum of
    #: the first line (a file cut short and written anew keeps both)
    text: str
    size: int  #: bytes

    @classmethod
    def of(cls, path: Path) -> Self:
        """The file at `path`, as it is now.

        Raises:
            FileNotFoundError: there is none.
        """
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            head = os.pread(fd, HEAD_BYTES, 0)
            line, newline, _ = head.partition(b"\n")
            first = line if newline or len(head) == HEAD_BYTES else b""
            return cls(f"{status.st_ino:x}-{_born_ns(fd):x}-{zlib.crc32(first):x}", status.st_size)
        finally:
            os.close(fd)


class Watcher:
    """Tells which of the watched files have changed."""

    def __init__(self) -> None:
        self._fd: int = inotify_c.inotify_init()
        self._keys: dict[int, int] = {}
        self._watched: dict[int, int] = {}
        if self._fd >= 0:
            os.set_blocking(self._fd, False)
            os.set_inheritable(self._fd, False)

    @property
    def is_on(self) -> bool:
        """False: another program has used up max_user_instances, the clock has to do."""
        return self._fd >= 0

    def fileno(self) -> int | None:
        """Readable when something has changed."""
        return self._fd if self.is_on else None

    def ensure(self, path: Path, key: int) -> None:
        """Watches a file under `key`; nothing happens while it is not there."""
        if not self.is_on or key in self._watched:
            return
        wd: int = inotify_c.inotify_add_watch(self._fd, os.fsencode(path), _MASK)
        if wd < 0:
            ctypes.set_errno(0)
            return
        self._keys[wd] = key
        self._watched[key] = wd

    def changed(self) -> set[int]:
        """The keys whose files have changed since the last call."""
        found: set[int] = set()
        try:
            data = os.read(self._fd, READ_BYTES) if self.is_on else b""
        except (BlockingIOError, InterruptedError):
            return found
        position = 0
        while position + _HEAD.size <= len(data):
            wd, mask, _, length = _HEAD.unpack_from(data, position)
            position += _HEAD.size + length
            if mask & In.IN_Q_OVERFLOW:
                found.update(self._watched)
            elif (key := self._keys.get(wd)) is not None:
                found.add(key)
                if mask & (In.IN_IGNORED | In.IN_MOVE_SELF | In.IN_DELETE_SELF):
                    # The path may lead to another file by now: `ensure` finds it.
                    self._forget(wd, key, gone=bool(mask & In.IN_IGNORED))
        return found

    def _forget(self, wd: int, key: int, *, gone: bool) -> None:
        del self._keys[wd]
        self._watched.pop(key, None)
        if not gone:
            inotify_c.inotify_rm_watch(self._fd, inotify_c.WatchDescriptor(wd))

    def close(self) -> None:
        """Lets the instance go."""
        if self.is_on:
            os.close(self._fd)
            self._fd = -1


_AT_EMPTY_PATH, _STATX_BTIME, _STATX_BYTES, _BTIME_OFFSET = 0x1000, 0x800, 256, 80  # statx(2)
_statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)


def _born_ns(fd: int) -> int:
    """Nanoseconds; 0 on a file system that keeps no birth times. Python has no statx before 3.15."""
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    if _statx is None or _statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, buffer) != 0:
        return 0
    mask = struct.unpack_from("=I", buffer)[0]
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, _BTIME_OFFSET)
    return int(seconds) * 1_000_000_000 + int(nanoseconds) if mask & _STATX_BTIME else 0
