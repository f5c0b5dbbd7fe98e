"""dispatch.py: what becomes of a row, whatever the delivery does; against a real PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator import config as configuration
from orchestrator import dispatch as module
from orchestrator.delivery import Outcome
from orchestrator.dispatch import Dispatcher
from orchestrator.drivers import NotTaken
from orchestrator.errors import Unavailable
from orchestrator.store import messages, tickets
from orchestrator.store.db import Database


@dataclass
class Told:
    """A delivery that does as it is told."""

    does: Outcome | Exception

    def obstacle(self, _worker: Any) -> None:
        """Nothing is in the way."""

    def send(self, _worker: Any, _body: str, _key: str) -> Outcome:
        """The outcome, or the error."""
        if isinstance(self.does, Exception):
            raise self.does
        return self.does


@pytest.mark.parametrize(
    ("does", "outcome"),
    [
        (Outcome("confirmed"), "confirmed"),
        (Outcome("sent", "confirms nothing"), "sent"),
        (NotTaken("the agent is not there"), "queued"),
        (Unavailable("tmux did not answer"), "unconfirmed"),
        (RuntimeError("a surprise"), "unconfirmed"),
    ],
)
def test_what_becomes_of_a_message(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    does: Outcome | Exception,
    outcome: str,
) -> None:
    """Queued again only where certainly nothing arrived; a surprise in between is unconfirmed."""
    config = configuration.load({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})
    ticket = tickets.create(database, title="t")
    message = messages.enqueue(database, ticket.id, "hello").id

    @dataclass
    class Worker:
        ticket: Any

    monkeypatch.setattr(module, "worker_of", lambda _config, found: Worker(found))
    dispatcher = Dispatcher(config, database)
    monkeypatch.setattr(dispatcher, "_delivery", Told(does))
    dispatcher._send_next(ticket.id)
    found = messages.get(database, message)
    assert found is not None
    assert found.outcome == outcome
    # what is queued again can be claimed again, and nothing else can
    assert bool(messages.claim(database, ticket.id, "another")) == (outcome == "queued")
