"""Claude Code's own folder of an isolated ticket: its conversation, its live state, its settings.

CLAUDE_CONFIG_DIR points there. So an agent neither reads the operator's other conversations nor
writes what the operator's own `claude` would run: hooks, MCP servers, commands. Made anew of the
operator's folder at each start: what answers first-run questions is copied, what shapes the agent
(settings, CLAUDE.md, skills) is a link to a file that can only be read in there, and the login is a
link to the one file that can be written too, for its tokens are renewed.

The agent may have put anything into its folder: nothing in here follows a link of its making.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.drivers.claude_home import ClaudeHome
from orchestrator.small_file import read_small

MAX_GLOBAL_BYTES = 16 << 20
#: of the operator's folder, what shapes an agent
SHAPES = (
    "settings.json", "CLAUDE.md", "agents", "commands", "skills", "plugins", "output-styles",
    "rules", "keybindings.json", "hooks", "statusline.sh",
)  # fmt: skip
LOGIN = ".credentials.json"


def ensure_private_home(folder: Path, of: ClaudeHome, places: tuple[Path, ...]) -> ClaudeHome:
    """The ticket's own folder, as the operator's is now.

    Args:
        folder: where; its parent is there.
        of: the operator's.
        places: what the operator said of these folders (trust, allowed tools) is taken over.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    home = ClaudeHome(folder, folder / ".claude.json", private=True)
    for name in (*SHAPES, LOGIN):
        _link(folder / name, of.folder / name)
    theirs = _load(of.global_file)
    projects = theirs.get("projects")
    known = projects if isinstance(projects, dict) else {}
    before = _load(home.global_file)
    own = before.get("projects")
    merged = {
        **before,
        **theirs,
        "projects": {
            **{str(p): known[str(p)] for p in places if isinstance(known.get(str(p)), dict)},
            **(own if isinstance(own, dict) else {}),
        },
    }
    home.write_global(merged)
    return home


def adopt(home: ClaudeHome, other: ClaudeHome, cwd: Path, session_id: str) -> None:
    """Takes over a conversation that went on in another folder, before the isolation changed."""
    if home.folder == other.folder:
        return
    theirs, ours = (each.find_transcript(cwd, session_id) for each in (other, home))
    if theirs is None or (ours is not None and ours.stat().st_mtime >= theirs.stat().st_mtime):
        return
    target = home.transcript_path(cwd, session_id)
    for place in (target.parent.parent, target.parent):
        if home.private and place.is_symlink():
            place.unlink()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = target.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    shutil.copyfile(theirs, draft)
    draft.chmod(0o600)
    draft.replace(target)


def login_of(home: ClaudeHome) -> tuple[Path, ...]:
    """The file that the agent renews its login in; none where a key is used."""
    path = home.folder / LOGIN
    return (path,) if path.is_file() else ()


def _link(place: Path, target: Path) -> None:
    """A link at `place`, unless the agent has a file of its own there."""
    with suppress(OSError):
        if place.is_symlink():
            place.unlink()
        if target.exists():
            os.symlink(os.path.realpath(target), place)


def _load(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_small(Path(os.path.realpath(path)), MAX_GLOBAL_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}  # an agent's is made anew; the operator's is looked at by the driver
    return value if isinstance(value, dict) else {}
