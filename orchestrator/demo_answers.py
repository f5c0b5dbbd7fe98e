"""What the demo agent says and does in answer to a message.

Beside the flow: behind `demo_agent.py`, which carries out the steps and tells of them. No model and
no network: sums are really worked out, some words ask for a certain behaviour, the rest is echoed.

    permission   a tool call that asks first         slow N    busy for N seconds
    tool         a tool call that does not           flood N   prints N KB
    crash        leaves with status 3
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MAX_SLOW_S = 600
MAX_FLOOD_KB = 10_000
MAX_LISTED = 40  # entries of a folder
NOTE_NAME = "demo-note.txt"
WORD_S = 0.03  # between words, as a model would stream them
_FLOOD_LINE_BYTES = 64
_SUM = re.compile(r"(?<![\w.])\d{1,15}(?:\s*[-+*/x\u00d7]\s*\d{1,15}){1,31}(?!\w|\.\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Say:
    """Some more text of the answer."""

    text: str
    pause_s: float = WORD_S  #: before it


@dataclass(frozen=True, slots=True)
class Show:
    """Lines for the screen that are no part of the answer."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UseTool:
    """A tool call."""

    name: str
    arguments: dict[str, Any]
    asks: bool  #: whether the operator has to allow it first
    run: Callable[[], str]  #: does it, gives what it printed; may raise OSError


@dataclass(frozen=True, slots=True)
class Leave:
    """The process ends without a farewell."""

    status: int


Step = Say | Show | UseTool | Leave


def answer(message: str, folder: Path) -> Iterator[Step]:
    """The steps of a turn.

    Args:
        message: what the operator wrote.
        folder: where the agent works; only the tools touch it.
    """
    if _word("crash", message):
        yield from _say("Falling over, as you asked.")
        yield Leave(3)
    elif seconds := _number("slow", message):
        yield from _slowly(min(seconds, MAX_SLOW_S))
    elif kilobytes := _number("flood", message):
        yield from _flood(min(kilobytes, MAX_FLOOD_KB))
        yield from _say("That was all of it.")
    elif _word("permission", message):
        yield from _say(f"I would like to leave a line in {NOTE_NAME}.")
        command = f"echo 'The operator allowed this.' >> {NOTE_NAME}"
        arguments = {"command": command, "description": "Add a line to a note"}
        yield UseTool("Bash", arguments, asks=True, run=lambda: _write_note(folder))
        yield from _say(f"Thank you. {NOTE_NAME} has one more line; the diff shows it.")
    elif _word("tool", message):
        yield from _say("Let me look around.")
        arguments = {"command": "ls", "description": "List the working directory"}
        yield UseTool("Bash", arguments, asks=False, run=lambda: _list(folder))
        yield from _say("That is what is here.")
    else:
        yield from _say(work_out(message) or _echo(message))


def work_out(message: str) -> str:
    """The first sum in a message with its result, as in "2 + 2 = 4"; empty when there is none."""
    found = _SUM.search(message)
    if found is None:
        return ""
    tokens = re.findall(r"\d+|[-+*/x\u00d7]", found[0])
    signs = ["*" if sign in "x\u00d7" else sign for sign in tokens[1::2]]
    numbers = [int(token) for token in tokens[::2]]
    shown = " ".join(
        [str(numbers[0]), *(f"{s} {n}" for s, n in zip(signs, numbers[1:], strict=True))]
    )
    total, term = Fraction(0), Fraction(numbers[0])
    for sign, number in zip(signs, numbers[1:], strict=True):
        if sign == "*":
            term *= number
        elif sign == "/":
            if number == 0:
                return f"{shown} has no answer: nothing can be divided by zero."
            term /= number
        else:
            total, term = total + term, Fraction(number if sign == "+" else -number)
    total += term
    if total.denominator == 1:
        return f"{shown} = {total.numerator}"
    value = f"{total.numerator / total.denominator:.6g}"
    return f"{shown} {'=' if Fraction(value) == total else '≈'} {value}"


def _echo(message: str) -> str:
    words = " ".join(message.split())
    said = words if len(words) <= 200 else f"{words[:200]}… ({len(message)} characters)"
    return (
        f"You said: {said}\n"
        "I am the demo agent: I can add up, and the words permission, tool, slow 5, flood 10"
        " and crash show you the rest."
    )


def _say(text: str) -> Iterator[Step]:
    for chunk in re.findall(r"\s*\S+", text):
        yield Say(chunk)
    yield Say("\n", pause_s=0)


def _slowly(seconds: int) -> Iterator[Step]:
    yield Say(f"Taking {seconds} seconds:", pause_s=0)
    for tenth in range(seconds * 10):
        yield Say(f" {tenth // 10 + 1}" if tenth % 10 == 9 else ".", pause_s=0.1)
    yield Say(" - done.\n", pause_s=0)


def _flood(kilobytes: int) -> Iterator[Step]:
    a_screenful = 4096 // _FLOOD_LINE_BYTES
    for first in range(0, kilobytes * 1024 // _FLOOD_LINE_BYTES, a_screenful):
        numbers = range(first, min(first + a_screenful, kilobytes * 1024 // _FLOOD_LINE_BYTES))
        yield Show(tuple(f"{number:08d} ".ljust(_FLOOD_LINE_BYTES - 1, "~") for number in numbers))


def _list(folder: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = [f"… and {len(names) - MAX_LISTED} more"] if len(names) > MAX_LISTED else []
    return "\n".join(names[:MAX_LISTED] + more)


def _write_note(folder: Path) -> str:
    with (folder / NOTE_NAME).open("a", encoding="utf-8") as file:
        file.write("The operator allowed this.\n")
    return ""


def _word(word: str, message: str) -> bool:
    return re.search(rf"\b{word}\b", message, re.IGNORECASE) is not None


def _number(word: str, message: str) -> int:
    found = re.search(rf"\b{word}\s+(\d{{1,6}})\b", message, re.IGNORECASE | re.ASCII)
    return int(found[1]) if found else 0
