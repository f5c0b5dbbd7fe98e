"""Rotation and heartbeat, as far as they need no systemd: configuration, numbers, queries, real tmux."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import config as configuration
from orchestrator import heartbeat, pipes, rotate, tmux
from orchestrator.config import Config
from orchestrator.config_tables import Logs
from orchestrator.naming import TicketPaths
from orchestrator.store import events, health, tickets
from orchestrator.store.db import Database

LINES = 3_000_000


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration of the test's own."""
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    return configuration.load(environ)


def test_logrotate_gets_what_the_configuration_says(config: Config) -> None:
    """Days kept, compression, our logs, and who hands the panes over."""
    text = rotate.render(config)
    assert "rotate 7\n" in text
    assert "\n    compress\n" in text
    assert f'"{config.state_dir}/tickets/*/pane.log"' in text
    assert "orchestrator.rotate switch" in text
    other = replace(config, logs=Logs(keep=3, compress=False))
    assert "rotate 3\n" in rotate.render(other)
    assert "nocompress" in rotate.render(other)


def test_growth_is_since_the_last_heartbeat() -> None:
    """A log that was rotated counts from its beginning; one that is as it was, not at all."""
    before = {"1/pane.log": 100, "2/pane.log": 500, "3/pane.log": 7}
    now = {"1/pane.log": 160, "2/pane.log": 20, "3/pane.log": 7, "4/pane.log": 5}
    assert heartbeat._growth(before, now) == {"1/pane.log": 60, "2/pane.log": 20, "4/pane.log": 5}


def test_what_waits_for_too_long(database: Database) -> None:
    """Busy without a sign, and messages nobody took; neither what is idle nor what is young."""
    first, second = (tickets.create(database, title="t", driver="demo").id for _ in range(2))
    database.query(
        "UPDATE tickets SET status = 'in_progress', turn_state = 'busy',"
        " last_sign_at = now() - interval '31 minutes' WHERE id = %s",
        (first,),
    )
    database.query(
        "INSERT INTO queued_messages (ticket_id, body, created_at)"
        " VALUES (%s, 'x', now() - interval '20 minutes'), (%s, 'y', now())",
        (second, first),
    )
    assert [s.ticket_id for s in health.stuck_turns(database, 30)] == [first]
    assert health.stuck_turns(database, 32) == []
    assert [(o.ticket_id, o.what) for o in health.old_messages(database, 15)] == [
        (second, "1 queued")
    ]
    health.add_heartbeat(database, {"n": 1})
    database.query("UPDATE heartbeats SET at = now() - interval '8 days'")
    health.add_heartbeat(database, {"n": 2})
    last = health.last_heartbeat(database)
    assert last is not None
    assert last[1] == {"n": 2}
    assert len(database.query("SELECT id FROM heartbeats")) == 1


def test_restarts_are_added_over_the_hour() -> None:
    """A counter that fell had begun anew; a ticket that was not there counted from nothing."""
    looks = [{"1": 5, "2": 3}, {"1": 9, "3": 2}, {"1": 1, "3": 2}, {"1": 3, "2": 4}]
    assert heartbeat.added(looks) == {"1": 7, "2": 4, "3": 2}
    assert heartbeat.added([{"1": 500}]) == {}  # counted before anybody looked
    assert heartbeat.added([]) == {}


def test_a_worker_that_crashes_slowly_is_told_of_once_an_hour(
    config: Config, database: Database
) -> None:
    """Over the threshold: a warning while it lasts, an event an hour; below: nothing."""
    one, other = (tickets.create(database, title="t", driver="demo").id for _ in range(2))
    health.add_heartbeat(database, {"restarts": {str(one): 100}})
    limit = config.heartbeat.restarts_an_hour

    def look(ones: int, others: int) -> dict[str, str]:
        now, warnings = {str(one): ones, str(other): others}, dict[str, str]()
        found = heartbeat._crashing(config, database, now, warnings)
        health.add_heartbeat(database, {"restarts": now, "crashing": found})
        return warnings

    assert look(100 + limit, limit) == {}
    assert health.crashing(database) == {}
    for more in range(1, 4):
        told = look(100 + limit + more, limit)
        assert list(told) == [f"crashing:{one}"]
        assert f"crashed {limit + more} times within an hour" in told[f"crashing:{one}"]
        assert health.crashing(database) == {one: limit + more}
    (event,) = events.of_kinds(database, one, ["crashing"], limit=9)
    assert event.data == {"times": limit + 1}
    database.query("UPDATE ticket_events SET at = now() - interval '61 minutes'")
    look(100 + limit + 4, limit)
    assert len(events.of_kinds(database, one, ["crashing"], limit=9)) == 2
    database.query("UPDATE heartbeats SET at = now() - interval '61 minutes'")
    assert look(100 + limit + 4, limit) == {}
    assert health.crashing(database) == {}


