"""ingest.py: every complete line recorded once, through tears, restarts, rotation and poison."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from orchestrator import config as configuration
from orchestrator import ingest as module
from orchestrator.config import Config
from orchestrator.ingest import Followed, Ingest
from orchestrator.sidecar import append
from orchestrator.store import events, tickets
from orchestrator.store.db import Database
from tests.unit.postgres import Cluster

POISON = [
    b'{"v":1,"at":"2026-01-01T00:00:00Z","hook":"statusLine","data":{"cost":{"total_cost_usd":-1}}}\n',
    b'{"v":1,"at":"2026-01-01T00:00:00Z","hook":"Stop","data":{"x":1e-99999}}\n',
    b"not json\n", b'{"v":1,"at":"2026-01-01T00:00:00Z","hook":"Stop","data":{"x":NaN}}\n', b"[]\n", b"\n",
    b'{"v":1,"at":"2026-01-01T00:00:00Z","hook":"Stop","data":{"x":"\\u0000"}}\n', b"\xff\xfe\n",
    b'{"v":1,"at":"2026-01-01T00:00:00Z","hook":"Stop","data":{"x":1e999}}\n', b"[" * 5000 + b"\n",
    b'{"v":1,"at":"2026-01-01T00:00:00Z","hook":"Stop","data":{"x":"\\ud800"}}\n', b"9" * 5000 + b"\n",
]  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A home of the test's own."""
    return configuration.load({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})


def ticket_with_sidecar(config: Config, database: Database) -> Followed:
    """A ticket whose folder is there."""
    number = tickets.create(database, title="t").id
    paths = config.ticket_paths(number)
    paths.folder.mkdir(parents=True)
    return Followed(number, paths.sidecar_path)


def line(number: int) -> bytes:
    """A line that says which it is."""
    head = f'{{"v":1,"at":"2026-01-01T00:00:{number % 60:02}.{number:06}Z","hook":"Note","data":{{"n":{number}}}}}'
    return head.encode() + b"\n"


def stored(database: Database) -> list[int]:
    """Which lines are events, in order."""
    rows = database.query("SELECT data FROM ticket_events WHERE kind = 'other' ORDER BY id")
    return [row["data"]["n"] for row in rows]


def drain(ingest: Ingest, followed: Followed) -> None:
    """Reads on until there is no more."""
    while ingest.read_on(followed):
        pass


class SidecarMachine(RuleBasedStateMachine):
    """A sidecar that is written, torn, rotated, truncated, and read by two that die at will."""

    cluster: Cluster
    home: Path

    @initialize()
    def begin(self) -> None:
        """A fresh ticket, two ingesters."""
        self.database = Database(self.cluster.create_database())
        home = self.home / os.urandom(4).hex()
        self.config = configuration.load({"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run")})
        self.followed = ticket_with_sidecar(self.config, self.database)
        self.path = self.followed.path
        self.number = 0
        self.valid: list[int] = []  #: complete lines, in the order they were written
        self.poison = 0
        self.torn = b""
        self.unread: list[tuple[str, int]] = []
        self.readers = [
            (Ingest(self.config, self.database), Followed(self.followed.ticket, self.path))
            for _ in range(2)
        ]

    def write(self, data: bytes) -> None:
        """Appends bytes as they are."""
        with self.path.open("ab") as file:
            file.write(data)

    def finish(self) -> None:
        """Completes a torn line, if there is one."""
        if self.torn:
            self.write(self.torn)
            self.torn = b""
            self.valid.append(self.number)

    @rule(count=st.integers(1, 30))
    def whole_lines(self, count: int) -> None:
        """Several lines in one write."""
        self.finish()
        numbers = list(range(self.number + 1, self.number + 1 + count))
        self.number += count
        self.write(b"".join(line(n) for n in numbers))
        self.valid += numbers

    @rule(at=st.integers(1, 60))
    def torn_line(self, at: int) -> None:
        """The first bytes of a line; the rest comes later."""
        self.finish()
        self.number += 1
        data = line(self.number)
        self.write(data[:at])
        self.torn = data[at:]

    @rule(which=st.sampled_from(POISON))
    def poison_line(self, which: bytes) -> None:
        """A line that cannot be used."""
        self.finish()
        self.write(which)
        self.poison += 1

    @rule(reader=st.integers(0, 1))
    def read_a_batch(self, reader: int) -> None:
        """One of the two reads on."""
        ingest, followed = self.readers[reader]
        ingest.read_on(followed)

    @rule(reader=st.integers(0, 1))
    def restart(self, reader: int) -> None:
        """One of the two is killed and started again: it knows nothing."""
        self.readers[reader] = (
            Ingest(self.config, self.database),
            Followed(self.followed.ticket, self.path),
        )

    @rule(how=st.sampled_from(["rotate", "truncate", "recreate"]))
    def another_file(self, how: str) -> None:
        """Everything read, then the file is another one: moved away, cut to nothing, deleted and made anew."""
        self.finish()
        self.all_is_read()
        if how == "truncate":
            self.path.open("wb").close()
        elif self.path.exists():
            if how == "rotate":
                self.path.rename(self.path.with_suffix(f".{self.number}.{self.poison}"))
            else:
                self.path.unlink()
            self.path.touch()

    def all_is_read(self) -> None:
        """What is complete is stored once, in order; poison is counted apart."""
        drain(*self.readers[0])
        assert stored(self.database) == self.valid
        assert self.database.query("SELECT count(*) FROM quarantine") == [{"count": self.poison}]

    @invariant()
    def nothing_is_doubled(self) -> None:
        """At any moment: a prefix of what was written."""
        if hasattr(self, "database") and self.database:
            found = stored(self.database)
            assert found == self.valid[: len(found)]

    def teardown(self) -> None:
        """At the end everything is there."""
        if hasattr(self, "database"):
            try:
                self.finish()
                self.all_is_read()
            finally:
                self.database.close()


