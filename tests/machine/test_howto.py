"""The how-to's of docs/: their commands typed as written on a machine, and the files put where they say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.machine import forge
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


def files(machine: Machine, page: str) -> None:
    """Puts each block that names its file in its first comment there."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for block in re.findall(r"^```(?:toml|sh)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        if named := re.match(r"(?:#!.*\n)?# (~/\S+)\n", block):
            path = named[1].replace("~", HOME)
            machine.sh(f"mkdir -p {Path(path).parent}")
            machine.run(["sh", "-c", 'cat >"$0"', path], input=block)


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


def test_limits(product: Product) -> None:
    """What is set is in force, for one and for all; and taken back."""
    product.new("hungry", "--driver", "demo", "--id", "42")
    product.ctl("start", "42")
    printed = type_in(product.machine, *blocks("limits.md"))
    assert f"MemoryMax={2 << 30}" in printed
    assert "CPUQuotaPerSecUSec=1.500000s" in printed
    assert "TasksMax=500" in printed
    show = product.systemctl("show", "-p", "MemoryMax", "ticket@42", "mc-tickets.slice").stdout
    assert re.findall(r"=(\d+)", show) == [str(4 << 30), str(12 << 30)]


def test_isolation(product: Product) -> None:
    """It is seen from inside; what the file names is allowed after a restart, and the rest is not."""
    product.new("contained", "--driver", "demo", "--id", "42")
    product.ctl("start", "42")
    product.machine.sh(f"mkdir -m 700 {HOME}/.ssh; touch {HOME}/.ssh/id_ed25519")
    first, second = blocks("isolation.md")[:2], blocks("isolation.md")[2:]
    printed = type_in(product.machine, *first)
    assert "workspace" in printed
    assert "id_ed25519" not in printed.rpartition("ticketctl log 43")[2]
    assert "Read-only file system" in printed.rpartition("ticketctl log 43")[2]
    assert product.machine.run(["test", "-e", f"{HOME}/mine"], check=False).returncode
    files(product.machine, "isolation.md")
    type_in(product.machine, *second)
    script = "touch ~/shared/yes; ls ~/private/; touch ~/no; sleep 600"
    product.machine.sh(f"touch {HOME}/private/secret")
    ticket = product.new("tries", "--driver", "command", "--", "sh", "-c", script)
    product.ctl("start", str(ticket))
    product.machine.wait_for(lambda: "Read-only" in product.pane_log(ticket), what="its tries")
    assert product.machine.run(["test", "-e", f"{HOME}/shared/yes"], check=False).returncode == 0
    assert "secret" not in product.pane_log(ticket)


def test_an_agent_is_added(product: Product) -> None:
    """The parrot answers, and the message is confirmed."""
    files(product.machine, "add-an-agent.md")
    printed = type_in(product.machine, *blocks("add-an-agent.md"))
    assert "You said: hello there" in printed
    assert "confirmed" in printed.rpartition("ticketctl queue 44")[2]


def test_upgrade(product: Product) -> None:
    """From the place it was cloned from; the agents' processes stay."""
    forge.serve(product.machine)
    checkout = f"{HOME}/mission-control"
    product.machine.sh(f"rm -rf {checkout}; git clone -q {forge.ADDRESS}{forge.NAME} {checkout}")
    ticket = product.new("goes on", "--driver", "demo", "--start")
    before = product.main_pid(ticket)
    printed = type_in(product.machine, *blocks("upgrade.md"))
    assert "Already up to date." in printed
    assert product.main_pid(ticket) == before
