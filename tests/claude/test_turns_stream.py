"""Turns of the real CLI on the stream: the same states, and events and cost of their own making."""

from __future__ import annotations

import pytest

from tests.claude.test_turns import ask, kinds, request, settled, told
from tests.machine.product import Product


@pytest.fixture(scope="module")
def ticket(product: Product) -> int:
    """One long-lived worker for the tests that end where they began: idle."""
    return started(product)


def started(product: Product) -> int:
    """A chat ticket on the stream that has answered its first prompt."""
    number = product.new("turns", "--prompt", "hello", "--driver", "claude_stream")
    product.ctl("start", str(number))
    product.machine.wait_for(
        lambda: "result" in kinds(product, number), what="the first turn", timeout=60
    )
    settled(product, number)
    return number


def test_a_turn_of_text(product: Product, ticket: int) -> None:
    """The message, the text, the result; idle, busy, idle; cost and tokens grow."""
    before = product.show(ticket)
    found = [e["kind"] for e in ask(product, ticket, "what is 1+2")]
    assert found.index("message_taken") < found.index("assistant_text") < found.index("result")
    after = product.show(ticket)
    assert after["cost_usd"] > before["cost_usd"]
    assert after["input_tokens"] > before["input_tokens"]
    assert after["output_tokens"] > before["output_tokens"]


def test_a_tool_allowed_and_denied(product: Product, ticket: int) -> None:
    """can_use_tool is recorded once, answered by `permit`; the tool runs only when allowed."""
    for name, verdict in (("yes", "allow"), ("no", "deny")):
        product.say(ticket, f"BASH{{touch stream-{name}}}")
        settled(product, ticket, "waiting_permission")
        asked = [e for e in told(product, ticket) if e["kind"] == "permission_request"]
        assert f"stream-{name}" in str(asked[-1]["data"])
        product.ctl("permit", str(ticket), verdict, "--request", request(product, ticket))
        settled(product, ticket)
    assert kinds(product, ticket).count("permission_request") == 2
    assert (
        product.machine.run(
            ["test", "-e", f"{product.work(ticket)}/stream-yes"], check=False
        ).returncode
        == 0
    )
    assert product.machine.run(
        ["test", "-e", f"{product.work(ticket)}/stream-no"], check=False
    ).returncode


def test_a_question_is_told_from_a_permission(product: Product, ticket: int) -> None:
    """AskUserQuestion: waiting_answer, answered by --choose."""
    product.say(ticket, "ASKQ")
    settled(product, ticket, "waiting_answer")
    request(product, ticket)
    product.ctl("permit", str(ticket), "--choose", "Blue")
    settled(product, ticket)


@pytest.mark.parametrize("code", [400, 529])
def test_an_api_error_is_a_state(product: Product, ticket: int, code: int) -> None:
    """The result says success and is_error at once: it is api_error; the next turn goes well."""
    ask(product, ticket, f"ERR{{{code}}}", "api_error")
    ask(product, ticket, "what is 5+5")


@pytest.mark.parametrize("code", [429, 500])
def test_an_error_that_passes_is_no_error(product: Product, ticket: int, code: int) -> None:
    """429 and 500 for a while: busy meanwhile, then the answer."""
    found = ask(product, ticket, f"ERRN{{{code},2}}")
    assert not [e for e in found if e["kind"] == "result" and e["data"].get("is_error")]


def test_an_interrupt_is_no_error(product: Product, ticket: int) -> None:
    """`ticketctl interrupt` over the protocol: idle, not api_error."""
    ask(product, ticket, "STREAM{30}", "busy")
    product.machine.run(["sleep", "1"])  # into the middle of the stream
    product.ctl("interrupt", str(ticket))
    settled(product, ticket)


def test_a_subagent_is_told(product: Product, ticket: int) -> None:
    """Its start and its stop are events of the ticket, by the hooks."""
    product.say(ticket, "TASK{what is 3+3}")
    product.machine.wait_for(
        lambda: kinds(product, ticket).count("subagent") >= 2, what="start and stop", timeout=60
    )
    settled(product, ticket)


def test_send_wait_prints_the_answer(product: Product, ticket: int) -> None:
    """--wait works the same."""
    done = product.ctl("send", str(ticket), "--wait", "--timeout", "60", "what is 40+2")
    assert done.stdout.strip() == "40 + 2 = 42"


def test_clear_is_followed(product: Product) -> None:
    """/clear typed at the pane: another conversation, which is the ticket's from then on."""
    ticket = started(product)
    first = product.show(ticket)["session_id"]
    product.type(ticket, "/clear")
    product.machine.wait_for(
        lambda: product.show(ticket)["session_id"] != first, what="the new conversation"
    )


def test_compaction_is_told(product: Product) -> None:
    """/compact typed at the pane: compact events."""
    ticket = started(product)
    for number in range(3):  # a short one is not compacted
        ask(product, ticket, f"what is {number}+1")
    product.type(ticket, "/compact")
    product.machine.wait_for(
        lambda: "compact" in kinds(product, ticket), what="a compact event", timeout=60
    )


def test_killed_in_the_middle_of_a_turn(product: Product) -> None:
    """kill -9 of the CLI while busy: back on the conversation; what was spent is counted once."""
    ticket = started(product)
    ask(product, ticket, "what is 2+2")
    cost = product.show(ticket)["cost_usd"]
    ask(product, ticket, "STREAM{30}", "busy")
    before = product.main_pid(ticket)
    product.machine.sh("pkill -9 -x claude || pkill -9 -f 'claude.*stream-json'")
    product.machine.wait_for(
        lambda: product.main_pid(ticket) not in {0, before}, what="another process"
    )
    settled(product, ticket)
    ask(product, ticket, "what is 3+4")
    assert cost <= product.show(ticket)["cost_usd"] < cost + 0.1


def test_one_process_a_message_without_tmux(product: Product) -> None:
    """--driver oneshot --no-tmux, the old way: no session, the same queue, events, log and stop."""
    ticket = product.new("old way", "--prompt", "hello", "--driver", "oneshot", "--no-tmux")
    product.ctl("start", str(ticket))
    product.machine.wait_for(
        lambda: "result" in kinds(product, ticket), what="the first turn", timeout=60
    )
    assert product.machine.run(
        ["tmux", "has-session", "-t", f"=ticket-{ticket}"], check=False
    ).returncode
    product.say(ticket, "what is 20+22")
    product.machine.wait_for(
        lambda: "20 + 22 = 42" in product.pane_log(ticket), what="the answer in the log"
    )
    before = product.main_pid(ticket)
    product.machine.sh(f"kill -9 {before}")
    product.machine.wait_for(lambda: product.main_pid(ticket) not in {0, before}, what="it is back")
    product.say(ticket, "what is 1+1")
    product.ctl("stop", str(ticket))
    assert product.unit(ticket)["Result"] == "success"