class Freezer:
    """Stands for systemd: stops and continues what the pane's shell runs, whatever the unit.

    Not the shell itself: tmux continues a child of its own that was stopped.
    """

    def __init__(self, server: tmux.Server) -> None:
        self._server = server

    def _signal(self, name: str) -> None:
        pane = self._server.pane(1)
        assert pane is not None
        subprocess.run(["pkill", f"-{name}", "-P", str(pane.pid)], check=False)

    def freeze(self, _unit: str) -> bool:
        """They do not notice."""
        self._signal("STOP")
        return True

    def thaw(self, _unit: str) -> None:
        """On it goes."""
        self._signal("CONT")


@contextmanager
def _pane(config: Config, script: str) -> Iterator[tuple[tmux.Server, TicketPaths]]:
    paths = config.ticket_paths(1)
    paths.folder.mkdir(parents=True)
    (paths.folder / "run.sh").write_text(script)
    server = tmux.Server(f"mc-test-{uuid.uuid4().hex[:8]}")
    argv = [
        "tmux",
        "-L",
        server.socket,
        "-f",
        "/dev/null",
        "new-session",
        "-d",
        "-s",
        "keep",
        "cat",
    ]
    subprocess.run(argv, check=True)
    try:
        server.start(
            1, paths.folder / "run.sh", paths.pane_log_path, paths.writer_path, columns=80, rows=24
        )
        yield server, paths
    finally:
        subprocess.run(["tmux", "-L", server.socket, "kill-server"], check=False)


def test_a_pane_is_handed_over_without_losing_a_line(config: Config) -> None:
    """Renamed and handed over again and again while it floods: every line once, in order."""
    with _pane(config, f"sleep 0.3; seq {LINES}; echo the end; sleep 100") as (server, paths):
        log, done = paths.pane_log_path, 0
        deadline = time.monotonic() + 60
        while not any(b"the end" in p.read_bytes()[-100:] for p in paths.folder.glob("pane.log*")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
            if not log.exists() or not log.stat().st_size:
                continue
            done += 1
            log.rename(log.with_name(f"pane.log.{done}"))
            assert pipes.hand_over(config, server, Freezer(server), 1)  # type: ignore[arg-type]
            assert not pipes.hand_over(config, server, Freezer(server), 1)  # type: ignore[arg-type]
        names = [log.with_name(f"pane.log.{n}") for n in range(1, done + 1)]
        lines = b"".join(p.read_bytes() for p in [*names, log]).split()
    assert done >= 2
    assert [int(n) for n in lines[:-2]] == list(range(1, LINES + 1))
    assert list(pipes.folder_of_notes(config).iterdir()) == []


@pytest.mark.parametrize("renamed", [False, True])
def test_a_pipe_of_an_earlier_version_is_replaced_without_losing_a_line(
    config: Config, *, renamed: bool
) -> None:
    """Its writer says nothing of itself: under a flood, with the log renamed and not."""
    with _pane(config, f"sleep 1; seq {LINES}; echo the end; sleep 100") as (server, paths):
        log = paths.pane_log_path
        argv = ["tmux", "-L", server.socket, "pipe-pane", "-t", "=ticket-1:"]
        subprocess.run([*argv, f"exec cat >> {log}"], check=True)
        _wait(lambda: paths.writer_path.exists() and pipes.writer_of(paths) is None, "it has left")
        paths.writer_path.unlink()
        _wait(lambda: log.stat().st_size > 1 << 20, "the flood")
        if renamed:
            log.rename(log.with_name("pane.log.1"))
        assert pipes.hand_over(config, server, Freezer(server), 1)  # type: ignore[arg-type]
        writer = pipes.writer_of(paths)
        assert writer is not None
        assert writer.log(paths) == log
        _wait(lambda: b"the end" in log.read_bytes()[-100:], "the end", timeout_s=60)
        lines = b"".join(
            p.read_bytes() for p in sorted(paths.folder.glob("pane.log*"))[::-1]
        ).split()
    assert [int(n) for n in lines[:-2]] == list(range(1, LINES + 1))


def _wait(so: Callable[[], bool], what: str, *, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not so():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_a_dead_pane_is_waited_for_until_it_is_known_how_it_ended(config: Config) -> None:
    """tmux takes a pane for dead when its terminal is let go, which is before its process was waited for."""
    script = "trap '' HUP; exec </dev/null >/dev/null 2>&1; sleep 0.5; exit 3"
    with _pane(config, script) as (server, _):
        _wait(lambda: (pane := server.pane(1)) is not None and pane.dead, "it is dead")
        pane = server.dead_pane(1)
    assert pane is not None
    assert (pane.exit_status, pane.exit_signal) == (3, None)


def test_a_dead_pipe_is_piped_again(config: Config) -> None:
    """A living pane whose writer died; a pane that is well is left alone."""
    with _pane(config, "echo shown; exec cat") as (server, paths):
        deadline = time.monotonic() + 10
        while "shown" not in server.capture(1) or pipes.writer_of(paths) is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert pipes.mend(config, server, 1) is None
        found = pipes.writer_of(paths)
        assert found is not None
        subprocess.run(["kill", "-9", str(found.pid)], check=True)
        while (pane := server.pane(1)) and pane.piped:
            server.keys(1, b"x\n")  # tmux notices when it writes
            time.sleep(0.05)
        assert "shown" in (pipes.mend(config, server, 1) or "")
        assert pipes.mend(config, server, 1) is None
