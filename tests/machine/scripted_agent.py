"""A small agent with a screen of its own, for `[drivers.NAME]`: no hooks, no state file, no stream.

    scripted_agent.py LOG [--resume] [-- PROMPT]

It takes bracketed pastes, answers after a moment, asks for leave at ASK, and writes every message it
took to LOG as a JSON line, exact. SLOW{s} makes a turn that long; Escape breaks it off. Standard
library only.
"""

from __future__ import annotations

import json
import os
import re
import select
import sys
import termios
import time
import tty

BEGIN_PASTE, END_PASTE = b"\x1b[200~", b"\x1b[201~"


class Agent:
    """Reads keys, draws a box."""

    def __init__(self, log: str, *, resumed: bool) -> None:
        self.log = log
        self.typed = ""
        self.pasting = False
        self.busy_until = 0.0
        self.asking = False
        self.keys = b""
        self.note({"started": "resumed" if resumed else "fresh"})
        self.say(f"scripted agent, {'resumed' if resumed else 'fresh'}")

    def note(self, entry: dict[str, object]) -> None:
        """A line of the log."""
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def say(self, text: str) -> None:
        """A line above the box."""
        self.draw(above=text)

    def draw(self, above: str = "") -> None:
        """The whole of what is below what was said."""
        if self.asking:
            below = "May I? (y/n)"
        elif time.monotonic() < self.busy_until:
            below = "Thinking (esc to stop)"
        else:
            shown = self.typed if len(self.typed) < 200 else f"[Pasted {len(self.typed)} chars]"
            below = "» " + shown.replace("\n", "\r\n  ")
        os.write(1, f"\x1b[H\x1b[J{above}\r\n\r\n{below}".encode())

    def submit(self) -> None:
        """A message was taken."""
        text, self.typed = self.typed, ""
        if not text.strip():
            return
        self.note({"message": text})
        slow = re.search(r"SLOW\{([0-9.]+)\}", text)
        self.asking = "ASK" in text
        self.busy_until = time.monotonic() + (float(slow[1]) if slow else 0.2)
        self.draw()

    def key(self, data: bytes) -> None:
        """Keys or a piece of a paste, whole characters."""
        busy = time.monotonic() < self.busy_until
        for part in re.split(b"(\x1b\\[20[01]~)", data):
            if part in {BEGIN_PASTE, END_PASTE}:
                self.pasting = part == BEGIN_PASTE
            elif self.pasting:
                self.typed += part.decode()
            elif self.asking:
                if part[:1] in {b"y", b"n", b"\r"}:
                    self.note({"answer": part[:1].decode()})
                    self.asking = False
            elif part == b"\x1b" and busy:
                self.note({"interrupted": True})
                self.busy_until = 0
            elif part:
                for char in part.decode():
                    if char == "\r":
                        self.submit()
                    else:
                        self.typed += char
        self.draw()

    def run(self) -> None:
        """Until the terminal goes away."""
        os.write(1, b"\x1b[?2004h")
        while True:
            was_busy = time.monotonic() < self.busy_until
            ready, _, _ = select.select([0], [], [], 0.05)
            if ready:
                data = os.read(0, 65536)
                if not data:
                    return
                self.keys += data
                try:
                    self.keys.decode()
                except UnicodeDecodeError:
                    continue  # the rest of a character is on its way
                data, self.keys = self.keys, b""
                self.key(data)
            elif was_busy and time.monotonic() >= self.busy_until:
                self.say("Done.")


def main() -> None:
    """Runs it."""
    log, *rest = sys.argv[1:]
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        agent = Agent(log, resumed="--resume" in rest)
        if "--" in rest:
            agent.typed = rest[rest.index("--") + 1]
            agent.submit()
        agent.run()
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


if __name__ == "__main__":
    main()
