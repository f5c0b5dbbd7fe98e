"""Closed by default: what the gateway refuses, and to whom. Each against the running process."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator import config
from orchestrator.errors import ConfigError
from orchestrator.store import logins, messages, tickets
from tests.unit.gateway import Gateway
from webgate import app, auth, problems
from webgate.base import Shared
from webgate.problems import LoginNeeded, Refused, TooMany


def all_routes() -> list[tuple[str, str]]:
    """Method and rule of everything the application answers."""
    nothing = cast("Any", None)
    made = app.build(Shared(config.Config(), nothing, nothing, nothing, nothing, nothing))
    return sorted({(route.method, route.rule) for route in made.routes})


@pytest.mark.parametrize(("method", "rule"), all_routes())
def test_every_route_needs_a_login(shared_gateway: Gateway, method: str, rule: str) -> None:
    """Without cookie and token a path says nothing, unless it stands in PUBLIC."""
    path = rule.replace("<ticket>", "1").replace("<version>", "v").replace("<name:path>", "x.js")
    answer = shared_gateway.ask(
        method,
        path,
        {"Origin": f"http://{shared_gateway.host}", "Content-Type": "application/json"},
    )
    if path in auth.PUBLIC:
        assert answer.status == 200
    else:
        assert answer.status == 401
        assert answer.json()["problem"] == "login-needed"


def test_what_is_public_is_this_much() -> None:
    """A path becomes public by being written here too."""
    assert sorted(auth.PUBLIC) == ["/favicon.ico", "/healthz", "/login", "/login.css"]


@pytest.mark.parametrize(
    "path", ["/nothing", "/static/../../etc/passwd", "//", "/healthz/", "/LOGIN"]
)
def test_unknown_paths_are_behind_the_login_too(shared_gateway: Gateway, path: str) -> None:
    """Who is not logged in does not learn what exists."""
    assert shared_gateway.ask("GET", path).status == 401


def test_public_paths_are_public_for_reading_only(shared_gateway: Gateway) -> None:
    """A POST to a public path is a change like any other."""
    assert shared_gateway.ask("POST", "/healthz", body=b"{}").status == 401


@pytest.mark.parametrize(
    "cookie",
    ["mc_session=wrong", "mc_session=", "mc_session", 'mc_session="\\', "a=b; mc_session=x"],
)
def test_a_wrong_cookie_is_nobody(shared_gateway: Gateway, cookie: str) -> None:
    """Only a secret the store knows opens anything."""
    assert shared_gateway.ask("GET", "/api/tickets", {"Cookie": cookie}).status == 401


def test_a_page_without_login_says_what_to_do(shared_gateway: Gateway) -> None:
    """A person reads `ticketctl open`, not JSON."""
    answer = shared_gateway.ask("GET", "/", {"Accept": "text/html"})
    assert answer.status == 401
    assert b"ticketctl open" in answer.body
    assert answer.headers["content-type"].startswith("text/html")


# Login links


def test_a_login_link_works_once(fresh_gateway: Gateway) -> None:
    """The code becomes a session in a cookie no script reads and no other site sends; then it is used."""
    code = logins.create_link(fresh_gateway.database)
    answer = fresh_gateway.ask("GET", f"/login?code={code}")
    assert (answer.status, answer.headers["location"]) == (303, "/")
    cookie, *flags = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(flags)
    assert "Secure" not in flags
    assert fresh_gateway.ask("GET", "/api/tickets", {"Cookie": cookie}).status == 200
    again = fresh_gateway.ask("GET", f"/login?code={code}", {"Accept": "text/html"})
    assert again.status == 403
    assert b"ticketctl open" in again.body
    assert "set-cookie" not in again.headers


def test_an_old_login_link_is_refused(fresh_gateway: Gateway) -> None:
    """After its minute a code opens nothing."""
    code = logins.create_link(fresh_gateway.database, valid_s=-1)
    assert fresh_gateway.ask("GET", f"/login?code={code}").status == 403


def test_a_login_link_is_good_for_a_minute(fresh_gateway: Gateway) -> None:
    """As the database has it, which decides; and what is stored opens nothing."""
    code = logins.create_link(fresh_gateway.database)
    secret = fresh_gateway.log_in()
    rows = fresh_gateway.database.query(
        "SELECT digest, extract(epoch FROM expires_at - now()) AS left_s FROM login_links"
    )
    assert [0 < float(row["left_s"]) <= 60 for row in rows] == [True]
    rows += fresh_gateway.database.query("SELECT digest FROM web_sessions")
    stored = [bytes(row["digest"]) for row in rows]
    assert len(stored) == 3
    assert not {code.encode(), secret.encode(), fresh_gateway.secret.encode()} & set(stored)
    assert len(code) == len(secret) == 43  # 256 bit


def test_a_link_preview_does_not_use_the_code_up(fresh_gateway: Gateway) -> None:
    """HEAD reads; only GET logs in."""
    code = logins.create_link(fresh_gateway.database)
    assert fresh_gateway.ask("HEAD", f"/login?code={code}").status == 200
    assert fresh_gateway.ask("GET", f"/login?code={code}").status == 303


def test_a_link_clicked_on_another_site_logs_in(fresh_gateway: Gateway) -> None:
    """A Strict cookie does not come along on a redirect of another site's; a page of ours goes on."""
    code = logins.create_link(fresh_gateway.database)
    clicked: dict[str, str | None] = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    answer = fresh_gateway.ask("GET", f"/login?code={code}", clicked)
    assert answer.status == 200
    assert b'http-equiv="refresh"' in answer.body
    assert "mc_session=" in answer.headers["set-cookie"]


