"""leases.py, under a dispatcher: what it asks a real PostgreSQL is cut off on the way there or back."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import config as configuration
from orchestrator import dispatch, leases
from orchestrator.delivery import Outcome
from orchestrator.dispatch import Dispatcher
from orchestrator.drivers import NotTaken
from orchestrator.store import messages, tickets
from orchestrator.store.db import Database
from tests.unit.postgres import Cluster

TAKE, TAKE_BACK = b"pg_advisory_xact_lock", b"AS unused(lease)"
READY = b"Z\0\0\0\5I"  # ReadyForQuery, outside of a transaction: it is committed


class Wire:
    """Between a client and the server: loses the answer to one statement, or brings the statement late."""

    def __init__(self, folder: Path, server: Path) -> None:
        self.folder = folder
        self.cut, self.go, self.done = (threading.Event() for _ in range(3))
        self._server = str(server / ".s.PGSQL.5432")
        self._statement, self._late = b"", False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_at(self, statement: bytes, *, late: bool) -> None:
        """Of the next one with that text the client hears nothing; with `late` it arrives at `go`."""
        self._late, self._statement = late, statement

    def close(self) -> None:
        """Nobody else comes through."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._server)
            while True:
                for end in select.select([client, server], [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    if end is client and self._statement and self._statement in data:
                        self._statement = b""
                        self._lose(client, server, data)
                        return
                    (server if end is client else client).sendall(data)

    def _lose(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        if self._late:
            client.close()
            self.cut.set()
            assert self.go.wait(30)
        server.sendall(data)
        answer = b""
        while not answer.endswith(READY):
            answer += server.recv(65536)
        self.cut.set()
        self.done.set()


@dataclass
class Heard:
    """A delivery that writes down what it was given, and holds it where it should."""

    bodies: list[str] = field(default_factory=list)
    refuses: list[Exception] = field(
        default_factory=list
    )  #: one each, before anything is written down
    holds: set[str] = field(default_factory=set)
    let_go: threading.Event = field(default_factory=threading.Event)

    def obstacle(self, _worker: Any) -> None:
        """Nothing is in the way."""

    def send(self, _worker: Any, body: str, _key: str) -> Outcome:
        """Confirmed."""
        if self.refuses:
            raise self.refuses.pop()
        self.bodies.append(body)
        assert body not in self.holds or self.let_go.wait(30)
        return Outcome("confirmed")


@dataclass
class Bench:
    """A dispatcher behind the wire, and the database without it."""

    dispatcher: Dispatcher
    heard: Heard
    wire: Wire
    database: Database
    ticket: int

    def say(self, body: str, ticket: int | None = None) -> int:
        """A message's number."""
        return messages.enqueue(self.database, ticket or self.ticket, body).id

    def outcome(self, message: int) -> str:
        """What became of it."""
        found = messages.get(self.database, message)
        assert found is not None
        return found.outcome

    def round(self) -> bool:
        """One, with all that is sent in it."""
        waiting = self.dispatcher.round()
        wait_until(lambda: not self.dispatcher._sending)
        return waiting

    def rounds(self) -> None:
        """Until nothing waits."""
        wait_until(lambda: not self.round())


def wait_until(condition: Callable[[], bool]) -> None:
    """Within ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def bench(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Bench]:
    """One message at a time, or joined with True as its parameter."""

    @dataclass
    class Worker:
        ticket: Any

    monkeypatch.setattr(dispatch, "worker_of", lambda _config, found: Worker(found))
    monkeypatch.setattr(leases, "LOOK_S", 0.0)
    config = configuration.load({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})
    config = replace(
        config, dispatch=replace(config.dispatch, joined=getattr(request, "param", False))
    )
    wire = Wire(tmp_path, cluster.folder)
    behind = Database(database._dsn.replace(str(cluster.folder), str(tmp_path)))
    dispatcher, heard = Dispatcher(config, behind), Heard()
    monkeypatch.setattr(dispatcher, "_delivery", heard)
    ticket = tickets.create(database, title="t").id
    yield Bench(dispatcher, heard, wire, database, ticket)
    heard.let_go.set()
    wire.go.set()
    dispatcher._pool.shutdown()
    behind.close()
    wire.close()


@pytest.mark.parametrize(
    ("bench", "sent"), [(False, ["one", "two"]), (True, ["one\n\ntwo"])], indirect=["bench"]
)
def test_a_take_whose_answer_is_lost_is_taken_back(bench: Bench, sent: list[str]) -> None:
    """It was committed, and nothing left: the next round sends it, in its order and once."""
    first, second = bench.say("one"), bench.say("two")
    bench.wire.cut_at(TAKE, late=False)
    assert bench.round()
    assert bench.wire.done.is_set()
    assert bench.outcome(first) == "sent"
    assert bench.heard.bodies == []
    bench.rounds()
    assert bench.heard.bodies == sent
    assert [bench.outcome(m) for m in (first, second)] == ["confirmed", "confirmed"]


def test_a_take_that_is_carried_out_late_is_taken_back(bench: Bench) -> None:
    """Of what came since, after another take had sent the first."""
    bench.say("one")
    bench.wire.cut_at(TAKE, late=True)
    bench.rounds()
    assert bench.heard.bodies == ["one"]
    second = bench.say("two")
    bench.wire.go.set()
    assert bench.wire.done.wait(10)
    assert bench.outcome(second) == "sent"
    bench.rounds()
    assert bench.heard.bodies == ["one", "two"]
    assert bench.outcome(second) == "confirmed"


def test_what_is_on_its_way_stays_so_when_a_take_is_lost(bench: Bench) -> None:
    """Another ticket's take is lost meanwhile, and taken back alone."""
    bench.heard.holds.add("one")
    first = bench.say("one")
    bench.dispatcher.round()
    wait_until(lambda: bench.heard.bodies == ["one"])
    other = tickets.create(bench.database, title="other").id
    second = bench.say("two", other)
    bench.wire.cut_at(TAKE, late=False)
    bench.dispatcher.round()
    assert bench.wire.done.wait(10)
    wait_until(lambda: bench.dispatcher.round() and bench.outcome(second) == "confirmed")
    assert bench.outcome(first) == "sent"
    bench.heard.let_go.set()
    bench.rounds()
    assert bench.outcome(first) == "confirmed"
    assert bench.heard.bodies == ["one", "two"]


@pytest.mark.parametrize("late", [False, True])
def test_what_is_taken_back_is_so_once(bench: Bench, *, late: bool) -> None:
    """The agent took nothing of it, and the word of that was lost: it does not hit what is sent by then."""
    bench.heard.refuses.append(NotTaken("the agent is not there"))
    bench.heard.holds.add("one")
    message = bench.say("one")
    bench.wire.cut_at(TAKE_BACK, late=late)
    assert bench.round()
    assert bench.wire.cut.is_set()
    assert bench.outcome(message) == ("sent" if late else "queued")
    bench.dispatcher.round()
    wait_until(lambda: bench.heard.bodies == ["one"])
    bench.wire.go.set()
    assert bench.wire.done.wait(10)
    bench.dispatcher.round()
    assert bench.outcome(message) == "sent"
    bench.heard.let_go.set()
    bench.rounds()
    assert bench.outcome(message) == "confirmed"
    assert bench.heard.bodies == ["one"]


def test_a_name_that_never_turns_up_is_forgotten(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some time after the database answered; one that turned up, at once."""
    ours = bench.dispatcher._leases
    names = [ours.name(), ours.name()]
    bench.say("one")
    assert messages.take(bench.database, bench.ticket, names[0])
    for name in names:
        ours.nothing_left(name)
    ours.take_back()
    assert list(ours._unused) == names[1:]
    monkeypatch.setattr(leases, "LATE_S", 0.0)
    ours.take_back()
    ours.take_back()
    assert not ours._unused
