"""The table of routes, and the pages.

What the gateway answers once auth.py let a request through. Text becomes a ticket's number in
`ticket_id` alone, before anything else is touched. What programs ask for is in reading.py and
acting.py; this has what a browser loads.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from http import HTTPStatus
from typing import Any

import bottle

from orchestrator import spending
from orchestrator.drivers import driver_names
from orchestrator.errors import TicketError, Unavailable
from orchestrator.store import events, health, messages, tickets
from orchestrator.store.tickets import Ticket
from webgate import auth, metrics, openapi, pages, problems, spent
from webgate.acting import Acting
from webgate.base import Shared, number_asked
from webgate.openapi import Route
from webgate.reading import Reading

__all__ = ["build", "routes_of"]

#: Columns of the board, in order: name and the heading above.
COLUMNS = (("waiting", "Waits for you"), ("in_progress", "In progress"), ("open", "Open"))
CLOSED = ("closed", "Closed")
MESSAGES_SHOWN = 20


def column_of(ticket: Ticket) -> str:
    """Where a ticket stands on the board."""
    if ticket.status == "needs_input" or (
        ticket.status == "in_progress" and ticket.turn_state in tickets.WAITING
    ):
        return "waiting"
    return ticket.status


class Pages:
    """What a browser loads."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def board(self) -> str:
        """`GET /`: the board, with ?closed=1 all of it."""
        closed = bottle.request.query.get("closed") == "1"
        found = tickets.list_all(self._shared.database, closed=closed)
        columns = [
            (name, title, [t for t in found if column_of(t) == name])
            for name, title in (*COLUMNS, *((CLOSED,) if closed else ()))
        ]
        return self._page(
            "board.html", columns=columns, closed=closed, count=len(found),
            drivers=driver_names(self._shared.settings),
            crashing=health.crashing(self._shared.database),
        )  # fmt: skip

    def ticket_page(self, ticket: str) -> str:
        """`GET /ticket/<ticket>`: its page; while the database is away, as it last was."""
        record = self._shared.ticket(ticket, stale=True)
        try:
            said = messages.of_ticket(self._shared.database, record.id, limit=MESSAGES_SHOWN)
        except Unavailable:
            said = []
        size = self._shared.settings.tmux
        return self._page(
            "ticket.html", ticket=record, messages=said, columns=size.columns, rows=size.rows
        )

    def report(self) -> str:
        """`GET /report`: cost and turns of the last ?days=, as bars and tables."""
        span = max(1, number_asked("days", 30, spent.SPANS[-1]))
        today = datetime.now().astimezone()
        first = today.date() - timedelta(days=span - 1)

        def count() -> spent.Report:
            database = self._shared.database
            found = events.spending(database, spending.KINDS, spending.REPEATED)
            rows = spending.report(
                found, ("day", "ticket", "model"), since=first, zone=today.tzinfo or UTC
            )
            titles = {t.id: t.title for t in tickets.list_all(database, closed=True)}
            return spent.report(rows, today=today.date(), span=span, titles=titles)

        return self._page(
            "report.html", report=self._shared.together.ask(("report", span), count), span=span,
            spans=spent.SPANS, width=spent.WIDTH, height=spent.HEIGHT,
        )  # fmt: skip

    def login(self) -> str:
        """`GET /login`: what to do, or with ?code= the login itself."""
        code = bottle.request.query.get("code")
        if (
            code is None or bottle.request.method != "GET"
        ):  # HEAD, of a link preview, uses nothing up
            return _html(pages.render("login.html", title="Log in", problem=None, status=200))
        secret = auth.redeem(
            self._shared.database,
            self._shared.login_limit,
            code,
            bottle.request.environ["webgate.client"],
        )
        cookie = auth.session_cookie(secret, secure=bottle.request.environ["webgate.secure"])
        bottle.response.add_header("Set-Cookie", cookie)
        then = auth.page_after_login(bottle.request.query.get("next", ""))
        fetched_from = bottle.request.environ.get("HTTP_SEC_FETCH_SITE", "none")
        if fetched_from in {"none", "same-origin"}:
            bottle.response.status = HTTPStatus.SEE_OTHER.value
            bottle.response.set_header("Location", then)
            return ""
        # Followed from another site's page, a redirect would come without the Strict cookie;
        # a page of ours that goes on by itself comes with it.
        return _html(pages.render("welcome.html", then=then))

    def healthz(self) -> str:
        """The process answers."""
        bottle.response.content_type = "text/plain"
        return "ok\n"

    def readyz(self) -> str:
        """The database answers too."""
        self._shared.database.query("SELECT 1")
        return self.healthz()

    def metrics(self) -> bytes:
        """Numbers for Prometheus."""
        shared = self._shared
        sources = metrics.Sources(
            config=shared.settings, database=shared.database, turns=shared.turns,
            piped=shared.piped, streams=lambda: len(shared.streams),
            panes=lambda: len(shared.streams.tickets),
        )  # fmt: skip
        said, kind = metrics.render(sources, bottle.request.headers.get("Accept", ""))
        bottle.response.content_type = kind
        return said

    def static(self, version: str, name: str) -> bytes:
        """`GET /static/<version>/<name>`: its address changes with its content."""
        path = pages.static_files().get(name)
        if path is None or version != pages.static_version():
            raise problems.NotHere("There is no such file.", hint="Load the page again.")
        bottle.response.content_type = pages.TYPES[path.suffix]
        bottle.response.set_header("Cache-Control", "private, max-age=31536000, immutable")
        return path.read_bytes()

    def login_css(self) -> bytes:
        """`GET /login.css`: the same style, for who is not logged in yet."""
        return _public_file("style.css")

    def favicon(self) -> bytes:
        """`GET /favicon.ico`: browsers ask for it by themselves."""
        return _public_file("icon.svg")

    def _page(self, template: str, **values: Any) -> str:
        csrf = bottle.request.environ["webgate.csrf"]
        return _html(pages.render(template, csrf=csrf, **values))


