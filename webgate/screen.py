"""What a pane shows, as bytes that bring a fresh terminal to the same picture.

Between SESSION and browser: the first paint of a viewer, and how one that is far behind gets
forward. Pure; asking tmux is tmux_control.py's business, sending is stream.py's.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from orchestrator.tmux_control import Screen
from webgate.viewer import encode

# Line drawing comes from tmux as shift-out, shift-in.
_BEGIN = b"\x1b)0"
_END = b"\x0f\x1b)B\x1b[m"


def repaint(screen: Screen) -> bytes:
    """For a terminal of the screen's size that was just reset."""
    flags = screen.flags
    top, bottom = screen.region
    rows = screen.lines[-screen.rows :]
    # A program that left the alternate screen would else find nothing beneath it.
    beneath = (*screen.lines[: -screen.rows], *screen.beneath)
    column, row = screen.beneath_cursor
    parts = (
        [_text(beneath), b"\x1b[%d;%dH" % (row + 1, column + 1), b"\x1b[?1049h\x1b[H", _text(rows)]
        if flags["alternate_on"]
        else [_text(screen.lines)]
    )
    parts += [b"\x1b[%d;%dr" % (top + 1, bottom + 1), b"\x1b[?6h" if flags["origin_flag"] else b""]
    # With origin mode on, rows count from the top of the region.
    line = screen.cursor_y + 1 - (top if flags["origin_flag"] else 0)
    if screen.cursor_x < screen.columns:
        parts.append(b"\x1b[%d;%dH" % (line, screen.cursor_x + 1))
    else:  # behind a full row: no address leads there, only its last character does
        parts += [b"\x1b[%d;1H" % line, _text(rows[screen.cursor_y : screen.cursor_y + 1])]
    parts += [
        b"\x1b[4h" if flags["insert_flag"] else b"",
        b"" if flags["wrap_flag"] else b"\x1b[?7l",
        b"\x1b[?1h" if flags["keypad_cursor_flag"] else b"",
        b"\x1b=" if flags["keypad_flag"] else b"",
        b"" if flags["cursor_flag"] else b"\x1b[?25l",
    ]
    return b"".join(parts)


def _text(lines: Sequence[bytes]) -> bytes:
    return _BEGIN + b"\r\n".join(lines) + _END


def repaint_event(screen: Screen, event_id: str) -> bytes:
    """The `repaint` event: size, and the bytes in base64; `event_id` is where the log goes on."""
    data = base64.b64encode(repaint(screen)).decode()
    return encode(
        "repaint", {"columns": screen.columns, "rows": screen.rows, "data": data}, event_id
    )
