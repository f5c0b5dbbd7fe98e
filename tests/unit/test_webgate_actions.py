"""Routes that change something: what they do, what they refuse, and what the stream tells of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.asking import Asking
from orchestrator.errors import Unavailable
from orchestrator.store import comments, events, logins, messages, tickets
from orchestrator.store.db import Database
from tests.unit.gateway import Gateway
from webgate.auth import FRESH_S, OUTAGE_S, Sessions
from webgate.problems import LoginNeeded


def repository(folder: Path) -> Path:
    """A git repository with one commit."""
    said = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    folder.mkdir()
    (folder / "README").write_text("hello\n")
    for argv in (["init", "-q", "-b", "main"], ["add", "README"], ["commit", "-qm", "first"]):
        subprocess.run(["git", "-C", folder, *argv], check=True, env={**os.environ, **said})
    return folder


# New tickets


def test_a_new_ticket(shared_gateway: Gateway, tmp_path: Path) -> None:
    """201 with all of it and where it is; the title is the prompt unless there is one."""
    repo = repository(tmp_path / "repo")
    answer = shared_gateway.post(
        "/api/tickets", {"title": " Mend it ", "repo": str(repo), "base": "main"}
    )
    assert answer.status == 201, answer.body
    made = answer.json()
    assert answer.headers["location"] == f"/api/ticket/{made['id']}"
    assert (made["title"], made["prompt"], made["kind"], made["driver"]) == (
        "Mend it",
        " Mend it ",
        "code",
        "claude",
    )
    assert (made["repo_path"], made["base_ref"], made["status"]) == (str(repo), "main", "open")


@pytest.mark.parametrize(
    "body",
    [
        {}, {"title": ""}, {"title": "x" * 501}, {"title": 1}, {"title": "x", "id": 4}, {"title": "x", "driver": "nope"},
        {"title": "x", "repo": "/nowhere/at/all"}, {"title": "x", "repo": "relative"}, {"title": "x", "repo": "/\0"},
        {"title": "x", "repo": "~nobody-there/x"}, {"title": "x", "base": "main"}, {"title": "x", "kind": "odd"},
        {"title": "x", "kind": "code"}, {"title": "x", "driver": "command"}, {"title": "x", "command": ["a"], "driver": "demo"},
        {"title": "x", "command": [1]}, {"title": "x", "start": "yes"}, {"title": "\ud800"}, {"title": "x", "prompt": "a\0"},
    ],
)  # fmt: skip
def test_a_ticket_that_cannot_be_made(shared_gateway: Gateway, body: dict[str, Any]) -> None:
    """400 with a sentence, and no row."""
    before = len(tickets.list_all(shared_gateway.database, closed=True))
    answer = shared_gateway.post("/api/tickets", body)
    assert (answer.status, answer.json()["problem"]) == (400, "invalid-input")
    assert len(tickets.list_all(shared_gateway.database, closed=True)) == before


@pytest.mark.parametrize("base", ["--help", "nowhere", "$(id)", "a;b", "main:README"])
def test_a_base_that_is_none(shared_gateway: Gateway, tmp_path: Path, base: str) -> None:
    """Options and shell words are no commits."""
    repo = repository(tmp_path / "repo")
    assert (
        shared_gateway.post("/api/tickets", {"title": "x", "repo": str(repo), "base": base}).status
        == 400
    )


# Permission


def test_a_permission_is_shown_and_answered(shared_gateway: Gateway) -> None:
    """Tool and input on the stream and by GET; the answer reaches who asked, once, and nobody types."""
    ticket = tickets.create(shared_gateway.database, title="asks")
    folder = shared_gateway.folder / "run/mission-control" / f"ticket-{ticket.id}" / "requests"
    with shared_gateway.stream(ticket.id) as viewer:
        assert viewer.next("permission").json() == {"requests": []}
        asking = Asking(str(folder), "Bash", {"command": "rm -rf <b>x</b>"})
        events.record(shared_gateway.database, ticket.id, "permission_request", tool_name="Bash")
        (shown,) = viewer.next("permission").json()["requests"]
    assert (shown["tool"], shown["input"], shown["is_question"]) == (
        "Bash",
        {"command": "rm -rf <b>x</b>"},
        False,
    )
    path = f"/api/ticket/{ticket.id}/permission"
    assert shared_gateway.get(path).json()["requests"] == [shown]
    for wrong in ({"behavior": "maybe"}, {"answers": {"a": 1}}, {"message": 1}):
        body = {"request": shown["request"], "behavior": "allow", **wrong}
        assert shared_gateway.post(path, body).status == 400
    body = {"request": shown["request"], "behavior": "deny", "message": "not here"}
    assert shared_gateway.post(path, body).status == 200
    answer = asking.read()
    assert answer is not None
    assert (answer["behavior"], answer["message"], answer["by"]) == ("deny", "not here", "web")
    again = shared_gateway.post(path, body)
    assert (again.status, again.json()["problem"]) == (409, "conflict")
    asking.close()


def test_a_question_is_answered_with_its_options(shared_gateway: Gateway) -> None:
    """The answers go in beside what was asked; without any there is no allowing it."""
    ticket = tickets.create(shared_gateway.database, title="asks")
    folder = shared_gateway.folder / "run/mission-control" / f"ticket-{ticket.id}" / "requests"
    given = {"questions": [{"question": "Which?", "options": [{"label": "A"}, {"label": "B"}]}]}
    asking = Asking(str(folder), "AskUserQuestion", given)
    path, body = (
        f"/api/ticket/{ticket.id}/permission",
        {"request": asking.request_id, "behavior": "allow"},
    )
    assert shared_gateway.post(path, body).status == 400
    assert shared_gateway.post(path, {**body, "answers": {"Which?": "B"}}).status == 200
    answer = asking.read()
    assert answer is not None
    assert answer["updated_input"] == {**given, "answers": {"Which?": "B"}}
    asking.close()


@pytest.mark.parametrize("request_id", ["", "../../x", "0" * 32, "a" * 31 + "\n", "é" * 32])
def test_a_request_that_is_none(shared_gateway: Gateway, request_id: str) -> None:
    """It has gone, or never was; no path comes out of it."""
    ticket = tickets.create(shared_gateway.database, title="asks nothing")
    body = {"request": request_id, "behavior": "allow"}
    assert shared_gateway.post(f"/api/ticket/{ticket.id}/permission", body).status == 409


# Comments, messages, events


def test_a_comment_is_told(shared_gateway: Gateway) -> None:
    """Stored, listed, and on the stream; the worker gets nothing of it."""
    ticket = tickets.create(shared_gateway.database, title="noted")
    with shared_gateway.stream(ticket.id) as viewer:
        viewer.next("activity")
        made = shared_gateway.post(f"/api/ticket/{ticket.id}/comments", {"text": "<i>look</i>"})
        assert made.status == 201
        assert viewer.next("comment").json()["text"] == "<i>look</i>"
    listed = shared_gateway.get(f"/api/ticket/{ticket.id}/comments").json()["comments"]
    assert [(c["text"], c["author"]) for c in listed] == [("<i>look</i>", "web")]
    assert messages.of_ticket(shared_gateway.database, ticket.id) == []
    for text in ("", " ", "x" * 20_001, "\0", 1):
        assert (
            shared_gateway.post(f"/api/ticket/{ticket.id}/comments", {"text": text}).status == 400
        )
    assert shared_gateway.post("/api/ticket/999999999/comments", {"text": "x"}).status == 404
    assert len(comments.of_ticket(shared_gateway.database, ticket.id)) == 1


def test_a_queued_message_is_taken_back(shared_gateway: Gateway) -> None:
    """While it waits; another ticket's message, and one that was sent, stay."""
    ticket = tickets.create(shared_gateway.database, title="says")
    other = tickets.create(shared_gateway.database, title="other")
    message = messages.enqueue(shared_gateway.database, ticket.id, "oops")
    body = {"message": message.id}
    assert shared_gateway.post(f"/api/ticket/{other.id}/cancel", body).status == 404
    assert shared_gateway.post(f"/api/ticket/{ticket.id}/cancel", body).status == 200
    assert shared_gateway.post(f"/api/ticket/{ticket.id}/cancel", body).status == 409
    for wrong in (0, -1, 2**63, "1", True):
        assert (
            shared_gateway.post(f"/api/ticket/{ticket.id}/cancel", {"message": wrong}).status == 400
        )


