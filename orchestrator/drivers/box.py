"""Finding an agent's input box on its screen, and what stands in it.

The box is a marked line right under a rule, up to the next rule. A dialog takes its place: where
there is no box, an Enter would answer something.
"""

from __future__ import annotations

import re

# A hint such as 'Try "fix the tests"' is shown dim in an empty box; it is nobody's text. tmux writes
# attributes (single digits) and colours in sequences of their own.
_DIM = re.compile(r"\x1b\[(?:[0-9];)*2m[^\x1b]*")
_SGR = re.compile(r"\x1b\[[0-9;:]*m")
_RULE = re.compile(r"─{10,}")


_FRAME = re.compile(r"[ │┃|]*")  # what a box may have around it
_EDGE = re.compile(r"[ │┃|]*[╰└╭┌─━▀▄█]{3,}|\s*$")


def plain_rows(screen: str) -> list[str]:
    """The rows of a screen, without their SGR sequences."""
    return [_SGR.sub("", row) for row in screen.split("\n")]


def marked_text(screen: str, mark: str) -> str | None:
    """What stands behind the last row that begins with a mark, frame or not, up to the box's edge.

    None where there is no such row.
    """
    rows = screen.split("\n")
    plain = plain_rows(screen)
    for at in range(len(rows) - 1, -1, -1):
        row = plain[at][_FRAME.match(plain[at]).end() :]  # type: ignore[union-attr]
        if row == mark or row.startswith((f"{mark} ", f"{mark}\xa0")):
            end = next((n for n in range(at + 1, len(rows)) if _EDGE.match(plain[n])), len(rows))
            inside = [_SGR.sub("", _DIM.sub("", row)).strip(" │┃|") for row in rows[at:end]]
            return "\n".join(inside).removeprefix(mark).replace("\xa0", " ").strip()
    return None


def box_text(screen: str, mark: str) -> str | None:
    """What stands in the box; None where there is no box.

    Args:
        screen: the visible rows, with their SGR sequences (`capture-pane -e`).
        mark: what the box's first row begins with.
    """
    rows = screen.split("\n")
    plain = [_SGR.sub("", row) for row in rows]
    for at in range(len(rows) - 1, 0, -1):
        if plain[at].startswith(mark) and _RULE.match(plain[at - 1]):
            end = next((n for n in range(at + 1, len(rows)) if _RULE.match(plain[n])), len(rows))
            text = "\n".join(_SGR.sub("", _DIM.sub("", row)) for row in rows[at:end])
            return text.removeprefix(mark).replace("\xa0", " ").strip()
    return None
