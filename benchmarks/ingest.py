"""How many sidecar lines a second are durable in PostgreSQL, and how long one line takes when idle.

A cluster of the run's own with fsync on. Throughput: lines of 1.2 KB that are all there already, read
by the ingester as it is, beside the floor, one COPY of ready text into the same table (same indexes,
same triggers), and that into a bare table. Lag: a real `mc-ingest` beside a file that gets a line now
and then, from the write until a listener hears of the row; the floor is an INSERT of that row by hand.

    python3 -m benchmarks.ingest [--runs 5] [--lines 100000]     (writes benchmarks/results/ingest.md)
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg2

from orchestrator import config as configuration
from orchestrator.config import Config
from orchestrator.ingest import Followed, Ingest
from orchestrator.store import tickets
from orchestrator.store.db import Database, Listener
from tests.unit import postgres

RESULT = Path(__file__).with_name("results") / "ingest.md"
LINE_BYTES = 1200
LAG_LINES = 200
DURABLE = {
    "listen_addresses": "", "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
    "shared_buffers": "128MB", "max_connections": "60",
}  # fmt: skip
BARE = (
    "CREATE TABLE bare (ticket_id integer, at timestamptz, kind text, data jsonb, source text,"
    " source_generation integer, source_offset bigint)"
)
COLUMNS = "ticket_id, at, kind, data, source, source_generation, source_offset"
AT = "2026-01-01T00:00:00.000000Z"


def data_of(number: int) -> str:
    """What a hook says: the names of a real one, filled up to the size of a line."""
    said = {
        "session_id": "5a3885d6-6d86-44f5-b6ca-624a3c95b6cf",
        "transcript_path": "/home/op/.claude/projects/-home-op-w/5a3885d6-6d86-44f5-b6ca-624a3c95b6cf.jsonl",
        "cwd": "/home/op/w", "permission_mode": "default", "hook_event_name": "PostToolUse",
        "tool_name": "Bash", "tool_input": {"command": f"echo {number}", "description": "run it"},
        "tool_use_id": f"toolu_{number:06d}", "duration_ms": 12.5, "effort": {"level": "high"},
        "tool_response": {"stdout": "", "stderr": "", "interrupted": False, "isImage": False},
    }  # fmt: skip
    missing = LINE_BYTES - 70 - len(json.dumps(said, separators=(",", ":")))
    said["tool_response"] = {"stdout": ('one "word" of output\n' * 80)[: missing - 60]}
    return json.dumps(said, separators=(",", ":"))


def line_of(data: str) -> str:
    """A line of a sidecar."""
    return f'{{"v":1,"at":"{AT}","hook":"PostToolUse","data":{data}}}\n'


def ticket_of(config: Config, database: Database) -> Followed:
    """A ticket whose folder is there."""
    number = tickets.create(database, title="bench").id
    tickets.update(database, number, status="in_progress")
    path = config.ticket_paths(number).sidecar_path
    path.parent.mkdir(parents=True)
    path.touch()
    return Followed(number, path)


def copied(dsn: str, ticket: int, data: list[str], table: str) -> float:
    """Lines a second of one COPY."""
    escaped = (text.replace("\\", "\\\\") for text in data)
    text = "".join(
        f"{ticket}\t{AT}\ttool_result\t{one}\tsidecar:{ticket}\t0\t{n}\n"
        for n, one in enumerate(escaped)
    )
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        begun = time.perf_counter()
        cursor.copy_expert(f"COPY {table} ({COLUMNS}) FROM STDIN", io.StringIO(text))
        connection.commit()
        took = time.perf_counter() - begun
    connection.close()
    return len(data) / took


def ingested(config: Config, dsn: str, data: list[str]) -> float:
    """Lines a second of the ingester."""
    database = Database(dsn)
    followed = ticket_of(config, database)
    followed.path.write_text("".join(line_of(one) for one in data), encoding="utf-8")
    ingest = Ingest(config, database)
    begun = time.perf_counter()
    while ingest.read_on(followed):
        pass
    took = time.perf_counter() - begun
    rows = database.query(
        "SELECT count(*) FROM ticket_events WHERE ticket_id = %s", (followed.ticket,)
    )
    if rows != [{"count": len(data)}]:
        raise SystemExit(f"{rows} instead of {len(data)} lines")
    database.close()
    return len(data) / took


def lags(home: Path, config: Config, dsn: str) -> tuple[list[float], list[float]]:
    """Milliseconds from a line's write until a listener hears of it; and of a plain INSERT."""
    database = Database(dsn)
    followed = ticket_of(config, database)
    environ = {
        **os.environ,
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "MC_DATABASE_URL": dsn,
    }
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "NOTIFY_SOCKET"):
        environ.pop(name, None)
    listener = Listener(database, ["mc_events"])
    argv = [sys.executable, "-c", "from orchestrator.ingest import main; main()"]

    def heard(begun: float) -> float:
        while not listener.wait(5):
            if time.perf_counter() - begun > 30:
                raise SystemExit("nothing was heard of a line")
        return (time.perf_counter() - begun) * 1e3

    ours, floor = [], []
    with subprocess.Popen(argv, env=environ) as process:
        try:
            with followed.path.open("a", buffering=1, encoding="utf-8") as file:
                for number in range(LAG_LINES + 1):
                    begun = time.perf_counter()
                    file.write(line_of(data_of(number)))
                    ours.append(heard(begun))
                    time.sleep(0.05)
                    begun = time.perf_counter()
                    database.query(
                        "INSERT INTO ticket_events (ticket_id, kind, data) VALUES (%s, 'other', %s)",
                        (followed.ticket, data_of(number)),
                    )
                    floor.append(heard(begun))
                    time.sleep(0.05)
        finally:
            process.terminate()
    listener.close()
    database.close()
    return ours[1:], floor[1:]


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser("benchmarks.ingest")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--lines", type=int, default=100_000)
    options = parser.parse_args()
    programs = postgres.bin_path()
    if programs is None:
        raise SystemExit("PostgreSQL's server programs are not installed")
    postgres.SETTINGS.clear()
    postgres.SETTINGS.update(DURABLE)
    cluster = postgres.Cluster(programs)
    data = [data_of(number) for number in range(options.lines)]
    found: dict[str, list[float]] = {"bare": [], "floor": [], "ours": []}
    try:
        for _ in range(options.runs):
            with tempfile.TemporaryDirectory() as folder:
                home = Path(folder)
                config = configuration.load({"HOME": folder, "XDG_RUNTIME_DIR": f"{folder}/run"})
                dsn = cluster.create_database()
                with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
                    cursor.execute(BARE)
                found["bare"].append(copied(dsn, 1, data, "bare"))
                dsn = cluster.create_database()
                database = Database(dsn)
                ticket = ticket_of(config, database).ticket
                database.close()
                found["floor"].append(copied(dsn, ticket, data, "ticket_events"))
                home = home / "ours"
                config = configuration.load({"HOME": str(home), "XDG_RUNTIME_DIR": f"{home}/run"})
                found["ours"].append(ingested(config, cluster.create_database(), data))
                print({name: round(rates[-1]) for name, rates in found.items()}, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            config = configuration.load({"HOME": folder, "XDG_RUNTIME_DIR": f"{folder}/run"})
            ours, floor = lags(Path(folder), config, cluster.create_database())
        version = subprocess.run(
            [programs / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout.split()[2]
    finally:
        cluster.destroy()
    write(options, found, ours, floor, version)
    return 0


def write(
    options: argparse.Namespace, found: dict[str, list[float]], ours: list[float],
    floor: list[float], version: str,
) -> None:  # fmt: skip
    """The page of results."""
    base = statistics.median(found["floor"])
    lines = [
        "# Ingest", "",
        f"{datetime.now(UTC):%Y-%m-%d}, PostgreSQL {version}, Python {platform.python_version()},"
        f" {os.cpu_count()} cores; {options.runs} runs of {options.lines} lines of {LINE_BYTES} bytes,"
        f" fsync on, load average {os.getloadavg()[0]:.0f}; lines a second. Figures count as ratios.", "",
        "| what | median | min | max | of the floor |", "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    names = {
        "bare": "one COPY of ready text, a bare table",
        "floor": "one COPY of ready text, the same table (the floor)",
        "ours": "ours: read, checked, folded, each once, with its position",
    }
    for key, name in names.items():
        rates = found[key]
        median = statistics.median(rates)
        lines.append(
            f"| {name} | {median:,.0f} | {min(rates):,.0f} | {max(rates):,.0f} | {median / base:.2f} |"
        )
    lines += [
        "", f"Lag of one line when idle, {LAG_LINES} lines, milliseconds until a listener hears of it:",
        "", "| what | p50 | p95 | max |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for name, times in (
        ("INSERT of the row by hand (the floor)", floor),
        ("ours, `mc-ingest`", ours),
    ):
        cuts = statistics.quantiles(times, n=20)
        lines.append(f"| {name} | {cuts[9]:.1f} | {cuts[18]:.1f} | {max(times):.1f} |")
    lines += ["", "`python3 -m benchmarks.ingest`", ""]
    RESULT.write_text("\n".join(lines), encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
