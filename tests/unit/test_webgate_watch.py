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
