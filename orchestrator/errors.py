"""The one error tree: a stable code, a sentence, a hint.

The code drives the exit status, the HTTP status and the journal field. Libraries raise these; the
entry points (ticketctl, the unit entry points, the gateway) print or log them, once.
"""

from __future__ import annotations

from typing import ClassVar

EX_CONFIG = 78  # sysexits.h; ticket@.service does not restart on it
EX_TEMPFAIL = 75  # the same; what has failed with it is tried again later


class TicketError(Exception):
    """Something an operator should read.

    Args:
        message: what happened, one sentence.
        hint: what to do about it, one sentence or a command; may be empty.
    """

    code: ClassVar[str] = "failed"
    exit_status: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InvalidInput(TicketError):
    """What was given cannot be used as it is."""

    code = "invalid-input"
    exit_status = 2
    http_status = 400


class NoSuchTicket(TicketError):
    """There is no ticket with that number."""

    code = "not-found"
    exit_status = 4
    http_status = 404


class Conflict(TicketError):
    """It exists already, or its state does not allow this."""

    code = "conflict"
    exit_status = 5
    http_status = 409


class ConfigError(TicketError):
    """The configuration, or what it points to, has to be mended by a person first."""

    code = "config"
    exit_status = EX_CONFIG
    http_status = 500


class Unavailable(TicketError):
    """A part we need (database, tmux, systemd) does not answer right now; try again."""

    code = "unavailable"
    exit_status = EX_TEMPFAIL
    http_status = 503
