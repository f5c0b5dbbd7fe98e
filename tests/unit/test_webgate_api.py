"""Routes: what they answer, and how they fail."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import bottle
import pytest

from orchestrator import config
from orchestrator.store import events, messages, tickets
from orchestrator.store.db import Database
from tests.unit import scrape
from tests.unit.gateway import ROOT, Gateway
from tests.unit.postgres import Cluster
from webgate import app, pages
from webgate.base import Shared
from webgate.turns import Turns

HOSTILE_IDS = [
    *("0", "-1", "+1", "01", "1e9", "1000000000", "1" * 31, "1.0", "%20"),
    *("%D9%A3", "..%2f..%2f", ";rm", "12%0a", "1%00"),
]
VERBS = (
    "input", "keys", "control", "resize", "interrupt", "permission", "start", "stop", "restart",
    "cancel", "close", "reopen", "comments",
)  # fmt: skip


@pytest.mark.parametrize("given", HOSTILE_IDS)
@pytest.mark.fault(27)
def test_only_a_ticket_number_is_one(shared_gateway: Gateway, given: str) -> None:
    """400 or 404 before a file or the database is touched."""
    for path in (f"/ticket/{given}", f"/api/ticket/{given}", f"/api/ticket/{given}/stream"):
        answer = shared_gateway.get(path)
        assert answer.status in {400, 404}
        assert answer.json()["problem"] in {"invalid-input", "not-found"}
    for verb in VERBS:
        answer = shared_gateway.post(f"/api/ticket/{given}/{verb}", {})
        assert answer.status in {400, 404}, verb
        if answer.status == 400:  # it is the number that is refused, and first
            assert answer.json() == shared_gateway.get(f"/api/ticket/{given}").json(), verb
    folder = shared_gateway.state / "tickets"
    assert not folder.exists() or all(p.name.isdigit() for p in folder.iterdir())


@pytest.mark.parametrize("rest", ["", "/messages", "/events", "/stream"])
def test_a_ticket_that_is_not_there(shared_gateway: Gateway, rest: str) -> None:
    """404 with the problem's code, a sentence, and what to do."""
    answer = shared_gateway.get(f"/api/ticket/999999999{rest}")
    assert answer.status == 404
    assert answer.json()["problem"] == "not-found"
    assert answer.json()["message"]
    assert answer.json()["hint"]


def test_a_ticket_shows_its_worktree_and_its_disk_use(fresh_gateway: Gateway) -> None:
    """As the heartbeat measured: in the API and, escaped, on the board; whoever looks is told once."""
    ticket = tickets.create(fresh_gateway.database, title="measured").id
    state = {
        "ahead": 2, "behind": 1, "dirty": 1, "untracked": 0, "conflicts": ["<a>"], "text": "+2 -1 *1 !1",
        "branch": "refs/heads/ticket-1", "head_sha": None,
    }  # fmt: skip
    shown = fresh_gateway.get(f"/api/ticket/{ticket}").json()
    assert (shown["git"], shown["disk_bytes"]) == (None, None)
    tickets.measured(fresh_gateway.database, ticket, disk_bytes=5 << 20, git_state=state)
    before = tickets.get(fresh_gateway.database, ticket)
    shown = fresh_gateway.get(f"/api/ticket/{ticket}").json()
    assert shown["git"] == {k: v for k, v in state.items() if k not in {"branch", "head_sha"}}
    assert shown["disk_bytes"] == 5 << 20
    page = fresh_gateway.get("/").body.decode()
    for said in (
        ">5.0 MiB on disk<",
        ">2 ahead<",
        ">1 behind<",
        ">1 changed<",
        ">1 conflict<",
        "&lt;a&gt;",
    ):
        assert said in page, said
    tickets.measured(
        fresh_gateway.database, ticket, disk_bytes=3 << 30, git_state={"error": "gone", "text": "?"}
    )
    assert fresh_gateway.get(f"/api/ticket/{ticket}").json()["git"] is None
    page = fresh_gateway.get("/").body.decode()
    assert ">3.0 GiB on disk<" in page
    assert "git state unknown" in page
    # it is no sign of life, and no change of what the operator sees
    assert tickets.get(fresh_gateway.database, ticket).updated_at == before.updated_at


