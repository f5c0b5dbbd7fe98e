"""A terminal that is drawn on anew each time, and cells that fit on it.

Text of agents and people is shown without what a terminal would obey. No curses: a few well-known
sequences, and the terminal is given back however the block ends.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
import unicodedata
from collections.abc import Sequence
from types import TracebackType
from typing import Self

MIN_CELL = 8  # a column is not made narrower
MIN_LAST = 20  # what the last column keeps, where the others can give way
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def plain(text: str) -> str:
    """One line without control and direction characters: a space, or nothing, for each."""
    shown = (" " if c in "\t\n\r\v\f" else c for c in text)
    return "".join(
        c for c in shown if unicodedata.category(c) not in {"Cc", "Cf", "Zl", "Zp", "Cs"}
    )


def width(text: str) -> int:
    """How many cells of a terminal it takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def fit(text: str, room: int) -> str:
    """Cut to so many cells, with … where something is missing, and filled up with blanks."""
    size = width(text)
    if size > room:
        while text and size > room - 1:
            size -= width(text[-1])
            text = text[:-1]
        text, size = f"{text}…", size + 1
    return text + " " * (room - size)


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    columns: int,
    *,
    first_to_go: Sequence[str] = (),
) -> list[str]:
    """Lines of at most `columns` cells: where they do not suffice, the widest columns give way.

    Where that does not suffice either, those of `first_to_go` are left out, one after the other.
    """
    cells = [[plain(cell) for cell in row] for row in (head, *rows)]
    widths = [max(width(row[i]) for row in cells) for i in range(len(head))]
    least = [min(MIN_LAST if i == len(head) - 1 else max(MIN_CELL, width(name)), widths[i])
             for i, name in enumerate(head)]  # fmt: skip
    for name in first_to_go:
        if sum(least) + 2 * (len(least) - 1) <= columns:
            break
        at = cells[0].index(name)
        del widths[at], least[at]
        for row in cells:
            del row[at]
    too_much = sum(widths) + 2 * (len(widths) - 1) - columns
    last = len(widths) - 1
    while too_much > 0:
        gives = widths[last] > least[last]
        widest = last if gives else max(range(len(widths)), key=lambda i: widths[i] - least[i])
        if widths[widest] <= least[widest]:
            break
        widths[widest] -= 1
        too_much -= 1
    return [
        fit(
            "  ".join(fit(c, w) for c, w in zip(row, widths, strict=True)).rstrip(), columns
        ).rstrip()
        for row in cells
    ]


def size(count_bytes: int) -> str:
    """In the unit a person would take, of powers of 1024."""
    amount, units = float(count_bytes), ["bytes", "KiB", "MiB", "GiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:.0f} {units[0]}" if units[0] == "bytes" else f"{amount:.1f} {units[0]}"


def columns() -> int:
    """Of the terminal, or COLUMNS; 80 where nobody knows."""
    return _size().columns


def _size() -> os.terminal_size:
    import shutil  # noqa: PLC0415  # for a terminal alone: ticketctl list has to be quick in a pipe

    return shutil.get_terminal_size()


class Screen:
    """The whole terminal, until the block ends. Keys come one by one and are not shown."""

    def __enter__(self) -> Self:
        self._in = sys.stdin.fileno() if sys.stdin.isatty() else None
        if self._in is not None:
            self._before = termios.tcgetattr(self._in)
            tty.setcbreak(self._in)
        sys.stdout.write(_ENTER)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        if self._in is not None:
            termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)

    def draw(self, lines: Sequence[str]) -> None:
        """Shows as many of the lines as there is room for. They may hold colours of ours."""
        rows = _size().lines
        shown = (f"{line}\x1b[0m{_REST_OF_LINE}" for line in lines[:rows])
        sys.stdout.write(_HOME + "\n".join(shown) + _REST_OF_SCREEN)
        sys.stdout.flush()

    def wait(self, seconds: float, *fds: int) -> str:
        """Until a key, a readable descriptor or that time; the key, or nothing."""
        keys = [] if self._in is None else [self._in]
        ready, _, _ = select.select([*keys, *fds], [], [], seconds)
        if self._in in ready and self._in is not None:
            typed = os.read(self._in, 64).decode("utf-8", "replace")
            return typed[:1] or "q"  # the terminal has gone
        return ""
