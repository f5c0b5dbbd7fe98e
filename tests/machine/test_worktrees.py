"""Worktrees on a booted machine: setup in the pane, the cap under a rush, diff, merge."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.machine.machine import Machine
from tests.machine.product import CONFIG, HOME, Product

SLEEPER = ["--driver", "command", "--", "sleep", "1000"]


@pytest.fixture(scope="module")
def product(module_machine: Machine) -> Product:
    """One machine for the tests of this module; each makes tickets of its own."""
    return Product(module_machine)


def code_ticket(product: Product, repo: str, *args: str) -> int:
    """A ticket of a program that just runs, with a worktree."""
    return product.new("work", "--repo", repo, *(args or SLEEPER))


def test_setup_is_seen_in_the_pane_before_the_agent(product: Product) -> None:
    """`.worktreeinclude` first, then submodules, then [worktree] setup, then the agent; once."""
    repo = product.make_repository(f"{HOME}/setup/demo")
    product.machine.sh(
        f"cd {repo}; mkdir -p ../inner; git -C ../inner init -q -b main;"
        " git -C ../inner config user.email op@example.org; git -C ../inner config user.name op;"
        " echo in > ../inner/file; git -C ../inner add file; git -C ../inner commit -qm in;"
        " git -c protocol.file.allow=always submodule add -q ../inner sub;"
        " echo .env > .gitignore; echo .env > .worktreeinclude; git add -A; git commit -qm more;"
        " echo SECRET=1 > .env; git config --global protocol.file.allow always"
    )
    product.machine.run(
        ["sh", "-c", f"cp {CONFIG}/config.toml /tmp/kept; cat >> {CONFIG}/config.toml"],
        input='\n[worktree]\nsetup = "cat .env sub/file; touch made-by-setup; echo setup ran in $PWD"\n',
    )
    # the file that came with the product has the table already, with nothing in it
    product.machine.sh(f"sed -i '0,/^\\[worktree\\]$/{{/^\\[worktree\\]$/d}}' {CONFIG}/config.toml")
    try:
        ticket = code_ticket(
            product, repo, "--driver", "command", "--",
            "sh", "-c", "echo agent in $PWD; exec sleep 1000",
        )  # fmt: skip
        product.ctl("start", str(ticket))
        path = f"{HOME}/setup/wt/ticket-{ticket}"
        product.wait_screen(ticket, f"agent in {path}")
        log = product.pane_log(ticket)
        seen = [
            log.index(text)
            for text in (
                "submodule update",
                "SECRET=1",
                "\r\nin\r\n",
                f"setup ran in {path}",
                "agent in",
            )
        ]
        assert seen == sorted(seen)
        product.ctl("restart", str(ticket))
        product.machine.wait_for(
            lambda: product.pane_log(ticket).count(f"agent in {path}") == 2, what="the second start"
        )
        assert product.pane_log(ticket).count(f"setup ran in {path}") == 1
    finally:
        product.machine.run(["sh", "-c", f"cp /tmp/kept {CONFIG}/config.toml"])


@pytest.mark.fault(23)
def test_what_is_in_the_way_is_said_at_every_entrance(product: Product) -> None:
    """systemctl, ticketctl and the unit's status say it; nothing is forced; mended, it starts."""
    repo = product.make_repository(f"{HOME}/way/demo")
    ticket = code_ticket(product, repo)
    product.machine.sh(f"git -C {repo} branch ticket-{ticket}")
    done = product.ctl("start", str(ticket), check=False)
    assert done.returncode == 5
    assert f"branch ticket-{ticket} exists already" in done.stderr
    assert f"branch ticket-{ticket} exists already" in product.unit(ticket)["StatusText"]
    assert product.unit(ticket)["NRestarts"] == "0"
    product.machine.sh(f"git -C {repo} branch -D ticket-{ticket}")
    product.ctl("start", str(ticket))
    product.wait_active(ticket)


def test_diff_and_merge(product: Product) -> None:
    """Committed, staged, untracked in one diff; the merge takes what is committed, and says so."""
    repo = product.make_repository(f"{HOME}/diff/demo")
    ticket = code_ticket(product, repo)
    product.ctl("start", str(ticket))
    path = f"{HOME}/diff/wt/ticket-{ticket}"
    product.machine.sh(
        f"cd {path}; echo one > one; git add one; git commit -qm one;"
        " echo two > two; git add two; echo three > three; echo more >> README"
    )
    found = json.loads(product.ctl("diff", str(ticket), "--json").stdout)
    assert {f["path"]: f["status"] for f in found["files"]} == {
        "README": "modified", "one": "added", "two": "added", "three": "untracked",
    }  # fmt: skip
    stat = product.ctl("diff", str(ticket), "--stat").stdout
    assert "untracked\t+1\t-0\t\tthree" in stat
    patch = product.ctl("diff", str(ticket), "--patch").stdout
    applied = product.machine.run(
        ["sh", "-c", f"cd {HOME}/diff && git clone -q demo copy && cd copy && git apply && ls"],
        input=patch,
    )
    assert applied.stdout.split() == ["README", "one", "three", "two"]
    done = product.ctl("merge", str(ticket), "--squash")
    assert "not committed" in done.stderr
    assert product.machine.sh(f"git -C {repo} log -1 --format=%s; ls {repo}").stdout.split() == [
        "work", "README", "one",
    ]  # fmt: skip
    assert product.ctl("pr", str(ticket), check=False).returncode == 2  # there is no remote


@pytest.mark.fault(24)
def test_twenty_starts_at_once_are_ten_worktrees(product: Product) -> None:
    """Exactly ten; ten are told which are the oldest idle ones; closing one makes room for one."""
    for ticket in json.loads(product.ctl("list", "--json").stdout):
        product.ctl("close", str(ticket["id"]), "--force")
    repo = product.make_repository(f"{HOME}/rush/demo")
    program = (
        f"for i in $(seq 20); do ( {HOME}/.local/bin/ticketctl new number-$i --repo {repo} --start"
        " --driver command -- sleep 1000 > /tmp/rush.$i 2>&1; echo $? >> /tmp/rush.statuses ) & done; wait"
    )
    product.machine.run(["sh", "-c", f"rm -f /tmp/rush.*; {program}"], timeout=120)
    statuses = product.read("/tmp/rush.statuses").split()
    said = product.machine.sh("cat /tmp/rush.[0-9]*").stdout
    assert sorted(statuses) == ["0"] * 10 + ["5"] * 10, said
    assert said.count("10 of 10 worktrees are in use. Idle the longest: ticket ") == 10
    assert len(product.machine.sh(f"ls {HOME}/rush/wt").stdout.split()) == 10

    def of_status(status: str) -> list[dict[str, Any]]:
        listed = json.loads(product.ctl("list", "--json").stdout)
        return [t for t in listed if t["status"] == status]

    # the row is written a moment after the unit is up
    product.machine.wait_for(lambda: len(of_status("in_progress")) == 10, what="ten rows")
    running, waiting = of_status("in_progress"), of_status("open")
    assert len(waiting) == 10
    product.ctl("close", str(running[0]["id"]))
    product.ctl("start", str(waiting[0]["id"]))
    assert product.ctl("start", str(waiting[1]["id"]), check=False).returncode == 5
