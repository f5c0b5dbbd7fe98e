"""Closing, opening again and collecting on a booted machine, with the demo agent."""

from __future__ import annotations

import json
import os
import random

import pytest

from tests.machine.install import CHECKOUT, copy_checkout
from tests.machine.machine import Machine
from tests.machine.product import HOME, STATE, Product
from tests.unit.messes import HARMLESS, MESSES

CLOSES = int(os.environ.get("MC_DRILL_CLOSES", "6"))


@pytest.fixture(scope="module")
def product(module_machine: Machine) -> Product:
    """One machine for the tests of this module; each makes tickets of its own."""
    made = Product(module_machine)
    made.make_repository()
    return made


def demo(product: Product) -> int:
    """A demo ticket with a worktree that has answered its first prompt."""
    ticket = product.new("Say hello", "--driver", "demo", "--repo", product.make_repository())
    product.ctl("start", str(ticket))
    product.machine.wait_for(lambda: product.hooks(ticket, "Stop"), what="the first answer")
    return ticket


def events(product: Product, ticket: int) -> list[str]:
    """The kinds of its events, in order."""
    sql = f"SELECT kind FROM ticket_events WHERE ticket_id = {ticket:d} ORDER BY id"
    done = product.machine.sh(
        f"{HOME}/.local/share/mission-control/postgresql/bin/psql -h $XDG_RUNTIME_DIR/mission-control/postgres"
        f' -d mission_control -Atc "{sql}"'
    )
    return done.stdout.split()


def test_close_and_reopen_go_on_with_the_conversation(product: Product) -> None:
    """Archived and verified; the worktree goes and comes back; each event is there once."""
    ticket = demo(product)
    path = f"{HOME}/src/wt/ticket-{ticket}"
    product.machine.sh(
        f"cd {path}; echo '*.notes' >> ../../demo/.git/info/exclude; echo kept > my.notes"
    )
    product.ctl("close", str(ticket))
    assert product.unit(ticket)["ActiveState"] == "inactive"
    assert product.machine.run(["test", "-e", path], check=False).returncode == 1
    (kept,) = json.loads(product.ctl("archive", str(ticket), "--verify", "--json").stdout)
    assert kept["path"].startswith(f"{STATE}/archive/ticket-{ticket}-")
    names = product.machine.run(["tar", "--zstd", "-tf", kept["path"]]).stdout.split()
    assert set(names) == {
        "summary.json", "pane.log", "sidecar.jsonl", "worktree/my.notes", "manifest.json",
    }  # fmt: skip
    shown = product.machine.run(["tar", "--zstd", "-xOf", kept["path"], "summary.json"]).stdout
    assert json.loads(shown)["turns"] == 1
    assert product.show(ticket)["status"] == "closed"
    assert product.ctl("start", str(ticket), check=False).returncode
    before = events(product, ticket)
    product.ctl("reopen", str(ticket), "--start")
    product.wait_screen(ticket, "resumed, 2 messages")
    assert product.read(f"{path}/my.notes") == "kept\n"
    product.type(ticket, "hello what is 2+2")
    product.wait_screen(ticket, "2 + 2 = 4")
    product.machine.wait_for(lambda: product.hooks(ticket, "Stop"), what="the turn's end")
    product.machine.wait_for(
        lambda: events(product, ticket).count("turn_end") == 2, what="the turn's end as an event"
    )
    assert product.pane_log(ticket).count("Say hello") >= 1  # the log of before is there too
    after = events(product, ticket)
    assert after[: len(before)] == before
    assert after.count("turn_end") == 2
    assert after.count("session_start") == 2


def test_close_refuses_to_lose_work(product: Product) -> None:
    """Dirty, or with somebody in there: refused, with names, and still running; --force says what."""
    ticket = demo(product)
    path = f"{HOME}/src/wt/ticket-{ticket}"
    product.machine.sh(f"echo precious > {path}/new")
    pid = product.main_pid(ticket)
    done = product.ctl("close", str(ticket), check=False)
    assert done.returncode == 5
    assert "not tracked: new" in done.stderr
    assert product.main_pid(ticket) == pid
    product.machine.sh(
        f"rm {path}/new; systemd-run --user -q --unit=squatter -p WorkingDirectory={path} sleep 600"
    )
    done = product.ctl("close", str(ticket), check=False)
    assert "processes in there" in done.stderr
    assert "sleep" in done.stderr
    product.systemctl("stop", "squatter")
    product.machine.sh(f"echo precious > {path}/new")
    done = product.ctl("close", str(ticket), "--force")
    assert "given up: not tracked: new" in done.stderr
    assert product.machine.run(["test", "-e", path], check=False).returncode == 1
    product.ctl("reopen", str(ticket))
    assert product.read(f"{path}/new") == "precious\n"


