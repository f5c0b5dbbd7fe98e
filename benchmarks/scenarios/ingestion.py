"""Ingest: ingest.py's measurements, on a cluster of the run's own with fsync on."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import ingest as own
from benchmarks.measure import Bench
from orchestrator import config as configuration
from orchestrator.store.db import Database
from tests.unit import postgres

LINES = 40_000
FLOOR = "one COPY"
INSERT = "INSERT by hand"


def ingest(bench: Bench) -> None:
    """Lines a second, beside one COPY of ready text; and the lag of one line."""
    programs = postgres.bin_path()
    if programs is None:
        raise RuntimeError("PostgreSQL's server programs are not installed")
    lines = LINES // 8 if bench.quick else LINES
    data = [own.data_of(number) for number in range(lines)]
    postgres.SETTINGS.clear()
    postgres.SETTINGS.update(own.DURABLE)
    cluster = postgres.Cluster(programs)
    copied, ours = [], []
    try:
        for _ in range(bench.runs):
            with tempfile.TemporaryDirectory() as folder:
                config = configuration.load({"HOME": folder, "XDG_RUNTIME_DIR": f"{folder}/run"})
                dsn = cluster.create_database()
                database = Database(dsn)
                ticket = own.ticket_of(config, database).ticket
                database.close()
                copied.append(own.copied(dsn, ticket, data, "ticket_events"))
                home = f"{folder}/ours"
                config = configuration.load({"HOME": home, "XDG_RUNTIME_DIR": f"{home}/run"})
                ours.append(own.ingested(config, cluster.create_database(), data))
        with tempfile.TemporaryDirectory() as folder:
            config = configuration.load({"HOME": folder, "XDG_RUNTIME_DIR": f"{folder}/run"})
            lags, floor = own.lags(Path(folder), config, cluster.create_database())
    finally:
        cluster.destroy()
    how = f"{lines:,} lines of {own.LINE_BYTES} bytes, fsync on"
    bench.note("ingest", "rate", "/s", copied, system=FLOOR, how=how)
    bench.note("ingest", "rate", "/s", ours, how=how)
    bench.note("ingest", "lag of one line", "ms", floor, system=INSERT)
    bench.note("ingest", "lag of one line", "ms", lags)
