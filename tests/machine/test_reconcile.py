"""It comes back: tickets in progress run after a reboot, a power cut and worse, and no others do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.machine.machine import Machine
from tests.machine.product import STATE, Product


@pytest.fixture
def product(machine: Machine) -> Product:
    """A machine of the test's own, on which nothing reconciles by itself."""
    made = Product(machine)
    made.systemctl("stop", "mc-reconcile.timer")
    return made


def demo(product: Product, title: str) -> int:
    """A demo ticket that runs and has answered."""
    ticket = product.new(title, "--driver", "demo", "--start")
    product.machine.wait_for(lambda: product.hooks(ticket, "Stop"), what="the first answer")
    return ticket


def reconcile(product: Product, *args: str) -> list[tuple[int, str]]:
    """What it did, or would do: ticket and act."""
    found = json.loads(product.ctl("reconcile", "--json", *args).stdout)
    return [(step["ticket"], step["act"]) for step in found["steps"]]


def sql(product: Product, statement: str) -> str:
    """What the database says to that."""
    socket = "$XDG_RUNTIME_DIR/mission-control/postgres"
    return product.machine.sh(f'psql -qAth {socket} mission_control -c "{statement}"').stdout


def kinds(product: Product, ticket: int) -> list[dict[str, Any]]:
    """The ticket's `reconciled` events."""
    lines = product.ctl("events", str(ticket), "--json").stdout.splitlines()
    return [e["data"] for e in map(json.loads, lines) if e["kind"] == "reconciled"]


@pytest.mark.parametrize("how", ["reboot", "power cut"])
@pytest.mark.fault(20)
def test_every_ticket_in_progress_is_back_once(machine: Machine, how: str) -> None:
    """In the middle of a turn: each once, on its conversation; what was stopped stays away; enabled comes."""
    product = Product(machine)
    running = [demo(product, f"number {n}") for n in range(5)]
    stopped, enabled = demo(product, "stopped"), product.new("enabled", "--driver", "demo")
    product.systemctl("stop", f"ticket@{stopped}")
    product.systemctl("enable", f"ticket@{enabled}")
    before = {t: product.show(t)["session_id"] for t in running}
    product.send(running[0], "slow 20")
    if how == "reboot":
        machine.reboot()
    else:
        machine.cut_power()
        machine.boot()
    for ticket in running:
        product.wait_turn(ticket, "idle")
        product.wait_screen(ticket, "resumed")
        assert product.show(ticket)["session_id"] == before[ticket]
        starts = [s["source"] for s in product.hooks(ticket, "SessionStart")]
        assert starts == ["startup", "resume"]
    assert len({product.main_pid(t) for t in running} - {0}) == len(running)
    agents = machine.run(
        ["pgrep", "-fc", "^[^ ]*python -I -m orchestrator.demo_agent"]
    ).stdout.strip()
    assert int(agents) == len(running) + 1
    assert product.unit(stopped)["ActiveState"] == "inactive"
    assert product.show(enabled)["status"] == "in_progress"


def test_a_stop_and_a_start_by_hand_without_a_database_are_intent(product: Product) -> None:
    """The stop is made up for from its note, the running one is taken as it is."""
    ticket = demo(product, "by hand")
    other = demo(product, "crashes meanwhile")
    product.take_database_away()
    product.systemctl("stop", f"ticket@{ticket}")
    product.machine.sh(f"kill -9 {product.main_pid(other)}")
    product.wait_active(other, "failed")
    product.bring_database_back()
    assert product.show(ticket)["status"] == "in_progress"
    made_up_for = [(ticket, "ended"), (other, "ended")]
    assert reconcile(product, "--dry-run") == made_up_for
    assert reconcile(product) == [*made_up_for, (other, "start")]
    assert product.show(ticket)["status"] == "open"
    assert product.unit(ticket)["ActiveState"] == "inactive"
    product.wait_screen(other, "resumed")
    assert reconcile(product) == []
    sql(product, f"UPDATE tickets SET status = 'open', worker_pid = NULL WHERE id = {other}")
    assert reconcile(product) == [(other, "adopt")]
    shown = product.show(other)
    assert (shown["status"], shown["worker_pid"]) == ("in_progress", product.main_pid(other))


