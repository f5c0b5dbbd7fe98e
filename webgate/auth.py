"""Who may ask for what: the gate in front of every route.

A WSGI layer around the application, so that a route, a static file and a path that does not exist
are all behind it. Closed by default: a path answers without login only by standing in `PUBLIC`.
What a route does with a request that got through is app.py's business.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError, TicketError, Unavailable
from orchestrator.store import logins
from orchestrator.store.db import Database
from webgate import problems
from webgate.forwarded import Asked, Proxies, counted_as
from webgate.problems import LoginNeeded, Refused, TooMany
from webgate.together import Together

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

#: The whole of what answers without a login: exact paths. The login page needs style and icon.
PUBLIC = frozenset({"/healthz", "/login", "/login.css", "/favicon.ico"})
COOKIE = "mc_session"
SECURE_COOKIE = f"__Host-{COOKIE}"  # where browsers come over TLS
FAILURES = ((2, 60.0), (12, 3600.0))  # failed logins, and in how many seconds
READING = frozenset({"GET", "HEAD"})
TOKEN_BYTES = 32
FRESH_S = 15.0  # a session ended elsewhere opens nothing after so long
OUTAGE_S = 3600.0  # so long a known session outlives the database
MAX_SESSIONS = 1000  # remembered
MAX_CLIENTS = (
    10_000  # whose failed logins are counted; past it those that were quiet longest are forgotten
)
_TICKET_PAGE = re.compile(r"/ticket/[1-9][0-9]{0,8}", re.ASCII)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


class LoginLimit:
    """Counts failed logins, of each client and of all whom nobody tells apart.

    A try takes its place before the answer is known, and gives it back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()

    def begin(self, client: str = "") -> None:
        """Raises TooMany when there have been too many failures."""
        now = self._now()
        tries = self._tries.setdefault(client, deque(maxlen=max(count for count, _ in FAILURES)))
        self._tries.move_to_end(client)
        while len(self._tries) > MAX_CLIENTS:
            self._tries.popitem(last=False)
        for count, span_s in FAILURES:
            recent = [at for at in tries if at > now - span_s]
            if len(recent) >= count:
                raise TooMany(
                    "Too many failed logins.",
                    retry_after_s=max(1, round(recent[-count] + span_s - now)),
                    hint="Wait, then run: ticketctl open",
                )
        tries.append(now)

    def succeeded(self, client: str = "") -> None:
        """The try that began last was no failure."""
        if tries := self._tries.get(client):
            tries.pop()


def ensure_token(path: Path) -> None:
    """Makes the bearer token of programs, 256 bit, for the owner's eyes only, unless it is there.

    Raises:
        ConfigError: it cannot be made here: as a service the gateway writes nowhere in the home.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if path.exists():
            return
        raise ConfigError(
            f"There is no token for programs, and it cannot be made at {path}: {error.strerror}.",
            hint="Make it: ticketctl setup; then: systemctl --user restart mc-webgate",
        ) from None
    with os.fdopen(fd, "w") as file:
        file.write(secrets.token_urlsafe(TOKEN_BYTES) + "\n")


class Token:
    """The token of programs as it lies in its file, which is read again when it is another one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = os.fspath(path)  # for a look that is taken for every key
        self._seen: tuple[int, ...] = ()
        self._token = b""

    def read(self) -> bytes:
        """The token; empty while there is none."""
        try:
            status = os.stat(self._name)
            seen = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
            if seen != self._seen:
                self._token, self._seen = self._path.read_bytes().strip(), seen
        except OSError:
            self._token, self._seen = b"", ()
        return self._token