@pytest.mark.fault(1, 13, 14)
def test_every_line_once_whatever_happens(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes, tears, poison, rotation, truncation, restarts and two readers in any order."""
    monkeypatch.setattr(module, "BATCH_LINES", 7)  # so that a few lines are several batches
    SidecarMachine.cluster, SidecarMachine.home = cluster, tmp_path
    few = settings(
        max_examples=25,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(SidecarMachine, settings=few)  # type: ignore[no-untyped-call]


def test_cost_and_conversation_reach_the_ticket(config: Config, database: Database) -> None:
    """What the lines add up to is on the ticket, exact, in the same transaction."""
    followed = ticket_with_sidecar(config, database)
    session = "5a3885d6-6d86-44f5-b6ca-624a3c95b6cf"
    said: list[tuple[str, dict[str, Any]]] = [
        ("WorkerStart", {"resumed": False}),
        ("statusLine", {"cost": {"total_cost_usd": 0.1}}),
        ("SessionStart", {"session_id": session, "source": "clear"}),
        ("WorkerStart", {"resumed": True}),
        ("statusLine", {"cost": {"total_cost_usd": 0.05}}),
        ("statusLine", {"cost": {"total_cost_usd": 0.25}}),
    ]
    for hook, data in said:
        append(followed.path, hook, data)
        drain(Ingest(config, database), Followed(followed.ticket, followed.path))
    ticket = tickets.get(database, followed.ticket)
    assert (ticket.cost_usd, ticket.session_id) == (Decimal("0.3"), session)


def test_an_endless_line_is_bounded(config: Config, database: Database) -> None:
    """20 MB without a newline, then a line: quarantined, and the line is read."""
    followed = ticket_with_sidecar(config, database)
    with followed.path.open("wb") as file:
        for _ in range(20):
            file.write(b"x" * 1_000_000)
        file.write(b"\n" + line(1))
    drain(Ingest(config, database), followed)
    assert stored(database) == [1]
    rows = database.query('SELECT "offset", "end", reason FROM quarantine')
    assert rows[0]["offset"] == 0
    assert rows[-1]["end"] == 20_000_001


@pytest.mark.fault(19)
def test_the_order_is_the_files_whatever_the_clock_says(config: Config, database: Database) -> None:
    """Fault 19: an hour forward and an hour back; rows, state and last sign go by the offset."""
    followed = ticket_with_sidecar(config, database)
    jumps = [0, 3600, 1, -3599, 7200, 2, 3]
    begun = datetime(2026, 1, 1, 12, tzinfo=UTC)
    for number, jump in enumerate(jumps):
        at = (begun + timedelta(seconds=jump)).isoformat()
        text = f'{{"v":1,"at":"{at}","hook":"Note","data":{{"n":{number}}}}}\n'
        with followed.path.open("a", encoding="utf-8") as file:
            file.write(text)
        drain(Ingest(config, database), Followed(followed.ticket, followed.path))
    assert stored(database) == list(range(len(jumps)))
    newest = events.newest(database, followed.ticket, ["other"])
    assert newest is not None
    assert newest.data["n"] == len(jumps) - 1
    assert tickets.get(database, followed.ticket).last_sign_at == begun + timedelta(seconds=3)


def test_no_file_is_no_error(config: Config, database: Database) -> None:
    """A ticket that has not run: nothing to read, nothing stored."""
    followed = ticket_with_sidecar(config, database)
    assert not Ingest(config, database).read_on(followed)
    assert json.loads(json.dumps(stored(database))) == []
