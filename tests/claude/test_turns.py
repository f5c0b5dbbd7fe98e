"""Turns of the real CLI in its TUI: the right states, events and cost in the database for each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.claude.conftest import API_LOG
from tests.machine.product import HOME, STATE, Product


@pytest.fixture(scope="module")
def ticket(product: Product) -> int:
    """One long-lived worker for the tests that end where they began: idle."""
    return started(product)


def started(product: Product, *args: str) -> int:
    """A chat ticket that runs and has answered its first prompt."""
    number = product.new("turns", "--prompt", "hello", *args)
    product.ctl("start", str(number))
    product.machine.wait_for(
        lambda: kinds(product, number).count("turn_end") == 1, what="the first turn", timeout=60
    )
    settled(product, number)
    return number


def told(product: Product, ticket: int) -> list[dict[str, Any]]:
    """`ticketctl events --json`."""
    out = product.ctl("events", str(ticket), "-n", "500", "--json").stdout
    return [json.loads(line) for line in out.splitlines()]


def kinds(product: Product, ticket: int) -> list[str]:
    """The kinds, without cost."""
    return [e["kind"] for e in told(product, ticket) if e["kind"] != "cost"]


def states(product: Product, ticket: int) -> list[str]:
    """The states it went through."""
    return [e["data"]["to"] for e in told(product, ticket) if e["kind"] == "state"]


def settled(product: Product, ticket: int, state: str = "idle") -> None:
    """Waits for a turn state."""
    product.machine.wait_for(
        lambda: product.show(ticket)["turn_state"] == state, what=f"turn state {state}"
    )


def ask(product: Product, ticket: int, text: str, state: str = "idle") -> list[dict[str, Any]]:
    """Sends a message; what was told from its prompt on, once the state is reached."""
    before = len(told(product, ticket))
    product.say(ticket, text)
    product.machine.wait_for(
        lambda: state in [e["data"]["to"] for e in told(product, ticket)[before:] if e["kind"] == "state"],
        what=f"{state} after {text!r}", timeout=60,
    )  # fmt: skip
    return told(product, ticket)[before:]


def request(product: Product, ticket: int) -> str:
    """The one open permission request."""

    def open_requests() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            product.ctl("permit", str(ticket), "--json").stdout
        )
        return found

    product.machine.wait_for(open_requests, what="a request")
    (one,) = open_requests()
    return str(one["request_id"])


def test_a_turn_of_text(product: Product, ticket: int) -> None:
    """user_prompt, turn_end; idle, busy, idle; cost grows by what the turn cost, exactly."""
    cost = product.show(ticket)["cost_usd"]
    found = ask(product, ticket, "what is 1+2")
    assert [e["kind"] for e in found if e["kind"] in {"user_prompt", "turn_end"}] == [
        "user_prompt",
        "turn_end",
    ]
    assert [e["data"]["to"] for e in found if e["kind"] == "state"] == ["busy", "idle"]
    product.machine.wait_for(lambda: product.show(ticket)["cost_usd"] > cost, what="the cost")


def test_a_tool_allowed_and_denied_without_a_key(product: Product, ticket: int) -> None:
    """The request is recorded with tool and input, answered by `permit`; gone ones are refused."""
    product.say(ticket, "BASH{touch allowed}")
    settled(product, ticket, "waiting_permission")
    asked = [e for e in told(product, ticket) if e["kind"] == "permission_request"][-1]
    assert asked["data"]["tool_input"]["command"] == "touch allowed"
    identity = request(product, ticket)
    product.ctl("permit", str(ticket), "allow", "--request", identity)
    settled(product, ticket)
    assert (
        product.machine.run(
            ["test", "-e", f"{product.work(ticket)}/allowed"], check=False
        ).returncode
        == 0
    )
    again = product.ctl("permit", str(ticket), "allow", "--request", identity, check=False)
    assert again.returncode == 5
    assert "gone" in again.stderr
    product.say(ticket, "BASH{touch denied}")
    settled(product, ticket, "waiting_permission")
    product.ctl(
        "permit",
        str(ticket),
        "deny",
        "--message",
        "use another name",
        "--request",
        request(product, ticket),
    )
    settled(product, ticket)
    assert product.machine.run(
        ["test", "-e", f"{product.work(ticket)}/denied"], check=False
    ).returncode
    assert "use another name" in product.read(API_LOG)


def test_a_question_is_told_from_a_permission(product: Product, ticket: int) -> None:
    """AskUserQuestion: waiting_answer, answered by --choose; the worker gets the answer."""
    product.say(ticket, "ASKQ")
    settled(product, ticket, "waiting_answer")
    request(product, ticket)
    product.ctl("permit", str(ticket), "--choose", "Blue")
    settled(product, ticket)
    answered = [e for e in told(product, ticket) if e["kind"] == "tool_result"][-1]
    assert "Blue" in json.dumps(answered["data"])


def test_an_api_error_is_a_state_and_the_next_turn_ends_it(product: Product, ticket: int) -> None:
    """400 at once, 529 after its retries: api_error with its name; then a turn goes well."""
    for code in (400, 529):
        found = ask(product, ticket, f"ERR{{{code}}}", "api_error")
        assert "api_error" in [e["kind"] for e in found]
    found = ask(product, ticket, "what is 5+5")
    assert found[-1]["data"].get("to") == "idle" or "turn_end" in [e["kind"] for e in found]


@pytest.mark.parametrize("code", [429, 500])
def test_an_error_that_passes_is_no_error(product: Product, ticket: int, code: int) -> None:
    """429 and 500 for a while: busy meanwhile, then the answer."""
    found = ask(product, ticket, f"ERRN{{{code},2}}")
    assert "api_error" not in [e["kind"] for e in found]
    assert "turn_end" in [e["kind"] for e in found]


def test_an_interrupt_ends_busy_though_no_hook_says_so(product: Product, ticket: int) -> None:
    """`ticketctl interrupt`: idle again, by the worker's own word; no turn_end is made up."""
    found_before = kinds(product, ticket).count("turn_end")
    ask(product, ticket, "STREAM{30}", "busy")
    product.machine.run(["sleep", "1"])  # into the middle of the stream
    product.ctl("interrupt", str(ticket))
    settled(product, ticket)
    assert kinds(product, ticket).count("turn_end") == found_before
    assert product.ctl("interrupt", str(ticket), check=False).returncode == 5


