"""Fault 32: install.sh again with workers running; and a database of an older Mission Control."""

from __future__ import annotations

import pytest

from tests.faults.record import Drill
from tests.machine.cache import Layer
from tests.machine.fixtures import NewMachine
from tests.machine.install import CHECKOUT
from tests.machine.product import HOME, Product

SERVICES = ("mc-ingest", "mc-dispatch")
PSQL = "psql -qAtv ON_ERROR_STOP=1 -h $XDG_RUNTIME_DIR/mission-control/postgres"


@pytest.mark.fault(32)
@pytest.mark.timeout(900)
def test_workers_keep_their_pids(installed: Layer, fresh_machine: NewMachine, drill: Drill) -> None:
    """Another version is installed under three workers: they go on, the services are the new ones."""
    machine = fresh_machine(installed, network="internet")
    product = Product(machine)
    tickets = [product.new(f"number {n}", "--driver", "demo", "--start") for n in range(3)]
    for ticket in tickets:
        product.wait_turn(ticket, "idle")
    workers = [product.main_pid(t) for t in tickets]
    show = ["show", "-p", "MainPID", "--value", *SERVICES]
    services = product.systemctl(*show).stdout.split()
    machine.sh(f"echo 'ANOTHER_VERSION = 1' >> {CHECKOUT}/orchestrator/errors.py")
    with drill.recovery():
        done = machine.run([f"{CHECKOUT}/install.sh"], timeout=600)
    assert "services run this version" in done.stdout
    assert [product.main_pid(t) for t in tickets] == workers
    assert set(product.systemctl(*show).stdout.split()).isdisjoint(services)
    python = f"{HOME}/.local/share/mission-control/venv/bin/python"
    machine.run([python, "-Ic", "from orchestrator.errors import ANOTHER_VERSION"])
    for ticket in tickets:
        product.say(ticket, "still there?")
        starts = [h for h in product.sidecar(ticket) if h["hook"] == "WorkerStart"]
        assert len(starts) == 1
    again = machine.run([f"{CHECKOUT}/install.sh"])
    assert "Nothing had to be changed." in again.stdout


def test_an_older_database_is_adopted(installed: Layer, fresh_machine: NewMachine) -> None:
    """Made by hand, with one ticket: setup takes it over, and the ticket runs; a newer one is refused."""
    machine = fresh_machine(installed)
    product = Product(machine)
    machine.sh(f"{PSQL} postgres -c 'DROP DATABASE mission_control WITH (FORCE)'")
    machine.sh(f"{PSQL} postgres -c 'CREATE DATABASE mission_control'")
    machine.run(
        ["bash", "-c", f"{PSQL} mission_control"],
        input="CREATE TABLE tickets (id integer PRIMARY KEY, title text, status text DEFAULT 'open', owner text);"
        "CREATE TABLE ticket_events (id bigserial PRIMARY KEY, ticket_id integer, kind text);"
        "CREATE TABLE queued_messages (id bigserial PRIMARY KEY, ticket_id integer, body text);"
        "INSERT INTO tickets VALUES (5, 'from before', 'open', 'ann');",
    )
    done = product.ctl("setup")
    assert "0001_tickets" in done.stdout
    assert product.show(5)["title"] == "from before"
    machine.sh(f"{PSQL} mission_control -c \"UPDATE tickets SET driver = 'demo' WHERE id = 5\"")
    product.ctl("start", "5")
    product.say(5, "what is 1+1")
    assert machine.sh(f"{PSQL} mission_control -c 'SELECT owner FROM tickets'").stdout == "ann\n"
    assert "Nothing had to be changed." in product.ctl("setup").stdout
    machine.sh(
        f"{PSQL} mission_control -c \"INSERT INTO schema_migrations VALUES (9999, 'later')\""
    )
    refused = product.ctl("setup", check=False)
    assert refused.returncode == 78
    assert "9999" in refused.stderr
