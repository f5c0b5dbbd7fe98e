"""What the gateway answers when it does not do what was asked.

One exception tree (orchestrator.errors), translated here and nowhere else: JSON for programs, a
page for people. Refusals of the gateway's own stand here too. Out of scope: deciding (auth.py).
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from orchestrator.errors import TicketError, Unavailable
from webgate import pages

RETRY_AFTER_S = 2


class Refused(TicketError):
    """The request comes from where none may come from."""

    code = "forbidden"
    http_status = 403


class LoginNeeded(TicketError):
    """Nobody is logged in."""

    code = "login-needed"
    http_status = 401

    def __init__(self, message: str = "You are not logged in.") -> None:
        super().__init__(message, hint="Run: ticketctl open")


class NotHere(TicketError):
    """No such page."""

    code = "not-found"
    http_status = 404


class WrongMethod(TicketError):
    """That path does not take this method."""

    code = "method-not-allowed"
    http_status = 405


class TooLarge(TicketError):
    """The body is larger than what this route takes."""

    code = "too-large"
    http_status = 413


class TooMany(TicketError):
    """Too many of something; later it will do."""

    code = "too-many"
    http_status = 429

    def __init__(self, message: str, *, retry_after_s: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class Full(TooMany):
    """A limit of the gateway is reached."""

    code = "full"
    http_status = 503


class Failed(TicketError):
    """We made a mistake; the journal has the line."""

    def __init__(self) -> None:
        super().__init__(
            "The gateway failed to answer this.",
            hint="See: journalctl --user -u mc-webgate.service",
        )


def from_exception(error: Exception, environ: Mapping[str, Any]) -> TicketError:
    """The problem to show for any exception; an unexpected one is logged, once, on one line."""
    if isinstance(error, TicketError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    said = str(error).splitlines()[0][:200] if str(error) else ""
    # The query string may hold a login code, so only method and path are told.
    asked = f"{environ.get('REQUEST_METHOD')} {environ.get('PATH_INFO', '')!r:.200}"
    print(f"<3>{asked}: {type(error).__name__}: {said}{where}", file=sys.stderr, flush=True)  # noqa: T201
    return Failed()


def wants_page(environ: Mapping[str, Any]) -> bool:
    """A person with a browser, rather than a program."""
    path = str(environ.get("PATH_INFO", ""))
    return not path.startswith("/api/") and "text/html" in environ.get("HTTP_ACCEPT", "")


def render(error: TicketError, environ: Mapping[str, Any]) -> tuple[str, dict[str, str], bytes]:
    """Status line, headers and body."""
    status = HTTPStatus(error.http_status)
    headers = {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    elif isinstance(error, TooMany):
        headers["Retry-After"] = str(error.retry_after_s)
    if wants_page(environ):
        template = "login.html" if isinstance(error, LoginNeeded) else "error.html"
        text = pages.render(template, title=status.phrase, status=status.value, problem=error)
        headers["Content-Type"] = "text/html; charset=utf-8"
    else:
        shown = {"problem": error.code, "message": error.message, "hint": error.hint}
        text = json.dumps(shown, ensure_ascii=True)
        headers["Content-Type"] = "application/json"
    body = text.encode("utf-8", "replace")
    headers["Content-Length"] = str(len(body))
    return f"{status.value} {status.phrase}", headers, body