def test_failed_logins_are_limited(fresh_gateway: Gateway) -> None:
    """The third wrong code within a minute is not even looked at, and says when to come back."""
    for _ in range(2):
        assert fresh_gateway.ask("GET", "/login?code=wrong").status == 403
    answer = fresh_gateway.ask("GET", "/login?code=wrong")
    assert answer.status == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_the_limit_by_the_clock() -> None:
    """Two a minute, twelve an hour; what succeeded does not count."""
    now = [0.0]
    limit = auth.LoginLimit(lambda: now[0])
    for _ in range(20):
        limit.begin()
        limit.succeeded()
    for each in range(12):
        now[0] = each * 61.0
        limit.begin()
    now[0] = 12 * 61.0
    with pytest.raises(TooMany) as hourly:
        limit.begin()
    assert hourly.value.retry_after_s == 3600 - 12 * 61
    now[0] = 3601.0
    limit.begin()
    limit_of_minute = auth.LoginLimit(lambda: now[0])
    limit_of_minute.begin()
    limit_of_minute.begin()
    with pytest.raises(TooMany):
        limit_of_minute.begin()


def test_logout_ends_the_session(fresh_gateway: Gateway) -> None:
    """The cookie is taken back, and worth nothing to who kept it."""
    answer = fresh_gateway.post("/logout", {})
    assert answer.status == 200
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert fresh_gateway.get("/api/tickets").status == 401


# Programs


def test_the_token_opens(shared_gateway: Gateway) -> None:
    """A program needs the token alone, also for a change, without Origin."""
    bearer: dict[str, str | None] = {"Authorization": f"Bearer {shared_gateway.token}"}
    assert shared_gateway.ask("GET", "/api/tickets", bearer).status == 200
    ticket = tickets.create(shared_gateway.database, title="by a program")
    bearer["Content-Type"] = "application/json"
    path = f"/api/ticket/{ticket.id}/input"
    assert shared_gateway.ask("POST", path, bearer, {"text": "hello"}).status == 202
    assert messages.of_ticket(shared_gateway.database, ticket.id)[0].author == "api"


@pytest.mark.parametrize(
    "value", ["Bearer wrong", "Bearer ", "Bearer", "Basic {}", "{}", "Bearer {}x"]
)
def test_another_token_does_not(shared_gateway: Gateway, value: str) -> None:
    """A wrong token is refused even beside a good cookie."""
    given = value.format(shared_gateway.token)
    assert shared_gateway.get("/api/tickets", {"Authorization": given}).status == 401


def test_secrets_are_compared_in_constant_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token, and the CSRF token of a session: by hmac.compare_digest, both sides in full."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, known: bytes) -> bool:
        compared.append((given, known))
        return False

    monkeypatch.setattr(auth.hmac, "compare_digest", compare)
    (tmp_path / "token").write_text("right\n")
    nothing = cast("Any", None)
    gate = auth.Gate(
        nothing, database=nothing, origins={"h": "http://h"}, token_path=tmp_path / "token"
    )
    with pytest.raises(LoginNeeded):
        gate._is_program({"HTTP_AUTHORIZATION": "Bearer right"})
    change = {
        "HTTP_ORIGIN": "http://h",
        "CONTENT_TYPE": "application/json",
        "HTTP_X_CSRF_TOKEN": "given",
        "webgate.csrf": "known",
    }
    with pytest.raises(Refused):
        gate._check_change(change, "http://h", program=False)
    assert compared == [(b"right", b"right"), (b"given", b"known")]


def test_an_empty_token_file_opens_nothing(fresh_gateway: Gateway) -> None:
    """An empty secret is no secret."""
    (fresh_gateway.state / "token").write_text("\n")
    assert fresh_gateway.ask("GET", "/api/tickets", {"Authorization": "Bearer "}).status == 401


