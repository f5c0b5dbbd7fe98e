"""Every pane log has a living writer: with real tmux, real processes, and a real database.

Faults 5, 6 and 13. MC_DRILL_STOPS=20 makes the stopped writer a long drill.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from orchestrator import config as configuration
from orchestrator import pipes, tmux
from orchestrator.config import Config
from orchestrator.pipe_watch import PipeWatch
from orchestrator.store import events, tickets
from orchestrator.store.db import Database

STOPS = int(os.environ.get("MC_DRILL_STOPS", "2"))
NOTICED_S = 5.0
MAX_GROWTH_BYTES = 150 << 20  # tmux takes up to 32 MB/s, and two looks may pass


class Bench:
    """One ticket's pane, its watch, and what the test looks at."""

    def __init__(self, config: Config, database: Database, script: str) -> None:
        self.database = database
        self.config = replace(
            config, tmux=replace(config.tmux, socket=f"mc-{uuid.uuid4().hex[:8]}")
        )
        self.ticket = tickets.create(database, title="t", driver="demo").id
        tickets.update(database, self.ticket, worker_pid=os.getpid(), status="in_progress")
        self.paths = self.config.ticket_paths(self.ticket)
        self.paths.folder.mkdir(parents=True)
        self.log = self.paths.pane_log_path
        self.server = tmux.Server(self.config.tmux.socket)
        self._tmux("-f", "/dev/null", "new-session", "-d", "-s", "keep", "cat")
        run = self.paths.folder / "run.sh"
        run.write_text(script)
        self.server.start(self.ticket, run, self.log, self.paths.writer_path, columns=80, rows=24)
        self.watch = PipeWatch(self.config, database)
        self.watch.refresh()
        self.until(lambda: self.watch._watched[self.ticket].writer, "the writer is known")

    def _tmux(self, *args: str) -> None:
        subprocess.run(["tmux", "-L", self.server.socket, *args], check=True)

    def until(self, predicate: object, what: str, timeout_s: float = 10.0) -> float:
        """Looks as the dispatcher does, and says how long it took."""
        begun = time.monotonic()
        while not predicate():  # type: ignore[operator]
            assert time.monotonic() - begun < timeout_s, what
            time.sleep(0.05)
            self.watch.look()
        return time.monotonic() - begun

    def writer(self) -> int:
        """Its pid; 0 for none."""
        found = pipes.writer_of(self.paths)
        return found.pid if found else 0

    def gaps(self) -> list[str]:
        """Their reasons."""
        found = events.of_kinds(self.database, self.ticket, ["gap"], limit=100)
        return [str(e.data["reason"]) for e in found]

    def close(self) -> None:
        """Ends what runs."""
        self._tmux("kill-server")


@pytest.fixture
def benches(tmp_path: Path, database: Database) -> Iterator[object]:
    """Make one by a shell script."""
    config = configuration.load({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})
    made: list[Bench] = []

    def make(script: str) -> Bench:
        made.append(Bench(config, database, script))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.mark.fault(5)
def test_a_killed_writer_is_noticed_while_the_pane_is_silent(benches: object) -> None:
    """Fault 5: within five seconds another writes, nothing is lost, and the gap has the screen."""
    bench = benches("echo before; exec cat")  # type: ignore[operator]
    bench.until(lambda: b"before" in bench.log.read_bytes(), "the first line")
    old = bench.writer()
    os.kill(old, signal.SIGKILL)
    took = bench.until(lambda: bench.writer() not in {0, old}, "another writer")
    assert took < NOTICED_S
    bench.until(bench.gaps, "the gap")
    bench.server.keys(bench.ticket, b"after\r")
    bench.until(lambda: b"after" in bench.log.read_bytes(), "what came after")
    assert bench.gaps() == ["the writer of the pane log died"]
    (gap,) = events.of_kinds(bench.database, bench.ticket, ["gap"], limit=9)
    assert "before" in gap.data["screen"]
    print(f"noticed and mended in {took:.2f} s")


def test_a_writer_that_is_killed_again_and_again_is_not_given_up(benches: object) -> None:
    """Each time another one, a little later each time; no storm of events."""
    bench = benches("while :; do echo x; sleep 0.01; done")  # type: ignore[operator]
    begun, killed = time.monotonic(), 0
    while time.monotonic() - begun < 5:
        bench.watch.look()
        with suppress(ProcessLookupError):
            if pid := bench.writer():
                os.kill(pid, signal.SIGKILL)
                killed += 1
        time.sleep(0.02)
    assert 2 <= len(bench.gaps()) <= 5
    bench.until(bench.writer, "a writer that may stay")


@pytest.mark.fault(6)
def test_a_stopped_writer_does_not_fill_the_memory(benches: object) -> None:
    """Fault 6: told to go on, nothing lost; stopped again at once, it is replaced and the gap is told."""
    bench = benches("while [ ! -e $0.go ]; do sleep .05; done; seq 1 999999999; sleep 100")  # type: ignore[operator]
    server = psutil.Process(
        int(subprocess.run(["tmux", "-L", bench.server.socket, "display", "-p", "#{pid}"], capture_output=True, check=True).stdout)
    )  # fmt: skip
    before, peak = server.memory_info().rss, 0
    (bench.paths.folder / "run.sh.go").touch()

    def state() -> str:
        nonlocal peak
        peak = max(peak, server.memory_info().rss)
        with suppress(psutil.NoSuchProcess):
            return str(psutil.Process(bench.writer()).status()) if bench.writer() else ""
        return ""

    pid = bench.writer()
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1.0)  # the dispatcher's longest sleep
    bench.until(lambda: state() not in {"", "stopped"}, "it goes on")
    assert bench.writer() == pid
    assert bench.gaps() == []

    def replaced(old: int) -> bool:
        return bool(state()) and bench.writer() != old

    for _ in range(STOPS):
        pid = bench.writer()
        os.kill(pid, signal.SIGSTOP)
        time.sleep(1.0)
        bench.until(partial(replaced, pid), "another writer")
        bench.watch._watched[bench.ticket].tries = 0  # as after a quiet while
    bench.until(lambda: len(bench.gaps()) == STOPS, "each replacement is a gap")
    growth = peak - before
    print(f"tmux grew by {growth >> 20} MiB at most")
    assert growth < MAX_GROWTH_BYTES
    numbers = [int(n) for n in bench.log.read_bytes()[: 200 << 20].split()[:-1]]
    whole = next((i for i, (a, b) in enumerate(pairwise(numbers)) if b != a + 1), 0)
    assert whole > 1000  # before it was replaced nothing is missing, the first stop included


