"""The main job with the real Claude Code CLI, against a local stand-in for the Messages API."""

from __future__ import annotations

import json

import pytest

from tests.claude.conftest import API_LOG
from tests.machine.product import HOME, Product


def started(product: Product, title: str = "Say hello") -> int:
    """A code ticket whose agent has answered the first prompt."""
    ticket = product.new(title, "--repo", product.make_repository())
    product.systemctl("start", f"ticket@{ticket}")
    product.machine.wait_for(
        lambda: product.hooks(ticket, "Stop"), what="the first answer", timeout=60
    )
    return ticket


def prompts(product: Product, ticket: int) -> list[str]:
    """What the agent took, by its own word."""
    return [p["prompt"] for p in product.hooks(ticket, "UserPromptSubmit")]


def test_claude_is_the_units_main_process(product: Product) -> None:
    """No dialog, no helper: the CLI itself, in the unit's cgroup, on the ticket's conversation."""
    ticket = started(product)
    assert prompts(product, ticket) == ["Say hello"]
    assert (
        "claude"
        in product.machine.run(["ps", "-o", "comm=", "-p", str(product.main_pid(ticket))]).stdout
    )
    assert product.main_pid(ticket) in product.cgroup_pids(ticket)
    starts = product.hooks(ticket, "SessionStart")
    assert [s["session_id"] for s in starts] == [product.show(ticket)["session_id"]]
    assert starts[0]["cwd"] == f"{HOME}/src/wt/ticket-{ticket}"


def test_a_message_reaches_claude_and_the_answer_comes_back(product: Product) -> None:
    """In the API's log, on the screen, in the pane log, at a second client, in the sidecar."""
    ticket = started(product)
    with product.machine.pty(
        ["tmux", "attach", "-t", f"ticket-{ticket}"], columns=160, rows=48
    ) as seat:
        product.say(ticket, "hello what is 2+2")
        seat.expect(rb"2 \+ 2 = 4")
    product.wait_screen(ticket, "2 + 2 = 4")
    assert "2 + 2 = 4" in product.pane_log(ticket)
    answers = [s["last_assistant_message"] for s in product.hooks(ticket, "Stop")]
    assert "2 + 2 = 4" in answers[-1]
    asked = [json.loads(line).get("last") for line in product.read(API_LOG).splitlines()]
    assert asked.count("hello what is 2+2") == 1


def test_stop_ends_claude_and_its_children(product: Product) -> None:
    """Also what its Bash tool left in the background; the CLI ends its conversation properly."""
    ticket = started(product)
    product.say(ticket, "BASH{setsid sleep 611 & sleep 612}")
    product.wait_screen(ticket, "Do you want to proceed?")
    product.machine.run(["tmux", "send-keys", "-t", f"=ticket-{ticket}:", "1"])
    product.machine.wait_for(
        lambda: (
            len(product.machine.run(["pgrep", "-f", "^sleep 61[12]"], check=False).stdout.split())
            == 2
        ),
        what="the tool's children",
    )
    product.systemctl("stop", f"ticket@{ticket}")
    assert product.machine.run(["pgrep", "-f", "^sleep 61[12]"], check=False).stdout == ""
    assert product.unit(ticket)["Result"] == "success"
    assert [e["reason"] for e in product.hooks(ticket, "SessionEnd")] == ["other"]


def test_a_killed_claude_comes_back_on_its_conversation(product: Product) -> None:
    """kill -9: the same conversation, what was said is in it, and nothing is asked twice."""
    ticket = started(product)
    product.say(ticket, "remember the blue bicycle")
    before = product.main_pid(ticket)
    product.machine.sh(f"kill -9 {before}")
    product.machine.wait_for(
        lambda: len(product.hooks(ticket, "SessionStart")) == 2, what="the second start", timeout=60
    )
    assert product.main_pid(ticket) not in {0, before}
    starts = product.hooks(ticket, "SessionStart")
    assert starts[1]["source"] == "resume"
    assert starts[0]["session_id"] == starts[1]["session_id"]
    assert prompts(product, ticket) == ["Say hello", "remember the blue bicycle"]
    product.say(ticket, "go on")
    last = json.loads(product.read(API_LOG).splitlines()[-1])
    assert any("blue bicycle" in text for text in last["users"])


def test_exit_typed_at_the_pane_is_no_failure(product: Product) -> None:
    """/exit: the unit is inactive, not failed, and stays so; a start later goes on."""
    ticket = started(product)
    product.type(ticket, "/exit")
    product.wait_active(ticket, "inactive")
    assert (product.unit(ticket)["Result"], product.unit(ticket)["NRestarts"]) == ("success", "0")
    product.systemctl("start", f"ticket@{ticket}")
    product.machine.wait_for(
        lambda: len(product.hooks(ticket, "SessionStart")) == 2, what="resumed", timeout=60
    )
    assert product.hooks(ticket, "SessionStart")[1]["source"] == "resume"


@pytest.mark.fault(29)
def test_a_message_never_answers_a_permission_prompt(product: Product) -> None:
    """Held while the dialog is shown, delivered afterwards; the tool did not run by it."""
    ticket = started(product)
    product.say(ticket, "BASH{touch by-mistake}")
    product.wait_screen(ticket, "Do you want to proceed?")
    message = product.send(ticket, "1")
    product.machine.run(["sleep", "2"])  # twenty of the dispatcher's looks
    assert product.outcome(ticket, message) == "queued"
    product.machine.run(["tmux", "send-keys", "-t", f"=ticket-{ticket}:", "Escape"])
    product.machine.wait_for(
        lambda: product.outcome(ticket, message) == "confirmed", what="delivery"
    )
    assert product.machine.run(
        ["test", "-e", f"{HOME}/src/wt/ticket-{ticket}/by-mistake"], check=False
    ).returncode
    assert prompts(product, ticket)[-1] == "1"


@pytest.mark.fault(28)
def test_texts_arrive_as_they_were_sent(product: Product) -> None:
    """Lists, commands of the CLI, many lines, unicode, 5 KB: as text, byte for byte, each once."""
    ticket = started(product)
    texts = [
        "1. first\n2. second\n\n- and a list",
        "/clear is not meant as a command",
        "!touch by-bang",
        "ends with a backslash \\",
        "naïve 漢字 👩‍👩‍👧 `x` $(y) #{z} ;",
        "\n".join(f"line {n} of many, long enough to be pasted" for n in range(100)),
    ]
    for text in texts:
        product.say(ticket, text)
    heard = [json.loads(line).get("last") for line in product.read(API_LOG).splitlines()]
    for text in texts:
        assert sum(isinstance(h, str) and h.strip() == text.strip() for h in heard) == 1, text
    assert product.machine.run(
        ["test", "-e", f"{HOME}/src/wt/ticket-{ticket}/by-bang"], check=False
    ).returncode
