"""A terminal for agents of ours: keys in, a transcript above an input box out.

Beside the flow: used by `demo_agent.py` and the stream agents. Draws in the normal screen as the
real agent does, so that the transcript scrolls into the pane's history: what can still change (the line being
written, the dialog or the box) is the *live* part at the bottom, erased and drawn anew each time.
What the keys mean is not decided here.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import termios
import unicodedata
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PASTE_CHARS = 4 * 1024 * 1024  # the rest is dropped
MAX_BOX_ROWS = 6
LONG_TEXT_CHARS = 800  # longer, or of more lines than that, a text is named instead of shown
LONG_TEXT_LINES = 10
HISTORY_ROWS = 500  # for drawing anew after a resize
ACCENT, DIM, BOLD, GOOD = "38;5;173", "2", "1", "32"
_PASTE_END = "\x1b[201~"
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.)", re.DOTALL)
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")


@dataclass(frozen=True, slots=True)
class Key:
    """One key: a name as in "enter", "escape", "ctrl-c", or "text" and "paste" with a text."""

    name: str
    text: str = ""


_CONTROL = {
    "\r": "enter",
    "\n": "newline",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x03": "ctrl-c",
    "\x04": "ctrl-d",
    "\x0c": "ctrl-l",
    "\x15": "ctrl-u",
}


class Keys:
    """Bytes from the terminal, in whatever pieces, to keys."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._paste: list[str] | None = None
        self._paste_chars = 0

    @property
    def unfinished(self) -> bool:
        """Whether an ESC waits for the rest of its sequence; call `flush()` if none comes."""
        return self._paste is None and self._rest.startswith("\x1b")

    def flush(self) -> list[Key]:
        """Nothing came after an ESC: it was the key."""
        lone, self._rest = self._rest == "\x1b", ""
        return [Key("escape")] if lone else []

    def feed(self, data: bytes) -> list[Key]:
        """The keys that are complete with these bytes."""
        self._rest += self._decoder.decode(data)
        keys: list[Key] = []
        while self._rest:
            if self._paste is not None:
                if not self._take_paste(self._paste, keys):
                    break
            elif self._rest[0] == "\x1b":
                if _UNFINISHED.match(self._rest):
                    break
                self._take_sequence(keys)
            else:
                self._take_plain(keys)
        return keys

    def _take_paste(self, parts: list[str], keys: list[Key]) -> bool:
        text, end, after = self._rest.partition(_PASTE_END)
        if end:
            self._rest, self._paste = after, None
            keys.append(Key("paste", "".join([*parts, text])[:MAX_PASTE_CHARS]))
            return True
        keep = len(_PASTE_END) - 1  # these may be the beginning of the end
        if self._paste_chars < MAX_PASTE_CHARS:
            parts.append(text[:-keep])
            self._paste_chars += len(parts[-1])
        self._rest = text[-keep:]
        return False

    def _take_sequence(self, keys: list[Key]) -> None:
        found = _SEQUENCE.match(self._rest)
        if found is None:
            self._rest = self._rest[1:]
            keys.append(Key("escape"))
            return
        self._rest = self._rest[found.end() :]
        if found[0] == "\x1b[200~":
            self._paste, self._paste_chars = [], 0

    def _take_plain(self, keys: list[Key]) -> None:
        first = self._rest[0]
        if first < " " or first == "\x7f":
            self._rest = self._rest[1:]
            keys.append(Key(_CONTROL.get(first, "other")))
            return
        found = re.match(r"[^\x00-\x1f\x7f]+", self._rest)
        text = found[0] if found else first
        self._rest = self._rest[len(text) :]
        keys.append(Key("text", text))


