"""ticketctl import: what another Mission Control's database holds is copied, once, and does no harm here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import taking
from orchestrator.store import comments, events, messages, tickets
from orchestrator.store.db import Database
from tests.unit.postgres import Cluster

FIRST = "6e3dd6a5-4e3b-4b43-9a59-9f1d0d1b7a10"
#: as a program of before would have left it, after some months of use
OLDER = f"""
    CREATE TABLE tickets (
        id bigserial PRIMARY KEY, title text, prompt text, status varchar(20) DEFAULT 'todo', repo_path text,
        driver text DEFAULT 'claude', session_id text, worker_pid integer, cost_usd numeric, worktree_path text,
        created_at timestamp DEFAULT '2025-01-02 03:04:05', assignee text);
    CREATE TABLE ticket_events (
        id bigserial PRIMARY KEY, ticket_id bigint, kind text, data json, at timestamptz DEFAULT now());
    CREATE TABLE queued_messages (
        id bigserial PRIMARY KEY, ticket_id bigint, body text, author text, sent_at timestamp);
    CREATE TABLE comments (id bigserial PRIMARY KEY, ticket_id bigint, author text, body text);
    CREATE TABLE invoices (id integer);
    INSERT INTO tickets (id, title, prompt, status, repo_path, session_id, worker_pid, cost_usd, worktree_path,
                         assignee) VALUES
        (3, 'mend the login', 'it fails', 'done', '/home/op/src/demo', '{FIRST}', NULL, 1.25, NULL, 'ann'),
        (7, 'runs there', 'go', 'in_progress', '/home/op/src/demo', NULL, 4711, 0.5, '/home/op/wt/7', 'bob');
    INSERT INTO ticket_events (ticket_id, kind, data) VALUES (3, 'began', '{{"n": 1}}'), (7, 'note', '[1, 2]');
    INSERT INTO queued_messages (ticket_id, body, author, sent_at) VALUES
        (3, 'hello', 'ann', '2025-01-02 04:00:00'), (7, 'and now', 'bob', NULL);
    INSERT INTO comments (ticket_id, author, body) VALUES (3, 'ann', 'thanks');
"""
#: and what nobody expects there
HOSTILE = """
    INSERT INTO tickets (id, title, status, session_id, cost_usd, driver, repo_path) VALUES
        (0, 'nought', 'todo', NULL, 0, 'claude', NULL), (-4, 'less', 'todo', NULL, 0, 'claude', NULL),
        (9999999999, 'huge', 'todo', NULL, 0, 'claude', NULL),
        (20, repeat('x', 900), 'dream', 'no uuid', 'NaN', 'gone_driver', '../../etc'),
        (21, E'\\x1b]0;owned\\x07', NULL, '6E3DD6A5-4E3B-4B43-9A59-9F1D0D1B7A10', -5, 'claude', NULL),
        (22, '', 'todo', NULL, 1e30, 'claude', NULL), (23, 'program', 'todo', NULL, 0, 'command', NULL);
    UPDATE tickets SET prompt = repeat('p', 200000) WHERE id = 22;
    INSERT INTO ticket_events (ticket_id, kind, data) VALUES
        (22, 'nul', '{"a": "\\u0000"}'), (22, 'half', '{"a": "\\ud800"}'), (22, 'much', '{"a": 1e999}'),
        (22, 'deep', (repeat('[', 3000) || repeat(']', 3000))::json), (99, 'of nobody', '{}'), (NULL, 'none', '{}'),
        (22, 'long', json_build_object('a', repeat('y', 3000000))), (22, NULL, NULL);
    UPDATE ticket_events SET at = 'infinity' WHERE ticket_id = 22 AND kind IS NULL;
    INSERT INTO queued_messages (ticket_id, body) VALUES (22, NULL), (22, repeat('m', 1000001)), (22, 'ok');
