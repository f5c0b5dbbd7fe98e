"""Logins of the gateway: one-time links and the sessions they become.

Only digests are stored. `ticketctl open` makes a link; the gateway turns it into a session.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from orchestrator.store.db import Database

LINK_S = 60
INSTALL_LINK_S = 600  # the one at the end of an installation, read by somebody who is not there yet
SESSION_S = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class WebSession:
    """Somebody who is logged in."""

    csrf: str


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def create_link(database: Database, *, valid_s: int = LINK_S) -> str:
    """A fresh one-time code, 256 bit."""
    code = secrets.token_urlsafe(32)
    with database.transaction() as cursor:
        cursor.execute("DELETE FROM login_links WHERE expires_at < now()")
        cursor.execute(
            "INSERT INTO login_links VALUES (%s, now() + make_interval(secs => %s))",
            (_digest(code), valid_s),
        )
    return code


def redeem_link(database: Database, code: str) -> str | None:
    """Turns a code into a session secret, once; None when it is unknown, used or too old."""
    secret = secrets.token_urlsafe(32)
    with database.transaction() as cursor:
        cursor.execute(
            "DELETE FROM login_links WHERE digest = %s AND expires_at > now() RETURNING 1",
            (_digest(code),),
        )
        if cursor.fetchone() is None:
            return None
        cursor.execute("DELETE FROM web_sessions WHERE expires_at < now()")
        cursor.execute(
            "INSERT INTO web_sessions (digest, csrf, expires_at)"
            " VALUES (%s, %s, now() + make_interval(secs => %s))",
            (_digest(secret), secrets.token_urlsafe(32), SESSION_S),
        )
    return secret


def find_session(database: Database, secret: str) -> WebSession | None:
    """Who comes with this cookie; None for nobody."""
    rows = database.query(
        "SELECT csrf FROM web_sessions WHERE digest = %s AND expires_at > now()",
        (_digest(secret),),
    )
    return WebSession(csrf=str(rows[0]["csrf"])) if rows else None


def end_session(database: Database, secret: str) -> None:
    """Logs out."""
    database.query("DELETE FROM web_sessions WHERE digest = %s", (_digest(secret),))
