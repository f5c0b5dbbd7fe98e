"""Faults 28 and 29: many messages at random moments of random turns, with dialogs in between.

With the real CLI. MC_DRILL_MESSAGES=500 makes it the long drill.
"""

from __future__ import annotations

import json
import os
import random
import time

import pytest

from tests.claude.conftest import API_LOG
from tests.machine.product import Product

MESSAGES = int(os.environ.get("MC_DRILL_MESSAGES", "40"))


def text_of(dice: random.Random, number: int) -> str:
    """A message: a tool that asks first, a slow turn, a word that would answer a dialog, or a sum."""
    kind = dice.random()
    if kind < 0.2:
        return f"BASH{{touch drill-{number}}}"
    if kind < 0.3:
        return f"SLOW{{{dice.uniform(0.1, 1):.1f}}} number {number}"
    if kind < 0.4:
        return dice.choice(["yes", "1", "y", "allow it"]) + f", says {number}"
    return f"what is {number}+1000"


@pytest.mark.timeout(3600)
@pytest.mark.fault(28, 29)
def test_each_message_once_in_order_and_no_dialog_answered(product: Product) -> None:
    """All confirmed, in the order they were queued; a tool ran only where it was allowed."""
    seed = random.randrange(10**6)
    print(f"seed {seed}, {MESSAGES} messages")
    dice = random.Random(seed)
    ticket = product.new("drill", "--prompt", "begin")
    product.ctl("start", str(ticket))
    texts = [text_of(dice, number) for number in range(MESSAGES)]
    allowed: set[int] = set()
    denied: set[int] = set()
    queued: list[int] = []

    def answer_dialogs() -> None:
        """Answers what is asked, allowing and denying at random, by its name."""
        for request in json.loads(product.ctl("permit", str(ticket), "--json").stdout):
            name = int(request["input"]["command"].rpartition("-")[2])
            verdict = dice.choice(["allow", "deny"])
            done = product.ctl(
                "permit", str(ticket), verdict, "--request", request["request_id"], check=False
            )
            if done.returncode == 0:
                (allowed if verdict == "allow" else denied).add(name)

    for text in texts:
        queued.append(product.send(ticket, text))
        time.sleep(dice.choice([0, 0, 0.1, 0.5]))
        if dice.random() < 0.3:
            answer_dialogs()
    deadline = time.monotonic() + 60 + MESSAGES * 5

    def outcomes() -> dict[int, str]:
        out = product.ctl("queue", str(ticket), "-n", "1000", "--json").stdout
        return {m["id"]: m["outcome"] for m in json.loads(out)}

    while {"queued", "sent"} & set(outcomes().values()):
        assert time.monotonic() < deadline, product.ctl(
            "queue", str(ticket), "-n", "1000"
        ).stdout + product.screen(ticket)
        answer_dialogs()
        time.sleep(0.5)  # each look is a process on the same machine
    while product.show(ticket)["turn_state"] != "idle":
        assert time.monotonic() < deadline
        answer_dialogs()
        time.sleep(0.2)
    became = outcomes()
    assert [became[m] for m in queued] == ["confirmed"] * MESSAGES
    heard = [p["prompt"].strip() for p in product.hooks(ticket, "UserPromptSubmit")]
    assert heard == ["begin", *texts]
    api = [json.loads(line).get("last") for line in product.read(API_LOG).splitlines()]
    assert [h for h in api if h in texts] == [t for t in texts if t in api]
    made = {
        int(p.rpartition("-")[2])
        for p in product.machine.sh(f"ls {product.work(ticket)}/drill-* || true").stdout.split()
    }
    assert made == allowed
    assert allowed | denied == {n for n, t in enumerate(texts) if t.startswith("BASH")}
