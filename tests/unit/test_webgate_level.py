"""Many viewers of one pane, served in one loop."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from webgate.level import DEAR_S, KEEP_S, TURN, Level
from webgate.panelog import PaneLog


class Viewer:
    """One whose socket takes `room` bytes at a time; below nothing it has hung up."""

    def __init__(self, name: str, told: list[str], room: int = 1_000_000) -> None:
        self.name, self._told, self.room = name, told, room
        self.got, self.stands = b"", (0, b"")

    def send(self, event: bytes) -> int:
        """As a socket's."""
        if self.room <= 0:
            raise BlockingIOError
        self._told.append(self.name)
        self.got += event[: self.room]
        return min(self.room, len(event))

    def stand(self, offset: int, _now: float, rest: bytes = b"") -> None:
        """What it is told when it leaves."""
        self.stands = (offset, rest)


@pytest.fixture
def log(tmp_path: Path) -> PaneLog:
    """An empty one."""
    (tmp_path / "pane.log").touch()
    found = PaneLog.open(tmp_path / "pane.log")
    assert found is not None
    return found


def grow(tmp_path: Path, log: PaneLog, data: bytes) -> None:
    """As `cat >>` does, and it is noticed."""
    with (tmp_path / "pane.log").open("ab") as file:
        file.write(data)
    log.measure()


def test_all_get_the_same_and_nobody_is_always_last(tmp_path: Path, log: PaneLog) -> None:
    """Whose turn is first goes round."""
    level, told = Level(), list[str]()
    viewers = [Viewer(name, told) for name in "abcde"]
    for viewer in viewers:
        level.join(viewer, log, 0, 0)
    last = set()
    for _ in range(10):
        grow(tmp_path, log, b"x")
        level.lead(log)
        last.add(told[-1])
    assert len({viewer.got for viewer in viewers}) == 1
    assert viewers[0].got.count(b"event: pane") == 10
    assert last == set("abcde")


@pytest.mark.parametrize("room", [5, 0])
def test_who_takes_only_a_part_goes_on_alone(tmp_path: Path, log: PaneLog, room: int) -> None:
    """With the rest of that event, and without the ones after it."""
    level, told = Level(), list[str]()
    quick, full = Viewer("quick", told), Viewer("full", told, room)
    level.join(quick, log, 0, 0)
    level.join(full, log, 0, 0)
    grow(tmp_path, log, b"text")
    level.lead(log)
    assert quick in level
    assert full not in level
    assert full.stands == (4, quick.got[room:])
    grow(tmp_path, log, b"more")
    level.lead(log)
    assert full.got == quick.got[:room]


def test_who_stands_elsewhere_stays_alone(tmp_path: Path, log: PaneLog) -> None:
    """Else it would miss what is between, or see it twice."""
    level, told = Level(), list[str]()
    first, second = Viewer("first", told), Viewer("second", told)
    level.join(first, log, 0, 0)
    grow(tmp_path, log, b"text")
    level.join(second, log, 4, 0)
    assert second not in level


@pytest.mark.parametrize("what", ["cut", "another"])
def test_another_file_dissolves_it(tmp_path: Path, log: PaneLog, what: str) -> None:
    """Each finds its own way into it, and says that there is a gap."""
    level, viewer = Level(), Viewer("one", [])
    grow(tmp_path, log, b"text")
    level.join(viewer, log, 4, 0)
    if what == "cut":
        (tmp_path / "pane.log").write_bytes(b"0123456789")
        log.measure()
        level.lead(log)
    else:
        fresh = PaneLog.open(tmp_path / "pane.log")
        assert fresh is not None
        level.lead(fresh)
    assert viewer not in level
    assert viewer.stands == (4, b"")
    assert viewer.got == b""


def test_a_flood_is_left_to_each(tmp_path: Path, log: PaneLog) -> None:
    """More than a turn's worth holds the others of the loop up no longer."""
    level, viewer = Level(), Viewer("one", [])
    level.join(viewer, log, 0, 0)
    grow(tmp_path, log, b"x" * 10_000_000)
    level.lead(log)
    assert viewer not in level
    assert 0 < viewer.stands[0] < 10_000_000


def test_who_was_sent_to_is_let_run(
    tmp_path: Path, log: PaneLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many of a crowd, and after the last one: they may wait on our own core."""
    level, told, turns = Level(), list[str](), list[int]()
    monkeypatch.setattr("os.sched_yield", lambda: turns.append(len(told)))
    for number in range(2 * TURN + 3):
        level.join(Viewer(str(number), told), log, 0, 0)
    grow(tmp_path, log, b"x")
    level.lead(log)
    assert turns[-1] == len(told) == 2 * TURN + 3
    assert all(after - before <= TURN for before, after in pairwise([0, *turns]))


def test_nobody_is_given_way_who_takes_all_of_it(
    tmp_path: Path, log: PaneLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build on our core would have a slice of time for each few of a crowd."""
    level, told, turns, clock = Level(), list[str](), list[float](), [100.0]

    def build() -> None:
        turns.append(clock[0])
        clock[0] += 2 * DEAR_S

    monkeypatch.setattr("os.sched_yield", build)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    for number in range(4 * TURN):
        level.join(Viewer(str(number), told), log, 0, 0)
    for _ in range(3):
        grow(tmp_path, log, b"x")
        level.lead(log)
    assert turns == [100.0]
    clock[0] += KEEP_S
    grow(tmp_path, log, b"x")
    level.lead(log)
    assert len(turns) == 2
    assert len(told) == 4 * 4 * TURN