def test_tickets_are_listed(fresh_gateway: Gateway) -> None:
    """Open ones by number; closed ones when asked for."""
    first = tickets.create(fresh_gateway.database, title="first")
    second = tickets.create(fresh_gateway.database, title="second")
    tickets.update(fresh_gateway.database, second.id, status="closed", cost_usd=Decimal("1.5"))
    found = fresh_gateway.get("/api/tickets").json()["tickets"]
    assert [t["title"] for t in found] == ["first"]
    found = fresh_gateway.get("/api/tickets?closed=1").json()["tickets"]
    assert [(t["title"], t["cost_usd"]) for t in found] == [("first", 0.0), ("second", 1.5)]
    one = fresh_gateway.get(f"/api/ticket/{first.id}").json()
    assert (one["status"], one["turn_state"], one["created_at"][-6:]) == ("open", "gone", "+00:00")


def test_a_message_is_a_row_before_it_is_acknowledged(shared_gateway: Gateway) -> None:
    """202 with its number; exactly the text that was sent."""
    ticket = tickets.create(shared_gateway.database, title="listens")
    text = "; -R\n\tEnter \u202e😀 <b>"
    answer = shared_gateway.post(f"/api/ticket/{ticket.id}/input", {"text": text})
    assert answer.status == 202
    row = messages.get(shared_gateway.database, answer.json()["message"])
    assert row is not None
    assert (row.body, row.author, row.outcome) == (text, "web", answer.json()["outcome"])
    shown = shared_gateway.get(f"/api/ticket/{ticket.id}/messages").json()["messages"]
    assert [(m["text"], m["outcome"]) for m in shown] == [(text, "queued")]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"text"', b'{"text": 1}', b'{"text": null}', b'{"text": ""}', b'{"text": " \\n"}',
        b'{"text": "a\\u0000b"}', b'{"text": "\\ud800"}', b'{"text": "x", "keys": "y"}', b"{}", b"\xff",
        b"[" * 60_000, b'{"text": ' + b"1" * 5000 + b"}",
    ],
)  # fmt: skip
def test_a_message_that_cannot_be_used(shared_gateway: Gateway, body: bytes) -> None:
    """400 with a sentence, and no row."""
    ticket = tickets.create(shared_gateway.database, title="hears nothing")
    answer = shared_gateway.post(f"/api/ticket/{ticket.id}/input", body)
    assert answer.status == 400
    assert answer.json()["problem"] == "invalid-input"
    assert messages.of_ticket(shared_gateway.database, ticket.id) == []
    assert "Traceback" not in shared_gateway.said()


def test_a_closed_ticket_takes_no_message(shared_gateway: Gateway) -> None:
    """409, and what to do."""
    ticket = tickets.create(shared_gateway.database, title="done")
    tickets.update(shared_gateway.database, ticket.id, status="closed")
    answer = shared_gateway.post(f"/api/ticket/{ticket.id}/input", {"text": "hello?"})
    assert (answer.status, answer.json()["problem"]) == (409, "conflict")


def test_events_are_shown(shared_gateway: Gateway) -> None:
    """Oldest first, with their data."""
    ticket = tickets.create(shared_gateway.database, title="eventful")
    events.record(shared_gateway.database, ticket.id, "started", pid=1)
    events.record(shared_gateway.database, ticket.id, "stopped", status=0)
    found = shared_gateway.get(f"/api/ticket/{ticket.id}/events").json()["events"]
    assert [(e["kind"], e["data"]) for e in found] == [
        ("started", {"pid": 1}),
        ("stopped", {"status": 0}),
    ]


def test_unknown_paths_and_methods(shared_gateway: Gateway) -> None:
    """The same JSON as every other problem."""
    assert shared_gateway.get("/nothing").json()["problem"] == "not-found"
    answer = shared_gateway.post("/api/stream", {})
    assert (answer.status, answer.json()["problem"]) == (405, "method-not-allowed")


