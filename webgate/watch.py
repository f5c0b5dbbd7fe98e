"""Be told when a pane log grows: one inotify instance for the whole gateway.

watchdog's observers are threads with queues between; a viewer would wait for two thread switches,
and under gevent they are greenlets that poll. So this takes watchdog's bindings of the three system
calls, and lets gevent's loop wait for the descriptor. Events are only hints (the kernel drops them
when its queue is full): whoever watches also looks once a second on its own.

What grew last is mostly what grew now. So it gets a glance as soon as anything happened, before the
kernel is asked what it was: its viewers wait that much less.

A pane that is flooded has its log written five kilobytes at a time, thousands of times a second. To be
told of each would cost the very cores tmux prints with. So while much comes, a few milliseconds go by
before the next look, and what was written meanwhile is one piece: less than a frame of any screen.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from watchdog.observers import inotify_c
from watchdog.observers.inotify_c import InotifyConstants as In

READ_BYTES = 65_536
_HEAD = struct.Struct("iIII")  # wd, mask, cookie, length of the name; inotify(7)
_MASK = (
    In.IN_MODIFY | In.IN_CREATE | In.IN_DELETE | In.IN_MOVED_TO | In.IN_MOVED_FROM | In.IN_ONLYDIR
)

FLOOD_BYTES = 64 * 1024
FLOOD_S = 0.02  # so much within so long, and there is a rest after each look
REST_S = 0.004

Callback = Callable[[], None]
Glance = Callable[[], int]


class Watcher:
    """Calls back, in the loop, when something happens to a file of a watched folder.

    Callbacks must not switch greenlets. One watch a folder, however many files are asked for.
    """

    def __init__(self) -> None:
        self._fd = inotify_c.inotify_init()
        self._callbacks: dict[int, dict[bytes, tuple[Callback, Glance]]] = {}
        self._glance: Glance | None = None  # of what grew last
        self._came, self._since, self._flooded = 0, 0.0, False
        if self._fd < 0:
            # Another program has used up max_user_instances: the slow look does it alone.
            print("<4>no inotify instance is left, looking once a second instead", file=sys.stderr)  # noqa: T201
            return
        os.set_blocking(self._fd, False)
        os.set_inheritable(self._fd, False)
        loop = gevent.get_hub().loop
        self._ready, self._rested = loop.io(self._fd, 1), loop.timer(REST_S, REST_S)
        self._ready.start(self._read)

    def add(self, path: Path, callback: Callback, glance: Glance) -> int | None:
        """Watches `path`, which need not exist; its folder must.

        `callback` is called when something happened to it; `glance`, which has to be cheap and may
        find nothing, when something happened anywhere and this grew last: it says by how many bytes.

        Returns:
            A handle for `remove`, or None when it cannot be watched now: try again later.
        """
        if self._fd < 0:
            return None
        folder = os.fsencode(path.parent)
        wd: int = inotify_c.inotify_add_watch(self._fd, folder, _MASK)
        if wd < 0:
            ctypes.set_errno(0)
            return None
        self._callbacks.setdefault(wd, {})[os.fsencode(path.name)] = callback, glance
        return wd

    def is_live(self, handle: int | None) -> bool:
        """Whether the kernel still has that watch: it goes away with its folder."""
        return handle in self._callbacks

    def remove(self, handle: int | None, path: Path) -> None:
        """Watches no longer."""
        names = self._callbacks.get(handle) if handle is not None else None
        if handle is None or names is None:
            return
        names.pop(os.fsencode(path.name), None)
        self._glance = None
        if not names:
            del self._callbacks[handle]
            inotify_c.inotify_rm_watch(self._fd, inotify_c.WatchDescriptor(handle))

    def close(self) -> None:
        """Lets the instance go."""
        if self._fd >= 0:
            for each in (self._ready, self._rested):
                each.stop()
                each.close()
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        if self._glance is not None:
            self._count(self._call(self._glance) or 0)
        try:
            data = os.read(self._fd, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        # Many writes make many events; each callback runs once for all of them.
        woken: dict[int, tuple[Callback, Glance]] = {}
        position = 0
        while position + _HEAD.size <= len(data):
            wd, mask, _, length = _HEAD.unpack_from(data, position)
            position += _HEAD.size
            name = data[position : position + length].rstrip(b"\0")
            position += length
            if mask & In.IN_Q_OVERFLOW:
                woken.update((id(c), c) for each in self._callbacks.values() for c in each.values())
            elif mask & In.IN_IGNORED:
                self._callbacks.pop(wd, None)
            elif both := self._callbacks.get(wd, {}).get(name):
                woken[id(both)] = both
        for callback, self._glance in woken.values():
            self._call(callback)

    def _count(self, grown: int) -> None:
        """Rests, where it is a flood: what the kernel has to tell meanwhile it keeps, as one event."""
        now = time.monotonic()
        if (took := now - self._since) > FLOOD_S:
            self._flooded = self._came > FLOOD_BYTES and took < 2 * FLOOD_S
            self._came, self._since = 0, now
        self._came += grown
        if grown and (self._flooded or self._came > FLOOD_BYTES):
            self._ready.stop()
            self._rested.again(self._go_on)

    def _go_on(self) -> None:
        self._rested.stop()
        self._ready.start(self._read)

    def _call(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Exception:  # noqa: BLE001  # gevent stops a watcher whose callback fails: nobody were told any more
            gevent.get_hub().handle_error(self, *sys.exc_info())
