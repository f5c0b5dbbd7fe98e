"""store/adopt.sql: an older Mission Control's database, made by hand, is taken over as it is."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest

from orchestrator.errors import ConfigError
from orchestrator.store import comments, events, messages, tickets, worktrees
from orchestrator.store.db import Database
from orchestrator.store.migrate import ensure_schema, known
from tests.unit.postgres import Cluster

UUID = "6e3dd6a5-4e3b-4b43-9a59-9f1d0d1b7a10"
#: as somebody would have made them with little
SMALL = """
    CREATE TABLE tickets (id integer, title text);
    CREATE TABLE ticket_events (ticket_id integer, what text);
    CREATE TABLE queued_messages (id serial PRIMARY KEY, ticket_id integer, body text);
    INSERT INTO tickets VALUES (3, 'old'), (7, 'older');
    INSERT INTO ticket_events VALUES (3, 'began');
    INSERT INTO queued_messages (ticket_id, body) VALUES (3, 'hello');
"""
#: and with more, in types of their own
LARGE = f"""
    CREATE TABLE tickets (
        id bigserial PRIMARY KEY, title varchar(80) NOT NULL, status text NOT NULL DEFAULT 'todo',
        repo_path text, session_id text, created_at timestamp NOT NULL DEFAULT '2025-01-02 03:04:05',
        updated_at timestamp NOT NULL DEFAULT now(), assignee text);
    CREATE TABLE ticket_events (
        id bigserial PRIMARY KEY, ticket_id bigint REFERENCES tickets (id), kind text NOT NULL,
        data jsonb, at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE queued_messages (
        id bigserial PRIMARY KEY, ticket_id bigint NOT NULL REFERENCES tickets (id), body text NOT NULL,
        sent_at timestamp, urgent boolean NOT NULL DEFAULT false);
    INSERT INTO tickets (id, title, status, repo_path, session_id, assignee) VALUES
        (3, 'old', 'done', '/home/op/src/demo', '{UUID}', 'ann'), (7, 'older', 'todo', NULL, NULL, 'bob');
    SELECT setval('tickets_id_seq', 7);
    INSERT INTO ticket_events (ticket_id, kind, data) VALUES (3, 'began', '{{"n": 1}}');
    INSERT INTO queued_messages (ticket_id, body) VALUES (3, 'hello');
"""
_NAMES = (f"older_{n}" for n in itertools.count())


@pytest.fixture(params=[SMALL, LARGE], ids=["small", "large"])
def older(cluster: Cluster, request: pytest.FixtureRequest) -> Database:
    """A database of that make."""
    name = next(_NAMES)
    cluster._create(name, "template0")
    database = Database(cluster.dsn(name))
    database.query(request.param)
    return database


def test_it_is_taken_over_and_used(older: Database) -> None:
    """Tickets, events and messages are there; everything new works on it; a second run does nothing."""
    assert ensure_schema(older) == [m.name for m in known()]
    assert ensure_schema(older) == []
    old, oldest = tickets.list_all(older)
    assert (old.id, old.title, oldest.id) == (3, "old", 7)
    assert old.session_id != oldest.session_id
    assert len(oldest.session_id) == 36
    assert old.created_at.tzinfo is not None
    new = tickets.create(older, title="new", repo_path="/home/op/src/demo")
    assert (new.id, new.status, new.kind) == (8, "open", "code")
    tickets.update(older, 3, status="in_progress", worker_pid=5)
    message = messages.enqueue(older, 3, "and now")
    assert messages.tickets_waiting(older) == [3]
    assert [m.id for m in messages.take(older, 3, "me", joined=False)] == [message.id]
    events.record(older, 3, "worker_started", pid=5)
    comments.add(older, 7, "noted")
    assert worktrees.claim(
        older, 8, path="/x", repo_path="/y", branch="b", base_sha="c", max_active=1
    )
    assert [e.kind for e in events.of_ticket(older, 3)][-1] == "worker_started"
    first = messages.of_ticket(older, 3)[0]
    assert (first.body, first.outcome) == ("hello", "refused"), "never typed behind somebody's back"


def test_what_was_there_stays(cluster: Cluster) -> None:
    """Columns, types, values and the older program's own way to add rows."""
    name = next(_NAMES)
    cluster._create(name, "template0")
    database = Database(cluster.dsn(name))
    database.query(LARGE)
    before = database.query("SELECT id, title, status, assignee, created_at FROM tickets")
    ensure_schema(database)
    assert database.query("SELECT id, title, status, assignee, created_at FROM tickets") == before
    assert before[0]["created_at"] == datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
    found = {t.id: t for t in tickets.list_all(database)}
    assert found[3].session_id == UUID
    assert (found[3].kind, found[7].kind) == ("code", "chat")
    database.query("INSERT INTO tickets (title, assignee) VALUES ('by the older one', 'eve')")
    database.query("INSERT INTO queued_messages (ticket_id, body) VALUES (3, 'by the older one')")
    assert messages.of_ticket(database, 3)[-1].outcome == "queued"


def test_something_else_is_refused(cluster: Cluster) -> None:
    """A database that has `tickets` of another kind is left as it is."""
    name = next(_NAMES)
    cluster._create(name, "template0")
    database = Database(cluster.dsn(name))
    database.query("CREATE TABLE tickets (seat text)")
    with pytest.raises(ConfigError, match="no Mission Control's"):
        ensure_schema(database)
    found = database.query(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    )
    assert [row["table_name"] for row in found] == ["tickets"]
