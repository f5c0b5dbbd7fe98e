"""Rotation and heartbeat, as far as they need no systemd: configuration, numbers, queries, real tmux."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import config as configuration
from orchestrator import heartbeat, pipes, rotate, tmux
from orchestrator.config import Config, TicketPaths
from orchestrator.store import health, tickets
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
    other = replace(config, logs=configuration.Logs(keep=3, compress=False))
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
        server.start(1, paths.folder / "run.sh", paths.pane_log_path, columns=80, rows=24)
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


def test_a_dead_pipe_is_piped_again(config: Config) -> None:
    """A living pane whose writer died; a pane that is well is left alone."""
    with _pane(config, "echo shown; exec cat") as (server, paths):
        deadline = time.monotonic() + 10
        while "shown" not in server.capture(1) or pipes.writer_of(paths.folder) is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert pipes.mend(config, server, 1) is None
        found = pipes.writer_of(paths.folder)
        assert found is not None
        subprocess.run(["kill", "-9", str(found[0])], check=True)
        while (pane := server.pane(1)) and pane.piped:
            server.keys(1, b"x\n")  # tmux notices when it writes
            time.sleep(0.05)
        assert "shown" in (pipes.mend(config, server, 1) or "")
        assert pipes.mend(config, server, 1) is None