def _html(text: str) -> str:
    bottle.response.content_type = "text/html; charset=utf-8"
    return text


def _public_file(name: str) -> bytes:
    path = pages.static_files()[name]
    bottle.response.content_type = pages.TYPES[path.suffix]
    return path.read_bytes()


def routes_of(shared: Shared) -> tuple[Route, ...]:
    """Every route there is. Those with an answer are described at /api/openapi.json."""
    page, read, act = Pages(shared), Reading(shared), Acting(shared)

    def openapi_json() -> dict[str, Any]:
        """This description."""
        return openapi.describe(table)

    def get(rule: str, call: Callable[..., Any], answer: str = "", **more: Any) -> Route:
        return Route(method="GET", rule=rule, call=call, answer=answer, **more)

    def post(rule: str, call: Callable[..., Any], takes: str, answer: str, **more: Any) -> Route:
        return Route(method="POST", rule=rule, call=call, takes=takes, answer=answer, **more)

    one, plain, sse = "/api/ticket/<ticket>", "text/plain", "text/event-stream"
    table = (
        get("/", page.board),
        get("/ticket/<ticket>", page.ticket_page),
        get("/report", page.report),
        get("/login", page.login),
        get("/login.css", page.login_css),
        get("/favicon.ico", page.favicon),
        get("/static/<version>/<name:path>", page.static),
        get("/healthz", page.healthz, "Text", kind=plain),
        get("/readyz", page.readyz, "Text", kind=plain),
        get("/metrics", page.metrics, "Text", kind=plain),
        get("/api/openapi.json", openapi_json, "Description"),
        get("/api/tickets", read.tickets, "Tickets", query=("closed",)),
        get("/api/stream", read.board_stream, "Stream", kind=sse),
        get(one, read.ticket, "Ticket"),
        get(f"{one}/messages", read.messages, "Messages"),
        get(f"{one}/events", read.events, "Events", query=("after",)),
        get(f"{one}/timeline", read.timeline, "Timeline"),
        get(f"{one}/comments", read.comments, "Comments"),
        get(f"{one}/permission", read.permission, "Requests"),
        get(f"{one}/unit", read.unit, "Unit"),
        get(f"{one}/diff", read.diff, "Diff"),
        get(f"{one}/stream", read.stream, "Stream", kind=sse, query=("replay",)),
        post("/api/tickets", act.create, "NewTicket", "Created", status=201),
        post(f"{one}/input", act.send, "NewMessage", "Accepted", status=202),
        post(f"{one}/control", act.control, "Control", "Holder"),
        post(f"{one}/keys", act.keys, "Keys", "Done"),
        post(f"{one}/resize", act.resize, "Size", "Done"),
        post(f"{one}/interrupt", act.interrupt, "Nothing", "Done"),
        post(f"{one}/permission", act.permission, "Answer", "Done"),
        post(f"{one}/start", act.start, "Nothing", "Ticket"),
        post(f"{one}/stop", act.stop, "Nothing", "Ticket"),
        post(f"{one}/restart", act.restart, "Nothing", "Ticket"),
        post(f"{one}/cancel", act.cancel, "Cancel", "Done"),
        post(f"{one}/close", act.close, "Closing", "Ticket"),
        post(f"{one}/reopen", act.reopen, "Nothing", "Ticket"),
        post(f"{one}/comments", act.comment, "NewComment", "Comment", status=201),
        post("/logout", act.logout, "Nothing", "LoggedOut"),
    )
    return table


def build(shared: Shared) -> bottle.Bottle:
    """The application, without its gate."""
    app = bottle.Bottle(autojson=True)
    for route in routes_of(shared):
        app.route(route.rule, method=route.method, callback=route.call)
    app.install(_translated)
    app.default_error_handler = _answer_error
    return app


def _translated(callback: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(callback)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return callback(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  # else Bottle would print a traceback
            return _answer(problems.from_exception(error, bottle.request.environ))

    return call


def _answer(problem: TicketError) -> bottle.HTTPResponse:
    status, headers, body = problems.render(problem, bottle.request.environ)
    return bottle.HTTPResponse(body, status, headers)


def _answer_error(error: Any) -> bytes:
    """What Bottle itself refuses: unknown paths and methods."""
    known = {
        404: problems.NotHere("There is no such page.", hint="The board is at /."),
        405: problems.WrongMethod("That path does not take this method."),
    }
    problem = known.get(error.status_code) or problems.from_exception(
        error.exception or error, bottle.request.environ
    )
    status, headers, body = problems.render(problem, bottle.request.environ)
    bottle.response.status = status
    for name, value in headers.items():
        bottle.response.set_header(name, value)
    return body
