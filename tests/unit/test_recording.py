"""The recording of the demo: what is drawn is what was printed, when it was; and the one in docs/ is whole."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from tests import make_recording
from tests.make_recording import COLUMNS, MAX_BYTES, MAX_PAUSE_S, PICTURE, ROWS, drawn, lines_of

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    """The rows of a picture."""
    rows = ET.fromstring(svg).find(f"{SVG}svg/{SVG}g/{SVG}g")  # noqa: S314
    assert rows is not None
    return [row.text or "" for row in rows]


def test_a_row_is_what_a_terminal_would_show() -> None:
    """Put together from pieces, without colours, the last form of what is written over, cut at the edge."""
    printed = [
        (0.1, b"first \xe2\x9c"), (0.2, b"\x93\r\n"), (0.3, b"at work (1 s)\rat work (2 s)\r\x1b[K"),
        (0.4, b"\x1b[1;32mdone\x1b[0m\r\n\r\n"), (0.5, b"x" * (COLUMNS + 5) + b"\r\n"),
    ]  # fmt: skip
    rows = [line.text for line in lines_of(iter(printed))]
    assert rows == ["first ✓", "done", "", "x" * (COLUMNS - 1) + "…"]


def test_pauses_are_cut_and_order_is_kept() -> None:
    """An hour between two rows is a moment; no row comes before the one above it."""
    lines = lines_of(iter([(1.0, b"a\n"), (3601.0, b"b\n"), (3601.1, b"c\n")]))
    assert lines[1].at_s - lines[0].at_s == MAX_PAUSE_S
    assert [line.at_s for line in lines] == sorted(line.at_s for line in lines)


def test_the_picture_is_what_was_printed() -> None:
    """Every row once, as text and never as markup; it scrolls by as many rows as do not fit."""
    rows = [b"<script>&\"'\n", *(b"row %d\n" % n for n in range(ROWS + 4))]
    svg = drawn(lines_of((float(n), row) for n, row in enumerate(rows)), 'a "title" & <more>')
    assert texts(svg) == [row.decode().rstrip("\n") for row in rows]
    moved = [int(px) for px in re.findall(r"%\{transform:translateY\(-(\d+)px\)\}", svg)]
    assert moved == [make_recording.LINE * n for n in range(1, 6)]


def test_the_recording_of_the_demo_is_whole() -> None:
    """From the command to the answer in all three places, small enough for a README, nothing fetched or run."""
    svg = PICTURE.read_text(encoding="utf-8")
    assert len(svg.encode()) < MAX_BYTES
    shown = "\n".join(texts(svg))
    for words in ("# ./install.sh --demo", "systemctl --user start ticket@42", "Active: active"):
        assert words in shown
    for place in ("in the pane log", "in the sidecar's events", "over SSE"):
        assert f"✓ the answer was seen {place}" in shown
    assert "2 + 2 = 4" in shown
    assert "/login?code=…" in shown
    assert not re.search(r"<script|href|url\(|@import|@font-face", svg)