def test_a_subagent_is_told(product: Product, ticket: int) -> None:
    """Its start and its stop are events of the ticket."""
    product.say(ticket, "TASK{what is 3+3}")
    product.machine.wait_for(
        lambda: kinds(product, ticket).count("subagent") >= 2, what="start and stop", timeout=60
    )
    settled(product, ticket)


def test_send_wait_prints_the_answer(product: Product, ticket: int) -> None:
    """--wait: the answer on stdout, exit 0; a turn that fails is exit 6 with nothing on stdout."""
    done = product.ctl("send", str(ticket), "--wait", "--timeout", "60", "what is 40+2")
    assert done.stdout.strip() == "40 + 2 = 42"
    failed = product.ctl("send", str(ticket), "--wait", "--timeout", "60", "ERR{400}", check=False)
    assert (failed.returncode, failed.stdout) == (6, "")


def test_now_breaks_off_the_turn_and_goes_first(product: Product, ticket: int) -> None:
    """--now: before what was queued, in a turn of its own; the others follow in order."""
    product.say(ticket, "SLOW{30} a long one")
    settled(product, ticket, "busy")
    later = [product.send(ticket, f"what is {n}+100") for n in (1, 2)]
    done = product.ctl("send", str(ticket), "--now", "--wait", "--timeout", "60", "what is 3+100")
    assert "3 + 100 = 103" in done.stdout
    for message in later:
        product.machine.wait_for(
            lambda m=message: product.outcome(ticket, m) == "confirmed", what="the others"
        )  # type: ignore[misc]
    heard = [json.loads(line).get("last") for line in product.read(API_LOG).splitlines()]
    order = [h for h in heard if h in {"what is 1+100", "what is 2+100", "what is 3+100"}]
    assert order == ["what is 3+100", "what is 1+100", "what is 2+100"]
    settled(product, ticket)


def test_half_typed_text_at_the_pane_is_left_alone(product: Product, ticket: int) -> None:
    """Somebody types: the message waits, with the reason, and is not glued to their text."""
    product.machine.run(["tmux", "send-keys", "-t", f"=ticket-{ticket}:", "-l", "half a thought"])
    product.wait_screen(ticket, "half a thought")
    message = product.send(ticket, "what is 7+70")
    product.machine.wait_for(
        lambda: (
            "input box"
            in json.loads(product.ctl("queue", str(ticket), "--json").stdout)[-1]["reason"]
        ),
        what="the reason",
    )
    product.machine.run(["tmux", "send-keys", "-t", f"=ticket-{ticket}:", "C-c"])
    product.machine.wait_for(
        lambda: product.outcome(ticket, message) == "confirmed", what="delivery"
    )
    settled(product, ticket)
    assert "half a thought" not in [
        json.loads(line).get("last") for line in product.read(API_LOG).splitlines()
    ]


