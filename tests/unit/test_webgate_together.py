"""One answer for many who ask at once, and never one that was begun before they asked."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

from orchestrator.errors import NoSuchTicket, Unavailable
from webgate.together import Together


def test_who_asks_at_once_shares_an_answer() -> None:
    """A hundred, and the question is asked twice: once for the first, once for all who came meanwhile."""
    together, go, asked = Together(), Event(), []

    def question() -> int:
        asked.append(len(asked))
        go.wait()
        return len(asked)

    first = gevent.spawn(together.ask, "a", question)
    gevent.sleep(0)
    later = [gevent.spawn(together.ask, "a", question) for _ in range(99)]
    other = gevent.spawn(together.ask, "b", lambda: "another question")
    gevent.sleep(0)
    assert other.get(timeout=1) == "another question"
    go.set()
    assert first.get(timeout=1) == 1
    assert [each.get(timeout=1) for each in later] == [2] * 99
    assert together.ask("a", question) == 3


def test_a_failure_is_everybodys_and_then_over() -> None:
    """All who share it get it; who asks afterwards asks anew."""
    together, go = Together(), Event()

    def question() -> None:
        go.wait()
        raise NoSuchTicket("gone")

    those = [gevent.spawn(together.ask, 1, question) for _ in range(3)]
    gevent.sleep(0)
    go.set()
    gevent.joinall(those, timeout=1)
    assert [type(each.exception) for each in those] == [NoSuchTicket] * 3
    assert together.ask(1, lambda: "well") == "well"


def test_nobody_waits_for_one_who_was_killed() -> None:
    """Whoever asked for the others is gone: they are told, and the next one asks."""
    together = Together()
    leader = gevent.spawn(together.ask, 1, Event().wait)
    gevent.sleep(0)
    waiting = gevent.spawn(together.ask, 1, lambda: "asked after it")
    gevent.sleep(0)
    joined = gevent.spawn(together.ask, 1, lambda: "never")
    gevent.sleep(0)
    waiting.kill()
    joined.join(timeout=1)
    assert isinstance(joined.exception, Unavailable)
    leader.kill()
    with gevent.Timeout(1):
        assert together.ask(1, lambda: "well") == "well"


def test_a_leader_that_is_killed_lets_the_next_one_ask() -> None:
    """The one after it does not wait for ever."""
    together = Together()
    leader = gevent.spawn(together.ask, 1, Event().wait)
    gevent.sleep(0)
    waiting = gevent.spawn(together.ask, 1, lambda: "asked after it")
    gevent.sleep(0)
    leader.kill()
    assert waiting.get(timeout=1) == "asked after it"


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("x")])
def test_a_mistake_of_ours_is_raised_to_who_made_it(error: Exception) -> None:
    """With its traceback; the others hear that it failed."""
    together = Together()

    def question() -> None:
        raise error

    with pytest.raises(type(error)):
        together.ask(1, question)
