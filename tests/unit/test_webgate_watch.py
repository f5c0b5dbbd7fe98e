"""Being told that a log grew: who is called, and who gets a glance before it is known."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from webgate.watch import FLOOD_BYTES, FLOOD_S, REST_S, Watcher


class Told:
    """A log's two callbacks, which note that they were called."""

    def __init__(self, into: list[str], name: str) -> None:
        self._into, self._name = into, name

    def woken(self) -> None:
        """It changed."""
        self._into.append(self._name)

    def glance(self) -> int:
        """Something did."""
        self._into.append(f"glance at {self._name}")
        return 0


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

    def fails() -> int:
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


class Log:
    """A log by its size alone, which notes how often it was looked at and how far it was."""

    def __init__(self, path: Path) -> None:
        self.path, self.looks, self.seen = path, 0, 0
        path.touch()

    def woken(self) -> None:
        """It changed."""
        self.glance()

    def glance(self) -> int:
        """By how much it grew."""
        before, self.seen = self.seen, self.path.stat().st_size
        self.looks += self.seen > before
        return self.seen - before

    def grow(self, by: int, times: int, pause_s: float) -> None:
        """As `cat >>` does, with a turn of the loop after each piece."""
        with self.path.open("ab", buffering=0) as file:
            for _ in range(times):
                file.write(b"x" * by)
                gevent.sleep(pause_s)


def test_a_flood_is_looked_at_now_and_then(watcher: Watcher, tmp_path: Path) -> None:
    """And to its end, though nothing tells of that any more."""
    flooded = Log(tmp_path / "flooded")
    watcher.add(flooded.path, flooded.woken, flooded.glance)
    for _ in range(2):  # a rest ends, and the next flood has rests again
        flooded.looks, began = 0, time.monotonic()
        flooded.grow(50_000, 400, 0.0005)
        gevent.sleep(5 * REST_S)
        assert flooded.looks <= 5 + 1.5 * (time.monotonic() - began) / REST_S
        assert flooded.seen == flooded.path.stat().st_size
        gevent.sleep(3 * FLOOD_S)


def test_what_trickles_is_seen_at_once(watcher: Watcher, tmp_path: Path) -> None:
    """Many small pieces are no flood, nor is one large one; no rest is left over from a flood either."""
    log = Log(tmp_path / "log")
    watcher.add(log.path, log.woken, log.glance)
    log.grow(1, 1, 0.01)
    for by, times in ((FLOOD_BYTES, 1), (100, 300)):
        log.looks = 0
        gevent.sleep(3 * FLOOD_S)
        log.grow(by, times, 0.0005)
        assert log.looks >= times * 0.9


def test_a_flood_may_end_with_the_watch(tmp_path: Path) -> None:
    """Closed in a rest: nobody is called, and nothing is left running."""
    watcher = Watcher()
    flooded = Log(tmp_path / "flooded")
    watcher.add(flooded.path, flooded.woken, flooded.glance)
    flooded.grow(50_000, 100, 0.0005)
    watcher.close()
    looks = flooded.looks
    flooded.grow(50_000, 100, 0.0005)
    gevent.sleep(5 * REST_S)
    assert flooded.looks == looks
