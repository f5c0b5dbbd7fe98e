"""/metrics: what is measured in files, formats, and what is left when something is away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from orchestrator.config import Config
from orchestrator.store import tickets
from orchestrator.store.db import Database
from orchestrator.watch import FileIdentity
from tests.unit.gateway import Gateway
from tests.unit.postgres import Cluster
from tests.unit.scrape import said
from webgate.metrics import unread_bytes
from webgate.piped import Piped


def test_what_panes_print_is_counted_once(tmp_path: Path) -> None:
    """Not what was there before; through a rotation, a cut, a log that goes and one that comes; no link is followed."""
    piped = Piped(tmp_path)
    log, other = tmp_path / "1/pane.log", tmp_path / "2/pane.log"
    log.parent.mkdir()
    other.parent.mkdir()
    log.write_bytes(b"x" * 100)

    def growth() -> int:
        before = piped.bytes
        piped.look()
        return piped.bytes - before

    assert growth() == 0
    with log.open("ab") as file:
        file.write(b"y" * 7)
    assert growth() == 7
    assert growth() == 0
    other.write_bytes(b"z" * 5)
    assert growth() == 5
    with log.open("ab") as file:
        file.write(b"y" * 11)
    log.rename(tmp_path / "1/pane.log.1")
    log.write_bytes(b"n" * 3)
    assert growth() == 11 + 3
    log.write_bytes(b"m")  # cut
    assert growth() == 1
    other.unlink()
    (tmp_path / "3").mkdir()
    (tmp_path / "3/pane.log").symlink_to(log)
    (tmp_path / "nothing of ours").mkdir()
    assert growth() == 0
    assert Piped(tmp_path / "missing").look() is None


def test_what_ingest_has_not_read(database: Database, tmp_path: Path) -> None:
    """Of open tickets whose file is there: from the place in this very file, from its beginning in another one."""
    config = Config(state_dir=tmp_path, runtime_dir=tmp_path)
    read, fresh, missing, closed = (tickets.create(database, title=t).id for t in "abcd")
    tickets.update(database, closed, status="closed")
    for number, size in ((read, 100), (fresh, 30), (closed, 1000)):
        path = config.ticket_paths(number).sidecar_path
        path.parent.mkdir(parents=True)
        path.write_bytes(b"{}\n" + b"x" * (size - 3))
    path = config.ticket_paths(read).sidecar_path
    for number, identity in ((read, FileIdentity.of(path).text), (missing, "gone")):
        database.query(
            'INSERT INTO ingest_positions (source, generation, "offset", identity) VALUES (%s, 0, 60, %s)',
            (f"sidecar:{number}", identity),
        )
    assert unread_bytes(config, database) == 40 + 30
    assert "mc_ingest_lag_bytes 70.0\n" in said(database, state=tmp_path)
    path.unlink()
    path.write_bytes(b'{"another":1}\n' + b"x" * 100)
    assert unread_bytes(config, database) == 114 + 30


def test_who_asks_for_openmetrics_gets_it(database: Database) -> None:
    """It ends as that format has to; everybody else gets the text format."""
    asked = said(database, accept="application/openmetrics-text; version=1.0.0")
    assert asked.endswith("# EOF\n")
    assert "# TYPE mc_events counter\n" in asked
    assert "# TYPE mc_events_total counter\n" in said(database, accept="text/html")


def test_a_real_gateway_counts_and_outlives_its_database(
    fresh_gateway: Gateway, cluster: Cluster
) -> None:
    """What a pane printed and ingest did not read; with the database away the rest is told, with status 200."""
    ticket = tickets.create(fresh_gateway.database, title="printed")
    log = fresh_gateway.pane_log(ticket.id)
    assert "mc_pane_bytes_total 0.0\n" in fresh_gateway.get("/metrics").body.decode()
    log.write_bytes(b"x" * 1234)
    log.with_name("sidecar.jsonl").write_bytes(b"{}\n")
    text = fresh_gateway.get("/metrics").body.decode()
    assert "mc_pane_bytes_total 1234.0\n" in text
    assert "mc_ingest_lag_bytes 3.0\n" in text
    cluster.stop()
    try:
        away = fresh_gateway.ask(
            "GET", "/metrics", {"Authorization": f"Bearer {fresh_gateway.token}"}
        )
    finally:
        cluster.start()
    assert (away.status, "mc_database_up 0.0\n" in away.body.decode()) == (200, True)
    assert "mc_pane_bytes_total 1234.0\n" in away.body.decode()
    assert "mc_tickets" not in away.body.decode()


def test_a_gateway_nobody_scrapes_does_not_hold_the_library() -> None:
    """It is imported by the first scrape."""
    script = "import sys, webgate.app, webgate.server; print('prometheus_client' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
