"""progress: a bar on a terminal, lines in a log, nothing where nobody asked."""

from __future__ import annotations

import io
import time

import pytest

from orchestrator import progress


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        """It does."""
        return True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment is not two seconds here."""
    monkeypatch.setattr(progress, "SILENT_S", 0.05)
    monkeypatch.setattr(progress, "SAID_EACH_S", 0.05)
    monkeypatch.setattr(progress, "DRAWN_EACH_S", 0.02)


def shown(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, **options: bool) -> str:
    """What a piece of work of some moments leaves on a stream."""
    monkeypatch.setattr("sys.stderr", stream)
    with progress.shown("counting", 4, **options) as advance:
        advance(1)
        time.sleep(0.3)
        advance(1)
        time.sleep(0.3)
    return stream.getvalue()


def test_a_terminal_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn over, with the share, and gone at the end."""
    text = shown(Terminal(), monkeypatch)
    assert "\n" not in text
    assert "25%" in text
    assert "2 of 4" in text
    assert text.endswith("\r\x1b[K")


def test_a_pipe_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anything that only a terminal understands."""
    text = shown(io.StringIO(), monkeypatch)
    assert "counting: 1 of 4, 0:00\n" in text
    assert not set(text) & set("\r\x1b█")


def test_quiet_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does what is done before anybody wonders."""
    assert shown(Terminal(), monkeypatch, quiet=True) == ""
    monkeypatch.setattr(progress, "SILENT_S", 5.0)
    assert shown(Terminal(), monkeypatch) == ""


def test_the_work_does_not_depend_on_being_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that went away ends the line, not the work; an error of the work comes through."""

    class Gone(Terminal):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    assert shown(Gone(), monkeypatch) == ""
    with pytest.raises(ValueError, match="theirs"), progress.shown("counting", 4):
        raise ValueError("theirs")