def test_a_page_for_what_is_not_there(shared_gateway: Gateway) -> None:
    """A person gets a page, with the sentence in it."""
    answer = shared_gateway.get("/ticket/999999999", {"Accept": "text/html"})
    assert answer.status == 404
    assert b"There is no ticket 999999999." in answer.body


def test_an_empty_board_says_what_to_do(fresh_gateway: Gateway) -> None:
    """The first thing a new operator sees is the next command."""
    assert b"ticketctl new" in fresh_gateway.get("/").body


def test_pages_escape_everything(shared_gateway: Gateway) -> None:
    """A title and a message are text, whatever they look like."""
    ticket = tickets.create(shared_gateway.database, title="<script>x</script>\"'")
    messages.enqueue(shared_gateway.database, ticket.id, "<img src=x onerror=y>")
    for path in ("/", f"/ticket/{ticket.id}"):
        page = shared_gateway.get(path).body
        assert b"<script>x" not in page
        assert b"<img" not in page
        assert b"&lt;script&gt;x" in page
        assert b"style=" not in page


#: What makes markup or code of text; none of it is needed.
SINKS = re.compile(
    r"\.(inner|outer)HTML\s*\+?=[^=]|insertAdjacentHTML|document\.write|\beval\(|new Function"
    r"|\.srcdoc|setTimeout\(\s*[\"'`]|javascript:"
)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "webgate/static").glob("*.js")), ids=lambda path: str(path.name)
)
def test_page_code_makes_no_markup_of_text(path: Path) -> None:
    """Text goes in as text: nothing in a page's code parses it."""
    assert SINKS.findall(path.read_text(encoding="utf-8")) == []


def test_templates_escape_and_hold_no_code() -> None:
    """No value is declared safe but our own words; no inline script, style or handler."""
    for path in sorted((ROOT / "templates").glob("*.html")):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text), path
        assert not re.search(r"<script(?![^>]* src=)", text), path
        assert not re.search(r"autoescape|[^'\"] \| *safe", text), path


def test_bottle_neither_debugs_nor_signs() -> None:
    """No tracebacks on pages, no reloader, no pickled cookies."""
    nothing = cast("Any", None)
    app.build(Shared(config.Config(), nothing, nothing, nothing, nothing, nothing))
    assert not bottle.DEBUG
    for path in (ROOT / "webgate").glob("*.py"):
        assert not re.search(r"reloader|\.get_cookie\(|\.set_cookie\(|secret=", path.read_text()), (
            path
        )


def test_static_files_may_be_cached_and_nothing_else_is_one(shared_gateway: Gateway) -> None:
    """By their version for ever; a name is looked up, never made into a path."""
    base = f"/static/{pages.static_version()}"
    answer = shared_gateway.get(f"{base}/ticket.js")
    assert (answer.status, answer.headers["content-type"]) == (
        200,
        "text/javascript; charset=utf-8",
    )
    assert "immutable" in answer.headers["cache-control"]
    for path in (
        f"{base}/../app.py",
        f"{base}/..%2fapp.py",
        f"{base}//etc/passwd",
        "/static/other/ticket.js",
    ):
        assert shared_gateway.get(path).status == 404


def test_health(shared_gateway: Gateway) -> None:
    """Alive without a login, ready with one."""
    assert shared_gateway.ask("GET", "/healthz").body == b"ok\n"
    assert shared_gateway.get("/readyz").status == 200


