"""Closing and opening again with the real Claude Code CLI: the conversation goes on."""

from __future__ import annotations

import json

from tests.claude.conftest import API_LOG
from tests.machine.product import HOME, Product


def test_a_reopened_ticket_goes_on_with_its_conversation(product: Product) -> None:
    """The worktree went and is back at the same path; the CLI resumes, and knows what was said."""
    ticket = product.new("Say hello", "--repo", product.make_repository())
    product.ctl("start", str(ticket))
    product.machine.wait_for(
        lambda: product.hooks(ticket, "Stop"), what="the first answer", timeout=60
    )
    path = f"{HOME}/src/wt/ticket-{ticket}"
    product.ctl("close", str(ticket))
    assert product.machine.run(["test", "-e", path], check=False).returncode == 1
    (kept,) = json.loads(product.ctl("archive", str(ticket), "--verify", "--json").stdout)
    names = product.machine.run(["tar", "--zstd", "-tf", kept["path"]]).stdout.split()
    assert {"sidecar.jsonl", "pane.log", "conversation.jsonl", "summary.json"} <= set(names)
    # also when somebody tidied up Claude's own folder meanwhile
    product.machine.sh(f"rm {kept['facts']['conversation']}")
    product.ctl("reopen", str(ticket), "--start")
    product.machine.wait_for(
        lambda: product.hooks(ticket, "SessionStart"), what="the session", timeout=60
    )
    (start,) = product.hooks(ticket, "SessionStart")
    assert (start["source"], start["cwd"]) == ("resume", path)
    assert start["session_id"] == product.show(ticket)["session_id"]
    product.say(ticket, "hello what is 2+2")
    product.wait_screen(ticket, "2 + 2 = 4")
    asked = [json.loads(line) for line in product.read(API_LOG).splitlines()]
    assert "Say hello" in json.dumps(asked)
