"""An agent that only config.toml describes, on a booted machine: started, told, held back, resumed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.machine.install import CHECKOUT, copy_checkout
from tests.machine.machine import Machine
from tests.machine.product import CONFIG, HOME, Product

AGENT = f"{CHECKOUT}/tests/machine/scripted_agent.py"
TABLE = f"""
[drivers.scripted]
command = ["python3", "{AGENT}", "{{{{ folder }}}}/scripted.log"]
resume = ["--resume"]
prompt = ["--", "{{{{ prompt }}}}"]
ready = ["^»"]
busy = ["esc to stop"]
waiting = ['May I\\?']
box = "»"
commands = "/"

[drivers.unboxed]
command = ["python3", "{AGENT}", "{{{{ folder }}}}/scripted.log"]
ready = ["^»"]
busy = ["esc to stop"]

[drivers.broken]
command = ["python3", "{{{{ no_such_name }}}}"]
ready = ["x"]
busy = ["y"]
"""


@pytest.fixture(scope="module")
def product(module_machine: Machine) -> Product:
    """A machine whose operator has written those tables."""
    made = Product(module_machine)
    copy_checkout(module_machine)
    module_machine.run(["sh", "-c", f"cat >> {CONFIG}/config.toml"], input=TABLE)
    done = made.ctl("setup", check=False)  # one of the tables is broken, which the doctor says
    assert "with these settings" in done.stdout
    return made


def log(product: Product, ticket: int) -> list[dict[str, Any]]:
    """What the agent noted."""
    text = product.read(f"{HOME}/.local/state/mission-control/tickets/{ticket}/agent/scripted.log")
    return [json.loads(line) for line in text.splitlines()]


def heard(product: Product, ticket: int) -> list[str]:
    """The messages it took."""
    return [entry["message"] for entry in log(product, ticket) if "message" in entry]


def state(product: Product, ticket: int, wanted: str) -> None:
    """Waits for a turn state."""
    product.machine.wait_for(
        lambda: product.show(ticket)["turn_state"] == wanted, what=f"turn state {wanted}"
    )


def started(product: Product, driver: str = "scripted", prompt: str = "begin") -> int:
    """A ticket that has taken its prompt and is idle."""
    ticket = product.new("scripted", "--driver", driver, "--prompt", prompt)
    product.ctl("start", str(ticket))
    product.machine.wait_for(lambda: heard(product, ticket) == [prompt], what="the prompt")
    state(product, ticket, "idle")
    return ticket


@pytest.mark.parametrize("driver", ["scripted", "unboxed"])
def test_messages_arrive_exactly_and_in_order(product: Product, driver: str) -> None:
    """With a box to look into and without: once each, byte for byte, one a turn."""
    ticket = started(product, driver)
    texts = [
        "one line", "SLOW{1} a turn", ";", "a;", "-R", "Enter", "#{pane_title} $(touch /tmp/x)",
        "two\nlines\n\nand more", "naïve 漢字 👩‍👩‍👧", "ends with \\", "x" * 5000, "last",
    ]  # fmt: skip
    messages = [product.send(ticket, text) for text in texts]
    for message in messages:
        product.machine.wait_for(
            lambda m=message: product.outcome(ticket, m) not in {"queued", "sent"},  # type: ignore[misc]
            what="an outcome", timeout=60,
        )  # fmt: skip
        assert product.outcome(ticket, message) == "confirmed", product.screen(ticket)
    assert heard(product, ticket) == ["begin", *texts]


def test_a_command_is_sent_as_text(product: Product) -> None:
    """`commands`: a blank before it."""
    ticket = started(product)
    product.say(ticket, "/clear the cache")
    assert heard(product, ticket)[-1] == " /clear the cache"


def test_states_come_off_the_screen_and_a_question_holds_messages(product: Product) -> None:
    """busy, waiting_permission, idle; a message sent meanwhile answers nothing and arrives later."""
    ticket = started(product)
    product.say(ticket, "SLOW{2} please")
    state(product, ticket, "busy")
    state(product, ticket, "idle")
    product.say(ticket, "ASK me")
    state(product, ticket, "waiting_permission")
    message = product.send(ticket, "y")
    product.machine.run(["sleep", "1"])  # ten of the dispatcher's looks
    assert product.outcome(ticket, message) == "queued"
    assert not [entry for entry in log(product, ticket) if "answer" in entry]
    product.machine.run(["tmux", "send-keys", "-t", f"=ticket-{ticket}:", "n"])
    product.machine.wait_for(
        lambda: product.outcome(ticket, message) == "confirmed", what="delivery"
    )
    assert [entry["answer"] for entry in log(product, ticket) if "answer" in entry] == ["n"]


def test_half_a_thought_in_its_box_is_left_alone(product: Product) -> None:
    """Somebody typed: the message waits, with the reason."""
    ticket = started(product)
    product.machine.run(["tmux", "send-keys", "-t", f"=ticket-{ticket}:", "-l", "half a thought"])
    product.wait_screen(ticket, "half a thought")
    message = product.send(ticket, "mine")
    product.machine.run(["sleep", "1"])
    waiting = json.loads(product.ctl("queue", str(ticket), "--json").stdout)[-1]
    assert (waiting["id"], waiting["outcome"]) == (message, "queued")
    assert "input box" in waiting["reason"]
    product.machine.run(["tmux", "send-keys", "-t", f"=ticket-{ticket}:", "Enter"])
    product.machine.wait_for(
        lambda: product.outcome(ticket, message) == "confirmed", what="delivery"
    )
    assert heard(product, ticket)[-2:] == ["half a thought", "mine"]


def test_interrupt_is_its_key(product: Product) -> None:
    """`ticketctl interrupt` breaks off the turn."""
    ticket = started(product)
    product.say(ticket, "SLOW{60} please")
    state(product, ticket, "busy")
    product.ctl("interrupt", str(ticket))
    state(product, ticket, "idle")
    assert {"interrupted": True} in log(product, ticket)


def test_it_comes_back_with_its_resume_arguments(product: Product) -> None:
    """kill -9: started with `resume`, without the prompt; --fresh: with it, as at first."""
    ticket = started(product)
    before = product.main_pid(ticket)
    product.machine.sh(f"kill -9 {before}")
    product.machine.wait_for(
        lambda: product.main_pid(ticket) not in {0, before}, what="another process"
    )
    product.say(ticket, "go on")
    product.ctl("stop", str(ticket))
    product.ctl("start", "--fresh", str(ticket))
    product.machine.wait_for(lambda: len(heard(product, ticket)) == 3, what="the prompt again")
    assert [e["started"] for e in log(product, ticket) if "started" in e] == [
        "fresh", "resumed", "fresh",
    ]  # fmt: skip
    assert heard(product, ticket) == ["begin", "go on", "begin"]


def test_a_broken_table_is_said_and_harms_nobody(product: Product) -> None:
    """By `ticketctl new`, by `doctor`; the others run."""
    done = product.ctl("new", "broken", "--driver", "broken", check=False)
    assert done.returncode == 78
    assert "drivers.broken.command: 'no_such_name' is undefined" in done.stderr
    assert "no_such_name" in product.ctl("doctor", check=False).stdout
    started(product)


def test_a_table_that_is_taken_away_leaves_the_rest_alone(product: Product) -> None:
    """The worker goes on, its messages wait with the reason, another ticket is read and spoken to."""
    ticket = started(product, "unboxed")
    before = product.read(f"{CONFIG}/config.toml")
    without = before.replace("[drivers.unboxed]", "[drivers.renamed]")
    write = ["sh", "-c", f"cat > {CONFIG}/config.toml"]
    product.machine.run(write, input=without)
    product.ctl("setup", check=False)  # the broken table is a finding of the doctor's
    other = started(product)
    message = product.send(ticket, "are you there")
    product.machine.wait_for(
        lambda: (
            "no driver 'unboxed'"
            in json.loads(product.ctl("queue", str(ticket), "--json").stdout)[-1]["reason"]
        ),
        what="the reason",
    )
    product.say(other, "and you")
    assert product.main_pid(ticket)
    product.machine.run(write, input=before)
    product.ctl("setup", check=False)
    product.machine.wait_for(
        lambda: product.outcome(ticket, message) == "confirmed", what="delivery", timeout=60
    )
