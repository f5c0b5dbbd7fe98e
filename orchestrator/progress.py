"""How far something is that takes more than a moment: a line on stderr that a person may watch.

On a terminal one line, drawn over; elsewhere a plain line now and then; with `quiet` nothing, which is
what --json and --quiet ask for. What is done in two seconds says nothing. Libraries get a `Meter` (or
`Advance`, where all they do is count) and never print. Out of scope: what came of it, which the command
prints on stdout.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TextIO

from orchestrator import terminal

Advance = Callable[[int], None]  #: so many more are done

SILENT_S = 2.0  # what is done by then needs no bar
DRAWN_EACH_S = 0.2
SAID_EACH_S = 10.0  # where lines stay, in a log
BAR_CHARS = 24


class Meter(Protocol):
    """What a library says of its own way."""

    def __call__(self, count: int, /) -> None:
        """So many more are done."""

    def expect(self, total_bytes: int) -> None:
        """Bytes are counted from here on, from 0 to so many; 0: nobody knows to how many."""

    def follow(self, position: Callable[[], int] | None) -> None:
        """Has the line ask how many more are done than it was told; None: not any longer."""


class _Silent:
    def __call__(self, count: int, /) -> None:
        pass

    def expect(self, total_bytes: int) -> None:
        pass

    def follow(self, position: Callable[[], int] | None) -> None:
        pass


SILENT: Meter = _Silent()


@contextmanager
def shown(label: str, total: int | None = None, *, quiet: bool = False) -> Iterator[Meter]:
    """Shows how far it is until the block ends.

    Args:
        label: what is being done, a few words of ours.
        total: what `advance` adds up to at the end; None: not known, then the time is shown.
        quiet: nothing is shown.
    """
    if quiet:
        yield SILENT
        return
    line = _Line(label, total, sys.stderr)
    line.begin()
    try:
        yield line
    finally:
        line.end()


class _Line:
    """Drawn by a thread of its own, for what it tells of may be one call that takes minutes."""

    def __init__(self, label: str, total: int | None, stream: TextIO) -> None:
        self._label = label
        self._total = total
        self._stream = stream
        self._on_terminal = stream.isatty()
        self._begun = time.monotonic()
        self._done = 0
        self._in_bytes = False
        self._position: Callable[[], int] | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._drawn = False
        self._thread = threading.Thread(target=self._draw, name="progress", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def __call__(self, count: int, /) -> None:
        with self._lock:
            self._done += count

    def expect(self, total_bytes: int) -> None:
        with self._lock:
            self._done, self._total, self._in_bytes = 0, total_bytes, True
            self._position = None

    def follow(self, position: Callable[[], int] | None) -> None:
        with self._lock:
            self._position = position

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        if self._drawn and self._on_terminal:
            self._say("\r\x1b[K")

    def _draw(self) -> None:
        every = DRAWN_EACH_S if self._on_terminal else SAID_EACH_S
        wait = SILENT_S
        while not self._over.wait(wait):
            text = self.text(time.monotonic() - self._begun)
            self._say(
                f"\r{text[: terminal.columns() - 1]}\x1b[K" if self._on_terminal else f"{text}\n"
            )
            self._drawn = True
            wait = every

    def _say(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # nobody reads it any more; the work goes on
            self._over.set()

    def text(self, elapsed_s: float) -> str:
        """What stands in the line after so long."""
        clock = f"{int(elapsed_s) // 60}:{int(elapsed_s) % 60:02}"
        with self._lock:  # held while it is asked: who takes `follow` back may close the file then
            done, total, in_bytes = self._done, self._total, self._in_bytes
            if self._position is not None:
                with suppress(OSError):
                    done += self._position()
        written = terminal.size if in_bytes else str
        if not total:
            return f"{self._label} … {f'{written(done)}, ' if in_bytes and done else ''}{clock}"
        share = min(done / total, 1.0)
        filled = int(share * BAR_CHARS)
        bar = "█" * filled + "░" * (BAR_CHARS - filled)
        numbers = f"{written(min(done, total))} of {written(total)}"
        if not self._on_terminal:
            return f"{self._label}: {numbers}, {clock}"
        return f"{self._label} {bar} {share:4.0%}  {numbers}  {clock}"