def plain(text: str) -> str:
    """Text that moves no cursor: line ends kept, tabs as blanks, other control characters gone."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ")
    return "".join(c for c in text if c == "\n" or unicodedata.category(c) != "Cc")


def brief(text: str) -> str:
    """A text as it is shown: itself, or what stands for a long one."""
    lines = text.count("\n") + 1
    if len(text) > LONG_TEXT_CHARS or lines > LONG_TEXT_LINES:
        return f"[Pasted text, {len(text)} characters in {lines} lines]"
    return plain(text)


def columns(text: str) -> int:
    """How many columns a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def wrap(text: str, width: int) -> list[str]:
    """Rows of at most `width` columns, broken at blanks where there are some."""
    rows: list[str] = []
    for line in text.split("\n"):
        row = ""
        for piece in re.findall(r" *[^ ]+| +", line):
            if row and columns(row + piece) > width:
                rows.append(row)
                row = ""
            rest = piece if row or not rows else piece.lstrip(" ") or piece
            while columns(rest) > width:
                cut = next(i for i in range(1, len(rest) + 1) if columns(rest[: i + 1]) > width)
                rows.append(rest[:cut])
                rest = rest[cut:]
            row += rest
        rows.append(row)
    return rows


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the screen: a coloured mark and a text, or a coloured text."""

    text: str = ""
    style: str = ""  #: an SGR parameter
    mark: str = ""

    def __str__(self) -> str:
        if self.mark:
            return f"\x1b[{self.style}m{self.mark}\x1b[0m{self.text}"
        return f"\x1b[{self.style}m{self.text}\x1b[0m" if self.style else self.text


class Screen:
    """The terminal while the agent has it; a context manager that gives it back as it was."""

    def __init__(self, fd_in: int, fd_out: int) -> None:
        self._in, self._out = fd_in, fd_out
        self._before = termios.tcgetattr(fd_in)
        self._history: deque[str] = deque(maxlen=HISTORY_ROWS)
        self._fresh: list[str] = []  # rows of the transcript that are not drawn yet
        self._above_cursor = 0  # rows of the live part over the cursor
        self._drawn: object = None  # the live part as it stands there
        self._stream = ""  # the row of the answer that still grows
        self._stream_mark = ""
        self.dialog: Sequence[Row] = ()  #: stands in place of the box
        self.status = ""  #: over the box, as in "Thinking…"; empty when idle
        self.foot = ""  #: under the box
        self.box = ""
        self.waiting: Sequence[str] = ()  #: messages for after this turn

    def __enter__(self) -> Self:
        mode = termios.tcgetattr(self._in)
        mode[0] &= ~(termios.ICRNL | termios.IXON | termios.INLCR | termios.IGNCR)
        mode[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
        termios.tcsetattr(self._in, termios.TCSADRAIN, mode)
        self._write("\x1b[?2004h")
        return self

    def __exit__(self, *_: object) -> None:
        self.status, self.dialog, self.foot = "", (), ""
        self._write(self._erase() + "".join(f"{row}\n" for row in self._fresh))
        self._write("\x1b[?2004l\x1b[0m\x1b[?25h")
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows; never so few that nothing can be drawn."""
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(self._out)
            return max(size.columns, 20), max(size.lines, 8)
        return 80, 24

    def add(self, *rows: Row) -> None:
        """Rows for the transcript, too long ones wrapped."""
        width = self.size[0] - 1
        for row in rows:
            first, *more = wrap(row.text, width - columns(row.mark))
            self._fresh.append(str(Row(first, row.style, row.mark)))
            indent = " " * columns(row.mark)
            style = "" if row.mark else row.style
            self._fresh.extend(str(Row(indent + text, style)) for text in more)

    def stream(self, text: str) -> None:
        """More of the answer; what can no longer change moves up into the transcript."""
        if not self._stream and not self._stream_mark:
            self._stream_mark, text = "● ", text.lstrip(" ")
        *done, self._stream = wrap(self._stream + plain(text), self.size[0] - 3)
        for row in done:
            self._fresh.append(str(Row(row, GOOD, self._stream_mark)))
            self._stream_mark = "  "

    def end_stream(self) -> None:
        """The answer is complete, or broken off."""
        if self._stream:
            self._fresh.append(str(Row(self._stream, GOOD, self._stream_mark)))
        self._stream = self._stream_mark = ""

    def redraw(self) -> None:
        """Clears the terminal and draws all anew, as after a resize."""
        self._history.extend(self._fresh)
        self._fresh = list(self._history)[-self.size[1] :]
        self._history.clear()
        self._above_cursor = 0
        self._drawn = None
        self._write("\x1b[2J\x1b[H")
        self.draw()

    def draw(self) -> None:
        """Brings the terminal up to date, in one write; in none where nothing is new."""
        width, height = self.size
        live, cursor_row, cursor_column = self._live(width - 1)
        hidden = max(0, len(live) - (height - 1))
        live, cursor_row = live[hidden:], max(0, cursor_row - hidden)
        looks = (width, height, live, cursor_row, cursor_column)
        if not self._fresh and looks == self._drawn:
            return
        self._drawn = looks
        frame = ["\x1b[?25l", self._erase()]
        frame += [f"{row}\n" for row in self._fresh]
        frame.append("\n".join(map(str, live)))
        below = len(live) - 1 - cursor_row
        frame.append(f"\x1b[{below}A" if below else "")
        frame.append(f"\r\x1b[{cursor_column}C\x1b[?25h")
        self._history.extend(self._fresh)
        self._fresh = []
        self._above_cursor = cursor_row
        self._write("".join(frame))

    def _live(self, width: int) -> tuple[list[Row], int, int]:
        rows: list[Row] = []
        if self._stream:
            rows.append(Row(self._stream, GOOD, self._stream_mark))
        rows += [Row(f"> {brief(text)}"[:width], DIM) for text in self.waiting]
        rows.append(Row())
        if self.dialog:
            rows += self.dialog
            return rows, len(rows) - 1, 0
        if self.status:
            rows.append(Row(self.status, ACCENT))
        rule = Row("─" * width, DIM)
        text = wrap(brief(self.box), width - 3)[-MAX_BOX_ROWS:]
        rows.append(rule)
        rows += [Row(row, ACCENT, "  " if number else "> ") for number, row in enumerate(text)]
        cursor = len(rows) - 1
        rows += [rule, Row(f"  {self.foot}"[:width], DIM)]
        return rows, cursor, 2 + columns(text[-1])

    def _erase(self) -> str:
        up = f"\x1b[{self._above_cursor}A" if self._above_cursor else ""
        self._above_cursor = 0
        return f"{up}\r\x1b[J"

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        with contextlib.suppress(OSError):  # the terminal is gone; reading will say so
            while data:
                data = data[os.write(self._out, data) :]
