"""Claude Code's own files: where its conversations, its live states and its trust are.

None of them is documented to stay as it is, so each reader takes what it finds and treats anything
else as unknown. Where it is written (`.claude.json`), it is one atomic rename under a lock of ours.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import procfs
from orchestrator.errors import ConfigError
from orchestrator.small_file import read_small

MAX_SLUG_CHARS = 200  # past it the CLI cuts and appends a hash we do not reproduce
MAX_STATE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class ClaudeHome:
    """The folder CLAUDE_CONFIG_DIR names, or ~/.claude with ~/.claude.json beside it."""

    folder: Path
    global_file: Path
    private: bool = False  #: a ticket's own: its agent may have put anything in there

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> ClaudeHome:
        """As the CLI itself would find it."""
        if chosen := environ.get("CLAUDE_CONFIG_DIR"):
            return cls(Path(chosen), Path(chosen) / ".claude.json")
        home = Path(environ.get("HOME") or Path.home())
        return cls(home / ".claude", home / ".claude.json")

    @classmethod
    def private_of(cls, folder: Path) -> ClaudeHome:
        """The folder that a ticket has of its own."""
        return cls(folder, folder / ".claude.json", private=True)

    @property
    def environ(self) -> dict[str, str]:
        """What the CLI is told to find it."""
        return {"CLAUDE_CONFIG_DIR": str(self.folder)} if self.private else {}

    def transcript_path(self, cwd: Path, session_id: str) -> Path:
        """Where the conversation of a process started in `cwd` is written."""
        slug = re.sub(r"[^a-zA-Z0-9]", "-", str(cwd))
        return self.folder / "projects" / slug[:MAX_SLUG_CHARS] / f"{session_id}.jsonl"

    def find_transcript(self, cwd: Path, session_id: str) -> Path | None:
        """The conversation's file, wherever it began; None when there is none."""
        expected = self.transcript_path(cwd, session_id)
        found = [expected, *(self.folder / "projects").glob(f"*/{session_id}.jsonl")]
        return next((path for path in found if path.is_file() and self._holds(path)), None)

    def _holds(self, path: Path) -> bool:
        """Whether a file is really in there; of the operator's own folder we do not ask that."""
        real = Path(os.path.realpath(path))
        return not self.private or real.is_relative_to(os.path.realpath(self.folder))

    def session_options(
        self, cwd: Path, session_id: str, *, begun: bool = False
    ) -> tuple[list[str], bool]:
        """What a process started in `cwd` is given to be on a conversation; whether that goes on.

        The CLI takes `--session-id` only where there is no file of that name, and `--resume` only
        where that holds a conversation.

        Args:
            cwd: where the process will be started.
            session_id: the conversation.
            begun: something was said in it already.

        Raises:
            ConfigError: it was begun and its file has gone; starting anew would look like going on.
        """
        transcript = self.find_transcript(cwd, session_id)
        held = transcript is not None and holds_conversation(transcript)
        if begun and not held:
            raise ConfigError(
                f"The conversation {session_id} has gone: {self.folder}/projects has no file of it.",
                hint="Put the file back, or begin a new conversation: ticketctl start --fresh",
            )
        if transcript is None:
            return ["--session-id", session_id], False
        if not held:
            transcript.unlink()  # opened and left without a word: it takes neither
            return ["--session-id", session_id], False
        if transcript == self.transcript_path(cwd, session_id):
            return ["--resume", session_id], True
        # It began in another folder (a worktree that was moved): only its path finds it.
        return ["--resume", str(transcript)], True

    def status(self, pid: int) -> Mapping[str, Any]:
        """sessions/<pid>.json of a live process; empty when there is none or it is another's.

        The CLI names it by the pid it knows itself by; `pid` is ours for it.
        """
        try:
            path = self.folder / "sessions" / f"{procfs.inner_pid(pid)}.json"
            state = json.loads(read_small(path, MAX_STATE_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        # pids are used again: the start time tells this process from an older one
        started = procfs.started(pid)
        if not started or not isinstance(state, dict) or str(state.get("procStart", "")) != started:
            return {}
        return state

    def ensure_trust(self, folder: Path) -> None:
        """Answers the folder-trust question for a folder of ours, once.

        Raises:
            ConfigError: the file is there and is not what it should be; it is left as it is.
        """
        self.global_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(
            f"{self.global_file}.mission-control.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            data = self._read_global()
            projects = data.setdefault("projects", {})
            project = projects.setdefault(str(folder), {}) if isinstance(projects, dict) else None
            if not isinstance(project, dict):
                raise self._not_as_expected("projects is no table")
            if project.get("hasTrustDialogAccepted") is True:
                return
            project["hasTrustDialogAccepted"] = True
            self.write_global(data)
        finally:
            os.close(lock)

    def _read_global(self) -> dict[str, Any]:
        try:
            data = json.loads(self.global_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._not_as_expected(str(error)) from None
        if not isinstance(data, dict):
            raise self._not_as_expected("it holds no object")
        return data

    def _not_as_expected(self, why: str) -> ConfigError:
        return ConfigError(
            f"{self.global_file} cannot be read: {why}.",
            hint=f"Claude Code would stop at it too. Mend it, or: mv {self.global_file}{{,.broken}}",
        )

    def check(self) -> None:
        """Whether the CLI would start with its `.claude.json`.

        Raises:
            ConfigError: it would not.
        """
        self._read_global()

    def write_global(self, data: Mapping[str, Any]) -> None:
        """`.claude.json`, whole at any moment."""
        fd, name = tempfile.mkstemp(prefix=".claude.json.", dir=self.global_file.parent)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                json.dump(data, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.global_file)
        except BaseException:
            os.unlink(name)
            raise


def holds_conversation(transcript: Path) -> bool:
    """Whether a transcript has something to resume: at least one record of the user's."""
    with transcript.open("rb") as file:
        for line in file:
            if b'"user"' not in line:
                continue
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and record.get("type") == "user":
                return True
    return False