def test_another_token_in_the_file_counts_at_once(fresh_gateway: Gateway) -> None:
    """Written over or put in its place; the old one opens nothing any more, and no file opens nothing."""
    path, old = fresh_gateway.state / "token", fresh_gateway.token

    def status(token: str) -> int:
        return fresh_gateway.get("/api/tickets", {"Authorization": f"Bearer {token}"}).status

    assert status(old) == 200
    path.write_text("a" * 43 + "\n")
    assert (status(old), status("a" * 43)) == (401, 200)
    fresh = path.with_name("fresh")
    fresh.write_text("b" * 43 + "\n")
    fresh.rename(path)
    assert (status("a" * 43), status("b" * 43)) == (401, 200)
    path.unlink()
    assert status("b" * 43) == 401


def test_the_token_is_for_the_owner_alone(tmp_path: Path) -> None:
    """256 bit, 0600 in a 0700 folder, whatever the umask; kept once it is there."""
    before = os.umask(0)
    try:
        auth.ensure_token(tmp_path / "state" / "token")
    finally:
        os.umask(before)
    path = tmp_path / "state" / "token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(path.read_text().strip()) >= 43
    made = path.read_text()
    auth.ensure_token(path)
    assert path.read_text() == made


@pytest.mark.parametrize("where", ["file/state/token", "file/token", "dangling"])
def test_a_token_that_cannot_be_made_is_said(tmp_path: Path, where: str) -> None:
    """In a sentence that says where it comes from, with an exit status that is not tried again."""
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="no token for programs") as refused:
        auth.ensure_token(tmp_path / where)
    assert "ticketctl setup" in (refused.value.hint or "")
    assert refused.value.exit_status == 78


# Where a request comes from


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", None]
)
@pytest.mark.parametrize("path", ["/api/tickets", "/healthz", "/login"])
def test_a_foreign_host_is_refused(shared_gateway: Gateway, host: str | None, path: str) -> None:
    """A name that resolves to loopback (DNS rebinding) gets nothing, not even what is public."""
    given = host.format(port=shared_gateway.port) if host is not None else None
    assert shared_gateway.get(path, {"Host": given}).status == 403


@pytest.mark.parametrize("name", ["localhost", "[::1]", "127.0.0.1"])
def test_loopback_names_are_known(shared_gateway: Gateway, name: str) -> None:
    """The three ways to write it."""
    assert (
        shared_gateway.get("/api/tickets", {"Host": f"{name}:{shared_gateway.port}"}).status == 200
    )


def refused(gateway: Gateway, headers: dict[str, str | None], status: int = 403) -> None:
    """A message with these headers is refused, and nothing is done."""
    ticket = tickets.create(gateway.database, title="not to be spoken to")
    answer = gateway.post(f"/api/ticket/{ticket.id}/input", {"text": "hi"}, headers)
    assert answer.status == status
    assert messages.of_ticket(gateway.database, ticket.id) == []


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://{host}",
        "http://{host}.evil.example",
        "null",
        "http://localhost:{port}",
        None,
    ],
)
def test_a_change_needs_our_own_origin(shared_gateway: Gateway, origin: str | None) -> None:
    """Exactly that of the page; a cookie without Origin does not change anything."""
    given = origin and origin.format(host=shared_gateway.host, port=shared_gateway.port)
    refused(shared_gateway, {"Origin": given})


def test_a_program_with_a_foreign_origin_is_refused(shared_gateway: Gateway) -> None:
    """A missing Origin is fine with a token; a wrong one is not."""
    refused(
        shared_gateway,
        {"Authorization": f"Bearer {shared_gateway.token}", "Origin": "http://evil.example"},
    )


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none-such"])
@pytest.mark.parametrize("mode", ["navigate", "cors", "no-cors"])
def test_another_site_is_refused(shared_gateway: Gateway, site: str, mode: str) -> None:
    """Whatever another site asks for, by click, script or image."""
    headers: dict[str, str | None] = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
    assert shared_gateway.get("/api/tickets", headers).status == 403
    assert shared_gateway.get("/", headers).status == 403
    refused(shared_gateway, headers)


@pytest.mark.parametrize(
    ("mode", "dest"),
    [("cors", "empty"), ("no-cors", "image"), ("navigate", "iframe"), ("no-cors", None)],
)
def test_another_site_cannot_try_codes(
    shared_gateway: Gateway, mode: str, dest: str | None
) -> None:
    """Of another site's doing, only a click that shows the login page gets there."""
    headers: dict[str, str | None] = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": mode,
        "Sec-Fetch-Dest": dest,
    }
    answer = shared_gateway.ask("GET", "/login?code=x", headers)
    assert (answer.status, answer.json()["problem"]) == (403, "forbidden")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", None]
)
def test_a_change_is_json(shared_gateway: Gateway, kind: str | None) -> None:
    """What a form of another site could send is refused."""
    refused(shared_gateway, {"Content-Type": kind})


