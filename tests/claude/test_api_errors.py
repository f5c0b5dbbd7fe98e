"""The API refuses for good: on both drivers the state, the event and the cost say so, and it goes on."""

from __future__ import annotations

import json

import pytest

from tests.claude.test_turns import ask, kinds, settled, states, told
from tests.machine.product import HOME, Product

TURN_USD = 0.0075  # of one answer of the stand-in, by the CLI's own prices
ERRANDS_USD = 0.004  # what the CLI asks on the side, such as for a title; at any time


@pytest.fixture(scope="module", params=["claude", "claude_stream"])
def ticket(request: pytest.FixtureRequest, product: Product) -> int:
    """A worker that gives up after one more try: by itself the CLI goes on for three minutes."""
    number = product.new("errors", "--prompt", f"hello {request.param}", "--driver", request.param)
    folder = f"{HOME}/.config/systemd/user/ticket@{number}.service.d"
    drop_in = "[Service]\nEnvironment=CLAUDE_CODE_MAX_RETRIES=1\n"
    product.machine.run(["sh", "-c", f"mkdir -p {folder}; cat > {folder}/e.conf"], input=drop_in)
    product.systemctl("daemon-reload")
    product.ctl("start", str(number))
    product.machine.wait_for(
        lambda: {"turn_end", "result"} & set(kinds(product, number)),
        what="the first turn", timeout=60,
    )  # fmt: skip
    settled(product, number)
    return number


@pytest.mark.parametrize(("code", "name"), [(429, "rate_limit"), (500, "server_error"), (529, "")])
def test_an_error_is_a_state_an_event_and_costs_nothing(
    product: Product, ticket: int, code: int, name: str
) -> None:
    """busy, api_error with its name; no cost; the next turn is one, costs what one costs, and is idle."""
    product.machine.run(["sleep", "0.5"])  # the status line's count comes a moment after the turn
    cost = product.show(ticket)["cost_usd"]
    found = ask(product, ticket, f"ERR{{{code}}} {ticket}", "api_error")
    seen = [e["data"]["to"] for e in found if e["kind"] == "state"]
    # After an error: the prompt is told a moment before the worker says that it is busy.
    assert seen[seen.index("busy") :] == ["busy", "api_error"]
    assert product.show(ticket)["turn_state"] == "api_error"
    told_so = [e for e in found if e["kind"] in {"api_error", "result"}]
    assert len(told_so) == 1, kinds(product, ticket)
    said = json.dumps(told_so[0]["data"])
    assert name in said or str(code) in said
    assert product.show(ticket)["cost_usd"] <= cost + ERRANDS_USD
    ask(product, ticket, f"what is {code}+1")
    product.machine.wait_for(
        lambda: product.show(ticket)["cost_usd"] >= cost + TURN_USD, what="the cost of one turn"
    )
    assert product.show(ticket)["cost_usd"] <= cost + TURN_USD + ERRANDS_USD
    assert states(product, ticket)[-1] == "idle"
    assert told(product, ticket)
