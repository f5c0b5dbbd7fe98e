"""Rotation under flood, and the heartbeat, on a booted machine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.machine.machine import Machine
from tests.machine.product import HOME, STATE, Product

LINES = 8_000_000
ROTATIONS = 12  # one each second or so, while it floods
SEEN_ROTATIONS = 4  # a quick machine is through with the flood before the last ones
TIMERS = ("mc-reconcile.timer", "mc-heartbeat.timer", "mc-logrotate.timer")  # of mc.target
PYTHON = f"{HOME}/.local/share/mission-control/venv/bin/python"


@pytest.fixture(scope="module")
def product(module_machine: Machine) -> Product:
    """One machine for the tests of this module; its heart beats when the tests say so."""
    made = Product(module_machine)
    assert made.systemctl("is-active", *TIMERS).stdout.split() == ["active"] * len(TIMERS)
    made.systemctl("stop", "mc-heartbeat.timer")
    made.machine.wait_for(
        lambda: (
            made.systemctl("is-active", "mc-heartbeat.service", check=False).stdout
            != "activating\n"
        ),
        what="the last beat",
    )
    return made


def heartbeat(product: Product) -> dict[str, Any]:
    """Beats now; what was stored."""
    product.systemctl("start", "mc-heartbeat.service")
    sql = "SELECT data FROM heartbeats ORDER BY id DESC LIMIT 1"
    done = product.machine.sh(
        f"{HOME}/.local/share/mission-control/postgresql/bin/psql -h $XDG_RUNTIME_DIR/mission-control/postgres"
        f' -d mission_control -Atc "{sql}"'
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def journal(product: Product, event: str) -> str:
    """What was told under an event's name."""
    return product.machine.run(
        ["journalctl", "--user", "-q", "-o", "cat", "--no-pager", f"TICKET_EVENT={event}"]
    ).stdout


def test_rotating_under_a_flood_loses_nothing(product: Product) -> None:
    """Every line once and in order over all the files; the agent was not left frozen."""
    ticket = product.new(
        "flood", "--driver", "command", "--",
        "sh", "-c", f"while [ ! -e /tmp/go ]; do sleep .1; done; seq {LINES}; echo the end; exec sleep 1000",
    )  # fmt: skip
    product.ctl("start", str(ticket))
    folder = f"{STATE}/tickets/{ticket}"
    product.machine.sh(
        "touch /tmp/go; export MC_LOGS_KEEP=60;"
        f" for i in $(seq {ROTATIONS}); do {PYTHON} -I -m orchestrator.rotate force || exit; done"
    )
    product.machine.wait_for(
        lambda: "the end" in product.machine.sh(f"tail -qc 100 {folder}/pane.log {folder}/pane.log.1").stdout, what="the end",
        timeout=60,
    )  # fmt: skip
    files = product.machine.sh(f"ls {folder}").stdout.split()
    assert sum(name.endswith(".gz") for name in files) >= SEEN_ROTATIONS, files
    check = (
        f"cd {folder}; (for i in $(seq 60 -1 1); do [ -e pane.log.$i.gz ] && zcat pane.log.$i.gz;"
        " [ -e pane.log.$i ] && cat pane.log.$i; done; cat pane.log) | tr -d '\\r' |"
        " awk '$1 != NR && $1 != \"the\" {print NR, $0; bad = 1; exit} END {print NR, bad + 0}'"
    )
    assert product.machine.run(["sh", "-c", check], timeout=60).stdout.split() == [
        str(LINES + 1),
        "0",
    ]
    assert (
        "FreezerState=running"
        in product.systemctl("show", f"ticket@{ticket}", "-p", "FreezerState").stdout
    )
    assert journal(product, "rotated").count("pane log rotated") >= SEEN_ROTATIONS


def test_a_rotation_that_was_killed_leaves_nobody_frozen(product: Product) -> None:
    """The end of the service, or the next heartbeat, lets it go on."""
    ticket = product.new("sleeper", "--driver", "command", "--", "sleep", "1000")
    product.ctl("start", str(ticket))
    product.machine.sh(
        f"mkdir -p $XDG_RUNTIME_DIR/mission-control/frozen-for-rotation;"
        f" touch $XDG_RUNTIME_DIR/mission-control/frozen-for-rotation/{ticket};"
        f" systemctl --user freeze ticket@{ticket}"
    )
    data = heartbeat(product)
    assert f"frozen:{ticket}" in data["warnings"]
    assert (
        "FreezerState=running"
        in product.systemctl("show", f"ticket@{ticket}", "-p", "FreezerState").stdout
    )
    # frozen by the operator: left alone
    product.systemctl("freeze", f"ticket@{ticket}")
    product.systemctl("start", "mc-logrotate.service")
    assert (
        "FreezerState=frozen"
        in product.systemctl("show", f"ticket@{ticket}", "-p", "FreezerState").stdout
    )
    product.systemctl("thaw", f"ticket@{ticket}")


def test_a_dead_pipe_is_mended_and_the_gap_is_told(product: Product) -> None:
    """The writer of a pane log is killed: piped again, with an event that has the screen."""
    ticket = product.new("writer", "--driver", "command", "--", "sh", "-c", "echo before; exec cat")
    product.ctl("start", str(ticket))
    product.wait_screen(ticket, "before")
    log = f"{STATE}/tickets/{ticket}/pane.log"
    find = f'for p in /proc/[0-9]*; do [ "$(readlink $p/fd/1)" = {log} ] && basename $p; done; true'
    writer = product.machine.run(["sh", "-c", find]).stdout.split()
    product.machine.run(["kill", "-9", *writer])
    product.type(ticket, "unheard")
    assert "unheard" not in product.pane_log(ticket)
    assert heartbeat(product)["mended"] == [ticket]
    product.type(ticket, "heard")
    product.machine.wait_for(lambda: "heard" in product.pane_log(ticket), what="the log goes on")
    assert f"Ticket {ticket}: the writer of its pane log was gone" in journal(product, "gap")
    assert heartbeat(product)["mended"] == []


def test_what_came_apart_is_told_once(product: Product) -> None:
    """A session without its unit is a warning with a beginning and an end; worktrees have numbers."""
    repo = product.make_repository()
    ticket = product.new("apart", "--repo", repo, "--driver", "command", "--", "sleep", "1000")
    product.ctl("start", str(ticket))
    product.machine.sh(f"cd {HOME}/src/wt/ticket-{ticket}; echo x > x; echo more >> README")
    product.machine.sh("tmux new-session -d -s ticket-999 sleep 1000")
    data = heartbeat(product)
    assert "no-unit:999" in data["warnings"]
    (mine,) = [w for w in data["worktrees"] if w["ticket"] == ticket]
    assert mine["git"] == "*2"
    assert mine["disk_bytes"] > 0
    heartbeat(product)
    assert journal(product, "warning").count("The session ticket-999 runs") == 1
    product.machine.sh("tmux kill-session -t =ticket-999")
    assert "no-unit:999" not in heartbeat(product)["warnings"]
    assert "No longer so: The session ticket-999 runs" in journal(product, "warning_over")
