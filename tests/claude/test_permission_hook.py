"""Permission requests of the real Claude Code CLI, answered without a key, or by keys first."""

from __future__ import annotations

import json
from typing import Any

from tests.claude.answers import answer, request, requests
from tests.claude.conftest import API_LOG
from tests.machine.product import Product


def started(product: Product) -> int:
    """A chat ticket whose agent waits for its first message."""
    ticket = product.new("Permissions", "--driver", "claude")
    product.systemctl("start", f"ticket@{ticket}")
    product.machine.wait_for(
        lambda: product.hooks(ticket, "Stop"), what="the first answer", timeout=60
    )
    return ticket


def told(product: Product) -> str:
    """What the API was told last about a tool."""
    entries = [json.loads(line) for line in product.read(API_LOG).splitlines()]
    return str([e["tool_results"] for e in entries if e.get("tool_results")][-1])


def outcome(product: Product, ticket: int, count: int = 1) -> dict[str, Any]:
    """Waits for so many answers in the sidecar, or questions that went; the last one."""

    def lines() -> list[dict[str, Any]]:
        return [
            x
            for x in product.sidecar(ticket)
            if x["hook"] in {"PermissionAnswer", "PermissionGone"}
        ]

    product.machine.wait_for(lambda: len(lines()) == count, what="the outcome of the request")
    last = lines()[-1]
    return {"hook": last["hook"], **last["data"]}


def hooks_running(product: Product) -> str:
    """The hook's processes."""
    return product.machine.run(["pgrep", "-af", "permission_hook.py"], check=False).stdout


def test_allowed_from_elsewhere(product: Product) -> None:
    """The tool runs, the dialog closes, and nothing was typed."""
    ticket = started(product)
    product.say(ticket, "BASH{echo from elsewhere > allowed}")
    product.wait_screen(ticket, "Do you want to proceed?")
    asked = request(product, ticket)
    assert (asked["tool"], asked["input"]["command"]) == ("Bash", "echo from elsewhere > allowed")
    assert answer(product, ticket, asked["id"], "allow")
    product.machine.wait_for(
        lambda: len(product.hooks(ticket, "Stop")) == 2, what="the end of the turn"
    )
    assert product.hooks(ticket, "PostToolUse")
    done = outcome(product, ticket)
    assert (done["hook"], done["request_id"], done["by"]) == ("PermissionAnswer", asked["id"], "op")
    assert "Do you want to proceed?" not in product.screen(ticket)
    assert not answer(product, ticket, asked["id"], "deny")
    product.say(ticket, "what is 4+5")


def test_denied_from_elsewhere(product: Product) -> None:
    """The reason reaches the model word for word."""
    ticket = started(product)
    product.say(ticket, "BASH{touch denied}")
    asked = request(product, ticket)
    assert answer(product, ticket, asked["id"], "deny", message="not »that«, use b.txt")
    product.machine.wait_for(
        lambda: len(product.hooks(ticket, "Stop")) == 2, what="the end of the turn"
    )
    assert "use b.txt" in told(product)
    assert not product.hooks(ticket, "PostToolUse")


def test_a_question_from_elsewhere(product: Product) -> None:
    """Its answer reaches the model."""
    ticket = started(product)
    product.say(ticket, "ASKQ please")
    asked = request(product, ticket)
    answers = {**asked["input"], "answers": {"Which colour?": "Blue"}}
    assert answer(product, ticket, asked["id"], "allow", updated_input=answers)
    product.machine.wait_for(
        lambda: len(product.hooks(ticket, "Stop")) == 2, what="the end of the turn"
    )
    assert "Blue" in told(product)


def test_answered_in_the_pane_first(product: Product) -> None:
    """The CLI tells its hook nothing: it sees for itself that the tool ran, or that Esc was pressed."""
    ticket = started(product)
    for number, (key, text) in enumerate(
        (
            ("1", "BASH{echo 1 > one}"),
            ("Escape", "BASH{echo 2 > two}"),
            ("3", "BASH{echo 3 > three}"),
        )
    ):
        product.say(ticket, text)
        product.wait_screen(ticket, "Do you want to proceed?")
        asked = request(product, ticket)
        product.machine.run(["tmux", "send-keys", "-t", f"=ticket-{ticket}:", key])
        done = outcome(product, ticket, number + 1)
        assert (done["hook"], done["request_id"]) == ("PermissionGone", asked["id"])
        assert not answer(product, ticket, asked["id"], "allow")
        product.machine.wait_for(lambda: not hooks_running(product), what="the hook's end")
    assert [d["tool_input"]["command"] for d in product.hooks(ticket, "PostToolUse")] == [
        "echo 1 > one"
    ]


def test_an_open_request_does_not_outlive_its_agent(product: Product) -> None:
    """Killed or stopped: nobody is offered the question any more, and no process is left."""
    ticket = started(product)
    product.say(ticket, "BASH{touch never}")
    asked = request(product, ticket)
    before = product.main_pid(ticket)
    product.machine.run(["kill", "-9", str(before)])
    product.machine.wait_for(
        lambda: len(product.hooks(ticket, "SessionStart")) == 2, what="its return", timeout=60
    )
    assert requests(product, ticket) == []
    assert not answer(product, ticket, asked["id"], "allow")
    product.machine.wait_for(
        lambda: product.show(ticket)["turn_state"] == "idle", what="an idle worker"
    )
    product.say(ticket, "BASH{touch never}")
    request(product, ticket)
    product.systemctl("stop", f"ticket@{ticket}")
    assert not hooks_running(product)
    assert requests(product, ticket) == []
