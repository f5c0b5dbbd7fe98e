"""Open a closed ticket again: its worktree at the same path, its files, its log, its conversation.

The sidecar stays in the archive: its lines are in the database already, and a copy of it would be
read as another one. What the agent resumes is its own (for Claude the transcript in its home).
"""

from __future__ import annotations

from pathlib import Path

from orchestrator import archive
from orchestrator.config import Config
from orchestrator.errors import ConfigError, Conflict
from orchestrator.progress import SILENT, Meter
from orchestrator.store import archives, events, tickets
from orchestrator.store.archives import Archive
from orchestrator.store.db import Database
from orchestrator.workplace import ensure_workplace


def reopen(config: Config, database: Database, number: int, *, meter: Meter = SILENT) -> list[str]:
    """Makes it an open ticket, ready to be started; what was done, line by line.

    Raises:
        Conflict: it is not closed, or all places for worktrees are taken.
        ConfigError: its archive or its repository is gone, or something is in the way.
    """
    ticket = tickets.get(database, number)
    if ticket.status != "closed":
        raise Conflict(f"Ticket {number} is not closed.", hint=f"ticketctl start {number}")
    said: list[str] = []
    paths = config.ticket_paths(number)
    paths.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path, _ = ensure_workplace(config, database, ticket, warn=said.append)
    said.insert(0, f"works in {path}")
    last = archives.newest(database, number)
    if last is not None:
        said += _own_files(last, paths.folder, meter)
    tickets.update(database, number, status="open", closed_at=None)
    events.record(database, number, "reopened", archive=last.path if last else None)
    return said


def _own_files(kept: Archive, folder: Path, meter: Meter) -> list[str]:
    path, conversation = Path(kept.path), kept.facts.get("conversation")
    if not path.is_file():
        raise ConfigError(f"The archive {path} is gone.", hint="Put it back where it was.")

    def place_of(name: str) -> tuple[Path, str] | None:
        if name.startswith("pane.log") and "/" not in name:
            return folder, name
        if name == "conversation.jsonl" and conversation:
            return Path(conversation).parent, Path(conversation).name
        return None

    return [f"{name} is back" for name in archive.unpack(path, place_of, meter=meter)]
