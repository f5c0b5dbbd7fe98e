"""turns.py: which events a look takes in, whatever order they commit in; against a real PostgreSQL."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from orchestrator.store import events, tickets
from orchestrator.store.db import Database
from tests.unit.postgres import Cluster
from webgate import turns as module
from webgate.turns import Turns

_INSERT = "INSERT INTO ticket_events (ticket_id, kind) VALUES (%s, %s)"


def make(database: Database) -> int:
    """A ticket."""
    return tickets.create(database, title="t").id


def count(turns: Turns) -> int:
    """Turns that ended."""
    return dict(turns.buckets())["+Inf"]


def looks(turns: Turns, database: Database) -> int:
    """How many turns are known when nobody writes."""
    turns.look(database)
    turns.look(database)
    return count(turns)


@pytest.mark.parametrize("late", ["user_prompt", "turn_end"])
def test_an_event_that_commits_late_is_seen(database: Database, late: str) -> None:
    """Others with larger numbers were there before it: its turn is neither missed nor without an end."""
    turns, ticket, other = Turns(), make(database), make(database)
    turns.look(database)
    if late == "turn_end":
        events.record(database, ticket, "user_prompt")
    with database.transaction() as cursor:
        cursor.execute(_INSERT, (ticket, late))
        events.record(database, other, "user_prompt")
        for _ in range(3):
            turns.look(database)
    if late == "user_prompt":
        events.record(database, ticket, "turn_end")
    assert looks(turns, database) == 1
    events.record(database, other, "turn_end")
    assert looks(turns, database) == 2


def test_who_came_later_holds_nothing_up(database: Database) -> None:
    """Though at every look somebody is adding events: each turn is counted two looks after it was stored."""
    turns, ticket = Turns(), make(database)
    turns.look(database)
    adding = ExitStack()
    for number in range(6):
        another = ExitStack()
        cursor = another.enter_context(database.transaction())
        cursor.execute(_INSERT, (ticket, "message_taken"))
        cursor.execute(_INSERT, (ticket, "result"))
        adding.close()  # the one before commits
        adding = another
        turns.look(database)
        assert count(turns) == max(0, number - 1)
    adding.close()
    assert looks(turns, database) == 6


def test_a_table_of_another_database_holds_nothing_up(database: Database, cluster: Cluster) -> None:
    """It has the same number there: both were made from one template."""
    turns, ticket = Turns(), make(database)
    other = Database(cluster.create_database())
    foreign = make(other)
    turns.look(database)
    with other.transaction() as cursor:
        cursor.execute(_INSERT, (foreign, "state"))
        events.record(database, ticket, "user_prompt")
        events.record(database, ticket, "turn_end")
        assert events.writers(other)
        assert looks(turns, database) == 1
    other.close()


def test_a_database_that_was_restored_begins_anew(database: Database, cluster: Cluster) -> None:
    """Its numbers went back: what was counted stays, a turn that began before is forgotten."""
    turns, ticket = Turns(), make(database)
    turns.look(database)
    for kind in ("user_prompt", "turn_end", "user_prompt"):
        events.record(database, ticket, kind)
    assert looks(turns, database) == 1
    events.record(database, ticket, "state")
    turns.look(database)
    restored = Database(cluster.create_database())
    assert make(restored) == ticket
    assert looks(turns, restored) == 1
    for kind in ("turn_end", "user_prompt", "turn_end"):
        events.record(restored, ticket, kind)
    assert looks(turns, restored) == 2
    restored.close()


def test_a_long_time_is_taken_in_by_several_looks(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many events each, and none is left out."""
    monkeypatch.setattr(module, "MAX_EVENTS", 4)
    turns, ticket = Turns(), make(database)
    turns.look(database)
    for _ in range(5):
        events.record(database, ticket, "user_prompt")
        events.record(database, ticket, "turn_end")
    assert looks(turns, database) == 2
    turns.look(database)
    assert count(turns) == 4
    turns.look(database)
    assert count(turns) == 5
