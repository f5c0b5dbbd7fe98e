"""docs/night.md, own-postgresql.md and move.md: their commands, typed as written on a machine."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.machine.cache import Layer
from tests.machine.fixtures import NewMachine
from tests.machine.machine import Machine
from tests.machine.product import DATA, HOME, STATE, Product

DOCS = Path(__file__).resolve().parents[2] / "docs"
OWN = f"{HOME}/own"  # the PostgreSQL that is not Mission Control's


def blocks(page: str) -> list[list[str]]:
    """The commands of each console block of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(r"^```console\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [re.findall(r"^\$ (.*)$", block, re.MULTILINE) for block in found]


def type_in(machine: Machine, *typed: list[str]) -> str:
    """Types blocks into one shell; each command has to exit with 0."""
    script = "".join(
        f"printf '%s\\n' {shlex.quote(f'$ {command}')}\n{command}\n"
        'status=$?; [ $status = 0 ] || { echo "exit status $status"; exit 1; }\n'
        for block in typed for command in block
    )  # fmt: skip
    done = machine.run(
        ["bash", "-c", f"exec 2>&1 </dev/null; PATH=$HOME/.local/bin:$PATH; cd ~\n{script}"],
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture
def product(machine: Machine) -> Product:
    """A machine of the test's own."""
    return Product(machine)


def test_two_in_the_morning(product: Product) -> None:
    """All of it on a ticket that runs; at the end everything is on again."""
    product.new("sleepless", "--driver", "demo", "--id", "42")
    product.ctl("start", "42")
    printed = type_in(product.machine, *blocks("night.md"))
    assert "ticket@42.service - sleepless" in printed
    assert "of at most 2048 MiB" in printed
    assert product.unit(42)["ActiveState"] == "inactive"
    assert product.systemctl("is-active", "mc.target").stdout == "active\n"


def test_ones_own_postgresql(product: Product) -> None:
    """Tickets and events move; the embedded one is gone afterwards, and the ticket goes on."""
    machine = product.machine
    ticket = product.new("moves to another database", "--driver", "demo")
    product.ctl("start", str(ticket))
    product.say(ticket, "hello")
    events = len(product.ctl("events", str(ticket), "--json", "-n", "100").stdout.splitlines())
    programs = f"{DATA}/postgresql/bin"
    machine.sh(
        f"{programs}/initdb -D {OWN} -U admin --auth=scram-sha-256 --auth-local=trust >/dev/null"
        f" && {programs}/pg_ctl -D {OWN} -w -l {HOME}/own.log -o '-h 127.0.0.1 -p 5432 -k {OWN}' start"
        f" && {programs}/psql -h {OWN} -U admin postgres -c \"CREATE ROLE mission_control LOGIN PASSWORD 'change-me'\""
        f" && {programs}/createdb -h {OWN} -U admin --owner mission_control mission_control"
    )
    printed = type_in(machine, *blocks("own-postgresql.md"))
    assert "moves to another database" in printed
    assert (
        machine.sh(
            "systemctl --user list-unit-files 'mc-postgres*' 'mc-backup*' --no-legend || true"
        ).stdout
        == ""
    )
    assert "postgres -D" not in "\n".join(c for c in product.command_lines() if STATE in c)
    product.ctl("start", str(ticket))
    product.say(ticket, "hello again")
    assert (
        len(product.ctl("events", str(ticket), "--json", "-n", "100").stdout.splitlines()) > events
    )
    assert "Nothing had to be changed." in product.ctl("setup").stdout


def test_to_another_box(installed: Layer, fresh_machine: NewMachine) -> None:
    """A ticket with a worktree and uncommitted work goes on, on the other machine, on its conversation."""
    old, new = Product(fresh_machine(installed)), Product(fresh_machine(installed))
    ticket = old.new("moves house", "--driver", "demo", "--repo", old.make_repository())
    old.ctl("start", str(ticket))
    old.say(ticket, "remember this")
    work = f"{HOME}/src/wt/ticket-{ticket}/unsaved"
    old.machine.sh(f"echo precious > {work}")
    pack, unpack = blocks("move.md")
    type_in(old.machine, pack)
    packed = old.machine.sh("base64 -w0 /tmp/mission-control.tar.gz").stdout
    new.machine.run(["sh", "-c", "base64 -d > /tmp/mission-control.tar.gz"], input=packed)
    assert "moves house" in type_in(new.machine, unpack)
    before, after = old.machine, new.show(ticket)
    assert before.sh(f"cat {work}").stdout == new.read(work) == "precious\n"
    new.ctl("start", str(ticket))
    assert new.show(ticket)["session_id"] == after["session_id"]
    new.say(ticket, "are you still there?")
