"""Backups: whole or not at all; put back beside what is there, and undone by a name."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator import backup, doctor, restore
from orchestrator import config as configuration
from orchestrator.config import Config
from orchestrator.errors import ConfigError, Conflict, InvalidInput, TicketError, Unavailable
from orchestrator.postgres import DATABASE, Server
from orchestrator.store import events, logins, messages, tickets
from orchestrator.store.db import Database
from orchestrator.store.migrate import known
from tests.unit.postgres import SUPERUSER, Cluster, bin_path


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration of the test's own."""
    return configuration.load({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})


@pytest.fixture
def server(cluster: Cluster) -> Iterator[Server]:
    """A server with a database of the product's name in it."""
    programs = bin_path()
    assert programs is not None
    found = Server(programs, f"host={cluster.folder} user={SUPERUSER}")
    found.ask(f"CREATE DATABASE {DATABASE} TEMPLATE mc_template")
    yield found
    for name in [DATABASE, *restore.kept(found)]:
        found.ask(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def filled(server: Server) -> Database:
    """The product's database, with tickets, events and messages in it."""
    database = Database(server.dsn(DATABASE), application="test")
    for number in range(3):
        ticket = tickets.create(database, title=f"täsk {number}", driver="demo").id
        for turn in range(20):
            events.record(database, ticket, "turn_end", n=turn, text="x" * 100)
    return database


def rows(database: Database) -> object:
    """All that a restore has to bring back."""
    return [
        database.query(f"SELECT * FROM {table} ORDER BY id")
        for table in ("tickets", "ticket_events", "queued_messages", "comments", "archives")
    ]


def test_what_was_backed_up_comes_back_and_what_was_there_is_kept(
    config: Config, server: Server
) -> None:
    """Row by row; the state of before is under another name, and one more restore goes back to it."""
    database = filled(server)
    before = rows(database)
    made, removed = backup.make(config, server)
    assert removed == []
    assert made.path.stat().st_mode & 0o777 == 0o600
    assert made.path.parent.stat().st_mode & 0o777 == 0o700
    assert backup.listed(config.backup_dir) == [made]
    tickets.create(database, title="later", driver="demo")
    database.query("DELETE FROM ticket_events WHERE ticket_id = 1")
    later = rows(database)
    done = restore.into_database(server, made.path, running={})
    assert rows(database) == before
    assert list(restore.kept(server)) == [done.kept]
    back = restore.swap(server, done.kept)
    assert rows(database) == later
    assert list(restore.kept(server)) == [back]
    with pytest.raises(InvalidInput, match="no database"):
        restore.swap(server, done.kept)
    assert rows(database) == later
    database.close()


def test_how_far_it_is_is_what_was_written_and_read(config: Config, server: Server) -> None:
    """A dump by its size so far, of nobody knows how much; a check and a restore by the share of the file."""
    filled(server).close()
    totals: list[int] = []
    places: list[Callable[[], int] | None] = []
    seen: list[int] = []

    class Told:
        def __call__(self, _: int, /) -> None:
            """Nothing is counted here."""

        def expect(self, total_bytes: int) -> None:
            totals.append(total_bytes)

        def follow(self, position: Callable[[], int] | None) -> None:
            if position is None and (last := places[-1]):
                seen.append(last())
            places.append(position)

    made, _ = backup.make(config, server, meter=Told())
    restore.into_database(server, made.path, running={}, meter=Told())
    size = made.size_bytes
    assert totals == [0, size, size, size]
    assert seen[0] == size
    # pg_restore does not read what comes after the last of the data: the table of contents was at the front
    assert all(size // 2 < place <= size for place in seen[1:]), (seen, size)
    assert places[-1] is None


def test_nothing_is_done_twice_after_a_restore(config: Config, server: Server) -> None:
    """What was queued then may have been sent since; sessions may have been ended; workers have died."""
    database = filled(server)
    queued = messages.enqueue(database, 1, "once only")
    tickets.update(database, 1, worker_pid=1, turn_state="busy", status="in_progress")
    tickets.update(database, 2, worker_pid=2, turn_state="busy", status="in_progress")
    logins.create_link(database)
    made, _ = backup.make(config, server)
    done = restore.into_database(server, made.path, running={2: 4711})
    assert done.unconfirmed == 1
    after = messages.get(database, queued.id)
    assert after is not None
    assert after.outcome == "unconfirmed"
    assert "may have been sent" in after.reason
    assert database.query("SELECT 1 FROM login_links") == []
    first, second = tickets.get(database, 1), tickets.get(database, 2)
    assert (first.worker_pid, first.turn_state, first.status) == (None, "gone", "in_progress")
    assert (second.worker_pid, second.turn_state) == (4711, "starting")
    database.close()


def test_whoever_is_connected_is_cut_off_and_comes_back(config: Config, server: Server) -> None:
    """The rename does not wait for them, and no reader ever sees half of a database."""
    database = filled(server)
    made, _ = backup.make(config, server)
    over = threading.Event()
    seen: set[int] = set()

    def reader() -> None:
        mine = Database(server.dsn(DATABASE), application="reader")
        while not over.is_set():
            with suppress(Unavailable):
                seen.add(len(mine.query("SELECT id FROM ticket_events")))
        mine.close()

    threads = [threading.Thread(target=reader) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            restore.into_database(server, made.path, running={})
            time.sleep(0.1)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert seen == {60}
    database.close()


def test_seven_are_kept_and_a_failure_removes_none(
    config: Config, server: Server, tmp_path: Path
) -> None:
    """The oldest goes after the newest was read again; a dump that fails leaves no trace."""
    filled(server).close()
    made = [backup.make(config, server)[0].path for _ in range(8)]
    _, removed = backup.make(config, server)
    assert removed == [made[1]]
    there = sorted(config.backup_dir.iterdir())
    assert len(there) == 7
    (config.backup_dir / "notes.txt").write_text("mine")
    (config.backup_dir / ".mission-control-x.dump.partial").write_text("of one that was killed")
    broken = tmp_path / "bin"
    broken.mkdir()
    for how in ("exit 1", "echo half; exit 1", "echo no dump at all"):
        fake = broken / "pg_dump"
        fake.write_text(f"#!/bin/sh\n{how}\n")
        fake.chmod(0o755)
        (broken / "pg_restore").unlink(missing_ok=True)
        (broken / "pg_restore").symlink_to(server.programs / "pg_restore")
        with pytest.raises(TicketError):
            backup.make(config, replace(server, programs=broken))
    assert sorted(p for p in config.backup_dir.iterdir() if p.suffix != ".txt") == there
    with pytest.raises(ConfigError, match="is not there"):
        backup.make(config, replace(server, programs=tmp_path / "nowhere"))
    with pytest.raises(Unavailable):
        backup.make(config, replace(server, where=f"host={tmp_path}"))


def test_two_at_once_are_one(config: Config, server: Server) -> None:
    """The second is refused; the first is not disturbed."""
    config.backup_dir.mkdir(parents=True)
    fd = os.open(config.backup_dir, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(Conflict, match="being made"):
        backup.make(config, server)
    os.close(fd)
    backup.make(config, server)


@pytest.mark.parametrize("damage", ["cut", "cut-late", "flipped", "empty", "text", "other", "gone"])
def test_what_is_no_whole_backup_changes_nothing(
    config: Config, server: Server, tmp_path: Path, damage: str
) -> None:
    """Cut short, changed, something else: said before anything is touched, and nothing is left."""
    database = filled(server)
    made, _ = backup.make(config, server)
    path, data = tmp_path / "it.dump", bytearray(made.path.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "cut-late":
        del data[-200:]
    elif damage == "flipped":
        where = data.find(b"\x78\x9c", len(data) // 2)  # the head of a compressed block
        data[where + 10] ^= 0xFF
    elif damage == "text":
        data = bytearray(b"not at all\n" * 100)
    elif damage == "empty":
        data = bytearray()
    path.write_bytes(data)
    if damage == "gone":
        path.unlink()
    if damage == "other":
        server.ask("CREATE DATABASE other")
        try:
            backup._dump(server, "other", tmp_path / "other.dump")
        finally:
            server.ask("DROP DATABASE other")
        shutil.copy(tmp_path / "other.dump", path)
    before = rows(database)
    with pytest.raises(InvalidInput):
        restore.into_database(server, path, running={})
    assert rows(database) == before
    assert restore.kept(server) == {}
    assert not server.has("mission_control_restoring")
    database.close()


def test_a_backup_of_a_newer_version_is_refused(config: Config, server: Server) -> None:
    """An older program must not write into a newer schema: nothing was changed, nothing is left."""
    database = filled(server)
    database.query("INSERT INTO schema_migrations (number, name) VALUES (9999, 'future')")
    made, _ = backup.make(config, server)
    database.query("DELETE FROM schema_migrations WHERE number = 9999")
    before = rows(database)
    with pytest.raises(ConfigError, match="migration 9999"):
        restore.into_database(server, made.path, running={})
    assert rows(database) == before
    assert not server.has("mission_control_restoring")
    database.close()


def test_an_older_backup_is_brought_up_to_date(config: Config, server: Server) -> None:
    """And what a restore left that was killed is not in the way."""
    database = filled(server)
    database.query("DROP TABLE told_waits")
    waits = next(m.name for m in known() if m.name.endswith("_waits"))
    database.query("DELETE FROM schema_migrations WHERE name = %s", (waits,))
    made, _ = backup.make(config, server)
    server.ask("CREATE DATABASE mission_control_restoring")
    done = restore.into_database(server, made.path, running={})
    assert done.migrations == (waits,)
    assert database.query("SELECT * FROM told_waits") == []
    database.close()


def test_doctor_says_when_a_night_was_missed(config: Config) -> None:
    """Nothing for two days is a warning, with what to do; a fresh cluster has none yet."""
    cluster = config.state_dir / "postgres/PG_VERSION"
    cluster.parent.mkdir(parents=True)
    cluster.write_text("17\n")
    assert doctor._backup(config).verdict == "ok"
    os.utime(cluster, (0, 0))
    assert doctor._backup(config).verdict == "warn"
    config.backup_dir.mkdir()
    for days, verdict in ((3, "warn"), (1, "ok")):
        at = datetime.now(UTC) - timedelta(days=days)
        (config.backup_dir / f"mission-control-{at:%Y%m%dT%H%M%S.%f}Z.dump").touch()
        check = doctor._backup(config)
        assert check.verdict == verdict
        assert f"{at:%Y-%m-%d}" in check.found