def test_gc_says_first_and_does_it_then(product: Product) -> None:
    """Quiet tickets are closed, running ones are left."""
    running, quiet = demo(product), demo(product)
    product.ctl("stop", str(quiet))
    first = json.loads(product.ctl("gc", "--dry-run", "--idle-days", "0", "--json").stdout)
    assert next(c for c in first if c["ticket"] == quiet)["size_bytes"] > 0
    assert first == json.loads(product.ctl("gc", "--idle-days", "0", "--json").stdout)
    assert product.ctl("gc", "--dry-run", "--yes", check=False).returncode == 2
    assert running not in [c["ticket"] for c in first]
    assert product.show(quiet)["status"] == "open"
    done = {
        c["ticket"]: c
        for c in json.loads(product.ctl("gc", "--idle-days", "0", "--yes", "--json").stdout)
    }
    assert done[quiet]["done"], done
    assert product.show(quiet)["status"] == "closed"
    assert product.show(running)["status"] == "in_progress"


MESS = f"cd {CHECKOUT} && python3 -m tests.unit.messes"


@pytest.mark.timeout(3600)
def test_closing_random_trees_loses_nothing(product: Product) -> None:
    """Refused, with the unit running and every file in place; or closed, and all of it comes back.

    What an agent may leave behind, up to four at a time. MC_DRILL_CLOSES=100 makes it the long drill.
    """
    copy_checkout(product.machine)
    seed = random.randrange(10**6)
    dice = random.Random(seed)
    print(f"seed {seed}")
    closed = refused = 0
    for number in range(CLOSES):
        messes = set(dice.sample(MESSES, dice.randrange(5))) if number else {"ignored", "merged"}
        repo = product.make_repository(f"{HOME}/random/{number}/demo")
        product.machine.sh(
            f"cd {repo}; printf '*.ignored\\nnode_modules/\\n' > .gitignore; echo other > other;"
            " git add -A; git commit -qm more"
        )
        ticket = product.new("random", "--repo", repo, "--driver", "command", "--", "sleep", "1000")
        product.ctl("start", str(ticket))
        path = f"{HOME}/random/{number}/wt/ticket-{ticket}"
        product.machine.sh(f"{MESS} make {repo} {path} {' '.join(sorted(messes))}")
        before = product.machine.sh(f"{MESS} contents {path}").stdout
        head = product.machine.sh(f"git -C {path} rev-parse HEAD").stdout
        done = product.ctl("close", str(ticket), check=False)
        if messes - HARMLESS:
            refused += 1
            assert done.returncode == 5, (messes, done.stderr)
            assert "would lose work" in done.stderr
            assert product.unit(ticket)["ActiveState"] == "active"
            assert product.machine.sh(f"{MESS} contents {path}").stdout == before
            assert product.machine.sh(f"git -C {path} rev-parse HEAD").stdout == head
            product.ctl("close", str(ticket), "--keep-worktree")
            assert product.machine.sh(f"{MESS} contents {path}").stdout == before
            product.machine.sh(f"rm -rf {HOME}/random/{number}; pkill -fx 'sleep 60' || true")
            product.ctl("gc", "--yes")
        else:
            closed += 1
            assert done.returncode == 0, (messes, done.stderr)
            assert product.machine.run(["test", "-e", path], check=False).returncode
            product.ctl("reopen", str(ticket))
            assert product.machine.sh(f"git -C {path} rev-parse HEAD").stdout == head
            assert product.machine.sh(f"{MESS} contents {path}").stdout == before
            product.ctl("close", str(ticket))
    print(f"{closed} closed and opened again, {refused} refused")
