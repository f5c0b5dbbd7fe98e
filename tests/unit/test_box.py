"""drivers/box.py: finding the input box on screens that were really seen."""

from __future__ import annotations

import pytest

from orchestrator.drivers.box import box_text

RULE = "─" * 80
GREY = "\x1b[38;5;244m"
EMPTY = f"● an answer\n\n{GREY}{RULE}\n\x1b[39m❯\xa0\x1b[7m \x1b[0m\n{GREY}{RULE}\n\x1b[39m  ticket-1 · $0.0"
TYPED = EMPTY.replace("\x1b[7m \x1b[0m", "half typed\x1b[7m \x1b[0m")
LINES = EMPTY.replace("\x1b[7m \x1b[0m", "one\n  two\x1b[7m \x1b[0m")
HINT = EMPTY.replace("\x1b[7m \x1b[0m", '\x1b[2mTry "fix the tests"\x1b[0m')
DIALOG = f"{RULE}\n Bash command\n\n   rm -rf x\n\n Do you want to proceed?\n ❯ 1. Yes\n   2. No\n\n Esc to cancel"
DIM_RULE = f"\x1b[2m{RULE}\x1b[0;1m\n>\x1b[0m \x1b[7m \x1b[0m\n\x1b[2m{RULE}"
ECHO = f"❯ 1. Fix this\n\n● Working\n\n{RULE}\n❯\xa0\n{RULE}\n"


@pytest.mark.parametrize(
    ("screen", "text"),
    [(EMPTY, ""), (TYPED, "half typed"), (LINES, "one\n  two"), (HINT, ""), (DIALOG, None), (ECHO, ""), ("", None),
     (f"{RULE}\n❯\xa01. a list, typed\n{RULE}", "1. a list, typed")],
)  # fmt: skip
def test_what_stands_in_the_box(screen: str, text: str | None) -> None:
    """Empty, typed, hinted at; and none where a dialog is shown, whatever was echoed above."""
    assert box_text(screen, "❯") == text


def test_the_demo_agents_box() -> None:
    """The same with its own mark; its dialog has no box."""
    assert box_text(f"{RULE}\n> hello\n{RULE}\n  Demo", ">") == "hello"
    assert box_text(DIM_RULE, ">") == ""
    assert box_text(f"{RULE}\n\x1b[38;5;2m> green\x1b[0m\n{RULE}", ">") == "green"
    assert box_text(" ❯ 1. Yes\n   2. No", ">") is None
