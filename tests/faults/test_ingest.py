"""Faults 1, 2 and 17: torn lines, two ingesters, kill -9 of ingest and of PostgreSQL, poison.

No machine is needed: real `mc-ingest` processes against a real PostgreSQL. MC_DRILL_LINES=200000
makes it the long drill.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator import config as configuration
from orchestrator.errors import Unavailable
from orchestrator.store import tickets
from orchestrator.store.db import Database
from tests.unit.conftest import cluster  # noqa: F401  # the fixture
from tests.unit.postgres import Cluster

LINES = int(os.environ.get("MC_DRILL_LINES", "20000"))
CATCH_UP_S = 60 + LINES / 1000
POISON_EVERY = 97
CENTS = Decimal("0.0001")  # each cost line adds this


class Writer(threading.Thread):
    """Writes the sidecar in pieces torn anywhere, poison among the lines."""

    def __init__(self, path: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.random = random.Random(seed)
        self.poisoned: list[int] = []  #: offsets of the planted lines
        self.valid = 0

    def run(self) -> None:
        """Until all lines are there."""
        offset, waiting = (
            0,
            bytearray(b'{"v":1,"at":"2026-01-01T00:00:00Z","hook":"WorkerStart","data":{}}\n'),
        )
        self.valid += 1
        with self.path.open("ab", buffering=0) as file:
            for number in range(1, LINES + 1):
                if number % POISON_EVERY == 0:
                    self.poisoned.append(offset + len(waiting))
                    waiting += self.random.choice(
                        [b"{\n", b"\xff\n", b'{"v":1,"data":NaN}\n', b"null\n"]
                    )
                else:
                    cost = number * CENTS
                    waiting += (
                        f'{{"v":1,"at":"2026-01-01T00:00:00Z","hook":"statusLine","data":'
                        f'{{"n":{number},"cost":{{"total_cost_usd":{cost}}}}}}}\n'
                    ).encode()
                    self.valid += 1
                if len(waiting) > self.random.randrange(1, 6000):
                    cut = self.random.randrange(1, len(waiting))
                    file.write(waiting[:cut])
                    offset += cut
                    del waiting[:cut]
                if number % 500 == 0:
                    time.sleep(0.005)  # a worker writes while it is read
            file.write(waiting)


def ingester(home: Path, dsn: str) -> subprocess.Popen[bytes]:
    """A real mc-ingest."""
    env = {
        **os.environ,
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "MC_DATABASE_URL": dsn,
    }
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "NOTIFY_SOCKET"):
        env.pop(name, None)
    with (home / "ingest.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", "from orchestrator.ingest import main; main()"],
            env=env,
            stdout=log,
            stderr=log,
        )


@pytest.mark.timeout(600)
@pytest.mark.fault(1, 2, 17)
def test_every_line_once_through_everything(cluster: Cluster, tmp_path: Path) -> None:  # noqa: F811
    """Rows = valid lines, each once, in order; the cost exact; quarantine = the planted set."""
    seed = random.randrange(10**6)
    print(f"seed {seed}, {LINES} lines")
    dice = random.Random(seed)
    dsn = cluster.create_database()
    database = Database(dsn)
    config = configuration.load({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})
    ticket = tickets.create(database, title="drill").id
    tickets.update(database, ticket, status="in_progress")
    paths = config.ticket_paths(ticket)
    paths.folder.mkdir(parents=True)
    paths.sidecar_path.touch()
    writer = Writer(paths.sidecar_path, seed)
    writer.start()
    running = [ingester(tmp_path, dsn) for _ in range(2)]
    kills = crashes = 0
    try:
        while writer.is_alive() or kills < 10:
            time.sleep(dice.uniform(0.05, 0.5))
            which = dice.randrange(2)
            running[which].kill()
            running[which].wait()
            running[which] = ingester(tmp_path, dsn)
            kills += 1
            if kills % 4 == 0:
                cluster._signal(signal.SIGKILL)
                restart(cluster)
                crashes += 1
        deadline = time.monotonic() + CATCH_UP_S
        while position(database) < paths.sidecar_path.stat().st_size:
            assert time.monotonic() < deadline, (tmp_path / "ingest.log").read_text()[-3000:]
            time.sleep(0.1)
    finally:
        for process in running:
            process.kill()
            process.wait()
    print(f"{kills} kills of ingest, {crashes} of PostgreSQL")
    rows = database.query(
        "SELECT data -> 'n' AS n FROM ticket_events WHERE kind = 'cost' ORDER BY id"
    )
    numbers = [int(row["n"]) for row in rows]
    assert numbers == [n for n in range(1, LINES + 1) if n % POISON_EVERY]
    quarantined = database.query('SELECT "offset" FROM quarantine ORDER BY "offset"')
    assert [row["offset"] for row in quarantined] == writer.poisoned
    last = max(n for n in range(1, LINES + 1) if n % POISON_EVERY)
    assert tickets.get(database, ticket).cost_usd == last * CENTS
    database.close()


def restart(cluster: Cluster) -> None:  # noqa: F811
    """A killed server starts again once its old backends are gone."""
    for _ in range(100):
        try:
            cluster.start()
        except RuntimeError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("PostgreSQL does not start again")


def position(database: Database) -> int:
    """How far the sidecar was read."""
    try:
        rows = database.query('SELECT "offset" FROM ingest_positions')
    except Unavailable:
        return 0
    return int(rows[0]["offset"]) if rows else 0