def test_it_serves_many_requests_on_one_connection_and_heads(shared_gateway: Gateway) -> None:
    """Keep-alive, and HEAD without a body."""
    said = f"GET /healthz HTTP/1.1\r\nHost: {shared_gateway.host}\r\n\r\n".encode()
    last = said.replace(b"GET", b"HEAD").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    answer = shared_gateway.raw(said + said + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.count(b"ok\n") == 2


def test_it_ends_when_asked(fresh_gateway: Gateway) -> None:
    """SIGTERM: exit 0, soon, with streams open; the next process takes over the socket."""
    ticket = tickets.create(fresh_gateway.database, title="x")
    with fresh_gateway.stream(ticket.id) as viewer:
        viewer.next("state")
        assert fresh_gateway.stop(signal.SIGTERM) == 0
        assert fresh_gateway.said() == ""
        assert "pane" not in [e.kind for e in viewer]
    fresh_gateway.start()
    assert fresh_gateway.get("/api/tickets").status == 200


@pytest.fixture
def outage(cluster: Cluster) -> Cluster:
    """The server, for a test that takes it away and gives it back."""
    return cluster


@pytest.mark.fault(18)
def test_without_a_database_it_says_so_and_panes_go_on(
    fresh_gateway: Gateway, outage: Cluster
) -> None:
    """503 with Retry-After; an open stream still gets its bytes, and the news once it is back."""
    ticket = tickets.create(fresh_gateway.database, title="before")
    with fresh_gateway.stream(ticket.id, timeout_s=30) as viewer:
        viewer.next("state")
        outage.stop()
        try:
            answer = fresh_gateway.get("/api/tickets")
            assert (answer.status, answer.headers["retry-after"]) == (503, "2")
            assert answer.json()["problem"] == "unavailable"
            page = fresh_gateway.get("/", {"Accept": "text/html"})
            assert (page.status, b"PostgreSQL" in page.body) == (503, True)
            assert fresh_gateway.ask("GET", "/healthz").status == 200
            bearer: dict[str, str | None] = {"Authorization": f"Bearer {fresh_gateway.token}"}
            assert fresh_gateway.ask("GET", "/readyz", bearer).status == 503
            fresh_gateway.pane_log(ticket.id).write_bytes(b"meanwhile")
            assert viewer.next("pane").data == b"meanwhile"
        finally:
            outage.start()
        tickets.update(fresh_gateway.database, ticket.id, title="after")
        while viewer.next("state").json()["title"] != "after":
            pass
    assert fresh_gateway.get("/api/tickets").status == 200
    assert "Traceback" not in fresh_gateway.said()


@pytest.mark.fault(18)
def test_a_frozen_database_holds_nobody_up(fresh_gateway: Gateway, outage: Cluster) -> None:
    """A server that accepts and says nothing is as good as away, within seconds; bytes go on."""
    ticket = tickets.create(fresh_gateway.database, title="x")
    with fresh_gateway.stream(ticket.id, timeout_s=30) as viewer:
        viewer.next("state")
        outage.freeze()
        try:
            began = time.monotonic()
            answer = fresh_gateway.get("/api/tickets")
            first = time.monotonic() - began
            assert (answer.status, answer.headers["retry-after"]) == (503, "2")
            # one request waits for the two seconds; whoever comes right after it does not
            assert fresh_gateway.get("/api/tickets").status == 503
            assert time.monotonic() - began < first + 1.5
            fresh_gateway.pane_log(ticket.id).write_bytes(b"meanwhile")
            assert viewer.next("pane").data == b"meanwhile"
        finally:
            outage.thaw()
    deadline = time.monotonic() + 10
    while fresh_gateway.get("/api/tickets").status == 503 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert fresh_gateway.get("/api/tickets").status == 200


def test_a_configuration_that_cannot_be_used(fresh_gateway: Gateway) -> None:
    """EX_CONFIG and one line, so that systemd does not try again."""
    fresh_gateway.stop()
    environ = {**os.environ, "MC_GATEWAY_LISTEN": "0.0.0.0:3001", "HOME": str(fresh_gateway.folder)}
    done = subprocess.run(
        [sys.executable, "-m", "webgate.main"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (78, "")
    assert "loopback" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    fresh_gateway.start()


def test_metrics_are_numbers_of_ours(fresh_gateway: Gateway) -> None:
    """Prometheus' format; nothing anybody typed is in them; they need a login like everything else."""
    ticket = tickets.create(fresh_gateway.database, title='x"} 1\nevil 2')
    tickets.update(fresh_gateway.database, ticket.id, cost_usd=Decimal("1.25"))
    messages.enqueue(fresh_gateway.database, ticket.id, "a secret")
    with fresh_gateway.stream(ticket.id) as viewer:
        viewer.next("state")
        answer = fresh_gateway.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.body.decode().splitlines()
    line = re.compile(r'(# (HELP|TYPE) \w+ .+)|(\w+(\{(\w+="[\w+.]+",?)+\})? [0-9.e+]+)')
    assert [each for each in lines if not line.fullmatch(each)] == []
    assert {
        "mc_gateway_streams 1.0", "mc_gateway_panes 1.0", "mc_database_up 1.0", "mc_cost_usd_total 1.25",
        'mc_tickets{status="open",turn_state="gone"} 1.0', 'mc_messages{outcome="queued"} 1.0', "mc_worktrees 0.0",
    } <= set(lines)  # fmt: skip
    assert "evil" not in answer.body.decode()
    assert fresh_gateway.ask("GET", "/metrics").status == 401


def test_metrics_count_what_happened_on_every_ticket(database: Database) -> None:
    """Recoveries and gaps of all tickets, closed ones too; events by the newest's number; 0 of nothing."""

    def value(name: str) -> str:
        said = scrape.said(database)
        return next(
            line.split()[1].removesuffix(".0")
            for line in said.splitlines()
            if line.startswith(f"{name} ")
        )

    names = ("mc_events_total", "mc_recoveries_total", "mc_pane_gaps_total")
    assert [value(name) for name in names] == ["0", "0", "0"]
    first, second = (tickets.create(database, title=title).id for title in ("one", "two"))
    before = int(value("mc_events_total"))
    for ticket, kind in (
        (first, "reconciled"),
        (second, "reconciled"),
        (second, "gap"),
        (second, "state"),
    ):
        events.record(database, ticket, kind)
    tickets.update(database, first, status="closed")
    assert [int(value(name)) for name in names] == [before + 4, 2, 1]


def test_turns_are_counted_by_how_long_they_took(database: Database) -> None:
    """Once each, from the message on; not what was before, not a turn that was broken off; over several looks."""
    turns = Turns()
    ticket, other = (tickets.create(database, title=title).id for title in ("one", "two"))

    def happen(number: int, kind: str, second: int) -> None:
        database.query(
            "INSERT INTO ticket_events (ticket_id, kind, at)"
            " VALUES (%s, %s, to_timestamp(1e9) + make_interval(secs => %s))",
            (number, kind, second),
        )

    happen(ticket, "user_prompt", 0)
    turns.look(database)
    happen(ticket, "turn_end", 9)  # began before the first look
    happen(ticket, "user_prompt", 10)
    happen(other, "message_taken", 10)
    happen(ticket, "user_prompt", 12)
    turns.look(database)
    happen(ticket, "turn_end", 30)
    happen(ticket, "result", 31)
    happen(other, "worker_ended", 40)
    happen(other, "turn_end", 41)
    happen(ticket, "message_taken", 50)
    happen(ticket, "api_error", 40)  # the clock was set back
    happen(other, "user_prompt", 0)
    happen(other, "turn_end", 9000)
    turns.look(database)
    turns.look(database)
    found = dict(turns.buckets())
    assert (found["5.0"], found["15.0"], found["30.0"], found["3600.0"], found["+Inf"]) == (
        1,
        1,
        2,
        2,
        3,
    )
    assert turns.sum_s == 9020
    said = scrape.said(database, turns)
    assert "mc_turn_duration_seconds_count 3.0\n" in said
    assert 'mc_turn_duration_seconds_bucket{le="+Inf"} 3.0\n' in said


def test_sizes_for_people() -> None:
    """One unit, two digits."""
    sizes = (0, 1023, 1024, 10 * 1024, 5 << 20, 3 << 30, 2000 << 40)
    assert [pages.size(each) for each in sizes] == [
        "0 B", "1023 B", "1.0 KiB", "10 KiB", "5.0 MiB", "3.0 GiB", "2000 TiB",
    ]  # fmt: skip