@pytest.mark.fault(13)
def test_a_deleted_log_is_made_again(benches: object) -> None:
    """Fault 13: the writer would go on writing into a file without a name."""
    bench = benches("echo before; exec cat")  # type: ignore[operator]
    bench.until(lambda: b"before" in bench.log.read_bytes(), "the first line")
    bench.log.unlink()
    took = bench.until(lambda: bench.log.exists() and bench.gaps(), "the log is there again")
    assert took < NOTICED_S
    bench.server.keys(bench.ticket, b"after\r")
    bench.until(lambda: b"after" in bench.log.read_bytes(), "what came after")
    assert bench.gaps() == ["the pane log was deleted"]


def test_what_is_well_is_left_alone_and_costs_nothing(
    benches: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process is started, no query made; a renamed log and an ended session are no gaps."""
    bench = benches("exec cat")  # type: ignore[operator]
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", None)
        patch.setattr(bench.database, "query", None)
        begun = time.process_time()
        for _ in range(1000):
            bench.watch.look()
        print(f"{(time.process_time() - begun) * 1000:.0f} us a look")
    bench.log.rename(bench.log.with_name("pane.log.1"))
    bench.server.pipe(bench.ticket, bench.log, bench.paths.writer_path)  # as a rotation does
    bench.until(bench.log.exists, "the new log")
    for _ in range(40):
        bench.watch.look()
        time.sleep(0.05)
    assert bench.writer() == bench.watch._watched[bench.ticket].writer.pid
    bench.server.kill(bench.ticket)
    for _ in range(40):
        bench.watch.look()
        time.sleep(0.05)
    assert bench.gaps() == []
    tickets.update(bench.database, bench.ticket, worker_pid=None)
    bench.watch.refresh()
    assert bench.watch._watched == {}


def test_a_mark_is_believed_only_of_that_very_process(benches: object) -> None:
    """Another process with that number, half a mark, or what is none: there is no writer."""
    bench = benches("exec cat")  # type: ignore[operator]
    mark, text = bench.paths.writer_path, bench.paths.writer_path.read_text()
    writer = pipes.writer_of(bench.paths)
    assert writer is not None
    assert writer.inode == bench.log.stat().st_ino
    assert writer.log(bench.paths) == bench.log
    head, _, fields = text.rpartition(")")
    words = fields.split()
    reused = " ".join([*words[:19], str(int(words[19]) + 1), *words[20:]])
    for wrong in (f"{head}) {reused}", text[: len(head)], text[:3], "", "x" * 10_000, "1 ) ) )"):
        mark.write_text(wrong)
        assert pipes.writer_of(bench.paths) is None, wrong
    mark.write_bytes(b"\xff\x00 (\xff) " + b"\xff " * 30)
    assert pipes.writer_of(bench.paths) is None
    mark.write_text(text.partition(" ")[2])  # `ls` failed: it writes, who knows where
    assert pipes.writer_of(bench.paths) == replace(writer, inode=0)


def test_a_pipe_of_an_earlier_version_is_left_until_it_is_replaced(benches: object) -> None:
    """It says nothing of its writer: no gap, no second pipe; once replaced it is watched as any."""
    bench = benches("echo before; exec cat")  # type: ignore[operator]
    bench.until(lambda: b"before" in bench.log.read_bytes(), "the first line")
    target = f"=ticket-{bench.ticket}:"
    bench._tmux("pipe-pane", "-t", target, f"exec cat >> {bench.log}")
    bench.until(lambda: not bench.writer(), "the marked one has left")
    bench.paths.writer_path.unlink()
    watch = PipeWatch(bench.config, bench.database)
    watch.refresh()
    for _ in range(40):
        watch.look()
        time.sleep(0.05)
    assert bench.gaps() == []
    assert pipes.is_unmarked(bench.paths)
    bench.server.pipe(bench.ticket, bench.log, bench.paths.writer_path)
    bench.watch = watch
    watch.refresh()
    bench.until(lambda: watch._watched[bench.ticket].writer, "it is known")
    os.kill(bench.writer(), signal.SIGKILL)
    bench.until(bench.gaps, "the gap")


def test_a_gap_is_not_forgotten_while_the_database_is_away(
    benches: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mended at once, told when it is back."""
    from orchestrator.errors import Unavailable  # noqa: PLC0415

    bench = benches("exec cat")  # type: ignore[operator]

    def away(*_: object, **__: object) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(events, "record", away)
        old = bench.writer()
        os.kill(old, signal.SIGKILL)
        bench.until(lambda: bench.writer() not in {0, old}, "another writer")
        bench.until(lambda: bench.watch._untold, "the gap is remembered")
    bench.watch.look()
    assert bench.gaps() == ["the writer of the pane log died"]
