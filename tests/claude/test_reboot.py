"""Fault 20 with the real CLI: a reboot or a power cut in the middle of a turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.claude.conftest import furnish, start_api
from tests.faults.record import Drill
from tests.machine.cache import Layer
from tests.machine.fixtures import NewMachine
from tests.machine.product import Product


@pytest.mark.fault(20)
@pytest.mark.parametrize("how", ["reboot", "power cut"])
@pytest.mark.parametrize("driver", ["claude", "claude_stream"])
def test_in_the_middle_of_a_turn(
    installed: Layer,
    fresh_machine: NewMachine,
    claude_binary: Path,
    drill: Drill,
    driver: str,
    how: str,
) -> None:
    """Once, on its conversation, idle; what was confirmed stays so, what was queued arrives once."""
    machine = fresh_machine(installed, binds={claude_binary: "/usr/local/bin/claude"})
    product = furnish(Product(machine))
    ticket = product.new("reboot", "--prompt", "begin", "--driver", driver, "--start")
    product.say(ticket, "what is 1+1")
    busy = product.send(ticket, "SLOW{30} a long one")
    machine.wait_for(
        lambda: product.outcome(ticket, busy) == "confirmed", what="it is at work", timeout=60
    )
    waiting = product.send(ticket, "what is 20+2")
    conversation = product.show(ticket)["session_id"]
    with drill.recovery():
        if how == "reboot":
            machine.reboot()
        else:
            machine.cut_power()
            machine.boot()
        start_api(product)
        machine.wait_for(
            lambda: product.outcome(ticket, waiting) == "confirmed", what="it goes on", timeout=90
        )
    assert product.outcome(ticket, busy) == "confirmed"
    assert product.show(ticket)["session_id"] == conversation
    machine.wait_for(lambda: product.show(ticket)["turn_state"] == "idle", what="idle")
    taken = [p["prompt"].strip() for p in product.hooks(ticket, "UserPromptSubmit")]
    if driver == "claude":
        drill.doubled = len(taken) - len(set(taken))
        assert taken == ["begin", "what is 1+1", "SLOW{30} a long one", "what is 20+2"]
    assert machine.run(["pgrep", "-fc", f"^[^ ]*claude .*{conversation}"]).stdout.strip() == "1"
    product.wait_screen(ticket, "22")
