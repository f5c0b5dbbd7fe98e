"""Ten tickets, random faults, and a ledger of every message, line and byte at the end.

`make soak MINUTES=60` is the long one (MC_SOAK_MINUTES); without it, a minute of it, without reboots.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from tests.faults.record import Drill
from tests.machine.cache import Layer
from tests.machine.fixtures import NewMachine
from tests.machine.product import STATE, Product

MINUTES = float(os.environ.get("MC_SOAK_MINUTES", "0.7"))
REBOOTS = MINUTES >= 5
AGENTS, PRINTERS = 6, 4
KILLED = ("mc-ingest", "mc-dispatch", "mc-webgate", "mc-postgres", "tmux-mc")
#: prints numbered lines; another run begins with another word
PRINTER = (
    'run=$(date +%s%N); n=0; while :; do n=$((n+1)); echo "run $run line $n"; sleep 0.02; done'
)
_LINE = re.compile(r"^run (\d+) line (\d+)\r?$", re.MULTILINE)


@dataclass(slots=True)
class Ledger:
    """What was done, and what has to come out."""

    messages: dict[int, list[tuple[int, str]]] = field(default_factory=dict)  # ticket: (id, text)
    faults: Counter[str] = field(default_factory=Counter)
    refused: int = 0


class Soak:
    """The machine, the dice and the ledger."""

    def __init__(self, product: Product, dice: random.Random) -> None:
        self.product, self.dice, self.ledger = product, dice, Ledger()
        new = product.new
        self.agents = [new(f"agent {n}", "--driver", "demo", "--start") for n in range(AGENTS)]
        self.printers = [
            new(f"printer {n}", "--driver", "command", "--start", "--", "bash", "-c", PRINTER)
            for n in range(PRINTERS)
        ]

    def say(self) -> None:
        """A message to one of the agents; what is not acknowledged does not count."""
        ticket = self.dice.choice(self.agents)
        said = self.ledger.messages.setdefault(ticket, [])
        text = f"message {len(said)}: what is {len(said)}+1"
        done = self.product.ctl("send", str(ticket), text, check=False)
        if done.returncode == 0:
            said.append((int(done.stdout), text))
        else:
            self.ledger.refused += 1

    def harm(self) -> None:
        """One fault."""
        dice, product = self.dice, self.product
        what = dice.choice([*KILLED, "worker", "worker", "pipe"] + ["reboot", "power"] * REBOOTS)
        self.ledger.faults[what] += 1
        if what in KILLED:
            product.systemctl("kill", "--signal=KILL", f"{what}.service", check=False)
        elif what == "worker":
            pid = product.main_pid(dice.choice([*self.agents, *self.printers]))
            product.machine.sh(f"kill -9 {pid} || true" if pid else "true")
        elif what == "pipe":
            log = f"{STATE}/tickets/{dice.choice(self.printers)}/pane.log"
            product.machine.sh(
                "for p in $(pgrep -x cat); do"
                f' if [ "$(readlink /proc/$p/fd/1)" = {log} ]; then kill -9 $p; fi; done'
            )
        elif what == "reboot":
            product.machine.reboot()
        else:
            product.machine.cut_power()
            product.machine.boot()

    def settle(self) -> None:
        """Until every ticket runs and every message has an outcome."""
        tickets = [*self.agents, *self.printers]

        def quiet() -> bool:
            self.product.ctl("reconcile", check=False)
            running = all(self.product.unit(t)["ActiveState"] == "active" for t in tickets)
            return running and not any(
                outcome in {"queued", "sent"}
                for ticket in self.agents
                for outcome in self.outcomes(ticket).values()
            )

        self.product.machine.wait_for(quiet, what="all is quiet", timeout=300, every=2)
        time.sleep(3)  # the last lines of the sidecars

    def outcomes(self, ticket: int) -> dict[int, str]:
        """What became of each message."""
        out = self.product.ctl("queue", str(ticket), "-n", "10000", "--json", check=False).stdout
        return {m["id"]: m["outcome"] for m in json.loads(out or "[]")}


@pytest.mark.timeout(int(MINUTES * 60) + 1200)
def test_the_ledger_balances(installed: Layer, fresh_machine: NewMachine, drill: Drill) -> None:
    """Each message at most once, each confirmed one heard, each sidecar line a row, each line printed in order."""
    seed = random.randrange(10**6)
    print(f"seed {seed}, {MINUTES} minutes")
    product = Product(fresh_machine(installed))
    soak = Soak(product, random.Random(seed))
    until = time.monotonic() + MINUTES * 60
    while time.monotonic() < until:
        for _ in range(soak.dice.randrange(1, 6)):
            soak.say()
            time.sleep(soak.dice.uniform(0, 0.5))
        soak.harm()
        time.sleep(soak.dice.uniform(0, 4))
        # a ticket that is killed again and again runs into its start limit, which is not the matter here
        product.machine.sh("systemctl --user reset-failed 'ticket@*' || true")
    soak.settle()
    print(f"faults {dict(soak.ledger.faults)}, not acknowledged {soak.ledger.refused}")
    drill.tried = sum(soak.ledger.faults.values())
    told: Counter[str] = Counter()
    for ticket, said in soak.ledger.messages.items():
        outcomes = soak.outcomes(ticket)
        heard = Counter(p["prompt"].strip() for p in product.hooks(ticket, "UserPromptSubmit"))
        for number, text in said:
            outcome = outcomes.get(number, "gone")
            told[outcome] += 1
            drill.doubled += max(0, heard[text] - 1)
            drill.lost += outcome == "gone" or (outcome == "confirmed" and not heard[text])
    for ticket in soak.agents:
        lines = len(product.sidecar(ticket))
        rows = int(product.machine.sh(
            "psql -qAth $XDG_RUNTIME_DIR/mission-control/postgres mission_control -c"
            f" \"SELECT count(*) FROM ticket_events WHERE source = 'sidecar:{ticket}'\""
        ).stdout)  # fmt: skip
        drill.lost += max(0, lines - rows)
        drill.doubled += max(0, rows - lines)
    holes = sum(_holes(product, ticket) for ticket in soak.printers)
    gaps = sum(_gaps(product, ticket) for ticket in soak.printers)
    drill.note = f"{dict(told)}, {holes} holes in pane logs for {gaps} gaps told"
    print(drill.note)
    assert drill.lost == drill.doubled == 0
    assert holes <= gaps


def _holes(product: Product, ticket: int) -> int:
    """Places where a line is missing, or comes twice, within one run of a printer."""
    found, last = 0, {}
    for match in _LINE.finditer(product.pane_log(ticket)):
        run, number = match[1], int(match[2])
        # a run's first lines may have gone with the log writer of the old server
        if run in last and number != last[run] + 1:
            found += 1
        last[run] = number
    return found


def _gaps(product: Product, ticket: int) -> int:
    lines = product.ctl("events", str(ticket), "-n", "100000", "--json").stdout.splitlines()
    return sum(json.loads(line)["kind"] == "gap" for line in lines)
