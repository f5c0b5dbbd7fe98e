"""docs/tutorial.md, typed as written on a fresh machine."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from tests.machine.fixtures import NewMachine
from tests.machine.install import CHECKOUT, copy_checkout

TUTORIAL = Path(__file__).resolve().parents[2] / "docs/tutorial.md"
CLONE = "git clone "  # the machine reaches no forge: the checkout is put where this would put it
MARK = "--- typed "


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
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"\n"
        for line in shown
    )
    return re.fullmatch(pattern, printed) is not None


def test_the_comparison_of_printouts_can_fail() -> None:
    """A line that is missing, one too many, or another one is seen."""
    assert looks_like(["a", "…", "b …"], "a\nx\ny\nb c\n")
    assert looks_like(["…"], "")
    assert not looks_like(["a"], "a\nb\n")
    assert not looks_like(["a", "…", "c"], "a\nb\n")
    assert not looks_like([], "a\n")


def test_the_tutorial_as_typed(fresh_machine: NewMachine) -> None:
    """Each command of the page exits with 0 and prints what the page shows."""
    typed = commands(TUTORIAL.read_text(encoding="utf-8"))
    machine = fresh_machine(network="internet")
    copy_checkout(machine)
    assert CHECKOUT.endswith("/mission-control")
    script = "".join(
        f"printf '%s\\n' {shlex.quote(f'{MARK}{number}')}\n"
        + ("true" if one.command.startswith(CLONE) else one.command)
        + "\n[ $? = 0 ] || { echo 'exit status not 0'; exit 1; }\n"
        for number, one in enumerate(typed)
    )
    done = machine.run(
        ["bash", "-c", f"exec 2>&1 </dev/null; cd ~\n{script}"], check=False, timeout=900
    )
    printed = re.split(rf"^{MARK}\d+\n", done.stdout, flags=re.MULTILINE)[1:]
    for one, out in zip(typed, printed, strict=False):
        assert looks_like(one.shown, out), f"$ {one.command}\nshown: {one.shown}\nprinted: {out}"
    assert len(printed) == len(typed), done.stdout[-2000:]
    assert done.returncode == 0
