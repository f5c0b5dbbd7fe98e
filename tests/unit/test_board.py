"""board.py and what of apply.py needs no systemd: files as they are found, scopes, the lock."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from orchestrator import apply, board, unit_files
from orchestrator.config import Config
from orchestrator.errors import InvalidInput, Unavailable
from orchestrator.store import tickets
from orchestrator.store.db import Database


def nothing() -> bytes:
    """Nobody should ask for it."""
    raise AssertionError("stdin was read")


def test_a_file_a_folder_and_stdin(tmp_path: Path) -> None:
    """In the order given, a folder's by name; what is not *.toml is left out; each once."""
    for name in ("b.toml", "a.toml", "c.txt", ".hidden.toml"):
        (tmp_path / name).write_text(name)
    given = [str(tmp_path / "b.toml"), str(tmp_path), "-", "-"]
    found = board.read_sources(given, lambda: b"stdin")
    assert [(Path(s.path).name, s.text) for s in found] == [
        ("b.toml", "b.toml"), ("a.toml", "a.toml"), ("b.toml", "b.toml"), ("-", "stdin"),
    ]  # fmt: skip


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """No file, an empty folder, a FIFO (at once), a device, no UTF-8, too large, no path at all."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "latin").write_bytes(b"a = 1\nb = '\xe4'\n")
    (tmp_path / "large").write_bytes(b"#" * (board.MAX_BOARD_BYTES + 1))
    (tmp_path / "empty").mkdir()
    for name, said in (
        ("none.toml", "No such file"),
        ("empty", "holds no *.toml"),
        ("fifo", "no plain file"),
        ("/dev/zero", "no plain file"),
        ("latin", "not UTF-8 in line 2"),
        ("large", "more than 1000000 bytes"),
        ("a\0b", "cannot be read"),
        ("\n\x1b[2J", "No such file"),
    ):
        with pytest.raises(InvalidInput) as refused:
            board.read_sources([str(tmp_path / name)], nothing)
        assert said in refused.value.message
        assert refused.value.message.isprintable()
    with pytest.raises(InvalidInput, match="more than"):
        board.read_sources(["-"], lambda: b"#" * (board.MAX_BOARD_BYTES + 1))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_systemd_says_what_a_calendar_expression_is() -> None:
    """Not a pattern of ours; an option is none."""
    for good in ("Mon..Fri 07:00", "*-*-01 00:00 America/New_York", "hourly", "2020-01-01"):
        board.check_calendar(good)
    for bad in ("Blursday", "25:00", "--help", ""):
        with pytest.raises(InvalidInput, match="no calendar expression"):
            board.check_calendar(bad)


@pytest.mark.parametrize(
    ("declared_in", "scopes", "within"),
    [
        ("/b/a.toml", ["/b/a.toml"], True),
        ("/b/a.toml", ["/b"], True),
        ("/b/c/a.toml", ["/b"], False),
        ("/b/a.toml", ["/b/c.toml"], False),
        ("-", ["-"], True),
        ("-", ["."], False),
        (None, ["/b"], False),
    ],
)
def test_prune_is_for_these_files(declared_in: str | None, scopes: list[str], within: bool) -> None:  # noqa: FBT001
    """What another board declares, or nobody, is none of ours to close."""
    assert apply.in_scope(declared_in, scopes) is within


def test_one_at_a_time(database: Database) -> None:
    """The second is told to try again; when the first is done it may."""
    with (
        apply.alone(database),
        pytest.raises(Unavailable, match="at work"),
        apply.alone(Database(database._dsn)),
    ):
        pass


def test_order_is_also_what_was_set_by_hand(tmp_path: Path) -> None:
    """Of declared tickets what `set` says alone: what apply said is about to be said anew."""
    config = Config(config_dir=tmp_path / "mission-control")
    for number, by in ((1, "apply"), (1, "set"), (2, "apply")):
        unit_files.drop_in(config, number, by, {"After": f"{by}.service"}).put()  # type: ignore[arg-type]
    assert apply.edges(config, but={1}) == {
        "ticket@1.service": {"set.service"},
        "ticket@2.service": {"apply.service"},
    }


def test_a_name_is_one_tickets(database: Database) -> None:
    """The database says so too; without a name nothing is declared."""
    made = tickets.create(database, title="t", name="a", declared_in="/b.toml")
    assert [t.id for t in tickets.named(database)] == [made.id]
    for values in ({"name": "a"}, {"name": "a b"}, {"name": "a\n"}, {"declared_in": "/b.toml"}):
        with pytest.raises(Exception, match="constraint"):
            tickets.create(database, title="t", **values)  # type: ignore[arg-type]
    tickets.update(database, made.id, command=("a", "b"), driver="command")
    assert tickets.get(database, made.id).command == ("a", "b")
    tickets.update(database, made.id, command=())
    assert tickets.get(database, made.id).command == ()
