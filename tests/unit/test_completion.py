"""completion.py: each shell loads what setup installs from where it installs it, and asks ticketctl at a Tab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import completion
from orchestrator.errors import InvalidInput
from orchestrator.store import tickets
from orchestrator.store.db import Database

PROGRAM = "from orchestrator.cli import main; main(prog_name='ticketctl')"
LINES = ("ticketctl sta", "ticketctl status 4", "ticketctl list --w")


@pytest.fixture
def home(tmp_path: Path, database: Database) -> dict[str, str]:
    """A home in which the completions are installed as setup does, and a ticketctl on PATH."""
    database.query("SELECT setval('tickets_id_seq', 41)")
    tickets.create(database, title="Mend $(the) tests")
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "ticketctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{PROGRAM}" "$@"\n')
    program.chmod(0o755)
    environ = {
        "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb",
        "XDG_RUNTIME_DIR": str(tmp_path / "run"), "MC_DATABASE_URL": database._dsn,
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }  # fmt: skip
    for shell, place in completion.places(environ).items():
        place.parent.mkdir(parents=True)
        place.write_text(completion.script(shell))
    return environ


def run(home: dict[str, str], *argv: str) -> str:
    """What a shell prints; nothing may be on stderr."""
    done = subprocess.run(argv, env=home, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def needs(shell: str) -> None:
    """The shell itself; the tests' machine has all three."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


def test_bash(home: dict[str, str]) -> None:
    """`complete -p` names it, and its function answers."""
    place = completion.places(home)["bash"]
    assert place.relative_to(home["HOME"]) == Path(
        ".local/share/bash-completion/completions/ticketctl"
    )
    asked = "".join(
        f"COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=();"
        ' $function ticketctl; echo "${COMPREPLY[@]}";'
        for line in LINES
    )
    script = f'. "$1"; set -- $(complete -p ticketctl); echo "$*"; function=${{*: -2:1}}; {asked}'
    out = run(home, "bash", "--norc", "-c", script, "bash", str(place))
    first, *answers = out.splitlines()
    assert first.startswith("complete ")
    assert first.endswith(" -F _ticketctl_completion ticketctl")
    assert answers == ["start status", "42", "--watch"]


def test_zsh(home: dict[str, str]) -> None:
    """`compinit` finds it in site-functions; each Tab at a terminal completes, the second of a shell too."""
    needs("zsh")
    folder = completion.places(home)["zsh"].parent
    begin = f"fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D"
    assert run(home, "zsh", "-f", "-c", f"{begin}; echo $_comps[ticketctl]") == "_ticketctl\n"
    by_hand = 'autoload -Uz compinit; compinit -u -D; eval "$(ticketctl completion zsh)"'
    assert run(home, "zsh", "-f", "-c", f"{by_hand}; echo $_comps[ticketctl]") == (
        "_ticketctl_completion\n"
    )
    # zpty is zsh's own terminal: an interactive zsh in it gets the line and a Tab, and shows what became of it
    script = f"""
        zmodload zsh/zpty
        zpty z zsh -f -i
        zpty -w z 'PS1=; unsetopt zle_bracketed_paste; {begin}; echo re""ady'
        zpty -r -m z seen '*ready*'
        zpty -w -n z $'ticketctl statu\\t4\\t\\C-a: \\C-e; echo do""ne\\n'
        zpty -r -m z seen '*done*'
        print -r -- $seen
    """
    assert ": ticketctl status 42; echo" in run(home, "zsh", "-f", "-c", script)


def test_fish(home: dict[str, str]) -> None:
    """It loads the file by itself, and shows titles."""
    needs("fish")
    answers = [run(home, "fish", "-c", f"complete -C '{line}'") for line in LINES]
    assert [row.split("\t")[0] for row in answers[0].splitlines()] == ["start", "status"]
    assert answers[1] == "42\tMend $(the) tests\n"
    assert answers[2].startswith("--watch\t")


def test_only_shells_that_are_there_and_known(tmp_path: Path) -> None:
    """No file for a shell that nobody has; another name is an error with the names there are."""
    assert completion.places({"HOME": str(tmp_path), "PATH": str(tmp_path)}) == {}
    with pytest.raises(InvalidInput, match="no completion for csh") as caught:
        completion.script("csh")
    assert "bash, zsh, fish" in caught.value.hint
