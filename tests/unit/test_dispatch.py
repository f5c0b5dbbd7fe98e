"""dispatch.py: what becomes of a row, whatever the delivery does; against a real PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator import config as configuration
from orchestrator import dispatch as module
from orchestrator.delivery import MAX_WHOLE_CHARS, Outcome, _is_whole, _shows
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
    # what is queued again can be taken again, and nothing else can
    assert bool(messages.take(database, ticket.id, "another")) == (outcome == "queued")


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


@pytest.mark.parametrize(
    ("box", "text", "whole"),
    [
        ("what is\n  this", "what is this", True),
        ("what is", "what is this", False),
        ("is this", "what is this", False),
        ("what is this and more", "what is this", False),
        ("", "what is this", False),
        (None, "what is this", False),
        ("[Pasted text #1 +20 lines]", "x" * 5000, False),
        ("x" * MAX_WHOLE_CHARS, "x" * MAX_WHOLE_CHARS, True),
        ("x" * (MAX_WHOLE_CHARS + 1), "x" * (MAX_WHOLE_CHARS + 1), False),
        ("", " ", False),
        ("👍", "👍", False),
    ],
)
def test_only_a_text_that_is_seen_whole_is_waited_for_less(
    box: str | None, text: str, *, whole: bool
) -> None:
    """Anything that might not have been read to its end gets the long pause before its Enter."""
    assert _is_whole(box, text) == whole


def test_what_it_writes_itself_is_no_news(database: Database, tmp_path: Path) -> None:
    """News of a ticket that is being spoken to starts no round; any other does."""
    config = configuration.load({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})
    dispatcher = Dispatcher(config, database)
    dispatcher._sending.add(3)
    assert dispatcher.is_own("mc_messages", "3")
    assert not dispatcher.is_own("mc_messages", "4")
    assert not dispatcher.is_own("mc_messages", "")
    assert not dispatcher.is_own("mc_workers", "3")
    assert dispatcher.round()  # nothing waits, and it is looked again soon all the same

    told = [[("mc_messages", "3")], [("mc_messages", "3"), ("mc_workers", "3")], []]

    class Heard:
        """What was told, one wait after the other."""

        def wait(self, timeout_s: float, *, wake_fd: int) -> list[tuple[str, str]]:
            """The next of it."""
            assert 0 <= timeout_s <= 1
            assert wake_fd == 0
            return told.pop(0)

        def fileno(self) -> int:
            """Of nothing."""
            return 0

    heard: Any = Heard()
    assert module._news(heard, dispatcher, heard, 1.0) == [
        ("mc_messages", "3"),
        ("mc_workers", "3"),
    ]
    assert module._news(heard, dispatcher, heard, 1.0) == []
