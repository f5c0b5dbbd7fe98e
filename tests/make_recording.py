"""`make recording`: docs/images/demo.svg out of a real run of `./install.sh --demo`.

The command runs at a terminal of its own; each line is kept with the moment it came, and drawn once: lines appear
at their times, and the whole moves up as a terminal scrolls. Pauses are cut short, and the picture says so. Whoever
asks for no motion sees the end. Not a terminal emulator: the demo prints lines, and of a line that is written over
the last form counts.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/images/demo.svg"
COMMAND = ("./install.sh", "--demo")
LAST = b"Ctrl-C ends it"  #: what the demo says when all has been shown
COLUMNS, ROWS = 108, 30
MAX_PAUSE_S = 0.9
MIN_PAUSE_S = 0.06  # a burst of lines is seen as one
HOLD_S = 8.0  # the last screen, before it begins anew
TIMEOUT_S = 900
MAX_BYTES = 300_000

LOGIN = re.compile(
    r"code=[\w-]+"
)  #: spent, and its machine gone; a picture of one is no habit to spread

LINE, MARGIN, HEAD = 18, 14, 34  # in the picture's own units
WIDTH = (
    8.43  # of a letter at 14 units, in most monospaced fonts; textLength makes it so in the others
)
_CONTROL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[=>])|[\x00-\x08\x0b-\x1f\x7f]"
)


@dataclass(frozen=True, slots=True)
class Line:
    """A row, and when it came."""

    at_s: float
    text: str


def run(argv: Sequence[str]) -> Iterator[tuple[float, bytes]]:
    """What a command prints at a terminal, with the seconds since its start; Ctrl-C after the last words."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.environ["TERM"] = "xterm-256color"
        os.execvp(argv[0], list(argv))
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    begun, tail, told = time.monotonic(), b"", False
    signal.alarm(TIMEOUT_S)
    while True:
        try:
            data = os.read(fd, 65536)
        except OSError:  # EIO: it has ended
            break
        if not data:
            break
        tail = (tail + data)[-1000:]
        if not told:
            yield time.monotonic() - begun, data
        if LAST in tail and not told:
            told = True
            os.write(fd, b"\x03")
    signal.alarm(0)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != 0 or not told:
        sys.exit(
            f"{' '.join(argv)} ended with {os.waitstatus_to_exitcode(status)}: {tail.decode(errors='replace')}"
        )


def lines_of(printed: Iterator[tuple[float, bytes]]) -> list[Line]:
    """Rows, each at the moment it was complete; what is wider than the picture ends in `…`, pauses are cut short."""
    lines: list[Line] = []
    rest, before, shown = b"", 0.0, 0.0
    for at, data in printed:
        shown += min(max(at - before, MIN_PAUSE_S), MAX_PAUSE_S)
        before = at
        *whole, rest = (rest + data).split(b"\n")
        for row in whole:
            text = _CONTROL.sub("", row.decode(errors="replace").rstrip("\r").rpartition("\r")[2])
            text = LOGIN.sub("code=…", text.expandtabs().rstrip())
            cut = text if len(text) <= COLUMNS else text[: COLUMNS - 1] + "…"
            lines.append(Line(shown, cut))
    return lines


def _colour(text: str) -> str:
    if text.startswith(("$ ", "# ")):
        return "p"
    if re.match(r"\s*(?:\| )?\s*✓", text):
        return "y"
    return "w" if re.match(r"\s*(?:\| )?\s*warn", text) else "t"


def drawn(lines: Sequence[Line], title: str) -> str:
    """The picture."""
    length = lines[-1].at_s + HOLD_S
    steps: dict[float, int] = {}  # how many rows have moved out, by when
    styles, rows = [], []
    for number, line in enumerate(lines):
        share = 100 * line.at_s / length
        styles.append(f"@keyframes k{number}{{0%{{opacity:0}}{share:.2f}%{{opacity:1}}}}")
        if number >= ROWS:
            steps[share] = number + 1 - ROWS
        if line.text:
            rows.append(
                f'<text y="{number * LINE}" class="{_colour(line.text)}" style="animation-name:k{number}"'
                f' textLength="{len(line.text) * WIDTH:.1f}">{escape(line.text)}</text>'
            )
    moved = max(len(lines) - ROWS, 0) * LINE
    scroll = "".join(
        f"{at:.2f}%{{transform:translateY(-{out * LINE}px)}}" for at, out in steps.items()
    )
    width, height = round(COLUMNS * WIDTH + 2 * MARGIN), HEAD + ROWS * LINE + MARGIN
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label={quoteattr(title)}>
<title>{escape(title)}</title>
<style>
text{{font:14px ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;white-space:pre;fill:#d5dae1}}
.p{{fill:#fff;font-weight:bold}}.y{{fill:#8fd694}}.w{{fill:#e8c46b}}.h{{fill:#8b949e;font-size:12px}}
#r text{{animation:{length:.1f}s step-end infinite}}
#r{{animation:s {length:.1f}s step-end infinite}}
@keyframes s{{0%{{transform:none}}{scroll}}}
{"".join(styles)}
@media (prefers-reduced-motion:reduce){{#r text{{animation:none!important}}#r{{animation:none;transform:translateY(-{moved}px)}}}}
</style>
<rect width="{width}" height="{height}" rx="8" fill="#14181d"/>
<circle cx="20" cy="17" r="5" fill="#3b434d"/><circle cx="37" cy="17" r="5" fill="#3b434d"/><circle cx="54" cy="17" r="5" fill="#3b434d"/>
<text class="h" x="{width // 2}" y="21" text-anchor="middle">{escape(title)}</text>
<svg x="{MARGIN}" y="{HEAD}" width="{width - 2 * MARGIN}" height="{ROWS * LINE}" overflow="hidden"><g id="r"><g transform="translate(0 14)" xml:space="preserve">
{chr(10).join(rows)}
</g></g></svg>
</svg>
"""


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser("tests.make_recording", description="A recording of the demo.")
    parser.add_argument("picture", nargs="?", type=Path, default=PICTURE)
    picture = parser.parse_args().picture
    lines = [Line(0.0, f"# {' '.join(COMMAND)}"), *lines_of(run(COMMAND))]
    svg = drawn(lines, "./install.sh --demo: a real run, its pauses cut short")
    if len(svg.encode()) > MAX_BYTES:
        sys.exit(f"error: {len(svg.encode())} bytes are too many for a README")
    picture.write_text(svg, encoding="utf-8")
    print(f"{picture}: {len(lines)} lines, {len(svg.encode()) // 1024} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
