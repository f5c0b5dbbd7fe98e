"""How a pane ended, out of what tmux says: with a tmux on PATH that says what the real one says for a moment only."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import launch, tmux


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the answers of a tmux, one a line, the last of them again and again."""
    answers, program = tmp_path / "answers", tmp_path / "bin/tmux"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\nhead -n 1 {answers}\n[ $(wc -l < {answers}) = 1 ] || sed -i 1d {answers}\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(tmux, "_DEAD_WAIT_S", 0.5)
    return answers


ALIVE, UNTOLD = "0\t\t\t7\t1\t0", "1\t\t\t7\t1\t0"


@pytest.mark.parametrize(
    ("told", "crashed", "reason"),
    [
        ("1\t\t9\t7\t1\t0", True, "was killed by SIGKILL"),
        ("1\t0\t\t7\t1\t0", False, "it left by itself"),
        ("1\t137\t\t7\t1\t0", True, "was killed by SIGKILL"),
        ("1\t3\t\t7\t1\t0", True, "exited with status 3"),
    ],
)
def test_the_end_is_read_once_tmux_knows_it(
    says: Path, told: str, *, crashed: bool, reason: str
) -> None:
    """A dead pane whose process was not reaped yet is asked again: it did not leave by itself."""
    says.write_text(f"{ALIVE}\n{UNTOLD}\n{UNTOLD}\n{told}\n")
    pane = tmux.Server("default").dead_pane(1)
    assert launch._verdict(pane, asked=False, isolated=True) == (crashed, reason)


@pytest.mark.parametrize("last", [ALIVE, UNTOLD])
def test_an_end_that_is_never_told_is_a_crash(says: Path, last: str) -> None:
    """Rather started again, a bounded number of times, than a ticket that stays away unasked."""
    says.write_text(f"{last}\n")
    pane = tmux.Server("default").dead_pane(1)
    crashed, reason = launch._verdict(pane, asked=False, isolated=True)
    assert (crashed, "does not tell" in reason) == (True, True)
    assert launch._verdict(pane, asked=True, isolated=True) == (False, "it was stopped")
