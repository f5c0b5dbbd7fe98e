"""The journal on a booted machine: one question joins every part's side of a ticket's story."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest

from orchestrator import journal
from tests.machine.machine import Machine
from tests.machine.product import Product

SECRET = "the bicycle is under the bridge"


@pytest.fixture(scope="module")
def product(module_machine: Machine) -> Product:
    """One machine for the tests of this module."""
    return Product(module_machine)


def entries(product: Product, *matches: str) -> list[dict[str, Any]]:
    """What `journalctl --user` finds."""
    out = product.machine.run(["journalctl", "--user", *matches, "-o", "json"]).stdout
    return [json.loads(line) for line in out.splitlines()]


def test_one_match_joins_all_parts_and_no_words_are_in_it(product: Product) -> None:
    """TICKET_ID=N: launcher, parser, dispatcher and gateway, each entry with the id of its kind."""
    ticket = product.new("story", "--driver", "demo", "--prompt", f"{SECRET} one")
    product.ctl("start", str(ticket))
    product.machine.wait_for(lambda: product.hooks(ticket, "Stop"), what="the first answer")
    message = product.post(f"/api/ticket/{ticket}/input", {"text": f"{SECRET} two"})["message"]
    product.machine.wait_for(
        lambda: product.outcome(ticket, message) == "confirmed", what="delivery"
    )
    product.machine.wait_for(lambda: len(product.hooks(ticket, "Stop")) == 2, what="the turn's end")
    product.post(f"/api/ticket/{ticket}/stop", {})

    def told() -> dict[str, set[str]]:
        parts: dict[str, set[str]] = defaultdict(set)
        for entry in entries(product, f"TICKET_ID={ticket}"):
            assert entry["MESSAGE_ID"] == journal.KINDS[entry["TICKET_EVENT"]][0]
            parts[entry["_SYSTEMD_USER_UNIT"]].add(entry["TICKET_EVENT"])
        return parts

    product.machine.wait_for(
        lambda: "session_end" in told()["mc-ingest.service"], what="the parser's last word"
    )
    parts = told()
    assert parts[f"ticket@{ticket}.service"] >= {"worker_started", "worker_ended"}
    assert parts["mc-ingest.service"] >= {"session_start", "user_prompt", "turn_end", "state"}
    assert parts["mc-dispatch.service"] == {"message_confirmed"}
    assert parts["mc-webgate.service"] == {"message_queued", "unit_asked"}
    assert SECRET not in product.machine.journal()


def test_a_kind_is_found_by_its_id(product: Product) -> None:
    """MESSAGE_ID=: one kind, of every ticket."""
    tickets = [product.new(f"kind {n}", "--driver", "demo") for n in range(2)]
    for ticket in tickets:
        product.ctl("start", str(ticket))
    identity = journal.KINDS["worker_started"][0]
    found = entries(product, f"MESSAGE_ID={identity}")
    assert {e["TICKET_EVENT"] for e in found} == {"worker_started"}
    assert {str(t) for t in tickets} <= {e["TICKET_ID"] for e in found}
    for ticket in tickets:
        product.ctl("stop", str(ticket))
