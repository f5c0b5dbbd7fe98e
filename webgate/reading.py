"""The routes that read: tickets, messages, events, diff, unit, and the streams.

Each is a short function over the store. Streams are handed to stream.py with their connection.
"""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any

import bottle

from orchestrator import diff, permits
from orchestrator.errors import Conflict
from orchestrator.store import comments, events, messages, tickets
from webgate import timeline, units, wire
from webgate.base import TAKEOVER, Shared, number_asked
from webgate.pane import MAX_REPLAY_BYTES, Place

EVENTS_SHOWN = 200
TIMELINE_EVENTS = 2000  # the newest; older turns are in the log
TIMELINE_KINDS = (
    "user_prompt", "tool_use", "tool_result", "turn_end", "api_error", "result", "cost", "worker_start",
)  # fmt: skip
DIFF_LIMITS = diff.Limits(
    max_files=300, max_file_bytes=300_000, max_patch_bytes=1_000_000, timeout_s=15
)


class Reading:
    """GET below /api/."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._database = shared.database

    def tickets(self) -> dict[str, Any]:
        """With ?closed=1 the closed ones too."""
        closed = bottle.request.query.get("closed") == "1"
        found = tickets.list_all(self._database, closed=closed)
        return {"tickets": [wire.ticket(t) for t in found]}

    def ticket(self, ticket: str) -> dict[str, Any]:
        """One ticket."""
        return wire.ticket(self._shared.ticket(ticket))

    def messages(self, ticket: str) -> dict[str, Any]:
        """The newest hundred, oldest first."""
        found = messages.of_ticket(self._database, self._shared.ticket(ticket).id)
        return {"messages": [wire.message(m) for m in found]}

    def events(self, ticket: str) -> dict[str, Any]:
        """The newest two hundred, or the first that many after ?after=, oldest first."""
        number = self._shared.ticket(ticket).id
        if "after" in bottle.request.query:
            last = number_asked("after", 0, 2**62)
            found = events.after(self._database, number, last, limit=EVENTS_SHOWN)
        else:
            found = events.of_ticket(self._database, number, limit=EVENTS_SHOWN)
        return {"events": [wire.event(e) for e in found]}

    def timeline(self, ticket: str) -> dict[str, Any]:
        """Turns with their tools, durations and cost, oldest first."""
        number = self._shared.ticket(ticket).id
        found = events.of_kinds(self._database, number, TIMELINE_KINDS, limit=TIMELINE_EVENTS)
        return {"turns": timeline.turns_of(found)}

    def comments(self, ticket: str) -> dict[str, Any]:
        """The newest two hundred, oldest first."""
        found = comments.of_ticket(self._database, self._shared.ticket(ticket).id)
        return {"comments": [wire.comment(c) for c in found]}

    def permission(self, ticket: str) -> dict[str, Any]:
        """What the worker asks leave for right now, oldest first."""
        paths = self._shared.settings.ticket_paths(self._shared.ticket(ticket).id)
        return {"requests": [wire.request(r) for r in permits.open_requests(paths)]}

    def unit(self, ticket: str) -> dict[str, Any]:
        """What systemd knows of it; null where the kernel counts nothing."""
        return units.facts(self._shared.ticket(ticket).id)

    def diff(self, ticket: str) -> dict[str, Any]:
        """The worktree against its base."""
        record = self._shared.ticket(ticket)
        if not (record.repo_path and record.worktree_path and record.base_sha):
            raise Conflict(
                f"Ticket {record.id} has no worktree.",
                hint="It gets one when it is started, if it has a repository.",
            )
        found = diff.diff(
            Path(record.repo_path), Path(record.worktree_path), record.base_sha, limits=DIFF_LIMITS
        )
        return wire.diff(found)

    def stream(self, ticket: str) -> str:
        """Server-sent events of one ticket until somebody hangs up."""
        record = self._shared.ticket(ticket, stale=True)
        replay_bytes = None
        if "replay" in bottle.request.query:
            replay_bytes = number_asked("replay", 0, MAX_REPLAY_BYTES)
        shared = self._shared
        shared.streams.check_room()
        path = Path(record.pane_log_path or shared.settings.ticket_paths(record.id).pane_log_path)
        # ?after= is for a page whose EventSource gave up, which loses the browser's own memory.
        after = bottle.request.get_header("Last-Event-ID") or bottle.request.query.get("after", "")
        place = Place(after, replay_bytes)

        def serve(connection: Any) -> None:
            shared.streams.serve(
                connection, record.id, path, place, lambda: shared.reader.for_newcomer(record.id)
            )

        return _taken_over(serve)

    def board_stream(self) -> str:
        """Server-sent events of all tickets that are not closed: `tickets`, whenever one changes."""
        shared = self._shared
        shared.streams.check_room()
        return _taken_over(lambda c: shared.streams.serve_board(c, shared.reader.of_board))


def _taken_over(serve: Any) -> str:
    bottle.request.environ[TAKEOVER] = serve
    bottle.response.status = HTTPStatus.OK.value
    bottle.response.content_type = "text/event-stream"
    return ""
