"""Claude Code without its TUI, its stream-json behind a plain pane of ours (`stream_agent.py`).

The second engine: exact evidence for each message, permission requests in the protocol itself, a
plain pane. Its sidecar is the stream, so it needs no hooks.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from orchestrator import sidecar
from orchestrator.drivers.base import ESC, Delivery, Launch, NotTaken, Signs, Work
from orchestrator.drivers.claude import TRANSCRIPT_DAYS, find_claude, home_of, tee_path
from orchestrator.errors import Unavailable
from orchestrator.sidecar import Record
from orchestrator.stream_control import NAME, CallError, call
from orchestrator.stream_log import TAKEN, read_state

CALL_TIMEOUT_S = 10.0
#: what makes the CLI speak lines; what it says of its own text as it goes is for the pane alone
STREAM_OPTIONS = (
    "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose",
    "--replay-user-messages", "--include-partial-messages",
)  # fmt: skip
_STATES = {
    "idle": "idle",
    "busy": "busy",
    "waiting": "waiting_permission",
    "question": "waiting_answer",
}


class Channelled:
    """What drivers have in common whose agents listen on `control.sock`."""

    delivery: Delivery = "channel"
    signs: Signs = "own"
    has_box = True
    interrupt_key = ESC

    def state_on(self, screen: str) -> str | None:  # noqa: ARG002
        """Its own word counts, not its screen."""
        return None

    def turn_state(self, work: Work, pid: int) -> str | None:
        """From the state file the agent keeps beside its sidecar."""
        return _STATES.get(read_state(work.paths.agent_folder, pid), "starting")

    def box(self, screen: str) -> str | None:  # noqa: ARG002
        """Messages come over the channel, not through the pane."""
        return ""

    def confirms(self, record: Record, body: str, key: str) -> bool:  # noqa: ARG002
        """By the turn that began with it; by the stream's echo where the agent had it already."""
        data = record.data
        if data.get("uuid") != key:
            return False
        echo = record.hook == "stream" and data.get("type") == "user"
        return record.hook == TAKEN or (echo and data.get("isReplay") is True)

    def outgoing(self, body: str) -> str:
        """A leading / would run as a command."""
        text = body.replace("\r\n", "\n").replace("\r", "\n")
        return " " + text if text.startswith("/") else text

    def deliver(self, work: Work, key: str, body: str) -> None:
        """See Driver. The answer comes when the CLI has been written all of it."""
        request = {"type": "message", "id": key, "text": self.outgoing(body)}
        try:
            answer = call(work.paths.runtime / NAME, request, CALL_TIMEOUT_S)
        except CallError as error:
            if not error.sent:
                raise NotTaken(
                    f"The agent of ticket {work.ticket} is not there: {error}."
                ) from None
            raise Unavailable(f"The agent of ticket {work.ticket} did not say: {error}.") from None
        if answer.get("ok") is not True:
            raise NotTaken(f"The agent of ticket {work.ticket} refused: {answer.get('reason')}.")

    def interrupt(self, work: Work) -> bool:
        """Over the protocol; False when the agent is not there."""
        try:
            return (
                call(work.paths.runtime / NAME, {"type": "interrupt"}, CALL_TIMEOUT_S).get("ok")
                is True
            )
        except CallError:
            return False


class ClaudeStreamDriver(Channelled):
    """Runs `claude -p` with stream-json both ways, for as long as the worker lives."""

    name = "claude_stream"

    def prepare(self, work: Work) -> Launch:
        """See Driver."""
        program = find_claude(work)
        write_settings(work)
        home, login = home_of(work)
        options, resumed = home.session_options(
            work.cwd,
            work.session_id,
            begun=sidecar.has_prompt(work.paths.sidecar_path, work.session_id),
        )
        argv = [sys.executable, "-I", "-m", "orchestrator.stream_agent"]
        argv += ["--sidecar", str(work.paths.sidecar_path), "--runtime", str(work.paths.runtime)]
        if work.prompt and not resumed:
            argv += ["--prompt-file", write_prompt(work, self.outgoing(work.prompt))]
        argv += ["--", program, *work.config.claude.args, *STREAM_OPTIONS]
        argv += ["--permission-prompt-tool", "stdio", "--settings", str(work.paths.settings_path)]
        return Launch(
            argv=(*argv, *options),
            environ=home.environ,
            writable=login,
            resumed=resumed,
            status=f"Claude Code (stream), conversation {work.session_id}",
        )


def write_settings(work: Work) -> None:
    """What the CLI is to know beside the operator's own settings."""
    settings: dict[str, Any] = {"cleanupPeriodDays": TRANSCRIPT_DAYS}
    hooks = sidecar.settings_hooks(
        sys.executable, tee_path(), work.paths.sidecar_path, work.ticket
    )["hooks"]
    # The stream tells all but this: a subagent's lines come without its beginning and its end.
    settings["hooks"] = {name: hooks[name] for name in ("SubagentStart", "SubagentStop")}
    work.paths.settings_path.write_text(json.dumps(settings), encoding="utf-8")


def write_prompt(work: Work, text: str) -> str:
    """The first message, in a file: it may be longer than a command line can be."""
    path = work.paths.runtime / "prompt.txt"
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return str(path)