def test_events_after_one(shared_gateway: Gateway) -> None:
    """Those that came later, for who has the others."""
    ticket = tickets.create(shared_gateway.database, title="eventful")
    for n in range(3):
        events.record(shared_gateway.database, ticket.id, "state", n=n)
    path = f"/api/ticket/{ticket.id}/events"
    first, *rest = shared_gateway.get(path).json()["events"]
    assert shared_gateway.get(f"{path}?after={first['id']}").json()["events"] == rest
    assert shared_gateway.get(f"{path}?after=x").status == 400


def test_turns_are_told(shared_gateway: Gateway) -> None:
    """The end of a turn on the stream, and the turn by GET."""
    ticket = tickets.create(shared_gateway.database, title="works")
    with shared_gateway.stream(ticket.id) as viewer:
        events.record(shared_gateway.database, ticket.id, "user_prompt", prompt="hello")
        events.record(shared_gateway.database, ticket.id, "turn_end", last_assistant_message="hi")
        assert viewer.next("turn_end").json()["data"]["last_assistant_message"] == "hi"
    (turn,) = shared_gateway.get(f"/api/ticket/{ticket.id}/timeline").json()["turns"]
    assert (turn["prompt"], turn["answer"]) == ("hello", "hi")


def test_the_board_is_told(shared_gateway: Gateway) -> None:
    """One stream for all tickets."""
    ticket = tickets.create(shared_gateway.database, title="on the board")
    with shared_gateway.stream(ticket.id, path="/api/stream") as viewer:
        assert ticket.id in [t["id"] for t in viewer.next("tickets").json()["tickets"]]
        tickets.update(shared_gateway.database, ticket.id, title="renamed")
        titles = [t["title"] for t in viewer.next("tickets").json()["tickets"]]
        assert "renamed" in titles


