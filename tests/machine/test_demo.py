"""`./install.sh --demo`, one of the two commands of the README, as somebody types it who has only the checkout."""

from __future__ import annotations

import subprocess

import pytest

from tests.machine.install import REPOSITORY
from tests.machine.requirements import why_not

SEEN = ("in the pane log", "in the sidecar's events", "over SSE")


def test_the_demo_ends_by_itself_once_the_answer_was_seen() -> None:
    """Exit 0 only when the answer came each of three ways; the machine is gone afterwards."""
    if reason := why_not():
        pytest.skip(reason)
    done = subprocess.run(
        ["./install.sh", "--demo", "--once"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert [place for place in SEEN if f"the answer was seen {place}" in done.stdout] == [*SEEN]
    assert "● 2 + 2 = 4" in done.stdout
    assert done.stdout.rstrip().endswith("The machine is thrown away.")
