"""What the demo agent leaves in files: its conversation, its sidecar lines, its state.

Beside the flow: used by `demo_agent.py` alone. The lines are those that the real agent's hooks
would write, with the same keys; the state file is the counterpart of its `sessions/PID.json`.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator import sidecar
from orchestrator.naming import ensure_agent_folder

VERSION = "1"
MODEL = {"id": "demo", "display_name": "Demo"}
COST_PER_TURN_USD = 0.0075
COST_PER_CHAR_USD = 1e-5
INPUT_TOKENS = 1000


class Refused(Exception):
    """The conversation cannot be opened that way; the text is for stderr."""


class Conversation:
    """What was said, in a file that a later process can go on from.

    Args:
        folder: where the file is.
        session: its UUID.
        resume: whether it has to be there already; if not, it must not.

    Raises:
        Refused: it is the other way round, or that is no UUID.
    """

    def __init__(self, folder: Path, session: str, *, resume: bool) -> None:
        try:
            uuid.UUID(session)
        except ValueError:
            raise Refused("Error: Invalid session ID. Must be a valid UUID.") from None
        self.session = session
        self.path = folder / f"demo-{session}.jsonl"
        self.messages = 0
        if self.path.exists():
            self.messages = self.path.read_bytes().count(b"\n")
        if resume and not self.messages:
            raise Refused(f"No conversation found with session ID: {session}")
        if self.messages and not resume:
            raise Refused(f"Error: Session ID {session} is already in use.")

    def add(self, role: str, text: str) -> None:
        """Writes a message down; the first one makes the file."""
        line = {"at": datetime.now(UTC).isoformat(), "role": role, "text": text}
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with open(fd, "a", encoding="utf-8", errors="replace") as file:
            file.write(json.dumps(line) + "\n")
        self.messages += 1


class Log:
    """What others may read of this agent: hooks in the sidecar, the state file."""

    def __init__(self, sidecar_path: Path, conversation: Conversation) -> None:
        self._sidecar_path = sidecar_path
        self._conversation = conversation
        self._state_path = ensure_agent_folder(sidecar_path) / "demo-state.json"
        self.unsaid = ""  #: a state that could not be written
        self._prompt_id = ""
        self._turns = 0
        self._said_chars = 0

    def hook(self, name: str, **more: Any) -> None:
        """Says that something happened. A sidecar that cannot be written holds up no turn."""
        data = {
            "session_id": self._conversation.session,
            "transcript_path": str(self._conversation.path),
            "cwd": str(Path.cwd()),
            **({"prompt_id": self._prompt_id} if self._prompt_id else {}),
            "hook_event_name": name,
            **more,
        }
        if name == sidecar.STATUS_LINE:
            del data["hook_event_name"]
        with contextlib.suppress(OSError):
            sidecar.append(self._sidecar_path, name, data)

    def prompt(self, text: str) -> None:
        """A message was submitted."""
        self._prompt_id = str(uuid.uuid4())
        self._conversation.add("user", text)
        self.hook("UserPromptSubmit", permission_mode="default", prompt=text)

    def stop(self, said: str) -> None:
        """A turn ended of itself."""
        self._turns += 1
        self._said_chars += len(said)
        self._conversation.add("assistant", said)
        self.hook(
            "Stop", permission_mode="default", stop_hook_active=False, last_assistant_message=said
        )
        self.status_line()

    @property
    def cost_usd(self) -> float:
        """Made up; of this process, as the real one counts."""
        return round(self._turns * COST_PER_TURN_USD + self._said_chars * COST_PER_CHAR_USD, 6)

    def status_line(self) -> None:
        """What the real one tells its status line."""
        self.hook(
            sidecar.STATUS_LINE,
            model=MODEL,
            version=VERSION,
            cost={"total_cost_usd": self.cost_usd},
            context_window={
                "total_input_tokens": self._turns * INPUT_TOKENS,
                "total_output_tokens": self._said_chars // 4,
            },
        )

    def state(self, status: str) -> None:
        """Idle, busy or waiting; whole at any moment. What a full disk refuses, `say_again` says later."""
        draft = self._state_path.with_suffix(f".{os.getpid()}")
        self.unsaid = status
        with contextlib.suppress(OSError):
            draft.touch(mode=0o600)
            draft.write_text(json.dumps({"pid": os.getpid(), "status": status}), encoding="utf-8")
            draft.replace(self._state_path)
            self.unsaid = ""

    def say_again(self) -> None:
        """Tries once more to say the state that could not be said."""
        if self.unsaid:
            self.state(self.unsaid)

    def gone(self) -> None:
        """The state file goes with the process, unless that crashes."""
        self._state_path.unlink(missing_ok=True)