def test_a_diff_needs_a_worktree(shared_gateway: Gateway) -> None:
    """409 and what to do, where there is none."""
    ticket = tickets.create(shared_gateway.database, title="chat")
    answer = shared_gateway.get(f"/api/ticket/{ticket.id}/diff")
    assert (answer.status, answer.json()["problem"]) == (409, "conflict")


def test_a_diff_of_a_worktree(shared_gateway: Gateway, tmp_path: Path) -> None:
    """By file: changed and untracked, against the base."""
    repo = repository(tmp_path / "repo")
    base = subprocess.check_output(["git", "-C", repo, "rev-parse", "HEAD"], text=True).strip()
    tree = tmp_path / "tree"
    subprocess.run(["git", "-C", repo, "worktree", "add", "-q", "-b", "t", tree, base], check=True)
    (tree / "README").write_text("hello\nworld\n")
    (tree / "new").write_text("1\n")
    ticket = tickets.create(shared_gateway.database, title="changes", repo_path=str(repo))
    tickets.update(shared_gateway.database, ticket.id, worktree_path=str(tree), base_sha=base)
    found = shared_gateway.get(f"/api/ticket/{ticket.id}/diff").json()
    assert [(f["path"], f["status"], f["added"]) for f in found["files"]] == [
        ("README", "modified", 1), ("new", "untracked", 1),
    ]  # fmt: skip


# Logins


def test_a_login_link_leads_to_a_ticket(fresh_gateway: Gateway) -> None:
    """And never anywhere else."""
    for asked, then in (
        ("/ticket/4", "/ticket/4"), ("//evil.example", "/"), ("/ticket/4/../../x", "/"), ("http://x", "/"),
    ):  # fmt: skip
        code = logins.create_link(fresh_gateway.database)
        answer = fresh_gateway.ask("GET", f"/login?code={code}&next={asked}")
        assert (answer.status, answer.headers["location"]) == (303, then)


def test_who_is_known_stays_known_for_a_while(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not asked for each request; through an outage; but not after the session has ended."""
    now = [0.0]
    sessions = Sessions(database, lambda: now[0])
    secret = logins.redeem_link(database, logins.create_link(database))
    assert secret
    csrf = sessions.csrf_of(secret)
    asked: list[str] = []
    find = logins.find_session

    def away(_: Database, given: str) -> None:
        asked.append(given)
        raise Unavailable("away")

    monkeypatch.setattr(logins, "find_session", away)
    assert sessions.csrf_of(secret) == csrf
    assert asked == []
    now[0] = FRESH_S
    assert sessions.csrf_of(secret) == csrf
    assert asked == [secret]
    with pytest.raises(Unavailable):
        sessions.csrf_of("another")
    now[0] = OUTAGE_S
    with pytest.raises(Unavailable):
        sessions.csrf_of(secret)
    monkeypatch.setattr(logins, "find_session", find)
    logins.end_session(database, secret)
    with pytest.raises(LoginNeeded):
        sessions.csrf_of(secret)
    for nobody in ("", "wrong"):
        with pytest.raises(LoginNeeded):
            sessions.csrf_of(nobody)
