"""The open permission requests of the stream's agent, and the answers to them.

Beside the flow: used by `stream_agent.py` alone. Each request of the control protocol becomes a
dialog for the pane (`stream_dialog.py`) and a request in the folder (`asking.py`); whichever is
answered first is what the agent is told, and the other is closed. Keys are not dealt with here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.asking import Asking
from orchestrator.stream_child import Child
from orchestrator.stream_dialog import Dialog
from orchestrator.stream_log import Log
from orchestrator.stream_view import BAD, View

MAX_OPEN = 50  # at once; more are refused


class Permissions:
    """What the agent waits for leave or an answer for, the oldest first."""

    def __init__(self, child: Child, log: Log, view: View, folder: Path) -> None:
        self._child, self._log, self._view, self._folder = child, log, view, folder
        self._open: list[Dialog] = []

    @property
    def shown(self) -> Dialog | None:
        """The one the pane asks about."""
        return self._open[0] if self._open else None

    @property
    def hidden(self) -> int:
        """How many wait behind it."""
        return max(0, len(self._open) - 1)

    @property
    def fds(self) -> list[int]:
        """To be watched for answers from elsewhere."""
        return [dialog.asking.fd for dialog in self._open]

    def ask(self, value: Mapping[str, Any]) -> None:
        """A control request of the agent."""
        request, request_id = value.get("request"), str(value.get("request_id"))
        if not isinstance(request, dict) or request.get("subtype") != "can_use_tool":
            response = {"subtype": "error", "request_id": request_id, "error": "not supported"}
            self._child.send({"type": "control_response", "response": response})
            return
        given = request.get("input")
        arguments = given if isinstance(given, dict) else {}
        tool = str(request.get("tool_name", ""))
        why = f"{MAX_OPEN} requests are open already" if len(self._open) >= MAX_OPEN else ""
        try:
            asking = None if why else Asking(str(self._folder), tool, arguments)
        except OSError as error:
            asking, why = None, str(error)
        if asking is None:
            self._view.note(f"A permission request was refused: {why}", BAD)
            self._respond(
                request_id, {"behavior": "deny", "message": f"Not asked: {why}."}, arguments
            )
            return
        told = {key: v for key, v in request.items() if key not in {"subtype", "input"}}
        told |= {"tool_input": arguments, "session_id": self._view.session_id}
        self._log.tell("PermissionRequest", {**told, "request_id": asking.request_id})
        self._open.append(Dialog(request_id, tool, arguments, asking))

    def cancelled(self, request_id: object) -> None:
        """The agent no longer wants to know."""
        for dialog in self._open[:]:
            if dialog.request_id == request_id:
                self._close(dialog, "PermissionGone", {})

    def answered_elsewhere(self, fd: int) -> None:
        """There is something to read on one of `fds`."""
        for dialog in self._open[:]:
            if dialog.asking.fd == fd and (answer := dialog.asking.read()):
                self._answer(dialog, answer)

    def answered_here(self, line: str) -> None:
        """A line that the shown dialog understands."""
        dialog = self._open[0]
        if answer := dialog.take(line):
            # somebody may have been quicker, elsewhere
            self._answer(dialog, dialog.asking.withdraw() or answer)

    def close(self) -> None:
        """The agent has ended; nobody can be answered any more."""
        for dialog in self._open[:]:
            self._close(dialog, "PermissionGone", {})

    def _answer(self, dialog: Dialog, answer: Mapping[str, object]) -> None:
        behavior, by = str(answer["behavior"]), str(answer.get("by") or "")
        self._respond(dialog.request_id, answer, dialog.arguments)
        words = {"allow": "answered" if dialog.is_question else "allowed", "deny": "refused"}
        self._view.note(f"  {words[behavior]}{f' ({by})' if by not in {'', 'pane'} else ''}")
        self._close(dialog, "PermissionAnswer", {"behavior": behavior, "by": by})

    def _respond(
        self, request_id: str, answer: Mapping[str, object], given: dict[str, Any]
    ) -> None:
        chosen: dict[str, object] = {"behavior": answer["behavior"]}
        if answer["behavior"] == "allow":  # without an input the agent takes it for an error
            updated = answer.get("updated_input")
            chosen["updatedInput"] = updated if isinstance(updated, dict) else given
        else:
            chosen["message"] = answer.get("message") or "The operator refused."
        response = {"subtype": "success", "request_id": request_id, "response": chosen}
        self._child.send({"type": "control_response", "response": response})

    def _close(self, dialog: Dialog, hook: str, more: Mapping[str, str]) -> None:
        self._open.remove(dialog)
        dialog.asking.close()
        about = {"request_id": dialog.asking.request_id, "session_id": self._view.session_id}
        self._log.tell(hook, {**about, **more})
