"""A pane log as its readers see it: identity, safe beginnings, exact pieces."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from webgate.panelog import CHUNK_BYTES, PaneLog, parse_event_id


def opened(path: Path) -> PaneLog:
    """The log at `path`, which is there."""
    log = PaneLog.open(path)
    assert log is not None
    return log


@pytest.mark.parametrize(
    "given", ["", "x", "a-1", "a-1:", "a-1:-1", "a-1:1\n", "A-1:1", "a-1:" + "9" * 19, "a-1:\u0661"]
)
def test_only_our_own_event_ids_are_read(given: str) -> None:
    """Anything else is as good as none."""
    assert parse_event_id(given) is None


def test_an_event_id_comes_back() -> None:
    """Generation and offset."""
    assert parse_event_id("2f-1a:10") == ("2f-1a", 10)


@pytest.mark.parametrize(
    ("content", "replay", "shown"),
    [
        (b"short", 10, b"short"),
        (b"", 10, b""),
        (b"first\nsecond\n", 10, b"second\n"),
        (b"aaaaaa\x1b[31mred", 12, b"\x1b[31mred"),
        (b"aaaa\x1b[31mred\nb", 12, b"b"),
        ("ééééé".encode(), 5, "éé".encode()),
        ("😀😀😀".encode(), 7, "😀".encode()),
        (b"\x80" * 10, 5, b"\x80\x80"),
        (b"abcdef", 0, b""),
    ],
)
def test_a_replay_begins_at_a_good_place(
    tmp_path: Path, content: bytes, replay: int, shown: bytes
) -> None:
    """After a newline, at an escape, else not inside a character; never more than was asked for."""
    path = tmp_path / "log"
    path.write_bytes(content)
    assert content[opened(path).tail(replay) :] == shown


def test_pieces_are_exact(tmp_path: Path) -> None:
    """Every byte once, in order, with the offset after it, whatever the bytes are."""
    content = os.urandom(CHUNK_BYTES * 2 + 17)
    path = tmp_path / "log"
    path.write_bytes(content)
    log, offset, found = opened(path), 0, b""
    while piece := log.frame(offset):
        offset, event = piece
        name, kind, data = event.decode().strip().split("\n")
        assert (name, kind) == (f"id: {log.generation}:{offset}", "event: pane")
        found += base64.b64decode(data.removeprefix("data: "))
    assert found == content


def test_viewers_at_one_place_share_the_piece(tmp_path: Path) -> None:
    """It is read and encoded once; after growth the new end is seen."""
    path = tmp_path / "log"
    path.write_bytes(b"one")
    log = opened(path)
    first, again = log.frame(0), log.frame(0)
    assert first is not None
    assert again is not None
    assert first[1] is again[1]
    with path.open("ab") as file:
        file.write(b"two")
    log.measure()
    longer = log.frame(0)
    assert longer is not None
    assert longer[0] == 6


def test_another_file_is_another_generation(tmp_path: Path) -> None:
    """Made again at the same path, also where the inode is handed out again; growth changes nothing."""
    path = tmp_path / "log"
    path.write_bytes(b"one")
    log = opened(path)
    before = log.generation
    with path.open("ab") as file:
        file.write(b"two")
    assert opened(path).generation == before
    assert log.is_at(path)
    del log
    path.unlink()
    path.write_bytes(b"one")
    assert opened(path).generation != before


def test_a_renamed_log_is_read_to_its_end(tmp_path: Path) -> None:
    """Rotation takes the name, not the bytes."""
    path = tmp_path / "log"
    path.write_bytes(b"old")
    log = opened(path)
    path.rename(tmp_path / "log.1")
    assert log.is_at(path)
    path.write_bytes(b"new")
    assert not log.is_at(path)
    assert log.frame(0) is not None


def test_what_is_no_plain_file_is_not_followed(tmp_path: Path) -> None:
    """A link, a FIFO or a folder in the log's place shows nothing and hangs nobody."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to("secret")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "", "absent"):
        assert PaneLog.open(tmp_path / name) is None
