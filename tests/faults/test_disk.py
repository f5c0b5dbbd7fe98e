"""Fault 12: the disk is full, under the logs, the state and the database.

A small file system of the drill's own is mounted where the product keeps all of its state.
"""

from __future__ import annotations

import json
import secrets

import pytest

from tests.faults.record import Drill
from tests.machine.machine import Machine
from tests.machine.product import STATE, Product

SIZE_MB = 200
UNITS = ("mc.target", "mc-webgate.socket", "tmux-mc.service", "mc-postgres.service")


@pytest.fixture
def product(machine: Machine) -> Product:
    """Its state on a file system of SIZE_MB."""
    made = Product(machine)
    made.systemctl("stop", *UNITS, "mc-ingest", "mc-dispatch", "mc-webgate", "mc-heartbeat.timer",
                   "mc-reconcile.timer")  # fmt: skip
    machine.sh(
        f"cp -a {STATE} /var/tmp/kept; mount -t tmpfs -o size={SIZE_MB}m,mode=0700,uid=1000,gid=1000 none {STATE};"
        f" cp -a /var/tmp/kept/. {STATE}/",
        user="root",
    )
    made.systemctl("start", "mc.target")
    machine.wait_for(lambda: made.ctl("list", check=False).returncode == 0, what="the database")
    return made


def fill(product: Product) -> None:
    """Until nothing more goes in."""
    product.machine.sh(f"dd if=/dev/zero of={STATE}/filler bs=64k 2>/dev/null || true", timeout=60)


@pytest.mark.fault(12)
@pytest.mark.timeout(900)
def test_nothing_acknowledged_is_lost_on_a_full_disk(product: Product, drill: Drill) -> None:
    """Errors are sentences; with space again all goes on within seconds, and every row is there."""
    ticket = product.new("full", "--driver", "demo", "--start")
    product.machine.wait_for(lambda: product.hooks(ticket, "Stop"), what="the first answer")
    acknowledged: set[str] = set()
    refused = 0
    for number in range(3):
        fill(product)
        for _ in range(200):
            # what cannot be compressed: each takes pages of its own
            text = f"message {len(acknowledged)} of {number} " + secrets.token_hex(6000)
            done = product.ctl("send", str(ticket), text, check=False)
            if done.returncode == 0:
                acknowledged.add(text)
                continue
            refused += 1
            assert done.returncode == 75, done.stderr
            assert "Traceback" not in done.stderr
            assert done.stderr.startswith("error: PostgreSQL"), done.stderr
            break
        with drill.recovery():
            product.machine.sh(f"rm {STATE}/filler")
            product.machine.wait_for(
                lambda: (
                    product.ctl("send", str(ticket), "space again", check=False).returncode == 0
                ),
                what="it takes messages again",
            )
        out = product.ctl("queue", str(ticket), "-n", "1000", "--json").stdout
        there = {m["body"] for m in json.loads(out)}
        drill.lost += len(acknowledged - there)
        assert acknowledged <= there
    assert refused, "the disk was never full"
    product.machine.wait_for(
        lambda: all(m["outcome"] not in {"queued", "sent"} for m in _queue(product, ticket)),
        what="all are delivered", timeout=120, every=1,
    )  # fmt: skip
    said = [p["prompt"].strip() for p in product.hooks(ticket, "UserPromptSubmit")]
    drill.doubled = sum(said.count(text.strip()) > 1 for text in acknowledged)
    assert not drill.doubled


def _queue(product: Product, ticket: int) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(
        product.ctl("queue", str(ticket), "-n", "1000", "--json").stdout
    )
    return found


@pytest.mark.fault(12)
def test_a_pane_log_on_a_full_disk_goes_on_with_a_gap(product: Product, drill: Drill) -> None:
    """The writer dies of it; with space again the pane is piped again, and the gap is told."""
    script = "while :; do read line || exit; seq $line; done"
    ticket = product.new("flood", "--driver", "command", "--start", "--", "bash", "-c", script)
    fill(product)
    product.type(ticket, "200000")
    product.wait_screen(ticket, "200000", timeout=60)
    pid = product.main_pid(ticket)
    with drill.recovery():
        product.machine.sh(f"rm {STATE}/filler")
        product.machine.wait_for(lambda: _beats(product), what="a heartbeat")
        product.type(ticket, "7")
        product.machine.wait_for(
            lambda: product.pane_log(ticket).rstrip().endswith("7"), what="the log goes on"
        )
    kinds = product.ctl("events", str(ticket), "--json").stdout
    assert '"gap"' in kinds
    assert product.main_pid(ticket) == pid


def _beats(product: Product) -> bool:
    return product.systemctl("start", "mc-heartbeat.service", check=False).returncode == 0