def test_a_worker_that_cannot_stay_needs_input(product: Product) -> None:
    """With the comment and the reason, once; and it comes back when it is started."""
    ticket = product.new(
        "false", "--driver", "command", "--", "sh", "-c", "test -e mended && sleep 600"
    )
    mended = f"{product.work(ticket)}/mended"
    product.machine.sh(f"mkdir -p -m 700 $(dirname {mended}); touch {mended}")
    product.ctl("start", str(ticket))
    product.machine.sh(f"rm {mended}; kill -9 {product.main_pid(ticket)}")
    product.wait_active(ticket, "failed")
    assert reconcile(product) == [(ticket, "drop")]
    assert reconcile(product) == []
    shown = product.show(ticket)
    assert (shown["status"], shown["turn_state"]) == ("needs_input", "gone")
    (told,) = kinds(product, ticket)
    assert told["act"] == "drop"
    assert "exited with status 1" in told["why"]
    comments = sql(product, f"SELECT body FROM comments WHERE ticket_id = {ticket}")
    assert comments.startswith("worker dropped, awaiting reattach: ")
    product.machine.sh(f"touch {mended}")
    product.ctl("start", str(ticket))
    assert product.show(ticket)["status"] == "in_progress"
    assert reconcile(product) == []


def test_three_at_a_time_and_those_that_cannot_are_dropped_at_once(product: Product) -> None:
    """Ten tickets at rest, two of which cannot start: eight run, two need input, in one reconcile."""
    good = [product.new(f"good {n}", "--driver", "demo") for n in range(8)]
    bad = [product.new(f"bad {n}", "--driver", "command", "--", "/nonexistent") for n in range(2)]
    sql(product, "UPDATE tickets SET status = 'in_progress'")
    did = reconcile(product)
    assert sorted(did) == sorted([*((t, "start") for t in good + bad), *((t, "drop") for t in bad)])
    assert [product.show(t)["status"] for t in bad] == ["needs_input"] * 2
    assert all(product.unit(t)["ActiveState"] == "active" for t in good)
    assert reconcile(product) == []


def test_what_belongs_to_no_ticket_is_told_and_left(product: Product) -> None:
    """A session that somebody named like one of ours."""
    product.machine.run(["tmux", "new-session", "-d", "-s", "ticket-777", "sleep", "600"])
    found = json.loads(product.ctl("reconcile", "--json").stdout)
    assert found == {"steps": [], "orphans": ["tmux session ticket-777"]}
    assert product.machine.run(["tmux", "has-session", "-t", "=ticket-777"]).returncode == 0


def test_a_stopped_tmux_server_stays_stopped(product: Product) -> None:
    """Its tickets wait for it; started again, reconcile brings them back."""
    ticket = demo(product, "waits")
    product.systemctl("stop", "tmux-mc.service")
    assert reconcile(product) == [(ticket, "hold")]
    assert product.unit(ticket)["ActiveState"] == "inactive"
    product.systemctl("start", "tmux-mc.service")
    assert reconcile(product) == [(ticket, "start")]
    product.wait_screen(ticket, "resumed")


def test_two_at_once_do_not_fight(product: Product) -> None:
    """One does it, the other says so; afterwards everything runs once."""
    tickets = [product.new(f"t {n}", "--driver", "demo") for n in range(4)]
    sql(product, "UPDATE tickets SET status = 'in_progress'")
    out = product.machine.sh(
        "for n in 1 2 3; do { ~/.local/bin/ticketctl reconcile 2>&1 || echo status $?; } & done; wait"
    ).stdout
    assert out.count("Another reconcile is at work") == out.count("status 5") < 3
    for ticket in tickets:
        assert len([h for h in product.sidecar(ticket) if h["hook"] == "WorkerStart"]) == 1
    assert not product.machine.run(
        ["ls", f"{STATE}/tickets/{tickets[0]}/ending.json"], check=False
    ).stdout