"""


@pytest.fixture
def older(cluster: Cluster) -> Iterator[tuple[str, Database]]:
    """The other one: its address, and a way to write to it."""
    name = f"other_{uuid.uuid4().hex[:8]}"
    cluster._create(name, "template0")
    database = Database(cluster.dsn(name))
    database.query(OLDER)
    yield cluster.dsn(name), database
    database.close()


class Ctl:
    """ticketctl with a database of its own."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        self.dsn = cluster.create_database()
        self.database = Database(self.dsn)
        self.env = {"PATH": os.environ["PATH"], "HOME": str(home), "MC_DATABASE_URL": self.dsn}
        self.argv = [sys.executable, "-c", "from orchestrator.cli import main; main()", "import"]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What became of it."""
        return subprocess.run(
            [*self.argv, *words],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def json(self, *words: str) -> dict[str, Any]:
        """What it said, as a program reads it."""
        done = self.run("--json", *words)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def counts(self) -> list[int]:
        """Tickets, events, messages and comments of ours."""
        tables = ("tickets", "ticket_events", "queued_messages", "comments")
        return [self.database.query(f"SELECT count(*) AS n FROM {t}")[0]["n"] for t in tables]


@pytest.fixture
def ctl(cluster: Cluster, tmp_path: Path) -> Iterator[Ctl]:
    """With a fresh database."""
    made = Ctl(cluster, tmp_path)
    yield made
    made.database.close()


def test_it_takes_what_is_there_and_starts_nothing(ctl: Ctl, older: tuple[str, Database]) -> None:
    """Tickets with their numbers, events, messages, comments; what ran there is open here, nothing is queued."""
    done = ctl.run("--from", older[0])
    assert done.returncode == 0, done.stderr
    assert "took 2 tickets, 2 events, 2 messages and 1 comments" in done.stderr
    assert "assignee" in done.stderr
    assert "not looked at: invoices" in done.stderr
    mended, ran = tickets.list_all(ctl.database, closed=True)
    assert (mended.id, mended.status, mended.kind, mended.session_id) == (
        3,
        "closed",
        "code",
        FIRST,
    )
    assert (str(mended.cost_usd), mended.created_at.isoformat()) == (
        "1.250000",
        "2025-01-02T03:04:05+00:00",
    )
    assert (ran.id, ran.status, ran.turn_state, ran.worker_pid) == (7, "open", "gone", None)
    assert ran.worktree_path is None
    assert messages.tickets_waiting(ctl.database) == []
    outcomes = [messages.of_ticket(ctl.database, n)[0].outcome for n in (3, 7)]
    assert outcomes == ["unconfirmed", "refused"]
    assert [(e.kind, e.data) for e in events.of_ticket(ctl.database, 7)][1:] == [
        ("note", {"value": [1, 2]})
    ]
    kept = events.of_ticket(ctl.database, 3)[0]
    assert (kept.kind, kept.data["row"]["assignee"]) == ("imported", "ann")
    assert [c.body for c in comments.of_ticket(ctl.database, 3)] == ["thanks"]
    note = comments.of_ticket(ctl.database, 7)[0].body
    assert "was in_progress there" in note
    assert "/home/op/wt/7" in note
    assert tickets.create(ctl.database, title="mine").id not in (3, 7)


def test_twice_is_once_and_the_new_ones_come(ctl: Ctl, older: tuple[str, Database]) -> None:
    """A second run says what was taken before; a ticket made there since is taken by a third."""
    ctl.json("--from", older[0])
    before = ctl.counts()
    again = ctl.json("--from", older[0])
    assert (again["tickets"], ctl.counts()) == ([], before)
    assert [left["why"] for left in again["left"]][:2] == [
        "was taken before, as ticket 3", "was taken before, as ticket 7",
    ]  # fmt: skip
    older[1].query("INSERT INTO tickets (id, title) VALUES (8, 'since')")
    assert [t["number"] for t in ctl.json("--from", older[0])["tickets"]] == [8]


def test_a_dry_run_does_nothing(ctl: Ctl, older: tuple[str, Database]) -> None:
    """It says the same as the run would, and neither database is another one afterwards."""
    asked = ctl.json("--from", older[0], "--dry-run")
    assert ctl.counts() == [0, 0, 0, 0]
    done = ctl.json("--from", older[0])
    assert {**asked, "dry_run": False} == done
    assert older[1].query("SELECT status, worker_pid FROM tickets WHERE id = 7") == [
        {"status": "in_progress", "worker_pid": 4711}
    ]


def test_a_number_that_is_taken_is_left_or_changed(ctl: Ctl, older: tuple[str, Database]) -> None:
    """Ours is never touched; --renumber takes the other one under a number of its own, with its rows."""
    tickets.create(ctl.database, title="mine", ticket=3)
    left = ctl.json("--from", older[0])
    assert [(t["theirs"], t["number"]) for t in left["tickets"]] == [(7, 7)]
    assert "--renumber" in left["left"][0]["why"]
    taken = ctl.json("--from", older[0], "--renumber")
    assert [(t["theirs"], t["number"]) for t in taken["tickets"]] == [(3, 8)]
    assert tickets.get(ctl.database, 3).title == "mine"
    assert tickets.get(ctl.database, 8).title == "mend the login"
    assert [m.body for m in messages.of_ticket(ctl.database, 8)] == ["hello"]


def test_hostile_rows_are_left_and_counted(ctl: Ctl, older: tuple[str, Database]) -> None:
    """What cannot be a row of ours stays there with its reason; the rest is taken; nothing obeys it."""
    older[1].query(HOSTILE)
    found = ctl.json("--from", older[0])
    assert [t["number"] for t in found["tickets"]] == [3, 7, 20, 21, 22]
    assert found["rows"] == {"ticket_events": 3, "queued_messages": 3, "comments": 1}
    why = {(left["what"], left["theirs"]): left["why"] for left in found["left"] if left["theirs"]}
    assert {name for _, name in why} == {"0", "-4", "9999999999", "23"}
    assert why["ticket", "23"] == "its command is no list of words"
    reasons = {left["why"]: left["count"] for left in found["left"] if not left["theirs"]}
    assert reasons == {
        "a NUL character": 1, "half a surrogate pair": 1, "a number out of range": 1,
        "nested too deeply": 1, "too long": 1, "of tickets that were left, or that there are not": 1,
        "its number is none": 1, "without a text": 1,
    } | {"too long": reasons["too long"]}  # fmt: skip
    strange, copied, empty = (tickets.get(ctl.database, n) for n in (20, 21, 22))
    assert (len(strange.title), strange.repo_path, strange.kind) == (500, None, "chat")
    assert copied.session_id != FIRST, "two tickets on one conversation"
    assert (copied.cost_usd, empty.title, empty.prompt) == (0, "untitled", "")
    assert len(events.of_ticket(ctl.database, 22)[0].data["row"]["prompt"]) == 200_000
    shown = ctl.run("--from", older[0], "--dry-run")
    assert "\x1b" not in shown.stdout + shown.stderr


def test_killed_in_between_nothing_has_happened(ctl: Ctl, older: tuple[str, Database]) -> None:
    """kill -9 while rows are being written: ours is as before, and the next run takes everything."""
    older[1].query(
        "INSERT INTO ticket_events (ticket_id, kind, data)"
        " SELECT 3, 'step', '{}' FROM generate_series(1, 30000)"
    )
    running = subprocess.Popen([*ctl.argv, "--from", older[0]], env=ctl.env)
    deadline = time.monotonic() + 30
    writing = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'INSERT INTO ticket_events%%' AND backend_xid IS NOT NULL"
    while not older[1].query(writing):
        assert running.poll() is None, "it was over before it could be killed"
        assert time.monotonic() < deadline
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert ctl.counts() == [0, 0, 0, 0]
    deadline = time.monotonic() + 10
    while (
        done := ctl.run("--from", older[0])
    ).returncode != 0:  # the lock goes with the dead one's session
        assert "Another import runs" in done.stderr
        assert time.monotonic() < deadline
    assert ctl.counts()[:2] == [2, 30_004]


def test_harm_is_refused(ctl: Ctl, older: tuple[str, Database], cluster: Cluster) -> None:
    """Itself, something else, no address, nobody there, a newer one: a sentence, a status, no password."""
    assert ctl.run("--from", ctl.dsn).returncode == 2
    other = ctl.run("--from", cluster.dsn("postgres"))
    assert (other.returncode, "no table tickets" in other.stderr) == (2, True)
    wrong = ctl.run("--from", "hunter2 is=no address")
    assert (wrong.returncode, "hunter2" in wrong.stderr) == (2, False)
    away = ctl.run("--from", "postgresql://op:hunter2@127.0.0.1:1/x")
    assert (away.returncode, "hunter2" in away.stderr) == (75, False)
    older[1].query("CREATE TABLE schema_migrations (number integer)")
    older[1].query("INSERT INTO schema_migrations VALUES (9999)")
    newer = ctl.run("--from", older[0])
    assert (newer.returncode, "9999" in newer.stderr) == (78, True)
    assert ctl.counts() == [0, 0, 0, 0]
    assert "Traceback" not in other.stderr + wrong.stderr + away.stderr + newer.stderr


def test_a_row_is_parsed_as_strictly_as_a_sidecar() -> None:
    """What PostgreSQL's jsonb would refuse never gets as far as there."""
    with pytest.raises(taking.CannotTakeError, match="NUL"):
        taking.parsed('{"a": "\\u0000"}')
