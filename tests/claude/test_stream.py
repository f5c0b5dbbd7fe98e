"""The main job with the real Claude Code CLI behind a plain pane: the drivers claude_stream and oneshot."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.claude.answers import answer, request, requests
from tests.claude.conftest import API_LOG
from tests.machine.product import Product


def stream(product: Product, ticket: int, kind: str) -> list[dict[str, Any]]:
    """The lines of the stream of that type."""
    return [data for data in product.hooks(ticket, "stream") if data.get("type") == kind]


def results(product: Product, ticket: int, count: int) -> list[dict[str, Any]]:
    """Waits for so many turns to have ended; their results."""
    product.machine.wait_for(
        lambda: len(stream(product, ticket, "result")) >= count, what=f"{count} results", timeout=60
    )
    return stream(product, ticket, "result")


def started(product: Product, driver: str = "claude_stream", *args: str) -> int:
    """A ticket whose agent has answered the first prompt."""
    ticket = product.new("Say hello", "--driver", driver, *args)
    product.systemctl("start", f"ticket@{ticket}")
    results(product, ticket, 1)
    return ticket


def heard(product: Product) -> list[str]:
    """What the API was sent, each request's last text."""
    entries = [json.loads(line) for line in product.read(API_LOG).splitlines()]
    return [str(e["last"]) for e in entries if e.get("last")]


@pytest.mark.parametrize("driver", ["claude_stream", "oneshot"])
def test_messages_arrive_once_and_exactly(product: Product, driver: str) -> None:
    """Confirmed by the stream's own echo; lists, commands, unicode, long ones, backslashes: as text."""
    ticket = started(product, driver)
    texts = [
        f"{driver} 1. first\n2. second\n\n- and a list",
        f"/clear is not meant as a command of {driver}",
        f"!touch by-bang {driver}",
        f"{driver} naïve 漢字 👩‍👩‍👧 `x` $(y) #{{z}} ; ends with a backslash \\",
        "\n".join(f"line {n} of many for {driver}" for n in range(2000)),
    ]
    for text in texts:
        product.say(ticket, text)
    results(product, ticket, 1 + len(texts))
    sent = heard(product)
    for text in texts:
        assert sum(h.strip() == text.strip() for h in sent) == 1, text
    assert product.machine.run(
        ["test", "-e", f"{product.work(ticket)}/by-bang"], check=False
    ).returncode
    sessions = {line["session_id"] for line in stream(product, ticket, "result")}
    assert sessions == {product.show(ticket)["session_id"]}


def test_the_answer_is_on_the_screen_and_in_the_log(product: Product) -> None:
    """As with the TUI: in the pane, at a second client, in the pane log; the cost at the foot."""
    ticket = started(product)
    with product.machine.pty(
        ["tmux", "attach", "-t", f"ticket-{ticket}"], columns=160, rows=48
    ) as seat:
        product.say(ticket, "hello what is 2+2")
        seat.expect(rb"2 \+ 2 = 4")
    product.wait_screen(ticket, "2 + 2 = 4")
    assert "2 + 2 = 4" in product.pane_log(ticket)
    assert "$0.0150" in product.screen(ticket)
    product.type(ticket, "and what is 3+4")
    product.wait_screen(ticket, "3 + 4 = 7")


@pytest.mark.fault(29)
def test_a_message_never_answers_a_permission_request(product: Product) -> None:
    """Held while it is open, delivered afterwards; `y` from a person at the pane is what allows."""
    ticket = started(product)
    product.say(ticket, "BASH{echo y > allowed}")
    product.wait_screen(ticket, "Bash: may it?")
    message = product.send(ticket, "y")
    product.machine.run(["sleep", "2"])  # twenty of the dispatcher's looks
    assert product.outcome(ticket, message) == "queued"
    assert len(requests(product, ticket)) == 1
    product.type(ticket, "y")
    product.machine.wait_for(
        lambda: product.outcome(ticket, message) == "confirmed", what="delivery"
    )
    assert requests(product, ticket) == []
    assert [a["by"] for a in product.hooks(ticket, "PermissionAnswer")] == ["pane"]


def test_permission_from_elsewhere(product: Product) -> None:
    """Allowed, denied with a reason, and a question: by the same calls as for the TUI."""
    ticket = started(product)
    product.say(ticket, "BASH{echo elsewhere > stream-allowed}")
    assert answer(product, ticket, request(product, ticket)["id"], "allow")
    results(product, ticket, 2)
    product.say(ticket, "BASH{touch x}")
    assert answer(product, ticket, request(product, ticket)["id"], "deny", message="use y.txt")
    results(product, ticket, 3)
    product.say(ticket, "ASKQ")
    asked = request(product, ticket)
    answers = {**asked["input"], "answers": {"Which colour?": "Blue"}}
    assert answer(product, ticket, asked["id"], "allow", updated_input=answers)
    results(product, ticket, 4)
    told = [
        str(block["content"])
        for line in stream(product, ticket, "user")
        for block in line["message"]["content"]
        if isinstance(block, dict) and block.get("type") == "tool_result"
    ]
    assert told[1] == "use y.txt"
    assert "Blue" in told[2]


def test_a_killed_one_comes_back_on_its_conversation(product: Product) -> None:
    """kill -9 of the CLI or of the pane's program: the same conversation, nothing asked twice."""
    ticket = started(product)
    product.say(ticket, "remember the green bicycle")
    results(product, ticket, 2)
    for round_number, which in enumerate(("the pane's program", "the CLI")):
        before = product.main_pid(ticket)
        child = product.machine.run(["pgrep", "-P", str(before)]).stdout.split()[0]
        product.machine.run(["kill", "-9", str(before) if which == "the pane's program" else child])
        product.machine.wait_for(
            lambda before=before: product.main_pid(ticket) not in {0, before},
            what="its return",
            timeout=60,
        )
        product.say(ticket, f"go on after {which}")
        results(product, ticket, 3 + round_number)
        last = json.loads(product.read(API_LOG).splitlines()[-1])
        assert any("green bicycle" in text for text in last["users"])
    assert sum("green bicycle" in h for h in heard(product)) == 1


def test_it_leaves_in_good_order(product: Product) -> None:
    """/exit after a turn that was broken off is no failure; a start later goes on."""
    ticket = started(product)
    product.say(ticket, "STREAM{30} on and on")
    product.wait_screen(ticket, "word5")
    product.machine.run(["tmux", "send-keys", "-t", f"=ticket-{ticket}:", "C-c"])
    product.wait_screen(ticket, "Interrupted")
    product.type(ticket, "/exit")
    product.wait_active(ticket, "inactive")
    assert (product.unit(ticket)["Result"], product.unit(ticket)["NRestarts"]) == ("success", "0")
    product.systemctl("start", f"ticket@{ticket}")
    product.say(ticket, "what is 8+9")
    product.wait_screen(ticket, "8 + 9 = 17")


@pytest.mark.parametrize("driver", ["claude_stream", "oneshot"])
def test_stop_ends_it_in_the_middle_of_a_turn(product: Product, driver: str) -> None:
    """`systemctl stop`: within its time, no process left, and the conversation goes on afterwards."""
    ticket = started(product, driver)
    product.say(ticket, "STREAM{30} on and on")
    product.systemctl("stop", f"ticket@{ticket}")
    assert product.unit(ticket)["Result"] == "success"
    assert not product.machine.run(
        ["pgrep", "-f", product.show(ticket)["session_id"]], check=False
    ).stdout
    product.systemctl("start", f"ticket@{ticket}")
    product.say(ticket, "what is 7+9")
    product.wait_screen(ticket, "7 + 9 = 16")