@pytest.mark.parametrize("token", ["wrong", "", None])
def test_a_change_needs_the_sessions_own_token(shared_gateway: Gateway, token: str | None) -> None:
    """The page has it, another site cannot read it."""
    refused(shared_gateway, {"X-CSRF-Token": token})


def test_another_sessions_csrf_token_does_not_do(shared_gateway: Gateway) -> None:
    """It belongs to one session."""
    other = logins.find_session(shared_gateway.database, shared_gateway.log_in())
    assert other is not None
    refused(shared_gateway, {"X-CSRF-Token": other.csrf})


# Sizes


def test_a_long_body_is_refused(shared_gateway: Gateway) -> None:
    """64 KB, and 1 MB where messages are taken."""
    assert shared_gateway.post("/logout", {"x": "y" * 65_536}).status == 413
    ticket = tickets.create(shared_gateway.database, title="much")
    path = f"/api/ticket/{ticket.id}/input"
    assert shared_gateway.post(path, {"text": "y" * 900_000}).status == 202
    assert shared_gateway.get("/api/tickets").status == 200


def test_a_body_nobody_takes_is_not_read(shared_gateway: Gateway) -> None:
    """Announced as 10 GB it is refused by its length alone, also without a login."""
    said = f"POST /logout HTTP/1.1\r\nHost: {shared_gateway.host}\r\nContent-Length: 10000000000\r\n\r\n"
    assert shared_gateway.raw(said.encode()).startswith(b"HTTP/1.1 413 ")


def test_a_body_without_length_is_refused(shared_gateway: Gateway) -> None:
    """Chunks could go on for ever."""
    said = f"POST /logout HTTP/1.1\r\nHost: {shared_gateway.host}\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert shared_gateway.raw(said.encode()).startswith(b"HTTP/1.1 411 ")


@pytest.mark.parametrize(
    "headers", ["X: " + "y" * 9000, "\r\n".join(f"X-{i}: {'y' * 90}" for i in range(95))]
)
def test_long_headers_are_refused(shared_gateway: Gateway, headers: str) -> None:
    """8 KB in all, in one line or in many."""
    said = f"GET /healthz HTTP/1.1\r\nHost: {shared_gateway.host}\r\n{headers}\r\n\r\n"
    assert shared_gateway.raw(said.encode()).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "said", [b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
)
def test_what_is_no_request_gets_an_answer_and_no_traceback(
    shared_gateway: Gateway, said: bytes
) -> None:
    """Noise on the port is not worth more than a 400."""
    assert shared_gateway.raw(said).startswith(b"HTTP/1.1 400 ")
    assert "Traceback" not in shared_gateway.said()


# Headers of every answer


@pytest.mark.parametrize(
    "path", ["/", "/login", "/healthz", "/api/tickets", "/nothing", "/login.css"]
)
@pytest.mark.parametrize("logged_in", [True, False])
def test_every_answer_is_locked_down(shared_gateway: Gateway, path: str, logged_in: bool) -> None:  # noqa: FBT001
    """No inline script or style, no framing, no sniffing, no referrer, no copy in a cache."""
    answer = shared_gateway.get(path) if logged_in else shared_gateway.ask("GET", path)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers


def test_our_own_mistakes_are_logged_without_what_was_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Method, path, and where it happened, on one line; a query may hold a login code, a header a token."""
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/login", "QUERY_STRING": "code=the-secret",
        "HTTP_COOKIE": "mc_session=the-secret", "HTTP_AUTHORIZATION": "Bearer the-secret",
    }  # fmt: skip
    shown = problems.from_exception(ValueError("a bug\nof ours"), environ)
    said = capsys.readouterr().err
    assert said == "<3>GET '/login': ValueError: a bug\n"
    assert "bug" not in shown.message + shown.hint


def test_no_secret_is_in_the_log(fresh_gateway: Gateway) -> None:
    """Codes, cookies, tokens and messages stay out of the journal."""
    code = logins.create_link(fresh_gateway.database)
    fresh_gateway.ask("GET", f"/login?code={code}")
    fresh_gateway.ask("GET", f"/login?code={code}")
    ticket = tickets.create(fresh_gateway.database, title="quiet")
    fresh_gateway.post(f"/api/ticket/{ticket.id}/input", {"text": "a secret message"})
    fresh_gateway.stop()
    said = fresh_gateway.said()
    fresh_gateway.start()
    for secret in (code, fresh_gateway.secret, fresh_gateway.token, "a secret message"):
        assert secret not in said
