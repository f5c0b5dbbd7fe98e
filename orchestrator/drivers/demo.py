"""The scripted agent that comes with the product: for a look, and for tests without an account."""

from __future__ import annotations

import json
import sys
from typing import Any

from orchestrator.drivers.base import Launch, Pasted, Work
from orchestrator.drivers.box import box_text
from orchestrator.permits import requests_folder
from orchestrator.procfs import inner_pid
from orchestrator.sidecar import Record
from orchestrator.small_file import read_small

MAX_STATE_BYTES = 4096
_STATES = {"idle": "idle", "busy": "busy", "waiting": "waiting_permission"}


class DemoDriver(Pasted):
    """Runs orchestrator.demo_agent."""

    name = "demo"

    def prepare(self, work: Work) -> Launch:
        """See Driver."""
        conversation = work.paths.agent_folder / f"demo-{work.session_id}.jsonl"
        resumed = conversation.exists() and conversation.stat().st_size > 0
        argv = [sys.executable, "-I", "-m", "orchestrator.demo_agent"]
        argv += ["--sidecar", str(work.paths.sidecar_path)]
        argv += ["--requests", str(requests_folder(work.paths))]
        argv += ["--resume" if resumed else "--session-id", work.session_id]
        if work.prompt and not resumed:
            argv += ["--", work.prompt]
        return Launch(
            argv=tuple(argv),
            environ={},
            resumed=resumed,
            status=f"demo agent, conversation {work.session_id}",
        )

    def turn_state(self, work: Work, pid: int) -> str | None:
        """From the state file the agent keeps beside its sidecar."""
        try:
            text = read_small(work.paths.agent_folder / "demo-state.json", MAX_STATE_BYTES)
            state: dict[str, Any] = json.loads(text)
        except (OSError, ValueError):
            return "starting"
        if not isinstance(state, dict) or state.get("pid") != inner_pid(pid):
            return "starting"  # the file of an earlier process
        return _STATES.get(str(state.get("status")), "starting")

    def box(self, screen: str) -> str | None:
        """See Driver."""
        return box_text(screen, ">")

    def confirms(self, record: Record, body: str, key: str) -> bool:  # noqa: ARG002
        """By its UserPromptSubmit."""
        return record.hook == "UserPromptSubmit" and record.data.get("prompt") == body

    def outgoing(self, body: str) -> str:
        """As it is."""
        return body
