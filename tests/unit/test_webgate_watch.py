"""Being told that a log grew: who is called, and who gets a glance before it is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from webgate.watch import Watcher


class Told:
    """A log's two callbacks, which note that they were called."""

    def __init__(self, into: list[str], name: str) -> None:
        self._into, self._name = into, name

    def woken(self) -> None:
        """It changed."""
        self._into.append(self._name)

    def glance(self) -> None:
        """Something did."""
        self._into.append(f"glance at {self._name}")


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    """One inotify instance."""
    made = Watcher()
    yield made
    made.close()


def grow(path: Path) -> None:
    """As `cat >>` does; then the loop has its turn."""
    with path.open("ab") as file:
        file.write(b"x")
    gevent.sleep(0.05)


def test_what_grew_last_is_looked_at_first(watcher: Watcher, tmp_path: Path) -> None:
    """Also when it is another one that grew: then it is called all the same."""
    told: list[str] = []
    paths = [tmp_path / name for name in ("one", "two")]
    for path in paths:
        path.touch()
    for path in paths:
        one = Told(told, path.name)
        watcher.add(path, one.woken, one.glance)
    grow(paths[0])
    assert told == ["one"]
    told.clear()
    grow(paths[0])
    assert told == ["glance at one", "one"]
    told.clear()
    grow(paths[1])
    assert told == ["glance at one", "two"]
    told.clear()
    grow(paths[1])
    assert told == ["glance at two", "two"]


def test_one_that_fails_is_told_and_the_next_is_not_lost(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk says EIO: others are told all the same, and so is it once that is over."""
    told: list[str] = []
    errors: list[object] = []
    bad, good = tmp_path / "bad", tmp_path / "good"
    bad.touch()
    good.touch()

    def fails() -> None:
        raise OSError("input/output error")

    one = Told(told, "good")
    watcher.add(bad, fails, fails)
    watcher.add(good, one.woken, one.glance)
    monkeypatch.setattr(gevent.get_hub(), "print_exception", lambda *_: errors.append(1))
    grow(bad)
    assert len(errors) == 1
    grow(bad)  # the glance at it, and itself
    assert len(errors) == 3
    grow(good)
    grow(good)
    assert told == ["good", "glance at good", "good"]


def test_nothing_is_glanced_at_once_it_is_gone(watcher: Watcher, tmp_path: Path) -> None:
    """Whoever is removed is called no more, in no way."""
    told: list[str] = []
    for name in ("one", "two"):
        (tmp_path / name).touch()
    one, two = Told(told, "one"), Told(told, "two")
    handle = watcher.add(tmp_path / "one", one.woken, one.glance)
    watcher.add(tmp_path / "two", two.woken, two.glance)
    grow(tmp_path / "one")
    watcher.remove(handle, tmp_path / "one")
    told.clear()
    grow(tmp_path / "one")
    grow(tmp_path / "two")
    assert told == ["two"]
