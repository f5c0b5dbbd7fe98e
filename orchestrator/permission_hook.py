"""Let somebody who is not at the pane answer a permission request of the agent.

Between SESSION and the operator. Claude Code runs this file as its PermissionRequest hook, shows
its own dialog meanwhile, and takes whichever answer comes first:

    python3 -I -S permission_hook.py SIDECAR_PATH REQUESTS_DIR < the hook's JSON

It tells the sidecar (PermissionRequest, then PermissionAnswer or PermissionGone), waits in
REQUESTS_DIR for an answer (`asking.py`), and prints it as the decision the CLI understands. It ends
with 0 and prints nothing otherwise: then the dialog in the pane is what counts. The CLI does not
tell it when that one was answered, so it looks for the signs itself (`Signs`). Who may answer, and
how the answer gets here, is `permits.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys

# The package is found beside this file: -I and -S leave it off the path, and nothing else of ours
# or of others is wanted.
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from orchestrator.asking import Asking
from orchestrator.sidecar_tee import append_line, frame

LOOK_EVERY_S = 0.5  # the agent's own files have no event that reaches a hook
# Looks after which the question has gone by the agent's status. Idle, it asks nothing. Busy, it may be
# between two dialogs; and before its dialog is up it is busy too, on a loaded machine for seconds:
# whoever took the question back then would leave a dialog that only the pane can answer.
LOOKS_IDLE = 4
LOOKS_BETWEEN_DIALOGS = 20
LOOKS_BEFORE_DIALOG = 120
MAX_ANCESTORS = 6  # between this and the agent: a shell or two
MAX_STATE_BYTES = 65_536
MAX_TAIL_BYTES = 8 * 1024 * 1024  # of the sidecar, in search of the tool call that is asked about
_END_OF_TOOL = ("PostToolUse", "PostToolUseFailure")


class Signs:
    """How to see that the question has gone, for whoever answers it in the pane tells nobody.

    Any one is enough: the agent has ended (`pidfd`), its own state file no longer says that it
    waits, or the tool has run. The second knows nothing in the agent's print mode, the third sees
    one dialog close while another one is open.
    """

    def __init__(self, sidecar: str, data: dict[str, object]) -> None:
        self._sidecar = sidecar
        self._state_path, pid = _state_file()
        self.pidfd = -1
        with contextlib.suppress(OSError):  # ended already; the first look says the same
            self.pidfd = os.pidfd_open(pid)
        self._gone = self.pidfd < 0
        self._closed_looks = 0
        self._was_open = False
        self._read_to = _size(sidecar)
        self._tool_use_id = self._find_call(data)

    def gone(self) -> bool:
        """One look."""
        if self._gone:
            return True
        status = _status(self._state_path)
        self._closed_looks = 0 if status in {"waiting", None} else self._closed_looks + 1
        self._was_open = self._was_open or status == "waiting"
        patience = LOOKS_BETWEEN_DIALOGS if self._was_open else LOOKS_BEFORE_DIALOG
        if status == "idle":
            patience = LOOKS_IDLE
        return self._closed_looks >= patience or self._has_run()

    def _find_call(self, data: dict[str, object]) -> object:
        """PermissionRequest has no tool_use_id; PreToolUse of the same call stands just above it."""
        asked = ("session_id", "agent_id", "tool_name", "tool_input")
        start = max(0, self._read_to - MAX_TAIL_BYTES)
        for hook, seen in reversed(_records(self._sidecar, start, self._read_to)):
            if hook == "PreToolUse" and all(seen.get(key) == data.get(key) for key in asked):
                return seen.get("tool_use_id")
        return None

    def _has_run(self) -> bool:
        size = _size(self._sidecar)
        if self._tool_use_id is None or size <= self._read_to:
            return False
        records = _records(self._sidecar, self._read_to, size)
        self._read_to = size
        return any(
            hook in _END_OF_TOOL and seen.get("tool_use_id") == self._tool_use_id
            for hook, seen in records
        )


def _records(path: str, start: int, end: int) -> list[tuple[str, dict[str, object]]]:
    found = []
    try:
        with open(path, "rb") as file:
            file.seek(start)
            lines = file.read(min(end - start, MAX_TAIL_BYTES)).split(b"\n")
    except OSError:
        return []
    for line in lines:
        # most lines are about something else: look before parsing
        if b'"hook":"P' not in line[:80] or b"ToolUse" not in line[:80]:
            continue
        try:
            record = json.loads(line)
            found.append((str(record["hook"]), dict(record["data"])))
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return found


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _state_file() -> tuple[str, int]:
    """The agent's own state file and its pid: the nearest ancestor that has one, else the parent."""
    home = os.environ.get("CLAUDE_CONFIG_DIR") or os.path.join(
        os.environ.get("HOME", ""), ".claude"
    )
    pid = first = os.getppid()
    for _ in range(MAX_ANCESTORS):
        path = os.path.join(home, "sessions", f"{pid}.json")
        if os.path.exists(path):
            return path, pid
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            break
    return "", first