def test_clear_is_another_conversation_and_is_followed(product: Product) -> None:
    """/clear at the pane: the ticket's conversation is the new one, and a restart goes on with that."""
    ticket = started(product)
    first = product.show(ticket)["session_id"]
    product.type(ticket, "/clear")
    product.machine.wait_for(
        lambda: product.show(ticket)["session_id"] != first, what="the new conversation"
    )
    product.say(ticket, "remember the red house")
    settled(product, ticket)
    product.ctl("restart", str(ticket))
    product.machine.wait_for(
        lambda: [e["data"]["source"] for e in told(product, ticket) if e["kind"] == "session_start"][-1] == "resume",
        what="the resume", timeout=60,
    )  # fmt: skip
    product.say(ticket, "what did I say?")
    settled(product, ticket)
    users = json.loads(product.read(API_LOG).splitlines()[-1])["users"]
    assert any("red house" in text for text in users)


def test_compaction_is_told(product: Product) -> None:
    """/compact: compact events, and the conversation stays the ticket's."""
    ticket = started(product)
    for number in range(3):  # a short one is not compacted
        ask(product, ticket, f"what is {number}+1")
    first = product.show(ticket)["session_id"]
    product.type(ticket, "/compact")
    product.machine.wait_for(
        lambda: kinds(product, ticket).count("compact") >= 2, what="before and after", timeout=60
    )
    assert product.show(ticket)["session_id"] == first


def test_killed_in_the_middle_of_a_turn(product: Product) -> None:
    """kill -9 while busy: back on the conversation, idle, cost counted once, nothing sent again."""
    ticket = started(product)
    ask(product, ticket, "what is 2+2")
    product.machine.run(["sleep", "0.5"])  # the status line's count comes a moment after the turn
    cost = product.show(ticket)["cost_usd"]
    ask(product, ticket, "STREAM{30}", "busy")
    before = product.main_pid(ticket)
    product.machine.sh(f"kill -9 {before}")
    product.machine.wait_for(
        lambda: product.main_pid(ticket) not in {0, before}, what="another process"
    )
    settled(product, ticket)
    assert product.show(ticket)["cost_usd"] >= cost
    prompts = [e["data"]["prompt"] for e in told(product, ticket) if e["kind"] == "user_prompt"]
    assert prompts == ["hello", "what is 2+2", "STREAM{30}"]
    found = ask(product, ticket, "what is 3+4")
    assert "turn_end" in [e["kind"] for e in found]
    assert product.show(ticket)["cost_usd"] < cost + 0.1


@pytest.mark.fault(31)
def test_a_conversation_that_has_gone_is_said(product: Product) -> None:
    """Its file was deleted: the start fails with a sentence instead of silently starting anew."""
    ticket = started(product)
    product.ctl("stop", str(ticket))
    session = product.show(ticket)["session_id"]
    product.machine.sh(f"rm {STATE}/tickets/{ticket}/claude/projects/*/{session}.jsonl")
    done = product.ctl("start", str(ticket), check=False)
    assert done.returncode
    assert "conversation" in done.stderr
    assert product.unit(ticket)["ExecMainStatus"] == "78"
    assert product.read(f"{STATE}/tickets/{ticket}/pane.log")


@pytest.mark.parametrize("size", [200, 5_000, 100_000, 1_000_000])
@pytest.mark.fault(28)
def test_long_messages_arrive_byte_for_byte(product: Product, ticket: int, size: int) -> None:
    """From 200 bytes to 1 MB: what the API received is what was sent; past that it is refused."""
    line = "0123456789 abcdefghij naïve 漢字 "
    text = (
        (f"size {size} " + line * (size // len(line.encode()) + 1))
        .encode()[:size]
        .decode(errors="ignore")
        .strip()
    )
    message = int(
        product.machine.run(
            [f"{HOME}/.local/bin/ticketctl", "send", str(ticket)], input=text
        ).stdout
    )
    product.machine.wait_for(
        lambda: product.outcome(ticket, message) not in {"queued", "sent"},
        what="outcome",
        timeout=90,
    )
    assert product.outcome(ticket, message) == "confirmed"
    settled(product, ticket)
    heard = [json.loads(row).get("last") for row in product.read(API_LOG).splitlines()]
    assert text in heard
