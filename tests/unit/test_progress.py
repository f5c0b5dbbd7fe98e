"""progress: a bar on a terminal, lines in a log, nothing where nobody asked."""

from __future__ import annotations

import io
import time

import pytest
from click.testing import CliRunner

from orchestrator import progress
from orchestrator.cli_data import COMMANDS as DATA
from orchestrator.cli_work import COMMANDS as WORK
from orchestrator.install_report import Report


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


def test_a_long_step_of_setup_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On stderr while it lasts; what came of it is on stdout as ever."""
    Report(dry_run=False).step("a cluster", lambda: time.sleep(0.3))
    said = capsys.readouterr()
    assert "  a cluster … 0:00\n" in said.err
    assert said.out.count("a cluster") == 1


@pytest.mark.parametrize(("words", "shown"), [((), True), (("--json",), False)])
@pytest.mark.parametrize(
    ("command", "slow"),
    [
        ("backup", "orchestrator.backup.make"),
        ("gc", "orchestrator.gc.collect"),
        ("close", "orchestrator.close.close"),
    ],
)
def test_each_long_command_says_so_but_to_programs(
    monkeypatch: pytest.MonkeyPatch, command: str, slow: str, words: tuple[str, ...], *, shown: bool
) -> None:
    """While the work lasts; --json keeps both streams for what programs read."""
    found = next(c for c in (*DATA, *WORK) if c.name == command)

    def takes_long(*_: object, **__: object) -> None:
        time.sleep(0.3)
        raise KeyboardInterrupt

    monkeypatch.setattr(slow, takes_long)
    monkeypatch.setattr("orchestrator.store.tickets.list_all", lambda *_, **__: [])
    arguments = ["4"] if command == "close" else []
    done = CliRunner().invoke(found, [*arguments, *words], env={"MC_DATABASE_URL": ""})
    assert ("… 0:00" in done.output) is shown
