"""claude_home.py: trust in folders without ever spoiling ~/.claude.json, and how a conversation goes on."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from orchestrator.drivers.claude_home import ClaudeHome
from orchestrator.errors import ConfigError

SESSION = "5a3885d6-6d86-44f5-b6ca-624a3c95b6cf"
STARTS, FOLDERS = 6, 15
USER = '{"type":"user","message":{"role":"user","content":"hello"}}\n'


def home_of(folder: Path) -> ClaudeHome:
    """The CLI's own files below a HOME."""
    return ClaudeHome.from_environ({"HOME": str(folder)})


def trust_many(folder: Path, start: int) -> None:
    """What the starts of many tickets do."""
    home = home_of(folder)
    for number in range(FOLDERS):
        home.ensure_trust(folder / f"wt/{start}-{number}")


def test_starts_at_once_lose_nothing(tmp_path: Path) -> None:
    """Whoever reads meanwhile reads all of a file; in the end each folder is trusted, the rest kept."""
    path = tmp_path / ".claude.json"
    path.write_text(json.dumps({"mine": {"a": 1}, "projects": {"/x": {"lastCost": 0.5}}}))
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=trust_many, args=(tmp_path, n)) for n in range(STARTS)]
    for process in running:
        process.start()
    reads = 0
    while any(process.is_alive() for process in running):
        assert json.loads(path.read_text())["mine"] == {"a": 1}
        reads += 1
    assert [process.exitcode for process in running] == [0] * STARTS
    assert reads
    data = json.loads(path.read_text())
    assert data["projects"].pop("/x") == {"lastCost": 0.5}
    trusted = {str(tmp_path / f"wt/{s}-{n}") for s in range(STARTS) for n in range(FOLDERS)}
    assert {p for p, v in data["projects"].items() if v["hasTrustDialogAccepted"]} == trusted
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_start_that_is_killed_leaves_a_whole_file(tmp_path: Path) -> None:
    """kill -9 at any moment: the file can be read, and the next start is not held up."""
    path = tmp_path / ".claude.json"
    path.write_text(json.dumps({"mine": ["x" * 1000] * 200}))
    context = multiprocessing.get_context("fork")
    for number in range(10):
        process = context.Process(target=trust_many, args=(tmp_path, number))
        process.start()
        time.sleep(0.002 * number)
        if process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert len(json.loads(path.read_text())["mine"]) == 200
    home_of(tmp_path).ensure_trust(tmp_path / "last")
    assert str(tmp_path / "last") in json.loads(path.read_text())["projects"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"projects": []}', '{"projects": {"F": 1}}', "\xff"]
)
def test_a_file_that_is_broken_is_said_and_left_alone(tmp_path: Path, text: str) -> None:
    """Claude Code would stop at it too: a person mends it; nothing is written over it."""
    folder = tmp_path / "wt"
    path = tmp_path / ".claude.json"
    path.write_text(text.replace('"F"', json.dumps(str(folder))), encoding="latin-1")
    before = path.read_bytes()
    with pytest.raises(ConfigError) as caught:
        home_of(tmp_path).ensure_trust(folder)
    assert ".claude.json cannot be read" in caught.value.message
    assert path.read_bytes() == before


def test_trust_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    """So that a start that needs nothing disturbs nobody."""
    home = home_of(tmp_path)
    home.ensure_trust(tmp_path / "wt")
    before = (tmp_path / ".claude.json").stat()
    home.ensure_trust(tmp_path / "wt")
    assert (tmp_path / ".claude.json").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("written", "begun", "options", "resumed"),
    [
        (None, False, ["--session-id", SESSION], False),
        ("", False, ["--session-id", SESSION], False),
        ('{"type":"mode"}\n{"type":"permission-mode"}\n', False, ["--session-id", SESSION], False),
        (USER, False, ["--resume", SESSION], True),
        (USER, True, ["--resume", SESSION], True),
        ('{"type":"mode"}\n' + USER + '{"type":"assist', True, ["--resume", SESSION], True),
    ],
)
def test_how_a_conversation_goes_on(
    tmp_path: Path, written: str | None, options: list[str], *, begun: bool, resumed: bool
) -> None:
    """By the file: not there or without a word it begins, else it goes on; a torn end does not matter."""
    home = home_of(tmp_path)
    path = home.transcript_path(tmp_path / "w", SESSION)
    if written is not None:
        path.parent.mkdir(parents=True)
        path.write_text(written)
    assert home.session_options(tmp_path / "w", SESSION, begun=begun) == (options, resumed)
    # what was opened and left without a word takes neither option: it has to be gone
    assert path.exists() == resumed


@pytest.mark.parametrize("written", [None, "", '{"type":"mode"}\n'])
def test_what_was_said_and_has_gone_is_an_error(tmp_path: Path, written: str | None) -> None:
    """A start that would silently begin anew is refused, with what to do."""
    home = home_of(tmp_path)
    path = home.transcript_path(tmp_path / "w", SESSION)
    if written is not None:
        path.parent.mkdir(parents=True)
        path.write_text(written)
    with pytest.raises(ConfigError, match="has gone") as caught:
        home.session_options(tmp_path / "w", SESSION, begun=True)
    assert "--fresh" in caught.value.hint


def test_a_worktree_that_was_moved_goes_on_by_the_file(tmp_path: Path) -> None:
    """The CLI finds it by its path alone."""
    home = home_of(tmp_path)
    path = home.transcript_path(tmp_path / "old", SESSION)
    path.parent.mkdir(parents=True)
    path.write_text(USER)
    found = home.session_options(tmp_path / "new", SESSION, begun=True)
    assert found == (["--resume", str(path)], True)
