"""store/: against a real PostgreSQL."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import psycopg2.errors
import pytest

from orchestrator.errors import ConfigError, Conflict, InvalidInput, NoSuchTicket, Unavailable
from orchestrator.store import db, events, ingestion, logins, messages, tickets
from orchestrator.store.db import Database, Listener
from orchestrator.store.ingestion import EventRow, Finish, PoisonRow, Position, TicketFacts
from orchestrator.store.migrate import ensure_schema, known
from tests.unit.postgres import Cluster


def make(database: Database, **values: str) -> int:
    """A ticket of any kind."""
    return tickets.create(database, title="t", **values).id  # type: ignore[arg-type]


def test_migrations_run_once(database: Database) -> None:
    """A second run applies nothing; twenty at once apply each once."""
    assert ensure_schema(database) == []
    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(lambda _: ensure_schema(database), range(20))) == [[]] * 20


def test_a_newer_database_is_refused(database: Database) -> None:
    """An older program must not write into a newer schema."""
    database.query("INSERT INTO schema_migrations (number, name) VALUES (9999, 'from_the_future')")
    with pytest.raises(ConfigError, match="9999"):
        ensure_schema(database)


def test_migrations_are_numbered_without_a_gap(tmp_path: Path) -> None:
    """0001, 0002, …: a gap would be a migration that was lost."""
    assert [m.number for m in known()] == list(range(1, len(known()) + 1))
    (tmp_path / "notes.txt").touch()
    assert known(tmp_path) == []


def test_a_ticket_is_what_was_said(database: Database) -> None:
    """Title, prompt and the rest come back as they went in, whatever they hold."""
    made = tickets.create(
        database,
        title=" '); DROP TABLE tickets; -- ",
        prompt="a\nb 漢",
        driver="command",
        command=["a b", "'"],
    )
    read = tickets.get(database, made.id)
    assert read == made
    assert (read.title, read.prompt, read.command) == (
        "'); DROP TABLE tickets; --",
        "a\nb 漢",
        ("a b", "'"),
    )
    assert (read.status, read.turn_state, read.kind) == ("open", "gone", "chat")


@pytest.mark.parametrize(
    "values",
    [
        {"title": " "},
        {"title": "x" * 501},
        {"title": "a\0b"},
        {"title": "t", "prompt": "x" * 100_001},
        {"title": "t", "kind": "code"},
    ],
)
def test_what_is_no_ticket_is_refused(database: Database, values: dict[str, str]) -> None:
    """Empty, too long, NUL, code without a repository."""
    with pytest.raises(InvalidInput):
        tickets.create(database, **values)  # type: ignore[arg-type]
    assert tickets.list_all(database) == []


def test_a_number_of_ones_own_does_not_block_the_next(database: Database) -> None:
    """--id 2 made by hand, then two without: 1 and 3; the same number twice is refused."""
    assert tickets.create(database, title="t", ticket=2).id == 2
    assert [make(database), make(database)] == [1, 3]
    with pytest.raises(InvalidInput, match="exists already"):
        tickets.create(database, title="t", ticket=2)


def test_nothing_is_updated_that_is_not_there(database: Database) -> None:
    """No such ticket is said; a column that does not exist is our own mistake."""
    with pytest.raises(NoSuchTicket):
        tickets.update(database, 5, status="open")
    with pytest.raises(AssertionError):
        tickets.update(database, 5, id=7)


@pytest.mark.parametrize(
    "body", ["", " \n", "a\x1b[201~", "nul\0", "\x9b", "x" * 1_000_001, "\ud800"]
)
def test_what_no_terminal_should_get_is_refused(database: Database, body: str) -> None:
    """Empty, control characters, too long, half a surrogate pair: before anything is stored."""
    ticket = make(database)
    with pytest.raises(InvalidInput):
        messages.enqueue(database, ticket, body)
    assert messages.of_ticket(database, ticket) == []


def test_a_message_is_taken_by_one(database: Database) -> None:
    """Twenty dispatchers ask at once: one gets the oldest, nobody the next before that is settled."""
    ticket = make(database)
    first, second = (messages.enqueue(database, ticket, text).id for text in ("one", "two"))
    with ThreadPoolExecutor(20) as pool:
        got = list(pool.map(lambda n: messages.take(database, ticket, f"d{n}"), range(20)))
    taken = [m for found in got for m in found]
    assert [m.id for m in taken] == [first]
    assert [m.outcome for m in taken] == ["sent"]
    assert messages.take_back(database, ["somebody else's"]) == set()
    assert messages.get(database, first).outcome == "sent"  # type: ignore[union-attr]
    assert messages.take(database, ticket, "d0") == []
    messages.settle(database, [first], "confirmed")
    assert [m.id for m in messages.take(database, ticket, "d0")] == [second]


def test_what_was_being_sent_is_never_sent_again(database: Database) -> None:
    """A dispatcher that died in between leaves `unconfirmed`, and the next message may go."""
    ticket = make(database)
    first, second = (messages.enqueue(database, ticket, text).id for text in ("one", "two"))
    assert messages.take(database, ticket, "dead")
    assert messages.give_up_stale(database, "alive") == [first]
    assert messages.give_up_stale(database, "alive") == []
    outcomes = {m.id: m.outcome for m in messages.of_ticket(database, ticket)}
    assert outcomes == {first: "unconfirmed", second: "queued"}
    messages.settle(database, [first], "confirmed")  # the dead one, late: what was said stands
    assert messages.get(database, first).outcome == "unconfirmed"  # type: ignore[union-attr]


def test_what_never_left_is_queued_again_by_the_name_it_was_taken_under(database: Database) -> None:
    """All of a joined take, in order; however late that is carried out, not what was taken anew since."""
    ticket = make(database)
    ids = [
        messages.enqueue(database, ticket, text, urgent=urgent).id
        for text, urgent in (("one", False), ("two", False), ("now", True))
    ]
    lost, anew = (messages.lease_of("me", number) for number in (1, 11))
    assert len(messages.take(database, ticket, lost, joined=True)) == 3
    assert not messages.cancel(database, ids[0])
    assert messages.give_up_stale(database, "me") == []  # its own, after the database was away
    assert messages.take_back(database, [lost, anew]) == {lost}
    assert messages.cancel(database, ids[0])  # its author was quicker
    again = messages.take(database, ticket, anew, joined=True)
    assert [m.body for m in again] == ["now", "two"]
    assert messages.take_back(database, [lost]) == set()
    assert {m.outcome for m in messages.of_ticket(database, ticket)} == {"refused", "sent"}
    assert sorted(messages.give_up_stale(database, "another")) == ids[1:]
    assert messages.take_back(database, [anew]) == set()  # it was given up: nobody can know


def test_what_an_older_dispatcher_had_only_claimed_is_free_at_once(database: Database) -> None:
    """Nothing of it was sent: the next dispatcher takes it, whatever the clock says of the lease."""
    ticket = make(database)
    first = messages.enqueue(database, ticket, "one").id
    database.query(
        "UPDATE queued_messages SET lease_owner = 'dead', lease_until = now() + interval '1 hour'"
    )
    assert not messages.take(database, ticket, "alive")
    assert messages.give_up_stale(database, "alive") == []
    assert [m.id for m in messages.take(database, ticket, "alive")] == [first]


def test_what_came_of_a_message_is_behind_it(database: Database) -> None:
    """By the order of events, not by their time: `sent_after` is the newest one at that moment."""
    ticket = make(database)
    events.record(database, ticket, "turn_end", n=0)
    message = messages.enqueue(database, ticket, "one").id
    assert messages.take(database, ticket, "me")
    database.query("UPDATE ticket_events SET at = at + interval '1 hour'")  # the clock was set back
    events.record(database, ticket, "user_prompt", n=1)
    events.record(database, ticket, "turn_end", n=2)
    sent = messages.get(database, message)
    assert sent is not None
    assert sent.sent_after is not None
    found = events.of_kinds_after(
        database, ticket, sent.sent_after, ["user_prompt", "turn_end"], limit=9
    )
    assert [event.data["n"] for event in found] == [1, 2]


def test_a_closed_ticket_takes_no_message(database: Database) -> None:
    """Nor one that does not exist."""
    ticket = make(database)
    tickets.update(database, ticket, status="closed")
    for number in (ticket, 999):
        with pytest.raises(Conflict):
            messages.enqueue(database, number, "hello")


def test_a_login_link_opens_once(database: Database) -> None:
    """The code becomes a session one time; a wrong or an old one never; logging out ends it."""
    code = logins.create_link(database)
    secret = logins.redeem_link(database, code)
    assert secret is not None
    assert logins.redeem_link(database, code) is None
    assert logins.find_session(database, secret) is not None
    assert logins.find_session(database, code) is None
    assert logins.redeem_link(database, logins.create_link(database, valid_s=-1)) is None
    logins.end_session(database, secret)
    assert logins.find_session(database, secret) is None


def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    """An exception in the block takes back what was done in it."""
    with pytest.raises(ZeroDivisionError), database.transaction() as cursor:
        cursor.execute("INSERT INTO login_links VALUES ('x', now())")
        1 / 0  # noqa: B018
    assert database.query("SELECT * FROM login_links") == []


def test_rows_have_the_names_of_their_columns(database: Database) -> None:
    """However they are fetched, and from a cursor the server keeps too."""
    numbers = "SELECT n, n * 2 AS twice FROM generate_series(1, 5) AS n"
    expected = [{"n": n, "twice": n * 2} for n in range(1, 6)]
    with database.transaction() as cursor:
        cursor.execute(numbers)
        assert [cursor.fetchone(), *cursor.fetchmany(2), *cursor.fetchall()] == expected
        assert cursor.fetchone() is None
        cursor.execute(numbers)
        assert cursor.fetchmany() == expected[:1]
        assert list(cursor) == expected[1:]
        with cursor.connection.cursor("kept") as kept:
            kept.itersize = 2
            kept.execute(numbers)
            assert [kept.fetchone(), *kept] == expected


def test_what_is_sent_at_once_is_all_or_nothing(database: Database) -> None:
    """Also on the connection that the next transaction gets, which is one again."""
    ticket = make(database)
    with pytest.raises(psycopg2.errors.DivisionByZero):
        database.query("UPDATE tickets SET title = 'changed'; SELECT 1/0")
    assert tickets.get(database, ticket).title == "t"
    database.query("SELECT 1")
    with pytest.raises(ZeroDivisionError), database.transaction() as cursor:
        cursor.execute("UPDATE tickets SET title = 'changed'")
        raise ZeroDivisionError
    assert tickets.get(database, ticket).title == "t"


def test_only_so_many_transactions_at_a_time(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit the next one waits for a place, and is told when none becomes free."""
    monkeypatch.setattr(db, "PLACE_TIMEOUT_S", 0.2)
    limited = Database(cluster.create_database(), max_open=2)
    with limited.transaction(), limited.transaction(), pytest.raises(Unavailable, match="too much"):
        limited.query("SELECT 1")
    with pytest.raises(ZeroDivisionError), limited.transaction():
        raise ZeroDivisionError
    threads = [threading.Thread(target=limited.query, args=("SELECT 1",)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limited.query("SELECT 1 AS one") == [{"one": 1}]
    limited.close()


def test_a_server_that_is_away_is_unavailable(tmp_path: Path) -> None:
    """No socket there: Unavailable with a hint, at once."""
    with pytest.raises(Unavailable, match="does not answer"):
        Database(f"host={tmp_path} dbname=x").query("SELECT 1")


def test_a_cut_connection_is_replaced(database: Database) -> None:
    """The next transaction after a server restart is a new connection, and nobody notices."""
    database.query("SELECT 1")
    other = Database(database._dsn)
    other.query(
        # with a timeout it waits until the backend has gone
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert database.query("SELECT 1 AS one") == [{"one": 1}]


def test_listen_hears_what_commits(database: Database) -> None:
    """A new message wakes whoever listens; a roll-back wakes nobody; silence ends at the timeout."""
    ticket = make(database)
    listener = Listener(database, ["mc_messages", "mc_workers"])
    assert listener.wait(0.01) == []
    threading.Timer(0.05, messages.enqueue, [database, ticket, "hello"]).start()
    assert listener.wait(10) == [("mc_messages", str(ticket))]
    tickets.update(database, ticket, turn_state="busy")
    assert listener.wait(0.05) == []
    tickets.update(database, ticket, worker_pid=5)
    assert listener.wait(10) == [("mc_workers", str(ticket))]
    listener.close()


def test_an_advisory_lock_is_had_by_one(database: Database) -> None:
    """The second does not get it, until the first is gone."""
    first, second = Listener(database, []), Listener(database, [])
    assert first.try_lock(7)
    assert not second.try_lock(7)
    first.close()
    # the server lets go of it when its backend has read the end of the connection
    deadline = time.monotonic() + 10
    while not second.try_lock(7):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    second.close()


def batch(database: Database, ticket: int, before: Position, offset: int, *offsets: int) -> bool:
    """Stores events at `offsets`, up to `offset`."""
    rows = [EventRow(kind="other", at=datetime.now(UTC), text="{}", offset=o) for o in offsets]
    return stored(database, ticket, before, offset, rows)


def stored(
    database: Database, ticket: int, before: Position, offset: int, rows: list[EventRow]
) -> bool:
    """The same, with the rows as they are."""
    facts = TicketFacts(
        cost_usd=Decimal(0), input_tokens=0, output_tokens=0, session_id="", last_sign_at=None
    )
    end = Finish(
        after=Position(offset=offset, identity="i"),
        poisons=[PoisonRow(offset=99, end=100, hook="", reason="r")],
        facts=facts,
    )
    return ingestion.store_batch(
        database, ticket=ticket, source="s", before=before, generation=0, events=rows,
        finish=lambda: end,
    )  # fmt: skip


@pytest.mark.parametrize("count", [1, ingestion.COPY_FROM - 1, ingestion.COPY_FROM, 3000])
def test_few_and_many_arrive_as_they_are(database: Database, count: int) -> None:
    """By INSERT or by COPY: what PostgreSQL reads is what was written, byte for byte of its meaning."""
    ticket = make(database)
    odd = [
        "\\",
        "\\.",
        "\t\n\r",
        "\\N",
        "a  b",
        '"',
        "naïve 漢字 👩‍👩‍👧",
        "\x7f",
        "'; DROP TABLE tickets;",
        "%s",
    ]
    texts = [f'{{ "n" :\t{n},\r"x": {json.dumps(odd[n % len(odd)])} }}' for n in range(count)]
    at = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [EventRow(kind="other", at=at, text=text, offset=n) for n, text in enumerate(texts)]
    assert stored(database, ticket, Position(), count, rows)
    found = database.query("SELECT * FROM ticket_events ORDER BY id")
    assert [row["data"] for row in found] == [json.loads(text) for text in texts]
    assert [row["source_offset"] for row in found] == list(range(count))
    assert {(row["ticket_id"], row["kind"], row["at"], row["source"]) for row in found} == {
        (ticket, "other", at, "s")
    }


def test_a_position_set_back_by_hand_doubles_nothing(database: Database) -> None:
    """What is there is passed over, what is new is stored: in few rows as in many."""
    ticket = make(database)
    assert batch(database, ticket, Position(), 100, *range(100))
    for upto in (150, 155):
        database.query("UPDATE ingest_positions SET \"offset\" = 50 WHERE source = 's'")
        assert batch(database, ticket, Position(offset=50), upto, *range(50, upto))
    database.query("UPDATE ingest_positions SET \"offset\" = 150 WHERE source = 's'")
    assert batch(database, ticket, Position(offset=150), 160, *range(150, 160))
    found = database.query("SELECT source_offset FROM ticket_events ORDER BY source_offset")
    assert [row["source_offset"] for row in found] == list(range(160))


def test_listeners_hear_once_a_batch(database: Database) -> None:
    """However many rows: one word for each ticket; none from a batch that was not stored."""
    ticket = make(database)
    listener = Listener(database, ["mc_events"])
    assert batch(database, ticket, Position(), 1000, *range(1000))
    assert listener.wait(10) == [("mc_events", str(ticket))]
    assert not batch(database, ticket, Position(), 1000, *range(1000))
    assert listener.wait(0.05) == []
    listener.close()


def test_a_batch_is_stored_once(database: Database) -> None:
    """From a position that is not the stored one nothing is written: somebody else was faster."""
    ticket = make(database)
    assert batch(database, ticket, Position(), 20, 0, 10)
    assert not batch(database, ticket, Position(), 20, 0, 10)
    position = ingestion.position(database, "s")
    assert (position.generation, position.offset, position.identity) == (0, 20, "i")
    assert batch(database, ticket, position, 30, 20)
    assert database.query("SELECT count(*) FROM ticket_events") == [{"count": 3}]
    assert database.query("SELECT count(*) FROM quarantine") == [{"count": 1}]


def test_a_turn_state_is_written_when_it_changes(database: Database) -> None:
    """A transition is an event with its evidence; the same state again is none."""
    ticket = make(database)
    assert ingestion.set_turn_state(database, ticket, "busy", "because") == "gone"
    assert ingestion.set_turn_state(database, ticket, "busy", "still") is None
    assert ingestion.last_event(database, ticket, ["state"]) == (
        "state",
        {"from": "gone", "to": "busy", "evidence": "because"},
    )
