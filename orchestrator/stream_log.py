"""What the stream's agents leave in files: the sidecar's lines, and what they are doing.

Beside the flow: used by `stream_agent.py` and `oneshot_agent.py`. A line of the stream goes to the
sidecar as it came, under the hook name "stream"; permission requests go under the names that the
TUI's hook uses, so that a reader sees no difference. The state file is the counterpart of the CLI's
own sessions/PID.json. Neither ever holds up a turn.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.naming import ensure_agent_folder
from orchestrator.procfs import inner_pid
from orchestrator.sidecar_tee import MAX_DATA_BYTES, append_line, frame
from orchestrator.small_file import read_small

TAKEN = "MessageTaken"
STATE_NAME = "stream-state.json"
MAX_STATE_BYTES = 4096
_KEPT = ("type", "subtype", "uuid", "session_id", "parent_tool_use_id", "isReplay")


class Log:
    """The files of one agent.

    Args:
        sidecar_path: appended to; the state file is beside it.
        complain: told, once until it works again, that the sidecar cannot be written.
    """

    def __init__(self, sidecar_path: Path, complain: Callable[[str], None]) -> None:
        self._sidecar_path = str(sidecar_path)
        self._state_path = ensure_agent_folder(sidecar_path) / STATE_NAME
        self._complain = complain
        self._broken = False
        self._shown = ""

    def stream(self, line: bytes, value: Mapping[str, Any]) -> None:
        """A line of the stream; what identifies it, where it is too long."""
        if value.get("type") == "stream_event":  # each few words of an answer; the whole follows
            return
        if len(line) > MAX_DATA_BYTES:
            kept = {key: value[key] for key in _KEPT if key in value}
            line = json.dumps({**kept, "truncated": True, "size_bytes": len(line)}).encode()
        self._append("stream", line)

    def tell(self, hook: str, data: Mapping[str, Any]) -> None:
        """Something of ours, under the name of a hook."""
        raw = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        self._append(hook, raw.encode("utf-8", "replace"))

    def taken(self, key: str, session_id: object) -> None:
        """A turn began with that message.

        Its echo in the stream comes with the first whole answer only, which may be minutes later.
        """
        self.tell(TAKEN, {"uuid": key, "session_id": session_id})

    def _append(self, hook: str, raw: bytes) -> None:
        try:
            append_line(self._sidecar_path, frame(hook, raw, len(raw)))
        except OSError as error:
            if not self._broken:
                self._complain(f"The sidecar cannot be written, going on without: {error}")
            self._broken = True
        else:
            self._broken = False

    def state(self, status: str) -> None:
        """Says what the agent is doing: starting, idle, busy, waiting or question."""
        if status == self._shown:
            return
        self._shown = status
        draft = self._state_path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            draft.touch(mode=0o600)
            draft.write_text(json.dumps({"pid": os.getpid(), "status": status}), encoding="utf-8")
            draft.replace(self._state_path)

    def gone(self) -> None:
        """The state file goes with the process, unless that is killed."""
        with contextlib.suppress(OSError):
            self._state_path.unlink(missing_ok=True)


def read_state(folder: Path, pid: int) -> str:
    """What the agent with that pid says it is doing; empty where it says nothing."""
    try:
        state = json.loads(read_small(folder / STATE_NAME, MAX_STATE_BYTES))
    except (OSError, ValueError, RecursionError):
        return ""
    if not isinstance(state, dict) or state.get("pid") != inner_pid(pid):
        return ""  # the file of an earlier process
    return str(state.get("status", ""))