class Sessions:
    """Who is logged in, remembered for a while: a keystroke does not ask the database.

    While the database is away, who was known shortly before stays known.
    """

    def __init__(self, database: Database, now: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._now = now
        self._known: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._together = Together()

    def csrf_of(self, secret: str) -> str:
        """The CSRF token of a session.

        Raises:
            LoginNeeded: there is no such session, or no more.
            Unavailable: nobody knows.
        """
        if not secret:
            raise LoginNeeded
        now = self._now()
        asked_at, csrf = self._known.get(secret, (-OUTAGE_S, ""))
        if now - asked_at < FRESH_S:
            return csrf
        try:
            session = self._together.ask(
                secret, lambda: logins.find_session(self._database, secret)
            )
        except Unavailable:
            if csrf and now - asked_at < OUTAGE_S:
                return csrf
            raise
        if session is None:
            self._known.pop(secret, None)
            raise LoginNeeded
        self._known[secret] = (now, session.csrf)
        self._known.move_to_end(secret)
        while len(self._known) > MAX_SESSIONS:
            self._known.popitem(last=False)
        return session.csrf

    def knows(self, secret: str, csrf: str) -> bool:
        """Whether that is its token, as far as can be said without asking the database."""
        asked_at, known = self._known.get(secret, (-OUTAGE_S, ""))
        return self._now() - asked_at < FRESH_S and known == csrf

    def forget(self, secret: str) -> None:
        """Logged out: from now on nobody."""
        self._known.pop(secret, None)


class Gate:
    """The application, with a lock on the door.

    Args:
        application: what answers once a request is let through.
        origins: the exact Host headers it is known by, each with the origin of its pages.
        token_path: the file with the token of programs.
        proxies: whose word about a request is believed.
    """

    def __init__(
        self,
        application: Callable[[Environ, StartResponse], Iterable[bytes]],
        *,
        database: Database,
        origins: Mapping[str, str],
        token_path: Path,
        proxies: Proxies | None = None,
    ) -> None:
        self._application = application
        self._proxies = proxies or Proxies(())
        self._origins = dict(origins)
        self._token = Token(token_path)
        self._sessions = Sessions(database)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answers a request, or refuses it."""
        try:
            self.check(environ)
            return self._application(environ, _guarded(start_response))
        except Exception as error:  # noqa: BLE001  # the last one who can answer
            return self.refuse(error, environ, start_response)

    def refuse(
        self, error: Exception, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Says why not."""
        status, headers, body = problems.render(problems.from_exception(error, environ), environ)
        _guarded(start_response)(status, list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def still(self, environ: Environ) -> None:
        """For the environment of a request that was let through: raises when it were not any more.

        Only a login can end; what else is checked is in the request, and cannot change.
        """
        secret = environ["webgate.session"]
        if not secret:
            self._is_program(environ)
        elif self._sessions.csrf_of(secret) != environ["webgate.csrf"]:
            raise LoginNeeded

    def still_at_once(self, environ: Environ) -> bool:
        """Whether `still` certainly lets it through; for the loop's callback: nobody is asked."""
        if secret := environ["webgate.session"]:
            return self._sessions.knows(secret, environ["webgate.csrf"])
        return self._is_program(environ)

    def check(self, environ: Environ) -> None:
        """Lets a request through, or raises what it is refused with.

        Leaves `webgate.csrf` in the environment of somebody with a session ("" for programs), and in
        `webgate.secure` whether browsers come over TLS, in `webgate.client` who asks.
        """
        asked = self._proxies.read(environ)
        environ["webgate.client"] = asked.client
        origin = self._origin(asked)
        environ["webgate.secure"] = origin.startswith("https:")
        self._check_fetch_site(environ)
        environ["webgate.csrf"] = environ["webgate.session"] = ""
        environ["webgate.forget"] = self._sessions.forget
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path in PUBLIC and method in READING:
            return
        program = self._is_program(environ)
        if not program:
            self._find_session(environ)
        if method not in READING:
            self._check_change(environ, origin, program=program)

    def _origin(self, asked: Asked) -> str:
        """What a page of ours says it comes from, being asked for by this Host."""
        origin = self._origins.get(asked.host)
        if origin is None:
            raise Refused(
                "The gateway is not known by that name.",
                hint=f"Known: {', '.join(sorted(self._origins))}. Forward the same port with ssh -L.",
            )
        if asked.scheme in {"", origin.partition(":")[0]}:
            return origin
        if asked.scheme == "https":
            return f"https://{asked.host}"
        raise Refused("The proxy was asked for this without TLS.", hint=f"The address is {origin}.")

    def _check_fetch_site(self, environ: Environ) -> None:
        if environ.get("HTTP_SEC_FETCH_SITE", "none") in {"none", "same-origin"}:
            return
        clicked = (
            environ["REQUEST_METHOD"] == "GET"
            and environ["PATH_INFO"] == "/login"
            and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
            and environ.get("HTTP_SEC_FETCH_DEST", "document") == "document"
        )
        if not clicked:
            raise Refused(
                "Another site asked for this.", hint="Type the address into the browser instead."
            )

    def _is_program(self, environ: Environ) -> bool:
        given = environ.get("HTTP_AUTHORIZATION")
        if given is None:
            return False
        scheme, _, token = given.partition(" ")
        known = self._token.read()
        right = hmac.compare_digest(token.strip().encode("utf-8", "replace"), known)
        if scheme.lower() != "bearer" or not known or not right:
            raise LoginNeeded("That is not the gateway's token.")
        return True

    def _find_session(self, environ: Environ) -> None:
        try:
            cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
        except CookieError:
            cookies = SimpleCookie()
        name = SECURE_COOKIE if environ["webgate.secure"] else COOKIE
        secret = cookies[name].value if name in cookies else ""
        environ["webgate.csrf"] = self._sessions.csrf_of(secret)
        environ["webgate.session"] = secret

    def _check_change(self, environ: Environ, own: str, *, program: bool) -> None:
        origin = environ.get("HTTP_ORIGIN")
        if origin is None and not program:
            raise Refused("A change needs an Origin header.")
        if origin is not None and origin != own:
            raise Refused("A change may only come from the gateway's own pages.")
        if environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused("A change is sent as JSON.", hint="Content-Type: application/json")
        csrf = environ.get("HTTP_X_CSRF_TOKEN", "").encode("utf-8", "replace")
        if not program and not hmac.compare_digest(csrf, environ["webgate.csrf"].encode()):
            raise Refused("The page is out of date.", hint="Load it again.")


def _guarded(start_response: StartResponse) -> StartResponse:
    """The same, with the headers every answer has."""

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        named = {name.lower() for name, _ in headers}
        extra = [(n, v) for n, v in HEADERS.items() if n.lower() not in named]
        if "cache-control" not in named:
            extra.append(("Cache-Control", "no-store"))
        return start_response(status, headers + extra, exc_info)

    return start


class WrongCode(TicketError):
    """The login link is unknown, used or too old."""

    code = "wrong-code"
    http_status = 403


def page_after_login(asked: str) -> str:
    """Where a login link leads: a ticket's page, or the board. Never elsewhere."""
    return asked if _TICKET_PAGE.fullmatch(asked) else "/"


def session_cookie(secret: str, *, secure: bool, lasts_s: int = logins.SESSION_S) -> str:
    """The Set-Cookie header of a session that `lasts_s` from now; `secure`: it goes over TLS alone."""
    name, more = (SECURE_COOKIE, "; Secure") if secure else (COOKIE, "")
    return f"{name}={secret}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite=Strict{more}"


def redeem(database: Database, limit: LoginLimit, code: str, client: str = "") -> str:
    """The session secret for a one-time code.

    Raises:
        WrongCode: with what to do.
        TooMany: too many wrong ones.
        Unavailable: the database is away; this does not count as a failure.
    """
    counted = counted_as(client)
    limit.begin(counted)
    try:
        secret = logins.redeem_link(database, code)
    except TicketError:
        limit.succeeded(counted)
        raise
    if secret is None:
        print(f"<5>A login failed, from {client}", file=sys.stderr, flush=True)  # noqa: T201
        raise WrongCode(
            "This login link was used already, is too old, or never was one.",
            hint="For a fresh link, good for a minute and once, run: ticketctl open",
        )
    limit.succeeded(counted)
    return secret
