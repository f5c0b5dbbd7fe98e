"""A running worker, seen through its ticket and its driver: who it is and what it is doing.

Shared by whoever looks at workers (ingest, dispatch). It reads; it never types and never stores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import procfs, tmux
from orchestrator.config import Config
from orchestrator.drivers import Driver, Work, driver_named
from orchestrator.errors import Unavailable
from orchestrator.store import ingestion
from orchestrator.store.db import Database
from orchestrator.store.tickets import Ticket
from orchestrator.worker_record import WorkerRecord

#: what ends, opens or troubles a turn; the newest of them refines the worker's own word
_TURN_KINDS = (
    "user_prompt",
    "turn_end",
    "api_error",
    "result",
    "permission_request",
    "worker_start",
)
_QUESTION = "AskUserQuestion"


@dataclass(frozen=True, slots=True)
class Worker:
    """A running worker, and how to speak to it."""

    ticket: Ticket
    pid: int
    driver: Driver
    work: Work

    def state(self) -> str | None:
        """Its turn state by its own word right now; None where it gives no sign."""
        return self.driver.turn_state(self.work, self.pid)


def worker_of(config: Config, ticket: Ticket) -> Worker | None:
    """The worker of a ticket; None when there is none.

    Raises:
        InvalidInput, ConfigError: its driver was a table of the configuration, and is not any more.
    """
    if ticket.worker_pid is None or ticket.status == "closed":
        return None
    pid = procfs.agent_behind(ticket.worker_pid)
    if not procfs.is_alive(pid):
        return None
    paths = config.ticket_paths(ticket.id)
    record = WorkerRecord.read(paths.worker_path)
    work = Work(
        ticket=ticket.id, prompt="", session_id=ticket.session_id, command=ticket.command,
        cwd=Path(ticket.worktree_path or paths.chat_folder), paths=paths, config=config,
        environ=record.environ if record else {},
        look=lambda: _screen(config, ticket.id),
    )  # fmt: skip
    return Worker(ticket, pid, driver_named(ticket.driver, config), work)


def _screen(config: Config, ticket: int) -> str:
    try:
        return tmux.Server(config.tmux.socket).capture(ticket)
    except Unavailable:  # the session ends just now
        return ""


def observed_state(
    database: Database, worker: Worker, catch_up: Callable[[], object] = bool
) -> tuple[str, str]:
    """Turn state and what it rests on.

    `catch_up` is called between the worker's own word and the look at events: what led to that word
    was written before it, and has to be read by then.

    The worker's own word comes first: hooks alone would leave a ticket busy for ever after Esc. The
    newest event tells apart what that word does not: a question from a permission, an API error
    from a turn that went well.
    """
    state = worker.state()
    if state is None:
        return "idle", f"the {worker.driver.name} driver gives no sign of turns"
    catch_up()
    evidence = f"{worker.driver.name} pid {worker.pid} says {state}"
    if state in {"idle", "waiting_permission"}:
        newest = ingestion.last_event(database, worker.ticket.id, _TURN_KINDS)
        if newest is not None:
            return _refined(state, evidence, *newest)
    return state, evidence


def _refined(state: str, evidence: str, kind: str, data: dict[str, Any]) -> tuple[str, str]:
    if state == "waiting_permission" and kind == "permission_request":
        asked = data.get("tool_name") or (data.get("request") or {}).get("tool_name")
        if asked == _QUESTION:
            return "waiting_answer", f"{evidence}, {_QUESTION} asked"
        return state, f"{evidence}, {asked} asked"
    if state == "idle" and (
        kind == "api_error" or (kind == "result" and data.get("is_error") is True)
    ):
        error = (
            data.get("error") or data.get("api_error_status") or data.get("subtype") or "unknown"
        )
        if data.get("subtype") != "error_during_execution":  # that is an interrupt
            return "api_error", f"{evidence}, the turn ended with {str(error)[:100]}"
    return state, evidence
