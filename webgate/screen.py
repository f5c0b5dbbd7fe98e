"""What a pane shows, as bytes that bring a fresh terminal to the same picture.

Between SESSION and browser: the first paint of a viewer, and how one that is far behind gets
forward. Pure; asking tmux is tmux_control.py's business, sending is stream.py's.
"""

from __future__ import annotations

import base64

from orchestrator.tmux_control import Screen
from webgate.viewer import encode

# Line drawing comes from tmux as shift-out, shift-in.
_BEGIN = b"\x1b)0"
_END = b"\x0f\x1b)B\x1b[m"


def repaint(screen: Screen) -> bytes:
    """For a terminal of the screen's size that was just reset."""
    flags = screen.flags
    top, bottom = screen.region
    parts = [
        b"\x1b[?1049h" if flags["alternate_on"] else b"",
        _BEGIN,
        b"\r\n".join(screen.lines),
        _END,
        b"\x1b[%d;%dr" % (top + 1, bottom + 1),
        b"\x1b[?6h" if flags["origin_flag"] else b"",
        # With origin mode on, rows count from the top of the region.
        b"\x1b[%d;%dH"
        % (screen.cursor_y + 1 - (top if flags["origin_flag"] else 0), screen.cursor_x + 1),
        b"\x1b[4h" if flags["insert_flag"] else b"",
        b"" if flags["wrap_flag"] else b"\x1b[?7l",
        b"\x1b[?1h" if flags["keypad_cursor_flag"] else b"",
        b"\x1b=" if flags["keypad_flag"] else b"",
        b"" if flags["cursor_flag"] else b"\x1b[?25l",
    ]
    return b"".join(parts)


def repaint_event(screen: Screen, event_id: str) -> bytes:
    """The `repaint` event: size, and the bytes in base64; `event_id` is where the log goes on."""
    data = base64.b64encode(repaint(screen)).decode()
    return encode(
        "repaint", {"columns": screen.columns, "rows": screen.rows, "data": data}, event_id
    )
