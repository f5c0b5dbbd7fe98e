"""The real Claude Code CLI in its sandbox: a folder of its own, and sandboxes of its own making."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.claude.conftest import API_LOG, furnish
from tests.machine.cache import Layer
from tests.machine.fixtures import NewMachine
from tests.machine.product import HOME, STATE, Product

#: without a question for what runs in the CLI's own sandbox
SANDBOXED = {"sandbox": {"enabled": True, "autoAllowBashIfSandboxed": True}}


@pytest.fixture(scope="module")
def product(installed: Layer, module_machines: NewMachine, claude_binary: Path) -> Product:
    """A machine that can fetch what the CLI's own sandbox wants beside bubblewrap."""
    binds = {claude_binary: "/usr/local/bin/claude"}
    return furnish(Product(module_machines(installed, network="internet", binds={**binds})))


def answered(product: Product, ticket: int, count: int = 1) -> None:
    """Waits for so many turns."""
    product.machine.wait_for(
        lambda: len(product.hooks(ticket, "Stop")) == count, what="an answer", timeout=90
    )


def test_tickets_know_nothing_of_one_another(product: Product) -> None:
    """The same pid inside, and each its own state; the operator's folder stays as it was."""
    before = product.machine.sh(f"cat {HOME}/.claude.json; ls -A {HOME}/.claude || true").stdout
    tickets = [product.new(f"number {n}", "--driver", "claude") for n in (1, 2)]
    product.systemctl("start", *(f"ticket@{t}" for t in tickets))
    for ticket in tickets:
        answered(product, ticket)
        product.machine.wait_for(
            lambda t=ticket: product.show(t)["turn_state"] == "idle", what="an idle worker"
        )
        sessions = product.machine.sh(f"cat {STATE}/tickets/{ticket}/claude/sessions/*.json").stdout
        assert json.loads(sessions)["sessionId"] == product.show(ticket)["session_id"]
    product.say(tickets[0], "SLOW{6} a long one")
    product.machine.wait_for(
        lambda: product.show(tickets[0])["turn_state"] == "busy", what="a busy worker"
    )
    assert product.show(tickets[1])["turn_state"] == "idle"
    after = product.machine.sh(f"cat {HOME}/.claude.json; ls -A {HOME}/.claude || true").stdout
    assert after == before


def test_a_conversation_goes_on_with_isolation_switched(product: Product) -> None:
    """Off, and on again: the same conversation, wherever the CLI keeps it."""
    ticket = product.new("remember the green door", "--driver", "claude")
    product.ctl("start", str(ticket))
    answered(product, ticket)
    for number, mode in enumerate(("off", "workspace"), 2):
        product.ctl("stop", str(ticket))
        product.machine.run(
            [f"{HOME}/.local/share/mission-control/postgresql/bin/psql", "-qh",
             "/run/user/1000/mission-control/postgres", "mission_control", "-c",
             f"UPDATE tickets SET isolation = '{mode}' WHERE id = {ticket}"]
        )  # fmt: skip
        product.ctl("start", str(ticket))
        product.machine.wait_for(
            lambda count=number: len(product.hooks(ticket, "SessionStart")) == count,
            what="the session", timeout=60,
        )  # fmt: skip
        assert product.show(ticket)["isolation"]["mode"] == mode
        assert product.hooks(ticket, "SessionStart")[-1]["source"] == "resume"
        product.say(ticket, f"what is {number}+40")
        answered(product, ticket, number)
    asked = [json.loads(line) for line in product.read(API_LOG).splitlines()]
    last = [a["users"] for a in asked if a.get("last") == "what is 3+40"][-1]
    assert any("green door" in text for text in last)
    assert any("2+40" in text for text in last)


def test_its_own_sandbox_works_inside(product: Product) -> None:
    """The CLI's sandbox for its Bash tool, made inside ours: the tool runs without being asked about."""
    product.machine.run(
        ["sh", "-c", "apt-get update -qq && apt-get install -y -qq --no-install-recommends socat"],
        user="root", timeout=300,
    )  # fmt: skip
    product.machine.run(
        ["sh", "-c", f"mkdir -p {HOME}/.claude; cat > {HOME}/.claude/settings.json"],
        input=json.dumps(SANDBOXED),
    )
    ticket = product.new("sandboxed", "--driver", "claude")
    product.ctl("start", str(ticket))
    answered(product, ticket)
    product.say(ticket, "BASH{grep NSpid /proc/self/status > depth; touch /etc/x || true}")
    answered(product, ticket, 2)
    assert not product.hooks(ticket, "PermissionRequest")
    said = product.read(f"{product.work(ticket)}/depth")
    assert said.startswith("NSpid:"), product.hooks(ticket, "PostToolUse")
    # the number inside the CLI's own PID namespace, where next to nothing else runs
    assert int(said.split()[-1]) < 20, said
