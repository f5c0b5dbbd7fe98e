"""Fault 15: a line of 10 MB, and 1 GB without a newline: bounded memory, quarantined, read on behind it.

A real `mc-ingest` against a real PostgreSQL, with a ceiling on its memory that the kernel keeps.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator import config as configuration
from orchestrator.sidecar_tee import MAX_LINE_BYTES
from orchestrator.store import tickets
from orchestrator.store.db import Database
from tests.faults.test_ingest import ingester, position
from tests.unit.conftest import cluster  # noqa: F401  # the fixture
from tests.unit.postgres import Cluster

GIGABYTE = 1 << 30
PEAK_BYTES = 200 << 20  # of the process; a gigabyte in memory would be five times that
WAIT_S = 120.0
GOOD = b'{"v":1,"at":"2026-01-01T00:00:00Z","hook":"Note","data":{"n":%d}}\n'


def peak_bytes(pid: int) -> int:
    """The most a process ever held in memory."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(row for row in status.splitlines() if row.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.mark.timeout(400)
@pytest.mark.fault(15)
def test_what_never_ends_is_quarantined_in_bounded_memory(
    cluster: Cluster,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The lines before, between and behind are events, once; each long one is poison with its offset."""
    dsn = cluster.create_database()
    database = Database(dsn)
    config = configuration.load({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})
    ticket = tickets.create(database, title="endless").id
    tickets.update(database, ticket, status="in_progress")
    paths = config.ticket_paths(ticket)
    paths.folder.mkdir(parents=True)
    with paths.sidecar_path.open("wb") as file:
        file.write(GOOD % 1)
        long_at = file.tell()
        file.write(b'{"v":1,"at":"2026-01-01T00:00:00Z","hook":"PostToolUse","data":{"x":"')
        file.write(b"y" * 10_000_000 + b'"}}\n')
        file.write(GOOD % 2)
        endless_at = file.tell()
        file.truncate(endless_at + GIGABYTE)  # a hole: a gigabyte of NULs, none of them a newline
    process = ingester(tmp_path, dsn)
    try:
        wait(database, paths.sidecar_path)
        with paths.sidecar_path.open("ab") as file:  # its end comes later, and a line after it
            file.write(b"\n" + GOOD % 3)
        wait(database, paths.sidecar_path)
        assert process.poll() is None
        peak = peak_bytes(process.pid)
    finally:
        process.kill()
        process.wait()
    print(f"peak {peak >> 20} MiB")
    assert peak < PEAK_BYTES
    rows = database.query("SELECT data -> 'n' AS n FROM ticket_events ORDER BY id")
    assert [int(row["n"]) for row in rows] == [1, 2, 3]
    found = database.query('SELECT "offset", "end", hook, reason FROM quarantine ORDER BY "offset"')
    assert [row["offset"] for row in found][:2] == [long_at, endless_at]
    assert found[0]["hook"] == "PostToolUse"
    assert found[-1]["end"] == endless_at + GIGABYTE + 1
    assert {row["reason"] for row in found[:2]} == {f"longer than {MAX_LINE_BYTES} bytes"}
    database.close()


def wait(database: Database, path: Path) -> None:
    """Until all of the file was read."""
    deadline = time.monotonic() + WAIT_S
    while position(database) < path.stat().st_size:
        assert time.monotonic() < deadline, position(database)
        time.sleep(0.05)