def _status(path: str) -> object:
    """What the agent's state file says; None where it says nothing."""
    try:
        with open(path, "rb") as file:
            state = json.loads(file.read(MAX_STATE_BYTES))
    except (OSError, ValueError):
        return None
    return state.get("status") if isinstance(state, dict) else None


def decision(answer: dict[str, object]) -> dict[str, object]:
    """What the CLI is told for an answer."""
    chosen: dict[str, object] = {"behavior": answer["behavior"]}
    if answer["behavior"] == "deny":
        chosen["message"] = answer.get("message") or "The operator refused."
    elif isinstance(answer.get("updated_input"), dict):
        chosen["updatedInput"] = answer["updated_input"]
    return {"hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": chosen}}


def wait(asking: Asking, signs: Signs, told_to_leave: int) -> dict[str, object] | None:
    """The answer; None when the question has gone, or `told_to_leave` can be read from."""
    poller = select.poll()
    poller.register(asking.fd, select.POLLIN)
    poller.register(told_to_leave, select.POLLIN)
    if signs.pidfd >= 0:
        poller.register(signs.pidfd, select.POLLIN)
    while not signs.gone():
        ready = [fd for fd, _ in poller.poll(LOOK_EVERY_S * 1000)]
        if asking.fd in ready and (answer := asking.read()):
            return answer
        if signs.pidfd in ready or told_to_leave in ready:
            break
    return asking.withdraw()


def _tell(sidecar: str, hook: str, data: dict[str, object]) -> None:
    raw = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    try:
        append_line(sidecar, frame(hook, raw, len(raw)))
    except OSError as error:  # the question is worth more than the line about it
        os.write(2, f"permission hook: {error}\n".encode("utf-8", "replace"))


def run(sidecar: str, folder: str, raw: bytes, told_to_leave: int) -> None:
    """Asks, waits, prints."""
    data = json.loads(raw)
    try:
        asking = Asking(folder, str(data.get("tool_name", "")), data.get("tool_input"))
    except OSError:
        _tell(sidecar, "PermissionRequest", data)  # then only the pane can answer
        raise
    end: tuple[str, dict[str, object]] = ("PermissionGone", {})
    about = {"session_id": data.get("session_id"), "request_id": asking.request_id}
    try:
        signs = Signs(sidecar, data)
        _tell(sidecar, "PermissionRequest", {**data, "request_id": asking.request_id})
        if answer := wait(asking, signs, told_to_leave):
            os.write(1, json.dumps(decision(answer)).encode() + b"\n")
            by = str(answer.get("by") or "")
            end = "PermissionAnswer", {"behavior": answer["behavior"], "by": by}
    finally:
        asking.close()
        _tell(sidecar, end[0], {**about, **end[1]})


def catch_signals() -> int:
    """A descriptor that can be read from once we are told to leave; a signal does nothing else.

    The CLI sends SIGTERM several times, some milliseconds apart: none may break off what is being written.
    """
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return reader


def main() -> None:
    """Runs for one hook; whatever goes wrong leaves the question to the dialog in the pane."""
    told_to_leave = catch_signals()
    try:
        run(sys.argv[1], sys.argv[2], sys.stdin.buffer.read(), told_to_leave)
    except Exception as error:  # noqa: BLE001 - a failing hook would disturb the agent's turn
        os.write(2, f"permission hook: {error}\n".encode("utf-8", "replace"))
    os._exit(0)  # nothing is buffered, and winding down Python would let a late signal kill it


if __name__ == "__main__":
    main()
