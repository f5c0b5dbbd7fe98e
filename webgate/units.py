"""Tickets' units, asked of systemd without holding up the loop.

D-Bus calls block, and a stop takes as long as the agent takes: each runs in a thread of the pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import gevent

from orchestrator.errors import Conflict, TicketError
from orchestrator.naming import unit_name

if TYPE_CHECKING:
    from orchestrator.systemd import UserManager

T = TypeVar("T")
Verb = Literal["start", "stop", "restart"]


def _with_manager(work: Callable[[UserManager], T]) -> T:
    def run() -> T | TicketError:
        # Where there is no systemd, only what asks it fails.
        from orchestrator.systemd import UserManager  # noqa: PLC0415

        try:
            with UserManager() as manager:
                return work(manager)
        except TicketError as error:  # handed over: the pool would print it as unexpected
            return error

    found = gevent.get_hub().threadpool.apply(run)
    if isinstance(found, TicketError):
        raise found
    result: T = found
    return result


def act(verb: Verb, ticket: int) -> None:
    """Starts, stops or restarts a ticket, and waits until that is done.

    Raises:
        Conflict: the job failed, with the launcher's own sentence where there is one.
        Unavailable: systemd does not answer.
    """
    unit = unit_name(ticket)

    def work(manager: UserManager) -> None:
        if verb != "stop" and manager.unit(unit).active == "failed":
            manager.reset_failed(unit)
        try:
            getattr(manager, verb)(unit)
        except Conflict as error:
            raise Conflict(
                manager.service(unit).status_text or error.message, hint=error.hint
            ) from None

    _with_manager(work)


def facts(ticket: int) -> dict[str, Any]:
    """What systemd knows of a ticket: state, memory in bytes, CPU seconds, tasks, restarts."""

    def work(manager: UserManager) -> dict[str, Any]:
        unit = unit_name(ticket)
        state, service = manager.unit(unit), manager.service(unit)
        return {"unit": unit, **asdict(state), **asdict(service)}

    return _with_manager(work)
