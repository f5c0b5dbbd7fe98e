"""claude_private.py: an isolated ticket's own Claude folder, whatever its agent put into it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orchestrator.drivers.claude_home import ClaudeHome
from orchestrator.drivers.claude_private import adopt, ensure_private_home, login_of
from orchestrator.small_file import read_small

SESSION = "0b0b0b0b-0000-4000-8000-000000000001"
RECORD = '{"type":"user","message":{"role":"user","content":"hello"}}\n'


@pytest.fixture
def theirs(tmp_path: Path) -> ClaudeHome:
    """The operator's folder: a login, settings, two projects."""
    home = tmp_path / "home"
    (home / ".claude/skills").mkdir(parents=True)
    (home / ".claude/settings.json").write_text('{"model":"x"}')
    (home / ".claude/.credentials.json").write_text("login")
    projects = {
        "/src/demo": {"hasTrustDialogAccepted": True},
        "/src/private": {"history": ["secret"]},
    }
    (home / ".claude.json").write_text(
        json.dumps({"hasCompletedOnboarding": True, "projects": projects})
    )
    return ClaudeHome(home / ".claude", home / ".claude.json")


def made(theirs: ClaudeHome, tmp_path: Path) -> ClaudeHome:
    """The ticket's."""
    return ensure_private_home(tmp_path / "claude", theirs, (Path("/src/demo"),))


def test_it_has_what_shapes_an_agent_and_its_own_project_alone(
    theirs: ClaudeHome, tmp_path: Path
) -> None:
    """Settings, skills and login are the operator's; other projects are nobody's business."""
    home = made(theirs, tmp_path)
    assert (home.folder / "settings.json").read_text() == '{"model":"x"}'
    assert (home.folder / "skills").is_dir()
    assert login_of(theirs) == (theirs.folder / ".credentials.json",)
    data = json.loads(home.global_file.read_text())
    assert data["hasCompletedOnboarding"] is True
    assert list(data["projects"]) == ["/src/demo"]
    assert home.environ == {"CLAUDE_CONFIG_DIR": str(home.folder)}
    home.ensure_trust(Path("/src/wt/ticket-1"))
    assert "/src/wt/ticket-1" not in theirs.global_file.read_text()
    # once more: what it knows stays
    data = json.loads(made(theirs, tmp_path).global_file.read_text())
    assert set(data["projects"]) == {"/src/demo", "/src/wt/ticket-1"}


def test_what_an_agent_planted_leads_nowhere(theirs: ClaudeHome, tmp_path: Path) -> None:
    """Links in the place of files and folders: nothing is read or written where they lead."""
    home = made(theirs, tmp_path)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text('{"projects": {"/x": {}}}')
    home.global_file.unlink()
    home.global_file.symlink_to(precious / "file")
    os.symlink(precious, home.folder / "projects")
    made(theirs, tmp_path)
    assert (precious / "file").read_text() == '{"projects": {"/x": {}}}'
    assert not home.global_file.is_symlink()
    cwd = Path("/src/wt/ticket-1")
    transcript = theirs.transcript_path(cwd, SESSION)
    transcript.parent.mkdir(parents=True)
    transcript.write_text(RECORD)
    adopt(home, theirs, cwd, SESSION)
    assert sorted(p.name for p in precious.iterdir()) == ["file"]
    assert home.transcript_path(cwd, SESSION).read_text() == RECORD
    # nor is a conversation one that is a link out of the folder
    home.transcript_path(cwd, SESSION).unlink()
    home.transcript_path(cwd, SESSION).symlink_to(transcript)
    assert home.find_transcript(cwd, SESSION) is None


def test_the_newer_conversation_goes_on(theirs: ClaudeHome, tmp_path: Path) -> None:
    """Whichever side went on last is taken over, and never the older one."""
    home, cwd = made(theirs, tmp_path), Path("/work")
    for each, text, at in ((theirs, RECORD * 2, 2000), (home, RECORD, 1000)):
        path = each.transcript_path(cwd, SESSION)
        path.parent.mkdir(parents=True)
        path.write_text(text)
        os.utime(path, (at, at))
    adopt(theirs, home, cwd, SESSION)
    assert theirs.transcript_path(cwd, SESSION).read_text() == RECORD * 2
    adopt(home, theirs, cwd, SESSION)
    assert home.transcript_path(cwd, SESSION).read_text() == RECORD * 2


def test_a_small_file_is_one(tmp_path: Path) -> None:
    """A FIFO does not hold up who looks, a link is not followed, a size is bounded."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("x" * 100)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_small(tmp_path / "file", 10) == b"x" * 10
    for name in ("fifo", "link", "nothing"):
        with pytest.raises(OSError, match=name):
            read_small(tmp_path / name, 10)
