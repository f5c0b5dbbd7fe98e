"""docs/tutorial.md, typed as written at a terminal of a fresh machine, from `git clone` on."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from tests.machine import forge, inside
from tests.machine.fixtures import NewMachine

TUTORIAL = Path(__file__).resolve().parents[2] / "docs/tutorial.md"
COLUMNS, ROWS = 240, 60  # a line that is typed must not wrap, or its echo is not that line
PROMPT = re.compile(rb"<<(\d+)>> $")
STEP_TIMEOUT_S = 300  # apt and pip, on a machine that others load too
NEVER = ("Failed to execute", "Traceback", "command not found")  # also where the page shows `…`
FAILS = "error: "  # a command that is shown with this first is meant to fail


@dataclass
class Typed:
    """A command of the page, and the lines it shows below it."""

    command: str
    shown: list[str] = field(default_factory=list)


def commands(page: str) -> list[Typed]:
    """What the page's console blocks say, in order."""
    typed: list[Typed] = []
    for block in re.findall(r"^```console\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if line.startswith("$ "):
                typed.append(Typed(line[2:]))
            else:
                typed[-1].shown.append(line)
    return typed


def looks_like(shown: list[str], printed: str) -> bool:
    """Whether a printout is the one shown: `…` stands for some characters, or alone for any lines."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r" *\n"
        for line in shown
    )
    return re.fullmatch(pattern, printed) is not None


def as_read(data: bytes) -> str:
    """What a person sees of a printout: without colours and with what was written over left out."""
    text = re.sub(
        r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[=>(]B?)", "", data.decode()
    )
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    return "\n".join(lines)


class Seat:
    """A person at a terminal: types a line, reads until the prompt is back."""

    def __init__(self, terminal: inside.Terminal) -> None:
        self._terminal = terminal
        self._until_prompt()

    def _until_prompt(self) -> tuple[bytes, int]:
        self._terminal.output = b""
        while not (found := PROMPT.search(self._terminal.output)):
            assert self._terminal.read(STEP_TIMEOUT_S), self._terminal.output[-2000:]
        return self._terminal.output[: found.start()], int(found[1])

    def type(self, command: str) -> tuple[str, int]:
        """What the terminal shows below the line, and the exit status."""
        self._terminal.send(command.encode() + b"\n")
        printed, status = self._until_prompt()
        echo, _, rest = as_read(printed).partition("\n")
        assert echo == command
        return rest, status


def test_the_comparison_of_printouts_can_fail() -> None:
    """A line that is missing, one too many, or another one is seen."""
    assert looks_like(["a", "…", "b …"], "a\nx\ny\nb c\n")
    assert looks_like(["…"], "")
    assert not looks_like(["a"], "a\nb\n")
    assert not looks_like(["a", "…", "c"], "a\nb\n")
    assert not looks_like([], "a\n")


def test_a_printout_is_what_is_seen_of_it() -> None:
    """Colours and titles are not in it, and of a line that was written over the last form is."""
    assert as_read(b"\x1b[1;32mok\x1b[0m\x1b]0;title\x07 x\r\n") == "ok x\n"
    assert as_read("… at work (1 s)\r… at work (2 s)\r\x1b[K✓ done\r\n".encode()) == "✓ done\n"


def test_the_tutorial_as_typed(fresh_machine: NewMachine) -> None:
    """Each command of the page prints what the page shows, and fails only where the page shows an error."""
    machine = fresh_machine(network="internet")
    forge.serve(machine)
    assert machine.run(["test", "-e", "/home/op/mission-control"], check=False).returncode
    shell = ["env", "TERM=xterm-256color", "PS1=<<$?>> ", "bash", "--norc", "--noprofile", "-i"]
    with machine.pty(
        ["env", "--chdir=/home/op", *shell], columns=COLUMNS, rows=ROWS
    ) as terminal:  # fmt: skip
        seat = Seat(terminal)
        wrong = []  # all of them: a page is mended in one go
        for one in commands(TUTORIAL.read_text(encoding="utf-8")):
            printed, status = seat.type(one.command)
            fails = bool(one.shown) and one.shown[0].startswith(FAILS)
            noise = any(words in printed for words in NEVER)
            if noise or not looks_like(one.shown, printed) or (status != 0) != fails:
                wrong.append(f"$ {one.command}\nshown: {one.shown}\nstatus {status}:\n{printed}")
    assert not wrong, "\n".join(wrong)
