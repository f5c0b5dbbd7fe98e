"""progress: a bar on a terminal, lines in a log, nothing where nobody asked."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator import archive, progress
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


def test_bytes_are_told_or_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a share where the end is known, as they are where it is not; and asked no more once that is over."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with progress.shown("packing") as meter:
        meter.expect(0)
        meter.follow(lambda: 3 << 20)
        time.sleep(0.2)
        meter.follow(None)
        meter.expect(10 << 20)
        meter(2 << 20)
        meter.follow(lambda: 5 << 20)
        time.sleep(0.2)
        meter.follow(None)
        time.sleep(0.2)
    lines = list(dict.fromkeys(stream.getvalue().splitlines()))
    assert lines == [
        "packing … 3.0 MiB, 0:00", "packing: 7.0 MiB of 10.0 MiB, 0:00",
        "packing: 2.0 MiB of 10.0 MiB, 0:00",
    ]  # fmt: skip


class Told:
    """A meter that notes what it is told, and asks when it is given something to ask."""

    def __init__(self) -> None:
        self.totals: list[int] = []
        self.done = 0
        self.asked: list[int] = []
        self.position: Callable[[], int] | None = None

    def __call__(self, count: int, /) -> None:
        """So many more."""
        self.done += count

    def expect(self, total_bytes: int) -> None:
        """Anew."""
        self.totals.append(total_bytes)
        self.done = 0

    def follow(self, position: Callable[[], int] | None) -> None:
        """Asked at the beginning and at the end."""
        for asked in (self.position, position):
            if asked is not None:
                self.asked.append(asked())
        self.position = position


def test_an_archive_tells_how_far_it_is(tmp_path: Path) -> None:
    """Packing ends at what it expected, and reading at the end of the file."""
    files = {}
    for name in ("a", "b"):
        files[name] = tmp_path / name
        files[name].write_bytes(os.urandom(3 << 20))
    files["link"] = tmp_path / "link"
    files["link"].symlink_to("a")
    packing = Told()
    path = archive.pack(tmp_path / "x.tar.zst", {"t": ""}, files, {}, meter=packing).path
    assert packing.totals == [12 << 20]
    assert packing.done >= 12 << 20, "and the little text"
    assert packing.position is None
    unpacking = Told()
    archive.unpack(path, lambda name: (tmp_path / "out", name), meter=unpacking)
    size = path.stat().st_size
    assert unpacking.totals == [2 * size]
    assert (unpacking.done, unpacking.asked) == (size, [0, size, 0, size])


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
