"""dispatch.py: what becomes of a row, whatever the delivery does; against a real PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator import config as configuration
from orchestrator import dispatch as module
from orchestrator.delivery import Outcome, _shows
from orchestrator.dispatch import Dispatcher
from orchestrator.drivers import NotTaken
from orchestrator.errors import InvalidInput, Unavailable
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
        (InvalidInput("one line only"), "refused"),
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


@pytest.mark.parametrize(
    ("box", "text", "ours"),
    [
        ("what is\n  this", "what is this", True),
        ("👩👩👧 🏳🌈 \xe9 \ufffdrtl 漢字", "👩‍👩‍👧 🏳️‍🌈 e\u0301 \u202ertl \ufeff漢字", True),
        ("[Pasted text #1 +20 lines]", "x" * 5000, True),
        ("SLOW{30} a long onewhat is this", "what is this", False),
        ("mine", "what is this", False),
        ("👍", "what is this", False),
        ("👍", "thanks 👍", True),
    ],
)
def test_a_text_in_the_box_is_known_again(box: str, text: str, *, ours: bool) -> None:
    """As a terminal draws it: wrapped, without what has no width; anybody else's is told apart."""
    assert _shows(box, text) == ours
