"""A ticket's number, and what is called after it: session, unit, folders and files.

Nothing is read or made here but the folder that an agent asks for. Which folders stand above a ticket's
own, `config.py` says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InvalidInput

MAX_TICKET = 999_999_999
AGENT_FOLDER = "agent"  # beside a ticket's sidecar
_ID = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


def ticket_id(text: str) -> int:
    """The one place where text becomes a ticket's number.

    Args:
        text: ASCII decimal, 1 to 999999999, without sign, blanks or leading zeros.

    Raises:
        InvalidInput: anything else.
    """
    if not _ID.fullmatch(text):
        shown = text if text.isascii() and text.isprintable() and len(text) <= 40 else "that"
        raise InvalidInput(
            f"{shown!r} is no ticket number.", hint="Ticket numbers are 1 to 999999999."
        )
    return int(text)


def session_name(ticket: int) -> str:
    """The tmux session of a ticket."""
    return f"ticket-{ticket}"


def unit_name(ticket: int) -> str:
    """The systemd unit of a ticket."""
    return f"ticket@{ticket}.service"


@dataclass(frozen=True, slots=True)
class TicketPaths:
    """Where one ticket's files are. All of them are ours; folders 0700, files 0600."""

    folder: Path  #: $XDG_STATE_HOME/mission-control/tickets/N
    runtime: Path  #: $XDG_RUNTIME_DIR/mission-control/ticket-N; gone after a reboot

    @property
    def pane_log_path(self) -> Path:
        """Every byte the pane printed."""
        return self.folder / "pane.log"

    @property
    def sidecar_path(self) -> Path:
        """JSON lines: what the worker did."""
        return self.folder / "sidecar.jsonl"

    @property
    def agent_folder(self) -> Path:
        """What the agent itself writes beside its sidecar: what it is doing."""
        return self.folder / AGENT_FOLDER

    @property
    def claude_folder(self) -> Path:
        """Claude Code's own folder of a ticket that is isolated."""
        return self.folder / "claude"

    @property
    def cache_folder(self) -> Path:
        """What an isolated agent sees as ~/.cache."""
        return self.folder / "cache"

    @property
    def worker_path(self) -> Path:
        """What the launcher wrote down of the running worker (`worker_record.py`)."""
        return self.folder / "worker.json"

    @property
    def settings_path(self) -> Path:
        """What the driver gives its agent to read."""
        return self.folder / "settings.json"

    @property
    def ending_path(self) -> Path:
        """How the worker ended, where the database was away at that time."""
        return self.folder / "ending.json"

    @property
    def chat_folder(self) -> Path:
        """Where a ticket without a repository works."""
        return self.folder / "work"

    @property
    def writer_path(self) -> Path:
        """Which process writes the pane log, by its own word (`pipes.py`); no agent sees it."""
        return self.runtime.parent / "writers" / self.folder.name

    @property
    def run_script_path(self) -> Path:
        """What the pane executes; it removes itself before the agent is exec'd."""
        return self.runtime / "run.sh"


def ensure_agent_folder(sidecar_path: Path) -> Path:
    """`TicketPaths.agent_folder`, on the side of an agent that is told of its sidecar alone."""
    folder = sidecar_path.parent / AGENT_FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
